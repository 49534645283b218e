"""An autoencoder of images: convolutions to a grid of slots, a quarter of the image's size in each direction, and back.

A 28 x 28 image has 7 x 7 = 49 slots of L numbers, each of which a latent codes as it does the slots of an event.

**Source:** images from finer grids by rearranged channels: Shi et al. 2016 (Real-time single image and video
super-resolution using an efficient sub-pixel convolutional neural network), section 3.2.
"""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.experiments.autoencoder.nets_layers import LatentMaps, Manner, Rows, drop

SHRINK = 4  # pixels of a slot in each direction


def neighbours(x: jax.Array, stride: int) -> jax.Array:
  """[B, H, W, F] to [B, H / stride, W / stride, 9 F]: the 3 x 3 places around each, or each second one; zeros beyond
  the edge.

  A 3 x 3 convolution is a product with these, which is many times faster on a CPU than XLA's gradients of one.
  """
  _, H, W, _ = x.shape
  wide = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  shifted = [wide[:, i:i + H:stride, j:j + W:stride] for i in range(3) for j in range(3)]
  return jnp.concatenate(shifted, axis=-1)


class Convolutions(nn.Module):
  """3 x 3 convolutions with an activation after each; the first ones have the strides given, the others 1.

  Attributes:
    widths: channels after each. strides: of the first ones. manner: of the layers.
  """
  widths: tuple[int, ...]
  strides: tuple[int, ...]
  manner: Manner

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    strides = (*self.strides, *(1,) * len(self.widths))
    for i, (width, stride) in enumerate(zip(self.widths, strides)):
      x = Rows(width, name=f"conv_{i}")(neighbours(x, stride))
      x = drop(self, self.manner.act(x), self.manner.dropout)
    return x


class ConvEncoder(nn.Module):
  """Images [B, H, W, 1] to z [B, H W / 16, L]; hidden_dims has at least two widths."""
  hidden_dims: tuple[int, ...]
  latent_dim: int
  manner: Manner

  @nn.compact
  def __call__(self, image: jax.Array) -> jax.Array:
    h = Convolutions(self.hidden_dims, (2, 2), self.manner, name="convolutions")(image.astype(self.manner.precision))
    return Rows(self.latent_dim, name="to_latent")(h.reshape(len(h), -1, h.shape[-1]))


def finer(x: jax.Array) -> jax.Array:
  """[B, H, W, 4 F] to [B, 2 H, 2 W, F]: the four channels of each place become four places."""
  B, H, W, F = x.shape
  return x.reshape(B, H, W, 2, 2, F // 4).transpose(0, 1, 3, 2, 4, 5).reshape(B, 2 * H, 2 * W, F // 4)


class ConvDecoder(nn.Module):
  """z [B, H W / 16, L] to logits of pixels [B, H, W, 1]; shape is (H, W, 1)."""
  hidden_dims: tuple[int, ...]
  shape: tuple[int, ...]
  manner: Manner

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    H, W = (side // SHRINK for side in self.shape[:2])
    h = self.manner.act(Rows(self.hidden_dims[0], name="from_latent")(z.astype(self.manner.precision)))
    h = Convolutions(self.hidden_dims[:-1], (), self.manner, name="coarse")(h.reshape(len(z), H, W, -1))
    h = finer(Rows(4 * self.hidden_dims[-1], name="to_fine")(h))
    h = Convolutions(self.hidden_dims[-1:], (), self.manner, name="fine")(self.manner.act(h))
    return finer(Rows(4 * self.shape[2], name="pixels")(h)).astype(jnp.float32)


class ImageAssembly(nn.Module):
  """Encoder, latent and decoder of images; methods as of `nets.Assembly`, with images in place of slots and events.

  Attributes:
    encoder: `(image [B, H, W, 1]) -> z [B, S, L]`. decoder: `(z) -> logits [B, H, W, 1]`.
    maps: of the kind of latent.
  """
  encoder: nn.Module
  decoder: nn.Module
  maps: LatentMaps

  def encode(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(z [B, S, F] float32, mask [B, S] of ones) of images [B, H, W, 1] in 0..1."""
    chex.assert_rank(image, 4)
    z = self.maps.enter(self.encoder(image)).astype(jnp.float32)
    return z, jnp.ones(z.shape[:2])

  def decode(self, z: jax.Array, mask: jax.Array, noise: jax.Array | None) -> jax.Array:
    """Logits [B, H, W, 1] of z [B, S, F]; all slots are real, and nothing is drawn."""
    return self.decoder(self.maps.leave(z))

  def __call__(self, image: jax.Array) -> jax.Array:
    """An image after encoder and decoder without quantisation; touches all parameters."""
    z, mask = self.encode(image)
    return self.decode(self.maps.middle(z), mask, None)
