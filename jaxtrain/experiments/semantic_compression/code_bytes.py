"""A `Code` as bytes: a JSON header and little-endian arrays of integers, compressed by zlib.

Layout before compression: length of the header (4 bytes), header, then in the order of the slots the counts of each
(uint32), then of each layer of the prior the weights (int16), bias (int64) and shift (uint8). What is read is checked
before it is used: bytes of a stranger give a code that decodes, or an error of one line.
"""

import json
import struct
import zlib
from typing import Any

import numpy as np

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import integer_net
from jaxtrain.experiments.semantic_compression.code import (
  INT32, MOST_SLOTS, Code, Lattice, Prior, Slot, check)
from jaxtrain.experiments.semantic_compression.integer_net import IntegerNet, Layer
from jaxtrain.experiments.semantic_compression.tables import MOST_ENTRIES, PRECISION

FORMAT = 1
MOST_BYTES = 1 << 24  # of a code before compression
LAYER_TYPES = ("<i2", "<i8", "<u1")
LENGTH = struct.Struct("<I")


def to_bytes(code: Code) -> bytes:
  """A code as bytes. Raises UserError where it does not decode, or is larger than MOST_BYTES."""
  check(code)
  header: dict[str, Any] = {
    "format": FORMAT, "precision": PRECISION,
    "slots": [None if one is None else [one.offset, *one.counts.shape] for one in code.slots],
    "lattices": [[one.name, one.start] for one in code.lattices], "prior": None}
  arrays = [one.counts.astype("<u4") for one in code.slots if one is not None]
  if code.prior is not None:
    slots, same, before, net = code.prior
    header["prior"] = {"slots": list(slots), "same": list(same), "before": list(before),
                       "layers": [list(layer.weights.shape) for layer in net.layers]}
    arrays += [one.astype(kind) for layer in net.layers for one, kind in zip(layer, LAYER_TYPES)]
  text = json.dumps(header, separators=(",", ":")).encode()
  raw = b"".join([LENGTH.pack(len(text)), text, *(one.tobytes() for one in arrays)])
  if len(raw) > MOST_BYTES:
    raise UserError(f"a code of {len(raw)} bytes; there may be {MOST_BYTES}")
  return zlib.compress(raw, 9)


class Reader:
  """Bytes that are read from the front; a UserError where they end early."""

  def __init__(self, raw: bytes):
    self.raw, self.at = raw, 0

  def take(self, count: int) -> bytes:
    """The next bytes."""
    if count > len(self.raw) - self.at:
      raise UserError("a code: its bytes end early")
    self.at += count
    return self.raw[self.at - count:self.at]

  def array(self, kind: str, *shape: int) -> np.ndarray:
    """The next array."""
    size = int(np.prod(shape, dtype=object)) * np.dtype(kind).itemsize
    return np.frombuffer(self.take(size), kind).reshape(shape)


def expand(data: bytes) -> bytes:
  """Bytes before compression, at most MOST_BYTES of them."""
  unpack = zlib.decompressobj()
  try:
    raw = unpack.decompress(data, MOST_BYTES)
  except zlib.error:
    raise UserError("a code: its bytes are damaged") from None
  if not unpack.eof or unpack.unused_data:
    raise UserError(f"a code: its bytes are damaged, or unfold to more than {MOST_BYTES}")
  return raw


def whole(value: Any, low: int, high: int) -> int:
  """An integer of a header that is within its limits."""
  if type(value) is not int or not low <= value <= high:
    raise UserError(f"a code: its header has {value!r:.40} for an integer from {low} to {high}")
  return value


def listed(record: Any, name: str, most: int) -> list:
  """A list of a header, of so many entries at most."""
  value = record[name] if isinstance(record, dict) and name in record else None
  if not isinstance(value, list) or len(value) > most:
    raise UserError(f"a code: its header has no {name}, or too many")
  return value


def read_slot(reader: Reader, one: Any) -> Slot | None:
  """A slot of the header with its counts."""
  if one is None:
    return None
  if not isinstance(one, list) or len(one) != 3:
    raise UserError("a code: its header has a slot of another form")
  shape = whole(one[1], 1, 4), whole(one[2], 1, MOST_ENTRIES + 1)
  return Slot(whole(one[0], INT32.min, INT32.max), reader.array("<u4", *shape).astype(np.uint32))


def read_prior(reader: Reader, record: Any) -> Prior | None:
  """The prior of the header with its network."""
  if record is None:
    return None
  slots, same, before = (tuple(whole(s, 0, MOST_SLOTS) for s in listed(record, name, MOST_SLOTS))
                         for name in ("slots", "same", "before"))
  layers = []
  for shape in listed(record, "layers", 100):
    if not isinstance(shape, list) or len(shape) != 2:
      raise UserError("a code: its header has a layer of another form")
    inputs, outputs = (whole(size, 1, integer_net.MOST_WIDTH) for size in shape)
    read = [reader.array(kind, *size).astype(np.int64)
            for kind, size in zip(LAYER_TYPES, ((inputs, outputs), (outputs,), (outputs,)))]
    layers.append(Layer(*read))
  return Prior(slots, same, before, IntegerNet(tuple(layers)))


def from_bytes(data: bytes) -> Code:
  """The code of bytes that `to_bytes` wrote. Raises UserError of one line for all others."""
  reader = Reader(expand(data))
  size, = LENGTH.unpack(reader.take(LENGTH.size))
  text = reader.take(size)
  try:
    header = json.loads(text.decode())
  except (ValueError, RecursionError):
    raise UserError("a code: its header is no JSON") from None
  slots = listed(header, "slots", MOST_SLOTS)
  if header.get("format") != FORMAT or header.get("precision") != PRECISION or "prior" not in header:
    raise UserError("a code: its format is another; use the version of jaxtrain that wrote it")
  lattices = []
  for one in listed(header, "lattices", MOST_SLOTS):
    if not isinstance(one, list) or len(one) != 2 or not isinstance(one[0], str):
      raise UserError("a code: its header has a lattice of another form")
    lattices.append(Lattice(one[0], whole(one[1], 0, MOST_SLOTS)))
  made = tuple(read_slot(reader, one) for one in slots)
  code = Code(made, tuple(lattices), read_prior(reader, header["prior"]))
  if reader.at != len(reader.raw):
    raise UserError("a code: there are bytes after its end")
  check(code)
  return code
