"""Files opened with care: replaced whole or not at all, and never written through a link that lies there.

A folder may come from a stranger, or be written by two processes at once. What is on its way to replace a file has a
name that nobody else uses, in the same folder; links are not followed; what fails leaves nothing.
"""

import contextlib
import errno
import os
import secrets
import stat
from typing import IO, Any, Iterator

from jaxtrain.errors import UserError


def beside(path: str) -> str:
  """A name in the folder of a path that nobody uses."""
  return os.path.join(os.path.dirname(path), f".new-{secrets.token_hex(8)}")


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
  """Name of a new, empty file that takes the place of `path` when the block ends, and is removed when it fails.

  Raises OSError, which names `path`, where it cannot be made or put there.
  """
  path = os.fspath(path)
  fresh = beside(path)
  try:
    os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
    yield fresh
    os.replace(fresh, path)
  except BaseException as error:
    with contextlib.suppress(OSError):
      os.remove(fresh)
    if isinstance(error, OSError) and error.filename == fresh:
      raise OSError(error.errno, error.strerror, path) from None
    raise


def open_own(path: str, mode: str, **settings: Any) -> IO:
  """`open` for a file of a workdir that is added to.

  Raises UserError where a link lies in its place, or what is no file, such as a pipe, which would be waited for.
  """
  def opener(name: str, flags: int) -> int:
    no_file = UserError(f"{name}: is no regular file; remove it, or choose another workdir")
    try:
      opened = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
      if error.errno == errno.ELOOP:
        raise UserError(f"{name}: is a link, through which nothing is written; put the file itself there") from None
      if error.errno in (errno.ENXIO, errno.EISDIR):  # a pipe that nobody reads, a folder
        raise no_file from None
      raise
    if not stat.S_ISREG(os.fstat(opened).st_mode):
      os.close(opened)
      raise no_file
    return opened
  return open(path, mode, opener=opener, **settings)
