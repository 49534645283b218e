"""Whether the page of a run is as new as what it shows: a finished run that is started again then need not draw it."""

import os
from typing import Any

from jaxtrain.config import modules
from jaxtrain.workdir import records


def is_drawn(config: Any, workdir: str) -> bool:
  """Whether the page of a run that came to its end is there with its figures, and is newer than all that it shows and
  than the code that draws it.
  """
  stages, has_figures = records.stage_folders(workdir), config.log.figures != "none" or config.log.families
  needed = [os.path.join(folder, "report.html") for folder in (workdir, *stages)]
  needed += [os.path.join(folder, "figures") for folder in stages or [workdir] if has_figures]
  if not all(map(os.path.exists, needed)):
    return False
  shown = [os.path.join(folder, name) for folder in (workdir, *stages)
           for name in ("config.json", "history.json", "figures", "eval")]  # of a folder: when a file came or went
  shown += [entry.path for path in shown if path.endswith("eval") and os.path.isdir(path) for entry in os.scandir(path)]
  drawn = os.stat(needed[0]).st_mtime_ns
  return all(os.stat(path).st_mtime_ns <= drawn for path in [*shown, *code_of_pages(config)] if os.path.exists(path))


def code_of_pages(config: Any) -> list[str]:
  """The files whose code draws the figures and the page of a run."""
  folder = os.path.dirname(os.path.abspath(__file__))
  found = [os.path.join(folder, name) for name in os.listdir(folder) if name.endswith((".py", ".js"))]
  own = modules.families().get(config.experiment)  # none where the experiment is the user's
  return found + [str(path) for path in (own.parent.glob("figures*.py") if own else ())]
