"""Simulated states: their distributions, and stated entropies against quadrature and Monte Carlo.

A bound of 5 standard errors gives a false alarm in two million; seeds are fixed.
"""

import itertools
import math
import re

import numpy as np
import pytest
from scipy import stats

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import generators, schema
from jaxtrain.experiments.semantic_compression.schema import AGENT15, GOALS, ITEMS

N = 200_000
DRAWN = generators.draw("independent", N, 0, ("inventory", "goals"))
BITS = generators.entropies("independent", ("inventory", "goals"))


def near(found, want, deviation, count=N):
  """Within 5 standard errors."""
  assert abs(found - want) < 5 * deviation / count ** 0.5, (found, want)


@pytest.mark.parametrize("name,low,high", [
    ("position_x", -100, 100), ("position_y", -100, 100), ("position_z", -10, 10), ("health", 0.1, 1),
    ("energy", 0.2, 1), ("resource_level", 0, 1), ("total_reward", -50, 100)])
def test_uniform_fields(name, low, high):
  """Kolmogorov-Smirnov at p = 1e-6, and the closed form log2(high - low)."""
  assert stats.kstest(DRAWN[name], stats.uniform(low, high - low).cdf).pvalue > 1e-6
  assert BITS.continuous[name] == pytest.approx(math.log2(high - low))


def test_other_fields():
  ratio = DRAWN["current_health"] / DRAWN["health"]
  assert stats.kstest(ratio, "uniform").pvalue > 1e-6 and abs(np.corrcoef(ratio, DRAWN["health"])[0, 1]) < 5 / N ** 0.5
  near(DRAWN["is_defending"].mean(), 0.3, 0.46)
  assert stats.chisquare(np.bincount(DRAWN["role"], minlength=5)).pvalue > 1e-6
  assert stats.chisquare(np.bincount(DRAWN["age"], minlength=501)).pvalue > 1e-6 and len(np.unique(DRAWN["age"])) == 501
  assert DRAWN["step_number"].max() == 1000 and DRAWN["agent_id"].tolist() == list(range(N))


def test_fields_are_independent():
  """Correlations of all pairs but health and current_health: 66 tests of 5 standard errors."""
  x = np.delete(schema.encode(AGENT15, DRAWN).astype(np.float64), [6, 14], axis=1)
  found = np.corrcoef(x, rowvar=False)[:9, :9]
  assert np.abs(found[~np.eye(9, dtype=bool)]).max() < 5 / N ** 0.5


def test_entropy_of_current_health_given_health():
  """-1.0736 bits: by quadrature of log2 over (0.1, 1), and as a mean of log2 health over the states."""
  node, weight = np.polynomial.legendre.leggauss(50)
  assert BITS.continuous["current_health"] == pytest.approx((weight * np.log2(0.55 + 0.45 * node)).sum() / 2, abs=1e-12)
  assert BITS.continuous["current_health"] == pytest.approx(-1.0736, abs=1e-4)
  near(np.log2(DRAWN["health"]).mean(), BITS.continuous["current_health"], 0.9)


def test_counts_and_goals():
  """Entropies against an enumeration of all sets, and against the frequencies of 200,000 states.

  A plug-in entropy of K cells is (K - 1) / (2 N ln 2) too low: below 0.0004 bit here.
  """
  counts = DRAWN["inventory_food"]
  one = np.bincount(counts, minlength=21) / N
  near(one[0], 0.5 + 0.5 / 21, 0.5)
  assert -(one * np.log2(one)).sum() == pytest.approx(BITS.integer["inventory_food"], abs=0.01)
  assert {f"inventory_{item}" for item in ITEMS} < set(BITS.integer)
  p = {chosen: 1 / (3 * math.comb(8, n)) for n in (1, 2, 3) for chosen in itertools.combinations(range(8), n)}
  assert sum(p.values()) == pytest.approx(1)
  assert BITS.discrete["goals"] == pytest.approx(-sum(q * math.log2(q) for q in p.values()))
  bits = np.stack([DRAWN[f"goal_{goal}"] for goal in GOALS], axis=1)
  numbers = np.bincount(bits.sum(axis=1), minlength=4)
  assert numbers[0] == 0 and stats.chisquare(numbers[1:4]).pvalue > 1e-6
  cells = np.bincount(bits @ (1 << np.arange(8)), minlength=256) / N
  assert -(cells[cells > 0] * np.log2(cells[cells > 0])).sum() == pytest.approx(BITS.discrete["goals"], abs=0.01)


def test_a_seed_fixes_the_states_and_blocks_leave_the_others_alone():
  plain = generators.draw("independent", 100, 7)
  with_goals = generators.draw("independent", 100, 7, ("goals",))
  for name, values in plain.items():
    np.testing.assert_array_equal(values, with_goals[name])
  assert (generators.draw("independent", 100, 8)["role"] != plain["role"]).any()
  extended = schema.with_blocks(AGENT15, ("goals",))
  assert schema.encode(extended, with_goals).shape == (100, 23)


def test_gaussian_vectors():
  """Each entry of the covariance within 5 errors, whose deviation is at most sqrt(2)."""
  covariance = generators.autoregressive_covariance(16, 0.8)
  assert covariance[0, 2] == pytest.approx(0.64)
  found = generators.gaussian(covariance, N, 0)
  near(np.abs(found.T @ found / N - covariance).max(), 0, 2 ** 0.5)
  with pytest.raises(ValueError, match="negative eigenvalue"):
    generators.gaussian(np.diag([1.0, -1.0]), 5, 0)


def test_refused():
  with pytest.raises(UserError, match=re.escape("config.data.source: got 'random', allowed independent")):
    generators.draw("random", 5, 0)
  with pytest.raises(UserError, match=re.escape("config.data.blocks: got 'extras', allowed inventory, goals")):
    generators.draw("independent", 5, 0, ("extras",))
