"""Runs that many tests read, each trained once in a test session, by whichever test of any worker asks first."""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
from typing import Callable, Iterator

import pytest

import child
import records

QUIET = ("--config.log.figures=none", "--config.log.progress=False")


def smoke(config: str) -> tuple[str, ...]:
  """Flags of the run of a config's variant `smoke` that tests share, for a name of `records.EACH_CONFIG`."""
  return (*records.EACH_CONFIG[config], *QUIET, "--config.checkpoint.every_epochs=1")


@contextlib.contextmanager
def restored_once() -> Iterator[None]:
  """Within it each state is restored once for all commands of this process, which then share its compiled programs."""
  from jaxtrain.run import trained
  restore, found = trained.restore, {}

  def once(workdir, which, code=()):
    place = os.path.abspath(workdir), which
    found[place] = found[place] if place in found else restore(workdir, which, code)
    return found[place]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(trained, "restore", once)
    yield


class Shared:
  """Folders that are made once; a test that would change one takes a copy.

  Args:
    folder: of the session, the same for all its workers.
  """

  def __init__(self, folder: pathlib.Path):
    self.folder = folder

  def made(self, what: str, make: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """The folder that `make(folder)` fills, for words that say all that it follows from.

    A `make` that fails leaves nothing, so that the next to ask fails alike.
    """
    place = self.folder / hashlib.sha256(what.encode()).hexdigest()[:16]
    done, folder = place / "done", place / "run"
    place.mkdir(parents=True, exist_ok=True)
    with open(place / ".lock", "w", encoding="utf-8") as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        make(folder)
        done.write_text(what, encoding="utf-8")
    return folder

  def run(self, *flags: str) -> pathlib.Path:
    """The folder of a run of these flags of main, which came to its end."""
    def make(folder: pathlib.Path) -> None:
      done = child.run(*flags, f"--workdir={folder}")
      assert done.returncode == 0, done.stderr
    return self.made(json.dumps(flags), make)

  def copy(self, folder: pathlib.Path, *flags: str) -> str:
    """A copy of that run in a folder that is not there yet; returns it as text."""
    shutil.copytree(self.run(*flags), folder, symlinks=True)
    return str(folder)
