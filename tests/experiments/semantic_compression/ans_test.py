"""The coder against one of big integers written from its description, and against constriction."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrain.experiments.semantic_compression import ans, tables
from jaxtrain.experiments.semantic_compression.tables import PRECISION, TOTAL, Lookup

PMF = [0.55, 0.2, 0.15, 0.09, 0.01, 0.0]


def by_definition(left, counts) -> bytes:
  """Bytes of one block by integers of any size."""
  state, words = 0, []
  for c, f in zip(left[::-1], counts[::-1]):
    if state >> 64 - PRECISION >= f:
      words.append(state % 2 ** 32)
      state //= 2 ** 32
    state = state // f * 2 ** PRECISION + c + state % f
  while state:
    words.append(state % 2 ** 32)
    state //= 2 ** 32
  return b"".join(word.to_bytes(4, "little") for word in words).rstrip(b"\0")


@settings(max_examples=100, deadline=None)
@given(entries=st.lists(st.lists(st.integers(0, 5), max_size=60), min_size=1, max_size=5))
def test_lanes_are_blocks_by_definition(entries):
  """Blocks of several lengths, padded by a sure entry, give the bytes of each alone, and come back."""
  lookup = Lookup([tables.quantise(np.array(PMF))])
  M, L = max(map(len, entries)), len(entries)
  left, counts = np.zeros((M, L), np.uint64), np.full((M, L), TOTAL, np.uint64)
  for lane, own in enumerate(entries):
    left[:len(own), lane], counts[:len(own), lane] = lookup.left[own], lookup.counts[own]
  blocks = ans.encode(left, counts)
  assert blocks == [by_definition(lookup.left[own].tolist(), lookup.counts[own].tolist()) for own in entries]
  decoder = ans.Decoder(blocks)
  for m in range(M):
    here = np.array([m < len(own) for own in entries])
    found = decoder.entries(lookup, np.where(here, 0, lookup.nothing))
    assert found.tolist() == [own[m] if m < len(own) else 0 for own in entries]
  assert decoder.whole().all()


def test_numbers_of_some_bits():
  """Uniform numbers of 0 to 16 bits come back; 0 bits cost nothing."""
  random = np.random.default_rng(0)
  widths = random.integers(0, 17, (200, 3))
  numbers = random.integers(0, 1 << widths)
  free = PRECISION - widths
  blocks = ans.encode((numbers << free).astype(np.uint64), (1 << free).astype(np.uint64))
  assert [8 * len(block) for block in blocks] == pytest.approx(widths.sum(axis=0), abs=32)
  decoder = ans.Decoder(blocks)
  for m in range(200):
    assert (decoder.uniform(widths[m].astype(np.uint64)) == numbers[m]).all()
  assert decoder.whole().all()


@pytest.mark.parametrize("num_entries", (2, 3, 40, 257, 4096))
def test_constriction_gives_the_same_bytes(num_entries):
  """Its categorical model has our counts exactly, for likely symbols and for the least likely."""
  stream = pytest.importorskip("constriction").stream
  random = np.random.default_rng(num_entries)
  for concentration in (0.01, 0.3, 10.0):
    counts = tables.quantise(random.dirichlet(np.full(num_entries, concentration)) + 1e-12)
    lookup = Lookup([counts])
    likely = random.choice(num_entries, 300, p=counts / TOTAL)
    for entries in (likely, random.integers(num_entries, size=300)):
      coder = stream.stack.AnsCoder()
      coder.encode_reverse(entries.astype(np.int32), stream.model.Categorical((counts - 1.0), perfect=False))
      block, = ans.encode(lookup.left[entries][:, None], lookup.counts[entries][:, None])
      assert block == ans.words_to_bytes(coder.get_compressed())
      assert (ans.bytes_to_words(block) == coder.get_compressed()).all()


def test_a_block_that_ends_elsewhere_is_not_whole():
  """Fewer steps than were coded, or bytes less, are seen at the end; entry 0 of no data is free, so more may not be."""
  lookup = Lookup([tables.quantise(np.array(PMF))])
  entries = np.append(np.random.default_rng(0).integers(0, 5, 99), 3)
  block, = ans.encode(lookup.left[entries][:, None], lookup.counts[entries][:, None])
  for data, steps in ((block, 99), (block, 50), (block[:-1], 100), (block[4:], 100), (block + block, 100)):
    decoder = ans.Decoder([data])
    for _ in range(steps):
      decoder.entries(lookup, np.array([0]))
    assert not decoder.whole().all()
