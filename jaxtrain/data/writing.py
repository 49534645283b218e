"""Columns written to a file: CSV, Parquet, NPZ or HDF5, such as `files.read` reads again."""

import csv
import os
import re
import zipfile
from typing import Callable, Iterable

import numpy as np

from jaxtrain.data import files
from jaxtrain.errors import UserError, need
from jaxtrain.workdir import atomic

EXACT = 2**53  # integers up to here are float64 too
NUMBER = re.compile(r"(-?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d+)?)?")


def check(path: str, columns: dict[str, np.ndarray]) -> None:
  """Raises UserError, before anything is computed, for a column that a file of the path's suffix cannot hold."""
  kind = files.kind_of(path)
  for name, column in columns.items():
    reason = refuse_name(kind, name, columns)
    if not reason and kind != "csv":
      try:
        CHECKS[kind](plain_numbers(column))
      except Exception as error:  # the libraries raise many types
        reason = files.first_line(error)
    if reason:
      raise UserError(f"--output: {path}: {os.path.splitext(path)[1]} cannot hold the column {name!r}: {reason}; "
                      "choose another suffix, or rename or leave out the column")


def refuse_name(kind: str, name: str, names: Iterable[str]) -> str:
  """Why a file cannot hold a column of this name beside the others; empty where it can."""
  if kind in ("hdf5", "npz") and "\0" in name:
    return "its name holds the letter NUL"
  if kind != "hdf5":
    return ""
  parts = name.split("/")
  if "" in parts or "." in parts:
    return "a name, or what stands before or after a '/' in it, is empty or a dot, which HDF5 takes for a group"
  above = ["/".join(parts[:k]) for k in range(1, len(parts))]
  clash = next((other for other in names if other in above), None)
  return f"a '/' makes {clash!r}, which is another column, a group of HDF5" if clash else ""


def write(path: str, columns: dict[str, np.ndarray]) -> None:
  """Writes columns [N] as the suffix of the path says: .csv, .parquet, .npz or .h5; under another name until whole.

  Numbers in CSV have as many digits as give them back exactly; None becomes an empty cell.
  """
  kind = files.kind_of(path)
  if kind not in WRITERS:
    raise UserError(f"{path}: cannot write {kind}, allowed .csv .parquet .npz .h5")
  with atomic.replacing(path) as fresh:
    WRITERS[kind](fresh, columns if kind == "csv" else {n: plain_numbers(column) for n, column in columns.items()})


def write_csv(path: str, columns: dict[str, np.ndarray]) -> None:
  """A header line and a line per row."""
  with open(path, "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*map(csv_cells, columns.values())))


def csv_cells(column: np.ndarray) -> Iterable:
  """Cells of a column: as many digits as give a number back, nothing for NaN."""
  if column.dtype.kind != "f":
    return column.tolist()
  cells = map(str, column) if column.dtype == np.float32 else map(repr, column.tolist())
  return ("" if cell == "nan" else cell for cell in cells)


def plain_numbers(column: np.ndarray) -> np.ndarray:
  """Text that is numbers in every row, as of a CSV file, as int64, or float64 with NaN for empty; others as they are.

  `007` is no number but a name.
  """
  if column.dtype != object:
    return column
  cells = ["" if cell is None else cell for cell in column.tolist()]
  if not any(cells) or not all(isinstance(cell, str) and NUMBER.fullmatch(cell) for cell in cells):
    return column
  if all(cell.lstrip("-").isdigit() for cell in cells):  # such as sample numbers, of which float64 loses digits
    return np.asarray(list(map(int, cells))) if max(map(len, cells)) < 19 else column
  return np.asarray([float(cell) if cell else np.nan for cell in cells])


def write_parquet(path: str, columns: dict[str, np.ndarray]) -> None:
  """A Parquet file."""
  arrow = need("pyarrow", "tables")
  made = arrow.table([arrow_array(column) for column in columns.values()], names=list(columns))
  need("pyarrow.parquet", "tables").write_table(made, path)


def arrow_array(column: np.ndarray):
  """A column as Parquet holds it."""
  return need("pyarrow", "tables").array(one_type(column) if column.dtype == object else column)


def one_type(column: np.ndarray) -> list:
  """The cells of an object column; as text where there is more than numbers, or than text, beside None."""
  cells = column.tolist()
  kinds = {type(cell) for cell in cells if cell is not None}
  if kinds == {int, float} and any(isinstance(cell, int) and abs(cell) > EXACT for cell in cells):
    raise ValueError(f"it mixes reals with integers beyond {EXACT}, which no real holds")
  return cells if len(kinds) < 2 or kinds == {int, float} else [None if c is None else str(c) for c in cells]


def write_npz(path: str, columns: dict[str, np.ndarray]) -> None:
  """A NumPy archive; text becomes arrays of Unicode, never objects."""
  with zipfile.ZipFile(path, "w") as archive:  # numpy.savez has no way to write a column named `file`
    for name, column in columns.items():
      with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, npz_array(column), allow_pickle=False)


def write_hdf5(path: str, columns: dict[str, np.ndarray]) -> None:
  """A dataset per column."""
  with need("h5py", "tables").File(path, "w") as file:
    for name, column in columns.items():
      data, dtype = hdf5_array(column)
      file.create_dataset(name, data=data, dtype=dtype)


def hdf5_array(column: np.ndarray):
  """(a column as HDF5 holds it, its type where h5py does not choose it). Raises TypeError for a type it lacks."""
  h5py = need("h5py", "tables")
  column = as_text(column)
  if column.dtype.kind == "U":
    return column.astype(object), h5py.string_dtype()
  h5py.h5t.py_create(column.dtype, logical=True)
  return column, None


def npz_array(column: np.ndarray) -> np.ndarray:
  """A column as a NumPy archive holds it. Raises ValueError for records of objects."""
  column = as_text(column)
  if column.dtype.hasobject:
    raise ValueError("it holds objects")
  return column


def as_text(column: np.ndarray) -> np.ndarray:
  """An object column and one of dates as Unicode text, None as an empty text; other columns as they are."""
  if column.dtype.kind in "mM":
    return column.astype(str)
  if column.dtype != object:
    return column
  return np.asarray(["" if cell is None else str(cell) for cell in column.tolist()] or [""])[:len(column)]


WRITERS: dict[str, Callable[[str, dict], None]] = {
    "csv": write_csv, "parquet": write_parquet, "npz": write_npz, "hdf5": write_hdf5}
CHECKS: dict[str, Callable] = {"parquet": arrow_array, "npz": npz_array, "hdf5": hdf5_array}
