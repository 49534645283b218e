"""Randomness as a function of (seed, stream, step): keys are folded, never advanced.

A run has one root key. Each use of randomness has a named stream; a step's key is the stream's key folded by the step.
Resume therefore needs no record of randomness, and any step can be replayed alone.
"""

import jax

# The position of a name is part of every result: append, never reorder.
STREAMS = ("init", "data", "train", "eval", "report")


def root_key(seed: int) -> jax.Array:
  """The run's root key for an integer seed."""
  return jax.random.key(seed)


def stream_key(root: jax.Array, stream: str) -> jax.Array:
  """Key of a named stream. Raises ValueError for a name that is not in `STREAMS`."""
  return jax.random.fold_in(root, STREAMS.index(stream))


def step_key(key: jax.Array, step: jax.Array | int) -> jax.Array:
  """Key of one step (or epoch, chunk, stage) within a stream."""
  return jax.random.fold_in(key, step)


def key_for(seed: int, stream: str) -> jax.Array:
  """Key of a named stream for an integer seed."""
  return stream_key(root_key(seed), stream)
