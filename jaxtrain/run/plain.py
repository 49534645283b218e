"""Folders under names that libraries take as they are.

Orbax looks for files by patterns into which it puts the whole path, and takes a backslash for a slash; TensorStore
wants UTF-8. A folder `a[1]` would be written and never found again, a folder `a*` be read together with its neighbours.
Such a folder is reached through a link in a private folder of temporary files.
"""

import os
import re
import shutil
import tempfile

from jaxtrain.errors import UserError

TAKEN_AS_IT_IS = re.compile(r"[\w /.,:;=+@%~#&()'-]*")


def is_plain(path: str) -> bool:
  """Whether a path holds nothing that a library reads as something else."""
  return TAKEN_AS_IT_IS.fullmatch(path) is not None


class Plain:
  """A context that gives a plain path of a folder: its own, or a link's that is removed in the end.

  Raises:
    UserError: the folder for temporary files has no plain path either.
  """

  def __init__(self, folder: str):
    self.folder = os.path.abspath(folder)
    self.private = ""  # the folder with the link
    if not is_plain(self.folder) and not is_plain(tempfile.gettempdir()):
      raise UserError(f"TMPDIR: got {tempfile.gettempdir()!r}, allowed a path of letters, digits and /.,:;=+@%~#&()'- "
                      f"because that of {self.folder!r} holds other characters")

  def __enter__(self) -> str:
    if is_plain(self.folder):
      return self.folder
    if not self.private:
      self.private = tempfile.mkdtemp(prefix="jaxtrain-")
    link = os.path.join(self.private, "folder")
    if not os.path.lexists(link):  # it may have been cleaned away in a run of weeks
      os.makedirs(self.private, mode=0o700, exist_ok=True)
      os.symlink(self.folder, link, target_is_directory=True)
    return link

  def __exit__(self, *_):
    if self.private:
      shutil.rmtree(self.private, ignore_errors=True)
      self.private = ""
