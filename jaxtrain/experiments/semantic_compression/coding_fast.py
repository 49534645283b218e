"""The same bytes by `constriction` (the extra `codec`), a block at a time: faster, above all for few blocks.

Its categorical model without `perfect` gives entry k of K the left sum floor(P_k (2**24 - K) / P) + k, where P_k is the
sum of the probabilities before k and P that of all. For probabilities that are our counts less 1, P is 2**24 - K, and
the sums of counts come out exactly: no rounding happens.

It takes one table, or one row of a matrix for each symbol, so codes that go by slots and whose tables have two entries
at least; a prior's tables differ in length.
"""

import importlib.util
from typing import Any

import numpy as np

from jaxtrain.errors import need
from jaxtrain.experiments.semantic_compression import ans
from jaxtrain.experiments.semantic_compression.code import (
  DIGIT_BITS, INT32, LENGTH_BITS, Plan, escaped_value)


def is_installed() -> bool:
  """Whether `constriction` can be imported."""
  return importlib.util.find_spec("constriction") is not None


def allows(plan: Plan) -> bool:
  """Whether a code can be coded by `constriction`."""
  return plan.code.prior is None and all(one.counts.shape[1] > 1 for one in plan.code.slots)


class Models:
  """The tables of a code as models of `constriction`. Raises UserError where it is not installed.

  Attributes:
    family: the categorical model whose probabilities are given symbol by symbol.
    single: of each slot with one table its model; None for others.
    weights: [T, K + 1] float64 of each slot, what stands for its tables.
  """

  def __init__(self, plan: Plan):
    need("constriction", "codec")
    import constriction
    self.stream = constriction.stream
    categorical = self.stream.model.Categorical
    self.weights = [(one.counts - 1).astype(np.float64) for one in plan.code.slots]
    self.single = [categorical(one[0], perfect=False) if len(one) == 1 else None for one in self.weights]
    self.family = categorical(perfect=False)

  def arguments(self, s: int, table: np.ndarray) -> tuple[Any, ...]:
    """What the coder takes for entries of slot s by the tables [m]: a model, and how often or with which weights."""
    single = self.single[s]
    return (single,) if single is not None else (self.family, self.weights[s][table])

  def coder(self, block: bytes | None = None) -> Any:
    """A coder, empty or with the words of a block."""
    return self.stream.stack.AnsCoder(*([] if block is None else [ans.bytes_to_words(block)]))

  def push(self, coder: Any, number: int, width: int) -> None:
    """Codes a number of so many bits, 0 to 16."""
    if width:
      coder.encode_reverse(np.array([number], np.int32), self.stream.model.Uniform(1 << width))

  def pull(self, coder: Any, width: int) -> int:
    """The next number of so many bits."""
    return int(coder.decode(self.stream.model.Uniform(1 << width))) if width else 0


def digit_widths(length: int) -> list[int]:
  """Bits of each digit, the lowest first, of a number of so many bits whose first is known."""
  return [min(DIGIT_BITS, length - 1 - low) for low in range(0, length - 1, DIGIT_BITS)]


def encode_block(models: Models, table: np.ndarray, entry: np.ndarray, escaped: np.ndarray) -> bytes:
  """A block from the tables, entries and numbers behind escapes of its states, [S, m] int64 each."""
  coder = models.coder()
  for s in range(len(entry) - 1, -1, -1):
    for number in reversed(escaped[s][escaped[s] > 0].tolist()):
      widths = digit_widths(number.bit_length())
      for digit in range(len(widths) - 1, -1, -1):
        models.push(coder, number >> DIGIT_BITS * digit & (1 << widths[digit]) - 1, widths[digit])
      models.push(coder, number.bit_length(), LENGTH_BITS)
    coder.encode_reverse(np.ascontiguousarray(entry[s], np.int32), *models.arguments(s, table[s]))
  return ans.words_to_bytes(coder.get_compressed())


def read_number(models: Models, coder: Any) -> int:
  """A number behind an escape."""
  length = models.pull(coder, LENGTH_BITS)
  # A length that no encoder writes has as many digits as the other decoder reads: the block is refused either way.
  digits = [models.pull(coder, width) << DIGIT_BITS * i for i, width in enumerate(digit_widths(length)[:3])]
  return sum(digits) + (1 << length - 1 if length else 0)


def decode_block(plan: Plan, models: Models, block: bytes, size: int) -> tuple[np.ndarray, bool]:
  """(symbols [size, S] int64, whether an encoder writes such a block)."""
  S, coder, good = len(plan.code.slots), models.coder(block), True
  x = np.zeros((S, size), np.int64)
  for s in range(S):
    table, base = plan.context(s, x, None)
    arguments = models.arguments(s, table)
    entry = np.asarray(coder.decode(*arguments, *([size] if len(arguments) == 1 else [])), np.int64)
    escape = plan.lookups[s].escape[table]
    for i in np.flatnonzero(entry == escape):
      number = read_number(models, coder)
      good &= number < 1 << 36
      entry[i] = escaped_value(np.int64(number % (1 << 36)), escape[i])
    value = base + plan.stride[s] * entry
    fits = (value >= INT32.min) & (value <= INT32.max)
    good &= bool(fits.all())
    x[s] = np.where(fits, value, 0)
  return x.T, good and coder.is_empty()
