"""Tables of the discretised logistic distribution by integer arithmetic alone: every machine makes the same ones.

The probability of the integer k around a mean f / 8, 0 <= f < 8, at the scale s is
sigma((k + 1/2 - f/8) / s) - sigma((k - 1/2 - f/8) / s) with sigma(t) = 1 / (1 + exp(-t)). There are NUM_SCALES scales,
s = 2**((i - 8) / 3) for i = 0 .. 31 (0.16 to 203 steps): the nearest costs at most 0.015 bit more than the best scale.
A table's support is |k| <= radius(i), 12 scales and more; the escape has the tails.

Numbers are fixed-point in int64: arguments of sigma have 19 bits after the point, exp and sigma 31; exp(-t) is the
product of stored exp(-2**j) over the bits of t. The error of a probability is below 2**-25.

**Source:** Salimans et al., PixelCNN++, 2017, eq. 2 (the discretised logistic).
"""

import functools

import numpy as np

from jaxtrain.experiments.semantic_compression.tables import TOTAL, Lookup

NUM_SCALES, FRACTIONS = 32, 8
UNIT_SCALE, PER_DOUBLING = 8, 3  # index of the scale 1, and indices from a scale to its double
RECIPROCAL_BITS, T_BITS, E_BITS = 22, 19, 31
ONE = np.int64(1 << E_BITS)
# round(2**31 exp(-2**(j - 19))) for j = 0, 1, ...
EXP_OF_BIT = (
  2147479552, 2147475456, 2147467264, 2147450880, 2147418113, 2147352580, 2147221520, 2146959424,
  2146435328, 2145387520, 2143293437, 2139111403, 2130771798, 2114190000, 2081412522, 2017374191,
  1895147668, 1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242,
)
# round(2**22 2**(j / 3)): reciprocals of scales
ROOTS = (4194304, 5284492, 6658043)


def radius(index: int) -> int:
  """The largest |k| in the support of the tables of a scale: 12 scales, rounded up, and 1."""
  return 1 - (-12 << RECIPROCAL_BITS) // reciprocal(index)


def reciprocal(index: int) -> int:
  """1 / scale with RECIPROCAL_BITS after the point."""
  up, root = divmod(UNIT_SCALE - index, PER_DOUBLING)
  return ROOTS[root] << up if up >= 0 else ROOTS[root] >> -up


def exp_minus(t: np.ndarray) -> np.ndarray:
  """exp(-t) with E_BITS after the point, for t >= 0 int64 with T_BITS."""
  product = np.full(t.shape, ONE)
  for j, factor in enumerate(EXP_OF_BIT):
    product = np.where(t >> j & 1, (product * factor + ONE // 2) >> E_BITS, product)
  return np.where(t >> len(EXP_OF_BIT), 0, product)


def sigma(t: np.ndarray) -> np.ndarray:
  """1 / (1 + exp(-t)) with E_BITS after the point, for t int64 with T_BITS."""
  upper = (ONE << E_BITS) // (ONE + exp_minus(np.abs(t)))
  return np.where(t >= 0, upper, ONE - upper)


def counts(index: int, fraction: int) -> np.ndarray:
  """Counts [2 radius + 2] uint32 of the table of a scale's index and a mean of so many eighths; the escape is last."""
  R = radius(index)
  eighths = FRACTIONS * np.arange(-R, R + 2, dtype=np.int64) - FRACTIONS // 2 - fraction
  cdf = sigma(eighths * reciprocal(index) >> 3 + RECIPROCAL_BITS - T_BITS)
  weights = np.append(np.diff(cdf), ONE - (cdf[-1] - cdf[0]))
  shares = weights * (TOTAL - len(weights))  # the weights sum to ONE
  made, rest = 1 + (shares >> E_BITS), shares & ONE - 1
  made[np.argsort(-rest, kind="stable")[:TOTAL - made.sum()]] += 1
  return made.astype(np.uint32)


@functools.lru_cache(maxsize=1)
def lookup() -> Lookup:
  """All tables, 8 of each scale: that of scale i and fraction f has the number 8 i + f."""
  return Lookup([counts(i, f) for i in range(NUM_SCALES) for f in range(FRACTIONS)])


@functools.lru_cache(maxsize=1)
def radii() -> np.ndarray:
  """[NUM_SCALES] int64, radius of each scale."""
  return np.array([radius(i) for i in range(NUM_SCALES)], np.int64)
