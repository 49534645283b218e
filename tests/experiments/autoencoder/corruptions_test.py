"""What corruptions change, and what they leave."""

import numpy as np
import pytest

import made_events
from jaxtrain.experiments.autoencoder import corruptions

NUM = 400


def arrays():
  """Arrays of events of 1 to 12 objects."""
  events = made_events.draw(NUM, 12)
  return {"ids": events.ids, "momenta": events.momenta, "globals": events.globals, "weight": events.weight}


def corrupted(name, seed=0):
  """(arrays, a corrupted copy)."""
  before = arrays()
  return before, corruptions.corrupt(name, before, np.random.RandomState(seed))


def objects_of(found, n):
  """The objects of an event as a sorted list of tuples."""
  return sorted((int(found["ids"][n, t]), *found["momenta"][n, t].tolist())
                for t in range(found["ids"].shape[1]) if found["ids"][n, t])


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_all_keep_shapes_and_what_they_have_no_use_for(name):
  """The input is not changed; a seed gives the same again; empty slots hold zeros; MET and weights are handed on."""
  untouched = arrays()
  before, after = corrupted(name)
  for key, value in untouched.items():
    np.testing.assert_array_equal(before[key], value)
    assert after[key].shape == value.shape and after[key].dtype == value.dtype
    np.testing.assert_array_equal(corrupted(name)[1][key], after[key])
  assert not after["momenta"][after["ids"] == 0].any()
  assert after["globals"] is before["globals"] and after["weight"] is before["weight"]
  assert any((after[key] != before[key]).any() for key in ("ids", "momenta"))


def test_noise_is_a_tenth():
  """Relative deviations of E and pT and deviations of eta and phi are .1, within 5 standard errors: fewer than one
  false alarm in 100,000 seeds.
  """
  before, after = corrupted("gaussian_noise")
  mask, (x, y) = before["ids"] > 0, (a["momenta"].astype(float) for a in (before, after))
  change = np.stack([y[..., 0] / np.where(mask, x[..., 0], 1) - 1, y[..., 1] / np.where(mask, x[..., 1], 1) - 1,
                     y[..., 2] - x[..., 2], (y[..., 3] - x[..., 3] + np.pi) % (2 * np.pi) - np.pi], axis=-1)[mask]
  np.testing.assert_allclose(change.std(axis=0), 0.1, rtol=5 / (2 * len(change))**0.5)
  np.testing.assert_allclose(change.mean(axis=0), 0, atol=5 * 0.1 / len(change)**0.5)
  np.testing.assert_array_equal(after["ids"], before["ids"])
  assert (np.abs(y[..., 3]) <= np.pi).all() and (y[..., :2][mask] > 0).all()


def test_noise_stays_within_bounds():
  """Pseudorapidities beyond 5 are cut, azimuths are wrapped."""
  before = arrays()
  momenta = before["momenta"].copy()
  momenta[..., 2:] = (4.99, 3.14) * (before["ids"] > 0)[..., None]
  after = corruptions.corrupt("gaussian_noise", before | {"momenta": momenta}, np.random.RandomState(0))["momenta"]
  assert after[..., 2].max() == 5 and np.abs(after[..., 3]).max() <= np.float32(np.pi) and (after[..., 3] < -3).any()


def test_shuffled_objects_are_the_same_in_other_places():
  before, after = corrupted("token_shuffle")
  for n in range(NUM):
    count = int((before["ids"][n] > 0).sum())
    moved = int((before["momenta"][n] != after["momenta"][n]).any(axis=1).sum())
    assert objects_of(before, n) == objects_of(after, n)
    assert moved == (0 if count < 2 else max(2, round(0.2 * count)))


def test_dropped_objects_are_a_share_and_others_close_up():
  before, after = corrupted("drop_tokens")
  for n in range(NUM):
    kept = objects_of(after, n)
    assert kept and set(kept) <= set(objects_of(before, n))
    assert (np.diff((after["ids"][n] > 0).astype(int)) <= 0).all()
    order = [tuple(row) for row in before["momenta"][n].tolist()]
    places = [order.index(tuple(row)) for row in after["momenta"][n][after["ids"][n] > 0].tolist()]
    assert places == sorted(places)
  count = (before["ids"] > 0).sum(axis=1)
  many = count > 3  # the one that always stays hardly matters
  share = 1 - (after["ids"][many] > 0).sum() / count[many].sum()
  assert abs(share - 0.2) < 5 * (0.16 / count[many].sum())**0.5 + 0.002


def test_swapped_types_keep_their_momenta():
  before, after = corrupted("swap_id_cont_pairs")
  np.testing.assert_array_equal(before["momenta"], after["momenta"])
  changed = (before["ids"] != after["ids"]).sum(axis=1)
  np.testing.assert_array_equal(np.sort(before["ids"], axis=1), np.sort(after["ids"], axis=1))
  count = (before["ids"] > 0).sum(axis=1)
  assert (changed % 2 == 0).all() and changed[count < 2].max(initial=0) == 0 and (changed <= np.maximum(2, 4)).all()
  assert set(changed[count > 8]) == {0, 2} and (changed > 0).mean() > 0.5


def test_scrambled_jets_are_those_of_all_events():
  before, after = corrupted("global_jet_scramble")
  jets = np.isin(before["ids"], (1, 2))
  np.testing.assert_array_equal(np.isin(after["ids"], (1, 2)), jets)
  np.testing.assert_array_equal(after["momenta"][~jets], before["momenta"][~jets])
  rows = lambda found: sorted((kind, *p) for kind, p in zip(found["ids"][jets], found["momenta"][jets].tolist()))
  assert rows(before) == rows(after)
  assert (after["momenta"][jets] != before["momenta"][jets]).any(axis=1).mean() > 0.95


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_events_of_one_object_and_of_none_are_taken(name):
  momenta = np.zeros((2, 3, 4), np.float32)
  momenta[0, 1] = 50, 40, 0.5, 1
  after = corruptions.corrupt(name, {"ids": np.array([[0, 1, 0], [0, 0, 0]], np.int32), "momenta": momenta},
                              np.random.RandomState(0))
  assert (after["ids"] > 0).sum() == 1 and not after["momenta"][1].any()


def test_another_name_is_refused():
  with pytest.raises(ValueError, match="'noise', allowed gaussian_noise, token_shuffle, drop_tokens"):
    corruptions.corrupt("noise", arrays(), np.random.RandomState(0))
