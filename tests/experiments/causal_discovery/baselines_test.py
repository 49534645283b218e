"""Baselines: scores against regressions, graphs that are acyclic with the right number of edges, known weaknesses."""

import numpy as np
import pytest
from scipy import stats

from jaxtrain.experiments.causal_discovery import baselines, comparison, metrics

D, ROWS = 6, 400
EDGE_PROB = 0.2


def chain_task(seed=0, scale=2.0, standardised=False):
  """(values [n, D + 1], truth, node_mask): a linear chain in shuffled order whose variance grows; one is padding."""
  random = np.random.default_rng(seed)
  order, x = random.permutation(D), random.normal(size=(ROWS, D))
  truth = np.zeros((D + 1, D + 1), np.float32)
  for cause, effect in zip(order, order[1:]):
    x[:, effect] += scale * x[:, cause]
    truth[cause, effect] = 1
  x = (x - x.mean(0)) / x.std(0) if standardised else x
  values = np.pad(x, ((0, 0), (0, 1)), constant_values=7.0).astype(np.float32)
  return values, truth, (np.arange(D + 1) < D).astype(float)


def found_in(values, truth, mask, intervened=None, seed=0):
  """{baseline: (scores, graphs)} of a task."""
  intervened = np.zeros_like(values) if intervened is None else intervened
  scores, graphs = baselines.of_task(values, intervened, truth, mask, EDGE_PROB, np.random.default_rng(seed))
  return {name: (scores[k], graphs[k]) for k, name in enumerate(baselines.NAMES)}


def residual(y, x):
  """What least squares on x and a constant leaves of y."""
  x = np.column_stack([x, np.ones(len(y))])
  return y - x @ np.linalg.lstsq(x, y, rcond=None)[0]


def ridge_partial(x, i, j):
  """|Partial correlation| of two columns given all others, by ridge regressions of columns of length 1: those of rows
  sqrt(d / (6 n)) I below them."""
  n, d = x.shape
  z = (x - x.mean(0)) / np.linalg.norm(x - x.mean(0), axis=0)
  z = np.concatenate([z, np.sqrt(d / (6 * n)) * np.eye(d)])
  others = np.delete(z, [i, j], 1)
  left = [z[:, k] - others @ np.linalg.lstsq(others, z[:, k], rcond=None)[0] for k in (i, j)]
  return abs(left[0] @ left[1]) / np.linalg.norm(left[0]) / np.linalg.norm(left[1])


def test_scores_are_those_of_regressions():
  values, truth, mask = chain_task()
  found, x = found_in(values, truth, mask), values[:, :D].astype(np.float64)
  order = np.argsort(x.var(0))
  for i in range(D):
    for j in range(D):
      if i == j:
        continue
      assert found["correlation"][0][i, j] == pytest.approx(abs(np.corrcoef(x[:, i], x[:, j])[0, 1]), abs=1e-3)
      assert found["partial_correlation"][0][i, j] == pytest.approx(ridge_partial(x, i, j), abs=1e-4)
      before = [k for k in order[:list(order).index(j)] if k != i]
      want = abs(np.corrcoef(residual(x[:, i], x[:, before]), residual(x[:, j], x[:, before]))[0, 1])
      want *= list(order).index(i) < list(order).index(j)
      assert found["var_sort_regress"][0][i, j] == pytest.approx(want, abs=2e-3)
  for scores, graphs in found.values():
    assert not scores[D].any() and not scores[:, D].any() and not graphs[:, D].any() and not graphs[:, :, D].any()


def test_graphs_are_acyclic_and_have_the_edges_they_should_have():
  values, truth, mask = chain_task()
  found = [found_in(values, truth, mask, seed=seed) for seed in range(40)]
  for name in baselines.NAMES:
    graphs = np.concatenate([one[name][1] for one in found])
    assert not np.linalg.matrix_power(graphs, D + 1).any(), name
    counts = graphs.sum((1, 2))
    expected = {"empty": 0, "random": EDGE_PROB * D * (D - 1), "matched": D - 1, "correlation": 6,
                "partial_correlation": 6}
    if name in ("random", "matched"):  # 400 graphs of 15 pairs; a false alarm in 1e5
      p = 2 * expected[name] / (D * (D - 1))
      assert abs(counts.mean() - expected[name]) < 4.4 * np.sqrt(15 * p * (1 - p) / 400), name
      assert abs(graphs.mean(0)[:D, :D][~np.eye(D, dtype=bool)] - p / 2).max() < 0.12, name  # no direction is favoured
    elif name in expected:
      assert (counts == expected[name]).all(), name


def test_variance_gives_the_order_away_until_data_are_standardised():
  """As Reisach et al. found: sorting by variance reads the graph off raw linear data, and nothing off standardised."""
  f1 = {}
  for standardised in (False, True):
    each = []
    for seed in range(20):
      values, truth, mask = chain_task(seed, standardised=standardised)
      graph = found_in(values, truth, mask, seed=seed)["var_sort_regress"][1][0]
      each.append(2 * (graph * truth).sum() / (graph.sum() + truth.sum()))
    f1[standardised] = np.mean(each)
  assert f1[False] > 0.9 and f1[True] < 0.6


def test_rows_with_an_intervention_and_constant_columns_do_no_harm():
  values, truth, mask = chain_task()
  intervened = np.zeros_like(values)
  intervened[:100, 2], intervened[:100, D] = 1, 1
  changed = values.copy()
  changed[:100] = 1e6
  intervened[100:, D] = 1  # in padding: no intervention
  for name, (scores, _) in found_in(changed, truth, mask, intervened).items():
    np.testing.assert_allclose(scores, found_in(values[100:], truth, mask)[name][0], atol=1e-5)
  values[:, 1] = 3.0
  for scores, graphs in found_in(values[:4], truth, mask).values():  # fewer rows than variables
    assert np.isfinite(scores).all() and np.isfinite(graphs).all() and (scores >= 0).all() and (scores <= 1).all()


def test_baselines_of_a_batch_are_scored_as_any_method():
  tasks = [chain_task(seed) for seed in range(3)]
  batch = {"values": np.stack([one[0] for one in tasks]), "adjacency": np.stack([one[1] for one in tasks]),
           "node_mask": np.stack([one[2] for one in tasks])}
  batch["intervened"] = np.zeros_like(batch["values"])
  found = comparison.of_baselines(batch, {D: EDGE_PROB}, np.random.default_rng(0))
  assert list(found) == list(baselines.NAMES)
  for name in ("empty", "random", "matched"):
    np.testing.assert_allclose(found[name]["auroc"], 0.5)
  np.testing.assert_allclose(found["empty"]["e_shd"], D - 1)
  p = (D - 1) / (D * (D - 1))
  np.testing.assert_allclose(found["matched"]["edge_nll_nats"], -p * np.log(p) - (1 - p) * np.log(1 - p), rtol=1e-5)
  for name in metrics.OF_PROBABILITIES:
    assert np.isnan(found["correlation"][name]).all() and np.isfinite(found["random"][name]).all(), name
  assert (found["correlation"]["auroc"] > 0.55).all() and (found["var_sort_regress"]["auroc"] > 0.95).all()


def test_gains_are_of_pairs_of_the_same_task_and_above_0_where_the_first_is_better():
  random = np.random.default_rng(0)
  hard = random.normal(size=200)  # what is hard about a task, the same for both methods
  names = comparison.COMPARED
  model = {name: hard + 0.01 * random.normal(size=200) for name in names}
  other = {name: hard + 0.1 for name in names} | {"edge_nll_nats": np.full(200, np.nan)}
  other["auroc"] = np.where(np.arange(200) < 150, hard - 0.1, np.nan)
  found = comparison.table({"model": model, "other": other})
  k = names.index
  assert found["gain"][1, k("auroc")] == pytest.approx(0.1, abs=0.003)
  assert found["gain"][1, k("e_edge_f1")] == pytest.approx(-0.1, abs=0.003)
  assert found["gain"][1, k("e_shd")] == pytest.approx(0.1, abs=0.003)  # less is better
  for name in ("auroc", "e_edge_f1"):  # the interval of a paired t-test, the direction of "better" considered
    ends = stats.ttest_rel(*(one[name][np.isfinite(other[name])] for one in (model, other))).confidence_interval()
    np.testing.assert_allclose([found[f"gain_{end}"][1, k(name)] for end in ("low", "high")], ends)
  width = found["gain_high"] - found["gain_low"]
  assert (width[1, :k("edge_nll_nats")] < 0.005).all() and (found["high"] - found["low"])[1, k("e_shd")] > 0.2
  assert np.isnan(found["gain"][1, k("edge_nll_nats")]) and np.isnan(found["low"][1, k("edge_nll_nats")])
  assert (found["gain"][0] == 0).all()
  scalars = comparison.scalars_of(found)
  assert scalars["auroc_gain/baseline_other"] == found["gain"][1, k("auroc")]
  assert scalars["auroc_gain/baseline_other"] - scalars["auroc_gain_ci95/baseline_other"] == pytest.approx(
      found["gain_low"][1, k("auroc")])
  assert scalars["e_shd_ci95/baseline_other"] == pytest.approx((found["high"] - found["low"])[1, k("e_shd")] / 2)
  assert not any("model" in name or "edge_nll" in name for name in scalars)
