"""A detector of few words: smeared jets, leptons and photons, bottom tags, acceptance, and missing transverse energy.

Jets: deviations of energies as of a calorimeter, particles closer than RADIUS join, and jets have a mass. Objects stand
in the order of their transverse momentum.

**Source:** shapes of resolutions, thresholds and efficiencies: the ATLAS card of Delphes 3 (de Favereau et al., 2014),
rounded to one number each.
"""

from typing import NamedTuple

import numpy as np

from jaxtrain.experiments.autoencoder import events as events_lib, kinematics

NOTHING, QUARK, BOTTOM, ELECTRON, MUON, PHOTON, NEUTRINO = range(7)  # kinds of particles
ENERGY_NOISE, ENERGY_CONSTANT = 0.8, 0.05  # of a jet: sigma(E) / E = sqrt(noise^2 / E + constant^2)
LEPTON_NOISE = {ELECTRON: 0.015, MUON: 0.02, PHOTON: 0.02}  # relative deviations
ANGLE = 0.02  # deviation of the direction of a jet, in pseudorapidity and radians; of others a tenth
JET_MASS = 0.1  # of a jet over its transverse momentum, its mean; the deviation is a third of it
RADIUS = 0.4  # distance within which particles join a jet, and jets hide leptons
TAG, MISTAG = 0.77, 0.02  # share of jets with and without a bottom quark that are tagged
EFFICIENCY = 0.9  # share of leptons and photons that are found
JET_PT, LEPTON_PT, PHOTON_PT = 20.0, 15.0, 20.0  # GeV, least
JET_ETA, LEPTON_ETA, PHOTON_ETA = 2.8, 2.7, 2.37  # largest sizes of pseudorapidities
LEAST_HT, LEAST_OBJECTS = 400.0, 4  # of a selected event: sum of the transverse momenta of jets in GeV, and objects
MET_NOISE = 15.0  # GeV, deviation of a component of the missing transverse momentum beside that of objects


class Particles(NamedTuple):
  """Particles of N events in P places.

  Attributes:
    p: [N, P, 4] four-vectors in GeV; 0 where there is nothing.
    kind: [N, P], one of the kinds above.
    charge: [N, P], sign of the charge of leptons; 0 of others.
  """
  p: np.ndarray
  kind: np.ndarray
  charge: np.ndarray


def smear(particles: Particles, random: np.random.RandomState) -> np.ndarray:
  """Four-vectors [N, P, 4] as they are measured, of massless jets and leptons; of neutrinos and nothing 0."""
  kind, polar = particles.kind, kinematics.to_polar(particles.p)
  is_jet = (kind == QUARK) | (kind == BOTTOM)
  seen = (kind != NOTHING) & (kind != NEUTRINO)
  e = np.where(seen, polar[..., 0], 1.0)
  noise = np.sqrt(ENERGY_NOISE**2 / e + ENERGY_CONSTANT**2) * is_jet
  noise += sum(deviation * (kind == of) for of, deviation in LEPTON_NOISE.items())
  pt = polar[..., 1] * np.maximum(1 + noise * random.normal(size=kind.shape), 0.05)
  angle = np.where(is_jet, ANGLE, ANGLE / 10)
  eta, phi = (polar[..., k] + angle * random.normal(size=kind.shape) for k in (2, 3))
  return kinematics.from_polar(pt * seen, eta * seen, phi * seen, 0.0)


def join_jets(p: np.ndarray, is_jet: np.ndarray, tagged: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(p, is_jet, tagged) with jets closer than RADIUS to a harder one added to it, from the hardest on.

  Args:
    p: [N, P, 4], those of jets in the order of their transverse momentum.
    is_jet, tagged: [N, P] bool.
  """
  p, is_jet, tagged = p.copy(), is_jet.copy(), tagged.copy()
  _, _, eta, phi = np.moveaxis(kinematics.to_polar(p), -1, 0)
  for k in range(p.shape[1] - 1):  # a jet that others join is compared by the direction of its hardest particle
    apart = kinematics.distance(eta[:, k:k + 1], phi[:, k:k + 1], eta[:, k + 1:], phi[:, k + 1:])
    near = (apart < RADIUS) & is_jet[:, k:k + 1] & is_jet[:, k + 1:]
    p[:, k] += np.einsum("npc,np->nc", p[:, k + 1:], near)
    tagged[:, k] |= (tagged[:, k + 1:] & near).any(axis=1)
    p[:, k + 1:] *= ~near[..., None]
    is_jet[:, k + 1:] &= ~near
  return p, is_jet, tagged


def observe(particles: Particles, num_slots: int, random: np.random.RandomState
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Objects of particles after smearing and cuts.

  Returns:
    (ids [N, T], momenta [N, T, 4], missing transverse energy and azimuth [N, 2], whether an event is selected [N]).
  """
  p = smear(particles, random)
  order = np.argsort(-kinematics.transverse(p), axis=1, kind="stable")
  kind, charge = (np.take_along_axis(part, order, axis=1) for part in (particles.kind, particles.charge))
  p = np.take_along_axis(p, order[..., None], axis=1)
  is_jet = (kind == QUARK) | (kind == BOTTOM)
  p, is_jet, bottom = join_jets(p, is_jet, kind == BOTTOM)
  polar = kinematics.to_polar(p)
  pt, eta = polar[..., 1], np.abs(polar[..., 2])
  is_lepton, is_photon = (kind == ELECTRON) | (kind == MUON), kind == PHOTON
  found = random.uniform(size=kind.shape) < EFFICIENCY
  jets = is_jet & (pt > JET_PT) & (eta < JET_ETA)
  light = found & is_alone(polar, jets) & (is_lepton & (pt > LEPTON_PT) & (eta < LEPTON_ETA) |
                                           is_photon & (pt > PHOTON_PT) & (eta < PHOTON_ETA))
  tagged = random.uniform(size=kind.shape) < np.where(bottom, TAG, MISTAG)
  lepton = np.where(kind == ELECTRON, np.where(charge > 0, events_lib.POSITRON, events_lib.ELECTRON),
                    np.where(charge > 0, events_lib.ANTIMUON, events_lib.MUON))
  ids = np.where(jets, np.where(tagged, events_lib.B_JET, events_lib.JET),
                 np.where(light, np.where(is_photon, events_lib.PHOTON, lepton), events_lib.EMPTY))
  m = JET_MASS * pt * np.maximum(1 + random.normal(size=pt.shape) / 3, 0.1) * jets
  polar[..., 0] = np.sqrt(polar[..., 0]**2 + m**2)
  there = ids != events_lib.EMPTY
  xy = -(p[..., 1:3] * there[..., None]).sum(axis=1) + random.normal(0, MET_NOISE, (len(ids), 2))
  met = np.stack([np.hypot(*xy.T), np.arctan2(xy[:, 1], xy[:, 0])], axis=-1)
  kept = ((pt * jets).sum(axis=1) > LEAST_HT) & (there.sum(axis=1) >= min(LEAST_OBJECTS, num_slots))
  return *in_slots(ids, polar, num_slots), met, kept


def is_alone(polar: np.ndarray, jets: np.ndarray) -> np.ndarray:
  """[N, P] bool: whether a particle is at least RADIUS away from all jets."""
  eta, phi = polar[..., 2], polar[..., 3]
  near = np.zeros(jets.shape, bool)
  for k in range(jets.shape[1]):
    near |= jets[:, k:k + 1] & (kinematics.distance(eta, phi, eta[:, k:k + 1], phi[:, k:k + 1]) < RADIUS)
  return ~near


def in_slots(ids: np.ndarray, polar: np.ndarray, num_slots: int) -> tuple[np.ndarray, np.ndarray]:
  """(ids [N, T], momenta [N, T, 4]): objects by falling transverse momentum, then empty slots."""
  there = ids != events_lib.EMPTY
  order = np.argsort(np.where(there, -polar[..., 1], np.inf), axis=1, kind="stable")[:, :num_slots]
  ids, polar = np.take_along_axis(ids, order, axis=1), np.take_along_axis(polar, order[..., None], axis=1)
  room = max(0, num_slots - ids.shape[1])
  ids, polar = np.pad(ids, ((0, 0), (0, room))), np.pad(polar, ((0, 0), (0, room), (0, 0)))
  return ids, polar * (ids != events_lib.EMPTY)[..., None]
