"""Rows that VAEs sample, for the study of what structure they keep."""

import numpy as np
import pytest

import structure_of_samples


@pytest.mark.slow
def test_each_table_has_a_model_of_its_own_and_noise_is_what_its_reconstruction_leaves():
  """Two tables of opposite correlation: after training, rows of each have the sign of their own."""
  x = np.random.RandomState(0).normal(size=(512, 1))
  tables = [np.concatenate([x, sign * x + 0.3 * np.random.RandomState(1).normal(size=(512, 2))], 1) for sign in (1, -1)]
  made = structure_of_samples.sample(tables, 60)
  for sign, (means, noisy) in zip((1, -1), made):
    assert means.shape == noisy.shape == (512, 3)
    assert all(sign * np.corrcoef(rows.T)[0, 1] > 0.5 for rows in (means, noisy))
    noise = noisy - means
    assert abs(np.corrcoef(noise.T)[0, 1]) < 6 / 512**0.5 and (0.02 < noise.std(0)).all() and (noise.std(0) < 0.9).all()
