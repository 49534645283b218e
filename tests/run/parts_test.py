"""An assessment in named parts: each is written as it ends, a stop ends it at once, and finished parts are kept."""

import json
import os
import signal
import subprocess
import sys
import time
import types
from unittest import mock

import numpy as np
import pytest

import child
import stopping
from jaxtrain import config as config_lib, loop
from jaxtrain.errors import Stopped
from jaxtrain.run import evaluate
from toys import parts

ENVIRON = {"PYTHONPATH": os.pathsep.join((child.ROOT, os.path.join(child.ROOT, "tests")))}


def read(workdir, name):
  with open(os.path.join(workdir, "eval", f"{name}.json"), encoding="utf-8") as file:
    return json.load(file)


def age(workdir, name):
  return os.stat(os.path.join(workdir, "eval", f"{name}.json")).st_mtime_ns


def configured(**fields):
  config = parts.get_config()
  for key, value in fields.items():
    config_lib.assign(config, key, value)
  return config


@pytest.mark.slow
def test_a_stop_ends_a_part_at_once_and_only_that_part_is_done_again(tmp_path):
  """A real SIGTERM while the second part sleeps: exit 85, the first part's files stand, and stay as they are."""
  workdir = str(tmp_path / "run")
  flags = ("--config=tests/toys/parts.py", f"--workdir={workdir}")
  process = child.start(*flags, environ=ENVIRON | {parts.SECONDS: "200"})
  deadline = time.monotonic() + 200
  while not os.path.exists(os.path.join(workdir, "eval", "test.json")) and process.poll() is None:
    assert time.monotonic() < deadline
    time.sleep(0.05)
  process.send_signal(signal.SIGTERM)
  _, err = process.communicate(timeout=60)
  assert process.returncode == 85 and "SIGTERM" in err, err
  assert sorted(os.listdir(os.path.join(workdir, "eval"))) == ["test-a.json", "test-a.npz", "test.json"]
  assert set(read(workdir, "test")["scalars"]) == {"rows_a", "mse_a"}
  before, age_a = read(workdir, "test-a"), age(workdir, "test-a")
  done = child.run(*flags, environ=ENVIRON)
  assert done.returncode == 0 and "test-a is assessed already" in done.stdout, done.stderr
  a, b, union = (read(workdir, name) for name in ("test-a", "test-b", "test"))
  assert age(workdir, "test-a") == age_a and a == before
  assert union["scalars"] == a["scalars"] | b["scalars"] and union["step"] == a["step"] == b["step"]
  assert union["digest"] == a["digest"] == b["digest"]
  straight = str(tmp_path / "straight")
  assert child.run(flags[0], f"--workdir={straight}", environ=ENVIRON).returncode == 0
  assert read(straight, "test") == union
  events, rows = child.facts(workdir)
  straight_events, straight_rows = child.facts(straight)
  same = lambda events: [{k: v for k, v in event.items() if k != "config_digest"} for event in events]
  assert same(events) == same(straight_events) and rows == straight_rows
  with np.load(os.path.join(workdir, "eval", "test-a.npz")) as arrays:
    error = np.asarray(arrays["slope"], np.float64)[:, 0] - [1.0, -2.0, 0.5]
  x = np.random.RandomState(0).normal(size=(100, 3))[::2]
  np.testing.assert_allclose(a["scalars"]["mse_a"], np.mean((x @ error) ** 2), rtol=1e-3, atol=1e-10)


@pytest.mark.slow
def test_an_assessment_again_that_was_stopped_goes_on_and_a_finished_one_does_all(tmp_path, capsys):
  """Stopped between the parts, then while it draws: what was done is not repeated until all is done."""
  run = loop.train(configured(), str(tmp_path / "run"))
  ages = lambda: [age(run.workdir, name) for name in ("test-a", "test-b")]

  def stop(*_):
    raise Stopped("SIGTERM")

  first = ages()
  with mock.patch.object(parts, "assess_b", stop), pytest.raises(Stopped):
    loop.evaluate(configured(), run.workdir)
  second = ages()
  assert second[0] > first[0] and second[1] == first[1]
  with pytest.raises(Stopped):
    loop.evaluate(configured(), run.workdir, draw=stop)
  third = ages()
  assert third[0] == second[0] and third[1] > second[1]
  drawn = []
  loop.evaluate(configured(), run.workdir, draw=lambda *what: drawn.append(what))
  assert ages() == third and drawn == [(run.workdir, "end")]
  assert capsys.readouterr().out.count("test-a is assessed already") == 2
  loop.evaluate(configured(), run.workdir)
  assert min(map(int.__gt__, ages(), third)) and not os.path.exists(os.path.join(run.workdir, "eval", ".again"))


DRAWING = """
import sys, time
from jaxtrain import main, notebook
def draw(workdir, moment):
  open(f"{workdir}/drawing", "w").close()
  while True:  # in small sleeps, as drawing is many small calls
    time.sleep(0.05)
if "--slow" in sys.argv:
  sys.argv.remove("--slow")
  notebook.draw = draw
sys.exit(main.main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["train", pytest.param("eval", marks=pytest.mark.slow)])
def test_a_signal_while_figures_are_drawn_ends_it_at_once_and_they_are_drawn_next(mode, tmp_path):
  workdir = str(tmp_path / "run")
  if mode == "eval":
    loop.train(configured(), workdir)
  flags = [sys.executable, "-c", DRAWING, "--config=tests/toys/parts.py", f"--workdir={workdir}", f"--mode={mode}"]
  process = subprocess.Popen([*flags, "--slow"], cwd=child.ROOT, env=os.environ | ENVIRON, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
  deadline = time.monotonic() + 200
  while not os.path.exists(os.path.join(workdir, "drawing")) and process.poll() is None:
    assert time.monotonic() < deadline
    time.sleep(0.05)
  sent = time.monotonic()
  process.send_signal(signal.SIGTERM)
  _, err = process.communicate(timeout=60)
  assert process.returncode == 85 and time.monotonic() - sent < 5 and len(err.splitlines()) == 1, err
  before = [age(workdir, name) for name in ("test-a", "test-b")]
  done = subprocess.run(flags, cwd=child.ROOT, env=os.environ | ENVIRON, capture_output=True, text=True, timeout=200)
  assert done.returncode == 0 and os.path.exists(os.path.join(workdir, "report.html")), done.stderr
  assert [age(workdir, name) for name in ("test-a", "test-b")] == before


def assessed(workdir):
  """(step, part, scalars) of the events of assessments."""
  return [(event["step"], event["split"], event["metrics"]) for event in child.facts(workdir)[0]
          if event["moment"] == "on_eval" and event["split"].startswith("test-")]


@pytest.mark.slow
def test_by_cadence_it_is_in_the_facts_and_a_stopped_run_has_the_same(tmp_path, monkeypatch):
  """Every 10 of 42 steps, and at the end from the best state; asked to leave in every place there is to ask."""
  fields = {"eval.assess_every_steps": 10}
  straight = loop.train(configured(**fields), str(tmp_path / "straight"))
  found = assessed(straight.workdir)
  assert [(step, part) for step, part, _ in found] == [(step, part) for step in (10, 20, 30, 40)
                                                       for part in ("test-a", "test-b")]
  errors = [metrics["mse_a"] for _, part, metrics in found if part == "test-a"]
  assert errors == sorted(errors, reverse=True) and len(set(errors)) == 4
  stopped, stops = stopping.train(configured(**fields), str(tmp_path / "stopped"), monkeypatch, every=3, num_steps=4)
  assert stops >= 4 and stopped.digest == straight.digest
  assert child.facts(stopped.workdir) == child.facts(straight.workdir)
  assert read(stopped.workdir, "test") == read(straight.workdir, "test")


@pytest.mark.parametrize("declared, words", [
    ({}, "assessed test, 16 rows: mse 0.5"),
    ({"rows": {"unit": "tasks", "key": False}}, "assessed test, 16 tasks: mse 0.5")])
def test_what_was_assessed_is_counted_in_its_own_word(declared, words):
  said = []
  ledger = types.SimpleNamespace(declared_metrics=lambda: declared, facts=types.SimpleNamespace(rows=[]),
                                 console=types.SimpleNamespace(say=said.append))
  evaluate.say_assessed(ledger, "test", 3, {"rows": 16, "mse": 0.5})
  assert said == [f"jaxtrain: {words}"]


def test_of_two_values_of_one_quantity_that_of_the_assessment_is_said():
  """The evaluation has drawn other graphs: 0.56 and 0.57 of one metric, and one value of the others."""
  said, test = [], {"loss": 0.25, "f1": 0.56, "auroc": 0.75}
  ledger = types.SimpleNamespace(
      declared_metrics=dict, console=types.SimpleNamespace(say=said.append),
      facts=types.SimpleNamespace(rows=[{"split": "test", "step": 3} | {f"metric_{k}": v for k, v in test.items()}]))
  found = {"test-id": {"f1": 0.57, "auroc": 0.75}, "test-other": {"f1/other": 0.3}, "val": {"auroc": 0.8}}
  evaluate.say_assessed(ledger, "test-id", 3, found["test-id"])
  assert said == ["jaxtrain: assessed test-id, by samples of its own (cite these, not those of facts/scalars.csv): "
                  "f1 0.57, auroc 0.75"]
  assert evaluate.left_to_say(test, found) == {"loss": 0.25, "auroc": 0.75}
  assert evaluate.left_to_say(test, {}) == test and evaluate.left_to_say(None, found) is None
