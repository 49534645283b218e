"""Figures of what the model says of outcomes and of treatments that were not recorded, from a run's files alone."""

import numpy as np
from matplotlib.figure import Figure

from jaxtrain.experiments.causal_consistency.figures_findings import WIDTH, finite, scalars_of
from jaxtrain.report.figures import HUES, MUTED, clip_text, new_figure
from jaxtrain.report.reliability import draw_reliability
from jaxtrain.workdir.reading import RunData

MAX_PANELS = 6
RIGHT, WRONG = HUES[0], HUES[1]


def calibration(run: RunData) -> Figure | None:
  """Look for dots below the dashed line whose interval does not reach it: there the model is surer of an imputed
  treatment than it is right. Lines are 95 % intervals; the grey bars count the rows.
  """
  part = next((one for one in ("hidden", "recorded") if f"calibration_{one}" in run.arrays), None)
  if part is None or not run.arrays[f"calibration_{part}"][0].sum():
    return None
  bins = run.arrays[f"calibration_{part}"]
  ece = finite(scalars_of(run), f"{part}_ece")
  shown = "" if ece is None else f"; expected calibration error {ece:.3f}"
  return draw_reliability(bins, f"{run.split}, {int(bins[0].sum()):,} rows, treatment {part}{shown}")


def sigma(run: RunData) -> Figure | None:
  """Whether outcomes are as spread as the model says."""
  counts, names = run.arrays.get("pit_counts"), run.meta.get("outcomes")
  if counts is None or not names or not counts.sum():
    return None
  shown = min(len(counts), MAX_PANELS)
  edges = np.linspace(0, 1, counts.shape[1] + 1)
  figure = new_figure(WIDTH, 0.4 + 2.1 * shown)
  for k, ax in enumerate(np.ravel(figure.subplots(shown, 1))):
    share = 100 * counts[k] / counts[k].sum()
    equal = 1 / counts.shape[1]
    spread = 196 * np.sqrt(equal * (1 - equal) / counts[k].sum())
    ax.axhspan(max(100 * equal - spread, 0), 100 * equal + spread, color="#e3e7eb", label="95 % of calibrated bars")
    ax.stairs(share, edges, color=RIGHT, fill=True, alpha=0.6)
    ax.axhline(100 * equal, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    ax.set(xlim=(0, 1), ylabel="% of rows", xlabel="probability that the model gives to smaller outcomes",
           title=f"{clip_text(names[k], 30)}, {int(counts[k].sum()):,} recorded rows")
  figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left")
  text = ("Look for bars outside the grey band. High bars at both ends: outcomes are more spread than the model says, "
          "and its intervals are too short; high in the middle: too long; a slope: its means are off.")
  covered = [finite(scalars_of(run), f"coverage_{level}") for level in (50, 90)]
  if None not in covered:
    text += f" Its 50 % intervals hold {100 * covered[0]:.1f} % of outcomes, those of 90 % {100 * covered[1]:.1f} %."
  figure.set_label(text)
  return figure


def responsibilities(run: RunData) -> Figure | None:
  """How sure the model is of treatments that were not recorded."""
  counts, names = run.arrays.get("imputed_counts"), run.meta.get("class_names")
  if counts is None or not names or not counts.sum():
    return None
  known = counts.shape[1] == 2
  there = [c for c in range(len(counts)) if counts[c].sum()]
  edges = np.linspace(0, 1, counts.shape[2] + 1)
  figure = new_figure(WIDTH, 0.7 + 1.9 * min(len(there), MAX_PANELS))
  for ax, c in zip(np.ravel(figure.subplots(min(len(there), MAX_PANELS), 1, sharex=True)), there):
    right = counts[c, -1]
    ax.stairs(right, edges, color=RIGHT, fill=True, alpha=0.75, label="right" if known else None)
    if known:
      ax.stairs(right + counts[c, 0], edges, baseline=right, color=WRONG, fill=True, alpha=0.75, label="wrong")
    ax.set(ylabel="rows", xlim=(max(1 / len(counts) - 0.05, 0), 1),
           title=f"{clip_text(names[c], 30)} {'in truth' if known else 'imputed'}, {counts[c].sum():,.0f} hidden rows")
    last = ax
  last.set_xlabel("probability of the imputed class")
  if known:
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    text = ("Look for orange at high probabilities: there the model is sure of a treatment that was another one, and "
            "its effect is biased by such rows.")
  else:
    text = ("Rows whose treatment is not recorded, by how sure the model is of it. Bars near 1 are as good as recorded "
            "if the model is calibrated; those near chance add little.")
  figure.set_label(text + f" {len(there) - MAX_PANELS} classes are not drawn." * (len(there) > MAX_PANELS))
  return figure
