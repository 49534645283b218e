"""Network of the test experiment `mlp`: linear layers with an activation and dropout, and one output.

**Source:** initialisation and the exact GELU are those of PyTorch's `Linear` and `GELU`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.nn import activations
from jaxtrain.nn.linear import Linear

ACTIVATIONS = {"relu": nn.relu, "gelu": activations.gelu, "tanh": nn.tanh}


class MLP(nn.Module):
  """Hidden layers of so many units, then one output.

  Attributes:
    hidden_dims: widths of the hidden layers.
    activation: a name of `ACTIVATIONS`.
    precision: dtype name of the computation; the output is float32.
  """
  hidden_dims: tuple[int, ...]
  activation: str
  precision: str

  @nn.compact
  def __call__(self, x: jax.Array, keep: jax.Array | None = None) -> jax.Array:
    """Output [B] float32 of x [B, D].

    In training `keep` [B, sum of hidden_dims] is 0 where dropout falls on a hidden unit, else 1 / (1 - rate).
    """
    h, start = x.astype(self.precision), 0
    for width in self.hidden_dims:
      h = ACTIVATIONS[self.activation](Linear(width)(h))
      if keep is not None:
        h = h * keep[:, start:start + width].astype(h.dtype)
      start += width
    return Linear(1)(h)[:, 0].astype(jnp.float32)
