"""Part `imputation`: how well features that are hidden come back, beside simpler ways to fill them.

The others are fitted on training rows: the mean of a feature; linear least squares on the features that are there; and
the mean of the nearest rows by those. Rows that lack a feature themselves take no part. R2 is in standardised units,
about the mean of the held-out rows.
"""

import numpy as np

from jaxtrain.errors import UserError
from jaxtrain.experiments.tabular_vae import grouped
from jaxtrain.experiments.tabular_vae.held_out import HeldOut
from jaxtrain.types import Metric

NEIGHBOURS = 25
MOST_ALONE = 24  # features up to which each is hidden alone
METHODS = ("model", "mean", "linear", "knn")
METRICS = {
    "impute_r2_*": Metric("", "share of the variance of hidden features that comes back, mean over them", "higher",
                          0.0),
    "impute_rows": Metric("rows", "training rows that imputers were fitted on"),
    "impute_reason": Metric("", "why nothing was imputed"),
}


def subsets(features: list[str], blocks: tuple[str, ...]) -> dict[str, list[int]]:
  """Which features are hidden together, by name: each alone, where they are few, and blocks such as 'R+G+B'.

  Raises UserError for a block that names no feature, or leaves none.
  """
  found = {name: [d] for d, name in enumerate(features)} if 1 < len(features) <= MOST_ALONE else {}
  for block in blocks:
    names = [name.strip() for name in block.split("+")]
    unknown = [name for name in names if name not in features]
    if unknown or len(set(names)) == len(features):
      raise UserError(f"config.eval.impute_blocks: got {block!r}, allowed some of the features, joined by +: "
                      f"{', '.join(features[:12])}")
    found[block] = [features.index(name) for name in dict.fromkeys(names)]
  return found


def fill(method: str, train: np.ndarray, x: np.ndarray, hidden: list[int]) -> np.ndarray:
  """The hidden features [N, H] of rows x [N, D] from the others, as a method fitted on training rows [M, D] has it."""
  seen = [d for d in range(x.shape[1]) if d not in hidden]
  if method == "mean":
    return np.broadcast_to(train[:, hidden].mean(axis=0), (len(x), len(hidden)))
  if method == "linear":
    with_one = lambda rows: np.concatenate([rows[:, seen], np.ones((len(rows), 1))], axis=1)
    return with_one(x) @ np.linalg.lstsq(with_one(train), train[:, hidden], rcond=None)[0]
  from sklearn import neighbors  # slow to import, and no need of training
  near = neighbors.KNeighborsRegressor(min(NEIGHBOURS, len(train)))
  return near.fit(train[:, seen], train[:, hidden]).predict(x[:, seen]).reshape(len(x), len(hidden))


def assess(held: HeldOut, blocks: tuple[str, ...], impute) -> tuple[dict, dict]:
  """(scalars, arrays): `impute_r2_<method>/<hidden features>` with intervals; `impute_r2` [subsets, methods].

  Args:
    blocks: as of `subsets`.
    impute: `(x [N, D] with NaN) -> x [N, D]`, the model's own.
  """
  held = held.take(np.flatnonzero(held.scored.complete))
  train = held.train.x[held.train.complete].astype(np.float64)
  if not len(train) or not len(held.scored.x):
    return {"impute_reason": "Left out: imputation, for no training row or no held-out row has all features."}, {}
  x, hiding = held.scored.x.astype(np.float64), subsets(held.features, blocks)
  scalars, found = {"impute_rows": len(train)}, np.full((len(hiding), len(METHODS)), np.nan)
  half = found.copy()
  for i, (name, hidden) in enumerate(hiding.items()):
    holes = held.scored.x.copy()
    holes[:, hidden] = np.nan
    for j, method in enumerate(METHODS):
      filled = impute(holes)[:, hidden] if method == "model" else fill(method, train, x, hidden)
      values = grouped.resampled(held.groups, grouped.r2_totals(held.groups, x[:, hidden], filled), grouped.mean_r2)
      found[i, j], half[i, j] = values[0], grouped.half_widths(values)
      scalars[f"impute_r2_{method}/{name}"] = float(found[i, j])
      scalars |= {f"impute_r2_{method}_ci95/{name}": float(half[i, j])} if np.isfinite(half[i, j]) else {}
  return scalars, {"impute_hidden": np.array(list(hiding)), "impute_r2": found, "impute_half": half}
