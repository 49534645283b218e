"""Distances of two sets of events against SciPy, sums over all objects, and closed forms of Gaussians."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, strategies
from scipy import linalg, stats

from jaxtrain.experiments.autoencoder import distances
from jaxtrain.experiments.autoencoder.observables import Values

KEY = jax.random.key(0)
NUMBERS = strategies.lists(strategies.tuples(strategies.integers(-5, 5), strategies.integers(1, 4)), min_size=1,
                           max_size=12)


def of_events(value, per_event=1, weight=None):
  """Values of events with so many each."""
  event = np.arange(len(value)) // per_event
  return Values(np.asarray(value, float), event, np.ones(len(value)) if weight is None else weight[event],
                len(value) // per_event)


@given(NUMBERS, NUMBERS)
def test_w1_of_weighted_samples_with_ties(first, second):
  (a, weight_a), (b, weight_b) = (np.array(part, float).T for part in (first, second))
  want = stats.wasserstein_distance(a, b, weight_a, weight_b)
  assert distances.w1(a, b, weight_a, weight_b) == pytest.approx(want, abs=1e-12)
  assert distances.w1(b, a, weight_b, weight_a) == pytest.approx(want, abs=1e-12)


def test_w1_of_nothing_is_not_known():
  assert np.isnan(distances.w1(np.zeros(3), np.zeros(0)))


def test_floor_is_that_of_two_samples_of_a_distribution():
  """Of Uniform(0, 1): both shares at x are means of n, so W1 is about the integral of |Normal(0, 2 x (1 - x) / n)|,
  sqrt(2 / pi) sqrt(2 / n) pi / 8. The deviation of one draw is 0.4 of it (asymptotic law of the area under a Brownian
  bridge), of 200 draws of other events 0.03: 0.12 is four of these.
  """
  random, n = np.random.RandomState(0), 100
  found = distances.floor(of_events(random.uniform(size=2 * n * 200)), random, 200, n)
  assert found.mean() == pytest.approx((2 / np.pi)**0.5 * (2 / n)**0.5 * np.pi / 8, rel=0.12)
  with pytest.raises(ValueError, match="no two parts"):
    distances.floor(of_events(np.zeros(199)), random, 1, 100)


def test_floor_splits_events_and_keeps_all_values_of_each():
  """With three equal values an event, two events a part and values that are powers of 2, W1 of a draw is that of four
  different events; weights count.
  """
  value, weight = np.repeat(2.0**np.arange(6), 3), np.array([1.0, 2, 1, 3, 1, 1])
  found = distances.floor(of_events(value, 3, weight), np.random.RandomState(0), 30, 2)
  possible = [stats.wasserstein_distance(2.0**np.array(rows[:2]), 2.0**np.array(rows[2:]), weight[[*rows[:2]]],
                                         weight[[*rows[2:]]]) for rows in itertools.permutations(range(6), 4)]
  assert all(np.isclose(possible, one).any() for one in found) and len(set(np.round(found, 9))) > 5


def clouds(seed, num_events, num_slots=7, shift=0.0):
  """Events [N, T, 3] of eta, phi and pT, with empty slots of 0."""
  random = np.random.RandomState(seed)
  there = random.uniform(size=(num_events, num_slots, 1)) < 0.7
  return there * np.stack([random.normal(shift, 1, there.shape[:2]), random.uniform(-1.5, 1.5, there.shape[:2]),
                           random.exponential(0.1 + shift, there.shape[:2])], axis=2)


def test_jets_distances_are_means_over_drawn_events():
  """W1M and W1P by SciPy, on events drawn with the same random numbers."""
  real, made = clouds(0, 60), clouds(1, 40, shift=0.1)
  random, masses, features = np.random.default_rng(3), [], []
  for _ in range(4):
    parts = [part[random.choice(len(part), size=200)] for part in (real, made)]
    eta, phi, pt = np.moveaxis(np.concatenate(parts), 2, 0)
    sums = np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)]).sum(axis=2)
    m = np.sqrt(np.maximum(sums[0]**2 - (sums[1:]**2).sum(axis=0), 0))
    masses.append(stats.wasserstein_distance(m[:200], m[200:]))
    objects = [part[part[..., 2] > 0] for part in parts]
    features.append([stats.wasserstein_distance(*(part[:, f] for part in objects)) for f in range(3)])
  mean, deviation = distances.w1m(real, made, np.random.default_rng(3), 200, 4)
  assert (mean, deviation) == (pytest.approx(np.mean(masses)), pytest.approx(np.std(masses)))
  found = distances.w1p(real, made, np.random.default_rng(3), 200, 4)
  np.testing.assert_allclose(found, [np.mean(features, axis=0), np.std(features, axis=0)], rtol=1e-9)


def by_sums(graph, pt, apart):
  """The energy flow polynomial of edges (i, j) by a loop over all objects at all vertices."""
  count = max((max(edge) for edge in graph), default=0) + 1
  return sum(np.prod(pt[list(at)]) * np.prod([apart[at[i], at[j]] for i, j in graph])
             for at in itertools.product(range(len(pt)), repeat=count))


def is_connected(graph):
  """Whether all vertices of edges can be reached from the first."""
  reached, more = {graph[0][0]}, True
  while more:
    new = reached | {vertex for edge in graph if set(edge) & reached for vertex in edge}
    reached, more = new, len(new) > len(reached)
  return reached == {vertex for edge in graph for vertex in edge}


def connected_graphs(num_edges):
  """All connected multigraphs of so many edges, one of each form."""
  pairs, found = list(itertools.combinations(range(num_edges + 1), 2)), {}
  for graph in itertools.combinations_with_replacement(pairs, num_edges):
    used = sorted({vertex for edge in graph for vertex in edge})
    if used == list(range(len(used))) and is_connected(graph):
      forms = (sorted(tuple(sorted(order[vertex] for vertex in edge)) for edge in graph)
               for order in itertools.permutations(used))
      found[str(min(forms))] = graph
  return list(found.values())


def test_energy_flow_polynomials_are_sums_over_objects_of_all_graphs():
  """36 of them, against loops over three objects for each form of multigraph, in any order."""
  pt, places = np.array([0.5, 0.3, 0.2]), np.array([[0.1, 3.1], [-0.7, -3.0], [0.4, 1.0]])
  turn = np.abs(places[:, None, 1] - places[None, :, 1])
  apart = np.hypot(places[:, None, 0] - places[None, :, 0], np.minimum(turn, 2 * np.pi - turn))
  found = distances.polynomials(np.concatenate([places, pt[:, None]], axis=1)[None])
  parts = [(num, by_sums(graph, pt, apart)) for num in range(1, 5) for graph in connected_graphs(num)]
  assert len(parts) == 20
  want = [pt.sum()]
  for count in range(1, 5):
    for some in itertools.combinations_with_replacement(parts, count):
      want += [np.prod([value for _, value in some])] * (sum(num for num, _ in some) <= 4)
  assert found.shape == (1, 36) and len(want) == 36
  np.testing.assert_allclose(np.sort(found[0]), np.sort(want), rtol=1e-9)


def test_frechet_distance_of_gaussians():
  """Against the root of the product by SciPy; of covariances that commute it is a sum over axes, without full rank
  too.
  """
  random = np.random.RandomState(0)
  a, b = (random.normal(size=(3, 5, 5)) for _ in range(2))
  a, b = a @ a.swapaxes(1, 2), b @ b.swapaxes(1, 2)
  gap = random.normal(size=(3, 5))
  want = [np.trace(x + y - 2 * linalg.sqrtm(x @ y).real) + g @ g for x, y, g in zip(a, b, gap)]
  np.testing.assert_allclose(distances.frechet(gap, a, np.zeros((3, 5)), b), want, rtol=1e-7)
  one, two = np.array([4.0, 1, 0, 0]), np.array([1.0, 9, 2, 0])
  found = distances.frechet(np.zeros(4), np.diag(one), np.ones(4), np.diag(two))
  assert found == pytest.approx(4 + np.square(np.sqrt(one) - np.sqrt(two)).sum())


def test_physics_distances_are_those_of_their_papers():
  """FPD: means and covariances of drawn rows at several sizes and a straight line in 1 / size. KPD: a loop over pairs.
  Features are over the largest of the real ones.
  """
  random = np.random.RandomState(0)
  real, made = random.normal(size=(50, 3)) * [1, 5, 0], random.normal(0.5, size=(40, 3))
  a, b = real / [*np.abs(real).max(axis=0)[:2], 1], made / [*np.abs(real).max(axis=0)[:2], 1]
  draw, points, sizes = np.random.default_rng(5), [], (30, 40, 60)
  for size in sizes:
    at = [[part[draw.choice(len(part), size=size)] for part in (a, b)] for _ in range(2)]
    points.append(np.mean([np.square(x.mean(axis=0) - y.mean(axis=0)).sum() + np.trace(np.cov(x.T) + np.cov(y.T))
                           - 2 * np.sqrt(np.maximum(np.linalg.eigvals(np.cov(x.T) @ np.cov(y.T)).real, 0)).sum()
                           for x, y in at]))
  slope, start = np.polyfit(1 / np.array(sizes), points, 1)
  assert start > 0 and slope > 0
  assert distances.fpd(real, made, (30, 60), 3, 2, seed=5)[0] == pytest.approx(start, rel=1e-4)
  values = []
  for k in range(3):
    draw = np.random.default_rng(7 + 1000 * k)
    x, y = (part[draw.choice(len(part), size=25)] for part in (a, b))
    kernel = lambda p, q: (p @ q / 3 + 1)**4
    inside = [np.mean([kernel(p, q) for (i, p), (j, q) in itertools.product(enumerate(z), repeat=2) if i != j])
              for z in (x, y)]
    values.append(sum(inside) - 2 * np.mean([kernel(p, q) for p, q in itertools.product(x, y)]))
  half = (np.percentile(values, 83.725) - np.percentile(values, 16.275)) / 2
  assert distances.kpd(real, made, 25, 3, seed=7) == (pytest.approx(np.median(values)), pytest.approx(half))


@pytest.mark.slow
def test_a_classifier_tells_what_differs_and_nothing_else():
  """Two columns go together in one set alone. Of equal sets, 2.5 half widths of 95 % hold 0.5 but for 1e-6 of cases."""
  random = np.random.RandomState(0)
  a, b = random.normal(size=(2, 3000, 3))
  auc, half = distances.two_sample_auc(a, b, KEY)
  assert abs(auc - 0.5) < 2.5 * half and 0.01 < half < 0.03
  b[:, 1] = 0.9 * b[:, 0] + 0.19**0.5 * b[:, 1]
  auc, half = distances.two_sample_auc(a, b, KEY)
  assert auc > 0.7 and half < 0.03


def test_weights_of_a_classifier_stand_for_copies():
  """Of one set only rows below 0 have a weight, of the other all alike: the best area is 0.75."""
  random = np.random.RandomState(1)
  a, b = random.normal(size=(2, 2000, 1))
  auc, _ = distances.two_sample_auc(a, b, KEY, (a[:, 0] < 0).astype(float))
  assert auc == pytest.approx(0.75, abs=0.06)
