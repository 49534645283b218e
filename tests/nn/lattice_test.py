"""Lattices against a search of all points near, and their cells against Monte Carlo.

The generator is seeded, and a bound of five standard errors fails by chance once in two million draws.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxtrain.nn import lattice

N = 200_000
NAMES = ("z", "d4", "e8")
QUANTISE = {name: jax.jit(lambda x, name=name: lattice.closest(name, x)) for name in NAMES}


def searched(name, x):
  """The closest point to each x [N, n] among all that can be, in float64.

  The covering radius of D4 and E8 in their integer forms is 1, so that a coordinate of the closest point is one of the
  two numbers of its coset around that of x.
  """
  n, spacing = x.shape[1], 2.0**-0.25 if name == "d4" else 1.0
  corners = np.array(list(itertools.product((0, 1), repeat=n)))
  found, least = np.zeros(x.shape), np.full(len(x), np.inf)
  for offset in (0.0, 0.5) if name == "e8" else (0.0,):
    base = np.floor(x / spacing - offset)
    for corner in corners:
      whole = base + corner
      point = (whole + offset) * spacing
      distance = np.where(whole.sum(axis=1) % 2 == 0, ((x - point)**2).sum(axis=1), np.inf)
      found = np.where((distance < least)[:, None], point, found)
      least = np.minimum(distance, least)
  return found


def uniform(name, num=N, seed=0):
  """[num, n] in 0..1."""
  return np.random.RandomState(seed).uniform(size=(num, lattice.DIMENSIONS[name])).astype(np.float32)


@pytest.fixture(scope="module")
def noises():
  """Noise [N, n] of each lattice."""
  return {name: np.asarray(jax.jit(lambda u, name=name: lattice.cell_noise(name, u))(uniform(name)), np.float64)
          for name in NAMES}


@pytest.mark.parametrize("name", ["d4", "e8"])
@pytest.mark.parametrize("deviation", [0.3, 20.0])
def test_closest_points_are_those_of_a_search(name, deviation):
  x = np.random.RandomState(1).normal(0, deviation, size=(3000, lattice.DIMENSIONS[name])).astype(np.float32)
  want = searched(name, x.astype(np.float64))
  got = np.asarray(QUANTISE[name](x), np.float64)
  distance = lambda point: np.linalg.norm(x - point, axis=1)
  np.testing.assert_allclose(distance(got), distance(want), atol=1e-5)
  apart = np.abs(got - want).max(axis=1) > 1e-4
  assert apart.mean() < 0.001  # two points that are as near up to float32


def test_whole_numbers_are_the_lattice_of_one_dimension():
  x = np.array([[-1.6, 0.4, 2.5001, 7.0]], np.float32)
  np.testing.assert_array_equal(lattice.closest("z", x), [[-2.0, 0.0, 3.0, 7.0]])


@pytest.mark.parametrize("name", NAMES)
def test_a_point_is_its_own_closest_point(name):
  points = np.asarray(QUANTISE[name](20 * uniform(name, 5000, 2)))
  np.testing.assert_allclose(QUANTISE[name](points), points, atol=1e-5)


def test_ties_go_to_a_point_of_the_lattice():
  """Halves, where rounding and parity both have a choice."""
  x = np.array(list(itertools.product((0.0, 0.5, 1.0), repeat=4)), np.float32)
  whole = np.asarray(lattice.closest_even(x), np.float64)
  assert (whole == np.rint(whole)).all() and (whole.sum(axis=1) % 2 == 0).all()
  want = searched("d4", x * 2.0**-0.25) / 2.0**-0.25
  np.testing.assert_allclose(((x - whole)**2).sum(axis=1), ((x - want)**2).sum(axis=1), atol=1e-6)


@pytest.mark.parametrize("name,in_cube", [("z", 2), ("d4", 8), ("e8", 256)])
def test_a_unit_of_volume_has_one_point(name, in_cube):
  """A lattice repeats over a cube with sides of 2 spacings, whose volume is then its number of points."""
  side = 2 * lattice.SPACING[name]
  points = np.asarray(QUANTISE[name](side * uniform(name, 50_000, 3)), np.float64)
  halves = np.rint(2 * points / lattice.SPACING[name]).astype(int) % 4
  assert len(np.unique(halves, axis=0)) == in_cube
  assert side**lattice.DIMENSIONS[name] == pytest.approx(in_cube)


@pytest.mark.parametrize("name", NAMES)
def test_second_moments_are_those_of_the_table(name, noises):
  """Also of Conway & Sloane's closed forms: 13 / (120 sqrt 2) of D4 and 929 / 12960 of E8."""
  exact = {"z": 1 / 12, "d4": 13 / (120 * 2**0.5), "e8": 929 / 12960}[name]
  assert lattice.SECOND_MOMENT[name] == pytest.approx(exact, rel=2e-5)
  point = 8 * lattice.SPACING[name] * uniform(name, seed=4) - 3
  square = np.square(point.astype(np.float64) - np.asarray(QUANTISE[name](point), np.float64)).mean(axis=1)
  for rows in (square, np.square(noises[name]).mean(axis=1)):
    assert abs(rows.mean() - exact) < 5 * rows.std() / len(rows)**0.5


@pytest.mark.parametrize("name", NAMES)
def test_noise_is_uniform_over_the_cell_around_0(name, noises):
  """No noise is nearer to another point, none of its coordinates is biased or tied to another, and its length has the
  law of points of a box that are nearest to 0 (Kolmogorov-Smirnov: a false alarm in a million)."""
  noise = noises[name]
  assert (np.abs(QUANTISE[name](jnp.asarray(0.9999 * noise, jnp.float32))) < 1e-5).all()
  n = noise.shape[1]
  assert np.abs(noise.mean(axis=0)).max() < 6 * noise.std() / N**0.5
  covariance = noise.T @ noise / N
  off = covariance[~np.eye(n, dtype=bool)]
  assert np.abs(off).max(initial=0) < 6 * lattice.SECOND_MOMENT[name] / N**0.5
  box = 2 * uniform(name, 400_000, 5) - 1  # E8's cell reaches to 1, D4's to 0.85
  inside = box[(np.abs(QUANTISE[name](box)) < 1e-5).all(axis=1)]
  assert len(inside) > 1000
  lengths = [np.linalg.norm(rows, axis=1) for rows in (noise[:50_000], inside.astype(np.float64))]
  assert stats.ks_2samp(*lengths).pvalue > 1e-6


def test_coordinates_that_do_not_fill_a_point_are_refused():
  with pytest.raises(AssertionError):
    lattice.closest("e8", jnp.zeros((2, 4)))
