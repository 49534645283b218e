"""Files of compressed states as a stranger may write them: damaged, or with parts that lie under right checksums."""

import struct
import zlib

import numpy as np

from jaxtrain.experiments.semantic_compression import code_bytes, container


def repaired(data: bytes) -> bytes:
  """The same with the checksum of its head put right, where it has a head."""
  if len(data) < container.FIXED.size:
    return data
  _, _, header, code, blocks, _ = container.FIXED.unpack_from(data)
  end = container.FIXED.size + header + code + 8 * blocks
  return data[:end] + struct.pack("<I", zlib.crc32(data[:end])) + data[end + 4:] if end + 4 <= len(data) else data


def mutated(random: np.random.Generator, data: bytes) -> bytes:
  """The bytes with some flipped, overwritten by integers at their limits or by others, cut, left out, or doubled."""
  data, how = bytearray(data), random.integers(7)
  at, to = sorted(random.integers(0, len(data) + 1, 2).tolist())
  if how == 0:
    for bit in random.integers(0, 8 * len(data), random.integers(1, 9)):
      data[bit // 8] ^= 1 << bit % 8
  elif how == 1:
    data[at:at + 4] = struct.pack("<I", int(random.choice([0, 1, 255, 2 ** 16, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1])))
  elif how == 2:
    del data[at:]
  elif how == 3:
    del data[at:to]
  elif how == 4:
    data[at:at] = data[at:to]
  elif how == 5:
    data[at:to] = random.bytes(to - at)
  else:
    digits = [i for i, byte in enumerate(data) if 48 <= byte < 58]
    data[int(random.choice(digits or [0]))] = ord(random.choice(list("0123456789-.e]}")))
  return bytes(data)


def stranger(random: np.random.Generator, data: bytes) -> bytes:
  """A file with a mutation: as it is, or with its checksums put right, of all, of the text of its header, of the code
  or of the tables of a lossless file before their compression, or of its blocks.
  """
  how = random.integers(5)
  if how < 2:
    return repaired(mutated(random, data)) if how else mutated(random, data)
  magic, version, header, code, blocks, payload = container.FIXED.unpack_from(data)
  at = container.FIXED.size + header
  text, section = data[container.FIXED.size:at], data[at:at + code]
  index, body = data[at + code:at + code + 8 * blocks], data[len(data) - payload:]
  if how == 2:
    text = mutated(random, text)
  elif how == 3:
    section = other_code(random, section, b'"lossless"' in text)
  else:
    body = (mutated(random, body) + random.bytes(payload))[:payload]
    records = np.frombuffer(index, container.INDEX).copy()
    stops = np.cumsum(records["length"]).tolist()
    records["crc"] = [zlib.crc32(body[start:stop]) for start, stop in zip([0, *stops], stops)]
    index = records.tobytes()
  fixed = container.FIXED.pack(magic, version, len(text), len(section), blocks, payload)
  return repaired(fixed + text + section + index + bytes(4) + body)


def other_code(random: np.random.Generator, section: bytes, is_lossless: bool) -> bytes:
  """A code, or the tables behind that of a lossless file, with a mutation before compression."""
  other = lambda data: zlib.compress(mutated(random, code_bytes.expand(data)))
  if not is_lossless:
    return other(section)
  size, = code_bytes.LENGTH.unpack_from(section)
  own, tables = section[4:4 + size], section[4 + size:]
  own, tables = (other(own), tables) if random.integers(2) else (own, other(tables))
  return code_bytes.LENGTH.pack(len(own)) + own + tables
