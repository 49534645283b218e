"""Configs: the sections all experiments share, their checks, overrides from the environment, and the look-up of
modules.

A config file builds an `ml_collections.ConfigDict` from `common()`; `resolve` checks it once, before any device work,
so that `make` may be called under a trace with tracers in the fields of `TRACEABLE`.
"""

import copy
import difflib
import importlib.util
import json
import os
from typing import Any, Container, Iterator, Mapping

from ml_collections import ConfigDict

from jaxtrain import fields, modules
from jaxtrain.types import UserError, digest_json

# Float fields whose values may be tracers in `make`: a sweep over them is one program.
TRACEABLE = ("optim.learning_rate", "loss.weights.*")

# Fields that say where and how loudly, not what; and those in which a resumed run may differ: it may also grow.
HOW = ("data.num_workers", "train.time_budget_minutes", "log.", "parallel.platform", "parallel.cpu_threads",
       "parallel.watchdog_seconds")
LENGTHS = ("train.num_epochs", "train.num_steps")
MAY_CHANGE = (*HOW, *LENGTHS)


def common() -> ConfigDict:
  """Sections and defaults that all experiments share; a config file sets what differs."""
  return ConfigDict(copy.deepcopy(fields.DEFAULTS))


def flatten(config: Mapping, prefix: str = "") -> Iterator[tuple[str, Any]]:
  """(dotted key, value) of every field of nested mappings, sorted by key within a section."""
  for key in sorted(config.keys()):
    value = config[key]
    if isinstance(value, (Mapping, ConfigDict)):
      yield from flatten(value, f"{prefix}{key}.")
    else:
      yield prefix + key, value


def read_file(argument: str) -> ConfigDict:
  """The config of FILE or FILE:variant. A config file is code: it is run because the user named it.

  Raises:
    UserError: no such file, a file that fails or has no get_config, an unknown variant.
  """
  variant = argument.partition(":")[2]
  def get(module):
    return module.get_config(variant) if variant else module.get_config()
  config = call_file(argument, get)
  if not isinstance(config, ConfigDict):
    raise UserError(f"--config: get_config of {argument.partition(':')[0]!r} returned {type(config).__name__}, allowed "
                    "ConfigDict")
  return config


def read_sweep(argument: str, name: str) -> Any:
  """What `sweep(name)` of a config file returns. Raises UserError where there is no such function or it fails."""
  def get(module):
    if not hasattr(module, "sweep"):
      raise UserError("it has no function sweep(name), which --name asks for")
    return module.sweep(name)
  return call_file(argument, get)


def call_file(argument: str, get) -> Any:
  """`get(module)` of the config file in FILE or FILE:variant. Raises UserError for whatever fails."""
  path = argument.partition(":")[0]
  if not path:
    raise UserError("--config: required, such as --config=configs/vae.py")
  if not os.path.isfile(path):
    raise UserError(f"--config: no such file {path!r}; commands run from a clone, which holds configs/")
  if not path.endswith(".py"):
    raise UserError(f"--config: got {path!r}, allowed a Python file with a function get_config")
  spec = importlib.util.spec_from_file_location("jaxtrain_config_file", path)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    return get(module)
  except UserError as error:
    raise UserError(f"--config={argument}: {error}") from None
  except Exception as error:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    raise UserError(f"--config: {path!r} is no config file: {reason[:200]}") from None


def check_field(config: ConfigDict, key: str) -> None:
  """Raises UserError, with a suggestion, where a dotted key names no field."""
  parts, section = key.split("."), config
  for depth, part in enumerate(parts):
    if not isinstance(section, ConfigDict) or part not in section:
      known = list(section.keys()) if isinstance(section, ConfigDict) else []
      raise UserError(f"config.{key}: no such field{suggestion(part, known, '.'.join(parts[:depth]))}")
    section = section[part]
  if isinstance(section, ConfigDict):
    raise UserError(f"config.{key}: a section, not a field; it has {', '.join(sorted(section.keys()))}")


def lookup(config: ConfigDict, key: str) -> Any:
  """Value at a dotted key."""
  value = config
  for part in key.split("."):
    value = value[part]
  return value


def assign(config: ConfigDict, key: str, value: Any) -> None:
  """Sets the field at a dotted key that exists, keeping its type (an int becomes a float, a list a tuple).

  Raises:
    UserError: no such field (with a suggestion), or a value of another type.
  """
  check_field(config, key)
  parent, _, name = key.rpartition(".")
  section = lookup(config, parent) if parent else config
  if isinstance(section[name], tuple) and isinstance(value, list):
    value = tuple(value)
  try:
    section[name] = value
  except TypeError:
    wanted = type(section[name]).__name__
    raise UserError(f"config.{key}: got {value!r}, allowed a value of type {wanted}") from None


def is_traceable(key: str) -> bool:
  """Whether the field at a dotted key may hold a tracer."""
  return any(key == t or t.endswith("*") and key.startswith(t[:-1]) for t in TRACEABLE)


def substitute(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
  """A copy with traced values in fields of `TRACEABLE`: what a sweep in one program hands to `make`."""
  config = ConfigDict(config.to_dict())
  with config.ignore_type():
    for key, value in values.items():
      if not is_traceable(key):
        raise UserError(f"config.{key} may not be traced; allowed {', '.join(TRACEABLE)}")
      parent, _, name = key.rpartition(".")
      lookup(config, parent)[name] = value
  return config


def suggestion(name: str, known: list[str], prefix: str = "") -> str:
  """Words that suggest the nearest known name, or list what there is."""
  dot = f"{prefix}." if prefix else ""
  close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
  within = [k for k in known if name in k or k in name]
  if close or within:
    return f"; did you mean config.{dot}{(close or within)[0]}?"
  return f"; {'config.' + prefix if prefix else 'config'} has {', '.join(sorted(known))}" if known else ""


def from_environment(config: ConfigDict, environ: Mapping[str, str]) -> dict[str, Any]:
  """Overrides named by variables such as TRAIN__NUM_EPOCHS=20 or OPTIM__PLATEAU__FACTOR=0.5.

  Variables whose first part is no section of the config are ignored.

  Raises:
    UserError: a known section and an unknown field (with a suggestion), or a value of another type.
  """
  overrides = {}
  for name in sorted(environ):
    parts = name.split("__")
    if name != name.upper() or len(parts) < 2 or not all(parts):
      continue
    parts = [part.lower() for part in parts]
    if not isinstance(config.get(parts[0]), ConfigDict):
      continue
    section, path = config, []
    for part in parts:
      if not isinstance(section, ConfigDict) or part not in section:
        known = list(section.keys()) if isinstance(section, ConfigDict) else []
        hint = suggestion(part, known, ".".join(path))
        if "did you mean" in hint:
          right = hint.rsplit("config.", 1)[1].rstrip("?")
          hint = f"; did you mean {right.upper().replace('.', '__')}?"
        raise UserError(f"environment variable {name}: no field config.{'.'.join(parts)}{hint}")
      section = section[part]
      path.append(part)
    if isinstance(section, ConfigDict):
      raise UserError(f"environment variable {name}: config.{'.'.join(parts)} is a section, not a field")
    overrides[".".join(parts)] = fields.parse_like(section, environ[name], f"environment variable {name}")
  return overrides


def pick_variant(variant: str, variants: Mapping[str, Any], what: str = "config variant") -> Any:
  """The named entry of a config file's variants, or of its sweeps. Raises UserError that lists them."""
  if variant not in variants:
    raise UserError(f"{what}: got {variant!r}, allowed {', '.join(variants)}")
  return variants[variant]


def resolve(config: ConfigDict) -> ConfigDict:
  """Checks a config and returns it as a locked copy. The one place where ranges are checked.

  Raises:
    UserError: the first field that does not fit: its dotted key, the value, the values allowed.
  """
  config = ConfigDict(config.to_dict())
  for key, value in flatten(config):
    # flags give a list of names as one text
    if isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], str):
      assign(config, key, tuple(name.strip() for name in value[0].split(",") if name.strip()))
  for key in ("data.features", "log.families"):
    if not all(isinstance(name, str) for name in lookup(config, key)):
      raise UserError(f"config.{key}: got {lookup(config, key)!r}, allowed names")
  if not all(isinstance(stage, (Mapping, ConfigDict)) for stage in config.stages):
    raise UserError(f"config.stages: got {config.stages!r}, allowed override dicts, set in the config file")
  module = modules.load_experiment(config.experiment)
  limits = fields.LIMITS | getattr(module, "LIMITS", {})
  for key, value in flatten(config):
    limit = limits.get(key)
    if limit is None and key.startswith("loss.weights."):
      limit = fields.at_least(0)
    if isinstance(value, float) and value != value:
      raise UserError(f"config.{key}: got {value}, allowed a number")
    if limit is not None and not allows(limit, value):
      raise UserError(f"config.{key}: got {value!r}, allowed {limit[1]}")
  check_length(config, getattr(module, "TRAINS", True))
  split = config.data.split
  folds = split.num_folds if split.kind in fields.FOLDED else 1
  if split.fold >= folds:
    hint = "" if folds > 1 else f" with config.data.split.kind={split.kind}; folds need {' | '.join(fields.FOLDED)}"
    raise UserError(f"config.data.split.fold: got {split.fold}, allowed 0{f' to {folds - 1}' * (folds > 1)}{hint}")
  micro, batch = config.train.microbatch, config.train.batch_size
  if micro > 0 and batch % micro:
    raise UserError(f"config.train.microbatch: got {micro}, allowed divisors of config.train.batch_size = {batch}")
  if micro and config.parallel.mode != "jit":
    raise UserError("config.train.microbatch: set together with config.parallel.mode="
                    f"{config.parallel.mode}, allowed with jit; choose config.parallel.chunks instead")
  if config.optim.schedule == "warmup_cosine" and not config.optim.warmup_steps:
    raise UserError("config.optim.warmup_steps: got 0, allowed 1 or more with config.optim.schedule=warmup_cosine")
  return config.lock()


def allows(limit: fields.Limit, value: Any) -> bool:
  """Whether a value passes a limit; one of the wrong kind does not."""
  try:
    return bool(limit[0](value))
  except TypeError:
    return False


def check_length(config: ConfigDict, trains: bool) -> None:
  """Exactly one of num_epochs and num_steps is above 0; neither where an experiment says TRAINS = False."""
  epochs, steps = config.train.num_epochs, config.train.num_steps
  if not trains:
    if epochs or steps:
      raise UserError(f"config.train: got num_epochs={epochs} and num_steps={steps}, allowed 0 for both: "
                      f"{config.experiment} has nothing to train")
    return
  if (epochs > 0) == (steps > 0):
    raise UserError(f"config.train: got num_epochs={epochs} and num_steps={steps}, allowed exactly one of them above 0")


def cleared(keys: Container[str]) -> dict[str, int]:
  """The length that setting the other one alone clears: its dotted key, and 0."""
  return {other: 0 for one, other in (LENGTHS, LENGTHS[::-1]) if one in keys and other not in keys}


def stage_config(config: ConfigDict, stage: Mapping[str, Any], index: int) -> ConfigDict:
  """The config of one stage: the run's own with the stage's overrides, checked; seed folded in by the loop."""
  config = ConfigDict(config.to_dict())
  config.stages = ()
  for key, value in flatten(stage):
    if key == "carry_optimizer":
      continue
    try:
      assign(config, key, value)
    except UserError as error:
      raise UserError(f"config.stages[{index}]: {error}") from None
  for key, value in cleared(dict(flatten(stage))).items():
    assign(config, key, value)
  return resolve(config)


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
  return ConfigDict(tuples(record)).lock()


def from_workdir(record: Mapping[str, Any] | None, workdir: str, experiment: str = "") -> ConfigDict:
  """The config of a run's config.json, for commands that are given the workdir alone: a workdir is data, never run.

  Args:
    record: what the file holds; None where there is none.
    workdir: its folder, for messages.
    experiment: a module that the user names.

  Raises:
    UserError: no file, or an experiment that is neither part of jaxtrain nor named.
  """
  if record is None:
    raise UserError(f"--workdir: {workdir!r} holds no run (no config.json)")
  config = from_record({key: value for key, value in record.items() if key != "origins"})
  if not config.experiment.startswith("jaxtrain.experiments.") and experiment != config.experiment:
    raise UserError(f"--workdir: {workdir!r} was trained by {config.experiment!r}, which is not part of jaxtrain; "
                    f"--experiment={config.experiment} runs its code (in main: its --config)")
  return config


def digest(config: ConfigDict, but: tuple[str, ...] = MAY_CHANGE) -> str:
  """SHA-256 of all fields that make a run what it is (not those of `but`), hexadecimal."""
  return digest_json({k: v for k, v in flatten(to_record(config)) if not k.startswith(but)})


def differences(old: Mapping, new: Mapping, but: tuple[str, ...] = MAY_CHANGE) -> list[str]:
  """One line per field in which two records differ, but for those of `but`."""
  old, new = dict(flatten(old)), dict(flatten(new))
  keys = [k for k in sorted(old.keys() | new.keys()) if not k.startswith(but)]
  show = lambda record, k: repr(record[k]) if k in record else "absent"
  return [f"config.{k}: {show(old, k)} -> {show(new, k)}" for k in keys if show(old, k) != show(new, k)]


def check_same(old: Mapping, new: Mapping, workdir: str, what: str, but: tuple[str, ...] = MAY_CHANGE) -> None:
  """Raises UserError, which names `what` a workdir holds and the first differences, where two records differ."""
  found = differences(old, new, but)
  if found:
    more = [f"and {len(found) - 3} more"] if len(found) > 3 else []
    raise UserError(f"--workdir: {workdir!r} holds {what}; choose another workdir or undo:\n"
                    + ", ".join(found[:3] + more))
