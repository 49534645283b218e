"""Networks over the set of an event's slots: set transformers, and messages on the complete graph of objects.

**Source:** set transformer: Lee et al. 2019 (Set transformer), the self-attention block of section 3.1. AdaLN: Peebles
& Xie 2023 (Scalable diffusion models with transformers), section 3.2. Waves of a noise level: Karras et al. 2022
(Elucidating the design space of diffusion-based generative models), table 1, c_noise. Pairwise features: Qu et al. 2022
(Particle transformer for jet tagging), eq. 3.
**Departs:** norms come first in a block, so that the stream stays linear. Of a pair's features, the sizes of both
differences stand for their distance, and the share of momentum is left out.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.experiments.autoencoder.nets_layers import Manner, Rows, Stack, drop
from jaxtrain.nn.attention import attend, normalise

WAVES = tuple(2.0**k for k in range(-1, 5))  # radians a unit of c_noise
LOG_TYPICAL = math.log(50.0)  # GeV, of objects of an event
MOST_ETA = 10.0  # size of a pseudorapidity whose hyperbolic sine is taken


class SetBlock(nn.Module):
  """Residual block: self-attention over real slots, then a layer of `ff_dim` units, each after a norm.

  Attributes:
    num_heads: of the attention; divides the width of the stream.
    ff_dim: units of the layer.
    manner: of the layers.
  """
  num_heads: int
  ff_dim: int
  manner: Manner

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, condition: jax.Array | None) -> jax.Array:
    """x [B, T, D], mask [B, T]; with a condition [B, E] it shifts and scales what norms give, and gates each branch
    from zero on. Norms have no scale of their own: a linear layer follows each.
    """
    D = x.shape[-1]
    changes, gates = None, (1.0, 1.0)
    if condition is not None:
      out = Rows(6 * D, zeros=True, name="condition")(self.manner.act(condition))
      changes = jnp.split(out.astype(x.dtype)[:, None], 6, axis=-1)
      gates = changes[2], changes[5]
    norm = lambda y, k: normalise(y) if changes is None else normalise(y) * (1 + changes[k]) + changes[k + 1]
    y = attend(Rows(3 * D, name="query_key_value")(norm(x, 0)), mask, self.num_heads)
    x = x + gates[0] * drop(self, Rows(D, name="attended")(y), self.manner.dropout)
    y = self.manner.act(Rows(self.ff_dim, name="hidden")(norm(x, 3)))
    return x + gates[1] * drop(self, Rows(D, name="output")(y), self.manner.dropout)


class SetTransformer(nn.Module):
  """Blocks over a stream of width dims[0] with layers of dims[-1] units; x [B, T, F] to [B, T, dims[0]], normalised.

  Attributes:
    dims: see above. num_blocks, num_heads: of `SetBlock`.
    manner: of the layers.
  """
  dims: tuple[int, ...]
  num_blocks: int
  num_heads: int
  manner: Manner

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, event: jax.Array | None, condition: jax.Array | None) -> jax.Array:
    """`event` [B, E] is added to each slot by a map that starts at zero; `condition` as of `SetBlock`; each may be
    None.
    """
    h = Stack((), self.dims[0], self.manner, name="embedding")(x, event)
    for i in range(self.num_blocks):
      h = SetBlock(self.num_heads, self.dims[-1], self.manner, name=f"block_{i}")(h, mask, condition)
    return normalise(h)


class NoiseLevel(nn.Module):
  """A vector [B, dim] of a noise level, from log sigma [B], by waves of c = log(sigma) / 4."""
  dim: int
  manner: Manner

  @nn.compact
  def __call__(self, log_sigma: jax.Array) -> jax.Array:
    angle = log_sigma[:, None] / 4 * jnp.asarray(WAVES)[None]
    waves = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    return Stack((self.dim,), self.dim, self.manner, name="stack")(waves)


def pair_features(momenta: jax.Array) -> jax.Array:
  """[B, T, T, 4] of momenta [B, T, 4] (E, pT in GeV, eta, phi in radians): eta_i - eta_j and phi_i - phi_j, wrapped, in
  size, and logarithms of kT = min(pT_i, pT_j) dR and of the pair's mass, both in units of TYPICAL GeV.
  """
  e, pt, eta, phi = (momenta[..., k] for k in range(4))
  pairs = lambda x: (x[:, :, None], x[:, None, :])
  apart = lambda x: pairs(x)[0] - pairs(x)[1]
  d_phi = jnp.abs((apart(phi) + jnp.pi) % (2 * jnp.pi) - jnp.pi)
  d_eta = jnp.abs(apart(eta))
  kt_squared = jnp.square(jnp.minimum(*pairs(pt))) * (jnp.square(d_eta) + jnp.square(d_phi))
  vector = (e, pt * jnp.cos(phi), pt * jnp.sin(phi), pt * jnp.sinh(jnp.clip(eta, -MOST_ETA, MOST_ETA)))
  total = [sum(pairs(part)) for part in vector]
  mass_squared = jnp.square(total[0]) - sum(jnp.square(part) for part in total[1:])
  log_of_root = lambda x: 0.5 * jnp.log(jnp.maximum(x, 1.0)) - LOG_TYPICAL
  return jnp.stack([d_eta, d_phi, log_of_root(kt_squared), log_of_root(mass_squared)], axis=-1)


class MessageBlock(nn.Module):
  """Residual block: the mean of messages from all other real slots, then a layer of `ff_dim` units, after norms.

  A message from j to i is an activation of linear maps of both slots and of the pair's features.
  """
  ff_dim: int
  manner: Manner

  @nn.compact
  def __call__(self, x: jax.Array, edges: jax.Array | None, mask: jax.Array) -> jax.Array:
    """x [B, T, D], edges [B, T, T, E] or None, mask [B, T]; returns x after the block."""
    D, T = x.shape[-1], x.shape[1]
    y = normalise(x)
    both = Rows(D, name="receiver")(y)[:, :, None] + Rows(D, name="sender")(y)[:, None]
    if edges is not None:
      both = both + Rows(D, name="edge")(edges.astype(x.dtype))
    others = (mask[:, None, :] * (1 - jnp.eye(T))[None]).astype(x.dtype)
    received = jnp.einsum("bij,bijd->bid", others, self.manner.act(both))
    received = received / jnp.maximum(jnp.sum(others, axis=-1, keepdims=True), 1)
    x = x + drop(self, Rows(D, name="received")(received), self.manner.dropout)
    y = self.manner.act(Rows(self.ff_dim, name="hidden")(normalise(x)))
    return x + drop(self, Rows(D, name="output")(y), self.manner.dropout)


class MessagePassing(nn.Module):
  """`MessageBlock`s over a stream of width dims[0] with layers of dims[-1] units; x [B, T, F] to [B, T, dims[0]]."""
  dims: tuple[int, ...]
  num_blocks: int
  manner: Manner

  @nn.compact
  def __call__(self, x: jax.Array, edges: jax.Array | None, mask: jax.Array, event: jax.Array | None) -> jax.Array:
    """Arguments as of `MessageBlock`; `event` as of `SetTransformer`."""
    h = Stack((), self.dims[0], self.manner, name="embedding")(x, event)
    for i in range(self.num_blocks):
      h = MessageBlock(self.dims[-1], self.manner, name=f"block_{i}")(h, edges, mask)
    return normalise(h)
