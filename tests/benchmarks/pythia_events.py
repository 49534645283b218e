"""Events of Pythia 8 in the layout of the autoencoder's files: top pairs, and top pairs with a Higgs boson, at 13 TeV.

  python tests/benchmarks/pythia_events.py --out=pythia.h5 --tt=20000 --ttH=5000 --processes=2
  python -m jaxtrain.main --config=configs/autoencoder.py:hdf5 --config.data.path=pythia.h5

Pythia makes the hard process at leading order, showers, the underlying event, hadrons and decays. Anti-kT jets of
radius 0.4 are made of all visible particles but isolated leptons and photons; a jet has a bottom quark where a hadron
with one is within TAG_RADIUS of it. Resolutions, efficiencies, thresholds and the selection are those of the simulated
events (`detector`), so that a comparison with these is one of the physics before the detector. Jets have the masses
that Pythia gives them, and the missing momentum is that of all visible particles up to MOST_ETA, moved by what the
resolution moved the objects, with the detector's noise.

About 110 events a second and core before the selection, which 3 of 10 top pairs and 7 of 10 with a Higgs boson pass.
Events are drawn in pieces of PIECE, each with its own seed, so that a file has the same events for any number of
processes. Parts are 60, 20 and 20 percent of the events in random order. Labels: 6 = tt, 2 = ttH.

Needs `pip install -e '.[bench_events]'`.

**Source:** Bierlich et al., A comprehensive guide to the physics and usage of PYTHIA 8.3, 2022; Cacciari, Salam and
Soyez, The anti-kt jet clustering algorithm, 2008, by Pythia's own copy of FastJet.
"""

import argparse
import concurrent.futures
import multiprocessing
import time
from typing import Any, NamedTuple

import numpy as np

import bench  # noqa: F401  imports the jaxtrain of this clone
from jaxtrain.errors import need
from jaxtrain.experiments.autoencoder import detector, event_files, events as events_lib, kinematics
from jaxtrain.experiments.autoencoder.detector import BOTTOM, ELECTRON, MUON, NOTHING, PHOTON, QUARK

SETTINGS = ("Print:quiet = on", "Beams:eCM = 13000.", "Random:setSeed = on")
PROCESSES = {"tt": ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on"),
             "ttH": ("HiggsSM:gg2Httbar = on", "HiggsSM:qqbar2Httbar = on")}
KINDS = {11: ELECTRON, 13: MUON, 22: PHOTON}  # by the absolute number of a particle in Pythia
ANTI_KT, VISIBLE, MASSIVE = -1, 2, 2  # power of the clustering; which particles; with their own masses
JET_PT, MOST_ETA = 10.0, 5.0  # GeV, of a jet before its energy is smeared; reach of the calorimeter
SURE, NEAR_ETA = 0.8, 3.0  # an event whose jets up to NEAR_ETA have less than this share of the least HT is left out
LEAST_PT = 10.0  # GeV, of a lepton or a photon before it is smeared
DRESSING = 0.1  # distance within which photons are part of a lepton
ISOLATION, ISOLATION_RADIUS = 0.1, 0.3  # most of the momentum of others within the radius, over that of the particle
TAG_RADIUS, HADRON_PT = 0.3, 5.0  # of a hadron with a bottom quark around its jet; GeV, its least
MOST_OBJECTS = 40  # of an event before the detector
PIECE = 250  # selected events of a piece
FRACTIONS = {"train": 0.6, "val": 0.2, "test": 0.2}


class Truth(NamedTuple):
  """N events before the detector.

  Attributes:
    p: [N, P, 4] four-vectors in GeV of jets, leptons and photons; 0 where there is nothing.
    kind: [N, P], a kind of `detector`: QUARK is a jet without a bottom quark.
    charge: [N, P], sign of the charge of leptons.
    missing: [N, 2], minus the transverse momentum of all visible particles in GeV.
  """
  p: np.ndarray
  kind: np.ndarray
  charge: np.ndarray
  missing: np.ndarray


def measure(truth: Truth, num_slots: int, random: np.random.RandomState
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Objects as the detector sees them; returns as of `detector.observe`."""
  kind, there = truth.kind, truth.kind != NOTHING
  is_jet = (kind == QUARK) | (kind == BOTTOM)
  is_lepton, is_photon = (kind == ELECTRON) | (kind == MUON), kind == PHOTON
  polar, m = kinematics.to_polar(truth.p), kinematics.mass(truth.p)
  noise = np.sqrt(detector.ENERGY_NOISE**2 / np.where(there, polar[..., 0], 1) + detector.ENERGY_CONSTANT**2) * is_jet
  noise += sum(deviation * (kind == of) for of, deviation in detector.LEPTON_NOISE.items())
  scale = np.maximum(1 + noise * random.normal(size=kind.shape), 0.05) * there
  angle = np.where(is_jet, detector.ANGLE, detector.ANGLE / 10) * there
  eta, phi = (polar[..., k] + angle * random.normal(size=kind.shape) for k in (2, 3))
  p = kinematics.from_polar(polar[..., 1] * scale, eta, phi, m * scale)
  polar = kinematics.to_polar(p)
  pt, size = polar[..., 1], np.abs(polar[..., 2])
  jets = is_jet & (pt > detector.JET_PT) & (size < detector.JET_ETA)
  found = (random.uniform(size=kind.shape) < detector.EFFICIENCY) & detector.is_alone(polar, jets)
  leptons = found & is_lepton & (pt > detector.LEPTON_PT) & (size < detector.LEPTON_ETA)
  photons = found & is_photon & (pt > detector.PHOTON_PT) & (size < detector.PHOTON_ETA)
  tagged = random.uniform(size=kind.shape) < np.where(kind == BOTTOM, detector.TAG, detector.MISTAG)
  signed = lambda plus, minus: np.where(truth.charge > 0, plus, minus)
  lepton = np.where(kind == ELECTRON, signed(events_lib.POSITRON, events_lib.ELECTRON),
                    signed(events_lib.ANTIMUON, events_lib.MUON))
  ids = np.select([jets & tagged, jets, leptons, photons],
                  [events_lib.B_JET, events_lib.JET, lepton, events_lib.PHOTON], events_lib.EMPTY)
  xy = truth.missing - (p - truth.p)[..., 1:3].sum(axis=1) + random.normal(0, detector.MET_NOISE, (len(ids), 2))
  met = np.stack([np.hypot(*xy.T), np.arctan2(xy[:, 1], xy[:, 0])], axis=-1)
  enough = (ids != events_lib.EMPTY).sum(axis=1) >= min(detector.LEAST_OBJECTS, num_slots)
  kept = ((pt * jets).sum(axis=1) > detector.LEAST_HT) & enough
  return *detector.in_slots(ids, polar, num_slots), met, kept


def isolated(number: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(places [k] of isolated leptons and photons among visible particles, their four-vectors [k, 4]).

  Photons within DRESSING of a lepton are added to it.

  Args:
    number: [M] particles as Pythia numbers them; p: [M, 4] their four-vectors.
  """
  polar = kinematics.to_polar(p)
  places, vectors = [], []
  for i in np.flatnonzero(np.isin(np.abs(number), list(KINDS)) & (polar[:, 1] > LEAST_PT)):
    apart = kinematics.distance(polar[:, 2], polar[:, 3], polar[i, 2], polar[i, 3])
    own = np.arange(len(p)) == i
    if abs(number[i]) != 22:
      own |= (number == 22) & (apart < DRESSING)
    vector = p[own].sum(axis=0)
    if polar[~own & (apart < ISOLATION_RADIUS), 1].sum() < ISOLATION * kinematics.transverse(vector):
      places.append(i)
      vectors.append(vector)
  return np.array(places, int), np.array(vectors).reshape(-1, 4)


def has_bottom(number: int) -> bool:
  """Whether a particle that Pythia numbers so is a hadron with a bottom quark."""
  number = abs(number) % 10_000  # excited ones have further digits
  return number // 1000 == 5 or number // 100 == 5


def look(event: Any, jets: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
  """(p [k, 4], kind [k], charge [k], missing [2]) of an event of Pythia; None where the selection is out of reach.

  Args:
    event: Pythia's record. Isolated particles are marked as no longer there.
    jets: Pythia's clustering.
  """
  jets.analyze(event)
  central = [k for k in range(jets.sizeJet()) if abs(jets.p(k).eta()) < NEAR_ETA]
  if sum(jets.pT(k) for k in central) < SURE * detector.LEAST_HT:
    return None
  seen = [(k, one.id(), one.e(), one.px(), one.py(), one.pz()) for k, one in enumerate(event)
          if one.isFinal() and one.isVisible() and abs(one.eta()) < MOST_ETA]
  bottoms = np.array([(one.eta(), one.phi()) for one in event if has_bottom(one.id()) and one.pT() > HADRON_PT])
  table = np.array(seen)
  number, p = table[:, 1].astype(int), table[:, 2:]
  places, light = isolated(number, p)
  for i in places:
    event[seen[i][0]].statusNeg()
  jets.analyze(event)
  clusters = np.array([(one.e(), one.px(), one.py(), one.pz()) for one in map(jets.p, range(jets.sizeJet()))])
  polar = kinematics.to_polar(clusters.reshape(-1, 4))
  near = kinematics.distance(polar[:, None, 2], polar[:, None, 3], *bottoms.reshape(-1, 2).T[:, None]) < TAG_RADIUS
  kinds = [*np.where(near.any(axis=1), BOTTOM, QUARK), *(KINDS[abs(k)] for k in number[places])]
  charges = [0] * len(polar) + [-np.sign(k) if k != 22 else 0 for k in number[places]]
  return np.concatenate([clusters.reshape(-1, 4), light]), np.array(kinds), np.array(charges), -p[:, 1:3].sum(axis=0)


def stack(found: list[tuple]) -> Truth:
  """Events of `look` side by side."""
  p, kind = np.zeros((len(found), MOST_OBJECTS, 4)), np.zeros((len(found), MOST_OBJECTS), int)
  charge, missing = np.zeros_like(kind), np.zeros((len(found), 2))
  for row, (vectors, kinds, charges, lost) in enumerate(found):
    order = np.argsort(-kinematics.transverse(vectors), kind="stable")[:MOST_OBJECTS]
    for target, values in ((p, vectors), (kind, kinds), (charge, charges)):
      target[row, :len(order)] = values[order]
    missing[row] = lost
  return Truth(p, kind, charge, missing)


def make_piece(name: str, seed: tuple[int, int], count: int, num_slots: int) -> events_lib.Events:
  """So many selected events of a process; `seed` is that of the file and the number of the piece."""
  pythia8 = need("pythia8mc", "bench_events")
  pythia = pythia8.Pythia("", False)
  random = np.random.RandomState([*seed, list(PROCESSES).index(name)])
  for line in (*SETTINGS, *PROCESSES[name], f"Random:seed = {random.randint(1, 900_000_000)}"):
    pythia.readString(line)
  if not pythia.init():
    raise RuntimeError(f"{name}: Pythia did not start")
  jets = pythia8.SlowJet(ANTI_KT, detector.RADIUS, JET_PT, MOST_ETA, VISIBLE, MASSIVE)
  parts, have = [], 0
  while have < count:
    drawn = [look(pythia.event, jets) for _ in range(100) if pythia.next()]
    ids, momenta, met, kept = measure(stack([one for one in drawn if one is not None]), num_slots, random)
    if kept.any():
      label = np.full(kept.sum(), events_lib.PROCESS_NAMES.index(name))
      parts.append(events_lib.assemble(ids[kept], momenta[kept], met[kept], label))
      have += len(label)
  return events_lib.join(parts).take(slice(count))


def make(counts: dict[str, int], seed: int, num_slots: int, processes: int) -> events_lib.Events:
  """Events of processes by name, in random order; tells of each piece."""
  jobs = [(name, (seed, k), min(PIECE, count - k * PIECE), num_slots) for name, count in counts.items()
          for k in range(-(-count // PIECE))]
  began, parts = time.perf_counter(), []
  with concurrent.futures.ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
    for part in pool.map(make_piece, *zip(*jobs)):
      parts.append(part)
      print(f"piece {len(parts)} of {len(jobs)}, {time.perf_counter() - began:,.0f} s", flush=True)
  found = events_lib.join(parts)
  return found.take(np.random.RandomState(seed).permutation(len(found.ids)))


def split(events: events_lib.Events) -> dict[str, events_lib.Events]:
  """The events of each part."""
  ends = np.rint(np.cumsum(list(FRACTIONS.values())) * len(events.ids)).astype(int)
  return {part: events.take(slice(start, end)) for part, start, end in zip(FRACTIONS, (0, *ends), ends)}


def main() -> None:
  """Writes a file of events."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", required=True)
  for name in PROCESSES:
    parser.add_argument(f"--{name}", type=int, default=0, help="selected events")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--num_slots", type=int, default=18)
  parser.add_argument("--processes", type=int, default=1)
  given = parser.parse_args()
  counts = {name: getattr(given, name) for name in PROCESSES if getattr(given, name)}
  if not counts:
    parser.error("no events: give --tt or --ttH")
  event_files.write_hdf5(given.out, split(make(counts, given.seed, given.num_slots, given.processes)))


if __name__ == "__main__":
  main()
