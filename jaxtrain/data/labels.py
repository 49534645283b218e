"""Labels of a table and categories of a feature as numbers, and what about their names may be a slip: pure functions
of the cells.
"""

import collections
import contextlib
import re
from typing import Any, Callable

import numpy as np

from jaxtrain.data import cells as cell_lib
from jaxtrain.errors import UserError

MOST_CATEGORIES = 1000  # of a feature
WHOLE_REAL = re.compile(r"(0|-?[1-9]\d*)\.0+")  # a whole number as pandas writes it where others of its column lack
MOST_NAMED = 5  # classes in a message
UNIQUE_ROWS, UNIQUE_SHARE = 20, 0.5  # labels are nearly unique from so many rows on, with so many classes to a row


def encode(column: np.ndarray, is_missing: Callable[[Any], bool]) -> tuple[np.ndarray, tuple[str, ...]]:
  """Labels [N] int32 by sorted unique name, -1 where missing, and the names; numbers sort as numbers."""
  cells = column.tolist()  # once: two NaN of two lists are two keys
  named = {cell: None if is_missing(cell) else str(cell).strip() for cell in dict.fromkeys(cells)}
  names = sorted({name for name in named.values() if name is not None})
  with contextlib.suppress(ValueError):  # not all are numbers: they stay in the order of words
    names.sort(key=float)
  code = {name: k for k, name in enumerate(names)}
  codes = {cell: -1 if name is None else code[name] for cell, name in named.items()}
  return np.fromiter((codes[cell] for cell in cells), np.int32, len(cells)), tuple(names)


def word(cell: Any) -> str:
  """The name of a category; a whole number has one name, however it is written."""
  name = str(cell).strip()
  return name.split(".")[0] if WHOLE_REAL.fullmatch(name) else name


def encode_feature(columns, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
  """Codes [N] float64 of a feature of `files.Columns`, NaN where missing, and the names of its categories.

  Raises UserError for a column of one category, or of more than `MOST_CATEGORIES`.
  """
  missing = cell_lib.missing_test(columns.form)
  column = np.asarray([None if missing(cell) else word(cell) for cell in columns.scalars(name).tolist()], object)
  codes, known = encode(column, lambda cell: cell is None)
  if not 2 <= len(known) <= MOST_CATEGORIES:
    raise UserError(f"{columns.path}: column {name!r} has {len(known):,} categories, allowed 2 to {MOST_CATEGORIES:,}; "
                    "names of single rows are no categories")
  return np.where(codes < 0, np.nan, codes), known


def known_codes(columns, name: str, known: list[str]) -> tuple[np.ndarray, list[str]]:
  """(codes [N] float64 of a feature, NaN where a cell is missing or none of these categories, the cells of the latter).
  """
  missing, code = cell_lib.missing_test(columns.form), {own: k for k, own in enumerate(known)}
  cells = [None if missing(cell) else word(cell) for cell in columns.scalars(name).tolist()]
  codes = np.asarray([code[cell] if cell in code else np.nan for cell in cells], np.float64)
  return codes, [cell for cell in cells if cell is not None and cell not in code]


def warn(column: str, names: tuple[str, ...], counts: list[int]) -> list[str]:
  """What may be wrong with the classes of a label column, a sentence for each kind.

  Args:
    column: its name.
    names, counts: the classes and their rows.
  """
  found, where = [], f"label column {column!r}"
  for key, what in ((lambda name: " ".join(name.split()).casefold(), "differ in case or spaces only"),
                    (number_of, "are the same number")):
    for same in alike(names, key):
      found.append(f"{where}: the classes {quoted(same)} {what}; write them alike where they mean the same")
  numbers = [name for name in names if number_of(name) is not None]
  if 0 < len(numbers) < len(names):
    words = [name for name in names if name not in numbers]
    found.append(f"{where}: some classes are numbers ({quoted(numbers)}), others words ({quoted(words)})")
  rows = sum(counts)
  if rows >= UNIQUE_ROWS and len(names) > UNIQUE_SHARE * rows:
    found.append(f"{where}: {len(names):,} classes in {rows:,} rows: nearly every row is a class of its own")
  elif single := [name for name, count in zip(names, counts) if count == 1]:
    found.append(f"{where}: {len(single):,} class{'es' * (len(single) > 1)} of one row: {quoted(single)}")
  return found


def alike(names: tuple[str, ...], key: Callable[[str], Any]) -> list[list[str]]:
  """Names with the same key, where there are several; those whose key is None are like no other."""
  groups = collections.defaultdict(list)
  for name in names:
    groups[key(name)].append(name)
  return [same for value, same in groups.items() if value is not None and len(same) > 1]


def number_of(name: str) -> float | None:
  """A name as a number; None where it is none."""
  try:
    return None if "_" in name else float(name)
  except ValueError:
    return None


def quoted(names: list[str]) -> str:
  """Names in quotes in a list that stays readable."""
  shown = ", ".join(repr(name) for name in names[:MOST_NAMED])
  return shown + (f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else "")


def count(label: np.ndarray, num_classes: int) -> list[int]:
  """Rows of each class."""
  return np.bincount(label[label >= 0], minlength=num_classes).tolist()


def pick_class(class_names: list[str], columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """`pred_label`: the most probable class of each row; None where probabilities are missing."""
  prob = np.stack([columns[f"prob_{name}"] for name in class_names], axis=1)
  pred = np.asarray(class_names, object)[np.nan_to_num(prob).argmax(axis=1)]
  pred[np.isnan(prob).any(axis=1)] = None
  return {"pred_label": pred}


def name_probabilities(class_names: list[str], prob: np.ndarray) -> dict[str, np.ndarray]:
  """Columns of probabilities [N, K] by class, and the most probable class."""
  columns = {f"prob_{name}": prob[:, k] for k, name in enumerate(class_names)}
  return columns | pick_class(class_names, columns)
