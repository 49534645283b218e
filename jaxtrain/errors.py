"""Errors that end a command, each with its exit code; why a run stops; optional libraries. Standard library alone."""

import enum
import importlib
import signal

DONE, FAILED, USAGE, NONFINITE, WATCHDOG, REQUEUE = 0, 1, 2, 3, 4, 85


class StopReason(enum.Enum):
  """Why a run is asked to stop. Of several processes' reasons, the one with the highest value holds for all."""
  NONE = 0
  TIME_BUDGET = 1
  SIGINT = 2
  SIGHUP = 3  # the terminal is gone
  SIGTERM = 4

  def __bool__(self) -> bool:
    return self is not StopReason.NONE

  def __str__(self) -> str:
    return "time budget" if self is StopReason.TIME_BUDGET else self.name


class Told(Exception):
  """An error that says to the user what happened: it is shown as it is, without a traceback.

  Attributes:
    code: exit code of the command that it ends.
    message: what happened.
    hint: a flag that helps, kept apart from the message because it helps in one command and not in another.
  """
  code = FAILED

  def __init__(self, message: str = "", hint: str = ""):
    super().__init__(f"{message} ({hint})" if hint else message)
    self.message, self.hint = message, hint

  def _render_traceback_(self) -> list[str]:
    """What IPython and notebooks show in place of a traceback."""
    return [f"{type(self).__name__}: {self}"]


class UserError(Told, ValueError):
  """A mistake in a flag, config, file or workdir. It is shown as one to four lines."""
  code = USAGE


class InUse(UserError):
  """Another process holds the workdir. Whoever starts runs may try again when that process has ended."""


class Stopped(Told):
  """The run was asked to stop and is saved; the message says by what."""
  code = REQUEUE


class NonFinite(Told):
  """Training met a value that is not finite and halts."""
  code = NONFINITE


class NotSaved(Told):
  """What was written as a checkpoint cannot be read back."""


class LostRows(Told):
  """Rows of a damaged input could not be read; all others are written."""


class LostProcess(Told):
  """Another process of the same run is no longer there."""


class GoneFolder(Told):
  """The workdir was removed while it was in use."""


class MembersFailed(Told):
  """Members of a sweep have failed; the others are done."""


def reason(error: Exception) -> str:
  """The first line of what an error says, without its hint; the name of its class where it says nothing."""
  said = error.message if isinstance(error, Told) else str(error)
  lines = said.strip().splitlines()  # what NumPy's assertions say begins with an empty line
  return lines[0] if lines else type(error).__name__


def meaning(code: int) -> str:
  """What the exit code of a process says where the process left no reason. A negative one is minus a signal."""
  if code < 0:
    return f"ended by {signal.Signals(-code).name}"
  if code == WATCHDOG:
    return "ended by its watchdog"
  return f"ended by {signal.Signals(code - 128).name}" if code in (130, 143) else "ended without giving a reason"


def need(module: str, extra: str):
  """An optional library. Raises UserError that names the extra to install."""
  try:
    return importlib.import_module(module)
  except ImportError:
    raise UserError(f"{module} is not installed; pip install -e '.[{extra}]'") from None
