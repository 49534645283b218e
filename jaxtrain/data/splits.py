"""Which rows train, validate and test.

A split depends on the table and the config section alone, never on the run's seed: runs over seeds then compare on the
same rows, and the members of an ensemble share one table.
"""

import numpy as np

from jaxtrain.config import limits
from jaxtrain.errors import UserError

SPLIT_SEED = 42
LABELS = 1  # beside the seed of a run: else resample k would draw the rows whose labels the seed k hides


def split_rows(split, num_rows: int, group: np.ndarray | None,
               label: np.ndarray | None = None) -> dict[str, np.ndarray]:
  """Row indices of each part, sorted.

  Args:
    split: `config.data.split`. `none`: all rows train. `random`: rows are drawn. `group`: whole groups are drawn, so
      that no group has rows in two parts (neighbouring rows of a group are near duplicates). `leave_out`: groups are
      dealt to `num_folds` folds of about equal size; fold `fold` tests, the next one validates. `entropy_balanced`: the
      same, with the groups of each dominant label dealt out evenly.
    num_rows: N.
    group: [N] group of each row, any sortable type; needed by all kinds but `none` and `random`.
    label: [N] int32, -1 = unlabelled; needed by `entropy_balanced`.

  Returns:
    {"train": [n] int64, "val": ..., "test": ...}; a part whose fraction is 0 is empty.

  Raises:
    UserError: an unknown kind, fractions that are negative or do not add to 1, `group` without a group column or with
      fewer groups than parts, a wanted part that stays empty.
  """
  parts = ("train", "val", "test")
  if split.kind not in limits.SPLIT_KINDS:
    raise UserError(f"config.data.split.kind: got {split.kind!r}, allowed {limits.SPLIT_KINDS}")
  if split.kind == "none":
    return {"train": np.arange(num_rows), "val": np.arange(0), "test": np.arange(0)}
  if split.kind != "random" and group is None:
    raise UserError(f"config.data.split.kind={split.kind} needs config.data.group, the column whose values stay "
                    "together; "
                    "set it, or choose --config.data.split.kind=random")
  if split.kind in limits.FOLDED:
    return split_folds(split, group, label)
  fractions = np.asarray(split.fractions, float)
  if fractions.shape != (3,) or (fractions < 0).any() or abs(fractions.sum() - 1) > 1e-6 or fractions[0] == 0:
    raise UserError(f"config.data.split.fractions: got {tuple(split.fractions)}, allowed three numbers (train, val, "
                    "test) that add to 1, the first above 0")
  random = np.random.RandomState(SPLIT_SEED)
  if split.kind == "random":
    bounds = np.round(np.cumsum(fractions)[:2] * num_rows).astype(int)
    rows = dict(zip(parts, np.split(random.permutation(num_rows), bounds)))
  else:
    rows = split_groups(fractions, group, random, parts)
  for part, fraction in zip(parts, fractions):
    if fraction > 0 and len(rows[part]) == 0:
      raise UserError(f"config.data.split.fractions: {part}={fraction:g} of {num_rows} rows leaves {part} empty")
  return {part: np.sort(rows[part]) for part in parts}


def resample(rows: np.ndarray, number: int) -> np.ndarray:
  """As many rows, drawn with replacement: bootstrap resample `number`; the rows themselves for 0.

  Rows of a part are resampled after the split, so that no row is in two parts (Efron & Tibshirani 1993, 6).
  """
  return rows[np.random.RandomState((SPLIT_SEED, number)).randint(len(rows), size=len(rows))] if number else rows


def label_random(seed: int) -> np.random.RandomState:
  """What hides labels in a run of this seed; other random numbers than those of `resample`, whatever its number."""
  return np.random.RandomState((SPLIT_SEED, seed, LABELS))


def hide_labels(label: np.ndarray, rows: np.ndarray, share: float, random: np.random.RandomState) -> np.ndarray:
  """Labels [N] of which a share is left, at least one, of those of some rows; -1 in the place of the others.

  Rows are drawn one by one, whatever their class and group, in a random order: what a smaller share leaves, a larger
  one leaves too. The labels of other rows stay.

  Args:
    label: [N] int32, -1 = unlabelled. rows: [n] which of them may lose theirs. random: as of `label_random`.
  """
  has = np.unique(rows[label[rows] >= 0])
  order = random.permutation(has)
  found = label.copy()
  found[order[max(1, round(share * len(has))):]] = -1
  return found


def split_groups(fractions, group, random, parts) -> dict[str, np.ndarray]:
  """Groups in random order, each to the part that is furthest below its share of rows."""
  names, code = np.unique(group, return_inverse=True)
  wanted = int((fractions > 0).sum())
  if len(names) < wanted:
    raise UserError(f"config.data.split.kind=group: got {len(names)} groups, allowed at least {wanted}, one for each "
                    "part")
  sizes = np.bincount(code)
  filled, part_of_group = np.zeros(3), np.zeros(len(names), int)
  order = random.permutation(len(names))
  # The largest groups first, so that the small ones even out what they leave.
  order = order[np.argsort(-sizes[order], kind="stable")]
  for i, g in enumerate(order):
    empty = (fractions > 0) & (filled == 0)
    open_to = empty if len(order) - i <= empty.sum() else fractions > 0  # the last groups go to parts that have none
    deficit = np.where(open_to, fractions * len(group) - filled, -np.inf)
    part_of_group[g] = np.argmax(deficit)
    filled[part_of_group[g]] += sizes[g]
  return {part: np.flatnonzero(part_of_group[code] == i) for i, part in enumerate(parts)}


def split_folds(split, group, label) -> dict[str, np.ndarray]:
  """Groups dealt to folds: fold `split.fold` tests, the next one validates, the others train.

  Strata are the groups' dominant labels; those with fewer groups than folds are one stratum.
  """
  K, names, code = split.num_folds, *np.unique(group, return_inverse=True)
  if K < 3 or K > len(names):
    raise UserError(f"config.data.split.num_folds: got {K}, allowed 3 to {len(names)}, the number of groups")
  if not 0 <= split.fold < K:
    raise UserError(f"config.data.split.fold: got {split.fold}, allowed 0 to {K - 1}")
  stratum = np.zeros(len(names), int)
  if split.kind == "entropy_balanced":
    if label is None or (label < 0).all():
      raise UserError("config.data.split.kind=entropy_balanced needs labels; set config.data.label, or choose "
                      "leave_out")
    counts = np.zeros((len(names), label.max() + 1))
    np.add.at(counts, (code[label >= 0], label[label >= 0]), 1)
    stratum = counts.argmax(axis=1)
    small = np.bincount(stratum)[stratum] < K
    stratum[small] = -1
  random, sizes = np.random.RandomState(SPLIT_SEED), np.bincount(code)
  rows_in_fold, fold_of_group = np.zeros(K), np.zeros(len(names), int)
  for value in np.unique(stratum):
    members = random.permutation(np.flatnonzero(stratum == value))
    for start in range(0, len(members), K):  # K groups at a time, one to each fold: the largest to the emptiest
      few = members[start:start + K]
      few = few[np.argsort(-sizes[few], kind="stable")]
      folds = np.argsort(rows_in_fold, kind="stable")[:len(few)]
      fold_of_group[few] = folds
      rows_in_fold[folds] += sizes[few]
  fold, val = fold_of_group[code], (split.fold + 1) % K
  return {"train": np.flatnonzero((fold != split.fold) & (fold != val)), "val": np.flatnonzero(fold == val),
          "test": np.flatnonzero(fold == split.fold)}
