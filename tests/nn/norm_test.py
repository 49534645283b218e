"""BatchNorm against NumPy float64: statistics of the real rows, running update, gradient, evaluation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.nn.norm import BatchNorm

B, D = 9, 4


def problem(num_real=6, seed=0):
  """x and weights with real and padding rows mixed, parameters and running statistics; float64."""
  random = np.random.RandomState(seed)
  weight = np.zeros(B)
  weight[random.permutation(B)[:num_real]] = 1
  x = random.normal([0, 3, -20, 0.1], [1, 2, 5, 0.03], (B, D))
  params = {"scale": random.uniform(0.5, 2, D), "bias": random.normal(size=D)}
  stats = {"mean": random.normal(size=D), "var": random.uniform(0.5, 2, D)}
  return x, weight, params, stats


@functools.partial(jax.jit, static_argnames=("train",))
def run(x, weight, params, stats, train):
  """(y, new running statistics) of the module; float32."""
  x, weight, params, stats = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (x, weight, params, stats))
  y, new = BatchNorm().apply({"params": params, "batch_stats": stats}, x, weight, train, mutable=["batch_stats"])
  return y, new["batch_stats"]


def reference(x, weight, params, stats):
  """Ioffe & Szegedy 2015, algorithm 1, over the real rows; running update as PyTorch's BatchNorm1d (momentum 0.1)."""
  real = x[weight == 1]
  n, mean = len(real), real.mean(axis=0)
  biased = ((real - mean) ** 2).mean(axis=0)
  y = (x - mean) / np.sqrt(biased + 1e-5) * params["scale"] + params["bias"]
  unbiased = ((real - mean) ** 2).sum(axis=0) / (n - 1)
  return y, {"mean": 0.9 * stats["mean"] + 0.1 * mean, "var": 0.9 * stats["var"] + 0.1 * unbiased}


@pytest.mark.parametrize("num_real", [2, 6, B])
def test_training_normalises_by_the_biased_and_remembers_the_unbiased_variance(num_real):
  x, weight, params, stats = problem(num_real)
  y, new = run(x, weight, params, stats, True)
  want, want_stats = reference(x, weight, params, stats)
  real = weight == 1
  np.testing.assert_allclose(np.asarray(y)[real], want[real], rtol=2e-4, atol=2e-5)
  for name in new:
    np.testing.assert_allclose(new[name], want_stats[name], rtol=1e-5)


def test_values_of_padding_rows_change_nothing():
  x, weight, params, stats = problem()
  y, new = run(x, weight, params, stats, True)
  other = np.where(weight[:, None] == 1, x, 1e4 * np.random.RandomState(9).normal(size=x.shape))
  y_other, new_other = run(other, weight, params, stats, True)
  real = weight == 1
  np.testing.assert_array_equal(np.asarray(y)[real], np.asarray(y_other)[real])
  jax.tree.map(np.testing.assert_array_equal, new, new_other)
  # and they are as if they were not there
  alone, new_alone = run(x[real], np.ones(6), params, stats, True)
  np.testing.assert_allclose(np.asarray(y)[real], alone, rtol=1e-5, atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), new, new_alone)


def test_evaluation_uses_and_keeps_the_running_statistics():
  x, weight, params, stats = problem()
  y, new = run(x, weight, params, stats, False)
  want = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]
  np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
  for name in stats:
    np.testing.assert_array_equal(new[name], stats[name].astype(np.float32))


def test_a_chunk_of_padding_alone_stays_finite():
  x, weight, params, stats = problem()
  def loss(x, params):
    y, new = run(x, np.zeros(B), params, stats, True)
    return jnp.sum(np.zeros(B) @ y), new
  (_, new), grads = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(jnp.asarray(x, jnp.float32), params)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((new, grads)))


def test_gradient_equals_finite_differences():
  """Of a loss over the real rows."""
  x, weight, params, _ = problem()
  stats = {"mean": np.zeros(D), "var": np.ones(D)}
  pull = np.random.RandomState(3).normal(size=(B, D)) * weight[:, None]
  float32 = lambda tree: jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tree)
  loss64 = lambda x, params: float((pull * np.sin(reference(x, weight, params, stats)[0])).sum())
  loss32 = lambda x, params: jnp.sum(float32(pull) * jnp.sin(run(x, weight, params, stats, True)[0]))
  dx, dparams = jax.grad(loss32, argnums=(0, 1))(float32(x), float32(params))
  step = 1e-6
  for i in range(B):
    for d in range(D):
      up, down = x.copy(), x.copy()
      up[i, d] += step
      down[i, d] -= step
      want = (loss64(up, params) - loss64(down, params)) / (2 * step)
      assert float(dx[i, d]) == pytest.approx(want, rel=2e-3, abs=2e-4), (i, d)
  for name in params:
    for d in range(D):
      nudge = lambda by: params | {name: params[name] + by * np.eye(D)[d]}
      want = (loss64(x, nudge(step)) - loss64(x, nudge(-step))) / (2 * step)
      assert float(dparams[name][d]) == pytest.approx(want, rel=1e-3, abs=1e-4), (name, d)
  np.testing.assert_array_equal(np.asarray(dx)[weight == 0], 0.0)


def test_parameters_start_as_the_identity_and_initialising_moves_no_statistics():
  x, weight, _, _ = problem()
  variables = BatchNorm().init(jax.random.key(0), jnp.asarray(x, jnp.float32), jnp.asarray(weight, jnp.float32), True)
  np.testing.assert_array_equal(variables["params"]["scale"], 1.0)
  np.testing.assert_array_equal(variables["params"]["bias"], 0.0)
  np.testing.assert_array_equal(variables["batch_stats"]["mean"], 0.0)
  np.testing.assert_array_equal(variables["batch_stats"]["var"], 1.0)


def test_half_precision_keeps_its_dtype_and_float32_statistics():
  x, weight, params, stats = problem()
  x = jnp.asarray(x, jnp.bfloat16)
  variables = {"params": params, "batch_stats": stats}
  variables = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), variables)
  y, new = BatchNorm().apply(variables, x, jnp.asarray(weight, jnp.float32), True, mutable=["batch_stats"])
  assert y.dtype == jnp.bfloat16 and new["batch_stats"]["var"].dtype == jnp.float32
  want, want_stats = reference(np.asarray(x, np.float64), weight, params, stats)
  np.testing.assert_allclose(np.asarray(y, np.float64)[weight == 1], want[weight == 1], rtol=0.01, atol=0.02)
  np.testing.assert_allclose(new["batch_stats"]["mean"], want_stats["mean"], rtol=1e-5)


def test_padding_rows_are_not_blown_up_where_real_rows_do_not_vary():
  x = jnp.asarray([[0.0], [0.0], [1.0]])
  params, stats = {"scale": np.ones(1), "bias": np.full(1, 0.5)}, {"mean": np.zeros(1), "var": np.ones(1)}
  y, _ = run(x, np.array([1.0, 1.0, 0.0]), params, stats, True)
  np.testing.assert_allclose(y[:2, 0], 0.5)
  assert abs(float(y[2, 0])) < 10
