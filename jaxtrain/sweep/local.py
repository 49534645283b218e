"""The launcher that starts members as processes on this machine, one per core or GPU."""

import os
import signal
import time
from typing import Callable, Iterator

from jaxtrain.commands import Outcome
from jaxtrain.errors import InUse, Stopped
from jaxtrain.run import stops
from jaxtrain.sweep import children
from jaxtrain.sweep.children import Job, Running

WAIT_SECONDS = 90.0  # for a process of a killed sweep that is still saving and holds a member's folder
GPUS = "/proc/driver/nvidia/gpus"  # a folder of each that the driver has


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


def run_local(jobs: list[Job], num_jobs: int, stop: stops.Stop,
              started: Callable[[int], None]) -> Iterator[tuple[int, Outcome]]:
  """(number, outcome) of jobs as they end, so many at a time.

  Raises:
    Stopped: asked to stop; the members that ran have saved.
  """
  waiting, free = list(jobs), places(num_jobs)
  running: dict[int, Running] = {}
  patience = {job.number: time.monotonic() + WAIT_SECONDS for job in jobs}
  try:
    while (waiting or running) and not stop.reason():
      while waiting and free and not stop.reason():
        job, place = waiting.pop(0), free.pop(0)
        started(job.number)
        running[job.number] = children.start(job, place)
      for number, one in list(running.items()):
        if one.process.poll() is None:
          continue
        del running[number]
        free.append(one.place)
        outcome = one.wait()
        if outcome.kind == InUse.__name__ and time.monotonic() < patience[number]:
          waiting.append(one.job)
          time.sleep(0.5)
        else:
          yield number, outcome
      time.sleep(0.05)
  finally:
    for one in running.values():
      one.process.send_signal(signal.SIGTERM)
    for one in running.values():
      one.wait()
  if stop.reason():
    raise Stopped(f"{stop.reason()}: {len(running)} members saved, {len(waiting)} not started; the same "
                  "command goes on")
