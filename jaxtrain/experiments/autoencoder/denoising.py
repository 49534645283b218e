"""A decoder that denoises: what it makes of noisy events in training, of no information but the latent, and of noise.

The network is `Assembly.raw`; objects' features are its data, in slots that hold an object. Types and existence, where
they are decoded, and globals come from the same network at whatever level it is asked; the globals see the event's
latent alone.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtrain import losses, rng
from jaxtrain.experiments.autoencoder import diffusion, samplers
from jaxtrain.experiments.autoencoder.nets_layers import Decoded
from jaxtrain.types import Batch, Metrics

NUM_BUCKETS = 4  # of noise levels, as many training rows in each
HIGH = 0.999  # share of the levels in training below the one at which a decoder is asked what the latent alone says


class Denoising(NamedTuple):
  """How a decoder denoises.

  Attributes:
    process: what noise does to data.
    sampler, num_steps, eta: of new events, see `samplers`.
  """
  process: diffusion.Process
  sampler: str
  num_steps: int
  eta: float


def make_denoising(settings: Any) -> Denoising:
  """The same of `config.model.diffusion`. Raises UserError."""
  return Denoising(diffusion.make_process(settings), settings.sampler, settings.num_steps, settings.eta)


def draw(d: Denoising, key: jax.Array, num_rows: int, num_slots: int, num_features: int) -> Batch:
  """Noise levels and noise of a step for the whole batch: `level` [B], `level_noise` [B, T, C]."""
  level_key, noise_key = jax.random.split(key)
  return {"level": diffusion.draw_levels(d.process, level_key, num_rows),
          "level_noise": rng.normal(noise_key, (num_rows, num_slots, num_features))}


def denoise(d: Denoising, bound: Any, z: jax.Array, mask: jax.Array, batch: Batch) -> tuple[Decoded, jax.Array]:
  """(the event that noisy objects are taken for, [B] weighted squared error summed over objects, mean over features).

  Args:
    d: how.
    bound: the networks.
    z, mask: [B, S, F] and [B, S], latents as the decoder gets them.
    batch: events, with what `draw` gives.
  """
  p, there = d.process, (batch["ids"] > 0).astype(jnp.float32)
  x_noisy = diffusion.add_noise(p, batch["cont"], batch["level"], batch["level_noise"], there)
  found = bound.raw(*diffusion.network_inputs(p, x_noisy, batch["level"]), z, mask, batch["ids"])
  error, _ = diffusion.error_rows(p, found.cont, batch["cont"], batch["level"], batch["level_noise"], there)
  return found._replace(cont=diffusion.data_of(p, found.cont, x_noisy, batch["level"])), error


def expected(d: Denoising, bound: Any, z: jax.Array, mask: jax.Array, ids: jax.Array, num_features: int) -> Decoded:
  """The event that the latent alone says, in the least squares: what is made of x_noisy = 0 at a high level. ids are
  [B, T]; where types are decoded, they only say which slots there are.
  """
  x_noisy = jnp.zeros((*ids.shape, num_features))
  level = jnp.broadcast_to(diffusion.at_share(d.process, jnp.float32(HIGH)), (len(ids),))
  found = bound.raw(*diffusion.network_inputs(d.process, x_noisy, level), z, mask, ids)
  return found._replace(cont=diffusion.data_of(d.process, found.cont, x_noisy, level))


def network_of(bound: Any, z: jax.Array, mask: jax.Array, ids: jax.Array) -> diffusion.Network:
  """The network as samplers take it, given latents [B, S, F]."""
  return lambda x_in, log_sigma: bound.raw(x_in, log_sigma, z, mask, ids).cont


def sample(d: Denoising, bound: Any, z: jax.Array, mask: jax.Array, ids: jax.Array, num_features: int, key: jax.Array
           ) -> Decoded:
  """An event drawn given its latent; all but the objects' features are those of `expected`."""
  x = samplers.sample(d.process, d.sampler, network_of(bound, z, mask, ids), (*ids.shape, num_features),
                      (ids > 0).astype(jnp.float32), key, d.num_steps, d.eta)
  return expected(d, bound, z, mask, ids, num_features)._replace(cont=x)


def trajectory(d: Denoising, bound: Any, z: jax.Array, mask: jax.Array, ids: jax.Array, num_features: int,
               key: jax.Array, num_states: int) -> jax.Array:
  """[num_states, B, T, C]: features on the way from noise to those of `sample` with the same key."""
  return samplers.trajectory(d.process, d.sampler, network_of(bound, z, mask, ids), (*ids.shape, num_features),
                             (ids > 0).astype(jnp.float32), key, d.num_steps, d.eta, num_states)


def bucket_metrics(d: Denoising, error: jax.Array, batch: Batch, weight: jax.Array) -> Metrics:
  """`denoise_1` (the least noise) to `denoise_4`: the error of `denoise`, a mean over objects of events of weight [B]
  whose level is in a quarter of those in training.
  """
  share = diffusion.share_below(d.process, batch["level"])
  bucket = jnp.clip(jnp.floor(share * NUM_BUCKETS), 0, NUM_BUCKETS - 1)
  objects = jnp.sum(batch["ids"] > 0, axis=1).astype(jnp.float32)
  of = lambda k: weight * (bucket == k)
  return {f"denoise_{k + 1}": (losses.sum_rows(of(k), error), losses.sum_rows(of(k), objects))
          for k in range(NUM_BUCKETS)}
