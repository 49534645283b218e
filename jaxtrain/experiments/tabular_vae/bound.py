"""How probable rows are under a tabular VAE: the importance-weighted bound, in nats per row in standardised units.

  -log p(x) <= -log (1/K) sum_k w_k,   w_k = p(x | z_k) p(z_k) / q(z_k | x),   z_k ~ q(z | x)

p(x | z) is normal about the decoder's mean. The losses fix no variance for it that would compare between weights of
the KL term, so that each feature has the mean squared error of its reconstruction over training rows. The bound falls
to -log p(x) as K grows; of rows with holes there is none.

**Source:** Burda, Grosse & Salakhutdinov 2016 (Importance Weighted Autoencoders), equation 8. The normal distribution
beside it has mean and covariance of training rows.
"""

import functools
from typing import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import statistics
from jaxtrain.data import blocks
from jaxtrain.experiments.tabular_vae import grouped, predict

MOST_ROWS, BLOCK = 5000, 512  # rows that are assessed, and rows of a block, which has K decoded draws of each
LEAST_VARIANCE = 1e-6  # of a feature that comes back exactly
LOG_2PI = float(np.log(2 * np.pi))


def log_normal(x: jax.Array, mean: jax.Array, variance: jax.Array) -> jax.Array:
  """Log-density in nats of independent normals, summed over the last axis: [..., D] -> [...]."""
  return -0.5 * jnp.sum(LOG_2PI + jnp.log(variance) + jnp.square(x - mean) / variance, axis=-1)


def log_weights(x: jax.Array, x_mean: jax.Array, variance: jax.Array, z: jax.Array, mean: jax.Array,
                log_var: jax.Array) -> jax.Array:
  """log w_k [B, K] of draws z [B, K, L] from a posterior with mean and log-variance [B, L].

  Args:
    x: [B, D]. x_mean: [B, K, D], decoded of each draw. variance: [D] of the decoder.
  """
  shape = (1,) * (z.ndim - 1)
  likelihood = log_normal(x[:, None], x_mean, variance.reshape(*shape, -1))
  prior = log_normal(z, jnp.zeros_like(z), jnp.ones_like(z))
  return likelihood + prior - log_normal(z, mean[:, None], jnp.exp(log_var)[:, None])


def bound_nats(weights: jax.Array) -> jax.Array:
  """The bound on -log p(x) [B] of log-weights [B, K]: minus the log of the mean of w."""
  return jnp.log(float(weights.shape[1])) - jax.nn.logsumexp(weights, axis=1)


def block_bound(model, num_draws: int, given: tuple, x: jax.Array) -> jax.Array:
  """The bound of rows x [B, D + 1] whose last column is their number, which their draws follow; given: variables of the
  model, variance [D], key.
  """
  variables, variance, key = given
  x, number = x[:, :-1], x[:, -1].astype(jnp.uint32)
  mean, log_var = model.apply(variables, x, jnp.ones(x.shape[0]), False, method=model.encode)
  draw = lambda n: jax.random.normal(jax.random.fold_in(key, n), (num_draws, model.latent_dim))
  z = mean[:, None] + jnp.exp(0.5 * log_var)[:, None] * jax.vmap(draw)(number)
  decoded = predict.decode(model, variables, z.reshape(-1, z.shape[2])).reshape(*z.shape[:2], -1)
  return bound_nats(log_weights(x, decoded, variance, z, mean, log_var))


def make_bound(model, num_draws: int) -> Callable:
  """`(state, train, x, groups, key) -> scalars` of rows x [N, D] without holes, `train` training rows [M, D] likewise,
  both in standardised units. Compiled once.
  """
  of_block = functools.partial(block_bound, model, num_draws)
  back = functools.partial(predict.reconstruct, model)

  def assess(state, train: np.ndarray, x: np.ndarray, groups: grouped.Groups, key) -> dict[str, float]:
    variables = predict.variables_of(state)
    squares = np.square(blocks.in_blocks(back, variables, train) - train, dtype=np.float64)
    variance = np.maximum(squares.mean(axis=0), LEAST_VARIANCE).astype(np.float32)
    numbered = np.concatenate([x, np.arange(len(x), dtype=np.float32)[:, None]], axis=1)
    nats = blocks.in_blocks(of_block, (variables, variance, key), numbered, most=BLOCK)
    half = grouped.half_widths(grouped.resampled(groups, grouped.value_totals(groups, nats), grouped.mean_of))
    half = np.maximum(half, statistics.t_half_width(nats.astype(np.float64)))  # NaN of too few groups stays
    found = {"iw_nll_nats": float(nats.mean(dtype=np.float64)), "iw_rows": len(x),
             "gaussian_nll_nats": gaussian_nats(train, x)}
    return found | ({"iw_nll_nats_ci95": float(half)} if np.isfinite(half) else {})
  return assess


def gaussian_nats(train: np.ndarray, x: np.ndarray) -> float:
  """Mean -log N(x; mean, covariance) of rows [N, D], of the mean and covariance of training rows [M, D]."""
  train, x = train.astype(np.float64), x.astype(np.float64)
  centred = train - train.mean(axis=0)
  covariance = centred.T @ centred / len(train) + LEAST_VARIANCE * np.eye(train.shape[1])
  away = x - train.mean(axis=0)
  squares = (np.linalg.solve(covariance, away.T).T * away).sum(axis=1)
  return float(0.5 * (squares.mean() + np.linalg.slogdet(covariance)[1] + train.shape[1] * LOG_2PI))
