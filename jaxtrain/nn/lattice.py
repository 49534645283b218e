"""Closest points of the lattices Z, D4 and E8, scaled to volume 1, and noise that is uniform over their cells.

Rounding n numbers one by one is the cubic lattice Z^n. A denser lattice has rounder cells: at as many points a volume
its mean squared error is smaller, by 1.53 dB in the limit; E8 has 0.654 dB of it (0.109 bit a dimension at equal
error), D4 0.366 dB (0.061 bit).

**Source:** Conway & Sloane 1982 (Fast quantizing and decoding algorithms for lattice quantizers and codes), sections 4
and 5; second moments: Conway & Sloane 1999 (Sphere packings, lattices and groups), table 2.3.
"""

import chex
import jax
import jax.numpy as jnp

# Normalised second moment of a cell: mean squared error a dimension at volume 1.
SECOND_MOMENT = {"z": 1 / 12, "d4": 0.0766032, "e8": 0.0716821}
DIMENSIONS = {"z": 1, "d4": 4, "e8": 8}
# Points of the integer form of a lattice (D4: whole numbers of even sum) a unit of volume, as a factor of length.
SPACING = {"z": 1.0, "d4": 2.0**-0.25, "e8": 1.0}


def closest_even(x: jax.Array) -> jax.Array:
  """The closest point of D_n, whole numbers whose sum is even, to x [..., n].

  Where rounding gives an odd sum, the coordinate that was farthest from a whole number goes to its other neighbour.
  """
  near = jnp.round(x)
  gap = x - near
  far = jnp.abs(gap)
  place = jax.nn.one_hot(jnp.argmax(far, axis=-1), x.shape[-1], dtype=x.dtype)
  other = near + place * jnp.where(gap >= 0, 1.0, -1.0)
  odd = jnp.mod(jnp.sum(near, axis=-1, keepdims=True), 2.0) != 0
  return jnp.where(odd, other, near)


def closest(name: str, x: jax.Array) -> jax.Array:
  """The closest point of a lattice of volume 1 to x [..., n], n the lattice's dimension (any for `z`)."""
  if name == "z":
    return jnp.round(x)
  chex.assert_axis_dimension(x, -1, DIMENSIONS[name])
  if name == "d4":
    return closest_even(x / SPACING[name]) * SPACING[name]
  whole, half = closest_even(x), closest_even(x - 0.5) + 0.5
  distance = lambda point: jnp.sum(jnp.square(x - point), axis=-1, keepdims=True)
  return jnp.where(distance(whole) <= distance(half), whole, half)


def cell_noise(name: str, uniform: jax.Array) -> jax.Array:
  """Noise that is uniform over the cell around 0, [..., n], from numbers that are uniform in 0..1, [..., n].

  A cube with sides of 2 is whole cells put together differently, so what is left of a uniform point of it after its
  closest point is taken away is uniform over a cell.
  """
  point = 2.0 * SPACING[name] * uniform
  return point - closest(name, point)
