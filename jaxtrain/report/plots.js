// What the pictures and tables of comparison.js are made of: elements, numbers as text, controls, axes, sorted tables.
// Text from runs is only ever set as text.
"use strict";

const SVG = document.querySelector("svg").namespaceURI;
const data = JSON.parse(document.getElementById("data").textContent);
const COLORS = data.hues;
const main = data.metrics[data.main];
const RAMP = [[59, 91, 196], [138, 79, 181], [201, 70, 127], [231, 116, 63], [233, 176, 52]];
const tip = document.getElementById("tip");
const nameOf = run => data.runs[run].name + (data.runs[run].final ? "" : ` (${data.runs[run].status})`);
const missing = value => value === null || value === undefined;

function make(name, attributes, ...content) {
  const node = document.createElement(name);
  return fill(node, attributes, content);
}

function shape(name, attributes, ...content) {
  return fill(document.createElementNS(SVG, name), attributes, content);
}

function fill(node, attributes, content) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...content.flat().filter(part => !missing(part)));
  return node;
}

// Numbers with 4 significant digits, as the tables of the page have them.
function format(value) {
  if (missing(value)) return "–";
  if (typeof value === "string") return value;
  const size = Math.abs(value);
  const text = size >= 1e3 && size < 1e9 ? Math.round(value).toLocaleString("en-US")
    : value !== 0 && (size < 1e-4 || size >= 1e9) ? value.toExponential(3) : value.toPrecision(4);
  return text.replace("-", "−");
}

const short = value => typeof value === "string" ? value : missing(value) ? "–"
  : Number(value.toPrecision(4)).toString().replace("-", "−");

const colorAt = share => {
  const at = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1), low = Math.min(Math.floor(at), RAMP.length - 2);
  const mixed = RAMP[low].map((part, k) => Math.round(part + (RAMP[low + 1][k] - part) * (at - low)));
  return `rgb(${mixed.join(",")})`;
};

const rampShare = (value, low, high) => high > low ? (value - low) / (high - low) : 0.5;

const cut = (text, size) => text.length > size ? text.slice(0, size - 1) + "…" : text;

function showTip(event, text) {
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const right = event.clientX + 14, fits = right + tip.offsetWidth < innerWidth;
  const left = fits ? right : event.clientX - 14 - tip.offsetWidth;
  tip.style.left = `${Math.max(4, Math.min(left, innerWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 4))}px`;
}

// A picture that follows the pointer: find(x, y) gives the text to show, or nothing.
function follow(svg, find) {
  const moved = event => {
    const box = svg.getBoundingClientRect();
    showTip(event, find(event.clientX - box.left, event.clientY - box.top));
  };
  svg.addEventListener("pointermove", moved);
  svg.addEventListener("pointerdown", moved);
  svg.addEventListener("pointerleave", event => {
    if (event.pointerType === "touch") return;  // a finger that is lifted leaves too
    find(-1e9, -1e9);
    showTip(null, "");
  });
}

function select(label, options, chosen, changed) {
  const node = make("select", {change: () => changed(node.value)},
    options.map(([value, text]) => make("option", {value, selected: String(value) === String(chosen)}, cut(text, 60))));
  return make("label", {}, label, node);
}

function check(label, checked, changed) {
  const node = make("input", {type: "checkbox", change: () => changed(node.checked)});
  node.checked = checked;
  return make("label", {class: "check"}, node, label);
}

document.addEventListener("pointerdown", () => showTip(null, ""), true);

const NO_METRIC = "No run has a metric yet.";
const say = (id, words) => document.getElementById(id).append(make("p", {}, words));

// A section that is drawn again when its settings or the width of the page change.
function panel(id, draw) {
  const root = document.getElementById(id);
  let width = root.clientWidth;
  const again = () => {
    showTip(null, "");
    root.replaceChildren(...draw(again, Math.max(260, Math.floor(width) - 2)));
  };
  again();
  new ResizeObserver(() => {
    if (Math.abs(root.clientWidth - width) <= 1) return;
    width = root.clientWidth;
    requestAnimationFrame(again);
  }).observe(root);
}

// The smallest and the largest, without a spread of a long list.
function ends(values) {
  let [low, high] = [values[0], values[0]];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  return [low, high];
}

// --- axes ---------------------------------------------------------------------------------------------------------

function linearTicks(low, high, most, least) {
  const raw = Math.max((high - low) / Math.max(most, 1), least), power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(k => k * power).find(size => size >= raw * 0.999) || 10 * power;
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(k * step);
  return ticks;
}

function logTicks(low, high, most) {
  for (const digits of [[1, 2, 5], [1, 3], [1]]) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const digit of digits) ticks.push(digit * 10 ** power);
    }
    const inside = ticks.filter(tick => tick >= low * 0.999 && tick <= high * 1.001);
    if (inside.length <= most || digits.length === 1) {
      const every = Math.ceil(inside.length / most);
      return inside.length > 1 ? inside.filter((_, k) => k % every === 0) : [low, high];
    }
  }
}

// Positions from..to for values: a number axis (log on wish, or where the values span 30x or more), or categories.
// Few values, if further apart than `room`, are the ticks themselves.
function axis(values, from, to, wish = {}) {
  const {numeric = true, log = null, most = 6, margin = 0.04, room = Infinity, whole = false} = wish;
  const there = values.filter(value => !missing(value));
  if (!numeric) {
    const names = [...new Set(there)].sort((a, b) => a.localeCompare(b, "en", {numeric: true}));
    const width = (to - from) / Math.max(names.length, 1), every = Math.ceil(names.length / Math.max(most * 2, 1));
    const at = value => from + width * (names.indexOf(value) + 0.5);
    return {at, names, ticks: names.filter((_, k) => k % every === 0), width: Math.abs(width)};
  }
  let low = Math.min(...there), high = Math.max(...there);
  const isLog = (log === null ? low > 0 && high >= 29.9 * low : log) && low > 0;
  const scale = isLog ? Math.log10 : value => value;
  if (!there.length) [low, high] = [0, 1];
  if (low === high) {
    const around = Math.abs(low) / 10 || 1;
    [low, high] = isLog ? [low / 2, high * 2] : [low - around, high + around];
  }
  const gap = (scale(high) - scale(low)) * margin, first = scale(low) - gap, last = scale(high) + gap;
  const at = value => from + (to - from) * (scale(value) - first) / (last - first);
  const ends = isLog ? [10 ** first, 10 ** last] : [first, last];
  const few = [...new Set(there)].sort((a, b) => a - b);
  const apart = few.slice(1).map((value, k) => Math.abs(at(value) - at(few[k])));
  if (few.length <= 6 && Math.min(...apart, Infinity) > room) return {at, isLog, ticks: few, isFew: true};
  return {at, isLog, ticks: isLog ? logTicks(...ends, most) : linearTicks(...ends, most, whole ? 1 : 0)};
}

const label = (x, y, anchor, words, more) => shape("text", {x, y, "text-anchor": anchor, ...more}, words);

const withLog = (name, scale) => name + (scale.isLog ? " (log)" : "");

function drawAxes(svg, x, y, area, xLabel, yLabel) {
  const room = area.right - area.left, size = Math.max(4, Math.floor(room / Math.max(x.ticks.length, 1) / 7));
  for (const tick of x.ticks) {
    const at = x.at(tick);
    if (!x.names) svg.append(shape("line", {x1: at, x2: at, y1: area.top, y2: area.bottom, class: "grid"}));
    svg.append(label(at, area.bottom + 17, "middle", cut(short(tick), size)));
  }
  for (const tick of y.ticks) {
    const at = y.at(tick);
    if (!y.names) svg.append(shape("line", {x1: area.left, x2: area.right, y1: at, y2: at, class: "grid"}));
    svg.append(label(area.left - 7, at + 4, "end", cut(short(tick), Math.floor(area.left / 7))));
  }
  const name = {class: "name"};
  svg.append(label(area.right, area.bottom + 36, "end", cut(withLog(xLabel, x), Math.floor(room / 7)), name),
    label(8, 17, "start", cut(withLog(yLabel, y), Math.floor(area.right / 8)), name));
}

const pathOf = points => points.map(([x, y], k) => `${k ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

// Low to high, with the colours between: what a colour means.
function rampLegend(label, low, high) {
  const stops = [0, 0.25, 0.5, 0.75, 1].map(share => make("i", {style: `background:${colorAt(share)};margin:0`}));
  return make("p", {class: "note ramp"}, `${label}: ${format(low)} `, stops, ` ${format(high)}`);
}

// --- tables -------------------------------------------------------------------------------------------------------

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const read = (row, column) => row.cells[column].dataset.v;
  heads.forEach((head, column) => {
    if (!head.textContent) return;
    const button = make("button", {type: "button", click: () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows], values = new Map(rows.map(row => [row, read(row, column)]));
      const numeric = rows.every(row => missing(values.get(row)) || values.get(row) !== "" && !isNaN(values.get(row)));
      rows.sort((a, b) => {
        const one = values.get(a), two = values.get(b);
        if (missing(one) || missing(two)) return missing(one) - missing(two);
        return (up ? 1 : -1) * (numeric ? one - two : one.localeCompare(two, "en", {numeric: true}));
      });
      body.append(...rows);
    }});
    button.append(...head.childNodes);
    head.append(button);
  });
}
