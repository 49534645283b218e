"""Graphs with probabilities of edges, written to files: a picture (.png), a page (.html), Graphviz (.dot), GraphML.

A graph is a dict of columns `cause`, `effect` and `prob`, a row for each ordered pair; `notes` are sentences on it,
such as that its table is unlike those of training. Pictures, pages and .dot show the edges with a probability of at
least a threshold (1/2: more likely than not), or, dashed, the ten strongest where there is none; .graphml holds every
pair.

**Source:** layers by the longest path, nodes ordered by the mean place of their neighbours: Sugiyama, Tagawa & Toda
1981 (Methods for visual understanding of hierarchical system structures). Cycles are broken at their weakest edge.
"""

import html
import re
import textwrap
from typing import NamedTuple, Sequence
from xml.sax.saxutils import escape, quoteattr

import numpy as np

LIKELY, MOST_STRONG = 0.5, 10
NUM_SWEEPS = 6  # of ordering the nodes of the layers
CLIP = 16  # letters of a name in a picture
BLUE, INK, MUTED, WARN = "#1f6fb4", "#22262b", "#667079", "#9a4a00"
NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
STYLE = """:root{color-scheme:light dark;--ink:#1d2329;--soft:#59646e;--line:#dde2e7;--card:#fff;--edge:31,111,180;
--warn:#9a4a00}
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ec;--soft:#9aa6b1;--line:#333b44;--card:#1c2127;--edge:122,181,234;
--warn:#f0b06a}}
body{margin:auto;max-width:70rem;padding:1.5rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--card)}h1{font-size:1.5rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin-top:2rem}
p{color:var(--soft);max-width:46rem}.warn{
color:var(--warn);overflow-wrap:anywhere}svg{width:100%;max-width:44rem;height:auto;display:block}
svg text{font-size:13px;fill:var(--ink);text-anchor:middle;dominant-baseline:middle}
svg rect{fill:var(--card);stroke:var(--soft)}.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem}
td,th{border:1px solid var(--line);padding:.25rem .5rem;text-align:center;font-variant-numeric:tabular-nums}
th{font-weight:600;overflow-wrap:anywhere}"""


class Graph(NamedTuple):
  """Nodes by name, probabilities [D, D] of edges from the first axis to the second, the edges shown, the threshold."""
  names: list[str]
  probs: np.ndarray
  shown: list[tuple[int, int]]
  threshold: float

  @property
  def is_sure(self) -> bool:
    """Whether the edges that are shown reach the threshold."""
    return bool(self.shown) and self.probs[self.shown[0]] >= self.threshold


def read(columns: dict[str, np.ndarray], threshold: float = LIKELY) -> Graph:
  """The graph of columns `cause`, `effect` and `prob`."""
  names = list(dict.fromkeys([*columns["cause"].tolist(), *columns["effect"].tolist()]))
  place = {name: k for k, name in enumerate(names)}
  probs = np.zeros((len(names), len(names)))
  for cause, effect, prob in zip(columns["cause"], columns["effect"], columns["prob"]):
    probs[place[cause], place[effect]] = prob
  ranked = [divmod(int(k), len(names)) for k in np.argsort(-probs, axis=None, kind="stable")]
  ranked = [pair for pair in ranked if pair[0] != pair[1] and probs[pair] > 0]
  likely = [pair for pair in ranked if probs[pair] >= threshold]
  return Graph(names, probs, likely or ranked[:MOST_STRONG], threshold)


def strongest(columns: dict[str, np.ndarray]) -> list[str]:
  """The ten most probable edges as lines of a table, the most probable first."""
  order = np.argsort(-columns["prob"], kind="stable")[:MOST_STRONG]
  width = max(len(str(columns["cause"][k])) for k in order)
  return ["the strongest edges:"] + [
      f"  {columns['cause'][k]!s:>{width}} -> {columns['effect'][k]}  {columns['prob'][k]:.3f}" for k in order]


def clip(name: str) -> str:
  """A name on one line, cut where it is long."""
  name = " ".join(str(name).split())
  return name if len(name) <= CLIP else f"{name[:CLIP - 5]}…{name[-4:]}"


def place_nodes(graph: Graph) -> np.ndarray:
  """Places [D, 2] in the unit square: layers from top to bottom; a circle where there are no layers."""
  D = len(graph.names)
  depth = layers(graph)
  if max(depth) == 0:
    angle = np.pi / 2 - 2 * np.pi * np.arange(D) / D
    return 0.5 + 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
  x = np.zeros(D)
  rows = [[k for k in range(D) if depth[k] == level] for level in range(max(depth) + 1)]
  near = [[j for i, j in graph.shown if i == k] + [i for i, j in graph.shown if j == k] for k in range(D)]
  for sweep in range(NUM_SWEEPS + 1):
    for row in rows if sweep % 2 == 0 else rows[::-1]:
      if sweep:
        row.sort(key=lambda k: np.mean([x[j] for j in near[k]]) if near[k] else x[k])
      for place, k in enumerate(row):
        x[k] = (place + 0.5) / len(row)
  for level, row in enumerate(rows):  # so that an edge over two layers does not run through a node
    x[row] += 0.5 * (level % 2 - 0.5) / max(map(len, rows)) if len(row) < max(map(len, rows)) else 0.0
  return np.stack([np.clip(x, 0, 1), 1 - np.asarray(depth) / max(depth)], axis=1)


def layers(graph: Graph) -> list[int]:
  """The layer of each node: one below its lowest cause, by the shown edges without those that close a cycle."""
  D = len(graph.names)
  reach, kept = np.eye(D, dtype=bool), []
  for i, j in graph.shown:  # the strongest first
    if not reach[j, i]:
      reach |= np.outer(reach[:, i], reach[j])
      kept.append((i, j))
  depth = [0] * D
  for _ in range(D):
    for i, j in kept:
      depth[j] = max(depth[j], depth[i] + 1)
  return depth


def sentence(graph: Graph) -> str:
  """Which edges are shown, in words."""
  what = "more likely than not" if graph.threshold == LIKELY else f"of probability {graph.threshold:g} or more"
  if graph.is_sure:
    return f"{len(graph.shown)} edges that are {what}; darker is more probable"
  return f"no edge is {what}: the {len(graph.shown)} strongest are drawn, dashed"


def write_png(path: str, columns: dict[str, np.ndarray], threshold: float = LIKELY, *,
              notes: Sequence[str] = ()) -> None:
  """A picture: the graph, beside it a heat map of all probabilities, and below them what is to be said of it."""
  import matplotlib
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure
  graph = read(columns, threshold)
  D, places = len(graph.names), place_nodes(graph)
  names = [clip(name).replace("$", r"\$") for name in graph.names]
  with matplotlib.rc_context({"font.size": 9, "text.color": INK, "axes.labelcolor": MUTED}):
    size = float(np.clip(3.2 + 0.22 * D, 4.6, 9))
    figure = FigureCanvasAgg(Figure(figsize=(2.15 * size, size), layout="constrained")).figure
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": MUTED, "linewidth": 0.9}
    boxes = [left.text(x, y, name, ha="center", va="center", fontsize=9 if D <= 20 else 7, bbox=box).get_bbox_patch()
             for name, (x, y) in zip(names, places)]
    for i, j in graph.shown[::-1]:
      p, far = graph.probs[i, j], abs(places[i, 1] - places[j, 1]) > 1.5 / max(1, max(layers(graph)))
      arrow = {"arrowstyle": "-|>,head_width=0.25,head_length=0.5", "color": BLUE, "alpha": 0.25 + 0.75 * p,
               "linestyle": "-" if graph.is_sure else "--", "linewidth": 0.8 + 1.6 * p, "patchA": boxes[i],
               "patchB": boxes[j], "shrinkA": 1, "shrinkB": 2,
               "connectionstyle": f"arc3,rad={0.3 if far else 0.1}"}
      left.annotate("", places[j], places[i], arrowprops=arrow, zorder=2)  # below the names
    left.set(xlim=(-0.15, 1.15), ylim=(-0.1, 1.1))
    left.axis("off")
    left.set_title(sentence(graph), fontsize=9, color=MUTED)
    image = right.imshow(np.where(np.eye(D, dtype=bool), np.nan, graph.probs), cmap="Blues", vmin=0, vmax=1)
    ticks = {"fontsize": 8 if D <= 20 else 6}
    right.set_xticks(range(D), names, rotation=90, **ticks)
    right.set_yticks(range(D), names, **ticks)
    right.set(xlabel="effect", ylabel="cause")
    for i, j in np.ndindex(D, D) if D <= 12 else ():
      if i != j:
        right.text(j, i, f"{graph.probs[i, j]:.2f}", ha="center", va="center", fontsize=7,
                   color="white" if graph.probs[i, j] > 0.6 else INK)
    figure.colorbar(image, ax=right, label="probability of the edge", shrink=0.8)
    if notes:
      lines = [line for note in notes for line in textwrap.wrap(note, int(26 * size))]
      figure.supxlabel("\n".join(lines).replace("$", r"\$"), fontsize=8, color=WARN)
    figure.savefig(path, format="png", dpi=150, facecolor="white", metadata={"Software": None})


def svg_of(graph: Graph) -> str:
  """The graph as an SVG element; what a pointer rests on tells its probability."""
  width, height = 640, max(300, 90 * (max(layers(graph)) + 1))
  at = place_nodes(graph) * (width - 160, -(height - 70)) + (80, height - 35)
  dashed = "" if graph.is_sure else ";stroke-dasharray:6 4"
  parts = ['<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
           'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" style="fill:rgb(var(--edge))"/></marker></defs>']
  wide = [8 * len(clip(name)) + 18 for name in graph.names]
  leave = lambda k, along: along * min((wide[k] / 2 + 4) / max(abs(along[0]), 1e-9), 17 / max(abs(along[1]), 1e-9))
  for i, j in graph.shown[::-1]:
    along = at[j] - at[i]
    start, end = at[i] + leave(i, along), at[j] - leave(j, along)  # where the line leaves the boxes
    bend = (start + end) / 2 + (0.3 if abs(along[1]) > 140 else 0.1) * np.array([-along[1], along[0]])
    p = graph.probs[i, j]
    title = escape(f"{graph.names[i]} -> {graph.names[j]}: {p:.3f}")
    parts.append(f'<path d="M{start[0]:.1f} {start[1]:.1f}Q{bend[0]:.1f} {bend[1]:.1f} {end[0]:.1f} {end[1]:.1f}" '
                 f'fill="none" marker-end="url(#tip)" style="stroke:rgb(var(--edge));stroke-width:{0.8 + 2 * p:.2f};'
                 f'opacity:{0.25 + 0.75 * p:.2f}{dashed}"><title>{title}</title></path>')
  for name, across, (x, y) in zip(graph.names, wide, at):
    parts.append(f'<g><title>{escape(str(name))}</title><rect x="{x - across / 2:.1f}" y="{y - 13:.1f}" '
                 f'width="{across}" height="26" rx="8"/><text x="{x:.1f}" y="{y:.1f}">{escape(clip(name))}</text></g>')
  return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="graph">{"".join(parts)}</svg>'


def write_html(path: str, columns: dict[str, np.ndarray], threshold: float = LIKELY, *,
               notes: Sequence[str] = ()) -> None:
  """A page that holds all it shows: what is to be said of the graph, the graph, a heat map with numbers, and the
  strongest edges.
  """
  graph = read(columns, threshold)
  cell = lambda i, j: "<td></td>" if i == j else (
      f'<td style="background:rgba(var(--edge),{0.75 * graph.probs[i, j]:.2f})">{graph.probs[i, j]:.2f}</td>')
  D, text = len(graph.names), lambda name: html.escape(str(name))
  head = "".join(f"<th>{text(name)}</th>" for name in graph.names)
  rows = "".join(f"<tr><th>{text(graph.names[i])}</th>{''.join(cell(i, j) for j in range(D))}</tr>" for i in range(D))
  edges = "".join(f"<tr><td>{text(graph.names[i])}</td><td>{text(graph.names[j])}</td><td>{graph.probs[i, j]:.3f}</td>"
                  "</tr>" for i, j in graph.shown)
  said = "".join(f'<p class="warn">{text(note)}</p>' for note in notes)
  page = (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
          f'content="width=device-width, initial-scale=1"><title>Graph</title><style>{STYLE}</style></head><body>'
          f"<h1>Graph of {D} variables</h1>{said}<p>Drawn: {text(sentence(graph))}.</p>{svg_of(graph)}"
          f'<h2>All probabilities</h2><p>Causes in rows, effects in columns.</p><div class="scroll"><table>'
          f"<tr><th></th>{head}</tr>{rows}</table></div><h2>Edges that are drawn</h2><div class=\"scroll\"><table>"
          f"<tr><th>cause</th><th>effect</th><th>probability</th></tr>{edges}</table></div></body></html>\n")
  with open(path, "w", encoding="utf-8", errors="replace") as file:
    file.write(page)


def write_dot(path: str, columns: dict[str, np.ndarray], threshold: float = LIKELY, *,
              notes: Sequence[str] = ()) -> None:
  """A digraph of Graphviz, with the shown edges labelled by their probability, and notes as its label."""
  graph = read(columns, threshold)
  quoted = lambda name: '"' + str(name).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
  lines = [f"  label={quoted(chr(10).join(notes))};"] * bool(notes)
  lines += [f"  {quoted(name)};" for name in graph.names]
  lines += [f'  {quoted(graph.names[i])} -> {quoted(graph.names[j])} [label="{graph.probs[i, j]:.2f}", '
            f"weight={1 + round(99 * graph.probs[i, j])}, penwidth={0.5 + 2 * graph.probs[i, j]:.2f}"
            f"{'' if graph.is_sure else ', style=dashed'}];"
            for i, j in graph.shown]
  with open(path, "w", encoding="utf-8", errors="replace") as file:
    file.write("\n".join(["digraph {", "  node [shape=box, style=rounded];", *lines, "}", ""]))


def write_graphml(path: str, columns: dict[str, np.ndarray], threshold: float = LIKELY, *,
                 notes: Sequence[str] = ()) -> None:
  """GraphML of all pairs, with the attribute `probability` and notes as its description; letters that XML does not
  allow are left out.
  """
  graph = read(columns, threshold)
  lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">',
           '<key id="name" for="node" attr.name="name" attr.type="string"/>',
           '<key id="probability" for="edge" attr.name="probability" attr.type="double"/>',
           '<graph edgedefault="directed">']
  lines += [f"<desc>{escape(NOT_XML.sub('', ' '.join(notes)))}</desc>"] * bool(notes)
  lines += [f'<node id={quoteattr(f"n{k}")}><data key="name">{escape(NOT_XML.sub("", str(name)))}</data></node>'
            for k, name in enumerate(graph.names)]
  lines += [f'<edge source="n{i}" target="n{j}"><data key="probability">{float(graph.probs[i, j])!r}</data></edge>'
            for i, j in np.ndindex(*graph.probs.shape) if i != j]
  with open(path, "w", encoding="utf-8", errors="replace") as file:
    file.write("\n".join([*lines, "</graph>", "</graphml>", ""]))


WRITERS = {".png": write_png, ".html": write_html, ".dot": write_dot, ".graphml": write_graphml}
