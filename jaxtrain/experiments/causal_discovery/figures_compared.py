"""The model beside the methods that it is compared with, from eval/<split>.npz alone."""

import numpy as np
from matplotlib.figure import Figure

from jaxtrain.report.figures import COLORS, GREY, HUES, INK, clip_text, words
from jaxtrain.report.panels import panel_grid
from jaxtrain.workdir.reading import RunData

BLUE, BETTER, WORSE = COLORS["train"], HUES[2], HUES[1]
SAID = {"auroc": "AUROC", "e_edge_f1": "expected edge F1"}  # metrics that findings speak of
TITLES = {"auroc": "AUROC →", "auprc": "AUPRC →", "e_edge_f1": "expected edge F1 →", "e_shd": "expected SHD ←",
          "ne_sid": "normalised SID ←", "edge_nll_nats": "edge NLL in nats ←"}  # the arrow points to better values
CHANCE = {"auroc": 0.5}


def baselines(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for baselines that the model (blue, dashed line) does not beat. Dots are means over the same tasks with 95 %
  intervals. Green: the model is better, as the paired difference says; orange: the baseline is; grey: undecided. Two
  intervals may overlap and the difference be sure, because what is hard about a task is hard for both.
  """
  if not {"compared_methods", "compared_mean"} <= run.arrays.keys():
    return None
  part = lambda name: run.arrays[f"compared_{name}"]
  methods, metrics, mean = [str(x) for x in part("methods")], [str(x) for x in part("metrics")], part("mean")
  shown = [k for k in range(len(metrics)) if np.isfinite(mean[:, k]).sum() > 1]
  if not shown:
    return None
  height = 0.6 + 0.22 * len(methods)
  figure, panels = panel_grid(len(shown), 1 if narrow else 3, 2.4, height, (1.6, 0.3), sharey=True)
  for ax, k in zip(panels[:, 0], shown):
    for row in np.flatnonzero(np.isfinite(mean[:, k])):
      ends = np.nan_to_num([mean[row, k] - part("low")[row, k], part("high")[row, k] - mean[row, k]])
      color = BLUE if row == 0 else colour_of(part("gain_low")[row, k], part("gain_high")[row, k])
      ax.errorbar(mean[row, k], row, xerr=np.maximum(ends, 0.0)[:, None], fmt="o", color=color, markersize=4,
                  elinewidth=1.2)
    ax.axvline(mean[0, k], color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    if metrics[k] in CHANCE:
      ax.axvline(CHANCE[metrics[k]], color=GREY, linewidth=1.2, zorder=1)
    ax.set_title(TITLES[metrics[k]], fontsize=8.5)
    ax.set_yticks(range(len(methods)), [clip_text(words(method), 30) for method in methods], fontsize=8)
    ax.set_ylim(len(methods) - 0.5, -0.5)
  return figure


def colour_of(gain_low: float, gain_high: float) -> str:
  """Of a baseline, by the interval of the model's gain over it."""
  return BETTER if gain_low > 0 else WORSE if gain_high < 0 else GREY


def findings(run: RunData) -> list[str]:
  """Baselines that the model is worse than, and those that it is not surely better than."""
  if not {"compared_methods", "compared_gain"} <= run.arrays.keys():
    return []
  part, found = (lambda name: run.arrays[f"compared_{name}"]), []
  for k, metric in enumerate(str(x) for x in part("metrics")):
    low, high = part("gain_low")[1:, k], part("gain_high")[1:, k]
    for is_so, verdict in ((high < 0, "is below that of"), (~(high < 0) & (low <= 0), "is not surely above that of")):
      names = [words(str(name)) for name, one in zip(part("methods")[1:], is_so) if one]
      if metric in SAID and names:
        found.append(f"The model's {SAID[metric]} ({part('mean')[0, k]:.3f}) {verdict} {', '.join(names)} on the same "
                     "tasks, by the 95 % interval of the paired difference.")
  return found
