"""Axes of a sweep: what `--sweep='FIELD=VALUES'` means, and the settings that several of them make together.

  optim.learning_rate=1e-3,3e-4         a list; of a tuple field: model.hidden_dims=(64,32),(128,64)
  seed=0..9   seed=0..90..10            whole numbers, both ends included, with a step
  loss.weights.kl=linspace(0,1,5)       equally spaced; geomspace(1e-4,1e-2,5): at equal ratios
  optim.learning_rate=loguniform(1e-4,1e-2,20)    20 draws; also uniform(a,b,n), randint(a,b,n)

Lists and ranges make a grid. Draws are made together, point by point (random search: Bergstra & Bengio 2012), so all
drawn fields have the same count. A draw depends on its field, its place and the sweep's draw seed alone: more draws
keep those there were.
"""

import hashlib
import itertools
import math
import re
from typing import Any, Mapping, NamedTuple

import numpy as np

from jaxtrain import config as config_lib
from jaxtrain.errors import UserError

SPACED = {"linspace": np.linspace, "geomspace": np.geomspace}
DRAWN = ("uniform", "loguniform", "randint")
GRAMMAR = ("a list (1e-3,3e-4), a range (0..9), linspace(a,b,n), geomspace(a,b,n), or draws uniform(a,b,n), "
           "loguniform(a,b,n), randint(a,b,n)")
MAX_MEMBERS = 100_000


class Axis(NamedTuple):
  """A field and the values it takes.

  Attributes:
    field: dotted key.
    values: () for a space without a count, which only an adaptive search reads.
    draw: (name, low, high) of a space that values are drawn from; None for a list.
  """
  field: str
  values: tuple
  draw: tuple[str, float, float] | None


def parse(text: str, config, seed: int = 0) -> Axis:
  """The axis of `FIELD=VALUES`.

  Args:
    text: as typed.
    config: the base config; it knows the fields and their types.
    seed: of draws.

  Raises:
    UserError: no such field, values of another type, of no form that is known, or twice the same.
  """
  key, equals, words = text.partition("=")
  key, words = key.strip().removeprefix("config."), words.strip()
  if not equals or not words:
    raise UserError(f"--sweep={text}: allowed FIELD=VALUES, with values {GRAMMAR}")
  config_lib.check_field(config, key)
  name, old = f"--sweep={key}", config_lib.lookup(config, key)
  call = re.fullmatch(r"(\w+)\((.*)\)", words)
  if call and call.group(1) in (*SPACED, *DRAWN):
    values, draw = call_values(call.group(1), call.group(2), key, isinstance(old, int), seed, f"{name}={words}")
  else:
    values, draw = listed_values(words, old, name), None
  return check_values(config, Axis(key, tuple(values), draw))


def check_values(config, axis: Axis) -> Axis:
  """The axis with values of the field's type. Raises UserError for one that is not, or that is there twice."""
  copy, typed = config.copy_and_resolve_references(), []
  for value in axis.values:
    with copy.unlocked():
      config_lib.assign(copy, axis.field, value)
    typed.append(config_lib.lookup(copy, axis.field))
  seen: set[str] = set()
  for value in map(repr, typed):
    if value in seen:
      raise UserError(f"--sweep={axis.field}: {value} is there twice")
    seen.add(value)
  return axis._replace(values=tuple(typed))


def listed_values(words: str, old: Any, name: str) -> list:
  """Values of a list or a range of whole numbers."""
  span = re.fullmatch(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?", words)
  if span:
    first, last, step = int(span.group(1)), int(span.group(2)), int(span.group(3) or 1)
    values = range(first, last + 1, step) if step > 0 else ()
    if not 0 < len(values) <= MAX_MEMBERS:
      raise UserError(f"{name}: got {words!r}, allowed FIRST..LAST or FIRST..LAST..STEP that holds a number, and no "
                      f"more than {MAX_MEMBERS:,}")
    return [config_lib.parse_like(old, str(value), name) for value in values]
  parts = [part.strip() for part in re.split(r",(?![^(]*\))", words)]
  if not all(parts):
    raise UserError(f"{name}: got {words!r}, which has an empty value; allowed {GRAMMAR}")
  return [config_lib.parse_like(old, part, name) for part in parts]


def call_values(kind: str, inside: str, key: str, whole: bool, seed: int, text: str) -> tuple[list, tuple | None]:
  """Values, and the space they were drawn from, of `kind(low, high, count)`; a space may come without a count."""
  try:
    low, high, *count = [float(part) for part in inside.split(",")]
    num = int(count[0]) if count else 0
    fits = len(count) <= 1 and low <= high and all(map(math.isfinite, (low, high))) and num >= 0
    fits = fits and (num > 0 and num == count[0] if count else kind in DRAWN)
  except ValueError:
    fits = False
  if not fits or num > MAX_MEMBERS:
    raise UserError(f"{text}: allowed {kind}(low, high, count), two numbers in order and a count")
  if kind in ("geomspace", "loguniform") and low <= 0:
    raise UserError(f"{text}: allowed low above 0")
  if kind in SPACED:
    values = SPACED[kind](low, high, num).tolist()
    if whole and any(abs(value - round(value)) > 1e-9 * abs(value) for value in values):
      raise UserError(f"{text}: not all of its values are whole numbers, which the field needs")
    return ([round(value) for value in values] if whole else values), None
  if (kind == "randint") != whole:
    raise UserError(f"{text}: allowed {'randint' if whole else 'uniform or loguniform'} for this field")
  if whole and not low.is_integer() & high.is_integer():
    raise UserError(f"{text}: allowed whole numbers as low and high")
  return draw_values(kind, low, high, num, f"{seed}/{key}"), (kind, low, high)


def draw_values(kind: str, low: float, high: float, num: int, name: str) -> list:
  """`num` draws that depend on their name and place alone; of `randint` as many different ones as there are."""
  random = np.random.Generator(np.random.Philox(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")))
  if kind == "randint":
    if num > high - low + 1:
      raise UserError(f"--sweep={name.partition('/')[2]}: {num} different whole numbers from {low:g} to {high:g}")
    drawn = {}
    while len(drawn) < num:
      drawn[int(random.integers(int(low), int(high) + 1))] = None
    return list(drawn)
  uniform = random.random(num)
  if kind == "uniform":
    return (low + (high - low) * uniform).tolist()
  return np.exp(math.log(low) + (math.log(high) - math.log(low)) * uniform).tolist()


def named(sweep: Any, config, seed: int, name: str) -> tuple[list[Axis], list[dict]]:
  """(axes, settings) of what a config file's `sweep(name)` returns.

  Args:
    sweep: {field: values}, where values is a tuple, list, range, or words as typed behind `--sweep=FIELD=`; or a list
      of dicts {field: value}, each a setting of its own.
    config, seed: as of `parse`.
    name: of the sweep, for messages.

  Raises:
    UserError: it is neither, or a field or value does not fit.
  """
  if isinstance(sweep, Mapping):
    for key, values in sweep.items():
      if not isinstance(values, (str, tuple, list, range)) or not len(values):
        raise UserError(f"--name={name}: {key} has {values!r}, allowed a tuple, list or range of values, or words")
    return [parse(f"{key}={values}", config, seed) if isinstance(values, str)
            else check_values(config, Axis(key, tuple(values), None))
            for key, values in sweep.items()], []
  if not isinstance(sweep, (list, tuple)) or not sweep or not all(isinstance(setting, Mapping) for setting in sweep):
    raise UserError(f"--name={name}: sweep({name!r}) of the config file gave {type(sweep).__name__}, allowed a dict of "
                    "field: values or a list of dicts of field: value")
  for setting in sweep:
    for key, value in setting.items():
      check_values(config, Axis(key, (value,), None))
  return [], [dict(setting) for setting in sweep]


def expand(axes: list[Axis], settings: list[dict]) -> list[dict[str, Any]]:
  """Settings {field: value} of the members: the grid of all axes, draws together, for each of the settings given.

  The last axis moves fastest.

  Raises:
    UserError: a field in two axes, counts of draws that differ, a space without a count, too many members.
  """
  keys = [axis.field for axis in axes] + sorted({key for setting in settings for key in setting})
  twice = [key for i, key in enumerate(keys) if key in keys[:i]]
  if twice:
    raise UserError(f"--sweep: {twice[0]} has two axes")
  endless = [axis for axis in axes if not axis.values]
  if endless:
    raise UserError(f"--sweep={endless[0].field}: {endless[0].draw[0]} without a count, which only --trials reads")
  drawn, listed = [a for a in axes if a.draw], [a for a in axes if not a.draw]
  if len({len(axis.values) for axis in drawn}) > 1:
    counts = ", ".join(f"{axis.field} {len(axis.values)}" for axis in drawn)
    raise UserError(f"--sweep: drawn fields are drawn together and need the same count; got {counts}")
  together = [dict(zip([axis.field for axis in drawn], point)) for point in zip(*(axis.values for axis in drawn))]
  size = max(len(together), 1) * max(len(settings), 1) * math.prod(len(axis.values) for axis in listed)
  if size > MAX_MEMBERS:
    raise UserError(f"--sweep: {size:,} members, allowed up to {MAX_MEMBERS:,}")
  grid = [[{axis.field: value} for value in axis.values] for axis in listed]
  return [{key: value for part in parts for key, value in part.items()}
          for parts in itertools.product(settings or [{}], *grid, together or [{}])]
