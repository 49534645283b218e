"""What a trained joint model says of rows, in the units of the table: for the assessment and for `predict`."""

import functools
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import statistics
from jaxtrain.data import blocks, scaling
from jaxtrain.experiments.causal_consistency import bayes, evaluate, nets, sources

DRAWS = 400  # from the posterior of a Bayesian model's parameters


class Units:
  """Shifts and factors between scaled and raw units of a table's columns by role.

  Attributes:
    shift, factor: [Z] float64 of the outcomes: raw = shift + factor scaled.
    log_factor: {role: sum of the logarithms of its factors}; a density in raw units is that in scaled ones less this.
  """

  def __init__(self, meta: dict):
    scaler = meta["scaler"]
    mean, std = np.asarray(scaler["mean"]), np.asarray(scaler["std"])
    sizes = [len(meta[role]) for role in sources.ROLES]
    by_role = dict(zip(sources.ROLES, np.split(np.log(std), np.cumsum(sizes)[:2])))
    self.shift, self.factor = mean[:sizes[0]], std[:sizes[0]]
    self.log_factor = {role: float(part.sum()) for role, part in by_role.items()}
    self.affine = all(name in sources.AFFINE for name in scaler["transforms"])


def describe_rows(model: nets.Joint, split: Callable, variables: Any, x: jax.Array) -> dict[str, jax.Array]:
  """All that the conditionals say of rows x [B, columns] in scaled units; arrays [B, ...] in scaled units."""
  bound, (covariates, w, z) = model.bind(variables), split({"x": x})
  out, means = bound(covariates, w, z), bound.outcomes(covariates)
  return {"mean": means.mean, "sd": means.sd, "log_prior": out.prior, "log_lik": out.outcome, "log_head": out.head,
          "log_posterior": out.posterior, "log_x": out.covariates, "log_w": out.instruments}


def predicted(model: nets.Joint, meta: dict, params: Any, x: np.ndarray) -> evaluate.Predicted:
  """What the model says of rows x [N, columns] in scaled units, in raw units and float64."""
  split, units = functools.partial(sources.split_columns, meta), Units(meta)
  found = blocks.in_blocks(functools.partial(describe_rows, model, split), {"params": bayes.network(params)}, x)
  found = {name: np.asarray(value, np.float64) for name, value in found.items()}
  with_w = bool(meta["instruments"])
  return evaluate.Predicted(
      mean=units.shift + units.factor * found["mean"], sd=units.factor * found["sd"], log_prior=found["log_prior"],
      log_lik=found["log_lik"] - units.log_factor["outcomes"], log_posterior=found["log_posterior"],
      log_head=found["log_head"], log_x=found["log_x"] - units.log_factor["covariates"] if units.affine else None,
      log_w=found["log_w"] - units.log_factor["instruments"] if with_w and units.affine else None)


def effect_draws(model: nets.Joint, meta: dict, params: Any, x: np.ndarray, key: jax.Array) -> np.ndarray:
  """Mean effects [`DRAWS`, K, Z] of every class against the first, raw units, for draws from the posterior of the
  parameters; x [N, D] are covariates in scaled units.
  """
  def one(key):
    params_drawn = bayes.network(params, bayes.noise_like(params, key))
    means = model.apply({"params": params_drawn}, jnp.asarray(x), method=model.outcomes).mean
    return jnp.mean(means - means[:, :1], axis=0)
  found = jax.jit(functools.partial(jax.lax.map, one))(jax.random.split(key, DRAWS))
  return Units(meta).factor * np.asarray(found, np.float64)


def row_intervals(model: nets.Joint, meta: dict, params: Any, x: np.ndarray, key: jax.Array) -> np.ndarray:
  """Ends [2, N, K, Z] of the 95 % posterior interval of each row's effects of every class against the first, raw units;
  x [N, D] are covariates in scaled units.
  """
  keys, levels = jax.random.split(key, DRAWS), jnp.array([statistics.LEVEL / 2, 1 - statistics.LEVEL / 2])

  def of_block(params, block):
    def one(key):
      means = model.apply({"params": bayes.network(params, bayes.noise_like(params, key))}, block,
                          method=model.outcomes).mean
      return means - means[:, :1]
    return jnp.moveaxis(jnp.quantile(jax.lax.map(one, keys), levels, axis=0), 0, 1)
  most = max(blocks.BLOCK // (model.num_classes * model.num_outcomes), 1)  # the draws of a block lie in memory
  found = np.asarray(blocks.in_blocks(of_block, params, x, most), np.float64)
  return Units(meta).factor * np.moveaxis(found, 1, 0)


def posterior_intervals(draws: np.ndarray, facts: dict) -> dict[str, float]:
  """Ends of the 95 % posterior intervals of the mean effects from draws [S, K, Z], under the names of `evaluate`."""
  low, high = np.quantile(draws, [statistics.LEVEL / 2, 1 - statistics.LEVEL / 2], axis=0)
  found = {}
  for k in range(1, draws.shape[1]):
    for d in range(draws.shape[2]):
      end = evaluate.ending(facts, k, d)
      found |= {f"ate_low{end}": float(low[k, d]), f"ate_high{end}": float(high[k, d]),
                f"ate_ci95{end}": float(high[k, d] - low[k, d]) / 2}
  return found


def rows_of(meta: dict, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Rows of a source in raw units by role, and what is known of them: `x`, `w`, `z`, `y`, `y_true`, `mean_true`."""
  raw = scaling.unscale(meta["scaler"], rows["x"])
  x, w, z = sources.split_columns(meta, {"x": raw})
  found = {"x": x, "z": z, "y": rows["label"]} | ({"w": w} if w.shape[1] else {})
  known = {"true_label": "y_true", "true_mean": "mean_true"}
  return found | {known[name]: rows[name] for name in known if name in rows}


def make_assess(model: nets.Joint, meta: dict) -> dict[str, Callable]:
  """A part for each split: `(state, splits, key) -> (scalars, arrays)`."""
  def assess(name, state, splits, key):
    source = getattr(splits, name)
    rows = source.rows(np.arange(source.num_rows))
    found = predicted(model, meta, state.applied, rows["x"])
    scalars, arrays = evaluate.assess_rows(rows_of(meta, rows), found, meta)
    if bayes.is_bayesian(state.applied):
      x = sources.split_columns(meta, rows)[0]
      draws = effect_draws(model, meta, state.applied, x, key)
      scalars |= posterior_intervals(draws, meta)
      arrays |= {"effect_draws": draws}
    return scalars, arrays
  return {name: functools.partial(assess, name) for name in ("train", "val", "test")}
