"""The file of compressed states: access by block, damage that is named, and strangers' files."""

import doctest
import os
import pathlib
import re
import time
import tracemalloc

import numpy as np
import pytest

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import code_bytes, coding, container
from jaxtrain.experiments.semantic_compression.container import Header

import strange_files
import symbol_cases as cases

N, BLOCK = 70, 16
HEADER = Header("position_x float32\nrole of 5", "ab" * 32, N, BLOCK, "lossy", {"level": 1.5})
MOST_MEMORY, MOST_SECONDS = 4 * code_bytes.MOST_BYTES, 20.0  # of one mutated file of a few kB


def made(path, kind="plain") -> tuple[str, np.ndarray, list[bytes]]:
  """A file, its symbols and its blocks."""
  code, x = cases.code(kind), cases.symbols(kind, N)
  blocks = coding.encode(code, x, BLOCK)
  container.write(os.fspath(path), HEADER, code_bytes.to_bytes(code), blocks)
  return os.fspath(path), x, blocks


def test_it_comes_back(tmp_path):
  """The header, the code, all blocks and each block alone; the parts have the length of the file."""
  path, x, blocks = made(tmp_path / "a.jtc")
  found = container.read(path)
  assert found.header == HEADER and found.num_blocks == 5 and found.block_sizes == [16, 16, 16, 16, 6]
  assert found.blocks(0, 5) == (blocks, []) and found.blocks(2, 4) == (blocks[2:4], [])
  assert found.blocks(3, 3) == ([], [])
  code = code_bytes.from_bytes(found.code)
  assert (coding.decode(code, [found.block(4)], [6]) == x[64:]).all()
  assert found.start + sum(map(len, blocks)) == os.path.getsize(path)
  assert os.listdir(tmp_path) == ["a.jtc"]


def test_a_block_alone_as_the_module_says(tmp_path, monkeypatch):
  """The lines of its docstring, run as they stand, give the symbols of the third block."""
  _, x, _ = made(tmp_path / "states.jtc")
  monkeypatch.chdir(tmp_path)
  names = {"container": container, "code_bytes": code_bytes, "coding": coding}
  lines = doctest.DocTestParser().get_examples(container.__doc__)
  for line in lines:
    exec(line.source, names)
  assert len(lines) == 3 and (names["symbols"] == x[32:48]).all()


def test_no_states(tmp_path):
  """A file of none."""
  path = os.fspath(tmp_path / "none.jtc")
  container.write(path, HEADER._replace(num_states=0), b"code", [])
  assert container.read(path).blocks(0, 0) == ([], []) and container.read(path).code == b"code"


@pytest.mark.parametrize("wrong", ("num_states", "block_size", "folder"))
def test_what_cannot_be_written(wrong, tmp_path):
  """Nothing is left of it."""
  path, header = os.fspath(tmp_path / "a.jtc"), HEADER
  if wrong == "folder":
    path = os.fspath(tmp_path / "none" / "a.jtc")
  else:
    header = header._replace(**{wrong: 100_000 if wrong == "block_size" else 81})
  with pytest.raises(OSError if wrong == "folder" else UserError) as error:
    container.write(path, header, b"", [b""] * 5)
  says = {"num_states": "^5 blocks for 81 states in blocks of 16$", "block_size": "^a block of 100000 states",
          "folder": "No such file"}
  assert re.search(says[wrong], str(error.value))
  assert not os.listdir(tmp_path)


@pytest.mark.parametrize("stride", (7, pytest.param(1, marks=pytest.mark.slow)))
def test_every_flipped_byte_is_seen(stride, tmp_path):
  """One of the head loses the file; one of the payload its block, which is named, and no other."""
  path, _, blocks = made(tmp_path / "a.jtc")
  data = pathlib.Path(path).read_bytes()
  start = len(data) - sum(map(len, blocks))
  owner = np.repeat(np.arange(5), [len(block) for block in blocks])
  for at in range(0, len(data), stride):
    with open(path, "wb") as file:
      file.write(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1:])
    if at < start:
      with pytest.raises(UserError) as error:
        container.read(path)
      assert "\n" not in str(error.value) and path in str(error.value)
    else:
      k = int(owner[at - start])
      found = container.read(path)
      assert found.blocks(0, 5) == ([*blocks[:k], None, *blocks[k + 1:]], [k])
      says = rf"block {k + 1} of 5 \(states {16 * k + 1} to {min(16 * k + 16, 70)}\) is damaged"
      with pytest.raises(UserError, match=says):
        found.block(k)


@pytest.mark.parametrize("stride", (7, pytest.param(1, marks=pytest.mark.slow)))
def test_every_cut_is_seen(stride, tmp_path):
  """A file that ends early, or goes on, at any byte."""
  path, _, _ = made(tmp_path / "a.jtc")
  data = pathlib.Path(path).read_bytes()
  for length in (*range(0, len(data), stride), len(data) - 1, len(data) + 1):
    with open(path, "wb") as file:
      file.write((data + b"x")[:length])
    with pytest.raises(UserError, match="cut off|no file of compressed states") as error:
      container.read(path)
    assert "\n" not in str(error.value)


def test_what_is_no_file(tmp_path):
  """A folder, a pipe that nobody writes, nothing, and a block that is not there."""
  os.mkfifo(tmp_path / "pipe")
  for name in (".", "pipe", "nothing"):
    with pytest.raises(UserError, match="is no regular file|cannot be read"):
      container.read(os.fspath(tmp_path / name))
  path, _, _ = made(tmp_path / "a.jtc")
  found = container.read(path)
  with pytest.raises(UserError, match="has 5 blocks, and not 5 to 5"):
    found.block(5)
  os.remove(path)
  with pytest.raises(UserError, match="cannot be read: No such file"):
    found.block(0)


@pytest.mark.parametrize("old,new,says", [
    (b'"num_states": 70', b'"num_states": 81', "does not fit its blocks"),
    (b'"block_size": 16', b'"block_size": 0 ', "70 states in blocks of 0"), (b'"mode"', b'"node"', "of another form"),
    (b"role of 5", b"role of 6", "SHA-256"), (b"role of 5", b"\\ud800   ", "SHA-256"),
    (b'{"schema"', b'["schema"', "another form"), (b'"num_states": 70', b'"num_states":7e1', "another form")])
def test_heads_that_lie(old, new, says, tmp_path):
  """With a right checksum: each with one line."""
  path, _, _ = made(tmp_path / "a.jtc")
  data = pathlib.Path(path).read_bytes()
  assert data.count(old) == 1 and len(old) == len(new)
  with open(path, "wb") as file:
    file.write(strange_files.repaired(data.replace(old, new)))
  with pytest.raises(UserError, match=says):
    container.read(path)


def read_all(path: str, fast: bool) -> str:
  """What happens to a file: `refused`, `damaged` where some blocks are, `read`."""
  try:
    found = container.read(path)
    blocks, damaged = found.blocks(0, found.num_blocks)
    good = [k for k in range(found.num_blocks) if k not in damaged]
    _, whole = coding.decode_some(code_bytes.from_bytes(found.code), [blocks[k] for k in good],
                                  [found.block_sizes[k] for k in good], fast)
  except UserError as error:
    assert "\n" not in str(error)
    return "refused"
  return "damaged" if damaged or not whole.all() else "read"


def assert_strange_files_are_harmless(tmp_path, count: int) -> None:
  """So many mutated files, of each kind of code in turn, are read or refused in bounded time and memory."""
  random, seen = np.random.default_rng(count), set()
  whole = {kind: pathlib.Path(made(tmp_path / kind, kind)[0]).read_bytes() for kind in cases.KINDS}
  for kind in cases.KINDS:  # tables that are made once
    assert read_all(os.fspath(tmp_path / kind), True) == "read"
  path = os.fspath(tmp_path / "mutated.jtc")
  tracemalloc.start()
  try:
    for turn in range(count):
      with open(path, "wb") as file:
        file.write(strange_files.stranger(random, whole[cases.KINDS[turn % 4]]))
      tracemalloc.reset_peak()
      before = time.monotonic()
      seen.add(read_all(path, bool(turn % 8 < 4)))
      assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY and time.monotonic() - before < MOST_SECONDS
  finally:
    tracemalloc.stop()
  assert seen == {"refused", "damaged", "read"}


@pytest.mark.slow
def test_mutated_files(tmp_path):
  """300 of them."""
  assert_strange_files_are_harmless(tmp_path, 300)


@pytest.mark.slow
def test_ten_thousand_mutated_files(tmp_path):
  """10,000 of them."""
  assert_strange_files_are_harmless(tmp_path, 10_000)
