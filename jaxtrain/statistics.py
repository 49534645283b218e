"""Intervals of means, of shares and of what is computed of groups of rows, tests of which group of runs is better over
shared seeds, and calibration of class probabilities.

Values of a metric stand in a matrix [G, R]: a row for each group (runs of equal settings), a column for each replicate
(a seed, a fold), NaN where a group has none. All is computed for many rows at once, and equal input gives equal output.

**Source:** Efron & Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5 (studentised bootstrap); Holm, A
simple sequentially rejective multiple test procedure, 1979. Intervals of shares: Wilson, Probable inference, the law of
succession, and statistical inference, 1927. Expected calibration error of the predicted class, bins of equal width: Guo
et al., On calibration of modern neural networks, 2017, equation 3. Whole groups are resampled: Davison & Hinkley,
Bootstrap Methods and their Application, 1997, section 3.8.
**Departs:** the deviation of a resample is no smaller than MIN_SPREAD of the sample's. Few values have resamples of one
value, or of two that nearly agree, which make intervals of any length. With 0.3 they hold the mean of normal values in
94 to 97 % of cases from 3 values on, and are at most twice as long as those of t (4,000 simulated samples of each
size).
"""

import warnings
from typing import NamedTuple

import numpy as np
from scipy import special

LEVEL, POWER = 0.05, 0.8
MIN_SHARED = 3  # replicates for an interval or a test; with 2, a t-test needs a difference of 13 standard errors
RESAMPLES = 2000
GROUP_RESAMPLES = 1000
MIN_GROUPS = 5  # fewest groups that are resampled: fewer tell nothing of the spread between them
MIN_SPREAD = 0.3  # 0.4 holds means of 3 skewed values in 91 % of cases, 0.2 makes intervals of 3 values twice as long
CALIBRATION_BINS = 15
FEW, FEW_SHARE = 10, 0.05  # rows, and share of them, below which those that differ say nothing of how a column varies
MAX_REPLICATES = 1000  # the largest number that `replicates_needed` looks at


class Pairs(NamedTuple):
  """Groups against references, all [F, G]: difference is group less reference, the mean over shared replicates.

  Attributes:
    shared: number of shared replicates.
    difference, low, high: mean difference and its interval; NaN where none is shared or, for the interval, too few.
    p: of the paired t-test, adjusted over the groups that are compared with the same reference; NaN for no test.
    verdict: 1 better, -1 worse, 0 undecided.
    more: for undecided pairs about how many more shared replicates would decide; inf beyond MAX_REPLICATES, NaN for
      pairs that are decided or have no test.
  """
  shared: np.ndarray
  difference: np.ndarray
  low: np.ndarray
  high: np.ndarray
  p: np.ndarray
  verdict: np.ndarray
  more: np.ndarray


def varies(x: np.ndarray) -> np.ndarray:
  """Whether each column of x [N, D] varies in enough rows, NaN left out, for a share of its variance to mean anything:
  at least `FEW` rows, or `FEW_SHARE` of them, differ from its most frequent value [D].
  """
  x, there = np.asarray(x), ~np.isnan(x)
  if not len(x):
    return np.zeros(x.shape[1], bool)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # of a column without a number
    usual = np.nanquantile(x, 0.5, axis=0, method="lower")  # what most rows have, where most have the same
  differ = (there & (x != usual)).sum(axis=0)
  return (differ > 0) & ((differ >= FEW) | (differ >= FEW_SHARE * there.sum(axis=0)))


def moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Count, mean and standard deviation (of n - 1) of the values that are not NaN, of rows [P, R] -> [P] each.

  The mean is NaN for no value, the deviation for fewer than two.
  """
  there = ~np.isnan(rows)
  count = there.sum(axis=1)
  mean = np.where(there, rows, 0).sum(axis=1) / np.where(count, count, np.nan)
  squares = (np.where(there, rows - mean[:, None], 0) ** 2).sum(axis=1)
  deviation = np.sqrt(squares / np.where(count > 1, count - 1, np.nan))
  largest = np.abs(np.where(there, rows, 0)).max(axis=1, initial=0)
  return count, mean, np.where(deviation <= 1e-12 * largest, 0.0, deviation)  # what rounding leaves of equal values


def t_quantile(degrees: np.ndarray | int) -> np.ndarray:
  """Quantile of Student's t that leaves LEVEL outside both tails, at so many degrees of freedom [...] -> [...]."""
  return special.stdtrit(degrees, 1 - LEVEL / 2)


def t_half_width(values: np.ndarray) -> float:
  """Half the width of the interval of the mean of values [n] by Student's t; NaN for fewer than two."""
  n = values.size
  return float(t_quantile(n - 1) * values.std(ddof=1) / n ** 0.5) if n > 1 else float("nan")


def mean_intervals(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Studentised-bootstrap interval of the mean of each row [P, R] -> low, high [P]; NaN below MIN_SHARED values."""
  count, mean, deviation = moments(rows)
  low, high = np.full((2, len(rows)), np.nan)
  for n in np.unique(count[count >= MIN_SHARED]):
    at = np.flatnonzero(count == n)
    values = rows[at][~np.isnan(rows[at])].reshape(-1, n)
    centred = (values - mean[at, None]) / np.where(deviation[at] > 0, deviation[at], 1.0)[:, None]
    weights = np.random.default_rng(int(n)).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).T / n
    means = centred @ weights
    spread = np.sqrt(np.maximum((centred ** 2) @ weights - means ** 2, 0) * n / (n - 1))
    t = np.sort(means / np.maximum(spread, MIN_SPREAD), axis=1)
    place = round(LEVEL / 2 * (RESAMPLES - 1))
    low[at] = mean[at] - t[:, -1 - place] * deviation[at]
    high[at] = mean[at] - t[:, place] * deviation[at]
  return low, high


def group_resamples(num_groups: int) -> np.ndarray:
  """How often each group is drawn in resamples of whole groups [GROUP_RESAMPLES, G]; the same for equal G."""
  weights = np.random.default_rng(num_groups).multinomial(num_groups, np.full(num_groups, 1 / num_groups),
                                                          size=GROUP_RESAMPLES)
  return weights.astype(np.float64)


def percentile_interval(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Ends of the percentile interval of resampled values [R, ...]; those that are no number are left out."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # of values that are NaN in every resample
    low, high = np.nanquantile(resampled, (LEVEL / 2, 1 - LEVEL / 2), axis=0)
  return low, high


def wilson(hits: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Shares hits / total of counts [...], and the ends of their 95 % intervals (Wilson 1927), each [...]."""
  z, n = 1.96, np.maximum(total, 1)
  p = hits / n
  centre, half = p + z ** 2 / (2 * n), z * np.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
  return p, np.minimum((centre - half) / (1 + z ** 2 / n), p), np.maximum((centre + half) / (1 + z ** 2 / n), p)


def calibration(log_prob: np.ndarray, label: np.ndarray) -> tuple[float, np.ndarray]:
  """Expected calibration error, and rows, mean confidence and accuracy of each bin of confidence [3, bins]."""
  confidence = np.exp(log_prob.max(axis=1).astype(np.float64))
  right = log_prob.argmax(axis=1) == label
  bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)  # (lower, upper]
  rows, sums, hits = (np.bincount(bins, w, CALIBRATION_BINS) for w in (None, confidence, right))
  mean, accuracy = sums / np.maximum(rows, 1), hits / np.maximum(rows, 1)
  return float((rows * np.abs(accuracy - mean)).sum() / rows.sum()), np.stack([rows, mean, accuracy])


def paired_p(rows: np.ndarray) -> np.ndarray:
  """Two-sided p of the t-test that the mean of differences [P, R] is zero -> [P].

  NaN for fewer than MIN_SHARED differences, and for equal ones that are not zero: they tell nothing of the spread.
  """
  count, mean, deviation = moments(rows)
  tested = (count >= MIN_SHARED) & (deviation > 0)
  t = np.abs(mean) * np.sqrt(count) / np.where(tested, deviation, np.nan)
  p = 2 * special.stdtr(np.maximum(count - 1, 1), -t)
  return np.where((count >= MIN_SHARED) & (deviation == 0) & (mean == 0), 1.0, p)


def holm(p: np.ndarray) -> np.ndarray:
  """p of several tests [M] adjusted by Holm's step-down procedure -> [M]; NaN for no test, which counts as none."""
  order = np.argsort(p)  # NaN comes last
  num_left = np.maximum((~np.isnan(p)).sum() - np.arange(len(p)), 1)
  adjusted = np.empty(len(p))
  adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * num_left), 1)
  return adjusted


def replicates_needed(effect: np.ndarray, level: np.ndarray | float = LEVEL) -> np.ndarray:
  """Pairs that a two-sided paired t-test of a level needs for POWER -> [P], inf beyond MAX_REPLICATES.

  n is the smallest with n >= ((t_{1 - level / 2} + t_POWER) / effect)^2 at n - 1 degrees of freedom; effect [P] is the
  mean difference over its standard deviation.
  """
  n = np.arange(2, MAX_REPLICATES + 1)
  detectable = lambda one: (special.stdtrit(n - 1, 1 - one / 2) + special.stdtrit(n - 1, POWER)) / np.sqrt(n)
  effect, level = np.broadcast_arrays(np.abs(effect), level)
  needed = np.full(effect.shape, np.inf)
  for one in np.unique(level):
    at = level == one
    needed[at] = np.append(n, np.inf)[np.searchsorted(-detectable(one), -effect[at])]  # detectable falls with n
  return needed


def best_group(values: np.ndarray, higher: bool) -> int | None:
  """Index of the group with the best mean of values [G, R], among those with MIN_SHARED replicates if there are any."""
  count, mean, _ = moments(values)
  enough = count >= (MIN_SHARED if (count >= MIN_SHARED).any() else 1)
  return int(np.argmax(np.where(enough, mean if higher else -mean, -np.inf))) if enough.any() else None


def against(values: np.ndarray, references: list[int], higher: bool) -> Pairs:
  """Compares every group of values [G, R] with each of F references, over the replicates that both have.

  `more` is at the level that the hardest of a reference's comparisons is held to, LEVEL over their number.
  """
  G, F = len(values), len(references)
  rows = (values[None] - values[references][:, None]).reshape(F * G, values.shape[1])
  rows[[f * G + reference for f, reference in enumerate(references)]] = np.nan  # nothing is compared with itself
  (shared, difference, deviation), (low, high) = moments(rows), mean_intervals(rows)
  p = paired_p(rows).reshape(F, G)
  num_tests = np.maximum((~np.isnan(p)).sum(axis=1), 1)
  p = np.stack([holm(row) for row in p]) if F else p
  sign = np.sign(difference if higher else -difference).reshape(F, G)
  verdict = np.where(p < LEVEL, sign, 0).astype(int)
  effect = np.divide(difference, deviation, out=np.zeros(F * G), where=deviation > 0)
  needed = replicates_needed(effect, np.repeat(LEVEL / num_tests, G)) - shared
  more = np.where((verdict == 0) & ~np.isnan(p), np.maximum(needed, 1).reshape(F, G), np.nan)
  return Pairs(*(part.reshape(F, G) for part in (shared, difference, low, high)), p, verdict, more)
