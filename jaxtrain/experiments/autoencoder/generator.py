"""Simulated events: half of them four top quarks, the rest top pairs with a Higgs, W, two W or Z boson.

Heavy particles recoil against jets from the beams and decay in flight by exact two-body kinematics: t -> b W,
W -> q q' or l nu, H -> b b or W W*, Z -> q q, b b, l l or nu nu. `detector.observe` makes objects of what they leave.
Masses are sharp, decays have no preferred direction, and tau leptons are left out.

**Source:** masses and branching fractions: Particle Data Group, Review of Particle Physics, 2022, rounded. Momenta of
heavy particles are shaped by hand, to have the mean of what simulations of 13 TeV give.
"""

from typing import NamedTuple

import numpy as np

from jaxtrain.experiments.autoencoder import detector, kinematics
from jaxtrain.experiments.autoencoder.detector import (BOTTOM, ELECTRON, MUON, NEUTRINO, NOTHING, PHOTON, QUARK,
                                                       Particles)
from jaxtrain.experiments.autoencoder.events import Events, PROCESS_NAMES, assemble, join

TOP_MASS, W_MASS, Z_MASS, HIGGS_MASS, BOTTOM_MASS = 172.8, 80.4, 91.19, 125.2, 4.8  # GeV
SIGNAL_SHARE = 0.5  # of four-top events; the others are shared alike
LEPTONIC = 0.32  # share of W bosons that decay to an electron or a muon
Z_SHARES = {"qq": 0.57, "bb": 0.16, "ee": 0.035, "mm": 0.035, "nunu": 0.2}
HIGGS_TO_W = 0.27  # share of Higgs bosons that decay to W W*, of those two ways
MOMENTUM = 120.0  # GeV, deviation of a transverse component of a heavy particle's momentum, about
SPREAD_RAPIDITY, SPREAD_SYSTEM = 0.8, 0.7  # deviations of rapidity within an event, and of the whole
JETS = {"tttt": 1.0, "ttH": 1.5, "ttW": 1.7, "ttWW": 1.3, "ttZ": 1.5}  # mean number of jets from the beams
JET_PT, JET_SLOPE, MOST_JETS = 20.0, 3.0, 5  # GeV; they fall as pT^-(1 + slope)
PHOTONS = 0.04  # share of events with a photon from the beams
BATCH = 20_000  # events drawn at once


class Made(NamedTuple):
  """Events before a detector.

  Attributes:
    particles: what is left after all decays [N, P].
    heavy: name -> four-vectors [N, k, 4] of what decayed: `top` and `boson`.
  """
  particles: Particles
  heavy: dict[str, np.ndarray]


def generate(num_events: int, seed: int, num_slots: int = 18) -> Events:
  """Events of a seed that pass the detector's selection, in random order; objects beyond T slots are left out.

  A share of SIGNAL_SHARE is tttt, the other processes have as many each; the last events of uneven numbers are tttt.
  """
  random = np.random.RandomState(seed)
  others = len(JETS) - 1
  each = int(num_events * (1 - SIGNAL_SHARE)) // others
  wanted = [num_events - each * others] + [each] * others
  parts = [observe(process, count, num_slots, random) for process, count in enumerate(wanted, 1) if count]
  return join(parts).take(random.permutation(num_events))


def observe(process: int, count: int, num_slots: int, random: np.random.RandomState) -> Events:
  """So many selected events of a process, an index of PROCESS_NAMES."""
  parts, have = [], 0
  while have < count:
    made = make(PROCESS_NAMES[process], min(BATCH, 64 + 3 * (count - have) // 2), random)
    ids, momenta, met, kept = detector.observe(made.particles, num_slots, random)
    rows = np.flatnonzero(kept)
    if len(rows):
      parts.append(assemble(ids[rows], momenta[rows], met[rows], np.full(len(rows), process)))
      have += len(rows)
  return join(parts).take(slice(count))


def make(name: str, num: int, random: np.random.RandomState) -> Made:
  """Events of a process of a name before a detector and its selection.

  The particles of top k stand in the places 3 k (bottom quark), 3 k + 1 and 3 k + 2 (from its W); those of bosons, and
  then those from the beams, follow.
  """
  beams = from_beams(name, num, random)
  bosons = {"tttt": (), "ttH": (HIGGS_MASS,), "ttW": (W_MASS,), "ttWW": (W_MASS, W_MASS), "ttZ": (Z_MASS,)}[name]
  num_tops = 4 if name == "tttt" else 2
  masses = np.array([TOP_MASS] * num_tops + list(bosons))
  heavy = draw_heavy(masses, -beams.p[..., 1:3].sum(axis=1), random)
  charges = np.array([1, -1] * (num_tops // 2))
  found = [decay_top(heavy[:, k], np.full(num, charges[k]), random) for k in range(num_tops)]
  first = random.choice([-1, 1], num)
  for k in range(len(bosons)):
    boson = heavy[:, num_tops + k]
    if name == "ttH":
      found.append(decay_higgs(boson, random))
    elif name == "ttZ":
      found.append(decay_z(boson, random))
    else:
      found.append(decay_w(boson, first * (-1)**k, random))
  return Made(stack([*found, beams]), {"top": heavy[:, :num_tops], "boson": heavy[:, num_tops:]})


def draw_heavy(masses: np.ndarray, recoil: np.ndarray, random: np.random.RandomState) -> np.ndarray:
  """Four-vectors [N, k, 4] of heavy particles of masses [k] whose transverse momenta add to a recoil [N, 2]."""
  shape = (len(recoil), len(masses))
  scale = MOMENTUM * np.exp(random.normal(0, 0.35, len(recoil)))
  xy = random.normal(size=(*shape, 2)) * scale[:, None, None]
  xy += ((recoil - xy.sum(axis=1)) / len(masses))[:, None]
  rapidity = random.normal(0, SPREAD_RAPIDITY, shape) + random.normal(0, SPREAD_SYSTEM, (len(recoil), 1))
  across = np.sqrt((xy**2).sum(axis=-1) + masses**2)
  return np.stack([across * np.cosh(rapidity), xy[..., 0], xy[..., 1], across * np.sinh(rapidity)], axis=-1)


def from_beams(name: str, num: int, random: np.random.RandomState) -> Particles:
  """Quarks [N, MOST_JETS], and a photon in some events, that the beams radiate."""
  there = np.arange(MOST_JETS) < random.poisson(JETS[name], num)[:, None]
  there = np.concatenate([there, random.uniform(size=(num, 1)) < PHOTONS], axis=1)
  pt = JET_PT * random.uniform(size=there.shape)**(-1 / JET_SLOPE)
  p = kinematics.from_polar(pt, random.normal(0, 1.5, there.shape), random.uniform(-np.pi, np.pi, there.shape), 0.0)
  kind = np.array([QUARK] * MOST_JETS + [PHOTON])
  return Particles(p * there[..., None], np.where(there, kind, NOTHING), np.zeros(there.shape, int))


def stack(parts: list[Particles]) -> Particles:
  """Particles of the same events side by side."""
  return Particles(*(np.concatenate(columns, axis=1) for columns in zip(*parts)))


def pair(first: np.ndarray, second: np.ndarray, kinds, charges) -> Particles:
  """Two particles [N, 2] of four-vectors [N, 4]; `kinds` and `charges` are pairs of numbers or of arrays [N]."""
  columns = lambda both: np.stack(np.broadcast_arrays(*both, np.zeros(len(first), int))[:2], axis=1)
  return Particles(np.stack([first, second], axis=1), columns(kinds), columns(charges))


def decay_w(w: np.ndarray, charge: np.ndarray, random: np.random.RandomState) -> Particles:
  """Two quarks, or a charged lepton and a neutrino [N, 2], of W bosons [N, 4]."""
  leptonic = random.uniform(size=len(w)) < LEPTONIC
  flavour = np.where(random.uniform(size=len(w)) < 0.5, ELECTRON, MUON)
  return pair(*kinematics.decay(w, 0.0, 0.0, random), (np.where(leptonic, flavour, QUARK),
                                                       np.where(leptonic, NEUTRINO, QUARK)),
              (np.where(leptonic, charge, 0), 0))


def decay_top(top: np.ndarray, charge: np.ndarray, random: np.random.RandomState) -> Particles:
  """A bottom quark and what its W decays to [N, 3], of top quarks [N, 4] of a sign of their charge [N]."""
  w, b = kinematics.decay(top, W_MASS, BOTTOM_MASS, random)
  bottom = Particles(b[:, None], np.full((len(b), 1), BOTTOM), np.zeros((len(b), 1), int))
  return stack([bottom, decay_w(w, charge, random)])


def decay_z(z: np.ndarray, random: np.random.RandomState) -> Particles:
  """Two particles [N, 2] of Z bosons [N, 4]."""
  way = random.choice(len(Z_SHARES), len(z), p=list(Z_SHARES.values()))
  kind = np.array([QUARK, BOTTOM, ELECTRON, MUON, NEUTRINO])[way]
  sign = np.where((kind == ELECTRON) | (kind == MUON), 1, 0)
  return pair(*kinematics.decay(z, *(2 * [np.where(kind == BOTTOM, BOTTOM_MASS, 0.0)]), random), (kind, kind),
              (sign, -sign))


def decay_higgs(higgs: np.ndarray, random: np.random.RandomState) -> Particles:
  """Two bottom quarks, or what W W* decay to [N, 4], of Higgs bosons [N, 4]; the lighter W has any mass alike."""
  to_w = random.uniform(size=len(higgs)) < HIGGS_TO_W
  two = pair(*kinematics.decay(higgs, BOTTOM_MASS, BOTTOM_MASS, random), (BOTTOM, BOTTOM), (0, 0))
  lighter = random.uniform(10, HIGGS_MASS - W_MASS - 1, len(higgs))
  charge = random.choice([-1, 1], len(higgs))
  bosons = kinematics.decay(higgs, W_MASS, lighter, random)
  four = stack([decay_w(bosons[0], charge, random), decay_w(bosons[1], -charge, random)])
  none = Particles(*(np.zeros_like(part) for part in two))
  return Particles(*(np.where(to_w.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(four, stack([two, none]))))
