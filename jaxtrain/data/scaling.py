"""Per-column transforms fitted on the training rows in float64 and kept with the run as plain numbers.

A scaler is a JSON-able dict: `columns` (names), `transforms` (one name per column), `mean` and `std` of the transformed
columns.

**Source:** spec tabular_vae 2.1: identity for densities, signed log1p for heavy-tailed columns of either sign, log1p
for positive ones, then standardisation with the population standard deviation (0 counts as 1).
"""

import numpy as np

from jaxtrain.types import UserError

# name -> (transform, inverse), both on float64 arrays
TRANSFORMS = {
    "identity": (lambda v: v, lambda t: t),
    "log1p": (np.log1p, np.expm1),
    "signed_log1p": (lambda v: np.sign(v) * np.log1p(np.abs(v)), lambda t: np.sign(t) * np.expm1(np.abs(t))),
}


def check_names(transforms: tuple[str, ...], num_columns: int) -> tuple[str, ...]:
  """One transform per column; () means identity for all. Raises UserError for a wrong number or name."""
  transforms = tuple(transforms) or ("identity",) * num_columns
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
  t = apply_transforms(x, transforms, columns)
  varies = t.max(axis=0) > t.min(axis=0)  # a constant's standard deviation is the rounding of its mean, not 0
  return {"columns": list(columns), "transforms": list(transforms), "mean": t.mean(axis=0).tolist(),
          "std": np.where(varies, t.std(axis=0), 1.0).tolist()}


def apply_transforms(x: np.ndarray, transforms: tuple[str, ...], columns: tuple[str, ...]) -> np.ndarray:
  """The named transform of each column of x [N, D], float64, without standardisation. Raises UserError as `fit` does.
  """
  x = np.asarray(x, np.float64)
  t = np.empty_like(x)
  with np.errstate(divide="ignore", invalid="ignore"):
    for d, name in enumerate(transforms):
      t[:, d] = TRANSFORMS[name][0](x[:, d])
  for d in np.flatnonzero(~np.isfinite(t).all(axis=0)):
    raise UserError(f"data column {columns[d]!r}: transform {transforms[d]!r} does not take its smallest value "
                    f"{np.nanmin(x[:, d]):g}; choose another in config.data.transforms")
  return t


def scale(scaler: dict, x: np.ndarray) -> np.ndarray:
  """Raw units [N, D] to standardised units [N, D], float32. Raises UserError as `fit` does."""
  t = apply_transforms(x, scaler["transforms"], scaler["columns"])
  return ((t - np.asarray(scaler["mean"])) / np.asarray(scaler["std"])).astype(np.float32)


def unscale(scaler: dict, z: np.ndarray) -> np.ndarray:
  """Standardised units [N, D] back to raw units [N, D], float64: the inverse of `scale`."""
  t = np.asarray(z, np.float64) * np.asarray(scaler["std"]) + np.asarray(scaler["mean"])
  x = np.empty_like(t)
  for d, name in enumerate(scaler["transforms"]):
    x[:, d] = TRANSFORMS[name][1](t[:, d])
  return x
