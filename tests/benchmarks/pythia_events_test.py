"""Events of Pythia: isolation, bottom quarks and the detector on made particles, and a few events of Pythia itself."""

import numpy as np
import pytest
import pythia_events
from pythia_events import BOTTOM, ELECTRON, MUON, PHOTON, QUARK, Truth

from jaxtrain.experiments.autoencoder import detector, events as events_lib, kinematics

N = 4000


def vector(pt: float, eta: float, phi: float, m: float = 0.0) -> np.ndarray:
  """(E, px, py, pz)."""
  return kinematics.from_polar(*map(np.float64, (pt, eta, phi, m)))


def many(*objects: tuple[np.ndarray, int, int]) -> Truth:
  """N events of the same (four-vector, kind, charge)."""
  p, kind, charge = (np.array(column) for column in zip(*objects))
  repeat = lambda column: np.repeat(np.array(column)[None], N, axis=0)
  return Truth(repeat(p), repeat(kind), repeat(charge), repeat(-p[:, 1:3].sum(axis=0)))


JETS = [(vector(150, 0.5 * k - 0.75, 1.5 * k - 3, 15), BOTTOM if k < 2 else QUARK, 0) for k in range(4)]


def test_a_particle_among_others_is_not_isolated():
  """Of two electrons of 30 GeV, the one with 4 GeV within 0.3 is lost; the other keeps its photon of 6 GeV at 0.05."""
  particles = [(11, vector(30, 0, 0)), (22, vector(6, 0.05, 0)), (-11, vector(30, 1, 2)), (211, vector(4, 1.2, 2)),
               (211, vector(2.5, 0, 0.25)), (22, vector(8, -2, 1)), (22, vector(40, 2, 3.1)), (211, vector(3, 2, -3.1))]
  number, p = (np.array(column) for column in zip(*particles))
  places, vectors = pythia_events.isolated(number, p)
  assert places.tolist() == [0, 6]  # 2.5 of 36 GeV is less than a tenth, and so is 3 of 40 across the azimuth's end
  np.testing.assert_allclose(vectors, [p[0] + p[1], p[6]])


@pytest.mark.parametrize("number, wanted", [(511, True), (-521, True), (5122, True), (10511, True), (20523, True),
                                            (553, True), (100553, True), (411, False), (421, False), (4122, False),
                                            (5, False), (21, False), (22, False), (2212, False), (15, False)])
def test_hadrons_with_a_bottom_quark(number, wanted):
  """By the numbering of the Particle Data Group: mesons nq nq, baryons with the heaviest quark first."""
  assert pythia_events.has_bottom(number) == wanted


def test_jets_are_smeared_tagged_and_keep_their_masses():
  ids, momenta, _, kept = pythia_events.measure(many(*JETS), 6, np.random.RandomState(0))
  assert kept.all() and (ids[:, :4] > 0).all() and not ids[:, 4:].any()
  tagged = (ids == events_lib.B_JET).sum() / N  # of two with a bottom quark and two without: binomial, 5 deviations
  mean = 2 * detector.TAG + 2 * detector.MISTAG
  deviation = np.sqrt(2 * (detector.TAG * (1 - detector.TAG) + detector.MISTAG * (1 - detector.MISTAG)) / N)
  assert abs(tagged - mean) < 5 * deviation  # one false alarm in two million
  e, pt, eta, _ = np.moveaxis(momenta[:, :4].astype(np.float64), -1, 0)
  assert (np.diff(pt, axis=1) <= 0).all()
  share = np.sqrt(e**2 - (pt * np.cosh(eta))**2) / pt
  np.testing.assert_allclose(share, 0.1, atol=2e-3)  # energy and momentum are scaled alike
  wanted = np.sqrt(np.mean([detector.ENERGY_NOISE**2 / jet[0][0] + detector.ENERGY_CONSTANT**2 for jet in JETS]))
  assert abs((pt / 150).std() - wanted) < 5 * wanted / np.sqrt(2 * 4 * N)


def test_leptons_have_types_by_charge_and_are_found_at_the_efficiency():
  light = [(vector(50, 2.0, 0), ELECTRON, 1), (vector(50, -2.0, 0), MUON, -1), (vector(60, -2.0, 2), PHOTON, 0),
           (vector(10, 2.0, 2), MUON, 1), (vector(50, 0.5 * 3 - 0.75, 1.5 * 3 - 3 + 0.2), ELECTRON, -1)]
  ids, _, _, _ = pythia_events.measure(many(*JETS, *light), 9, np.random.RandomState(1))
  share = lambda kind: (ids == kind).sum() / N
  deviation = np.sqrt(detector.EFFICIENCY * (1 - detector.EFFICIENCY) / N)
  for kind in (events_lib.POSITRON, events_lib.MUON, events_lib.PHOTON):
    assert abs(share(kind) - detector.EFFICIENCY) < 5 * deviation
  assert not (ids == events_lib.ANTIMUON).any() and not (ids == events_lib.ELECTRON).any()  # too soft; in a jet


def test_missing_momentum_follows_the_resolution():
  """Jets that add to nothing leave the detector's noise and their own deviations, component by component."""
  balanced = [(vector(200, 0, phi), QUARK, 0) for phi in (0, np.pi / 2, np.pi, -np.pi / 2)]
  _, _, met, _ = pythia_events.measure(many(*balanced), 4, np.random.RandomState(2))
  x = met[:, 0] * np.cos(met[:, 1])
  energy, across = (detector.ENERGY_NOISE**2 / 200 + detector.ENERGY_CONSTANT**2) * 200**2, (detector.ANGLE * 200)**2
  wanted = np.sqrt(detector.MET_NOISE**2 + 2 * energy + 2 * across)
  assert abs(x.std() - wanted) < 0.1 * wanted and abs(x.mean()) < 5 * wanted / np.sqrt(N)


def test_few_or_soft_objects_are_not_selected():
  for objects in (JETS[:3], [(0.5 * p, kind, charge) for p, kind, charge in JETS]):
    *_, kept = pythia_events.measure(many(*objects), 6, np.random.RandomState(3))
    assert not kept.any()


def test_parts_have_their_shares():
  ids, momenta, met, _ = pythia_events.measure(many(*JETS), 6, np.random.RandomState(4))
  made = events_lib.assemble(ids, momenta, met)
  parts = pythia_events.split(made)
  assert [len(part.ids) for part in parts.values()] == [2400, 800, 800]
  np.testing.assert_array_equal(events_lib.join(list(parts.values())).momenta, made.momenta)


@pytest.mark.slow
def test_pythia_makes_the_same_events_of_a_seed():
  """Twelve top pairs: selected, labelled, of the seed alone, and in half of them at least a tagged jet."""
  pytest.importorskip("pythia8mc", reason="the events are Pythia's")
  first, again = (pythia_events.make_piece("tt", (1, 0), 12, 18) for _ in range(2))
  for a, b in zip(first, again):
    np.testing.assert_array_equal(a, b)
  assert (first.label == events_lib.PROCESS_NAMES.index("tt")).all()
  jets = (first.ids == events_lib.JET) | (first.ids == events_lib.B_JET)
  assert ((first.momenta[..., 1] * jets).sum(axis=1) > detector.LEAST_HT).all()
  assert ((first.ids == events_lib.B_JET).any(axis=1)).sum() >= 6  # 0.9 of top pairs have one
