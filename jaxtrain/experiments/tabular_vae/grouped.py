"""Intervals of scores where rows of one group are alike, such as the rows of a borehole: whole groups are resampled.

A score is a function of sums over rows. Sums are taken once for each group [G, F]; a resample of groups is then a
weight for each group, and a score of a thousand resamples one product of matrices. Rows without groups are dealt at
random to blocks, whose resamples have the spread of those of independent rows.

**Source:** Davison & Hinkley 1997, section 3.8 (resampling of groups).
"""

from typing import Callable, NamedTuple

import numpy as np

from jaxtrain import statistics

MIN_GROUPS, MOST_GROUPS = statistics.MIN_GROUPS, 500  # more are joined at random
BLOCKS, BLOCK_SEED = 200, 0
MOST_PAIRS = 2 * 10 ** 8  # rows times groups up to which areas under curves have intervals by group


class Groups(NamedTuple):
  """Groups of N rows.

  Attributes:
    code: [N] group of each row, 0 .. G - 1.
    weights: [R, G], how often a resample has each group; no resamples with fewer than MIN_GROUPS groups.
  """
  code: np.ndarray
  weights: np.ndarray

  @property
  def count(self) -> int:
    """G."""
    return self.weights.shape[1]

  def take(self, rows: np.ndarray) -> "Groups":
    """Those of some of the rows."""
    return made(np.unique(self.code[rows], return_inverse=True)[1])


def made(code: np.ndarray) -> Groups:
  """Groups of codes [N] that are 0 .. G - 1; of many some are joined."""
  count = int(code.max(initial=-1)) + 1
  if count > MOST_GROUPS:
    code, count = np.random.default_rng(BLOCK_SEED).permutation(count)[code] % MOST_GROUPS, MOST_GROUPS
  weights = statistics.group_resamples(count) if count >= MIN_GROUPS else np.zeros((0, count))
  return Groups(code, weights)


def of_rows(rows: dict[str, np.ndarray], num_rows: int) -> Groups:
  """The groups of rows by their column `group`, where they have one."""
  if "group" in rows:
    return made(np.unique(rows["group"], return_inverse=True)[1])
  blocks = np.arange(num_rows) % min(BLOCKS, max(num_rows, 1))
  return made(np.random.default_rng(BLOCK_SEED).permutation(blocks))


def sums(groups: Groups, columns: np.ndarray) -> np.ndarray:
  """Sums [G, F] over the rows of each group of columns [N, F]."""
  return np.stack([np.bincount(groups.code, column, groups.count) for column in columns.T], axis=1)


def counts(groups: Groups, *codes: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
  """Rows of each group by codes [N] of so many values each: [G, *sizes]."""
  flat = groups.code
  for code, size in zip(codes, sizes):
    flat = flat * size + code
  return np.bincount(flat, minlength=groups.count * int(np.prod(sizes))).reshape(groups.count, *sizes).astype(float)


def resampled(groups: Groups, totals: np.ndarray, score: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
  """A score of all rows, then of each resample [1 + R, ...]; `score` takes sums [R, F...] of totals [G, F...]."""
  weights = np.concatenate([np.ones((1, groups.count)), groups.weights])
  return score(np.tensordot(weights, totals, axes=1))


def half_widths(values: np.ndarray) -> np.ndarray:
  """Half the width of the 95 % interval of what `resampled` gave [1 + R, ...] -> [...]; NaN without resamples."""
  if len(values) == 1:
    return np.full(values.shape[1:], np.nan)
  low, high = statistics.percentile_interval(values[1:])
  return (high - low) / 2


def ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
  """over / under, NaN where under is 0."""
  return over / np.where(under > 0, under, np.nan)


def of_classes(totals: np.ndarray) -> np.ndarray:
  """Accuracy, balanced accuracy and macro-F1 [R, 3] of counts [R, 3, K]: rows of a class, right and predicted ones."""
  true, hits, predicted = totals[:, 0], totals[:, 1], totals[:, 2]
  named = true + predicted
  recall, f1 = ratio(hits, true), ratio(2 * hits, named)
  mean = lambda values, there: ratio(np.where(there, values, 0).sum(axis=1), there.sum(axis=1))
  return np.stack([ratio(hits.sum(axis=1), true.sum(axis=1)), mean(recall, true > 0), mean(f1, named > 0)], axis=1)


WITHOUT_FORMULA = ("f1_macro", "ece")  # scores whose interval of independent rows is by resampling too
CLASS_SCORES = ("accuracy", "balanced_accuracy", "f1_macro")  # what `of_classes` gives


def class_totals(groups: Groups, predicted: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
  """What `of_classes` takes, of each group [G, 3, K]."""
  right = predicted == label
  of = lambda code: counts(groups, code, sizes=(num_classes,))
  hits = counts(groups, np.where(right, label, num_classes), sizes=(num_classes + 1,))[:, :num_classes]
  return np.stack([of(label), hits, of(predicted)], axis=1)


def r2_totals(groups: Groups, x: np.ndarray, x_mean: np.ndarray) -> np.ndarray:
  """What `r2` takes of rows [N, D], of each group [G, 4, D]: entries that are no NaN, their sum and squares about the
  column's mean, and their squared errors; zeros of a column that hardly varies (`statistics.varies`).
  """
  x, x_mean = np.asarray(x, np.float64), np.asarray(x_mean, np.float64)
  there = ~np.isnan(x) & statistics.varies(x)
  middle = ratio(np.where(there, x, 0).sum(axis=0), there.sum(axis=0))
  about = np.where(there, x - middle, 0)
  error = np.where(there, x - x_mean, 0)
  parts = (there.astype(np.float64), about, about ** 2, error ** 2)
  return np.stack([sums(groups, part) for part in parts], axis=1)


def r2(totals: np.ndarray) -> np.ndarray:
  """R2 of each column [R, D] of sums [R, 4, D]; NaN for one that does not vary."""
  count, total, squares, errors = np.moveaxis(totals, 1, 0)
  var = squares - total ** 2 / np.maximum(count, 1)
  return 1 - ratio(errors, np.where(var > 1e-12 * squares, var, 0))


def mean_r2(totals: np.ndarray) -> np.ndarray:
  """Mean R2 over the columns that vary [R] of sums [R, 4, D]."""
  each = r2(totals)
  there = np.isfinite(each)
  return ratio(np.where(there, each, 0).sum(axis=1), there.sum(axis=1))


def mean_of(totals: np.ndarray) -> np.ndarray:
  """Mean of a column [R] of its sums and counts [R, 2]."""
  return ratio(totals[:, 0], totals[:, 1])


def value_totals(groups: Groups, values: np.ndarray) -> np.ndarray:
  """What `mean_of` takes of values [N], of each group [G, 2]."""
  values = np.asarray(values, np.float64)
  return sums(groups, np.stack([values, np.ones(len(values))], axis=1))


def calibration_error(totals: np.ndarray) -> np.ndarray:
  """Expected calibration error [R] of sums [R, 3, bins]: rows, confidence and right ones."""
  rows, confidence, hits = np.moveaxis(totals, 1, 0)
  return np.abs(hits - confidence).sum(axis=1) / np.maximum(rows.sum(axis=1), 1)


def calibration_totals(groups: Groups, log_prob: np.ndarray, right: np.ndarray) -> np.ndarray:
  """What `calibration_error` takes, of each group [G, 3, bins]; bins as of `statistics.calibration`."""
  confidence, B = np.exp(log_prob.max(axis=1).astype(np.float64)), statistics.CALIBRATION_BINS
  place = groups.code * B + np.clip(np.ceil(confidence * B).astype(int) - 1, 0, B - 1)
  of = lambda weights: np.bincount(place, weights, groups.count * B).reshape(groups.count, B)
  return np.stack([of(None), of(confidence), of(right)], axis=1)


def mean_auc(groups: Groups, log_prob: np.ndarray, label: np.ndarray) -> np.ndarray:
  """Mean one-vs-rest area under the ROC curve over the classes that have one, of all rows and of resamples [1 + R].

  Of each class the ordered pairs of a row of the class in one group and another row in another are counted once [G, G].
  """
  G, K = groups.count, log_prob.shape[1]
  weights = np.concatenate([np.ones((1, G)), groups.weights])
  total, defined = np.zeros(len(weights)), np.zeros(len(weights))
  members = [np.flatnonzero(groups.code == g) for g in range(G)]
  for k in range(K):
    own = np.flatnonzero(label == k)
    if not 0 < len(own) < len(label):
      continue
    score, pairs = log_prob[:, k], np.zeros((G, G))
    for h, rows in enumerate(members):
      others = np.sort(score[rows[label[rows] != k]])
      below = np.searchsorted(others, score[own], "left") + np.searchsorted(others, score[own], "right")
      pairs[:, h] = np.bincount(groups.code[own], below, G) / 2
    positive = np.bincount(groups.code[own], minlength=G)
    negative = np.bincount(groups.code, minlength=G) - positive
    area = ratio(np.einsum("rg,gh,rh->r", weights, pairs, weights), (weights @ positive) * (weights @ negative))
    total += np.nan_to_num(area)
    defined += np.isfinite(area)
  return ratio(total, defined)


def classifier_widths(groups: Groups, log_prob: np.ndarray, label: np.ndarray,
                      names: tuple[str, ...] = (*CLASS_SCORES, "nll_nats", "ece", "auc_macro")) -> dict[str, float]:
  """Half the widths of 95 % intervals of a classifier's scores over labelled rows, by name; {} with too few groups."""
  if not len(groups.weights):
    return {}
  pred, K = log_prob.argmax(axis=1), log_prob.shape[1]
  found = dict(zip(CLASS_SCORES, half_widths(resampled(groups, class_totals(groups, pred, label, K), of_classes))))
  own = value_totals(groups, -log_prob[np.arange(len(label)), label])
  found["nll_nats"] = half_widths(resampled(groups, own, mean_of))
  found["ece"] = half_widths(resampled(groups, calibration_totals(groups, log_prob, pred == label), calibration_error))
  if "auc_macro" in names and len(label) * groups.count <= MOST_PAIRS:
    found["auc_macro"] = half_widths(mean_auc(groups, log_prob, label))
  return {f"{name}_ci95": float(half) for name, half in found.items() if name in names and np.isfinite(half)}


def reconstruction_widths(groups: Groups, x: np.ndarray, x_mean: np.ndarray, names: list[str],
                          suffix: str) -> dict[str, float]:
  """Half the widths of 95 % intervals of the R2 of columns [N, D], as `evaluate.errors` names them."""
  halves = half_widths(resampled(groups, r2_totals(groups, x, x_mean), r2))
  return {f"r2_{suffix}_ci95/{name}": float(half) for name, half in zip(names, halves) if np.isfinite(half)}
