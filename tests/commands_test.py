"""What all commands share: how command lines are taken apart, complaints, exit codes, and outcomes."""

import errno
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import threading

import chex
import pytest
from absl import flags

import child
import outside
from jaxtrain import __main__ as package_main, commands, config as config_lib, errors, loop, main, predict
from jaxtrain.errors import GoneFolder, InUse, LostProcess, MembersFailed, NonFinite, StopReason, Stopped, UserError
from jaxtrain.report import __main__ as report
from jaxtrain.sweep import __main__ as sweep

CONFIG = """
from jaxtrain.config import common, tables
def get_config():
  config = common()
  config.data = tables()
  config.experiment = "jaxtrain.experiments.tabular_vae.vae"
  config.train.num_epochs = 3
  config.loss = {"weights": {"class": 1.0}}
  return config
"""


def make_flags(has_config=True):
  own = commands.new_flags(has_config)
  flags.DEFINE_string("mode", "train", "What to do.", flag_values=own)
  flags.DEFINE_integer("jobs", 0, "How many.", flag_values=own)
  flags.DEFINE_bool("json", False, "As JSON.", flag_values=own)
  return own


def parse(*argv, has_config=True, takes_arguments=False):
  return commands.parse(make_flags(has_config), ["command", *argv], "About.", takes_arguments)


@pytest.mark.parametrize("argv, fields", [
    (("--config.a.b=3",), {"a.b": "3"}), (("-config.a.b=3",), {"a.b": "3"}), (("--config.a.b", "3"), {"a.b": "3"}),
    (("--config.a.b", "-3"), {"a.b": "-3"}), (("--config.a", "--mode=x"), {"a": True}),
    (("--noconfig.a",), {"a": False}), (("--config.a=",), {"a": ""}), (("--config.a=b=c\nd",), {"a": "b=c\nd"}),
    (("--config.a=1", "--config.a=2"), {"a": "2"}), (("--config.loss.weights.class=2",), {"loss.weights.class": "2"})])
def test_fields_of_the_config_in_every_form(argv, fields):
  given = parse("--jobs=4", *argv, "--json")
  assert given.fields == fields and given.arguments == []
  assert (given.flags.jobs, given.flags.json, given.flags.config) == (4, True, "")


def test_commands_in_one_process_have_flags_of_their_own():
  one, other = parse("--mode=check", "--config", "a.py:b"), parse("--mode=eval", "--nojson")
  assert (one.flags.mode, one.flags.config, other.flags.mode, other.flags.config) == ("check", "a.py:b", "eval", "")
  assert "mode" not in flags.FLAGS


def test_arguments_may_stand_before_flags_and_after_two_dashes():
  given = parse("a", "--jobs=2", "b", "--", "--mode=x", has_config=False, takes_arguments=True)
  assert given.arguments == ["a", "b", "--mode=x"] and (given.flags.jobs, given.flags.mode) == (2, "train")


@pytest.mark.parametrize("argv, has_config, says", [
    (("--mod=check",), True, "--mod: no such flag; did you mean --mode?"),
    (("--confg.train.num_epochs=2",), True, "--confg.train.num_epochs: no such flag; did you mean "
                                            "--config.train.num_epochs?"),
    (("--confg.train.num_epchs=2",), True, "--confg.train.num_epchs: no such flag; did you mean "
                                           "--config.train.num_epochs?"),
    (("--confg.zzz.zzz=2",), True, "--confg.zzz.zzz: no such flag"),
    (("--config.seed=2",), False, "--config.seed: no such flag"),
    (("--noconfig.seed=2",), True, "--noconfig.seed: no such flag; did you mean --config.seed?"),
    (("config.seed=2",), True, "argument 'config.seed=2' is left over; did you mean --config.seed=2?"),
    (("seed=2",), False, "argument 'seed=2' is left over"), (("-1",), True, "argument '-1' is left over"),
    (("--jobs=many",), True, "flag --jobs=many: invalid literal for int() with base 10: 'many'"),
    (("--nojson=1",), True, "--nojson=1 does not take an argument"),
    (("--mode",), True, "Missing value for flag --mode")])
def test_a_bad_command_line_is_one_line(argv, has_config, says):
  with pytest.raises(UserError) as refused:
    parse(*argv, has_config=has_config)
  assert str(refused.value) == says


@pytest.mark.parametrize("make", [main.make_flags, sweep.make_flags, predict.make_flags])
def test_a_workdir_that_is_typed_is_not_empty(make):
  for argv in (["--workdir="], ["--workdir", ""]):
    with pytest.raises(UserError, match="^--workdir: got '', allowed the path of a folder$"):
      commands.parse(make(), ["command", *argv], "About.")
  assert commands.parse(make(), ["command"], "About.").flags.workdir == ""


@pytest.mark.parametrize("asked", ["--help", "-help", "-h"])
def test_help_lists_the_flags_and_is_no_failure(asked, capsys):
  assert commands.run(lambda log: parse("--bad", asked)) == 0
  said = capsys.readouterr()
  assert said.err == "" and said.out.startswith("About.\n") and "--jobs: How many.\n" in said.out
  assert "--mode: What to do. Default: train.\n" in said.out and "--[no]json: As JSON.\n" in said.out


@pytest.fixture
def read(tmp_path):
  """Reads the config of the file above with flags and an environment."""
  (tmp_path / "mine.py").write_text(CONFIG, encoding="utf-8")
  return lambda *argv, **environ: commands.read_config(parse(f"--config={tmp_path / 'mine.py'}", *argv), environ)


@pytest.mark.parametrize("argv, key, value", [
    (("--config.optim.learning_rate=1",), "optim.learning_rate", 1.0), (("--config.seed", "-5"), "seed", -5),
    (("--config.log.tensorboard",), "log.tensorboard", True), (("--config.log.progress=f",), "log.progress", False),
    (("--noconfig.log.progress",), "log.progress", False), (("--config.data.path=a b=c",), "data.path", "a b=c"),
    (("--config.data.features=a,b c",), "data.features", ("a", "b c")),
    (("--config.optim.betas=0.5,0.75",), "optim.betas", (0.5, 0.75)),
    (("--config.loss.weights.class=2",), "loss.weights.class", 2.0)])
def test_values_have_the_type_of_the_field(argv, key, value, read):
  config, origins = read(*argv)
  found = config_lib.lookup(config, key)
  assert found == value and type(found) is type(value) and origins == {key: "flag"} and config.is_locked


def test_flags_win_over_the_environment_and_a_length_clears_the_other(read):
  config, origins = read("--config.train.num_steps=5", TRAIN__NUM_STEPS="7", OPTIM__EPS="0.5")
  assert (config.train.num_steps, config.train.num_epochs, config.optim.eps) == (5, 0, 0.5)
  assert origins == {"train.num_steps": "flag", "optim.eps": "environment"}


@pytest.mark.parametrize("argv, says", [
    (("--config.train.batch_size=abc",), "--config.train.batch_size: got 'abc', allowed a value of type int"),
    (("--config.train.batch_size",), "--config.train.batch_size: got no value, allowed a value of type int"),
    (("--noconfig.data.path",), "--config.data.path: got no value, allowed a value of type str"),
    (("--config.log.progress", "yes"), "--config.log.progress: got 'yes', allowed a value of type bool"),
    (("--config.train.batch_sze=1",), "config.train.batch_sze: no such field; did you mean config.train.batch_size?")])
def test_a_field_that_does_not_fit_is_one_line(argv, says, read):
  with pytest.raises(UserError) as refused:
    read(*argv)
  assert str(refused.value) == says


MEANT = {  # what is typed -> the field that is meant
    "optim.learning_rate": "optim.learning_rate", "learning_rate": "optim.learning_rate", "lr": "optim.learning_rate",
    "learning-rate": "optim.learning_rate", "train.lr": "optim.learning_rate", "epochs": "train.num_epochs",
    "num_epochs": "train.num_epochs", "train.epochs": "train.num_epochs", "batch_size": "train.batch_size",
    "data": "data.path", "data.file": "data.path", "seed": "seed", "monitor": "train.monitor",
    "plateau.factor": "optim.plateau.factor", "weights.class": "loss.weights.class"}


@pytest.mark.parametrize("typed", MEANT)
@pytest.mark.parametrize("make", [main.make_flags, sweep.make_flags])
def test_a_flag_that_is_nearly_right_gets_the_right_one(make, typed, tmp_path):
  (tmp_path / "mine.py").write_text(CONFIG, encoding="utf-8")
  for config in [f"--config={tmp_path / 'mine.py'}"] + ["--workdir=a"] * (typed != "weights.class"):
    with pytest.raises(UserError) as refused:
      commands.parse(make(), ["command", config, f"--{typed}=1"], "About.")
    assert str(refused.value) == f"--{typed}: no such flag; did you mean --config.{MEANT[typed]}?"


@pytest.mark.parametrize("typed", [typed for typed in MEANT if typed not in MEANT.values()])
def test_a_field_that_is_nearly_right_gets_the_right_one(typed, read):
  with pytest.raises(UserError, match=rf"^config\.{typed}: .*; did you mean config\.{MEANT[typed]}\?"):
    read(f"--config.{typed}=1")


def test_a_flag_that_stands_for_nothing_gets_nothing():
  for typed in ("zzz", "zzz.zzz"):
    with pytest.raises(UserError, match=f"^--{typed}: no such flag$"):
      parse(f"--{typed}=1")
  with pytest.raises(UserError, match=r"left over; did you mean --config\.optim\.learning_rate=3\?"):
    parse("lr=3")


FULL = OSError(errno.ENOSPC, "No space left on device", "x.csv")
# error -> exit code, what is said behind "jaxtrain: ", the reason in the outcome
ENDINGS = {
    "mistake": (UserError("a\nb\nc\nd\ne"), 2, "a\njaxtrain: b\njaxtrain: c\njaxtrain: d", "a"),
    "lock": (InUse("x is in use"), 2, "x is in use", "x is in use"),
    "stop": (Stopped("SIGTERM: saved"), 85, "SIGTERM: saved", "SIGTERM: saved"),
    "not finite": (NonFinite("step 3", hint="--config.a=b helps"), 3, "step 3 (--config.a=b helps)", "step 3"),
    "lost": (LostProcess("lost another process: x"), 1, "lost another process: x", "lost another process: x"),
    "members": (MembersFailed("1 of 2", hint="--retry_failed"), 1, "1 of 2 (--retry_failed)", "1 of 2"),
    "full disk": (FULL, 1, "No space left on device: x.csv", "No space left on device: x.csv"),
    "gone": (GoneFolder("'x' was removed"), 1, "'x' was removed", "'x' was removed"),
    "file": (OSError(errno.EIO, "Input/output error"), 1, "Input/output error (traceback in {})", "Input/output error"),
    "bug": (KeyError("x\ny"), 1, "KeyError: 'x\\ny' (traceback in {})", "KeyError: 'x\\ny'"),
    "silent": (AssertionError(), 1, "AssertionError:  (traceback in {})", "AssertionError: "),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_each_error_has_its_exit_code_and_outcome(name, tmp_path, monkeypatch, capsys):
  error, code, says, reason = ENDINGS[name]
  outcome, log_file = tmp_path / "outcome.json", tmp_path / "run" / "log.txt"
  monkeypatch.setenv("JAXTRAIN_OUTCOME", str(outcome))

  def do(log):
    log.folder = str(tmp_path / "run")
    raise error

  assert commands.run(do) == code
  said = capsys.readouterr()
  assert said.out == "" and said.err == f"jaxtrain: {says.format(log_file)}\n"
  assert json.loads(outcome.read_text()) == {"code": code, "kind": type(error).__name__, "reason": reason}
  assert commands.read_outcome(str(outcome)) == (code, type(error).__name__, reason)
  assert log_file.exists() == ("traceback" in says)
  if log_file.exists():
    assert log_file.read_text().startswith("Traceback") and type(error).__name__ in log_file.read_text()


@pytest.mark.parametrize("leaving, code", [(None, 0), (85, 85), ("words", 1)])
def test_leaving_is_an_end_too(leaving, code, tmp_path, monkeypatch):
  monkeypatch.setenv("JAXTRAIN_OUTCOME", str(tmp_path / "outcome.json"))
  assert commands.run(lambda log: sys.exit(leaving)) == code
  assert commands.read_outcome(str(tmp_path / "outcome.json")) == (code, "", "")


def test_a_command_that_is_done_says_nothing_of_its_own(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  monkeypatch.delenv("JAXTRAIN_OUTCOME", raising=False)
  assert commands.run(lambda log: None) == 0 and capsys.readouterr() == ("", "") and os.listdir(tmp_path) == []
  monkeypatch.setenv("JAXTRAIN_OUTCOME", str(tmp_path / "none" / "outcome.json"))
  assert commands.run(lambda log: None) == 0
  assert "JAXTRAIN_OUTCOME: cannot write" in capsys.readouterr().err
  assert commands.read_outcome(str(tmp_path / "none" / "outcome.json")) is None


@pytest.mark.parametrize("folder", ["", "/proc/none"])
def test_a_traceback_without_a_folder_for_it_is_printed(folder, capsys):
  def do(log):
    log.folder = folder
    raise RuntimeError("the reason")
  assert commands.run(do) == 1
  said = capsys.readouterr().err
  assert said.startswith("Traceback") and said.splitlines()[-1] == "jaxtrain: RuntimeError: the reason"


def test_an_assertion_in_a_loss_is_one_line_with_its_text(tmp_path, monkeypatch, capsys):
  """It comes out of a trace, as any other mistake in an experiment; what NumPy's say begins with an empty line."""
  def change(config, state, new, metrics):
    chex.assert_shape(new.params["slope"], (7, 1))
    return new, metrics
  outside.change_steps(monkeypatch, change)

  def do(log):
    log.folder = str(tmp_path)
    loop.train(outside.get_config("table"), str(tmp_path / "run"))
  assert commands.run(do) == 1
  said = capsys.readouterr().err.splitlines()
  assert len(said) == 1 and said[0].startswith("jaxtrain: AssertionError: [Chex] Assertion assert_shape failed: ")
  assert "(3, 1)" in said[0] and "(7, 1)" in said[0] and said[0].endswith(f"(traceback in {tmp_path / 'log.txt'})")
  assert "Traceback" in (tmp_path / "log.txt").read_text(encoding="utf-8")
  assert errors.reason(AssertionError("\nNot equal to tolerance\nMismatched")) == "Not equal to tolerance"


def test_a_thread_that_fails_is_one_line(tmp_path, monkeypatch, capsys):
  """The traceback is kept; of orbax's threads nothing is said: their error is raised where they are waited for."""
  orbax_like = type("Thread", (threading.Thread,), {"__module__": "orbax.checkpoint.future"})
  monkeypatch.setattr(threading, "excepthook", threading.excepthook)

  def do(log):
    log.folder = str(tmp_path)
    for kind in (threading.Thread, orbax_like):
      one = kind(target=lambda: 1 / 0, name="worker")
      one.start()
      one.join()

  assert commands.run(do) == 0
  said, kept = capsys.readouterr().err, (tmp_path / "log.txt").read_text()
  assert said == f"jaxtrain: thread worker: ZeroDivisionError: division by zero (traceback in {tmp_path / 'log.txt'})\n"
  assert kept.count("Traceback") == 1


def test_reasons_of_stops_have_words_and_an_order():
  assert [str(reason) for reason in StopReason if reason] == ["time budget", "SIGINT", "SIGHUP", "SIGTERM"]
  assert not StopReason.NONE and [reason.value for reason in StopReason] == [0, 1, 2, 3, 4]


def test_the_reason_of_an_error_is_its_first_line_without_the_hint():
  assert errors.reason(NonFinite("a\nb", hint="c")) == "a"
  assert errors.reason(ValueError("a (--config.b)\nc")) == "a (--config.b)"
  assert errors.reason(ValueError()) == "ValueError" and isinstance(InUse("x"), ValueError)


@pytest.mark.parametrize("code, says", [
    (-9, "ended by SIGKILL"), (4, "ended by its watchdog"), (143, "ended by SIGTERM"), (130, "ended by SIGINT"),
    (1, "ended without giving a reason")])
def test_exit_codes_have_a_meaning(code, says):
  assert errors.meaning(code) == says


def test_the_package_lists_commands_and_configs():
  done = subprocess.run([sys.executable, "-m", "jaxtrain"], cwd=child.ROOT, capture_output=True, text=True, timeout=60)
  assert done.returncode == 0 and done.stderr == ""
  for name in package_main.COMMANDS:
    assert f"python -m jaxtrain.{name} " in done.stdout
  configs = [name for name in os.listdir(os.path.join(child.ROOT, "configs")) if name.endswith(".py")]
  for name in configs:
    path = os.path.join(child.ROOT, "configs", name)
    spec = importlib.util.spec_from_file_location("config_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    default = inspect.signature(module.get_config).parameters["variant"].default
    assert f"  configs/{name}: {default}, " in done.stdout and list(module.VARIANTS)[0] == default
  assert done.stdout.count("\n") == 3 + len(package_main.COMMANDS) + len(configs)


@pytest.mark.parametrize("module", [package_main, main, predict, sweep, report])
def test_help_speaks_of_the_task(module):
  """Examples that can be copied, and no word of files or modules of the source."""
  assert not re.search(r"\w\.py\b|`", re.sub(r"configs/\w+\.py", "", module.__doc__)), module.__name__
  assert module is package_main or module.__doc__.count("  python -m jaxtrain.") > 2


def test_the_package_lists_every_command_there_is():
  """A command is a module at the top of the package, or the `__main__` of a folder, with a function main."""
  found, top = set(), os.path.join(child.ROOT, "jaxtrain")
  for name in os.listdir(top):
    path = os.path.join(top, name, "__main__.py") if os.path.isdir(os.path.join(top, name)) else os.path.join(top, name)
    if path.endswith(".py") and os.path.exists(path) and name != "__main__.py":
      with open(path, encoding="utf-8") as file:
        found |= {name.removesuffix(".py")} if "\ndef main() -> int:" in file.read() else set()
  assert found == set(package_main.COMMANDS)


def test_commands_need_no_jax():
  code = "import jaxtrain.commands, jaxtrain.__main__, sys; assert 'jax' not in sys.modules"
  assert subprocess.run([sys.executable, "-c", code], cwd=child.ROOT, timeout=60).returncode == 0
