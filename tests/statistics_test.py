"""Comparison of groups: each number against its formula, intervals and verdicts against simulated truth."""

import numpy as np
import pytest
from scipy import stats

from jaxtrain import statistics

NAN = float("nan")


def test_moments_are_of_the_values_that_are_there():
  rows = np.array([[1.0, 2.0, NAN, 6.0], [NAN, 5.0, NAN, NAN], [NAN] * 4, [0.1, 0.1, 0.1, NAN]])
  count, mean, deviation = statistics.moments(rows)
  np.testing.assert_array_equal(count, [3, 1, 0, 3])
  np.testing.assert_allclose(mean, [3, 5, NAN, 0.1])
  np.testing.assert_allclose(deviation, [np.std([1, 2, 6], ddof=1), NAN, NAN, 0])


@pytest.mark.parametrize("n", [2, 3, 40])
def test_half_width_is_that_of_scipys_interval(n):
  values = np.random.default_rng(n).normal(2.0, 3.0, n)
  low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
  np.testing.assert_allclose(statistics.t_half_width(values), (high - low) / 2, rtol=1e-9)
  assert np.isnan(statistics.t_half_width(values[:1])) and np.isnan(statistics.t_half_width(values[:0]))
  np.testing.assert_allclose(statistics.t_quantile(np.arange(1, 101)), stats.t.ppf(0.975, np.arange(1, 101)))


def test_intervals_of_shares_are_those_of_scipy():
  hits, total = np.array([0, 1, 15, 81, 20]), np.array([20, 29, 148, 263, 20])
  share, low, high = statistics.wilson(hits, total)
  wanted = [stats.binomtest(int(k), int(n)).proportion_ci(0.95, "wilson") for k, n in zip(hits, total)]
  np.testing.assert_allclose(share, hits / total)
  np.testing.assert_allclose(np.stack([low, high], axis=1), wanted, atol=1e-5)  # z is 1.96 here
  np.testing.assert_array_equal(statistics.wilson(np.zeros(1), np.zeros(1))[0], [0.0])  # no rows


def test_paired_p_is_that_of_scipy():
  rng = np.random.default_rng(0)
  one, two = rng.normal(size=(2, 5, 8))
  two[2, 3:] = NAN
  want = [stats.ttest_rel(a[~np.isnan(b)], b[~np.isnan(b)]).pvalue for a, b in zip(one, two)]
  np.testing.assert_allclose(statistics.paired_p(one - two), want, rtol=1e-9)


def test_paired_p_of_differences_without_spread():
  np.testing.assert_array_equal(statistics.paired_p(np.array([[0.0] * 3, [0.1] * 3, [1.0, 2.0, NAN]])), [1, NAN, NAN])


def test_holm_by_hand():
  p = np.array([0.04, NAN, 0.01, 0.03, 0.02])  # times 4, 3, 2, 1 from the smallest on, never falling
  np.testing.assert_allclose(statistics.holm(p), [0.06, NAN, 0.04, 0.06, 0.06])
  np.testing.assert_allclose(statistics.holm(np.array([0.6, 0.7])), [1, 1])
  assert np.isnan(statistics.holm(np.array([NAN, NAN]))).all() and not len(statistics.holm(np.array([])))


@pytest.mark.parametrize("level", [0.05, 0.01])
def test_replicates_needed_give_the_power(level):
  def power(n, effect):
    edge = stats.t.ppf(1 - level / 2, n - 1)
    return 1 - stats.nct.cdf(edge, n - 1, np.sqrt(n) * effect)
  for effect in (0.15, 0.3, 0.8, 1.5):
    n, = statistics.replicates_needed(np.array([effect]), level)
    assert abs(power(n, effect) - statistics.POWER) < 0.06  # n is whole
    assert power(n, effect) > statistics.POWER - 0.01 and power(n - 1, effect) < statistics.POWER + 0.01


def test_replicates_needed_at_the_ends():
  np.testing.assert_array_equal(statistics.replicates_needed(np.array([0.0, 0.05, -40.0])), [np.inf, np.inf, 2])
  by_level = statistics.replicates_needed(np.array([0.5, 0.5]), np.array([0.05, 0.005]))
  assert by_level[0] < by_level[1]


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 4, 5, 8, 20])
@pytest.mark.parametrize(("draw", "mean", "least"), [
    (lambda rng, size: rng.normal(2.0, 3.0, size), 2.0, 0.93),
    (lambda rng, size: rng.lognormal(0.0, 0.5, size), np.exp(0.125), 0.90)], ids=["normal", "skewed"])
def test_intervals_hold_the_mean(n, draw, mean, least):
  rows = draw(np.random.default_rng(n), (3000, n))
  low, high = statistics.mean_intervals(rows)
  assert least < np.mean((low <= mean) & (mean <= high)) < 0.985  # a standard error is 0.004 at 0.95
  length = 2 * stats.t.ppf(0.975, n - 1) * rows.std(axis=1, ddof=1) / np.sqrt(n)
  assert np.max((high - low) / length) < 2.2


def test_intervals_of_few_and_of_equal_values():
  low, high = statistics.mean_intervals(np.array([[1.0, 2.0, NAN], [3.0, 3.0, 3.0], [NAN] * 3]))
  np.testing.assert_array_equal([low, high], [[NAN, 3, NAN]] * 2)


def test_intervals_repeat_and_mirror():
  rows = np.random.default_rng(1).normal(size=(4, 6))
  (low, high), (low_of_minus, high_of_minus) = statistics.mean_intervals(rows), statistics.mean_intervals(-rows)
  np.testing.assert_array_equal((low, high), statistics.mean_intervals(rows))
  np.testing.assert_allclose((low_of_minus, high_of_minus), (-high, -low), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("num_groups", [2, 6])
def test_false_alarms_against_a_fixed_reference(num_groups):
  rng = np.random.default_rng(2)
  alarms = 0
  for _ in range(600):  # equal groups whose seeds go up and down together
    values = rng.normal(size=(num_groups, 5)) + rng.normal(size=5)
    alarms += bool(statistics.against(values, [0], False).verdict.any())
  assert alarms / 600 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)


def test_best_group():
  values = np.array([[1.0, 2.0, 3.0], [0.5, NAN, NAN], [4.0, 4.0, 5.0], [NAN] * 3])
  assert (statistics.best_group(values, False), statistics.best_group(values, True)) == (0, 2)
  assert statistics.best_group(values[:, :1], False) == 1 and statistics.best_group(values[3:], True) is None


@pytest.mark.parametrize("higher", [False, True])
def test_against(higher):
  base = np.array([0.1, 0.2, 0.15, 0.3, 0.25])
  noise = np.array([0.01, -0.01, 0.02, -0.02, 0.005])
  values = np.stack([base, base + 1 + noise, base + noise, base - 1 + noise, np.full(5, NAN), base])
  values[5, 2:] = NAN
  pairs = statistics.against(values, [0], higher)
  np.testing.assert_array_equal(pairs.shared, [[0, 5, 5, 5, 0, 2]])
  np.testing.assert_allclose(pairs.difference, [[NAN, 1.001, 0.001, -0.999, NAN, 0]], atol=1e-9)
  worse = 1 if higher else -1
  np.testing.assert_array_equal(pairs.verdict, [[0, worse, 0, -worse, 0, 0]])
  raw = [stats.ttest_rel(values[k], base).pvalue for k in (1, 2, 3)]
  np.testing.assert_allclose(pairs.p[0, 1:4], statistics.holm(np.array(raw)), rtol=1e-6)
  assert np.isnan(pairs.p[0, [0, 4, 5]]).all() and np.isnan(pairs.more[0, [0, 1, 3, 4, 5]]).all()
  effect = np.mean(noise) / np.std(noise, ddof=1)
  assert pairs.more[0, 2] == statistics.replicates_needed(np.array([effect]), 0.05 / 3)[0] - 5
  assert (pairs.low[0, 1:4] < pairs.difference[0, 1:4]).all() and (pairs.difference[0, 1:4] < pairs.high[0, 1:4]).all()


def test_against_several_references_is_each_by_itself():
  values = np.random.default_rng(3).normal(size=(4, 6))
  values[1, 4:] = NAN
  whole = statistics.against(values, [0, 2], True)
  for k, reference in enumerate([0, 2]):
    for part, alone in zip(whole, statistics.against(values, [reference], True)):
      np.testing.assert_allclose(part[k], alone[0])
  assert statistics.against(values, [], True).p.shape == (0, 4)


def test_undecided_needs_at_least_one_more():
  values = np.random.default_rng(4).normal(size=(30, 4))
  pairs = statistics.against(values, list(range(30)), False)
  undecided = (pairs.verdict == 0) & ~np.isnan(pairs.p)
  assert undecided.any() and (pairs.more[undecided] >= 1).all() and np.isnan(pairs.more[~undecided]).all()


def test_a_column_varies_where_ten_rows_or_one_in_twenty_differ_from_its_usual_value():
  few = lambda count, rows: (np.arange(rows) < count).astype(float)
  cases = [(few(0, 1000), False), (few(9, 1000), False), (few(10, 1000), True), (few(4, 100), False),
           (few(5, 100), True), (1 - few(9, 1000), False), (np.arange(1000.0), True), (np.full(1000, np.nan), False)]
  x = np.full((1000, len(cases)), np.nan)
  for d, (column, _) in enumerate(cases):
    x[:len(column), d] = column
  assert statistics.varies(x).tolist() == [found for _, found in cases]
  assert statistics.varies(x.astype(np.float32)[::-1]).tolist() == [found for _, found in cases]
  assert statistics.varies(x[:0]).tolist() == [False] * len(cases)
  assert statistics.varies(np.array([[1.0], [2.0], [3.0]])).tolist() == [True]


def test_calibration_by_a_loop():
  random = np.random.default_rng(5)
  label = random.integers(0, 8, 2000)
  logits = random.normal(size=(2000, 8)) + 1.5 * np.eye(8)[label]
  log_prob = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
  log_prob[:3] = [0] + [-np.inf] * 7  # sure: the last bin
  ece, (rows, confidence, accuracy) = statistics.calibration(log_prob, label)
  prob = np.exp(log_prob.astype(np.float64))
  best, want, num = prob.max(axis=1), 0.0, len(label)
  right = prob.argmax(axis=1) == label
  for b in range(15):
    inside = (best > b / 15) & (best <= (b + 1) / 15)
    assert rows[b] == inside.sum()
    if inside.any():
      assert (confidence[b], accuracy[b]) == pytest.approx((best[inside].mean(), right[inside].mean()))
      want += inside.sum() / num * abs(right[inside].mean() - best[inside].mean())
  assert ece == pytest.approx(want, rel=1e-10) and 0.01 < ece < 0.5
