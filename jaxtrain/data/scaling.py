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

from jaxtrain.errors import UserError

BLOCK, BLOCK_BYTES = 65536, 16 << 20  # a block has no more rows, and no more bytes in float64, than these


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
  """Scaler of the columns of x [N, D], float64.

  Raises:
    UserError: a column that its transform cannot take (log1p of a value at or below -1), named.
  """
  return fit_blocks(lambda start, stop: x[start:stop], len(x), transforms, columns)


def fit_blocks(read: Callable[[int, int], np.ndarray], num_rows: int, transforms: tuple[str, ...],
               columns: tuple[str, ...]) -> dict:
  """Scaler of `num_rows` rows that `read(start, stop)` gives as [n, D], block by block. Raises as `fit` does."""
  count, mean, square = 0, 0.0, 0.0  # rows so far, their mean, their sum of squared deviations from it
  low, high = np.inf, -np.inf
  size = block_rows(len(columns))
  for start in range(0, num_rows, size):
    t = apply_transforms(read(start, min(start + size, num_rows)), transforms, columns)
    block_mean = t.mean(axis=0)
    gap, total = block_mean - mean, count + len(t)
    square = square + np.square(t - block_mean).sum(axis=0) + gap ** 2 * (count * len(t) / total)
    mean, count = mean + gap * (len(t) / total), total
    low, high = np.minimum(low, t.min(axis=0)), np.maximum(high, t.max(axis=0))
  varies = high > low  # a constant's standard deviation is the rounding of its mean, not 0
  shift = {"standardise": mean, "min_max": low, "nothing": np.zeros(len(transforms))}
  size = {"standardise": np.sqrt(square / count), "min_max": high - low, "nothing": np.ones(len(transforms))}
  kinds = [TRANSFORMS[name].then for name in transforms]
  return {"columns": list(columns), "transforms": list(transforms),
          "mean": [float(shift[kind][d]) for d, kind in enumerate(kinds)],
          "std": [float(size[kind][d]) if varies[d] else 1.0 for d, kind in enumerate(kinds)]}


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


def scale(scaler: dict, x: np.ndarray) -> np.ndarray:
  """Raw units [N, D] to scaled units [N, D], float32; NaN stays. Raises UserError as `fit` does."""
  t = apply_transforms(x, scaler["transforms"], scaler["columns"])
  return ((t - np.asarray(scaler["mean"])) / np.asarray(scaler["std"])).astype(np.float32)


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
