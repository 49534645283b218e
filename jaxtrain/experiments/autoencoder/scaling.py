"""Normalised features of events and back: statistics of the training part, kept with the model as plain numbers.

A scaler is a JSON-able dict: `norm`, `columns` (of `events.FEATURES`), and for the features and the globals `names`,
`mean` and `std`: what is subtracted and what the rest is divided by.

- `physics`: log E, log pT and eta of objects, standardised; cos and sin of azimuths as they are; log(1 + MET) likewise.
- `zscore_masked`: E, pT, eta, phi, MET and its azimuth, each standardised over what is there.
- `zscore_legacy`: E, pT, eta, phi standardised over all slots, the zeros of empty ones too, which are then -mean / std;
  MET and azimuth as they are.

Deviations are those of n - 1, at least FLOOR. What follows of an ablated column is that of a massless object.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder.events import FEATURES, Events

NORMS = ("physics", "zscore_masked", "zscore_legacy")
FLOOR = 1e-8  # of a deviation
MOST_LOG = 30.0  # size of a logarithm of GeV that is still taken back: float32 holds the square of exp(30)
TINY_SQUARE = 1e-12  # added to a squared length, so that its root has a gradient at 0
MOST_ETA = 10.0  # size of a pseudorapidity from which an energy follows
LOGS, CIRCLES = ("e", "pt"), ("phi",)  # columns that `physics` takes logarithms of, and those that it takes to a circle
GLOBALS = {"physics": ("log1p_met", "cos_met_phi", "sin_met_phi"), "zscore_masked": ("met", "met_phi"),
           "zscore_legacy": ("met", "met_phi")}


class Scale(NamedTuple):
  """What is subtracted from features and what the rest is divided by, both [C] float32."""
  mean: np.ndarray
  std: np.ndarray


def parse_columns(columns: tuple[str | int, ...]) -> tuple[str, ...]:
  """Names of columns given as names or numbers from 0 to 3, also as one text such as `[1,2,3]`; in their own order.

  Raises UserError for another name, for a column that stands twice, and where neither E nor pT is there.
  """
  parts = columns.split(",") if isinstance(columns, str) else columns
  found = []
  for part in parts:
    name = str(part).strip(" []()'\"")
    name = FEATURES[int(name)] if name in ("0", "1", "2", "3") else name
    if name not in FEATURES:
      raise UserError(f"config.data.columns: got {part!r}, allowed {', '.join(FEATURES)}, or their numbers 0 to 3")
    if name in found:
      raise UserError(f"config.data.columns: {name!r} stands twice")
    found.append(name)
  if not {"e", "pt"} & set(found):
    raise UserError(f"config.data.columns: got {tuple(found)}, allowed columns with e or pt, which momenta follow from")
  return tuple(name for name in FEATURES if name in found)


def names_of(norm: str, columns: tuple[str, ...]) -> list[str]:
  """Names of the normalised features of columns."""
  if norm != "physics":
    return list(columns)
  found = []
  for name in columns:
    found += [f"log_{name}"] if name in LOGS else ["cos_phi", "sin_phi"] if name in CIRCLES else [name]
  return found


def features(norm: str, columns: tuple[str, ...], events: Events) -> np.ndarray:
  """[N, T, C] float64: features before they are standardised; those of empty slots are 0.

  Raises UserError where `physics` finds an object without energy or transverse momentum.
  """
  parts, mask = [], events.mask
  for name in columns:
    values = events.momenta[..., FEATURES.index(name)].astype(np.float64)
    if norm == "physics" and name in LOGS:
      bad = mask & (values <= 0)
      if bad.any():
        row = int(np.argmax(bad.any(axis=1)))
        raise UserError(f"data: {name} of an object of event {row + 1} is {values[bad][0]:g} GeV, allowed more than 0 "
                        f"with config.data.norm=physics, which takes its logarithm; {int(bad.sum()):,} objects have "
                        "such a value; leave them out of the file, or choose --config.data.norm=zscore_masked")
      parts.append(np.log(np.where(mask, values, 1.0)))
    elif norm == "physics" and name in CIRCLES:
      parts += [np.cos(values) * mask, np.sin(values) * mask]
    else:
      parts.append(values)
  return np.stack(parts, axis=-1)


def global_features(norm: str, events: Events) -> np.ndarray:
  """[N, G] float64: globals before they are standardised. Raises UserError for a negative MET with `physics`."""
  met, azimuth = events.globals.astype(np.float64).T
  if norm != "physics":
    return np.stack([met, azimuth], axis=-1)
  if (met < 0).any():
    row = int(np.argmax(met < 0))
    raise UserError(f"data: the missing transverse energy of event {row + 1} is {met[row]:g} GeV, allowed 0 or more "
                    "with config.data.norm=physics")
  return np.stack([np.log1p(met), np.cos(azimuth), np.sin(azimuth)], axis=-1)


def fit(events: Events, norm: str, columns: tuple[str, ...]) -> dict:
  """Scaler of the events of the training part.

  Args:
    norm: one of NORMS.
    columns: names of columns, as `parse_columns` gives them.

  Raises:
    UserError: no event has an object, or what `features` and `global_features` raise.
  """
  if not events.mask.any():
    raise UserError("data: no training event has an object")
  of_slots, of_events = features(norm, columns, events), global_features(norm, events)
  counted = np.ones_like(events.mask) if norm == "zscore_legacy" else events.mask
  names, global_names = names_of(norm, columns), list(GLOBALS[norm])
  stays = lambda name: norm == "physics" and name.startswith(("cos_", "sin_"))
  mean, std = moments(of_slots[counted], [stays(name) for name in names])
  globals_mean, globals_std = moments(of_events, [norm == "zscore_legacy" or stays(name) for name in global_names])
  return {"norm": norm, "columns": list(columns), "names": names, "mean": mean, "std": std,
          "global_names": global_names, "global_mean": globals_mean, "global_std": globals_std}


def moments(rows: np.ndarray, stays: list[bool]) -> tuple[list[float], list[float]]:
  """Mean and deviation (of n - 1) of the columns of rows [N, C]; 0 and 1 for those that stay as they are."""
  mean, std = rows.mean(axis=0), rows.std(axis=0, ddof=1) if len(rows) > 1 else np.zeros(rows.shape[1])
  return (np.where(stays, 0.0, mean).tolist(), np.where(stays, 1.0, np.maximum(std, FLOOR)).tolist())


def scales(scaler: dict) -> tuple[Scale, Scale]:
  """The scales of features and of globals."""
  numbers = lambda name: np.asarray(scaler[name], np.float32)
  return Scale(numbers("mean"), numbers("std")), Scale(numbers("global_mean"), numbers("global_std"))


def feature_names(scaler: dict) -> list[str]:
  """Names of the C normalised features."""
  return list(scaler["names"])


def global_names(scaler: dict) -> list[str]:
  """Names of the G normalised globals."""
  return list(scaler["global_names"])


def forward(scaler: dict, events: Events) -> tuple[np.ndarray, np.ndarray]:
  """(features [N, T, C], globals [N, G]), normalised, float32; empty slots are 0 but with `zscore_legacy`."""
  norm, columns = scaler["norm"], tuple(scaler["columns"])
  cont = (features(norm, columns, events) - np.asarray(scaler["mean"])) / np.asarray(scaler["std"])
  if norm != "zscore_legacy":
    cont = np.where(events.mask[..., None], cont, 0.0)
  met = (global_features(norm, events) - np.asarray(scaler["global_mean"])) / np.asarray(scaler["global_std"])
  return cont.astype(np.float32), met.astype(np.float32)


def to_momenta(scaler: dict, cont: jax.Array) -> jax.Array:
  """Normalised features [..., T, C] -> momenta [..., T, 4]: E and pT in GeV, eta, phi in radians.

  Of a column that the scaler lacks: E = pT cosh(eta) and pT = E / cosh(eta), as of a massless object; eta and phi are
  0. Empty slots do not come back as zeros; whoever has the mask multiplies by it.
  """
  scale, _ = scales(scaler)
  named = {name: cont[..., c] * scale.std[c] + scale.mean[c] for c, name in enumerate(scaler["names"])}
  found = {name: named[name] for name in FEATURES if name in named}
  found |= {name: unlog(named[f"log_{name}"]) for name in LOGS if f"log_{name}" in named}
  if "cos_phi" in named:
    found["phi"] = azimuth(named["cos_phi"], named["sin_phi"])
  zero = jnp.zeros(cont.shape[:-1], cont.dtype)
  eta, phi = (found[name] if name in found else zero for name in ("eta", "phi"))
  stretch = jnp.cosh(jnp.clip(eta, -MOST_ETA, MOST_ETA))
  pt = found["pt"] if "pt" in found else found["e"] / stretch
  e = found["e"] if "e" in found else pt * stretch
  return jnp.stack([e, pt, eta, wrapped(phi)], axis=-1)


def to_met(scaler: dict, normalised: jax.Array) -> jax.Array:
  """Normalised globals [..., G] -> [..., 2]: missing transverse energy in GeV, and its azimuth in radians."""
  _, scale = scales(scaler)
  values = [normalised[..., g] * scale.std[g] + scale.mean[g] for g in range(len(scale.std))]
  if scaler["norm"] != "physics":
    return jnp.stack([values[0], wrapped(values[1])], axis=-1)
  return jnp.stack([jnp.expm1(jnp.clip(values[0], 0.0, MOST_LOG)), azimuth(values[1], values[2])], axis=-1)


def on_circles(names: list[str], features: jax.Array) -> jax.Array:
  """Features [..., C] of these names with the cos and sin of each azimuth at length 1, as those of real events are."""
  found = {name: features[..., c] for c, name in enumerate(names)}
  for name in names:
    if name.startswith("cos_"):
      cos, sin = name, name.replace("cos_", "sin_")
      length = jnp.sqrt(jnp.square(found[cos]) + jnp.square(found[sin]) + TINY_SQUARE)
      found |= {cos: found[cos] / length, sin: found[sin] / length}
  return jnp.stack([found[name] for name in names], axis=-1)


def unlog(values: jax.Array) -> jax.Array:
  """exp, of numbers no larger in size than MOST_LOG, so that a network's first guesses stay finite."""
  return jnp.exp(jnp.clip(values, -MOST_LOG, MOST_LOG))


def azimuth(cos: jax.Array, sin: jax.Array) -> jax.Array:
  """The angle of a point of the plane; 0, with a gradient of 0, for the origin, where there is none."""
  origin = (cos == 0) & (sin == 0)
  return jnp.arctan2(jnp.where(origin, 0.0, sin), jnp.where(origin, 1.0, cos))


def wrapped(angle: jax.Array) -> jax.Array:
  """Angles at their place between -pi and pi; those that are there are left as they are, bit for bit."""
  return jnp.where(jnp.abs(angle) > jnp.pi, jnp.mod(angle + jnp.pi, 2 * jnp.pi) - jnp.pi, angle)
