"""Code named by dotted path: experiments, and functions of the user's own."""

import importlib
import importlib.util
import pkgutil

from jaxtrain import jsonable
from jaxtrain.errors import UserError


# What a module of an experiment may declare, and what holds where it does not: see `types.Experiment`.
DECLARATIONS = {"LIMITS": {}, "TRACEABLE": (), "CODE": (), "METRICS": {}, "INIT_ROWS": None, "TRAINS": True}


def declared(module, name: str):
  """What the module of an experiment declares under a name of `DECLARATIONS`."""
  return getattr(module, name, DECLARATIONS[name])


def load_experiment(name: str):
  """The module of an experiment, imported by its dotted name; it has `load(config)` and `make(config, meta)`.

  Raises:
    UserError: no such module (the built-in ones are listed), or one without the two functions.
  """
  try:
    module = importlib.import_module(name) if name else None
  except ModuleNotFoundError as error:
    if error.name is not None and not name.startswith(error.name):
      raise
    module = None
  if module is None:
    raise UserError(f"config.experiment: got {name!r}, allowed {', '.join(builtin_experiments())}, "
                    "or a module of your own on PYTHONPATH")
  missing = [function for function in ("load", "make") if not hasattr(module, function)]
  if missing:
    raise UserError(f"config.experiment: module {name} has no function {' and no function '.join(missing)}")
  return module


def named_code(config) -> list[str]:
  """Dotted names of the user's own code in the fields that the experiment's module declares as CODE."""
  flat = dict(jsonable.flatten(config))
  fields = declared(load_experiment(config.experiment), "CODE")
  values = [flat[field] for field in fields if field in flat]
  names = [name for value in values for name in (value if isinstance(value, tuple) else (value,))]
  return [name for name in names if "." in str(name)]


def load_function(field: str, name: str):
  """The function named by a dotted path, MODULE.FUNCTION, such as a user's own metric, loss or loader.

  Raises:
    UserError: naming the config field, where there is no such module or function.
  """
  module, _, function = name.rpartition(".")
  try:
    found = getattr(importlib.import_module(module), function) if module else None
  except ModuleNotFoundError as error:
    if error.name is not None and not name.startswith(error.name):
      raise
    found = None
  except AttributeError:
    found = None
  if not callable(found):
    raise UserError(f"config.{field}: got {name!r}, allowed MODULE.FUNCTION of a module on PYTHONPATH")
  return found


def builtin_experiments() -> list[str]:
  """Dotted names of the experiments inside the package: modules that define load and make."""
  package = importlib.import_module("jaxtrain.experiments")
  names = []
  for _, name, is_package in pkgutil.walk_packages(package.__path__, "jaxtrain.experiments."):
    if is_package:
      continue
    with open(importlib.util.find_spec(name).origin, encoding="utf-8") as file:
      text = file.read()
    if "\ndef load(" in text and "\ndef make(" in text:
      names.append(name)
  return names
