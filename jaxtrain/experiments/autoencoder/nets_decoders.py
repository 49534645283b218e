"""Decoders of events: `decoder(z [B, T, L], event [B, L], mask [B, T], noise [B, T, L] or None) -> Decoded`.

  mlp        each slot by itself, given the event's vector
  gnn        messages between all slots that hold an object
  gan        a generator: a set transformer that has noise as an input beside the latent
  diffusion  a denoiser given the latent; as a decoder it starts from noise alone, at the highest level

At the highest level a denoiser's least-squares answer is the mean of events given the latent, so as a decoder it is
trained by the same loss as others are.

**Source:** preconditioning of a denoiser: Karras et al. 2022 (Elucidating the design space of diffusion-based
generative models), table 1.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.experiments.autoencoder import diffusion
from jaxtrain.experiments.autoencoder.nets_layers import Decoded, Manner, Rows, SlotHeads, Stack, only_real
from jaxtrain.experiments.autoencoder.nets_sets import MessagePassing, NoiseLevel, SetTransformer

EDM = diffusion.Process("edm", sigma_max=80.0)  # of a denoiser that is used as a decoder, at its highest level


class Decoder(nn.Module):
  """What all decoders have: an MLP of the event's vector, and what is decoded of a slot.

  Attributes:
    heads: what is decoded of a slot.
    num_globals: G.
    hidden_dims, globals_dims: widths of the network of slots, and of the MLP of the event's vector.
    manner: of the layers.
  """
  heads: SlotHeads
  num_globals: int
  hidden_dims: tuple[int, ...]
  globals_dims: tuple[int, ...]
  manner: Manner

  def finish(self, out: jax.Array, event: jax.Array) -> Decoded:
    """The event of out [B, T, heads.size] and the event's vector; called in a compact method."""
    return self.heads.split(out, Stack(self.globals_dims, self.num_globals, self.manner, name="globals")(event))


class MLPDecoder(Decoder):
  """An MLP of each slot's latent, and with `with_event` of the event's vector."""
  with_event: bool

  @nn.compact
  def __call__(self, z: jax.Array, event: jax.Array, mask: jax.Array, noise: jax.Array | None) -> Decoded:
    out = Stack(self.hidden_dims, self.heads.size, self.manner, name="stack")(z, event if self.with_event else None)
    return self.finish(out, event)


class GNNDecoder(Decoder):
  """Message passing between slots that hold an object.

  Attributes: as of `Decoder`, and num_blocks; the stream has the first of hidden_dims as its width.
  """
  num_blocks: int

  @nn.compact
  def __call__(self, z: jax.Array, event: jax.Array, mask: jax.Array, noise: jax.Array | None) -> Decoded:
    h = MessagePassing(self.hidden_dims, self.num_blocks, self.manner, name="graph")(z, None, mask, event)
    out = Rows(self.heads.size, name="heads")(h)
    return self.finish(out, event)


class Generator(Decoder):
  """A set transformer of the latent and of noise; no noise is noise of 0.

  Attributes: as of `GNNDecoder`, and num_heads of the attention.
  """
  num_blocks: int
  num_heads: int

  @nn.compact
  def __call__(self, z: jax.Array, event: jax.Array, mask: jax.Array, noise: jax.Array | None) -> Decoded:
    noise = jnp.zeros_like(z) if noise is None else only_real(noise, mask)
    net = SetTransformer(self.hidden_dims, self.num_blocks, self.num_heads, self.manner, name="transformer")
    out = Rows(self.heads.size, name="heads")(net(jnp.concatenate([z, noise], axis=-1), mask, event, None))
    return self.finish(out, event)


class Denoiser(Decoder):
  """A set transformer that denoises the features of slots, given the latent and the noise level; types, existence and
  globals come from the same network.

  `diffusion` says how features come from what the network says. Attributes: as of `Generator`.
  """
  num_blocks: int
  num_heads: int

  @nn.compact
  def raw(self, x: jax.Array, level: jax.Array, z: jax.Array, event: jax.Array, mask: jax.Array) -> Decoded:
    """The network F alone, of inputs x [B, T, C] of a noise level [B], a logarithm, given z, event and mask."""
    condition = NoiseLevel(self.hidden_dims[0], self.manner, name="noise_level")(level)
    net = SetTransformer(self.hidden_dims, self.num_blocks, self.num_heads, self.manner, name="transformer")
    h = net(jnp.concatenate([z, only_real(x, mask).astype(z.dtype)], axis=-1), mask, event, condition)
    return self.finish(Rows(self.heads.size, name="heads")(h), event)

  def __call__(self, z: jax.Array, event: jax.Array, mask: jax.Array, noise: jax.Array | None) -> Decoded:
    """What it makes of noise alone: the first C numbers of each slot's noise; none is noise of 0."""
    shape, level = (*z.shape[:2], self.heads.num_features), jnp.full(len(z), EDM.sigma_max)
    x = jnp.zeros(shape) if noise is None else only_real(EDM.sigma_max * noise[..., :shape[2]], mask)
    found = self.raw(*diffusion.network_inputs(EDM, x, level), z, event, mask)
    return found._replace(cont=diffusion.data_of(EDM, found.cont, x, level))
