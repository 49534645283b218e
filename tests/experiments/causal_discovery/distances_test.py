"""Distances by wrong effects: against linear models in float64, by hand, and against the package gadjid."""

import functools

import jax
import numpy as np
import pytest

from jaxtrain.experiments.causal_discovery import distances

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
D = 7


@functools.cache
def compiled():
  """(parent, ancestor) distances of one guess, compiled once for graphs padded to D."""
  return jax.jit(distances.adjustment_distances, compiler_options=QUICK)


def distance_of(truth, guess, pad=D):
  """(parent, ancestor) distances of two graphs [d, d], padded with ones, which must not count."""
  padded = lambda x: np.pad(np.asarray(x, np.float32), [(0, pad - len(x))] * 2, constant_values=1.0)
  mask = (np.arange(pad) < len(truth)).astype(np.float32)
  return tuple(float(x[0]) for x in compiled()(padded(truth), padded(guess)[None], mask))


def random_dag(random, d, p):
  order = random.permutation(d)
  return np.triu(random.random((d, d)) < p, 1)[order][:, order].astype(np.int8)


def descendants(graph):
  """[d, d] bool: a directed path leads from row to column."""
  return np.linalg.inv(np.eye(len(graph)) - graph / (2.0 * len(graph))) - np.eye(len(graph)) > 1e-12


def wrong_effects(truth, guess, random):
  """(parent, ancestor) distances by their meaning: effects as numbers, in a linear Gaussian model of the true graph.

  Its weights are generic, so an adjustment that is not valid gives another coefficient than the total effect.
  """
  d = len(truth)
  total = np.linalg.inv(np.eye(d) - truth * random.uniform(0.5, 1.5, (d, d)) * random.choice([-1, 1], (d, d)))
  covariance = total.T @ np.diag(random.uniform(0.5, 2.0, d)) @ total
  reach, counts = descendants(guess), [0, 0]
  for i in range(d):
    for j in set(range(d)) - {i}:
      for k, (adjusted, none) in enumerate(((guess[:, i] > 0, guess[j, i] > 0), (reach[:, i], not reach[i, j]))):
        used = [i, *np.flatnonzero(adjusted)]
        effect = 0.0 if none else np.linalg.solve(covariance[np.ix_(used, used)], covariance[used, j])[0]
        counts[k] += abs(effect - total[i, j]) > 1e-9
  return tuple(counts)


def test_distances_count_the_effects_that_are_wrong_in_a_linear_model():
  random, seen = np.random.default_rng(0), set()
  for _ in range(150):
    d = int(random.integers(2, D + 1))
    truth, guess = (random_dag(random, d, random.uniform(0.1, 0.8)) for _ in range(2))
    want = wrong_effects(truth, guess, random)
    assert distance_of(truth, guess) == want
    seen.add(want)
  assert len(seen) > 40


def test_distances_by_hand():
  chain, empty = np.diag([1, 1], 1), np.zeros((3, 3))
  assert distance_of(chain, chain) == (0, 0)
  # Nothing to adjust for and no effect: parents give the marginal association, wrong against the arrows (3 pairs);
  # ancestors say that nothing has an effect, wrong along the arrows (3 pairs).
  assert distance_of(chain, empty) == (3, 3)
  # Without edges every effect is 0, and no adjustment among independent variables is wrong.
  assert distance_of(empty, chain) == (0, 0)
  collider = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]])
  # "2 acts on 0 and on 1" is wrong, and so is "no effect of 0 and of 1 on 2": 4. To adjust for the parent 2, a
  # collider, makes 0 and 1 dependent: 2 more. By ancestors they have no effect on each other, which is right.
  assert distance_of(collider, collider.T) == (6, 4)


def test_cyclic_guesses_have_a_distance():
  """0 <-> 1 for the truth 0 -> 1: each is the other's parent, so neither has an effect, which is wrong for one pair; by
  ancestors each reaches the other, which counts as wrong both ways.
  """
  assert distance_of(np.array([[0, 1], [0, 0]]), np.array([[0, 1], [1, 0]])) == (1, 2)


def test_padding_and_labels_have_no_part():
  random = np.random.default_rng(1)
  for _ in range(10):
    truth, guess = random_dag(random, 5, 0.5), (random.random((5, 5)) < 0.3) * (1 - np.eye(5))
    order = random.permutation(5)
    again = distance_of(truth[order][:, order], guess[order][:, order])
    assert again == distance_of(truth, guess) and 0 <= min(again) and max(again) <= 20


@pytest.mark.slow
def test_distances_are_those_of_gadjid():
  """SID, parent and ancestor adjustment distance of 2,000 pairs of graphs of 2 to 20 variables."""
  gadjid = pytest.importorskip("gadjid", reason="pip install 'jaxtrain[discovery]'")
  random = np.random.default_rng(2)
  for k in range(2000):
    d = int(random.integers(2, 21))
    truth = random_dag(random, d, random.uniform(0.05, 0.6))
    guess = random_dag(random, d, random.uniform(0.0, 0.8))
    parent, ancestor = distance_of(truth, guess, pad=20)
    for ours, theirs in ((parent, gadjid.sid), (parent, gadjid.parent_aid), (ancestor, gadjid.ancestor_aid)):
      assert ours == theirs(truth, guess, edge_direction="from row to column")[1], (k, truth, guess)
