"""Random numbers: named streams, and the project's own normal and Bernoulli draws against their distributions.

False alarms: keys are fixed, so unchanged code goes on passing; for changed code that is right, each statistical bound
of this file fails with a chance below 1e-7.
"""

import functools

import jax
import numpy as np
import pytest
from scipy import stats

from jaxtrain import rng

NUM = 200_001  # odd, so that the draws are cut
BOUND = stats.norm.isf(1e-8)


@functools.partial(jax.jit, static_argnums=1)
def normal(key, shape):
  return rng.normal(key, shape)


@functools.partial(jax.jit, static_argnums=(1, 2))
def bernoulli(key, rate, shape):
  return rng.bernoulli(key, rate, shape)


def test_streams_and_steps_have_keys_of_their_own():
  data = lambda key: tuple(jax.random.key_data(key).tolist())
  keys = [data(rng.key_for(seed, stream)) for seed in (0, 1) for stream in rng.STREAMS]
  keys += [data(rng.step_key(rng.key_for(0, "train"), t)) for t in range(20)]
  assert len(set(keys)) == len(keys)
  assert data(rng.key_for(3, "eval")) == data(rng.stream_key(rng.root_key(3), "eval"))
  keys = [data(key) for part in ("val", "test") for key in rng.evaluation_keys(rng.root_key(0), part)]
  keys += [data(rng.key_for(0, stream)) for stream in ("data", "train", "report", "assess_val", "assess_test")]
  assert len(set(keys)) == len(keys)
  with pytest.raises(ValueError):
    rng.stream_key(rng.root_key(0), "training")


def test_normal_numbers_are_standard_normal():
  x = np.asarray(normal(rng.key_for(0, "train"), (NUM,)), np.float64)
  assert stats.kstest(x, "norm").pvalue > 1e-8
  half = -(-NUM // 2)  # the two halves come from different keys
  pairs = x[:NUM - half] * x[half:]
  assert abs(pairs.mean()) * np.sqrt(len(pairs)) < BOUND
  neighbours = x[1:] * x[:-1]
  assert abs(neighbours.mean()) * np.sqrt(len(neighbours)) < BOUND


@pytest.mark.parametrize("shape", [(1,), (5, 3)])
def test_draws_have_the_shape_asked_for(shape):
  drawn, decided = normal(jax.random.key(0), shape), bernoulli(jax.random.key(0), 0.5, shape)
  assert drawn.shape == decided.shape == shape and drawn.dtype == np.float32 and decided.dtype == bool


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.7, 0.999])
def test_bernoulli_meets_its_rate_and_is_independent(rate):
  x = np.asarray(bernoulli(rng.key_for(1, "train"), rate, (NUM,)), np.float64)
  deviation = np.sqrt(rate * (1 - rate) / NUM)
  assert abs(x.mean() - rate) < BOUND * deviation + 2.0 ** -17
  half = -(-NUM // 2)
  for a, b in ((x[:NUM - half], x[half:]), (x[1:], x[:-1])):
    covariance = ((a - rate) * (b - rate)).mean()
    assert abs(covariance) < BOUND * rate * (1 - rate) / np.sqrt(len(a)) + 1e-4


@pytest.mark.parametrize("rate, want", [(0.0, 0.0), (1.0, 1.0)])
def test_bernoulli_of_certain_rates(rate, want):
  np.testing.assert_array_equal(bernoulli(jax.random.key(2), rate, (1001,)), want)
