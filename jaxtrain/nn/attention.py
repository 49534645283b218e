"""Initial kernels, products, LayerNorm and attention: pure functions.

**Source:** LayerNorm: Ba et al. 2016. Attention whose scores are computed again for the gradient from a stored
log-sum-exp: Dao et al. 2022 (FlashAttention), algorithm 4.
**Departs:** gradients of norm and attention are written out; on a CPU attention runs over few sequences at a time.
"""

import functools
import math

import chex
import jax
import jax.numpy as jnp

from jaxtrain.nn import linear

NORM_EPS = 1e-5  # of Haiku's and of PyTorch's LayerNorm
MASKED = -1e9  # score of a padded key: finite, so that a sequence of padding alone has no NaN
CACHED_SCORES = 2 ** 19  # attention scores at a time on a CPU: 2 MB


def kaiming_uniform(key: jax.Array, shape: tuple[int, int], dtype=jnp.float32) -> jax.Array:
  """Uniform in +-sqrt(6 / fan_in): variance 2 / fan_in, for a ReLU before it."""
  bound = math.sqrt(6.0 / shape[0])
  return jax.random.uniform(key, shape, dtype, -bound, bound)


def torch_linear(key: jax.Array, shape: tuple[int, int], dtype=jnp.float32) -> jax.Array:
  """Uniform in +-1 / sqrt(fan_in), PyTorch's default of a linear layer."""
  return linear.fan_in_uniform(shape[0])(key, shape, dtype)


def torch_attention(key: jax.Array, shape: tuple[int, int], dtype=jnp.float32) -> jax.Array:
  """PyTorch's start of an attention's input projection: Xavier-uniform for dim in, 3 dim out, whichever are used."""
  return linear.fan_in_uniform(4 * shape[0] / 6)(key, shape, dtype)


@jax.custom_vjp
def normalise(x: jax.Array) -> jax.Array:
  """x [..., dim] less its mean over its standard deviation along the last axis; statistics in float32.

  The gradient is written out: two sums over the last axis, and the result is all that is kept.
  """
  return normalise_forward(x)[0]


def normalise_forward(x):
  """`normalise` and what its gradient needs."""
  y = x.astype(jnp.float32)
  centred = y - jnp.mean(y, axis=-1, keepdims=True)
  inverse = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + NORM_EPS)
  out = (centred * inverse).astype(x.dtype)
  return out, (out, inverse)


def normalise_backward(saved, dout):
  """dx = inverse (dout - mean(dout) - out mean(dout out))."""
  out, dy = saved[0].astype(jnp.float32), dout.astype(jnp.float32)
  along = jnp.mean(dy * out, axis=-1, keepdims=True)
  return ((dy - jnp.mean(dy, axis=-1, keepdims=True) - out * along) * saved[1]).astype(dout.dtype),


normalise.defvjp(normalise_forward, normalise_backward)


def largest(x: jax.Array, axis: int) -> jax.Array:
  """Maximum along an axis, with the gradient to the first of equal entries.

  `jnp.max` finds the entry again by comparison in its gradient; where a compiler rounds the entry otherwise there, none
  is equal and the gradient NaN. That was seen on a CPU.
  """
  return jnp.take_along_axis(x, jnp.argmax(x, axis=axis, keepdims=True), axis=axis).squeeze(axis)


def affine(x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
  """x [..., dim] times kernel [dim, F], plus bias [F], in the dtype of x."""
  D, F = kernel.shape
  kernel, bias = (kernel if D <= F else kernel.T).astype(x.dtype), jnp.zeros(F) if bias is None else bias
  return linear.affine(x.reshape(-1, D), kernel, bias.astype(x.dtype)).reshape(*x.shape[:-1], F)


def heads_of(x: jax.Array, num_heads: int) -> jax.Array:
  """[..., T, H K] to [..., T, H, K]."""
  return x.reshape(*x.shape[:-1], num_heads, -1)


def attend(qkv: jax.Array, key_mask: jax.Array | None, num_heads: int) -> jax.Array:
  """Softmax self-attention of M independent sequences, scores and softmax in float32.

  Args:
    qkv: [M, T, 3 H K], queries, keys, values beside each other.
    key_mask: [M, T], 0 where a key is padding; None where none is.

  Returns:
    [M, T, H K].
  """
  chex.assert_rank(qkv, 3)
  chex.assert_is_divisible(qkv.shape[-1], 3 * num_heads)
  if key_mask is not None:
    chex.assert_shape(key_mask, qkv.shape[:2])
  if jax.default_backend() == "cpu":
    return attend_in_cache(qkv, jnp.ones(qkv.shape[:2]) if key_mask is None else key_mask, num_heads)
  q, k, v = (heads_of(x, num_heads) for x in jnp.split(qkv, 3, axis=-1))
  mask = None if key_mask is None else key_mask[:, None, None, :] > 0
  return jax.nn.dot_product_attention(q, k, v, mask=mask).reshape(*qkv.shape[:2], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def attend_in_cache(qkv: jax.Array, key_mask: jax.Array, num_heads: int) -> jax.Array:
  """`attend` for a CPU: a few sequences at a time, whose scores stay in the cache and are computed again for the
  gradient.

  20 sequences of 256 with 8 heads take 54 ms with the gradient on one core, `dot_product_attention` 186 and, for its
  scores, five times the memory; short sequences take the same time.
  """
  return attend_forward(qkv, key_mask, num_heads)[0]


def few_at_a_time(function, num_heads: int, *arrays: jax.Array):
  """Maps `function` over the first axis of arrays, the first of which is [M, T, ...]."""
  M, T = arrays[0].shape[:2]
  num_turns = -(-M * num_heads * T * T // CACHED_SCORES)
  return jax.lax.map(lambda x: function(*x), arrays, batch_size=-(-M // min(M, num_turns)))


def attend_forward(qkv, key_mask, num_heads):
  """`attend_in_cache` and what its gradient needs."""
  def one(qkv, key_mask):
    """qkv [T, 3 H K], key_mask [T]; returns [T, H K] and the log-sum-exp of scores [H, T]."""
    q, k, v = (jnp.swapaxes(heads_of(x, num_heads), 0, 1) for x in jnp.split(qkv, 3, axis=-1))
    scores = jnp.einsum("htk,hsk->hts", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    scores = jnp.where(key_mask[None, None, :] > 0, scores, MASKED)
    # The result does not depend on what is subtracted, so neither does a second derivative.
    largest_score = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - largest_score)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    y = jnp.einsum("hts,hsk->htk", weights.astype(v.dtype), v, preferred_element_type=jnp.float32) / total
    return jnp.swapaxes(y, 0, 1).reshape(len(qkv), -1).astype(v.dtype), (largest_score + jnp.log(total))[..., 0]
  y, log_total = few_at_a_time(one, num_heads, qkv, key_mask)
  return y, (qkv, key_mask, y, log_total)


def attend_backward(num_heads, saved, dy):
  """With weights W, their gradient dW = dy v' and dS = W (dW - sum_k dy y): dq = dS k, dk = dS' q, dv = W' dy.

  W' and dS' are computed, not W and dS: products with the transposed of a small matrix are slow, and so only one is.
  """
  def one(qkv, key_mask, y, log_total, dy):
    parts = *jnp.split(qkv, 3, axis=-1), dy
    q, k, v, dy_heads = (jnp.swapaxes(heads_of(x, num_heads), 0, 1) for x in parts)
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    scale = q.shape[-1] ** -0.5
    scores = product("hsk,htk->hst", k, q) * scale - log_total[:, None, :]
    weights = jnp.exp(jnp.where(key_mask[None, :, None] > 0, scores, MASKED))
    along = jnp.sum(heads_of(dy.astype(jnp.float32) * y, num_heads), axis=-1).T
    dscores = (weights * (product("hsk,htk->hst", v, dy_heads) - along[:, None, :]) * scale).astype(q.dtype)
    dv = product("hst,htk->hsk", weights.astype(q.dtype), dy_heads)
    dk, dq = product("hst,htk->hsk", dscores, q), product("hst,hsk->htk", dscores, k)
    return jnp.concatenate([jnp.swapaxes(x, 0, 1).reshape(len(y), -1) for x in (dq, dk, dv)], axis=-1).astype(q.dtype)
  return few_at_a_time(one, num_heads, *saved, dy), jnp.zeros_like(saved[1])


attend_in_cache.defvjp(attend_forward, attend_backward)


def attend_one(query: jax.Array, z: jax.Array, kernel: jax.Array, bias: jax.Array, num_heads: int) -> jax.Array:
  """Attention of one query of each variable over its samples: query [B, D, dim], z [B, n, D, dim] to [B, D, dim].

  kernel [dim, 3 dim] and bias [3 dim] make queries, keys and values. With one query, projecting it and the weighted
  mean costs less than projecting n keys and n values; the keys' bias has no part in the result.
  """
  dim, heads = z.shape[-1], (num_heads, z.shape[-1] // num_heads)
  (Wq, Wk, Wv), (bq, _, bv) = (jnp.split(x.astype(z.dtype), 3, axis=-1) for x in (kernel, bias))
  q = affine(query, Wq, bq).reshape(*query.shape[:2], *heads)
  q = jnp.einsum("bdhk,chk->bdhc", q, Wk.reshape(dim, *heads))
  scores = jnp.einsum("bdhc,bndc->bdhn", q, z).astype(jnp.float32) / math.sqrt(heads[1])
  mean = jnp.einsum("bdhn,bndc->bdhc", jax.nn.softmax(scores).astype(z.dtype), z)
  return jnp.einsum("bdhc,chk->bdhk", mean, Wv.reshape(dim, *heads)).reshape(*query.shape) + bv[None, None]
