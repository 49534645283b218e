"""Codebooks that follow moving averages, and scalar quantisers with a fixed number of levels.

A codebook has S slots of K codes of d numbers. The slots of a product code quantise parts of a vector, those of a
residual code each what the ones before have left. Codes are no parameters: they follow moving averages of what they
stand for, whose sums go through `over`, so that chunks and devices see one batch; codes that are hardly used move to
inputs of the batch.

**Source:** straight-through codes: van den Oord et al. 2017 (Neural discrete representation learning), section 3.2 and
appendix A.1 (moving averages); residual codes: Zeghidour et al. 2021 (SoundStream), section III-C, also for moving dead
codes; finite scalar quantisation: Mentzer et al. 2023 (FSQ: VQ-VAE made simple), section 3.1.
"""

import math
from typing import NamedTuple

import chex
import flax.struct
import jax
import jax.numpy as jnp

ROUNDS = 5
BLOCKS = 16  # that codes are compared in
SHORT = 1e-6  # length of a vector that has no direction
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
  """Index [B] of the code of [K, d] that is nearest to each x [B, d], the first of equally near ones.

  First the block of codes, then the code in it: XLA's argmax on a CPU takes ten times as long as a maximum (one core,
  2,432 x 512: 6.7 ms, in blocks 2.0, the product included).
  """
  score = x @ codes.T - 0.5 * jnp.sum(jnp.square(codes), axis=-1)[None]
  num_blocks = math.gcd(len(codes), BLOCKS)
  blocks = score.reshape(len(x), num_blocks, -1)
  block = jnp.argmax(jnp.max(blocks, axis=-1), axis=-1)
  within = jnp.argmax(jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0], axis=-1)
  return (block * blocks.shape[-1] + within).astype(jnp.int32)


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


@jax.custom_vjp
def rotate(x: jax.Array, quantised: jax.Array) -> jax.Array:
  """The quantised value [B, d] with the gradient of the rotation and scaling that takes each x [B, d] to it.

  With e = x / |x|, q = quantised / |quantised| and r = (e + q) / |e + q|, the value is (|quantised| / |x|) R x with
  R = I - 2 r r' + 2 q e', and R and the factor count as constants: the angle between a gradient and the code is that
  between what comes back and x. Rows where x or the code is 0 have the gradient of `straight_through`.

  **Source:** Fifty et al. 2024 (Restructuring vector quantization with the rotation trick), eq. 4 and section 4.3.
  """
  return quantised + jnp.zeros_like(x)


def rotate_forward(x, quantised):
  """`rotate` and what its gradient needs."""
  return rotate(x, quantised), (x, quantised)


def rotate_backward(saved, dy):
  """dx = (|quantised| / |x|) R' dy, R' dy = dy - 2 r (r'dy) + 2 e (q'dy)."""
  x, quantised = saved
  length = lambda y: jnp.sqrt(jnp.sum(jnp.square(y), axis=-1, keepdims=True))
  along = lambda a, b: jnp.sum(a * b, axis=-1, keepdims=True)
  unit = lambda y: y / jnp.maximum(length(y), SHORT)
  e, q = unit(x), unit(quantised)
  r = unit(e + q)
  turned = dy - 2 * along(r, dy) * r + 2 * along(q, dy) * e
  defined = (length(x) > SHORT) & (length(quantised) > SHORT)
  dx = jnp.where(defined, turned * length(quantised) / jnp.maximum(length(x), SHORT), dy)
  return dx, jnp.zeros_like(quantised)


rotate.defvjp(rotate_forward, rotate_backward)


def statistics(looked: Looked, weight: jax.Array, num_codes: int) -> tuple[jax.Array, jax.Array]:
  """(use [S, K], total [S, K, d]) of a chunk whose rows have weight [B]; sums over rows.

  On a CPU row after row, on others as a product with one-hot codes, whose order of additions is always the same (one
  core, 2,432 rows of 32 to 512 codes: 0.05 ms against 4).
  """
  if jax.default_backend() == "cpu":
    weighted = looked.inputs * weight[:, None, None]
    add = jax.vmap(lambda x, index: jax.ops.segment_sum(x, index, num_codes), in_axes=1)
    return count(looked.index, weight, num_codes), add(weighted, looked.index)
  one_hot = jax.nn.one_hot(looked.index, num_codes) * weight[:, None, None]
  total = jnp.einsum("bsk,bsd->skd", one_hot, looked.inputs, precision=jax.lax.Precision.HIGHEST)
  return jnp.sum(one_hot, axis=0), total


def count(index: jax.Array, weight: jax.Array, num_codes: int) -> jax.Array:
  """[S, K]: sum of the weights [B] of rows whose index [B, S] is each code; other indices count nowhere."""
  if jax.default_backend() == "cpu":
    return jax.vmap(lambda of_slot: jax.ops.segment_sum(weight, of_slot, num_codes), in_axes=1)(index)
  return jnp.sum(jax.nn.one_hot(index, num_codes) * weight[:, None, None], axis=0)


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


def start(key: jax.Array, z: jax.Array, num_slots: int, num_codes: int, residual: bool, weight: jax.Array | None = None
          ) -> Codebook:
  """A codebook fitted to first inputs z ([B, S, d], or [B, d] with `residual`) by `ROUNDS` of k-means.

  It begins at inputs that are drawn without repetition where there are enough; codes that stand for none stay. Rows of
  `weight` [B] 0 have no part in it.
  """
  counted = 1.0 if weight is None else weight[:, None]
  one_hot_of = lambda codes, x: jax.nn.one_hot(nearest(codes, x), num_codes) * counted
  num_rows = len(z) if weight is None else jnp.maximum(jnp.sum(weight), 1.0)

  def fit(key, x):
    codes = draw_rows(key, x, num_codes, weight)
    def once(_, codes):
      one_hot = one_hot_of(codes, x)
      use = jnp.sum(one_hot, axis=0)
      mean = (one_hot.T @ x) / jnp.maximum(use, 1.0)[:, None]
      return jnp.where(use[:, None] > 0, mean, codes)
    codes = jax.lax.fori_loop(0, ROUNDS, once, codes)
    return codes, jnp.sum(one_hot_of(codes, x), axis=0) / num_rows

  parts, left = [], z
  for slot, slot_key in enumerate(jax.random.split(key, num_slots)):
    x = left if residual else z[:, slot]
    codes, share = fit(slot_key, x)
    left = left - codes[nearest(codes, x)] if residual else left
    parts.append((codes, share))
  codes, use = (jnp.stack(each) for each in zip(*parts))
  return Codebook(codes, use, codes * use[..., None])


def draw_rows(key: jax.Array, x: jax.Array, num: int, weight: jax.Array | None) -> jax.Array:
  """`num` rows of x [B, d], of weight [B] above 0; each is drawn again only after all others."""
  if weight is None:
    return jax.random.choice(key, x, (num,), replace=len(x) < num)
  order = jnp.argsort(jnp.where(weight > 0, jax.random.uniform(key, weight.shape), 2.0))
  return x[order[jnp.arange(num) % jnp.maximum(jnp.sum(weight > 0), 1)]]


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
