"""How well scores tell two sets of events apart."""

import math

import numpy as np

from jaxtrain import statistics


def share_below(scores: np.ndarray, weight: np.ndarray, of: np.ndarray) -> np.ndarray:
  """Share of the weight of scores [N] that lies below each number `of` [M]; ties count half."""
  order = np.argsort(scores)
  total = np.concatenate([[0.0], np.cumsum(weight[order])])
  low, high = (total[np.searchsorted(scores[order], of, side)] for side in ("left", "right"))
  return (low + high) / (2 * total[-1])


def auroc(normal: np.ndarray, strange: np.ndarray, weights: tuple[np.ndarray, np.ndarray], paired: bool
          ) -> tuple[float, float]:
  """(area under the curve of telling strange scores from normal ones, half width of its 95 % interval).

  With `paired` the strange scores are those of damaged copies of the normal events, in their order: what both have in
  common moves the area less than two sets of events would.

  **Source:** DeLong et al. 1988 (Comparing the areas under two or more correlated receiver operating characteristic
  curves), eq. 4 to 6: an event's part in the area is the share of the other set that it is above or below.
  """
  share = [w.astype(np.float64) / w.astype(np.float64).sum() for w in weights]
  above, below = share_below(normal, share[0], strange), 1 - share_below(strange, share[1], normal)
  area = float(np.sum(share[1] * above))
  moves = [len(normal) * share[0] * (below - area), len(strange) * share[1] * (above - area)]
  halves = [statistics.t_half_width(part) for part in ([moves[0] + moves[1]] if paired else moves)]
  return area, math.hypot(*halves)
