"""A synthetic stand-in for the ocean-drilling lithology table, with its size, classes, holes and marginals.

The real table (six logged properties and a lithology per 20 cm of core) is not shipped with jaxtrain.
`generate` lays beds of the 139 lithologies in 296 holes, draws the properties around a prototype of each
class with drift along the hole, and maps every column to the real quantiles. Class counts are exact at full
size and the table is about as hard to cluster and classify as the real one, but the rows are invented:
**every result on them is a result on synthetic data** and says nothing about real cores.

**Source:** statistics of the real table from the public release (`lithology_tables.py`); the recipe is ours.
**Departs** from our written recipe in four ways:
  - Rows per hole follow the real quantiles; a log-normal would pile holes up at the upper limit.
  - Quartiles and extremes of the marginals carry all published digits, so that they equal the real ones.
  - Every hole has a site of its own, since holes are independent here, and sites count from U9001, so that
    none can be mistaken for a real one.
  - Holes are filled in random order, so that the classes left over do not all fall in the last expedition.
"""

import functools
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from jaxtrain.experiments.tabular_vae import lithology_tables as tables

FEATURES = (
  "Bulk density (GRA)", "Magnetic susceptibility (instr. units)", "NGR total counts (cps)", "R", "G", "B")
FULL_ROWS = sum(sum(rows.values()) for rows in tables.ROWS.values())
MIN_ROWS = 200
MIN_HOLES = 12
MIN_HOLE_ROWS, MAX_HOLE_ROWS = 2, 3500
BINS_PER_METRE = 5
FIRST_SITE = 9001
PROTOTYPE_SEED = 0  # prototypes are part of the world, not of the draw
WEIGHT_UNIT = 2.0**-24  # grid on which class weights become integers


class Lithology(NamedTuple):
  """A lithology table, rows ordered by hole and then by depth.

  Fields:
    features: [N, 6] float64, raw units in the order of FEATURES, rounded to 4 decimals.
    label: [N] int32, index into class_names; -1 is unlabelled.
    class_names: the 139 lithologies, sorted.
    group_of_class: the lithology group (one of 14) of each class.
    borehole: [N] int32, index into borehole_names.
    borehole_names: sorted, "Expedition-Usite-A".
    depth: [N] float64, metres; multiples of 0.2.
  """
  features: np.ndarray
  label: np.ndarray
  class_names: tuple[str, ...]
  group_of_class: tuple[str, ...]
  borehole: np.ndarray
  borehole_names: tuple[str, ...]
  depth: np.ndarray


def generate(num_rows: int = FULL_ROWS, seed: int = 42, separation: float = 2.0, within: float = 0.8) -> Lithology:
  """Draws a lithology table.

  The same arguments give the same labels, holes and depths on every machine, and the same features to about
  their 4 decimals: all draws come from `RandomState`, whose streams numpy has frozen (`default_rng` may
  change between releases), and class weights are made integers before any label is decided by them. Labels
  and holes do not depend on `separation` or `within`.

  Args:
    num_rows: 200 to 238,506. Below the full size class counts shrink in proportion (rare classes vanish but
      keep their index) and so does the number of holes, down to 12.
    seed: 0 to 2**32 - 1.
    separation: scale of the distance between class prototypes; larger is easier.
    within: scale of the spread within a class; smaller is easier. The defaults match the real table.

  Returns:
    A Lithology of num_rows rows.

  Raises:
    ValueError: num_rows out of range.
  """
  if not MIN_ROWS <= num_rows <= FULL_ROWS:
    raise ValueError(f"num_rows is {num_rows}; allowed are {MIN_ROWS} to {FULL_ROWS}")
  group_of = {name: group for group, rows in tables.ROWS.items() for name in rows}
  class_names = tuple(sorted(group_of))
  groups = tuple(group_of[name] for name in class_names)
  mean, sd = prototypes()

  layout = np.random.RandomState(seed)
  borehole_names = name_boreholes(num_rows)
  hole_rows = _hole_rows(layout, len(borehole_names), num_rows)
  weights = _class_weights(layout, mean, len(borehole_names))
  bed_mean = np.where(np.array(groups) == "Volcaniclastic", 6, 14)
  label = _lay_beds(layout, hole_rows, _class_rows(class_names, num_rows), weights, bed_mean)

  borehole = np.repeat(np.arange(len(hole_rows), dtype=np.int32), hole_rows)
  bins = np.arange(num_rows) - np.repeat(np.cumsum(hole_rows) - hole_rows, hole_rows)
  depth = bins / BINS_PER_METRE
  noise = np.random.RandomState([seed, 1])  # apart from layout, so that either can change alone
  axes = separation * mean.T[:, label] + within * sd.T[:, label] * _drift(noise, bins)
  axes += _hole_effects(noise, borehole, depth)
  features = np.stack([_to_marginal(column, d) for d, column in enumerate(_colour(noise, axes))], axis=1)
  return Lithology(features, label, class_names, groups, borehole, borehole_names, depth)


def columns(lithology: Lithology) -> dict[str, np.ndarray]:
  """The nine columns of the real file by name, in its order; None for an unlabelled row."""
  density, *others = lithology.features.T
  names = np.array([*lithology.class_names, None], object)  # index -1
  return {"Borehole_ID": np.array(lithology.borehole_names, object)[lithology.borehole], "Depth_Bin": lithology.depth,
          FEATURES[0]: density, "Principal": names[lithology.label]} | dict(zip(FEATURES[1:], others))


def prototypes() -> tuple[np.ndarray, np.ndarray]:
  """Mean and sd of every class before scaling by `separation` and `within`.

  Returns:
    Two [139, 4] float64 arrays, classes in sorted order, on the standardised axes density, susceptibility,
    gamma radiation, brightness. A class without a prototype of its own lies near that of its group.
  """
  jitter = np.random.RandomState(PROTOTYPE_SEED)
  group_of = {name: group for group, rows in tables.ROWS.items() for name in rows}
  means, sds = [], []
  for name in sorted(group_of):
    group_mean, group_sd = tables.GROUP_PROTOTYPES[group_of[name]]
    offset = 0.35 * jitter.standard_normal(4)
    mean, sd = tables.CLASS_PROTOTYPES.get(name, (group_mean + offset, None))
    means.append(mean)
    sds.append(sd or group_sd)
  return np.array(means, float), np.array(sds, float)


def _class_rows(class_names, num_rows):
  """Rows of each class, proportional to the real counts by largest remainder: [139] int64, sum num_rows."""
  real = {name: count for rows in tables.ROWS.values() for name, count in rows.items()}
  scaled = np.array([real[name] for name in class_names], np.int64) * num_rows
  rows, remainder = scaled // FULL_ROWS, scaled % FULL_ROWS
  rows[np.argsort(-remainder, kind="stable")[:num_rows - rows.sum()]] += 1
  return rows


def name_boreholes(num_rows: int) -> tuple[str, ...]:
  """Sorted names of the holes of a table of so many rows; below full size an even choice over the expeditions."""
  expeditions = [expedition for expedition, holes in sorted(tables.HOLES.items()) for _ in range(holes)]
  names = [f"{expedition}-U{FIRST_SITE + i}-A" for i, expedition in enumerate(expeditions)]
  num_holes = max(MIN_HOLES, round(len(names) * num_rows / FULL_ROWS))
  return tuple(names[i * len(names) // num_holes] for i in range(num_holes))


def _hole_rows(rng, num_holes, num_rows):
  """Rows of each hole: [H] int64 within the limits, sum num_rows, shaped like the real distribution."""
  p = (rng.permutation(num_holes) + rng.random_sample(num_holes)) / num_holes  # one draw per 1/H of the range
  shape = np.exp(np.interp(p, tables.HOLE_ROWS_P, np.log(tables.HOLE_ROWS)))

  def scaled(factor):
    return np.clip(np.floor(factor * shape).astype(np.int64), MIN_HOLE_ROWS, MAX_HOLE_ROWS)

  low, high = 0.0, float(num_rows)
  for _ in range(64):  # bisection for the largest factor that does not give too many rows
    middle = (low + high) / 2
    low, high = (middle, high) if scaled(middle).sum() <= num_rows else (low, middle)
  rows = scaled(low)
  rows[np.flatnonzero(rows < MAX_HOLE_ROWS)[:num_rows - rows.sum()]] += 1
  return rows


def _class_weights(rng, mean, num_holes):
  """How well each class suits each hole, in units of WEIGHT_UNIT: [H, 139] int64, at least 2e-4."""
  regime = 1.3 * rng.standard_normal((num_holes, 1, 3))
  affinity = 0.9 * mean[:, [0, 1, 3]] + 0.3 * rng.standard_normal((len(mean), 3))
  suits = np.exp(-np.square(affinity - regime).sum(-1)) * rng.standard_gamma(0.6, (num_holes, len(mean)))
  return np.rint(np.maximum(suits, 2e-4) / WEIGHT_UNIT).astype(np.int64)


def _lay_beds(rng, hole_rows, class_rows, weights, bed_mean):
  """Fills the holes with beds until every class is used up.

  Args:
    hole_rows: [H] int64. class_rows: [139] int64 with the same sum. weights: [H, 139] int64.
    bed_mean: [139] mean of the geometric part of a bed's length, rows.

  Returns:
    [N] int32, labels.
  """
  num_rows = hole_rows.sum()
  left = class_rows.copy()
  label = np.empty(num_rows, np.int32)
  uniform = iter(rng.random_sample(num_rows).tolist())
  lengths = {mean: iter((1 + rng.geometric(1 / mean, num_rows)).tolist()) for mean in set(bed_mean.tolist())}
  next_length = [lengths[mean].__next__ for mean in bed_mean.tolist()]
  ends = np.cumsum(hole_rows).tolist()
  for hole in rng.permutation(len(hole_rows)).tolist():
    row, end = ends[hole] - int(hole_rows[hole]), ends[hole]
    while row < end:
      cumulative = (weights[hole] * left).cumsum()
      drawn = int(cumulative.searchsorted(int(next(uniform) * int(cumulative[-1])), side="right"))
      length = min(next_length[drawn](), end - row, int(left[drawn]))
      label[row:row + length] = drawn
      left[drawn] -= length
      row += length
  return label


def _drift(rng, bins):
  """Unit-variance noise that drifts along each hole: 0.8 AR(1) with coefficient 0.93, 0.6 white; [4, N]."""
  rho, num_rows = 0.93, len(bins)
  drift = rng.standard_normal((4, num_rows))
  drift *= np.where(bins == 0, 1, np.sqrt(1 - rho**2))
  step = 1
  while rho**step > 1e-12:  # each pass doubles the terms of sum_k rho^k drift[t - k] within the hole
    gain = np.where(bins[step:] >= step, rho**step, 0.0)
    for axis in drift:
      axis[step:] += gain * axis[:-step]
    step *= 2
  return 0.8 * drift + 0.6 * rng.standard_normal((4, num_rows))


def _hole_effects(rng, borehole, depth):
  """Offset of each hole and compaction of its density with depth: [4, N] float64."""
  num_holes = borehole[-1] + 1
  offset = np.array([[0.21], [0.27], [0.24], [0.24]]) * rng.standard_normal((4, num_holes))
  offset[0] -= 0.25
  effects = offset[:, borehole]
  effects[0] += rng.uniform(0.1, 0.5, num_holes)[borehole] * np.minimum(depth / 200, 2)
  return effects


def _colour(rng, axes):
  """Density, susceptibility, gamma, R, G, B, [N] each, from axes [4, N]; brightness leaks into the others."""
  density, susceptibility, gamma, brightness = axes
  a, b = rng.standard_normal((2, axes.shape[1]))
  red = brightness + 0.10 * a
  green = brightness + 0.015 * b
  blue = brightness - 0.10 * a + 0.05 * b
  return density, susceptibility - (0.22 * red + 0.10 * density), gamma - 0.26 * red, red, green, blue


@functools.lru_cache(1)
def _normal_ranks(n):
  """Normal quantiles of (i + 1/2) / n, [n], ascending; without scipy, whose import takes longer than all of this."""
  lower = np.fromiter(map(NormalDist().inv_cdf, ((np.arange(n // 2) + 0.5) / n).tolist()), float, n // 2)
  return np.concatenate([lower, np.zeros(n % 2), -lower[::-1]])


def _to_marginal(column, d):
  """Maps a column [N] by rank to the real quantiles of feature d; raw units, 4 decimals."""
  anchors = np.array(tables.ANCHORS[d])
  inner = map(NormalDist().inv_cdf, tables.ANCHOR_P[1:-1])
  normal = np.array([-4.6, *inner, 4.6])  # the ends: extremes of 238,506 normal draws
  ranks = _normal_ranks(len(column))
  if d == 0:
    values = np.interp(ranks, normal, anchors)
  else:  # linear between anchors on the scale of the logarithm that the models see
    logs = np.interp(ranks, normal, np.sign(anchors) * np.log1p(np.abs(anchors)))
    values = np.sign(logs) * np.expm1(np.abs(logs))
  out = np.empty_like(values)
  out[np.argsort(column)] = np.round(values, 4)
  return out
