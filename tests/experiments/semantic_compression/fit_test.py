"""Codes of frequencies: their rate is the entropy of the symbols, and other symbols can be coded too."""

import numpy as np
import pytest

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import coding
from jaxtrain.experiments.semantic_compression.code import Lattice
from jaxtrain.experiments.semantic_compression.fit import MOST_VALUES, fitted

import symbol_cases as cases


def entropy(*columns) -> float:
  """Bits of the joint frequencies of columns [N]."""
  _, count = np.unique(np.stack(columns), axis=1, return_counts=True)
  p = count / count.sum()
  return float(-(p * np.log2(p)).sum())


def test_the_rate_is_the_entropy():
  """Each slot within 0.01 bit of that of its column, in 20,000 states."""
  x = cases.symbols("plain", 20_000)
  rate = coding.bits(fitted(x), x, 256).mean(axis=0)
  np.testing.assert_allclose(rate, [entropy(x[:, s]) for s in range(5)], atol=0.01)


def test_lattice_slots_have_the_entropy_given_their_context():
  """A coordinate of E8 given the coset, and the last of each lattice given the parity too."""
  x = cases.symbols("lattice", 20_000)
  code = fitted(x, (Lattice("E8", 0), Lattice("D4", 9)))
  rate = coding.bits(code, x, 256).mean(axis=0)
  coset, odd8, odd4 = x[:, 0], x[:, 1:8].sum(axis=1) % 2, x[:, 9:12].sum(axis=1) % 2
  assert rate[3] == pytest.approx(entropy(coset, x[:, 3]) - entropy(coset), abs=0.01)
  assert rate[8] == pytest.approx(entropy(coset, odd8, x[:, 8]) - entropy(coset, odd8), abs=0.02)
  assert rate[12] == pytest.approx(entropy(odd4, x[:, 12]) - entropy(odd4), abs=0.01)
  assert (coding.decode(code, coding.encode(code, x[:300], 100), [100] * 3) == x[:300]).all()


def test_symbols_of_any_spread():
  """A column of few values far apart has a bounded table, and symbols that were not there are coded."""
  x = np.random.default_rng(0).choice([-2 ** 31, -5, 0, 3, 2 ** 31 - 1], (500, 2), p=[0.01, 0.3, 0.4, 0.28, 0.01])
  code = fitted(x)
  assert code.slots[0].counts.shape == (1, MOST_VALUES + 1)
  other = np.array([[17, 9], [2 ** 31 - 1, -2 ** 31]])
  assert (coding.decode(code, coding.encode(code, other, 2), [2]) == other).all()
  one = fitted(np.full((10, 1), 7))
  assert one.slots[0].offset == 7 and coding.bits(one, np.array([[7]]), 1)[0, 0] < 0.1


def test_no_states_are_refused():
  """With one line."""
  with pytest.raises(UserError, match="no states"):
    fitted(np.zeros((0, 3), int))
