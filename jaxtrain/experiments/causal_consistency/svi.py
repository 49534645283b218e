"""The same likelihood as a NumPyro model, with the treatment summed out: the backend `svi`.

`marginal`: the sites are w, y, z of each row; y is enumerated, and a factor leaves only the recorded class where there
is one. The bound of `TraceEnum_ELBO` is then the log-likelihood itself. `free_energy`: the sum over y is written out,
because NumPyro does not enumerate a site of the guide. The heads p(y | x, z) and p(x | y, z), which are no part of the
generative model, join through a factor. Parameters come from outside, so that the bound lies inside `over` like any
loss, and clipping, accumulation, several devices and the guard work as they do for the others.

**Source:** enumeration: Obermeyer et al. 2019 (Tensor variable elimination for plated factor graphs).
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxtrain import step as step_lib
from jaxtrain.experiments.causal_consistency import nets, objectives
from jaxtrain.types import Batch

OBJECTIVES = ("free_energy", "marginal")
IMPOSSIBLE = -1e30  # a log-probability; -inf would make NaN of its gradient


def pick(values: jax.Array, y: jax.Array) -> jax.Array:
  """Entries of values [B, K, Z] at classes y, [B] or enumerated [K, 1]; without a gather, whose gradient is slow."""
  chosen = jax.nn.one_hot(y, values.shape[1], dtype=values.dtype)[..., None]
  return jnp.sum(chosen * values, axis=-2)


def row_model(p: objectives.Problem, bound: nets.Joint, chunk: Batch, active: jax.Array) -> nets.Output:
  """The sites of a chunk of rows; `active` is 0 while rows without a treatment do not count yet. Returns what the
  network gave.
  """
  import numpyro  # here: other backends start without it
  from numpyro import distributions as dist
  x, w, z = p.split(chunk)
  label, weight, (_, unlabelled) = chunk["label"], p.loss.weights, objectives.rows_of(chunk)
  out, means, given = bound.with_normals(x, w, z)
  is_row = chunk["weight"] > 0
  outcome = lambda y: dist.Normal(pick(means.mean, y), pick(means.sd, y)).to_event(1)
  with numpyro.plate("rows", len(x), dim=-1):
    if given is not None:
      with numpyro.handlers.scale(scale=weight.w_x), numpyro.handlers.mask(mask=is_row):
        numpyro.sample("w", dist.Normal(given.mean, given.sd).to_event(1), obs=w)
    if p.loss.objective == "marginal":
      with numpyro.handlers.mask(mask=is_row & ((label >= 0) | (active > 0))):
        y = numpyro.sample("y", dist.Categorical(logits=out.prior), infer={"enumerate": "parallel"})
        numpyro.factor("recorded", jnp.where((label >= 0) & (y != label), IMPOSSIBLE, 0.0))
        numpyro.sample("z", outcome(y), obs=z)
    else:
      known = jnp.maximum(label, 0)
      with numpyro.handlers.mask(mask=is_row & (label >= 0)):
        numpyro.sample("y", dist.Categorical(logits=out.prior), obs=known)
        numpyro.sample("z", outcome(known), obs=z)
    numpyro.factor("heads", -head_rows(p, out, chunk, unlabelled * active))
  return out


def head_rows(p: objectives.Problem, out: nets.Output, chunk: Batch, unlabelled: jax.Array) -> jax.Array:
  """[B]: what the heads add to the loss of each row, and with `free_energy` the written-out sum over y."""
  labelled, _ = objectives.rows_of(chunk)
  weight, one = p.loss.weights, jnp.ones(())
  named = {"z_yx": 1.0, "y_x": 1.0, "y_xz": weight.y_xz, "x_yz": weight.x_yz}
  recorded = -(weight.y_xz * objectives.own(out.head, chunk["label"])
               + weight.x_yz * objectives.own(out.covariates, chunk["label"]))
  if p.loss.objective == "marginal":  # the enumeration has the likelihood already
    rest = objectives.followers(out, jax.lax.stop_gradient(jnp.exp(out.posterior)), named, one)
  else:
    rest = objectives.unlabelled_rows(p.loss.objective, out, named, objectives.Dials(one, one, one))
  return labelled * recorded + unlabelled * rest


def negative_bound(p: objectives.Problem, bound: nets.Joint, chunk: Batch, active: jax.Array,
                   key: jax.Array) -> tuple[jax.Array, nets.Output]:
  """([] the loss of a chunk, summed over its rows: `elbo.loss` of NumPyro; what the network gave)."""
  from numpyro.infer import Trace_ELBO, TraceEnum_ELBO
  gave = []
  elbo = TraceEnum_ELBO() if p.loss.objective == "marginal" else Trace_ELBO()
  with jax.numpy_rank_promotion("allow"):
    loss = elbo.loss(key, {}, lambda: gave.append(row_model(p, bound, chunk, active)), lambda: None)
  return loss, gave[-1]


def loss_sums(p: objectives.Problem, params: Any, state: Any, chunk: Batch, key: jax.Array) -> step_lib.Chunk:
  """Term sums of a training chunk (see `step.make_gradient`): the bound, and the penalties of `consistency`. The terms
  of `objectives` are metrics.
  """
  bound, d = p.model.bind({"params": params}), objectives.dials(p, state.step)
  loss, out = negative_bound(p, bound, chunk, d.active, key)
  shown = objectives.term_sums(p, bound, out, chunk, d)
  terms = {"bound": loss} | {name: shown[name][0] for name in p.penalises}
  return step_lib.Chunk(terms, metrics=shown | objectives.entropy_sums(out, chunk))


def weights(p: objectives.Problem, step: jax.Array) -> dict[str, Any]:
  """Weight of each term."""
  del step
  return {name: p.loss.weights[name] for name in p.penalises} | {"bound": 1.0}


def term_counts(p: objectives.Problem, batch: Batch) -> dict[str, jax.Array]:
  """Rows that each term is divided by."""
  return dict.fromkeys(("bound", *p.penalises), jnp.sum(batch["weight"]))
