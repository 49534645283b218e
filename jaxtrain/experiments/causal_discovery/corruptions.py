"""What stands between a causal model and the table that is read: noise, rounding, hidden variables, lags.

The families of `data.corruptions`; a task has one of them. The true graph stays that of the causal model.

  none          the table is what the model made
  measurement   every value is read with Gaussian noise, whose share of the variance is `share`
  rounded       values are rounded to multiples of `step` standard deviations
  clipped       values further from the mean than `limit` standard deviations are cut there
  ordinal       only the category of a value is seen, one of `levels`, between thresholds that are drawn from a normal
                distribution of 0.8 standard deviations
  missing       a share of the cells is missing completely at random. The batch then has a mask `observed`; a missing
                value is 0, the mean of the standardised variable, for networks that do not read the mask
  hidden        `num` independent Gaussian variables that the table lacks, each a cause of a variable with probability
                `prob`: they confound
  lagged        rows are steps of a time series: a variable follows the values that its causes had `lag` rows before,
                and noise persists: it is an autoregression of coefficient `persistence`, with variance 1

Rounding, cutting, categories and missing cells happen after the whole task was generated, so a child follows the exact
values of its parents; the mechanism `discrete` makes categories that children see.

**Source:** measurement error and hidden confounders as violations of the usual assumptions: Montagna et al. 2023
(Assumption violations in causal discovery and the robustness of score matching), section 3.
**Departs:** the series is circular, so that all its rows have one distribution.
"""

import math
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import families
from jaxtrain.experiments.causal_discovery.families import Family
from jaxtrain.experiments.causal_discovery.numbers import fold

KNOWN: dict[str, dict[str, Any]] = {
    "none": {},
    "measurement": {"share": 0.2},
    "rounded": {"step": 0.5},
    "clipped": {"limit": 1.0},
    "ordinal": {"levels": 4},
    "missing": {"share": 0.2},
    "hidden": {"num": 2, "prob": 0.3},
    "lagged": {"lag": 1, "persistence": 0.8},
}
RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "measurement": {"share": (0, 0.99)}, "rounded": {"step": (1e-3, 10)}, "clipped": {"limit": (1e-3, 10)},
    "ordinal": {"levels": (2, 100)}, "missing": {"share": (0, 0.9)}, "hidden": {"num": (1, 100), "prob": (0, 1)},
    "lagged": {"lag": (1, 1000), "persistence": (0, 0.99)}, "none": {},
}
NONE = families.parse("data.corruptions", ("none",), KNOWN)
THRESHOLD_SCALE = 0.8  # of the thresholds between categories: most categories then hold rows
NEGLIGIBLE = 1e-3  # weights of earlier noise below this are left out of an autoregression


def check(family: Family, num_rows_int: int) -> None:
  """Raises UserError for parameters that make no corruption, and for lags among rows that are interventions."""
  for name, (low, high) in RANGES[family.name].items():
    if not low <= family.params[name] <= high:
      raise UserError(f"config.data.corruptions: got {name}={family.params[name]} in {family.text!r}, allowed {low:g} "
                      f"to {high:g}")
  if family.name == "lagged" and num_rows_int:
    raise UserError(f"config.data.corruptions: got {family.text!r} with config.data.num_rows_int = {num_rows_int}, "
                    "allowed with 0: rows of a time series are not independent experiments")


def has(corruptions: tuple[Family, ...], name: str) -> bool:
  """Whether a family of that name is among them."""
  return any(family.name == name for family in corruptions)


def num_hidden(corruptions: tuple[Family, ...]) -> int:
  """The largest number of hidden variables."""
  return max([family.params["num"] for family in corruptions if family.name == "hidden"], default=0)


def of_kind(corruptions: tuple[Family, ...], name: str, param: str, kinds: jax.Array) -> jax.Array:
  """Each task's parameter of a family by name, 0 where the task has another family; kinds [C] int32 -> [C]."""
  return jnp.asarray([family.params[param] if family.name == name else 0 for family in corruptions])[kinds]


def draw_hidden(corruptions: tuple[Family, ...], kinds: jax.Array, keys: jax.Array, D: int,
                n: int) -> tuple[jax.Array, jax.Array]:
  """(edges [C, H, D] float32 from hidden to observed places, values [C, H, n] of the hidden variables).

  A task of another family has no such edges.
  """
  H = num_hidden(corruptions)
  prob, num = (of_kind(corruptions, "hidden", param, kinds) for param in ("prob", "num"))
  def one(key, prob, num):
    edge_key, value_key = jax.random.split(key)
    edges = (jax.random.uniform(edge_key, (H, D)) < prob) & (jnp.arange(H) < num)[:, None]
    return edges.astype(jnp.float32), jax.random.normal(value_key, (H, n))
  return jax.vmap(one)(keys, prob, num)


def persist(persistence: float, noise: jax.Array) -> jax.Array:
  """Noise [..., n] of unit variance with e_t = sqrt(1 - r^2) sum_k r^k eps_{t-k}, around the circle; the same variance.

  The sum ends where its weights are negligible, and is scaled to variance 1 again.
  """
  if not persistence:
    return noise
  terms = min(math.ceil(math.log(NEGLIGIBLE) / math.log(persistence)), noise.shape[-1])
  scale = math.sqrt((1.0 - persistence**2) / (1.0 - persistence ** (2 * terms)))
  add = lambda k, total: total * persistence + jnp.roll(noise, terms - 1 - k, axis=-1)
  return scale * jax.lax.fori_loop(0, terms, add, jnp.zeros_like(noise))


def persisting(family: Family) -> Callable:
  """`noise [..., n] -> noise` of a family."""
  return lambda noise: persist(family.params["persistence"], noise) if family.name == "lagged" else noise


def deviations(x: jax.Array) -> jax.Array:
  """[D, 1]: standard deviation of each variable of x [D, n], 1 where it is constant."""
  deviation = jnp.std(x, 1, keepdims=True)
  return jnp.where(deviation > 0, deviation, 1.0)


def reading(family: Family) -> Callable:
  """`(key, x [D, n]) -> (x as it is read, mask of the cells that are there)`, both [D, n], of a family."""
  params = family.params

  def read(key, x):
    scale, whole = deviations(x), jnp.ones_like(x)
    if family.name == "measurement":
      noise = jax.random.normal(key, x.shape)
      return x + math.sqrt(params["share"] / (1.0 - params["share"])) * scale * noise, whole
    if family.name == "rounded":
      step = params["step"] * scale
      return step * jnp.round(x / step), whole
    if family.name == "clipped":
      mean, reach = jnp.mean(x, 1, keepdims=True), params["limit"] * scale
      return jnp.clip(x, mean - reach, mean + reach), whole
    if family.name == "ordinal":
      z = (x - jnp.mean(x, 1, keepdims=True)) / scale
      cuts = THRESHOLD_SCALE * jax.random.normal(key, (x.shape[0], params["levels"] - 1, 1))
      return jnp.sum(z[:, None, :] > cuts, 1).astype(x.dtype), whole
    if family.name == "missing":
      return x, (jax.random.uniform(key, x.shape) >= params["share"]).astype(x.dtype)
    return x, whole
  return read


def read_table(corruptions: tuple[Family, ...], kinds: jax.Array, keys: jax.Array, most: list[int],
               x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(values as they are read, mask of the cells that are there), both [C, D, n], of each task's own family."""
  return families.by_kind(kinds, [reading(family) for family in corruptions], most, keys, x)


class Corruption(NamedTuple):
  """What the corruptions of a chunk of tasks do, each task its own family's; nothing where there is `none` alone.

  Attributes:
    kinds: [C] int32, index of the family. keys: two keys for each task, of hidden variables and of the reading. None
      where there is `none` alone.
    persist: noise [C, D, n] as time series.
    lagged: values [C, D, n] as the children of the variables meet them.
    read: values [C, D, n] -> (as they are read, [C, D, n] mask of cells that are there, or None where all are).
  """
  kinds: jax.Array | None
  keys: jax.Array | None
  persist: Callable
  lagged: Callable
  read: Callable


def make(found: tuple[Family, ...], own: jax.Array, numbers: jax.Array, most: list[int]) -> Corruption:
  """The corruptions of the tasks of the numbers [C]; `own` is the key of their purpose, `most` of `capacities`."""
  same = lambda x: x
  if all(family.name == "none" for family in found):
    return Corruption(None, None, same, same, lambda x: (x, None))
  bits = jax.vmap(lambda t: jax.random.bits(fold(own, 4, t // families.PERIOD)))(numbers)
  kinds = families.kind_of(bits, numbers, found)
  keys = jnp.stack([jax.vmap(lambda t: fold(own, tag, t))(numbers) for tag in (5, 6)])
  persist, lagged = same, same
  if has(found, "lagged"):
    lags = of_kind(found, "lagged", "lag", kinds)
    persist = lambda noise: families.by_kind(kinds, [persisting(family) for family in found], most, noise)
    lagged = lambda x: jax.vmap(lambda one, lag: jnp.roll(one, lag, axis=-1))(x, lags)

  def read(x):
    x, seen = read_table(found, kinds, keys[1], most, x)
    return x, seen if has(found, "missing") else None
  return Corruption(kinds, keys, persist, lagged, read)
