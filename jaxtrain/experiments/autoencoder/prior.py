"""What events are drawn from: how many objects there are of each type, and the latent of an event given them.

Counts of types come from a table of the training events. The latent comes from a flow from noise to latents of training
events, by a network that is trained beside the autoencoder and moves nothing of it. Latents are standardised for it by
moving averages of their first two moments.

**Source:** Lipman et al. 2023 (Flow matching for generative modeling), eq. 22 and 23.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import rng
from jaxtrain.experiments.autoencoder import diffusion, samplers
from jaxtrain.types import Batch

FLOW = diffusion.Process(kind="flow")
DECAY = 0.99  # of the moving averages of moments
LEAST_VARIANCE = 1e-6  # of a latent's number
TINY = 1e-30  # so that no division is by 0


def counts_of(ids: np.ndarray, num_types: int) -> np.ndarray:
  """[N, K - 1]: how many objects of each type but the empty one events of types ids [N, T] have."""
  return np.stack([(ids == k).sum(axis=1) for k in range(1, num_types)], axis=1)


def count_types(ids: np.ndarray, weight: np.ndarray, num_types: int) -> dict[str, list]:
  """The table of how many objects of each type events [N, T] of weights [N] have: `counts`, lists of the numbers of
  types 1 to K - 1, and `share` of each, in JSON-able lists; the most frequent first.
  """
  found, place = np.unique(counts_of(ids, num_types), axis=0, return_inverse=True)
  share = np.bincount(place.ravel(), weight.astype(np.float64), len(found))
  order = np.argsort(-share, kind="stable")
  order = order[share[order] > 0]
  return {"counts": found[order].tolist(), "share": (share[order] / share.sum()).tolist()}


def type_bits(table: dict[str, list]) -> np.ndarray:
  """[K] float64, bits of an object's type by its share among all objects; 0 for the empty type and those never seen."""
  share = np.asarray(table["share"]) @ np.asarray(table["counts"], np.float64)
  share = share / max(share.sum(), 1.0)
  return np.concatenate([[0.0], -np.log2(np.where(share > 0, share, 1.0))])


def draw_types(table: dict[str, list], num: int, num_slots: int, random: np.random.RandomState) -> np.ndarray:
  """Types [num, T] of objects of events drawn from a table; the empty slots are the last."""
  return ids_of(np.asarray(table["counts"], np.int64)[random.choice(len(table["share"]), num, p=table["share"])],
                num_slots)


def ids_of(counts: np.ndarray, num_slots: int) -> np.ndarray:
  """Types [N, T] of objects of which events have so many of each type, counts [N, K - 1]; the empty slots are the last.
  """
  ends = np.cumsum(counts, axis=1)
  slot = np.arange(num_slots)[None, :, None]
  ids = 1 + (slot >= ends[:, None, :]).sum(axis=2)
  return np.where(ids > counts.shape[1], 0, ids).astype(np.int32)


def start_moments(z: jax.Array, weight: jax.Array) -> jax.Array:
  """Moments [2, F] of the latents z [B, 1, F] of first events of weights [B]."""
  return moment_sums(z, weight) / jnp.maximum(jnp.sum(weight), TINY)


def moment_sums(z: jax.Array, weight: jax.Array) -> jax.Array:
  """[2, F]: sums of latents z [B, 1, F], and of their squares, by weights [B]."""
  z = jax.lax.stop_gradient(z[:, 0])
  total = lambda values: jnp.einsum("b,bf->f", weight, values, precision=jax.lax.Precision.HIGHEST)
  return jnp.stack([total(z), total(jnp.square(z))])


def follow(moments: jax.Array, sums: jax.Array, count: jax.Array) -> jax.Array:
  """Moments after a batch of `moment_sums` over events that weigh `count`; events of no weight change nothing."""
  return jnp.where(count > 0, DECAY * moments + (1 - DECAY) * sums / jnp.maximum(count, TINY), moments)


def scale_of(moments: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(mean, deviation) of latents, each [1, 1, F]."""
  deviation = jnp.sqrt(jnp.maximum(moments[1] - jnp.square(moments[0]), LEAST_VARIANCE))
  return moments[0][None, None], deviation[None, None]


def draw(key: jax.Array, num_rows: int, width: int) -> Batch:
  """Random numbers of a step for the loss, as fields of the batch."""
  level_key, noise_key = jax.random.split(key)
  return {"prior_level": diffusion.draw_levels(FLOW, level_key, num_rows),
          "prior_noise": rng.normal(noise_key, (num_rows, width))}


def network_of(bound: Any, ids: jax.Array):
  """The network of the prior as samplers and losses of `diffusion` take it, for latents [B, 1, F]."""
  return lambda x, level: bound.prior(x[:, 0], level, ids)[:, None]


def loss_rows(bound: Any, moments: jax.Array, batch: Batch, z: jax.Array) -> jax.Array:
  """[B]: the loss of the prior of latents z [B, 1, F]; its gradient reaches the prior's network alone."""
  mean, deviation = scale_of(moments)
  x = (jax.lax.stop_gradient(z) - mean) / deviation
  rows, _ = diffusion.loss_rows(FLOW, network_of(bound, batch["ids"]), x, batch["prior_level"],
                                batch["prior_noise"][:, None], jnp.ones((len(x), 1)))
  return rows


def sample(bound: Any, moments: jax.Array, ids: jax.Array, key: jax.Array, num_steps: int) -> jax.Array:
  """Latents [B, 1, F] of events whose objects have the types ids [B, T]."""
  mean, deviation = scale_of(moments)
  shape = (len(ids), 1, moments.shape[1])
  x = samplers.sample(FLOW, "heun", network_of(bound, ids), shape, jnp.ones(shape[:2]), key, num_steps, 0.0)
  return mean + deviation * x
