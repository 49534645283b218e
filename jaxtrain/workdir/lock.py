"""The lock of a workdir: one process at a time trains in it."""

import fcntl
import os
import resource
import threading
import time
from typing import Any

from jaxtrain import errors, streams
from jaxtrain.errors import GoneFolder, InUse, UserError
from jaxtrain.workdir import atomic

BEAT_SECONDS, STALE_SECONDS = 10.0, 60.0  # of a lock
FEW_FILES = 512  # that a process has open besides


class Lock:
  """Holds workdirs for this process: a second run in one of them is refused. A context; leaving it releases them.

  On one machine `flock` decides, which the system releases if the process dies. Between machines it may not reach: the
  holder touches the file every BEAT_SECONDS, and a lock that names another host and has not been touched for
  STALE_SECONDS is taken over. Whether it is touched is watched, not read off a clock: clocks differ and jump.

  Raises:
    InUse: another process holds one of them. UserError: a folder cannot be made or written.
  """

  def __init__(self, *workdirs: str):
    self.mine = f"process {os.getpid()} on {os.uname().nodename}"
    self.files: list[Any] = []
    self.done = threading.Event()
    allow_files(len(workdirs))
    try:
      for workdir in workdirs:
        self.files.append(take(workdir, self.mine))
    except BaseException:
      self.close()
      raise
    threading.Thread(target=self.beat, daemon=True).start()

  def beat(self) -> None:
    """Runs in a thread of its own until closed; ends the process if another has taken a workdir over meanwhile."""
    while not self.done.wait(BEAT_SECONDS):
      for file in self.files:
        try:
          with open(file.name, encoding="utf-8") as now:
            holder = now.read()
          os.utime(file.name)
        except OSError:  # a file server that is away for a moment must not end the run
          continue
        if holder != self.mine and not self.done.is_set():
          streams.say(f"jaxtrain: the workdir was taken over by {holder}, because this process was silent", error=True)
          os._exit(errors.FAILED)

  def close(self) -> None:
    """Releases the workdirs, and removes those into which nothing was written.

    Raises:
      GoneFolder: somebody has removed one meanwhile; whatever else went wrong follows from that.
    """
    self.done.set()
    gone = [folder for file in self.files if not release(file, folder := os.path.dirname(file.name))]
    if gone:
      raise GoneFolder(f"--workdir: {gone[0]!r} was removed while it was in use; nothing of it is made again")

  def __enter__(self) -> "Lock":
    return self

  def __exit__(self, *_):
    self.close()


def take(workdir: str, mine: str) -> Any:
  """The open lock file of a workdir, which says from now on that it is `mine`. Raises as `Lock` does."""
  try:
    os.makedirs(workdir, exist_ok=True)
    file = atomic.open_own(os.path.join(workdir, ".lock"), "a+")
  except OSError as error:
    raise UserError(f"--workdir: cannot write {workdir!r}: {error.strerror}") from None
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    free = os.path.exists(file.name) and os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))
    if not free or not outwait_other_host(file):  # a holder that removed the file: another may hold a new one
      raise OSError
  except OSError:
    holder = holder_of(file) or "another process"
    file.close()
    raise InUse(f"--workdir: {workdir!r} is in use by {holder}; wait for it, or choose another workdir") from None
  file.truncate(0)
  file.write(mine)
  file.flush()
  return file


def release(file, folder: str) -> bool:
  """Lets go of a lock file, with its folder where nothing else is in it; returns whether the folder is still there."""
  there = os.path.exists(file.name) or os.path.isdir(folder)
  if there and os.listdir(folder) == [".lock"]:
    os.remove(file.name)
    os.rmdir(folder)
  elif there:
    file.truncate(0)
  file.close()
  return there


def allow_files(num_files: int) -> None:
  """Raises the number of files that this process may have open, as far as it may, by those of many workdirs."""
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  wanted = num_files + FEW_FILES
  if num_files > 1 and soft != resource.RLIM_INFINITY and soft < wanted:
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def holder_of(file) -> str:
  """Who a lock file says holds it; empty after a run that ended in order."""
  file.seek(0)
  return file.read().strip()


def outwait_other_host(file) -> bool:
  """Whether a holder on another host, if there is one, shows no sign of life for STALE_SECONDS."""
  holder, host = holder_of(file), os.uname().nodename
  if not holder or holder.endswith(f" on {host}"):
    return True
  streams.say(f"jaxtrain: locked by {holder}; going on in {STALE_SECONDS:.0f} s if that run is dead")
  first, deadline = os.stat(file.name).st_mtime_ns, time.monotonic() + STALE_SECONDS
  while time.monotonic() < deadline:
    time.sleep(min(1.0, STALE_SECONDS / 10))
    if os.stat(file.name).st_mtime_ns != first:
      return False
  return True
