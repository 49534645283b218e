"""How unlike the training rows a row is: the percentile of its surprise among some of them, which checkpoints keep.

A row's surprise is its negative evidence lower bound in nats, but for a constant, at the posterior mean: half of each
squared error of the reconstruction over the mean squared error of that feature among the kept rows, and the divergence
of the posterior from the prior. The first finds rows whose features do not go together, the second those far from all.
The error of a row with holes is that of the features it has, scaled to all. Where a column has a likelihood of its own
(`likelihoods.py`), -log p of a cell stands in the place of half of its scaled error.

**Source:** the bound: Kingma & Welling 2014, eq. 10, with a noise variance for each feature.
**Departs:** at the mean of the posterior in place of a draw, so that a row has one value.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxtrain.data import blocks
from jaxtrain.experiments.tabular_vae import likelihoods
from jaxtrain.types import Source

MOST_ROWS, FEWEST_ROWS, MOST_NUMBERS = 2000, 100, 24_000
DIGITS, EXACT = 5, 9  # that are kept of a number; with the second float32 come back, and spikes are at their value
LEAST_VARIANCE = 1e-6  # of an error in scaled units
KEY = "kept_rows"  # in meta; what begins so is not compared when a run goes on


class Reference(NamedTuple):
  """What rows are compared with: variance of the error of each feature [D], sorted surprises [R] of the kept rows."""
  variance: np.ndarray
  surprise: np.ndarray


def keep_rows(source: Source, num_features: int, digits: int = DIGITS) -> list[list[float | None]]:
  """Rows of the training part that a checkpoint keeps, in scaled units, None where a cell is missing; [] where features
  are so many that hundred rows are too much.
  """
  count = min(source.num_rows, MOST_ROWS, MOST_NUMBERS // num_features)
  if count < min(FEWEST_ROWS, source.num_rows):
    return []
  rows = source.rows(np.sort(np.random.default_rng(0).choice(source.num_rows, count, replace=False)))
  there = rows["observed"] > 0 if "observed" in rows else np.ones(rows["x"].shape, bool)
  return [[float(f"{value:.{digits}g}") if seen else None for value, seen in zip(row, own)]
          for row, own in zip(rows["x"].tolist(), there.tolist())]


def parts(model, variables, x):
  """[B, D + 1]: squared errors of the reconstruction of x [B, D] from the posterior mean, or -log p where columns have
  likelihoods of their own, and the KL in nats.
  """
  out = model.apply(variables, x, jnp.ones(x.shape[0]))
  kl_nats = 0.5 * (out.mean ** 2 + jnp.exp(out.log_var) - 1 - out.log_var).sum(axis=1)
  if model.layout is None:
    lost = (x - out.x_mean) ** 2
  else:
    lost = likelihoods.assemble(model.layout, likelihoods.nats(model.layout, x, out.given))
  return jnp.concatenate([lost, kl_nats[:, None]], axis=1)


def in_nats(layout: likelihoods.Layout | None) -> np.ndarray:
  """Of which features [D] `parts` gives -log p, which needs no scaling; False [1] where all are squared errors."""
  if layout is None:
    return np.zeros(1, bool)
  return np.array([column.kind != "continuous" or layout.learned_noise or column.spike is not None
                   for column in layout.columns])


def surprise(found: np.ndarray, there: np.ndarray, variance: np.ndarray) -> np.ndarray:
  """Surprise [N] in nats, of what `parts` gives [N, D + 1] and which features are there [N, D]."""
  errors = np.where(there, found[:, :-1] / variance, 0.0).sum(axis=1)
  return 0.5 * errors * there.shape[1] / there.sum(axis=1) + found[:, -1]


def refer(fn, variables, kept: list[list[float | None]], layout: likelihoods.Layout | None = None) -> Reference:
  """The reference of a state. `fn` is `parts` of a model, as `blocks.in_blocks` takes it, and `layout` that of
  the model.
  """
  x = np.array(kept, np.float32)  # None is NaN
  there = ~np.isnan(x)
  found = blocks.in_blocks(fn, variables, np.nan_to_num(x)).astype(np.float64)
  counts = np.maximum(there.sum(axis=0), 1)
  variance = np.maximum((found[:, :-1] * there).sum(axis=0) / counts, LEAST_VARIANCE)
  variance = np.where(in_nats(layout), 0.5, variance)  # twice that is 1
  rows = there.any(axis=1)
  return Reference(variance, np.sort(surprise(found[rows], there[rows], variance)))


def percentiles(fn, variables, kept: list[list[float | None]], z: np.ndarray,
                layout: likelihoods.Layout | None = None) -> np.ndarray:
  """Share of the kept rows, in percent, that surprise a state less than each row of z [N, D]; of equal ones one half.

  Args:
    fn: `parts` of a model.
    variables: that it is applied with.
    kept: rows of `keep_rows`.
    z: rows in scaled units, NaN where a cell is missing; each has one at least.
    layout: of the model.
  """
  reference = refer(fn, variables, kept, layout)
  found = blocks.in_blocks(fn, variables, np.nan_to_num(z)).astype(np.float64)
  own = surprise(found, ~np.isnan(z), reference.variance)
  below, upto = (np.searchsorted(reference.surprise, own, side) for side in ("left", "right"))
  return (100 * (below + upto) / 2 / len(reference.surprise)).astype(np.float32)
