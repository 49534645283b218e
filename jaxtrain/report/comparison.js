// Draws the page of comparison.py from its JSON: groups, the table of runs, curves, and what scatter.js has.

function runsTable() {
  const table = document.querySelector("table.runs"), rows = [...table.tBodies[0].rows];
  const texts = rows.map(row => row.textContent.toLowerCase());
  const count = make("span", {class: "note", role: "status"});
  const input = make("input", {type: "search", placeholder: "words, such as done 0.001", input: () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, k) => { row.hidden = !words.every(word => texts[k].includes(word)); shown += !row.hidden; });
    count.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
  }});
  table.parentNode.before(make("div", {class: "controls"}, make("label", {}, "Show rows that have", input), count));
  sortable(table);
}

// Groups from the best mean of a metric to the worst, those without one last; as they are where none is the best.
const ranked = metric => data.groups.map((_, g) => g).sort((a, b) => {
  if (metric.best === null) return a - b;
  const [one, two] = [metric.groups[a][1], metric.groups[b][1]];
  return missing(one) || missing(two) ? missing(one) - missing(two) : (metric.higher ? two - one : one - two);
});
const rank = main ? ranked(main) : data.groups.map((_, g) => g);
const orderColor = (k, n, ordered) => ordered && n > 3 ? colorAt(k / (n - 1)) : COLORS[k % COLORS.length];

// Value of a curve at x, between its points; nothing outside.
function valueAt(line, x) {
  if (!line.x.length || x < line.x[0] || x > line.x[line.x.length - 1]) return null;
  let low = 0, high = line.x.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (line.x[middle] <= x) low = middle; else high = middle;
  }
  const share = line.x[high] > line.x[low] ? (x - line.x[low]) / (line.x[high] - line.x[low]) : 0;
  return line.y[low] + share * (line.y[high] - line.y[low]);
}

// Mean of a group's runs at each position, with half the 95 % t interval of the mean where there are at least 3.
function meanLine(lines, label) {
  const points = lines.length === 1 ? lines[0].x : [...new Set(lines.flatMap(line => line.x))].sort((a, b) => a - b);
  const kept = points.filter((_, k) => k % Math.ceil(points.length / 200) === 0 || k === points.length - 1);
  const mean = {label, x: [], y: [], half: [], n: [], single: lines.length === 1};
  for (const x of kept) {
    const values = lines.map(line => valueAt(line, x)).filter(value => value !== null);
    if (!values.length) continue;
    const n = values.length, middle = values.reduce((a, b) => a + b) / n;
    const spread = Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / Math.max(n - 1, 1));
    mean.x.push(x);
    mean.y.push(middle);
    mean.n.push(n);
    mean.half.push(n >= 3 ? data.t[Math.min(n - 1, 100) - 1] * spread / Math.sqrt(n) : null);
  }
  return mean;
}

// Lines to draw: one per group, or per run, each with the key that colours it.
function linesOf(record, byRun, field) {
  const byGroup = new Map(data.groups.map((_, g) => [g, []]));
  record.runs.forEach((run, k) => {
    const x = data.positions[record.x[k]], y = record.y[k], there = x.map((_, i) => i).filter(i => !missing(y[i]));
    const line = {x: there.map(i => x[i]), y: there.map(i => y[i]), run, label: nameOf(run), single: true};
    byGroup.get(data.runs[run].group).push(line);
  });
  const coloured = (line, g, run) => field ? {...line, key: short(field.values[run]), order: field.values[run]}
    : {...line, key: data.groups[g], order: g};
  return rank.filter(g => byGroup.get(g).length).flatMap(g => {
    const members = byGroup.get(g);
    if (byRun) return members.map(line => coloured(line, g, line.run));
    return [coloured(meanLine(members, data.groups[g]), g, members[0].run)];
  });
}

function curves() {
  if (!data.curves.length) return say("curves", "No run has a curve yet.");
  const judge = main && main.best !== null && !main.name.endsWith("loss") ? main.name.replace("best ", "") : "";
  const first = data.curves.find(curve => `${curve.split}_${curve.name}` === judge)
    || data.curves.find(curve => curve.name === "loss" && curve.split === "val") || data.curves[0];
  const colorOptions = [["group", "group"], ...data.fields.map(one => [one.key, one.name])];
  const state = {name: first.name, split: first.split, color: "group", byRun: false, log: null, shown: {}};
  panel("curves", (again, width) => {
    const splits = data.curves.filter(curve => curve.name === state.name).map(curve => curve.split);
    if (!splits.includes(state.split)) state.split = splits[0];
    const record = data.curves.find(curve => curve.name === state.name && curve.split === state.split);
    const field = data.fields.find(one => one.key === state.color);
    const byRun = state.byRun || Boolean(field && !field.leads), lines = linesOf(record, byRun, field);
    const byText = (a, b) => a.key.localeCompare(b.key, "en", {numeric: true});
    if (field) lines.sort(field.numeric ? (a, b) => a.order - b.order : byText);
    const keys = [...new Set(lines.map(line => line.key))];
    const shown = state.shown[state.color] = state.shown[state.color]
      || new Set(field ? keys : keys.slice(0, 8));
    const own = key => data.places[data.groups.indexOf(key)];  // groups have the colours that the figures give them
    const color = new Map(keys.map((key, k) => [key, !field && data.groups.length <= COLORS.length ? COLORS[own(key)]
      : orderColor(k, keys.length, field && field.numeric)]));
    const visible = lines.filter(line => shown.has(line.key) && line.x.length);
    const all = visible.flatMap(line => line.y).sort((a, b) => a - b), canLog = all.length > 0 && all[0] > 0;
    const falls = canLog && all[all.length - 1] > 8 * all[all.length >> 1];
    const log = canLog && (state.log === null ? falls : state.log);
    const set = change => value => { Object.assign(state, change(value)); again(); };
    const toggle = key => { if (!shown.delete(key)) shown.add(key); again(); };
    const unique = [...new Set(data.curves.map(curve => curve.name))];
    return [
      make("div", {class: "controls"},
        select("metric", unique.map(name => [name, name]), state.name, set(name => ({name, log: null}))),
        select("split", splits.map(split => [split, split]), state.split, set(split => ({split, log: null}))),
        select("colour", colorOptions, state.color, set(color => ({color}))),
        check("single runs", byRun, set(on => ({byRun: on}))),
        check("log scale", log, set(on => ({log: on})))),
      make("div", {class: "plot"}, curvesPicture(visible, color, width, log, `${state.split} ${state.name}`)),
      make("div", {class: "legend"}, keys.map(key => make("button",
        {type: "button", "aria-pressed": String(shown.has(key)), click: () => toggle(key)},
        make("i", {style: `background:${color.get(key)}`}), key))),
      make("div", {class: "controls"},
        make("button", {type: "button", click: () => { keys.forEach(key => shown.add(key)); again(); }}, "show all"),
        make("button", {type: "button", click: () => { shown.clear(); again(); }}, "show none")),
      make("p", {class: "note"}, byRun ? "A line is a run." : `A line is the mean over the ${data.word}s of a group, `
        + `its band the 95 % t interval of that mean, from 3 ${data.word}s on. Thin lines are single runs. Where runs `
        + "stop early, the mean is over those that went on.",
        keys.length <= 8 || field ? "" : main && main.best !== null
          ? ` Groups stand from best to worst by ${main.name}; at first only the best 8 are shown.`
          : " At first only 8 groups are shown.",
        state.log && !canLog ? " No log scale: some values are not above 0." : ""),
    ];
  });
}

function curvesPicture(lines, color, width, log, name) {
  const height = Math.round(Math.min(440, Math.max(300, width * 0.5)));
  const area = {left: 58, right: width - 14, top: 30, bottom: height - 46};
  const svg = shape("svg", {width, height, role: "img", "aria-label": `curves of ${name}`});
  if (!lines.length) {
    svg.append(label(width / 2, height / 2, "middle", "nothing to show"));
    return svg;
  }
  const hasBands = lines.filter(line => !line.single).length <= 12;
  const band = (line, k) => hasBands && line.half && line.half[k] || 0;
  const positions = ends(lines.flatMap(line => line.x)), means = ends(lines.flatMap(line => line.y));
  const x = axis(positions, area.left, area.right, {log: false, margin: 0, most: width / 110, whole: true});
  const floor = means[0] >= 0 ? 0 : -Infinity;  // what is never negative has no band below 0
  const around = line => line.y.flatMap((value, k) => [Math.max(value - band(line, k), floor), value + band(line, k)]);
  const edges = ends(lines.flatMap(around));
  const room = log ? 0 : (means[1] - means[0]) / 2;  // a wide band may be cut, so that it does not flatten the rest
  const values = [Math.max(edges[0], means[0] - room), Math.min(edges[1], means[1] + room)];
  const y = axis(values, area.bottom, area.top, {log, most: 6});
  drawAxes(svg, x, y, area, data.unit, name);
  const clip = value => Math.max(area.top - 5, Math.min(area.bottom + 5, value));
  for (const line of lines) {
    if (line.half && hasBands) {
      const there = line.x.map((_, k) => k).filter(k => line.half[k] !== null);
      const edge = sign => there.map(k => {
        const value = Math.max(line.y[k] + sign * line.half[k], floor);
        return [x.at(line.x[k]), log && value <= 0 ? area.bottom : clip(y.at(value))];
      });
      const style = `fill:${color.get(line.key)};opacity:.18`;
      svg.append(shape("path", {d: pathOf([...edge(1), ...edge(-1).reverse()]), style}));
    }
  }
  for (const line of lines) {
    line.points = line.x.map((at, k) => [x.at(at), y.at(line.y[k])]);
    const thin = lines.length > 60 ? "stroke-width:.7;opacity:.6" : "stroke-width:1.1";
    const look = line.single ? thin : "stroke-width:2";
    svg.append(shape("path", {d: pathOf(line.points), style: `stroke:${color.get(line.key)};${look}`}));
    if (line.points.length === 1) {
      const [cx, cy] = line.points[0];
      svg.append(shape("circle", {cx, cy, r: 3, style: `fill:${color.get(line.key)}`}));
    }
  }
  const mark = shape("g");
  svg.append(mark);
  follow(svg, (px, py) => {
    let best = null, distance = 40;
    for (const line of lines) {
      line.points.forEach(([ax, ay], k) => {
        const away = Math.abs(ax - px) + Math.abs(ay - py);
        if (away < distance) [best, distance] = [{line, k}, away];
      });
    }
    mark.replaceChildren();
    if (!best) return "";
    const {line, k} = best, [cx, cy] = line.points[k], half = line.half ? line.half[k] : null;
    mark.append(shape("path", {d: pathOf(line.points), style: `stroke:${color.get(line.key)};stroke-width:3.2`}),
      shape("circle", {cx, cy, r: 4.5, style: `fill:${color.get(line.key)};stroke:var(--card);stroke-width:1.5`}));
    const band = half === null ? "" : ` (${format(line.y[k] - half)} to ${format(line.y[k] + half)})`;
    const n = line.n ? `, ${line.n[k]} ${data.word}${line.n[k] === 1 ? "" : "s"}` : "";
    return `${line.label}\n${data.unit} ${short(line.x[k])}: ${format(line.y[k])}${band}${n}`;
  });
  return svg;
}

const VERDICTS = {"1": ["better", "good"], "-1": ["worse", "bad"], "0": ["undecided", "warn"]};

function verdictOf(pair, n, reference, isBest) {
  const [shared, , , , p, verdict, more] = pair, than = isBest ? "the best" : cut(data.groups[reference], 40);
  if (missing(p)) {
    const why = !n ? "no final value" : shared < 3 ? `needs at least 3 shared ${data.word}s`
      : `no test: equal differences in all ${data.word}s`;
    return [["undecided", "warn"], why];
  }
  if (verdict) return [VERDICTS[verdict], `than ${than}`];
  const many = more > 1000 ? "over 1,000" : `about ${more}`;
  return [VERDICTS[0], `against ${than}; ${many} more ${data.word}${more === 1 ? "" : "s"}`];
}

// Where the mean and its interval lie between the smallest and the largest of all groups.
function intervalBar([, mean, , low, high], [least, most]) {
  const svg = shape("svg", {width: 130, height: 16, "aria-hidden": "true"});
  const at = value => 6 + 118 * rampShare(value, least, most), level = {y1: 8, y2: 8};
  svg.append(shape("line", {x1: 6, x2: 124, ...level, class: "grid"}));
  const style = "stroke:var(--link);stroke-width:3";
  if (!missing(low)) svg.append(shape("line", {x1: at(low), x2: at(high), ...level, style}));
  if (!missing(mean)) svg.append(shape("circle", {cx: at(mean), cy: 8, r: 4, style: "fill:var(--link)"}));
  return svg;
}

function groups() {
  if (!main) return say("groups", NO_METRIC);
  const state = {metric: data.main, reference: "best"};
  panel("groups", again => {
    const metric = data.metrics[state.metric], references = Object.keys(metric.pairs).map(Number);
    if (state.reference !== "best" && !references.includes(Number(state.reference))) state.reference = "best";
    const isBest = state.reference === "best" || Number(state.reference) === metric.best;
    const reference = state.reference === "best" ? metric.best : Number(state.reference);
    const set = name => value => { state[name] = value; again(); };
    const best = [["best", `the best: ${data.groups[metric.best]}`]];
    const names = metric.best === null ? [] : [...best, ...references.map(g => [g, data.groups[g]])];
    return [
      make("div", {class: "controls"}, select("metric", metricOptions, state.metric, set("metric")),
        names.length ? select("reference", names, state.reference, set("reference")) : null),
      groupsTable(metric, reference, isBest, ranked(metric)),
      make("p", {class: "note"}, `${metric.name}: ${metric.words}. Difference: group less reference. p: paired t-test, `
        + "adjusted by Holm.",
        metric.lost ? ` ${metric.lost} finished runs have no finite value and are left out.` : ""),
    ];
  });
}

function groupsTable(metric, reference, isBest, order) {
  const head = ["group", "verdict", `${data.word}s`, "mean", "sd", "95 % interval", "", "difference",
    "its 95 % interval", "p", "shared"];
  const range = (low, high) => missing(low) ? "–" : `${format(low)} to ${format(high)}`;
  const edges = ends(metric.groups.flatMap(group => [group[1], group[3], group[4]]).filter(value => !missing(value)));
  const cell = (value, text, ...more) => make("td", {"data-v": missing(value) ? null : value}, text, ...more);
  const rows = order.map(g => {
    const group = metric.groups[g], [n, mean, deviation, low, high] = group;
    const [shared, difference, from, to, p] = reference === null ? [] : metric.pairs[reference][g];
    const [[word, color], why] = reference === null || g === reference ? [[null], isBest ? "the best" : "reference"]
      : verdictOf(metric.pairs[reference][g], n, reference, isBest);
    const verdict = reference === null ? "–" : [word && make("span", {class: `badge ${color}`}, word), ` ${why}`];
    const pValue = missing(p) ? "–" : p < 1e-3 ? "< 0.001" : p.toFixed(3);
    return make("tr", {}, cell(data.groups[g], data.groups[g]), cell(`${word || ""} ${why}`, verdict),
      cell(n, String(n)), cell(mean, format(mean)), cell(deviation, format(deviation)),
      cell(low, n && n < 3 ? "under 3 runs" : range(low, high)), make("td", {}, intervalBar(group, edges)),
      cell(difference, format(difference)), cell(from, range(from, to)), cell(p, pValue), cell(shared, short(shared)));
  });
  const top = make("tr", {}, head.map(text => make("th", {scope: "col"}, text)));
  const table = make("table", {class: "groups"}, make("thead", {}, top), make("tbody", {}, rows));
  sortable(table);
  return make("div", {class: "scroll", tabindex: 0}, table);
}

groups();
runsTable();
curves();
plane();
parallel();
