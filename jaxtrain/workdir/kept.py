"""Trained models that come with jaxtrain: `kept:NAME` stands for the folder of the run of family NAME. No JAX.

Such a folder is that of an ordinary run, with its config, its facts and its best checkpoint. It is read only: one may
predict with it, look at it, and start a run of one's own from its parameters.
"""

import os

from jaxtrain import spelling
from jaxtrain.errors import UserError

PREFIX, FOLDER = "kept:", "pretrained"
EXPERIMENTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "experiments")


def names() -> list[str]:
  """Families that have a kept model."""
  return sorted(name for name in os.listdir(EXPERIMENTS) if os.path.isdir(os.path.join(EXPERIMENTS, name, FOLDER)))


def is_kept(workdir: str) -> bool:
  """Whether these words stand for a kept model."""
  return workdir.startswith(PREFIX)


def folder_of(workdir: str) -> str:
  """The folder of a kept model; any other path as it is. Raises UserError for a name that there is not."""
  if not is_kept(workdir):
    return workdir
  name, there = workdir.removeprefix(PREFIX), names()
  if name not in there:
    raise UserError(f"{workdir!r} is no kept model, allowed {' | '.join(PREFIX + known for known in there)}"
                    f"{spelling.meant(workdir, [PREFIX + known for known in there])}")
  return os.path.join(EXPERIMENTS, name, FOLDER)
