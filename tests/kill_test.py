"""Exact resume under kill -9: a run killed at any instant and started again ends as one never stopped.

A trial is killed at a time uniform over the training time after the first step, or (every second kill) at a fault point
inside a save, a link swap or a deletion, and then left to finish; the slow trials are killed twice. Each prints a
record.
"""

import json
import os
import random
import shutil
import time

import pytest

import child

FLAGS = ("--config=configs/vae.py:smoke", "--config.train.num_epochs=60", "--config.checkpoint.every_epochs=2",
         "--config.log.figures=none", "--config.log.progress=False", "--config.data.row_limit=2000")
FAULT_POINTS = ("before_save", "during_save", "before_link", "during_link", "before_delete", "after_save")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
  """Digest, facts and training seconds of the run never stopped."""
  workdir = str(tmp_path_factory.mktemp("reference") / "run")
  done = child.run(*FLAGS, f"--workdir={workdir}")
  assert done.returncode == 0, done.stderr
  began = [line["time"] for line in child.process_facts(workdir) if "first_steps_done_after_seconds" in line][0]
  with open(os.path.join(workdir, "facts", "events.jsonl"), encoding="utf-8") as file:
    ended = [json.loads(line)["time"] for line in file][-1]
  return child.inspect(workdir)["digest"], child.facts(workdir), ended - began


def trial(number: int, num_kills: int, workdir: str, training_seconds: float) -> list[str]:
  """Kills a run and lets it finish; returns how it was killed.

  A run that came to its end unhurt, because the machine is faster now than when it was timed, is no trial: it is thrown
  away and made again with earlier kills.
  """
  for earlier in (1, 2, 4, 8):
    kills = [kill(random.Random(f"{number} {attempt}"), (number + attempt) % 2 == 0, workdir, attempt,
                  training_seconds / earlier, earlier) for attempt in range(1, num_kills + 1)]
    if not all(kill.endswith(("not reached", "after its end")) for kill in kills):
      break
    shutil.rmtree(workdir)
  else:
    raise AssertionError(f"trial {number} was never killed: {kills}")
  done = child.run(*FLAGS, f"--workdir={workdir}")
  assert done.returncode == 0, done.stderr
  return kills


def kill(draw: random.Random, at_point: bool, workdir: str, attempt: int, training_seconds: float, earlier: int) -> str:
  """Starts or resumes a run and kills it at a fault point or at a time; returns where, or that it did not come to it."""
  if at_point:
    fault = f"{draw.choice(FAULT_POINTS)}:{draw.randint(1, max(1, 8 // attempt // earlier))}"
    process = child.start(*FLAGS, f"--workdir={workdir}", environ={"JAXTRAIN_FAULT": fault})
    process.communicate(timeout=240)
    return fault if process.returncode == -9 else f"{fault} not reached"
  process = child.start(*FLAGS, f"--workdir={workdir}")
  child.wait_for_first_step(process, workdir, attempt)
  seconds = draw.uniform(0.0, 0.7 * training_seconds / attempt)
  time.sleep(seconds)
  process.kill()
  process.communicate()
  return f"{seconds:.3f} s" if process.returncode == -9 else f"{seconds:.3f} s after its end"


def check_trial(number: int, num_kills: int, tmp_path, reference) -> None:
  digest, facts, seconds = reference
  workdir = str(tmp_path / "run")
  kills = trial(number, num_kills, workdir, seconds)
  resumed = child.resume_steps(workdir)
  equal = child.inspect(workdir)["digest"] == digest and child.facts(workdir) == facts
  print(f"kill trial {number}: killed at {kills}, processes began at steps {resumed}, equal {equal}")
  assert child.inspect(workdir)["digest"] == digest
  assert child.facts(workdir) == facts
  for link in ("best", "last"):
    assert os.path.isdir(os.path.join(workdir, "checkpoints", link))


@pytest.mark.parametrize("number", range(5))
def test_killed_run_ends_as_one_never_stopped(number, tmp_path, reference):
  check_trial(number, 1, tmp_path, reference)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(5, 30))
def test_killed_run_ends_as_one_never_stopped_many(number, tmp_path, reference):
  check_trial(number, 2, tmp_path, reference)


def test_a_fault_point_does_kill(tmp_path):
  """The trials above would pass if nothing were ever killed: a fault point ends the process by signal 9."""
  process = child.start(*FLAGS, f"--workdir={tmp_path / 'run'}", environ={"JAXTRAIN_FAULT": "during_save:1"})
  process.communicate(timeout=240)
  assert process.returncode == -9
  assert [name for name in os.listdir(tmp_path / "run" / "checkpoints") if name.isdigit()] == []
