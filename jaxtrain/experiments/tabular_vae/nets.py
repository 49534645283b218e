"""Networks of the tabular VAE.

**Source:** the public release of the lithology VAE: Linear, ReLU, then BatchNorm, per hidden
width; one linear layer for mean and log-variance; a mirrored decoder with a linear output; a classifier of one hidden
layer on the latent. The networks are functions of their inputs alone: noise and dropout masks are inputs too, drawn by
the train step.

Of a table with kinds of columns the encoder takes an embedding of each category, one of which stands for a missing
cell, and the decoder gives what `likelihoods` makes of each column.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.experiments.tabular_vae import likelihoods
from jaxtrain.nn.linear import Linear
from jaxtrain.nn.norm import BatchNorm


class Output(NamedTuple):
  """What the network returns: reconstruction [B, D], posterior mean and log-variance [B, L], logits [B, K] or None; of
  a table with kinds also what the decoder says of each column, of which the reconstruction is the best guess.
  """
  x_mean: jax.Array
  mean: jax.Array
  log_var: jax.Array
  logits: jax.Array | None
  given: likelihoods.Given | None = None


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


class Embeddings(nn.Module):
  """An embedding of each categorical column of x [B, D], side by side; the first row of each stands for missing."""
  layout: likelihoods.Layout
  features: int

  @nn.compact
  def __call__(self, x: jax.Array, dtype: str) -> jax.Array:
    found = []
    for d, column in zip(self.layout.places("categorical"), self.layout.of("categorical")):
      table = self.param(f"column_{d}", nn.initializers.normal(1.0), (column.classes + 1,
                                                                      min(self.features, column.classes)))
      one_hot = x[:, d:d + 1] == jnp.arange(column.classes + 1)[None]  # a product, whose gradient adds in one order
      found.append(one_hot.astype(dtype) @ table.astype(dtype))
    return jnp.concatenate(found, axis=1)


class VAE(nn.Module):
  """Tabular VAE with an optional classifier on the latent.

  Attributes:
    num_features, num_classes: D, and K (0 = no classifier).
    latent_dim, hidden_dims: L and the encoder's widths; the decoder mirrors them.
    batch_norm: BatchNorm after each ReLU of encoder and decoder.
    head_dim: hidden width of the classifier.
    precision: dtype name of the computation; outputs are float32.
    layout: of a table with kinds; None of a table of numbers.
    embedding_dim: numbers that stand for a category, at most as many as there are categories.
  """
  num_features: int
  num_classes: int
  latent_dim: int
  hidden_dims: tuple[int, ...]
  batch_norm: bool
  head_dim: int
  precision: str
  layout: likelihoods.Layout | None = None
  embedding_dim: int = 8

  def setup(self):
    self.encoder = Stack(self.hidden_dims, self.batch_norm)
    self.posterior = Linear(2 * self.latent_dim)
    width = self.layout.width if self.layout else self.num_features
    self.decoder, self.output = Stack(self.hidden_dims[::-1], self.batch_norm), Linear(width)
    if self.layout and self.layout.of("categorical"):
      self.embeddings = Embeddings(self.layout, self.embedding_dim)
    if self.layout and self.layout.learned_noise:
      self.log_sd = self.param("log_sd", nn.initializers.zeros_init(), (len(self.layout.of("continuous")),))
    if self.num_classes:
      self.head, self.head_output = Linear(self.head_dim), Linear(self.num_classes)

  def read(self, x: jax.Array) -> jax.Array:
    """What the encoder takes of x [B, D]."""
    if self.layout is None:
      return x.astype(self.precision)
    numbers = likelihoods.numbers_in(self.layout, x).astype(self.precision)
    categorical = self.layout.of("categorical")
    return jnp.concatenate([numbers, self.embeddings(x, self.precision)], axis=1) if categorical else numbers

  def encode(self, x: jax.Array, weight: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Posterior mean and log-variance, [B, L] float32 each, of x [B, D]."""
    h = self.posterior(self.encoder(self.read(x), weight, train)).astype(jnp.float32)
    return h[:, :self.latent_dim], h[:, self.latent_dim:]

  def decode(self, z: jax.Array, weight: jax.Array, train: bool) -> jax.Array:
    """Reconstruction [B, D] float32 of z [B, L]."""
    raw = self.decode_raw(z, weight, train)
    return raw if self.layout is None else likelihoods.point(self.layout, self.split(raw))

  def decode_raw(self, z: jax.Array, weight: jax.Array, train: bool) -> jax.Array:
    """What the decoder gives, [B, W] float32."""
    return self.output(self.decoder(z.astype(self.precision), weight, train)).astype(jnp.float32)

  def split(self, raw: jax.Array) -> likelihoods.Given:
    """The parts of what the decoder gives of a table with kinds."""
    log_sd = self.log_sd if self.layout.learned_noise else jnp.zeros(len(self.layout.of("continuous")))
    return likelihoods.split(self.layout, raw, log_sd)

  def decode_given(self, z: jax.Array, weight: jax.Array, train: bool) -> likelihoods.Given:
    """What the decoder says of each column, of a table with kinds."""
    return self.split(self.decode_raw(z, weight, train))

  def classify(self, z: jax.Array, keep: jax.Array | None) -> jax.Array:
    """Logits [B, K] float32 of z [B, L]; in training `keep` [B, head_dim] is 0 where dropout falls, else 1 / (1 -
    rate).
    """
    h = nn.relu(self.head(z.astype(self.precision)))
    return self.head_output(h if keep is None else h * keep.astype(h.dtype)).astype(jnp.float32)

  def __call__(self, x: jax.Array, weight: jax.Array, noise: jax.Array | None = None,
               keep: jax.Array | None = None, train: bool | None = None) -> Output:
    """With noise [B, L]: z = mean + exp(log_var / 2) noise; without: z is the posterior mean. `train` says whether
    BatchNorm takes the moments of the batch; None: where there is noise.
    """
    train = noise is not None if train is None else train
    mean, log_var = self.encode(x, weight, train)
    z = mean if noise is None else mean + jnp.exp(0.5 * log_var) * noise
    logits = self.classify(z, keep) if self.num_classes else None
    if self.layout is None:
      return Output(self.decode(z, weight, train), mean, log_var, logits)
    given = self.decode_given(z, weight, train)
    return Output(likelihoods.point(self.layout, given), mean, log_var, logits, given)
