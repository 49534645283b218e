"""An assessment in named parts: each is written as it ends, a stop ends it at once, and finished parts are kept."""

import json
import os
import signal
import time

import numpy as np

import child
import stopping
from jaxtrain import config as config_lib, loop
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
  straight = loop.train(configured(), str(tmp_path / "straight"))
  assert read(straight.workdir, "test") == union
  events, rows = child.facts(workdir)
  straight_events, straight_rows = child.facts(straight.workdir)
  same = lambda events: [{k: v for k, v in event.items() if k != "config_digest"} for event in events]
  assert same(events) == same(straight_events) and rows == straight_rows
  with np.load(os.path.join(workdir, "eval", "test-a.npz")) as arrays:
    error = np.asarray(arrays["slope"], np.float64)[:, 0] - [1.0, -2.0, 0.5]
  x = np.random.RandomState(0).normal(size=(100, 3))[::2]
  np.testing.assert_allclose(a["scalars"]["mse_a"], np.mean((x @ error) ** 2), rtol=1e-3, atol=1e-10)


def assessed(workdir):
  """(step, part, scalars) of the events of assessments."""
  return [(event["step"], event["split"], event["metrics"]) for event in child.facts(workdir)[0]
          if event["moment"] == "on_eval" and event["split"].startswith("test-")]


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
