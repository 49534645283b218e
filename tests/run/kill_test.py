"""Exact resume under kill -9: a run killed at any instant and started again ends as one never stopped.

A trial is killed at a time uniform over the training time after the first step, or (every second kill) at a fault point
inside a save, a link swap or a deletion, and then left to finish; the slow trials are killed twice. The variable
JAXTRAIN_KILL_TRIALS asks for more slow trials than 25. Each is noted for the fault table of README.
"""

import json
import os
import random
import shutil
import time

import pytest

import child
import records

FLAGS = ("--config.train.num_epochs=60", "--config.checkpoint.every_epochs=2",
         "--config.log.figures=none", "--config.log.progress=False", "--config.data.row_limit=2000")
NUM_TRIALS = int(os.environ["JAXTRAIN_KILL_TRIALS"]) if "JAXTRAIN_KILL_TRIALS" in os.environ else 25
FAULT_POINTS = ("before_save", "during_save", "before_link", "during_link", "before_delete", "after_save")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
  """kind -> (digest, facts, training seconds) of the run never stopped, made once."""
  made = {}

  def get(kind):
    if kind not in made:
      workdir = str(tmp_path_factory.mktemp("reference") / "run")
      done = child.run(*records.KINDS[kind], *FLAGS, f"--workdir={workdir}")
      assert done.returncode == 0, done.stderr
      began = [line["time"] for line in child.process_facts(workdir) if "first_steps_done_after_seconds" in line][0]
      with open(os.path.join(workdir, "facts", "events.jsonl"), encoding="utf-8") as file:
        ended = [json.loads(line)["time"] for line in file][-1]
      made[kind] = child.inspect(workdir)["digest"], child.facts(workdir), ended - began
    return made[kind]
  return get


def trial(number: int, num_kills: int, flags: tuple[str, ...], workdir: str, seconds: float) -> list[tuple]:
  """Starts a run and kills it, several times; returns (where, whether it was killed, last step in its facts) of each.

  A run that came to its end unhurt, because the machine is faster now than when it was timed, is no trial: it is thrown
  away and made again with earlier kills.
  """
  for earlier in (1, 2, 4, 8):
    kills = [kill(random.Random(f"{number} {attempt}"), (number + attempt) % 2 == 0, flags, workdir, attempt,
                  seconds / earlier, earlier) for attempt in range(1, num_kills + 1)]
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


def check_trial(number: int, num_kills: int, tmp_path, reference) -> None:
  """One trial with the kind of run whose turn it is."""
  kind = list(records.KINDS)[number % len(records.KINDS)]
  digest, facts, seconds = reference(kind)
  workdir = str(tmp_path / "run")
  flags = (*records.KINDS[kind], *FLAGS, f"--workdir={workdir}")
  kills = trial(number, num_kills, flags, workdir, seconds)
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


@pytest.mark.parametrize("number", range(5))
def test_killed_run_ends_as_one_never_stopped(number, tmp_path, reference):
  check_trial(number, 1, tmp_path, reference)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(5, 5 + NUM_TRIALS))
def test_killed_run_ends_as_one_never_stopped_many(number, tmp_path, reference):
  check_trial(number, 2, tmp_path, reference)


def test_a_fault_point_does_kill(tmp_path):
  """The trials above would pass if nothing were ever killed: a fault point ends the process by signal 9."""
  process = child.start(*records.KINDS["vae"], *FLAGS, f"--workdir={tmp_path / 'run'}",
                        environ={"JAXTRAIN_FAULT": "during_save:1"})
  process.communicate(timeout=240)
  assert process.returncode == -9
  assert [name for name in os.listdir(tmp_path / "run" / "checkpoints") if name.isdigit()] == []
