"""States that come back bit for bit in float32: the symbols of a codec, and integers that say what they leave open.

A column is whole numbers o: those of an integer or discrete column themselves, of a float32 its bits in an order in
which larger numbers are larger. What is coded beside the symbols is o - P[k] in bytes, from the highest: P[k] is the
median of o over the states whose symbol is k in the slot of that column (slot 0 where it has none of its own). The
tables P are stored with the states, behind the code. From symbols to numbers there is no float, so that every machine
gives back the same bits.

Layout in a file: length of the code (4 bytes), `code_bytes.to_bytes`, then compressed by zlib int64 numbers, of each
column in turn its slot, num_bytes and number of known symbols, and these and their centres, each less the one before.
"""

import zlib
from typing import NamedTuple

import numpy as np

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import code as code_lib, code_bytes, fit, schema as schema_lib
from jaxtrain.experiments.semantic_compression.columns import Schema

MODE = "lossless"
BYTE = 256
MOST_BYTES = 3  # below the high part
MOST_KNOWN = 4096  # symbols of a table
MOST_WHOLE = 1 << 52  # of an integer column, whose numbers are float64
SIGN = np.int64(1) << 31


class Residual(NamedTuple):
  """How a column is given back.

  Attributes:
    name: of the column.
    slot: whose symbol says where its numbers are.
    known: symbols there, ascending; one between two of them counts as the higher one.
    centres: P of each.
    num_bytes: of the difference, below its high part.
  """
  name: str
  slot: int
  known: tuple[int, ...]
  centres: tuple[int, ...]
  num_bytes: int

  def expected(self, symbols: np.ndarray) -> np.ndarray:
    """P [N] int64 of symbols [N]."""
    k = np.minimum(np.searchsorted(np.asarray(self.known, np.int64), symbols), len(self.known) - 1)
    return np.asarray(self.centres, np.int64)[k]


def ordered(values: np.ndarray) -> np.ndarray:
  """float32 numbers [N] as int64 in the same order; -0 and 0 differ."""
  bits = np.asarray(values, np.float32).view(np.int32).astype(np.int64)
  return np.where(bits < 0, -SIGN - 1 - bits, bits)


def from_ordered(values: np.ndarray) -> np.ndarray:
  """The float32 numbers that `ordered` made int64. Raises UserError for one that stands for none."""
  values = np.where(values < 0, -SIGN - 1 - values, values)
  if ((values < -SIGN) | (values >= SIGN)).any():
    raise UserError("a lossless file holds a number that is none of 32 bits: it is damaged, or of another model")
  return values.astype(np.int32).view(np.float32)


def whole_numbers(schema: Schema, record: schema_lib.Record) -> dict[str, np.ndarray]:
  """The columns of a record as int64 [N]; continuous ones as float32 in order. Raises UserError for larger numbers."""
  found = {}
  for column in schema.columns:
    values = schema_lib.checked_values(column, record[column.name])
    if column.kind == "integer" and np.abs(values).max(initial=0) > MOST_WHOLE:
      raise UserError(f"data column {column.name!r}: a lossless file holds whole numbers up to 2**52")
    found[column.name] = ordered(values) if column.kind == "continuous" else np.rint(values).astype(np.int64)
  return found


def to_record(schema: Schema, whole: dict[str, np.ndarray]) -> schema_lib.Record:
  """The record of int64 columns: float32, int64, bool, and names of classes."""
  record = {}
  for column in schema.columns:
    values = whole[column.name]
    if column.kind == "continuous":
      record[column.name] = from_ordered(values)
    elif column.kind == "integer":
      record[column.name] = values
    else:
      most = 1 if column.kind == "binary" else len(column.classes) - 1
      if ((values < 0) | (values > most)).any():
        raise UserError(f"a lossless file holds a value of {column.name!r} that is none of its classes")
      record[column.name] = values.astype(bool) if column.kind == "binary" else np.asarray(column.classes)[values]
  return record


def plan(name: str, slot: int, symbols: np.ndarray, whole: np.ndarray) -> Residual:
  """How a column [N] int64 follows from the symbols [N] of a slot."""
  order = np.argsort(symbols, kind="stable")
  known, starts = np.unique(symbols[order], return_index=True)
  if len(known) > MOST_KNOWN:
    kept = np.linspace(0, len(known) - 1, MOST_KNOWN).astype(int)
    known, starts = known[kept], starts[kept]
  parts = np.split(whole[order], starts[1:])
  one = Residual(name, slot, tuple(known.tolist()), tuple(int(np.sort(part)[len(part) // 2]) for part in parts), 0)
  gap = np.abs(whole - one.expected(symbols))
  spread = int(np.sort(gap)[int(0.9 * (len(gap) - 1))])
  return one._replace(num_bytes=min(max(spread.bit_length() - 4, 0) // 8, MOST_BYTES))


def extend(schema: Schema, names: tuple[str, ...], symbols: np.ndarray, record: schema_lib.Record,
           code: code_lib.Code) -> tuple[np.ndarray, code_lib.Code, list[Residual]]:
  """(symbols [N, S'] with what they leave open, the code of both, how columns follow).

  Args:
    schema: of the states.
    names: of the slots, S.
    symbols: [N, S] of the codec.
    record: the states.
    code: of the codec's symbols.

  Raises UserError for no states, which say nothing of numbers to come, and for numbers too far apart.
  """
  if not len(symbols):
    raise UserError("a lossless file of no states: there must be one at least")
  found, residuals, slots = [symbols], [], list(code.slots)
  byte = code_lib.slot(0, np.append(np.ones(BYTE), 0.0))
  for column, whole in whole_numbers(schema, record).items():
    slot = names.index(column) if column in names else 0
    one = plan(column, slot, symbols[:, slot], whole)
    rest = whole - one.expected(symbols[:, slot])
    digits = [(rest >> 8 * k) & (BYTE - 1) for k in reversed(range(one.num_bytes))]
    high = (rest >> 8 * one.num_bytes)[:, None]
    if np.abs(high).max() > np.iinfo(np.int32).max:
      raise UserError(f"data column {column!r}: its numbers do not fit into 32 bits beside those of the code")
    found += [high.astype(np.int32), *(digit[:, None].astype(np.int32) for digit in digits)]
    slots += [*fit.fitted(high).slots, *[byte] * one.num_bytes]
    residuals.append(one)
  return np.concatenate(found, axis=1), code._replace(slots=tuple(slots)), residuals


def restore(schema: Schema, num_slots: int, symbols: np.ndarray, residuals: list[Residual]) -> schema_lib.Record:
  """The states of symbols [N, S'], of which the first `num_slots` are the codec's."""
  whole, at = {}, num_slots
  for one in residuals:
    rest = symbols[:, at].astype(np.int64)
    for digit in range(one.num_bytes):
      rest = (rest << 8) | symbols[:, at + 1 + digit]
    whole[one.name] = one.expected(symbols[:, one.slot]) + rest
    at += 1 + one.num_bytes
  return to_record(schema, whole)


def to_bytes(code: code_lib.Code, residuals: list[Residual]) -> bytes:
  """What a file holds of a code and of how columns follow. Raises UserError where that is too large."""
  own, parts = code_bytes.to_bytes(code), []
  for one in residuals:
    parts.append(np.array([one.slot, one.num_bytes, len(one.known)], np.int64))
    parts += [np.diff(np.array(values, np.int64), prepend=0) for values in (one.known, one.centres)]
  raw = np.concatenate(parts).astype("<i8").tobytes()
  if len(raw) > code_bytes.MOST_BYTES:
    raise UserError(f"a lossless file with tables of {len(raw)} bytes; there may be {code_bytes.MOST_BYTES}")
  return code_bytes.LENGTH.pack(len(own)) + own + zlib.compress(raw, 9)


def from_bytes(schema: Schema, num_slots: int, data: bytes) -> tuple[code_lib.Code, list[Residual]]:
  """What `to_bytes` was given, for the `num_slots` slots of a codec.

  Raises UserError for anything else, since it may come from a stranger's file.
  """
  whole = code_bytes.Reader(data)
  code = code_bytes.from_bytes(whole.take(*code_bytes.LENGTH.unpack(whole.take(code_bytes.LENGTH.size))))
  reader, residuals = code_bytes.Reader(code_bytes.expand(data[whole.at:])), []
  for column in schema.columns:
    slot, num_bytes, count = reader.array("<i8", 3).tolist()
    if not (0 <= slot < num_slots and 0 <= num_bytes <= MOST_BYTES and 0 < count <= MOST_KNOWN):
      raise UserError(f"a lossless file does not say how its column {column.name!r} follows from symbols")
    table = known, centres = np.cumsum(reader.array("<i8", 2, count), axis=1)
    if (np.diff(known) <= 0).any() or table.min() < -MOST_WHOLE or table.max() > MOST_WHOLE:
      raise UserError(f"a lossless file says of its column {column.name!r} what no writer says")
    residuals.append(Residual(column.name, slot, tuple(known.tolist()), tuple(centres.tolist()), num_bytes))
  if reader.at != len(reader.raw) or len(code.slots) != num_slots + sum(1 + one.num_bytes for one in residuals):
    raise UserError("a lossless file whose code does not fit how its columns follow")
  return code, residuals
