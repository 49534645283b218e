"""Code named by dotted path: experiments, and functions of the user's own. All imports by name are made here.

A config file is the user's and may name any code. A workdir is data, perhaps a stranger's: while `strangers` holds, a
name is imported only where it is an experiment of jaxtrain or one that the user has given too. That is judged at the
import, so it does not matter where in the workdir a name stood, or what it was merged with.
"""

import contextlib
import functools
import importlib
import pathlib
import re
import traceback
from typing import Any, Iterable, Iterator, NamedTuple

from jaxtrain import errors, jsonable
from jaxtrain.errors import Told, UserError

PACKAGE = "jaxtrain.experiments"
FOLDER = pathlib.Path(__file__).resolve().parents[1] / "experiments"

# What a module of an experiment may declare, and what holds where it does not: see `types.Experiment`.
DECLARATIONS = {"LIMITS": {}, "TRACEABLE": (), "CODE": (), "METRICS": {}, "INIT_ROWS": None, "TRAINS": True,
                "SINCE": {}}


class Stranger(NamedTuple):
  """A workdir that may name code, and the names that the user has given too."""
  workdir: str
  vouched: frozenset[str]


strangers_here: list[Stranger] = []  # of all threads: one that starts meanwhile must not have more rights


@contextlib.contextmanager
def strangers(workdir: str, vouched: Iterable[str] = ()) -> Iterator[None]:
  """Meanwhile no code is imported by name but experiments of jaxtrain and what the user has vouched for."""
  stranger = Stranger(workdir, frozenset(vouched))
  strangers_here.append(stranger)
  try:
    yield
  finally:
    strangers_here.remove(stranger)


def admit(field: str, name: Any) -> None:
  """Raises UserError where a workdir names code that is no experiment of jaxtrain and that the user has not named."""
  for stranger in strangers_here:
    own = field == "experiment" and name in builtin_experiments()
    if not own and name not in stranger.vouched:
      if field == "experiment":
        raise UserError(f"--workdir: {stranger.workdir!r} was trained by {name!r}, which is not part of jaxtrain; "
                        f"--experiment={name} runs its code (in main: its --config)")
      raise UserError(f"config.{field}: {stranger.workdir!r} names code, {name!r}, that you have not named; "
                      f"--code={name} runs it (in main: its --config)")


def declared(module, name: str):
  """What the module of an experiment declares under a name of `DECLARATIONS`."""
  return getattr(module, name, DECLARATIONS[name])


def check_code(config) -> None:
  """Raises UserError where the fields of code hold no names, or names that may not be imported: before any is."""
  for field, name in named_code(config):
    admit(field, name)


def load_experiment(name: str):
  """The module of an experiment, imported by its dotted name; it has `load(config)` and `make(config, meta)`.

  Raises:
    UserError: no such module (the built-in ones are listed), or one without the two functions.
  """
  admit("experiment", name)
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


def named_code(config) -> list[tuple[str, str]]:
  """(field, dotted name) of the user's own code in the fields that the experiment's module declares as CODE.

  Raises:
    UserError: such a field holds something else than names.
  """
  flat = dict(jsonable.flatten(config))
  found = []
  for field in declared(load_experiment(config.experiment), "CODE"):
    value = flat[field] if field in flat else ()
    names = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(name, str) for name in names):
      raise UserError(f"config.{field}: got {value!r}, allowed names such as MODULE.FUNCTION")
    found += [(field, name) for name in names if "." in name]
  return found


def load_function(field: str, name: str):
  """The function named by a dotted path, MODULE.FUNCTION, such as a user's own metric, loss or loader.

  What it raises when it is called becomes a UserError that names the field, the function and the line at fault.

  Raises:
    UserError: naming the config field, where there is no such module or function, or the module fails.
  """
  admit(field, name)
  module, _, function = name.rpartition(".")
  try:
    found = getattr(importlib.import_module(module), function) if module else None
  except ModuleNotFoundError as error:
    if error.name is not None and not name.startswith(error.name):
      raise failed(field, f"module {module}", error) from error
    found = None
  except AttributeError:
    found = None
  except Exception as error:
    raise failed(field, f"module {module}", error) from error
  if not callable(found):
    raise UserError(f"config.{field}: got {name!r}, allowed MODULE.FUNCTION of a module on PYTHONPATH")

  @functools.wraps(found)
  def told(*arguments):
    try:
      return found(*arguments)
    except Told:
      raise
    except Exception as error:
      raise failed(field, name, error) from error
  return told


def failed(field: str, name: str, error: Exception) -> UserError:
  """The complaint about the user's own code that has failed; the line is that of its outermost call."""
  here = [frame for frame in traceback.extract_tb(error.__traceback__)
          if frame.filename != __file__ and "importlib" not in frame.filename]
  place = f" (line {here[0].lineno} of {here[0].filename})" if here else ""
  return UserError(f"config.{field}: {name} failed: {type(error).__name__}: {errors.reason(error)[:200]}{place}")


def load_companion(experiment: str, name: str):
  """The module of a name beside an experiment of jaxtrain, such as its figures; None where there is none."""
  if experiment not in builtin_experiments():
    return None
  beside = f"{experiment.rpartition('.')[0]}.{name}"
  return importlib.import_module(beside) if beside in families() else None


@functools.cache
def families() -> dict[str, pathlib.Path]:
  """Path by dotted name of the modules in the folders of the families; nothing is imported to know it."""
  return {f"{PACKAGE}.{path.parent.name}.{path.stem}": path for path in sorted(FOLDER.glob("*/*.py"))}


@functools.cache
def builtin_experiments() -> tuple[str, ...]:
  """Dotted names of the experiments inside the package: modules that define load(config) and make(config, meta)."""
  return tuple(name for name, path in families().items() if is_experiment(path.read_text(encoding="utf-8")))


def is_experiment(source: str) -> bool:
  """Whether a module of this source has `load` and `make` as experiments have them; it is not run."""
  load = re.search(r"^(def load\(config\)|load = )", source, re.MULTILINE)
  return bool(load and re.search(r"^def make\(config, meta\)", source, re.MULTILINE))
