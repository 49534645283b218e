"""The arithmetic of the studies of known effects: methods without a network, the targeted step, what is hidden."""

import math

import bench
import effect_baselines
import effect_models
import effect_tables
import numpy as np
import pytest


def rows(n=4000, seed=0):
  """(x, y, z, effect) of a confounded table: the effect is 1 + x1, the propensity a logistic line of x1."""
  random = np.random.default_rng(seed)
  x = random.normal(size=(n, 3))
  y = (random.random(n) < 1 / (1 + np.exp(-x[:, 0]))).astype(int)
  effect = 1.0 + x[:, 0]
  return x, y, 2.0 * x[:, 0] - x[:, 1] + y * effect + 0.5 * random.normal(size=n), effect


@pytest.mark.parametrize("name", ["T-learner", "IPW", "AIPW"])
def test_methods_without_a_network_find_an_effect_that_depends_on_a_confounder(name):
  """ATE 1 and ATT 1 + E[x1 | y = 1] = 1.413 (quadrature), within 0.15: more than five standard errors of each."""
  x, y, z, effect = rows()
  found = effect_baselines.METHODS[name](x, y, z, x[:50])
  assert found.ate.value == pytest.approx(effect.mean(), abs=0.15)
  assert found.att.value == pytest.approx(effect[y == 1].mean(), abs=0.15)
  assert abs(effect_baselines.unadjusted(x, y, z, x).ate.value - 1) > 1  # which has to be adjusted for
  assert found.own.shape == (4000,) and found.other.shape == (50,)


def test_a_t_learner_knows_the_effect_of_a_row_and_ols_a_constant():
  x, y, z, effect = rows()
  np.testing.assert_allclose(effect_baselines.METHODS["T-learner"](x, y, z, x[:50]).other, effect[:50], atol=0.3)
  constant = effect_baselines.ols(x, y, z, x[:50])
  assert np.ptp(constant.other) == 0
  columns = np.concatenate([y[:, None], np.ones((len(x), 1)), x], axis=1)
  assert constant.ate.value == pytest.approx(np.linalg.solve(columns.T @ columns, columns.T @ z)[0], rel=1e-9)


def said_and_part(q_hidden=False):
  """What models say of four rows, and the rows."""
  prior = np.array([[0.5, 0.5], [0.75, 0.25], [0.5, 0.5], [0.8, 0.2]])
  posterior = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5]])
  mean = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 4.0], [3.0, 3.0]])
  said = effect_models.Said(mean, np.log(prior), np.log(posterior))
  y = np.array([0, 1, 1, -1 if q_hidden else 0])
  z = np.array([0.5, 4.0, 3.0, 2.0])
  return said, effect_models.Part(np.zeros((4, 1)), z, y, np.abs(y), np.zeros(4), np.zeros((4, 2)))


def test_the_targeted_step_is_the_weighted_mean_of_residuals():
  """By hand: weights 1 / 0.5 and 1 / 0.8 of residuals 0.5 and -1; 1 / 0.25 and 1 / 0.5 of residuals 2 and -1."""
  said, part = said_and_part()
  np.testing.assert_allclose(effect_models.targeted_shift(said, part),
                             [(2 * 0.5 - 1.25) / 3.25, (4 * 2 - 2) / 6], rtol=1e-12)


def test_a_row_without_a_treatment_counts_by_its_posterior():
  """The fourth row is half of each: weights 0.5 / 0.8 of the residual -1, and 0.5 / 0.2 of -1."""
  said, part = said_and_part(q_hidden=True)
  np.testing.assert_allclose(effect_models.targeted_shift(said, part),
                             [(2 * 0.5 - 0.625) / 2.625, (4 * 2 - 2 - 2.5) / 8.5], rtol=1e-12)


def test_after_the_targeted_step_the_mean_effect_is_doubly_robust():
  """With weights that add to one: means moved by the step leave weighted residuals of mean zero."""
  said, part = said_and_part()
  found = effect_tables.model_errors([said, said], [part, part])
  shift = effect_models.targeted_shift(said, part)
  plug_in, targeted = found["model, plug-in"], found["model, targeted"]
  assert targeted["ate"] - plug_in["ate"] == pytest.approx(shift[1] - shift[0])
  assert plug_in["ate"] == pytest.approx(1.0) and plug_in["pehe"] == pytest.approx(math.sqrt(6 / 4))


@pytest.mark.parametrize("mechanism", effect_tables.MECHANISMS)
def test_half_of_the_treatments_are_hidden_and_more_of_those_with_a_large_covariate(mechanism):
  """Of 4,000 rows: a share outside 0.5 +- 0.04 has a false-alarm rate below one in a million."""
  x, y, z, _ = rows()
  part = effect_models.Part(x, z, y, y, None, x)
  label = effect_tables.hide(part, mechanism, 3)
  hidden = label < 0
  assert abs(hidden.mean() - 0.5) < 0.04 and (label[~hidden] == y[~hidden]).all()
  assert x[hidden, 0].mean() - x[~hidden, 0].mean() > 0.5
  np.testing.assert_array_equal(label, effect_tables.hide(part, mechanism, 3))
  by_x = np.abs(np.linalg.lstsq(np.stack([x[:, 0], z, np.ones_like(z)], axis=1), hidden, rcond=None)[0])
  assert (by_x[1] > 0.05) == (mechanism == "xz")  # 0.008 is one standard error without dependence


def test_the_noise_floor_is_that_of_simulated_least_squares():
  """Of 4,000 simulated outcomes of 60 rows, mean |error| within 5 %: the standard error is 1.2 %."""
  random = np.random.default_rng(4)
  x, y = random.normal(size=(60, 3)), (np.arange(60) % 3 == 0).astype(int)
  found = effect_tables.noise_floor(effect_models.Part(x, np.zeros(60), y, y, None, x))
  noise, columns = random.normal(size=(60, 4000)), np.concatenate([np.ones((60, 1)), x], axis=1)
  slopes = [np.linalg.lstsq(columns[y == k], noise[y == k], rcond=None)[0] for k in (0, 1)]
  assert found["linear"] == pytest.approx(np.abs(columns.mean(axis=0) @ (slopes[1] - slopes[0])).mean(), rel=0.05)
  constant = np.abs(noise[y == 1].mean(axis=0) - noise[y == 0].mean(axis=0)).mean()
  assert found["constant"] == pytest.approx(constant, rel=0.05)


def test_what_is_won_back_of_a_loss():
  deletion, oracle = np.array([2.0, 4.0, 3.0]), np.array([1.0, 1.0, 1.0])
  assert effect_tables.won_back(deletion, oracle, oracle)["share"] == 1.0
  assert set(effect_tables.won_back(deletion, deletion, oracle).values()) == {0.0}
  half = effect_tables.won_back(deletion, (deletion + oracle) / 2, oracle)
  assert all(value == pytest.approx(0.5) for value in half.values())
  found = effect_tables.won_back(deletion, np.array([2.0, 1.0, 1.0]), oracle)
  assert found["share"] == pytest.approx(5 / 6) and found["low"] < 5 / 6 < found["high"]
  assert found["of_medians"] == pytest.approx(1.0)


def test_a_block_is_made_once_and_appears_whole(tmp_path):
  made = []

  def make():
    made.append(1)
    return {"a": [1.5]}
  for _ in range(2):
    assert bench.kept(str(tmp_path), "a block", make) == {"a": [1.5]}
  assert made == [1] and [path.name for path in tmp_path.iterdir()] == ["a_block.json"]


def test_a_block_that_was_begun_is_made_again(tmp_path):
  (tmp_path / "b.json.part").write_text('{"a": ')
  assert bench.kept(str(tmp_path), "b", lambda: [2]) == [2]


def test_errors_keep_the_sign_of_averages_and_their_summary_does_not():
  own, held = np.array([1.0, 2.0]), np.array([3.0])
  found = effect_tables.errors(1.0, own, held, np.array([2.0, 2.0]), np.array([1.0]))
  assert found == {"ate": -1.0, "ate_held": 2.0, "pehe": pytest.approx(math.sqrt(0.5)), "pehe_held": 2.0}
  row = effect_tables.summarise([{"m": found}, {"m": found | {"ate": 3.0}}])["m"]["ate"]
  assert row["mean"] == 2.0 and row["median"] == 2.0
