"""The coverage study: its band, its sums, that it goes on where it was stopped, and triple robustness in small."""

import json

import effect_coverage
import jax
import jax.numpy as jnp
import numpy as np
import pytest


def test_the_band_of_2000_is_exact():
  low, high = effect_coverage.band(2000)
  assert (low, high) == (0.937, 0.962)  # binomial quantiles 1,874 and 1,924 of 2,000 at 95 %


def test_sums_of_a_setting():
  value = np.array([1.0, 1.3, 0.7, 1.1])
  found = effect_coverage.summarise(np.stack([value, np.full(4, 0.1), np.full(4, 0.2)], axis=1))
  assert found["bias"] == pytest.approx(0.025) and found["stacked"] == 0.5 and found["plain"] == 1
  assert found["bias_error"] == pytest.approx(value.std(ddof=1) / 2)


def test_a_wrong_nuisance_does_not_see_the_first_covariate():
  data = effect_coverage.table(jax.random.key(0), jnp.array([0.0, 1.0, 1.0]), 50)
  assert not data.outcome[:, 1].any() and data.treatment[:, 1].any() and data.recording[:, 1:].all()
  wrong = effect_coverage.table(jax.random.key(0), jnp.array([1.0, 0.0, 0.0]), 50)
  assert not wrong.recording[:, [1, 3]].any() and not wrong.treatment[:, 1].any()
  np.testing.assert_array_equal(wrong.z, data.z)  # settings have the same tables


def test_blocks_that_are_there_are_not_made_again(tmp_path):
  def block(seeds, right):
    return {"ipo": jnp.stack([seeds + 0.0, seeds + 1.0, seeds + 2.0], axis=1)}, jnp.full(len(seeds), right[0])
  first = effect_coverage.run_setting(str(tmp_path), "outcome", 200, 50, block)
  again = effect_coverage.run_setting(str(tmp_path), "outcome", 200, 50, None)
  np.testing.assert_array_equal(first["ipo"], again["ipo"])
  assert first["ipo"].shape == (200, 3) and (first["ipo"][:, 0] == np.arange(200)).all() and not first["missing"].any()


@pytest.mark.slow
def test_two_of_three_models_are_enough(tmp_path):
  """24 tables of 3,000 rows: the bias is within 4 Monte-Carlo errors where at most one is wrong (t of 23 degrees of
  freedom: a false alarm in 400 runs of all four), and beyond where the outcome and another are.
  """
  with jax.enable_x64(True):
    spec = effect_coverage.SPEC._replace(names=("triply_robust",), num_folds=1)
    def one(seed, right):
      return effect_coverage.estimators.estimate(effect_coverage.table(jax.random.key(seed), right, 3000), spec)
    study = jax.jit(lambda right: jax.lax.map(lambda seed: one(seed, right), jnp.arange(24), batch_size=4))
    for name, wrong in effect_coverage.SETTINGS.items():
      if len(wrong) == 2 and "outcome" not in wrong:
        continue  # a bias of 0.02, which 2,000 tables show
      found = study(jnp.asarray([1.0 - (part in wrong) for part in effect_coverage.NUISANCES]))
      value = np.asarray(found["triply_robust"].value)[:, 0]
      off = abs(value.mean() - 1) / (value.std(ddof=1) / 24 ** 0.5)
      assert (off < 4) == (len(wrong) < 2), (name, off, json.dumps(value.tolist()))
