"""Fields by dotted key: reading, setting, checking that they exist; values from text."""

import ast
import fnmatch
import re
import warnings
from typing import Any, Mapping, Sequence

from ml_collections import ConfigDict

from jaxtrain import jsonable, spelling
from jaxtrain.config import defaults, modules
from jaxtrain.errors import UserError

# Float fields of all experiments whose values may be tracers in `make`, beside the learning rates: a sweep over them is
# one program. A module adds its own as TRACEABLE.
TRACEABLE = ("loss.weights.*",)
MOST_SHOWN = 120  # characters of a value in a message
OTHER_WORDS = {  # that people type for the end of a key
    "lr": "learning_rate", "epochs": "num_epochs", "epoch": "num_epochs", "steps": "num_steps", "batch": "batch_size",
    "bs": "batch_size", "data": "data.path", "dataset": "data.path", "file": "data.path", "optimizer": "optim.name",
    "optimiser": "optim.name", "device": "parallel.platform", "dropout": "dropout_rate", "threads": "cpu_threads"}


def check_field(config: ConfigDict, key: str) -> None:
  """Raises UserError, with a suggestion, where a dotted key names no field."""
  parts, section = key.split("."), config
  for depth, part in enumerate(parts):
    if not isinstance(section, ConfigDict) or part not in section:
      known = list(section.keys()) if isinstance(section, ConfigDict) else []
      hint = meant(config, key) or suggestion(part, known, ".".join(parts[:depth]))
      raise UserError(f"config.{key}: no such field{hint}")
    section = section[part]
  if isinstance(section, ConfigDict):
    raise UserError(f"config.{key}: a section, not a field{meant(config, key)}; it has "
                    f"{', '.join(sorted(section.keys()))}")


def meant(config: ConfigDict, key: str) -> str:
  """Words that suggest the field of a config that a key stands for; empty where there is none."""
  near = nearest(key, [field for field, _ in jsonable.flatten(config)])
  return f"; did you mean config.{near}?" if near else ""


def nearest(name: str, keys: Sequence[str]) -> str:
  """The field that a name stands for: a dotted key, or the end of one, in another spelling or by another word.

  Of several fields with the same end it is the one that is nested least, in the first of the common sections. Empty
  where there is none.
  """
  path = re.sub(r"[\[\]\"'.]+", ".", name).strip(".").replace("-", "_").lower()
  section, _, last = path.rpartition(".")
  last = OTHER_WORDS[last] if last in OTHER_WORDS else last
  order = {known: place for place, known in enumerate(defaults.DEFAULTS)}
  def rank(key: str) -> tuple[int, int]:
    top = key.partition(".")[0]
    return key.count("."), order[top] if top in order else len(order)
  for wanted in filter(None, (path, f"{section}.{last}".strip("."), last)):
    found = [key for key in keys if f".{key.lower()}".endswith(f".{wanted}")]
    if found:
      return min(found, key=rank)
  return ""


def lookup(config: ConfigDict, key: str) -> Any:
  """Value at a dotted key."""
  value = config
  for part in key.split("."):
    value = value[part]
  return value


def place(config: ConfigDict, key: str) -> tuple[ConfigDict, str]:
  """(the section that holds the field at a dotted key, its name there)."""
  parent, _, name = key.rpartition(".")
  return lookup(config, parent) if parent else config, name


def assign(config: ConfigDict, key: str, value: Any) -> None:
  """Sets the field at a dotted key that exists, keeping its type (an int becomes a float, a list a tuple).

  Raises:
    UserError: no such field (with a suggestion), or a value of another type.
  """
  check_field(config, key)
  section, name = place(config, key)
  if isinstance(section[name], tuple) and isinstance(value, list):
    value = tuple(value)
  try:
    section[name] = value
  except (TypeError, OverflowError):
    wanted = type(section[name]).__name__
    raise UserError(f"config.{key}: got {shown(value)}, allowed a value of type {wanted}") from None


def shown(value: Any) -> str:
  """A value as a message shows it: in one line, and not all of a long one."""
  try:
    words = " ".join(repr(value).split())
  except Exception:  # a stranger's object, or an integer of too many digits to print
    return f"a value of type {type(value).__name__}"
  return words if len(words) <= MOST_SHOWN else f"{words[:MOST_SHOWN]}..."


def optimisers(config: ConfigDict, prefix: str = "") -> list[str]:
  """Dotted keys of the sections of optimisers: those named `optim`, or with a name that begins with `optim_`."""
  found = []
  for name, value in config.items():
    if isinstance(value, ConfigDict):
      is_optimiser = name == "optim" or name.startswith("optim_")
      found += [prefix + name] if is_optimiser else optimisers(value, f"{prefix}{name}.")
  return found


def traceable(config: ConfigDict) -> tuple[str, ...]:
  """Patterns of the dotted keys whose fields may hold tracers: those of all experiments and the module's own."""
  own = modules.declared(modules.load_experiment(config.experiment), "TRACEABLE")
  return (*(f"{section}.learning_rate" for section in optimisers(config)), *TRACEABLE, *own)


def is_traceable(config: ConfigDict, key: str) -> bool:
  """Whether the field at a dotted key may hold a tracer."""
  return any(fnmatch.fnmatchcase(key, pattern) for pattern in traceable(config))


def substitute(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
  """A copy with tracers in traceable fields: what a sweep in one program hands to `make`."""
  allowed = traceable(config)
  config = ConfigDict(config.to_dict())
  with config.ignore_type():
    for key, value in values.items():
      if not any(fnmatch.fnmatchcase(key, pattern) for pattern in allowed):
        raise UserError(f"config.{key} may not be traced; allowed {', '.join(allowed)}")
      section, name = place(config, key)
      section[name] = value
  return config


def suggestion(name: str, known: list[str], prefix: str = "") -> str:
  """Words that suggest the nearest known name, or list what there is."""
  dot = f"{prefix}." if prefix else ""
  if near := spelling.near(name, known):
    return f"; did you mean config.{dot}{near}?"
  return f"; {'config.' + prefix if prefix else 'config'} has {', '.join(sorted(known))}" if known else ""


def parse_like(old: Any, text: str, name: str) -> Any:
  """Text as a value of the type that the field has; `name` says where the text came from."""
  try:
    if isinstance(old, bool):
      return {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}[text.lower()]
    if isinstance(old, (int, float)):
      return type(old)(text)
    if isinstance(old, tuple):
      return parse_tuple(text)
  except (KeyError, ValueError):
    raise UserError(f"{name}: got {shown(text)}, allowed a value of type {type(old).__name__}") from None
  return text


def parse_tuple(text: str) -> tuple:
  """A tuple as flags take it: "('a','b')", "64,32", "64," or "a,b"."""
  text = text.strip().removesuffix(",")
  try:
    with warnings.catch_warnings():  # of Python, which takes names for slips in a program
      warnings.simplefilter("ignore")
      value = ast.literal_eval(text if text.strip().startswith("(") else f"({text},)" if text.strip() else "()")
  except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
    return tuple(name.strip() for name in text.split(","))
  return value if isinstance(value, tuple) else (value,)


def with_values(config, values: dict[str, Any]):
  """The config with other values at dotted keys that exist; itself where there are none."""
  if not values:
    return config
  config = config.copy_and_resolve_references()
  with config.unlocked():
    for key, value in values.items():
      assign(config, key, value)
  return config
