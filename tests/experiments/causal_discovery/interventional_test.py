"""Interventional likelihood of sampled graphs against NumPy in float64, and that it prefers the true graph."""

import functools

import jax
import numpy as np

from jaxtrain.experiments.causal_discovery import interventional

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
D, ROWS, SET = 4, 60, 20
MASK = np.array([1, 1, 1, 0], np.float32)
CHAIN = np.diag([1.0, 1.0, 0.0], 1).astype(np.float32)


@functools.cache
def compiled():
  return jax.jit(interventional.inil_nats, compiler_options=QUICK)


def made(seed=0):
  """(values, intervened) of 0 -> 1 -> 2; variable 1 is set in the last rows; garbage in padding."""
  random = np.random.default_rng(seed)
  x, is_set = random.normal(size=(ROWS, D)), np.zeros((ROWS, D))
  x[:, 1] += 2 * x[:, 0]
  x[-SET:, 1] = random.normal(size=SET) * 2
  x[:, 2] -= x[:, 1]
  is_set[-SET:, 1], is_set[:, 3] = 1, 1
  x[:, 3] = 5
  return x.astype(np.float32), is_set.astype(np.float32)


def by_regressions(graphs, values, intervened):
  """(nats per row, nats per row and variable) of real variables, by least squares."""
  x, scored = values[:, :3].astype(np.float64), 1 - intervened[:, :3]
  rest = scored.all(1)
  likelihood = []
  for graph in graphs:
    each = np.zeros(scored.shape)
    for j in range(3):
      parents = np.flatnonzero(graph[:3, j])
      design = lambda rows, parents=parents: np.column_stack([rows[:, parents], np.ones(len(rows))])
      weights = np.linalg.lstsq(design(x[rest]), x[rest][:, j], rcond=None)[0]
      variance = np.mean(np.square(x[rest][:, j] - design(x[rest]) @ weights))
      error = x[:, j] - design(x) @ weights
      each[:, j] = -0.5 * (error**2 / variance + np.log(2 * np.pi * variance))
    likelihood.append((each * scored)[~rest].sum(1))
  by_row = -np.log(np.mean(np.exp(likelihood), 0))
  return by_row.mean(), (by_row / scored[~rest].sum(1)).mean()


def test_interventional_likelihood_is_that_of_regressions_on_parents():
  values, intervened = made()
  cyclic = CHAIN + CHAIN.T
  graphs = np.stack([CHAIN, CHAIN.T, np.zeros_like(CHAIN), cyclic])
  graphs[:, 3], graphs[:, :, 3] = 1, 1  # edges of padding
  want = by_regressions(graphs, values, intervened)
  np.testing.assert_allclose(compiled()(graphs, values, intervened, MASK), want, rtol=1e-4)


def test_the_true_graph_predicts_interventions_better_than_the_reversed_one():
  values, intervened = made(1)
  score = lambda graph: float(compiled()(np.stack([graph] * 4), values, intervened, MASK)[0])
  assert score(CHAIN) + 0.5 < score(CHAIN.T)


def test_without_interventions_it_is_not_defined():
  values, intervened = made()
  intervened[:, :3] = 0
  assert all(np.isnan(x) for x in compiled()(np.stack([CHAIN] * 4), values, intervened, MASK))
