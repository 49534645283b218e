"""Configs as JSON: stored, read back, compared, digested."""

import contextlib
import json
from typing import Any, Iterator, Mapping

from ml_collections import ConfigDict

from jaxtrain import jsonable, spelling
from jaxtrain.config import checks, defaults, modules
from jaxtrain.errors import Told, UserError
from jaxtrain.jsonable import digest_json

# type of a default -> types of JSON that a field of it may have
KINDS = {bool: bool, int: int, float: (int, float), str: str, tuple: list, dict: dict}
FIRST_OF_TABLES = {"source", "path", "features", "label", "group", "split"}  # fields of tables of all versions
RETIRED = ("debug",)  # fields of earlier versions that nothing read
RETIRED_DATA = {"source": "simulated"}  # and what a field of `data` said there, where an experiment has it no longer


def to_record(config: ConfigDict) -> dict:
  """The config as JSON-able nested dicts (tuples become lists)."""
  return as_json(config.to_dict())


def as_json(value: Any) -> Any:
  """A value as JSON gives it back: tuples become lists."""
  return json.loads(json.dumps(value))


def from_record(record: Mapping[str, Any]) -> ConfigDict:
  """The config of a stored record; lists become tuples again."""
  def tuples(value):
    if isinstance(value, Mapping):
      return {key: tuples(entry) for key, entry in value.items()}
    return tuple(tuples(entry) for entry in value) if isinstance(value, list) else value
  return ConfigDict(tuples(upgraded(record))).lock()


def upgraded(record: Mapping[str, Any], config: ConfigDict | None = None) -> dict:
  """A stored record with the fields that have come since it was written, at their defaults, and without those that
  nothing reads any more; compared with a config, also without the fields of tables that it lacks, at their defaults.
  """
  def filled(old: Mapping, default: Mapping) -> dict:
    missing = {key: as_json(value) for key, value in default.items() if key not in old}
    nested = {key: filled(value, default[key]) for key, value in old.items()
              if isinstance(value, Mapping) and isinstance(default.get(key), Mapping)}
    return dict(old) | nested | missing
  def read(old: Mapping, new: Mapping, default: Mapping) -> dict:
    kept = {}
    for key, value in old.items():
      if key in new and isinstance(value, Mapping) and isinstance(new[key], Mapping):
        kept[key] = read(value, new[key], default[key] if key in default else {})
      elif key in new or key not in default or value != as_json(default[key]):
        kept[key] = value
    return kept

  record = {key: value for key, value in filled(record, defaults.DEFAULTS).items() if key not in RETIRED}
  if config is not None:
    record = since(record, config.experiment)
  if "data" in record and isinstance(record["data"], Mapping) and FIRST_OF_TABLES <= record["data"].keys():
    record["data"] = filled(record["data"], defaults.TABLES)
  if config is None or "data" not in record:
    return record
  new = config.to_dict()
  new = new["data"] if "data" in new else {}
  old = {key: value for key, value in record["data"].items() if key in new or (key, value) not in RETIRED_DATA.items()}
  return record | {"data": read(old, new, defaults.TABLES)}


def since(record: Mapping[str, Any], experiment: str) -> dict:
  """A stored record with the fields of its experiment that have come since it was written.

  Raises:
    UserError: it lacks the section of such a field.
  """
  record = copied(record)
  for field, value in modules.declared(modules.load_experiment(experiment), "SINCE").items():
    *sections, name = field.split(".")
    place = record
    for section in sections:
      if section not in place or not isinstance(place[section], dict):
        raise UserError(f"config.json: config.{'.'.join(sections)} is not there, which the experiment {experiment} has")
      place = place[section]
    place.setdefault(name, as_json(value))
  return record


def copied(record: Mapping[str, Any]) -> dict:
  """A record whose sections may be changed."""
  return {key: copied(value) if isinstance(value, Mapping) else value for key, value in record.items()}


def from_workdir(record: Mapping[str, Any] | None, workdir: str) -> ConfigDict:
  """The config of a run's config.json, for commands that are given the workdir alone.

  It is data: whoever does something with it does so within `modules.strangers`.

  Args:
    record: what the file holds; None where there is none.
    workdir: its folder, for messages.

  Raises:
    UserError: no file, one whose fields are not of the kinds that configs have, or an experiment that may not be
      imported.
  """
  if record is None:
    raise UserError(f"--workdir: {spelling.no_run(workdir)}")
  record = {key: value for key, value in record.items() if key != "origins"}
  check_kinds(record, defaults.DEFAULTS, workdir)
  modules.admit("experiment", upgraded(record)["experiment"])
  try:
    return from_record(since(record, upgraded(record)["experiment"]))
  except (KeyError, TypeError, ValueError) as error:  # names that a ConfigDict cannot hold
    raise UserError(f"--workdir: {workdir!r}: config.json is no config: {error}") from None


def check_kinds(record: Mapping, kinds: Mapping, workdir: str, prefix: str = "") -> None:
  """Raises UserError for a stored field that is not of the kind of its default; fields without one are left alone."""
  for key, default in kinds.items():
    if key not in record:
      continue
    value, kind = record[key], next(kind for kind in KINDS if isinstance(default, kind))
    if not isinstance(value, KINDS[kind]) or isinstance(value, bool) != (kind is bool):
      raise UserError(f"--workdir: {workdir!r}: config.json has {str(value)[:80]} for {prefix}{key}, allowed "
                      f"{'a section' if kind is dict else f'a value of type {kind.__name__}'}")
    if kind is dict:
      check_kinds(value, default, workdir, f"{prefix}{key}.")


@contextlib.contextmanager
def must_fit(workdir: str) -> Iterator[None]:
  """Raises UserError for an error that nobody foresaw: what is put together meanwhile is what a workdir's files say."""
  try:
    yield
  except (Told, OSError, MemoryError):
    raise
  except Exception as error:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    raise UserError(f"--workdir: the files of {workdir!r} do not fit together: {reason[:200]}") from error


def digest(config: ConfigDict, but: tuple[str, ...] = checks.MAY_CHANGE) -> str:
  """SHA-256 of all fields that make a run what it is (not those of `but`), hexadecimal."""
  return digest_json({k: v for k, v in jsonable.flatten(to_record(config)) if not k.startswith(but)})


def differences(old: Mapping, new: Mapping, but: tuple[str, ...] = checks.MAY_CHANGE) -> list[str]:
  """One line per field in which two records differ, but for those of `but`."""
  old, new = dict(jsonable.flatten(old)), dict(jsonable.flatten(new))
  keys = [k for k in sorted(old.keys() | new.keys()) if not k.startswith(but)]
  show = lambda record, k: repr(record[k]) if k in record else "absent"
  return [f"config.{k}: {show(old, k)} -> {show(new, k)}" for k in keys if show(old, k) != show(new, k)]


def check_same(old: Mapping, new: Mapping, workdir: str, what: str, but: tuple[str, ...] = checks.MAY_CHANGE) -> None:
  """Raises UserError, which names `what` a workdir holds and the first differences, where two records differ."""
  found = differences(old, new, but)
  if found:
    more = [f"and {len(found) - 3} more"] if len(found) > 3 else []
    raise UserError(f"--workdir: {workdir!r} holds {what}; choose another workdir or undo:\n"
                    + ", ".join(found[:3] + more))
