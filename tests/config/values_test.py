"""Values that fields may take: every field of every config has a type and bounds, and no value ends in a traceback."""

import glob
import os
import random
import warnings

import numpy as np
import pytest

import child
from jaxtrain import commands, config as config_lib, jsonable
from jaxtrain.config import limits, modules
from jaxtrain.errors import UserError

FILES = sorted(glob.glob(os.path.join(child.ROOT, "configs", "*.py")))
ALL = [f"{path}:{variant}" for path in FILES for variant in config_lib.list_variants(path)]
NAMES = [os.path.basename(argument) for argument in ALL]

# what a config file may hold in a field by mistake: of another type, without bound, or with no meaning
IN_A_FILE = (None, b"x", {1, 2}, np.zeros(3), {"a": 1}, {}, (None,), (1, "a", (2.0,)), [[1], [2]], float("nan"),
             float("-inf"), (float("inf"),), 1e-320, 1e300, -1, 0, 2**63, 10**5000, "", "a\0b", "\ud800", "x" * 10_000,
             "..", True, 1.5, np.int64(3), len, object(), ("a", "b"))
# and what may be typed
ON_THE_LINE = ("", "0", "-1", "1e400", "nan", "inf", "1e-320", "9" * 25, "9" * 5000, "None", "..", "0,0", "a,b",
               "1in 2", "('\\d',)", "-" * 20_000 + "1", "(" * 500, "[1]", "{}", "\udcff", "é", "true", "b'x'",
               "lambda: 0")


def fields_of(argument):
  """A config as its file gives it, and the dotted keys of its fields."""
  config = config_lib.read_file(argument)
  return config, [key for key, _ in jsonable.flatten(config)]


def put(config, key, value):
  """A copy of the config with any value in a field, as a careless config file may leave it."""
  config = config.copy_and_resolve_references()
  section, _, name = key.rpartition(".")
  try:
    with config.ignore_type(), config.unlocked():
      (config_lib.lookup(config, section) if section else config)[name] = value
  except OverflowError as error:  # of ml_collections, in the file's own line: `read_file` says it
    raise UserError(str(error)) from None
  return config


def is_refused(make) -> bool:
  """Whether `make()` refuses as it should, in one to four lines that a terminal can show; False where it accepts."""
  try:
    make()
  except UserError as error:
    lines = str(error).splitlines()
    assert 1 <= len(lines) <= 4 and max(map(len, lines)) < 1000, str(error)
    return True
  return False


def in_file(config, key, values):
  """Number of those values that a config file may not hold in a field."""
  return sum(is_refused(lambda: config_lib.resolve(put(config, key, value))) for value in values)


def on_line(config, key, texts):
  """Number of those texts that may not be typed for a field."""
  def typed(text):
    given = config.copy_and_resolve_references()
    config_lib.assign(given, key, commands.field_value(key, config_lib.lookup(given, key), text))
    return config_lib.resolve(given)
  return sum(is_refused(lambda: typed(text)) for text in texts)


@pytest.mark.parametrize("argument", ALL, ids=NAMES)
def test_every_field_has_a_type_and_bounds(argument):
  """A field that fails here: add it to the LIMITS of its experiment's module, in the words of jaxtrain/config/limits.py
  (whole, at_least, between, zero_or, one_of, switch, text, names, functions, each).
  """
  config, keys = fields_of(argument)
  known = limits.LIMITS | modules.declared(modules.load_experiment(config.experiment), "LIMITS")
  for key in keys:
    if key == "stages":
      continue
    value, name = config_lib.lookup(config, key), f"optim{key[len(key.split('.')[0]):]}"
    limit = limits.find(known, key) or (limits.find(known, name) if key.startswith("optim_") else None)
    assert isinstance(limit, limits.Limit), f"{key}: no entry in LIMITS of {config.experiment}"
    kind = type(value)
    assert limit.kind is kind, f"{key}: LIMITS say {limit.kind.__name__}, the config file gives {kind.__name__}"
    assert limits.fits(limit, value) and not limits.plain(value), f"{key}: {value!r} of the config file is refused"
    if kind in (int, float):
      assert not limits.fits(limit, kind(2**32)) or not limits.fits(limit, kind(2**110)), f"{key}: no upper bound"
      assert not limits.fits(limit, kind(-2**110)), f"{key}: no lower bound"
    assert not limits.fits(limit, None) and not limits.fits(limit, True) or kind is bool


@pytest.mark.parametrize("path", FILES, ids=map(os.path.basename, FILES))
def test_no_value_of_a_field_ends_in_a_traceback(path):
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    config, keys = fields_of(path)
    chosen = random.Random(0)
    for key in keys:
      refused = in_file(config, key, IN_A_FILE)
      assert refused >= len(IN_A_FILE) - 12, key
      on_line(config, key, chosen.sample(ON_THE_LINE, 8))
