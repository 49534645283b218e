"""The file of compressed states, `.jtc`: a head that is checked as a whole, then blocks that are checked one by one.

All numbers are little-endian:

  8 bytes   MAGIC (as PNG's: it shows a transfer as text)
  24 bytes  format version, length of the header, of the code, number of blocks (uint32 each), bytes of payload (uint64)
  header    JSON: schema and its SHA-256, SHA-256 of the model, number of states, block size, mode, and what the writer
            adds under `about`
  code      of the mode lossy `code_bytes.to_bytes`, of lossless `lossless.to_bytes`
  index     of each block its length and CRC-32 (uint32 each); blocks follow each other, so a sum gives its offset
  4 bytes   CRC-32 of all before it
  payload   the blocks

A byte that is flipped in the payload loses one block, which is named; in the head, the file. Every size is checked
against the length of the file before anything is read, so that reading holds no more than the head and the blocks that
were asked for. A code unfolds to 16 MiB at most, the tables of a lossless file to as much, and decoding takes about 100
MiB beside the symbols that it returns, which are counted against the memory that is free before they are made.

A block can be read alone; `apply.to_record` makes states of its symbols:

  >>> found = container.read("states.jtc")
  >>> code = code_bytes.from_bytes(found.code)  # of the mode lossy
  >>> symbols = coding.decode(code, [found.block(2)], [found.block_sizes[2]])
"""

import hashlib
import json
import os
import stat
import struct
import zlib
from typing import Any, Mapping, NamedTuple, Sequence

import numpy as np

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression.coding import MOST_BLOCK_SIZE, block_sizes
from jaxtrain.workdir import atomic

MAGIC = b"\x89JTC\r\n\x1a\n"
FORMAT = 1
FIXED = struct.Struct("<8sIIIIQ")
CRC = struct.Struct("<I")
INDEX = np.dtype([("length", "<u4"), ("crc", "<u4")])
MOST_HEADER_BYTES = 1 << 20


class Header(NamedTuple):
  """What a file says of its states.

  Attributes:
    schema: text of the schema of the states.
    model_sha256: of the model that wrote it, hexadecimal.
    num_states, block_size: states in all, and in each block but the last.
    mode: name of what the blocks hold, such as "lossy" or "lossless".
    about: JSON-able facts of the writer's own.
  """
  schema: str
  model_sha256: str
  num_states: int
  block_size: int
  mode: str
  about: Mapping[str, Any]

  @property
  def schema_sha256(self) -> str:
    """SHA-256 of the schema's text, hexadecimal."""
    return hashlib.sha256(self.schema.encode()).hexdigest()


class Container(NamedTuple):
  """A file whose head is read; blocks are read when they are asked for.

  Attributes:
    path: the file.
    header: what it says of its states.
    code: bytes of the code.
    index: [blocks] of `length` and `crc`.
    start: offset of the payload.
  """
  path: str
  header: Header
  code: bytes
  index: np.ndarray
  start: int

  @property
  def num_blocks(self) -> int:
    """Number of blocks."""
    return len(self.index)

  @property
  def block_sizes(self) -> list[int]:
    """States of each block."""
    return block_sizes(self.header.num_states, self.header.block_size)

  def block(self, k: int) -> bytes:
    """Bytes of block k. Raises UserError where they are damaged."""
    (block,), damaged = self.blocks(k, k + 1)
    if damaged:
      raise UserError(f"{self.path}: {self.says(k)} is damaged; the other blocks can be read")
    return block

  def says(self, k: int) -> str:
    """Block k by its number and states for a message, where both count from 1."""
    first = k * self.header.block_size
    last = min(first + self.header.block_size, self.header.num_states)
    return f"block {k + 1} of {self.num_blocks} (states {first + 1:,} to {last:,})"

  def blocks(self, first: int, stop: int) -> tuple[list[bytes | None], list[int]]:
    """(bytes of the blocks first .. stop - 1, None where one is damaged; numbers of the damaged ones).

    Raises UserError where there are no such blocks, or the file is no longer there.
    """
    if not 0 <= first <= stop <= self.num_blocks:
      raise UserError(f"{self.path}: has {self.num_blocks} blocks, and not {first} to {stop - 1}")
    ends = np.cumsum(self.index["length"], dtype=np.int64)
    before = int(ends[first - 1]) if first else 0
    after = int(ends[stop - 1]) if stop else 0
    with opened(self.path) as file:
      file.seek(self.start + before)
      data = file.read(after - before)
    found: list[bytes | None] = []
    for k in range(first, stop):
      block = data[int(ends[k] - self.index["length"][k]) - before:int(ends[k]) - before]
      good = len(block) == self.index["length"][k] and zlib.crc32(block) == self.index["crc"][k]
      found.append(block if good else None)
    return found, [first + i for i, block in enumerate(found) if block is None]


def opened(path: str):
  """A regular file for reading. Raises UserError where there is none; a pipe is not waited for."""
  try:
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC))
  except OSError as error:
    raise UserError(f"{path}: cannot be read: {error.strerror}") from None
  if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
    file.close()
    raise UserError(f"{path}: is no regular file")
  return file


def write(path: str, header: Header, code: bytes, blocks: Sequence[bytes]) -> None:
  """Writes a file, whole or not at all.

  Raises OSError where it cannot, and UserError, which leaves the path to the caller, where the header is too long or
  does not fit the blocks.
  """
  sizes = block_sizes(header.num_states, header.block_size)
  if len(sizes) != len(blocks):
    raise UserError(f"{len(blocks)} blocks for {header.num_states} states in blocks of {header.block_size}")
  text = json.dumps({**header._asdict(), "about": dict(header.about), "schema_sha256": header.schema_sha256}).encode()
  if len(text) > MOST_HEADER_BYTES:
    raise UserError(f"a header of {len(text)} bytes; there may be {MOST_HEADER_BYTES}")
  index = np.array([(len(block), zlib.crc32(block)) for block in blocks], INDEX)
  payload = sum(map(len, blocks))
  head = b"".join([FIXED.pack(MAGIC, FORMAT, len(text), len(code), len(blocks), payload), text, code, index.tobytes()])
  with atomic.replacing(path) as fresh, open(fresh, "wb") as file:
    file.write(head)
    file.write(CRC.pack(zlib.crc32(head)))
    file.writelines(blocks)
    file.flush()
    os.fsync(file.fileno())


def read(path: str) -> Container:
  """A file whose head is whole. Raises UserError of one line where it is none, is cut off, or its head is damaged."""
  path = os.fspath(path)
  with opened(path) as file:
    length = os.fstat(file.fileno()).st_size
    fixed = file.read(FIXED.size)
    if fixed[:len(MAGIC)] != MAGIC[:len(fixed)] or not fixed:
      raise UserError(f"{path}: is no file of compressed states (.jtc)")
    if len(fixed) < FIXED.size:
      raise UserError(f"{path}: is cut off: it has {length} bytes")
    _, version, header_bytes, code_bytes, num_blocks, payload = FIXED.unpack(fixed)
    if version != FORMAT:
      raise UserError(f"{path}: has format {version}, and this version of jaxtrain reads format {FORMAT}")
    rest = header_bytes + code_bytes + num_blocks * INDEX.itemsize
    whole = FIXED.size + rest + CRC.size + payload
    if whole != length:
      raise UserError(f"{path}: is cut off or damaged: it has {length} bytes, and its head says {whole}")
    data = file.read(rest + CRC.size)
  if len(data) != rest + CRC.size or zlib.crc32(fixed + data[:rest]) != CRC.unpack(data[rest:])[0]:
    raise UserError(f"{path}: its head is damaged")
  index = np.frombuffer(data[header_bytes + code_bytes:rest], INDEX)
  header = read_header(path, data[:header_bytes])
  if -(-header.num_states // header.block_size) != num_blocks or index["length"].sum() != payload:
    raise UserError(f"{path}: its head does not fit its blocks")
  return Container(path, header, data[header_bytes:header_bytes + code_bytes], index, length - payload)


def read_header(path: str, text: bytes) -> Header:
  """The header of its JSON. Raises UserError where a field is missing or of another type."""
  try:
    record = json.loads(text.decode()) if len(text) <= MOST_HEADER_BYTES else None
  except (ValueError, RecursionError):
    record = None
  kinds = {"schema": str, "model_sha256": str, "num_states": int, "block_size": int, "mode": str, "about": dict}
  if not isinstance(record, dict) or any(type(record.get(name)) is not kind for name, kind in kinds.items()):
    raise UserError(f"{path}: its header is of another form")
  header = Header(**{name: record[name] for name in kinds})
  if header.num_states < 0 or not 1 <= header.block_size <= MOST_BLOCK_SIZE:
    raise UserError(f"{path}: its header says {header.num_states} states in blocks of {header.block_size}")
  try:
    same = record.get("schema_sha256") == header.schema_sha256
  except UnicodeEncodeError:  # half a surrogate pair
    same = False
  if not same:
    raise UserError(f"{path}: its schema has not the SHA-256 that its header says")
  return header
