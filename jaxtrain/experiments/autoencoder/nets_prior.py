"""The network of a prior: how the latent of an event moves from noise to where latents of events are, given the types
of its objects.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.experiments.autoencoder.nets_layers import Manner, Rows
from jaxtrain.experiments.autoencoder.nets_sets import NoiseLevel
from jaxtrain.nn.attention import normalise


class PriorNet(nn.Module):
  """Residual layers over a latent, a noise level and how many objects of each type there are.

  Attributes:
    num_types: K, with the empty one.
    hidden_dim: width of the stream. num_blocks: layers.
    manner: of the layers.
  """
  num_types: int
  hidden_dim: int
  num_blocks: int
  manner: Manner

  @nn.compact
  def __call__(self, x: jax.Array, level: jax.Array, ids: jax.Array) -> jax.Array:
    """[B, F] of x [B, F] at the noise level [B], a logarithm, for objects of types ids [B, T]; 0 at the start."""
    counts = jnp.sum(jax.nn.one_hot(ids, self.num_types)[..., 1:], axis=1)
    given = jnp.concatenate([x, jnp.log1p(counts)], axis=-1).astype(self.manner.precision)
    level = NoiseLevel(self.hidden_dim, self.manner, name="noise_level")(level)
    h = Rows(self.hidden_dim, name="embedding")(given) + level
    for i in range(self.num_blocks):
      y = Rows(2 * self.hidden_dim, name=f"hidden_{i}")(normalise(h) + level)
      h = h + Rows(self.hidden_dim, name=f"output_{i}")(self.manner.act(y))
    return Rows(x.shape[-1], zeros=True, name="to_latent")(normalise(h)).astype(jnp.float32)
