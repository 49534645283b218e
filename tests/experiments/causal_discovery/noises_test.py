"""Families of noise against SciPy's quantile functions in float64, and their moments."""

import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import scipy.stats

from jaxtrain.experiments.causal_discovery import noises

QUANTILES = {  # of the probability (u + 1) / 2
    "gaussian": scipy.stats.norm.ppf,
    "laplace": lambda p: scipy.stats.laplace.ppf(p) / 2**0.5,
    "uniform": lambda p: 3**0.5 * (2 * p - 1),
    "exponential": lambda p: scipy.stats.expon.ppf(p) - 1,
    "student": lambda p: scipy.stats.t.ppf(p, 4) / 2**0.5,
    "binary": lambda p: np.where(p < 0.5, -1, 1),
    "ternary": lambda p: 1.5**0.5 * np.searchsorted([1 / 3, 2 / 3], p) - 1.5**0.5,
}
KURTOSIS = {"gaussian": 3, "laplace": 6, "uniform": 1.8, "exponential": 9, "binary": 1, "ternary": 1.5,
            "bimodal": 3 - 2 * 0.9**4}  # of the two modes at 0.9 the excess is -2 (0.9)^4
MIDDLES = (np.arange(200_000) + 0.5) / 200_000 * 2 - 1  # of equal parts of (-1, 1)
POINTS = np.linspace(-0.998, 0.998, 250)
ENDS = np.nextafter(np.float32(1), np.float32(0)) * np.array([-1.0, 1.0])
QUARTILES = np.array([-0.5, 0.0, 0.5])
NUMBERS = (MIDDLES, POINTS, ENDS, QUARTILES)


@functools.cache
def noise():
  """{name: noise of each of `NUMBERS`}, by one program."""
  u = np.float32(np.concatenate(NUMBERS))
  found = jax.jit(lambda u: {name: noises.noise_of(SimpleNamespace(name=name), u) for name in noises.NOISES})(u)
  return {name: np.split(np.asarray(x, np.float64), np.cumsum([len(part) for part in NUMBERS])[:-1])
          for name, x in found.items()}


@pytest.mark.parametrize("name", QUANTILES)
def test_noise_is_the_quantile_of_its_uniform_number(name):
  u = np.float64(np.float32(POINTS))
  np.testing.assert_allclose(noise()[name][1], QUANTILES[name]((u + 1) / 2), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", [name for name in noises.NOISES if name != "cauchy"])
def test_noises_have_mean_0_and_variance_1_and_their_kurtosis(name):
  """Sums over equal parts of the uniform distribution, so that nothing is left to chance."""
  x = noise()[name][0]
  assert abs(x.mean()) < 2e-3 and x.var() == pytest.approx(1, abs=1e-2)
  assert name == "student" or np.mean(x**4) == pytest.approx(KURTOSIS[name], rel=2e-2)


def test_noise_is_finite_at_the_ends_and_quartiles_of_cauchy_noise_are_1():
  assert all(np.isfinite(noise()[name][2]).all() for name in noises.NOISES)
  np.testing.assert_allclose(noise()["cauchy"][3], [-1, 0, 1], atol=1e-2)


def test_the_modes_of_bimodal_noise():
  """The density at +-0.9 is 1 / (2 s sqrt(2 pi)) from one mode, s^2 = 1 - 0.9^2, beside almost none from the other."""
  share = np.mean(np.abs(np.abs(noise()["bimodal"][0]) - 0.9) < 0.05)
  s = (1 - 0.9**2) ** 0.5
  assert share == pytest.approx(scipy.stats.norm.cdf(0.05 / s) - scipy.stats.norm.cdf(-0.05 / s), abs=2e-3)
