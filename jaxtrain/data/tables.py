"""Tables: numeric features, labels and groups chosen by name from the columns of a file or of a known data set.

Every complaint is one line that names the file, the column and the row.
"""

import contextlib
import hashlib
from typing import Iterable, NamedTuple

import numpy as np

from jaxtrain.data import files
from jaxtrain.errors import UserError

SKLEARN_TABLES = ("digits", "breast_cancer", "iris", "wine")
MISSING = ("", "na", "n/a", "<na>", "nan", "null", "none")


class Table(NamedTuple):
  """Numeric features and what belongs to each row.

  Attributes:
    features: [N, D] float64, raw units, no NaN.
    feature_names: D names.
    label: [N] int32, -1 = unlabelled; None without labels.
    class_names: names of the labels, in order.
    group: [N] group of each row; None without groups.
    facts: JSON-able facts about the table: source, rows read and dropped, SHA-256 of a file.
  """
  features: np.ndarray
  feature_names: tuple[str, ...]
  label: np.ndarray | None
  class_names: tuple[str, ...]
  group: np.ndarray | None
  facts: dict


def read_sklearn(name: str) -> Table:
  """A real table that scikit-learn ships. Raises UserError for a name not in `SKLEARN_TABLES`."""
  if name not in SKLEARN_TABLES:
    raise UserError(f"config.data.path: got {name!r}, allowed with source=sklearn {SKLEARN_TABLES}")
  from sklearn import datasets  # slow to import, used here only
  bunch = getattr(datasets, f"load_{name}")()
  names = tuple(str(n) for n in bunch.feature_names)
  return Table(np.asarray(bunch.data, np.float64), names, np.asarray(bunch.target, np.int32),
               tuple(str(n) for n in bunch.target_names), None, {"source": f"sklearn {name}", "rows": len(bunch.data)})


def read_file(kind: str, path: str, table: str, features: tuple[str, ...], label: str, group: str) -> Table:
  """A table from a file of columns.

  Args:
    kind, path, table: as of `files.read`.
    features: names of the numeric columns, in the order the model sees them; a wide column stands for its parts. A row
      with an empty or NaN cell in one of them is dropped and counted.
    label: name of the label column, "" for none; its values are names; an empty or NaN cell is an unlabelled row.
    group: name of the group column, "" for none.

  Raises:
    UserError: the file or a column is missing, a cell is no number, a column is constant or all missing, a row has no
      group, there is one class only, or no row is left.
  """
  columns = files.read(kind, path, table)
  return from_columns(columns, features, label, group, {"source": path, "sha256": file_digest(path)})


def from_columns(columns: files.Columns, features: tuple[str, ...], label: str, group: str, facts: dict) -> Table:
  """The table of named columns; arguments and errors as of `read_file`."""
  features = pick_features(columns, features, label, group)
  x = np.stack([numbers(columns, name) for name in features], axis=1)
  keep = survey(columns, features, [x])
  return choose_rows(columns, x[keep], features, keep, label, group, facts)


def choose_rows(columns: files.Columns, x, features: tuple[str, ...], keep: np.ndarray, label: str, group: str,
                facts: dict) -> Table:
  """The table of the kept rows: `x`, their features, and the label and group that `columns` has for all rows [N]."""
  code, class_names = encode_labels(columns.values[label][keep]) if label else (None, ())
  if label and len(class_names) < 2:
    raise UserError(f"{columns.path}: label column {label!r} has {len(class_names)} classes in the complete rows, "
                    "allowed 2 or more")
  rows = {"rows": int(keep.sum()), "rows_dropped": int((~keep).sum()),
          "rows_unlabelled": int((code == -1).sum()) if label else 0}
  return Table(x, features, code, class_names, encode_groups(columns, group, keep) if group else None, facts | rows)


def pick_features(columns: files.Columns, features: tuple[str, ...], label: str, group: str) -> tuple[str, ...]:
  """Names of the feature columns. Raises UserError where a column is not there, named twice, or none is named."""
  known = [*columns.values, *columns.wide]
  if not features:
    raise UserError("config.data.features: got (), allowed the names of the numeric columns, such as "
                    f"--config.data.features=density,porosity; {columns.path} has {shorten(known)}")
  for field, names in (("features", features), ("label", (label,) if label else ()),
                       ("group", (group,) if group else ())):
    for name in names:
      if name not in columns.values and (field != "features" or name not in columns.wide):
        raise UserError(f"config.data.{field}: {columns.path} has no column {name!r}; it has {shorten(known)}")
  features = columns.expand(features)
  twice = [name for i, name in enumerate(features) if name in features[:i]]
  if twice or label in features:
    raise UserError(f"config.data.features: {twice[0] if twice else label!r} is named "
                    f"{'twice' if twice else 'as a feature and as the label'}")
  return features


def shorten(names: list[str], most: int = 12) -> str:
  """Names in a list that stays readable."""
  return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def survey(columns: files.Columns, names: tuple[str, ...], blocks: Iterable[np.ndarray]) -> np.ndarray:
  """Looks at all features, block [n, D] by block; returns which rows are complete, [N] bool.

  Raises:
    UserError: an infinite value, a column that is empty or constant, or no row is complete. A part of a wide column,
      such as a pixel in the corner of an image, may be constant.
  """
  keep, seen = [], np.zeros(len(names), bool)
  low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
  for x in blocks:
    for r, d in np.argwhere(np.isinf(x))[:1]:
      raise UserError(f"{columns.path}: column {names[d]!r}, {columns.row(sum(map(len, keep)) + r)}: infinite value")
    missing = np.isnan(x)
    keep.append(~missing.any(axis=1))
    seen |= ~missing.all(axis=0)
    low = np.minimum(low, x.min(axis=0, where=keep[-1][:, None], initial=np.inf))
    high = np.maximum(high, x.max(axis=0, where=keep[-1][:, None], initial=-np.inf))
  whole = np.concatenate(keep)
  for d in np.flatnonzero(~seen):
    raise UserError(f"{columns.path}: column {names[d]!r} is empty in every row")
  if not whole.any():
    raise UserError(f"{columns.path}: of {len(whole)} rows none has a number in every feature column")
  parts = {name for wide in columns.wide.values() for name in wide}
  for d in np.flatnonzero(low == high):
    if names[d] not in parts:
      raise UserError(f"{columns.path}: column {names[d]!r} is constant ({low[d]:g}) in the {whole.sum()} complete "
                      "rows")
  return whole


def plain_numbers(column: np.ndarray) -> np.ndarray | None:
  """An object column as float64 in one go; None where a cell is missing or text, which needs a look at each."""
  try:
    found = np.fromiter(map(float, column), np.float64, len(column))
  except (TypeError, ValueError):
    return None
  # Python reads 1_000 as a number.
  return None if "_" in "".join(cell for cell in column if isinstance(cell, str)) else found


def numbers(columns: files.Columns, name: str) -> np.ndarray:
  """A column as float64, NaN where missing. Raises UserError at a cell that is no number."""
  column = columns.values[name]
  if column.dtype.kind in "fiub":
    return column.astype(np.float64)
  if column.dtype != object:
    raise UserError(f"{columns.path}: column {name!r} holds {column.dtype}, allowed numbers")
  plain = plain_numbers(column)
  if plain is not None:
    return plain
  values = np.full(len(column), np.nan)
  for i, cell in enumerate(column):
    if is_missing(cell):
      continue
    try:
      if isinstance(cell, str) and "_" in cell:
        raise ValueError
      values[i] = float(cell)
    except (TypeError, ValueError):
      raise UserError(f"{columns.path}: column {name!r}, {columns.row(i)}: {cell!r} is not a number") from None
  return values


def is_missing(cell) -> bool:
  """Whether a cell of a file stands for nothing."""
  if isinstance(cell, str):
    return cell.strip().lower() in MISSING
  return cell is None or cell != cell


def encode_labels(cells: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
  """Labels [N] int32 by sorted unique name, -1 where missing, and the names; numbers sort as numbers."""
  cells = cells.tolist()  # once: two NaN of two lists are two keys
  named = {cell: None if is_missing(cell) else str(cell).strip() for cell in dict.fromkeys(cells)}
  names = sorted({name for name in named.values() if name is not None})
  with contextlib.suppress(ValueError):  # not all are numbers: they stay in the order of words
    names.sort(key=float)
  code = {name: k for k, name in enumerate(names)}
  codes = {cell: -1 if name is None else code[name] for cell, name in named.items()}
  return np.fromiter((codes[cell] for cell in cells), np.int32, len(cells)), tuple(names)


def encode_groups(columns: files.Columns, name: str, keep: np.ndarray) -> np.ndarray:
  """Groups of the kept rows by their text, so that they sort alike from all files. Raises UserError at a missing one.
  """
  cells = columns.values[name]
  for i in np.flatnonzero(keep):
    if is_missing(cells[i]):
      raise UserError(f"{columns.path}: group column {name!r}, {columns.row(i)}: no group")
  return np.asarray([str(cell).strip() for cell in cells[keep].tolist()])


def file_digest(path: str) -> str:
  """SHA-256 of a file's bytes, hexadecimal."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def select_features(table: Table, names: tuple[str, ...]) -> Table:
  """The named feature columns, in that order. Raises UserError for a name that is not there."""
  for name in names:
    if name not in table.feature_names:
      raise UserError(f"config.data.features: {table.facts['source']} has no column {name!r}; it has "
                      f"{shorten(list(table.feature_names))}")
  columns = [table.feature_names.index(name) for name in names]
  return table._replace(features=table.features[:, columns], feature_names=tuple(names))


def first_rows(table: Table, num_rows: int) -> Table:
  """The first rows of a table."""
  cut = lambda column: None if column is None else column[:num_rows]
  features, label = table.features[:num_rows], cut(table.label)
  facts = table.facts | {"rows": len(features), "rows_beyond_limit": len(table.features) - len(features)}
  if "rows_unlabelled" in facts and label is not None:
    facts["rows_unlabelled"] = int((label == -1).sum())
  return table._replace(features=features, label=label, group=cut(table.group), facts=facts)
