"""Part `transfer`: other measurements of the same rows, predicted from the embedding and from the raw scaled features.

Regressions are fitted on training rows and scored on held-out ones: linear least squares, and a random forest. A gain
is the R2 from the embedding less that from the features; its interval resamples whole groups for both at once. Rows
that lack the measurement take no part.
"""

import numpy as np

from jaxtrain import statistics
from jaxtrain.experiments.tabular_vae import grouped
from jaxtrain.experiments.tabular_vae.held_out import HeldOut
from jaxtrain.types import Metric

METHODS, INPUTS = ("linear", "forest"), ("embedding", "raw")
LEAST_ROWS, TREES, LEAF_ROWS, SEED = 20, 50, 10, 0
METRICS = {
    "transfer_r2": Metric("", "share of the variance of another measurement that a regression predicts", "higher", 0.0),
    "transfer_gain*": Metric("", "R2 from the embedding less that from the raw features", "higher", 0.0),
    "transfer_reason": Metric("", "which measurements were left out, and why"),
}


def predict(method: str, train: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
  """A measurement [N] of rows x [N, F], as a regression of training rows [M, F] on y [M] has it."""
  if method == "linear":
    with_one = lambda rows: np.concatenate([rows, np.ones((len(rows), 1))], axis=1, dtype=np.float64)
    return with_one(x) @ np.linalg.lstsq(with_one(train), y, rcond=None)[0]
  from sklearn import ensemble  # slow to import, and no need of training
  model = ensemble.RandomForestRegressor(TREES, min_samples_leaf=LEAF_ROWS, max_features=1 / 3, random_state=SEED)
  return model.fit(train, y).predict(x)


def assess(held: HeldOut, columns: tuple[str, ...]) -> tuple[dict, dict]:
  """(scalars, arrays): `transfer_r2/<method>_<input>/<column>` with intervals, `transfer_gain/<method>/<column>` with
  the ends of theirs; `transfer_r2` [columns, methods, inputs].
  """
  shape = (len(columns), len(METHODS), len(INPUTS))
  found, half, scalars, short = np.full(shape, np.nan), np.full(shape, np.nan), {}, []
  for c, column in enumerate(columns):
    fit, score = (np.flatnonzero(np.isfinite(rows.columns[column])) for rows in (held.train, held.scored))
    if min(len(fit), len(score)) < LEAST_ROWS:
      short.append(f"{column} has {min(len(fit), len(score))} numbers in a part, of {LEAST_ROWS} that are needed")
      continue
    train, some = held.train.take(fit), held.take(score)
    y, known = train.columns[column].astype(np.float64), some.scored.columns[column].astype(np.float64)[:, None]
    for m, method in enumerate(METHODS):
      given = {"embedding": (train.mean, some.scored.mean), "raw": (train.x, some.scored.x)}
      totals = [grouped.r2_totals(some.groups, known, predict(method, of, y, x)[:, None]) for of, x in given.values()]
      values = [grouped.resampled(some.groups, one, grouped.mean_r2) for one in totals]
      for i, name in enumerate(INPUTS):
        found[c, m, i], half[c, m, i] = values[i][0], grouped.half_widths(values[i])
        scalars[f"transfer_r2/{method}_{name}/{column}"] = float(found[c, m, i])
        if np.isfinite(half[c, m, i]):
          scalars[f"transfer_r2_ci95/{method}_{name}/{column}"] = float(half[c, m, i])
      gain = values[0] - values[1]
      scalars[f"transfer_gain/{method}/{column}"] = float(gain[0])
      if len(gain) > 1:
        low, high = statistics.percentile_interval(gain[1:])
        scalars |= {f"transfer_gain_low/{method}/{column}": float(low),
                    f"transfer_gain_high/{method}/{column}": float(high)}
  scalars |= {"transfer_reason": f"Left out of the transfer: {'; '.join(short)}."} if short else {}
  return scalars, {"transfer_columns": np.array(columns), "transfer_r2": found, "transfer_half": half}
