"""Asymmetric numeral systems over many blocks at once: NumPy alone, the bytes of `constriction`'s `AnsCoder`.

A block has a state of 64 bits and a stack of words of 32 bits. Coding an entry of count f and left sum c of a table
pushes at most one word, then sets the state to (state // f) * 2**24 + c + state % f. What is coded last is decoded
first, so encoding runs backwards. An entry of count 2**24 changes nothing: blocks of fewer steps are padded with it.

Blocks are independent lanes: each step of all of them is a few NumPy operations on [L] arrays of unsigned integers.

**Source:** Duda, Asymmetric numeral systems, 2013; Bamler, Understanding entropy coding with asymmetric numeral
systems, 2022 (the stream coder of constriction: its initial state is 0, and words are pushed before a step).
"""

import numpy as np

from jaxtrain.experiments.semantic_compression.tables import PRECISION, TOTAL, Lookup

WORD, SHIFT = np.uint64(32), np.uint64(PRECISION)
LOW, QUANTILE = np.uint64(0xFFFFFFFF), np.uint64(TOTAL - 1)
FULL = np.uint64(64 - PRECISION)
LEAST = np.uint64(1 << 32)  # below it a word is read


def words_to_bytes(words: np.ndarray) -> bytes:
  """The words [W] uint32 of a block as bytes, little-endian, without the zeros at the end of the last one."""
  return words.astype("<u4").tobytes().rstrip(b"\0")


def bytes_to_words(block: bytes) -> np.ndarray:
  """Words [W] uint32 of the bytes of a block."""
  return np.frombuffer(block + bytes(-len(block) % 4), "<u4").astype(np.uint32)


def encode(left: np.ndarray, counts: np.ndarray) -> list[bytes]:
  """Bytes of L blocks from the left sums and counts [M, L] uint64 of their M entries, in the order of decoding."""
  M, L = left.shape
  state, used = np.zeros(L, np.uint64), np.zeros(L, np.int64)
  stack = np.zeros((L, M + 2), np.uint32)
  for m in range(M - 1, -1, -1):
    f = counts[m]
    full = np.flatnonzero((state >> FULL) >= f)
    if len(full):
      pushed = state[full]
      stack[full, used[full]] = pushed & LOW
      used[full] += 1
      state[full] = pushed >> WORD
    whole = state // f
    state += left[m] + whole * (np.uint64(TOTAL) - f)  # whole * 2**24 + left + (state - whole * f)
  blocks = []
  for lane, (s, n) in enumerate(zip(state.tolist(), used.tolist())):
    stack[lane, n:n + 2] = s & 0xFFFFFFFF, s >> 32
    blocks.append(words_to_bytes(stack[lane, :n + 2]))
  return blocks


class Decoder:
  """L blocks that are decoded in lockstep. Blocks that no encoder writes give some entries, and `whole` says False."""

  def __init__(self, blocks: list[bytes]):
    words = [bytes_to_words(block) for block in blocks]
    ends = np.cumsum([len(one) for one in words])
    self.start = ends - [len(one) for one in words]
    self.words = np.concatenate([np.zeros(1, np.uint32), *words]).astype(np.uint64)  # word i of a block: start + i + 1
    self.at = ends.copy()  # index of the next word in `words`; `start` where there is none
    self.state = np.zeros(len(blocks), np.uint64)
    for _ in range(2):
      self.refill()

  def refill(self) -> None:
    """Reads a word into every state that is short of bits, where its block has one."""
    short = np.flatnonzero((self.state < LEAST) & (self.at > self.start))
    if len(short):
      self.state[short] = (self.state[short] << WORD) | self.words[self.at[short]]
      self.at[short] -= 1

  def entries(self, lookup: Lookup, tables: np.ndarray) -> np.ndarray:
    """The next entry of each block, [L] int64, by the tables with the numbers [L] int64."""
    quantile = self.state & QUANTILE
    query = quantile + (tables.astype(np.uint64) << SHIFT)
    entry = np.searchsorted(lookup.edges, query, side="right") - 1
    self.state = (self.state >> SHIFT) * lookup.counts[entry] + (quantile - lookup.left[entry])
    self.refill()
    return entry - lookup.first[tables]

  def uniform(self, widths: np.ndarray) -> np.ndarray:
    """The next number of so many bits of each block: [L] uint64 from widths [L] uint64, 0 to 24; 0 reads nothing."""
    drop = SHIFT - widths
    quantile = self.state & QUANTILE
    number = quantile >> drop
    self.state = ((self.state >> SHIFT) << drop) + (quantile - (number << drop))
    self.refill()
    return number

  def whole(self) -> np.ndarray:
    """Whether each block ended where it should, [L] bool: all words read, and the state is that of no data."""
    return (self.state == 0) & (self.at == self.start)
