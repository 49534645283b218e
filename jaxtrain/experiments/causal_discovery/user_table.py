"""A table of a user's as the task that a network reads: its variables, what is missing, what is said of it.

All columns of numbers are variables, or those of --columns. Left out by name are columns of text (most of whose cells
are no numbers), constant ones, and repetitions of a column before them: the data say nothing of where an edge of such a
column would lie. A column `<name>_intervened` of zeros and ones marks the rows in which `<name>` was set from outside.

A network that knows which cells are missing gets all rows that hold a value; for others rows with a missing cell are
left out. Variables are standardised over their cells, as those of tasks are.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxtrain.data import cells, files, surveys
from jaxtrain.errors import UserError
from jaxtrain.types import Batch

SUFFIX = "_intervened"
CONSTANT = 1e-9  # deviation by the largest value below which a column does not vary
TEXT_SHARE = 0.5  # of the cells that are there and no numbers, from which a column is text
CURES = surveys.Cures("--missing", "leave it out with --columns")


class Table(NamedTuple):
  """What was read.

  Attributes:
    names: of the D variables.
    values: [N, D] float64 in the units of the file, NaN where a cell is missing.
    marks: [N, D], 1 where the variable was set.
    left_out: column -> why it is no variable.
    num_rows: rows of the file.
  """
  names: list[str]
  values: np.ndarray
  marks: np.ndarray
  left_out: dict[str, str]
  num_rows: int


def is_text(columns: files.Columns, name: str) -> bool:
  """Whether most cells of a column that are there are no numbers."""
  column = columns.values[name]
  if column.dtype.kind in "fiub":
    return False
  is_missing = cells.missing_test(columns.form)
  there = [cell for cell in column.tolist() if not is_missing(cell)]
  return sum(not is_number(columns.form, cell) for cell in there) > TEXT_SHARE * len(there)


def is_number(form: cells.Form, cell) -> bool:
  """Whether a cell reads as a number."""
  try:
    cells.parse(form, cell)
  except (ValueError, TypeError, OverflowError):
    return False
  return True


def read_numbers(columns: files.Columns) -> Table:
  """The columns of numbers, constant and repeated ones too. Raises UserError for a cell or a mark that is none."""
  names = [name for name in columns.values if not name.endswith(SUFFIX)]
  marked = [name.removesuffix(SUFFIX) for name in columns.values if name.endswith(SUFFIX)]
  for name in marked:
    if name not in names:
      raise UserError(f"{columns.path}: column {name + SUFFIX!r} marks a variable {name!r} that is not there")
  left_out = {name: "its cells are text" for name in names if name not in columns.bad and is_text(columns, name)}
  names = [name for name in names if name not in left_out]
  try:
    values = [columns.numbers(name) for name in names]
  except UserError as error:
    raise UserError(f"{error.message}; choose the columns of numbers with --columns") from None
  marks = [columns.numbers(name + SUFFIX) if name in marked else np.zeros(columns.num_rows) for name in names]
  x, marks = (np.reshape(part, (len(names), columns.num_rows)).T for part in (values, marks))
  for r, d in np.argwhere(np.isinf(x))[:1]:
    raise UserError(f"{columns.path}: column {names[d]!r}, {columns.row(r)}: {x[r, d]}, allowed a finite number")
  for r, d in np.argwhere((marks != 0) & (marks != 1) & ~np.isnan(marks))[:1]:
    raise UserError(f"{columns.path}: column {names[d] + SUFFIX!r}, {columns.row(r)}: {marks[r, d]}, allowed 0 or 1")
  return Table(names, x, marks, left_out, columns.num_rows)


def repeats(one: np.ndarray, other: np.ndarray) -> bool:
  """Whether two columns [N] are equal in all rows that hold both, which are at least half of those that hold one."""
  both, either = ~np.isnan(one) & ~np.isnan(other), ~np.isnan(one) | ~np.isnan(other)
  return 2 * both.sum() >= either.sum() and np.array_equal(one[both], other[both])


def useless(names: list[str], x: np.ndarray) -> dict[str, str]:
  """Columns of x [N, D] that say nothing, with the reason."""
  found: dict[str, str] = {}
  for d, name in enumerate(names):
    there = x[~np.isnan(x[:, d]), d]
    if there.size < 2:
      found[name] = "it has fewer than two cells with a number"
    elif there.std() <= CONSTANT * np.abs(there).max():
      found[name] = "it is constant"
    else:
      known = [k for k in range(d) if names[k] not in found and repeats(x[:, k], x[:, d])]
      found |= {name: f"it repeats {names[known[0]]!r}"} if known else {}
  return found


def read(columns: files.Columns, incomplete: bool) -> Table:
  """The variables and rows of a file that a network can use.

  Args:
    columns: of the file.
    incomplete: whether the network takes rows with missing cells.

  Raises:
    UserError: fewer than two variables or rows are left, or what `read_numbers` raises.
  """
  table = read_numbers(columns)
  x, marks = table.values, np.where(np.isnan(table.marks), 0.0, table.marks)
  x = np.where(np.isnan(table.marks), np.nan, x)  # a cell of which nobody knows whether it was set
  gone = useless(table.names, x)  # a column that is left out decides about no row
  missing = np.isnan(x[:, [name not in gone for name in table.names]])
  rows = ~(missing.all(axis=1) if incomplete else missing.any(axis=1))
  gone = useless(table.names, x[rows])
  kept = [name not in gone for name in table.names]
  names = [name for name in table.names if name not in gone]
  if len(names) < 2 or rows.sum() < 2:
    why = "".join(f"; {name!r}: {reason}" for name, reason in list((table.left_out | gone).items())[:3])
    raise UserError(f"{columns.path}: got {len(names)} variables and {rows.sum()} rows"
                    f"{'' if rows.all() else ' without missing cells'}, allowed 2 or more of each{why}")
  return Table(names, x[rows][:, kept], marks[rows][:, kept], table.left_out | gone, table.num_rows)


def task_of(table: Table) -> Batch:
  """One task [1, n, D] of a table, whose true graph is not known."""
  observed = ~np.isnan(table.values)
  scaled = (table.values - np.nanmean(table.values, 0)) / np.nanstd(table.values, 0)
  D, whole = len(table.names), lambda part: jnp.asarray(part, jnp.float32)[None]
  return {"values": whole(np.where(observed, scaled, 0.0)), "intervened": whole(table.marks),
          "observed": whole(observed), "adjacency": jnp.zeros((1, D, D)), "node_mask": jnp.ones((1, D)),
          "weight": jnp.ones((1,)), "rejected": jnp.zeros((1,))}


def say(columns: files.Columns, incomplete: bool, num_nodes: tuple[int, ...], num_rows: tuple[int, int]) -> list[str]:
  """Lines on what was left out, and on a table that is unlike those of training.

  Args:
    columns, incomplete: as of `read`.
    num_nodes: numbers of variables that the network was trained on. num_rows: the fewest and the most rows.
  """
  table = read(columns, incomplete)
  n, D = table.values.shape
  lines = [f"left out: column {name!r}: {reason}" for name, reason in table.left_out.items()]
  surveyed = surveys.look(columns, tuple(table.names), [table.values], incomplete, CURES)
  lines += [f"warning: {words}" for words in surveyed.warnings]
  if n < table.num_rows:
    why = "without any cell" if incomplete else "with missing cells"
    lines.append(f"{n:,} of {table.num_rows:,} rows, {table.num_rows - n:,} {why} left out")
  if missing := int(np.isnan(table.values).sum()):
    lines.append(f"{missing:,} of {table.values.size:,} cells missing: a pair is judged by the rows that hold both its "
                 "variables")
  slack = 4 if num_rows[0] == num_rows[1] else 1  # one number of rows is no range
  if not min(num_nodes) <= D <= max(num_nodes) or not num_rows[0] / slack <= n <= slack * num_rows[1]:
    rows = " to ".join(f"{count:,}" for count in dict.fromkeys(num_rows))
    lines.append(f"the network was trained on tables of {' or '.join(map(str, num_nodes))} variables and {rows} rows; "
                 f"this one has {D} and {n:,}: the further away, the less its graph is to be trusted")
  return lines
