"""Observables of events against four-vectors, and the peak against events whose peak is known."""

import itertools

import numpy as np
import pytest
from scipy import stats

import made_events
from jaxtrain.experiments.autoencoder import events as events_lib, generator, kinematics, observables

EDGES = np.arange(40.0, 141.0, 4.0)


def vectors(events, row):
  """Massless four-vectors of an event's objects."""
  _, pt, eta, phi = events.momenta[row].astype(float).T
  return kinematics.from_polar(pt, eta, phi, 0.0)


def test_masses_are_of_all_pairs_of_light_jets_and_b_jets_with_them():
  """Against sums of four-vectors, event by event; the weight is that of the event."""
  events = made_events.draw(30, 12)
  events = events._replace(ids=np.where(events.ids > 5, events_lib.JET, events.ids))
  found = observables.of_events(events)
  want = {"m_jj": [], "m_bjj": []}
  for row in range(30):
    p, ids = vectors(events, row), events.ids[row]
    light, bottom = np.flatnonzero(ids == events_lib.JET), np.flatnonzero(ids == events_lib.B_JET)
    pairs = list(itertools.combinations(light, 2))
    want["m_jj"] += [(row, kinematics.mass(p[[*pair]].sum(axis=0))) for pair in pairs]
    want["m_bjj"] += [(row, kinematics.mass(p[[*pair, b]].sum(axis=0))) for pair in pairs for b in bottom]
  for name, values in want.items():
    rows, masses = np.array(values).T
    np.testing.assert_array_equal(found[name].event, rows)
    np.testing.assert_allclose(found[name].value, masses, rtol=1e-6)
    np.testing.assert_array_equal(found[name].weight, events.weight[rows.astype(int)])
    assert len(rows) > 20 and found[name].num_events == 30


def test_sums_of_an_event_and_its_objects():
  """HT is of jets with and without a b-tag; empty slots count nowhere."""
  events = events_lib.assemble(
      [[1, 0, 2, 5], [7, 0, 0, 0]], [[[60, 50, 0.5, 1.0], [9, 9, 9, 9], [40, 30, -1, 3.0], [25, 20, 1, 0]],
                                     [[70, 60, 0.2, 0.1], [0] * 4, [0] * 4, [0] * 4]], [[80, 1.0], [15, 2.0]])
  found = observables.of_events(events)
  assert found.keys() == observables.UNITS.keys()
  np.testing.assert_array_equal(found["ht"].value, [80, 0])
  np.testing.assert_array_equal(found["met"].value, [80, 15])
  np.testing.assert_array_equal(found["multiplicity"].value, [3, 1])
  np.testing.assert_array_equal(found["pt"].value, [50, 30, 20, 60])
  np.testing.assert_array_equal(found["e"].event, [0, 0, 0, 1])
  assert not len(found["m_jj"].value) and not len(found["m_bjj"].value)


def test_mixed_pairs_are_of_two_events_and_keep_the_spectra_of_both_jets():
  """Two jets at a right angle in phi have m^2 = 2 pT pT'; both jets of an event have a pT that is its alone."""
  N = 200
  momenta = np.zeros((N, 2, 4))
  momenta[..., 1] = 1 + np.arange(N)[:, None]
  momenta[:, 1, 3] = np.pi / 2
  weight = np.linspace(1, 2, N).astype(np.float32)
  mixed = observables.mixed(events_lib.assemble(np.ones((N, 2)), momenta, np.zeros((N, 2)), weight=weight),
                            np.random.RandomState(0))
  np.testing.assert_array_equal(mixed.event, np.arange(N))
  other = np.rint(np.square(mixed.value) / (2 * (1.0 + mixed.event))).astype(int) - 1
  assert (other != mixed.event).all()
  np.testing.assert_array_equal(np.sort(other), np.arange(N))
  np.testing.assert_allclose(mixed.weight, weight * weight[other], rtol=1e-6)


def test_mixed_pairs_are_never_closer_than_jets_can_be():
  """Of 60 events with jets in one direction and one event with a jet elsewhere, only pairs with that one are left."""
  momenta = np.zeros((60, 2, 4))
  momenta[..., 1] = 30.0
  momenta[7, 1, 3] = 2.0
  events = events_lib.assemble(np.ones((60, 2)), momenta, np.zeros((60, 2)))
  assert len(observables.mixed(events, np.random.RandomState(0)).value) == 1


def drawn(random, num_events, fraction, mean=80.0, width=7.0, pairs=5):
  """(pairs with a peak in a falling background, the background alone), a fixed number of pairs an event."""
  size = num_events * pairs
  tail = lambda: 40 + stats.truncexpon.rvs(2.0, scale=50.0, size=size, random_state=random)
  value = np.where(random.uniform(size=size) < fraction, random.normal(mean, width, size), tail())
  of = lambda value: observables.Values(value, np.arange(size) // pairs, np.ones(size), num_events)
  return of(value), of(tail())


def test_a_peak_that_is_there_is_found():
  """Mean, width and fraction of 20,000 pairs. A Gaussian of 4,000 pairs of width 7 has a mean known to 0.11 on no
  background; with four times as many pairs below, about three times that: 1 GeV is further than five deviations.
  """
  peak = observables.fit_peak(*drawn(np.random.RandomState(0), 4000, 0.2))
  assert peak.mean == pytest.approx(80, abs=1.0) and peak.width == pytest.approx(7, abs=1.0)
  assert peak.fraction == pytest.approx(0.2, abs=0.04)
  assert 0 < peak.mean_ci < 1.0 and 0 < peak.fraction_ci < 0.04


@pytest.mark.slow
def test_intervals_of_a_peak_hold_the_truth():
  """Of 60 sets, intervals of 95 % hold the mean and the fraction in 57 on average; 49 of Binomial(60, 0.95) or fewer
  come in 3e-4 of cases.
  """
  hits = np.zeros(2)
  for seed in range(60):
    peak = observables.fit_peak(*drawn(np.random.RandomState(seed), 800, 0.25), seed=seed)
    hits += abs(peak.mean - 80) <= peak.mean_ci, abs(peak.fraction - 0.25) <= peak.fraction_ci
  assert (hits >= 50).all(), hits


def test_the_fit_is_the_least_deviance():
  """Against a fine grid of mean, width and fraction; expected counts are Gaussian integrals over bins."""
  random = np.random.RandomState(3)
  shape = np.exp(-EDGES[:-1] / 60)
  shape /= shape.sum()
  counts = random.poisson(3000 * (0.15 * np.diff(stats.norm.cdf(EDGES, 85, 9)) + 0.85 * shape)).astype(float)
  best = observables.best_fit(counts, shape, EDGES, [(70.0, 6.0, 0.1), (110.0, 6.0, 0.1)])

  def deviance(mean, width, fraction):  # Baker & Cousins 1984, with the likeliest total
    inside = np.diff(stats.norm.cdf(EDGES, mean, width))
    wanted = counts.sum() * (fraction * inside / inside.sum() + (1 - fraction) * shape)
    return 2 * np.sum(wanted - counts + counts * np.log(counts / wanted))

  assert observables.deviance(best, counts, shape, EDGES) == pytest.approx(deviance(*best), abs=1e-8)
  grid = min(deviance(*at) for at in itertools.product(np.linspace(80, 90, 15), np.linspace(5, 13, 13),
                                                       np.linspace(0.08, 0.23, 11)))
  assert deviance(*best) <= grid + 1e-4


def test_no_peak_of_few_pairs():
  masses, background = drawn(np.random.RandomState(0), 8, 0.2)
  assert np.isnan(observables.fit_peak(masses, background)).all()


def test_simulated_events_have_the_w_boson_and_mixed_ones_have_none():
  """80.4 GeV within 3 GeV, which is the shift that massless jets and smearing may lead to; what remains of a peak where
  both sides are mixed is compatible with none at three half widths.
  """
  events = generator.generate(2000, 1)
  first, second = (observables.mixed(events, np.random.RandomState(seed)) for seed in (0, 1))
  peak = observables.fit_peak(observables.of_events(events)["m_jj"], first)
  assert abs(peak.mean - 80.4) < 3 and peak.fraction > 0.08
  none = observables.fit_peak(second, first)
  assert none.fraction < 0.05
