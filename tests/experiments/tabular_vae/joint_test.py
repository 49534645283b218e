"""What models are compared by, against scikit-learn and loops in float64."""

import numpy as np
import pytest
from sklearn import discriminant_analysis, metrics

from jaxtrain.experiments.tabular_vae import joint


def made(num_rows=600, K=4, L=3, seed=0):
  """(means [N, L], labels [N]) of Gaussian classes, every tenth row without a label."""
  random = np.random.default_rng(seed)
  label = random.integers(0, K, num_rows)
  centre = 1.5 * np.random.default_rng(9).normal(size=(K, L))
  mean = (centre[label] + random.normal(size=(num_rows, L))).astype(np.float32)
  label[::10] = -1
  return mean, label


def test_the_linear_classifier_is_scikit_learns():
  mean, label = made()
  seen = label >= 0
  weights, bias = joint.fit_discriminant(mean[seen].astype(np.float64), label[seen], 6)  # two classes without rows
  logit = (mean @ weights + bias)[:, :4]
  prob = np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)
  theirs = discriminant_analysis.LinearDiscriminantAnalysis(solver="lsqr").fit(mean[seen], label[seen])
  np.testing.assert_allclose(prob, theirs.predict_proba(mean), atol=5e-3)  # ours is shrunk by a thousandth
  assert np.isneginf(bias[4:]).all()


def test_areas_and_curves_are_of_other_rows_than_it_was_fitted_to():
  fitted, scored = made(seed=0), made(seed=1)
  found = joint.probe(fitted, scored, 6)
  assert found["probe_rows"].tolist() == [540, 540]
  seen = scored[1] >= 0
  theirs = discriminant_analysis.LinearDiscriminantAnalysis(solver="lsqr").fit(fitted[0][fitted[1] >= 0],
                                                                               fitted[1][fitted[1] >= 0])
  prob = theirs.predict_proba(scored[0][seen])
  count = np.bincount(scored[1][seen])
  assert found["probe_class"].tolist() == np.argsort(-count, kind="stable").tolist()
  for k, area, curve in zip(found["probe_class"], found["probe_auc"], found["probe_tpr"]):
    assert area == pytest.approx(metrics.roc_auc_score(scored[1][seen] == k, prob[:, k]), abs=2e-3)
    assert np.trapezoid(curve, found["probe_fpr"]) == pytest.approx(area, abs=0.01) and area > 0.7


@pytest.mark.parametrize("label", [np.full(600, -1), np.zeros(600, int)])
def test_nothing_is_scored_without_two_classes(label):
  mean, _ = made()
  assert joint.probe((mean, label), (mean, label), 4) == {}
  assert joint.probe((np.full_like(mean, np.nan), made()[1]), made(), 4) == {}


def test_held_out_classes_are_a_fifth_and_their_distances_those_of_a_loop():
  mean, label = made(num_rows=3000, K=20)
  label[label == 3] = -1
  found = joint.held_out(mean, label, 25)
  assert len(found["held_class"]) == 4 == len(set(found["held_class"]) - {3})
  np.testing.assert_array_equal(found["held_class"], joint.held_out(2 * mean, label, 25)["held_class"])
  distance = lambda rows: np.mean([np.sqrt(((row - rows.mean(axis=0)) ** 2).sum()) for row in rows])
  x = mean.astype(np.float64)
  for k, rows, own in zip(found["held_class"], found["held_rows"], found["held_own"]):
    assert rows == (label == k).sum() and own == pytest.approx(distance(x[label == k]))
  assert found["held_all"] == pytest.approx(distance(x[label >= 0]))
  assert joint.held_out(mean, np.full(3000, -1), 25) == {}


def test_halves_keep_groups_whole():
  group = np.repeat(np.arange(10), 6)
  first, by_group = joint.halves({"group": group, "label": group})
  assert by_group and first.sum() == 30 and all(len(set(first[group == g])) == 1 for g in range(10))
  first, by_group = joint.halves({"label": np.zeros(9)})
  assert not by_group and first.sum() == 4


def test_a_part_of_its_own_is_scored_by_what_the_training_part_teaches():
  (x, label), (new, label_new) = made(seed=0), made(seed=1)
  group = np.arange(600) // 60
  training, rows = {"x": x, "label": label, "group": group}, {"x": new, "label": label_new, "group": group + 10}
  found = joint.arrays(lambda some: some, rows, training, 4)
  np.testing.assert_array_equal(found["probe_auc"], joint.probe((x, label), (new, label_new), 4)["probe_auc"])
  assert found["probe_by_group"] and not joint.arrays(lambda some: some, rows, rows, 4)["probe_by_group"]
  alone = joint.arrays(lambda some: some, rows, None, 4)
  assert alone["probe_rows"].sum() == (label_new >= 0).sum() and "held_own" in alone
