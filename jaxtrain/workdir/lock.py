"""The lock of a workdir: one process at a time trains in it."""

import fcntl
import os
import threading
import time

from jaxtrain import errors, streams
from jaxtrain.errors import GoneFolder, InUse, UserError

BEAT_SECONDS, STALE_SECONDS = 10.0, 60.0  # of a lock


class Lock:
  """Holds a workdir for this process: a second run in it is refused.

  On one machine `flock` decides, which the system releases if the process dies. Between machines it may not reach: the
  holder touches the file every BEAT_SECONDS, and a lock that names another host and has not been touched for
  STALE_SECONDS is taken over. Whether it is touched is watched, not read off a clock: clocks differ and jump.

  Raises:
    InUse: another process holds it. UserError: the folder cannot be made or written.
  """

  def __init__(self, workdir: str):
    try:
      os.makedirs(workdir, exist_ok=True)
      self.file = open(os.path.join(workdir, ".lock"), "a+")
    except OSError as error:
      raise UserError(f"--workdir: cannot write {workdir!r}: {error.strerror}") from None
    try:
      fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      free = os.path.exists(self.file.name) and os.path.samestat(os.fstat(self.file.fileno()), os.stat(self.file.name))
      if not free or not self.outwait_other_host():  # a holder that removed the file: another may hold a new one
        raise OSError
    except OSError:
      holder = self.holder() or "another process"
      self.file.close()
      raise InUse(f"--workdir: {workdir!r} is in use by {holder}; wait for it, or choose another workdir") from None
    self.mine = f"process {os.getpid()} on {os.uname().nodename}"
    self.file.truncate(0)
    self.file.write(self.mine)
    self.file.flush()
    self.done = threading.Event()
    threading.Thread(target=self.beat, daemon=True).start()

  def holder(self) -> str:
    """Who the file says holds it; empty after a run that ended in order."""
    self.file.seek(0)
    return self.file.read().strip()

  def outwait_other_host(self) -> bool:
    """Whether a holder on another host, if there is one, shows no sign of life for STALE_SECONDS."""
    holder, host = self.holder(), os.uname().nodename
    if not holder or holder.endswith(f" on {host}"):
      return True
    streams.say(f"jaxtrain: locked by {holder}; going on in {STALE_SECONDS:.0f} s if that run is dead")
    first, deadline = os.stat(self.file.name).st_mtime_ns, time.monotonic() + STALE_SECONDS
    while time.monotonic() < deadline:
      time.sleep(min(1.0, STALE_SECONDS / 10))
      if os.stat(self.file.name).st_mtime_ns != first:
        return False
    return True

  def beat(self) -> None:
    """Runs in a thread of its own until closed; ends the process if another has taken the workdir over meanwhile."""
    while not self.done.wait(BEAT_SECONDS):
      try:
        with open(self.file.name, encoding="utf-8") as file:
          holder = file.read()
        os.utime(self.file.name)
      except OSError:  # a file server that is away for a moment must not end the run
        continue
      if holder != self.mine and not self.done.is_set():
        streams.say(f"jaxtrain: the workdir was taken over by {holder}, because this process was silent", error=True)
        os._exit(errors.FAILED)

  def close(self) -> None:
    """Releases the workdir, and removes it where nothing was written into it.

    Raises:
      GoneFolder: somebody has removed it meanwhile; whatever else went wrong follows from that.
    """
    self.done.set()
    folder = os.path.dirname(self.file.name)
    if not os.path.exists(self.file.name) and not os.path.isdir(folder):
      self.file.close()
      raise GoneFolder(f"--workdir: {folder!r} was removed while it was in use; nothing of it is made again")
    if os.listdir(folder) == [".lock"]:
      os.remove(self.file.name)
      os.rmdir(folder)
    else:
      self.file.truncate(0)
    self.file.close()
