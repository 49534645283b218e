"""Tables read by column name: a user's CSV file and scikit-learn's real toy data.

Every complaint is one line that names the file, the column and the row.
"""

import csv
import hashlib
from typing import NamedTuple

import numpy as np

from jaxtrain.types import UserError

SKLEARN_TABLES = ("digits", "breast_cancer", "iris", "wine")
MISSING = ("", "na", "nan", "null", "none")


class Table(NamedTuple):
  """Numeric features and what belongs to each row.

  Attributes:
    features: [N, D] float64, raw units, no NaN.
    feature_names: D names.
    label: [N] int32, -1 = unlabelled; None without labels.
    class_names: sorted names of the labels.
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


def read_csv(path: str, features: tuple[str, ...], label: str, group: str) -> Table:
  """A CSV file with a header line.

  Args:
    path: the file.
    features: names of the numeric columns, in the order the model sees them. A row with an empty or NaN cell in one of
      them is dropped and counted.
    label: name of the label column, "" for none; its values are names; an empty or NaN cell is an unlabelled row.
    group: name of the group column, "" for none.

  Raises:
    UserError: the file or a column is missing, a row has another number of cells, a cell is no number, a column is
      constant or all missing, or no row is left.
  """
  if not features:
    raise UserError("config.data.features: got (), allowed the names of the numeric columns, such as "
                    "--config.data.features=\"('density','porosity')\"")
  header, rows, lines = read_rows(path)
  for field, names in (("features", features), ("label", (label,) if label else ()),
                       ("group", (group,) if group else ())):
    for name in names:
      if name not in header:
        raise UserError(f"config.data.{field}: {path} has no column {name!r}; it has {', '.join(header)}")
  columns = dict(zip(header, zip(*rows))) if rows else {name: () for name in header}
  x = np.stack([parse_numbers(path, name, columns[name], lines) for name in features], axis=1)
  for d, name in enumerate(features):
    if np.isinf(x[:, d]).any():
      raise UserError(f"{path}: column {name!r}, row {lines[np.flatnonzero(np.isinf(x[:, d]))[0]]}: infinite value")
    if len(x) and np.isnan(x[:, d]).all():
      raise UserError(f"{path}: column {name!r} is empty in every row")
  keep = ~np.isnan(x).any(axis=1)
  if not keep.any():
    raise UserError(f"{path}: of {len(x)} rows none has a number in every feature column")
  x = x[keep]
  for d, name in enumerate(features):
    if x[:, d].min() == x[:, d].max():
      raise UserError(f"{path}: column {name!r} is constant ({x[0, d]:g}) in the {len(x)} complete rows")
  code, class_names = encode_labels(np.asarray(columns[label], object)[keep]) if label else (None, ())
  if label and len(class_names) < 2:
    raise UserError(f"{path}: label column {label!r} has {len(class_names)} classes in the complete rows, allowed 2 or "
                    "more")
  facts = {"source": path, "sha256": file_digest(path), "rows": int(keep.sum()), "rows_dropped": int((~keep).sum()),
           "rows_unlabelled": int((code == -1).sum()) if label else 0}
  return Table(x, tuple(features), code, class_names, np.asarray(columns[group], object)[keep] if group else None,
               facts)


def read_rows(path: str) -> tuple[list[str], list[list[str]], list[int]]:
  """Header, rows and the rows' line numbers of a CSV file; every row has as many cells as the header."""
  try:
    with open(path, newline="", encoding="utf-8-sig") as file:
      reader = csv.reader(file)
      header = [name.strip() for name in next(reader, [])]
      rows, lines = [], []
      for row in reader:
        if row:
          rows.append(row)
          lines.append(reader.line_num)
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    reason = getattr(error, "strerror", None) or error
    raise UserError(f"config.data.path: cannot read {path!r} as CSV: {reason}") from error
  if not header:
    raise UserError(f"{path}: the file is empty")
  repeated = sorted({name for name in header if header.count(name) > 1})
  if repeated:
    raise UserError(f"{path}: column names must differ; {repeated[0]!r} stands more than once")
  for number, row in zip(lines, rows):
    if len(row) != len(header):
      raise UserError(f"{path}: row {number} has {len(row)} cells, the header has {len(header)}")
  return header, rows, lines


def parse_numbers(path: str, name: str, cells: tuple[str, ...], lines: list[int]) -> np.ndarray:
  """Cells of a numeric column as float64, NaN where missing."""
  try:
    return np.asarray(cells, np.float64)
  except ValueError:  # a missing cell, or text: look at each
    values = np.empty(len(cells), np.float64)
  for i, cell in enumerate(cells):
    if cell.strip().lower() in MISSING:
      values[i] = np.nan
      continue
    try:
      values[i] = float(cell)
    except ValueError:
      raise UserError(f"{path}: column {name!r}, row {lines[i]}: {cell!r} is not a number") from None
  return values


def encode_labels(cells: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
  """Labels [N] int32 by sorted unique name, -1 where missing, and the names."""
  cells = np.asarray([str(c).strip() for c in cells])
  present = ~np.isin(np.char.lower(cells), MISSING)
  names, code = np.unique(cells[present], return_inverse=True)
  label = np.full(len(cells), -1, np.int32)
  label[present] = code
  return label, tuple(names.tolist())


def file_digest(path: str) -> str:
  """SHA-256 of a file's bytes, hexadecimal."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def select_features(table: Table, names: tuple[str, ...]) -> Table:
  """The named feature columns, in that order. Raises UserError for a name that is not there."""
  for name in names:
    if name not in table.feature_names:
      raise UserError(f"config.data.features: {table.facts['source']} has no column {name!r}; it has "
                      f"{', '.join(table.feature_names[:12])}")
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
