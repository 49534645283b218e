"""Clustered states: their stated entropies against Monte Carlo over densities that scipy computes.

A bound of 5 standard errors gives a false alarm in two million; seeds are fixed.
"""

import numpy as np
import pytest
from scipy import stats

from jaxtrain.experiments.semantic_compression import generators, schema
from jaxtrain.experiments.semantic_compression.schema import AGENT15

N = 100_000
DRAWN = generators.draw("correlated", N, 0, spread=10.0)
BITS = generators.entropies("correlated", spread=10.0)


def log_densities(d):
  """ln p of each field given its parents, [N] by name, from the description of the source."""
  angle = 2 * np.pi * d["role"] / 5
  s, t = (d["health"] - 0.1) / 0.9, (d["energy"] - 0.2) / 0.8
  pay = np.array([-20, -10, 0, 10, 20.0])[d["role"]] + d["age"] / 10
  defends = np.array([0.1, 0.1, 0.8, 0.4, 0.1])[d["role"]]
  uniform = lambda name, low, width: stats.uniform(low, width).logpdf(d[name])
  return {"position_x": stats.norm(60 * np.cos(angle), 10).logpdf(d["position_x"]),
          "position_y": stats.norm(60 * np.sin(angle), 10).logpdf(d["position_y"]),
          "position_z": stats.norm(0, 10 / 6).logpdf(d["position_z"]), "health": uniform("health", 0.1, 0.9),
          "energy": uniform("energy", 0.2 + 0.4 * s, 0.4 + 1e-12),
          "resource_level": uniform("resource_level", t / 2, 0.5 + 1e-12),
          "current_health": uniform("current_health", d["health"] / 2, d["health"] / 2 + 1e-12),
          "total_reward": stats.norm(pay, 8).logpdf(d["total_reward"]),
          "is_defending": stats.bernoulli(defends).logpmf(d["is_defending"])}


def test_entropies():
  """Monte Carlo, 5 standard errors; where all densities are equal, a rounding error."""
  for name, log_density in log_densities(DRAWN).items():
    bits = -log_density / np.log(2)
    want = (BITS.continuous | BITS.discrete)[name]
    assert abs(bits.mean() - want) < 5 * bits.std() / N ** 0.5 + 1e-9, (name, bits.mean(), want)
  assert set(BITS.continuous) | set(BITS.discrete) == set(AGENT15.column)
  assert (BITS.continuous["age"], BITS.integer["age"]) == pytest.approx((np.log2(500), np.log2(501)))
  assert BITS.discrete["role"] == pytest.approx(np.log2(5))


def test_roles_and_ages_are_uniform_and_states_can_be_encoded():
  assert stats.chisquare(np.bincount(DRAWN["role"], minlength=5)).pvalue > 1e-6
  assert stats.chisquare(np.bincount(DRAWN["age"], minlength=501)).pvalue > 1e-6
  x = schema.encode(AGENT15, DRAWN)
  assert np.abs(x[:, AGENT15.numeric]).max() < 0.75
  assert abs(np.corrcoef(DRAWN["health"], DRAWN["energy"])[0, 1] - 0.5 ** 0.5) < 0.02
