"""Files of columns, read whole by name: CSV, Parquet, NPZ, HDF5 and SQLite. `writing.py` writes them.

A column is an array with one entry per row: numbers as the file has them, or an object array of text, numbers and None.
A column of an NPZ or HDF5 file may be wide, [N, D]: `name` then stands for `name_0` to `name_<D-1>`, or for the names
in the dataset's attribute `columns`. Every complaint is one line that names the file.

A file may come from a stranger: what it unfolds to is counted before it is read, or while it is, and it is refused
where that does not fit into memory.
"""

import collections
import csv
import gc
import itertools
import math
import os
import sqlite3
import urllib.parse
from typing import Callable, NamedTuple

import numpy as np

from jaxtrain import memory
from jaxtrain.data import hdf5
from jaxtrain.errors import UserError, need
from jaxtrain.workdir import reading

BLOCK = 8192  # rows handled at a time
MOST_CELL = 1 << 20  # bytes of a text in a database
IDLE_STEPS = 4_000_000_000  # of SQLite's machine (minutes) in which a query gives no further row: it may have no end
STEPS = 1_000_000  # after which it is looked at


class Columns(NamedTuple):
  """The columns of a file.

  Attributes:
    path: of the file, for messages.
    values: name -> [N], in the order of the file.
    wide: name of a wide column -> names of its parts, which are in `values`.
    lines: [N] line number of each row of a text file; None where rows are counted from 1.
  """
  path: str
  values: dict[str, np.ndarray]
  wide: dict[str, tuple[str, ...]]
  lines: np.ndarray | None = None

  @property
  def num_rows(self) -> int:
    """N."""
    return len(next(iter(self.values.values()))) if self.values else 0

  def row(self, i: int) -> str:
    """How a message names row i, 0-based."""
    return f"row {self.lines[i] if self.lines is not None else i + 1}"

  def expand(self, names: tuple[str, ...]) -> tuple[str, ...]:
    """Names with each wide column's replaced by its parts'."""
    return tuple(part for name in names for part in (self.wide[name] if name in self.wide else (name,)))


def read(kind: str, path: str, table: str = "", field: str = "config.data.path") -> Columns:
  """All columns of a file.

  Args:
    kind: one of `KINDS`.
    path: the file.
    table: name of the table of an SQLite file; "" = the only one.
    field: where the path came from, for messages.

  Raises:
    UserError: the file is missing, damaged, empty, ragged, or names a column twice.
  """
  check_path(kind, path, field)
  try:
    memory.check(os.path.getsize(path), "the file")
    columns = READERS[kind](path, table)
  except UserError:
    raise
  except Exception as error:  # the libraries raise many types for damaged files: zlib.error, EOFError, RuntimeError
    lines = str(getattr(error, "strerror", None) or error).splitlines() or [type(error).__name__]
    raise UserError(f"{field}: cannot read {path!r} as {kind}: {lines[0][:200]}") from error
  if not columns.num_rows:
    raise UserError(f"{path}: the file has no rows" if columns.values else f"{path}: the file is empty")
  return columns


def check_path(kind: str, path: str, field: str) -> None:
  """Raises UserError where a path names no file."""
  if not path:
    raise UserError(f"{field}: got '', allowed the path of a {kind} file")
  if not os.path.isfile(path):
    reason = "it is a folder" if os.path.isdir(path) else "there is no such file"
    raise UserError(f"{field}: cannot read {path!r} as {kind}: {reason}")


def kind_of(path: str) -> str:
  """The kind of a file by its suffix. Raises UserError for a suffix that no kind has."""
  suffix = os.path.splitext(path)[1].lower()
  if suffix not in SUFFIXES:
    raise UserError(f"{path}: the suffix {suffix!r} is not one of {', '.join(SUFFIXES)}")
  return SUFFIXES[suffix]


def read_csv(path: str, _: str) -> Columns:
  """A CSV file with a header line, as text."""
  with open(path, newline="", encoding="utf-8-sig") as file:
    reader = csv.reader(file)
    header = [name.strip() for name in next(reader, [])]
    if not header:
      return Columns(path, {}, {})
    if len(header) == 1 and (separator := next((s for s in ";\t|" if s in header[0]), None)):
      raise UserError(f"{path}: the header is one cell; its cells seem to be separated by {separator!r}, allowed "
                      "commas")
    check_names(path, header)
    parts, counts, plain, most = [[] for _ in header], [], gc.isenabled(), memory.room()
    gc.disable()  # millions of small lists that all stay: looking at them again and again is half the time
    try:
      while rows := list(itertools.islice(reader, BLOCK)):
        counts.append(len(rows))
        memory.check(memory.CELL_BYTES * len(header) * sum(counts), "what it holds", most)
        if set(map(len, rows)) != {len(header)}:
          return read_ragged(path, header)
        for part, cells in zip(parts, zip(*rows)):
          part.append(cells)
    finally:
      if plain:
        gc.enable()
  values = {name: text_column(itertools.chain.from_iterable(part), sum(counts)) for name, part in zip(header, parts)}
  return Columns(path, values, {}, np.arange(2, sum(counts) + 2) if reader.line_num == sum(counts) + 1 else
                 line_numbers(path))


def read_ragged(path: str, header: list[str]) -> Columns:
  """The same with empty lines left out. Raises UserError at a row with another number of cells than the header."""
  rows, lines = [], []
  with open(path, newline="", encoding="utf-8-sig") as file:
    reader = csv.reader(file)
    next(reader)
    for row in reader:
      if row:
        rows.append(row)
        lines.append(reader.line_num)
        if len(row) != len(header):
          raise UserError(f"{path}: row {reader.line_num} has {len(row)} cells, the header has {len(header)}")
  cells = zip(*rows) if rows else [()] * len(header)
  values = {name: text_column(part, len(rows)) for name, part in zip(header, cells)}
  return Columns(path, values, {}, np.asarray(lines))


def line_numbers(path: str) -> np.ndarray:
  """The line on which each row of a CSV file ends; quoted cells may hold line breaks."""
  with open(path, newline="", encoding="utf-8-sig") as file:
    reader = csv.reader(file)
    next(reader)
    return np.asarray([reader.line_num for _ in reader])


def text_column(cells, count: int) -> np.ndarray:
  """An object array of cells."""
  return np.fromiter(cells, object, count)


def read_parquet(path: str, _: str) -> Columns:
  """A Parquet file; dates and nested columns are refused when they are used."""
  table = read_batches(path)
  values = {}
  for name in table.column_names:
    column = table.column(name)
    kind = str(column.type)
    if kind.startswith(("int", "uint", "float", "double", "half", "bool")) and (
        not column.null_count or kind.startswith(("float", "double", "half"))):
      values[name] = column.to_numpy()
    else:
      values[name] = np.fromiter(column.to_pylist(), object, len(column))
  return Columns(path, values, {})


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


def read_npz(path: str, _: str) -> Columns:
  """A NumPy archive of arrays with one entry per row."""
  with open(path, "rb") as file:
    if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
      raise UserError(f"{path}: a single array has no column names; save it with numpy.savez(path, name=array)")
  return split_wide(path, {name: (array, None) for name, array in reading.read_arrays(path).items()})


def read_hdf5(path: str, _: str) -> Columns:
  """An HDF5 file of datasets with one entry per row; those in groups are named group/dataset."""
  with need("h5py", "tables").File(path, "r") as file:
    datasets = hdf5.datasets(path, file)
    memory.check(sum(dataset.nbytes for dataset in datasets.values()), "what it holds")
    return split_wide(path, {name: (hdf5.read_rows(dataset), hdf5.part_names(dataset))
                             for name, dataset in datasets.items()})


def wide_names(path: str, name: str, shape: tuple[int, ...], parts: tuple[str, ...] | None) -> tuple[str, ...]:
  """Names of the parts of a wide column. Raises UserError where there are not as many as the column is wide."""
  width = math.prod(shape[1:])
  parts = parts or tuple(f"{name}_{d}" for d in range(width))
  if len(parts) != width:
    raise UserError(f"{path}: {name!r} is {width} wide, its attribute columns has {len(parts)} names")
  return parts


def split_wide(path: str, arrays: dict[str, tuple[np.ndarray, tuple[str, ...] | None]]) -> Columns:
  """Columns of arrays [N, ...], text decoded, wide ones taken apart. Raises UserError where N differs."""
  values, wide = {}, {}
  arrays = {name: pair for name, pair in arrays.items() if pair[0].ndim}
  check_lengths(path, {name: len(array) for name, (array, _) in arrays.items()})
  names = {name: wide_names(path, name, array.shape, parts) if array.ndim > 1 else (name,)
           for name, (array, parts) in arrays.items()}
  check_names(path, list(itertools.chain.from_iterable(names.values())))
  for name, (array, _) in arrays.items():
    shape = array.shape
    if array.dtype.kind in "SO":
      array = np.fromiter((c.decode() if isinstance(c, bytes) else c for c in array.ravel()), object, array.size)
    elif array.dtype.kind == "U":
      array = array.astype(object)
    if len(shape) == 1:
      values[name] = array
      continue
    wide[name] = names[name]
    values |= dict(zip(wide[name], array.reshape(shape[0], -1).T))
  return Columns(path, values, wide)


def check_names(path: str, names: list[str]) -> None:
  """Raises UserError where a name stands twice."""
  for name, count in collections.Counter(names).items():
    if count > 1:
      raise UserError(f"{path}: column names must differ; {name!r} stands more than once")


def check_lengths(path: str, lengths: dict[str, int]) -> None:
  """Raises UserError where columns have different numbers of rows."""
  for name, length in lengths.items():
    first = next(iter(lengths))
    if length != lengths[first]:
      raise UserError(f"{path}: {name!r} has {length} rows, {first!r} has {lengths[first]}; all must have as many")


def read_sqlite(path: str, table: str) -> Columns:
  """A table of an SQLite file, in the order of its rows."""
  database = sqlite3.connect(f"file:{urllib.parse.quote(os.path.abspath(path))}?mode=ro", uri=True)
  database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_CELL)
  database.execute("pragma trusted_schema = off")
  try:
    found = database.execute("select name from sqlite_master where type in ('table', 'view') order by name")
    tables = [name for name, in found if not name.startswith("sqlite_")]
    if (table or len(tables) != 1) and table not in tables:
      raise UserError(f"config.data.table: got {table!r}, allowed a table of {path}: "
                      f"{', '.join(tables) or 'it has none'}")
    names, cells = fetch(database, "select * from \"{}\"".format((table or tables[0]).replace('"', '""')))
  finally:
    database.close()
  columns = zip(*cells) if cells else [()] * len(names)
  return Columns(path, {name: text_column(column, len(cells)) for name, column in zip(names, columns)}, {})


def fetch(database: sqlite3.Connection, query: str) -> tuple[list[str], list[tuple]]:
  """(names, rows) of a query.

  Raises ValueError where they do not fit into memory, or further ones do not come: a view is a program, and may have no
  end.
  """
  cells, size, most, idle = [], 0, memory.room(), [0]

  def looked() -> bool:
    idle[0] += STEPS
    return idle[0] > IDLE_STEPS

  database.set_progress_handler(looked, STEPS)
  try:
    rows = database.execute(query)
    for row in rows:
      cells.append(row)
      idle[0] = 0
      size += memory.CELL_BYTES * len(row) + sum(len(cell) for cell in row if isinstance(cell, (str, bytes)))
      if len(cells) % BLOCK == 0 or size > most:
        memory.check(size, "what it holds", most)
  except sqlite3.OperationalError:
    if idle[0] > IDLE_STEPS:
      raise ValueError(f"its view gave no row for {IDLE_STEPS:,} steps and may have no end") from None
    raise
  return [column[0] for column in rows.description], cells


READERS: dict[str, Callable[[str, str], Columns]] = {
    "csv": read_csv, "parquet": read_parquet, "npz": read_npz, "hdf5": read_hdf5, "sqlite": read_sqlite}
KINDS = tuple(READERS)
SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5", ".db": "sqlite",
            ".sqlite": "sqlite"}
