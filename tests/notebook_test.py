"""`jaxtrain.train`: what the command does, from Python, without ending the process."""

import json
import os
import signal
import time
import types

import numpy as np
import pytest

import child
import outside
import jaxtrain
from jaxtrain import commands, loop, notebook
from jaxtrain.errors import NonFinite, Stopped, UserError
from jaxtrain.run import stops
from jaxtrain.types import Input, Verb
from jaxtrain.workdir import quality


MINE = """import outside


def get_config(variant):
  config = outside.get_config(variant)
  config.loss.weights.error = 1.0  # of the squared errors
  config.train.num_epochs = 6  # a field of all experiments, whose meaning is known
  return config
"""


def config(**fields):
  made = outside.get_config("table")
  made.log.update(fields)
  return made


def test_fields_are_set_and_recorded_as_pythons(tmp_path, capsys):
  given = config(progress=True)
  result = jaxtrain.train(given, tmp_path / "run", **{"train.num_epochs": 2, "seed": 5})
  assert given.train.num_epochs == 6  # a copy is trained
  with open(tmp_path / "run" / "config.json", encoding="utf-8") as file:
    record = json.load(file)
  assert record["origins"] == {"train.num_epochs": "python", "seed": "python"} and record["seed"] == 5
  assert result.history["epoch"] == [1, 2] and result.workdir == str(tmp_path / "run")
  assert f"<result: best {result.best_value:.6g} at step {result.best_step}" in repr(result) and len(repr(result)) < 300
  said = capsys.readouterr().out
  assert "epoch 2" in said and said.endswith(f"jaxtrain: report: {tmp_path / 'run' / 'report.html'}\n")
  assert os.path.exists(tmp_path / "run" / "report.html")


def test_it_gives_what_the_loop_gives_and_leaves_no_file_without_a_workdir(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("TRAIN__NUM_EPOCHS", "3")  # holds for a config file alone
  first, second = jaxtrain.train(config()), jaxtrain.train(config())
  assert first.digest == second.digest == loop.train(config()).digest and len(first.history["epoch"]) == 6
  assert first.workdir is None and os.listdir(tmp_path) == []


def test_a_file_is_read_as_the_command_reads_it(tmp_path, monkeypatch):
  (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
  monkeypatch.setenv("TRAIN__NUM_EPOCHS", "3")
  result = jaxtrain.train(f"{tmp_path / 'mine.py'}:table", tmp_path / "run", seed=2)
  assert len(result.history["epoch"]) == 3
  with open(tmp_path / "run" / "config.json", encoding="utf-8") as file:
    assert json.load(file)["origins"] == {"train.num_epochs": "environment", "seed": "python"}
  with open(tmp_path / "run" / "run.json", encoding="utf-8") as file:
    assert json.load(file)["meanings"] == {"loss.weights.error": "of the squared errors"}


@pytest.mark.parametrize("fields, words", [
    ({"train.epochs": 3}, "train.epochs: no such field; did you mean train.num_epochs?"),
    ({"train.num_epochs": "3"}, "train.num_epochs: got '3', allowed a value of type int"),
    ({"train.num_epochs": -1}, "train.num_epochs: got -1, allowed"),
    ({"log.families": ("nonsense",)}, "nonsense")])
def test_mistakes_are_errors_of_python(fields, words):
  with pytest.raises(UserError) as caught:
    jaxtrain.train(config(), **fields)
  assert words in str(caught.value) and "config." not in str(caught.value)


def test_arguments_are_named_as_python_names_them(tmp_path):
  with pytest.raises(UserError, match="^config: no such file 'nowhere.py'"):
    jaxtrain.train("nowhere.py")
  with pytest.raises(UserError, match="^resume=required: .* holds no run"):
    jaxtrain.train(config(), tmp_path / "run", resume="required")


def test_a_run_that_halts_names_the_field_that_helps(monkeypatch):
  outside.change_steps(monkeypatch, lambda config, before, state, metrics: (
      state.replace(params={"slope": state.params["slope"] * np.nan}), metrics))
  with pytest.raises(NonFinite, match=r"is not finite; halted .* \(train\.on_nonfinite=skip goes on"):
    jaxtrain.train(config())


def test_a_verb_says_which_labels_a_column_takes():
  inputs = (Input("a"), Input("group", kind="label", required=False, values=("low", "high")),
            Input("many", kind="label", values=tuple("abcdefgh")))
  verb = Verb(run=None, pure=None, several="each", inputs=inputs)
  run = types.SimpleNamespace(experiment=types.SimpleNamespace(predict={"ask": verb}))
  assert repr(notebook.VerbFunction("ask", run, lambda: None)) == (
      "ask(rows of 3 columns: a, group (low | high), many (a | b | c | d | e | f | ...); cells may be missing)")


def interrupt_at(monkeypatch, step):
  """Sends this process an interrupt when so many steps of a run are done."""
  original = loop.Run.dispatch

  def dispatch(self, target, pace):
    original(self, target, pace)
    if self.step >= step:
      os.kill(os.getpid(), signal.SIGINT)
  monkeypatch.setattr(loop.Run, "dispatch", dispatch)


def test_an_interrupt_saves_and_handlers_are_as_before(tmp_path, monkeypatch):
  handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
  with monkeypatch.context() as patched:
    interrupt_at(patched, 10)
    with pytest.raises(Stopped, match=r"^SIGINT: saved at step \d+; the same call goes on$"):
      jaxtrain.train(config(), tmp_path / "run")
  warned = quality.of_workdir(str(tmp_path / "run")).warnings
  assert "the run is unfinished (its newest evaluation is at step" in warned[0]
  assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers
  result = jaxtrain.train(config(), tmp_path / "run")
  assert result.digest == loop.train(config()).digest
  assert child.resume_steps(str(tmp_path / "run"))[0] == 0 and child.resume_steps(str(tmp_path / "run"))[1] >= 10


def test_a_second_interrupt_is_one_of_python_and_does_not_end_the_process():
  assert not commands.running
  with pytest.raises(KeyboardInterrupt):
    with stops.Stop(0):
      os.kill(os.getpid(), signal.SIGINT)
      os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_while_a_library_is_busy_ends_nothing(monkeypatch):
  """The command ends the process then; in Python the interrupt comes when the library is done."""
  monkeypatch.setattr(stops, "GRACE_SECONDS", 0.05)
  with pytest.raises(Stopped, match="SIGINT"):
    with stops.Stop(0) as stop, stop.at_once(lambda reason: Stopped(str(reason))):
      stop.urgent, raised = None, stop.urgent  # as if the main thread were inside of a call
      os.kill(os.getpid(), signal.SIGINT)
      time.sleep(0.3)
      raise raised(stop.asked)
