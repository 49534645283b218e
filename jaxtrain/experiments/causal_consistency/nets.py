"""Networks of the joint model: x covariates, w instruments, y treatment (K classes), z outcomes.

  p(y | x, w)     a network, K logits: the propensity
  p(z | x, y)     a network for each class (TARNet's arms without their trunk), Normal: what effects are read from
  p(y | x, w, z)  a network, K logits: the head that imputes a treatment that is not recorded
  p(x | y, z)     a network of z for each class, Normal
  p(w | x)        a network, Normal, where there are instruments

Each has an encoder of its own, so that x and z may have any dimensions and the effect of y on z may depend on x.

**Source:** arms by treatment: Shalit, Johansson & Sontag 2017 (Estimating individual treatment effect), section 4.
**Departs:** the original shared one trunk between x and z, which needs equal dimensions, and had one linear layer of
(trunk, y) for z, with which the effect of y is the same for every x; deviations were exp(.) without a floor.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.nn import activations
from jaxtrain.nn.linear import Linear

ACTIVATIONS = {"relu": nn.relu, "gelu": activations.gelu, "tanh": jnp.tanh}
LOG_SQRT_2PI = 0.9189385332046727


class Normals(NamedTuple):
  """Means and standard deviations of independent Normals, [..., dims] float32 each."""
  mean: jax.Array
  sd: jax.Array

  def log_prob(self, value: jax.Array) -> jax.Array:
    """Log-density of values [..., dims], summed over the dims, in nats."""
    return jnp.sum(-0.5 * jnp.square((value - self.mean) / self.sd) - jnp.log(self.sd) - LOG_SQRT_2PI, axis=-1)


class Output(NamedTuple):
  """Log-probabilities of a batch, nats, in the units that the model is trained in.

  Attributes:
    prior: [B, K] log p(y | x, w).
    outcome: [B, K] log p(z | x, y).
    head: [B, K] log p(y | x, w, z), the network's.
    covariates: [B, K] log p(x | y, z).
    instruments: [B] log p(w | x); zeros without instruments.
  """
  prior: jax.Array
  outcome: jax.Array
  head: jax.Array
  covariates: jax.Array
  instruments: jax.Array

  @property
  def joint(self) -> jax.Array:
    """[B, K] log p(y, z | x, w)."""
    return self.prior + self.outcome

  @property
  def posterior(self) -> jax.Array:
    """[B, K] log p(y | x, w, z) by Bayes' rule from the joint."""
    return jax.nn.log_softmax(self.joint)


class Stack(nn.Module):
  """[Linear, activation, dropout] for each width, and a linear layer to `features`; [B, D] to [B, features] float32."""
  widths: tuple[int, ...]
  features: int
  activation: str
  dropout_rate: float
  precision: str

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    x = x.astype(self.precision)
    for width in self.widths:
      x = ACTIVATIONS[self.activation](Linear(width)(x))
      if self.dropout_rate:
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    return Linear(self.features)(x).astype(jnp.float32)


class Joint(nn.Module):
  """The conditionals of the joint model.

  Attributes:
    num_classes, num_covariates, num_instruments, num_outcomes: K, D, W and Z.
    hidden_dims: widths of every network.
    activation: a name of `ACTIVATIONS`.
    dropout_rate: after each activation.
    min_sd: floor of every standard deviation, in the units that the model is trained in.
    precision: dtype name of the computation; results are float32.
  """
  num_classes: int
  num_covariates: int
  num_instruments: int
  num_outcomes: int
  hidden_dims: tuple[int, ...]
  activation: str
  dropout_rate: float
  min_sd: float
  precision: str

  def setup(self):
    settings = (self.activation, self.dropout_rate, self.precision)
    stack = lambda features: Stack(self.hidden_dims, features, *settings)
    arms = nn.vmap(Stack, in_axes=None, out_axes=1, axis_size=self.num_classes, variable_axes={"params": 0},
                   split_rngs={"params": True, "dropout": True})
    arm = lambda features: arms(self.hidden_dims, features, *settings)
    self.prior, self.head = stack(self.num_classes), stack(self.num_classes)
    self.outcome, self.covariates = arm(2 * self.num_outcomes), arm(2 * self.num_covariates)
    if self.num_instruments:
      self.instruments = stack(2 * self.num_instruments)

  def normals(self, h: jax.Array) -> Normals:
    """Normals of a network's output [..., 2 dims]; sd = min_sd + softplus."""
    mean, raw = jnp.split(h, 2, axis=-1)
    return Normals(mean, self.min_sd + jax.nn.softplus(raw))

  def propensity(self, x: jax.Array, w: jax.Array, train: bool = False) -> jax.Array:
    """log p(y | x, w) [B, K] of x [B, D] and w [B, W]."""
    return jax.nn.log_softmax(self.prior(jnp.concatenate([x, w], axis=1), train))

  def outcomes(self, x: jax.Array, train: bool = False) -> Normals:
    """p(z | x, y) of every class: [B, K, Z]."""
    return self.normals(self.outcome(x, train))

  def impute(self, x: jax.Array, w: jax.Array, z: jax.Array, train: bool = False) -> jax.Array:
    """log p(y | x, w, z) [B, K] of the imputing head."""
    return jax.nn.log_softmax(self.head(jnp.concatenate([x, w, z], axis=1), train))

  def given_outcomes(self, z: jax.Array, train: bool = False) -> Normals:
    """p(x | y, z) of every class: [B, K, D]."""
    return self.normals(self.covariates(z, train))

  def given_covariates(self, x: jax.Array, train: bool = False) -> Normals:
    """p(w | x): [B, W]."""
    return self.normals(self.instruments(x, train))

  def with_normals(self, x: jax.Array, w: jax.Array, z: jax.Array,
                   train: bool = False) -> tuple[Output, Normals, Normals | None]:
    """(log-probabilities, p(z | x, y), p(w | x) or None) of x [B, D], w [B, W], z [B, Z] under every class."""
    outcomes, given = self.outcomes(x, train), self.given_covariates(x, train) if self.num_instruments else None
    instruments = jnp.zeros(len(x)) if given is None else given.log_prob(w)
    out = Output(self.propensity(x, w, train), outcomes.log_prob(z[:, None]), self.impute(x, w, z, train),
                 self.given_outcomes(z, train).log_prob(x[:, None]), instruments)
    return out, outcomes, given

  def __call__(self, x: jax.Array, w: jax.Array, z: jax.Array, train: bool = False) -> Output:
    """Log-probabilities of x [B, D], w [B, W], z [B, Z] under every class."""
    return self.with_normals(x, w, z, train)[0]
