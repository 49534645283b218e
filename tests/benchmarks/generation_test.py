"""New events against real ones: what is drawn from the mixture, and that the benchmark runs whole, tiny."""

import argparse

import generation
import numpy as np
import pytest

from jaxtrain.experiments.autoencoder import event_files, events, generator, prior


def test_a_mixture_gives_back_latents_and_counts_that_belong_together():
  """Of two kinds of events, with latents around 3 and -3, and 6 jets or 2 jets with a lepton."""
  random = np.random.RandomState(0)
  first = random.uniform(size=4000) < 0.25
  z = np.where(first[:, None], 3.0, -3.0) + 0.5 * random.normal(size=(4000, 2))
  counts = np.where(first[:, None], (6, 0), (2, 1))
  new_z, new_counts = generation.fit_mixture(z, counts, 2, 0)(8000, 6)
  is_first = new_z[:, 0] > 0
  assert abs(is_first.mean() - first.mean()) < 5 * np.sqrt(0.25 * 0.75 * (1 / 4000 + 1 / 8000))  # one in two million
  assert new_counts[is_first].mean(axis=0) == pytest.approx([6, 0], abs=0.1)
  assert new_counts[~is_first].mean(axis=0) == pytest.approx([2, 1], abs=0.1)
  np.testing.assert_allclose(new_z[is_first].mean(axis=0), [3, 3], atol=5 * 0.5 / np.sqrt(900))


def test_a_mixture_gives_no_event_without_objects_or_with_too_many():
  random = np.random.RandomState(1)
  counts = random.randint(0, 4, size=(500, 2))
  _, found = generation.fit_mixture(random.normal(size=(500, 3)), counts, 1, 0)(300, 4)
  assert len(found) == 300 and found.sum(axis=1).min() >= 1 and found.sum(axis=1).max() <= 4


def test_types_are_laid_out_as_they_were_counted():
  counts = np.array([[2, 0, 1], [0, 0, 0], [0, 4, 0]])
  ids = prior.ids_of(counts, 4)
  assert ids.tolist() == [[1, 1, 3, 0], [0, 0, 0, 0], [2, 2, 2, 2]]
  np.testing.assert_array_equal(prior.counts_of(ids, 4), counts)


def test_a_part_of_a_file_comes_back(tmp_path):
  made = generator.generate(30, 0)
  event_files.write_hdf5(str(tmp_path / "a.h5"), {"train": made.take(slice(20)), "test": made.take(slice(20, 30))})
  for part, wanted in (("train", made.take(slice(20))), ("test", made.take(slice(20, 30)))):
    for a, b in zip(generation.read_part(str(tmp_path / "a.h5"), part, 18), wanted):
      np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_the_simulation_is_compared_with_its_own_process_alone(tmp_path):
  """A file of simulated ttH events among others: nothing is far from its floor, and nothing told apart."""
  made = events.join([generator.observe(2, 1200, 18, np.random.RandomState(5)), generator.generate(300, 6)])
  parts = {part: made.take(slice(k, None, 3)) for k, part in enumerate(event_files.PARTS)}
  path = str(tmp_path / "a.h5")
  event_files.write_hdf5(path, parts)
  found = generation.measure_generators("", argparse.Namespace(file=path, num_slots=18))
  assert found["generated_events"] == (made.label == 2).sum()
  assert found["w1_ht_floors"] < 3 and abs(found["two_sample_auc"] - 0.5) < 0.1
