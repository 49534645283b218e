"""Figures of causal discovery, from eval/<split>.json and .npz alone: graphs, kinds of tasks, reliability."""

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from jaxtrain.experiments.causal_discovery import figures_compared, figures_suites
from jaxtrain.report.figures import COLORS, GREY, INK, MUTED, clip_text, new_figure, words
from jaxtrain.report.panels import panel_grid
from jaxtrain.statistics import wilson
from jaxtrain.workdir import reading
from jaxtrain.workdir.reading import RunData

BLUE = COLORS["train"]
SHADE = LinearSegmentedColormap.from_list("probability", ["#ffffff", "#b5d2ec", "#1f6fb4", "#08264d"])
SHOWN = 6  # examples
FINDINGS = {"baselines": figures_compared.findings}


def graphs(run: RunData) -> Figure | None:
  """Look for shade inside the rings, which mark the true edges, and none outside; shade mirrored across the diagonal is
  an edge whose direction is not known. Each panel is a task: causes in rows, effects in columns.
  """
  if not {"example_probs", "example_truth"} <= run.arrays.keys():
    return None
  probs, truth = run.arrays["example_probs"][:SHOWN], run.arrays["example_truth"][:SHOWN]
  figure, panels = panel_grid(len(probs), 3, 2.6, 2.5, (0.9, 0.5))
  axes = panels[:, 0]
  for k, ax in enumerate(axes):
    image = ax.imshow(probs[k], cmap=SHADE, vmin=0, vmax=1)
    cause, effect = np.nonzero(truth[k])
    size = 2.6 * 72 / len(truth[k]) * 0.55
    ax.scatter(effect, cause, s=size**2, facecolors="none", edgecolors="#d2580f", linewidths=1.1)
    ax.set_title(f"task {k}: {len(cause)} edge{'s' * (len(cause) != 1)}", fontsize=8.5)
    ax.grid(visible=False)
    ax.set(xticks=[], yticks=[])
  axes[0].set(xlabel="effect", ylabel="cause")
  figure.colorbar(image, ax=axes.tolist(), label="probability of the edge", shrink=0.7)
  return figure


def families(run: RunData) -> Figure | None:
  """Look for a family whose AUROC stays at 0.5 (grey): it carries no signal that the model has learned. Each dot is the
  mean over the tasks of a family with its 95 % interval; the dashed line is the mean of all.
  """
  scalars = reading.scalars(run.evals.get(run.split, {}))
  names = [name for name in ("e_edge_f1", "auroc", "edge_nll_nats") if scalars.get(name) is not None]
  items = list(dict.fromkeys(item for name, _, item in (key.partition("/") for key in scalars)
                             if name in names and item and not item.startswith("baseline_")
                             and f"rows/{item}" not in scalars))
  if not names or not items:
    return None
  figure = new_figure(2.3 + 2.3 * len(names), 1.2 + 0.3 * len(items))
  for ax, name in zip(np.ravel(figure.subplots(1, len(names), sharey=True)), names):
    mean = [scalars.get(f"{name}/{item}") for item in items]
    half = [scalars.get(f"{name}_ci95/{item}") for item in items]
    known = [k for k, value in enumerate(mean) if value is not None and np.isfinite(value)]
    width = [half[k] if half[k] is not None and np.isfinite(half[k]) else 0.0 for k in known]
    ax.errorbar([mean[k] for k in known], known, xerr=width, fmt="o", color=BLUE, markersize=4, elinewidth=1.2)
    ax.axvline(scalars[name], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    if name == "auroc":
      ax.axvline(0.5, color=GREY, linewidth=1.2)
    ax.set_title(clip_text(words(name), 32), fontsize=8.5)
    ax.set_yticks(range(len(items)), [clip_text(item, 30) for item in items], fontsize=8)
    ax.set_ylim(len(items) - 0.5, -0.5)
  return figure


def reliability(run: RunData) -> Figure | None:
  """Look for dots below the dashed line, where fewer pairs have the edge than the model says: it is too sure. Lines are
  95 % intervals; the grey bars count the pairs.
  """
  if "reliability_count" not in run.arrays:
    return None
  count, predicted, true = (run.arrays[f"reliability_{name}"] for name in ("count", "predicted", "true"))
  kept = count > 0
  error = np.sum(count * np.abs(predicted - true)) / max(count.sum(), 1)
  figure = new_figure(4.6, 4.6)
  upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
  upper.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
  share, least, most = wilson((true * count)[kept], count[kept])
  upper.errorbar(predicted[kept], share, yerr=np.stack([share - least, most - share]), fmt="o", color=BLUE,
                 markersize=4)
  upper.set(ylabel="share with the edge", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
  upper.set_title(f"expected calibration error {error:.3f}, {count.sum():,} pairs of {run.split}", fontsize=8.5)
  lower.bar(((np.arange(len(count)) + 0.5) / len(count))[kept], count[kept], width=0.9 / len(count), color=GREY)
  lower.set(ylabel="pairs", xlabel="probability of the edge")
  lower.yaxis.label.set_color(MUTED)
  return figure


FAMILIES = {"graphs": graphs, "baselines": figures_compared.baselines, "families": families, "reliability": reliability,
            **figures_suites.FAMILIES}
