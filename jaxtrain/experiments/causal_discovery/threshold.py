"""The edge probability from which a pair counts as an edge: where one graph is wanted and not a posterior.

It is chosen on the validation tasks of the training distribution, so that the mean F1 of directed edges over the tasks
is highest there, and stands in `eval/val.json` beside the digest of the state that it was chosen for. Test tasks are
judged at it, beside the best that any threshold would reach on them.
"""

import math
from typing import Any

import numpy as np

from jaxtrain import statistics
from jaxtrain.errors import UserError
from jaxtrain.types import Metric

DEFAULT = 0.5  # of a state for which none was chosen
GRID = np.arange(1, 100) / 100
METRICS = {
    "threshold": Metric("", "edge probability from which the graph with the highest mean F1 on validation tasks has an "
                        "edge", limits=(0, 1)),
    "threshold_f1": Metric("", "F1 of directed edges of the graph at that threshold", "higher", limits=(0, 1)),
    "threshold_f1_best": Metric("", "F1 of directed edges at the threshold that is best on these very tasks", "higher",
                                limits=(0, 1)),
}
Example = tuple[np.ndarray, np.ndarray, int]  # probabilities and truth [D, D], and how many variables are real


def parse(given: Any) -> float:
  """A threshold of a user's. Raises UserError."""
  try:
    found = float(given)
  except (TypeError, ValueError):
    found = math.nan
  if not 0 <= found <= 1:
    raise UserError(f"--threshold: got {given!r}, allowed a probability, 0 to 1")
  return found


def f1_curve(examples: list[Example], grid: np.ndarray = GRID) -> np.ndarray:
  """F1 = 2 TP / (2 TP + FP + FN) of the graph p >= threshold, [T, G]; 1 where it and the truth are both empty."""
  rows = []
  for probs, truth, d in examples:
    pairs = ~np.eye(d, dtype=bool)
    p, t = np.asarray(probs[:d, :d], np.float64)[pairs], truth[:d, :d][pairs] > 0
    graph = p[None] >= grid[:, None]
    edges = graph.sum(1) + t.sum()  # 2 TP + FP + FN
    rows.append(np.where(edges > 0, 2 * (graph & t[None]).sum(1) / np.maximum(edges, 1), 1.0))
  return np.stack(rows)


def scalars_of(examples: list[Example], chosen: float | None) -> dict[str, float]:
  """The metrics of `METRICS` of some tasks; `chosen` is None on those that the threshold is chosen on."""
  mean = f1_curve(examples).mean(0)
  threshold = float(GRID[mean.argmax()]) if chosen is None else chosen
  own = f1_curve(examples, np.asarray([threshold]))[:, 0]
  return {"threshold": threshold, "threshold_f1": float(own.mean()), "threshold_f1_ci95": statistics.t_half_width(own),
          "threshold_f1_best": float(mean.max())}
