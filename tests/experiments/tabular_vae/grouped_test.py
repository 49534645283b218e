"""Scores by group against scikit-learn on the rows themselves, and intervals against known spreads."""

import numpy as np
import pytest
from sklearn import metrics as sk

from jaxtrain import statistics
from jaxtrain.experiments.tabular_vae import grouped


@pytest.fixture(scope="module")
def rows():
  random = np.random.default_rng(0)
  label = random.integers(0, 4, 120)
  log_prob = random.normal(size=(120, 4)) + 1.2 * np.eye(4)[label]
  log_prob -= np.log(np.exp(log_prob).sum(axis=1, keepdims=True))
  log_prob[::7, 1] = log_prob[0, 1]  # equal scores count as halves
  return label, log_prob, grouped.of_rows({"group": random.integers(0, 6, 120)}, 120)


def drawn(groups: grouped.Groups, resample: int) -> np.ndarray:
  """The rows of a resample, each as often as its group."""
  return np.concatenate([np.tile(np.flatnonzero(groups.code == g), int(times))
                         for g, times in enumerate(groups.weights[resample])])


@pytest.mark.parametrize("resample", [None, 0, 5])
def test_scores_of_classes_are_scikit_learns_of_the_rows_that_were_drawn(rows, resample):
  label, log_prob, groups = rows
  pick = np.arange(120) if resample is None else drawn(groups, resample)
  at, pred = 0 if resample is None else resample + 1, log_prob.argmax(axis=1)
  found = grouped.resampled(groups, grouped.class_totals(groups, pred, label, 4), grouped.of_classes)[at]
  want = [sk.accuracy_score(label[pick], pred[pick]), sk.balanced_accuracy_score(label[pick], pred[pick]),
          sk.f1_score(label[pick], pred[pick], average="macro")]
  np.testing.assert_allclose(found, want, rtol=1e-12)
  areas = [sk.roc_auc_score(label[pick] == k, log_prob[pick, k]) for k in range(4)]
  assert grouped.mean_auc(groups, log_prob, label)[at] == pytest.approx(np.mean(areas), rel=1e-12)
  totals = grouped.calibration_totals(groups, log_prob, pred == label)
  ece = grouped.resampled(groups, totals, grouped.calibration_error)
  assert ece[at] == pytest.approx(statistics.calibration(log_prob[pick], label[pick])[0], rel=1e-9)


def test_r2_is_scikit_learns_of_the_entries_that_are_there(rows):
  groups, random = rows[2], np.random.default_rng(1)
  x = random.normal(size=(120, 3)) * [1, 1e3, 0] + [5, 1e6, 3]
  x_mean = x + random.normal(size=(120, 3))
  x[::5, 0] = np.nan
  values, pick = grouped.resampled(groups, grouped.r2_totals(groups, x, x_mean), grouped.r2), drawn(groups, 2)
  for at, some in ((0, np.arange(120)), (3, pick)):
    there = some[~np.isnan(x[some, 0])]
    want = [sk.r2_score(x[there, 0], x_mean[there, 0]), sk.r2_score(x[some, 1], x_mean[some, 1])]
    np.testing.assert_allclose(values[at, :2], want, rtol=1e-9)
  assert np.isnan(values[:, 2]).all()  # a constant column
  mean = grouped.resampled(groups, grouped.r2_totals(groups, x, x_mean), grouped.mean_r2)
  assert mean[0] == pytest.approx(values[0, :2].mean())


def test_an_interval_has_the_width_of_the_spread_between_groups():
  """Rows of a group are equal: the half width is 1.96 s / sqrt(G), however many rows there are."""
  random = np.random.default_rng(2)
  of_group = random.normal(size=60)
  groups = grouped.of_rows({"group": np.repeat(np.arange(60), 50)}, 3000)
  half = grouped.half_widths(grouped.resampled(groups, grouped.value_totals(groups, np.repeat(of_group, 50)),
                                               grouped.mean_of))
  assert half == pytest.approx(1.96 * of_group.std() / 60 ** 0.5, rel=0.1)


def test_rows_without_groups_have_the_width_of_independent_ones():
  values = np.random.default_rng(3).normal(size=4000)
  groups = grouped.of_rows({}, 4000)
  half = grouped.half_widths(grouped.resampled(groups, grouped.value_totals(groups, values), grouped.mean_of))
  assert half == pytest.approx(1.96 / 4000 ** 0.5, rel=0.15)


def test_few_groups_have_no_interval_and_many_are_joined(monkeypatch):
  few = grouped.of_rows({"group": np.arange(20) % 4}, 20)
  values = grouped.resampled(few, grouped.value_totals(few, np.arange(20.0)), grouped.mean_of)
  assert values.tolist() == [9.5] and np.isnan(grouped.half_widths(values))
  monkeypatch.setattr(grouped, "MOST_GROUPS", 10)
  many = grouped.of_rows({"group": np.repeat(np.arange(40), 3)}, 120)
  assert many.count == 10
  assert all(len(set(many.code[many_rows])) == 1 for many_rows in np.arange(120).reshape(40, 3))
