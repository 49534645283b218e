"""The networks of conditioned priors, see `prior`: parts of the network of a codec.

With u = y / s, which is in ranges of columns whatever the level is, and a network f of ReLU layers, whose last layer
starts at zero:

  hyperprior   z = g(u), coded as round(z) by densities of its own     mean = s f_m(z)
               octaves of the scale = base + f_o(z) + log2(s)
  previous     v = u of the state before, as it was coded, or 0 where the state is new (n = 1)
               mean = s (v + f_m(v) + n c)    octaves = base + f_o(v) + n w + log2(s)

so that the mean of `previous` starts as the number before. Whether a state starts anew, as a block's first does, is
what costs fewer bits: where the state before says nothing, as at the first state of another agent, one bit is all that
is lost.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.experiments.semantic_compression import logistic, prior
from jaxtrain.experiments.semantic_compression.layout import Layout
from jaxtrain.experiments.semantic_compression.nets import UNIT, Density
from jaxtrain.nn.linear import Linear

SIDE_RANGE = 8.0  # of the side numbers, over which their densities start
FIRST_SHARE = {"hyperprior": 0.25, "previous": 1 / 16}  # of the range: the scale at the start
NEW_LOGIT = -3.0  # log-odds at the start that a state starts anew


class Network(nn.Module):
  """[Linear, ReLU] for each width, then a linear layer to `features`; [B, I] to [B, features], float32."""
  widths: tuple[int, ...]
  features: int
  zeros: bool

  def setup(self):
    self.layers = [*(Linear(width) for width in self.widths), Linear(self.features, zeros=self.zeros)]

  def __call__(self, x: jax.Array) -> jax.Array:
    for layer in self.layers[:-1]:
      x = nn.relu(layer(x))
    return self.layers[-1](x)


def start_octaves(layout: Layout, kind: str) -> np.ndarray:
  """[L]: log2 of the first scale, in u."""
  return np.log2(FIRST_SHARE[kind] * (layout.high - layout.low))


def parameters(out: jax.Array, mean: jax.Array, octaves: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(mean in steps, index of the scale), [B, L] each, of a network's output [B, 2 L] and what is added to it, in u."""
  found_mean, found_octaves = jnp.split(out, 2, axis=1)
  index = logistic.UNIT_SCALE + logistic.PER_DOUBLING * (octaves + found_octaves + jnp.log2(s)[None])
  return s[None] * (mean + found_mean), prior.bounded(index)


class Hyperprior(nn.Module):
  """Side numbers of a latent, their densities, and the logistics that they give.

  Attributes:
    layout: slots of the latent.
    widths: of the hidden layers of both networks.
    num_side: side numbers, H.
    num_components: logistics of a side number's density.
  """
  layout: Layout
  widths: tuple[int, ...]
  num_side: int
  num_components: int

  def setup(self):
    H, M = self.num_side, self.num_components
    constant = lambda value: lambda key: jnp.asarray(value, jnp.float32)
    self.encoder = Network(self.widths, H, zeros=False)
    self.network = Network(self.widths, 2 * self.layout.size, zeros=True)
    self.base = self.param("base", constant(start_octaves(self.layout, "hyperprior")))
    cell = SIDE_RANGE / M
    self.share = self.param("share", constant(np.zeros((H, M))))
    self.centre = self.param("centre", constant(np.tile(-SIDE_RANGE / 2 + cell * (np.arange(M) + 0.5), (H, 1))))
    self.log_scale = self.param("log_scale", constant(np.full((H, M), np.log(cell / 2))))

  def density(self) -> Density:
    """The densities of the side numbers."""
    H = self.num_side
    return Density(jax.nn.log_softmax(self.share), self.centre, self.log_scale, jnp.zeros(H),
                   jnp.full(H, 4 * SIDE_RANGE))

  def logistics(self, z: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(mean, index of the scale), [B, L] each, for side numbers [B, H]."""
    return parameters(self.network(z), jnp.zeros(self.layout.size)[None], self.base[None], s)

  def rate(self, y: jax.Array, point: jax.Array, s: jax.Array, noise: jax.Array | None, before: None
           ) -> tuple[jax.Array, jax.Array]:
    """(side numbers [B, H], bits [B, H + L]).

    Args:
      y: [B, L] of the analysis. point: [B, L], y as it is coded, or with noise in place of that.
      s: [L] steps.
      noise: [B, H] of the side numbers; None for rounding.
      before: None.
    """
    z = self.encoder(self.normalised(y, s))
    z = jnp.round(z) if noise is None else z + noise
    own = prior.rate_in_training(y, point, *self.logistics(z, s))
    return z, jnp.concatenate([self.density().bits(z, jnp.ones(self.num_side)), own], axis=1)

  def normalised(self, y: jax.Array, s: jax.Array) -> jax.Array:
    """y in deviations of columns that are uniform on their ranges."""
    low, high = jnp.asarray(self.layout.low, jnp.float32), jnp.asarray(self.layout.high, jnp.float32)
    return (y / s[None] - (low + high)[None] / 2) * (UNIT / (high - low))[None]

  def __call__(self, y: jax.Array, s: jax.Array) -> jax.Array:
    """Bits under noise of 0; touches all parameters."""
    return self.rate(y, y, s, jnp.zeros((len(y), self.num_side)), None)[1]


class Previous(nn.Module):
  """The logistics that the state before gives.

  Attributes:
    layout: slots of the latent.
    widths: of the hidden layers.
  """
  layout: Layout
  widths: tuple[int, ...]

  def setup(self):
    L, plan = self.layout.size, self.layout
    constant = lambda value: lambda key: jnp.asarray(value, jnp.float32)
    self.network = Network(self.widths, 2 * L, zeros=True)
    self.base = self.param("base", constant(start_octaves(plan, "previous")))
    self.new_mean = self.param("new_mean", constant((plan.low + plan.high) / 2))
    self.new_octaves = self.param("new_octaves", constant(np.full(L, 2.0)))
    self.new_logit = self.param("new_logit", constant(NEW_LOGIT))

  def reading(self) -> tuple[np.ndarray, np.ndarray]:
    """(A [L], a [L]): the network reads A v + a, in deviations of columns that are uniform on their ranges."""
    unit = UNIT / (self.layout.high - self.layout.low)
    return unit, -unit * (self.layout.low + self.layout.high) / 2

  def logistics(self, before: prior.Before, s: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(mean, index of the scale), [B, L] each; `first` says which states are new."""
    new = before.first[:, None]
    v = before.symbols * (1 - new) / s[None]
    unit, shift = (jnp.asarray(part, jnp.float32)[None] for part in self.reading())
    return parameters(self.network(unit * v + shift), v + new * self.new_mean[None],
                      self.base[None] + new * self.new_octaves[None], s)

  def new_bits(self) -> jax.Array:
    """[2]: bits of not starting anew, and of doing so."""
    return jnp.stack([jax.nn.softplus(self.new_logit), jax.nn.softplus(-self.new_logit)]) / np.log(2)

  def rate(self, y: jax.Array, point: jax.Array, s: jax.Array, noise: jax.Array | None, before: prior.Before
           ) -> tuple[jax.Array, jax.Array]:
    """(1 where a state starts anew [B, 1], 0 for a block's first, which does so in any case; bits [B, 1 + L]).

    Arguments are those of `Hyperprior.rate`, of which this reads all but the noise.
    """
    del noise
    L, cost = self.layout.size, self.new_bits()
    after = prior.rate_in_training(y, point, *self.logistics(before, s))
    alone = prior.Before(jnp.zeros((1, L)), jnp.ones(1))
    anew = prior.rate_in_training(y, point, *self.logistics(alone, s))
    chosen = (jnp.sum(anew, axis=1) + cost[1] < jnp.sum(after, axis=1) + cost[0]) & (before.first == 0)
    bits = jnp.where(chosen[:, None], anew, after)
    return chosen[:, None].astype(jnp.float32), jnp.concatenate(
        [jnp.where(chosen, cost[1], cost[0])[:, None], bits], axis=1)

  def __call__(self, y: jax.Array, s: jax.Array) -> jax.Array:
    """Bits after a state of zeros; touches all parameters."""
    return self.rate(y, y, s, None, prior.Before(jnp.zeros_like(y), jnp.zeros(len(y))))[1]
