"""From raw instrument files of ocean-drilling cores to the table that a VAE learns from: one row per hole and 20 cm.

Each file has a row per measurement: expedition, site and hole, a depth in metres, and one or several values. Rows with
a missing value, depth or hole are dropped; the others fall into the bin round(5 depth), whose depth is that number / 5.
Bins are whole numbers, so that files meet in equal bins. A bin has the mean of each value, and its most frequent
lithology; of equally frequent ones the first in alphabetical order. Of a file of intervals it is the lithology that has
the longest part of the bin. Bins that every file has are kept, joined by hole and bin. Then those whose density or
colour no core can have are dropped.

**Source:** the recipe by which the public release `SerpRateAI/lilyexplorer` made its table of 238,506 rows: 261 dropped
for their density, none for their colour. Rounding is to the nearest, halves to the even bin, as NumPy and pandas round.
"""

import itertools
from typing import Callable, Iterable, NamedTuple

import numpy as np

from jaxtrain.data import cells, csv_files, files
from jaxtrain.errors import UserError
from jaxtrain.experiments.tabular_vae.lithology import BINS_PER_METRE, FEATURES

MOST_METRES = 20_000  # deeper is no depth of a core in metres
SPAN = 4 * BINS_PER_METRE * MOST_METRES  # of the bins of a hole among those of all: half of them below 0
DIGITS, LEAST_LENGTH = 6, 1e-6  # of lengths in bins: what is shorter is rounding
DENSITY, COLOUR = (0.3, 4.0), (0.0, 255.0)  # g/cm3; of R, G and B


class Names(NamedTuple):
  """What the columns of the instrument files are called; the defaults are those of the LIMS database. With `top` and
  `bottom` lithologies are of intervals, else of depths.
  """
  exp: str = "Exp"
  site: str = "Site"
  hole: str = "Hole"
  depth: str = "Depth CSF-A (m)"
  gra: tuple[str, ...] = FEATURES[:1]
  ms: tuple[str, ...] = FEATURES[1:2]
  ngr: tuple[str, ...] = FEATURES[2:3]
  rgb: tuple[str, ...] = FEATURES[3:]
  lithology: str = "Principal"
  top: str = ""
  bottom: str = ""


class Bins(NamedTuple):
  """What a file says of its bins.

  Attributes:
    key: [n] int64, sorted: the hole's number times `SPAN`, and the bin plus half of it.
    values: [n] or [n, V], the mean, or the lithology's name.
    rows, dropped: rows of the file, and those of them that lack something.
  """
  key: np.ndarray
  values: np.ndarray
  rows: int
  dropped: int


def picked_blocks(path: str, flag: str, wanted: tuple[str, ...], form: cells.Form
                  ) -> Iterable[tuple[list[np.ndarray], list[int]]]:
  """(columns of these names as text, line of each row), a block of rows at a time: files may be larger than memory.

  Raises:
    UserError: the file cannot be read, lacks a column, or has a row of another length than its header.
  """
  files.check_path("csv", path, flag)
  try:
    with csv_files.opened(path, form) as (reader, header):
      for name in wanted:
        if header.count(name) != 1:
          what = "no column" if name not in header else "more than one column"
          raise UserError(f"{path}: has {what} {name!r}; its header is {', '.join(header)[:200]}")
      places = [header.index(name) for name in wanted]
      numbered = ((row, reader.line_num) for row in reader if row)
      while block := list(itertools.islice(numbered, csv_files.BLOCK)):
        for row, line in block:
          if len(row) != len(header):
            raise UserError(f"{path}: row {line} has {len(row)} cells, the header has {len(header)}")
        yield ([csv_files.text_column((row[place] for row, _ in block), len(block)) for place in places],
               [line for _, line in block])
  except (OSError, ValueError) as error:
    raise UserError(f"{flag}: cannot read {path!r}: {getattr(error, 'strerror', None) or error}") from error


class Read(NamedTuple):
  """The rows of a file that lack nothing: the hole's number [n], depths [n, Z] in metres, values [n] or [n, V], and
  lines; and how many rows it has.
  """
  hole: np.ndarray
  depth: np.ndarray
  values: np.ndarray
  lines: np.ndarray
  rows: int


def read_rows(path: str, flag: str, names: Names, depths: tuple[str, ...], values: tuple[str, ...], form: cells.Form,
              holes: dict[str, int], is_text: bool = False) -> Read:
  """The complete rows of an instrument's file.

  Args:
    path, flag: the file, and the flag that names it.
    names: of the columns that say which hole.
    depths, values: the columns of depths, and those that are measured.
    form: of the cells.
    holes: name of a hole -> its number; those of the file are added.
    is_text: whether the one value is a lithology's name.

  Raises:
    UserError: as `picked_blocks`, a cell is no number, or not finite, a depth is none, or no row is complete.
  """
  where = (names.exp, names.site, names.hole, *depths)
  missing, parts, rows = cells.missing_test(form), [], 0
  for columns, lines in picked_blocks(path, flag, where + values, form):
    numbers = {name: to_numbers(path, name, column, lines, form)
               for name, column in zip((*depths, *(() if is_text else values)), columns[3:])}
    depth = np.stack([numbers.pop(name) for name in depths], axis=1)
    for i, z in np.argwhere(np.abs(depth) > MOST_METRES)[:1]:
      raise UserError(f"{path}: column {depths[z]!r}, row {lines[i]}: {depth[i, z]:g} is no depth in metres")
    measured = columns[-1] if is_text else np.stack(list(numbers.values()), axis=1)
    gaps = np.array([missing(cell) for cell in measured]) if is_text else np.isnan(measured).any(axis=1)
    gaps = gaps | np.isnan(depth).any(axis=1) | np.array([any(map(missing, place)) for place in zip(*columns[:3])])
    hole = [holes.setdefault("-".join(part.strip() for part in place), len(holes))
            for place, gap in zip(zip(*columns[:3]), gaps) if not gap]
    parts.append((np.asarray(hole, np.int64), depth[~gaps], measured[~gaps], np.asarray(lines)[~gaps]))
    rows += len(gaps)
  if not any(len(part[0]) for part in parts):
    raise UserError(f"{path}: none of its {rows:,} rows has all of {', '.join(where + values)}")
  return Read(*map(np.concatenate, zip(*parts)), rows)


def read_bins(path: str, flag: str, names: Names, values: tuple[str, ...], form: cells.Form, holes: dict[str, int],
              is_text: bool = False) -> Bins:
  """The bins of an instrument's file of depths; arguments and errors as of `read_rows`."""
  read = read_rows(path, flag, names, (names.depth,), values, form, holes, is_text)
  key = read.hole * SPAN + np.rint(read.depth[:, 0] * BINS_PER_METRE).astype(np.int64) + SPAN // 2
  reduce: Callable = most_frequent if is_text else means
  return Bins(*reduce(key, read.values), read.rows, read.rows - len(key))


def read_intervals(path: str, flag: str, names: Names, form: cells.Form, holes: dict[str, int]) -> tuple[Bins, int]:
  """The bins of a file of lithologies from `top` to `bottom`, and how many of its intervals overlap another one.

  Each bin has the lithology with the longest part of it: of those that overlap too, and of equally long ones the first
  in the alphabet. An interval without length has no bin.

  Raises:
    UserError: as `read_rows`, an interval whose bottom is above its top, or none with a length.
  """
  read = read_rows(path, flag, names, (names.top, names.bottom), (names.lithology,), form, holes, True)
  top, bottom = read.depth.T
  for i in np.flatnonzero(bottom < top)[:1]:
    raise UserError(f"{path}: row {read.lines[i]}: the interval from {top[i]:g} to {bottom[i]:g} is reversed: "
                    f"{names.bottom!r} is above {names.top!r}")
  has = bottom > top
  if not has.any():
    raise UserError(f"{path}: no interval from {names.top!r} to {names.bottom!r} has a length")
  hole, top, bottom, named = read.hole[has], top[has] * BINS_PER_METRE, bottom[has] * BINS_PER_METRE, read.values[has]
  first, last = np.ceil(top - 0.5).astype(np.int64), np.floor(bottom + 0.5).astype(np.int64)
  count = last - first + 1
  row = np.repeat(np.arange(len(hole)), count)
  at = first[row] + np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
  length = np.minimum(bottom[row], at + 0.5) - np.maximum(top[row], at - 0.5)
  touched = length > LEAST_LENGTH
  row, at, length = row[touched], at[touched], length[touched]
  found = most_frequent(hole[row] * SPAN + at + SPAN // 2, named[row], length)
  return Bins(*found, read.rows, read.rows - int(has.sum())), overlapping(hole, top, bottom)


def overlapping(hole: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> int:
  """How many intervals [N] begin above the bottom of one of the same hole that begins no deeper."""
  order, count, deepest = np.lexsort((bottom, top, hole)), 0, {}
  for own, start, end in zip(hole[order].tolist(), top[order].tolist(), bottom[order].tolist()):
    count += start < deepest.get(own, start) - LEAST_LENGTH
    deepest[own] = max(end, deepest.get(own, end))
  return count


def to_numbers(path: str, name: str, column: np.ndarray, lines: list[int], form: cells.Form) -> np.ndarray:
  """A column as float64, NaN where missing. Raises UserError where a cell is no number, or is not finite."""
  def fail(i: int | None, words: str) -> UserError:
    return UserError(f"{path}: column {name!r}{'' if i is None else f', row {lines[i]}'}: {words}")

  found = cells.numbers(column, form, fail)
  for i in np.flatnonzero(np.isinf(found))[:1]:
    raise fail(i, "infinite value")
  return found


def means(key: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(sorted keys that differ [n], mean of values [N, V] over the rows of each [n, V])."""
  found, index, count = np.unique(key, return_inverse=True, return_counts=True)
  sums = np.stack([np.bincount(index, column, len(found)) for column in values.T], axis=1)
  return found, sums / count[:, None]


def most_frequent(key: np.ndarray, names: np.ndarray,
                  weight: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
  """(sorted keys that differ [n], the name of each that has most of its rows [N], or of their weight; the first in the
  alphabet of several with as much).
  """
  names, code = np.unique(np.array([name.strip() for name in names.tolist()]), return_inverse=True)
  found, index = np.unique(key, return_inverse=True)
  pairs, place = np.unique(index * len(names) + code, return_inverse=True)
  total = np.round(np.bincount(place, weight), DIGITS)  # equal lengths are equal, however they add up
  at, code = np.divmod(pairs, len(names))
  order = np.lexsort((code, -total, at))
  first = np.unique(at[order], return_index=True)[1]
  return found, names[code[order][first]].astype(object)


def make_table(paths: dict[str, str], names: Names, form: cells.Form) -> tuple[dict[str, np.ndarray], list[str]]:
  """The table of nine columns by name, sorted by hole and depth, and what was read and left out, a line each.

  Args:
    paths: `gra`, `ms`, `ngr`, `rgb`, `lithology` -> path of the CSV file.
    names: of their columns.
    form: of their cells.

  Raises:
    UserError: as `read_bins`, or the files have no bin in common that a core can have.
  """
  holes: dict[str, int] = {}
  measured = {kind: path for kind, path in paths.items() if kind != "lithology"}
  read = {kind: read_bins(path, f"--{kind}", names, getattr(names, kind), form, holes)
          for kind, path in measured.items()}
  overlaps = 0
  if names.top:
    read["lithology"], overlaps = read_intervals(paths["lithology"], "--lithology", names, form, holes)
  else:
    read["lithology"] = read_bins(paths["lithology"], "--lithology", names, (names.lithology,), form, holes, True)
  said = [f"{kind}: {bins.rows:,} rows of {paths[kind]}, {bins.dropped:,} without a value, depth or hole; "
          f"{len(bins.key):,} bins of {len(np.unique(bins.key // SPAN)):,} holes" for kind, bins in read.items()]
  if overlaps:
    said.append(f"lithology: {overlaps:,} intervals overlap another one; a bin has the lithology with the longest part")
  key = read["gra"].key
  for bins in read.values():
    key = np.intersect1d(key, bins.key, assume_unique=True)
  at = {kind: bins.values[np.searchsorted(bins.key, key)] for kind, bins in read.items()}
  dense = outside(at["gra"], DENSITY)
  colour = outside(at["rgb"], COLOUR)
  said.append(f"{len(key):,} bins are in all files; dropped: {dense.sum():,} with a density outside {DENSITY[0]:g} to "
              f"{DENSITY[1]:g}, {(colour & ~dense).sum():,} with a colour outside {COLOUR[0]:g} to {COLOUR[1]:g}")
  kept = ~(dense | colour)
  if not kept.any():
    raise UserError(f"{', '.join(paths)}: the files have no bin in common that can be used ({said[-1]})")
  hole, bin_number = np.divmod(key[kept], SPAN)
  named = np.array(list(holes))[hole]
  order = np.lexsort((bin_number, named))
  numbers = np.concatenate([at[kind][kept] for kind in ("gra", "ms", "ngr", "rgb")], axis=1)[order]
  columns = {name: numbers[:, d] for d, name in enumerate(FEATURES)}
  table = {"Borehole_ID": named[order].astype(object), "Depth_Bin": (bin_number[order] - SPAN // 2) / BINS_PER_METRE,
           FEATURES[0]: columns.pop(FEATURES[0]), "Principal": at["lithology"][kept][order]} | columns
  return table, said


def outside(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
  """Whether any value of a row [n, V] lies outside of two limits, which are allowed."""
  return ((values < limits[0]) | (values > limits[1])).any(axis=1)
