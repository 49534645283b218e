"""Figures of several runs of a tabular VAE, such as an unsupervised and a semi-supervised one, side by side.

Each takes the runs and a label for each; of runs that share one, which differ in their seed alone, the first is drawn
where each needs a panel of its own. Arrays are read from the runs' evaluations here.
"""

import numpy as np
from matplotlib.figure import Figure

from jaxtrain import statistics
from jaxtrain.experiments.tabular_vae.figures_data import shown_features
from jaxtrain.experiments.tabular_vae.figures_points import draw_feature, draw_map
from jaxtrain.report.figures import HUES, INK, MUTED, clip_text, new_figure
from jaxtrain.workdir import reading
from jaxtrain.workdir.reading import RunData

MAX_PANELS, MAX_LABELS, MAX_HELD, MAX_SCATTERS, MAX_FEATURES = 4, 10, 30, 6, 24
CHANCE = (0, (4, 3))


def read_whole(runs: list[RunData], labels: list[str], needs: set[str], most: int = MAX_PANELS
               ) -> dict[str, RunData]:
  """The first run of each label, with its arrays, of those that have the arrays needed; {} with fewer than two."""
  found = {}
  for run, label in zip(runs, labels):
    if label not in found and len(found) < most:
      whole = reading.read_run(run.folder)
      if needs <= whole.arrays.keys() and whole.meta:
        found[label] = whole
  return found if len(found) > 1 else {}


def side_by_side(count: int, width: float, height: float, narrow: bool, **share) -> tuple[Figure, list]:
  """A figure of so many panels of such inches, and its axes; `narrow`: below each other."""
  figure = new_figure(4.6, height * count) if narrow else new_figure(width * count, height)
  return figure, list(figure.subplots(*((count, 1) if narrow else (1, count)), squeeze=False, **share).ravel())


def roc_comparison(runs: list[RunData], labels: list[str], narrow: bool = False) -> Figure | None:
  """Look for classes whose curve lies higher in one panel than in the other: that latent space tells more about them. A
  curve is of one class against the rest, by a linear classifier on the latent means (linear discriminant analysis), so
  that models without a classifier of their own compare; in brackets is its area.
  """
  found = read_whole(runs, labels, {"probe_class", "probe_auc", "probe_fpr", "probe_tpr", "probe_rows",
                                    "probe_by_group"})
  if not found:
    return None
  figure, axes = side_by_side(len(found), 4.5 if len(found) == 2 else 9 / len(found), 5.6, narrow)
  for ax, (label, run) in zip(axes, found.items()):
    arrays, names = run.arrays, run.meta["class_names"]
    for k, auc, curve, color in zip(arrays["probe_class"], arrays["probe_auc"], arrays["probe_tpr"], HUES):
      ax.plot(arrays["probe_fpr"], curve, color=color, linewidth=1.3, label=f"{clip_text(names[k], 26)} ({auc:.3f})")
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=CHANCE)
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="false positive rate", ylabel="true positive rate")
    ax.set_title(f"{clip_text(label, 34)}: mean area {arrays['probe_auc'].mean():.3f}", fontsize=8.5)
    ax.legend(loc="upper left", bbox_to_anchor=(0.0, -0.13), ncols=1 if len(found) > 2 else 2, fontsize=6.5,
              handlelength=1.2, columnspacing=0.8, borderaxespad=0)
  fitted, scored = arrays["probe_rows"]
  where = "other groups" if arrays["probe_by_group"] else "other rows"
  text = f"fitted to {fitted:,} rows,{chr(10) if narrow else ' '}scored on {scored:,} of {where} ({run.split})"
  figure.suptitle(text, x=0.01, ha="left", fontsize=8.5, color=MUTED)
  return figure


def r2_comparison(runs: list[RunData], labels: list[str], narrow: bool = False) -> Figure | None:
  """Look for features whose dots differ by more than their intervals: one model keeps more of them. Of one run the
  interval is that of 95 % over its rows, of several with one label the mean and its interval over runs. Rows of one
  hole are alike, so that an interval over rows is too narrow.
  """
  values: dict[str, list] = {}
  features: list[str] = []
  for run, label in zip(runs, labels):
    split = next(iter(run.evals), "")
    features = features or (reading.known_meta(run).get("features", []) if split else [])
    scalars = reading.scalars(run.evals[split]) if split else {}
    values.setdefault(label, []).append([[scalars.get(f"r2_raw{end}/{name}") for name in features]
                                         for end in ("", "_ci95")])
  shown = [d for d in range(len(features)) if all(one[0][d] is not None for some in values.values() for one in some)]
  if len(values) < 2 or not shown or len(values) > MAX_LABELS:
    return None
  shown = shown[:MAX_FEATURES]
  figure = new_figure(4.6 if narrow else 8.2, 1.2 + (0.2 + 0.16 * len(values)) * len(shown))
  ax, lowest = figure.subplots(), 1.0
  for j, (color, (label, some)) in enumerate(zip(HUES, values.items())):
    numbers = np.array(some, float)[:, :, shown]  # [runs, 2, D]
    middle, half = numbers[0] if len(some) == 1 else (
        numbers[:, 0].mean(axis=0), [statistics.t_half_width(column) for column in numbers[:, 0].T])
    where = np.arange(len(shown)) + (j - (len(values) - 1) / 2) * 0.6 / len(values)
    ax.errorbar(middle, where, xerr=np.nan_to_num(np.array(half, float)), fmt="o", color=color, markersize=4.5,
                elinewidth=1.3, label=clip_text(label, 40) + f", {len(some)} runs" * (len(some) > 1))
    for y, value in zip(where, middle):
      ax.annotate(f"{value:.3f}".replace("-", "−"), (1.015, y), fontsize=6.5, va="center", color=color,
                  xycoords=("axes fraction", "data"), annotation_clip=False)
    lowest = min(lowest, float(np.min(middle - np.nan_to_num(np.array(half, float)))))
  ax.set_yticks(range(len(shown)), [clip_text(features[d], 20 if narrow else 34) for d in shown], color=INK)
  lowest = max(lowest, -1.0)
  ax.set(xlim=(lowest - 0.05 * (1 - lowest), 1 + 0.02 * (1 - lowest)), ylim=(len(shown) - 0.5, -0.5),
         xlabel="R² of the reconstruction, raw units")
  figure.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=1 if narrow else 3)
  return figure


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
  held, rows, names = first.arrays["held_class"], first.arrays["held_rows"], first.meta["class_names"]
  found = {label: run for label, run in found.items() if np.array_equal(run.arrays["held_class"], held)}
  order = np.argsort(-rows, kind="stable")[:MAX_HELD]
  figure = new_figure(4.6 if narrow else 8.2, 1.4 + 0.21 * len(order))
  ax = figure.subplots()
  for color, (label, run) in zip(HUES, found.items()):
    own, whole = run.arrays["held_own"], float(run.arrays["held_all"])
    ax.plot(own[order] / whole, range(len(order)), "o", color=color, markersize=5, alpha=0.85,
            label=f"{clip_text(label, 34)}: mean {np.mean(own / whole):.3f} (unscaled {np.mean(own):.3f})")
  ax.axvline(1, color=MUTED, linewidth=0.9, linestyle=CHANCE)
  ax.set_yticks(range(len(order)), [f"{clip_text(names[held[k]], 18 if narrow else 34)} ({rows[k]:,})" for k in order],
                color=INK)
  ax.set(ylim=(len(order) - 0.4, -0.6), xlabel="mean distance to the own centroid" + ", relative to all rows"
         * (not narrow))
  ax.set_xlim(0, None)
  figure.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=1)
  return figure


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
  figure, axes = side_by_side(len(found), 9 / len(found), 5.4 if narrow else 5.6, narrow)
  for ax, (label, run) in zip(axes, found.items()):
    points = run.arrays[array]
    draw_map(ax, run, points, True)
    ax.set_title(f"{clip_text(label, 34)} ({len(points):,} rows)", fontsize=8.5)
    ax.set(**{f"{axis}label": f"UMAP {k}" if array == "sample_umap" else
              f"PC {k} ({run.arrays['component_share'][k - 1]:.0%} of variance)" for k, axis in ((1, "x"), (2, "y"))})
    ax.xaxis.set_label_coords(0.5, -0.07)
  return figure


def reconstruction_scatter(runs: list[RunData], labels: list[str], narrow: bool = False) -> Figure | None:
  """Look for features whose cloud is narrower about the dashed line of equality in one row than in the other. Measured
  values run across, reconstructed ones up; axes of log1p features are logarithmic.
  """
  found = read_whole(runs, labels, {"sample_x", "sample_x_mean"}, 2)
  if not found:
    return None
  first = next(iter(found.values()))
  shown = shown_features(first)[0][:MAX_SCATTERS]
  down, across = (len(shown), len(found)) if narrow else (len(found), len(shown))
  figure = new_figure(2.3 * across, 2.35 * down) if narrow else new_figure(9.0, 1.72 * down + 0.25)
  grid = figure.subplots(down, across, squeeze=False)
  for j, (label, run) in enumerate(found.items()):
    scalars, names = reading.scalars(run.evals[run.split]), run.meta["features"]
    for i, d in enumerate(shown):
      ax = grid[i, j] if narrow else grid[j, i]
      draw_feature(ax, run.arrays["sample_x"][:, d], run.arrays["sample_x_mean"][:, d],
                   run.meta["scaler"]["transforms"][d].endswith("log1p"))
      ax.tick_params(labelsize=5.5)
      r2 = scalars.get(f"r2_raw/{names[d]}")
      above = f"{clip_text(names[d], 20)}\n" if narrow or not j else ""
      ax.set_title(above + ("no R²" if r2 is None else f"R² {r2:.3f}".replace("-", "−")), fontsize=7)
      if narrow and not i:
        ax.set_title(f"{clip_text(label, 22)}\n{ax.get_title(loc='left')}", fontsize=7)
      elif not narrow and not i:
        ax.set_ylabel(clip_text(label, 24), fontsize=7.5)
  return figure

