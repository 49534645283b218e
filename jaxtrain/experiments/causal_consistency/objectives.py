"""The loss of the joint model: terms over rows with a recorded treatment, and what rows without one add.

With L_z(y) = -log p(z | x, y), L_p(y) = -log p(y | x, w), L_x(y) = -log p(x | y, z), each times its weight,
q = p(y | x, w, z) of the imputing head, H the entropy in nats and stop(.) without gradient, a row without a treatment
adds

  seed         beta sum_y q (L_z + L_x) - tau H[q]                                     gradients flow through q
  stopgrad     beta sum_y q' (L_z + L_p + L_x), q' = stop(softmax(log q / tau))
  hard         the same with all of q' on the most probable class, which is stopgrad at tau = 0
  free_energy  beta sum_y q (L_z + L_p) - tau H[q] + beta sum_y stop(q) L_x
  marginal     -tau log sum_y exp(-beta (L_z + L_p) / tau) + sum_y r (L_q + beta L_x), r = stop(the terms' shares) and
               L_q = -log q times the weight y_xz; at tau = 0 it is beta min_y (L_z + L_p), hard EM by the joint

At beta = tau = 1 and weights of 1, without what fits L_q and L_x to given shares, `free_energy` is the negative
evidence bound of log p(z | x) and `marginal` its negative value. `seed` counts the evidence twice (L_z and L_x tell of
the same y) and has no prior of y: where the arms overlap it is biased, and is kept to be compared with. Terms are
divided by all rows, so that the sum is that of a pass over the table: the original took a step on each batch of rows
with a treatment, then on each batch of those without.

**Source:** free energy: Neal & Hinton 1998 (A view of the EM algorithm), section 2; a classifier as q: Kingma et al.
2014 (Semi-supervised learning with deep generative models), eq. 6-9; classification EM: Celeux & Govaert 1992. `seed`
is the original's formula with negative log-likelihoods.
"""

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from jaxtrain import bits, losses, schedules, step as step_lib
from jaxtrain.experiments.causal_consistency import consistency, nets
from jaxtrain.types import Batch, Metrics

OBJECTIVES = ("free_energy", "marginal", "stopgrad", "hard", "seed")
CONSISTENCY = ("none", "y", "both")


class Problem(NamedTuple):
  """What the loss needs to know.

  Attributes:
    model: the network.
    split: `batch -> (x, w, z)`, the parts of its columns.
    loss: `config.loss`; its weights, tau and beta may be tracers.
    steps_per_epoch: schedules are held over an epoch.
  """
  model: nets.Joint
  split: Callable[[Batch], tuple[jax.Array, jax.Array, jax.Array]]
  loss: Any
  steps_per_epoch: int

  @property
  def penalises(self) -> tuple[str, ...]:
    """Terms of consistency that are in the loss."""
    return {"none": (), "y": ("consistency_y",), "both": ("consistency_y", "consistency_x")}[self.loss.consistency]

  @property
  def measured(self) -> tuple[str, ...]:
    """Gaps that evaluations measure: that of p(x | y, z) would need p(y | x) without the instruments."""
    return ("consistency_y",) + ("consistency_x",) * (not self.model.num_instruments)


class Dials(NamedTuple):
  """Values of the schedules at a step: temperature, weight of rows without a treatment, whether they count yet."""
  tau: jax.Array
  beta: jax.Array
  active: jax.Array


def dials(p: Problem, step: jax.Array) -> Dials:
  """The schedules at a step, by its epoch."""
  epoch = step // p.steps_per_epoch
  def value(name):
    schedule = p.loss[f"{name}_schedule"]
    return jnp.asarray(schedules.kl_shape(schedule.shape, schedule.start, p.loss[name], schedule.num_epochs)(epoch),
                       jnp.float32)
  return Dials(value("tau"), value("beta"), (epoch >= p.loss.warmup_epochs).astype(jnp.float32))


def term_names(p: Problem) -> list[str]:
  """Terms of rows with a treatment, and of all rows."""
  return ["z_yx", "y_x", "y_xz", "x_yz", *["w_x"] * (p.model.num_instruments > 0), *p.penalises]


def weights(p: Problem, step: jax.Array) -> dict[str, Any]:
  """Weight of each term at a step."""
  active = dials(p, step).active  # gaps are of all rows, so they too wait for those without a treatment
  return {name: p.loss.weights[name] * (active if name in p.penalises else 1.0) for name in term_names(p)} | {
      "unlabelled": active}


def rows_of(batch: Batch) -> tuple[jax.Array, jax.Array]:
  """Weights [B] of the rows with a recorded treatment, and of those without."""
  recorded = (batch["label"] >= 0).astype(jnp.float32)
  return batch["weight"] * recorded, batch["weight"] * (1.0 - recorded)


def term_counts(p: Problem, batch: Batch) -> dict[str, jax.Array]:
  """What each term is divided by: all rows of the batch."""
  return dict.fromkeys([*term_names(p), "unlabelled"], jnp.sum(batch["weight"]))


def soften(log_prob: jax.Array, tau: jax.Array) -> jax.Array:
  """softmax(log_prob / tau) over the last axis; at tau = 0 all on the largest, shared by ties."""
  largest = log_prob >= jnp.max(log_prob, axis=-1, keepdims=True)
  hard = largest / jnp.sum(largest, axis=-1, keepdims=True)
  return jnp.where(tau > 0, jax.nn.softmax(log_prob / jnp.where(tau > 0, tau, 1.0)), hard)


def smallest(cost: jax.Array, tau: jax.Array) -> jax.Array:
  """-tau log sum exp(-cost / tau) over the last axis, which is the least cost at tau = 0."""
  safe = jnp.where(tau > 0, tau, 1.0)
  return jnp.where(tau > 0, -safe * jax.nn.logsumexp(-cost / safe, axis=-1), jnp.min(cost, axis=-1))


def entropy_nats(log_prob: jax.Array) -> jax.Array:
  """Entropy over the last axis of normalised log-probabilities, nats."""
  return -jnp.sum(jnp.exp(log_prob) * log_prob, axis=-1)


def unlabelled_rows(objective: str, out: nets.Output, weight: Any, d: Dials) -> jax.Array:
  """[B]: what each row adds that has no recorded treatment; the objectives of this module's docstring.

  Args:
    objective: a name of `OBJECTIVES`.
    out: the network's, of the batch.
    weight: of the terms, by name.
    d: the schedules' values.
  """
  stop, mean = jax.lax.stop_gradient, lambda q, cost: jnp.sum(q * cost, axis=-1)
  z, prior = -weight["z_yx"] * out.outcome, -weight["y_x"] * out.prior
  x, q = -weight["x_yz"] * out.covariates, jnp.exp(out.head)
  if objective == "seed":
    return d.beta * mean(q, z + x) - d.tau * entropy_nats(out.head)
  if objective in ("stopgrad", "hard"):
    tau = jnp.zeros_like(d.tau) if objective == "hard" else d.tau
    return d.beta * mean(stop(soften(out.head, tau)), z + prior + x)
  if objective == "free_energy":
    return d.beta * (mean(q, z + prior) + mean(stop(q), x)) - d.tau * entropy_nats(out.head)
  cost = d.beta * (z + prior)
  return smallest(cost, d.tau) + followers(out, stop(soften(-cost, d.tau)), weight, d.beta)


def followers(out: nets.Output, shares: jax.Array, weight: Any, beta: Any) -> jax.Array:
  """[B]: what fits the heads that are no part of the likelihood to given shares [B, K] of the classes."""
  return -jnp.sum(shares * (beta * weight["x_yz"] * out.covariates + weight["y_xz"] * out.head), axis=-1)


def own(log_prob: jax.Array, label: jax.Array) -> jax.Array:
  """[B]: the entry of each row's label in [B, K]; 0 where the label is -1."""
  return jnp.sum(jax.nn.one_hot(label, log_prob.shape[-1], dtype=log_prob.dtype) * log_prob, axis=-1)


def recorded_sums(out: nets.Output, batch: Batch) -> Metrics:
  """(sum, rows) of the negative log-likelihoods of rows with a recorded treatment, nats, and of w over all rows."""
  labelled, _ = rows_of(batch)
  parts = {"z_yx": out.outcome, "y_x": out.prior, "y_xz": out.head, "x_yz": out.covariates}
  found = {name: (losses.sum_rows(labelled, -own(part, batch["label"])), jnp.sum(labelled))
           for name, part in parts.items()}
  return found | {"w_x": (losses.sum_rows(batch["weight"], -out.instruments), jnp.sum(batch["weight"]))}


def gaps(p: Problem, bound: nets.Joint, out: nets.Output, chunk: Batch, names: tuple[str, ...]) -> Metrics:
  """(sum, rows) of the named measures of inconsistency over a chunk, nats; see `consistency`."""
  measures = {"consistency_y": lambda: consistency.gap_y(out),
              "consistency_x": lambda: consistency.gap_x(bound, out, p.split, chunk)}
  row = chunk["weight"]
  return {name: (losses.sum_rows(row, measures[name]()), jnp.sum(row)) for name in names}


def term_sums(p: Problem, bound: nets.Joint, out: nets.Output, chunk: Batch, d: Dials) -> Metrics:
  """(sum, rows) of each term of the loss over a chunk."""
  found = {name: value for name, value in recorded_sums(out, chunk).items() if name in term_names(p)}
  found |= gaps(p, bound, out, chunk, p.penalises)
  _, unlabelled = rows_of(chunk)
  weight = {name: bits.opaque(p.loss.weights[name]) for name in ("z_yx", "y_x", "y_xz", "x_yz")}
  rows = unlabelled_rows(p.loss.objective, out, weight, d)
  return found | {"unlabelled": (losses.sum_rows(unlabelled, rows), jnp.sum(unlabelled))}


def entropy_sums(out: nets.Output, chunk: Batch) -> Metrics:
  """(sum, rows) of the entropy of imputed treatments, nats."""
  _, unlabelled = rows_of(chunk)
  return {"entropy": (losses.sum_rows(unlabelled, entropy_nats(out.head)), jnp.sum(unlabelled))}


def loss_sums(p: Problem, params, state, chunk: Batch, key) -> step_lib.Chunk:
  """Term sums of a training chunk (see `step.make_gradient`)."""
  bound = p.model.bind({"params": params}, rngs={"dropout": key})
  out = bound(*p.split(chunk), True)
  found = term_sums(p, bound, out, chunk, dials(p, state.step))
  return step_lib.Chunk({name: value[0] for name, value in found.items()}, metrics=found | entropy_sums(out, chunk))


def evaluate(p: Problem, params, batch: Batch, key, over) -> Metrics:
  """Negative log-likelihoods and gaps of an evaluation batch, without dropout."""
  def chunk_sums(chunk, _):
    x, w, z = p.split(chunk)
    bound = p.model.bind({"params": params})
    out, (labelled, unlabelled) = bound(x, w, z), rows_of(chunk)
    found = recorded_sums(out, chunk)
    found["marginal"] = (losses.sum_rows(unlabelled, -jax.nn.logsumexp(out.joint, axis=-1)), jnp.sum(unlabelled))
    found["accuracy"] = (losses.sum_rows(labelled, losses.is_top(out.head, chunk["label"])), jnp.sum(labelled))
    return found | gaps(p, bound, out, chunk, p.measured)
  return over(chunk_sums, consistency.with_anchors(batch) if "consistency_x" in p.measured else batch, key)


def summarise(totals: Metrics) -> dict[str, jax.Array]:
  """The evaluation loss, nats per row: -log p(y, z | x) of rows with a recorded treatment, -log p(z | x) of others.

  It is the same for all objectives and at all times, so that runs and epochs compare.
  """
  if "loss" in totals:  # of training, which has its own
    return {}
  nats = totals["z_yx"][0] + totals["y_x"][0] + totals["marginal"][0]
  return {"loss": nats / jnp.maximum(totals["z_yx"][1] + totals["marginal"][1], 1.0)}
