"""A code as bytes comes back as it was; bytes that are none are refused with one line, within a bound of memory."""

import tracemalloc
import zlib

import numpy as np
import pytest

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import code_bytes

import symbol_cases as cases


def equal(one, other) -> bool:
  """Whether two codes hold the same."""
  if isinstance(one, tuple):
    return len(one) == len(other) and all(map(equal, one, other))
  return np.array_equal(one, other) and getattr(one, "dtype", None) == getattr(other, "dtype", None)


@pytest.mark.parametrize("kind", cases.KINDS)
def test_a_code_comes_back(kind):
  """All arrays with their types, and the same bytes again."""
  code = cases.code(kind)
  data = code_bytes.to_bytes(code)
  again = code_bytes.from_bytes(data)
  assert equal(code, again) and code_bytes.to_bytes(again) == data


@pytest.mark.parametrize("change,says", [
    (lambda raw: raw[:-1], "its bytes end early"), (lambda raw: raw + b"x", "bytes after its end"),
    (lambda raw: raw.replace(b'"format":1', b'"format":2'), "its format is another"),
    (lambda raw: raw.replace(b'"lattices":[]', b'"lattices":{}'), "has no lattices, or too many"),
    (lambda raw: raw.replace(b'[-16,1,33]', b'[-1e9,1,33'), "is no JSON|has -1000"),
    (lambda raw: raw.replace(b'[-16,1,33]', b'[true,1,33'[:9] + b']'), "its header is no JSON|True for an integer"),
    (lambda raw: raw[:4] + b"{" + raw[5:].replace(b'"', b"'", 1), "no JSON"), (lambda raw: b"", "end early"),
    (lambda raw: b"\xff" * 8, "end early"), (lambda raw: raw[:-4] + bytes(4), "does not sum")])
def test_other_bytes_are_refused(change, says):
  """Each with one line that says what is wrong."""
  raw = code_bytes.expand(code_bytes.to_bytes(cases.code("plain")))
  assert b"[-16,1,33]" in raw
  with pytest.raises(UserError, match=says) as error:
    code_bytes.from_bytes(zlib.compress(change(raw)))
  assert "\n" not in str(error.value)


def test_what_is_not_compressed_is_refused():
  """Also bytes after the end of the compressed ones."""
  for data in (b"", b"x" * 50, code_bytes.to_bytes(cases.code("plain"))[:-3],
               code_bytes.to_bytes(cases.code("plain")) + b"x"):
    with pytest.raises(UserError, match="its bytes are damaged"):
      code_bytes.from_bytes(data)


def test_memory_is_bounded():
  """256 MiB of zeros in 260 kB unfold to no more than the bound, with the copies that zlib makes."""
  packed = zlib.compressobj(9)
  bomb = b"".join([*(packed.compress(bytes(1 << 20)) for _ in range(256)), packed.flush()])
  tracemalloc.start()
  try:
    with pytest.raises(UserError, match="unfold to more than"):
      code_bytes.from_bytes(bomb)
    assert tracemalloc.get_traced_memory()[1] < 3 * code_bytes.MOST_BYTES
  finally:
    tracemalloc.stop()
