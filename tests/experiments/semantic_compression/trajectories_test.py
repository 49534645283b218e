"""Moving agents: their dynamics, and the entropy rate against Monte Carlo over densities from another formula.

The density of a folded normal step is here the cosine series of the heat equation with reflecting ends,
1 + 2 sum_k exp(-(k pi s)^2 / 2) cos(k pi m) cos(k pi y); the package sums mirror images. Bounds are 5 standard errors,
a false alarm in two million; seeds are fixed.
"""

import re

import numpy as np
import pytest
from scipy import stats

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import generators, oracle, schema, trajectories
from jaxtrain.experiments.semantic_compression.schema import AGENT15

A, T = 1_000, 50
PARAMETERS = dict(num_steps=T, step_std=6.0)
DRAWN = generators.draw("trajectory", A * T, 0, **PARAMETERS)
RATE = generators.entropies("trajectory", **PARAMETERS)


def steps(name):
  """[A, T - 1] before and after each step."""
  values = DRAWN[name].reshape(A, T)
  return values[:, :-1], values[:, 1:]


def series_bits(y, m, s):
  """-log2 of the density of fold(m + s e, 0, 1) at y, by its cosine series."""
  terms = int(np.ceil(8 / (np.pi * np.min(s)))) + 2
  density = np.ones(np.broadcast_shapes(np.shape(y), np.shape(m)))
  for k in range(1, terms):
    density += 2 * np.exp(-0.5 * (k * np.pi * s) ** 2) * np.cos(k * np.pi * m) * np.cos(k * np.pi * y)
  return -np.log2(np.maximum(density, 1e-300))


def near(values, want):
  """The mean of values of agents within 5 standard errors of agents' means; steps of one agent depend on each other."""
  means = values.reshape(A, -1).mean(axis=1)
  assert abs(means.mean() - want) < 5 * means.std() / A ** 0.5 + 1e-9, (means.mean(), want)


@pytest.mark.parametrize("name,step", [("position_x", 6.0), ("position_z", 0.6), ("health", 0.027),
                                       ("energy", 0.024), ("resource_level", 0.03)])
def test_folded_walks(name, step):
  """Uniform at every step, and the entropy of a step; of z the default deviation is 3 % of its range, as of x."""
  column = AGENT15.column[name]
  width = column.high - column.low
  before, after = ((values - column.low) / width for values in steps(name))
  for at in (before[:, 0], after[:, -1]):
    assert stats.kstest(at, "uniform").pvalue > 1e-6
  near(series_bits(after, before, step / width) + np.log2(width), RATE.continuous[name])
  assert RATE.continuous[name] < np.log2(step) + oracle.GAUSSIAN_BITS


def test_current_health():
  """f = current_health / health: its kernel, its entropy given the state before, and that it is stationary."""
  (h0, h1), (c0, c1) = steps("health"), steps("current_health")
  f0, f1 = c0 / h0, c1 / h1
  mean = f0 + 0.1 * (1 - f0) - 0.04
  near(series_bits(f1, mean, 0.06) + np.log2(h1), RATE.continuous["current_health"])
  assert stats.ks_2samp(f0[:, 0], f1[:, -1]).pvalue > 1e-6
  middle = (f0 > 0.4) & (f0 < 0.7)
  assert np.std((f1 - mean)[middle]) == pytest.approx(0.06, rel=0.02)


@pytest.mark.slow
def test_the_first_state_of_an_agent():
  """Of all fields but current_health in closed form; its share of health by a histogram of 40 cells of 200,000 agents,
  whose plug-in entropy is 1.4e-4 bit too low, and which is as smooth as its cells are fine: 2e-3.
  """
  found = generators.start_entropies(("goals",), **PARAMETERS)
  for name, width in (("position_x", 200), ("position_z", 20), ("health", 0.9), ("energy", 0.8), ("resource_level", 1),
                      ("total_reward", 75), ("age", 451)):
    assert found.continuous[name] == pytest.approx(np.log2(width))
  assert found.integer == {"age": found.continuous["age"]} and found.discrete["role"] == pytest.approx(np.log2(5))
  assert found.discrete["is_defending"] == pytest.approx(-0.3 * np.log2(0.3) - 0.7 * np.log2(0.7))
  assert len(found.parts["goals"]) == 8 and set(found.continuous) == {*RATE.continuous, "age"}
  start = DRAWN["age"].reshape(A, T)[:, 0]
  assert start.min() >= 0 and start.max() <= 450
  one = generators.draw("trajectory", 200_000, 1, num_steps=1)
  p = np.histogram(one["current_health"] / one["health"], 40, (0, 1))[0] / 200_000
  want = -(p[p > 0] * np.log2(40 * p[p > 0])).sum() - 1.0736  # E log2 of U(0.1, 1)
  assert found.continuous["current_health"] == pytest.approx(want, abs=5e-3)
  assert found.continuous["current_health"] > RATE.continuous["current_health"] + 1


def test_a_decoders_error_widens_the_innovation():
  """Of current_health by Monte Carlo over health, which the error of the share of health depends on."""
  error = oracle.rmse_of_shares(AGENT15, 0.02)
  wide = generators.entropies("trajectory", decoder_rmse=error, **PARAMETERS)
  health, current = (DRAWN[name].reshape(A, T)[:, -1] for name in ("health", "current_health"))
  s = np.hypot(0.06, 0.9 * 0.02 / health)
  mean = current / health * 0.9 + 0.06
  y = trajectories.fold(mean + s * np.random.default_rng(1).normal(size=A), 0.0, 1.0)
  near(series_bits(y, mean, s) + np.log2(health), wide.continuous["current_health"])
  assert wide.continuous["total_reward"] == pytest.approx(np.log2(29.25 ** 0.5) + oracle.GAUSSIAN_BITS)
  assert wide.continuous["position_x"] == pytest.approx(trajectories.walk_bits(200, 52 ** 0.5))
  assert wide.integer["age"] == 0 and "age" not in wide.continuous


def test_a_closed_loop_of_scalar_quantisers_costs_what_the_line_says():
  """Each step is predicted from the decoded one and the difference is rounded to a grid; ideal coding by counts.

  It may cost up to 0.15 bit more: this coder knows nothing of the ends of the range (0.07 bit), and its grid is not
  fine beside the steps, as the line assumes.
  """
  x = DRAWN["position_x"].reshape(A, T)
  grid = 2.0 * 12 ** 0.5  # an error of 2 m, 1 % of the range
  decoded, symbols, squares = x[:, 0] + np.random.default_rng(2).uniform(-grid / 2, grid / 2, A), [], []
  for step in range(1, T):
    symbols.append(np.rint((x[:, step] - decoded) / grid))
    decoded = decoded + grid * symbols[-1]
    squares.append((x[:, step] - decoded) ** 2)
  counts = np.unique(np.concatenate(symbols), return_counts=True)[1]
  rmse = {name: np.mean(squares) ** 0.5 for name in AGENT15.numeric_names}
  line = oracle.field_bits(generators.entropies("trajectory", decoder_rmse=rmse, **PARAMETERS), rmse, oracle.STEP_BITS)
  assert -0.005 < oracle.entropy_bits(counts / counts.sum()) - line["position_x"] < 0.15


def test_roles_and_defending():
  """Shares, transitions, and the entropy rate of both chains from their stated transitions."""
  before, after = steps("role")
  near(np.float64(before == after), 0.98)
  moved = (after - before)[before != after] % 5
  assert stats.chisquare(np.bincount(moved, minlength=5)[1:]).pvalue > 1e-6
  assert stats.chisquare(np.bincount(before[:, 0], minlength=5)).pvalue > 1e-6
  near(np.where(before == after, -np.log2(0.98), -np.log2(0.02 / 4)), RATE.discrete["role"])
  before, after = steps("is_defending")
  near(np.float64(after), 0.3)
  yes = np.where(before, 0.9 + 0.1 * 0.3, 0.1 * 0.3)
  near(np.where(after, -np.log2(yes), -np.log2(1 - yes)), RATE.discrete["is_defending"])


def test_age_reward_and_order():
  for name, deviation in (("age", 0.0), ("total_reward", 4.5)):
    before, after = steps(name)
    change = after - before
    near(change, 1.0 if name == "age" else 0.5)
    assert change.std() == pytest.approx(deviation, rel=0.02, abs=1e-12)
  assert DRAWN["age"].min() >= 0 and DRAWN["age"].max() <= 500
  assert RATE.continuous["total_reward"] == pytest.approx(np.log2(4.5) + 0.5 * np.log2(2 * np.pi * np.e))
  assert (np.lexsort((DRAWN["step_number"], DRAWN["agent_id"])) == np.arange(A * T)).all()
  short = generators.draw("trajectory", 120, 0, **PARAMETERS)
  assert np.bincount(short["agent_id"]).tolist() == [50, 50, 20] and short["step_number"][-1] == 19
  assert schema.encode(AGENT15, short).shape == (120, 15)


@pytest.mark.parametrize("s", [0.002, 0.05, 0.4, 3.0])
def test_entropy_of_a_folded_step(s):
  """Against a fine trapezoid of the cosine series for s of 0.05 and more, and the free normal's for the smallest."""
  m = np.array([0.0, 0.01, 0.3, 0.97])
  found = trajectories.folded_bits(m, s)
  if s >= 0.05:
    y = (np.arange(20_000) + 0.5) / 20_000
    bits = series_bits(y, m[:, None], s)
    np.testing.assert_allclose(found, (2.0 ** -bits * bits).mean(axis=1), atol=1e-6)
  else:
    free = np.log2(s) + oracle.GAUSSIAN_BITS
    np.testing.assert_allclose(found[1:], free, atol=1e-4)
    assert found[0] == pytest.approx(free - 1, abs=1e-6)


@pytest.mark.parametrize("parameters,words", [
    ({"step": 3.0}, "config.data.step: is no parameter of a trajectory; there are: num_steps, step_std"),
    ({"num_steps": 501}, "config.data.num_steps: got 501, allowed 1 to 500"),
    ({"health_std": 0.0}, "config.data.health_std: got 0.0, allowed 0.002 to 10"),
    ({"role_persistence": 1.5}, "config.data.role_persistence: got 1.5, allowed 0 to 1")])
def test_refused(parameters, words):
  for use in (lambda: generators.draw("trajectory", 5, 0, **parameters),
              lambda: generators.entropies("trajectory", **parameters)):
    with pytest.raises(UserError, match=re.escape(words)):
      use()
