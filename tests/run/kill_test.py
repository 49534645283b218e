"""Exact resume under kill -9: a run killed at any instant and started again ends as one never stopped.

A trial is killed twice, once at a time uniform over the training time after the first step, and once at a fault point
inside a save, a link swap or a deletion; then it is left to finish. Each kill is noted for the fault table of README.
"""

import json
import os
import random
import shutil
import time

import pytest

import child
import records

FLAGS = ("--config.train.num_epochs=30", "--config.checkpoint.every_epochs=2", "--config.log.figures=none",
         "--config.log.progress=False")
FAULT_POINTS = ("before_save", "during_save", "before_link", "during_link", "before_delete", "after_save")


@pytest.fixture
def reference(shared):
  """kind -> (digest, facts, training seconds) of the run never stopped."""
  def get(kind):
    workdir = str(shared.run(*records.KINDS[kind], *FLAGS))
    began = [line["time"] for line in child.process_facts(workdir) if "first_steps_done_after_seconds" in line][0]
    with open(os.path.join(workdir, "facts", "events.jsonl"), encoding="utf-8") as file:
      ended = [json.loads(line)["time"] for line in file][-1]
    return child.inspect(workdir)["digest"], child.facts(workdir), ended - began
  return get


def trial(number: int, flags: tuple[str, ...], workdir: str, seconds: float) -> list[tuple]:
  """Starts a run and kills it, twice; returns (where, whether it was killed, last step in its facts) of each.

  A run that came to its end unhurt, because the machine is faster now than when it was timed, is no trial: it is thrown
  away and made again with earlier kills.
  """
  for earlier in (1, 2, 4, 8):
    kills = [kill(random.Random(f"{number} {attempt}"), (number + attempt) % 2 == 0, flags, workdir, attempt,
                  seconds / earlier, earlier) for attempt in (1, 2)]
    if any(killed for _, killed, _ in kills):
      return kills
    shutil.rmtree(workdir)
  raise AssertionError(f"trial {number} was never killed: {kills}")


def kill(draw: random.Random, at_point: bool, flags, workdir: str, attempt: int, seconds: float, earlier: int) -> tuple:
  """Starts or resumes a run and kills it at a fault point or at a time."""
  if at_point:
    where = f"{draw.choice(FAULT_POINTS)}:{draw.randint(1, max(1, 8 // attempt // earlier))}"
    process = child.start(*flags, environ={"JAXTRAIN_FAULT": where})
    process.communicate(timeout=240)
  else:
    process = child.start(*flags)
    child.wait_for_first_step(process, workdir, attempt)
    wait = draw.uniform(0.0, 0.7 * seconds / attempt)
    where = f"{wait:.3f} s"
    time.sleep(wait)
    process.kill()
    process.communicate()
  return where, process.returncode == -9, child.last_reported(workdir)


def check_trial(kind: str, number: int, tmp_path, reference) -> None:
  """One trial with a kind of run."""
  digest, facts, seconds = reference(kind)
  workdir = str(tmp_path / "run")
  flags = (*records.KINDS[kind], *FLAGS, f"--workdir={workdir}")
  kills = trial(number, flags, workdir, seconds)
  last = child.run(*flags)
  survived = last.returncode == 0
  equal = survived and child.inspect(workdir)["digest"] == digest and child.facts(workdir) == facts
  again = [max(0, reported - began) for (_, killed, reported), began in zip(kills, child.resume_steps(workdir)[1:])
           if killed]
  for (where, _, _), steps in zip([kill for kill in kills if kill[1]], again):
    records.note("kill -9 " + ("inside a save" if ":" in where else "at a random time"), kind, survived=survived,
                 equal=equal, steps_again=steps)
  print(f"kill trial {number}: {kind}: {kills}, processes began at {child.resume_steps(workdir)}, equal {equal}")
  assert survived, last.stderr
  assert equal
  for link in ("best", "last"):
    assert os.path.isdir(os.path.join(workdir, "checkpoints", link))


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind != "vae"))
                                  for kind in records.EACH_CONFIG])
def test_killed_run_ends_as_one_never_stopped(kind, tmp_path, reference):
  check_trial(kind, 0, tmp_path, reference)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 101))
def test_killed_run_ends_as_one_never_stopped_many(number, tmp_path, reference):
  check_trial(list(records.KINDS)[number % len(records.KINDS)], number, tmp_path, reference)


@pytest.mark.slow
def test_a_fault_point_does_kill(tmp_path):
  """The trials above would pass if nothing were ever killed: a fault point ends the process by signal 9."""
  process = child.start(*records.KINDS["vae"], *FLAGS, f"--workdir={tmp_path / 'run'}",
                        environ={"JAXTRAIN_FAULT": "during_save:1"})
  process.communicate(timeout=240)
  assert process.returncode == -9
  assert [name for name in os.listdir(tmp_path / "run" / "checkpoints") if name.isdigit()] == []
