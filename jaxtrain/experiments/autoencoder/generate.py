"""New events of a trained autoencoder whose events have one latent: types of objects from the table of the training
events, the latent from the prior, objects and missing energy from the decoder. No event of the data enters.
"""

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import rng
from jaxtrain.experiments.autoencoder import apply, denoising, generated, latents, prior, scaling
from jaxtrain.experiments.autoencoder.events import FEATURES, Events
from jaxtrain.experiments.autoencoder.problem import Problem

BLOCK = 1024  # events of a compiled call
MOST_COMPARED = 4000  # new events that an assessment makes, for as many or more real ones


class Maker(NamedTuple):
  """What makes events.

  Attributes:
    problem: the problem.
    make: compiled `(variables, ids [B, T], key) -> (momenta [B, T, 4], met [B, 2])`, in GeV and radians.
  """
  problem: Problem
  make: Callable


def make_maker(p: Problem) -> Maker:
  """The maker of a problem with a prior."""
  def make(given, ids, key):
    latent_key, decoder_key = jax.random.split(key)
    bound = p.model.bind({"params": given["params"]})
    z = prior.sample(bound, given["latent_moments"], ids, latent_key, p.prior_steps)
    z, mask = latents.nearest(p.plan, given["codes"], z), jnp.ones(z.shape[:2])
    if p.denoising:
      decoded = denoising.sample(p.denoising, bound, z, mask, ids, p.meta["num_features"], decoder_key)
    else:
      noise = rng.normal(decoder_key, (*ids.shape, p.plan.dim)) if p.draws else None
      decoded = bound.decode(z, mask, noise, ids)
    there = (ids > 0).astype(jnp.float32)[..., None]
    return scaling.to_momenta(p.meta["scaler"], decoded.cont) * there, scaling.to_met(p.meta["scaler"], decoded.globals)
  return Maker(p, jax.jit(make))


def row_bytes(p: Problem) -> int:
  """Bytes that an event needs while it is made, about."""
  return 64 * p.meta["num_slots"] * (p.meta["num_features"] + p.plan.dim)


def generate(maker: Maker, state: Any, num: int, key: jax.Array) -> Events:
  """So many new events, of weight 1 and of no known process, their objects in falling order of transverse momentum;
  those of a key are always the same.
  """
  meta = maker.problem.meta
  types_key, blocks_key = jax.random.split(key)
  random = np.random.RandomState(np.asarray(jax.random.key_data(types_key)).ravel().tolist())
  ids = prior.draw_types(meta["type_counts"], num, meta["num_slots"], random)
  given = apply.variables(state) | {"latent_moments": state.model_state["latent_moments"]}
  parts = []
  for k, start in enumerate(range(0, num, BLOCK)):
    block = np.zeros((BLOCK, ids.shape[1]), np.int32)
    block[:len(ids[start:start + BLOCK])] = ids[start:start + BLOCK]
    parts.append(maker.make(given, block, rng.step_key(blocks_key, k)))
  momenta, met = (np.concatenate([np.asarray(part) for part in column])[:num] for column in zip(*parts))
  order = np.argsort(-momenta[..., FEATURES.index("pt")], axis=1, kind="stable")  # as objects of the data stand
  ids, momenta = np.take_along_axis(ids, order, axis=1), np.take_along_axis(momenta, order[..., None], axis=1)
  return Events(ids, momenta.astype(np.float32), met.astype(np.float32), np.zeros(num, np.int32),
                np.ones(num, np.float32))


def make_assess(p: Problem) -> Callable:
  """The part of the assessment that compares new events with those that test: `(state, splits, key) -> (scalars,
  arrays)`; see `generated`.
  """
  maker = make_maker(p)
  def assess(state, splits, key):
    make_key, compare_key = jax.random.split(key)
    columns = splits.test.rows(np.arange(splits.test.num_rows))
    real = Events(columns["ids"], columns["momenta"], columns["met"], columns["label"], columns["event_weight"])
    if len(real.ids) < generated.FEWEST:
      return {}, {}
    return generated.compare(real, generate(maker, state, min(MOST_COMPARED, len(real.ids)), make_key), compare_key)
  return assess
