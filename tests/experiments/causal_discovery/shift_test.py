"""Distances of a family from training, detection by entropy, and the parts of an assessment by families."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from jaxtrain import config as config_lib
from jaxtrain.experiments.causal_discovery import audit, named, shift

D = 6


def batch(num, density, weight, seed=0, padding=1):
  """Tasks [num] with linear effects of a size; the last `padding` variables are none, every fifth row an experiment."""
  random = np.random.RandomState(seed)
  A = np.triu(random.rand(num, D, D) < density, 1).astype(np.float32)
  mask = np.ones((num, D), np.float32)
  mask[:, D - padding:] = 0
  A *= mask[:, :, None] * mask[:, None, :]
  x = random.normal(size=(num, 400, D))
  for j in range(D):
    x[:, :, j] += weight * np.einsum("tni,ti->tn", x, A[:, :, j])
  marks = np.zeros(x.shape)
  marks[:, ::5, 0] = 1.0
  x[:, ::5] = 1e6  # rows that count in nothing
  return {"values": x, "intervened": marks, "adjacency": A, "node_mask": mask}


def test_facts_of_tasks():
  made = batch(5, 0.6, 2.0)
  facts = shift.facts(made)
  for t, A in enumerate(made["adjacency"]):
    skeleton = (A + A.T).astype(np.float64)
    assert facts.radius[t] == pytest.approx(np.linalg.norm(skeleton, 2), rel=1e-6)
    assert facts.degree_counts[t].sum() == D - 1  # padding has no degree
    assert facts.degree_counts[t] @ np.arange(shift.MOST_DEGREE + 1) == 2 * A.sum()
  single = batch(40, 0.15, 5.0)
  roots = single["adjacency"].sum(1).max(1) <= 1  # tasks whose nodes have one parent at most
  parents = single["adjacency"][roots] @ single["adjacency"][roots]
  found = shift.facts(single).unexplained[roots][parents.sum((1, 2)) == 0]  # and no grandparents
  np.testing.assert_allclose(found[~np.isnan(found)], 1 / 26, rtol=0.5)  # of weight 5: 1 of 26 parts is noise
  assert np.isfinite(found).sum() >= 3
  assert np.isnan(shift.facts(batch(2, 0.0, 1.0)).unexplained).all()


def test_distances_from_training():
  near, far = shift.facts(batch(60, 0.3, 1.0, 1)), shift.facts(batch(60, 0.7, 5.0, 2))
  same, other = (shift.distances(one, shift.facts(batch(60, 0.3, 1.0, 3))) for one in (near, far))
  assert shift.distances(near, near) == {name: 0 for name in shift.DISTANCES}
  assert all(other[name] > 3 * same[name] for name in shift.DISTANCES)
  found = shift.distances(far, near)
  p, q = (one.degree_counts.sum(0)[:D + 1].astype(float) for one in (far, near))
  kept = (p + q) > 0
  assert found["kl_degree"] == pytest.approx(stats.entropy(p[kept] + 0.5, q[kept] + 0.5), rel=1e-9)
  assert found["spectral"] == pytest.approx(abs(far.radius.mean() - near.radius.mean()))
  assert found["mechanism"] == pytest.approx(abs(np.nanmean(far.unexplained) - np.nanmean(near.unexplained)))


def test_detection_is_the_area_under_the_roc_curve():
  random = np.random.RandomState(0)
  family, training = np.round(random.normal(0.5, 1, 40), 1), np.round(random.normal(size=70), 1)  # with ties
  label = np.repeat([1, 0], [40, 70])
  want = sk.roc_auc_score(label, np.concatenate([family, training]))
  assert shift.detection_auroc(np.append(family, np.nan), training) == pytest.approx(want, abs=1e-12)
  assert np.isnan(shift.detection_auroc(family, np.array([np.nan])))


def config_with(**fields):
  """The smoke variant with families."""
  return config_lib.resolve(config_lib.with_values(config_lib.read_file("configs/causal_discovery.py:smoke"), fields))


def state_at(step, seed=0):
  """What an assessment reads of a state."""
  return SimpleNamespace(step=np.int32(step), key=jax.random.key(seed), applied=None)


FIXED = audit.Reference(lambda state, splits, key: ({"threshold": 0.5}, {}))


class Judge:
  """Judges sources by what it is told of them, and counts."""

  def __init__(self):
    self.count, self.made = 0, shift.facts(batch(4, 0.5, 1.0))._asdict()

  def __call__(self, source, params, key, chosen):
    self.count += 1
    sure = 0.1 if source == "training" else 0.5
    arrays = {f"task_{name}": value for name, value in self.made.items()}
    arrays["task_edge_entropy_nats"] = sure + np.arange(4.0) / 100
    scalars = {"rows": 4, "auroc": 0.5 + sure, "auroc_ci95": 0.02, "auroc_gain/baseline_correlation": 0.1,
               "auroc_gain_ci95/baseline_correlation": 0.03, "auroc/er edge_prob=0.4": 0.3, "cyclicity": 1.0}
    return scalars, arrays | {"example_probs": np.zeros(3)}


def test_without_families_a_split_is_one_part():
  for split in ("val", "test"):
    assert list(audit.make_parts(config_with(), split, Judge(), FIXED)) == [split]


def test_each_family_is_a_part_that_is_measured_against_training():
  judge, state = Judge(), state_at(7)
  splits = SimpleNamespace(test="training", val="validation")
  parts = audit.make_parts(config_with(**{"eval.suite": "chaos"}), "test", judge, FIXED)
  assert list(parts) == ["test-id", "test-ood_logistic_map", "test-ref_gp"]
  scalars, arrays = parts["test-id"](state, splits, None)
  assert scalars["auroc"] == 0.6 and "example_probs" in arrays
  scalars, arrays = parts["test-ref_gp"](state, splits, None)
  assert scalars == {"rows/ref_gp": 4, "auroc/ref_gp": 1.0, "auroc_ci95/ref_gp": 0.02,
                     "auroc_over_correlation/ref_gp": 0.1, "auroc_over_correlation_ci95/ref_gp": 0.03,
                     "distance_spectral/ref_gp": 0.0, "distance_kl_degree/ref_gp": 0.0,
                     "distance_mechanism/ref_gp": 0.0, "ood_detection_auroc/ref_gp": 1.0}
  assert set(arrays) == {f"ref_gp.{name}" for name in (*shift.Facts._fields, "edge_entropy_nats")}
  assert judge.count == 2  # training tasks were judged once
  parts["test-ref_gp"](state_at(8), splits, None)
  assert judge.count == 4  # and again for another state, as after a stop
  parts["test-ref_gp"](state_at(8, seed=1), splits, None)
  assert judge.count == 6  # and for another member of an ensemble, which has the same step
  parts["test-ref_gp"](state_at(8, seed=1), splits, None)
  assert judge.count == 7


def test_validation_by_families_has_no_reference():
  parts = audit.make_parts(config_with(**{"data.val_families": ("a noises=laplace",)}), "val", Judge(), FIXED)
  assert list(parts) == ["val-id", "val-a"]
  scalars, _ = parts["val-a"](state_at(7), None, None)
  assert "auroc/a" in scalars and not [name for name in scalars if name.startswith("distance")]


def test_a_family_of_rejected_tasks_says_so():
  parts = audit.make_parts(config_with(**{"eval.suite": "pnl"}), "test", lambda *_: ({"rows": 0}, {}), FIXED)
  state = state_at(7)
  assert parts["test-ood_pnl_cube"](state, None, None) == ({"rows/ood_pnl_cube": 0}, {})


def test_test_tasks_and_families_are_judged_at_the_threshold_of_validation(monkeypatch):
  """Also where validation tasks are not of the training distribution: then some of it are judged for the threshold."""
  monkeypatch.setattr(named, "source", lambda family, config, split: (split, family.name))
  seen = []

  def judge(source, params, key, chosen):
    seen.append((source, chosen))
    return {"rows": 0} | ({"threshold": 0.3} if chosen is None else {}), {}
  config = config_with(**{"eval.suite": "chaos", "data.val_families": ("a noises=laplace",)})
  splits = SimpleNamespace(val="families", test="test")
  calibration = audit.make_calibration(config, judge)
  parts = {name: part for split in ("val", "test")
           for name, part in audit.make_parts(config, split, judge, calibration).items()}
  assert list(parts) == ["val-id", "val-a", "test-id", "test-ood_logistic_map", "test-ref_gp"]
  for name in ("test-id", "test-ref_gp", "val-a"):
    parts[name](state_at(1), splits, None)
  assert seen == [(("val", "id"), None), ("test", 0.3), (("test", "ref_gp"), 0.3), (("val", "a"), 0.3)]
