"""Encoders of events: `encoder(slots) -> z [B, T, L]`, each equivariant to the order of slots.

  mlp        each slot by itself: an MLP of its features and its type
  gnn        messages between all objects, with features of each pair
  gan        a set transformer: the encoder of an adversarial autoencoder
  diffusion  a set transformer that is told the noise level of its input

What they give of empty slots means nothing.

**Source:** adversarial autoencoders: Makhzani et al. 2015 (Adversarial autoencoders).
"""

from typing import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.experiments.autoencoder.nets_layers import Inputs, Manner, Rows, Slots, Stack
from jaxtrain.experiments.autoencoder.nets_sets import MessagePassing, NoiseLevel, SetTransformer, pair_features

LEAST_LOG_SIGMA = -6.2  # of events without noise: a deviation of 0.002, the least that is sampled


class Encoder(nn.Module):
  """What all encoders have: features and types of slots as numbers.

  Attributes:
    num_types, embed_dim: of the types' embedding.
    hidden_dims, latent_dim: widths of the network, and of its output.
    manner: of the layers.
  """
  num_types: int
  embed_dim: int
  hidden_dims: tuple[int, ...]
  latent_dim: int
  manner: Manner

  def read(self, slots: Slots) -> jax.Array:
    """[B, T, C + embed_dim]: what the network sees; called in a compact method."""
    return Inputs(self.num_types, self.embed_dim, self.manner.precision, name="inputs")(slots)


class MLPEncoder(Encoder):
  """An MLP of each slot's features and type."""

  @nn.compact
  def __call__(self, slots: Slots) -> jax.Array:
    x = self.read(slots)
    return Stack(self.hidden_dims, self.latent_dim, self.manner, name="stack")(x)


class GNNEncoder(Encoder):
  """Message passing on the complete graph of objects, with features of each pair.

  Attributes:
    physical: normalised features [B, T, C] to momenta [B, T, 4] in GeV and radians.
    num_blocks: blocks of messages.
    Others as of `Encoder`; the stream has the first of hidden_dims as its width.
  """
  num_blocks: int
  physical: Callable

  @nn.compact
  def __call__(self, slots: Slots) -> jax.Array:
    x = self.read(slots)
    edges = pair_features(self.physical(slots.cont))
    h = MessagePassing(self.hidden_dims, self.num_blocks, self.manner, name="graph")(x, edges, slots.mask, None)
    return Rows(self.latent_dim, name="to_latent")(h)


class SetEncoder(Encoder):
  """A set transformer; `with_noise_level` one that is told the deviation of the noise in its features.

  Attributes: as of `Encoder`, and num_blocks, num_heads; the stream has the first of hidden_dims as its width.
  """
  num_blocks: int
  num_heads: int
  with_noise_level: bool

  @nn.compact
  def __call__(self, slots: Slots, log_sigma: jax.Array | None = None) -> jax.Array:
    """log_sigma [B]: logarithm of the noise's deviation; None of events without noise."""
    x = self.read(slots)
    condition = None
    if self.with_noise_level:
      level = jnp.full(len(x), LEAST_LOG_SIGMA) if log_sigma is None else log_sigma
      condition = NoiseLevel(self.hidden_dims[0], self.manner, name="noise_level")(level)
    net = SetTransformer(self.hidden_dims, self.num_blocks, self.num_heads, self.manner, name="transformer")
    return Rows(self.latent_dim, name="to_latent")(net(x, slots.mask, None, condition))
