"""The bias dial's simulated tables, and its summary of intervals."""

import effect_dial
import numpy as np
import pytest


def test_the_stated_share_is_hidden_and_rows_are_the_same_in_all_settings():
  """Of 20 tables of 1,000 rows, a share beyond 0.02 of the stated one has a false-alarm rate below 1e-6."""
  x, y, z = effect_dial.tables((0.75, 0.0), 0, 20)
  assert abs((y < 0).mean() - 0.75) < 0.02
  other = effect_dial.tables((0.5, 2.0), 0, 20)
  np.testing.assert_array_equal(x, other[0])
  np.testing.assert_array_equal(z, other[2])
  assert abs((other[1] < 0).mean() - 0.5) < 0.02
  assert (effect_dial.tables((0.0, 0.0), 0, 2)[1] >= 0).all()
  np.testing.assert_array_equal(effect_dial.tables((0.75, 0.0), 7, 1)[1][0], y[7])


def test_the_strength_hides_treatments_by_their_own_value():
  """At strength 0 what is hidden follows x and z alone: at equal x and z the odds of both treatments agree."""
  x, y, z = (np.zeros(2), np.array([0, 1]), np.zeros(2))
  assert np.ptp(effect_dial.logit(x, y, z, 0.0)) == 0
  assert np.diff(effect_dial.logit(x, y, z, 1.0)) == pytest.approx(2.0)


def test_features_are_standardised_and_begin_with_a_one():
  data = effect_dial.estimator_data(*effect_dial.tables((0.5, 0.0), 0, 2))
  for features, width in ((data.recording, 4), (data.treatment, 2), (data.outcome, 2)):
    assert features.shape == (2, effect_dial.NUM_ROWS, width) and (features[..., 0] == 1).all()
    np.testing.assert_allclose(features[..., 1:].mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(features[..., 1:].std(axis=1), 1, rtol=1e-12)


def test_intervals_that_hold_the_effect_are_counted():
  found = np.array([[1.2, 0.9, 1.5], [0.8, 0.7, 0.9], [1.0, 1.0, 1.0], [np.nan, np.nan, np.nan]])
  row = effect_dial.summarise(found)
  assert row["bias"] == pytest.approx(0.0) and row["coverage"] == 0.5
  assert row["tables"] == 4 and row["failed"] == 1


def test_the_figure_is_a_small_file(tmp_path):
  row = {name: {"bias": 0.1, "bias_half": 0.01, "coverage": 0.9} for name in effect_dial.SHOWN}
  path = tmp_path / "dial.png"
  effect_dial.draw_figure({"share": {"0.0": row, "0.5": row}, "strength": {"0.0": row, "1.0": row}}, str(path))
  assert 5_000 < path.stat().st_size < 150_000
