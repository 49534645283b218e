"""Scores and curves against scikit-learn, or against loops in float64."""

import sys

import numpy as np
import pytest
from sklearn import metrics as sk

from jaxtrain.experiments.tabular_vae import scores


def made(num_classes=8, num_rows=300, seed=3, decimals=None):
  """(log_prob [N, K] float32, label [N] int32): class k has about k + 1 shares of the rows."""
  random = np.random.RandomState(seed)
  label = random.choice(num_classes, num_rows, p=np.arange(1, num_classes + 1) / np.arange(1, num_classes + 1).sum())
  logits = random.normal(size=(num_rows, num_classes)) + 1.5 * np.eye(num_classes)[label]
  log_prob = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
  return log_prob if decimals is None else np.round(log_prob, decimals), label.astype(np.int32)


def test_classification_is_scikit_learns():
  log_prob, label = made()
  got = scores.classification(log_prob, label)
  pred = log_prob.argmax(axis=1)
  assert got["accuracy"] == pytest.approx(sk.accuracy_score(label, pred), rel=1e-12)
  assert got["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(label, pred), rel=1e-12)
  assert got["f1_macro"] == pytest.approx(sk.f1_score(label, pred, average="macro"), rel=1e-12)
  assert got["accuracy_top5"] == pytest.approx(sk.top_k_accuracy_score(label, log_prob, k=5), rel=1e-12)
  prob = np.exp(log_prob.astype(np.float64))
  assert got["nll_nats"] == pytest.approx(sk.log_loss(label, prob / prob.sum(axis=1, keepdims=True)), rel=1e-5)
  assert 0.1 < got["balanced_accuracy"] != got["accuracy"] < got["accuracy_top5"] < 1


def test_unlabelled_rows_and_absent_classes_are_left_out():
  log_prob, label = made()
  log_prob[:, 6] = -50  # never predicted, though there
  label[label == 7] = -1
  got = scores.classification(log_prob, label)
  seen = label >= 0
  pred, truth = log_prob.argmax(axis=1)[seen], label[seen]
  assert got["accuracy"] == pytest.approx((pred == truth).mean())
  assert got["balanced_accuracy"] == pytest.approx(np.mean([(pred[truth == k] == k).mean() for k in range(7)]))
  assert 7 in pred and 6 not in pred
  assert got["f1_macro"] == pytest.approx(sk.f1_score(truth, pred, average="macro", zero_division=0), rel=1e-12)
  assert scores.classification(log_prob, np.full_like(label, -1)) == {}
  assert scores.classifier_curves(log_prob, np.full_like(label, -1)) == ({}, {})


@pytest.mark.parametrize("decimals", [None, 0])  # 0: most rows share their score with others
def test_auc_is_scikit_learns(decimals):
  log_prob, label = made(decimals=decimals)
  label[label == 2] = 3
  got = scores.one_vs_rest_auc(log_prob, label)
  for k in (0, 1, 3, 4, 5, 6, 7):
    assert got[k] == pytest.approx(sk.roc_auc_score(label == k, log_prob[:, k]), rel=1e-12)
  assert np.isnan(got[2])
  assert np.isnan(scores.one_vs_rest_auc(log_prob, np.zeros_like(label))).all()  # no other class


@pytest.mark.parametrize("decimals", [None, 0])
def test_roc_curves_are_scikit_learns(decimals):
  log_prob, label = made(num_rows=3000, decimals=decimals)
  fpr, tpr, _ = sk.roc_curve(label == 4, log_prob[:, 4], drop_intermediate=False)
  got = scores.roc_curve(log_prob[:, 4], label == 4)
  assert got[0] == tpr[fpr == 0].max() and got[-1] == 1
  want = [max(np.interp(g, fpr, tpr), tpr[fpr <= g].max()) for g in scores.ROC_GRID]
  np.testing.assert_allclose(got, want, rtol=1e-12)
  assert sk.auc(scores.ROC_GRID, got) == pytest.approx(sk.auc(fpr, tpr), abs=2e-3)


def test_classifier_curves():
  log_prob, label = made(num_classes=12)
  label[:40] = -1
  scalars, arrays = scores.classifier_curves(log_prob, label)
  seen = label >= 0
  want = [sk.roc_auc_score(label[seen] == k, log_prob[seen, k]) for k in np.unique(label[seen])]
  assert scalars["auc_macro"] == pytest.approx(np.mean(want), rel=1e-12)
  count = np.bincount(label[seen], minlength=12)
  assert len(arrays["roc_class"]) == 10 and (np.diff(count[arrays["roc_class"]]) <= 0).all()
  assert arrays["roc_tpr"].shape == (10, 201) and (np.diff(arrays["roc_tpr"], axis=1) >= 0).all()
  assert arrays["predicted_count"].sum() == seen.sum() == arrays["calibration"][0].sum()
  log_prob[50, 3] = np.nan
  assert scores.classifier_curves(log_prob, label) == ({}, {})


def test_distances_to_centroids():
  random = np.random.RandomState(0)
  label = np.repeat([0, 1, 2, 3, -1], [50, 40, 30, 1, 9])
  mean = (random.normal(size=(130, 3)) + 3 * label[:, None] ** 2).astype(np.float32)
  got = scores.class_distances(mean, label, 5)
  assert got["distance_class"].tolist() == [0, 1, 2, 3] and got["distance_nearest"].tolist() == [1, 0, 1, 2]
  centre = [mean[label == k].astype(np.float64).mean(axis=0) for k in range(4)]
  for k, j in enumerate(got["distance_nearest"]):
    distance = lambda to: np.mean([np.sqrt(((row - centre[to]) ** 2).sum()) for row in mean[label == k]])
    assert got["distance_own"][k] == pytest.approx(distance(k), abs=1e-12)
    assert got["distance_other"][k] == pytest.approx(distance(j))
  assert len(scores.class_distances(np.tile(mean, (2, 1)), np.arange(260) % 26, 26)["distance_class"]) == 20
  assert scores.class_distances(mean, np.zeros(130, int), 5) == {}


def test_histograms_count_every_row():
  random = np.random.RandomState(1)
  x = np.stack([random.normal(size=5000), random.randint(0, 17, 5000) * 0.25 - 1, np.full(5000, 3.0),
                random.rand(5000) < 0.002], axis=1).astype(np.float32)
  edges = scores.bin_edges(x)
  assert edges.shape == (4, scores.NUM_BINS + 1) and (np.diff(edges) > 0).all()
  np.testing.assert_allclose(edges[0, [0, -1]], np.quantile(x[:, 0].astype(np.float64), (0.001, 0.999)))
  np.testing.assert_allclose(edges[1, :2], [-1.125, -0.875])  # one bin for each of the 17 values
  found = scores.histograms(x, edges)
  assert (found.sum(axis=1) == 5000).all() and found[0, 0] == found[0, -1] == 5
  np.testing.assert_array_equal(found[0, 1:-1], np.histogram(x[:, 0].astype(np.float64), edges[0])[0])
  np.testing.assert_array_equal(found[1, 1:18], np.bincount(np.round((x[:, 1] + 1) * 4).astype(int)))
  assert found[2, 1] == 5000 and found[3, 1] == (x[:, 3] == 0).sum() and found[3, 2] == (x[:, 3] == 1).sum()
  odd = scores.histograms(np.array([[np.nan], [np.inf], [-np.inf], [0.0]]), edges[:1])[0]
  assert (odd[0], odd[-1], odd.sum()) == (1, 2, 4)


def test_without_umap_there_is_no_map(monkeypatch):
  monkeypatch.setitem(sys.modules, "umap", None)
  assert scores.umap_map(np.random.RandomState(0).normal(size=(50, 4))) is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of numba and scikit-learn, inside umap-learn
def test_umap_is_deterministic_and_bounded():
  pytest.importorskip("umap")
  mean = np.random.RandomState(0).normal(size=(60, 4)).astype(np.float32)
  first, again = scores.umap_map(mean), scores.umap_map(mean)
  np.testing.assert_array_equal(first, again)
  assert first.shape == (60, 2) and np.isfinite(first).all()
  assert scores.umap_map(mean[:9]) is None and scores.umap_map(np.full((60, 4), np.nan)) is None
  assert np.isfinite(scores.umap_map(np.zeros((40, 4), np.float32))).all()  # a collapsed posterior


def test_intervals_of_a_classifier():
  """8 right of 10: Wilson's interval is 0.4902 to 0.9433 (Newcombe 1998, method 3, by its formula)."""
  label = np.array([0] * 5 + [1] * 5)
  log_prob = np.log(np.where((np.arange(2) == label[:, None]) ^ np.isin(np.arange(10), (0, 9))[:, None], 0.8, 0.2))
  scalars, arrays = scores.classifier_curves(log_prob, label)
  found = scores.intervals(log_prob, label, arrays["auc_half"])
  assert found["accuracy_ci95"] == pytest.approx((0.94332 - 0.49016) / 2, abs=1e-4)
  share = 5 / 7  # (4 + 1) / (5 + 2) in both classes
  assert found["balanced_accuracy_ci95"] == pytest.approx(1.96 * (2 * share * (1 - share) / 5) ** 0.5 / 2)
  own = -np.log([0.2] + [0.8] * 8 + [0.2])
  assert found["nll_nats_ci95"] == pytest.approx(2.26216 * own.std(ddof=1) / 10 ** 0.5, rel=1e-4)  # t of 9 degrees
  assert found["auc_macro_ci95"] == pytest.approx(arrays["auc_half"].mean()) and scalars["auc_macro"] == 0.8


def test_half_widths_of_areas_are_those_of_hanley_and_mcneil():
  """Their formula for an area of 0.8 with 20 and 20, in fractions; an area of 1 is taken as short of one half pair."""
  area, n = 0.8, 20
  first, second = area / (2 - area), 2 * area ** 2 / (1 + area)
  var = (area * (1 - area) + (n - 1) * (first - area ** 2) + (n - 1) * (second - area ** 2)) / (n * n)
  half = scores.auc_half_widths(np.array([area, 1.0, np.nan]), np.array([20, 20, 0]))
  assert half[0] == pytest.approx(1.96 * var ** 0.5) and 0 < half[1] < 0.02 and np.isnan(half[2])


def test_confusion_counts_rows_by_true_and_predicted_class():
  log_prob = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]]))
  assert scores.confusion(log_prob, np.array([0, 1, 0, 1])).tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
