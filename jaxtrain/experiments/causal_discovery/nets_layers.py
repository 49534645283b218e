"""Layers of the networks: parameters of affine layers, with a LayerNorm before them folded in; dropout."""

from typing import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain import rng


class Linear(nn.Module):
  """Parameters of an affine layer: returns kernel [dim, features], and bias [features] (zero at start) or None."""
  features: int
  use_bias: bool
  kernel_init: Callable

  @nn.compact
  def __call__(self, dim: int) -> tuple[jax.Array, jax.Array | None]:
    kernel = self.param("kernel", self.kernel_init, (dim, self.features))
    return kernel, self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None


class NormLinear(nn.Module):
  """Parameters of LayerNorm and the affine layer after it, as one affine layer on the normalised input."""
  features: int
  use_bias: bool
  kernel_init: Callable

  @nn.compact
  def __call__(self, dim: int) -> tuple[jax.Array, jax.Array | None]:
    """Returns kernel [dim, features] and bias [features] or None, float32."""
    scale = self.param("scale", nn.initializers.ones, (dim,))
    kernel, bias = Linear(self.features, self.use_bias, self.kernel_init, name="linear")(dim)
    if not self.use_bias:
      return scale[:, None] * kernel, None
    return scale[:, None] * kernel, self.param("offset", nn.initializers.zeros, (dim,)) @ kernel + bias


class Dropout(nn.Module):
  """Zeroes entries at `rate` and scales the others by 1 / (1 - rate); draws from the stream "dropout"."""
  rate: float

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    if not train or self.rate == 0.0:
      return x
    keep = rng.bernoulli(self.make_rng("dropout"), 1.0 - self.rate, x.shape)
    return jnp.where(keep, x * (1.0 / (1.0 - self.rate)), jnp.zeros_like(x))
