"""The arithmetic of the curve over shares of labels: pooled folds, resampled boreholes, likelihoods, the table."""

import label_fractions as lf
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from jaxtrain import config as config_lib
from jaxtrain.experiments.tabular_vae import lithology


def folds(seed: int, right: float):
  """(rows of two folds of ten boreholes each, what a method says of them) and the classes and -log p of all rows."""
  random, tested, said, label, pred, nats = np.random.default_rng(seed), [], [], [], [], []
  for fold in range(2):
    own = np.random.default_rng(fold).integers(4, size=200).astype(np.int32)
    guess = np.where(random.random(200) < right, own, random.integers(4, size=200))
    lost, group = random.random(200), np.repeat(np.arange(10), 20) + 10 * fold
    tested.append(lf.Rows(np.zeros((200, 1)), own, group))
    said.append({"predicted": guess.tolist(), "nll_nats": np.bincount(group - 10 * fold, lost).tolist()})
    label, pred, nats = [*label, *own], [*pred, *guess], [*nats, *lost]
  return tested, said, np.array(label), np.array(pred), np.array(nats)


def test_scores_are_of_all_folds_and_means_over_seeds():
  made = [folds(seed, 0.7) for seed in (0, 1)]
  found = lf.scores([lf.together(tested, said, 4) for tested, said, *_ in made])
  assert found.shape[::2] == (2, 3)
  want = [np.mean([score(label, pred) for _, _, label, pred, _ in made])
          for score in (metrics.accuracy_score, metrics.balanced_accuracy_score)]
  of_seeds = [nats.mean() for *_, nats in made]
  np.testing.assert_allclose(found.mean(axis=0)[0], [*want, np.mean(of_seeds)])
  spread = found.mean(axis=0)[1:, 2].std()  # of a mean over 20 boreholes of 20 independent rows, deviation 1 / sqrt(12)
  assert spread == pytest.approx((1 / 12 / 400 / 2) ** 0.5, rel=0.5)
  low, high = stats.t.interval(0.95, 1, np.mean(of_seeds), stats.sem(of_seeds))
  told = lf.summarise(found)["nll_nats"]
  assert told[0] == pytest.approx(np.mean(of_seeds))
  assert told[2] - told[0] == pytest.approx(np.hypot(1.96 * spread, (high - low) / 2))
  assert np.diff(lf.summarise(found[:1])["nll_nats"])[0] == pytest.approx(-1.96 * found[0, 1:, 2].std())


def test_folds_that_are_won_are_counted_in_the_direction_of_the_score():
  good, bad = (lf.together(*folds(0, right)[:2], 4) for right in (1.0, 0.3))
  less = good._replace(nats=good.nats * [[0.5, 1]])
  assert lf.wins([less], [bad], [10, 10]) == {"accuracy": 2, "balanced_accuracy": 2, "nll_nats": 2}
  assert lf.wins([bad], [less], [10, 10]) == dict.fromkeys(lf.SCORES, 0)


def test_a_class_that_was_not_foreseen_costs_what_is_mixed_in():
  prob = np.array([[1.0, 0, 0, 0], [0.2, 0.5, 0.3, 0]])
  want = [-np.log(lf.MIXED / 4), -np.log(0.999 * 0.5 + lf.MIXED / 4)]
  np.testing.assert_allclose(lf.nll_nats(prob, np.array([3, 1])), want)


def test_every_fourth_row_of_every_borehole_is_there():
  config = config_lib.read_file("configs/vae.py:geology")
  config.data.row_limit = 2000
  whole, found = lithology.generate(2000), lf.every_fourth(config)
  assert set(found.group) == set(whole.borehole) and abs(len(found.label) - 500) <= len(set(found.group))
  for hole in set(found.group):
    np.testing.assert_array_equal(found.features[found.group == hole], whole.features[whole.borehole == hole][::4])
    np.testing.assert_array_equal(found.label[found.group == hole], whole.label[whole.borehole == hole][::4])


def test_the_figure_is_a_small_file(tmp_path):
  row = {method: {name: [0.5, 0.4, 0.6] for name in lf.SCORES} for method in lf.METHODS}
  path = tmp_path / "curve.png"
  lf.draw_figure({"shares": {share: {"scores": row, "gains": row} for share in ("0.01", "1.0")}}, str(path))
  assert 5_000 < path.stat().st_size < 150_000
