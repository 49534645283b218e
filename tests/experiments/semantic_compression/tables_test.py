"""Integer tables: sums, least counts, cost against the best of all tables, and what is refused."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import ans, tables
from jaxtrain.experiments.semantic_compression.tables import TOTAL, Lookup

KINDS = ("uniform", "spread", "zeros", "tiny", "one")


def drawn(seed: int, num_entries: int, kind: str) -> np.ndarray:
  """Weights of a distribution, not normalised; of 1e-300 to 1e300 for `spread`."""
  random = np.random.default_rng(seed)
  p = random.random(num_entries)
  if kind == "spread":
    p = 10.0 ** random.uniform(-300, 300, num_entries)
  elif kind == "zeros":
    p[random.random(num_entries) < 0.9] = 0.0
  elif kind == "tiny":
    p *= 5e-324 * 1000
  elif kind == "one":
    p *= 1e-30
  p[random.integers(num_entries)] = p.max() or 1.0
  if kind == "one":
    p[random.integers(num_entries)] = 1.0
  return p


def check_decodes(seed: int, num_entries: int, kind: str, precision: int) -> None:
  """Counts are of the right sum and at least 1; at the coder's precision, symbols come back, the rarest too."""
  p = drawn(seed, num_entries, kind)
  counts = tables.quantise(p, precision)
  assert counts.dtype == np.uint32 and counts.sum(dtype=np.uint64) == 1 << precision and counts.min() >= 1
  assert (tables.quantise(p, precision) == counts).all()
  if precision == tables.PRECISION:
    random, lookup = np.random.default_rng(seed), Lookup([counts])
    entries = np.concatenate([[0, num_entries - 1, np.argmin(counts)], random.integers(num_entries, size=5)])[:, None]
    block = ans.encode(lookup.left[entries], lookup.counts[entries])
    decoder = ans.Decoder(block)
    assert [int(decoder.entries(lookup, np.array([0]))[0]) for _ in entries] == entries[:, 0].tolist()
    assert decoder.whole().all()


CASES = dict(seed=st.integers(0, 2 ** 32), num_entries=st.integers(1, 4096) | st.integers(1, 8),
             kind=st.sampled_from(KINDS), precision=st.sampled_from((16, tables.PRECISION)))


@settings(max_examples=150, deadline=None)
@given(**CASES)
def test_every_distribution_decodes(seed, num_entries, kind, precision):
  """Weights with zeros, of any spread, down to the smallest float, of 1 to 4,096 entries."""
  check_decodes(seed, num_entries, kind, precision)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(**CASES)
def test_ten_thousand_distributions_decode(seed, num_entries, kind, precision):
  """The same, more often."""
  check_decodes(seed, num_entries, kind, precision)


def cost(p: np.ndarray, counts: np.ndarray) -> float:
  """Expected bits of a symbol."""
  return float(-(p * np.log2(counts / counts.sum())).sum())


@pytest.mark.parametrize("seed", range(6))
def test_the_cost_is_near_the_least(seed):
  """Of all tables of 3 entries with 64 counts, none is better by more than a thousandth of a bit."""
  p = np.random.default_rng(seed).dirichlet([0.5, 0.5, 0.5])
  best = min(cost(p, np.array([a, b, 64 - a - b])) for a, b in itertools.product(range(1, 63), repeat=2) if a + b < 64)
  assert cost(p, tables.quantise(p, 6)) <= best + 1e-3


def test_golden_counts():
  """By hand: 16 counts. Entries below 1/16 get one; the others share what is left, largest remainder first."""
  assert tables.quantise(np.array([0.5, 0.25, 0.25]), 4).tolist() == [8, 4, 4]
  assert tables.quantise(np.array([1.0, 1.0, 1.0]), 4).tolist() == [6, 5, 5]
  assert tables.quantise(np.array([0.0, 0.96, 0.04]), 4).tolist() == [1, 14, 1]
  assert tables.quantise(np.array([7.0]), 4).tolist() == [16]
  assert tables.quantise(np.ones(16), 4).tolist() == [1] * 16


@pytest.mark.parametrize("pmf,says", [
    ([0.5, np.nan], "probability 1 is not finite: nan"), ([np.inf, 1.0], "probability 0 is not finite: inf"),
    ([0.5, -0.1, 0.6], "probability 1 is negative: -0.1"), ([0.0, 0.0], "all probabilities are 0"), ([], "of shape"),
    ([[0.5, 0.5]], "of shape"), (np.ones(17), "1 to 16 entries")])
def test_what_is_no_distribution_is_refused(pmf, says):
  """The error names what is wrong."""
  with pytest.raises(ValueError, match=says):
    tables.quantise(np.array(pmf), 4)


def test_a_row_is_named():
  """Of several tables, the wrong one."""
  with pytest.raises(ValueError, match="table 1: all probabilities are 0"):
    tables.quantise_rows(np.array([[0.5, 0.5], [0.0, 0.0]]))


@pytest.mark.parametrize("counts", [[[TOTAL, 0]], [[TOTAL - 1, 2]], [[2 ** 32 - 1, TOTAL + 1]]])
def test_tables_that_do_not_decode_are_refused(counts):
  """A zero, or a sum that is another, also by a multiple of 2**32."""
  with pytest.raises(UserError, match="a slot: a table that does not sum"):
    tables.check(np.array(counts, np.uint32), "a slot")
