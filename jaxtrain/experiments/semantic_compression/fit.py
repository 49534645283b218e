"""A code whose tables are the frequencies of given symbols: for codecs without a learned density, and for baselines."""

from typing import Sequence

import numpy as np

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression.code import Code, Lattice, Plan, Slot, contexts, slot
from jaxtrain.experiments.semantic_compression.tables import TOTAL

MOST_VALUES = 1 << 12  # in the support of a table; others escape


def fitted(symbols: np.ndarray, lattices: Sequence[Lattice] = (), smoothing: float = 0.5) -> Code:
  """The code of the frequencies of symbols [N, S], by context; a slot's support is from its least to its largest value.

  Args:
    symbols: those of the training states; of lattice points as `code.Lattice` has them.
    lattices: groups of slots that hold lattice points.
    smoothing: added to the frequency of each entry, so that values without one, and the escape, can be coded (1/2 is
      the estimator of Krichevsky & Trofimov, 1981).

  Raises:
    UserError: for no symbols, others than integers of 32 bits, or what is no point of its lattice.
  """
  if not len(symbols):
    raise UserError("a code cannot be fitted to no states")
  sure = Code((Slot(0, np.full((1, 1), TOTAL, np.uint32)),) * symbols.shape[1], tuple(lattices))
  tables = contexts(sure)
  plan = Plan(sure._replace(slots=tuple(Slot(0, np.full((T, 1), TOTAL, np.uint32)) for T in tables)))
  plan.check_symbols(symbols)
  x = symbols.T.astype(np.int64)
  return Code(tuple(fitted_slot(plan, s, T, x, smoothing) for s, T in enumerate(tables)), tuple(lattices))


def fitted_slot(plan: Plan, s: int, num_tables: int, x: np.ndarray, smoothing: float) -> Slot:
  """Slot s from the symbols x [S, N] int64; `plan` has its contexts, with an offset of 0."""
  table, base = plan.context(s, x, None)
  coded = (x[s] - base) >> (plan.stride[s] - 1)
  low, high = int(coded.min()), int(coded.max())
  if high - low >= MOST_VALUES:  # the values about the median
    low = min(max(low, int(np.median(coded)) - MOST_VALUES // 2), high - MOST_VALUES + 1)
    high = low + MOST_VALUES - 1
  entry = np.where((coded < low) | (coded > high), high - low + 1, coded - low)
  frequency = np.full((num_tables, high - low + 2), float(smoothing))
  np.add.at(frequency, (table, entry), 1.0)
  return slot(low, frequency)
