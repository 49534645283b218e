"""All metrics for many tasks: values against loops in float64, padding, labels, and what is not defined."""

import jax
import numpy as np
import pytest

from jaxtrain.experiments.causal_discovery import metrics

T, S, D = 6, 4, 6
SIZES = [6, 6, 5, 4, 3, 2]


def made(seed=0):
  """(truth, probs, samples, node_mask) of T tasks of `SIZES` variables; ones in padding must not count."""
  random = np.random.default_rng(seed)
  mask = (np.arange(D)[None] < np.array(SIZES)[:, None]).astype(np.float32)
  truth = np.ones((T, D, D), np.float32)
  for one, d in zip(truth, SIZES):
    order = random.permutation(d)
    one[:d, :d] = np.triu(random.random((d, d)) < 0.5, 1)[order][:, order]
  probs = np.clip(0.6 * random.random((T, D, D)) + 0.4 * truth, 0, 1).astype(np.float32)
  samples = (random.random((T, S, D, D)) < probs[:, None]).astype(np.float32)
  return truth, probs, samples, mask


def scored(*args):
  return {name: np.asarray(value, np.float64) for name, value in jax.device_get(metrics.of_tasks(*args)).items()}


def by_loops(truth, probs, samples, d):
  """Counts and shares of one task by loops over pairs, from their definitions."""
  found = dict.fromkeys(("e_shd", "e_shd_rev1", "correct_count", "reversed_count", "fn_count", "fp_count",
                         "skeleton_f1", "orientation_accuracy", "cyclic_share", "sampled_density"), 0.0)
  for graph in samples:
    joined, right, num_true, num_sampled = 0, 0, 0, 0
    for i in range(d):
      for j in range(d):
        if i == j:
          continue
        t, g, back, true_back = truth[i, j], graph[i, j], graph[j, i], truth[j, i]
        found["correct_count"] += t and g
        found["reversed_count"] += t and back and not g
        found["fn_count"] += t and not g and not back
        found["fp_count"] += g and not t and not (true_back and not back)
        found["e_shd"] += t != g
        found["sampled_density"] += g / (d * (d - 1))
        if i < j:
          found["e_shd_rev1"] += (t, true_back) != (g, back)
          num_true, num_sampled = num_true + max(t, true_back), num_sampled + max(g, back)
          joined += max(t, true_back) * max(g, back)
          right += bool(max(t, true_back)) and (t, true_back) == (g, back)
    found["skeleton_f1"] += 2 * joined / (num_true + num_sampled) if num_true + num_sampled else 1.0
    found["orientation_accuracy"] += right / joined if joined else 1.0
    walk = graph[:d, :d] * (1 - np.eye(d))
    found["cyclic_share"] += any(np.trace(np.linalg.matrix_power(walk, k)) > 0 for k in range(2, d + 1))
  return {name: value / len(samples) for name, value in found.items()}


def test_counts_and_shares_are_those_of_loops():
  truth, probs, samples, mask = made()
  found = scored(truth, probs, samples, mask)
  assert set(found) == set(metrics.DESCRIBED) and {one.shape for one in found.values()} == {(T,)}
  for task, d in enumerate(SIZES):
    want = by_loops(truth[task], probs[task], samples[task], d)
    for name, value in want.items():
      assert found[name][task] == pytest.approx(value, abs=1e-5), (name, task)
  pairs = np.array([d * (d - 1) for d in SIZES])
  np.testing.assert_allclose(found["ne_shd"], found["e_shd"] / pairs, rtol=1e-6)
  np.testing.assert_allclose(found["ne_shd_rev1"], 2 * found["e_shd_rev1"] / pairs, rtol=1e-6)
  np.testing.assert_allclose(found["e_shd"], found["fp_count"] + found["fn_count"] + 2 * found["reversed_count"],
                             rtol=1e-5)
  np.testing.assert_allclose(found["graph_log_prob_nats"], -found["edge_nll_nats"] * pairs, rtol=1e-6)


def test_the_true_graph_is_perfect_and_the_empty_one_has_a_mistake_for_each_edge():
  truth, _, _, mask = made(1)
  found = scored(truth, truth, np.repeat(truth[:, None], S, 1), mask)
  for name in ("e_shd", "e_shd_rev1", "e_sid", "ne_ancestor_distance", "brier", "ece", "cyclic_share", "cyclicity",
               "edge_entropy_nats", "fp_count", "fn_count", "reversed_count"):
    np.testing.assert_allclose(found[name], 0, atol=1e-6, err_msg=name)
  for name in ("e_edge_f1", "ancestor_f1", "skeleton_f1", "orientation_accuracy", "acyclic_share", "threshold_acyclic"):
    np.testing.assert_allclose(found[name], 1, err_msg=name)
  edges = np.array([one[:d, :d].sum() for one, d in zip(truth, SIZES)])
  for name in ("auroc", "auprc", "auprc_trapezoid", "sparsity_ratio"):  # all tasks but empty ones
    np.testing.assert_allclose(found[name][edges > 0], 1, err_msg=name)
  empty = scored(truth, 0 * truth, np.zeros((T, S, D, D), np.float32), mask)
  np.testing.assert_allclose(empty["e_shd"], edges)
  np.testing.assert_allclose(empty["fn_count"], edges)
  nothing = scored(0 * truth, 0 * truth, np.zeros((T, S, D, D), np.float32), mask)
  for name, value in nothing.items():  # no edges at all: what has no meaning is NaN, the rest a number
    assert np.isnan(value).all() == (name in ("auroc", "auprc", "auprc_trapezoid", "sparsity_ratio")), name
  assert (nothing["e_edge_f1"] == 1).all() and (nothing["ancestor_f1"] == 1).all()
  opposite = scored(truth, 1 - truth, np.repeat(1 - truth[:, None], S, 1), mask)
  for name in ("auroc", "e_edge_f1", "ne_shd", "ne_sid", "brier", "ece", "cyclic_share", "sampled_density"):
    assert metrics.DESCRIBED[name].limits == (0, 1)
  for case in (found, empty, nothing, opposite):
    for name, value in case.items():
      low, high = metrics.DESCRIBED[name].limits or (-np.inf, np.inf)
      assert ((value >= low - 1e-6) & (value <= high + 1e-6) | np.isnan(value)).all(), name


def test_padding_and_labels_have_no_part():
  truth, probs, samples, mask = made(2)
  found = scored(truth, probs, samples, mask)
  order = np.random.default_rng(3).permutation(D)
  turned = lambda x: x[..., order, :][..., order]
  again = scored(turned(truth), turned(probs), turned(samples), mask[:, order])
  real = lambda x: x * (mask[:, :, None] * mask[:, None, :]).reshape(T, *[1] * (x.ndim - 3), D, D)
  emptied = scored(real(truth), real(probs), real(samples), mask)
  for name, value in found.items():
    np.testing.assert_allclose(again[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(emptied[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
