"""Families named in a config by a line of words, and which of them a task gets.

  ("er edge_prob=0.2 weight=0.5", "sf m=2 weight=0.5")

The family of task t is a function of (key, t) alone, by systematic sampling: of `PERIOD` consecutive tasks each family
gets its share, rounded down or up, and each task by itself has exactly the weights as its probabilities. The number of
tasks of a family in a batch is therefore bounded beforehand, and only what a batch needs is evaluated: `by_kind`
gathers the tasks of a family into so many places, runs its function on those, and puts the results back.

**Source:** systematic sampling: Madow & Madow 1944.
"""

import itertools
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from jaxtrain.config import limits
from jaxtrain.errors import UserError

PERIOD = 8  # consecutive tasks that share out the families among them
CIRCLE = 1 << 24  # points of the circle that the families divide, in whole numbers: counts are then exact


class Family(NamedTuple):
  """A family: name, its parameters (defaults filled in), its share of the tasks, the words it was given by."""
  name: str
  params: dict[str, float | int | str]
  weight: float
  text: str


def parse(field: str, texts: tuple[str, ...], known: dict[str, dict[str, Any]]) -> tuple[Family, ...]:
  """Families from lines such as "er edge_prob=0.2 weight=0.5"; the weights are normalised.

  Args:
    field: dotted key of the config, for messages.
    texts: name, then PARAMETER=VALUE for what differs from the default; `weight` (1) is the share.
    known: name -> {parameter: default}; a value has the default's type.

  Raises:
    UserError: an unknown name or parameter, a value of another type, no family at all.
  """
  found = []
  for text in texts:
    name, *settings = text.split() or [""]
    if name not in known:
      raise UserError(f"config.{field}: got {name!r}, allowed {', '.join(known)}")
    params, weight = dict(known[name]), 1.0
    for setting in settings:
      key, equals, value = setting.partition("=")
      if key != "weight" and key not in params or not equals:
        raise UserError(f"config.{field}: got {setting!r} in {text!r}, allowed {name} with NAME=VALUE of "
                        f"{', '.join([*params, 'weight'])}")
      wanted = float if key == "weight" else type(params[key])
      try:
        number = wanted(value)
      except ValueError:
        raise UserError(f"config.{field}: got {setting!r} in {text!r}, allowed a value of type {wanted.__name__}"
                        ) from None
      if allowed := limits.plain(number):
        raise UserError(f"config.{field}: got {setting!r} in {text!r}, allowed {allowed}")
      if key == "weight":
        weight = number
      else:
        params[key] = number
    if not 0 <= weight <= 1e6:
      raise UserError(f"config.{field}: got weight={weight} in {text!r}, allowed 0 to 1e6")
    found.append(Family(name, params, weight, text))
  total = sum(family.weight for family in found)
  if not total:
    raise UserError(f"config.{field}: got {tuple(texts)!r}, allowed at least one family with a weight above 0")
  return tuple(family._replace(weight=family.weight / total) for family in found if family.weight)


def bounds(families: tuple[Family, ...]) -> list[int]:
  """Points of the circle at which the families end, in order."""
  ends = list(itertools.accumulate(family.weight for family in families))
  return [round(CIRCLE * end / ends[-1]) for end in ends]


def kind_of(bits: jax.Array, task: jax.Array, families: tuple[Family, ...]) -> jax.Array:
  """[...] int32, index of the family of a task; `bits` [...] uint32 are random and those of its group of `PERIOD`."""
  point = ((bits >> 8) + task % PERIOD * (CIRCLE // PERIOD)) % CIRCLE
  kind = jnp.zeros(point.shape, jnp.int32)
  for end in bounds(families)[:-1]:
    kind += point >= end
  return kind


def capacities(families: tuple[Family, ...], num_tasks: int, in_order: bool) -> list[int]:
  """The most tasks of each family among `num_tasks`; in order: consecutive ones that begin at a multiple of that."""
  if not in_order or len(families) == 1:
    return [num_tasks] * len(families)
  groups = num_tasks // PERIOD if num_tasks % PERIOD == 0 else 1 if PERIOD % num_tasks == 0 else num_tasks // PERIOD + 2
  lengths = [end - start for start, end in itertools.pairwise([0, *bounds(families)])]
  return [min(num_tasks, groups * -(-length * PERIOD // CIRCLE)) for length in lengths]


def by_kind(kinds: jax.Array, functions: list[Callable], most: list[int], *args: Any) -> Any:
  """Results of `functions[kinds[c]](*args[c])` for each of C tasks.

  Args:
    kinds: [C] int32.
    functions: one a family; their results have the same shapes.
    most: the most tasks of each family, see `capacities`.
    args: trees with leading axis C.
  """
  C = kinds.shape[0]
  if len(functions) == 1:
    return jax.vmap(functions[0])(*args)
  out = None
  for kind, (function, size) in enumerate(zip(functions, most)):
    index = jnp.nonzero(kinds == kind, size=size, fill_value=C)[0]
    picked = jax.tree.map(lambda x: x.at[index].get(mode="clip"), args)
    results = jax.vmap(function)(*picked)
    if out is None:
      out = jax.tree.map(lambda r: jnp.zeros((C, *r.shape[1:]), r.dtype), results)
    out = jax.tree.map(lambda o, r: o.at[index].set(r, mode="drop"), out, results)
  return out
