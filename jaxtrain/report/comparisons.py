"""Figures of several runs of one experiment, for the page that compares them.

The module `figures` beside an experiment may have COMPARISONS = {name: function}: `(runs, labels) -> Figure | None`, of
the runs' data (`RunData` without arrays) and a label for each, which runs that differ in their replicate alone share.
The docstring is the caption, as of the figures of a run, and one that takes `narrow` has a picture for phones too. A
figure that fails is noted on the page, and the others are drawn. Those of a sweep are also files of its own.
"""

import os

from jaxtrain.errors import UserError
from jaxtrain.report import collection, figures, pictures
from jaxtrain.report.collection import Member
from jaxtrain.report.page import Html, tag
from jaxtrain.workdir import atomic, reading
from jaxtrain.workdir.reading import RunData


def read_runs(members: list[Member], labels: list[str]) -> tuple[list[RunData], list[str]]:
  """The runs that have begun and can be read, each its newest stage, and the label of each."""
  runs, kept = [], []
  for member, label in zip(members, labels):
    if member.curves:
      try:
        runs.append(reading.read_newest(member.folder)[1])
        kept.append(label)
      except UserError:
        continue  # the table of runs says what is wrong with it
  return runs, kept


def are_wanted(members: list[Member]) -> bool:
  """Whether a run that has begun, if any has, asks for figures of its own."""
  begun = [member for member in members if member.curves]
  return not begun or any(collection.value_of(member, "log.figures") != "none" for member in begun)


def draw(members: list[Member], labels: list[str], folder: str = "") -> list[Html]:
  """The figures that the experiment of these runs has for several, written to <folder>/<name>.png too where a folder
  is given; [] where they are of several experiments.
  """
  experiments = {str(collection.value_of(member, "experiment")) for member in members}
  known = figures.experiment_families(experiments.pop(), "COMPARISONS") if len(experiments) == 1 else {}
  runs, labels = read_runs(members, labels) if known else ([], [])
  found = []
  for name, compare in known.items() if runs else ():
    with figures.attempted(runs[0], name):
      figure = compare(runs, labels)
      if figure is not None:
        wide, narrow = pictures.png(figure), None
        if folder:
          os.makedirs(folder, exist_ok=True)
          with atomic.replacing(os.path.join(folder, f"{name}.png")) as fresh, open(fresh, "wb") as file:
            file.write(wide)
        if pictures.takes_narrow(compare):
          with figures.attempted(runs[0], name, "drawn for phones"):
            narrow = pictures.png(compare(runs, labels, narrow=True))
        found.append(pictures.picture(name, pictures.caption_of(compare, figure), wide, narrow))
  notes = [text for text in (runs[0].problems if runs else ()) if text.startswith("figure ")]
  return found + [tag("p", f"Note: {text}", class_="warn") for text in notes]
