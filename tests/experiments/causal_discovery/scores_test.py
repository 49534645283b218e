"""Scores of graphs against scikit-learn, SciPy and loops in float64."""

import functools

import jax
import numpy as np
import pytest
import scipy.linalg
import scipy.special
import scipy.stats
from sklearn import metrics as sk

from jaxtrain.experiments.causal_discovery import scores

# A test calls what it compiles a few times: half the time to compile is worth more than fast code.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
quick_jit = functools.partial(jax.jit, compiler_options=QUICK)

D, REAL = 8, [0, 1, 3, 4, 5, 7]  # padding need not be last
MASK = np.isin(np.arange(D), REAL).astype(np.float32)


def made(seed=0, decimals=6):
  """(probs, truth) [D, D] float32; values stand in padding and on the diagonal, where they must not count."""
  random = np.random.RandomState(seed)
  truth = random.rand(D, D) < 0.4
  probs = np.round(np.clip(random.rand(D, D) * 0.7 + 0.3 * truth, 0, 1), decimals)
  return probs.astype(np.float32), truth.astype(np.float32)


def pairs(x):
  """Entries of x [D, D] at ordered pairs of different real variables."""
  return np.array([x[i, j] for i in REAL for j in REAL if i != j])


@pytest.mark.parametrize("decimals", [6, 1])  # 1: most pairs share their probability with others
def test_auroc_is_scikit_learns(decimals):
  auroc = quick_jit(scores.auroc)
  for seed in range(5):
    probs, truth = made(seed, decimals)
    value, defined = auroc(probs, truth, MASK)
    assert defined and float(value) == pytest.approx(sk.roc_auc_score(pairs(truth), pairs(probs)), abs=1e-6)
  probs, truth = made()
  for only in (np.zeros_like(truth), np.ones_like(truth)):
    value, defined = auroc(probs, only, MASK)
    assert not defined and value == 0


def test_edge_f1_is_the_mean_over_samples():
  truth = made()[1]
  samples = np.stack([made(seed)[1] for seed in (1, 2, 3)] + [truth, np.zeros((D, D), np.float32)])
  want = [sk.f1_score(pairs(truth), pairs(one), zero_division=0) for one in samples]
  assert want[3] == 1 and want[4] == 0
  edge_f1 = quick_jit(scores.edge_f1)
  assert float(edge_f1(samples, truth, MASK)) == pytest.approx(np.mean(want), rel=1e-6)
  assert float(edge_f1(samples[-1:], np.zeros_like(truth), MASK)) == 1  # both empty
  only_padding = np.ones_like(truth) - MASK[:, None] * MASK[None, :]
  assert float(edge_f1(samples[-1:], only_padding, MASK)) == 1


@pytest.mark.parametrize("decimals", [6, 1])
def test_auprc_is_scikit_learns(decimals):
  auprc = quick_jit(scores.auprc)
  for seed in range(5):
    probs, truth = made(seed, decimals)
    mean, trapezoid, defined = auprc(probs, truth, MASK)
    precision, recall, _ = sk.precision_recall_curve(pairs(truth), pairs(probs))
    assert defined and float(mean) == pytest.approx(sk.average_precision_score(pairs(truth), pairs(probs)), abs=1e-6)
    assert float(trapezoid) == pytest.approx(sk.auc(recall, precision), abs=1e-6)
  assert not auprc(probs, np.zeros_like(truth), MASK)[2]


def test_entropy_and_calibration_are_those_of_float64():
  probs, truth = made()
  p, t = pairs(probs).astype(np.float64), pairs(truth)
  entropy = quick_jit(scores.edge_entropy_nats)(probs, MASK)
  assert float(entropy) == pytest.approx(np.mean(scipy.stats.bernoulli(p).entropy()), rel=1e-5)
  assert float(quick_jit(scores.edge_entropy_nats)(truth, MASK)) == 0  # no NaN at 0 and 1
  brier, ece = quick_jit(scores.calibration)(probs, truth, MASK)
  assert float(brier) == pytest.approx(sk.brier_score_loss(t, p), rel=1e-5)
  bins = np.digitize(p, np.linspace(0, 1, 11)[1:-1])
  want = sum((bins == k).mean() * abs(t[bins == k].mean() - p[bins == k].mean()) for k in range(10) if k in bins)
  assert float(ece) == pytest.approx(want, rel=1e-5)


def test_ancestors_are_those_of_matrix_powers():
  closure = quick_jit(scores.closure)
  random = np.random.RandomState(1)
  for n in range(30):
    graph = (random.rand(D, D) < 0.2) * (1 - np.eye(D))
    want = sum(np.linalg.matrix_power(graph, k) for k in range(1, D + 1)) > 0
    np.testing.assert_array_equal(closure(graph.astype(np.float32)), want, err_msg=str(n))
  chain = np.diag(np.ones(D - 1), 1).astype(np.float32)
  everyone = np.ones(D, np.float32)
  short = chain.copy()
  short[3, 4] = 0  # 28 ancestor pairs become 6 + 6
  assert float(quick_jit(scores.ancestor_f1)(short[None], chain, everyone)) == pytest.approx(2 * 12 / (12 + 28))


def test_edge_nll_is_that_of_float64():
  probs, truth = made()
  probs[0, 1], probs[1, 0], truth[0, 1], truth[1, 0] = 0, 1, 1, 0  # clipped: 13.8 nats each
  p = np.clip(pairs(probs).astype(np.float64), 1e-6, 1 - 1e-6)
  want = -np.mean(np.where(pairs(truth), np.log(p), np.log1p(-p)))
  edge_nll = quick_jit(scores.edge_nll_nats)
  assert float(edge_nll(probs, truth, MASK)) == pytest.approx(want, rel=1e-3)  # 1 - 1e-6 has 6 digits in float32
  probs[1, 0] = 0.5
  p = np.clip(pairs(probs).astype(np.float64), 1e-6, 1 - 1e-6)
  want = -np.mean(np.where(pairs(truth), np.log(p), np.log1p(-p)))
  assert float(edge_nll(probs, truth, MASK)) == pytest.approx(want, rel=1e-5)
  assert float(edge_nll(probs, truth, np.zeros_like(MASK))) == 0  # a task of padding alone


def test_cyclicity_is_that_of_scipy():
  cyclicity = quick_jit(scores.cyclicity)
  for scale in (1.0, 0.1, 1e-3):
    probs = made()[0] * np.float32(scale)
    real = probs.astype(np.float64)[np.ix_(REAL, REAL)] * (1 - np.eye(len(REAL)))
    want = sum(np.trace(np.linalg.matrix_power(real, k)) / scipy.special.factorial(k) for k in range(1, 60))
    if scale > 1e-3:  # expm less d has lost its digits there
      assert want == pytest.approx(np.trace(scipy.linalg.expm(real)) - len(REAL), rel=1e-9)
    trace, radius = cyclicity(probs, MASK)
    assert float(trace) == pytest.approx(want, rel=1e-5)
    assert float(radius) == pytest.approx(np.abs(np.linalg.eigvals(real)).max(), rel=1e-5)
  acyclic = np.triu(made()[0], 1)
  assert [float(x) for x in cyclicity(acyclic + np.eye(D, dtype=np.float32), MASK)] == [0, 0]  # no loops either
  dense = np.ones((60, 60), np.float32)
  trace, radius = cyclicity(dense, dense[0])
  assert float(trace) == pytest.approx(np.exp(59.0) + 59 * np.exp(-1) - 60, rel=1e-4)
  assert float(radius) == pytest.approx(59, rel=1e-5)


def test_is_acyclic_is_that_of_matrix_powers():
  is_acyclic = quick_jit(scores.is_acyclic)
  random, found = np.random.RandomState(0), []
  for n in range(100):
    graph = (random.rand(D, D) < 0.12) * (1 - np.eye(D))
    want = all(np.trace(np.linalg.matrix_power(graph, k)) == 0 for k in range(1, D + 1))
    assert bool(is_acyclic(graph.astype(np.float32))) == want, n
    found.append(want)
  assert 20 < sum(found) < 80
  ring = np.roll(np.eye(D), 1, axis=1).astype(np.float32)  # the longest cycle there is
  assert not is_acyclic(ring) and is_acyclic(np.triu(ring)) and is_acyclic(np.triu(np.ones_like(ring), 1))
  assert not is_acyclic(np.diag([0, 1] + [0] * (D - 2)).astype(np.float32))  # a loop
  assert is_acyclic(np.zeros((1, 1), np.float32)) and not is_acyclic(np.ones((1, 1), np.float32))
