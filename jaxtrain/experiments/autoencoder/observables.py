"""Observables of collider events, and the peak of the W boson in the masses of pairs of jets.

An observable has any number of values in an event: one for each object (pT), one for the event (HT), or one for each
pair of its jets (m_jj). No pair is chosen by its mass: the pairs nearest to a mass have a peak there in any events.
What pairs without a common parent look like is found from jets of different events.

**Source:** mixed events: Drijard, Fischer & Nakada, Study of event mixing and its application to the extraction of
resonance signals, 1984. Binned Poisson likelihood: Baker & Cousins, Clarification of the use of chi-square and
likelihood functions in fits to histograms, 1984.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from jaxtrain.experiments.autoencoder import kinematics
from jaxtrain.experiments.autoencoder.events import B_JET, FEATURES, JET, Events

UNITS = {"pt": "GeV", "eta": "", "phi": "rad", "e": "GeV", "multiplicity": "objects", "ht": "GeV", "met": "GeV",
         "m_jj": "GeV", "m_bjj": "GeV"}
RADIUS = 0.4  # of jets: no two of an event are closer in eta and phi, and mixed ones must not be either
WINDOW, BIN_WIDTH = (40.0, 140.0), 4.0  # GeV, of the fit of the W boson's peak
WIDTHS = (2.0, 25.0)  # GeV, the narrowest and widest peak that is fitted
FEWEST = 50  # pairs in the window below which no peak is fitted
RESAMPLES = 40  # of events, for the interval of a peak
TINY = 1e-12
Z95 = 1.96  # standard deviations on both sides that hold 95 % of a Gaussian


class Values(NamedTuple):
  """An observable of N events; an event has any number of values.

  Attributes:
    value: [P] float64.
    event: [P], the row of the event of a value.
    weight: [P] float64, the weight of that event.
    num_events: N.
  """
  value: np.ndarray
  event: np.ndarray
  weight: np.ndarray
  num_events: int


class Peak(NamedTuple):
  """A Gaussian peak above a background, in GeV; all are NaN where there are too few pairs.

  Attributes:
    mean, width: of the Gaussian.
    fraction: share of the pairs in the window that belong to the peak.
    mean_ci, fraction_ci: half widths of 95 % intervals, from events drawn with replacement.
  """
  mean: float
  mean_ci: float
  width: float
  fraction: float
  fraction_ci: float


def of_rows(events: Events, value: np.ndarray, event: np.ndarray) -> Values:
  """An observable from its values [P] and the rows [P] of their events."""
  weight = events.weight.astype(np.float64)
  return Values(np.asarray(value, np.float64), event, weight[event], len(weight))


def pair_mass(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Invariant mass [P] in GeV of two massless objects of momenta [P, 4]: 2 pT pT' (cosh of eta apart - cos of phi)."""
  apart = np.cosh(first[:, 2] - second[:, 2]) - np.cos(first[:, 3] - second[:, 3])
  return np.sqrt(2 * first[:, 1] * second[:, 1] * np.maximum(apart, 0.0))


def light_pairs(events: Events) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(rows of events, slots of the first jet, of the second) [P] of all pairs of jets without a b-tag."""
  first, second = np.triu_indices(events.num_slots, 1)
  jets = events.ids == JET
  row, pair = np.nonzero(jets[:, first] & jets[:, second])
  return row, first[pair], second[pair]


def of_events(events: Events) -> dict[str, Values]:
  """All observables of UNITS. Massless formulas of pT, eta and phi are used for masses."""
  momenta, there = events.momenta.astype(np.float64), events.mask
  row, slot = np.nonzero(there)
  every = np.arange(len(there))
  found = {name: of_rows(events, momenta[row, slot, FEATURES.index(name)], row) for name in ("pt", "eta", "phi", "e")}
  jets = (events.ids == JET) | (events.ids == B_JET)
  found["multiplicity"] = of_rows(events, there.sum(axis=1), every)
  found["ht"] = of_rows(events, (momenta[..., 1] * jets).sum(axis=1), every)
  found["met"] = of_rows(events, events.globals[:, 0], every)
  row, first, second = light_pairs(events)
  mass = pair_mass(momenta[row, first], momenta[row, second])
  found["m_jj"] = of_rows(events, mass, row)
  pair, b = np.nonzero((events.ids == B_JET)[row])
  row, first, second = row[pair], first[pair], second[pair]
  square = sum(pair_mass(momenta[row, b], momenta[row, jet])**2 for jet in (first, second))
  found["m_bjj"] = of_rows(events, np.sqrt(mass[pair]**2 + square), row)
  return found


def mixed(events: Events, random: np.random.RandomState) -> Values:
  """m_jj of pairs whose jets come from different events, the background of pairs of one event.

  Pairs of all events keep their first jet and exchange their second jets, among pairs of jets of the same two ranks in
  pT, so that each jet keeps its spectrum. Pairs closer than RADIUS are left out. The event of a pair is that of its
  first jet, and its weight is the product of both weights.
  """
  momenta, (row, first, second) = events.momenta.astype(np.float64), light_pairs(events)
  rank = np.cumsum(events.ids == JET, axis=1)
  code = rank[row, first] * (events.num_slots + 1) + rank[row, second]
  order = random.permutation(len(row))
  order = order[np.argsort(code[order], kind="stable")]  # groups of equal ranks, shuffled inside
  starts = np.flatnonzero(np.append(True, np.diff(code[order]) != 0)) if len(order) else np.zeros(0, int)
  other = np.empty_like(order)
  for start, end in zip(starts, np.append(starts[1:], len(order))):
    other[order[start:end]] = np.roll(order[start:end], 1)  # an event has one pair of two ranks, so no pair stays
  one, two = momenta[row, first], momenta[row[other], second[other]]
  kept = (row != row[other]) & (kinematics.distance(one[:, 2], one[:, 3], two[:, 2], two[:, 3]) >= RADIUS)
  found = of_rows(events, pair_mass(one[kept], two[kept]), row[kept])
  return found._replace(weight=found.weight * events.weight[row[other]][kept])


def gaussian_bins(mean: float, width: float, edges: np.ndarray) -> np.ndarray:
  """Share of a Gaussian in each bin [n] of edges [n + 1], of what lies within all of them."""
  share = np.diff(special.ndtr((edges - mean) / width))
  return share / max(share.sum(), np.finfo(float).tiny)


def expected(at: tuple[float, float, float], shape: np.ndarray, edges: np.ndarray) -> np.ndarray:
  """Share of pairs in each bin [n]: a peak (mean, width, fraction) above a background with shares `shape` [n]."""
  mean, width, fraction = at
  return fraction * gaussian_bins(mean, width, edges) + (1 - fraction) * shape


def deviance(at: tuple[float, float, float], counts: np.ndarray, shape: np.ndarray, edges: np.ndarray) -> float:
  """Twice the log of the ratio of Poisson likelihoods of counts [n]: of themselves, over what a peak expects of them.

  The total that is likeliest is that of the counts, whatever the peak.
  """
  wanted = counts.sum() * np.maximum(expected(at, shape, edges), TINY)
  return float(2 * np.sum(wanted - counts + special.xlogy(counts, np.maximum(counts, TINY) / wanted)))


def best_fit(counts: np.ndarray, shape: np.ndarray, edges: np.ndarray, starts: list[tuple[float, float, float]]
             ) -> tuple[float, float, float]:
  """(mean, width, fraction) of the least deviance of counts [n], the best of searches from all starts."""
  bounds = ((edges[0], edges[-1]), WIDTHS, (0.0, 1.0))
  scale = np.array([10.0, 10.0, 0.1])  # so that a step of each number changes the cost about alike
  cost = lambda x: deviance(x * scale, counts, shape, edges) / counts.sum()
  limits = [(low / by, high / by) for (low, high), by in zip(bounds, scale)]
  found = [optimize.minimize(cost, start / scale, method="L-BFGS-B", bounds=limits) for start in starts]
  return tuple(float(value) for value in min(found, key=lambda one: one.fun).x * scale)


def in_bins(values: Values, edges: np.ndarray) -> tuple[Values, np.ndarray]:
  """(values inside edges [n + 1], the bin of each)."""
  bins = np.digitize(values.value, edges) - 1
  at = (bins >= 0) & (bins < len(edges) - 1)
  return Values(values.value[at], values.event[at], values.weight[at], values.num_events), bins[at]


def fit_peak(masses: Values, background: Values, window: tuple[float, float] = WINDOW, seed: int = 0) -> Peak:
  """The peak of masses in a window above the shape of a background of the same events, by a binned Poisson likelihood.

  Intervals are from RESAMPLES draws of events with replacement, because the pairs of an event are not independent.
  """
  edges, random = edges_of(window), np.random.RandomState(seed)
  parts = [in_bins(part, edges) for part in (masses, background)]
  if min(len(bins) for _, bins in parts) < FEWEST:
    return Peak(*[float("nan")] * 5)

  def fit(times: np.ndarray, starts: list) -> tuple[float, float, float]:  # times: how often an event [N] is drawn
    counts, shape = (np.bincount(bins, part.weight * times[part.event], len(edges) - 1) for part, bins in parts)
    return best_fit(counts, shape / shape.sum(), edges, starts)

  N, means = masses.num_events, np.quantile(edges, (0.2, 0.4, 0.6, 0.8))
  best = fit(np.ones(N), [(mean, width, 0.1) for mean in means for width in (5.0, 15.0)])
  drawn = [fit(random.multinomial(N, np.full(N, 1 / N)), [best]) for _ in range(RESAMPLES)]
  spread = Z95 * np.std(drawn, axis=0, ddof=1)
  return Peak(best[0], float(spread[0]), best[1], best[2], float(spread[2]))


def edges_of(window: tuple[float, float]) -> np.ndarray:
  """Edges of bins of BIN_WIDTH in a window, in GeV."""
  return np.arange(window[0], window[1] + BIN_WIDTH / 2, BIN_WIDTH)


def fitted_bins(masses: Values, background: Values, peak: Peak, window: tuple[float, float] = WINDOW
                ) -> tuple[np.ndarray, np.ndarray]:
  """(edges [n + 1] in GeV, [3, n]: pairs by weight, the background's part of the fit, the whole fit)."""
  edges = edges_of(window)
  counts, shape = (np.bincount(bins, part.weight, len(edges) - 1).astype(float)
                   for part, bins in (in_bins(part, edges) for part in (masses, background)))
  shape = shape / max(shape.sum(), TINY)
  fit = expected((peak.mean, peak.width, peak.fraction), shape, edges)
  return edges, np.stack([counts, counts.sum() * (1 - peak.fraction) * shape, counts.sum() * fit])
