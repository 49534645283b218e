"""What a detector makes of particles: resolutions, missing momentum, jets and acceptance."""

import numpy as np

from jaxtrain.experiments.autoencoder import detector, events, generator, kinematics


def test_resolutions_are_those_that_are_stated():
  """Deviations of pT: of jets of 100 GeV sqrt(.8^2 / 100 + .05^2), of electrons 1.5 %, within 5 of their standard
  errors, 1 / sqrt(2 N); neutrinos are not seen.
  """
  N = 20_000
  p = np.broadcast_to(kinematics.from_polar(np.array(100.0), np.array(0.0), np.array(3.14), 0.0), (N, 3, 4))
  kind = np.broadcast_to([detector.QUARK, detector.ELECTRON, detector.NEUTRINO], (N, 3))
  seen = detector.smear(detector.Particles(p, kind, np.zeros((N, 3), int)), np.random.RandomState(0))
  spread = kinematics.transverse(seen).std(axis=0) / 100
  np.testing.assert_allclose(spread[:2], [np.sqrt(0.64 / 100 + 0.0025), 0.015], rtol=5 / (2 * N)**0.5)
  assert not seen[:, 2].any()


def test_neutrinos_are_the_missing_momentum():
  """Without noise of its own: with one hard neutrino, it is what is missing, within the resolution of what is seen."""
  jets = kinematics.from_polar(np.full(4, 150.0), np.zeros(4), np.array([2.0, 2.6, -2.6, -2.0]), 0.0)
  neutrino = np.append(np.hypot(*jets[:, 1:3].sum(axis=0)), -jets[:, 1:].sum(axis=0))
  p = np.broadcast_to(np.concatenate([jets, neutrino[None]]), (4000, 5, 4))
  kind = np.broadcast_to([detector.QUARK] * 4 + [detector.NEUTRINO], (4000, 5))
  _, _, met, kept = detector.observe(detector.Particles(p, kind, np.zeros((4000, 5), int)), 18,
                                     np.random.RandomState(0))
  assert kept.mean() > 0.99 and abs(np.median(met[:, 0]) / neutrino[0] - 1) < 0.05
  assert abs(np.median(met[:, 1])) < 0.02  # the jets go to the other side


def test_close_jets_join():
  """Two of three jets are close: their four-vectors add, and the tag of either is that of both."""
  pt, eta, phi = np.array([[[90.0, 60.0, 40.0]], [[0.0, 0.2, 2.0]], [[3.1, -3.1, 0.0]]])
  p = kinematics.from_polar(pt, eta, phi, 0.0)
  joined, is_jet, tagged = detector.join_jets(p, np.ones((1, 3), bool), np.array([[False, True, False]]))
  np.testing.assert_allclose(joined[0, 0], p[0, :2].sum(axis=0))
  assert is_jet.tolist() == [[True, False, True]] and tagged.tolist() == [[True, True, False]]
  assert not joined[0, 1].any()
  np.testing.assert_allclose(joined[0, 2], p[0, 2])


def test_objects_are_in_acceptance_and_in_order():
  found = generator.generate(2000, 0)
  e, pt, eta, phi = np.moveaxis(found.momenta.astype(np.float64), -1, 0)
  mask, jets = found.mask, np.isin(found.ids, (1, 2))
  light = mask & ~jets & (found.ids != events.PHOTON)
  assert (np.diff(pt, axis=1) <= 0).all() and (np.diff(mask.astype(int), axis=1) <= 0).all()
  assert (pt[jets] > 20).all() and (np.abs(eta[jets]) < 2.8).all()
  assert (pt[light] > 15).all() and (np.abs(eta[light]) < 2.7).all() and (np.abs(phi) <= np.pi + 1e-6).all()
  assert ((pt * jets).sum(axis=1) > 399.99).all() and (mask.sum(axis=1) >= 4).all()
  assert (e[mask] >= pt[mask] * np.cosh(eta[mask]) * (1 - 1e-5)).all()  # no mass is imaginary
  apart = kinematics.distance(eta[:, :, None], phi[:, :, None], eta[:, None], phi[:, None])
  two = light[:, :, None] & jets[:, None]
  assert (apart[two] >= 0.4 - 1e-5).all()
