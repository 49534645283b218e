"""The one check of a config, before any device work; lengths and stages."""

from typing import Any, Container, Mapping

from ml_collections import ConfigDict

from jaxtrain import jsonable
from jaxtrain.config import defaults, fields, limits as limits_lib, modules
from jaxtrain.errors import UserError

# Fields that say where and how loudly, not what; and those in which a resumed run may differ: it may also grow.
HOW = ("data.num_workers", "train.time_budget_minutes", "log.", "parallel.platform", "parallel.cpu_threads",
       "parallel.watchdog_seconds")
LENGTHS = ("train.num_epochs", "train.num_steps")
MAY_CHANGE = (*HOW, *LENGTHS)


def resolve(config: ConfigDict) -> ConfigDict:
  """Checks a config and returns it as a locked copy. The one place where ranges are checked.

  Raises:
    UserError: the first field that does not fit: its dotted key, the value, the values allowed.
  """
  record = config.to_dict()
  check_names(record)
  check_sections(record)
  config = ConfigDict(record)
  for key, value in jsonable.flatten(config):
    if isinstance(value, list):  # a list in a config file
      value = as_tuple(value)
      section, name = fields.place(config, key)
      section[name] = value
  if not isinstance(config.stages, tuple) or not all(isinstance(s, (Mapping, ConfigDict)) for s in config.stages):
    raise UserError(f"config.stages: got {fields.shown(config.stages)}, allowed override dicts, set in the config file")
  check_value("experiment", config.experiment, limits_lib.LIMITS["experiment"])
  module = modules.load_experiment(config.experiment)
  check_limits(config, limits_lib.LIMITS | modules.declared(module, "LIMITS"))
  modules.check_code(config)
  check_length(config, modules.declared(module, "TRAINS"))
  if "data" in config and "split" in config.data and "fold" in config.data.split:
    check_fold(config.data.split)
  micro, batch = config.train.microbatch, config.train.batch_size
  if micro > 0 and batch % micro:
    raise UserError(f"config.train.microbatch: got {micro}, allowed divisors of config.train.batch_size = {batch}")
  if micro and config.parallel.mode != "jit":
    raise UserError("config.train.microbatch: set together with config.parallel.mode="
                    f"{config.parallel.mode}, allowed with jit; choose config.parallel.chunks instead")
  for section in fields.optimisers(config):
    optim = fields.lookup(config, section)
    if optim.schedule == "warmup_cosine" and not optim.warmup_steps:
      raise UserError(f"config.{section}.warmup_steps: got 0, allowed 1 or more with "
                      f"config.{section}.schedule=warmup_cosine")
  if modules.strangers_here:  # what stages override must be judged too before another process is told of it
    for k, stage in enumerate(config.stages):
      stage_config(config, stage, k)
  return config.lock()


def check_names(section: Mapping, prefix: str = "") -> None:
  """Refuses names of fields, in nested dicts, that no dotted key can hold, before anything else looks at them."""
  for name, value in section.items():
    if not isinstance(name, str) or not name:
      raise UserError(f"config.{prefix}*: got a field named {fields.shown(name)}, allowed text")
    if isinstance(value, Mapping):
      check_names(value, f"{prefix}{name}.")
    elif hasattr(value, "items"):  # such as a data frame
      raise UserError(f"config.{prefix}{name}: got a value of type {type(value).__name__}, allowed {limits_lib.PLAIN}")


def check_sections(record: Mapping, wanted: Mapping[str, Any] = defaults.DEFAULTS, prefix: str = "") -> None:
  """Refuses a config, as nested dicts, that lacks a section or a field that all have."""
  for name, default in wanted.items():
    if name not in record:
      raise UserError(f"config.{prefix}{name}: missing; a config file starts from jaxtrain.config.common()")
    is_section = isinstance(record[name], Mapping)
    if is_section != isinstance(default, Mapping):
      what = "a section" if is_section else fields.shown(record[name])
      raise UserError(f"config.{prefix}{name}: got {what}, allowed {'a value' if is_section else 'a section'}")
    if is_section:
      check_sections(record[name], default, f"{prefix}{name}.")


def as_tuple(value: Any) -> Any:
  """Lists as tuples, also inside."""
  return tuple(map(as_tuple, value)) if isinstance(value, (list, tuple)) else value


def check_limits(config: ConfigDict, limits: dict[str, limits_lib.Limit]) -> None:
  """Refuses the first field whose value is not allowed; each optimiser's section has the limits of `optim`."""
  own = {f"{section}.{key.removeprefix('optim.')}": limit for section in fields.optimisers(config)
         for key, limit in limits_lib.LIMITS.items() if key.startswith("optim.")}
  limits = own | limits
  flat, record = dict(jsonable.flatten(config)), config.to_dict()
  for key in limits.keys() - flat.keys():  # a section in the place of a field holds nothing that anything reads
    if is_section(record, key):
      raise UserError(f"config.{key}: got a section, allowed {limits[key].words}")
  for key, value in flat.items():
    if key != "stages":
      check_value(key, value, limits_lib.find(limits, key))


def is_section(record: Mapping, key: str) -> bool:
  """Whether a dotted key names a section of nested dicts."""
  for part in key.split("."):
    if not isinstance(record, Mapping) or part not in record:
      return False
    record = record[part]
  return isinstance(record, Mapping)


def check_value(key: str, value: Any, limit: limits_lib.Limit | None) -> None:
  """Refuses a value that no field may hold, or that this one may not."""
  allowed = limits_lib.plain(value)
  if limit is not None and (allowed or not limits_lib.fits(limit, value)):
    kind = "" if limits_lib.has_kind(value, limit.kind) else f"a value of type {limit.kind.__name__}: "
    allowed = f"{kind}{limit.words}{f'; {allowed}' if allowed and not kind else ''}"
  if allowed:
    raise UserError(f"config.{key}: got {fields.shown(value)}, allowed {allowed}")


def check_fold(split: ConfigDict) -> None:
  """Refuses a fold that the kind of split does not have."""
  folds = split.num_folds if split.kind in limits_lib.FOLDED else 1
  if split.fold >= folds:
    hint = "" if folds > 1 else f" with config.data.split.kind={split.kind}; folds need {' | '.join(limits_lib.FOLDED)}"
    raise UserError(f"config.data.split.fold: got {split.fold}, allowed 0{f' to {folds - 1}' * (folds > 1)}{hint}")


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
  for key, value in jsonable.flatten(stage):
    if key == "carry_optimizer":
      continue
    try:
      fields.assign(config, key, value)
    except UserError as error:
      raise UserError(f"config.stages[{index}]: {error}") from None
  if index and "checkpoint.init_paths" not in dict(jsonable.flatten(stage)):
    config.checkpoint.init_paths = ()  # those of the run are for what --init_from names
  for key, value in cleared(dict(jsonable.flatten(stage))).items():
    fields.assign(config, key, value)
  return resolve(config)
