// Draws fields of runs against metrics: scatter, heat map, parallel coordinates.

const columns = [
  ...data.fields.map(field => ({id: `f:${field.key}`, ...field})),
  ...data.metrics.map(metric => ({id: `m:${metric.name}`, numeric: true, ...metric})),
];
const columnOptions = columns.map(column => [column.id, column.name]);
const metricOptions = data.metrics.map((metric, k) => [k, metric.name]);
const distinct = column => new Set(column.values.filter(value => !missing(value))).size;
const byId = id => columns.find(column => column.id === id);

function plane() {
  const leads = data.fields.filter(field => field.leads);
  const usual = leads.length ? leads : data.fields;
  if (!usual.length || !main) return say("fields", main ? "No field varies." : NO_METRIC);
  const state = {metric: data.main, x: `f:${usual[0].key}`, y: usual[1] ? `f:${usual[1].key}` : `m:${main.name}`};
  state.kind = usual[1] && usual.slice(0, 2).every(field => distinct(field) <= 12) ? "heat" : "scatter";
  panel("fields", (again, width) => {
    const set = name => value => { state[name] = value; again(); };
    const [x, y, metric] = [byId(state.x), byId(state.y), data.metrics[state.metric]];
    const runs = data.runs.map((_, k) => k).filter(k => ![x.values[k], y.values[k], metric.values[k]].some(missing)
      && (data.runs[k].final || state.kind === "scatter"));
    const picture = state.kind === "heat" ? heatPicture : scatterPicture;
    return [
      make("div", {class: "controls"},
        select("picture", [["scatter", "scatter"], ["heat", "heat map"]], state.kind, set("kind")),
        select("across", columnOptions, state.x, set("x")), select("up", columnOptions, state.y, set("y")),
        select("colour", metricOptions, state.metric, set("metric"))),
      ...picture(x, y, metric, runs, width),
      make("p", {class: "note"}, state.kind === "heat"
        ? `A cell is the mean of ${metric.name} (${metric.words}) over all finished runs in it, whatever their other `
          + "fields; n says how many. "
        : `A point is a run; its colour is ${metric.name} (${metric.words}). Rings are runs without a final value. `
          + "Points on few values are spread a little. ", `${runs.length} of ${data.runs.length} runs are here.`),
    ];
  });
}

function scatterPicture(x, y, metric, runs, width) {
  const height = Math.round(Math.min(460, Math.max(320, width * 0.55)));
  const area = {left: y.numeric ? 66 : Math.min(150, width * 0.3), right: width - 16, top: 30, bottom: height - 46};
  const svg = shape("svg", {width, height, role: "img", "aria-label": `${y.name} against ${x.name}`});
  const most = width / 90;
  const across = axis(runs.map(k => x.values[k]), area.left, area.right, {numeric: x.numeric, most, room: 50});
  const up = axis(runs.map(k => y.values[k]), area.bottom, area.top, {numeric: y.numeric, room: 18});
  drawAxes(svg, across, up, area, x.name, y.name);
  const [low, high] = ends(runs.map(k => metric.values[k]));
  const room = scale => scale.names ? Math.min(scale.width * 0.5, 60) : scale.isFew ? 14 : 0;
  const placed = (scale, value, k, part) => scale.at(value) + ((k * part) % 1 - 0.5) * room(scale);
  const points = runs.map(k => [placed(across, x.values[k], k, 0.618), placed(up, y.values[k], k, 0.414)]);
  points.forEach(([cx, cy], i) => {
    const color = colorAt(rampShare(metric.values[runs[i]], low, high));
    const style = data.runs[runs[i]].final ? `fill:${color};opacity:.85;stroke:var(--card);stroke-width:.7`
      : `fill:none;stroke:${color};stroke-width:1.8`;
    svg.append(shape("circle", {cx, cy, r: runs.length > 200 ? 3.5 : 5, style}));
  });
  const mark = shape("g");
  svg.append(mark);
  follow(svg, (px, py) => {
    let best = -1, distance = 30;
    points.forEach(([cx, cy], i) => {
      const away = Math.hypot(cx - px, cy - py);
      if (away < distance) [best, distance] = [i, away];
    });
    mark.replaceChildren();
    if (best < 0) return "";
    const [cx, cy] = points[best];
    mark.append(shape("circle", {cx, cy, r: 8, style: "fill:none;stroke:var(--ink);stroke-width:1.5"}));
    return describeRun(runs[best], [x, y, metric]);
  });
  return [make("div", {class: "plot"}, svg), ...runs.length ? [rampLegend(metric.name, low, high)] : []];
}

const describeRun = (run, shown) => {
  const lines = shown.map(({name, words, values}) => `${name}: ${words ? format(values[run]) : short(values[run])}`);
  return [nameOf(run), ...new Set(lines)].join("\n");
};

// Cells of a column: its values where they are few, else 8 ranges, equal on the axis's scale.
function cellsOf(column, runs) {
  const values = runs.map(k => column.values[k]);
  const names = [...new Set(values)].sort((a, b) => column.numeric ? a - b : a.localeCompare(b, "en", {numeric: true}));
  if (!column.numeric || names.length <= 12) return {names: names.map(short), of: value => names.indexOf(value)};
  const [low, high] = ends(names), log = low > 0 && high >= 29.9 * low, to = log ? Math.log10 : value => value;
  const edge = k => { const at = to(low) + (to(high) - to(low)) * k / 8; return log ? 10 ** at : at; };
  const text = value => Number(value.toPrecision(2)).toString().replace("-", "−");
  return {names: [0, 1, 2, 3, 4, 5, 6, 7].map(k => `${text(edge(k))}–${text(edge(k + 1))}`),
    of: value => Math.min(7, Math.floor(8 * rampShare(to(value), to(low), to(high))))};
}

function heatPicture(x, y, metric, runs, width) {
  const across = cellsOf(x, runs), up = cellsOf(y, runs), cells = new Map();
  for (const run of runs) {
    const key = `${across.of(x.values[run])} ${up.of(y.values[run])}`;
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(metric.values[run]);
  }
  const left = Math.min(width * 0.34, 24 + 7 * Math.max(...up.names.map(name => name.length), 4));
  const wide = Math.min(240, (width - left - 12) / Math.max(across.names.length, 1)), high = 40, top = 30;
  const tilt = wide < 8 + 7 * Math.max(...across.names.map(name => name.length), 1);
  const bottom = top + high * up.names.length, height = bottom + (tilt ? 100 : 46);
  const title = `mean ${metric.name} by ${x.name} and ${y.name}`;
  const svg = shape("svg", {width, height, role: "img", "aria-label": title});
  const means = new Map([...cells].map(([key, values]) => [key, values.reduce((a, b) => a + b) / values.length]));
  const [least, most] = ends([...means.values()]);
  svg.append(label(8, 17, "start", cut(y.name, Math.floor(width / 8)), {class: "name"}),
    label(left, height - 8, "start", cut(x.name, Math.floor((width - left) / 8)), {class: "name"}));
  up.names.forEach((name, j) => {
    svg.append(label(left - 7, bottom - (j + 0.5) * high + 4, "end", cut(name, Math.floor((left - 8) / 6.5))));
  });
  across.names.forEach((name, i) => {
    const at = left + (i + 0.5) * wide, turned = {transform: `translate(${at + 4} ${bottom + 12}) rotate(-50)`};
    svg.append(tilt ? label(0, 0, "end", cut(name, 12), turned) : label(at, bottom + 17, "middle", name));
    up.names.forEach((_, j) => {
      const key = `${i} ${j}`, top = bottom - (j + 1) * high + 1;
      const box = {x: left + i * wide + 1, y: top, width: wide - 2, height: high - 2, rx: 3};
      if (!means.has(key)) return svg.append(shape("rect", {...box, style: "fill:none;stroke:var(--line)"}));
      const share = rampShare(means.get(key), least, most);
      const text = {class: "cell", style: `fill:${share > 0.8 ? "#1d2329" : "#fff"}`};
      svg.append(shape("rect", {...box, style: `fill:${colorAt(share)}`}));
      if (wide >= 46) svg.append(label(at, top + 16, "middle", format(means.get(key)), text));
      if (wide >= 30) svg.append(label(at, top + (wide >= 46 ? 31 : 23), "middle", `n=${cells.get(key).length}`, text));
    });
  });
  follow(svg, (px, py) => {
    const i = Math.floor((px - left) / wide), j = Math.floor((bottom - py) / high), key = `${i} ${j}`;
    return means.has(key) ? `${x.name}: ${across.names[i]}\n${y.name}: ${up.names[j]}\n`
      + `mean ${metric.name}: ${format(means.get(key))}, n=${cells.get(key).length}` : "";
  });
  return [make("div", {class: "plot"}, svg), ...means.size ? [rampLegend(`mean ${metric.name}`, least, most)] : []];
}

function parallel() {
  const leads = data.fields.filter(field => field.leads), most = 12;
  if (!leads.length || !main) return say("parallel", main ? "No field varies but those of seeds." : NO_METRIC);
  const state = {metric: data.main};
  panel("parallel", (again, width) => {
    const metric = data.metrics[state.metric];
    const runs = data.runs.map((_, k) => k).filter(k => !missing(metric.values[k]));
    const [low, high] = ends(runs.map(k => metric.values[k]));
    return [
      make("div", {class: "controls"}, select("metric", metricOptions, state.metric, value => {
        state.metric = value;
        again();
      })),
      make("div", {class: "plot"}, parallelPicture([...leads.slice(0, most), metric], metric, runs, width)),
      ...runs.length ? [rampLegend(metric.name, low, high)] : [],
      make("p", {class: "note"}, `A line is a run; its colour is ${metric.name} (${metric.words}). Dashed are runs `
        + "without a final value.",
        leads.length > most ? ` Of ${leads.length} fields the first ${most} are shown.` : ""),
    ];
  });
}

function parallelPicture(shown, metric, runs, room) {
  const width = Math.max(room, 120 * shown.length), height = 380, top = 56, bottom = height - 40, gap = 60;
  const svg = shape("svg", {width, height, role: "img", "aria-label": `fields and ${metric.name} of each run`});
  const at = k => gap + (width - 2 * gap) * k / (shown.length - 1);
  const axes = shown.map(({values, numeric}) => axis(runs.map(run => values[run]), bottom, top,
    {numeric, margin: 0, room: 14}));
  const [low, high] = ends(runs.map(run => metric.values[run]));
  const upAt = (k, value) => missing(value) ? bottom + 18 : axes[k].at(value);
  const points = runs.map(run => shown.map(({values}, k) => [at(k), upAt(k, values[run])]));
  const value = i => metric.values[runs[i]], look = runs.length > 100 ? "stroke-width:1;opacity:.45" : "opacity:.8";
  const worstFirst = runs.map((_, i) => i).sort((a, b) => metric.higher ? value(a) - value(b) : value(b) - value(a));
  for (const i of worstFirst) {
    const dashes = data.runs[runs[i]].final ? "" : ";stroke-dasharray:3 3";
    const style = `stroke-width:1.7;stroke:${colorAt(rampShare(value(i), low, high))};${look}${dashes}`;
    svg.append(shape("path", {d: pathOf(points[i]), style}));
  }
  const mark = shape("g");
  svg.append(mark);
  const step = (width - 2 * gap) / (shown.length - 1), size = Math.floor(step / 7.5);
  const halo = {style: "paint-order:stroke;stroke:var(--card);stroke-width:3px"};
  shown.forEach((column, k) => {
    const name = cut(withLog(column.name, axes[k]), 2 * size - 2), isLast = k === shown.length - 1;
    svg.append(shape("line", {x1: at(k), x2: at(k), y1: top, y2: bottom, style: "stroke:var(--soft)"}),
      label(isLast ? width - 8 : k ? at(k) : 8, k % 2 ? 34 : 18, isLast ? "end" : k ? "middle" : "start", name,
        {class: "name"}));
    for (const tick of axes[k].ticks) {
      const place = [at(k) + (isLast ? -6 : 6), axes[k].at(tick) + 4, isLast ? "end" : "start"];
      svg.append(label(...place, cut(short(tick), size - 2), halo));
    }
    if (runs.some(run => missing(column.values[run]))) svg.append(label(at(k), bottom + 32, "middle", "none"));
  });
  follow(svg, (px, py) => {
    let best = -1, distance = 18;
    const k = Math.max(0, Math.min(shown.length - 2, Math.floor((px - gap) / step)));
    const share = (px - at(k)) / (at(k + 1) - at(k));
    points.forEach((line, i) => {
      const away = Math.abs(line[k][1] + share * (line[k + 1][1] - line[k][1]) - py);
      if (away < distance) [best, distance] = [i, away];
    });
    mark.replaceChildren();
    if (best < 0) return "";
    mark.append(shape("path", {d: pathOf(points[best]), style: "stroke:var(--ink);stroke-width:3"}));
    return describeRun(runs[best], shown);
  });
  return svg;
}
