"""Part `imputation`: how well features that are hidden come back, beside simpler ways to fill them.

The others are fitted on training rows without a hole: the mean of a feature; linear least squares on the features
that are not hidden; and the mean of the nearest rows by those. Held-out rows are taken as they are: what else a row
lacks is missing for the model, and at the training mean for the others. R2 is over the cells that were measured, in
scaled units, about their mean.
"""

from typing import Any, Iterable, Mapping

import numpy as np

from jaxtrain.errors import UserError
from jaxtrain.experiments.tabular_vae import grouped
from jaxtrain.experiments.tabular_vae.held_out import HeldOut
from jaxtrain.types import Metric

NEIGHBOURS = 25
MOST_ALONE = 24  # features up to which each is hidden alone
METHODS = ("model", "mean", "linear", "knn")
SIMPLER = {"knn": f"{NEIGHBOURS} nearest rows", "linear": "linear least squares", "mean": "the mean of a feature"}
METRICS = {
    "impute_r2_*": Metric("", "share of the variance of hidden features that comes back, in scaled units, mean over "
                          "them", "higher", 0.0),
    "impute_rows": Metric("rows", "training rows that imputers were fitted on"),
    "impute_reason": Metric("", "why nothing was imputed"),
    "impute_summary": Metric("", "how well hidden features come back, beside the best of the simpler ways"),
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
  train = held.train.x[held.train.observed.all(axis=1)].astype(np.float64)
  if not len(train) or not len(held.scored.x):
    return {"impute_reason": "Left out: imputation, for no training row has all features, or no row was held out."}, {}
  x, hiding = held.scored.x.astype(np.float64), subsets(held.features, blocks)
  truth = np.where(held.scored.observed, x, np.nan)
  scalars, found = {"impute_rows": len(train)}, np.full((len(hiding), len(METHODS)), np.nan)
  half = found.copy()
  for i, (name, hidden) in enumerate(hiding.items()):
    holes = truth.astype(np.float32)
    holes[:, hidden] = np.nan
    for j, method in enumerate(METHODS):
      filled = impute(holes)[:, hidden] if method == "model" else fill(method, train, x, hidden)
      values = grouped.resampled(held.groups, grouped.r2_totals(held.groups, truth[:, hidden], filled), grouped.mean_r2)
      found[i, j], half[i, j] = values[0], grouped.half_widths(values)
      scalars[f"impute_r2_{method}/{name}"] = float(found[i, j])
      scalars |= {f"impute_r2_{method}_ci95/{name}": float(half[i, j])} if np.isfinite(half[i, j]) else {}
  scalars |= {"impute_summary": said} if (said := sentence(scalars, held.features)) else {}
  return scalars, {"impute_hidden": np.array(list(hiding)), "impute_r2": found, "impute_half": half}


def alone(scalars: Mapping[str, Any], features: Iterable[str]) -> dict[str, list[float]]:
  """R2 of the features that were each hidden alone, by the way in which they were filled."""
  known = lambda way, name: isinstance(value := scalars.get(f"impute_r2_{way}/{name}"), float) and np.isfinite(value)
  names = [name for name in features if known(METHODS[0], name)]
  ways = [way for way in METHODS if all(known(way, name) for name in names)]
  return {way: [scalars[f"impute_r2_{way}/{name}"] for name in names] for way in ways} if names else {}


def sentence(scalars: Mapping[str, Any], features: Iterable[str]) -> str:
  """How well hidden cells come back, and the best of the simpler ways; "" where that was not assessed."""
  found = alone(scalars, features)
  if not found:
    return ""
  own, mean = found[METHODS[0]], lambda values: sum(values) / len(values)
  text = (f"Measured cells of held-out rows that were hidden, each feature alone, come back with an R2 of "
          f"{mean(own):.3g} in scaled units, mean over {len(own)} features")
  others = {way: values for way, values in found.items() if way in SIMPLER}
  if not others:
    return f"{text}."
  way = max(others, key=lambda way: mean(others[way]))
  worse = sum(other > value for other, value in zip(others[way], own))
  verdict = (f"better than this model in {worse} of {len(own)}" if mean(others[way]) > mean(own) else
             f"the best of the simpler ways, better than this model in {worse} of {len(own)}")
  return f"{text}; {SIMPLER[way]} {'reaches' if way == 'mean' else 'reach'} {mean(others[way]):.3g}, {verdict}."
