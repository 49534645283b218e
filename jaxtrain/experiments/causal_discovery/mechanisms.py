"""Structural mechanisms: how a node's values follow from its parents and its noise, as pure functions.

A mechanism is `(numbers, x [D, n], parents [D], noise [n], node) -> [n]`, for one node of one task: x holds the values
of all nodes generated so far, parents is 1 for a parent, noise has unit scale, and `Node` says what all share.

Three kinds. The plain names are **repaired**: what a mechanism makes of the parents is standardised, and the node is
sqrt(1 - h) signal + sqrt(h) noise with an explicit noise share h of the variance, drawn per node (otherwise
signals vanish or drown the noise); a root is its noise. `legacy_*` are the formulas of the original release, not
standardised, with what is wrong with them. `bcnp_*` and `avici_*` are those of the two papers' own code.

**Source:** internal standardisation: Ormaniec et al. 2025 (Standardizing structural causal
models); post-nonlinear model: Zhang & Hyvarinen 2009.
**Departs:** a repaired `mlp` or `gp` takes its noise beside the parents with noise_input=1 (then there is no share).
The cube of a repaired `pnl` is squashed by asinh; repaired `periodic` has a lower frequency than the original's 4,
which 256 rows cannot show; repaired `gp_exact` adds jitter in proportion to its variance, which float32 needs.
"""

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from jaxtrain.config import limits
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import functions
from jaxtrain.experiments.causal_discovery.families import Family
from jaxtrain.experiments.causal_discovery.numbers import Numbers

GP = {"rff_dim": 256, "num_kernels": 1, "length_low": 0.5, "length_high": 2.0, "variance_low": 1.0,
      "variance_high": 1.0}
KNOWN: dict[str, dict[str, Any]] = {
    "linear": {},
    "mlp": {"hidden_dim": 32, "depth": 2, "noise_input": 0},
    "gp": GP | {"noise_input": 0, "shared_length": 0},
    "gp_exact": {"noise_input": 0, "jitter": 1e-3},
    "pnl": {"nonlinearity": "tanh"},
    "square": {},
    "product": {},
    "threshold": {},
    "periodic": {"frequency": 2.0},
    "logistic": {},
    "discrete": {"levels": 3},
    "legacy_linear": {"weight_scale": 1.0, "noise_concentration": 2.0, "noise_rate": 2.0},
    "legacy_mlp": {"hidden_dim": 32, "depth": 1},
    "legacy_gp": GP | {"shared_length": 1},
    "legacy_gp_exact": {},
    "legacy_pnl": {"nonlinearity": "tanh"},
    "legacy_square": {"weight_scale": 1.0, "noise_scale": 0.1},
    "legacy_periodic": {"weight_scale": 1.0, "noise_scale": 0.1},
    "legacy_logistic": {"weight_scale": 1.0},
    "bcnp_linear": {"weight_scale": 10.0, "noise_concentration": 2.5, "noise_scale": 2.5},
    "bcnp_mlp": {"hidden_dim": 32, "depth": 2},
    "bcnp_gp": {"noise_rate": 10.0},
    "avici_linear": {"weight_low": 1.0, "weight_high": 3.0},
    "avici_rff": {"rff_dim": 100, "shared_length": 1, "length_low": 7.0, "length_high": 10.0, "scale_low": 10.0,
                  "scale_high": 20.0},
}
NONLINEARITIES = ("cube", "sigmoid", "tanh")
LEAST = {"noise_input": 0, "shared_length": 0, "jitter": 0, "noise_scale": 0, "depth": 0, "levels": 2}
MOST = {"depth": 64, "levels": 100, "noise_concentration": 1000.0}  # each of these is traced once more


class Node(NamedTuple):
  """What a mechanism is told of its node.

  Attributes:
    observed: [n] float32, 1 for rows without any intervention: statistics are taken over those.
    is_root: [] bool.
    share: [] float32, share of the variance that is noise.
  """
  observed: jax.Array
  is_root: jax.Array
  share: jax.Array


def check(family: Family) -> None:
  """Raises UserError for parameters that make no mechanism."""
  for name, value in family.params.items():
    low = LEAST[name] if name in LEAST else 1e-9
    wrong = f"{' | '.join(NONLINEARITIES)}" if name == "nonlinearity" and value not in NONLINEARITIES else ""
    most = MOST[name] if name in MOST else limits.MOST_WIDTH if isinstance(value, int) else 1e6
    wrong = wrong or f"{low:g} to {most:g}" * (name != "nonlinearity" and not low <= value <= most)
    other = name.replace("_low", "_high")
    if name == "noise_concentration" and value % 0.5:
      wrong = "a multiple of 0.5"
    if name.endswith("_low") and value > family.params[other]:
      wrong = f"at most {other}={family.params[other]}"
    if wrong:
      raise UserError(f"config.data.mechanisms: got {name}={value} in {family.text!r}, allowed {wrong}")


def blend(node: Node, signal: jax.Array, noise: jax.Array) -> jax.Array:
  """The repaired frame: standardised signal and noise by their shares of the variance; a root is its noise."""
  mixed = jnp.sqrt(1.0 - node.share) * functions.standardise(signal, node.observed) + jnp.sqrt(node.share) * noise
  return jnp.where(node.is_root, noise, mixed)

# ---- repaired


def repaired(function: Callable) -> Callable:
  """A mechanism of the repaired frame from `(numbers, x, parents) -> [n]`."""
  return lambda numbers, x, parents, noise, node: blend(node, function(numbers, x, parents), noise)


def repaired_with(function: Callable, params: dict) -> Callable:
  """The same from `(numbers, x, mask) -> [n]`, whose noise is one more input where `noise_input` says so."""
  if not params["noise_input"]:
    return repaired(function)
  def mechanism(numbers, x, parents, noise, node):
    return functions.standardise(function(numbers, *functions.with_input(x, parents, noise)), node.observed)
  return mechanism


def gp(params: dict) -> Callable:
  """A Gaussian process of squared-exponential kernels, by random features."""
  amplitude = lambda numbers: jnp.sqrt(
      numbers.uniform((), params["variance_low"], params["variance_high"]))
  return repaired_with(
      lambda numbers, x, mask: functions.draw_features(numbers, x, mask, params, amplitude, True), params)


def gp_exact(params: dict) -> Callable:
  """A Gaussian process of rational-quadratic and exponential kernels, drawn exactly."""
  def function(numbers, x, mask):
    covariance = functions.rational_and_exponential(numbers, x, mask)
    return functions.draw_exact(numbers, covariance, params["jitter"] * covariance[0, 0])
  return repaired_with(function, params)


def pnl(params: dict) -> Callable:
  """x = g(linear signal and noise)."""
  def mechanism(numbers, x, parents, noise, node):
    inner = blend(node, functions.draw_linear(numbers, x, parents), noise)
    outer = bend(inner, params["nonlinearity"])
    outer = jnp.arcsinh(outer) if params["nonlinearity"] == "cube" else outer
    return functions.standardise(outer, node.observed)
  return mechanism


def bend(x: jax.Array, name: str) -> jax.Array:
  """The outer function of a post-nonlinear model."""
  return {"cube": lambda v: v ** 3, "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}[name](x)


def of_linear(outer: Callable) -> Callable:
  """A repaired mechanism that bends the standardised linear combination of the parents."""
  def mechanism(numbers, x, parents, noise, node):
    inner = functions.standardise(functions.draw_linear(numbers, x, parents), node.observed)
    return blend(node, outer(inner), noise)
  return mechanism


def product(numbers: Numbers, x: jax.Array, parents: jax.Array) -> jax.Array:
  """The product of two linear combinations of the parents, by which they interact; of one parent it is the square."""
  return functions.draw_linear(numbers, x, parents) * functions.draw_linear(numbers, x, parents)


def threshold(numbers: Numbers, x: jax.Array, parents: jax.Array) -> jax.Array:
  """1 where a standardised linear combination of the parents is above a level drawn from N(0, 0.5^2), else 0."""
  inner = functions.standardise(functions.draw_linear(numbers, x, parents), jnp.ones((x.shape[1],)))
  return (inner > 0.5 * numbers.normal()).astype(x.dtype)


def discrete(params: dict) -> Callable:
  """One of `levels` categories, equally frequent under a normal distribution, of the repaired linear mechanism."""
  shares = jnp.arange(1, params["levels"]) / params["levels"]
  def mechanism(numbers, x, parents, noise, node):
    inner = blend(node, functions.draw_linear(numbers, x, parents), noise)
    category = jnp.sum(inner[None] > jax.scipy.special.ndtri(shares)[:, None], 0)
    return functions.standardise(category.astype(x.dtype), node.observed)
  return mechanism


def logistic(x: jax.Array) -> jax.Array:
  """The logistic map at full chaos, 4 s (1 - s), of a sigmoid."""
  s = jax.nn.sigmoid(x)
  return 4.0 * s * (1.0 - s)


# ---- of the original release


def legacy_linear(params: dict) -> Callable:
  """w . x + sigma eps with sigma ~ Gamma, once per node."""
  def mechanism(numbers, x, parents, noise, node):
    sigma = numbers.gamma(params["noise_concentration"]) / params["noise_rate"]
    return params["weight_scale"] * functions.draw_linear(numbers, x, parents) + sigma * noise
  return mechanism


def legacy_mlp(params: dict) -> Callable:
  """A network of the parents and the noise."""
  return lambda numbers, x, parents, noise, node: functions.draw_mlp(
      numbers, *functions.with_input(x, parents, noise), params)


def legacy_gp(params: dict) -> Callable:
  """Random features without weights, the variance used as an amplitude; one length for all inputs of a node.

  The release after it has rff_dim=512 num_kernels=4 length_low=0.1 length_high=10 variance_low=0.1 variance_high=10
  shared_length=0.
  """
  amplitude = lambda numbers: numbers.uniform((), params["variance_low"], params["variance_high"])
  return lambda numbers, x, parents, noise, node: functions.draw_features(
      numbers, *functions.with_input(x, parents, noise), params, amplitude, False)


def legacy_gp_exact(params: dict) -> Callable:
  """A multiple of the noise, whatever the parents: the original reads only the diagonal of its covariance (W4).

  Its scale is not published; here the variances of four kernels and the noise add up.
  """
  def mechanism(numbers, x, parents, noise, node):
    return jnp.sqrt(1.0 + jnp.sum(numbers.uniform((4,), 0.1, 10.0))) * noise
  return mechanism


def legacy_pnl(params: dict) -> Callable:
  """g of the original linear mechanism, overflow and all (W3)."""
  inner = legacy_linear(KNOWN["legacy_linear"])
  return lambda *args: bend(inner(*args), params["nonlinearity"])


def legacy_of_linear(params: dict, outer: Callable) -> Callable:
  """outer(w . x) + noise_scale eps, of a mechanism with those parameters."""
  return lambda numbers, x, parents, noise, node: (
      outer(params["weight_scale"] * functions.draw_linear(numbers, x, parents)) + params["noise_scale"] * noise)


# ---- of the papers


def scored(x: jax.Array, noise: jax.Array, node: Node) -> tuple[jax.Array, jax.Array]:
  """Parents and noise as z-scores, which BCNP's mechanisms take."""
  return functions.standardise(x, node.observed), functions.standardise(noise, node.observed)


def bcnp_linear(params: dict) -> Callable:
  """w . z + sigma eps, w ~ N(0, 10^2), sigma ~ Gamma(2.5, scale 2.5) once per node; a root is its noise."""
  def mechanism(numbers, x, parents, noise, node):
    x, _ = scored(x, noise, node)
    sigma = params["noise_scale"] * numbers.gamma(params["noise_concentration"])
    signal = params["weight_scale"] * functions.draw_linear(numbers, x, parents)
    return jnp.where(node.is_root, noise, signal + sigma * noise)
  return mechanism


def bcnp_mlp(params: dict) -> Callable:
  """A network of z-scored parents and noise."""
  def mechanism(numbers, x, parents, noise, node):
    x, noise = scored(x, noise, node)
    return functions.draw_mlp(numbers, *functions.with_input(x, parents, noise), params)
  return mechanism


def bcnp_gp(params: dict) -> Callable:
  """GPCDE: N(eps, K + 1e-4 I) with two exponential kernels of the z-scored parents and noise, and Gamma(1) noise."""
  def mechanism(numbers, x, parents, noise, node):
    x, z = scored(x, noise, node)
    covariance = functions.two_exponentials(numbers, *functions.with_input(x, parents, z))
    extra = numbers.normal(noise.shape) * numbers.exponential(noise.shape)
    return noise + functions.draw_exact(numbers, covariance, 1e-4) + extra / params["noise_rate"]
  return mechanism


def avici(function: Callable) -> Callable:
  """signal + bias U(-3, 3) + noise of scale U(0.2, 2), not standardised."""
  def mechanism(numbers, x, parents, noise, node):
    bias, scale = numbers.uniform((), -3.0, 3.0), numbers.uniform((), 0.2, 2.0)
    return jnp.where(node.is_root, 0.0, function(numbers, x, parents)) + bias + scale * noise
  return mechanism


def avici_linear(params: dict) -> Callable:
  """Weights of either sign, U(1, 3) in size."""
  def function(numbers, x, parents):
    size = numbers.uniform(parents.shape, params["weight_low"], params["weight_high"])
    return functions.dot(size * numbers.sign(parents.shape) * parents, x)
  return avici(function)


def avici_rff(params: dict) -> Callable:
  """A smooth Gaussian process of large amplitude."""
  amplitude = lambda numbers: numbers.uniform((), params["scale_low"], params["scale_high"])
  features = params | {"num_kernels": 1}
  return avici(lambda numbers, x, parents: functions.draw_features(numbers, x, parents, features, amplitude, True))


MAKE: dict[str, Callable[[dict], Callable]] = {
    "linear": lambda p: repaired(functions.draw_linear),
    "mlp": lambda p: repaired_with(lambda numbers, x, mask: functions.draw_mlp(numbers, x, mask, p), p),
    "gp": gp,
    "gp_exact": gp_exact,
    "pnl": pnl,
    "square": lambda p: of_linear(jnp.square),
    "product": lambda p: repaired(product),
    "threshold": lambda p: repaired(threshold),
    "periodic": lambda p: of_linear(lambda v: jnp.sin(p["frequency"] * jnp.pi * v)),
    "logistic": lambda p: of_linear(logistic),
    "discrete": discrete,
    "legacy_linear": legacy_linear,
    "legacy_mlp": legacy_mlp,
    "legacy_gp": legacy_gp,
    "legacy_gp_exact": legacy_gp_exact,
    "legacy_pnl": legacy_pnl,
    "legacy_square": lambda p: legacy_of_linear(p, jnp.square),
    "legacy_periodic": lambda p: legacy_of_linear(p, lambda v: jnp.sin(4.0 * jnp.pi * v)),
    "legacy_logistic": lambda p: legacy_of_linear(p | {"noise_scale": 0.0}, logistic),
    "bcnp_linear": bcnp_linear,
    "bcnp_mlp": bcnp_mlp,
    "bcnp_gp": bcnp_gp,
    "avici_linear": avici_linear,
    "avici_rff": avici_rff,
}


def make(family: Family) -> Callable:
  """The mechanism of a family."""
  return MAKE[family.name](family.params)
