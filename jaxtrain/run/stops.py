"""How a run is stopped: signals, the time budget, a watchdog, and fault points for tests.

A first SIGTERM, SIGINT or SIGHUP asks the loop to save and leave between two dispatches; a second ends the process.
Where Python calls, such as in a notebook, an interrupt never ends the process: a second one is a KeyboardInterrupt.
"""

import contextlib
import faulthandler
import os
import select
import signal
import threading
import time
from typing import Callable

from jaxtrain import commands, errors, streams
from jaxtrain.devices import processes
from jaxtrain.errors import StopReason, Stopped

GRACE_SECONDS = 3.0  # of a call that keeps the main thread when a stop does not wait

# Test-only: JAXTRAIN_FAULT=NAME:K ends the process by SIGKILL the K-th time the named point is passed.
FAULT_VARIABLE = "JAXTRAIN_FAULT"
FAULT_POINTS = ("before_save", "during_save", "before_link", "during_link", "before_delete", "after_save")
passed: dict[str, int] = {}


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
    self.asked = StopReason.NONE  # by a signal
    self.old_handlers = {}
    self.urgent: Callable[[StopReason], Stopped] | None = None  # set while a stop does not wait

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      # nohup has a terminal that goes away ignored, and so do we
      hang_up = (signal.SIGHUP,) if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL else ()
      for number in (signal.SIGTERM, signal.SIGINT, *hang_up):
        self.old_handlers[number] = signal.signal(number, self.on_signal)
    return self

  def __exit__(self, kind, *_):
    waits = kind is Stopped and processes.several()  # for the others to leave: a late signal must not end it first
    for number, handler in self.old_handlers.items():
      signal.signal(number, signal.SIG_IGN if waits else handler)

  def on_signal(self, number, _):
    """First signal: remember it. Second: leave at once with 128 + its number; an interrupt of Python's is one as usual.
    """
    if self.asked:
      if number == signal.SIGINT and not commands.running:
        raise KeyboardInterrupt
      os._exit(128 + number)
    self.asked = StopReason[signal.Signals(number).name]
    if self.urgent is not None:
      raise self.urgent(self.asked)
    streams.signal_safe(f"\n{self.asked}: stopping once the steps under way are saved; once more to leave at once\n")

  @contextlib.contextmanager
  def at_once(self, stopped: Callable[[StopReason], Stopped]):
    """A context in which a signal interrupts what runs: all that matters is saved, so nothing is waited for.

    The exception that `stopped(reason)` gives is raised in the main thread. A library that keeps the main thread for
    GRACE_SECONDS more is ended with the process, exit code 85. The time budget interrupts nothing.
    """
    if self.asked:
      raise stopped(self.asked)
    if not self.old_handlers:  # not in the main thread: nobody is told of signals
      yield
      return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)
    watcher = threading.Thread(target=self.watch, args=(reader,), daemon=True)
    watcher.start()
    try:
      self.urgent = stopped
      try:
        yield
      finally:
        self.urgent = None
    finally:
      signal.set_wakeup_fd(before)
      os.close(writer)  # ends the watcher
      watcher.join()
      os.close(reader)

  def watch(self, reader: int) -> None:
    """Runs in a thread of its own while a stop does not wait: ends the process if the main thread does not yield."""
    while True:
      number = os.read(reader, 1)  # a byte for each signal that has a Python handler
      if not number:
        return
      if number[0] in self.old_handlers and (commands.running or number[0] != signal.SIGINT):
        break
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline:
      if select.select([reader], [], [], 0.05)[0] and not os.read(reader, 1):
        return
    try:
      streams.say(f"jaxtrain: {signal.Signals(number[0]).name}: ended in the middle of a call; all before it is saved, "
                  "the same command goes on", error=True)
    finally:
      os._exit(errors.REQUEUE)

  def reason(self, begun: bool = True) -> StopReason:
    """Why the run should stop now. One step is always completed, even if start-up used up the time budget."""
    if not self.asked and begun and self.deadline is not None and time.monotonic() >= self.deadline:
      return StopReason.TIME_BUDGET
    return self.asked


class Watchdog:
  """Prints all stacks and exits 4 when `beat` has not been called for so many seconds; 0 switches it off."""

  def __init__(self, seconds: float):
    self.seconds, self.last, self.done, self.held = seconds, time.monotonic(), threading.Event(), False
    if seconds > 0:
      threading.Thread(target=self.watch, daemon=True).start()

  def beat(self) -> None:
    """A step has completed."""
    self.last = time.monotonic()

  @contextlib.contextmanager
  def hold(self):
    """A context in which nothing is expected, such as a wait for another process."""
    self.held = True
    try:
      yield
    finally:
      self.beat()
      self.held = False

  def watch(self) -> None:
    """Runs in a thread of its own until closed."""
    while not self.done.wait(min(self.seconds / 4, 1.0)):
      if not self.held and time.monotonic() - self.last > self.seconds:
        try:
          streams.say(f"jaxtrain: watchdog: no step completed in {self.seconds:g} s", error=True)
          faulthandler.dump_traceback(all_threads=True)
        finally:
          os._exit(errors.WATCHDOG)

  def close(self) -> None:
    """Ends the thread."""
    self.done.set()
