"""Graphs with probabilities of edges, written to files: a picture (.png), a page (.html), Graphviz (.dot), GraphML.

A graph is a dict of columns `cause`, `effect` and `prob`, a row for each ordered pair, and, where that is known,
`pair`: what the cause is to the effect, `causes`, `caused by`, `none` or `undecided`. Where its user has told edges
beforehand, `given` is not empty for the pairs that this decides: they are no findings, and stand apart, dotted. `about`
are sentences on what made it, and `notes` on what speaks against it, such as that its table is unlike those of
training. Pictures, pages and .dot show the edges with a probability of at least a threshold (1/2: more likely than
not), dashed where the pair is `none` or `undecided`, or, dashed, the ten strongest where no edge reaches the threshold;
.graphml holds every pair. Of two edges between one pair the drawing has one line, with a head where the pair says which
causes the other.

**Source:** layers by the longest path, nodes ordered by the mean place of their neighbours: Sugiyama, Tagawa & Toda
1981 (Methods for visual understanding of hierarchical system structures). Cycles are broken at their weakest edge.
"""

import html
import re
import textwrap
from typing import NamedTuple, Sequence
from xml.sax.saxutils import escape

import numpy as np

from jaxtrain.data import graph_curves, graph_texts

LIKELY, MOST_STRONG = 0.5, 10
NUM_SWEEPS = 6  # of ordering the nodes of the layers
CLIP, MOST_WIDE = 16, 200.0  # letters of a name in a picture; inches of a graph in one: viewers show none wider
DOUBTFUL = ("none", "undecided")  # pairs whose edge is dashed
LEAST_WIDE, PAGE_WIDE, SMALLEST = 520, 900, 0.7  # pixels of a graph in a page; share of its size that can be read
DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")  # of SHA-256
BLUE, INK, MUTED, WARN = "#1f6fb4", "#22262b", "#667079", "#9a4a00"
CSS = """:root{color-scheme:light dark;--ink:#1d2329;--soft:#59646e;--line:#dde2e7;--card:#fff;--edge:31,111,180;
--warn:#9a4a00}
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ec;--soft:#9aa6b1;--line:#333b44;--card:#1c2127;--edge:122,181,234;
--warn:#f0b06a}}
body{margin:auto;max-width:70rem;padding:1.5rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--card)}h1{font-size:1.5rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin-top:2rem}
p,.told{color:var(--soft);max-width:46rem;overflow-wrap:anywhere}.warn{color:var(--warn)}svg{display:block;
width:100%;height:auto}
svg text{font-size:13px;fill:var(--ink);text-anchor:middle;dominant-baseline:middle}
svg rect{fill:var(--card);stroke:var(--soft)}.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem}
td,th{border:1px solid var(--line);padding:.25rem .5rem;text-align:center;font-variant-numeric:tabular-nums}
th{font-weight:600;white-space:nowrap}th.name{position:sticky;left:0;z-index:1;background:var(--card);text-align:left}
thead th.turned{vertical-align:bottom;padding:.5rem .25rem}
.turned span{writing-mode:vertical-rl;transform:rotate(180deg)}
@media(max-width:40rem){body{padding:1rem}td,th{padding:.2rem .35rem;font-size:.8rem}th.name{max-width:7.5rem;overflow:
hidden;text-overflow:ellipsis}}"""


class Link(NamedTuple):
  """A line of a drawing: its nodes, the probability of the edge, whether it has a head, whether it is dashed, a text on
  it, and whether it was given, not found.
  """
  cause: int
  effect: int
  prob: float
  headed: bool
  dashed: bool
  title: str
  given: bool = False


class Graph(NamedTuple):
  """Nodes by name, probabilities [D, D] of edges from the first axis to the second, the edges shown, the threshold,
  what the cause is to the effect of each pair of which that is known, and the pairs that were given with the reason.
  """
  names: list[str]
  probs: np.ndarray
  shown: list[tuple[int, int]]
  threshold: float
  verdicts: dict[tuple[int, int], str] = {}
  given: dict[tuple[int, int], str] = {}

  @property
  def found(self) -> list[tuple[int, int]]:
    """The edges shown that were not given, the strongest first."""
    return [pair for pair in self.shown if pair not in self.given]

  @property
  def is_sure(self) -> bool:
    """Whether the edges that were found and are shown reach the threshold."""
    return bool(self.found) and self.probs[self.found[0]] >= self.threshold

  def links(self) -> list[Link]:
    """The lines that are drawn, the strongest first."""
    found, place = [], {pair: k for k, pair in enumerate(self.shown)}
    for (i, j), k in place.items():
      both, verdict = (j, i) in place, self.verdicts.get((i, j), "")
      if both and place[j, i] < k:
        continue
      title = f"{self.names[i]} -> {self.names[j]}: {self.probs[i, j]:.3f}" + (
          f", {self.names[j]} -> {self.names[i]}: {self.probs[j, i]:.3f}" * both + f" ({verdict})" * bool(verdict))
      if both and verdict == "caused by":
        i, j = j, i
      dashed, given = not self.is_sure or verdict in DOUBTFUL, (i, j) in self.given
      title = f"{self.names[i]} -> {self.names[j]}: given, not found" if given else title
      found.append(Link(i, j, float(max(self.probs[i, j], self.probs[j, i] if both else 0)),
                        not both or verdict in ("causes", "caused by"), dashed and not given, title, given))
    return found


def read(columns: dict[str, np.ndarray], threshold: float = LIKELY) -> Graph:
  """The graph of columns `cause`, `effect` and `prob`, and `pair` and `given` where there are such."""
  names = list(dict.fromkeys([*columns["cause"].tolist(), *columns["effect"].tolist()]))
  place = {name: k for k, name in enumerate(names)}
  pairs = [(place[cause], place[effect]) for cause, effect in zip(columns["cause"], columns["effect"])]
  probs = np.zeros((len(names), len(names)))
  for pair, prob in zip(pairs, columns["prob"]):
    probs[pair] = prob
  ranked = [divmod(int(k), len(names)) for k in np.argsort(-probs, axis=None, kind="stable")]
  ranked = [pair for pair in ranked if pair[0] != pair[1] and probs[pair] > 0]
  verdicts = dict(zip(pairs, map(str, columns["pair"]))) if "pair" in columns else {}
  given = {pair: str(why) for pair, why in zip(pairs, columns["given"]) if why} if "given" in columns else {}
  told, found = ([pair for pair in ranked if (pair in given) == is_given] for is_given in (True, False))
  likely = [pair for pair in found if probs[pair] >= threshold]
  return Graph(names, probs, told + (likely or found[:MOST_STRONG]), threshold, verdicts, given)


def strongest(columns: dict[str, np.ndarray]) -> list[str]:
  """The ten most probable edges as lines of a table, the most probable first; those of probability 0, and those that
  were given, are left out.
  """
  found = columns["given"] == "" if "given" in columns else np.ones(len(columns["prob"]), bool)
  order = [k for k in np.argsort(-columns["prob"], kind="stable") if columns["prob"][k] > 0 and found[k]][:MOST_STRONG]
  if not order:
    return ["no edge has a probability above 0"]
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
  links, num_told, D = graph.links(), len(graph.shown) - len(graph.found), len(graph.names)
  told = f"; dotted: {num_told} given by you, not found" * bool(num_told)
  if not graph.is_sure:
    return f"no edge is {what}" + f": the {len(graph.found)} strongest are drawn, dashed" * bool(graph.found) + told
  return (f"{len(graph.found)} edges that are {what}; darker is more probable"
          + "; all pairs in both directions, so that the graph says nothing" * (2 < len(graph.shown) == D * (D - 1))
          + "; dashed: doubtful, as neither direction has more than half of the probability, both at once not counted"
          * any(link.dashed for link in links)
          + "; without a head: both directions are there" * any(not link.headed for link in links) + told)


def write_png(path: str, columns: dict[str, np.ndarray], threshold: float = LIKELY, *,
              notes: Sequence[str] = (), about: Sequence[str] = ()) -> None:
  """A picture: the graph, beside it a heat map of all probabilities, above them what made it, and below them what is to
  be said of it.
  """
  import matplotlib
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure
  graph = read(columns, threshold)
  D, places, longest = len(graph.names), place_nodes(graph), max(map(len, map(clip, graph.names)))
  names = [clip(name).replace("$", r"\$") for name in graph.names]
  depth = layers(graph)
  with matplotlib.rc_context({"font.size": 9, "text.color": INK, "axes.labelcolor": MUTED}):
    size = float(np.clip(3.2 + 0.22 * D, 4.6, 9))
    widest = max(depth.count(level) for level in depth)
    wide = max(1.1 * size, min(widest * (0.085 * longest + 0.45), MOST_WIDE)) if max(depth) else 1.1 * size
    lines = lambda texts, letters: "\n".join(line for text in texts for line in textwrap.wrap(text, letters)).replace(
        "$", r"\$")
    letters = int(14 * (wide + size))
    high = size + 0.15 * (lines(about, letters).count("\n") + lines(notes, letters).count("\n"))
    figure = FigureCanvasAgg(Figure(figsize=(wide + size, high), layout="constrained")).figure
    left, right = figure.subplots(1, 2, width_ratios=(wide, size))
    box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": MUTED, "linewidth": 0.9}
    boxes = [left.text(x, y, name, ha="center", va="center", fontsize=9 if D <= 20 else 7, bbox=box)
             for name, (x, y) in zip(names, places)]
    left.set(xlim=(-0.15, 1.15), ylim=(-0.1, 1.1))
    left.axis("off")
    left.set_title("\n".join(textwrap.wrap(sentence(graph), int(13 * wide))), fontsize=9, color=MUTED)
    blank = np.eye(D, dtype=bool)
    for (i, j) in graph.given:
      blank[i, j] = True
      right.plot(j, i, "o" if graph.probs[i, j] else "x", color=MUTED, markersize=min(6.0, 60 / D))
    image = right.imshow(np.where(blank, np.nan, graph.probs), cmap="Blues", vmin=0, vmax=1)
    ticks = {"fontsize": 8 if D <= 20 else 6}
    right.set_xticks(range(D), names, rotation=90, **ticks)
    right.set_yticks(range(D), names, **ticks)
    right.set(xlabel="effect" + "\n● given by you, × ruled out by you" * bool(graph.given), ylabel="cause")
    for i, j in np.ndindex(D, D) if D <= 12 else ():
      if not blank[i, j]:
        right.text(j, i, f"{graph.probs[i, j]:.2f}", ha="center", va="center", fontsize=7,
                   color="white" if graph.probs[i, j] > 0.6 else INK)
    figure.colorbar(image, ax=right, label="probability of the edge", shrink=0.8)
    if about:
      figure.suptitle(lines(about, letters), fontsize=8, color=MUTED, x=0.01, ha="left")
    if notes:
      figure.supxlabel(lines(notes, letters), fontsize=8, color=WARN)
    draw_links(figure, left, graph, boxes)
    figure.savefig(path, format="png", dpi=150, facecolor="white", metadata={"Software": None})


def draw_links(figure, ax, graph: Graph, boxes: list) -> None:
  """The lines of a graph between the boxes of its nodes, which are texts of `ax`; all else is drawn."""
  figure.draw_without_rendering()
  ends = np.array([text.get_bbox_patch().get_window_extent().extents for text in boxes])  # pixels: left, low, ...
  at, half = (ends[:, :2] + ends[:, 2:]) / 2, (ends[:, 2:] - ends[:, :2]) / 2
  links, frame = graph.links(), ax.bbox.extents
  bends = graph_curves.choose_bends(at, half, [(link.cause, link.effect) for link in links], frame[:2], frame[2:])
  for link, bend in list(zip(links, bends))[::-1]:
    style = "-|>,head_width=0.25,head_length=0.5" if link.headed else "-"
    look = {"color": MUTED, "linestyle": (0, (1, 2)), "linewidth": 1.6} if link.given else {
        "color": BLUE, "alpha": 0.25 + 0.75 * link.prob, "linestyle": (0, (4, 2)) if link.dashed else "-",
        "linewidth": 0.8 + 1.6 * link.prob}
    ends = {"patchA": boxes[link.cause].get_bbox_patch(), "patchB": boxes[link.effect].get_bbox_patch(), "shrinkA": 1,
            "shrinkB": 2}
    arrow = look | ends | {"arrowstyle": style, "connectionstyle": f"arc3,rad={-bend}"}
    place = lambda k: boxes[k].get_position()
    ax.annotate("", place(link.effect), place(link.cause), arrowprops=arrow, zorder=2)  # below the names


def svg_of(graph: Graph) -> str:
  """The graph as an SVG element as wide as its page; what a pointer rests on tells its probability."""
  depth, wide = layers(graph), [8 * len(clip(name)) + 18 for name in graph.names]
  widest = max(depth.count(level) for level in depth) if max(depth) else 3
  width, height = max(LEAST_WIDE, widest * (max(wide) + 16) + 16), max(300, 90 * (max(depth) + 1))
  at = place_nodes(graph) * (width - 16, -(height - 70)) + (8, height - 35)
  at[:, 0] = np.clip(at[:, 0], np.array(wide) / 2 + 2, width - np.array(wide) / 2 - 2)
  half = np.array([[across / 2 + 4, 17] for across in wide])  # with room for the tip of an arrow
  parts = [f'<defs><marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
           f'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" style="fill:{color}"/></marker></defs>'
           for name, color in (("tip", "rgb(var(--edge))"), ("told", "var(--soft)"))]
  links = graph.links()
  edges = [(link.cause, link.effect) for link in links]
  bends = graph_curves.choose_bends(at, half, edges, np.zeros(2), np.array([width, height]))
  for link, edge, bend in list(zip(links, edges, bends))[::-1]:
    start, middle, end = graph_curves.between_boxes(at, half, edge, bend)
    head = f' marker-end="url(#{"told" if link.given else "tip"})"' * link.headed
    style = "stroke:var(--soft);stroke-width:2;stroke-dasharray:2 4" if link.given else (
        f"stroke:rgb(var(--edge));stroke-width:{0.8 + 2 * link.prob:.2f};opacity:{0.25 + 0.75 * link.prob:.2f}"
        + ";stroke-dasharray:6 4" * link.dashed)
    parts.append(f'<path d="M{start[0]:.1f} {start[1]:.1f}Q{middle[0]:.1f} {middle[1]:.1f} {end[0]:.1f} {end[1]:.1f}" '
                 f'fill="none"{head} style="{style}"><title>{escape(link.title)}</title></path>')
  for name, across, (x, y) in zip(graph.names, wide, at):
    parts.append(f'<g><title>{escape(str(name))}</title><rect x="{x - across / 2:.1f}" y="{y - 13:.1f}" '
                 f'width="{across}" height="26" rx="8"/><text x="{x:.1f}" y="{y:.1f}">{escape(clip(name))}</text></g>')
  size = f"min-width:{SMALLEST * width:.0f}px;max-width:{max(width, PAGE_WIDE)}px"
  return (f'<svg viewBox="0 0 {width} {height}" style="{size}" role="img" aria-label="graph">'
          f'{"".join(parts)}</svg>')


def write_html(path: str, columns: dict[str, np.ndarray], threshold: float = LIKELY, *,
               notes: Sequence[str] = (), about: Sequence[str] = ()) -> None:
  """A page that holds all it shows: what is to be said of the graph, the graph, what made it, a heat map with numbers,
  and the strongest edges.
  """
  graph = read(columns, threshold)
  of_given = lambda pair: f'<td class="told">{"given" if graph.probs[pair] else "ruled out"}</td>'
  cell = lambda i, j: "<td></td>" if i == j else of_given((i, j)) if (i, j) in graph.given else (
      f'<td style="background:rgba(var(--edge),{0.75 * graph.probs[i, j]:.2f})">{graph.probs[i, j]:.2f}</td>')
  D, text = len(graph.names), lambda name: html.escape(str(name))
  name_of = lambda k: f'<th class="name" scope="row" title="{text(graph.names[k])}">{text(graph.names[k])}</th>'
  head = "".join(f'<th class="turned" scope="col" title="{text(name)}"><span>{text(clip(name))}</span></th>'
                 for name in graph.names)
  rows = "".join(f"<tr>{name_of(i)}{''.join(cell(i, j) for j in range(D))}</tr>" for i in range(D))
  verdict = lambda pair: f"<td>{text(graph.verdicts.get(pair, ''))}</td>" * bool(graph.verdicts)
  prob = lambda pair: of_given(pair) if pair in graph.given else f"<td>{graph.probs[pair]:.3f}</td>"
  edges = "".join(f"<tr><td>{text(graph.names[i])}</td><td>{text(graph.names[j])}</td>{prob((i, j))}"
                  f"{verdict((i, j))}</tr>" for i, j in sorted(graph.shown, key=lambda pair: pair in graph.given))
  said = "".join(f'<p class="warn">{text(note)}</p>' for note in notes)
  short = lambda line: DIGEST.sub(lambda found: f'<span title="{found[0]}">{found[1]}</span>', text(line))
  made = "<h2>What this is</h2>" * bool(about) + "".join(f"<p>{short(line)}</p>" for line in about)
  pair = "<th>verdict on the pair</th>" * bool(graph.verdicts)
  page = (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
          f'content="width=device-width, initial-scale=1"><title>Graph</title><style>{CSS}</style></head><body>'
          f"<h1>Graph of {D} variables</h1>{said}<p>Drawn: {text(sentence(graph))}.</p>"
          f'<div class="scroll">{svg_of(graph)}</div>{made}'
          f'<h2>All probabilities</h2><p>Causes in rows, effects in columns.</p><div class="scroll"><table>'
          f'<thead><tr><th class="name"></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
          f'<h2>Edges that are drawn</h2><div class="scroll"><table>'
          f"<tr><th>cause</th><th>effect</th><th>probability</th>{pair}</tr>{edges}</table></div></body></html>\n")
  with open(path, "w", encoding="utf-8", errors="replace") as file:
    file.write(page)


def write_dot(path: str, columns: dict[str, np.ndarray], threshold: float = LIKELY, *,
              notes: Sequence[str] = (), about: Sequence[str] = ()) -> None:
  """A digraph of Graphviz: `graph_texts.dot`."""
  graph_texts.write(path, graph_texts.dot(read(columns, threshold), [*notes, *about]))


def write_graphml(path: str, columns: dict[str, np.ndarray], threshold: float = LIKELY, *,
                  notes: Sequence[str] = (), about: Sequence[str] = ()) -> None:
  """GraphML of all pairs: `graph_texts.graphml`."""
  graph_texts.write(path, graph_texts.graphml(read(columns, threshold), [*notes, *about]))


WRITERS = {".png": write_png, ".html": write_html, ".dot": write_dot, ".graphml": write_graphml}
