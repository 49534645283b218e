"""Per-column transforms fitted on the training rows in float64 and kept with the run as plain numbers.

A scaler is a JSON-able dict: `columns` (names), `transforms` (one name per column), and `mean` and `std`: what is
subtracted from the transformed column and what that is divided by.

`standardise`, `log1p` and `signed_log1p` end at mean 0 and population standard deviation 1 (a constant is divided by
1), `min_max` at 0 and 1, `identity` leaves the column as it is.

**Source:** usual for well logs: standardise for densities, signed log1p for heavy-tailed columns of either sign, log1p
for positive ones. Mean and variance are merged from blocks: Chan, Golub & LeVeque 1983, section 2.
"""

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.config.limits import FLOAT32
from jaxtrain.errors import UserError

BLOCK, BLOCK_BYTES = 65536, 16 << 20  # a block has no more rows, and no more bytes in float64, than these
SMALL_SQUARE = 1e-280  # sums of squares below this have lost digits
SKEWED = 2.0  # skewness of an exponential distribution
MOST_RATIO = 2**20  # of a mean and a deviation that are still told apart in 32 bits


class Transform(NamedTuple):
  """An elementwise map, its inverse, both of (numpy or jax.numpy, array), and how the result is shifted and scaled."""
  forward: Callable
  inverse: Callable
  then: str = "standardise"  # standardise | min_max | nothing


same = lambda xp, v: v
TRANSFORMS = {
    "identity": Transform(same, same, "nothing"),
    "standardise": Transform(same, same),
    "min_max": Transform(same, same, "min_max"),
    "log1p": Transform(lambda xp, v: xp.log1p(v), lambda xp, t: xp.expm1(t)),
    "signed_log1p": Transform(lambda xp, v: xp.sign(v) * xp.log1p(xp.abs(v)),
                              lambda xp, t: xp.sign(t) * xp.expm1(xp.abs(t))),
}

STRAIGHT = ("identity", "standardise", "min_max")  # transforms that are straight lines


def check_names(transforms: tuple[str, ...], num_columns: int) -> tuple[str, ...]:
  """One transform per column; () means standardise for all. Raises UserError for a wrong number or name."""
  transforms = tuple(transforms) or ("standardise",) * num_columns
  if len(transforms) != num_columns:
    raise UserError(f"config.data.transforms: got {len(transforms)} names for {num_columns} features")
  for name in transforms:
    if name not in TRANSFORMS:
      raise UserError(f"config.data.transforms: got {name!r}, allowed {tuple(TRANSFORMS)}")
  return transforms


def fit(x: np.ndarray, transforms: tuple[str, ...], columns: tuple[str, ...]) -> dict:
  """Scaler of the columns of x [N, D], float64, from the numbers that are there: NaN is left out.

  Raises:
    UserError: a column that its transform cannot take (log1p of a value at or below -1), or whose numbers are one in 32
      bits once they are scaled, named.
  """
  return fit_blocks(lambda start, stop: x[start:stop], len(x), transforms, columns)


def fit_blocks(read: Callable[[int, int], np.ndarray], num_rows: int, transforms: tuple[str, ...],
               columns: tuple[str, ...]) -> dict:
  """Scaler of `num_rows` rows that `read(start, stop)` gives as [n, D], block by block. Raises as `fit` does."""
  found = moments(read, num_rows, transforms, columns, None)
  largest = np.maximum(np.abs(found.low), np.abs(found.high))
  for d in np.flatnonzero(found.low > found.high):
    raise UserError(f"data column {columns[d]!r}: no training row has a number there; leave the column out, or choose "
                    "another config.data.split")
  varies = found.high > found.low
  # squares beyond what 64 bits hold, or so small that they lose digits: the column is looked at in a unit of its size
  with np.errstate(over="ignore", invalid="ignore"):
    extreme = varies & ~((found.square > SMALL_SQUARE) & np.isfinite(found.square + (found.high - found.low)))
  unit = np.where(extreme, np.ldexp(1.0, np.frexp(np.where(extreme, largest, 1.0))[1] - 1), 1.0)
  if extreme.any():
    found = moments(read, num_rows, transforms, columns, unit)
  shift = {"standardise": found.mean * unit, "min_max": found.low * unit, "nothing": np.zeros(len(transforms))}
  with np.errstate(over="ignore"):
    size = {"standardise": np.sqrt(found.square / np.maximum(found.count, 1)) * unit,
            "min_max": (found.high - found.low) * unit, "nothing": np.ones(len(transforms))}
  kinds = [TRANSFORMS[name].then for name in transforms]
  scaler = {"columns": list(columns), "transforms": list(transforms),
            "mean": [float(shift[kind][d]) for d, kind in enumerate(kinds)],
            "std": [float(size[kind][d]) if varies[d] else 1.0 for d, kind in enumerate(kinds)]}
  for d in np.flatnonzero(np.isinf(scaler["std"])):
    raise UserError(f"data column {columns[d]!r}: its numbers lie further apart than numbers of 64 bits hold; choose "
                    "other units")
  return scaler


class Moments(NamedTuple):
  """Of each transformed column, over the numbers that are there: how many, mean, sum of squared deviations, ends."""
  count: int | np.ndarray
  mean: np.ndarray
  square: np.ndarray
  low: np.ndarray
  high: np.ndarray


def moments(read: Callable, num_rows: int, transforms: tuple[str, ...], columns: tuple[str, ...],
            unit: np.ndarray | None) -> Moments:
  """Moments of rows read block by block; of the columns divided by `unit` [D], a power of two each, None for 1."""
  D = len(columns)
  all_rows = Moments(0, np.zeros(D), np.zeros(D), np.full(D, np.inf), np.full(D, -np.inf))
  size = block_rows(D)
  with np.errstate(over="ignore", invalid="ignore", under="ignore"):
    for start in range(0, num_rows, size):
      t = apply_transforms(read(start, min(start + size, num_rows)), transforms, columns)
      all_rows = merge(all_rows, moments_of(t if unit is None else t / unit))
  return all_rows


def moments_of(t: np.ndarray) -> Moments:
  """Moments of a block [n, D]."""
  gap = np.isnan(t)
  if not gap.any():
    mean = t.mean(axis=0)
    return Moments(len(t), mean, np.square(t - mean).sum(axis=0), t.min(axis=0), t.max(axis=0))
  count = (~gap).sum(axis=0)
  mean = np.where(gap, 0.0, t).sum(axis=0) / np.maximum(count, 1)
  return Moments(count, mean, np.where(gap, 0.0, np.square(t - mean)).sum(axis=0),
                 t.min(axis=0, where=~gap, initial=np.inf), t.max(axis=0, where=~gap, initial=-np.inf))


def merge(a: Moments, b: Moments) -> Moments:
  """Moments of two blocks together."""
  total, gap = np.maximum(a.count + b.count, 1), b.mean - a.mean
  return Moments(a.count + b.count, a.mean + gap * (b.count / total),
                 a.square + b.square + gap ** 2 * (a.count * b.count / total),
                 np.minimum(a.low, b.low), np.maximum(a.high, b.high))


def check_spread(scaler: dict, bounds: np.ndarray, row: Callable[[int, int], str]) -> None:
  """Raises UserError for a column whose numbers, but for those at its ends, are one once they are scaled.

  Args:
    bounds: [4, D] in raw units: the smallest number, the one above, the one below the largest, the largest; infinite
      where there is none.
    row: how a message names the row of entry [i, d] of `bounds`.
  """
  there = np.isfinite(bounds)
  t = apply_transforms(np.where(there, bounds, bounds[0]), scaler["transforms"], scaler["columns"])
  z = standardised(scaler, t)
  for low, high in ((0, 3), (1, 3), (0, 2), (1, 2)):
    for d in np.flatnonzero(there[[low, high]].all(axis=0) & (bounds[low] < bounds[high]) & (z[low] == z[high])):
      far, name = 0 if low else 3, scaler["columns"][d]
      if (low, high) == (0, 3):
        raise UserError(f"data column {name!r}: its numbers, {bounds[0, d]:.10g} to {bounds[3, d]:.10g}, are one "
                        f"number by the transform {scaler['transforms'][d]!r} in the 32 bits of training; choose "
                        "another in config.data.transforms, or other units")
      raise UserError(f"data column {name!r}, {row(far, d)}: {bounds[far, d]:g} lies so far from the others that these "
                      "are one number in the 32 bits of training; leave it out, name it in config.data.missing, or "
                      "choose another transform in config.data.transforms")


def block_rows(num_columns: int) -> int:
  """Rows of a block: by the width alone, so that a file read in blocks gives the bits of a table in memory."""
  return max(1, min(BLOCK, BLOCK_BYTES // (8 * num_columns)))


def columns_of(transforms: tuple[str, ...]) -> list[tuple[str, slice | list[int]]]:
  """Each transform there is with its columns; all of them as a slice, which takes a view and no copy."""
  if len(set(transforms)) == 1:
    return [(transforms[0], slice(None))]
  return [(name, [d for d, other in enumerate(transforms) if other == name]) for name in dict.fromkeys(transforms)]


def apply_transforms(x: np.ndarray, transforms: tuple[str, ...], columns: tuple[str, ...]) -> np.ndarray:
  """The named transform of each column of x [N, D], float64, not shifted or scaled; NaN stays. Raises as `fit` does."""
  x = np.ascontiguousarray(x, np.float64)  # sums over rows must add in one order, wherever x comes from
  t = np.empty_like(x)
  with np.errstate(divide="ignore", invalid="ignore"):
    for name, which in columns_of(transforms):
      t[:, which] = TRANSFORMS[name].forward(np, x[:, which])
  for d in np.flatnonzero((~np.isfinite(t) & ~np.isnan(x)).any(axis=0)):
    raise UserError(f"data column {columns[d]!r}: transform {transforms[d]!r} does not take its smallest value "
                    f"{np.nanmin(x[:, d]):g}; choose another in config.data.transforms")
  return t


def row_number(i: int, d: int) -> str:
  """How a message names row i, 0-based, of an array."""
  return f"row {i + 1}"


def scale(scaler: dict, x: np.ndarray,
          row: Callable[[int, int], str] = row_number) -> np.ndarray:
  """Raw units [N, D] to scaled units [N, D], float32; NaN stays.

  Args:
    row: how a message names row i, 0-based, in which column d is at fault.

  Raises:
    UserError: as `fit` does, and at a number that lies so far away that 32 bits do not hold it once it is scaled.
  """
  z = standardised(scaler, apply_transforms(x, scaler["transforms"], scaler["columns"]))
  for i, d in np.argwhere(np.isinf(z))[:1]:
    raise UserError(f"data column {scaler['columns'][d]!r}, {row(i, d)}: {x[i, d]:g} lies so far from the training "
                    "rows that 32 bits do not hold it once it is scaled; leave it out, or choose another transform in "
                    "config.data.transforms")
  return z


def standardised(scaler: dict, t: np.ndarray) -> np.ndarray:
  """Transformed columns [N, D] shifted and scaled, float32; infinite where that is too large."""
  mean, std = np.asarray(scaler["mean"]), np.asarray(scaler["std"])
  with np.errstate(over="ignore", invalid="ignore"):
    z = (t - mean) / std
    lost = ~np.isfinite(z)
    if lost.any():  # the difference of large numbers of either sign is larger still
      z[lost] = (t / std - mean / std)[lost]
    return z.astype(np.float32)


def suggest(x: np.ndarray) -> list[str]:
  """The transform that suits each column of x [N, D], NaN left out: of those that make it less skewed than it is.

  `standardise` where its skewness is within `SKEWED`, or no logarithm lessens it by half.
  """
  found = []
  for column in np.asarray(x, np.float64).T:
    column = column[~np.isnan(column)]
    names = [name for name in ("standardise", "log1p", "signed_log1p")
             if len(column) and (name != "log1p" or column.min() >= 0)]
    skews = {name: abs(skewness(TRANSFORMS[name].forward(np, column))) for name in names}
    best = min(skews, key=skews.get, default="standardise")
    helps = best != "standardise" and skews["standardise"] > SKEWED and 2 * skews[best] < skews["standardise"]
    found.append(best if helps else "standardise")
  return found


def skewness(values: np.ndarray) -> float:
  """The third moment of standardised values; 0 for a constant."""
  largest = np.abs(values).max()
  centred = values / (largest or 1.0)
  centred = centred - centred.mean()
  std = centred.std()
  return float(np.mean((centred / std) ** 3)) if std > 0 else 0.0


def exportable(scaler: dict) -> None:
  """Raises UserError for a column whose raw numbers 32 bits do not tell apart: what is exported takes such numbers."""
  for name, transform, mean, std in zip(scaler["columns"], scaler["transforms"], scaler["mean"], scaler["std"]):
    size = max(abs(mean), std)
    holds = FLOAT32[0] < std and size < min(FLOAT32[1], MOST_RATIO * std)
    if TRANSFORMS[transform].forward is same and not holds:
      raise UserError(f"--export: column {name!r} has a mean of {mean:.6g} and a deviation of {std:.6g}; numbers of 32 "
                      "bits, which an export takes, do not tell its rows apart: train on other units")


def unscale(scaler: dict, z: np.ndarray) -> np.ndarray:
  """Scaled units [N, D] back to raw units [N, D], float64: the inverse of `scale`."""
  t = np.asarray(z, np.float64) * np.asarray(scaler["std"]) + np.asarray(scaler["mean"])
  x = np.empty_like(t)
  for name, which in columns_of(scaler["transforms"]):
    x[:, which] = TRANSFORMS[name].inverse(np, t[:, which])
  return x


def scale_on_device(scaler: dict, x: jax.Array) -> jax.Array:
  """`scale` inside a compiled function, in float32: exact to rounding where |mean| / std is small."""
  t = [TRANSFORMS[name].forward(jnp, x[:, d]) for d, name in enumerate(scaler["transforms"])]
  return (jnp.stack(t, axis=1) - jnp.asarray([scaler["mean"]], jnp.float32)) / jnp.asarray([scaler["std"]], jnp.float32)


def unscale_on_device(scaler: dict, z: jax.Array) -> jax.Array:
  """`unscale` inside a compiled function, in float32."""
  t = z * jnp.asarray([scaler["std"]], jnp.float32) + jnp.asarray([scaler["mean"]], jnp.float32)
  return jnp.stack([TRANSFORMS[name].inverse(jnp, t[:, d]) for d, name in enumerate(scaler["transforms"])], axis=1)
