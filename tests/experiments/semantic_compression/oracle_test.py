"""Golden values of the bounds, and reverse water-filling against independent code and its own conditions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from jaxtrain.experiments.semantic_compression import generators, oracle
from jaxtrain.experiments.semantic_compression.schema import AGENT15, GOALS

SOURCE = generators.entropies("independent")


@pytest.mark.parametrize("share,bound,scalar", [(0.05, 22.60, 24.89), (0.02, 34.50, 36.79), (0.01, 43.50, 45.79),
                                                (0.005, 52.50, 54.79)])
def test_lines_of_the_independent_source(share, bound, scalar):
  """The published table of bits per state at an error of each field that is a share of its range."""
  rmse = oracle.rmse_of_shares(AGENT15, share)
  assert round(oracle.shannon_bits(SOURCE, rmse), 2) == bound
  assert round(oracle.scalar_bits(SOURCE, rmse), 2) == scalar
  assert oracle.excess_bits(scalar + 1, SOURCE, rmse) == pytest.approx(1, abs=0.01)


def test_the_scalar_line_is_that_of_a_scalar_quantiser():
  """A field in 30 equal cells, ideal coding by their counts: entropy and error are measured, not assumed.

  The plug-in entropy of 1,000,000 values in 30 cells is 2e-5 bit too low, and the error is off by 1e-3 of itself.
  """
  values = generators.draw("independent", 1_000_000, 5)["total_reward"]
  cell = np.floor((values + 50) / 5)
  counts = np.unique(cell, return_counts=True)[1]
  rmse = np.sqrt(np.mean((values - (5 * cell - 47.5)) ** 2))
  line = oracle.field_bits(SOURCE, {name: rmse for name in SOURCE.continuous}, oracle.STEP_BITS)["total_reward"]
  assert abs(oracle.entropy_bits(counts / counts.sum()) - line) < 0.005


def test_lines_never_fall_below_zero_nor_above_an_integers_entropy():
  rmse = oracle.rmse_of_shares(AGENT15, 10.0)
  symbols = sum(SOURCE.discrete.values())
  assert oracle.shannon_bits(SOURCE, rmse) == oracle.scalar_bits(SOURCE, rmse) == pytest.approx(symbols)
  exact = oracle.rmse_of_shares(AGENT15, 0.01) | {"age": 0.0}
  assert oracle.field_bits(SOURCE, exact, oracle.STEP_BITS)["age"] == pytest.approx(np.log2(501))


def test_wrong_symbols_cost_less():
  """R(D) of a Bernoulli source and of a uniform one: 1 - H(0.11) = 0.5 bit; all of it may be wrong for nothing."""
  assert oracle.discrete_bits(1.0, 0.11002786, 2) == pytest.approx(0.5, abs=1e-6)
  assert oracle.discrete_bits(oracle.entropy_bits([0.3, 0.7]), 0.3, 2) == pytest.approx(0, abs=1e-12)
  assert oracle.discrete_bits(np.log2(5), 0.8, 5) == pytest.approx(0, abs=1e-12)
  assert oracle.discrete_bits(np.log2(5), 0.99, 5) == pytest.approx(0, abs=1e-12)
  rmse = oracle.rmse_of_shares(AGENT15, 0.01)
  less = oracle.scalar_bits(SOURCE, rmse) - oracle.scalar_bits(SOURCE, rmse, {"role": 0.01})
  assert less == pytest.approx(oracle.entropy_bits([0.01, 0.99]) + 0.01 * 2, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=5, max_size=41).filter(lambda w: sum(w) > 0.1))
def test_no_integer_has_more_bits_than_the_bound_at_its_mean_square(weights):
  p, k = np.array(weights) / sum(weights), np.arange(len(weights)) - 2
  assert oracle.entropy_bits(p) <= oracle.most_integer_bits((p @ k**2)**0.5) + 1e-9


@pytest.mark.parametrize("b", [0.02, 0.5, 3.0, 15.0])
def test_the_bound_of_integers_is_met_by_a_discrete_normal(b):
  p = np.exp(-b * np.arange(-60, 61.0)**2)
  p /= p.sum()
  assert oracle.most_integer_bits((p @ np.arange(-60, 61.0)**2)**0.5) == pytest.approx(oracle.entropy_bits(p), abs=1e-9)
  assert oracle.most_integer_bits(8.001) == pytest.approx(oracle.most_integer_bits(8.0), abs=1e-3)
  assert oracle.most_integer_bits(0.0) == 0 and oracle.most_integer_bits(1e-9) < 1e-15


def blahut_arimoto(p, beta):
  """(R in bits, mean squared error) of a source p [K] on 0 .. K - 1 that comes back as integers, at a slope beta."""
  k = np.arange(len(p))
  kernel, q = np.exp(-beta * (k[:, None] - k)**2), np.full(len(p), 1 / len(p))
  for _ in range(2000):
    channel = kernel * q
    channel /= channel.sum(axis=1, keepdims=True)
    q = p @ channel
  joint = p[:, None] * channel
  rate = (joint * np.log2(np.maximum(channel, 1e-300) / np.maximum(q, 1e-300))).sum()
  return rate, (joint * (k[:, None] - k)**2).sum()


def test_counts_cost_less_where_they_come_back_wrong():
  """Never more than R(D) of a count by Blahut & Arimoto's algorithm, and as much where errors are few."""
  known = generators.entropies("independent", ("inventory",))
  p = np.full(21, 0.5 / 21) + 0.5 * (np.arange(21) == 0)
  for beta, below in ((0.02, 1.4), (0.3, 1.0), (2.0, 0.5), (6.0, 0.02)):
    rate, distortion = blahut_arimoto(p, beta)
    rmse = dict.fromkeys((*known.continuous, *known.integer), distortion**0.5)
    line = oracle.field_bits(known, rmse, oracle.STEP_BITS)["inventory_food"]
    assert rate - below < line <= rate + 1e-6
  exact = dict.fromkeys(rmse, 0.0)
  assert oracle.field_bits(known, exact, oracle.STEP_BITS)["inventory_food"] == pytest.approx(oracle.entropy_bits(p))


def test_goals_cost_less_where_they_come_back_wrong():
  """Never more than what goals tell of themselves through a channel that turns each of the eight bits with its rate."""
  known = generators.entropies("independent", ("goals",))
  sets = np.array([[mask >> k & 1 for k in range(8)] for mask in range(256)])
  count = sets.sum(axis=1)
  p = np.where((count > 0) & (count < 4), 1 / 3 / np.array([math.comb(8, n) for n in count]), 0)
  rate = np.array([0.001, 0.01, 0.02, 0.0, 0.05, 0.001, 0.03, 0.01])
  channel = np.prod(np.where(sets[:, None] != sets[None], rate, 1 - rate), axis=2)
  joint = p[:, None] * channel
  told = oracle.entropy_bits(joint.sum(axis=0)) + oracle.entropy_bits(p) - oracle.entropy_bits(joint.ravel())
  wrong = dict(zip(known.parts["goals"], rate))
  assert list(wrong) == [f"goal_{goal}" for goal in GOALS]
  found = oracle.symbol_bits(known, wrong)["goals"]
  assert told - 0.5 < found <= told
  by_hand = oracle.entropy_bits(p) - sum(-r * np.log2(r) - (1 - r) * np.log2(1 - r) for r in rate if r)
  assert found == pytest.approx(by_hand)
  assert oracle.symbol_bits(known, dict.fromkeys(wrong, 0.0))["goals"] == pytest.approx(known.discrete["goals"])
  assert oracle.symbol_bits(known, dict.fromkeys(wrong, 0.9))["goals"] == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12), st.floats(1e-6, 1.2), st.data())
def test_water_filling_meets_its_conditions(variances, share, data):
  """The budget is used; D_i is the level over the weight, or the variance where that is smaller."""
  variances = np.asarray(variances)
  weights = np.asarray(data.draw(st.lists(st.floats(1e-3, 1e3), min_size=len(variances), max_size=len(variances))))
  whole = (weights * variances).mean()
  errors = oracle.water_fill(variances, share * whole, weights)
  assert np.mean(weights * errors) == pytest.approx(min(share, 1) * whole, rel=1e-9)
  assert (errors <= variances * (1 + 1e-12)).all()
  wet = errors < variances * (1 - 1e-9)
  if wet.any():
    level = (weights * errors)[wet].max()
    np.testing.assert_allclose((weights * errors)[wet], level, rtol=1e-9)
    assert ((weights * variances)[~wet] <= level * (1 + 1e-9)).all()


def test_rate_of_a_gaussian_vector_by_bisection():
  """R(D) of 16 correlated dimensions against a root of sum min(level, eigenvalue) = 16 D found by scipy."""
  values = np.linalg.eigvalsh(generators.autoregressive_covariance(16, 0.9))
  for distortion in (0.001, 0.03, 0.2, 0.7):
    level = optimize.brentq(lambda t: np.minimum(t, values).mean() - distortion, 1e-9, values.max())
    want = 0.5 * np.log2(np.maximum(values / level, 1)).sum()
    assert oracle.gaussian_rate_distortion(values, distortion) == pytest.approx(want, rel=1e-9)
  assert [oracle.gaussian_rate_distortion(values, most) for most in (1.0, 2.0)] == pytest.approx([0, 0], abs=1e-12)
  assert oracle.gaussian_rate_distortion(np.ones(16), 1 / 16) == pytest.approx(32)
  for bad in ((np.ones(2), 0.0, None), (np.ones(2), 0.1, np.zeros(2)), (-np.ones(2), 0.1, None)):
    with pytest.raises(ValueError, match="water_fill"):
      oracle.water_fill(*bad)
