"""Batch normalisation over the real rows of a padded batch.

**Source:** Ioffe & Szegedy 2015, algorithm 1 and section 3.1; constants and the unbiased running variance as in
PyTorch's `BatchNorm1d`, which the reproduced models used.
**Departs:** Linen's BatchNorm has no per-row weights in its running statistics and updates the running variance with
the biased one. The gradient is written out (two sums over rows where the automatic one has five), and sums over rows
are products with vectors: on a CPU these run at the speed of a matrix product, a reduction over rows does not.
"""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain import losses


class BatchNorm(nn.Module):
  """Normalises each feature over the rows of weight 1; the collection `batch_stats` holds running `mean` and `var`.

  Attributes:
    momentum: share of the old running statistics kept at an update.
    eps: added to the variance.
  """
  momentum: float = 0.9
  eps: float = 1e-5

  @nn.compact
  def __call__(self, x: jax.Array, weight: jax.Array, train: bool) -> jax.Array:
    """Returns x normalised, [B, D]; `weight` [B] is 1 for a real row, 0 for padding."""
    B, D = x.shape
    chex.assert_shape(weight, (B,))
    scale = self.param("scale", nn.initializers.ones, (D,))
    bias = self.param("bias", nn.initializers.zeros, (D,))
    mean = self.variable("batch_stats", "mean", jnp.zeros, (D,))
    var = self.variable("batch_stats", "var", jnp.ones, (D,))
    if not train:
      factor = jax.lax.rsqrt(var.value + self.eps) * scale
      return ((x.astype(jnp.float32) - mean.value[None]) * factor[None] + bias[None]).astype(x.dtype)
    num_rows = jnp.sum(weight)
    share = weight / jnp.maximum(num_rows, 1.0)
    y, batch_mean, batch_var = normalise(x.astype(jnp.float32), share, scale, bias, self.eps)
    if not self.is_initializing():
      unbiased = batch_var * (num_rows / jnp.maximum(num_rows - 1.0, 1.0))
      mean.value = self.momentum * mean.value + (1.0 - self.momentum) * batch_mean
      var.value = self.momentum * var.value + (1.0 - self.momentum) * unbiased
    return y.astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def normalise(x: jax.Array, share: jax.Array, scale: jax.Array, bias: jax.Array, eps: float):
  """Normalises rows by their weighted mean and variance.

  Args:
    x: [B, D] float32. share: [B], each row's share in the statistics, adding to 1; 0 marks padding. scale, bias: [D].

  Returns:
    y [B, D], and the mean and biased variance [D], which carry no gradient. A row of padding comes out as `bias` and
    carries no gradient: a unit without variance over the real rows would blow it up by 1 / sqrt(eps).
  """
  return normalise_forward(x, share, scale, bias, eps)[0]


def normalise_forward(x, share, scale, bias, eps):
  """`normalise` and what its gradient needs."""
  mean = losses.sum_rows(share, x)
  real = (share > 0).astype(x.dtype)
  centred = (x - mean[None]) * real[:, None]
  var = losses.sum_rows(share, jnp.square(centred))
  inverse = jax.lax.rsqrt(var + eps)
  return (centred * (inverse * scale)[None] + bias[None], mean, var), (centred, inverse, share, real, scale)


def normalise_backward(eps, saved, cotangents):
  """dx_i = scale inverse (dy_i - share_i (sum_j dy_j + xhat_i sum_j dy_j xhat_j)), xhat = centred inverse."""
  del eps
  centred, inverse, share, real, scale = saved
  dy = cotangents[0]
  dbias = losses.sum_rows(real, dy)
  dscale = losses.sum_rows(real, dy * centred) * inverse
  factor = scale * inverse
  dx = factor[None] * dy * real[:, None] - share[:, None] * ((factor * dbias)[None]
                                                             + (factor * inverse * dscale)[None] * centred)
  return dx, jnp.zeros_like(share), dscale, dbias


normalise.defvjp(normalise_forward, normalise_backward)
