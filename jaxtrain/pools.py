"""Launchers that start every member of a sweep as a run of its own: a pool of processes here, or Slurm array jobs.

A member is `python -m jaxtrain.main` with the sweep's config file and the member's values as flags, so that it resumes,
stops and fails as any run does. Its exit code decides what becomes of it.

**Source:** submitit for Slurm arrays (extra `slurm`). It passes a job on as a pickle of its own in SWEEP/slurm.
**Departs** from DESIGN 3, which lists no such module: `sweep.py` is long enough without it.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Iterator, NamedTuple

from jaxtrain import preempt
from jaxtrain.types import UserError, need

IN_USE = "is in use by"  # how preempt.Lock refuses: a process of a killed sweep is still saving
WAIT_SECONDS = 90.0  # for such a process
GPUS = "/proc/driver/nvidia/gpus"  # a folder of each that the driver has
MAX_REQUEUES = 1000  # of a Slurm job whose time is up


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


def places(num_jobs: int) -> list[dict]:
  """Where processes of a pool may run: one GPU each where there are some, else one core each; `num_jobs` of them or 0.

  Each is {"environ": variables, "core": number or None}. An empty CUDA_VISIBLE_DEVICES says that no GPU may be used.
  """
  gpus = [str(k) for k in range(len(os.listdir(GPUS)))] if os.path.exists(GPUS) else []
  listed = os.environ["CUDA_VISIBLE_DEVICES"] if gpus and "CUDA_VISIBLE_DEVICES" in os.environ else None
  if listed is not None:
    gpus = [gpu for gpu in listed.split(",") if gpu]
  found = [{"environ": {"CUDA_VISIBLE_DEVICES": gpu}, "core": None} for gpu in gpus]
  found = found or [{"environ": {}, "core": core} for core in sorted(os.sched_getaffinity(0))]
  if num_jobs:
    found = [found[k % len(found)] for k in range(num_jobs)]
  return found


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


def run_local(jobs: list[Job], num_jobs: int, stop: preempt.Stop, started: Callable[[int], None]) -> Iterator[Outcome]:
  """Outcomes of jobs as they end, so many at a time.

  Raises:
    preempt.Stopped: asked to stop; the members that ran have saved.
  """
  waiting, free = list(jobs), places(num_jobs)
  running: dict[int, Running] = {}
  patience = {job.number: time.monotonic() + WAIT_SECONDS for job in jobs}
  try:
    while (waiting or running) and not stop.reason():
      while waiting and free and not stop.reason():
        job, place = waiting.pop(0), free.pop(0)
        started(job.number)
        running[job.number] = start(job, place)
      for number, one in list(running.items()):
        if one.process.poll() is None:
          continue
        del running[number]
        free.append(one.place)
        reason = one.last_line()
        if one.process.returncode == preempt.USAGE and IN_USE in reason and time.monotonic() < patience[number]:
          waiting.append(one.job)
          time.sleep(0.5)
        else:
          yield Outcome(number, one.process.returncode, reason)
      time.sleep(0.05)
  finally:
    for one in running.values():
      one.process.send_signal(signal.SIGTERM)
    for one in running.values():
      one.process.wait()
  if stop.reason():
    raise preempt.Stopped(f"{stop.reason()}: {len(running)} members saved, {len(waiting)} not started; the same "
                          "command goes on")


def last_line(text: str) -> str:
  """The last line that says something, without our name before it."""
  lines = [line for line in text.strip().splitlines() if line.strip()] or [""]
  return lines[-1].removeprefix("jaxtrain: ").partition(" (--config.")[0][:300]


class SlurmMember:
  """A member as submitit runs it: a callable for the command, and what is done when Slurm is about to stop the job."""

  def __init__(self, job: Job, folder: str):
    self.job, self.folder = job, folder
    self.running: Running | None = None

  def __call__(self) -> tuple[int, str]:
    """(exit code, last line) of the command."""
    os.chdir(self.folder)
    self.running = start(self.job, {"environ": {}, "core": None})
    return self.running.process.wait(), self.running.last_line()

  def checkpoint(self, *_):
    """Has the run save and end, and asks for the same again."""
    if self.running is not None:
      self.running.process.send_signal(signal.SIGTERM)
      self.running.process.wait()
    return need("submitit", "slurm").helpers.DelayedSubmission(SlurmMember(self.job, self.folder))


def slurm_settings(text: str) -> dict[str, Any]:
  """Parameters of submitit's executor from NAME=VALUE,NAME=VALUE. Raises UserError."""
  settings = {}
  for part in filter(None, text.split(",")):
    name, equals, value = part.partition("=")
    if not equals:
      raise UserError(f"--slurm: got {part!r}, allowed NAME=VALUE,NAME=VALUE, such as time=60,cpus_per_task=2")
    settings[name.strip()] = int(value) if value.strip().lstrip("-").isdigit() else value.strip()
  return settings


def queued() -> set[str] | None:
  """Slurm's numbers of the user's jobs that wait or run; None where Slurm does not answer."""
  asked = subprocess.run(["squeue", "-h", "-r", "--me", "-o", "%i %F_%K %A"], capture_output=True, text=True)
  return set(asked.stdout.split()) if asked.returncode == 0 else None


def submit(jobs: list[Job], folder: str, settings: str, num_jobs: int) -> list:
  """submitit's handles of jobs, submitted as one array.

  Raises:
    UserError: submitit is not installed, a parameter is not known, or there is no Slurm.
  """
  submitit = need("submitit", "slurm")
  logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns at each look where Slurm keeps no accounts
  try:
    executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=MAX_REQUEUES)
    executor.update_parameters(**{"job_name": "jaxtrain", "time": 60, "array_parallelism": num_jobs or len(jobs)}
                                 | slurm_settings(settings))
    with executor.batch():
      return [executor.submit(SlurmMember(job, os.getcwd())) for job in jobs]
  except (RuntimeError, TypeError, ValueError, OSError, submitit.core.utils.FailedJobError) as error:
    raise UserError(f"--launcher=slurm: {last_line(str(error))}") from None


def run_slurm(jobs: list[Job], folder: str, settings: str, num_jobs: int, stop: preempt.Stop, known: dict[int, str],
              started: Callable[..., None]) -> Iterator[Outcome]:
  """Outcomes of jobs as they end.

  Args:
    jobs: members to run; folder: of the sweep.
    settings: --slurm; num_jobs: at a time, 0 = all.
    known: Slurm's number of jobs that an earlier process of this sweep submitted: those still queued are waited for.
    started: told (number, job=Slurm's number) of what is submitted.

  Raises:
    UserError: as of `submit`. preempt.Stopped: asked to stop; what waits or runs is cancelled, and has saved.
  """
  submitit, folder = need("submitit", "slurm"), os.path.join(folder, "slurm")
  there = queued() if known else set()
  if there is None:
    raise UserError("--launcher=slurm: squeue does not answer, and jobs of this sweep may still run")
  waiting = {job.number: submitit.SlurmJob(folder, known[job.number]) for job in jobs
             if job.number in known and known[job.number] in there}
  fresh = [job for job in jobs if job.number not in waiting]
  for job, handle in zip(fresh, submit(fresh, folder, settings, num_jobs) if fresh else []):
    waiting[job.number] = handle
    started(job.number, job=handle.job_id)
  missing = dict.fromkeys(waiting, 0)  # looks at which a job was neither queued nor had a result
  while waiting and not stop.reason():
    there = queued()
    for number, handle in list(waiting.items()):
      if handle.paths.result_pickle.exists():
        failed = handle.exception()
        code, reason = (preempt.FAILED, last_line(str(failed))) if failed else handle.result()
        in_use = code == preempt.USAGE and IN_USE in reason  # by a job that was submitted and not noted
        yield Outcome(number, preempt.REQUEUE if in_use else code, reason)
      elif there is None or handle.job_id in there:
        missing[number] = 0
        continue
      else:
        missing[number] += 1
        if missing[number] < 5:  # files may take a while to be seen from here
          continue
        yield Outcome(number, preempt.FAILED, f"Slurm job {handle.job_id} left the queue without a result")
      del waiting[number]
    time.sleep(1.0)
  if stop.reason():
    for handle in waiting.values():
      handle.cancel()
    raise preempt.Stopped(f"{stop.reason()}: {len(waiting)} jobs cancelled; the same command goes on")
