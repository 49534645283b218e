"""How rows that were sampled compare with real ones, and how categories are reconstructed: of tables with kinds.

A marginal gap of a column of numbers is the largest difference of the two distribution functions (Kolmogorov-Smirnov),
of a category half the sum of the differences of shares (total variation). An association of two columns is |Spearman's
correlation| of numbers, the correlation ratio of ranks of a number and a category, and Cramer's V of categories; all
lie in 0 .. 1. Each is also given between two samples of real rows: no model gets below that but by luck. Associations
of the second sample with each column shuffled are those of a model that knows each column and none of the others.

**Source:** correlation ratio: Fisher 1925; V: Cramer 1946, 21.9.
"""

import itertools
from typing import Any, Mapping

import numpy as np
from scipy import stats

ROWS = 4000  # of a sample


def numbers(meta: Mapping[str, Any]) -> list[int]:
  """Places of the columns that are no categories."""
  categories = meta["kinds"]["categories"] if "kinds" in meta else {}
  return [d for d, name in enumerate(meta["features"]) if name not in categories]


def category_scores(meta: Mapping[str, Any], seen: np.ndarray, x_mean: np.ndarray) -> dict[str, float]:
  """Accuracy of the reconstructed categories and the share of the most frequent one, of rows [N, D] in scaled units
  with NaN where a cell is missing.
  """
  found = {}
  for name in meta["kinds"]["categories"] if "kinds" in meta else ():
    d = meta["features"].index(name)
    there = ~np.isnan(seen[:, d])
    own, guess = seen[there, d].astype(int), x_mean[there, d].astype(int)
    if len(own):
      found[f"accuracy_of/{name}"] = float((own == guess).mean())
      found[f"majority_of/{name}"] = float(np.bincount(own).max() / len(own))
  accuracies = [value for name, value in found.items() if name.startswith("accuracy_of/")]
  return found | ({"categories_accuracy": float(np.mean(accuracies))} if accuracies else {})


def compare(meta: Mapping[str, Any], real: np.ndarray, other: np.ndarray, made: np.ndarray) -> tuple[dict, dict]:
  """Scalars and arrays that compare rows in raw units, [N, D] each: real ones, other real ones, and sampled ones."""
  names, kinds = meta["features"], meta["kinds"]["categories"]
  sizes = [len(kinds[name]) if name in kinds else 0 for name in names]
  gaps, floors = (np.asarray([marginal_gap(real[:, d], rows[:, d], K) for d, K in enumerate(sizes)])
                  for rows in (made, other))
  scalars = {"marginal_gap": float(np.nanmean(gaps)), "marginal_gap_floor": float(np.nanmean(floors))}
  scalars |= {f"marginal_gap_of/{name}": float(gap) for name, gap in zip(names, gaps)}
  pairs = list(itertools.combinations(range(len(names)), 2))
  alone = np.random.default_rng(0).permuted(other, axis=0)
  each = {part: np.asarray([association(rows[:, i], rows[:, j], sizes[i], sizes[j]) for i, j in pairs])
          for part, rows in (("real", real), ("other", other), ("made", made), ("alone", alone))}
  for ending, part in (("", "made"), ("_floor", "other"), ("_alone", "alone")) if pairs else ():
    scalars[f"association_gap{ending}"] = float(np.nanmean(np.abs(each[part] - each["real"])))
  arrays = {f"association_{part}": values for part, values in each.items()} | {"association_pair": np.asarray(pairs)}
  for part, rows in (("real", real), ("made", made)):
    counts = [shares(rows[:, d], K) for d, K in enumerate(sizes) if K]
    arrays[f"category_share_{part}"] = np.concatenate(counts) if counts else np.zeros(0)
  return scalars, arrays


def shares(codes: np.ndarray, num_classes: int) -> np.ndarray:
  """Share of each category [K] among the cells that are there."""
  count = np.bincount(codes[~np.isnan(codes)].astype(int), minlength=num_classes)
  return count / max(count.sum(), 1)


def marginal_gap(a: np.ndarray, b: np.ndarray, num_classes: int) -> float:
  """Distance of two columns in raw units, NaN where missing; `num_classes` is 0 of numbers. NaN where one is empty."""
  a, b = a[~np.isnan(a)], b[~np.isnan(b)]
  if not len(a) or not len(b):
    return float("nan")
  if num_classes:
    return float(0.5 * np.abs(shares(a, num_classes) - shares(b, num_classes)).sum())
  values = np.union1d(a, b)
  below = [np.searchsorted(np.sort(column), values, "right") / len(column) for column in (a, b)]
  return float(np.abs(below[0] - below[1]).max())


def association(a: np.ndarray, b: np.ndarray, classes_a: int, classes_b: int) -> float:
  """Association of two columns over the rows that have both, in 0 .. 1; 0 where one of them does not vary."""
  there = ~np.isnan(a) & ~np.isnan(b)
  a, b = a[there], b[there]
  if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
    return 0.0 if len(a) >= 3 else float("nan")
  if classes_a and classes_b:
    pairs = (a * classes_b + b).astype(int)
    return cramers_v(np.bincount(pairs, minlength=classes_a * classes_b).reshape(classes_a, classes_b))
  if classes_a or classes_b:
    codes, ranks = (a, stats.rankdata(b)) if classes_a else (b, stats.rankdata(a))
    count = np.bincount(codes.astype(int), minlength=max(classes_a, classes_b))
    mean = np.bincount(codes.astype(int), ranks, len(count)) / np.maximum(count, 1)
    return float(np.sqrt(count @ np.square(mean - ranks.mean()) / len(ranks) / ranks.var()))
  return float(abs(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1]))


def cramers_v(table: np.ndarray) -> float:
  """Cramer's V of counts [K, M], rows and columns without any left out."""
  table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
  if min(table.shape) < 2:
    return 0.0
  expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
  return float(np.sqrt((np.square(table - expected) / expected).sum() / table.sum() / (min(table.shape) - 1)))


def pick(random: np.random.Generator, sources: dict, name: str, seen_of) -> tuple[np.ndarray, np.ndarray]:
  """Two samples of as many real rows [n, D] in scaled units, of the part `name` and of the training rows; of these
  themselves two halves.

  Args:
    sources: parts by name.
    seen_of: `rows -> [n, D]`, NaN where a cell is missing.
  """
  own, train = sources[name], sources["train"]
  if name == "train":
    order = random.permutation(own.num_rows)[:2 * ROWS]
    half = len(order) // 2
    return seen_of(own.rows(np.sort(order[:half]))), seen_of(own.rows(np.sort(order[half:2 * half])))
  size = min(ROWS, own.num_rows, train.num_rows)
  drawn = (np.sort(random.choice(source.num_rows, size, replace=False)) for source in (own, train))
  return tuple(seen_of(source.rows(rows)) for source, rows in zip((own, train), drawn))

