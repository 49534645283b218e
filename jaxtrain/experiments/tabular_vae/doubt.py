"""How far imputed cells may be from the truth: `<feature>_sd` of numbers, `<feature>_prob` of categories, and of
numbers that are scaled by a logarithm `<feature>_mean`, `<feature>_low` and `<feature>_high`.

With m_s the decoder's means for draws z_s from the posterior of a filled row, the variance of a cell in scaled units
is that of m_s, plus measurement noise and the error that the posterior does not account for.
This is measured on training rows that a checkpoint keeps: the cells that a row misses are hidden from them and filled
in, and the noise of a feature is the mean of (filled - true)^2 less the variance of m_s, or 0 where that is below; NaN
where no kept row has the cell. In scaled units a cell is Normal about what was filled in: `_sd` is the deviation of
what that becomes in raw units. Of a feature whose transform is no straight line what is filled in is the median,
`_mean` the expected value (which is larger where a logarithm was taken), `_low` and `_high` the ends of the middle
95 %.

The noise is that of the same cells missing together: a colour is known where the other two are, and not without them.
Where an input misses cells in more than `MOST_PATTERNS` ways, the rarer ones share the noise over all of them.

**Source:** the law of total variance; the draws: Rezende, Mohamed & Wierstra 2014, appendix F.
"""

from typing import Any, Callable, Mapping

import numpy as np

from jaxtrain.data import blocks, scaling
from jaxtrain.experiments.tabular_vae import novelty

MOST_PATTERNS = 32  # ways of missing cells that have a noise of their own
NOISE_ROWS = 500  # kept rows that noise is measured on: a deviation is off by 3 %
FEWEST_WHOLE = 100  # kept rows without a missing cell, below which the others serve too
NODES, Z = 16, 1.96  # of the quadrature; deviations on each side of the middle 95 % of a Normal
NO_NOISE = ("warning: <feature>_sd leaves out measurement noise, which this run keeps no training rows to measure: "
            "true deviations are larger")


def has_noise(meta: Mapping[str, Any]) -> bool:
  """Whether there are training rows to measure noise on: a run of an earlier version keeps none, nor one of many
  features.
  """
  return novelty.KEY in meta and bool(meta[novelty.KEY])


def hidden_noise(fill: Callable, draw: Callable, variables, draws: np.ndarray, kept: np.ndarray,
                 hidden: np.ndarray) -> np.ndarray:
  """The noise of each feature [D], a variance in scaled units; NaN of one that no row has where it is hidden.

  Args:
    fill, draw: as of `columns`.
    variables, draws: of the model, and the noise of the draws [S, L].
    kept: rows [R, D] in scaled units, NaN where a cell is missing.
    hidden: [R, D], the cells that are hidden.
  """
  whole = np.flatnonzero(~np.isnan(kept).any(axis=1))
  some = (whole if len(whole) >= FEWEST_WHOLE else np.arange(len(kept)))[:NOISE_ROWS]
  kept, hidden = kept[some], hidden[some]
  filled = blocks.in_blocks(fill, variables, np.where(hidden, np.float32(np.nan), kept))
  spread = blocks.in_blocks(draw, (variables, draws), filled).var(axis=1, ddof=1, dtype=np.float64)
  there = hidden & ~np.isnan(kept)
  excess = np.where(there, np.square(filled - kept, dtype=np.float64) - spread, 0.0).sum(axis=0)
  count = there.sum(axis=0)
  return np.where(count > 0, np.maximum(excess / np.maximum(count, 1), 0.0), np.nan)


def noise_of(fill: Callable, draw: Callable, variables, draws: np.ndarray, kept: list,
             missing: np.ndarray) -> np.ndarray:
  """The noise [N, D] of the cells that rows miss, `missing` [N, D]; `kept` as `novelty.keep_rows` has them."""
  kept = np.array(kept, np.float32)
  patterns, way, count = np.unique(missing, axis=0, return_inverse=True, return_counts=True)
  order = np.argsort(-count, kind="stable")
  noise = np.zeros(patterns.shape)
  of = lambda hidden: hidden_noise(fill, draw, variables, draws, kept, hidden)
  for k in order[:MOST_PATTERNS]:
    noise[k] = of(np.broadcast_to(patterns[k], kept.shape))
  if len(rest := order[MOST_PATTERNS:]):
    noise[rest] = of(patterns[rest[np.arange(len(kept)) % len(rest)]])
  return noise[way.reshape(-1)]


def in_raw_units(scaler: dict, z: np.ndarray, sd: np.ndarray) -> dict[str, np.ndarray]:
  """`sd`, `mean`, `low` and `high` [N, D] in raw units of Normals of mean z and deviation sd [N, D] in scaled units;
  the moments by Gauss-Hermite quadrature, which is exact for a straight line.
  """
  nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
  with np.errstate(over="ignore", invalid="ignore"):  # of a deviation that no number of 64 bits holds in raw units
    values = np.stack([scaling.unscale(scaler, z + sd * node) for node in nodes])
    mean = np.tensordot(weights, values, 1) / weights.sum()
    variance = np.tensordot(weights, np.square(values - mean), 1) / weights.sum()
    low, high = (scaling.unscale(scaler, z + sign * Z * sd) for sign in (-1, 1))
  return {"sd": np.sqrt(variance), "mean": mean, "low": low, "high": high}


def endings(meta: Mapping[str, Any], name: str) -> tuple[str, ...]:
  """What is said of imputed cells of a feature."""
  if "kinds" in meta and name in meta["kinds"]["categories"]:
    return ("prob",)
  transform = meta["scaler"]["transforms"][meta["features"].index(name)]
  return ("sd",) if transform in scaling.STRAIGHT else ("sd", "mean", "low", "high")


def columns(fill: Callable, draw: Callable, weigh: Callable, draws: np.ndarray, meta: Mapping[str, Any], variables,
            x: np.ndarray, missing: np.ndarray) -> dict[str, np.ndarray]:
  """Which cells of filled rows x [N, D] were imputed, by name in `imputed`, and what is said of features with such
  cells, in raw units (see above): `<feature>_sd`, 0 where the cell was measured, and of features whose transform is no
  straight line `<feature>_mean`, `_low` and `_high`, what was measured where it was. Of a category `<feature>_prob`
  stands in their place: the probability of the one that was filled in, 1 where measured.

  Args:
    fill, draw, weigh: `(variables, x) -> x` without holes; `decoded_draws` and `category_doubt` of the model.
    draws: normal numbers [S, L].
    meta, variables: of the run, and what the model is applied with.
  """
  names, scaler, rows = meta["features"], meta["scaler"], missing.any(axis=1)
  found = {"imputed": np.asarray([";".join(names[d] for d in np.flatnonzero(row)) for row in missing], object)}
  said = {"sd": np.zeros(x.shape), "prob": np.ones(x.shape), **{ending: x.copy() for ending in ("mean", "low", "high")}}
  if rows.any():
    z, hidden = scaling.scale(scaler, x[rows]), missing[rows]
    sd = blocks.in_blocks(draw, (variables, draws), z).std(axis=1, ddof=1, dtype=np.float64)
    if has_noise(meta):
      sd = np.hypot(sd, np.sqrt(noise_of(fill, draw, variables, draws, meta[novelty.KEY], hidden)))
    for ending, values in in_raw_units(scaler, z, sd).items():
      said[ending][rows] = np.where(hidden, values, said[ending][rows])
    if categories := meta["kinds"]["categories"] if "kinds" in meta else {}:
      prob, first = blocks.in_blocks(weigh, (variables, draws), z), 0
      for d in (d for d, name in enumerate(names) if name in categories):
        own = np.take_along_axis(prob, first + x[rows][:, d:d + 1].astype(int), axis=1)[:, 0]
        said["prob"][rows, d], first = np.where(hidden[:, d], own, 1.0), first + len(categories[names[d]])
  return found | {f"{name}_{ending}": said[ending][:, d] for d, name in enumerate(names) if missing[:, d].any()
                  for ending in endings(meta, name) if f"{name}_{ending}" not in names}
