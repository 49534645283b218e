"""The tables of logistic distributions against scipy in float64."""

import numpy as np
import pytest
from scipy.special import expit

from jaxtrain.experiments.semantic_compression import logistic
from jaxtrain.experiments.semantic_compression.tables import TOTAL


def test_sigma_is_the_logistic_function():
  """Within 2**-28 for all arguments, also those whose exponential is 0."""
  t = np.unique(np.concatenate([np.arange(-40, 41) << 19, np.random.default_rng(0).integers(-2 ** 45, 2 ** 45, 5000),
                                np.random.default_rng(1).integers(-2 ** 24, 2 ** 24, 20_000)]))
  assert np.abs(logistic.sigma(t) / 2.0 ** 31 - expit(t / 2.0 ** 19)).max() < 2.0 ** -28


@pytest.mark.parametrize("index", (0, 7, 8, 19, 31))
def test_counts_are_those_of_the_distribution(index):
  """Each probability within 1e-6 and 2e-4 of itself; the support has all but 2 exp(-12) of it."""
  s = 2.0 ** ((index - 8) / 3)
  R = logistic.radius(index)
  assert 12 * s <= R <= 12 * s + 2.01
  for fraction in range(8):
    counts, k = logistic.counts(index, fraction), np.arange(-R, R + 1) - fraction / 8
    want = expit((k + 0.5) / s) - expit((k - 0.5) / s)
    assert counts.sum(dtype=np.uint64) == TOTAL and counts.min() >= 1 and len(counts) == 2 * R + 2
    np.testing.assert_allclose(counts[:-1] / TOTAL, want, atol=1e-6, rtol=2e-4)
    assert counts[-1] / TOTAL <= 2 * np.exp(-12) + 1e-6


def test_the_number_of_a_table():
  """Table 8 i + f is that of scale i and fraction f."""
  lookup = logistic.lookup()
  first, stop = lookup.first[8 * 11 + 3], lookup.first[8 * 11 + 4]
  assert (lookup.counts[first:stop] == logistic.counts(11, 3)).all()
  assert logistic.radii()[11] == logistic.radius(11)


def test_the_cost_of_a_scale_between_two():
  """A distribution whose scale is the worst there is between two indices costs less than 0.015 bit more."""
  s, k = 2.0 ** ((16.5 - 8) / 3), np.arange(-logistic.radius(16), logistic.radius(16) + 1)
  p = expit((k + 0.5) / s) - expit((k - 0.5) / s)
  for index in (16, 17):
    beyond = logistic.radius(index) - logistic.radius(16)
    q = logistic.counts(index, 0)[beyond:-1 - beyond] / TOTAL
    assert (p * np.log2(p / q)).sum() < 0.015
