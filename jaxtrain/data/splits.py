"""Which rows train, validate and test.

A split depends on the table and the config section alone, never on the run's seed: runs over seeds then compare on the
same rows, and the members of an ensemble share one table.
"""

import numpy as np

from jaxtrain.types import UserError

KINDS = ("none", "random", "group")
SPLIT_SEED = 42


def split_rows(split, num_rows: int, group: np.ndarray | None) -> dict[str, np.ndarray]:
  """Row indices of each part, sorted.

  Args:
    split: `config.data.split`. `none`: all rows train. `random`: rows are drawn. `group`: whole groups are drawn, so that
      no group has rows in two parts (neighbouring rows of a group are near duplicates).
    num_rows: N.
    group: [N] group of each row, any sortable type; needed by `group`.

  Returns:
    {"train": [n] int64, "val": ..., "test": ...}; a part whose fraction is 0 is empty.

  Raises:
    UserError: an unknown kind, fractions that are negative or do not add to 1, `group` without a group column or with
      fewer groups than parts, a wanted part that stays empty.
  """
  parts = ("train", "val", "test")
  if split.kind not in KINDS:
    raise UserError(f"config.data.split.kind: got {split.kind!r}, allowed {KINDS}")
  if split.kind == "none":
    return {"train": np.arange(num_rows), "val": np.arange(0), "test": np.arange(0)}
  fractions = np.asarray(split.fractions, float)
  if fractions.shape != (3,) or (fractions < 0).any() or abs(fractions.sum() - 1) > 1e-6 or fractions[0] == 0:
    raise UserError(f"config.data.split.fractions: got {tuple(split.fractions)}, allowed three numbers (train, val, "
                    "test) that add to 1, the first above 0")
  random = np.random.RandomState(SPLIT_SEED)
  if split.kind == "random":
    bounds = np.round(np.cumsum(fractions)[:2] * num_rows).astype(int)
    rows = dict(zip(parts, np.split(random.permutation(num_rows), bounds)))
  else:
    if group is None:
      raise UserError("config.data.split.kind=group needs config.data.group, the column whose values stay together; "
                      "set it, or choose --config.data.split.kind=random")
    rows = split_groups(fractions, group, random, parts)
  for part, fraction in zip(parts, fractions):
    if fraction > 0 and len(rows[part]) == 0:
      raise UserError(f"config.data.split.fractions: {part}={fraction:g} of {num_rows} rows leaves {part} empty")
  return {part: np.sort(rows[part]) for part in parts}


def split_groups(fractions, group, random, parts) -> dict[str, np.ndarray]:
  """Groups in random order, each to the part that is furthest below its share of rows."""
  names, code = np.unique(group, return_inverse=True)
  wanted = int((fractions > 0).sum())
  if len(names) < wanted:
    raise UserError(f"config.data.split.kind=group: got {len(names)} groups, allowed at least {wanted}, one for each part")
  sizes = np.bincount(code)
  filled, part_of_group = np.zeros(3), np.zeros(len(names), int)
  order = random.permutation(len(names))
  # The largest groups first, so that the small ones even out what they leave.
  order = order[np.argsort(-sizes[order], kind="stable")]
  for g in order:
    deficit = np.where(fractions > 0, fractions * len(group) - filled, -np.inf)
    part_of_group[g] = np.argmax(deficit)
    filled[part_of_group[g]] += sizes[g]
  return {part: np.flatnonzero(part_of_group[code] == i) for i, part in enumerate(parts)}
