"""What is made of the results of a trained VAE's verbs: the strip log of a hole, a table of two models' embeddings."""

from typing import NamedTuple

import numpy as np

from jaxtrain import spelling
from jaxtrain.data import cells, files
from jaxtrain.errors import UserError

MOST_CLASSES = 10  # of a strip log, each with a colour of its own
STEP = 0.2  # metres that a bin is high, where a hole has but one
PROBABILITY, EMBEDDING = "prob_", "emb_"


class StripLog(NamedTuple):
  """What a model says of a hole, bins [n] from top to bottom.

  Attributes:
    hole: its name.
    depth, step: of the middle of each bin, and the height of one, metres.
    classes: names of the classes that are shown, the most probable over the hole first; others: how many are not.
    prob: [n, K], of these.
    pred, label: names of the most likely and of the true class, None where there is none; label None without any.
    agree: share of the bins with both where they are the same.
    novelty: percentile of each bin; None where the table has none.
  """
  hole: str
  depth: np.ndarray
  step: float
  classes: list[str]
  others: int
  prob: np.ndarray
  pred: np.ndarray
  label: np.ndarray | None
  agree: float
  novelty: np.ndarray | None


def column_of(columns: files.Columns, name: str, flag: str) -> str:
  """The name, if the table has such a column. Raises UserError where it has not."""
  if name not in columns.values:
    raise UserError(spelling.no_column(f"--{flag}: {columns.path}", name, list(columns.values)))
  return name


def words_of(columns: files.Columns, name: str) -> np.ndarray:
  """A column of text, None where missing."""
  return np.array([None if cells.is_missing(cell) else str(cell).strip() for cell in columns.scalars(name)], object)


def strip_log(columns: files.Columns, hole: str, group: str, at: str, label: str) -> StripLog:
  """The strip log of a hole.

  Args:
    columns: of a table that was classified: `prob_<class>`, `pred_label`, `novelty`, and what it was made of.
    hole: its name.
    group, at, label: the columns of holes, of depths, and of true classes, which may lack.

  Raises:
    UserError: there is no such column or hole, no bin has probabilities, or a cell is no number.
  """
  names = [name for name in columns.values if name.startswith(PROBABILITY)]
  if not names or "pred_label" not in columns.values:
    raise UserError(f"--classified: {columns.path} has no probabilities of classes (prob_...), as predict "
                    "--verb=classify writes them")
  holes = words_of(columns, column_of(columns, group, "group_column"))
  depth = columns.numbers(column_of(columns, at, "at_column"))
  if not (holes == hole).any():
    some = sorted({name for name in holes if name})
    raise UserError(f"--hole: {columns.path} has no {hole!r}, allowed {', '.join(some[:20])}"
                    + (f" and {len(some) - 20:,} more" if len(some) > 20 else ""))
  prob = np.stack([columns.numbers(name) for name in names], axis=1)
  rows = np.flatnonzero((holes == hole) & np.isfinite(depth) & np.isfinite(prob).all(axis=1))
  if not len(rows):
    raise UserError(f"--hole: no row of {hole!r} in {columns.path} has a depth and probabilities")
  rows = rows[np.argsort(depth[rows], kind="stable")]
  shown = np.argsort(-prob[rows].mean(axis=0), kind="stable")[:MOST_CLASSES]
  gaps = np.diff(depth[rows])
  pred = words_of(columns, "pred_label")[rows]
  true = words_of(columns, label)[rows] if label in columns.values else np.full(len(rows), None, object)
  both = np.array([one is not None for one in true])
  return StripLog(hole, depth[rows], float(np.median(gaps[gaps > 0])) if (gaps > 0).any() else STEP,
                  [names[k].removeprefix(PROBABILITY) for k in shown], len(names) - len(shown), prob[rows][:, shown],
                  pred, true if both.any() else None, float((pred == true)[both].mean()) if both.any() else np.nan,
                  columns.numbers("novelty")[rows] if "novelty" in columns.values else None)


def embedding_of(columns: files.Columns) -> list[str]:
  """Names of the columns of an embedding, in order. Raises UserError where there are none."""
  names = [name for name in columns.values if name.startswith(EMBEDDING) and name[len(EMBEDDING):].isdigit()]
  if not names:
    raise UserError(f"{columns.path} has no embedding (emb_0, ...), as predict --verb=embed writes it")
  return sorted(names, key=lambda name: int(name[len(EMBEDDING):]))


def pair_embeddings(unsup: files.Columns, semisup: files.Columns) -> dict[str, np.ndarray]:
  """The columns of a table, and `unsup_emb_<k>` and `semisup_emb_<k>` of two models that have embedded it.

  Raises:
    UserError: one has no embedding, or they are of different tables.
  """
  parts = {"unsup": unsup, "semisup": semisup}
  named = {kind: embedding_of(columns) for kind, columns in parts.items()}
  own = {kind: {name: column for name, column in columns.values.items()
                if name not in named[kind] and name != "novelty"} for kind, columns in parts.items()}
  if own["unsup"].keys() != own["semisup"].keys() or unsup.num_rows != semisup.num_rows:
    raise UserError(f"{unsup.path} and {semisup.path} are of different tables: {unsup.num_rows:,} and "
                    f"{semisup.num_rows:,} rows, columns {', '.join(own['unsup'])} and {', '.join(own['semisup'])}")
  for name, column in own["unsup"].items():
    other = own["semisup"][name]
    for i in np.flatnonzero([a != b and not (a != a and b != b) for a, b in zip(column, other)])[:1]:
      raise UserError(f"{unsup.path} and {semisup.path} are of different tables: column {name!r}, {unsup.row(i)} is "
                      f"{cells.shown(column[i])} and {cells.shown(other[i])}")
  found = dict(own["unsup"])
  for kind, columns in parts.items():
    found |= {f"{kind}_{name}": columns.numbers(name) for name in named[kind]}
  return found


def as_arrays(pair: dict[str, np.ndarray], label: str) -> dict[str, np.ndarray]:
  """Arrays of `pair_embeddings`: `unsup` and `semisup` [N, L] float32, and `y` [N], the column of labels where it is
  there.
  """
  stacked = {kind: np.stack([column for name, column in pair.items() if name.startswith(f"{kind}_{EMBEDDING}")],
                            axis=1).astype(np.float32) for kind in ("unsup", "semisup")}
  return stacked | ({"y": pair[label]} if label in pair else {})
