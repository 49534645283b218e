"""Launchers that start every member of a sweep as a run of its own: a pool of processes here, or Slurm array jobs.

A member is `python -m jaxtrain.main` with the sweep's config file and the member's values as flags, so that it resumes,
stops and fails as any run does. It says in a small file how it has ended; one that was killed leaves none.
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from typing import Any, Callable, NamedTuple

from jaxtrain import commands, errors
from jaxtrain.commands import Outcome


class Job(NamedTuple):
  """A member to start: its number, flags of `jaxtrain.main`, and its folder."""
  number: int
  flags: list[str]
  workdir: str

  def command(self) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "jaxtrain.main", *self.flags, f"--workdir={self.workdir}"]


def as_flag(key: str, value: Any) -> str:
  """--config.KEY=VALUE as main reads it back."""
  return f"--config.{key}={value}"


def settle(place: dict) -> Callable[[], None]:
  """What a child does before it becomes the command: keeps to its core, and is stopped when this process dies."""
  libc = ctypes.CDLL(None)
  def before():
    libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm warns all processes of a job; submitit's passes it on
    if place["core"] is not None:
      os.sched_setaffinity(0, {place["core"]})
  return before


class Running(NamedTuple):
  """A member's process, where it runs, and a temporary folder for what it says on stderr and for its outcome."""
  job: Job
  place: dict
  process: subprocess.Popen
  folder: tempfile.TemporaryDirectory

  def wait(self) -> Outcome:
    """Waits until the process has ended and returns how; removes the temporary folder."""
    code = self.process.wait()
    with self.folder as folder:
      outcome = commands.read_outcome(os.path.join(folder, "outcome.json"))
      if outcome is None or outcome.code != code:  # killed before it could leave one, or while it was leaving
        with open(os.path.join(folder, "stderr"), encoding="utf-8", errors="replace") as file:
          said = last_line(file.read())
        outcome = Outcome(code, "", errors.meaning(code) + (f"; it last said: {said}" if said else ""))
    return outcome


def start(job: Job, place: dict) -> Running:
  """Starts a member's process."""
  os.makedirs(job.workdir, exist_ok=True)
  folder = tempfile.TemporaryDirectory(prefix="jaxtrain-")
  environ = os.environ | place["environ"] | {commands.OUTCOME_VARIABLE: os.path.join(folder.name, "outcome.json")}
  with open(os.path.join(folder.name, "stderr"), "wb") as said:  # no pipe: one that nobody reads fills up
    process = subprocess.Popen(job.command(), env=environ, stdout=subprocess.DEVNULL, stderr=said,
                               preexec_fn=settle(place),
                               start_new_session=True)  # Ctrl-C is for the sweep, which then asks each member once
  return Running(job, place, process, folder)


def last_line(text: str) -> str:
  """The last line of text for people that holds something, cut where it is long."""
  lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
  return lines[-1][:300]
