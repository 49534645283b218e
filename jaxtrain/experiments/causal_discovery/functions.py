"""Random functions of a node's parents: linear, a small network, Gaussian processes by features or exact.

All take the numbers they are made of (`numbers.py`), x [D, n], the values of all nodes, and a mask [D] of those that
are parents, and give [n].

**Source:** random Fourier features: Rahimi & Recht 2007, eq. 1; kernels: Rasmussen & Williams 2006, 4.2.
"""

from typing import Callable

import jax
import jax.numpy as jnp

from jaxtrain.experiments.causal_discovery.numbers import Numbers

HIGHEST = jax.lax.Precision.HIGHEST
TINY = 1e-5  # a standard deviation that counts as none: float32 gives a constant 1 one of 3e-6


def standardise(x: jax.Array, rows: jax.Array) -> jax.Array:
  """x [..., n] with mean 0 and deviation 1 over the rows of weight 1; 0 where it does not vary."""
  count = jnp.maximum(jnp.sum(rows), 1.0)
  over = lambda v: (jnp.sum(v * rows, -1) / count)[..., None]
  rows = jnp.broadcast_to(rows, x.shape)
  centred = x - over(x)
  deviation = jnp.sqrt(over(jnp.square(centred)))
  return jnp.where(deviation > TINY, centred / jnp.maximum(deviation, TINY), 0.0)


def dot(weights: jax.Array, x: jax.Array) -> jax.Array:
  """weights [..., D] times x [D, n], in full float32 on every device."""
  return jnp.matmul(weights, x, precision=HIGHEST)


def draw_linear(numbers: Numbers, x: jax.Array, parents: jax.Array) -> jax.Array:
  """[n]: the parents weighted by normal numbers."""
  return dot(numbers.normal(parents.shape) * parents, x)


def with_input(x: jax.Array, parents: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
  """x and its mask with the noise as one more input."""
  return jnp.concatenate([x, noise[None]]), jnp.concatenate([parents, jnp.ones((1,))])


def draw_mlp(numbers: Numbers, x: jax.Array, mask: jax.Array, params: dict) -> jax.Array:
  """[n]: a random network of `depth` hidden layers, LeakyReLU(0.01), every weight and bias U(+-1/sqrt(fan_in))."""
  width, fan_in, h = params["hidden_dim"], jnp.maximum(jnp.sum(mask), 1.0), x
  for layer in range(params["depth"] + 1):
    rows = width if layer < params["depth"] else 1
    bound = 1.0 / jnp.sqrt(fan_in)
    weights = numbers.uniform((rows, h.shape[0]), -bound, bound)
    h = dot(weights * mask[None] if layer == 0 else weights, h) + numbers.uniform((rows, 1), -bound, bound)
    if layer < params["depth"]:
      h = jnp.where(h > 0, h, 0.01 * h)
    fan_in = jnp.float32(width)
  return h[0]


def cos_turns(x: jax.Array) -> jax.Array:
  """cos(2 pi x) to 1e-6, as 1 - 2 sin(pi r)^2 with the Taylor series of sine to the 11th order, r within half a turn.

  XLA's cosine, which must reduce any angle, takes eight times as long on a CPU, and is most of a random-feature node.
  """
  y = jnp.pi * (x - jnp.round(x))
  z = jnp.square(y)
  series = 1.0 - z / 110.0
  for factor in (72.0, 42.0, 20.0, 6.0):
    series = 1.0 - z / factor * series
  return 1.0 - 2.0 * jnp.square(y * series)


def draw_features(numbers: Numbers, x: jax.Array, mask: jax.Array, params: dict, amplitude: Callable,
                  weighted: bool) -> jax.Array:
  """[n]: a sum of kernels of random Fourier features, sqrt(2/M) sum_k v_k sum_m a_m cos(omega_km . (x / l_k) + b_km).

  Args:
    amplitude: numbers -> v_k.
    weighted: a_m ~ N(0, 1), which makes it a draw from a Gaussian process of variance v_k^2; else 1, as the original.
  """
  M, out = params["rff_dim"], 0.0
  for _ in range(params["num_kernels"]):
    shape = (1,) if params["shared_length"] else mask.shape
    lengths, scale = numbers.uniform(shape, params["length_low"], params["length_high"]), amplitude(numbers)
    omega = numbers.normal((M, mask.shape[0])) * (mask / (2 * jnp.pi * lengths))[None]
    each = numbers.normal((M,)) if weighted else jnp.ones((M,))
    out += scale * dot(each, cos_turns(dot(omega, x) + numbers.uniform((M, 1))))
  return jnp.sqrt(2.0 / M) * out


def distances(x: jax.Array, mask: jax.Array, lengths: jax.Array) -> jax.Array:
  """[n, n]: distances between the columns of x [D, n], each input in units of its length, of those in the mask.

  From differences: squares of a product would lose the digits of near points, on which exponents below 1 dwell.
  """
  scaled = x * (mask / lengths)[:, None]
  add = lambda i, total: total + jnp.square(scaled[i][:, None] - scaled[i][None, :])
  return jnp.sqrt(jax.lax.fori_loop(0, x.shape[0], add, jnp.zeros((x.shape[1], x.shape[1]))))


def draw_exact(numbers: Numbers, covariance: jax.Array, jitter: float) -> jax.Array:
  """[n] from N(0, covariance + jitter I)."""
  n = covariance.shape[0]
  return dot(jnp.linalg.cholesky(covariance + jitter * jnp.eye(n)), numbers.normal((n,)))


def rational_and_exponential(numbers: Numbers, x: jax.Array, mask: jax.Array) -> jax.Array:
  """[n, n]: two pairs of a rational-quadratic and an exponential-gamma kernel, lengths and variances U(0.1, 10)."""
  total = 0.0
  for _ in range(2):
    r = [distances(x, mask, numbers.uniform(mask.shape, 0.1, 10.0)) for _ in range(2)]
    alpha, gamma = numbers.uniform((), 0.1, 100.0), numbers.uniform((), 1e-5, 0.99999)
    v = numbers.uniform((2,), 0.1, 10.0)
    total += v[0] * (1.0 + jnp.square(r[0]) / (2.0 * alpha)) ** -alpha + v[1] * jnp.exp(-r[1] ** gamma)
  return total


def two_exponentials(numbers: Numbers, x: jax.Array, mask: jax.Array) -> jax.Array:
  """[n, n]: two exponential-gamma kernels, lengths lognormal(-1, 1) within 0.1 to 5, exponents U(0.1, 1)."""
  total = 0.0
  for _ in range(2):
    lengths = jnp.clip(jnp.exp(numbers.normal(mask.shape) - 1.0), 0.1, 5.0)
    total += jnp.exp(-distances(x, mask, lengths) ** numbers.uniform((), 0.1, 1.0))
  return total
