"""The affine layer: value, gradient, and the bounds of its initialisation."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.nn.linear import Linear


def test_value_and_gradient():
  random = np.random.RandomState(0)
  x, kernel, bias, pull = (random.normal(size=s) for s in ((5, 3), (3, 2), (2,), (5, 2)))
  apply = lambda x, params: Linear(2).apply({"params": params}, x)
  x32, params = jnp.asarray(x, jnp.float32), {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
  np.testing.assert_allclose(apply(x32, params), x @ kernel + bias, rtol=1e-5, atol=1e-6)
  grads = jax.grad(lambda x, p: jnp.sum(pull.astype(np.float32) * apply(x, p)), argnums=(0, 1))(x32, params)
  np.testing.assert_allclose(grads[0], pull @ kernel.T, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(grads[1]["kernel"], x.T @ pull, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(grads[1]["bias"], pull.sum(axis=0), rtol=1e-5, atol=1e-6)


def test_initialisation_fills_plus_minus_one_over_root_fan_in():
  for fan_in in (6, 64):
    params = Linear(500).init(jax.random.key(1), jnp.zeros((1, fan_in)))["params"]
    bound = fan_in ** -0.5
    for leaf in (np.asarray(params["kernel"], np.float64).ravel(), np.asarray(params["bias"], np.float64)):
      assert np.abs(leaf).max() <= bound * (1 + 1e-6)
      # 500 uniform draws at least: all of them stay below 0.9 of the bound with chance 0.95^500 < 1e-11; the mean is
      # within 8 standard errors of 0.
      assert leaf.max() > 0.9 * bound and leaf.min() < -0.9 * bound
      assert abs(leaf.mean()) < 8 * bound / np.sqrt(3 * leaf.size)
