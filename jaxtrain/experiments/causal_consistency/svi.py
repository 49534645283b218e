"""The same likelihood as a NumPyro model, with the treatment summed out: the backend `svi`.

The sites are w, and y and z of each row, observed where the treatment is recorded; a hidden y is enumerated.
`marginal`: the guide is empty, and the bound of `TraceEnum_ELBO` is the log-likelihood itself. `free_energy`: the guide
is the imputing head, enumerated too, so that the expectation is exact. The heads that are no part of the generative
model join through a factor. Parameters come from outside, so that the bound lies inside `over` like any loss, and
clipping, accumulation, several devices and the guard work as they do for the others.

**Source:** enumeration: Obermeyer et al. 2019 (Tensor variable elimination for plated factor graphs).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtrain import step as step_lib
from jaxtrain.experiments.causal_consistency import nets, objectives
from jaxtrain.types import Batch

OBJECTIVES = ("free_energy", "marginal")


def pick(values: jax.Array, y: jax.Array) -> jax.Array:
  """Entries of values [B, K, Z] at classes y, [B] or enumerated [K, 1]; without a gather, whose gradient is slow."""
  chosen = jax.nn.one_hot(y, values.shape[1], dtype=values.dtype)[..., None]
  return jnp.sum(chosen * values, axis=-2)


class Parts(NamedTuple):
  """What the network gives of a chunk: log-probabilities, p(z | x, y), and p(w | x) or None."""
  out: nets.Output
  outcomes: nets.Normals
  instruments: nets.Normals | None


def row_model(p: objectives.Problem, parts: Parts, chunk: Batch, active: jax.Array) -> None:
  """The sites of a chunk of rows; `active` is 0 while rows without a treatment do not count yet."""
  import numpyro  # here: other backends start without it
  from numpyro import distributions as dist
  (_, w, z), label, means = p.split(chunk), chunk["label"], parts.outcomes
  is_row, prior = chunk["weight"] > 0, dist.Categorical(logits=parts.out.prior)
  outcome = lambda y: dist.Normal(pick(means.mean, y), pick(means.sd, y)).to_event(1)
  with numpyro.plate("rows", len(label), dim=-1):
    if parts.instruments is not None:
      given = dist.Normal(parts.instruments.mean, parts.instruments.sd).to_event(1)
      with numpyro.handlers.scale(scale=p.loss.weights.w_x), numpyro.handlers.mask(mask=is_row):
        numpyro.sample("w", given, obs=w)
    with numpyro.handlers.mask(mask=is_row & (label >= 0)):
      known = jnp.maximum(label, 0)
      numpyro.sample("y_recorded", prior, obs=known)
      numpyro.sample("z_recorded", outcome(known), obs=z)
    with numpyro.handlers.mask(mask=is_row & (label < 0) & (active > 0)):
      y = numpyro.sample("y", prior, infer={"enumerate": "parallel"})
      numpyro.sample("z", outcome(y), obs=z)
    numpyro.factor("heads", -head_rows(p, parts.out, chunk, active))


def row_guide(p: objectives.Problem, parts: Parts, chunk: Batch, active: jax.Array) -> None:
  """With `free_energy` the imputing head as the posterior of y; with `marginal` nothing: y is summed out."""
  import numpyro
  from numpyro import distributions as dist
  if p.loss.objective == "free_energy":
    hidden = (chunk["weight"] > 0) & (chunk["label"] < 0) & (active > 0)
    with numpyro.plate("rows", len(hidden), dim=-1), numpyro.handlers.mask(mask=hidden):
      numpyro.sample("y", dist.Categorical(logits=parts.out.head), infer={"enumerate": "parallel"})


def head_rows(p: objectives.Problem, out: nets.Output, chunk: Batch, active: jax.Array) -> jax.Array:
  """[B]: what the heads that are no part of the generative model add to the loss of each row."""
  (labelled, unlabelled), weight = objectives.rows_of(chunk), p.loss.weights
  recorded = -(weight.y_xz * objectives.own(out.head, chunk["label"])
               + weight.x_yz * objectives.own(out.covariates, chunk["label"]))
  by_head = p.loss.objective == "free_energy"  # which the bound itself then trains
  shares = jax.lax.stop_gradient(jnp.exp(out.head if by_head else out.posterior))
  hidden = objectives.followers(out, shares, {"x_yz": weight.x_yz, "y_xz": 0.0 if by_head else weight.y_xz}, 1.0)
  return labelled * recorded + unlabelled * active * hidden


def negative_bound(p: objectives.Problem, parts: Parts, chunk: Batch, active: jax.Array, key: jax.Array) -> jax.Array:
  """[] the loss of a chunk, summed over its rows: `elbo.loss` of NumPyro."""
  from numpyro.infer import TraceEnum_ELBO
  with jax.numpy_rank_promotion("allow"):
    return TraceEnum_ELBO().loss(key, {}, row_model, row_guide, p, parts, chunk, active)


def loss_sums(p: objectives.Problem, params: Any, state: Any, chunk: Batch, key: jax.Array) -> step_lib.Chunk:
  """Term sums of a training chunk (see `step.make_gradient`): the bound, and the penalties of `consistency`. The terms
  of `objectives` are metrics.
  """
  bound, d = p.model.bind({"params": params}), objectives.dials(p, state.step)
  parts = Parts(*bound.with_normals(*p.split(chunk)))
  loss = negative_bound(p, parts, chunk, d.active, key)
  shown = objectives.term_sums(p, bound, parts.out, chunk, d)
  terms = {"bound": loss} | {name: shown[name][0] for name in p.penalises}
  return step_lib.Chunk(terms, metrics=shown | objectives.entropy_sums(parts.out, chunk))


def weights(p: objectives.Problem, step: jax.Array) -> dict[str, Any]:
  """Weight of each term."""
  found = objectives.weights(p, step)
  return {name: found[name] for name in p.penalises} | {"bound": 1.0}


def term_counts(p: objectives.Problem, batch: Batch) -> dict[str, jax.Array]:
  """Rows that each term is divided by."""
  return dict.fromkeys(("bound", *p.penalises), jnp.sum(batch["weight"]))
