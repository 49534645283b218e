"""Random numbers of one key, drawn in one call and handed out in order.

A simulated task needs dozens of small draws. Each call of `jax.random` writes some 200 operations into the program, so
that calls of their own made a generator of three mechanisms take nine seconds to compile; this way it takes two.
"""

import math
from typing import Any, Callable

import jax
import jax.numpy as jnp


class Numbers:
  """Hands out random numbers, each once, in the order in which they are asked for.

  Attributes:
    taken: how many were handed out.
  """

  def __init__(self, bits: jax.Array | None):
    """bits [N] uint32; None only counts, and hands out halves."""
    self.bits, self.taken = bits, 0

  def uniform(self, shape: tuple[int, ...] = (), low: Any = 0.0, high: Any = 1.0) -> jax.Array:
    """Uniform numbers strictly between low and high, float32."""
    start, size = self.taken, math.prod(shape)
    self.taken += size
    if self.bits is None:
      return jnp.full(shape, 0.5)
    whole = jax.lax.dynamic_slice_in_dim(self.bits, start, size).reshape(shape) >> 9
    return low + (high - low) * ((whole.astype(jnp.float32) + 0.5) * 2.0**-23)

  def normal(self, shape: tuple[int, ...] = ()) -> jax.Array:
    """Standard normal numbers, by the inverse of their distribution function."""
    return 2**0.5 * jax.lax.erf_inv(self.uniform(shape, -1.0, 1.0))

  def exponential(self, shape: tuple[int, ...] = ()) -> jax.Array:
    """Exponential numbers of rate 1."""
    return -jnp.log(self.uniform(shape))

  def gamma(self, concentration: float) -> jax.Array:
    """A Gamma number of rate 1; 2 x concentration is a whole number: so many halves of squared normal numbers."""
    return 0.5 * jnp.sum(jnp.square(self.normal((round(2 * concentration),))))

  def sign(self, shape: tuple[int, ...] = ()) -> jax.Array:
    """-1 or 1, evenly."""
    return jnp.where(self.uniform(shape) < 0.5, -1.0, 1.0)


def count(function: Callable, *args: Any) -> int:
  """How many numbers `function(numbers, *args)` takes; nothing is computed."""
  counter = Numbers(None)
  jax.eval_shape(lambda *a: function(counter, *a), *args)
  return counter.taken


def drawn(function: Callable) -> Callable:
  """`(key, *args)` of a function of `(numbers, *args)`: all its numbers come from one call."""
  return lambda key, *args: function(Numbers(jax.random.bits(key, (count(function, *args),))), *args)


def fold(key: jax.Array, *numbers: int | jax.Array) -> jax.Array:
  """A key folded by several numbers, one after the other."""
  for number in numbers:
    key = jax.random.fold_in(key, number)
  return key
