"""Generated events against real ones: distances of observables in their units and in floors of real against real, the
peak of the W boson in the masses of all pairs of jets, JetNet's distances, and whether a classifier tells them apart.

All is by event weights. JetNet's distances, which know no weights, are of events drawn by them.
"""

from typing import Any

import jax
import numpy as np

from jaxtrain import statistics
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import distances, observables
from jaxtrain.experiments.autoencoder.events import Events
from jaxtrain.experiments.autoencoder.observables import UNITS, Values
from jaxtrain.types import Metric

DRAWS, SIZE = 20, 2000  # of a floor: pairs of sets of events, and events of a set
FEWEST = 10  # events of each set
RESAMPLES = 50  # of events, for intervals of W1
SHOWN, MOST = 32, 20_000  # events, and values of an observable, that are kept for figures
MASS_BINS = (0.0, 40.0, 60.0, 70.0, 80.0, 90.0, 100.0, 140.0, np.inf)  # GeV, in which a classifier sees counts of pairs
LEAST = 1e-3  # GeV, below which no logarithm is taken
WORDS = {"pt": "objects' transverse momentum", "eta": "objects' pseudorapidity", "phi": "objects' azimuth",
         "e": "objects' energy", "multiplicity": "the number of objects", "ht": "HT, the sum of jets' pT",
         "met": "missing transverse energy", "m_jj": "the mass of all pairs of light jets",
         "m_bjj": "the mass of all b-jets with two light jets"}
METRICS = {
    "two_sample_auc": Metric("", "ranking of generated events above real ones by a classifier trained for it; 0.5 is "
                             "not to be told apart", "lower", key=True),
    **{f"w1_{name}_floors": Metric("floors", f"Wasserstein distance of {words}, of as many events as its floor; 1 is "
                                   "real against real", "lower", key=name in ("ht", "m_jj"))
       for name, words in WORDS.items()},
    **{f"w1_{name}": Metric(UNITS[name], f"Wasserstein distance of {words}, generated against real", "lower")
       for name, words in WORDS.items()},
    "m_jj_peak_gev": Metric("GeV", "mass of the peak of generated pairs of light jets above mixed events", key=True),
    "m_jj_peak_truth_gev": Metric("GeV", "the same of real events"),
    "m_jj_peak_width_gev": Metric("GeV", "width of that peak, the deviation of a Gaussian", "lower"),
    "m_jj_peak_width_truth_gev": Metric("GeV", "the same of real events"),
    "m_jj_window_share": Metric("", "share of generated pairs of 40 to 140 GeV that belong to the peak", "higher"),
    "m_jj_window_share_truth": Metric("", "the same of real events"),
    "fpd": Metric("", "Frechet physics distance of energy flow polynomials", "lower"),
    "kpd": Metric("", "kernel physics distance of energy flow polynomials", "lower"),
    "w1m": Metric("", "Wasserstein distance of the mass of an event over the sum of its pT", "lower"),
    "w1p": Metric("", "Wasserstein distance of objects' eta, phi and share of the sum of pT, mean of the three",
                  "lower"),
    "floor_events": Metric("events", "events of each of the two sets of a floor"),
    "generated_events": Metric("events", "generated events that were compared"),
}


def compare(real: Events, made: Events, key: Any) -> tuple[dict[str, float], dict[str, np.ndarray]]:
  """(scalars of METRICS with `_ci95`, arrays for figures) of generated events against real ones.

  `w1_<name>` is of all events, and its interval from events of both sets that are drawn with replacement.
  `w1_<name>_floors` is the mean W1 of DRAWS pairs of SIZE generated and SIZE real events, over that of SIZE real and
  SIZE other real events. It is 1 where generated events are as near as real ones, however many there are of both. Pairs
  have common events where there are fewer than 2 SIZE DRAWS; where there are fewer than 2 SIZE, SIZE is smaller.
  Scalars that cannot be known, such as the peak of few pairs, are left out.

  Returns:
    arrays, for each name of `observables.UNITS` and both sides `real` and `generated`: `<side>_<name>` [up to MOST]
    values of equal weight; `<side>_shown_ids` [up to SHOWN, T], `_momenta` [., T, 4] and `_met` [., 2], events;
    `m_jj_edges` [n + 1], `<side>_m_jj_bins` [3, n]: pairs, the mixed-event background and the fit with the peak.

  Raises:
    UserError: fewer than FEWEST events in a set.
  """
  for side, events in (("real", real), ("generated", made)):
    if len(events.ids) < FEWEST:
      raise UserError(f"{len(events.ids)} {side} events are too few to compare, at least {FEWEST} are needed")
  numbers_key, classifier_key = jax.random.split(key)
  random = np.random.RandomState(np.asarray(jax.random.key_data(numbers_key)).ravel().tolist())
  ours, theirs = observables.of_events(real), observables.of_events(made)
  size = min(SIZE, len(real.ids) // 2, len(made.ids))
  scalars = {"generated_events": len(made.ids), "floor_events": size}
  for name in UNITS:
    scalars |= distance(name, ours[name], theirs[name], size, random)
  peaks, arrays = peak(real, made, ours["m_jj"], theirs["m_jj"], random)
  types = 1 + int(max(real.ids.max(), made.ids.max()))
  auc, half = distances.two_sample_auc(vectors(real, types), vectors(made, types), classifier_key, real.weight,
                                        made.weight)
  scalars |= peaks | jet_distances(real, made, random) | {"two_sample_auc": auc, "two_sample_auc_ci95": half}
  for side, events, found in (("real", real, ours), ("generated", made, theirs)):
    arrays |= {f"{side}_{name}": drawn_alike(values, random) for name, values in found.items()}
    arrays |= {f"{side}_shown_ids": events.ids[:SHOWN], f"{side}_shown_momenta": events.momenta[:SHOWN],
               f"{side}_shown_met": events.globals[:SHOWN]}
  return {name: float(value) for name, value in scalars.items() if np.isfinite(value)}, arrays


def distance(name: str, real: Values, made: Values, size: int, random: np.random.RandomState) -> dict[str, float]:
  """W1 of an observable in its unit and in floors, with intervals."""
  on = distances.line(np.concatenate([real.value, made.value]))

  def w1(times_real: np.ndarray, times_made: np.ndarray) -> float:  # how often each event counts
    parts = [part.weight * times[part.event] for part, times in ((real, times_real), (made, times_made))]
    return distances.w1_on(on, np.append(parts[0], np.zeros(len(parts[1]))),
                           np.append(np.zeros(len(parts[0])), parts[1]))

  numbers = real.num_events, made.num_events
  some = lambda n: np.bincount(random.permutation(n)[:size], minlength=n)
  value = w1(*map(np.ones, numbers))
  again = [w1(*(random.multinomial(n, np.full(n, 1 / n)) for n in numbers)) for _ in range(RESAMPLES)]
  half = observables.Z95 * np.std(again, ddof=1)
  floors = distances.floor(real, random, DRAWS, size)
  ratio = np.mean([w1(*map(some, numbers)) for _ in range(DRAWS)]) / max(floors.mean(), np.finfo(float).tiny)
  of_floor = statistics.t_half_width(floors) * ratio
  return {f"w1_{name}": value, f"w1_{name}_ci95": half, f"w1_{name}_floors": ratio,
          f"w1_{name}_floors_ci95": np.hypot(half, of_floor) / max(floors.mean(), np.finfo(float).tiny)}


def peak(real: Events, made: Events, ours: Values, theirs: Values, random: np.random.RandomState
         ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
  """(mass and share of the peak of pairs of light jets, histograms with the fits), generated and real."""
  scalars, arrays = {}, {}
  for side, suffix, events, pairs in (("generated", "", made, theirs), ("real", "_truth", real, ours)):
    background = observables.mixed(events, random)
    found = observables.fit_peak(pairs, background)
    scalars |= {f"m_jj_peak{suffix}_gev": found.mean, f"m_jj_peak{suffix}_gev_ci95": found.mean_ci,
                f"m_jj_peak_width{suffix}_gev": found.width, f"m_jj_window_share{suffix}": found.fraction,
                f"m_jj_window_share{suffix}_ci95": found.fraction_ci}
    arrays["m_jj_edges"], arrays[f"{side}_m_jj_bins"] = observables.fitted_bins(pairs, background, found)
  return scalars, arrays


def jet_distances(real: Events, made: Events, random: np.random.RandomState) -> dict[str, float]:
  """JetNet's distances, of relative momenta of events that are drawn by their weights."""
  both = [relative(by_weight(events, random)) for events in (real, made)]
  draw = np.random.default_rng(random.randint(2**31, size=2))
  features = [distances.polynomials(part) for part in both]
  return {"w1m": distances.w1m(*both, draw)[0], "w1p": distances.w1p(*both, draw)[0].mean(),
          "fpd": distances.fpd(*features)[0], "kpd": distances.kpd(*features)[0]}


def relative(events: Events) -> np.ndarray:
  """Objects [N, T, 3]: eta, phi and the share of the sum of the event's pT; 0 in empty slots."""
  _, pt, eta, phi = np.moveaxis(events.momenta.astype(np.float64) * events.mask[..., None], -1, 0)
  return np.stack([eta, phi, pt / np.maximum(pt.sum(axis=1, keepdims=True), LEAST)], axis=-1)


def by_weight(events: Events, random: np.random.RandomState) -> Events:
  """As many events of equal weight: themselves where their weights agree, else drawn with replacement by weight."""
  weight = events.weight.astype(np.float64)
  if np.ptp(weight) == 0:
    return events
  return events.take(random.choice(len(weight), len(weight), p=weight / weight.sum()))


def drawn_alike(values: Values, random: np.random.RandomState) -> np.ndarray:
  """Up to MOST values of equal weight: the first where weights agree, else drawn with replacement by weight."""
  if not len(values.value) or np.ptp(values.weight) == 0:
    return values.value[:MOST]
  size = min(MOST, len(values.value))
  return values.value[random.choice(len(values.value), size, p=values.weight / values.weight.sum())]


def vectors(events: Events, num_types: int) -> np.ndarray:
  """What a classifier sees of an event [N, D], which no turn around the beam and no order of slots changes.

  Objects by falling pT, 0 where there is none: logarithm of pT, eta, azimuth from that of the hardest object as cosine
  and sine, logarithm of the energy over that without a mass, type; missing transverse energy in the same way; number of
  objects of each type, logarithm of HT, and number of pairs of light jets in MASS_BINS.
  """
  order = np.argsort(-np.where(events.mask, events.momenta[..., 1], -1.0), axis=1, kind="stable")
  ids = np.take_along_axis(events.ids, order, axis=1)
  e, pt, eta, phi = np.moveaxis(np.take_along_axis(events.momenta, order[..., None], axis=1).astype(np.float64), -1, 0)
  log = lambda values: np.log(np.maximum(values, LEAST))
  turn, kind = phi - phi[:, :1], np.eye(num_types)[ids]
  objects = np.stack([log(pt), eta, np.cos(turn), np.sin(turn), log(e) - log(pt * np.cosh(eta))], axis=-1)
  objects = np.concatenate([objects, kind], axis=-1) * (ids > 0)[..., None]
  met, turn = events.globals[:, 0].astype(np.float64), events.globals[:, 1] - phi[:, 0]
  found = observables.of_events(events)
  pairs = np.zeros((len(ids), len(MASS_BINS) - 1))
  np.add.at(pairs, (found["m_jj"].event, np.digitize(found["m_jj"].value, MASS_BINS) - 1), 1)
  whole = np.stack([log(met), np.cos(turn), np.sin(turn), log(found["ht"].value)], axis=1)
  return np.concatenate([objects.reshape(len(ids), -1), whole, kind.sum(axis=1), pairs], axis=1)
