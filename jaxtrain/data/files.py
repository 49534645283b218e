"""Files of columns, read whole by name: CSV, Parquet, NPZ, HDF5 and SQLite. `writing.py` writes them.

A column is an array with one entry per row: numbers as the file has them, or an object array of text, numbers and None.
A column of an NPZ or HDF5 file may be wide, [N, D]: `name` then stands for `name_0` to `name_<D-1>`, or for the names
in the dataset's attribute `columns`. Every complaint is one line that names the file.

A file may come from a stranger: what it unfolds to is counted before it is read, or while it is, and it is refused
where that does not fit into memory.
"""

import collections
import functools
import itertools
import math
import os
from typing import Any, Callable, NamedTuple

import numpy as np

from jaxtrain import memory, spelling
from jaxtrain.data import cells, csv_files, hdf5, sqlite_files
from jaxtrain.errors import UserError, need
from jaxtrain.workdir import reading

BLOCK = 8192  # rows handled at a time


class Columns(NamedTuple):
  """The columns of a file.

  Attributes:
    path: of the file, for messages.
    values: name -> [N], in the order of the file.
    wide: name of a wide column -> names of its parts, which are in `values`.
    lines: [N] line number of each row of a text file; None where rows are counted from 1.
    form: of its cells.
    bad: name of a column that may not be used -> why; it matters to nobody who does not use it.
    in_memory: whether Python gave them, so that no field says how its cells are written.
  """
  path: str
  values: dict[str, np.ndarray]
  wide: dict[str, tuple[str, ...]]
  lines: np.ndarray | None = None
  form: cells.Form = cells.PLAIN
  bad: dict[str, str] = {}
  in_memory: bool = False

  @property
  def num_rows(self) -> int:
    """N."""
    return len(next(iter(self.values.values()))) if self.values else 0

  def row(self, i: int) -> str:
    """How a message names row i, 0-based."""
    return f"row {self.lines[i] if self.lines is not None else i + 1}"

  def check(self, name: str) -> None:
    """Raises UserError for a column that may not be used."""
    if name in self.bad:
      raise UserError(f"{self.path}: {self.bad[name]}")

  def fail(self, name: str, row: int | None, words: str) -> UserError:
    """The error of a column, or of its row, 0-based."""
    return UserError(f"{self.path}: column {name!r}{'' if row is None else f', {self.row(row)}:'} {words}")

  def numbers(self, name: str) -> np.ndarray:
    """A column as float64, NaN where missing. Raises UserError at a cell that is no number."""
    self.check(name)
    return cells.numbers(self.values[name], self.form, functools.partial(self.fail, name), self.hint)

  def hint(self, cell: Any) -> str:
    """Words that may help with a cell that is no number."""
    if self.in_memory:
      return "; make it a number, or None where it is missing" if isinstance(cell, str) else ""
    return cells.hint_of(self.form, cell, self.values)

  def scalars(self, name: str) -> np.ndarray:
    """A column as it is. Raises UserError where a cell has more than one value."""
    self.check(name)
    cells.check_scalars(self.values[name], functools.partial(self.fail, name))
    return self.values[name]

  def expand(self, names: tuple[str, ...]) -> tuple[str, ...]:
    """Names with each wide column's replaced by its parts'."""
    return tuple(part for name in names for part in (self.wide[name] if name in self.wide else (name,)))


def read(kind: str, path: str, table: str = "", field: str = "config.data.path",
         form: cells.Form = cells.PLAIN) -> Columns:
  """All columns of a file. What is wrong with a column that is not used does not matter: `Columns.bad` has it.

  Args:
    kind: one of `KINDS`.
    path: the file.
    table: name of the table of an SQLite file; "" = the only one.
    field: where the path came from, for messages.
    form: of the cells.

  Raises:
    UserError: the file is missing, damaged, empty, ragged, or has a broken quote.
  """
  check_path(kind, path, field)
  try:
    memory.check(os.path.getsize(path), "the file")
    columns = READERS[kind](path, table, form)
    columns = columns._replace(values={name: cells.decoded(column) for name, column in columns.values.items()})
  except UserError:
    raise
  except Exception as error:  # the libraries raise many types for damaged files: zlib.error, EOFError, RuntimeError
    reason = getattr(error, "strerror", None) or first_line(error)
    raise UserError(f"{field}: cannot read {path!r} as {kind}: {reason}") from error
  if not columns.num_rows:
    for reason in columns.bad.values():
      raise UserError(f"{path}: {reason}")
    raise UserError(f"{path}: the file has no rows" if columns.values else f"{path}: the file is empty")
  return columns


def check_path(kind: str, path: str, field: str) -> None:
  """Raises UserError where a path names no file."""
  if not path:
    raise UserError(f"{field}: got '', allowed the path of a {kind} file")
  if not os.path.isfile(path):
    other = "it is no regular file" if os.path.exists(path) else "there is no such file"
    reason = "it is a folder" if os.path.isdir(path) else other
    near = "" if os.path.exists(path) else spelling.meant_file(path)
    raise UserError(f"{field}: cannot read {path!r} as {kind}: {reason}{near}")


def has_suffix(path: str) -> bool:
  """Whether the suffix of a path says of what kind the file is."""
  return os.path.splitext(path)[1].lower() in SUFFIXES


def kind_of(path: str) -> str:
  """The kind of a file by its suffix. Raises UserError for a suffix that no kind has."""
  suffix = os.path.splitext(path)[1].lower()
  if not has_suffix(path):
    raise UserError(f"{path}: the suffix {suffix!r} is not one of {', '.join(SUFFIXES)}")
  return SUFFIXES[suffix]


def read_csv(path: str, _: str, form: cells.Form) -> Columns:
  """A CSV file with a header line, as text. Columns without a name are called by their place, empty ones are left out.
  """
  header, columns, lines = csv_files.read(path, form)
  named = {}
  for place, (name, column) in enumerate(zip(header, columns), 1):
    if name or any(column):
      named[place] = name or f"column {place}"
  names, bad = tell_apart(list(named.values()))
  values = {name: columns[place - 1] for name, place in zip(names, named)}
  return Columns(path, values, {}, lines, form, bad)


def tell_apart(names: list[str]) -> tuple[list[str], dict[str, str]]:
  """(names that differ: of those that stand more than once all but the first are numbered, why these may not be used).
  """
  counts, seen, found = collections.Counter(names), collections.Counter(), []
  for name in names:
    seen[name] += 1
    number = seen[name]
    while number > 1 and f"{name} ({number})" in counts:
      number += 1
    found.append(name if seen[name] == 1 else f"{name} ({number})")
  return found, {name: f"column names must differ; {name!r} stands more than once"
                 for name, count in counts.items() if count > 1}


def read_parquet(path: str, _: str, form: cells.Form) -> Columns:
  """A Parquet file; dates and nested columns are refused when they are used."""
  table = read_batches(path)
  names, bad = tell_apart(table.column_names)
  values = {}
  for name, column in zip(names, table.columns):
    kind = str(column.type)
    try:
      if kind.startswith(("int", "uint", "float", "double", "half", "bool")) and (
          not column.null_count or kind.startswith(("float", "double", "half"))):
        values[name] = column.to_numpy()
      else:
        values[name] = np.fromiter(column.to_pylist(), object, len(column))
    except Exception as error:  # of many types: what Python has no type for, such as times in nanoseconds
      bad[name] = f"column {name!r} holds {kind}, which cannot be read: {first_line(error)}"
  return Columns(path, values, {}, None, form, bad)


def read_batches(path: str):
  """The table of a Parquet file, whose text and lists may be written once and meant a million times."""
  arrow, parquet = need("pyarrow", "tables"), need("pyarrow.parquet", "tables")
  batches, size, most = [], 0, memory.room()
  with parquet.ParquetFile(path) as file:
    memory.check(8 * file.metadata.num_rows * file.metadata.num_columns, "what it holds", most)
    for batch in file.iter_batches(BLOCK):
      batches.append(batch)
      size += batch.nbytes
      memory.check(size, "what it holds", most)
    return arrow.Table.from_batches(batches, file.schema_arrow)


def read_npz(path: str, _: str, form: cells.Form) -> Columns:
  """A NumPy archive of arrays with one entry per row."""
  with open(path, "rb") as file:
    if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
      raise UserError(f"{path}: a single array has no column names; save it with numpy.savez(path, name=array)")
  return split_wide(path, {name: (array, None) for name, array in reading.read_arrays(path).items()}, form, {})


def read_hdf5(path: str, _: str, form: cells.Form) -> Columns:
  """An HDF5 file of datasets with one entry per row; those in groups are named group/dataset."""
  with need("h5py", "tables").File(path, "r") as file:
    datasets, bad = hdf5.usable(hdf5.datasets(path, file))
    memory.check(sum(dataset.nbytes for dataset in datasets.values()), "what it holds")
    arrays = {}
    for name, dataset in datasets.items():
      try:
        arrays[name] = hdf5.read_rows(dataset), hdf5.part_names(dataset)
      except memory.TooMuch:
        raise
      except Exception as error:  # of many types: damaged, or packed by a filter that is not installed
        bad[name] = f"column {name!r} cannot be read: {first_line(error)}"
    return split_wide(path, arrays, form, bad)


def first_line(error: Exception) -> str:
  """The first line of an error's text, or the name of its type."""
  return (str(error).splitlines() or [type(error).__name__])[0][:200]


def lay_out(shapes: dict[str, tuple[tuple[int, ...], tuple[str, ...] | None]], bad: dict[str, str]
            ) -> dict[str, tuple[str, ...]]:
  """Names of the columns of each array that belongs to the table, by its name; the others go to `bad`, with the reason.

  The table has as many rows as most columns have.

  Args:
    shapes: name -> (shape, names of its parts or None).
  """
  shapes = {name: pair for name, pair in shapes.items() if pair[0]}
  votes = collections.Counter()
  for shape, _ in shapes.values():
    votes[shape[0]] += math.prod(shape[1:])
  num_rows = max(votes, key=votes.get, default=0)
  first = next((name for name, (shape, _) in shapes.items() if shape[0] == num_rows), "")
  laid = {}
  for name, (shape, parts) in shapes.items():
    width = math.prod(shape[1:])
    names = (parts or tuple(f"{name}_{d}" for d in range(width))) if len(shape) > 1 else (name,)
    if shape[0] != num_rows:
      bad[name] = f"{name!r} has {shape[0]} rows, {first!r} has {num_rows}; all must have as many"
      bad.update({part: bad[name] for part in names})
    elif len(names) != width:
      bad[name] = f"{name!r} is {width} wide, its attribute columns has {len(names)} names"
    else:
      laid[name] = names
  counts = collections.Counter(itertools.chain.from_iterable(laid.values()))
  bad.update({name: f"column names must differ; {name!r} stands more than once"
              for name, count in counts.items() if count > 1})
  return laid


def split_wide(path: str, arrays: dict[str, tuple[np.ndarray, tuple[str, ...] | None]], form: cells.Form,
               bad: dict[str, str]) -> Columns:
  """Columns of arrays [N, ...], text decoded, wide ones taken apart; `bad` holds what cannot be used, and why."""
  values, wide = {}, {}
  laid = lay_out({name: (array.shape, parts) for name, (array, parts) in arrays.items()}, bad)
  for name, names in laid.items():
    array = cells.decoded(arrays[name][0])
    if array.ndim == 1:
      values[name] = array
      continue
    wide[name] = names
    values |= dict(zip(names, array.reshape(array.shape[0], -1).T))
  return Columns(path, values, wide, None, form, bad)


def read_sqlite(path: str, table: str, form: cells.Form) -> Columns:
  """A table of an SQLite file, in the order of its rows."""
  names, found = sqlite_files.read(path, table)
  columns = zip(*found) if found else [()] * len(names)
  names, bad = tell_apart(names)
  values = {name: csv_files.text_column(column, len(found)) for name, column in zip(names, columns)}
  return Columns(path, values, {}, None, form, bad)


READERS: dict[str, Callable[[str, str, cells.Form], Columns]] = {
    "csv": read_csv, "parquet": read_parquet, "npz": read_npz, "hdf5": read_hdf5, "sqlite": read_sqlite}
KINDS = tuple(READERS)
SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5", ".db": "sqlite",
            ".sqlite": "sqlite"}
