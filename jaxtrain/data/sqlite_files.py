"""Tables and views of an SQLite file, read with distrust: a view is a program that a stranger may have written."""

import contextlib
import os
import sqlite3
import urllib.parse
from typing import Iterator

from jaxtrain import memory
from jaxtrain.errors import UserError

BLOCK = 8192  # rows after which memory is looked at
MOST_CELL = 1 << 20  # bytes of a text in a database
IDLE_STEPS = 4_000_000_000  # of SQLite's machine (minutes) in which a query gives no further row: it may have no end
STEPS = 1_000_000  # after which it is looked at


@contextlib.contextmanager
def opened(path: str) -> Iterator[tuple[sqlite3.Connection, list[str]]]:
  """Context of (an SQLite file, opened to be read alone, the names of its tables and views)."""
  database = sqlite3.connect(f"file:{urllib.parse.quote(os.path.abspath(path))}?mode=ro", uri=True)
  database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_CELL)
  database.execute("pragma trusted_schema = off")
  try:
    found = database.execute("select name from sqlite_master where type in ('table', 'view') order by name")
    yield database, [name for name, in found if not name.startswith("sqlite_")]
  finally:
    database.close()


def table_there(path: str, wanted: str) -> str:
  """The wanted table of an SQLite file; "" where the file has no such table, or cannot be read."""
  try:
    with opened(path) as (_, tables):
      return wanted if wanted in tables else ""
  except sqlite3.Error:
    return ""


def read(path: str, table: str) -> tuple[list[str], list[tuple]]:
  """(names of columns, rows) of a table; "" = the only one. Raises UserError where the file has no such table."""
  with opened(path) as (database, tables):
    if (table or len(tables) != 1) and table not in tables:
      raise UserError(f"config.data.table: got {table!r}, allowed a table of {path}: "
                      f"{', '.join(tables) or 'it has none'}")
    return fetch(database, "select * from \"{}\"".format((table or tables[0]).replace('"', '""')))


def fetch(database: sqlite3.Connection, query: str, parameters: tuple = ()) -> tuple[list[str], list[tuple]]:
  """(names, rows) of a query, with values bound to its parameters.

  Raises ValueError where they do not fit into memory, or further ones do not come: a view is a program, and may have no
  end.
  """
  found, size, most, idle = [], 0, memory.room(), [0]

  def looked() -> bool:
    idle[0] += STEPS
    return idle[0] > IDLE_STEPS

  database.set_progress_handler(looked, STEPS)
  try:
    rows = database.execute(query, parameters)
    for row in rows:
      found.append(row)
      idle[0] = 0
      size += memory.CELL_BYTES * len(row) + sum(len(cell) for cell in row if isinstance(cell, (str, bytes)))
      if len(found) % BLOCK == 0 or size > most:
        memory.check(size, "what it holds", most)
  except sqlite3.OperationalError:
    if idle[0] > IDLE_STEPS:
      raise ValueError(f"its view gave no row for {IDLE_STEPS:,} steps and may have no end") from None
    raise
  return [column[0] for column in rows.description], found
