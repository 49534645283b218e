"""Files that a run reads as it trains: they must stay what they were when it looked at them first.

A file that is truncated, overwritten or replaced meanwhile gives rows of another table, and a loss that may look fine.
Size, time of the last change and inode are compared for each window. They cost nothing; a digest of the window would
not tell, because with shuffled rows no two windows hold the same. A file whose time was set back has a younger time of
its inode: then the SHA-256 of the whole decides, where it is known.
"""

import os
from typing import NamedTuple

from jaxtrain.data import tables
from jaxtrain.errors import UserError


class Identity(NamedTuple):
  """What tells a file from another one or an earlier state of it."""
  size: int
  modified: int
  inode: int
  changed: int  # of the inode: also by a new name or other rights


WORDS = {"size": "its size was {} bytes, is {}", "inode": "another file was put in its place",
         "modified": "it was written to"}


def identity(path: str) -> Identity:
  """The identity of a file. Raises OSError where there is none."""
  found = os.stat(path)
  return Identity(found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns)


class Watched:
  """Files as they are now; `digests` holds the SHA-256 of some of them."""

  def __init__(self, *paths: str):
    self.seen = {path: identity(path) for path in paths}
    self.digests: dict[str, str] = {}

  def check(self) -> None:
    """Raises UserError where a file is no longer what it was."""
    for path, before in self.seen.items():
      try:
        now = identity(path)
      except OSError as error:
        raise changed(path, f"it is gone ({error.strerror})") from None
      for name, words in WORDS.items():
        if (old := getattr(before, name)) != (new := getattr(now, name)):
          raise changed(path, words.format(f"{old:,}", f"{new:,}"))
      if now != before:
        if path in self.digests and tables.file_digest(path) != self.digests[path]:
          raise changed(path, "its bytes are others, though not its size and time")
        self.seen[path] = now


def changed(path: str, what: str) -> UserError:
  """What to say of a file that has changed."""
  return UserError(f"{path}: the file has changed since the run began to read it: {what}; restore it, and the same "
                   "command goes on from the newest checkpoint; or choose another workdir")
