"""Splits: a partition of the rows, groups kept whole, fractions near what was asked."""

import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrain.data import splits
from jaxtrain.errors import UserError


def split(kind, fractions=(0.7, 0.15, 0.15)):
  return types.SimpleNamespace(kind=kind, fractions=fractions)


def check_partition(rows, num_rows):
  assert list(rows) == ["train", "val", "test"]
  together = np.concatenate(list(rows.values()))
  assert np.array_equal(np.sort(together), np.arange(num_rows))  # every row once: disjoint and complete
  for part in rows.values():
    assert np.array_equal(part, np.sort(part)) and part.dtype.kind == "i"


def test_none_trains_on_everything():
  rows = splits.split_rows(split("none"), 10, None)
  check_partition(rows, 10)
  assert [len(r) for r in rows.values()] == [10, 0, 0]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(20, 2000), st.sampled_from([(0.7, 0.15, 0.15), (0.8, 0.2, 0.0), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0),
                                               (0.34, 0.33, 0.33)]))
def test_random_rows_keep_the_fractions_to_a_row(num_rows, fractions):
  rows = splits.split_rows(split("random", fractions), num_rows, None)
  check_partition(rows, num_rows)
  for part, fraction in zip(rows, fractions):
    assert abs(len(rows[part]) - fraction * num_rows) <= 1


def test_random_rows_are_the_same_every_time_and_no_blocks():
  first, again = (splits.split_rows(split("random"), 1000, None) for _ in range(2))
  for part in first:
    np.testing.assert_array_equal(first[part], again[part])
    # Neighbours in the part are 1/fraction apart on average; a block would have them 1 apart.
  assert first["test"].min() < 100 and first["test"].max() > 900 and first["train"].max() > 900


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.integers(1, 60), min_size=8, max_size=40), st.integers(0, 1000))
def test_groups_are_never_divided(sizes, seed):
  wells = np.repeat([f"well {i}" for i in range(len(sizes))], sizes).astype(object)
  group = np.random.RandomState(seed).permutation(wells)
  fractions = np.array([0.7, 0.15, 0.15])
  rows = splits.split_rows(split("group"), len(group), group)
  check_partition(rows, len(group))
  of = {part: set(group[r]) for part, r in rows.items()}
  assert not of["train"] & of["val"] and not of["train"] & of["test"] and not of["val"] & of["test"]
  for part, fraction in zip(rows, fractions):
    # No part may be off by more than the largest group.
    assert abs(len(rows[part]) - fraction * len(group)) <= max(sizes), (part, sizes)


def test_many_groups_come_near_the_fractions():
  random = np.random.RandomState(3)
  group = np.repeat(np.arange(296), np.maximum(random.lognormal(5.99, 1.5, 296).astype(int), 2))
  rows = splits.split_rows(split("group"), len(group), group)
  got = [len(r) / len(group) for r in rows.values()]
  np.testing.assert_allclose(got, [0.7, 0.15, 0.15], atol=0.005)


def test_a_part_of_fraction_zero_gets_no_group():
  group = np.repeat(np.arange(10), 7)
  rows = splits.split_rows(split("group", (0.8, 0.2, 0.0)), 70, group)
  check_partition(rows, 70)
  assert len(rows["test"]) == 0 and len(rows["val"]) == 14


@pytest.mark.parametrize("num_groups", [3, 4])
def test_as_many_groups_as_parts_suffice(num_groups):
  group = np.repeat(np.arange(num_groups), 10)
  rows = splits.split_rows(split("group"), len(group), group)
  check_partition(rows, len(group))
  assert all(len(r) > 0 for r in rows.values())


@pytest.mark.parametrize("fractions", [(0.7, 0.2, 0.2), (0.7, 0.4, -0.1), (0.7, 0.3), (0.0, 0.5, 0.5)])
def test_bad_fractions_are_refused(fractions):
  with pytest.raises(UserError, match="config.data.split.fractions: got"):
    splits.split_rows(split("random", fractions), 100, None)


def test_other_mistakes_are_refused():
  with pytest.raises(UserError, match="config.data.split.kind: got 'wells'.*group"):
    splits.split_rows(split("wells"), 100, None)
  with pytest.raises(UserError, match="config.data.group"):
    splits.split_rows(split("group"), 100, None)
  with pytest.raises(UserError, match="got 2 groups, allowed at least 3"):
    splits.split_rows(split("group"), 100, np.repeat([0, 1], 50))
  with pytest.raises(UserError, match="leaves val empty|leaves test empty"):
    splits.split_rows(split("random"), 3, None)


@pytest.mark.parametrize("kind", ["entropy_balanced", "leave_out"])
def test_folds_partition_keep_groups_whole_and_cover_every_row_once(kind):
  random = np.random.RandomState(3)
  group = np.repeat(np.arange(40), random.randint(5, 60, 40))
  label = (group % 4).astype(np.int32)  # dominant label of a group, ten groups each
  tested = []
  for fold in range(5):
    split = types.SimpleNamespace(kind=kind, fractions=(0.7, 0.15, 0.15), num_folds=5, fold=fold)
    rows = splits.split_rows(split, len(group), group, label)
    assert np.array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(len(group)))
    assert not set(group[rows["train"]]) & (set(group[rows["val"]]) | set(group[rows["test"]]))
    assert not set(group[rows["val"]]) & set(group[rows["test"]])
    if kind == "entropy_balanced":  # ten groups of each label over five folds
      assert [len(set(group[rows["test"]][label[rows["test"]] == k])) for k in range(4)] == [2, 2, 2, 2]
    tested.append(rows["test"])
  assert np.array_equal(np.sort(np.concatenate(tested)), np.arange(len(group)))


@settings(deadline=None, max_examples=80, derandomize=True)
@given(st.data(), st.sampled_from(["entropy_balanced", "leave_out"]))
def test_any_groups_and_labels_are_dealt_to_folds(data, kind):
  num_groups = data.draw(st.integers(3, 25))
  num_folds = data.draw(st.integers(3, num_groups))
  code = data.draw(st.lists(st.integers(0, num_groups - 1), max_size=120))
  group = np.array([f"well {g}" for g in [*range(num_groups), *code]], object)
  label = np.array(data.draw(st.lists(st.integers(-1, 4), min_size=len(group), max_size=len(group))), np.int32)
  label[0] = 0  # one at least
  tested = np.zeros(len(group), int)
  for fold in range(num_folds):
    split = types.SimpleNamespace(kind=kind, fractions=(0.7, 0.15, 0.15), num_folds=num_folds, fold=fold)
    rows = splits.split_rows(split, len(group), group, label)
    check_partition(rows, len(group))
    parts = [set(group[r]) for r in rows.values()]
    assert sum(map(len, parts)) == num_groups  # no group in two parts
    assert all(parts)
    again = splits.split_rows(split, len(group), group.copy(), label.copy())
    assert all(np.array_equal(rows[part], again[part]) for part in rows)
    tested[rows["test"]] += 1
  assert (tested == 1).all()


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.lists(st.integers(0, 30), min_size=30, max_size=200), st.integers(0, 10))
def test_the_split_does_not_know_the_runs_seed_and_follows_the_groups(code, seed):
  """A random state used before changes nothing, and names that sort alike give the same rows."""
  group = np.array([*code, 31, 32, 33])
  first = splits.split_rows(split("group"), len(group), group)
  np.random.seed(seed)
  again = splits.split_rows(split("group"), len(group), np.array([f"U{g:02d}" for g in group]))
  assert all(np.array_equal(first[part], again[part]) for part in first)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.lists(st.integers(-1, 3), min_size=2, max_size=200), st.floats(0.01, 1), st.integers(0, 2**32 - 1))
def test_a_share_of_the_labels_of_some_rows_is_left(label, share, seed):
  label = np.array([2, *label], np.int32)
  rows = np.flatnonzero(np.arange(len(label)) % 3 == 0)
  hide = lambda share: splits.hide_labels(label, rows, share, splits.label_random(seed))
  found = hide(share)
  others = np.setdiff1d(np.arange(len(label)), rows)
  np.testing.assert_array_equal(found[others], label[others])
  had = int((label[rows] >= 0).sum())
  assert (found[rows] >= 0).sum() == max(1, round(share * had)) and found.dtype == np.int32
  left = found >= 0
  np.testing.assert_array_equal(found[left], label[left])
  more = hide(min(1.0, 2 * share))
  assert (more[left] >= 0).all()  # nested
  np.testing.assert_array_equal(hide(1.0), label)


def test_other_seeds_leave_the_labels_of_other_rows():
  """Of 1,000 rows a tenth each: two draws share about 10, and more than 30 with probability below 1e-8."""
  label, rows = np.zeros(1000, np.int32), np.arange(1000)
  left = [splits.hide_labels(label, rows, 0.1, splits.label_random(seed)) >= 0 for seed in (0, 1)]
  assert (left[0] & left[1]).sum() < 30


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_resample_has_its_share_of_the_labels_that_its_seed_leaves(number):
  """Of 1,000 rows that are drawn 500 have a label, with a standard deviation of 16: five of them."""
  label, rows = np.zeros(1000, np.int32), np.arange(1000)
  left = splits.hide_labels(label, rows, 0.5, splits.label_random(number)) >= 0
  assert abs(left[splits.resample(rows, number)].sum() - 500) < 80
