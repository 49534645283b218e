"""Four-vectors and decays against formulas of special relativity."""

import numpy as np
from hypothesis import given, settings, strategies as st

from jaxtrain.experiments.autoencoder import kinematics

MOMENTA = st.floats(-500, 500)
MASSES = st.floats(1, 200)


def on_shell(m, *momentum):
  """A four-vector of a mass."""
  return np.array([np.sqrt(m**2 + sum(x**2 for x in momentum)), *momentum])


def lorentz_matrix(frame):
  """The 4 x 4 matrix of the boost from the rest frame of a four-vector."""
  m = np.sqrt(frame[0]**2 - frame[1:] @ frame[1:])
  gamma, beta = frame[0] / m, frame[1:] / frame[0]
  across = np.eye(3) + (gamma - 1) * np.outer(beta, beta) / max(beta @ beta, 1e-300)
  return np.block([[np.array([[gamma]]), gamma * beta[None]], [gamma * beta[:, None], across]])


@settings(max_examples=50, deadline=None)
@given(MASSES, MOMENTA, MOMENTA, MOMENTA, MASSES, MOMENTA, MOMENTA, MOMENTA)
def test_a_boost_is_the_lorentz_matrix(m, x, y, z, frame_m, a, b, c):
  p, frame = on_shell(m, x, y, z), on_shell(frame_m, a, b, c)
  want = lorentz_matrix(frame) @ p
  np.testing.assert_allclose(kinematics.boost(p, frame), want, rtol=1e-9, atol=1e-9 * want[0])


def test_a_particle_at_rest_is_boosted_to_the_frame():
  frame = on_shell(172.8, 30, -40, 500)
  np.testing.assert_allclose(kinematics.boost(np.array([172.8, 0, 0, 0]), frame), frame, rtol=1e-12)


def test_momentum_of_known_decays():
  """t -> b W with a massless b: (M^2 - m^2) / 2 M; W to massless ones: half the mass; below threshold 0."""
  assert kinematics.breakup_momentum(np.array(172.8), 80.4, 0.0) == (172.8**2 - 80.4**2) / (2 * 172.8)
  assert kinematics.breakup_momentum(np.array(80.4), 0.0, 0.0) == 40.2
  assert kinematics.breakup_momentum(np.array(10.0), 6.0, 5.0) == 0
  m, m1, m2 = 172.8, 80.4, 4.8
  e1 = (m**2 + m1**2 - m2**2) / (2 * m)  # energy of the first daughter at rest
  np.testing.assert_allclose(kinematics.breakup_momentum(np.array(m), m1, m2), np.sqrt(e1**2 - m1**2), rtol=1e-13)


def test_a_decay_keeps_momentum_and_masses():
  random = np.random.RandomState(0)
  parent = np.stack([on_shell(172.8, *row) for row in random.normal(0, 300, (1000, 3))])
  first, second = kinematics.decay(parent, 80.4, 4.8, random)
  np.testing.assert_allclose(first + second, parent, atol=1e-9)
  np.testing.assert_allclose(kinematics.mass(first), 80.4, rtol=1e-9)
  np.testing.assert_allclose(kinematics.mass(second), 4.8, rtol=1e-6)


def test_a_decay_at_rest_has_no_direction():
  """Means of the components of 20,000 unit vectors are within 5 / sqrt(3 N), of their squares within 5 sqrt(4 / 45 N)
  of a third: a false alarm in fewer than one of 100,000 seeds.
  """
  N = 20_000
  parent = np.broadcast_to(np.array([80.4, 0, 0, 0]), (N, 4))
  first, _ = kinematics.decay(parent, 0.0, 0.0, np.random.RandomState(1))
  unit = first[:, 1:] / 40.2
  np.testing.assert_allclose((unit**2).sum(axis=1), 1, rtol=1e-12)
  np.testing.assert_allclose(unit.mean(axis=0), 0, atol=5 / (3 * N)**0.5)
  np.testing.assert_allclose((unit**2).mean(axis=0), 1 / 3, atol=5 * (4 / 45 / N)**0.5)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.1, 1e4), st.floats(-5, 5), st.floats(-3.14, 3.14), st.floats(0, 200))
def test_polar_form_and_back(pt, eta, phi, m):
  """pz = pT sinh eta and E^2 = p^2 + m^2; the polar form gives back what it was made of."""
  p = kinematics.from_polar(*(np.array(v) for v in (pt, eta, phi)), m)
  np.testing.assert_allclose(p[3], pt * (np.exp(eta) - np.exp(-eta)) / 2, rtol=1e-12, atol=1e-12)
  e, *polar = kinematics.to_polar(p)
  np.testing.assert_allclose(polar, [pt, eta, phi], rtol=1e-9, atol=1e-9)
  np.testing.assert_allclose(e**2, m**2 + (pt * np.cosh(eta))**2, rtol=1e-12)


def test_distance_goes_the_short_way_around():
  np.testing.assert_allclose(kinematics.distance(0.0, 3.0, 0.0, -3.0), 2 * np.pi - 6)
  np.testing.assert_allclose(kinematics.distance(1.0, 0.1, -2.0, 0.1 + 4 - 2 * np.pi), np.hypot(3, 2 * np.pi - 4))


def test_along_the_beam_a_direction_is_finite():
  assert np.isfinite(kinematics.to_polar(np.array([5.0, 0, 0, 5.0]))).all()
  assert (kinematics.to_polar(np.zeros(4)) == 0).all()
