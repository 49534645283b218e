"""Standard output and error as they are: closed, full, or of a terminal that is gone. Lines may be lost, work never.

`say` is for words beside the work; `answer` prints what a command was asked for, which must not be lost unnoticed.
Standard library alone.
"""

import errno
import os
import sys
from typing import TextIO

GONE = (errno.EPIPE, errno.EIO, errno.EBADF)  # nobody reads there any more


def hold_open() -> None:
  """Opens what is missing of descriptors 0, 1 and 2 on nowhere, or the next file that is opened would get its number,
  and what is printed.
  """
  for number, name in enumerate(("stdin", "stdout", "stderr")):
    try:
      os.fstat(number)
    except OSError:
      null = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
      if null != number:
        os.dup2(null, number)
        os.close(null)
    if getattr(sys, name) is None:
      stream = open(number, "r" if number == 0 else "w", encoding="utf-8", errors="backslashreplace", closefd=False)
      setattr(sys, name, stream)
      setattr(sys, f"__{name}__", stream)


def lose(stream: TextIO) -> None:
  """Sends what is still to be written there to nowhere, so that leaving Python does not fail on it."""
  try:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
    stream.flush()
  except (OSError, ValueError, AttributeError):  # a stream without a file, or closed by whoever owns it
    return


def say(*lines: str, error: bool = False) -> bool:
  """Prints lines, on standard error with `error`; returns whether that was possible."""
  stream = sys.stderr if error else sys.stdout
  try:
    write(stream, lines)
  except (OSError, ValueError):
    lose(stream)
    return False
  return True


def answer(*lines: str) -> None:
  """Prints what was asked for on standard output.

  Raises:
    OSError: it cannot be written, such as to a full disk. A reader that has had enough, such as `head`, is no failure.
  """
  try:
    write(sys.stdout, lines)
  except ValueError:  # closed by whoever owns it
    return
  except OSError as error:
    lose(sys.stdout)
    if error.errno not in GONE:
      raise OSError(error.errno, error.strerror, "standard output") from None


def write(stream: TextIO | None, lines: tuple[str, ...]) -> None:
  """Writes lines and flushes; letters that the stream's encoding lacks are written as their numbers."""
  if stream is None:
    return
  text = "".join(f"{line}\n" for line in lines)
  try:
    stream.write(text)
  except UnicodeEncodeError:
    stream.write(text.encode("ascii", "backslashreplace").decode())
  stream.flush()


def signal_safe(text: str) -> None:
  """Writes to standard error from a signal handler, which may have interrupted a `print`."""
  try:
    os.write(2, text.encode("utf-8", "backslashreplace"))
  except OSError:
    return


def flush() -> None:
  """Writes out what others have printed; loses what cannot be written."""
  for stream in (sys.stdout, sys.stderr):
    try:
      if stream is not None:
        stream.flush()
    except (OSError, ValueError):
      lose(stream)
