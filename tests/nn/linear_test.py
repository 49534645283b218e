"""The affine layer: value, gradient, and the bounds of its initialisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.nn.linear import Linear


@pytest.mark.parametrize("D, F", [(3, 2), (2, 3), (3, 3)])
def test_value_and_gradient(D, F):
  random = np.random.RandomState(0)
  x, kernel, bias, pull = (random.normal(size=s) for s in ((5, D), (D, F), (F,), (5, F)))
  stored = lambda k: k if D <= F else k.T  # the longer side is last
  float32 = lambda tree: jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tree)
  x32, params = float32(x), float32({"kernel": stored(kernel), "bias": bias})

  @jax.jit
  def run(x, params):
    y, pull_back = jax.vjp(lambda x, p: Linear(F).apply({"params": p}, x), x, params)
    return y, *pull_back(pull.astype(np.float32))

  y, dx, grads = run(x32, params)
  close = lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
  close(y, x @ kernel + bias)
  close(dx, pull @ kernel.T)
  close(grads["kernel"], stored(x.T @ pull))
  close(grads["bias"], pull.sum(axis=0))


def test_initialisation_fills_plus_minus_one_over_root_fan_in():
  for fan_in in (6, 64):
    params = jax.jit(lambda key: Linear(500).init(key, jnp.zeros((1, fan_in))))(jax.random.key(1))["params"]
    bound = fan_in ** -0.5
    for leaf in (np.asarray(params["kernel"], np.float64).ravel(), np.asarray(params["bias"], np.float64)):
      assert np.abs(leaf).max() <= bound * (1 + 1e-6)
      # 500 uniform draws at least: all of them stay below 0.9 of the bound with chance 0.95^500 < 1e-11; the mean is
      # within 8 standard errors of 0.
      assert leaf.max() > 0.9 * bound and leaf.min() < -0.9 * bound
      assert abs(leaf.mean()) < 8 * bound / np.sqrt(3 * leaf.size)
