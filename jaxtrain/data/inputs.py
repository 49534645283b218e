"""What a trained run is applied to: a file or values in memory, read as the run's own file was, where nothing else is
said.
"""

import contextlib
import re
import sys
from typing import Any, Iterator, Mapping, Sequence

import numpy as np

from jaxtrain import memory, spelling
from jaxtrain.config import limits
from jaxtrain.config.defaults import TABLES
from jaxtrain.data import cells, files, labels, scaling, sqlite_files
from jaxtrain.errors import UserError

FIELDS = ("table", "missing", "separator", "decimal", "thousands", "encoding")  # of config.data, and flags of predict
NAMED = re.compile(rf"config\.data\.({'|'.join(FIELDS)})")
FRAME, COLUMNS, ARRAY = "the DataFrame", "the columns", "the array"  # how messages call what is given in Python


def fields_of(data: Mapping) -> dict[str, object]:
  """The fields of the section `data` of a run's config that say how an input is read."""
  return {name: data[name] if name in data else TABLES[name] for name in FIELDS}


def read(path: str, data: Mapping, given: Mapping[str, object]) -> files.Columns:
  """The columns of a file.

  Args:
    path: the file. Its suffix says of what kind it is; another suffix stands for the kind of the run's own file.
    data: the section `data` of the run's config.
    given: what is said of this file in place of the run's fields, by name; None where nothing is.

  Raises:
    UserError: as `files.read` does, and for a value that its field would not take.
  """
  fields = fields_of(data)
  for name, value in given.items():
    if value is not None:
      limit = limits.LIMITS[f"data.{name}"]
      if limits.plain(value) or not limits.fits(limit, value):
        raise UserError(f"--{name}: got {value!r}, allowed {limit.words}")
      fields[name] = value
  own = data["source"] if "source" in data else ""
  with spelt_as_flags():
    kind = own if own in files.KINDS and not files.has_suffix(path) else files.kind_of(path)
    table = fields["table"] if kind == "sqlite" else ""
    if table and given["table"] is None:
      table = sqlite_files.table_there(path, table)
    return files.read(kind, path, table, field="--input", form=cells.form_of(fields))


def is_frame(given: Any) -> bool:
  """Whether a value is a DataFrame of pandas, which is imported where there is one."""
  return "pandas" in sys.modules and isinstance(given, sys.modules["pandas"].DataFrame)


def from_memory(given: Any, data: Mapping, names: tuple[str, ...] | None) -> files.Columns:
  """The columns of what Python gives, by the same rules for cells as those of a file.

  Rows are named in messages as Python counts them: by the index of a DataFrame, else from 0.

  Args:
    given: a DataFrame, a dict of columns, or an array [N, F].
    data: the section `data` of the run's config.
    names: of the columns of an array, in order; None: x0, x1, ...

  Raises:
    UserError: it is none of these, has no rows, or an array has another number of columns.
  """
  lines = None
  if is_frame(given):
    path, lines = FRAME, given.index.to_numpy()
    labels, bad = files.tell_apart([str(name) for name in given.columns])
    arrays = {label: (frame_column(given.iloc[:, d]), None) for d, label in enumerate(labels)}
  elif isinstance(given, Mapping):
    path, bad = COLUMNS, {}
    arrays = {str(name): (plain_array(path, column), None) for name, column in given.items()}
  else:
    path, bad, table = ARRAY, {}, plain_array(ARRAY, given)
    if table.ndim != 2 or names is not None and table.shape[1] != len(names):
      width = "F" if names is None else len(names)
      words = "" if names is None else f", a column for each of {spelling.listed(names)}"
      raise UserError(f"{path}: got the shape {table.shape}, allowed (N, {width}){words}")
    labels = names or tuple(f"x{d}" for d in range(table.shape[1]))
    arrays = {label: (table[:, d], None) for d, label in enumerate(labels)}
  columns = files.split_wide(path, arrays, cells.form_of(fields_of(data)), bad)
  if not columns.num_rows:
    raise UserError(f"{path}: no rows")
  return columns._replace(lines=np.arange(columns.num_rows) if lines is None else lines, in_memory=True)


def plain_array(path: str, values: Any) -> np.ndarray:
  """Values as an array of NumPy. Raises UserError where their lengths differ."""
  try:
    return np.asarray(values)
  except ValueError as error:
    raise UserError(f"{path}: {' '.join(str(error).split())}") from None


def frame_column(series) -> np.ndarray:
  """A column of a DataFrame as a file has it: numbers, or objects with None where a cell is missing."""
  if isinstance(series.dtype, np.dtype) and series.dtype.kind in "fiub":
    return series.to_numpy()
  column = series.to_numpy(dtype=object, copy=True)
  column[series.isna().to_numpy()] = None
  return column


@contextlib.contextmanager
def spelt_as_flags() -> Iterator[None]:
  """Turns fields of a config that a message names into the flags that say the same of the input."""
  try:
    yield
  except UserError as error:
    raise UserError(NAMED.sub(r"--\1", error.message), error.hint) from error.__cause__


def check_num(num: int, row_bytes: int) -> None:
  """Raises UserError where so many rows as --num asks for do not fit into memory."""
  if num * row_bytes > memory.room():
    raise UserError(f"--num: got {num}, allowed up to {memory.room() // row_bytes:,} with the memory that is free; "
                    "make several files, with other seeds")


def lacks(columns: files.Columns, name: str, names: Sequence[str]) -> str:
  """The complaint that an input has no column of a name, of those that a run needs."""
  near = spelling.near(name, columns.values)
  return (f"{columns.path} has no column {name!r}{f' (it has {near!r})' if near else ''}; the run needs "
          f"{spelling.listed(names)}")


def read_features(columns: files.Columns, names: list[str], categories: Mapping[str, list[str]] = {}) -> np.ndarray:
  """The model's features [N, D] float64 of a file, NaN where missing. Raises UserError for a file that does not fit.

  Columns of `categories` (name -> their names) are codes; one that is not among them is missing.
  """
  names = tuple(names)
  for name in names:
    columns.check(name)
    if name not in columns.values:
      raise UserError(lacks(columns, name, names))
  x = np.stack([labels.known_codes(columns, name, categories[name])[0] if name in categories else columns.numbers(name)
                for name in names], axis=1)
  for r, d in np.argwhere(np.isinf(x))[:1]:
    raise UserError(f"{columns.path}: column {names[d]!r}, {columns.row(r)}: infinite value")
  return x


def say_unseen(categories: Mapping[str, list[str]], columns: files.Columns) -> list[str]:
  """A sentence for each column with cells that are none of its categories, and were taken as missing."""
  found = {name: labels.known_codes(columns, name, known)[1] for name, known in categories.items()}
  return [f"jaxtrain: column {name!r}: {len(cells):,} cells count as missing, for no training row has these: "
          f"{labels.quoted(sorted(set(cells)))}" for name, cells in found.items() if cells]


def scaled(scaler: dict, columns: files.Columns, x: np.ndarray, pick: np.ndarray) -> np.ndarray:
  """The picked rows of x [N, D] in scaled units, float32. Raises UserError, with file and row, as `scaling.scale` does.
  """
  rows = np.flatnonzero(pick)
  try:
    return scaling.scale(scaler, x[pick], lambda i, d: columns.row(rows[i]))
  except UserError as error:
    raise UserError(f"{columns.path}: {error}") from None
