"""Batch normalisation over the real rows of a padded batch.

**Source:** Ioffe & Szegedy 2015, algorithm 1 and section 3.1; constants and the unbiased running variance as in PyTorch's
`BatchNorm1d`, which the reproduced models used.
**Departs:** Linen's BatchNorm has no per-row weights in its running statistics and updates the running variance with the
biased one. Sums over rows are matrix products with the weights: on a CPU these run at the speed of a matrix product, a
reduction over rows does not.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
  """Normalises each feature over the rows of weight 1; `model_state` holds running `mean` and `var`.

  Attributes:
    momentum: share of the old running statistics kept at an update.
    eps: added to the variance.
  """
  momentum: float = 0.9
  eps: float = 1e-5

  @nn.compact
  def __call__(self, x: jax.Array, weight: jax.Array, train: bool) -> jax.Array:
    """Returns x normalised, [B, D]; `weight` [B] is 1 for a real row, 0 for padding."""
    D = x.shape[-1]
    scale = self.param("scale", nn.initializers.ones, (D,))
    bias = self.param("bias", nn.initializers.zeros, (D,))
    mean = self.variable("batch_stats", "mean", jnp.zeros, (D,))
    var = self.variable("batch_stats", "var", jnp.ones, (D,))
    if not train:
      return affine(x, mean.value, var.value, scale, bias, self.eps)
    batch_mean, batch_var, num_rows = moments(x, weight)
    if not self.is_initializing():
      unbiased = batch_var * (num_rows / jnp.maximum(num_rows - 1.0, 1.0))
      mean.value = self.momentum * mean.value + (1.0 - self.momentum) * batch_mean
      var.value = self.momentum * var.value + (1.0 - self.momentum) * unbiased
    return affine(x, batch_mean, batch_var, scale, bias, self.eps)


def moments(x: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Mean [D], biased variance [D] and number [] of the rows of weight 1, in float32; zeros where there are none."""
  x = x.astype(jnp.float32)
  num_rows = jnp.sum(weight)
  normed = (weight / jnp.maximum(num_rows, 1.0)).astype(jnp.float32)
  mean = normed @ x
  var = normed @ jnp.square(x - mean)
  return mean, var, num_rows


def affine(x, mean, var, scale, bias, eps):
  """(x - mean) / sqrt(var + eps) * scale + bias, in float32, returned in x's dtype."""
  y = (x.astype(jnp.float32) - mean[None]) * (jax.lax.rsqrt(var + eps) * scale)[None] + bias[None]
  return y.astype(x.dtype)
