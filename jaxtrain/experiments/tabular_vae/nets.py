"""Networks of the tabular VAE.

**Source:** spec tabular_vae 3 (the public release of the lithology VAE): Linear, ReLU, then BatchNorm, per hidden width;
heads for mean and log-variance; a mirrored decoder with a linear output; a classifier of one hidden layer on the latent.
Initialisation is uniform in +-1/sqrt(fan_in) for kernels and biases, as PyTorch's Linear does.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.nn.norm import BatchNorm


class Output(NamedTuple):
  """What the network returns: reconstruction [B, D], posterior mean and log-variance [B, L], logits [B, K] or None."""
  x_mean: jax.Array
  mean: jax.Array
  log_var: jax.Array
  logits: jax.Array | None


def fan_in_uniform(fan_in: int):
  """Initialiser: uniform in +-1/sqrt(fan_in)."""
  bound = fan_in ** -0.5
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


class Linear(nn.Module):
  """x @ kernel + bias with PyTorch's initialisation; computes in the dtype of x."""
  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    init = fan_in_uniform(x.shape[-1])
    kernel = self.param("kernel", init, (x.shape[-1], self.features))
    bias = self.param("bias", init, (self.features,))
    return x @ kernel.astype(x.dtype) + bias.astype(x.dtype)[None]


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
    head_dim, dropout_rate: hidden width of the classifier and the dropout behind it.
    precision: dtype name of the computation; outputs are float32.
  """
  num_features: int
  num_classes: int
  latent_dim: int
  hidden_dims: tuple[int, ...]
  batch_norm: bool
  head_dim: int
  dropout_rate: float
  precision: str

  def setup(self):
    self.encoder = Stack(self.hidden_dims, self.batch_norm)
    self.mean_head, self.log_var_head = Linear(self.latent_dim), Linear(self.latent_dim)
    self.decoder, self.output = Stack(self.hidden_dims[::-1], self.batch_norm), Linear(self.num_features)
    if self.num_classes:
      self.head, self.head_output = Linear(self.head_dim), Linear(self.num_classes)

  def encode(self, x: jax.Array, weight: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Posterior mean and log-variance, [B, L] float32 each, of x [B, D]."""
    h = self.encoder(x.astype(self.precision), weight, train)
    return self.mean_head(h).astype(jnp.float32), self.log_var_head(h).astype(jnp.float32)

  def decode(self, z: jax.Array, weight: jax.Array, train: bool) -> jax.Array:
    """Reconstruction [B, D] float32 of z [B, L]."""
    return self.output(self.decoder(z.astype(self.precision), weight, train)).astype(jnp.float32)

  def classify(self, z: jax.Array, train: bool, key: jax.Array | None) -> jax.Array:
    """Logits [B, K] float32 of z [B, L]; in training `key` draws the dropout."""
    h = nn.relu(self.head(z.astype(self.precision)))
    if train and self.dropout_rate > 0:
      keep = jax.random.bernoulli(key, 1.0 - self.dropout_rate, h.shape)
      h = jnp.where(keep, h / (1.0 - self.dropout_rate), 0.0)
    return self.head_output(h).astype(jnp.float32)

  def __call__(self, x: jax.Array, weight: jax.Array, train: bool, key: jax.Array | None) -> Output:
    """Training: z is sampled with `key`. Evaluation: z is the posterior mean and `key` is not used."""
    mean, log_var = self.encode(x, weight, train)
    z, head_key = mean, None
    if train:
      noise_key, head_key = jax.random.split(key)
      z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(noise_key, mean.shape)
    logits = self.classify(z, train, head_key) if self.num_classes else None
    return Output(self.decode(z, weight, train), mean, log_var, logits)
