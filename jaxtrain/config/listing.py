"""Every field of a config with its value, meaning, allowed values and origin, for `--mode=fields`."""

import textwrap
from typing import Any, Iterable, Mapping, NamedTuple

from ml_collections import ConfigDict

from jaxtrain import jsonable
from jaxtrain.config import defaults, fields, limits as limits_lib, meanings, modules
from jaxtrain.errors import UserError

FIRST = ("experiment", "seed", "stages", "data", "model", "loss")  # sections that are listed before the others
MOST_VALUE = 22  # characters of a value that stands in the column of values
LEAST_TEXT = 40  # columns for meanings, on a terminal however narrow
SET_BY = "set by"
EVIDENT = ("true or false", "text", "")  # allowed values that the value itself shows


class Described(NamedTuple):
  """A field.

  Attributes:
    key: dotted.
    value: as the config has it.
    meaning: empty where nothing is said of it.
    allowed: which values it may have, in words.
    origin: default (of all experiments), flag, environment, or where else the config comes from.
  """
  key: str
  value: Any
  meaning: str
  allowed: str
  origin: str


def describe(config: ConfigDict, origins: Mapping[str, str], own: Mapping[str, str], home: str) -> list[Described]:
  """All fields of a config, grouped by section; within one in the order in which they are defined.

  Args:
    config: whose experiment is imported for the limits that it declares.
    origins: dotted key -> flag or environment.
    own: meanings of the config file, as `meanings.of_file` gives them.
    home: the origin of a value that is no default and has no entry in `origins`.

  Raises:
    UserError: the experiment is not there, or may not be imported.
  """
  limits = limits_lib.LIMITS | modules.declared(modules.load_experiment(config.experiment), "LIMITS")
  flat = dict(jsonable.flatten(config))
  said = meanings.explain(flat, own)
  tables = {"data": defaults.TABLES} if meanings.of_tables(flat) else {}
  usual = dict(jsonable.flatten(defaults.DEFAULTS | tables))

  def one(key: str) -> Described:
    name = meanings.shared_key(key)
    limit = limits_lib.find(limits, key) or limits_lib.find(limits, name)
    is_default = name in usual and usual[name] == flat[key]
    return Described(key, flat[key], said[key] if key in said else "", limit.words if limit else "",
                     origins[key] if key in origins else "default" if is_default else home)

  sections = list(dict.fromkeys([*FIRST, *defaults.DEFAULTS, *(key.partition(".")[0] for key in flat)]))
  defined = {key: place for place, key in enumerate(dict.fromkeys([*meanings.of_all(), *own]))}
  def place(key: str) -> tuple[int, int]:
    name = meanings.shared_key(key)
    return sections.index(key.partition(".")[0]), defined[name] if name in defined else len(defined)
  return [one(key) for key in sorted(flat, key=place)]


def select(described: Iterable[Described], prefix: str) -> list[Described]:
  """The fields whose keys begin with a prefix, which may have `config.` before it. Raises UserError where none does."""
  described = list(described)
  prefix = prefix.lstrip("-").removeprefix("config.")
  found = [field for field in described if field.key.startswith(prefix)]
  if not found:
    near = fields.nearest(prefix, [field.key for field in described])
    sections = dict.fromkeys(field.key.partition(".")[0] for field in described)
    hint = f"did you mean --fields={near}?" if near else f"allowed the beginning of one, such as {', '.join(sections)}"
    raise UserError(f"--fields: got {prefix!r}, with which no field begins; {hint}")
  return found


def as_json(described: Iterable[Described]) -> dict[str, dict]:
  """The fields by key, for `--json`."""
  return {field.key: {name: jsonable.clean(value) for name, value in field._asdict().items() if name != "key"}
          for field in described}


def as_lines(described: list[Described], width: int) -> list[str]:
  """The fields as aligned lines for a terminal, below a line that names the columns; a blank line between sections."""
  keys = max(len("field"), *(len(field.key) for field in described))
  values = min(max(len("value"), *(len(repr(field.value)) for field in described)), MOST_VALUE)
  origins = max(len(text) for text in (SET_BY, *(field.origin for field in described)))
  indent = keys + values + origins + 6
  width = max(width, indent + LEAST_TEXT)
  lines, section = [f"{'field':<{keys}}  {'value':<{values}}  {SET_BY:<{origins}}  meaning [allowed values]"], ""
  for field in described:
    if field.key.partition(".")[0] != section and "." in field.key or len(lines) == 1:
      lines.append("")
    section = field.key.partition(".")[0]
    repeated = field.allowed in EVIDENT or field.allowed in field.meaning
    text = f"{field.meaning}{'' if repeated else f' [{field.allowed}]'}".strip()
    head = f"{field.key:<{keys}}  {repr(field.value):<{values}}  {field.origin:<{origins}}  "
    wrapped = textwrap.wrap(text, width - indent, break_long_words=False, break_on_hyphens=False) or [""]
    if len(head) > indent:  # a long value has a line of its own
      lines.append(head.rstrip())
      lines += [f"{'':<{indent}}{words}".rstrip() for words in wrapped]
    else:
      lines += [f"{head if k == 0 else '':<{indent}}{words}".rstrip() for k, words in enumerate(wrapped)]
  return lines
