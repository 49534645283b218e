"""Estimators of effects: against formulas written out, and against known effects in simulated data.

Simulated rows have X ~ N(0, 1), P(Y = j | x) in proportion to exp(j x), and Z = X + Y + noise: every effect is 1, and
group means differ by what is known from quadrature.
"""

import numpy as np
import pytest
from scipy import special, stats
from sklearn.linear_model import LinearRegression

from jaxtrain.experiments.causal_consistency import effects

NAIVE = {2: (1.82648386,), 3: (1.66426395, 3.32852790)}  # group means of class j less those of class 0


def made(num_rows, seed, num_classes=2, noise=1.0, slope=0.0):
  """x [N, 1], y [N], z [N]; the effect of a class is j (1 + slope x)."""
  random = np.random.default_rng(seed)
  x = random.normal(size=num_rows)
  logits = np.arange(num_classes) * x[:, None]
  y = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
  return x[:, None], y, x + y * (1 + slope * x) + noise * random.normal(size=num_rows)


def error_of(one, true):
  """The distance of an estimate from the truth in standard errors, which its interval tells."""
  return abs(one.value - true) / ((one.high - one.low) / 2 / 1.96)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_group_means_are_confounded_by_what_quadrature_says(num_classes):
  _, y, z = made(200_000, 1, num_classes, noise=0.1)
  for one, true in zip(effects.unadjusted(y, z, num_classes), NAIVE[num_classes], strict=True):
    assert error_of(one, true) < 4 and one.high - one.low < 0.03  # a false alarm in 16,000


def test_welch_interval_is_scipys():
  _, y, z = made(40, 2)
  y[:7] = -1
  want = stats.ttest_ind(z[y == 1], z[y == 0], equal_var=False).confidence_interval(0.95)
  one, = effects.unadjusted(y, z, 2)
  assert (one.low, one.high) == pytest.approx((want.low, want.high), rel=1e-9)
  assert one.value == pytest.approx(z[y == 1].mean() - z[y == 0].mean())
  assert np.isnan(effects.unadjusted(np.where(y == 1, -1, y), z, 2)).all()


@pytest.mark.parametrize(("num_classes", "noise"), [(2, 0.1), (2, 1.0), (3, 1.0)])
def test_aipw_finds_the_effect(num_classes, noise):
  x, y, z = made(4000, 3, num_classes, noise)
  found = effects.aipw(x, y, z, num_classes).effects
  for target in found:
    for j, one in enumerate(target, 1):
      assert error_of(one, j) < 4 and one.high - one.low < 0.5
  assert found.ate[0].high < NAIVE[num_classes][0]


def test_effects_of_groups_differ_where_effects_of_rows_do():
  x, y, z = made(20_000, 4, slope=1.0)
  found = effects.aipw(x, y, z, 2).effects
  for one, true in ((found.ate, 1.0), (found.att, 1 + 0.41324193), (found.atc, 1 - 0.41324193)):
    assert error_of(one[0], true) < 4 and one[0].high - one[0].low < 0.2


def test_score_by_a_loop():
  random = np.random.default_rng(5)
  N, C = 30, 3
  mean, z = random.normal(size=(N, C)), random.normal(size=N)
  e, q = random.dirichlet(np.full(C, 30.0), N), random.dirichlet(np.ones(C), N)
  found = effects.aipw_with(mean, np.log(e), q, z)
  for j in (1, 2):
    psi, treated, control = np.zeros((3, N))
    for i in range(N):
      psi[i] = (mean[i, j] + q[i, j] / e[i, j] * (z[i] - mean[i, j])
                - mean[i, 0] - q[i, 0] / e[i, 0] * (z[i] - mean[i, 0]))
      treated[i] = q[i, j] * (z[i] - mean[i, 0]) - q[i, 0] * e[i, j] / e[i, 0] * (z[i] - mean[i, 0])
      control[i] = q[i, 0] * (mean[i, j] - z[i]) + q[i, j] * e[i, 0] / e[i, j] * (z[i] - mean[i, j])
    low, high = stats.t.interval(0.95, N - 1, psi.mean(), stats.sem(psi))
    assert found.ate[j - 1] == pytest.approx((psi.mean(), low, high), rel=1e-9)
    att = treated.sum() / q[:, j].sum()
    half = stats.t.ppf(0.975, N - 1) * np.std(treated - att * q[:, j], ddof=1) / q[:, j].mean() / N ** 0.5
    assert found.att[j - 1] == pytest.approx((att, att - half, att + half), rel=1e-9)
    assert found.atc[j - 1].value == pytest.approx(control.sum() / q[:, 0].sum(), rel=1e-9)


def test_small_propensities_count_as_the_floor_of_their_number_of_rows():
  floor = effects.least_propensity
  assert floor(10_000) == pytest.approx(5 / (100 * 9.2103404)) and floor(50) == floor(1.5) == 0.1
  mean, z, q = np.zeros((400, 2)), np.ones(400), np.eye(2)[np.arange(400) % 2]
  at = lambda e: effects.aipw_with(mean, np.log(np.tile([e, 1 - e], (400, 1))), q, z).ate[0]
  assert at(1e-9).value == pytest.approx(0.5 / (1 - 1e-9) - 0.5 / floor(400))
  assert at(0.2).value == pytest.approx(0.5 / 0.8 - 0.5 / 0.2)


def test_either_nuisance_may_be_wrong_but_not_both():
  x, y, z = made(20_000, 6)
  q = np.eye(2)[y]
  true_mean, wrong_mean = x + np.arange(2), np.zeros((len(y), 2))
  true_prior, wrong_prior = (special.log_softmax(s * np.concatenate([0 * x, x], axis=1), axis=1) for s in (1, 0))
  for mean, prior, right in ((true_mean, wrong_prior, True), (wrong_mean, true_prior, True),
                             (wrong_mean, wrong_prior, False)):
    one, = effects.aipw_with(mean, prior, q, z).ate
    assert (error_of(one, 1.0) < 4) == right


def test_plug_in_is_the_mean_of_effects_with_the_width_of_aipw():
  random = np.random.default_rng(7)
  mean, z, q = random.normal(size=(50, 2)), random.normal(size=50), random.dirichlet(np.ones(2), 50)
  log_prior = np.log(random.dirichlet(np.ones(2) * 5, 50))
  robust = effects.aipw_with(mean, log_prior, q, z)
  found = effects.plug_in(robust, mean, q)
  effect = mean[:, 1] - mean[:, 0]
  for one, other, weight in zip(found, robust, (np.ones(50), q[:, 1], q[:, 0])):
    assert one[0].value == pytest.approx((weight * effect).sum() / weight.sum())
    assert one[0].high - one[0].low == pytest.approx(other[0].high - other[0].low)
    assert one[0].value != pytest.approx(other[0].value)


def test_responsibilities_stand_in_for_what_is_not_recorded():
  log_posterior = np.log([[0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
  found = effects.responsibilities(np.array([0, -1, 1]), log_posterior)
  np.testing.assert_allclose(found, [[1, 0], [0.3, 0.7], [0, 1]])


def test_exact_responsibilities_make_hidden_rows_count():
  x, y, z = made(20_000, 8)
  logit = x[:, 0] + (2 * (z - x[:, 0]) - 1) / 2
  posterior = np.stack([special.log_expit(-logit), special.log_expit(logit)], axis=1)
  prior = np.stack([special.log_expit(-x[:, 0]), special.log_expit(x[:, 0])], axis=1)
  q = effects.responsibilities(np.where(np.arange(len(y)) < 400, y, -1), posterior)
  one, = effects.aipw_with(np.zeros((len(y), 2)), prior, q, z).ate  # by the propensity alone
  assert error_of(one, 1.0) < 4 and one.high - one.low < 0.15


def test_rows_hidden_by_their_outcome_are_weighted_back():
  x, y, z = made(15_000, 9)
  recorded = np.random.default_rng(10).uniform(size=len(y)) < special.expit(-0.5 - 1.5 * (z - 0.5))
  hidden = np.where(recorded, y, -1)
  fitted = effects.aipw(x, hidden, z, 2)
  alone, = effects.aipw(x[recorded], y[recorded], z[recorded], 2).effects.ate
  assert error_of(alone, 1.0) > 5
  assert error_of(fitted.effects.ate[0], 1.0) < 4 and fitted.effects.ate[0].high - fitted.effects.ate[0].low < 0.4
  assert fitted.weight.mean() == pytest.approx(1) and (fitted.weight[~recorded] == 0).all()
  want = 1 / special.expit(-0.5 - 1.5 * (z[recorded] - 0.5))
  assert np.corrcoef(np.log(want), np.log(fitted.weight[recorded]))[0, 1] > 0.99


def test_rows_hidden_at_random_still_count():
  x, y, z = made(6000, 11)
  recorded = np.arange(len(y)) < 600
  one, = effects.aipw(x, np.where(recorded, y, -1), z, 2).effects.ate
  assert error_of(one, 1.0) < 4 and one.high - one.low < 0.6


@pytest.mark.parametrize("num_hidden", [1, 3])
def test_few_hidden_rows_hardly_matter(num_hidden):
  x, y, z = made(200, 20)
  whole, = effects.aipw(x, y, z, 2).effects.ate
  found, = effects.aipw(x, np.where(np.arange(200) < num_hidden, -1, y), z, 2).effects.ate
  assert found.value == pytest.approx(whole.value, abs=0.1)


def test_classes_of_too_few_rows_have_no_effect():
  x, y, z = made(300, 12, 3)
  few = np.where((y == 2) & (np.cumsum(y == 2) > 4), -1, y)
  found = effects.aipw(x, few, z, 3).effects
  assert np.isfinite(found.ate[0]).all() and np.isnan([found.ate[1], found.att[1], found.atc[1]]).all()
  assert np.isnan(effects.aipw(x, np.where(y == 0, 0, -1), z, 3).effects).all()


def test_folds_are_fixed_and_hold_their_share_of_each_class():
  _, y, _ = made(503, 13, 3)
  fold = effects.stratified_folds(y, 0)
  assert (fold == effects.stratified_folds(y, 0)).all() and (fold != effects.stratified_folds(y, 1)).any()
  for j in range(3):
    assert np.ptp(np.bincount(fold[y == j], minlength=5)) <= 1


def test_folds_keep_groups_together_and_are_even():
  group = np.random.RandomState(3).randint(40, size=600) ** 2
  fold = effects.stratified_folds(np.zeros(600, int), 0, group)
  assert all(len(set(fold[group == name])) == 1 for name in set(group))
  assert np.ptp(np.bincount(fold, minlength=5)) <= max(np.bincount(group)) and set(fold) == set(range(5))
  assert (fold == effects.stratified_folds(np.zeros(600, int), 0, group)).all()
  few = np.arange(600) % 3
  np.testing.assert_array_equal(effects.stratified_folds(few, 0, few), effects.stratified_folds(few, 0))


def test_constant_covariates_are_no_obstacle():
  _, y, z = made(200, 14)
  one, = effects.aipw(np.ones((200, 2)), y, z, 2).effects.ate
  plain, = effects.unadjusted(y, z, 2)
  assert one.value == pytest.approx(plain.value, abs=0.1)


@pytest.mark.slow
def test_intervals_hold_the_effect():
  held = 0
  for seed in range(100):
    one, = effects.aipw(*made(300, 1000 + seed), 2).effects.ate
    held += one.low <= 1 <= one.high
  assert 88 <= held <= 99  # below or above in 0.4 % + 0.6 % of studies at 95 %


def with_instrument(num_rows, seed, strength=1.0):
  """w, y, z, x where a hidden cause drives the treatment and the outcome."""
  w, x, u, noise = np.random.default_rng(seed).normal(size=(4, num_rows))
  treated = np.random.default_rng(seed + 1).logistic(size=num_rows) < x + u + strength * w
  return w[:, None], treated.astype(float), x + treated + u + noise, x[:, None]


def test_instrument_sees_past_a_hidden_confounder():
  w, t, z, x = with_instrument(20_000, 15)
  found = effects.two_stage_least_squares(w, t, z, x)
  plain = LinearRegression().fit(np.concatenate([t[:, None], x], axis=1), z).coef_[0]
  assert error_of(found.effect, 1.0) < 4 and found.effect.high - found.effect.low < 0.3
  assert plain > found.effect.high + 0.2 and found.first_stage_f > 1000 and not found.is_weak


def test_two_stages_by_hand():
  w, t, z, x = with_instrument(50, 17)
  found = effects.two_stage_least_squares(w, t, z, x)
  A = np.concatenate([t[:, None], np.ones((50, 1)), x], axis=1)  # as many instruments as regressors: (B'A)^-1 B'z
  B = np.concatenate([w, np.ones((50, 1)), x], axis=1)
  inverse = np.linalg.inv(B.T @ A)
  beta = inverse @ B.T @ z
  meat = (B * (z - A @ beta)[:, None] ** 2).T @ B * 50 / 47
  half = stats.t.ppf(0.975, 47) * np.sqrt((inverse @ meat @ inverse.T)[0, 0])
  assert found.effect == pytest.approx((beta[0], beta[0] - half, beta[0] + half), rel=1e-6)


def test_weak_instruments_are_told():
  w, t, z, x = with_instrument(500, 18, strength=0.0)
  found = effects.two_stage_least_squares(w, t, z, x)
  assert found.is_weak and found.first_stage_f < 10
  assert effects.two_stage_least_squares(np.ones((500, 1)), t, z, x).is_weak  # nothing to go by
  assert effects.two_stage_least_squares(w[:3], t[:3], z[:3], x[:3]).is_weak


def test_weights_stand_for_rows_that_are_left_out():
  w, t, z, x = with_instrument(400, 19)
  twice = effects.two_stage_least_squares(*(np.concatenate([one, one[:100]]) for one in (w, t, z, x)))
  weighted = effects.two_stage_least_squares(w, t, z, x, np.where(np.arange(400) < 100, 2.0, 1.0))
  assert weighted.effect.value == pytest.approx(twice.effect.value, rel=1e-2)
