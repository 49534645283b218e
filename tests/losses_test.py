"""Loss terms against their formulas in float64 and, for the KL, against numerical integration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import losses


squared_error, gaussian_kl_nats, cross_entropy_nats, is_top = map(
    jax.jit, (losses.squared_error, losses.gaussian_kl_nats, losses.cross_entropy_nats, losses.is_top))


def log_softmax(logits):
  """log p of each class, float64, from the definition."""
  shifted = logits - logits.max(axis=1, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def test_squared_error_is_the_sum_over_features_without_a_half():
  x = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 0.0]], np.float32)
  x_mean = np.array([[0.0, 2.0, 5.0], [0.5, 1.0, 0.25]], np.float32)
  # 1 + 0 + 4 and 0 + 4 + 1/16
  np.testing.assert_array_equal(squared_error(x, x_mean), np.array([5.0, 4.0625], np.float32))


def test_gaussian_kl_equals_its_closed_form():
  random = np.random.RandomState(0)
  mean, log_var = random.normal(0, 2, (5, 3)), random.normal(0, 1.5, (5, 3))
  want = -0.5 * (1 + log_var - mean ** 2 - np.exp(log_var))
  got = gaussian_kl_nats(jnp.asarray(mean, jnp.float32), jnp.asarray(log_var, jnp.float32))
  assert got.shape == (5, 3)
  np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("mean, log_var", [(0.0, 0.0), (1.5, 0.0), (0.0, 1.2), (-2.0, -3.0), (0.3, 2.0), (4.0, -1.0)])
def test_gaussian_kl_equals_numerical_integration(mean, log_var):
  sd = np.exp(log_var / 2)
  z = np.linspace(mean - 12 * sd, mean + 12 * sd, 200_001)
  log_q = -0.5 * ((z - mean) / sd) ** 2 - np.log(sd * np.sqrt(2 * np.pi))
  log_p = -0.5 * z ** 2 - 0.5 * np.log(2 * np.pi)
  want = np.trapezoid(np.exp(log_q) * (log_q - log_p), z)
  got = gaussian_kl_nats(jnp.full((1, 1), mean), jnp.full((1, 1), log_var))
  np.testing.assert_allclose(got[0, 0], want, rtol=2e-6, atol=1e-6)


def test_gaussian_kl_is_zero_at_the_prior_only():
  grid = jnp.linspace(-2, 2, 9)
  mean, log_var = (a.ravel()[None] for a in jnp.meshgrid(grid, grid))
  kl = np.asarray(gaussian_kl_nats(mean, log_var))[0]
  at_prior = np.asarray((mean[0] == 0) & (log_var[0] == 0))
  assert kl[at_prior].tolist() == [0.0] and (kl[~at_prior] > 0.01).all()


def test_cross_entropy_equals_minus_log_softmax():
  random = np.random.RandomState(1)
  logits = random.normal(0, 3, (6, 4))
  label = np.array([0, 3, 1, 2, 2, 0], np.int32)
  want = -log_softmax(logits)[np.arange(6), label]
  got = cross_entropy_nats(jnp.asarray(logits, jnp.float32), label)
  np.testing.assert_allclose(got, want, rtol=5e-6, atol=1e-6)


def test_cross_entropy_of_an_unlabelled_row_is_zero_and_pulls_nothing():
  logits = jnp.asarray(np.random.RandomState(2).normal(0, 2, (4, 3)), jnp.float32)
  label = np.array([-1, 2, -1, 0], np.int32)
  np.testing.assert_array_equal(np.asarray(cross_entropy_nats(logits, label))[[0, 2]], 0.0)
  grads = np.asarray(jax.jit(jax.grad(lambda x: cross_entropy_nats(x, label).sum()))(logits))
  want = np.exp(log_softmax(np.asarray(logits, np.float64))) - np.eye(3)[label]  # softmax - one-hot
  want[[0, 2]] = 0.0
  np.testing.assert_allclose(grads, want, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(grads[[0, 2]], 0.0)


def test_cross_entropy_of_large_logits_is_finite():
  logits = jnp.asarray([[1e4, 0.0, -1e4], [1e4, 0.0, -1e4]], jnp.float32)
  np.testing.assert_array_equal(cross_entropy_nats(logits, np.array([0, 2], np.int32)), [0.0, 2e4])


def test_uniform_logits_cost_log_k():
  got = cross_entropy_nats(jnp.zeros((1, 139)), np.array([77], np.int32))
  np.testing.assert_allclose(got, np.log(139), rtol=1e-6)


def test_is_top_counts_right_predictions_of_labelled_rows():
  up, down, tie = [1.0, 3.0, 2.0], [-5.0, -6.0, -7.0], [2.0, 2.0, 0.0]
  logits = jnp.asarray([up, up, down, tie, up, down])
  label = np.array([1, 2, 0, 1, -1, -1], np.int32)  # right, wrong, right, tied, unlabelled, unlabelled
  np.testing.assert_array_equal(is_top(logits, label), [1.0, 0.0, 1.0, 1.0, 0.0, 0.0])
  random = np.random.RandomState(4)
  logits, label = random.normal(size=(300, 7)), random.randint(0, 7, 300).astype(np.int32)
  np.testing.assert_array_equal(is_top(jnp.asarray(logits, jnp.float32), label), logits.argmax(axis=1) == label)
