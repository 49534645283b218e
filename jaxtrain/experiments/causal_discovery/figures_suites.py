"""Figures of an assessment by families of tasks, from its scalars alone: the families, and what distance costs."""

import numpy as np
from matplotlib.figure import Figure

from jaxtrain.report.figures import COLORS, GREY, INK, clip_text, new_figure, words
from jaxtrain.report.panels import panel_grid
from jaxtrain.statistics import t_quantile
from jaxtrain.workdir import reading
from jaxtrain.workdir.reading import RunData

BLUE = COLORS["train"]
SHOWN = ("auroc", "auroc_over_partial_correlation", "e_edge_f1", "ood_detection_auroc")
CHANCE = {"auroc": 0.5, "auroc_over_partial_correlation": 0.0, "ood_detection_auroc": 0.5}
DISTANCES = ("spectral", "kl_degree", "mechanism")
LEAST = 3  # families for a slope


def families_of(scalars: dict) -> list[str]:
  """Names of the families that an assessment's scalars are of, in their order there."""
  return [key.removeprefix("rows/") for key in scalars if key.startswith("rows/")]


def numbers(scalars: dict, name: str, families: list[str]) -> np.ndarray:
  """A scalar of each family [F], NaN where there is none."""
  found = [scalars.get(f"{name}/{family}") for family in families]
  return np.asarray([np.nan if value is None else value for value in found], np.float64)


def slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
  """(slope, half width of its 95 % interval, value at x = 0) of the least-squares line through points x, y [F].

  The interval is of Student's t, as if families were independent; NaN for fewer than `LEAST` points or a single x.
  """
  known = np.isfinite(x) & np.isfinite(y)
  x, y = x[known], y[known]
  spread = np.sum(np.square(x - x.mean())) if len(x) else 0.0
  if len(x) < LEAST or spread <= 1e-12:
    return np.nan, np.nan, np.nan
  b = np.sum((x - x.mean()) * (y - y.mean())) / spread
  a = y.mean() - b * x.mean()
  error = np.sqrt(np.sum(np.square(y - a - b * x)) / (len(x) - 2) / spread)
  return float(b), float(t_quantile(len(x) - 2) * error), float(a)


def suite(run: RunData) -> Figure | None:
  """Look for families left of the dashed line, the tasks of the training distribution: there the model is worse. In the
  second panel look for families left of 0: a partial correlation does better than the model. In the last, families
  right of 0.5 are those where the model is less sure. Bars are 95 % intervals.
  """
  scalars = reading.scalars(run.evals.get(run.split, {}))
  families = families_of(scalars)
  names = [name for name in SHOWN if np.isfinite(numbers(scalars, name, families)).any()]
  if not names:
    return None
  figure = new_figure(2.8 + 2.1 * len(names), 1.2 + 0.26 * len(families))
  places = np.arange(len(families))
  for ax, name in zip(np.ravel(figure.subplots(1, len(names), sharey=True)), names):
    half = numbers(scalars, f"{name}_ci95", families)
    ax.errorbar(numbers(scalars, name, families), places, xerr=np.where(np.isfinite(half), half, 0), fmt="o",
                color=BLUE, markersize=4, elinewidth=1.2)
    if scalars.get(name) is not None:
      ax.axvline(scalars[name], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    if name in CHANCE:
      ax.axvline(CHANCE[name], color=GREY, linewidth=1.2)
    ax.set_title(clip_text(words(name), 32), fontsize=8.5)
    ax.set_yticks(places, [clip_text(family, 30) for family in families], fontsize=8)
    ax.set_ylim(len(families) - 0.5, -0.5)
  return figure


def degradation(run: RunData) -> Figure | None:
  """Look for a line that falls: the further a family is from the training tasks, the worse the model. Each dot is a
  family; the cross is the training distribution; titles say the slope with its 95 % interval over families.
  """
  scalars = reading.scalars(run.evals.get(run.split, {}))
  families = families_of(scalars)
  auroc = numbers(scalars, "auroc", families)
  shown = [name for name in DISTANCES if np.isfinite(numbers(scalars, f"distance_{name}", families)).any()]
  if not shown or len(families) < LEAST:
    return None
  figure, panels = panel_grid(len(shown), 3, 3.0, 2.8, (0.4, 0.3), sharey=True)
  for ax, name in zip(panels[:, 0], shown):
    x = numbers(scalars, f"distance_{name}", families)
    ax.plot(x, auroc, "o", color=BLUE, markersize=4)
    if scalars.get("auroc") is not None:
      ax.plot([0], [scalars["auroc"]], "x", color=INK, markersize=6)
    b, half, a = slope(x, auroc)
    if np.isfinite(b):
      ends = np.asarray([0.0, np.nanmax(x)])
      ax.plot(ends, a + b * ends, color=INK, linewidth=0.9)
    ax.set_title(f"slope {b:.2f} ± {half:.2f}" if np.isfinite(b) else "no slope", fontsize=8.5)
    ax.set_xlabel(f"distance: {words(name)}")
    ax.axhline(0.5, color=GREY, linewidth=1.2)
  panels[0, 0].set_ylabel("AUROC")
  return figure


FAMILIES = {"suite": suite, "degradation": degradation}
