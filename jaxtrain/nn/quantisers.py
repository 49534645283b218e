"""Codebooks that follow moving averages, and scalar quantisers with a fixed number of levels.

A codebook has S slots of K codes of d numbers. The slots of a product code quantise parts of a vector, those of a
residual code each what the ones before have left. Codes are no parameters: they follow moving averages of what they
stand for, whose sums go through `over`, so that chunks and devices see one batch; codes that are hardly used move to
inputs of the batch.

**Source:** straight-through codes: van den Oord et al. 2017 (Neural discrete representation learning), section 3.2 and
appendix A.1 (moving averages); residual codes: Zeghidour et al. 2021 (SoundStream), section III-C, also for moving dead
codes; finite scalar quantisation: Mentzer et al. 2023 (FSQ: VQ-VAE made simple), section 3.1.
"""

from typing import NamedTuple

import chex
import flax.struct
import jax
import jax.numpy as jnp

ROUNDS = 5
TINY = 1e-5  # of a code's use, so that no division is by 0


class Codebook(flax.struct.PyTreeNode):
  """Codes and the moving averages that they follow.

  Attributes:
    codes: [S, K, d].
    use: [S, K], average number of inputs of a batch that a code stands for.
    total: [S, K, d], average sum of those inputs.
  """
  codes: jax.Array
  use: jax.Array
  total: jax.Array


class Looked(NamedTuple):
  """What a codebook says of inputs.

  Attributes:
    index: [B, S] int32, the code of each slot.
    inputs: [B, S, d], what each slot had to quantise.
    chosen: [B, S, d], its codes.
  """
  index: jax.Array
  inputs: jax.Array
  chosen: jax.Array


def nearest(codes: jax.Array, x: jax.Array) -> jax.Array:
  """Index [B] of the code of [K, d] that is nearest to each x [B, d]."""
  score = x @ codes.T - 0.5 * jnp.sum(jnp.square(codes), axis=-1)[None]
  return jnp.argmax(score, axis=-1).astype(jnp.int32)


def look_up(codes: jax.Array, z: jax.Array, residual: bool) -> Looked:
  """Codes of z: of its parts [B, S, d], or with `residual` of all of it [B, d], slot after slot."""
  chex.assert_rank([codes, z], [3, 2 if residual else 3])
  if not residual:
    index = jax.vmap(nearest, in_axes=(0, 1), out_axes=1)(codes, z)
    return Looked(index, z, pick(codes, index))

  def quantise(left, of_slot):
    index = nearest(of_slot, left)
    chosen = of_slot[index]
    return left - chosen, (index, left, chosen)
  _, found = jax.lax.scan(quantise, z, codes)
  return Looked(*(jnp.moveaxis(part, 0, 1) for part in found))


def pick(codes: jax.Array, index: jax.Array) -> jax.Array:
  """The codes [B, S, d] of [S, K, d] with index [B, S]."""
  return jax.vmap(lambda of_slot, k: of_slot[k], in_axes=(0, 1), out_axes=1)(codes, index)


def straight_through(x: jax.Array, quantised: jax.Array) -> jax.Array:
  """The quantised value with the gradient of x."""
  return x + jax.lax.stop_gradient(quantised - x)


def statistics(looked: Looked, weight: jax.Array, num_codes: int) -> tuple[jax.Array, jax.Array]:
  """(use [S, K], total [S, K, d]) of a chunk whose rows have weight [B]; sums over rows."""
  one_hot = jax.nn.one_hot(looked.index, num_codes) * weight[:, None, None]
  total = jnp.einsum("bsk,bsd->skd", one_hot, looked.inputs, precision=jax.lax.Precision.HIGHEST)
  return jnp.sum(one_hot, axis=0), total


def follow(book: Codebook, use: jax.Array, total: jax.Array, decay: float) -> Codebook:
  """The codebook after a batch: its averages move, and each code is the mean of what it stands for."""
  use = decay * book.use + (1 - decay) * use
  total = decay * book.total + (1 - decay) * total
  codes = jnp.where((use > TINY)[..., None], total / jnp.maximum(use, TINY)[..., None], book.codes)
  return Codebook(codes, use, total)


def revive(book: Codebook, fresh: jax.Array, least: float) -> Codebook:
  """Codes whose use is below `least` of the mean use move to inputs `fresh` [S, M, d]: the m-th such code to the m-th.

  A moved code starts with the mean use, so that it has time to find what it stands for.
  """
  S, M, _ = fresh.shape
  mean = jnp.mean(book.use, axis=1, keepdims=True)
  dead = book.use < least * mean
  place = jnp.cumsum(dead, axis=1) - 1
  moved = dead & (place < M)
  put = jnp.take_along_axis(fresh, jnp.clip(place, 0, M - 1)[..., None], axis=1)
  codes = jnp.where(moved[..., None], put, book.codes)
  use = jnp.where(moved, mean, book.use)
  return Codebook(codes, use, jnp.where(moved[..., None], codes * use[..., None], book.total))


def start(key: jax.Array, z: jax.Array, num_slots: int, num_codes: int, residual: bool) -> Codebook:
  """A codebook fitted to first inputs z ([B, S, d], or [B, d] with `residual`) by `ROUNDS` of k-means.

  It begins at inputs that are drawn without repetition where there are enough; codes that stand for none stay.
  """
  pick_rows = lambda key, x: jax.random.choice(key, x, (num_codes,), replace=len(x) < num_codes)

  def fit(key, x):
    codes = pick_rows(key, x)
    def once(_, codes):
      one_hot = jax.nn.one_hot(nearest(codes, x), num_codes)
      use = jnp.sum(one_hot, axis=0)
      mean = (one_hot.T @ x) / jnp.maximum(use, 1.0)[:, None]
      return jnp.where(use[:, None] > 0, mean, codes)
    codes = jax.lax.fori_loop(0, ROUNDS, once, codes)
    return codes, jnp.mean(jax.nn.one_hot(nearest(codes, x), num_codes), axis=0)

  parts, left = [], z
  for slot, slot_key in enumerate(jax.random.split(key, num_slots)):
    x = left if residual else z[:, slot]
    codes, share = fit(slot_key, x)
    left = left - codes[nearest(codes, x)] if residual else left
    parts.append((codes, share))
  codes, share = (jnp.stack(each) for each in zip(*parts))
  return Codebook(codes, share, codes * share[..., None])


def finite_scalar(z: jax.Array, levels: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
  """(index [B, L] int32 from 0, values [B, L] with straight-through gradients) of z [B, L], see `level_values`.

  tanh squashes z into -1..1, which is cut into equal parts. **Departs:** the source rounds, so that an even number of
  levels needs a shift, which grows without bound for two levels.
  """
  half = jnp.asarray(levels, jnp.float32)[None] / 2
  x = jnp.tanh(z)
  index = jnp.clip(jnp.floor((x + 1) * half), 0, 2 * half - 1).astype(jnp.int32)
  return index, straight_through(x, level_values(index, levels))


def level_values(index: jax.Array, levels: tuple[int, ...]) -> jax.Array:
  """Middles [B, L] of the parts of -1..1 with an index [B, L], of `levels[l]` equal ones."""
  return (2 * index.astype(jnp.float32) + 1) / jnp.asarray(levels, jnp.float32)[None] - 1


def perplexity(use: jax.Array) -> jax.Array:
  """Effective number of codes [...] of counts or shares [..., K]: the exponential of their entropy in nats."""
  share = use / jnp.maximum(jnp.sum(use, axis=-1, keepdims=True), 1e-30)
  return jnp.exp(-jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.maximum(share, 1e-30)), 0.0), axis=-1))
