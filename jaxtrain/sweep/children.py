"""Launchers that start every member of a sweep as a run of its own: a pool of processes here, or Slurm array jobs.

A member is `python -m jaxtrain.main` with the sweep's config file and the member's values as flags, so that it resumes,
stops and fails as any run does. Its exit code decides what becomes of it.

**Source:** submitit for Slurm arrays (extra `slurm`). It passes a job on as a pickle of its own in SWEEP/slurm.
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from typing import Any, Callable, NamedTuple

IN_USE = "is in use by"  # how preempt.Lock refuses: a process of a killed sweep is still saving


class Job(NamedTuple):
  """A member to start: its number, flags of `jaxtrain.main`, and its folder."""
  number: int
  flags: list[str]
  workdir: str

  def command(self) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "jaxtrain.main", *self.flags, f"--workdir={self.workdir}"]


class Outcome(NamedTuple):
  """What became of a member: its exit code, and the last line it said."""
  number: int
  code: int
  reason: str


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
  """A member's process, where it runs, and a file of what it says on stderr: a pipe that nobody reads fills up."""
  job: Job
  place: dict
  process: subprocess.Popen
  said: Any

  def last_line(self) -> str:
    """The last line that it said."""
    self.said.seek(0)
    return last_line(self.said.read())


def start(job: Job, place: dict) -> Running:
  """Starts a member's process."""
  os.makedirs(job.workdir, exist_ok=True)
  said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
  process = subprocess.Popen(job.command(), env=os.environ | place["environ"], stdout=subprocess.DEVNULL, stderr=said,
                             preexec_fn=settle(place),
                             start_new_session=True)  # Ctrl-C is for the sweep, which then asks each member once
  return Running(job, place, process, said)


def last_line(text: str) -> str:
  """The last line that says something, without our name before it."""
  lines = [line for line in text.strip().splitlines() if line.strip()] or [""]
  return lines[-1].removeprefix("jaxtrain: ").partition(" (--config.")[0][:300]
