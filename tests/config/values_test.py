"""Values that fields may take: every field of every config has a type and bounds, and no value ends in a traceback."""

import contextlib
import glob
import os
import random
import warnings

import numpy as np
import pytest

import child
from jaxtrain import commands, config as config_lib, jsonable, loop
from jaxtrain.config import fields, limits, modules, records
from jaxtrain.errors import NonFinite, Stopped, UserError

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


@contextlib.contextmanager
def holding(config, key, value):
  """The config with any value in a field meanwhile, as a careless config file may leave it."""
  section, name = fields.place(config, key)
  before = section[name]
  try:
    with config.ignore_type():
      section[name] = value
      yield config
  except OverflowError as error:  # of ml_collections, in the file's own line: `read_file` says it
    raise UserError(str(error)) from None
  finally:
    with section.unlocked():
      del section[name]  # else a bool would come back as the float that was put in its place
      section[name] = before


def is_refused(make) -> bool:
  """Whether `make()` refuses as it should, in one to four lines that a terminal can show; False where it accepts."""
  try:
    make()
  except UserError as error:
    lines = str(error).splitlines()
    assert 1 <= len(lines) <= 4 and max(map(len, lines)) < 1000, str(error)
    return True
  return False


def in_file(config, key, value):
  """The config resolved with a value that its file gives a field."""
  with holding(config, key, value):
    return config_lib.resolve(config)


def on_line(config, key, text):
  """The same with a text that was typed for it."""
  value = commands.field_value(key, config_lib.lookup(config, key), text)
  with holding(config, key, config_lib.lookup(config, key)):
    config_lib.assign(config, key, value)
    return config_lib.resolve(config)


def try_field(config, key, num_values, chosen):
  """Puts values into a field, drawn from those above; all end in a refusal or a config that JSON can hold.

  Returns whether each was refused.
  """
  cases = [(in_file, value) for value in IN_A_FILE] + [(on_line, text) for text in ON_THE_LINE]
  return [is_refused(lambda: config_lib.to_record(put(config, key, value)))
          for put, value in chosen.sample(cases, min(num_values, len(cases)))]


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


@pytest.mark.slow
def test_no_value_of_a_field_ends_in_a_traceback():
  """Every field of every config file, 20 values each; fields that all share, 2 in all files but the first."""
  seen, chosen, refused = set(), random.Random(0), []
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    for path in FILES:
      config, keys = fields_of(path)
      for key in keys:
        refused += try_field(config, key, 2 if key in seen else 20, chosen)
      seen |= set(keys)
  assert 0.2 < np.mean(refused) < 1  # most are, and some fit: else nothing was tried


@pytest.mark.slow
@pytest.mark.parametrize("argument", ALL, ids=NAMES)
def test_no_value_of_a_variant_ends_in_a_traceback(argument):
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    config, keys = fields_of(argument)
    refused = [one for key in keys for one in try_field(config, key, 100, random.Random(0))]
  assert 0.2 < np.mean(refused) < 1


# what a config file gives -> words of the line
REFUSED = {
    "array": ("train.batch_size", np.zeros(3), "got array([0., 0., 0.]), allowed a value of type int: 1 to 16777216"),
    "none": ("model.latent_dim", None, "got None, allowed a value of type int: 1 to 65536"),
    "section": ("model.latent_dim", {"a": 1}, "config.model.latent_dim: got a section, allowed 1 to 65536"),
    "empty section": ("seed", {}, "config.seed: got a section, allowed a value"),
    "set": ("data.path", {"a"}, "got {'a'}, allowed a value of type str: text"),
    "bool for int": ("train.batch_size", True, "got True, allowed a value of type int"),
    "int for bool": ("model.batch_norm", 1, "got 1, allowed a value of type bool: true or false"),
    "float for int": ("model.latent_dim", 2.5, "got 2.5, allowed a value of type int"),
    "beyond 64 bits": ("seed", 2**64, "got 18446744073709551616, allowed 0 to 4294967295; whole numbers of 64 bits"),
    "no width of a layer": ("model.hidden_dims", (64, 2**40), "allowed numbers, each 1 to 65536"),
    "inside a tuple": ("optim.betas", (0.9, float("inf")), "got (0.9, inf), allowed two numbers from 0 up"),
    "below 1 in 64 bits": ("optim.betas", (0.9, 1 - 1e-12), "below 1"),
    "trains nothing": ("optim.learning_rate", 1e-320, "config.optim.learning_rate: got 1e-320, allowed 1e-12 to 1e+30"),
    "overflows": ("loss.weights.kl", 1e39, "config.loss.weights.kl: got 1e+39, allowed 0 to 1e+12"),
    "numbers for names": ("eval.metrics", (0, 0), "got (0, 0), allowed MODULE.FUNCTION"),
    "relative module": ("experiment", "..", "config.experiment: got '..', allowed the dotted name of a module"),
    "relative function": ("loss.extra", ("..",), "config.loss.extra: got ('..',), allowed MODULE.FUNCTION"),
    "NUL": ("data.path", "a\0b", "none of them NUL"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_value_that_does_not_fit_says_what_does(name):
  key, value, words = REFUSED[name]
  config, _ = fields_of(FILES[-1])
  with pytest.raises(UserError) as refused:
    in_file(config, key, value)
  assert words in str(refused.value) and str(refused.value).startswith(f"config.{key}: got ")


@pytest.mark.parametrize("typed, words", [
    ("--config.train.batch-size=4", "config.train.batch-size: no such field; did you mean config.train.batch_size?"),
    ("--config.train[batch_size]=4", "config.train[batch_size]: no such field; did you mean config.train.batch_size?"),
    ("--config[train][batch_size]=4", "did you mean config.train.batch_size?"),
    ("--config.data.features=0,0", "config.data.features: got (0, 0), allowed names, in quotes where they are numbers"),
    ("--config.seed=" + "9" * 5000, "allowed a value of type int")])
def test_a_field_in_another_spelling_is_one_line(typed, words):
  own = commands.new_flags(has_config=True)
  with pytest.raises(UserError) as refused:
    given = commands.parse(own, ["command", f"--config={FILES[-1]}", typed], "About.")
    config_lib.resolve(commands.read_config(given, {})[0])
  assert words in str(refused.value) and len(str(refused.value)) < 300


def test_a_list_of_a_config_file_is_a_tuple():
  config, _ = fields_of(FILES[-1])
  resolved = in_file(config, "model.hidden_dims", [8, 4])
  assert resolved.model.hidden_dims == (8, 4) and config_lib.digest(resolved) == config_lib.digest(
      in_file(config, "model.hidden_dims", (8, 4)))


@pytest.mark.parametrize("break_it, words", [
    (lambda config: config.train.__delattr__("batch_size"), "config.train.batch_size: missing"),
    (lambda config: config.__delattr__("optim"), "config.optim: missing"),
    (lambda config: config.loss.__setitem__("weights", {1: 1.0}), "got a field named 1, allowed text")])
def test_a_config_that_lacks_what_all_have_is_refused(break_it, words):
  config, _ = fields_of(FILES[-1])
  with config.ignore_type():
    break_it(config)
  with pytest.raises(UserError, match=words):
    config_lib.resolve(config)


# a config of seconds for each file, and what is put into its fields: small values at which something may divide by zero
TINY = {"vae.py": {"data.row_limit": 600, "train.num_epochs": 0, "train.num_steps": 2},
        "causal_discovery.py": {"train.num_steps": 2, "train.batch_size": 8, "eval.max_val_tasks": 8},
        "causal_consistency.py": {"data.num_samples": 100, "train.num_epochs": 0, "train.num_steps": 2}}
EDGES = (0, 1, 2, 3, 5, 64, 1e-30, 1e-12, 0.5, 0.999, 1.0, 1e6, 1e12, -1, True, False, "", "a", "val_loss", "random",
         "canonical", "full", (), (1,), (2, 3), ("a",), (0.5, 0.5), (1.0, 0.0, 0.0), (0.0, 0.5, 0.5))
NUM_PARTS, PART = 20, 10


@pytest.mark.slow
@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_what_passes_trains_or_is_refused_in_a_line(part, tmp_path, capfd):
  """Of 200 draws of a field and a value that `resolve` takes: two steps, and nothing of libraries on the screen."""
  chosen, tried = random.Random(part), 0
  while tried < PART:
    path = chosen.choice([path for path in FILES if os.path.basename(path) in TINY])
    config, keys = fields_of(f"{path}:smoke")
    for key, value in (TINY[os.path.basename(path)] | {"log.progress": False}).items():
      config_lib.assign(config, key, value)
    key, value = chosen.choice(keys), chosen.choice(EDGES)
    if value == config_lib.lookup(config, key) or is_refused(lambda: in_file(config, key, value)):
      continue
    tried += 1
    print(f"{os.path.basename(path)} {key}={value!r}")
    with holding(config, key, value):
      try:
        loop.train(config, str(tmp_path / str(tried)))
      except UserError as error:
        assert len(str(error).splitlines()) <= 4, (key, value, str(error))
      except (NonFinite, Stopped):  # a time budget of next to nothing stops it, as it should
        continue
  assert capfd.readouterr().err == ""


def test_fields_that_have_come_since_need_their_section():
  """A stored field keeps its value, a newer one gets that of an earlier version."""
  experiment = "jaxtrain.experiments.causal_discovery.avici"
  record = {"experiment": experiment, "data": {"corruptions": ["missing"]}, "eval": {}, "model": {}}
  filled = records.since(record, experiment)
  assert filled["data"] == {"corruptions": ["missing"], "noise_mixture": "task", "val_families": [],
                            "test_families": []}
  assert filled["eval"] == {"suite": ""} and record["eval"] == {}
  with pytest.raises(UserError, match="^config.json: config.eval is not there, which the experiment"):
    records.since({"experiment": experiment, "data": {}}, experiment)


def test_a_field_of_an_inner_section_that_has_come_since():
  experiment = "jaxtrain.experiments.tabular_vae.vae"
  record = {"experiment": experiment, "data": {}, "eval": {}, "model": {}, "loss": {"weights": {"recon": 2.0}}}
  filled = records.since(record, experiment)
  assert filled["loss"]["weights"] == {"recon": 2.0, "integer": 1.0, "categorical": 1.0}
  assert record["loss"]["weights"] == {"recon": 2.0} and filled["model"]["noise"] == "fixed"
  with pytest.raises(UserError, match="^config.json: config.loss.weights is not there"):
    records.since(record | {"loss": {}}, experiment)
