"""Networks of the tabular VAE.

**Source:** the public release of the lithology VAE: Linear, ReLU, then BatchNorm, per hidden
width; one linear layer for mean and log-variance; a mirrored decoder with a linear output; a classifier of one hidden
layer on the latent. The networks are functions of their inputs alone: noise and dropout masks are inputs too, drawn by
the train step.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.nn.linear import Linear
from jaxtrain.nn.norm import BatchNorm


class Output(NamedTuple):
  """What the network returns: reconstruction [B, D], posterior mean and log-variance [B, L], logits [B, K] or None."""
  x_mean: jax.Array
  mean: jax.Array
  log_var: jax.Array
  logits: jax.Array | None


class Stack(nn.Module):
  """[Linear, ReLU, BatchNorm] for each width."""
  widths: tuple[int, ...]
  batch_norm: bool

  @nn.compact
  def __call__(self, x: jax.Array, weight: jax.Array, train: bool) -> jax.Array:
    for width in self.widths:
      x = nn.relu(Linear(width)(x))
      if self.batch_norm:
        x = BatchNorm()(x, weight, train)
    return x


class VAE(nn.Module):
  """Tabular VAE with an optional classifier on the latent.

  Attributes:
    num_features, num_classes: D, and K (0 = no classifier).
    latent_dim, hidden_dims: L and the encoder's widths; the decoder mirrors them.
    batch_norm: BatchNorm after each ReLU of encoder and decoder.
    head_dim: hidden width of the classifier.
    precision: dtype name of the computation; outputs are float32.
  """
  num_features: int
  num_classes: int
  latent_dim: int
  hidden_dims: tuple[int, ...]
  batch_norm: bool
  head_dim: int
  precision: str

  def setup(self):
    self.encoder = Stack(self.hidden_dims, self.batch_norm)
    self.posterior = Linear(2 * self.latent_dim)
    self.decoder, self.output = Stack(self.hidden_dims[::-1], self.batch_norm), Linear(self.num_features)
    if self.num_classes:
      self.head, self.head_output = Linear(self.head_dim), Linear(self.num_classes)

  def encode(self, x: jax.Array, weight: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Posterior mean and log-variance, [B, L] float32 each, of x [B, D]."""
    h = self.posterior(self.encoder(x.astype(self.precision), weight, train)).astype(jnp.float32)
    return h[:, :self.latent_dim], h[:, self.latent_dim:]

  def decode(self, z: jax.Array, weight: jax.Array, train: bool) -> jax.Array:
    """Reconstruction [B, D] float32 of z [B, L]."""
    return self.output(self.decoder(z.astype(self.precision), weight, train)).astype(jnp.float32)

  def classify(self, z: jax.Array, keep: jax.Array | None) -> jax.Array:
    """Logits [B, K] float32 of z [B, L]; in training `keep` [B, head_dim] is 0 where dropout falls, else 1 / (1 -
    rate).
    """
    h = nn.relu(self.head(z.astype(self.precision)))
    return self.head_output(h if keep is None else h * keep.astype(h.dtype)).astype(jnp.float32)

  def __call__(self, x: jax.Array, weight: jax.Array, noise: jax.Array | None = None,
               keep: jax.Array | None = None) -> Output:
    """Training: z = mean + exp(log_var / 2) noise, noise [B, L]. Evaluation, without noise: z is the posterior mean."""
    train = noise is not None
    mean, log_var = self.encode(x, weight, train)
    z = mean + jnp.exp(0.5 * log_var) * noise if train else mean
    logits = self.classify(z, keep) if self.num_classes else None
    return Output(self.decode(z, weight, train), mean, log_var, logits)
