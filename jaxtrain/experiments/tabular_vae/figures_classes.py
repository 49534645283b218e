"""Figures of the classes of a tabular VAE: counts, ROC curves, calibration, distances, from the files of a run alone.

Distances are of known classes, to their own centroid and to the next one; no class is held out. Counts of classes are
on a logarithmic axis only where they span a factor of 20.
"""

import numpy as np
from matplotlib.figure import Figure

from jaxtrain.jsonable import number
from jaxtrain.report.figures import HUES, INK, MUTED, clip_text, new_figure
from jaxtrain.workdir.reading import RunData

MAX_CLASSES = 30
BLUE, ORANGE, GREY = "#1f6fb4", "#d2580f", "#c3c9cf"
LABELLED, PREDICTED = "#4a5763", "#3aa99f"


def classes(run: RunData) -> Figure | None:
  """Look for classes too rare to learn from, and, where there is a classifier, for those whose predicted count is far
  below the true one: it gives them up. Both counts are of the same labelled rows.
  """
  count, predicted = run.arrays.get("class_count"), run.arrays.get("predicted_count")
  if count is None or not count.sum():
    return None
  names = run.meta["class_names"]
  order = [int(k) for k in np.argsort(-count, kind="stable")[:MAX_CLASSES] if count[k] > 0]
  figure = new_figure(8.2, 1.0 + (0.26 if predicted is not None else 0.2) * len(order))
  ax = figure.subplots()
  series = [(count, LABELLED, "true label")]
  if predicted is not None:
    series.append((predicted, PREDICTED, f"predicted, {predicted.sum():,} rows"))
  height = 0.78 / len(series)
  uneven = count.max() > 20 * count[order[-1]]
  first = 0.7 if uneven else 0.0  # where bars begin
  for j, (values, color, text) in enumerate(series):
    where = np.arange(len(order)) + (j - (len(series) - 1) / 2) * height
    ax.barh(where, np.maximum(values[order], first) - first, height, first, color=color, label=text)
    for y, k in zip(where, order):
      ax.annotate(f"{values[k]:,}", (max(values[k], first), y), (3, 0), textcoords="offset points", va="center",
                  fontsize=6.5, color=MUTED)
  ax.set_yticks(range(len(order)), [clip_text(names[k], 34) for k in order], color=INK)
  longest = max(values[order].max() for values, _, _ in series)
  ax.set(xscale="log" if uneven else "linear", ylim=(len(order) - 0.4, -0.6),
         xlim=(first, longest * (2 if uneven else 1.08)))
  ax.xaxis.set_major_formatter(lambda v, _: f"{v:,.12g}")
  ax.grid(axis="y", visible=False)
  ax.tick_params(axis="y", length=0)
  rest = int((count > 0).sum()) - len(order)
  left = f"; {rest} smaller classes with {count.sum() - count[order].sum():,} rows are not shown" if rest else ""
  ax.set(title=f"{run.split}: {int((count > 0).sum())} classes, {count.sum():,} labelled rows",
         xlabel=f"rows{', logarithmic' if uneven else ''}{left}")
  if predicted is not None:
    figure.legend(loc="outside upper left", ncols=2)
  return figure


def roc(run: RunData) -> Figure | None:
  """Look for curves near the diagonal: the classifier's probability of that class tells little about it. A high area
  does not make a rare class well predicted; see the counts of the classes.
  """
  arrays = run.arrays
  if not {"auc", "roc_class", "roc_fpr", "roc_tpr", "class_count"} <= arrays.keys() or not len(arrays["roc_class"]):
    return None
  names, count, auc = run.meta["class_names"], arrays["class_count"], arrays["auc"]
  figure = new_figure(8.2, 4.3)
  ax = figure.subplots()
  for k, tpr, color in zip(arrays["roc_class"], arrays["roc_tpr"], HUES):
    ax.plot(arrays["roc_fpr"], tpr, color=color, linewidth=1.4,
            label=f"{auc[k]:.3f}  {clip_text(names[k], 34)} ({count[k]:,})")
  ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
  ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", anchor="W", xlabel="false positive rate",
         ylabel="true positive rate", title=f"one class against the rest ({run.split}, {count.sum():,} labelled rows)")
  measured = np.isfinite(auc)
  scalar = number(run.evals[run.split].get("scalars", {}).get("auc_macro"))
  note = f"mean over {measured.sum()} classes: {auc[measured].mean() if scalar is None else scalar:.3f}"
  title = f"AUC, class (rows); {len(arrays['roc_class'])} most frequent of {int((count > 0).sum())}"
  legend = ax.legend(loc="upper left", bbox_to_anchor=(1.03, 1.0), title=f"{title}\n{note}", alignment="left",
                     borderaxespad=0, handlelength=1.5)
  legend.get_title().set_color(MUTED)
  return figure


def calibration(run: RunData) -> Figure | None:
  """Look for bars below the dashed line: there the classifier is surer than it is right. The grey bars count the rows;
  a share of few rows says little.
  """
  bins = run.arrays.get("calibration")
  if bins is None or not bins[0].sum():
    return None
  rows, confidence, accuracy = bins
  edges, there = np.linspace(0, 1, len(rows) + 1), rows > 0
  width, middle = edges[1] - edges[0], (edges[:-1] + edges[1:]) / 2
  figure = new_figure(5.2, 4.9)
  top, low = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
  top.bar(middle[there], accuracy[there], 0.94 * width, color=BLUE, alpha=0.75, label="share that is right")
  top.plot(confidence[there], accuracy[there], "o", color=INK, markersize=3.5, label="at the mean probability")
  top.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label="calibrated")
  ece = number(run.evals[run.split].get("scalars", {}).get("ece"))
  shown = "" if ece is None else f"; expected calibration error {ece:.3f}"
  top.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="right predictions")
  top.set_title(f"{run.split}, {int(rows.sum()):,} labelled rows{shown}", fontsize=8.5)
  top.legend(loc="upper left", fontsize=8)
  uneven = rows.max() > 100 * rows[there].min()
  low.bar(middle[there], rows[there], 0.94 * width, color=GREY)
  low.set(xlabel="probability of the predicted class", ylabel="rows, log" if uneven else "rows",
          yscale="log" if uneven else "linear")
  low.set_ylim(bottom=0.7 if uneven else 0)
  low.yaxis.set_major_formatter(lambda v, _: f"{v:,.12g}")
  return figure


def distances(run: RunData) -> Figure | None:
  """Look for classes whose two dots meet or change places: their rows lie no nearer to their own centre than to that
  of another class, and the latent space alone does not tell the two apart.
  """
  arrays = run.arrays
  wanted = {"distance_class", "distance_nearest", "distance_own", "distance_other", "class_count"}
  if not wanted <= arrays.keys():
    return None
  names, count = run.meta["class_names"], arrays["class_count"]
  own, other, top = arrays["distance_own"], arrays["distance_other"], arrays["distance_class"]
  where = np.arange(len(top))
  figure = new_figure(8.2, 1.3 + 0.23 * len(top))
  ax = figure.subplots()
  ax.hlines(where, np.minimum(own, other), np.maximum(own, other), color=GREY, linewidth=2.5, zorder=2)
  ax.plot(own, where, "o", color=BLUE, markersize=5.5, label="to its own centroid")
  ax.plot(other, where, "D", color=ORANGE, markersize=4.5, label="to the nearest other centroid")
  text = lambda k: clip_text(names[k], 26)
  ax.set_yticks(where, [f"{text(k)} ({count[k]:,})  → {text(j)}" for k, j in zip(top, arrays["distance_nearest"])],
                color=INK)
  ax.set(ylim=(len(top) - 0.4, -0.6), xlim=(0, 1.05 * max(own.max(), other.max()) or 1),
         xlabel="mean distance of a class's posterior means; on the left: class (rows)  → the nearest other class",
         title=f"{run.split}: {count[top].sum():,} rows of the {len(top)} most frequent classes")
  ax.xaxis.label.set(x=1.0, ha="right")
  ax.tick_params(axis="y", length=0)
  figure.legend(loc="outside upper left", ncols=2)
  return figure
