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

from jaxtrain.experiments.autoencoder.nets_layers import Decoded, Manner, Rows, SlotHeads, Stack, only_real
from jaxtrain.experiments.autoencoder.nets_sets import MessagePassing, NoiseLevel, SetTransformer

MOST_SIGMA = 80.0  # deviation of the highest noise level
DATA_SIGMA = 1.0  # deviation of normalised features


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
  """An MLP of each slot's latent."""

  @nn.compact
  def __call__(self, z: jax.Array, event: jax.Array, mask: jax.Array, noise: jax.Array | None) -> Decoded:
    context = None if self.heads.legacy else event
    out = Stack(self.hidden_dims, self.heads.size, self.manner, name="stack")(z, context)
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
  """A set transformer that denoises the features of slots, given the latent and the noise level.

  D(x; sigma) = c_skip x + c_out F(c_in x, sigma, z); types, existence and globals come from the same network.
  Attributes: as of `Generator`.
  """
  num_blocks: int
  num_heads: int

  @nn.compact
  def denoise(self, x: jax.Array, log_sigma: jax.Array, z: jax.Array, event: jax.Array, mask: jax.Array) -> Decoded:
    """The event of features x [B, T, C] with noise of deviation exp(log_sigma) [B], given z, event and mask."""
    x, sigma = only_real(x, mask), jnp.exp(log_sigma)[:, None, None]
    length = jnp.sqrt(jnp.square(sigma) + DATA_SIGMA**2)
    condition = NoiseLevel(self.hidden_dims[0], self.manner, name="noise_level")(log_sigma)
    net = SetTransformer(self.hidden_dims, self.num_blocks, self.num_heads, self.manner, name="transformer")
    h = net(jnp.concatenate([z, (x / length).astype(z.dtype)], axis=-1), mask, event, condition)
    found = self.finish(Rows(self.heads.size, name="heads")(h), event)
    skip, out = jnp.square(DATA_SIGMA / length), sigma * DATA_SIGMA / length
    return found._replace(cont=skip * x + out * found.cont)

  def __call__(self, z: jax.Array, event: jax.Array, mask: jax.Array, noise: jax.Array | None) -> Decoded:
    """What it makes of noise alone: the first C numbers of each slot's noise; none is noise of 0."""
    shape = (*z.shape[:2], self.heads.num_features)
    x = jnp.zeros(shape) if noise is None else MOST_SIGMA * noise[..., :self.heads.num_features]
    return self.denoise(x, jnp.full(len(z), jnp.log(MOST_SIGMA)), z, event, mask)
