"""Four-vectors and two-body decays in flight, in float64.

A four-vector [..., 4] is (E, px, py, pz) in GeV; the polar form [..., 4] is (E, pT, eta, phi), in GeV and radians.

**Source:** Particle Data Group, Review of Particle Physics, chapter Kinematics: Lorentz transformations, and the
momentum of the daughters of a two-body decay at rest.
"""

import numpy as np

LEAST_PT = 1e-12  # GeV, by which a pseudorapidity stays finite along the beam


def mass(p: np.ndarray) -> np.ndarray:
  """Invariant mass [...] of four-vectors; 0 where rounding makes its square negative."""
  return np.sqrt(np.maximum(p[..., 0]**2 - (p[..., 1:]**2).sum(axis=-1), 0.0))


def transverse(p: np.ndarray) -> np.ndarray:
  """Transverse momentum [...] of four-vectors."""
  return np.hypot(p[..., 1], p[..., 2])


def from_polar(pt: np.ndarray, eta: np.ndarray, phi: np.ndarray, m: np.ndarray | float) -> np.ndarray:
  """Four-vectors of transverse momentum, pseudorapidity, azimuth and mass, all [...]."""
  pz = pt * np.sinh(eta)
  e = np.sqrt(pt**2 + pz**2 + np.square(m))
  return np.stack([e, pt * np.cos(phi), pt * np.sin(phi), pz], axis=-1)


def to_polar(p: np.ndarray) -> np.ndarray:
  """(E, pT, eta, phi) of four-vectors."""
  pt = transverse(p)
  eta = np.arcsinh(p[..., 3] / np.maximum(pt, LEAST_PT))
  return np.stack([p[..., 0], pt, eta, np.arctan2(p[..., 2], p[..., 1])], axis=-1)


def boost(p: np.ndarray, frame: np.ndarray) -> np.ndarray:
  """Four-vectors that are p in the rest frame of `frame`, a four-vector with a mass, as they are where that is seen.

  E' = (P0 E + P p) / M and p' = p + P (E + E') / (M + P0) for a frame (P0, P) of mass M.
  """
  along, m = frame[..., 1:], mass(frame)
  e = (frame[..., 0] * p[..., 0] + (along * p[..., 1:]).sum(axis=-1)) / m
  moved = p[..., 1:] + along * ((p[..., 0] + e) / (m + frame[..., 0]))[..., None]
  return np.concatenate([e[..., None], moved], axis=-1)


def breakup_momentum(m: np.ndarray, m1: np.ndarray | float, m2: np.ndarray | float) -> np.ndarray:
  """Momentum of both daughters of masses m1 and m2 where a particle of mass m rests and decays; 0 below threshold."""
  return np.sqrt(np.maximum((m**2 - (m1 + m2)**2) * (m**2 - (m1 - m2)**2), 0.0)) / (2 * m)


def decay(parent: np.ndarray, m1: np.ndarray | float, m2: np.ndarray | float,
          random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
  """Two daughters of masses m1 and m2 of each parent [..., 4], in any direction alike in its rest frame."""
  m = mass(parent)
  p = breakup_momentum(m, m1, m2)
  cos, phi = random.uniform(-1, 1, m.shape), random.uniform(-np.pi, np.pi, m.shape)
  sin = np.sqrt(1 - cos**2)
  direction = np.stack([sin * np.cos(phi), sin * np.sin(phi), cos], axis=-1) * p[..., None]
  first = np.concatenate([np.sqrt(p**2 + np.square(m1))[..., None], direction], axis=-1)
  second = np.concatenate([np.sqrt(p**2 + np.square(m2))[..., None], -direction], axis=-1)
  return boost(first, parent), boost(second, parent)


def distance(eta_1: np.ndarray, phi_1: np.ndarray, eta_2: np.ndarray, phi_2: np.ndarray) -> np.ndarray:
  """Distance of directions in the plane of pseudorapidity and azimuth, azimuths of -pi to pi."""
  turn = np.abs(phi_1 - phi_2)
  return np.hypot(eta_1 - eta_2, np.minimum(turn, 2 * np.pi - turn))
