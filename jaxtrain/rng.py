"""Randomness as a function of (seed, stream, step): keys are folded, never advanced.

A run has one root key. Each use of randomness has a named stream; a step's key is the stream's key folded by the step.
Resume therefore needs no record of randomness, and any step can be replayed alone.
"""

import math

import jax
import jax.numpy as jnp

# The position of a name is part of every result: append, never reorder.
STREAMS = ("init", "data", "train", "eval", "report", "val_data", "test_data", "test", "assess_train", "assess_val",
           "assess_test")


def root_key(seed: int) -> jax.Array:
  """The run's root key for an integer seed."""
  return jax.random.key(seed)


def stream_key(root: jax.Array, stream: str) -> jax.Array:
  """Key of a named stream. Raises ValueError for a name that is not in `STREAMS`."""
  return jax.random.fold_in(root, STREAMS.index(stream))


def evaluation_keys(root: jax.Array, part: str) -> tuple[jax.Array, jax.Array]:
  """Keys of the data of a part, `val` or `test`, and of what its evaluation draws: each has a stream of its own."""
  return stream_key(root, f"{part}_data"), stream_key(root, {"val": "eval", "test": "test"}[part])


def step_key(key: jax.Array, step: jax.Array | int) -> jax.Array:
  """Key of one step (or epoch, chunk, stage) within a stream."""
  return jax.random.fold_in(key, step)


def key_for(seed: int, stream: str) -> jax.Array:
  """Key of a named stream for an integer seed."""
  return stream_key(root_key(seed), stream)


def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Standard normal numbers, float32, in two halves drawn one after the other.

  On a CPU XLA fuses `jax.random.normal` into its consumer and then loops over the consumer's last axis; for a short one
  (10 latent dimensions) that takes five times as long. What comes out of a loop of two turns is not fused.
  """
  size = math.prod(shape)
  half = -(-size // 2)
  halves = jax.lax.map(lambda k: jax.random.normal(k, (half,)), jax.random.split(key))
  return jnp.ravel(halves)[:size].reshape(shape)


def bernoulli(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
  """True with probability `rate`, met to 2^-17: a decision takes 16 random bits, half of what `jax.random` takes."""
  size = math.prod(shape)
  words = jax.random.bits(key, (-(-size // 2),), jnp.uint32)
  below = round(rate * 65536)
  return jnp.concatenate([(words & 0xFFFF) < below, (words >> 16) < below])[:size].reshape(shape)
