"""Regressions of the treatment and the outcome: each fit against its equation, likelihood or solver in NumPy."""

import jax
import numpy as np
import pytest
from scipy import optimize, special, stats

from jaxtrain.experiments.causal_consistency import regressions

RIDGE = 0.5


def features(num_rows, seed, columns=2):
  """A column of ones and standard normal covariates."""
  return np.concatenate([np.ones((num_rows, 1)), np.random.default_rng(seed).normal(size=(num_rows, columns))], axis=1)


def shrink(columns):
  """The ridge of each column, as the module says: a thousandth of it for intercepts."""
  return RIDGE * np.array([1e-3] + [1.0] * (columns - 1))


@pytest.mark.parametrize("soft", [False, True])
def test_classes_solve_the_equation_of_a_multinomial_logistic_regression(soft):
  f, random = features(300, 0), np.random.default_rng(1)
  weighted = np.eye(3)[random.integers(0, 3, 300)] * random.uniform(0, 2, (300, 1))
  q = random.dirichlet(np.ones(3), 300) if soft else weighted
  with jax.enable_x64(True):
    found = np.asarray(regressions.fit_classes(f, q, RIDGE))
  share = special.softmax(np.concatenate([np.zeros((300, 1)), f @ found.T], axis=1), axis=1)
  score = (q - q.sum(axis=1, keepdims=True) * share).T[1:] @ f - shrink(3) * found
  assert np.abs(score).max() < 1e-8 and np.abs(found).max() > 0.05


def test_separated_and_empty_classes_stay_finite():
  f = features(60, 2, 1)
  one_class = np.eye(2)[np.zeros(60, int)]
  with jax.enable_x64(True):
    split = np.asarray(regressions.fit_classes(f, np.eye(2)[(f[:, 1] > 0).astype(int)], RIDGE))
    alone, outcome = map(np.asarray, regressions.fit_arms(regressions.Features(f, f), one_class, f[:, 1], RIDGE))
  assert 2 < split[0, 1] < 100 and np.isfinite(outcome).all() and alone[0, 0] < -8


def test_outcomes_are_ridge_regressions_within_classes():
  f, random = features(80, 3), np.random.default_rng(4)
  q, z = random.normal(size=(80, 2)) + 1, random.normal(size=80)  # some rows count as less than nothing
  with jax.enable_x64(True):
    found = np.asarray(regressions.fit_outcomes(f, q, z, RIDGE))
  for j in range(2):
    want = np.linalg.inv(f.T @ (q[:, [j]] * f) + np.diag(shrink(3))) @ f.T @ (q[:, j] * z)
    np.testing.assert_allclose(found[j], want, rtol=1e-9)


def mixture(seed, num_rows=400):
  """f [N, 2], y [N], z [N], recorded [N] of two overlapping classes, six in ten recorded."""
  random = np.random.default_rng(seed)
  f = features(num_rows, seed, 1)
  y = (random.uniform(size=num_rows) < special.expit(f[:, 1])).astype(int)
  z = 0.5 * f[:, 1] + y * 1.5 + random.normal(size=num_rows) * np.where(y == 1, 0.6, 1.0)
  return f, y, z, random.uniform(size=num_rows) < 0.6


def test_the_joint_model_is_the_maximum_of_the_observed_likelihood():
  f, y, z, recorded = mixture(5)

  def loss(at):
    logit, means = f @ at[:2], f @ at[2:6].reshape(2, 2).T
    prior = np.stack([special.log_expit(-logit), special.log_expit(logit)], axis=1)
    both = prior + stats.norm.logpdf(z[:, None], means, np.exp(at[6:]))
    return -np.where(recorded, both[np.arange(len(y)), y], special.logsumexp(both, axis=1)).sum()

  want = optimize.minimize(loss, [0, 0, 0, 0, 1, 0, 0, 0], method="BFGS", options={"gtol": 1e-6}).x
  tiny, one_hot = 1e-9, np.eye(2)[y] * recorded[:, None]
  with jax.enable_x64(True):
    both = regressions.Features(f, f)
    start = jax.tree.map(np.asarray, regressions.fit_arms(both, one_hot, z, tiny))
    found = jax.jit(regressions.fit_joint)(both, one_hot, recorded.astype(float), z, np.ones(len(y)), tiny, start)
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found)])
  np.testing.assert_allclose(flat, want, atol=1e-4)
  assert np.abs(np.ravel(start.treatment) - want[:2]).max() > 0.01  # rows without a treatment count
