"""The network of a codec: analysis of a state into a latent, synthesis of a state from it, and the latent's density.

With the slots and first matrices of `layout`, s the number of quantisation steps that the range of a column has, and
MLPs whose last layer starts at zero:

  analysis   y = s (x A + a) + MLP(x)          [B, L], in steps; groups of columns may have an analysis of their own
  synthesis  r = (y / s) B + b + w MLP(y / s)  [B, D], w is the error that the level means for numbers, 1 for logits
  density    p(y) = prod_l sum_m pi_lm Logistic(y_l / s; mu_lm, sigma_lm)

where a number that is more than a range outside of its own counts as the bound there, and what is beyond it is passed
by the first matrices alone: an outlier is coded as a scalar quantiser does, and other columns do not see how far it is.

At first it is the entropy-coded scalar quantiser of each column. s follows from the level: at level c the error
of a number is about c per cent of its range. The probability of a whole number k is that of the density between k - 1/2
and k + 1/2; training adds noise that is uniform over a cell in place of rounding.

**Source:** Balle et al. 2018 (Variational image compression with a scale hyperprior), eq. 3-7: noise for rounding, the
density's probability of a step; mixtures of logistics as density: Cheng et al. 2020 (Learned image compression with
discretized Gaussian mixture likelihoods), section 3.2.
"""

from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.experiments.semantic_compression.layout import SHARED, Layout
from jaxtrain.nn.linear import Linear

UNIT = 12.0**0.5  # steps of the range where a unit of y is a standard deviation of a uniform column
AT_LEVEL_1 = 100.0 / UNIT  # steps of the range of a column whose error is 1 % of it
WIDE = 1e-4  # share of the density that reaches far out, so that every number has a probability with a gradient
REACH = 4.0  # its deviation, in ranges
NEAR = 1.0  # ranges from the middle, within which a number moves other columns
FLOOR = 1e-9  # least probability of a number
ACTIVATIONS = {"relu": nn.relu, "gelu": lambda x: nn.gelu(x, approximate=True), "leaky_relu": nn.leaky_relu}


class Stack(nn.Module):
  """[Linear, activation] for each width, then a linear layer to `features` that starts at zero; [B, D] to float32."""
  widths: tuple[int, ...]
  features: int
  activation: str
  precision: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = x.astype(self.precision)
    for width in self.widths:
      x = ACTIVATIONS[self.activation](Linear(width)(x))
    return Linear(self.features, zeros=True)(x).astype(jnp.float32)


class Density(NamedTuple):
  """Mixtures of logistics, one a slot, over u = y / s.

  Attributes:
    log_share: [L, M] logarithm of the shares, normalised.
    centre, log_scale: [L, M].
    middle, reach: [L] of the logistic that reaches far out.
  """
  log_share: jax.Array
  centre: jax.Array
  log_scale: jax.Array
  middle: jax.Array
  reach: jax.Array

  def between(self, low: jax.Array, high: jax.Array) -> jax.Array:
    """Probability [B, L] of u between low and high [B, L]."""
    def each(centre, scale):
      a, b = ((end[:, :, None] - centre[None]) / scale[None] for end in (low, high))
      sign = jnp.where(a + b > 0, -1.0, 1.0)  # far out a difference of numbers near 0 is exact, one of those near 1 not
      return jnp.abs(jax.nn.sigmoid(sign * b) - jax.nn.sigmoid(sign * a))
    near = jnp.sum(jnp.exp(self.log_share)[None] * each(self.centre, jnp.exp(self.log_scale)), axis=-1)
    far = each(self.middle[:, None], self.reach[:, None])[..., 0]
    return (1 - WIDE) * near + WIDE * far

  def bits(self, u: jax.Array, step: jax.Array) -> jax.Array:
    """Bits [B, L] of a step of width `step` [L] around u [B, L]."""
    half = step[None] / 2
    return -jnp.log2(jnp.maximum(self.between(u - half, u + half), FLOOR))


class Codec(nn.Module):
  """Analysis, synthesis and density of a codec.

  Attributes:
    layout: slots and first matrices.
    inputs_of: groups that have an encoder of their own, with the columns that it sees (indices of x); () for one of
      all.
    hidden_dims: widths of the analysis; the synthesis has them in reverse; () for linear maps.
    num_components: logistics of a slot's density; 0 where the code has tables or a conditioned prior in place of it.
    scaled: whether y is in steps of a level, or in standard deviations.
    with_variance: whether the analysis gives a log-variance too (a variational autoencoder).
    activation: a name of `ACTIVATIONS`. precision: dtype name of the computation; results are float32.
    prior: the module of a conditioned prior (`nets_prior`), which has the latent's density then; None without one.
  """
  layout: Layout
  inputs_of: tuple[tuple[str, tuple[int, ...]], ...]
  hidden_dims: tuple[int, ...]
  num_components: int
  scaled: bool
  with_variance: bool
  activation: str
  precision: str
  prior: Any = None

  def setup(self):
    L, M, plan = self.layout.size, self.num_components, self.layout
    constant = lambda value: lambda key: jnp.asarray(value, jnp.float32)
    self.matrix_in, self.shift_in, self.matrix_out, self.shift_out = (
        self.param(name, constant(getattr(plan, name)))
        for name in ("matrix_in", "shift_in", "matrix_out", "shift_out"))
    self.log_gain = self.param("log_gain", constant(np.zeros(L)))
    stack = lambda features, widths: Stack(widths, features, self.activation, self.precision)
    heads = 2 if self.with_variance else 1
    if self.hidden_dims:
      self.encoders = [stack(heads * len(self.slots_of(name)), self.hidden_dims) for name, _ in self.encoder_inputs()]
      self.decoder = stack(len(plan.numeric), self.hidden_dims[::-1])
    if self.with_variance:
      self.log_var = self.param("log_var", constant(np.full(L, -4.0)))
    if M:
      cells = (plan.high - plan.low) / M
      self.share = self.param("share", constant(np.zeros((L, M))))
      self.centre = self.param("centre", constant(plan.low[:, None] + cells[:, None] * (np.arange(M) + 0.5)))
      self.log_scale = self.param("log_scale", constant(np.log(np.repeat(cells[:, None] / 4, M, axis=1))))

  def encoder_inputs(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names of encoders and the columns of x that each sees."""
    return self.inputs_of or ((SHARED, tuple(range(len(self.layout.numeric)))),)

  def slots_of(self, name: str) -> tuple[int, ...]:
    """Slots that an encoder gives."""
    groups = self.layout.groups
    return tuple(i for i in range(len(groups)) if not self.inputs_of or groups[i] == name)

  def seen(self) -> np.ndarray:
    """[D, L]: 1 where a slot sees a column."""
    mask = np.zeros((len(self.layout.numeric), self.layout.size), np.float32)
    for name, at in self.inputs_of:
      mask[np.ix_(at, self.slots_of(name))] = 1.0
    return mask

  def steps(self, level: jax.Array) -> jax.Array:
    """[L]: steps of a unit of u, s."""
    first = jnp.where(self.layout.continuous, AT_LEVEL_1 / (level * self.layout.factor), 1.0) if self.scaled else UNIT
    return first * jnp.exp(self.log_gain)

  def analyse(self, x: jax.Array, level: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(y [B, L], log-variance [B, L], zeros without one) of states x [B, D] at a level."""
    chex.assert_shape(x, (None, len(self.layout.numeric)))
    matrix = self.matrix_in * self.seen() if self.inputs_of else self.matrix_in
    near = x if self.with_variance else jnp.clip(x, -NEAR, NEAR)  # a variational model stays what its equations say
    beyond = (x - near) @ jnp.asarray(self.layout.matrix_in, jnp.float32)
    y = self.steps(level)[None] * (near @ matrix + beyond + self.shift_in[None])
    log_var = jnp.broadcast_to(self.log_var[None], y.shape) if self.with_variance else jnp.zeros_like(y)
    if not self.hidden_dims:
      return y, log_var
    found = [net(near[:, np.asarray(at)]) for net, (_, at) in zip(self.encoders, self.encoder_inputs())]
    back = np.argsort(np.concatenate([self.slots_of(name) for name, _ in self.encoder_inputs()]))
    heads = [jnp.split(part, 2, axis=1) if self.with_variance else (part,) for part in found]
    put = lambda k: jnp.concatenate([parts[k] for parts in heads], axis=1)[:, back]
    return y + put(0), log_var + put(1) if self.with_variance else log_var

  def synthesise(self, y: jax.Array, level: jax.Array) -> jax.Array:
    """What a state was, r [B, D], from y [B, L]: numbers in ranges, logits of discrete columns."""
    chex.assert_shape(y, (None, self.layout.size))
    u, plan = y / self.steps(level)[None], self.layout
    low, high = (jnp.asarray(end, jnp.float32)[None] for end in (1.5 * plan.low - 0.5 * plan.high,
                                                                 1.5 * plan.high - 0.5 * plan.low))
    near = u if self.with_variance else jnp.clip(u, low, high)
    r = near @ self.matrix_out + (u - near) @ jnp.asarray(plan.matrix_out, jnp.float32) + self.shift_out[None]
    if not self.hidden_dims:
      return r
    unit = jnp.where(self.layout.numeric, level / 100 if self.scaled else 1 / UNIT, 1.0)
    return r + unit[None] * self.decoder(near)

  def density(self) -> Density:
    """The density of each slot."""
    low, high = jnp.asarray(self.layout.low, jnp.float32), jnp.asarray(self.layout.high, jnp.float32)
    return Density(jax.nn.log_softmax(self.share), self.centre, self.log_scale, (low + high) / 2, REACH * (high - low))

  def bits(self, y: jax.Array, level: jax.Array) -> jax.Array:
    """Bits [B, L] of the steps around y [B, L]; of every lattice, whose cells have volume 1."""
    s = self.steps(level)
    return self.density().bits(y / s[None], 1 / s)

  def __call__(self, x: jax.Array, level: jax.Array) -> jax.Array:
    """What a state is after analysis and synthesis without quantisation; touches all parameters."""
    y, log_var = self.analyse(x, level)
    spread = jnp.sum(self.bits(y, level)) if self.num_components else 0.0
    if self.prior is not None:
      spread = jnp.sum(self.prior(y, self.steps(level)))
    return self.synthesise(y, level) + 0.0 * (spread + jnp.sum(log_var))
