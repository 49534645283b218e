"""One look at all features of a table: which rows are kept, the ends of each column, and what may be a slip."""

from typing import Iterable, NamedTuple

import numpy as np

from jaxtrain.errors import UserError

CODES = (-99.0, -999.0, -999.25, -9999.0, -9999.25, -99999.0, 999.0, 999.25, 9999.0, 99999.0, -32768.0, 1e20, -1e20,
         1e30, -1e30)  # that programs write for missing
REPEATED = 3  # rows with the same value at an end of a column, to be worth a word
MIN_ROWS = 2  # with which a column can vary
COUNTED = 8  # rows from which on a column that counts them is no accident
MOST_ALIKE = 0.98  # share of the rows with one value from which a column hardly varies
COUNTED_SHARE = 0.5  # of the rows, one more than the row before, from which a column counts: some may be taken out
MOST_NAMED = 3  # columns that hardly vary, each in a sentence of its own
MOST_WARNINGS = 20


class Survey(NamedTuple):
  """What a look at all rows found.

  Attributes:
    keep: [N] bool, the rows that are used.
    bounds: [4, D], of each column in those rows: see `bounds_of`.
    missing: [D], missing cells of each column in all rows.
    incomplete: rows that are used with a missing cell.
    warnings: sentences.
  """
  keep: np.ndarray
  bounds: np.ndarray
  missing: np.ndarray
  incomplete: int
  warnings: list[str]


class Cures(NamedTuple):
  """What helps against what a warning is of, in words: where values that mean missing are named, and how a column is
  left out.
  """
  missing: str
  leave_out: str


FIELDS = Cures("config.data.missing", "leave it out")


class Counts(NamedTuple):
  """Whether columns count the rows that were seen so far.

  Attributes:
    last: [1, D], the newest row; [0, D] before the first.
    rising: [D] bool, each row is more than the one before, by a whole number.
    ones: [D], how many rows are one more than the one before.
  """
  last: np.ndarray
  rising: np.ndarray
  ones: np.ndarray

  def followed_by(self, x: np.ndarray) -> "Counts":
    """The same once the rows x [n, D] were seen too."""
    with np.errstate(over="ignore", invalid="ignore"):
      steps = np.diff(np.concatenate([self.last, x]), axis=0)
    whole = (steps > 0) & (steps == np.rint(steps))
    return Counts(x[-1:], self.rising & whole.all(axis=0), self.ones + (steps == 1).sum(axis=0))


class Usual(NamedTuple):
  """How many rows have the usual value of each column.

  Attributes:
    value: [D], the median of the first rows with one, which most rows have where most have the same; NaN before.
    there, same: [D], rows that have a number, and that number.
  """
  value: np.ndarray
  there: np.ndarray
  same: np.ndarray

  def followed_by(self, x: np.ndarray, seen: np.ndarray) -> "Usual":
    """The same once the rows x [n, D] were seen too, those of `seen`."""
    value = self.value.copy()
    for d in np.flatnonzero(np.isnan(value) & seen.any(axis=0)):
      value[d] = np.quantile(x[seen[:, d], d], 0.5, method="lower")
    return Usual(value, self.there + seen.sum(axis=0), self.same + (seen & (x == value)).sum(axis=0))

  def sentences(self, names: tuple[str, ...], wide: set[str], cures: "Cures") -> list[str]:
    """On columns that hardly vary, but for parts of `wide` ones; one on all where they are many."""
    few = (self.same >= MOST_ALIKE * self.there) & (self.same < self.there)
    found = [d for d in np.flatnonzero(few) if names[d] not in wide]
    if len(found) > MOST_NAMED:
      some = ", ".join(repr(names[d]) for d in found[:MOST_NAMED])
      return [f"{len(found):,} columns have one value in {MOST_ALIKE:.0%} of the rows or more: {some} and "
              f"{len(found) - MOST_NAMED:,} more; the other rows lie far out once they are scaled"]
    return [f"column {names[d]!r} is {self.value[d]:.10g} in all but {self.there[d] - self.same[d]:,} of "
            f"{self.there[d]:,} rows, which lie far out once it is scaled; {cures.leave_out}, unless they mean "
            "something"
            for d in found]


def look(columns, names: tuple[str, ...], blocks: Iterable[np.ndarray], masked: bool,
         cures: Cures = FIELDS) -> Survey:
  """Looks at all features, block [n, D] by block.

  Args:
    columns: `files.Columns` that the features are of.
    names: of the features, D.
    masked: whether rows with missing cells are used, by what they have; else only complete rows are.
    cures: that warnings name.

  Raises:
    UserError: an infinite value, a column that is empty or constant, or no row can be used. A part of a wide column,
      such as a pixel in the corner of an image, may be constant. Rows are too few: `MIN_ROWS` are needed.
  """
  keep, D, incomplete = [], len(names), 0
  missing, counts = np.zeros(D, int), Counts(np.zeros((0, D)), np.ones(D, bool), np.zeros(D, int))
  low, high = no_end(D), no_end(D)
  usual = Usual(np.full(D, np.nan), np.zeros(D, int), np.zeros(D, int))
  for x in blocks:
    start = sum(map(len, keep))
    for r, d in np.argwhere(np.isinf(x))[:1]:
      raise UserError(f"{columns.path}: column {names[d]!r}, {columns.row(start + r)}: infinite value; numbers of 64 "
                      "bits end at 1.8e308")
    gap = np.isnan(x)
    missing += gap.sum(axis=0)
    some, whole = ~gap.all(axis=1), ~gap.any(axis=1)
    keep.append(some if masked else whole)
    incomplete += int((some & ~whole).sum()) if masked else 0
    seen = ~gap & keep[-1][:, None]
    low, high = join_ends(low, end_of(x, seen)), join_ends(high, end_of(-x, seen))
    counts, usual = counts.followed_by(x), usual.followed_by(x, seen)
  used = np.concatenate(keep)
  for d in np.flatnonzero(missing == len(used)):
    raise UserError(f"{columns.path}: column {names[d]!r} is empty in every row")
  if not used.any():
    raise UserError(f"{columns.path}: of {len(used)} rows none has a number in every feature column; "
                    "config.data.incomplete=mask uses rows with missing cells")
  if used.sum() < MIN_ROWS:
    more = "" if masked or len(used) < MIN_ROWS else "; config.data.incomplete=mask uses rows with missing cells"
    raise UserError(f"{columns.path}: {used.sum()} of {len(used)} rows can be used, too few; {MIN_ROWS} at least are "
                    f"needed{more}")
  parts = {name for wide in columns.wide.values() for name in wide}
  for d in np.flatnonzero(low[0] == -high[0]):
    if names[d] not in parts:
      raise UserError(f"{columns.path}: column {names[d]!r} is constant ({low[0, d]:g}) in the {used.sum()} "
                      f"{'used' if masked else 'complete'} rows")
  counting = counts.rising & (counts.ones >= COUNTED_SHARE * len(used)) & (len(used) >= COUNTED)
  gaps = [" with gaps" if ones < len(used) - 1 else "" for ones in counts.ones]
  found = [f"column {names[d]!r} counts the rows{gaps[d]}, as an index that pandas writes does; {cures.leave_out}, "
           "unless the order of the rows means something" for d in np.flatnonzero(counting)]
  found += usual.sentences(names, parts, cures)
  among = f" of the {used.sum():,} without a missing cell" if not masked and not used.all() else ""
  found += [words for d, name in enumerate(names) for words in repeats(name, low[:, d], high[:, d], among, cures)]
  return Survey(used, bounds_of(low, high), missing, incomplete, shortened(found))


def bounds_of(low: np.ndarray, high: np.ndarray) -> np.ndarray:
  """The smallest number of each column, the one above, the one below the largest, and the largest, [4, D].

  Args:
    low, high: ends of the columns, see `end_of`; the upper ones of the negated numbers.
  """
  return np.stack([low[0], low[2], -high[2], -high[0]])


def no_end(num_columns: int) -> np.ndarray:
  """The end of columns without numbers, see `end_of`."""
  return np.stack([np.full(num_columns, np.inf), np.zeros(num_columns), np.full(num_columns, np.inf)])


def end_of(x: np.ndarray, seen: np.ndarray) -> np.ndarray:
  """The lower end of each column [3, D]: the smallest number, the rows that have it, the next larger one."""
  value = x.min(axis=0, where=seen, initial=np.inf)
  more = seen & (x > value)
  return np.stack([value, (seen & (x == value)).sum(axis=0), x.min(axis=0, where=more, initial=np.inf)])


def join_ends(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """The end of columns from the ends of two blocks of their rows."""
  value = np.minimum(a[0], b[0])
  count = np.where(a[0] == value, a[1], 0) + np.where(b[0] == value, b[1], 0)
  following = np.minimum(*(np.where(end[0] == value, end[2], end[0]) for end in (a, b)))
  return np.stack([value, count, following])


def repeats(name: str, low: np.ndarray, high: np.ndarray, among: str, cures: Cures) -> list[str]:
  """A sentence for each end of a column at which a value repeats that may mean missing; `among`: which rows were seen.

  It stands apart from the others by more than these spread, or is one of `CODES`.
  """
  found = []
  for sign, end, other, side in ((1, low, high, "lower"), (-1, high, low, "upper")):
    value, count, following = end
    with np.errstate(over="ignore", invalid="ignore"):
      apart = following < -other[0] and following - value > -other[0] - following
    if count >= REPEATED and np.isfinite(following) and (apart or sign * value in CODES):
      inner = sorted((sign * following, -sign * other[0]))
      found.append(f"column {name!r}: {sign * value:.10g} stands in {int(count):,} rows{among}, at the {side} end of "
                   f"the others ({inner[0]:.5g} to {inner[1]:.5g}); if it means missing, name it in {cures.missing}")
  return found


def shortened(warnings: list[str]) -> list[str]:
  """The first warnings, and how many more there are."""
  more = len(warnings) - MOST_WARNINGS
  return warnings if more <= 0 else [*warnings[:MOST_WARNINGS], f"and {more:,} more warnings of this kind"]
