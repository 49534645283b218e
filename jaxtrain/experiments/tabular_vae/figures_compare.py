"""Figures of several runs of a tabular VAE, such as an unsupervised and a semi-supervised one, side by side.

Each takes the runs and a label for each; of runs that share one, which differ in their seed alone, the first is drawn
where each needs a panel of its own. Where labels are more than a figure has room for, the best one is drawn, and the
caption says how many are not. A label has one colour in all figures, that of its place. Arrays are read from the runs'
evaluations here.
"""

import inspect
from typing import Callable, Iterable

import numpy as np
from matplotlib.figure import Figure

from jaxtrain import statistics
from jaxtrain.experiments.tabular_vae.figures_data import evenly_ranked
from jaxtrain.experiments.tabular_vae.figures_points import draw_feature, draw_map
from jaxtrain.jsonable import flatten
from jaxtrain.report.figures import HUES, INK, MUTED, clip_text, new_figure
from jaxtrain.report.panels import field_lines, panel_grid
from jaxtrain.workdir import reading
from jaxtrain.workdir.fields import changes_loss, is_loss
from jaxtrain.workdir.reading import RunData

MAX_PANELS, MAX_LABELS, MAX_HELD, MAX_SCATTERS = 4, 10, 30, 6
MAX_HEIGHT = 9.0  # inches of the features of a figure
MAX_LETTERS = 56  # of a label in a legend
LEGEND_LETTERS = 110  # of a row of a legend
MIN_CLASSES = 5  # a fifth of fewer is less than one
CHANCE = (0, (4, 3))


def objective(run: RunData) -> str:
  """The fields of a run that say what its loss is."""
  return repr([pair for pair in flatten(run.config) if changes_loss(pair[0])])


def best_label(runs: list[RunData], labels: list[str]) -> tuple[str, str]:
  """The label whose runs have the best mean of what they monitored, and the name of that; two empty texts where runs
  monitored different metrics, or losses of different objectives, or none has a value.
  """
  found = [(label, reading.best_of(run)) for run, label in zip(runs, labels)]
  monitors, values = {best.monitor for _, best in found}, {}
  for label, best in found:
    if best.value is not None and np.isfinite(best.value):
      values.setdefault(label, []).append(best.value)
  if len(monitors) != 1 or not values or is_loss(min(monitors)) and len(set(map(objective, runs))) > 1:
    return "", ""
  higher = runs[0].config.get("train", {}).get("monitor_mode") == "max"
  return (max if higher else min)(values, key=lambda label: np.mean(values[label])), monitors.pop()


def chosen_labels(runs: list[RunData], labels: list[str]) -> list[str]:
  """The labels, each once: the best first, the others in their order."""
  best = best_label(runs, labels)[0]
  return sorted(dict.fromkeys(labels), key=lambda label: label != best)


def read_whole(runs: list[RunData], labels: list[str], needs: set[str], most: int = MAX_PANELS
               ) -> dict[str, RunData]:
  """The first run of each label, with its arrays, of those that have the arrays needed; {} with fewer than two. Of more
  than `most` labels the best and the first ones.
  """
  found = {}
  for wanted in chosen_labels(runs, labels):
    for run in (run for run, label in zip(runs, labels) if label == wanted and len(found) < most):
      whole = reading.read_run(run.folder)
      if needs <= whole.arrays.keys() and whole.meta:
        found[wanted] = whole
        break
  return {label: found[label] for label in dict.fromkeys(labels) if label in found} if len(found) > 1 else {}


def hues_of(labels: list[str]) -> dict[str, str]:
  """The colour of each label."""
  return {label: HUES[k % len(HUES)] for k, label in enumerate(dict.fromkeys(labels))}


def say(figure: Figure, family: Callable, runs: list[RunData], labels: list[str], drawn: dict, more: str = "",
        of_first: bool = True) -> Figure:
  """The figure, whose caption is that of its family, `more`, and what is not drawn; `of_first`: of the runs of a label
  too.
  """
  text, total = f"{inspect.getdoc(family)} {more}", len(set(labels))
  best, monitor = best_label(runs, labels)
  if len(drawn) < total:
    text += f" Drawn are {len(drawn)} of {total} groups"
    text += f", the best by {monitor} ({best}) among them." * (best in drawn) or "."
  if of_first and len(labels) > total:
    text += " Of runs that differ in their seed alone the first is drawn."
  figure.set_label(" ".join(text.split()))
  return figure


def two_across(labels: Iterable[str], height: float, narrow: bool) -> tuple[Figure, list]:
  """A figure of a panel of so many inches for each label, two in a row, and its axes; `narrow`: below each other."""
  labels = list(labels)
  lines = max(label_of(label).count("\n") for label in labels)
  figure, panels = panel_grid(len(labels), 1 if narrow else 2, 4.6 if narrow else 4.5, height + 0.15 * lines)
  return figure, list(panels[:, 0])


def label_of(label: str) -> str:
  """A label above a panel."""
  return field_lines(label, 40)


def roc_comparison(runs: list[RunData], labels: list[str], narrow: bool = False) -> Figure | None:
  """Look for classes whose curve lies higher in one panel than in the other: that latent space tells more about them. A
  curve is of one class against the rest, by a linear classifier on the latent means (linear discriminant analysis), so
  that models without a classifier of their own compare; in brackets is its area.
  """
  found = read_whole(runs, labels, {"probe_class", "probe_auc", "probe_fpr", "probe_tpr", "probe_rows",
                                    "probe_by_group"})
  if not found:
    return None
  figure, axes = two_across(found, 5.6, narrow)
  for ax, (label, run) in zip(axes, found.items()):
    arrays, names = run.arrays, run.meta["class_names"]
    for k, auc, curve, color in zip(arrays["probe_class"], arrays["probe_auc"], arrays["probe_tpr"], HUES):
      ax.plot(arrays["probe_fpr"], curve, color=color, linewidth=1.3, label=f"{clip_text(names[k], 26)} ({auc:.3f})")
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=CHANCE)
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="false positive rate", ylabel="true positive rate")
    ax.set_title(f"{label_of(label)}\nmean area {arrays['probe_auc'].mean():.3f}", fontsize=8.5)
    ax.legend(loc="upper left", bbox_to_anchor=(0.0, -0.13), ncols=2, fontsize=6.5, handlelength=1.2,
              columnspacing=0.8, borderaxespad=0)
  fitted, scored = arrays["probe_rows"]
  where = "other groups" if arrays["probe_by_group"] else "other rows"
  text = f"fitted to {fitted:,} rows,{chr(10) if narrow else ' '}scored on {scored:,} of {where} ({run.split})"
  figure.suptitle(text, x=0.01, ha="left", fontsize=8.5, color=MUTED)
  return say(figure, roc_comparison, runs, labels, found)


def held_out(run: RunData) -> str:
  """The part whose rows took no part in training, where one was assessed: test, else val, else train."""
  return next((split for split in ("test", "val", "train") if split in run.evals), "")


def mean_r2(runs: list[RunData], labels: list[str], drawn: Iterable[str], features: list[str]
            ) -> dict[str, tuple[np.ndarray, np.ndarray, int]]:
  """Mean R2 [D] of each label's runs, half its interval [D], and how many runs there are; NaN for a feature that has
  none, which is constant in the part that was evaluated.
  """
  found = {}
  for label in drawn:
    some = []
    for run in (run for run, one in zip(runs, labels) if one == label):
      scalars = reading.scalars(run.evals.get(held_out(run), {}))
      some.append([[scalars.get(f"r2_raw{end}/{name}") for name in features] for end in ("", "_ci95")])
    numbers = np.array(some, float)  # [runs, 2, D]
    numbers = numbers[np.isfinite(numbers[:, 0]).any(axis=1)]  # a run that was not evaluated has none
    if len(numbers) == 1:
      found[label] = (*numbers[0], 1)
    elif len(numbers):
      half = np.array([statistics.t_half_width(column) for column in numbers[:, 0].T], float)
      found[label] = (numbers[:, 0].mean(axis=0), half, len(numbers))
  return found


def r2_comparison(runs: list[RunData], labels: list[str], narrow: bool = False) -> Figure | None:
  """Look for features whose dots differ by more than their intervals: one model keeps more of them. Of one run the
  interval is that of 95 % over its rows, of several with one label the mean and its interval over runs. Rows of one
  group are alike, so that an interval over rows is too narrow.
  """
  features = next((names for run in runs if run.evals and (names := reading.known_meta(run).get("features"))), [])
  drawn = set(chosen_labels(runs, labels)[:MAX_LABELS])
  values = mean_r2(runs, labels, [label for label in dict.fromkeys(labels) if label in drawn], features)
  middles = np.array([middle for middle, _, _ in values.values()]).reshape(len(values), len(features))
  finite = np.isfinite(middles).any(axis=0)
  if len(values) < 2 or not finite.any():
    return None
  row = 0.16 + 0.13 * len(values)  # inches of a feature
  there = np.isfinite(middles)
  mean = np.sum(middles, axis=0, where=there) / np.where(finite, there.sum(axis=0), np.nan)
  shown = evenly_ranked(mean, max(4, int(MAX_HEIGHT / row)))
  across = 1 if narrow else max(1, min(3, int(LEGEND_LETTERS / (10 + max(map(len, values))))))  # 10 for a mark
  figure = new_figure(4.6 if narrow else 8.2, 0.8 + 0.17 * -(-len(values) // across) + row * len(shown))
  ax, lowest, hues = figure.subplots(), 1.0, hues_of(labels)
  for j, (label, (middle, half, count)) in enumerate(values.items()):
    middle, half, color = middle[shown], np.nan_to_num(half[shown]), hues[label]
    where = np.arange(len(shown)) + (j - (len(values) - 1) / 2) * 0.6 / len(values)
    ax.errorbar(middle, where, xerr=half, fmt="o", color=color, markersize=4.5, elinewidth=1.3,
                label=clip_text(label, MAX_LETTERS) + f", {count} runs" * (count > 1))
    for y, value in zip(where, middle):
      text = f"{value:.3f}".replace("-", "−") if np.isfinite(value) else "no R²"
      ax.annotate(text, (1.015, y), fontsize=6.5, va="center", color=color, xycoords=("axes fraction", "data"),
                  annotation_clip=False)
    lowest = min(lowest, *(middle - half)[np.isfinite(middle)])
  ax.set_yticks(range(len(shown)), [clip_text(features[d], 20 if narrow else 34) for d in shown], color=INK)
  lowest = max(lowest, -1.0)
  ax.set(xlim=(lowest - 0.05 * (1 - lowest), 1 + 0.02 * (1 - lowest)), ylim=(len(shown) - 0.5, -0.5),
         xlabel="R² of the reconstruction, raw units")
  figure.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=across, fontsize=8)
  constant = int((~finite).sum())
  more = f"{len(shown)} of {len(features)} features are shown, from the best mean to the worst." * (
      len(shown) < int(finite.sum()))
  more += f" Of rows of the part {', '.join(dict.fromkeys(held_out(run) for run in runs if run.evals))}."
  more += f" {constant} feature{'s have' if constant > 1 else ' has'} no R², hardly varying there." * bool(constant)
  return say(figure, r2_comparison, runs, labels, values, more, of_first=False)


def zero_shot(runs: list[RunData], labels: list[str], narrow: bool = False) -> Figure | None:
  """Look for the model whose dots lie further left: rows of one class lie closer together there. Distances are in units
  of the mean distance of all rows to their centre, so that the scale of a latent space does not matter; at the dashed
  line a class is as wide as all rows together. A fifth of the classes was drawn, the same for all runs; they were not
  held out of training.
  """
  found = read_whole(runs, labels, {"held_class", "held_own", "held_all", "held_rows"}, MAX_LABELS)
  if not found:
    return None
  first = next(iter(found.values()))
  if len(first.meta["class_names"]) < MIN_CLASSES:
    return None
  held, rows, names = first.arrays["held_class"], first.arrays["held_rows"], first.meta["class_names"]
  found = {label: run for label, run in found.items() if np.array_equal(run.arrays["held_class"], held)}
  if len(found) < 2:
    return None
  order = np.argsort(-rows, kind="stable")[:MAX_HELD]
  figure = new_figure(4.6 if narrow else 8.2, 0.9 + 0.17 * (1 + narrow) * len(found) + 0.21 * len(order))
  ax = figure.subplots()
  hues = hues_of(labels)
  for label, run in found.items():
    own, whole = run.arrays["held_own"], float(run.arrays["held_all"])
    ax.plot(own[order] / whole, range(len(order)), "o", color=hues[label], markersize=5, alpha=0.85,
            label=f"{clip_text(label, MAX_LETTERS)}:{chr(10) if narrow else ' '}mean {np.mean(own / whole):.3f} "
                  f"(unscaled {np.mean(own):.3f})")
  ax.axvline(1, color=MUTED, linewidth=0.9, linestyle=CHANCE)
  ax.set_yticks(range(len(order)), [f"{clip_text(names[held[k]], 18 if narrow else 34)} ({rows[k]:,})" for k in order],
                color=INK)
  ax.set(ylim=(len(order) - 0.4, -0.6), xlabel="mean distance to the own centroid" + ", relative to all rows"
         * (not narrow))
  ax.set_xlim(0, None)
  figure.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=1, fontsize=8)
  return say(figure, zero_shot, runs, labels, found)


def maps(runs: list[RunData], labels: list[str], narrow: bool = False) -> Figure | None:
  """Look for classes that keep apart in one map and overlap in the other. Each map is of latent means of rows
  of one part, by UMAP where every run has one (`log.figures=full` with umap-learn), else by principal components. The
  axes of two maps have nothing to do with each other.
  """
  found = read_whole(runs, labels, {"sample_components", "sample_label", "class_count"})
  if not found:
    return None
  array = "sample_umap" if all("sample_umap" in run.arrays for run in found.values()) else "sample_components"
  if any(run.arrays[array].shape[1] < 2 for run in found.values()):
    return None
  figure, axes = two_across(found, 5.4, narrow)
  for ax, (label, run) in zip(axes, found.items()):
    points = run.arrays[array]
    draw_map(ax, run, points, True)
    ax.set_title(f"{label_of(label)}\n{len(points):,} rows", fontsize=8.5)
    ax.set(**{f"{axis}label": f"UMAP {k}" if array == "sample_umap" else
              f"PC {k} ({run.arrays['component_share'][k - 1]:.0%} of variance)" for k, axis in ((1, "x"), (2, "y"))})
    ax.xaxis.set_label_coords(0.5, -0.07)
  return say(figure, maps, runs, labels, found)


def reconstruction_scatter(runs: list[RunData], labels: list[str], narrow: bool = False) -> Figure | None:
  """Look for features whose cloud is narrower about the dashed line of equality in one row than in the other. Measured
  values run across, reconstructed ones up; axes of log1p features are logarithmic.
  """
  found = read_whole(runs, labels, {"sample_x", "sample_x_mean"})
  if not found:
    return None
  names = next(iter(found.values())).meta["features"]
  r2 = np.array([[reading.scalars(run.evals[run.split]).get(f"r2_raw/{name}") for name in names]
                 for run in found.values()], float)
  shown = evenly_ranked(r2.mean(axis=0), MAX_SCATTERS)
  if not shown:
    return None
  across = 2 if narrow else len(shown)
  high = -(-len(shown) // across)  # rows of panels of a label
  figure = new_figure(4.6, 2.4 * high * len(found)) if narrow else new_figure(9.0, 1.72 * len(found) + 0.25)
  grid = figure.subplots(high * len(found), across, squeeze=False)
  for ax in grid.ravel():
    ax.set_visible(False)
  for j, (label, run) in enumerate(found.items()):
    for i, d in enumerate(shown):
      ax, own = grid[j * high + i // across, i % across], run.meta["features"].index(names[d])  # a run may have others
      ax.set_visible(True)
      draw_feature(ax, run.arrays["sample_x"][:, own], run.arrays["sample_x_mean"][:, own],
                   run.meta["scaler"]["transforms"][own].endswith("log1p"))
      ax.tick_params(labelsize=5.5)
      above = f"{clip_text(names[d], 20)}\n" if narrow or not j else ""
      ax.set_title(above + f"R² {r2[j, d]:.3f}".replace("-", "−"), fontsize=7)
      if i % across == 0:
        ax.set_ylabel(field_lines(label, 26), fontsize=7)
  more = f"{len(shown)} of {len(names)} features are shown, from the best mean R² to the worst." * (
      len(shown) < len(names))
  return say(figure, reconstruction_scatter, runs, labels, found, more)
