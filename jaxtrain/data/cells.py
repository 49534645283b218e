"""Cells of a file as numbers, as text, or as missing: by the form that `config.data` declares.

Every complaint is one line that names the file, the column, the row and the cell, and the field that may help.
"""

import datetime
import functools
import numbers as number_types
import re
from typing import Any, Callable, Mapping, NamedTuple

import numpy as np

from jaxtrain import spelling

MISSING = ("", "na", "n/a", "<na>", "nan", "null", "none")
TRUTHS = {"true": 1.0, "false": 0.0}
SCALARS = (str, number_types.Number, np.generic, datetime.date, datetime.time, datetime.timedelta, type(None))
KINDS = {bytes: "bytes that are no text in UTF-8", dict: "a record", np.ndarray: "an array", np.void: "a record"}
FLOAT32 = 3.4028234e38
MOST_SHOWN = 60  # characters of a cell in a message
FEW = 4  # columns named in a message
COMMA_DECIMAL = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
POINT_DECIMAL = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")
GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}([ ,.'\u00a0\u202f])\d{3}(\1\d{3})*([.,]\d+)?")
SPACES = "\u00a0\u202f"  # that do not break: they stand for a space between thousands


class Form(NamedTuple):
  """How the cells of a file are written.

  Attributes:
    missing: words and numbers that mean missing, beside an empty cell and those of `MISSING`.
    separator: of the cells of a CSV file.
    decimal, thousands: of numbers that are text; "" = thousands are not set apart.
    encoding: of a CSV file.
  """
  missing: tuple[str | float, ...] = ()
  separator: str = ","
  decimal: str = "."
  thousands: str = ""
  encoding: str = "utf-8"

  @property
  def plain(self) -> bool:
    """Whether numbers are written as Python writes them."""
    return self.decimal == "." and not self.thousands


PLAIN = Form()


def form_of(data: Mapping[str, Any]) -> Form:
  """The form that a config's section `data` declares."""
  separator = "\t" if data["separator"] in ("tab", "\\t") else data["separator"]
  return Form(tuple(data["missing"]), separator, data["decimal"], data["thousands"], data["encoding"])


@functools.lru_cache(maxsize=64)
def split_missing(missing: tuple[str | float, ...]) -> tuple[frozenset[str], tuple[float, ...]]:
  """(words in small letters, numbers) that mean missing; a word that reads as a number is one."""
  words, found = set(MISSING), []
  for entry in missing:
    try:
      found.append(float(entry))
    except ValueError:
      words.add(str(entry).strip().lower())
  return frozenset(words), tuple(found)


def missing_test(form: Form = PLAIN) -> Callable[[Any], bool]:
  """A function that says whether a cell of a file stands for nothing."""
  words, found = split_missing(form.missing)

  def test(cell) -> bool:
    if isinstance(cell, str):
      text = cell.strip().lower()
      if text in words:
        return True
      try:
        return bool(found) and parse(form, text) in found
      except ValueError:
        return False
    if cell is None or isinstance(cell, (number_types.Number, np.generic)) and cell != cell:
      return True
    return bool(found) and isinstance(cell, (int, float, np.number)) and is_one_of(cell, found)

  return test


def is_missing(cell) -> bool:
  """Whether a cell stands for nothing in a file of the plain form."""
  return missing_test()(cell)


def is_one_of(number, found: tuple[float, ...]) -> bool:
  """Whether a number is one of those, also once these are rounded to 32 bits."""
  return any(number == entry or abs(entry) < FLOAT32 and number == float(np.float32(entry)) for entry in found)


def blank(form: Form, values: np.ndarray) -> np.ndarray:
  """Numbers, float64 of any shape, with NaN in the place of those that mean missing; in place."""
  for entry in split_missing(form.missing)[1]:
    values[values == entry] = np.nan
    if abs(entry) < FLOAT32:
      values[values == float(np.float32(entry))] = np.nan
  return values


def parse(form: Form, cell) -> float:
  """A cell as a number. Raises ValueError, TypeError or OverflowError where it is none."""
  if not isinstance(cell, str):
    return float(cell)
  text = cell.strip()
  if "_" in text:  # Python reads 1_000 as a number
    raise ValueError
  if form.plain:
    return float(text)
  if form.thousands:
    for space in SPACES if form.thousands == " " else "":
      text = text.replace(space, " ")
    if form.thousands in text:
      mark, point = re.escape(form.thousands), re.escape(form.decimal)
      if not re.fullmatch(rf"[+-]?\d{{1,3}}({mark}\d{{3}})+({point}\d*)?([eE][+-]?\d+)?", text):
        raise ValueError
      text = text.replace(form.thousands, "")
  if form.decimal != ".":
    if "." in text:
      raise ValueError
    text = text.replace(form.decimal, ".")
  return float(text)


def plain_numbers(column: np.ndarray) -> np.ndarray | None:
  """An object column as float64 in one go; None where a cell is missing or text, which needs a look at each."""
  try:
    found = np.fromiter(map(float, column), np.float64, len(column))
  except (TypeError, ValueError, OverflowError):
    return None
  # Python reads 1_000 as a number.
  return None if "_" in "".join(cell for cell in column if isinstance(cell, str)) else found


def numbers(column: np.ndarray, form: Form, fail: Callable[[int | None, str], Exception],
            hint: Callable[[Any], str] | None = None) -> np.ndarray:
  """A column as float64, NaN where missing.

  Args:
    column: [N].
    form: of its cells.
    fail: makes the error of a row (None: of the column) and its words.
    hint: words that may help, of a cell that is no number; None: `hint` of the form.
  """
  if column.dtype.kind in "fiub":
    return blank(form, column.astype(np.float64))
  check_scalars(column, fail)
  if form.plain and (found := plain_numbers(column)) is not None:
    return blank(form, found)
  missing, values = missing_test(form), np.full(len(column), np.nan)
  gaps = [missing(cell) for cell in column]
  words = {cell.strip().lower() if isinstance(cell, str) else cell for cell, gap in zip(column, gaps) if not gap}
  truths = words <= TRUTHS.keys()
  for i, (cell, gap) in enumerate(zip(column, gaps)):
    if gap:
      continue
    try:
      values[i] = TRUTHS[cell.strip().lower()] if truths else parse(form, cell)
    except OverflowError:
      raise fail(i, f"{shown(cell)} is more than a number of 64 bits holds") from None
    except (TypeError, ValueError):
      raise fail(i, f"{shown(cell)} is not a number{(hint or functools.partial(hint_of, form))(cell)}") from None
  return values


def check_scalars(column: np.ndarray, fail: Callable[[int | None, str], Exception]) -> None:
  """Raises what `fail` makes where a column has more than one value in a cell, such as a list."""
  if column.dtype != object:
    if column.dtype.kind == "V":
      raise fail(None, f"holds {column.dtype}, allowed one value in a cell")
    return
  for kind in set(map(type, column)):
    if not issubclass(kind, SCALARS) or issubclass(kind, np.void):
      row = next(i for i, cell in enumerate(column) if type(cell) is kind)
      word = KINDS[kind] if kind in KINDS else f"a {kind.__name__}"
      raise fail(row, f"{shown(column[row])} is {word}, allowed one value in a cell")


def shown(cell) -> str:
  """A cell as a message shows it: in one line, and not all of a long one."""
  words = " ".join(repr(cell).split()) if not isinstance(cell, int) or abs(cell) < 10**50 else "an integer"
  return words if len(words) <= MOST_SHOWN else f"{words[:MOST_SHOWN]}..."


def decimals(columns: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
  """Names of the columns of text with decimals behind a point, and behind a comma, by that mark. A number that may have
  its thousands set apart, such as 1.234, says neither.
  """
  found = {".": [], ",": []}
  for name, column in columns.items():
    texts = [cell.strip() for cell in column.tolist() if isinstance(cell, str)] if column.dtype == object else []
    for mark, pattern in ((".", POINT_DECIMAL), (",", COMMA_DECIMAL)):
      if any(pattern.fullmatch(text) and not GROUPED.fullmatch(text) for text in texts):
        found[mark].append(name)
  return found


def hint_of(form: Form, cell, columns: Mapping[str, np.ndarray] = {}) -> str:
  """Words on the field that would make a number of a cell, or let it mean missing.

  Args:
    form: of the table's cells.
    cell: one that is no number.
    columns: all of the table's, by name: where some have points before decimals and others commas, no field helps.
  """
  if not isinstance(cell, str):
    return ""
  text, found = cell.strip(), []
  if any(pattern.fullmatch(text) for pattern in (COMMA_DECIMAL, POINT_DECIMAL, GROUPED)):
    with_points, with_commas = decimals(columns).values() if columns else ((), ())
    if with_points and with_commas:
      return (f"; the table has points before decimals in some columns ({spelling.listed(with_points, FEW)}), commas "
              f"in others ({spelling.listed(with_commas, FEW)}): write all of them with points")
  if form.decimal == "." and COMMA_DECIMAL.fullmatch(text):
    found.append("a comma before decimals is declared by config.data.decimal=','")
  if not form.thousands and (grouped := GROUPED.fullmatch(text)):
    mark = " " if grouped[1] in SPACES else grouped[1]
    found.append(f"thousands set apart by {mark!r} are declared by config.data.thousands")
    if mark == "." != form.decimal:
      found.append(f"decimals are to be written with {form.decimal!r} in all columns")
  if not any(letter.isdigit() for letter in text):
    found.append("a word that means missing is named in config.data.missing")
  return "; " + ", ".join(found) if found else ""


def decoded(column: np.ndarray) -> np.ndarray:
  """A column of text with bytes decoded as UTF-8; bytes that are no text stay, and are refused where they are used."""
  if column.dtype.kind == "U":
    return column.astype(object)
  if column.dtype.kind == "S":
    column = column.astype(object)
  if column.dtype != object or bytes not in set(map(type, column.ravel())):
    return column
  flat = np.fromiter(map(decode, column.ravel()), object, column.size)
  return flat.reshape(column.shape)


def decode(cell):
  """A cell, as text where it is bytes of text."""
  try:
    return cell.decode() if isinstance(cell, bytes) else cell
  except UnicodeDecodeError:
    return cell
