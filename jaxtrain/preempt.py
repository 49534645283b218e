"""Stops and the protection of a workdir: exit codes, signals, time budget, watchdog, lock, and fault points for tests.

**Departs** from DESIGN 3: imports `processes`, of the same rank: one of several may have to wait for the others.

A first SIGTERM or SIGINT asks the loop to save and leave at the next boundary of a dispatch; a second ends the process.
"""

import faulthandler
import fcntl
import os
import signal
import sys
import threading
import time

from jaxtrain import processes
from jaxtrain.types import UserError

DONE, FAILED, USAGE, NONFINITE, WATCHDOG, REQUEUE = 0, 1, 2, 3, 4, 85

BEAT_SECONDS, STALE_SECONDS = 10.0, 60.0  # of a lock

# Test-only: JAXTRAIN_FAULT=NAME:K ends the process by SIGKILL the K-th time the named point is passed.
FAULT_VARIABLE = "JAXTRAIN_FAULT"
FAULT_POINTS = ("before_save", "during_save", "before_link", "during_link", "before_delete", "after_save")
passed: dict[str, int] = {}


class Stopped(Exception):
  """The run was asked to stop and is saved; its text says by what."""


class NonFinite(Exception):
  """Training met a value that is not finite and halts."""


def fault_point(name: str) -> None:
  """Ends the process here by SIGKILL when the test-only variable says so."""
  wanted = os.environ[FAULT_VARIABLE] if FAULT_VARIABLE in os.environ else ""
  if wanted.partition(":")[0] == name:
    passed[name] = passed[name] + 1 if name in passed else 1
    if passed[name] == int(wanted.partition(":")[2]):
      os.kill(os.getpid(), signal.SIGKILL)


class Stop:
  """Watches for signals and the time budget while a run trains; a context manager that restores the handlers."""

  def __init__(self, budget_minutes: float):
    self.deadline = time.monotonic() + 60 * budget_minutes if budget_minutes > 0 else None
    self.signal_name: str | None = None
    self.old_handlers = {}

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT):
        self.old_handlers[number] = signal.signal(number, self.on_signal)
    return self

  def __exit__(self, kind, *_):
    waits = kind is Stopped and processes.several()  # for the others to leave: a late signal must not end it first
    for number, handler in self.old_handlers.items():
      signal.signal(number, signal.SIG_IGN if waits else handler)

  def on_signal(self, number, _):
    """First signal: remember it. Second: leave at once with 128 + its number."""
    if self.signal_name is not None:
      os._exit(128 + number)
    self.signal_name = signal.Signals(number).name
    os.write(2, f"\n{self.signal_name}: saving at the next step boundary; once more to leave at once\n".encode())

  def reason(self, begun: bool = True) -> str | None:
    """Why the run should stop now; None to go on. A budget that is shorter than starting takes still gets a step done.
    """
    if self.signal_name:
      return self.signal_name
    if begun and self.deadline is not None and time.monotonic() >= self.deadline:
      return "time budget"
    return None


class Watchdog:
  """Prints all stacks and exits 4 when `beat` has not been called for so many seconds; 0 switches it off."""

  def __init__(self, seconds: float):
    self.seconds, self.last, self.done = seconds, time.monotonic(), threading.Event()
    if seconds > 0:
      threading.Thread(target=self.watch, daemon=True).start()

  def beat(self) -> None:
    """A step has completed."""
    self.last = time.monotonic()

  def watch(self) -> None:
    """Runs in a thread of its own until closed."""
    while not self.done.wait(min(self.seconds / 4, 1.0)):
      if time.monotonic() - self.last > self.seconds:
        print(f"jaxtrain: watchdog: no step completed in {self.seconds:g} s", file=sys.stderr)
        faulthandler.dump_traceback(all_threads=True)
        sys.stderr.flush()
        os._exit(WATCHDOG)

  def close(self) -> None:
    """Ends the thread."""
    self.done.set()


class Lock:
  """Holds a workdir for this process: a second run in it is refused.

  On one machine `flock` decides, which the system releases if the process dies. Between machines it may not reach: the
  holder touches the file every BEAT_SECONDS, and a lock that names another host and has not been touched for
  STALE_SECONDS is taken over. Whether it is touched is watched, not read off a clock: clocks differ and jump.

  Raises:
    UserError: another process holds it, or the folder cannot be made or written.
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
      raise UserError(f"--workdir: {workdir!r} is in use by {holder}; wait for it, or choose another workdir") from None
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
    print(f"jaxtrain: locked by {holder}; going on in {STALE_SECONDS:.0f} s if that run is dead", flush=True)
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
        print(f"jaxtrain: the workdir was taken over by {holder}, because this process was silent", file=sys.stderr)
        os._exit(FAILED)

  def close(self) -> None:
    """Releases the workdir, and removes it where nothing was written into it."""
    self.done.set()
    folder = os.path.dirname(self.file.name)
    if os.listdir(folder) == [".lock"]:
      os.remove(self.file.name)
      os.rmdir(folder)
    else:
      self.file.truncate(0)
    self.file.close()
