"""Frequency tables of integers: what an entropy coder needs of a distribution, without a float at coding time.

A table has K + 1 counts, each at least 1, that sum to exactly 2**PRECISION. Entry k < K is the k-th value of the
support; the last entry is the escape, which announces a value outside of it. Probabilities become counts once, where a
code is made; the counts are stored, so that every machine decodes with the same ones.

PRECISION is 24, because that is what the models of `constriction` have: its coder then gives the same bytes.

**Source:** Duda, Asymmetric numeral systems, 2013 (what counts are for); the rounding is ours.
"""

import math

import numpy as np

from jaxtrain.errors import UserError

PRECISION = 24  # bits
TOTAL = 1 << PRECISION
MOST_ENTRIES = 1 << 16  # of one table


def quantise(pmf: np.ndarray, precision: int = PRECISION) -> np.ndarray:
  """Counts [K] uint32 of probabilities [K] float64, each at least 1 and together exactly 2**precision.

  The counts are max(1, a p) before rounding, with the factor `a` that makes the sum right: these have the least
  expected code length among counts of at least 1. They are rounded down; what is left goes to the largest remainders,
  of equal ones to the first. Nothing but +, *, / and an exactly rounded sum is used, so that the result does not depend
  on the mathematics library of a machine.

  Args:
    pmf: probabilities, or weights of any sum; zeros are allowed.
    precision: bits.

  Raises:
    ValueError: for no entries or more than 2**precision, NaN, infinity, a negative value, or zeros alone.
  """
  p = np.asarray(pmf, np.float64)
  total = 1 << precision
  if p.ndim != 1 or not 0 < len(p) <= total:
    raise ValueError(f"probabilities of shape {p.shape}: a table has one axis of 1 to {total} entries")
  for wrong, what in ((~np.isfinite(p), "is not finite"), (p < 0, "is negative")):
    if wrong.any():
      k = int(np.argmax(wrong))
      raise ValueError(f"probability {k} {what}: {p[k]}")
  if not p.any():
    raise ValueError("all probabilities are 0")
  p = p / p.max()
  real = np.maximum(spread(p, total), 1.0)
  counts = np.floor(real).astype(np.int64)
  left = total - int(counts.sum())
  if left > 0:
    order = np.argsort(counts - real, kind="stable")
    counts += np.bincount(np.resize(order, left), minlength=len(p))
  while left < 0:  # a product that was rounded up to the next integer
    counts[np.argmax(counts)] -= 1
    left += 1
  return counts.astype(np.uint32)


def spread(p: np.ndarray, total: int) -> np.ndarray:
  """a p with the factor `a` for which max(1, a p) sums to a total; p [K] is at most 1."""
  large = np.ones(len(p), bool)
  while True:
    factor = (total - (len(p) - int(large.sum()))) / math.fsum(p[large])
    still = large & (p * factor >= 1.0)
    if still.sum() == large.sum() or not still.any():
      return p * factor
    large = still


def quantise_rows(pmfs: np.ndarray) -> np.ndarray:
  """Counts [T, K] of the probabilities [T, K] of T tables. Raises ValueError that names the table too."""
  counts = []
  for t, pmf in enumerate(pmfs):
    try:
      counts.append(quantise(pmf))
    except ValueError as error:
      raise ValueError(f"table {t}: {error}") from None
  return np.stack(counts)


def check(counts: np.ndarray, where: str) -> None:
  """Raises UserError where counts [T, K] are no tables that decode."""
  T, K = counts.shape
  if not (T >= 1 and 1 <= K <= MOST_ENTRIES + 1):
    raise UserError(f"{where}: tables of shape {counts.shape}")
  if counts.min() < 1 or (counts.sum(axis=1, dtype=np.uint64) != TOTAL).any():
    raise UserError(f"{where}: a table that does not sum to 2**{PRECISION}, or has an entry of 0")


class Lookup:
  """Tables of one slot as the coder reads them, one after the other; the last is a table of one sure entry, which
  codes nothing (of states that a short block lacks).

  Attributes:
    first: [T + 2] int64, index of the first entry of each table, and the end.
    counts, left: [M] uint64, count of each entry and the sum of those before it in its table.
    edges: [M] uint64, `left` + 2**PRECISION times the number of the table, which is ascending.
    escape: [T + 1] int64, the number of the escape entry in each table.
    nothing: number of the table of one sure entry.
  """

  def __init__(self, tables: list[np.ndarray]):
    tables = [*tables, np.array([TOTAL], np.uint32)]
    self.first = np.concatenate([[0], np.cumsum([len(one) for one in tables])]).astype(np.int64)
    self.counts = np.concatenate(tables).astype(np.uint64)
    ends = np.cumsum(self.counts)  # each table sums to 2**PRECISION, so this is `edges` moved by one
    self.edges = ends - self.counts
    self.left = self.edges & np.uint64(TOTAL - 1)
    self.escape = np.diff(self.first) - 1
    self.nothing = len(tables) - 1
