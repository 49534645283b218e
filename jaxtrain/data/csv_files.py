"""CSV files, read strictly: a cell is what the file says, or the line at fault is named.

**Source:** RFC 4180 with the separator and the encoding that `config.data` declares; a quote in the middle of a cell
that does not begin with one is a letter of it.
"""

import codecs
import contextlib
import csv
import gc
import itertools
from typing import Iterator

import numpy as np

from jaxtrain import memory
from jaxtrain.data import cells
from jaxtrain.errors import UserError

BLOCK = 8192  # rows handled at a time
SEPARATORS = {";": "';'", "\t": "tab", "|": "'|'"}


@contextlib.contextmanager
def opened(path: str, form: cells.Form) -> Iterator[tuple[csv.reader, list[str]]]:
  """Context of (a strict reader behind the header, the header's cells). Raises UserError at a broken quote.

  Raises ValueError where the file is not in the encoding.
  """
  encoding = "utf-8-sig" if codecs.lookup(form.encoding).name == "utf-8" else form.encoding
  try:
    with open(path, newline="", encoding=encoding) as file:
      reader = csv.reader(file, delimiter=form.separator, strict=True)
      yield reader, [name.strip() for name in next(reader, [])]
  except UnicodeError as error:
    with open(path, "rb") as file:
      marked = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    raise ValueError(f"its bytes are no text in {form.encoding}; declare its encoding, such as "
                     f"config.data.encoding={'utf-16' if marked else 'cp1252'}") from error
  except csv.Error as error:
    with open(path, newline="", encoding=encoding) as file:
      line = broken_quote(file, form.separator)
    raise UserError(f"{path}: the quote that opens in line {line} does not close before a separator or the end of a "
                    "line; a quote within quotes is written twice" if line else f"{path}: {error}") from None


def broken_quote(lines, separator: str) -> int:
  """The line, 1-based, in which a quote opens that no quote before a separator or a line's end closes; 0 for none."""
  opened_at, start = 0, True  # the line of the quote that is open; whether a cell starts here
  for number, line in enumerate(lines, 1):
    if not opened_at and '"' not in line:
      start = True
      continue
    place = 0
    while place < len(line):
      letter = line[place]
      if opened_at:
        place = line.find('"', place)
        if place < 0:
          break
        after = line[place + 1:place + 2]
        if after == '"':
          place += 1
        elif after in ("", separator, "\r", "\n"):
          opened_at = 0
        else:
          return opened_at
        start = False
      elif start and letter == '"':
        opened_at, start = number, False
      else:
        start = letter in (separator, "\r", "\n")
      place += 1
  return opened_at


def read(path: str, form: cells.Form) -> tuple[list[str], list[np.ndarray], np.ndarray | None]:
  """(header, object columns of text, the line number of each row) of a CSV file.

  Raises:
    UserError: a broken quote, an empty first line, a header of one cell in which another separator stands, a row with
      another number of cells than the header. ValueError: another encoding, or more than fits into memory.
  """
  with opened(path, form) as (reader, header):
    if not header and reader.line_num:
      raise UserError(f"{path}: its first line is empty, allowed the names of the columns")
    if len(header) == 1:
      check_separator(path, form, header[0])
    parts, counts, plain, most = [[] for _ in header], [], gc.isenabled(), memory.room()
    gc.disable()  # millions of small lists that all stay: looking at them again and again is half the time
    try:
      while header and (rows := list(itertools.islice(reader, BLOCK))):
        counts.append(len(rows))
        memory.check(memory.CELL_BYTES * len(header) * sum(counts), "what it holds", most)
        if set(map(len, rows)) != {len(header)}:
          return read_ragged(path, form)
        for part, cells_of in zip(parts, zip(*rows)):
          part.append(cells_of)
    finally:
      if plain:
        gc.enable()
    lines_read = reader.line_num
  columns = [text_column(itertools.chain.from_iterable(part), sum(counts)) for part in parts]
  plain_lines = lines_read == sum(counts) + 1
  return header, columns, np.arange(2, sum(counts) + 2) if plain_lines else line_numbers(path, form)


def check_separator(path: str, form: cells.Form, header: str) -> None:
  """Raises UserError where the one cell of a header holds what may separate cells."""
  for separator, word in (SEPARATORS | {",": "','"}).items():
    if separator != form.separator and separator in header:
      raise UserError(f"{path}: the header is one cell; its cells seem to be separated by {separator!r}, which "
                      f"config.data.separator={word} declares")


def read_ragged(path: str, form: cells.Form) -> tuple[list[str], list[np.ndarray], np.ndarray]:
  """The same with empty lines left out. Raises UserError at a row with another number of cells than the header."""
  rows, lines = [], []
  with opened(path, form) as (reader, header):
    for row in reader:
      if row:
        rows.append(row)
        lines.append(reader.line_num)
        if len(row) != len(header):
          raise UserError(f"{path}: row {reader.line_num} has {len(row)} cells, the header has {len(header)}")
  columns = zip(*rows) if rows else [()] * len(header)
  return header, [text_column(part, len(rows)) for part in columns], np.asarray(lines, int)


def line_numbers(path: str, form: cells.Form) -> np.ndarray:
  """The line on which each row of a CSV file ends; quoted cells may hold line breaks."""
  with opened(path, form) as (reader, _):
    return np.asarray([reader.line_num for _ in reader], int)


def text_column(cells_of, count: int) -> np.ndarray:
  """An object array of cells."""
  return np.fromiter(cells_of, object, count)
