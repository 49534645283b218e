"""Symbols to bytes and back, the modelled rate, and that no float and no machine changes what is decoded."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import ans, code_bytes, coding, integer_net
from jaxtrain.experiments.semantic_compression import code as code_lib
from jaxtrain.experiments.semantic_compression.code import Code
from jaxtrain.experiments.semantic_compression.tables import PRECISION, TOTAL

import forked
import symbol_cases as cases

INT32 = np.iinfo(np.int32)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(cases.KINDS), num_states=st.integers(0, 40), block_size=st.integers(1, 17),
       seed=st.integers(0, 2 ** 32), deviation=st.sampled_from((0.0, 3.0, 40.0, 1e6)), fast=st.booleans())
def test_symbols_come_back(kind, num_states, block_size, seed, deviation, fast):
  """Each kind of code, with few and with many escapes, in blocks of any size; each block also alone."""
  code, x = cases.code(kind), cases.symbols(kind, num_states, seed, deviation)
  blocks = coding.encode(code, x, block_size, fast)
  sizes = coding.block_sizes(num_states, block_size)
  found = coding.decode(code, blocks, sizes, not fast)
  assert found.dtype == np.int32 and (found == x).all()
  for k, (block, size) in enumerate(zip(blocks, sizes)):
    assert (coding.decode(code, [block], [size], fast) == x[k * block_size:k * block_size + size]).all()


@pytest.mark.parametrize("kind", cases.KINDS)
def test_extreme_symbols(kind):
  """The smallest and the largest integer of 32 bits escape and come back."""
  code, x = cases.code(kind), cases.symbols(kind, 12)
  if kind == "lattice":
    x[3, [2, 3]], x[4, [10, 12]], x[5, 13] = (INT32.min, INT32.max - 1), (INT32.max, INT32.max), INT32.min
    x[3, 8] += x[3, 1:9].sum(dtype=np.int64) % 2
    x[4, 12] += x[4, 9:13].sum(dtype=np.int64) % 2 * -1
  else:
    x[3], x[4], x[5, 0] = INT32.min, INT32.max, INT32.max
  for fast in (False, True):
    assert (coding.decode(code, coding.encode(code, x, 5, fast), [5, 5, 2], fast) == x).all()


@pytest.mark.parametrize("fast", (False, True))
def test_states_that_cost_nothing(fast):
  """The first entry of each table leaves the coder's initial state as it is: blocks of it alone have no bytes."""
  code = Code((code_lib.slot(3, np.full(9, 1 / 9)), code_lib.slot(-4, np.full(5, 1 / 5))))
  x = np.tile(np.array([[3, -4]], np.int32), (300, 1))
  blocks = coding.encode(code, x, 150, fast)
  assert blocks == [b"", b""] and (coding.decode(code, blocks, [150, 150], fast) == x).all()


@pytest.mark.parametrize("kind", ("plain", "lattice"))
def test_constriction_writes_the_same_bytes(kind):
  """With escapes too."""
  pytest.importorskip("constriction")
  code = cases.code(kind)
  for deviation in (2.0, 300.0):
    x = cases.symbols(kind, 700, deviation=deviation)
    assert coding.encode(code, x, 256, fast=True) == coding.encode(code, x, 256, fast=False)


def decoded_by_definition(code: Code, block: bytes, size: int) -> list[list[int]]:
  """States of a block of slots alone, from the format as it is described, by integers of any size."""
  words = [int.from_bytes(block[i:i + 4], "little") for i in range(0, len(block), 4)]
  state = 0

  def read(counts):
    nonlocal state
    while state < 2 ** 32 and words:
      state = state * 2 ** 32 + words.pop()
    quantile, entry = state % TOTAL, 0
    while quantile >= counts[entry]:
      quantile -= counts[entry]
      entry += 1
    state = (state >> PRECISION) * counts[entry] + quantile
    return entry

  slots = []
  for one in code.slots:
    counts = one.counts[0].tolist()
    K = len(counts) - 1
    entries = [read(counts) for _ in range(size)]
    for i in [i for i, entry in enumerate(entries) if entry == K]:
      bits = read([TOTAL // 64] * 64) - 1
      number = 1 << bits
      for low in range(0, bits, 16):
        width = min(16, bits - low)
        number += read([TOTAL >> width] * (1 << width)) << low
      entries[i] = K - 1 + number // 2 if number % 2 else -(number // 2)
    slots.append([one.offset + entry for entry in entries])
  return np.transpose(slots).tolist()


def test_the_format_is_as_described():
  """A decoder written from the description reads a block, with escapes on both sides."""
  code, x = cases.code("plain"), cases.symbols("plain", 30, deviation=3)
  x[4, :2], x[9, 1], x[11, 3] = (-17, 3), -1000, 70_000
  block, = coding.encode(code, x, 30)
  assert decoded_by_definition(code, block, 30) == x.tolist()


@pytest.mark.parametrize("kind", cases.KINDS)
@pytest.mark.parametrize("block_size", (256, 2000))
def test_real_bits_are_the_modelled_ones(kind, block_size):
  """2,000 states: within 1 % and 64 bits. Blocks of 256 states cost about 24 bits each beside."""
  code, x = cases.code(kind), cases.symbols(kind, 2000)
  modelled, blocks = coding.bits(code, x, block_size), coding.encode(code, x, block_size)
  assert modelled.shape == x.shape and modelled.min() >= 0
  assert abs(8 * sum(map(len, blocks)) - modelled.sum()) <= 0.01 * modelled.sum() + 64


def test_modelled_bits_by_hand():
  """-log2 of the table's probability; an escape has 6 bits and those of 2 d + side behind the first besides."""
  code = Code((code_lib.slot(10, [0.5, 0.25, 0.125, 0.125]),))
  x = np.array([[10], [11], [12], [13], [9], [3], [110]])
  want = [1, 2, 3, 3 + 6 + 1, 3 + 6 + 1, 3 + 6 + 3, 3 + 6 + 7]  # numbers 3, 2, 14 and 197
  np.testing.assert_allclose(coding.bits(code, x, 4)[:, 0], want, atol=1e-6)


def test_the_parity_of_a_lattice_point_is_free():
  """Points of D4 with coordinates uniform over 16 values cost 3 * 4 + 3 bits, and those of E8 1 + 7 * 4 + 3."""
  flat = lambda num_values, num_tables: np.tile(np.append(np.ones(num_values), 1e-9), (num_tables, 1))
  d4 = Code((*[code_lib.slot(-8, flat(16, 1))] * 3, code_lib.slot(-4, flat(8, 2))), (code_lib.Lattice("D4", 0),))
  e8 = Code((code_lib.slot(0, flat(2, 1)), *[code_lib.slot(-8, flat(16, 2))] * 7, code_lib.slot(-4, flat(8, 4))),
            (code_lib.Lattice("E8", 0),))
  random = np.random.default_rng(0)
  for code, first, want in ((d4, 0, 15), (e8, 1, 32)):
    x = random.integers(-8, 8, (100, len(code.slots)))
    x[:, :first] &= 1
    x[:, -1] = 2 * (x[:, -1] // 2) + x[:, first:-1].sum(axis=1) % 2
    np.testing.assert_allclose(coding.bits(code, x, 100).sum(axis=1), want, atol=1e-4)
    assert 8 * len(coding.encode(code, x, 100)[0]) == pytest.approx(100 * want, abs=40)


def test_a_prior_pays():
  """A walk whose steps are small costs less by the state before it: a network that repeats it, of scale 1."""
  S = 3
  kernel = np.concatenate([np.concatenate([np.eye(S), np.zeros((S, S))], axis=1),
                           np.concatenate([np.zeros((1, S)), np.full((1, S), 10.0)], axis=1)])
  net = integer_net.quantise_net([(kernel, np.concatenate([np.zeros(S), np.full(S, 8.0)]))])
  walk = np.cumsum(np.random.default_rng(0).integers(-1, 2, (512, S)), axis=0)
  code = Code((None,) * S, (), code_lib.Prior((0, 1, 2), (), (0, 1, 2), net))
  rate = coding.bits(code, walk, 512)
  assert (coding.decode(code, coding.encode(code, walk, 512), [512]) == walk).all()
  p = [1 / (1 + np.exp(-0.5)) - 1 / (1 + np.exp(0.5)), 1 / (1 + np.exp(-1.5)) - 1 / (1 + np.exp(-0.5))]
  np.testing.assert_allclose(np.unique(rate[1:].round(4)), np.round(-np.log2(p), 4), atol=2e-4)


@pytest.mark.parametrize("kind,change,says", [
    ("lattice", lambda x: x.__setitem__((5, 3), x[5, 3] + 1), "state 5: its symbols from slot 0 on are no point of E8"),
    ("lattice", lambda x: x.__setitem__((6, 0), 2), "state 6: .* no point of E8"),
    ("lattice", lambda x: x.__setitem__((7, 9), x[7, 9] + 1), "state 7: its symbols from slot 9 on are no point of D4"),
    ("plain", lambda x: x.__setitem__((5, 3), 2 ** 31), "no 32-bit integer")])
def test_symbols_that_cannot_be_coded(kind, change, says):
  """The error names the state."""
  x = cases.symbols(kind, 9).astype(np.int64)
  change(x)
  for use in (coding.encode, coding.bits):
    with pytest.raises(UserError, match=says):
      use(cases.code(kind), x, 4)


@pytest.mark.parametrize("kind", cases.KINDS)
def test_a_block_of_another_length_is_named(kind):
  """One of several that has bytes after its end; the others are as they were. What is shorter may be the block of other
  symbols: the checksum of the container tells.
  """
  code, x = cases.code(kind), cases.symbols(kind, 40)
  blocks = coding.encode(code, x, 8)
  for wrong in (blocks[2] + blocks[3], blocks[2] + b"\0", blocks[2] + bytes(4)):
    now = [*blocks[:2], wrong, *blocks[3:]]
    found, whole = coding.decode_some(code, now, [8] * 5)
    assert whole.tolist() == [True, True, False, True, True]
    assert (np.delete(found, np.s_[16:24], 0) == np.delete(x, np.s_[16:24], 0)).all()
    with pytest.raises(UserError, match="block 2 of 5 is not what this code writes"):
      coding.decode(code, now, [8] * 5)


def arrays(value) -> list:
  """All that a code is made of."""
  return [leaf for one in value for leaf in arrays(one)] if isinstance(value, tuple) else [value]


@pytest.mark.parametrize("kind", ("hyperprior", "previous"))
def test_no_float_reaches_the_decoder(kind, monkeypatch):
  """A code holds integers alone, none of which is a view of the floats it came from: one unit in the last place more in
  each of them changes nothing.
  """
  before = kind == "previous"
  weights, template = cases.float_net(4 if before else 2, 3 if before else 4), cases.code(kind)
  code = template._replace(prior=template.prior._replace(net=integer_net.quantise_net(weights)))
  x = cases.symbols(kind, 200)
  blocks = coding.encode(code, x, 64)
  for pair in weights:
    for one in pair:
      one[...] = np.nextafter(one, np.inf)
  for leaf in arrays(code):
    assert leaf.dtype.kind in "iu" if isinstance(leaf, np.ndarray) else leaf is None or type(leaf) in (int, str)
  monkeypatch.setattr(ans.np, "float64", None)
  assert (coding.decode(code, blocks, coding.block_sizes(200, 64), fast=False) == x).all()


DECODE = """
import sys
import numpy as np
from jaxtrain.experiments.semantic_compression import code_bytes, coding
folder = sys.argv[1]
for kind in sys.argv[2:]:
  code = code_bytes.from_bytes(open(f"{folder}/{kind}.code", "rb").read())
  blocks = [bytes(one) for one in np.load(f"{folder}/{kind}.npz").values()]
  found = coding.decode(code, blocks, coding.block_sizes(300, 128))
  assert (found == np.load(f"{folder}/{kind}.npy")).all(), kind
  again = coding.encode(code, found, 128, fast=False)
  assert again == blocks, kind
assert "jax" not in sys.modules
"""


@pytest.mark.parametrize("environ", [
    {"OMP_NUM_THREADS": "4", "OPENBLAS_CORETYPE": "Prescott"},
    {"OMP_NUM_THREADS": "1", "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3"}])
def test_another_process_decodes_the_same(environ, tmp_path):
  """With other threads, another kernel of BLAS, without some instructions, and without jax; it also writes the same."""
  for kind in cases.KINDS:
    code, x = cases.code(kind), cases.symbols(kind, 300)
    (tmp_path / f"{kind}.code").write_bytes(code_bytes.to_bytes(code))
    np.savez(tmp_path / f"{kind}.npz", *[np.frombuffer(one, np.uint8) for one in coding.encode(code, x, 128)])
    np.save(tmp_path / f"{kind}.npy", x)
  done = subprocess.run([sys.executable, "-c", DECODE, str(tmp_path), *cases.KINDS], cwd=forked.ROOT, timeout=120,
                        env=os.environ | environ, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ("hyperprior", "previous"))
def test_what_the_network_reads(kind):
  """Side latents of the state; or the state before, zeros at a block's start and 1 behind them. Outputs of rows are
  those of the whole, however many are held at once.
  """
  code, x = cases.code(kind), cases.symbols(kind, 50)
  lanes, there = coding.lanes(x, coding.block_sizes(50, 16))
  inputs = coding.whole_inputs(code.prior, lanes).swapaxes(0, 1)[there.T]
  if kind == "hyperprior":
    assert (inputs == x[:, :2]).all()
  else:
    want = np.concatenate([np.concatenate([np.zeros((1, 3), int), x[:-1]]), np.zeros((50, 1), int)], axis=1)
    want[::16] = 0, 0, 0, 1
    assert (inputs == want).all()
  mean, index = integer_net.apply(code.prior.net, inputs)
  alone = [integer_net.apply_rows(code.prior.net, row[None]) for row in inputs]
  assert (mean == np.concatenate([one[0] for one in alone])).all()
  assert (index == np.concatenate([one[1] for one in alone])).all()
