"""The launcher that submits members as an array of Slurm jobs.

**Source:** submitit (extra `slurm`). It passes a job on as a pickle of its own in SWEEP/slurm, and its result as
another. That one is never read, because the folder may hold a stranger's: each job leaves its outcome as JSON.
"""

import logging
import os
import signal
import subprocess
import time
from typing import Any, Callable, Iterator

from jaxtrain import commands, errors
from jaxtrain.commands import Outcome
from jaxtrain.errors import InUse, Stopped, UserError, need
from jaxtrain.run import stops
from jaxtrain.sweep import children
from jaxtrain.sweep.children import Job, Running

MAX_REQUEUES = 1000  # of a Slurm job whose time is up


class SlurmMember:
  """A member as submitit runs it: a callable for the command, and what is done when Slurm is about to stop the job."""

  def __init__(self, job: Job, folder: str):
    self.job, self.folder = job, folder
    self.running: Running | None = None

  def __call__(self) -> Outcome:
    """How the command has ended; left beside the job too."""
    os.chdir(self.folder)
    self.running = children.start(self.job, {"environ": {}, "core": None})
    outcome = self.running.wait()
    environment = need("submitit", "slurm").JobEnvironment()
    commands.write_outcome(outcome, {commands.OUTCOME_VARIABLE: outcome_path(environment.paths.folder,
                                                                             environment.job_id)})
    return outcome

  def checkpoint(self, *_):
    """Has the run save and end, and asks for the same again."""
    if self.running is not None:
      self.running.process.send_signal(signal.SIGTERM)
      self.running.wait()
    return need("submitit", "slurm").helpers.DelayedSubmission(SlurmMember(self.job, self.folder))


def outcome_path(folder: str | os.PathLike, job_id: str) -> str:
  """Where the job of a number leaves its outcome."""
  return os.path.join(folder, f"{job_id}_outcome.json")


def read_outcome(folder: str, handle) -> Outcome:
  """How a job has ended that Slurm no longer has."""
  outcome = commands.read_outcome(outcome_path(folder, handle.job_id))
  if outcome is None:
    outcome = Outcome(errors.FAILED, "", children.last_line(handle.stderr() or "the job left no outcome"))
  if outcome.kind == InUse.__name__:  # by a job that was submitted and not noted
    outcome = outcome._replace(code=errors.REQUEUE)
  return outcome


def slurm_settings(text: str) -> dict[str, Any]:
  """Parameters of submitit's executor from NAME=VALUE,NAME=VALUE. Raises UserError."""
  settings = {}
  for part in filter(None, text.split(",")):
    name, equals, value = part.partition("=")
    if not equals:
      raise UserError(f"--slurm: got {part!r}, allowed NAME=VALUE,NAME=VALUE, such as time=60,cpus_per_task=2")
    settings[name.strip()] = int(value) if value.isascii() and value.strip().lstrip("-").isdigit() else value.strip()
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
    raise UserError(f"--launcher=slurm: {children.last_line(str(error))}") from None


def run_slurm(jobs: list[Job], folder: str, settings: str, num_jobs: int, stop: stops.Stop, known: dict[int, str],
              started: Callable[..., None]) -> Iterator[tuple[int, Outcome]]:
  """(number, outcome) of jobs as they end.

  Args:
    jobs: members to run; folder: of the sweep.
    settings: --slurm; num_jobs: at a time, 0 = all.
    known: Slurm's number of jobs that an earlier process of this sweep submitted: those still queued are waited for.
    started: told (number, job=Slurm's number) of what is submitted.

  Raises:
    UserError: as of `submit`. Stopped: asked to stop; what waits or runs is cancelled, and has saved.
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
        yield number, read_outcome(folder, handle)
      elif there is None or handle.job_id in there:
        missing[number] = 0
        continue
      else:
        missing[number] += 1
        if missing[number] < 5:  # files may take a while to be seen from here
          continue
        yield number, Outcome(errors.FAILED, "", f"Slurm job {handle.job_id} left the queue without a result")
      del waiting[number]
    time.sleep(1.0)
  if stop.reason():
    for handle in waiting.values():
      handle.cancel()
    raise Stopped(f"{stop.reason()}: {len(waiting)} jobs cancelled; the same command goes on")
