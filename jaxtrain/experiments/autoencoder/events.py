"""Events of a collider as arrays: objects in slots, missing transverse energy, process and weight.

**Source:** the layout is that of the Dark Machines challenge (Aarrestad et al., The Dark Machines anomaly score
challenge, 2022): objects j, b, e+, e-, mu+, mu-, g with energy, transverse momentum, pseudorapidity and azimuth.
"""

from typing import NamedTuple

import numpy as np

from jaxtrain.errors import UserError

FEATURES = ("e", "pt", "eta", "phi")
TYPE_NAMES = ("empty", "jet", "b-jet", "e+", "e-", "mu-", "mu+", "photon")
EMPTY, JET, B_JET, POSITRON, ELECTRON, MUON, ANTIMUON, PHOTON = range(8)
PROCESS_NAMES = ("unknown", "tttt", "ttH", "ttW", "ttWW", "ttZ", "tt")
NUM_GLOBALS = 2  # missing transverse energy and its azimuth
MOST_TYPE, MOST_PROCESS = 255, 1023  # the largest id of a type, and of a process
MOST = 1e15  # size of a number whose square float32 still holds


class Events(NamedTuple):
  """N events of T slots; an empty slot has the id 0 and momenta of 0.

  Attributes:
    ids: [N, T] int32, the type of the object in a slot, an index of TYPE_NAMES; further ids of the user's are allowed.
    momenta: [N, T, 4] float32: energy and transverse momentum in GeV, pseudorapidity, azimuth in radians.
    globals: [N, 2] float32: missing transverse energy in GeV and its azimuth in radians.
    label: [N] int32, the process, an index of PROCESS_NAMES; 0 where it is not known.
    weight: [N] float32, from 0 up.
  """
  ids: np.ndarray
  momenta: np.ndarray
  globals: np.ndarray
  label: np.ndarray
  weight: np.ndarray

  @property
  def num_slots(self) -> int:
    """T."""
    return self.ids.shape[1]

  @property
  def mask(self) -> np.ndarray:
    """[N, T] bool: which slots hold an object."""
    return self.ids != EMPTY

  def take(self, rows) -> "Events":
    """The events of some rows, by index or slice."""
    return Events(*(part[rows] for part in self))


def wrap(angle):
  """Angles in radians at their place from -pi up to below pi."""
  return (angle + np.pi) % (2 * np.pi) - np.pi


def assemble(ids, momenta, met, label=None, weight=None, where: str = "events") -> Events:
  """Events of arrays of any number type, checked; azimuths are wrapped, and what stands in empty slots becomes 0.

  Args:
    ids: [N, T].
    momenta: [N, T, 4].
    met: [N, 2], missing transverse energy and its azimuth.
    label: [N]; None where no process is known.
    weight: [N]; None where all events count alike.
    where: what the arrays come from, for messages.

  Raises:
    UserError: a shape that does not fit, a number that is not finite or beyond MOST, an id or a label that is no
      whole number or below 0, a negative weight, no event.
  """
  ids, momenta, met = (np.asarray(part) for part in (ids, momenta, met))
  N, T = ids.shape if ids.ndim == 2 else (0, 0)
  label = np.zeros(N, np.int32) if label is None else np.asarray(label)
  weight = np.ones(N, np.float32) if weight is None else np.asarray(weight)
  wanted = {"ids": (ids, (N, T)), "momenta": (momenta, (N, T, 4)), "globals": (met, (N, NUM_GLOBALS)),
            "labels": (label, (N,)), "weights": (weight, (N,))}
  if not N or not T:
    raise UserError(f"{where}: no events")
  for name, (part, shape) in wanted.items():
    if part.shape != shape:
      raise UserError(f"{where}: the {name} have the shape {part.shape}, allowed {shape}")
    if part.dtype.kind not in "biuf":
      raise UserError(f"{where}: the {name} are of type {part.dtype}, allowed numbers")
    bad = ~(np.abs(part.reshape(N, -1)) <= MOST).all(axis=1)  # of NaN too
    if bad.any():
      raise UserError(f"{where}: the {name} of event {int(np.argmax(bad)) + 1} are not all finite and up to {MOST:g} "
                      f"in size; {int(bad.sum()):,} of {N:,} events have such a number")
  check_whole(ids, MOST_TYPE, "the type of an object", where)
  check_whole(label, MOST_PROCESS, "the process", where)
  if (weight < 0).any():
    row = int(np.argmax(weight < 0))
    raise UserError(f"{where}: the weight of event {row + 1} is {weight[row]:g}, allowed 0 or more")
  ids, momenta = ids.astype(np.int32), momenta.astype(np.float32) * (ids != EMPTY)[..., None]
  met = met.astype(np.float32)
  for angle in (momenta[..., 3], met[..., 1]):
    angle[...] = np.where(np.abs(angle) > np.pi, wrap(angle), angle)
  return Events(ids, momenta, met, label.astype(np.int32), weight.astype(np.float32))


def check_whole(values: np.ndarray, most: int, what: str, where: str) -> None:
  """Raises UserError for the first of values [N, ...] that is no whole number from 0 to `most`."""
  bad = (values < 0) | (values > most) | (values != np.rint(values))
  if bad.any():
    row = int(np.argmax(bad.reshape(len(values), -1).any(axis=1)))
    found = values[row].ravel()[np.argmax(bad[row].ravel())]
    raise UserError(f"{where}: {what} in event {row + 1} is {found:g}, allowed whole numbers from 0 to {most}")


def join(parts: list[Events]) -> Events:
  """The events of several parts with equal slots, one after the other."""
  return Events(*(np.concatenate(columns) for columns in zip(*parts)))


def type_names(num_types: int) -> list[str]:
  """Names of so many types: those of TYPE_NAMES, then type_8 and so on."""
  return [TYPE_NAMES[k] if k < len(TYPE_NAMES) else f"type_{k}" for k in range(num_types)]


def process_names(num_processes: int) -> list[str]:
  """Names of so many processes: those of PROCESS_NAMES, then process_7 and so on."""
  return [PROCESS_NAMES[k] if k < len(PROCESS_NAMES) else f"process_{k}" for k in range(num_processes)]
