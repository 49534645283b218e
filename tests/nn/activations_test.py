"""GELU against its formula in float64."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from jaxtrain.nn import activations

X = np.concatenate([np.linspace(-12, 12, 401), [0.0, -0.0, 1e-30, -80.0, 80.0]])


def test_gelu_is_its_formula():
  found = activations.gelu(jnp.asarray(X, jnp.float32))
  np.testing.assert_allclose(found, X * stats.norm.cdf(X), rtol=1e-5, atol=3e-6)


def test_its_gradient_is_the_derivative():
  found = jax.grad(lambda x: jnp.sum(activations.gelu(x) * jnp.arange(1.0, len(X) + 1)))(jnp.asarray(X, jnp.float32))
  wanted = stats.norm.cdf(X) + X * stats.norm.pdf(X)
  np.testing.assert_allclose(found / np.arange(1, len(X) + 1), wanted, rtol=1e-5, atol=3e-6)
  assert np.isfinite(found).all()


def test_types_are_kept():
  low = jnp.ones(3, jnp.bfloat16)
  assert activations.gelu(low).dtype == jax.grad(lambda x: jnp.sum(activations.gelu(x)))(low).dtype == jnp.bfloat16
