"""The importance-weighted bound on models whose density is known, in float64."""

import jax
import numpy as np
import pytest

from jaxtrain.experiments.tabular_vae import bound

D, L = 5, 2


@pytest.fixture(scope="module")
def linear():
  """x = W z + b + noise with orthogonal columns of W, so that the posterior has a diagonal covariance; -log p(x) of 40
  rows, and the posterior's mean and log-variance.
  """
  random = np.random.default_rng(0)
  w = np.linalg.qr(random.normal(size=(D, L)))[0] * [2.0, 0.7]
  b, variance, x = random.normal(size=D), 0.3, random.normal(size=(40, D)) * 1.5
  covariance = w @ w.T + variance * np.eye(D)
  away = x - b
  nats = 0.5 * ((away @ np.linalg.inv(covariance) * away).sum(axis=1) + np.linalg.slogdet(2 * np.pi * covariance)[1])
  precision = 1 + (w ** 2).sum(axis=0) / variance
  mean = away @ w / variance / precision
  return x, w, b, np.full(D, variance), nats, mean, np.broadcast_to(-np.log(precision), mean.shape)


SHIFT, WIDER, DRAWS = 0.15, 0.5, 5000


def weights_of(linear, num_draws: int, shift: float, wider: float) -> np.ndarray:
  """log w [40, K] by draws from a posterior that is off by `shift` and so much wider."""
  x, w, b, variance, _, mean, log_var = linear
  mean, log_var = mean + shift, log_var + wider
  z = mean[:, None] + np.exp(log_var / 2)[:, None] * np.random.default_rng(1).normal(size=(len(x), num_draws, L))
  with jax.enable_x64(True):
    return np.asarray(jax.jit(bound.log_weights)(x, z @ w.T + b, variance, z, mean, log_var))


def bounds(weights: np.ndarray, num_draws: int) -> np.ndarray:
  """Mean bound [40] of so many draws each, of log-weights [40, K]."""
  with jax.enable_x64(True):
    return np.asarray(jax.jit(bound.bound_nats)(weights.reshape(-1, num_draws))).reshape(len(weights), -1).mean(axis=1)


def test_with_the_true_posterior_the_bound_is_the_density(linear):
  weights = weights_of(linear, 3, 0.0, 0.0)
  np.testing.assert_allclose(bounds(weights, 3), linear[4], rtol=1e-12)
  np.testing.assert_allclose(bounds(weights, 1), linear[4], rtol=1e-12)


def test_with_another_posterior_it_falls_from_the_evidence_bound_to_the_density(linear):
  """E[-log w] = -log p(x) + KL(q || posterior), of which the second is known for normals. For the same draws the bound
  falls with their number.
  """
  weights, nats = weights_of(linear, DRAWS, SHIFT, WIDER), linear[4]
  kl = 0.5 * (np.exp(WIDER) - 1 - WIDER + SHIFT ** 2 / np.exp(linear[6])).sum(axis=1)
  one, ten, all_draws = (bounds(weights, num) for num in (1, 10, DRAWS))
  np.testing.assert_allclose(one, nats + kl, atol=0.06)
  assert (one > ten).all() and (ten > all_draws).all()
  np.testing.assert_allclose(all_draws, nats, atol=0.06)


def test_the_normal_beside_it_has_the_density_of_scipy():
  from scipy import stats
  random = np.random.default_rng(4)
  train, x = random.normal(size=(300, 3)) @ random.normal(size=(3, 3)), random.normal(size=(50, 3))
  covariance = np.cov(train.T, bias=True) + bound.LEAST_VARIANCE * np.eye(3)
  want = -stats.multivariate_normal(train.mean(axis=0), covariance).logpdf(x).mean()
  assert bound.gaussian_nats(train, x) == pytest.approx(want, rel=1e-9)
