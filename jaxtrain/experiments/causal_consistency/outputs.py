"""What a trained joint model says of rows, in the units of the table: for the assessment and for `predict`."""

import functools
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import statistics
from jaxtrain.data import blocks, scaling
from jaxtrain.experiments.causal_consistency import bayes, evaluate, evaluate_estimators, nets, sources

DRAWS = 400  # from the posterior of a Bayesian model's parameters
LEVELS = (statistics.LEVEL / 2, 1 - statistics.LEVEL / 2)  # ends of an interval of 95 %


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


class Functions(NamedTuple):
  """Functions of a model, made once so that their programs are kept between calls; x in scaled units. `mean_effects` is
  compiled; the others are for `blocks.in_blocks`.

  Attributes:
    rows: `(variables, x [B, columns]) -> {name: [B, ...]}`, all that the conditionals say.
    outcomes: `(variables, x [B, D]) -> Normals` of covariates alone.
    impute: `(variables, x [B, columns]) -> [B, K]`, log p(y | x, w, z).
    mean_effects: `(params, keys [S], x [N, D]) -> [S, K, Z]`, mean effects against the first class of draws from the
      posterior of a Bayesian model's parameters.
    row_ends: `((params, keys [S]), x [B, D]) -> [B, 2, K, Z]`, ends of the 95 % interval of each row's effects.
  """
  rows: Callable
  outcomes: Callable
  impute: Callable
  mean_effects: Callable
  row_ends: Callable


def make_functions(model: nets.Joint, meta: dict) -> Functions:
  """The functions of a model and a table's meta."""
  split = lambda x: sources.split_columns(meta, {"x": x})
  outcomes = lambda variables, x: model.apply(variables, x, method=model.outcomes)

  def rows(variables, x):
    out, means, _ = model.apply(variables, *split(x), method=model.with_normals)
    return {"mean": means.mean, "sd": means.sd, "log_prior": out.prior, "log_lik": out.outcome, "log_head": out.head,
            "log_posterior": out.posterior, "log_x": out.covariates, "log_w": out.instruments}

  def effects_of_draw(params, x, key):
    means = outcomes({"params": bayes.network(params, bayes.noise_like(params, key))}, x).mean
    return means - means[:, :1]

  def mean_effects(params, keys, x):
    return jax.lax.map(lambda key: jnp.mean(effects_of_draw(params, x, key), axis=0), keys)

  def row_ends(drawn, x):
    params, keys = drawn
    found = jax.lax.map(lambda key: effects_of_draw(params, x, key), keys)
    return jnp.moveaxis(jnp.quantile(found, jnp.asarray(LEVELS), axis=0), 0, 1)

  impute = lambda variables, x: model.apply(variables, *split(x), method=model.impute)
  return Functions(rows, outcomes, impute, jax.jit(mean_effects), row_ends)


def predicted(functions: Functions, meta: dict, params: Any, x: np.ndarray) -> evaluate.Predicted:
  """What the model says of rows x [N, columns] in scaled units, in raw units and float64."""
  units = Units(meta)
  found = blocks.in_blocks(functions.rows, {"params": bayes.network(params)}, x)
  found = {name: np.asarray(value, np.float64) for name, value in found.items()}
  with_w = bool(meta["instruments"])
  return evaluate.Predicted(
      mean=units.shift + units.factor * found["mean"], sd=units.factor * found["sd"], log_prior=found["log_prior"],
      log_lik=found["log_lik"] - units.log_factor["outcomes"], log_posterior=found["log_posterior"],
      log_head=found["log_head"], log_x=found["log_x"] - units.log_factor["covariates"] if units.affine else None,
      log_w=found["log_w"] - units.log_factor["instruments"] if with_w and units.affine else None)


def effect_draws(functions: Functions, meta: dict, params: Any, x: np.ndarray, key: jax.Array) -> np.ndarray:
  """Mean effects [`DRAWS`, K, Z] of every class against the first, raw units, for draws from the posterior of the
  parameters; x [N, D] are covariates in scaled units.
  """
  found = functions.mean_effects(params, jax.random.split(key, DRAWS), jnp.asarray(x))
  return Units(meta).factor * np.asarray(found, np.float64)


def row_intervals(functions: Functions, meta: dict, params: Any, x: np.ndarray, key: jax.Array) -> np.ndarray:
  """Ends [2, N, K, Z] of the 95 % posterior interval of each row's effects of every class against the first, raw units;
  x [N, D] are covariates in scaled units.
  """
  most = max(blocks.BLOCK // (len(meta["class_names"]) * len(meta["outcomes"])), 1)  # draws of a block lie in memory
  found = blocks.in_blocks(functions.row_ends, (params, jax.random.split(key, DRAWS)), x, most)
  return Units(meta).factor * np.moveaxis(np.asarray(found, np.float64), 1, 0)


def rows_of(meta: dict, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Rows of a source in raw units by role, and what is known of them: `x`, `w`, `z`, `y`, `group`, `y_true`,
  `mean_true`.
  """
  raw = scaling.unscale(meta["scaler"], rows["x"])
  x, w, z = sources.split_columns(meta, {"x": raw})
  found = {"x": x, "z": z, "y": rows["label"]} | ({"w": w} if w.shape[1] else {})
  known = {"true_label": "y_true", "true_mean": "mean_true", "group": "group"}
  return found | {known[name]: rows[name] for name in known if name in rows}


def make_assess(model: nets.Joint, meta: dict) -> dict[str, Callable]:
  """Parts of the assessment: the model on each split, and on test rows the estimators that do not ask it."""
  functions = make_functions(model, meta)

  def rows_at(splits, name):
    source = getattr(splits, name)
    return source.rows(np.arange(source.num_rows))

  def assess(name, state, splits, key):
    rows = rows_at(splits, name)
    found, draws = predicted(functions, meta, state.applied, rows["x"]), None
    if bayes.is_bayesian(state.applied):
      draws = effect_draws(functions, meta, state.applied, sources.split_columns(meta, rows)[0], key)
    return evaluate.assess_rows(rows_of(meta, rows), found, meta, draws)

  def estimators(state, splits, key):
    del state, key
    return evaluate_estimators.assess_rows(rows_of(meta, rows_at(splits, "test")), meta), {}

  own = {name: functools.partial(assess, name.partition("-")[0]) for name in ("train", "val", "test-model")}
  return own | {"test-estimators": estimators}
