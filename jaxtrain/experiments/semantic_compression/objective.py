"""The loss of a codec: what a state costs in bits, and what is lost of it.

With x the vector of a state, r the network's output, and the level c whose errors are meant to be c per cent of a
range:

  rate         bits of the quantised latent
  recon        lambda sum_d v_d (r_d - x_d)^2 over numeric columns, lambda = 1 / (2 ln 2 (c / 100)^2), v_d the weight of
               column d: the bits of x_d under a Normal of that deviation, so that errors of c per cent are where one
               more bit of rate pays for itself: D = 1 / (2 ln 2 lambda)
  binary       bits of binary columns under their logits        categorical   the same of the classes
  semantic     what is lost of the features that carry meaning, see `semantics`
  kl           divergence of the latent from a standard Normal, bits (the kind none, a variational autoencoder)
  commitment   squared distance of a latent from its codes, mean over its slots (the kind vq)

The Lagrangian rate + lambda distortion has each column's distortion inversely as its weight (reverse water-filling).

**Source:** Balle et al. 2018 (Variational image compression with a scale hyperprior), eq. 2; Shannon 1959 (Coding
theorems for a discrete source with a fidelity criterion); commitment: van den Oord et al. 2017, eq. 3.
"""

import math
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import custom, duals, losses, rng, step as step_lib
from jaxtrain.experiments.semantic_compression import nets, quantise, schema as schema_lib, semantics, tracking
from jaxtrain.types import Batch, Metrics

NATS = math.log(2)  # of a bit
TEMPERATURE = 0.02  # of thresholds in the loss, a share of the range
MISS = 10.0  # of a bit that the rate is off a target: more than an error gains by it
TINY = 1e-12
LEVELS = (1e-3, 1e3)  # that a target of bits may ask for
UNSCALED = 12.0  # weight of a squared share of the range where no level says it: in variances of a uniform column


class Output(NamedTuple):
  """What a term or a metric of the user's own sees beside the batch.

  Attributes:
    r: [B, D], the network's output in the places of x: numbers in ranges, logits of discrete columns.
    y: [B, L], the latent, quantised or with the noise of training.
    bits: [B, S], of each symbol; [B, 0] where nothing is coded.
  """
  r: jax.Array
  y: jax.Array
  bits: jax.Array


class Problem(NamedTuple):
  """What the loss needs to know.

  Attributes:
    model: the network.
    plan: how its latent is quantised.
    schema: of the states.
    loss: `config.loss`; its weights may be tracers.
    level: `config.model.compressor.level`, which may be a tracer; None where nothing depends on it.
    column_weight: [D], v, 0 at discrete columns.
    steps_per_epoch: weights of features are held over an epoch.
    extra_terms, extra_metrics: the user's own functions by name.
  """
  model: nets.Codec
  plan: quantise.Plan
  schema: schema_lib.Schema
  loss: Any
  level: Any
  column_weight: np.ndarray
  steps_per_epoch: int
  extra_terms: dict[str, Callable]
  extra_metrics: dict[str, Callable]

  @property
  def terms(self) -> tuple[str, ...]:
    """Names of the loss's terms."""
    own = {"none": ("kl",), "vq": ("commitment",), "fsq": ()}
    first = own[self.plan.kind] if self.plan.kind in own else ("rate",)
    kinds = {column.kind for column in self.schema.columns}
    discrete = (kind for kind in ("binary", "categorical") if kind in kinds)
    return (*first, "recon", *discrete, "semantic", *self.extra_terms)


def current_level(p: Problem, state: Any) -> jax.Array:
  """The level of a state: the config's, times what a target of bits has made of it."""
  level = jnp.asarray(1.0 if p.level is None else p.level, jnp.float32)
  return level if state.level is None else level * jnp.exp(state.level.weight)


def weights(p: Problem, state: Any) -> dict[str, Any]:
  """Weight of each term."""
  found = {name: p.loss.weights[name] for name in p.terms}
  scale = UNSCALED if p.level is None else 1 / (2 * NATS * jnp.square(current_level(p, state) / 100))
  return found | {"recon": found["recon"] * scale}


def draw(p: Problem, key: jax.Array, num_rows: int) -> Batch:
  """Random numbers of a step for the whole batch, so that every parallel mode sees the same noise."""
  shape = (num_rows, p.plan.num_side + p.model.layout.size)
  if p.plan.kind == "none":
    return {"normal": rng.normal(key, shape)}
  return {"uniform": jax.random.uniform(key, shape)} if p.plan.kind in quantise.WITH_DENSITY else {}


def before(p: Problem, bound: nets.Codec, chunk: Batch, level: jax.Array) -> quantise.prior.Before | None:
  """What is known of the states before those of a chunk, of the kind previous."""
  return quantise.before_of(bound, level, chunk["x_prev"], chunk["first"]) if p.plan.kind == "previous" else None


def term_counts(p: Problem, batch: Batch) -> dict[str, jax.Array]:
  """What each term is divided by: the rows of the batch."""
  return dict.fromkeys(p.terms, jnp.sum(batch["weight"]))


def column_losses(p: Problem, x: jax.Array, r: jax.Array) -> dict[str, jax.Array]:
  """[B] of each term of the distortion."""
  found = {"recon": jnp.square(r - x) @ jnp.asarray(p.column_weight, jnp.float32)}
  for column in p.schema.columns:
    at = p.schema.slices[column.name]
    if column.kind == "binary":  # x is -1/2 or +1/2
      bits = jnp.sum(jax.nn.softplus(-2 * x[:, at] * r[:, at]), axis=1) / NATS
    elif column.kind == "categorical":
      bits = -jnp.sum(x[:, at] * jax.nn.log_softmax(r[:, at]), axis=1) / NATS
    else:
      continue
    found[column.kind] = found[column.kind] + bits if column.kind in found else bits
  return found


def feature_weights(p: Problem, step: jax.Array) -> jax.Array:
  """[F], of sum 1: weights of the features at a step, on their way from equal ones to those that the config names."""
  first, last = (jnp.asarray(semantics.weights(p.schema, kind), jnp.float32)
                 for kind in ("equal", p.loss.feature_weights))
  if not p.loss.feature_epochs:
    return last
  return semantics.progressive_weights(first, last, step // p.steps_per_epoch / p.loss.feature_epochs,
                                       p.loss.feature_shape)


def row_terms(p: Problem, x: jax.Array, r: jax.Array, found: quantise.Quantised, y: jax.Array, log_var: jax.Array,
              step: jax.Array) -> dict[str, jax.Array]:
  """[B] of each term of the loss."""
  of_features = semantics.losses(p.schema, x, r, TEMPERATURE)
  rows = column_losses(p, x, r) | {"semantic": semantics.weighted(p.schema, of_features, feature_weights(p, step))}
  if p.plan.kind == "none":
    rows["kl"] = jnp.sum(losses.gaussian_kl_nats(y, log_var), axis=1) / NATS
  elif p.plan.kind == "vq":
    gap = jnp.square(y - jax.lax.stop_gradient(found.y)) if p.plan.residual else jnp.square(
        found.looked.inputs - jax.lax.stop_gradient(found.looked.chosen)).reshape(len(x), -1)
    rows["commitment"] = jnp.mean(gap, axis=1)
  if p.plan.coded:
    rows["rate"] = jnp.sum(found.bits, axis=1)
  return rows


def own_terms(p: Problem, chunk: Batch, out: Output) -> dict[str, jax.Array]:
  """[B] of each term of the user's own."""
  return {name: custom.check_term(name, function(chunk, out), len(chunk["x"]))
          for name, function in p.extra_terms.items()}


def measured(p: Problem, rows: dict[str, jax.Array], chunk: Batch, out: Output) -> Metrics:
  """Metrics of a chunk that are no terms of the loss."""
  weight = chunk["weight"]
  total, r = jnp.sum(weight), tracking.rounded(p.schema, out.r)
  square = losses.sum_rows(weight, jnp.square(r - chunk["x"]))
  found = {"square": (square[np.flatnonzero(p.column_weight)], total),
           "lost": (tracking.lost(p.schema, chunk["x"], r, weight), total)}
  if "rate" in rows and "rate" not in p.terms:
    found["rate"] = (losses.sum_rows(weight, rows["rate"]), total)
  return found | {name: custom.check_metric(name, function(chunk, out)) for name, function in p.extra_metrics.items()}


def loss_sums(p: Problem, params: Any, state: Any, chunk: Batch, key: jax.Array) -> step_lib.Chunk:
  """Terms of a chunk with noise in place of rounding, and what a codebook follows."""
  del key  # the batch has all that is drawn
  level, bound = current_level(p, state), p.model.bind({"params": params})
  y, log_var = bound.analyse(chunk["x"], level)
  codes = state.model_state["codes"] if "codes" in state.model_state else None
  found = quantise.in_training(p.plan, bound, codes, y, log_var, level, chunk, before(p, bound, chunk, level))
  r = bound.synthesise(found.y, level)
  out = Output(r, found.y, found.bits)
  rows = row_terms(p, chunk["x"], r, found, y, log_var, state.step) | own_terms(p, chunk, out)
  terms = {name: losses.sum_rows(chunk["weight"], rows[name]) for name in p.terms}
  return step_lib.Chunk(terms, follow_sums(p, found, chunk), {}, measured(p, rows, chunk, out))


def follow_sums(p: Problem, found: quantise.Quantised, chunk: Batch) -> Any:
  """Sums over the rows of a chunk that codebooks and shares of levels follow, and the inputs of the rows that a dead
  code moves to.
  """
  if p.plan.kind == "vq":
    use, total = quantise.quantisers.statistics(found.looked, chunk["weight"], p.plan.num_codes)
    fresh = jnp.einsum("bm,bsd->smd", chunk["fresh"], found.looked.inputs, precision=jax.lax.Precision.HIGHEST)
    return {"use": use, "total": total, "fresh": fresh}
  if p.plan.kind == "fsq":
    one_hot = jax.nn.one_hot(found.index, p.plan.num_codes) * chunk["weight"][:, None, None]
    return {"use": jnp.sum(one_hot, axis=0)}
  return {}


def evaluate(p: Problem, state: Any, batch: Batch, key: jax.Array, over) -> Metrics:
  """Terms of an evaluation batch as it is coded, the loss among them, and how often each code is used."""
  level, bound = current_level(p, state), p.model.bind({"params": state.applied})
  weight = weights(p, state)

  def chunk_sums(chunk, _):
    y, log_var = bound.analyse(chunk["x"], level)
    codes = state.model_state["codes"] if "codes" in state.model_state else None
    if p.plan.coded:
      found = quantise.coded(p.plan, bound, codes, y, level, before(p, bound, chunk, level))
    else:  # the evidence bound is that of a sample
      found = quantise.in_training(p.plan, bound, codes, y, log_var, level, chunk, None)
    r = bound.synthesise(found.y, level)
    out = Output(r, found.y, found.bits)
    rows = row_terms(p, chunk["x"], r, found, y, log_var, state.step) | own_terms(p, chunk, out)
    sums = {name: losses.sum_rows(chunk["weight"], rows[name]) for name in rows}
    total = jnp.sum(chunk["weight"])
    metrics = {name: (value, total) for name, value in sums.items()} | measured(p, rows, chunk, out)
    if found.index is not None:
      one_hot = jax.nn.one_hot(found.index, p.plan.num_codes) * chunk["weight"][:, None, None]
      metrics["use"] = (jnp.sum(one_hot, axis=0), jnp.ones(()))
    if p.loss.target_bits:  # its weights move: `summarise` has a loss that compares
      return metrics
    return metrics | {"loss": (sum(weight[name] * sums[name] for name in p.terms), total)}
  noise_key, rows_key = jax.random.split(key)
  drawn = {} if p.plan.coded else draw(p, noise_key, len(batch["weight"]))
  return over(chunk_sums, batch | drawn, rows_key)


def summarise(p: Problem, totals: Metrics) -> dict[str, jax.Array]:
  """Errors as shares of ranges in per cent, what is kept of the meaning, and of codes their number in use and their
  perplexity, mean over slots; and the evaluation loss where there is a target of bits.
  """
  found = tracking.scores(p.schema, totals["lost"][0] / totals["lost"][1]) if "lost" in totals else {}
  if "square" in totals and totals["square"][0].size:
    square, rows = totals["square"]
    found["rmse_percent"] = 100 * jnp.mean(jnp.sqrt(square / rows))
  if "use" in totals:
    use = totals["use"][0]
    found["perplexity"] = jnp.mean(quantise.quantisers.perplexity(use))
    found["codes_used"] = jnp.mean(jnp.sum(use > 0, axis=1).astype(jnp.float32))
  if p.loss.target_bits and "loss" not in totals:
    found["loss"] = loss_at_target(p, {name: totals[name][0] / totals[name][1] for name in (*p.terms, "rate")})
  return found


def loss_at_target(p: Problem, means: dict[str, jax.Array]) -> jax.Array:
  """The evaluation loss under a target of bits, which compares across epochs while the level moves: what numbers lose,
  in the bits of a Normal with their mean error, the other terms, and `MISS` for each bit that the rate is off.
  """
  count = np.sum(p.column_weight > 0)
  lost = 0.5 * count * jnp.log2(jnp.maximum(means["recon"], TINY))
  others = sum(p.loss.weights[name] * means[name] for name in p.terms if name not in ("rate", "recon"))
  return lost + others + MISS * jnp.abs(means["rate"] - p.loss.target_bits)


def next_level(p: Problem, dual: duals.Dual, rate: jax.Array, step: jax.Array) -> duals.Dual:
  """The dual variable of a target of bits: the logarithm of the level rises while the rate is above the target, and the
  level stays within `LEVELS`.
  """
  found = duals.ascend(dual, (rate - p.loss.target_bits) / p.loss.target_bits, step, p.loss.dual)
  low, high = (jnp.log(end / jnp.asarray(p.level, jnp.float32)) for end in LEVELS)
  return found.replace(weight=jnp.clip(found.weight, low, high))
