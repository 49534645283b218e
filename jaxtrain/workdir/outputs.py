"""Where a command may write a file that the user names: not over what a run or a sweep keeps."""

import os

from jaxtrain.errors import UserError

OWN_FILES = ("config.json", "run.json", "history.json", "log.txt", "report.html", "sweep.json", "journal.jsonl",
             ".lock")
OWN_FOLDERS = ("facts", "eval", "checkpoints", "figures", "stages", "runs", "waves", "tensorboard")
PAGE_STARTS = (b"<!doctype html", b"<html")


def is_workdir(folder: str) -> bool:
  """Whether a folder is that of a run or of a sweep."""
  has = lambda name: os.path.exists(os.path.join(folder, name))
  return has("sweep.json") or has("config.json") and any(map(has, ("run.json", "facts", "checkpoints", "stages")))


def check_free(flag: str, path: str) -> None:
  """Raises UserError where a path is a file of a run's or a sweep's own, or lies in one of their folders."""
  where, name = os.path.split(os.path.abspath(path))
  for place in {where, os.path.realpath(where)}:
    folder, below = place, name
    while True:
      if (below in OWN_FOLDERS or (folder == place and below in OWN_FILES)) and is_workdir(folder):
        kind = "a sweep" if os.path.exists(os.path.join(folder, "sweep.json")) else "a run"
        raise UserError(f"{flag}: {path!r} is one of the files that {kind} keeps in {folder!r}; choose another name")
      if folder == os.path.dirname(folder):
        break
      folder, below = os.path.split(folder)


def check_page(flag: str, path: str) -> None:
  """Raises UserError where a page may not be written to a path: it is another kind of file, or one that is kept."""
  if not path.lower().endswith(".html"):
    raise UserError(f"{flag}: got {path!r}, allowed a name that ends in .html")
  check_free(flag, path)
  if os.path.isfile(path):
    with open(path, "rb") as file:
      start = file.read(64).lstrip().lower()
    if start and not start.startswith(PAGE_STARTS):
      raise UserError(f"{flag}: {path!r} is there and is no page; choose another name")
