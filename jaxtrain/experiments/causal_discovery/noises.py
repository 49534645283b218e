"""Families of noise: what a node is made of beside its parents, and all that a root is made of.

Each maps uniform numbers in (-1, 1) to noise of mean 0 and variance 1; Cauchy noise, which has neither, to scale 1 with
its tails cut. Beside the usual ones there are those of other people's tables: skewed, heavy-tailed, with two modes, of
few values.

**Source:** quantile function of Student's t with 4 degrees of freedom: Shaw 2006 (Sampling Student's T), section 4.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxtrain.experiments.causal_discovery.families import Family

CAUCHY_TAIL = 1e-3  # quantile at which Cauchy noise is cut: float32 squares of rarer values drown all else
MODE = 0.9  # distance of the two modes of `bimodal` from 0, in standard deviations
NOISES: dict[str, dict[str, Any]] = {name: {"heteroscedastic": 0} for name in
                                     ("gaussian", "laplace", "uniform", "cauchy", "exponential", "student", "bimodal",
                                      "binary", "ternary")}


def normal_of(u: jax.Array) -> jax.Array:
  """Standard normal numbers of uniform numbers in (-1, 1)."""
  return 2**0.5 * jax.lax.erf_inv(u)


def student(u: jax.Array) -> jax.Array:
  """Student's t with 4 degrees of freedom over its standard deviation sqrt(2); its kurtosis is infinite."""
  root = jnp.sqrt(jnp.maximum(1.0 - jnp.square(u), 1e-12))  # sqrt(4 p (1 - p)) with p = (u + 1) / 2
  return jnp.sign(u) * jnp.sqrt(2.0 * jnp.maximum(jnp.cos(jnp.arccos(root) / 3.0) / root - 1.0, 0.0))


def bimodal(u: jax.Array) -> jax.Array:
  """Two normal modes at +-`MODE`, as likely."""
  inner = jnp.clip(2.0 * jnp.abs(u) - 1.0, -1.0 + 1e-6, 1.0 - 1e-6)
  return jnp.sign(u) * MODE + (1.0 - MODE**2) ** 0.5 * normal_of(inner)


SHAPES = {
    "gaussian": normal_of,
    "laplace": lambda u: -jnp.sign(u) * jnp.log1p(-jnp.abs(u)) / 2**0.5,
    "uniform": lambda u: 3**0.5 * u,
    "cauchy": lambda u: jnp.tan(jnp.pi * (0.5 - CAUCHY_TAIL) * u),
    "exponential": lambda u: math.log(2.0) - jnp.log1p(-u) - 1.0,  # -log((1 - u) / 2) less its mean
    "student": student,
    "bimodal": bimodal,
    "binary": lambda u: jnp.where(u < 0, -1.0, 1.0),
    "ternary": lambda u: 1.5**0.5 * jnp.round(1.5 * u),
}


def noise_of(family: Family, u: jax.Array) -> jax.Array:
  """Noise of a family, of uniform numbers u in (-1, 1)."""
  return SHAPES[family.name](u)
