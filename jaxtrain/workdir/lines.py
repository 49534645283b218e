"""Files of lines that a kill may cut short: read strictly, where all of it must be whole, or as far as it goes."""

import errno
import json
import os
import stat
from typing import Any, Callable

from jaxtrain import memory
from jaxtrain.errors import UserError


def read_file(path: str) -> bytes:
  """What a file holds.

  Raises OSError where it cannot be read, or is none: reading a pipe or a device has no end. Raises ValueError for one
  that does not fit into memory.
  """
  with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
      raise OSError(errno.EINVAL, "it is no file", path)
    memory.check(os.fstat(file.fileno()).st_size, path)
    return file.read()


def read(path: str) -> bytes:
  """What a file holds; nothing where there is none. Raises OSError as `read_file` does."""
  try:
    return read_file(path)
  except FileNotFoundError:
    return b""


def parse(data: bytes, one: Callable[[str], Any], path: str, strict: bool, first: int = 1) -> list[Any]:
  """What `one` makes of each line of a file's content.

  A line that `one` refuses with a ValueError, and half a line at the end, are left out where reading is lenient.

  Args:
    data: lines that each end with a line break.
    one: the value of a line.
    path: of the file, for the message.
    strict: whether all lines must be whole.
    first: number of the first line.

  Raises:
    UserError: reading is strict, and a line is damaged.
  """
  *whole, rest = data.split(b"\n")
  found = []
  for number, line in enumerate([*whole, rest] if rest and strict else whole, first):
    try:
      if strict and number == first + len(whole):
        raise ValueError("it has no end")
      found.append(one(line.decode() if strict else line.decode("utf-8", "replace").replace("\0", "")))
    except ValueError as error:
      if strict:
        raise UserError(f"{path}: line {number} is damaged ({error}); restore the file, or choose another "
                        "workdir") from None
  return found


def parse_object(line: str) -> dict[str, Any]:
  """The JSON object of a line. Raises ValueError where it holds none."""
  try:
    found = json.loads(line)
  except RecursionError:
    raise ValueError("nested too deeply") from None
  if not isinstance(found, dict):
    raise ValueError("not a JSON object")
  return found
