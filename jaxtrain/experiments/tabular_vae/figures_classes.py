"""Figures of the classes of a tabular VAE: counts, confusion, ROC, calibration, distances, from a run's files alone.

Distances are of known classes, to their own centroid and to the next one; no class is held out.

**Source:** intervals of areas under ROC curves: Hanley & McNeil 1982.
"""

import numpy as np
from matplotlib.figure import Figure

from jaxtrain.report.figures import GREY, HUES, INK, MUTED, clip_text, new_figure
from jaxtrain.report.reliability import draw_reliability
from jaxtrain.statistics import wilson
from jaxtrain.workdir import reading
from jaxtrain.workdir.reading import RunData

MAX_CLASSES, MAX_CONFUSED, MAX_MISSED = 30, 20, 5
FEW_ROWS = 10  # fewer do not tell whether a class is found
NEAR_CHANCE = 0.6  # area below which the axis begins at chance
MAX_CURVES = 4  # ROC curves in one panel; more classes are compared by their areas
BLUE, ORANGE = "#1f6fb4", "#d2580f"
LABELLED, PREDICTED = "#4a5763", "#3aa99f"


def most_frequent(count: np.ndarray, limit: int) -> list[int]:
  """Up to so many classes that have rows, the most frequent first."""
  return [int(k) for k in np.argsort(-count, kind="stable")[:limit] if count[k] > 0]


def classes(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for classes too rare to learn from."""
  count, predicted = run.arrays.get("class_count"), run.arrays.get("predicted_count")
  if count is None or not count.sum():
    return None
  names, order = run.meta["class_names"], most_frequent(count, MAX_CLASSES)
  figure = new_figure(4.6 if narrow else 8.2, 1.0 + (0.26 if predicted is not None else 0.2) * len(order))
  ax = figure.subplots()
  series = [(count, LABELLED, "true label")]
  if predicted is not None:
    series.append((predicted, PREDICTED, f"predicted, {predicted.sum():,} rows"))
  height = 0.78 / len(series)
  for j, (values, color, text) in enumerate(series):
    where = np.arange(len(order)) + (j - (len(series) - 1) / 2) * height
    ax.barh(where, values[order], height, color=color, label=text)
    for y, k in zip(where, order):
      ax.annotate(f"{values[k]:,}", (values[k], y), (3, 0), textcoords="offset points", va="center", fontsize=6.5,
                  color=MUTED)
  ax.set_yticks(range(len(order)), [clip_text(names[k], 18 if narrow else 34) for k in order], color=INK)
  longest = max(values[order].max() for values, _, _ in series)
  ax.set(ylim=(len(order) - 0.4, -0.6), xlim=(0, longest * 1.08))
  ax.xaxis.set_major_formatter(lambda v, _: f"{v:,.12g}")
  ax.grid(axis="y", visible=False)
  ax.tick_params(axis="y", length=0)
  rest = int((count > 0).sum()) - len(order)
  left = f"; {rest} smaller classes with {count.sum() - count[order].sum():,} rows are not shown" if rest else ""
  ax.set(title=f"{run.split}: {int((count > 0).sum())} classes, {count.sum():,} labelled rows", xlabel=f"rows{left}")
  caption = "Look for classes too rare to learn from"
  if predicted is not None:
    figure.legend(loc="outside upper left", ncols=2)
    caption += (", and for those whose predicted count is far below the true one: the classifier gives them up. Both "
                "counts are of the same labelled rows")
  figure.set_label(f"{caption}.")
  return figure


def confusion(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for dark cells off the diagonal: two classes that are taken for each other. A precision far below the recall
  is a class that others are taken for; a recall far below the precision one that is missed.
  """
  table = run.arrays.get("confusion")
  if table is None or not table.sum():
    return None
  count, names = table.sum(axis=1), run.meta["class_names"]
  order = most_frequent(count, MAX_CONFUSED)
  K, seen = len(order), table[np.ix_(order, order)]
  share = seen / np.maximum(count[order], 1)[:, None]
  tall = 1.7 + max(0.27 * K, 1.6)
  figure = new_figure(*((4.6, 2 * tall - 0.6) if narrow else (9, tall)))
  shape = {"nrows": 2, "height_ratios": (1.1, 1)} if narrow else {"ncols": 2, "width_ratios": (1.1, 1)}
  left, right = figure.subplots(**shape)
  left.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
  for i, j in np.ndindex(K, K) if K <= 16 else ():
    if seen[i, j]:
      left.text(j, i, f"{seen[i, j]:,}", ha="center", va="center", fontsize=7,
                color="white" if share[i, j] > 0.5 else INK)
  text = [clip_text(names[k], 18) for k in order]
  left.set_xticks(range(K), text, rotation=90, fontsize=7.5)
  left.set_yticks(range(K), text, fontsize=7.5)
  left.set(xlabel="predicted class", ylabel="true class")
  left.set_title("rows; shade is the share of the true class", fontsize=8.5)
  left.grid(visible=False)
  hits, where = np.diag(table)[order], np.arange(K)
  for total, offset, color, label in ((table.sum(axis=0)[order], -0.14, HUES[0], "precision"),
                                      (count[order], 0.14, HUES[1], "recall")):
    middle, low, high = wilson(hits, total)
    there = total > 0
    right.errorbar(middle[there], where[there] + offset, xerr=np.stack([(middle - low)[there], (high - middle)[there]]),
                   fmt="o", color=color, markersize=4, elinewidth=1.2, label=label)
  right.set_yticks(where, [f"{name} ({count[k]:,})" for name, k in zip(text, order)], fontsize=7.5)
  right.set(ylim=(K - 0.5, -0.5), xlim=(-0.02, 1.02), xlabel="precision and recall, with 95 % intervals")
  figure.legend(*right.get_legend_handles_labels(), loc=f"outside {'lower left' if narrow else 'upper right'}", ncols=2)
  rest = int((count > 0).sum()) - K
  more = f"; the {K} most frequent of {K + rest} classes" if rest else ""
  text = f"{run.split}, {int(count.sum()):,} labelled rows{more}"
  figure.suptitle(text, x=0.01, ha="left", fontsize=8.5, color=MUTED)
  return figure


def missed(run: RunData) -> list[str]:
  """The classes that are found least, in a sentence: those with rows enough whose recall is far below the mean."""
  table = run.arrays.get("confusion")
  if table is None or not table.sum():
    return []
  count, hits = table.sum(axis=1), np.diag(table)
  recall = hits / np.maximum(count, 1)
  low = [k for k in np.argsort(recall, kind="stable")
         if count[k] >= FEW_ROWS and recall[k] < 0.5 * recall[count > 0].mean()]
  some = ", ".join(f"{run.meta['class_names'][k]}: {hits[k]:,} of {count[k]:,} found" for k in low[:MAX_MISSED])
  more = f" and {len(low) - MAX_MISSED} classes more" if len(low) > MAX_MISSED else ""
  return [f"The classifier misses some classes. {some}{more}."] if low else []


def roc(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for curves near the diagonal: the classifier's probability of that class tells little about it."""
  arrays = run.arrays
  if not {"auc", "roc_class", "roc_fpr", "roc_tpr", "class_count"} <= arrays.keys() or not len(arrays["roc_class"]):
    return None
  if np.isfinite(arrays["auc"]).sum() > MAX_CURVES:
    return sorted_auc(run, narrow)
  names, count, auc = run.meta["class_names"], arrays["class_count"], arrays["auc"]
  figure = new_figure(*((4.6, 5.8) if narrow else (8.2, 4.3)))
  ax = figure.subplots()
  for k, tpr, color in zip(arrays["roc_class"], arrays["roc_tpr"], HUES):
    ax.plot(arrays["roc_fpr"], tpr, color=color, linewidth=1.4,
            label=f"{auc[k]:.3f}  {clip_text(names[k], 34)} ({count[k]:,})")
  ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
  ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", anchor="W", xlabel="false positive rate",
         ylabel="true positive rate", title=f"one class against the rest ({run.split}, {count.sum():,} labelled rows)")
  legend = ax.legend(loc="upper left", bbox_to_anchor=(0.0, -0.16) if narrow else (1.03, 1.0), alignment="left",
                     title=f"AUC, class (rows)\n{mean_auc(run)}", borderaxespad=0, handlelength=1.5)
  legend.get_title().set_color(MUTED)
  figure.set_label("Look for curves near the diagonal: the classifier's probability of that class tells little about "
                   "it. A high area does not make a rare class well predicted; see its precision and recall.")
  return figure


def mean_auc(run: RunData) -> str:
  """The mean AUC over the classes that have one, in words."""
  measured = np.isfinite(run.arrays["auc"])
  scalar = reading.scalars(run.evals[run.split]).get("auc_macro")
  return f"mean over {measured.sum()} classes: {run.arrays['auc'][measured].mean() if scalar is None else scalar:.3f}"


def sorted_auc(run: RunData, narrow: bool) -> Figure:
  """The AUC of each class against the rest, sorted, with intervals; of many classes the lowest and some of the rest."""
  names, count, auc = run.meta["class_names"], run.arrays["class_count"], run.arrays["auc"]
  ranked = [int(k) for k in np.argsort(auc, kind="stable") if np.isfinite(auc[k])]
  shown = ranked if len(ranked) <= MAX_CLASSES else ranked[:MAX_CLASSES]
  half = run.arrays["auc_half"][shown] if "auc_half" in run.arrays else np.zeros(len(shown))  # an older run has none
  where = np.arange(len(shown))
  figure = new_figure(4.6 if narrow else 8.2, 1.2 + 0.2 * len(shown))
  ax = figure.subplots()
  ax.errorbar(auc[shown], where, xerr=np.stack([half, np.minimum(half, 1 - auc[shown])]), fmt="o", color=BLUE,
              markersize=4, elinewidth=1.2)
  low = max(float(np.min(auc[shown] - half)), 0)
  if low < NEAR_CHANCE:
    ax.axvline(0.5, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    low = min(low, 0.5)
  ax.set_yticks(where, [f"{clip_text(names[k], 18 if narrow else 30)} ({count[k]:,})" for k in shown], color=INK)
  room = 0.03 * (1 - low) + 1e-3
  ax.set(ylim=(len(shown) - 0.5, -0.5), xlim=(low - room, 1 + room), xlabel="AUC of a class against the rest",
         title=f"{run.split}, {count.sum():,} labelled rows;{chr(10) if narrow else ' '}{mean_auc(run)}")
  rest = len(ranked) - len(shown)
  figure.set_label("Look for classes near 0.5 (dashed where the axis reaches it), or whose 95 % interval (Hanley & "
                   "McNeil 1982) holds it: the classifier's probability tells little about them. The lowest stand "
                   "first; in brackets are the rows of a class."
                   + f" {rest} classes with higher areas are not shown." * bool(rest))
  return figure


def calibration(run: RunData) -> Figure | None:
  """Look for dots below the dashed line whose interval does not reach it: there the classifier is surer than it is
  right. Lines are 95 % intervals; the grey bars count the rows.
  """
  bins = run.arrays.get("calibration")
  if bins is None or not bins[0].sum():
    return None
  ece = reading.scalars(run.evals[run.split]).get("ece")
  shown = "" if ece is None else f"; expected calibration error {ece:.3f}"
  return draw_reliability(bins, f"{run.split}, {int(bins[0].sum()):,} labelled rows{shown}")


def distances(run: RunData, narrow: bool = False) -> Figure | None:
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
  figure = new_figure(4.6 if narrow else 8.2, 1.3 + 0.23 * len(top))
  ax = figure.subplots()
  ax.hlines(where, np.minimum(own, other), np.maximum(own, other), color=GREY, linewidth=2.5, zorder=2)
  ax.plot(own, where, "o", color=BLUE, markersize=5.5, label="to its own centroid")
  ax.plot(other, where, "D", color=ORANGE, markersize=4.5, label="to the nearest other centroid")
  text = lambda k: clip_text(names[k], 12 if narrow else 26)
  ax.set_yticks(where, [f"{text(k)} ({count[k]:,})  → {text(j)}" for k, j in zip(top, arrays["distance_nearest"])],
                color=INK)
  ax.set(ylim=(len(top) - 0.4, -0.6), xlim=(0, 1.05 * max(own.max(), other.max()) or 1),
         xlabel="mean distance of a class's posterior means"
         + "; on the left: class (rows)  → the nearest other class" * (not narrow),
         title=f"{run.split}: {count[top].sum():,} rows of " + ("" if narrow else "the ") + f"{len(top)} "
         + "most frequent " * (not narrow) + "classes")
  ax.xaxis.label.set(x=1.0, ha="right")
  ax.tick_params(axis="y", length=0)
  figure.legend(loc="outside upper left", ncols=2)
  return figure
