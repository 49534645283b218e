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


def row_model(p: objectives.Problem, bound: nets.Joint, chunk: Batch, active: jax.Array) -> None:
  """The sites of a chunk of rows; `active` is 0 while rows without a treatment do not count yet."""
  import numpyro  # here: other backends start without it
  from numpyro import distributions as dist
  x, w, z = p.split(chunk)
  label, weight, (_, unlabelled) = chunk["label"], p.loss.weights, objectives.rows_of(chunk)
  out = bound(x, w, z)
  means, rows = bound.outcomes(x), jnp.arange(len(x))
  counts = (chunk["weight"] > 0) & ((label >= 0) | (active > 0))
  with numpyro.plate("rows", len(x), dim=-1):
    if p.model.num_instruments:
      given = bound.given_covariates(x)
      with numpyro.handlers.scale(scale=weight.w_x), numpyro.handlers.mask(mask=chunk["weight"] > 0):
        numpyro.sample("w", dist.Normal(given.mean, given.sd).to_event(1), obs=w)
    if p.loss.objective == "marginal":
      with numpyro.handlers.mask(mask=counts):
        y = numpyro.sample("y", dist.Categorical(logits=out.prior), infer={"enumerate": "parallel"})
        numpyro.factor("recorded", jnp.where((label >= 0) & (y != label), IMPOSSIBLE, 0.0))
        numpyro.sample("z", dist.Normal(means.mean[rows, y], means.sd[rows, y]).to_event(1), obs=z)
    else:
      seen = (chunk["weight"] > 0) & (label >= 0)
      known = jnp.maximum(label, 0)
      with numpyro.handlers.mask(mask=seen):
        numpyro.sample("y", dist.Categorical(logits=out.prior), obs=known)
        numpyro.sample("z", dist.Normal(means.mean[rows, known], means.sd[rows, known]).to_event(1), obs=z)
    numpyro.factor("heads", -head_rows(p, out, chunk, unlabelled * active))


def head_rows(p: objectives.Problem, out: nets.Output, chunk: Batch, unlabelled: jax.Array) -> jax.Array:
  """[B]: what the heads add to the loss of each row, and with `free_energy` the written-out sum over y."""
  labelled, _ = objectives.rows_of(chunk)
  weight, one = p.loss.weights, jnp.ones(())
  named = {"z_yx": 1.0, "y_x": 1.0, "y_xz": weight.y_xz, "x_yz": weight.x_yz}
  recorded = -(weight.y_xz * objectives.own(out.head, chunk["label"])
               + weight.x_yz * objectives.own(out.covariates, chunk["label"]))
  rest = objectives.unlabelled_rows(p.loss.objective, out, named, objectives.Dials(one, one, one))
  if p.loss.objective == "marginal":  # the enumeration has the likelihood already
    rest = rest - objectives.smallest(-out.joint, one)
  return labelled * recorded + unlabelled * rest


def negative_bound(p: objectives.Problem, params: Any, chunk: Batch, active: jax.Array, key: jax.Array) -> jax.Array:
  """[] the loss of a chunk, summed over its rows: `elbo.loss` of NumPyro."""
  from numpyro.infer import Trace_ELBO, TraceEnum_ELBO
  def model():
    row_model(p, p.model.bind({"params": params}), chunk, active)
  elbo = TraceEnum_ELBO() if p.loss.objective == "marginal" else Trace_ELBO()
  with jax.numpy_rank_promotion("allow"):
    return elbo.loss(key, {}, model, lambda: None)


def loss_sums(p: objectives.Problem, params: Any, state: Any, chunk: Batch, key: jax.Array) -> step_lib.Chunk:
  """Term sums of a training chunk (see `step.make_gradient`): the bound, and the penalties of `consistency`. The terms
  of `objectives` are metrics.
  """
  bound_key, shown_key = jax.random.split(key)
  shown = objectives.loss_sums(p, jax.lax.stop_gradient(params), state, chunk, shown_key).metrics
  bound = p.model.bind({"params": params})
  gaps = objectives.gaps(p, bound, bound(*p.split(chunk)), chunk, p.penalises)
  terms = {name: value[0] for name, value in gaps.items()}
  terms["bound"] = negative_bound(p, params, chunk, objectives.dials(p, state.step).active, bound_key)
  return step_lib.Chunk(terms, metrics=shown)


def weights(p: objectives.Problem, step: jax.Array) -> dict[str, Any]:
  """Weight of each term."""
  del step
  return {name: p.loss.weights[name] for name in p.penalises} | {"bound": 1.0}


def term_counts(p: objectives.Problem, batch: Batch) -> dict[str, jax.Array]:
  """Rows that each term is divided by."""
  return dict.fromkeys(("bound", *p.penalises), jnp.sum(batch["weight"]))
