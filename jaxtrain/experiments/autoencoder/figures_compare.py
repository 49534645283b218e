"""Figures of several runs of an autoencoder: which latent space keeps most for its bits, what the weight of the globals
trades, which corruptions are seen, and how well codebooks are used.

Each takes the runs and a label for each; runs that differ in their seed alone share one. Runs without the numbers that
a figure needs are left out of it.
"""

import os
import re
from typing import Any, Callable, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from jaxtrain.experiments.autoencoder.figures_findings import corruptions, finite, num_codes, scalars_of, setting
from jaxtrain.report.figures import HUES, INK, MUTED, clip_text, new_figure
from jaxtrain.report.panels import field_lines, panel_grid
from jaxtrain.workdir import reading
from jaxtrain.workdir.reading import RunData

KINDS = ("none", "linear", "vq", "fsq", "rvq", "vae")  # of latent spaces, in the order of their colours
MAX_LINES, MAX_LABELS, MAX_GROUPS = 60, 12, 24
FONT, LETTER, LINE = 7, 4.2, 8.5  # of labels, in points: size, width of a letter, height of a line
# Where a label may stand: points from its dot, to the right and to the left, near places first.
PLACES = tuple((x, y) for y in (0, 9, -9, 18, -18, 27, -27, 36, -36) for x in (5, -5))


class Kept(NamedTuple):
  """Runs that have what a figure needs, the label of each, and its number [n] or numbers."""
  runs: list[RunData]
  labels: list[str]
  values: list


def kept(runs: list[RunData], labels: list[str], value: Callable[[RunData], Any]) -> Kept:
  """The runs for which `value(run)` is not None."""
  found = [(run, label, one) for run, label in zip(runs, labels) if (one := value(run)) is not None]
  return Kept(*([one[k] for one in found] for k in range(3)))


def kind_of(run: RunData) -> str:
  """The kind of a run's latent space."""
  return str(setting(run, "model.latent.kind"))


def hue_of(kind: str) -> str:
  """The colour of a kind of latent space."""
  return HUES[KINDS.index(kind)] if kind in KINDS else MUTED


def wall_clock(run: RunData) -> tuple[np.ndarray, np.ndarray] | None:
  """Seconds in steps until each validation, and the loss of that; None where either is not known, or the run has no
  latent space.
  """
  if setting(run, "model.latent.kind") is None:
    return None
  seconds, points, spent = {}, [], 0.0
  for row in run.rows:
    if row["split"] == "train" and row.get("epoch_time_s") is not None:
      spent += row["epoch_time_s"]
      seconds[row["step"]] = spent
  for row in run.rows:
    loss = reading.value_of(row, "loss") if row["split"] == "val" else None
    if loss is not None and np.isfinite(loss) and row["step"] in seconds:
      points.append((seconds[row["step"]], loss))
  return tuple(np.array(points).T) if points else None


def distortion(run: RunData) -> tuple[float, float] | None:
  """(bits of an event, share of variance that is unexplained) of a run."""
  scalars = scalars_of(run)
  found = tuple(finite(scalars, name) for name in ("bits_per_event", "unexplained_variance"))
  return None if None in found or min(found) <= 0 else found


def plain_log(axis) -> None:
  """Makes an axis logarithmic with plain numbers at its ticks."""
  getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
  low, high = axis.get_view_interval()
  axis.set_major_locator(LogLocator(subs=(1.0,) if high > 300 * low else (1.0, 2.0, 5.0), numticks=9))
  axis.set_minor_locator(NullLocator())
  axis.set_major_formatter("{x:g}")


def legend_of(figure: Figure, entries: dict[str, str]) -> None:
  """A legend of colours by name above a figure."""
  handles, columns = [Line2D([], [], color=hue, marker="o", markersize=4) for hue in entries.values()], len(entries)
  columns = max(1, min(columns, int(9 * figure.get_size_inches()[0] / (8 + max(map(len, entries))))))
  figure.legend(handles, [clip_text(name, 34) for name in entries], loc="outside upper left", ncols=columns)


def short_label(run: RunData) -> str:
  """The kind of a run's latent space, and its number where it is the member of a sweep."""
  number = re.match(r"(\d+)-", os.path.basename(os.path.normpath(run.folder)))
  return f"{kind_of(run)} {number[1]}" if number else kind_of(run)


def beside_axis(label: str) -> str:
  """A label of a row of an axis: on one line where that is short, else with a line for each field."""
  return field_lines(label, 30) if len(label) > 30 else clip_text(label, 30)


def height_of(groups: list[str], row: float) -> float:
  """Inches of an axis with a row of at least `row` for each group, and more where labels have several lines."""
  lines = 1 + max(beside_axis(group).count("\n") for group in groups)
  return 0.8 + max(row, 0.15 * lines) * len(groups)


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
  """Area that two boxes (left, bottom, right, top) have in common."""
  return (max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
          * max(0.0, min(one[3], other[3]) - max(one[1], other[1])))


def place_labels(figure: Figure, ax, points: list[tuple[float, float]], labels: list[tuple[int, str]]) -> None:
  """(index of a point, text) beside points, where they cover least of other labels and points; scales are final."""
  figure.draw_without_rendering()
  inch = 72 / figure.dpi
  at, frame = ax.transData.transform(points) * inch, ax.bbox.extents * inch
  taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in at]
  for k, text in labels:
    width, boxes = LETTER * len(text), {}
    for place in PLACES:
      x, y = at[k] + place
      left = x if place[0] > 0 else x - width
      boxes[place] = left, y - LINE / 2, left + width, y + LINE / 2
    covered = lambda box: sum(overlap(box, other) for other in taken) - overlap(box, frame)
    place = min(PLACES, key=lambda place: round(covered(boxes[place])))  # the first of those alike
    taken.append(boxes[place])
    ax.annotate(text, points[k], place, textcoords="offset points", fontsize=FONT, color=INK, va="center",
                ha="left" if place[0] > 0 else "right",
                arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5} if abs(place[1]) > 9 else None)


def compare_latents(runs: list[RunData], labels: list[str], narrow: bool = False) -> Figure | None:
  """Look for points near the lower left corner: little is lost for few bits. Left, the validation loss against seconds
  of training steps, which compares where the runs have one objective; right, a point a run, held-out data, with its
  kind and its number in the sweep; of runs that differ in their seed alone the first has it. Kinds none and linear are
  not quantised and stand at 32 bits a number.
  """
  timed, coded = kept(runs, labels, wall_clock), kept(runs, labels, distortion)
  panels = [name for name, found in (("time", timed), ("rate", coded)) if found.runs]
  if not panels:
    return None
  figure = new_figure(4.4, 0.6 + 3.2 * len(panels)) if narrow else new_figure(0.6 + 4.1 * len(panels), 3.6)
  axes = dict(zip(panels, np.ravel(figure.subplots(**{"nrows" if narrow else "ncols": len(panels)}))))
  for run, (seconds, loss) in list(zip(timed.runs, timed.values))[:MAX_LINES]:
    axes["time"].plot(seconds, loss, color=hue_of(kind_of(run)), linewidth=1.2, alpha=0.85)
  if "time" in axes:
    positive = all((loss > 0).all() for _, loss in timed.values)
    axes["time"].set(xlabel="seconds in steps", ylabel="validation loss", title="loss against time")
    plain_log(axes["time"].xaxis)
    if positive:
      plain_log(axes["time"].yaxis)
  for run, (bits, lost) in zip(coded.runs, coded.values):
    axes["rate"].plot(bits, lost, "o", color=hue_of(kind_of(run)), markersize=5.5, alpha=0.85)
  if "rate" in axes:
    axes["rate"].set(xlabel="bits of an event", ylabel="unexplained variance", title="rate and distortion")
    plain_log(axes["rate"].xaxis)
    plain_log(axes["rate"].yaxis)
    axes["rate"].margins(x=0.18, y=0.14)
  legend_of(figure, {kind: hue_of(kind) for kind in dict.fromkeys(kind_of(run) for run in (*timed.runs, *coded.runs))})
  if "rate" in axes and len(set(coded.labels)) <= MAX_LABELS:
    firsts = sorted({label: coded.labels.index(label) for label in coded.labels}.values())
    place_labels(figure, axes["rate"], coded.values, [(k, short_label(coded.runs[k])) for k in firsts])
  return figure


def terms_at_best(run: RunData) -> tuple[float, float, float] | None:
  """(loss, error of the globals, error of the objects' features) of the validation at the best state."""
  step = reading.best_of(run).step
  row = next((row for row in run.rows if row["split"] == "val" and row["step"] == step), None)
  found = [None if row is None else reading.value_of(row, name) for name in ("loss", "globals", "cont")]
  sound = setting(run, "loss.weights.globals") is not None and None not in found and np.isfinite(found).all()
  return tuple(found) if sound else None


def compare_globals(runs: list[RunData], labels: list[str], narrow: bool = False) -> Figure | None:
  """Look for a weight at which the globals gain and the objects do not yet lose. Each cell is the mean over runs of a
  weight and a kind of latent space, of the validation at the best state; losses of different weights do not compare
  down a column. Below, a point a run: larger ones have a larger weight of the globals.
  """
  found = kept(runs, labels, terms_at_best)
  weights = sorted({float(setting(run, "loss.weights.globals")) for run in found.runs})
  kinds = sorted({kind_of(run) for run in found.runs}, key=lambda kind: (hue_of(kind) == MUTED, KINDS.index(kind)
                                                                         if kind in KINDS else 0))
  if len(weights) < 2:
    return None
  place = [(weights.index(float(setting(run, "loss.weights.globals"))), kinds.index(kind_of(run)))
           for run in found.runs]
  titles = ("loss at the best state", "error of the globals", "error of the objects")
  height = 1.1 + 0.36 * len(weights)
  figure = new_figure(4.4, 3 * height + 3.6) if narrow else new_figure(8.8, height + 3.5)
  mosaic = [[name] for name in titles] if narrow else [list(titles)]
  axes = figure.subplot_mosaic([*mosaic, ["trade"] * len(mosaic[0])], height_ratios=[height] * len(mosaic) + [3.2])
  for k, title in enumerate(titles):
    draw_cells(axes[title], title, place, [values[k] for values in found.values], weights, kinds)
  trade = axes["trade"]
  for run, (row, _), (_, globals_error, objects_error) in zip(found.runs, place, found.values):
    trade.plot(globals_error, objects_error, "o", color=hue_of(kind_of(run)), markersize=4 + 7 * row / len(weights),
               alpha=0.75, markeredgewidth=0)
  positive = all(min(values[1:]) > 0 for values in found.values)
  trade.set(xlabel=titles[1], ylabel=titles[2], title="what one gains and the other loses")
  for axis in (trade.xaxis, trade.yaxis) if positive else ():
    plain_log(axis)
  legend_of(figure, {kind: hue_of(kind) for kind in kinds})
  return figure


def draw_cells(ax, title: str, place: list[tuple[int, int]], values: list[float], weights: list[float],
               kinds: list[str]) -> None:
  """Means of values over the runs of each weight (down) and kind (across), as numbers on a shade."""
  sums, counts = np.zeros((2, len(weights), len(kinds)))
  for at, value in zip(place, values):
    sums[at] += value
    counts[at] += 1
  means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
  low, high = np.nanmin(means), np.nanmax(means)
  ax.imshow(means, cmap="Blues", aspect="auto", vmin=low - 0.05 * (high - low), vmax=high + 1e-12)
  for i, j in zip(*np.nonzero(counts)):
    dark = means[i, j] > low + 0.6 * (high - low) and high > low
    ax.text(j, i, f"{means[i, j]:.2g}", ha="center", va="center", fontsize=7.5, color="white" if dark else INK)
  ax.set_xticks(range(len(kinds)), kinds)
  ax.set_yticks(range(len(weights)), [f"{weight:g}" for weight in weights])
  ax.set(title=title, ylabel="weight of the globals")
  ax.grid(visible=False)


def anomaly(runs: list[RunData], labels: list[str], narrow: bool = False) -> Figure | None:
  """Look for runs far right of the dashed line, which is chance: their error tells this corruption, or the signal tttt
  from the other processes. A dot a run, with the 95 % interval over its held-out events, in the colour of its kind of
  latent space.
  """
  found = kept(runs, labels, lambda run: corruptions(scalars_of(run)) or None)
  if not found.runs:
    return None
  names = list(dict.fromkeys(name for some in found.values for name in some))
  groups = list(dict.fromkeys(found.labels))[:MAX_GROUPS]
  across = 1 if narrow else 2 if len(names) == 4 else 3
  figure, panels = panel_grid(len(names), across, 4.4 if narrow else 2.3, height_of(groups, 0.26),
                              (0.0 if narrow else 2.0, 0.2), sharey=not narrow)
  axes = panels[:, 0]
  lowest = 0.5
  for ax, name in zip(axes, names):
    for run, label in zip(found.runs, found.labels):
      value, half = (finite(scalars_of(run), f"auroc_{name}{end}") for end in ("", "_ci95"))
      if value is not None and label in groups:
        ax.errorbar(value, groups.index(label), xerr=half or 0.0, fmt="o", color=hue_of(kind_of(run)), markersize=4,
                    elinewidth=1.2, alpha=0.85)
        lowest = min(lowest, value - (half or 0.0))
    ax.axvline(0.5, color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
    ax.set_yticks(range(len(groups)), [beside_axis(group) for group in groups], color=INK)
    ax.set(title=clip_text(name.replace("_", " "), 30), ylim=(len(groups) - 0.5, -0.5))
    ax.grid(axis="y", visible=False)
  for ax in axes:
    ax.set_xlim(lowest - 0.03, 1.01)
  figure.supxlabel("AUROC (dashed: chance)", fontsize=8.5, color=MUTED)
  return figure


def codebook_quality(runs: list[RunData], labels: list[str], narrow: bool = False) -> Figure | None:
  """Look for a high perplexity: many codes, evenly used. More than 80 % of codes in use is excellent, more than 50 %
  good, more than 20 % fair, less poor. A bar is the mean of runs of one label, a dot a run; held-out data.
  """
  def quality(run: RunData) -> tuple[float, float, float] | None:
    scalars = scalars_of(run)
    total, pooled = num_codes(scalars), finite(scalars, "perplexity_pooled")
    if total is None or pooled is None:
      return None
    used = finite(scalars, "codes_used")
    return 100 * used / total, pooled, total - used

  found = kept(runs, labels, quality)
  if not found.runs:
    return None
  groups = list(dict.fromkeys(found.labels))[:MAX_GROUPS]
  height = height_of(groups, 0.3)
  figure = new_figure(4.4, 3 * height) if narrow else new_figure(8.8, 0.2 + height)
  axes = figure.subplots(**({"nrows": 3} if narrow else {"ncols": 3, "sharey": True}))
  for k, (ax, title) in enumerate(zip(axes, ("codes in use, %", "perplexity, codes", "dead codes"))):
    for j, group in enumerate(groups):
      own = [values[k] for values, label in zip(found.values, found.labels) if label == group]
      ax.barh(j, np.mean(own), color=HUES[0], alpha=0.45, height=0.62)
      ax.plot(own, [j] * len(own), "o", color=HUES[0], markersize=3.5)
      ax.annotate(f"{np.mean(own):.3g}", (max(own), j), (6, 0), textcoords="offset points", va="center", fontsize=7.5,
                  color=INK)
    ax.set_title(title)
    ax.set_yticks(range(len(groups)), [beside_axis(group) for group in groups], color=INK)
    ax.set_ylim(len(groups) - 0.4, -0.6)
    ax.set_xlim(0, 1.22 * max(max(values[k] for values in found.values), 1e-9))
    ax.grid(axis="y", visible=False)
  for level in (20, 50, 80):
    axes[0].axvline(level, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
  return figure
