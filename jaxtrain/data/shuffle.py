"""Shuffling as a function: a keyed permutation of 0..n-1 evaluated at any indices, without sorting or storing it.

A Feistel network over the smallest power of two that holds n is a bijection whatever its round function; indices that
land outside 0..n-1 are sent through it again until they land inside (cycle walking), which keeps it a bijection of
0..n-1.

**Source:** Luby & Rackoff 1988 (pseudorandom permutations from Feistel networks); cycle walking: Black & Rogaway 2002
(Ciphers with arbitrary finite domains), section 3. The round function is the 32-bit finaliser of MurmurHash3 with a key
added.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

NUM_ROUNDS = 8
SMALL_BITS, SMALL_ROUNDS = 8, 24  # halves of a bit or three mix slowly (tests: chi-square over keys)


def mix(x):
  """The 32-bit finaliser of MurmurHash3: every input bit affects every output bit. For JAX and NumPy arrays."""
  x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
  return x ^ (x >> 16)


def num_rounds(num_rows: int) -> int:
  """Rounds of the network for a domain of this size."""
  return NUM_ROUNDS if max((num_rows - 1).bit_length(), 2) > SMALL_BITS else SMALL_ROUNDS


def round_keys(key: jax.Array, num_rows: int) -> jax.Array:
  """[rounds] uint32: all that a permutation of 0..num_rows-1 takes from its key."""
  return jax.random.bits(key, (num_rounds(num_rows),), jnp.uint32)


def network(x, keys, num_rows: int):
  """One pass of indices x, uint32, through the network; the result may lie outside 0..num_rows-1."""
  num_bits = max((num_rows - 1).bit_length(), 2)
  low_bits = num_bits // 2
  low_mask, high_mask = np.uint32((1 << low_bits) - 1), np.uint32((1 << (num_bits - low_bits)) - 1)
  low, high = x & low_mask, x >> low_bits
  for r in range(0, num_rounds(num_rows), 2):  # the halves may differ by a bit, so each is replaced in place, in turn
    high = high ^ (mix(low + keys[r]) & high_mask)
    low = low ^ (mix(high + keys[r + 1]) & low_mask)
  return (high << low_bits) | low


@functools.partial(jax.jit, static_argnames="num_rows")  # traced once a process, not in each program that shuffles
def permute(key: jax.Array, index: jax.Array, num_rows: int) -> jax.Array:
  """Image of indices under the permutation of 0..num_rows-1 that `key` names.

  Args:
    key: typed PRNG key.
    index: [B] int32 in 0..num_rows-1.
    num_rows: size of the domain, static, 1..2^31-1.

  Returns:
    [B] int32 in 0..num_rows-1; distinct for distinct indices.
  """
  keys = round_keys(key, num_rows)

  def walk(at):
    x, outside = at
    x = jnp.where(outside, network(x, keys, num_rows), x)
    return x, x >= num_rows

  start = index.astype(jnp.uint32), jnp.ones(index.shape, bool)  # all go through the network at least once
  return jax.lax.while_loop(lambda at: jnp.any(at[1]), walk, start)[0].astype(jnp.int32)


def permute_on_host(keys: np.ndarray, index: np.ndarray, num_rows: int) -> np.ndarray:
  """`permute` without JAX, given its `round_keys`: [B] int64, the same numbers."""
  with np.errstate(over="ignore"):
    x = network(index.astype(np.uint32), keys, num_rows)
    while (outside := x >= num_rows).any():
      x[outside] = network(x[outside], keys, num_rows)
  return x.astype(np.int64)
