"""Files of events: HDF5 of flat rows, read and written, and the text files of the Dark Machines challenge.

A flat row of T slots has 5 T + 2 numbers: T ids of types, missing transverse energy in GeV and its azimuth, and then E,
pT, eta and phi of each slot. Every part has a dataset of rows, one of processes, and may have one of weights.

A line of a text file is `event ID; process ID; event weight; MET; METphi; obj1, E1, pt1, eta1, phi1; obj2, ...`.

**Source:** Aarrestad et al., The Dark Machines anomaly score challenge, 2022, section 2; Brooijmans et al., Les Houches
2019 physics at TeV colliders: new physics working group report, section 23, for the text files.
"""

import array
import os
from typing import Any

import numpy as np

from jaxtrain import memory
from jaxtrain.data import files, hdf5
from jaxtrain.errors import UserError, need
from jaxtrain.experiments.autoencoder import events as events_lib
from jaxtrain.experiments.autoencoder.events import Events
from jaxtrain.workdir import atomic

PARTS = ("train", "val", "test")
# Names of datasets as they are in the files of the challenge's four-top study; empty = there is none.
DATASETS = {"x_train": "X_train", "x_val": "X_val", "x_test": "X_test", "y_train": "Y_train", "y_val": "y_val",
            "y_test": "y_test", "w_train": "", "w_val": "", "w_test": ""}
UNITS = {"GeV": 1.0, "MeV": 1e-3}  # in GeV
SMALL_PT, LARGE_PT = 0.5, 5000.0  # GeV, medians beyond which another unit is likely
OBJECTS = {"j": events_lib.JET, "b": events_lib.B_JET, "e+": events_lib.POSITRON, "e-": events_lib.ELECTRON,
           "m-": events_lib.MUON, "m+": events_lib.ANTIMUON, "g": events_lib.PHOTON}
PROCESSES = {"tttt": 1, "4top": 1, "tth": 2, "ttbarhiggs": 2, "ttw": 3, "ttbarw": 3, "ttww": 4, "ttbarww": 4,
             "ttz": 5, "ttbarz": 5, "tt": 6, "ttbar": 6} | {str(k): k for k in range(len(events_lib.PROCESS_NAMES))}
HEAD = ("event ID", "process ID", "event weight", "MET", "METphi")  # fields of a line before its objects
NUMBERS = ("E", "pT", "eta", "phi")  # of an object in a line, after its type
SLOT_BYTES = 40  # of a slot while it is read: five numbers of 64 bits


def width(num_slots: int) -> int:
  """Numbers of a flat row."""
  return 5 * num_slots + events_lib.NUM_GLOBALS


def slots_of(shape: tuple[int, ...]) -> int:
  """T of flat rows of a shape [N, 5 T + 2]; 0 for another shape."""
  slots, rest = divmod(shape[-1] - events_lib.NUM_GLOBALS, 5) if len(shape) == 2 else (0, 0)
  return 0 if rest else max(slots, 0)


def from_rows(rows: np.ndarray, num_slots: int, label, weight, where: str, shapes: tuple[tuple[int, ...], ...] = ()
              ) -> Events:
  """Events of flat rows [N, 5 T + 2]. Raises UserError for rows of another width, with the advice of another T where it
  fits the `shapes` of all parts, and as `events.assemble` does.
  """
  if rows.ndim != 2 or rows.shape[1] != width(num_slots):
    other = slots_of(rows.shape)
    fits = other and {other} == {slots_of(shape) for shape in (rows.shape, *shapes)}
    hint = f"; {other} slots have so many: --config.data.num_slots={other}" if fits else ""
    raise UserError(f"{where}: its shape is {rows.shape}, allowed rows of {width(num_slots)} numbers, which are "
                    f"{num_slots} types, MET, its azimuth, and {num_slots} times E, pT, eta, phi{hint}")
  ids, met, momenta = np.split(rows, [num_slots, num_slots + events_lib.NUM_GLOBALS], axis=1)
  return events_lib.assemble(ids, momenta.reshape(len(rows), num_slots, 4), met, label, weight, where)


def to_rows(events: Events) -> np.ndarray:
  """Flat rows [N, 5 T + 2] float32 of events."""
  return np.concatenate([events.ids.astype(np.float32), events.globals, events.momenta.reshape(len(events.ids), -1)], 1)


def read_hdf5(path: str, names: dict[str, str], num_slots: int) -> dict[str, Events]:
  """Events of each part of a file.

  Args:
    names: of the datasets, with the keys of DATASETS; an empty name of rows leaves out the part, one of processes
      leaves these unknown, one of weights leaves them alike.
    num_slots: T.

  Raises:
    UserError: the file is missing, damaged, claims more than memory holds, or points into another file; a dataset is
      missing or does not fit.
  """
  files.check_path("hdf5", path, "config.data.path")
  found = {}
  try:
    with need("h5py", "tables").File(path, "r") as file:
      there, bad = hdf5.usable(hdf5.datasets(path, file))
      for part in PARTS:
        if names[f"x_{part}"]:
          found[part] = read_part(path, there, bad, names, part, num_slots)
  except UserError:
    raise
  except Exception as error:  # of many types: damaged, or packed by a filter that is not installed
    raise UserError(f"config.data.path: cannot read {path!r} as hdf5: {files.first_line(error)}") from error
  if not found:
    raise UserError("config.data.datasets: no names of rows, allowed one for x_train at least")
  return found


def read_part(path: str, there: dict[str, Any], bad: dict[str, str], names: dict[str, str], part: str,
              num_slots: int) -> Events:
  """Events of a part of an open file; `there` and `bad` as of `hdf5.usable`."""
  columns = {}
  for kind in "xyw":
    name = names[f"{kind}_{part}"].strip("/")
    if not name:
      continue
    if name in bad:
      raise UserError(f"{path}: {bad[name]}")
    if name not in there:
      off = "; --config.data.datasets." + f"{kind}_{part}='' reads without it"
      raise UserError(f"config.data.datasets.{kind}_{part}: {path} has no dataset {name!r}; it has "
                      f"{', '.join(sorted(there)) or 'none'}{off if kind != 'x' or part != 'train' else ''}")
    dataset = there[name]
    if dataset.dtype.kind not in "biuf":
      raise UserError(f"{path}: dataset {name!r} does not hold numbers")
    if columns and len(dataset) != len(columns["x"]):
      raise UserError(f"{path}: dataset {name!r} has {len(dataset):,} rows, {names[f'x_{part}']!r} has "
                      f"{len(columns['x']):,}; both must have as many")
    memory.check(2 * dataset.nbytes, f"dataset {name!r}")  # and its events beside it
    columns[kind] = dataset[()]
  flat = {kind: column.ravel() if kind != "x" and column.ndim == 2 and column.shape[1] == 1 else column
          for kind, column in columns.items()}
  label, weight = (flat[kind] if kind in flat else None for kind in "yw")
  shapes = tuple(there[name].shape for part in PARTS if (name := names[f"x_{part}"].strip("/")) in there)
  return from_rows(flat["x"], num_slots, label, weight, f"{path}: dataset {names[f'x_{part}']!r}", shapes)


def in_gev(events: Events, unit: str) -> Events:
  """Events whose energies, momenta and missing energy are in a unit, one of UNITS, in GeV."""
  return events._replace(momenta=events.momenta * np.float32((UNITS[unit], UNITS[unit], 1, 1)),
                         globals=events.globals * np.float32((UNITS[unit], 1)))


def names_there(path: str) -> dict[str, str]:
  """Names of DATASETS of the parts that a file has, and of their processes, for `read_hdf5`. Raises UserError where it
  cannot be opened or has none.
  """
  files.check_path("hdf5", path, "--input")
  try:
    with need("h5py", "tables").File(path, "r") as file:
      there = set(file)
  except OSError as error:
    raise UserError(f"--input: cannot read {path!r} as hdf5: {files.first_line(error)}") from error
  found = {key: name if name in there else "" for key, name in DATASETS.items()}
  if not any(name for key, name in found.items() if key.startswith("x_")):
    raise UserError(f"--input: {path} has no dataset of events ({', '.join(DATASETS[f'x_{part}'] for part in PARTS)}); "
                    f"it has {', '.join(sorted(there)) or 'none'}")
  return found


def write_hdf5(path: str, parts: dict[str, Events]) -> None:
  """Writes events of parts under the names of DATASETS; weights, where they differ, as w_train and so on.

  Raises OSError where the file cannot be written.
  """
  with atomic.replacing(path) as fresh, need("h5py", "tables").File(fresh, "w") as file:
    for part, events in parts.items():
      file.create_dataset(DATASETS[f"x_{part}"], data=to_rows(events), compression="gzip", compression_opts=1)
      file.create_dataset(DATASETS[f"y_{part}"], data=events.label)
      if (events.weight != 1).any():
        file.create_dataset(f"w_{part}", data=events.weight)


def has_lines_of_events(path: str) -> bool:
  """Whether the first line of a file is that of an event, and not the names of a table's columns."""
  try:
    with open(path, encoding="utf-8", errors="replace") as file:
      fields = next((line for line in file if line.strip()), "").split(";")
  except OSError:
    return False
  return len(fields) >= len(HEAD) and all(map(is_number, fields[2:len(HEAD)])) and all(
      field.count(",") == len(NUMBERS) for field in fields[len(HEAD):] if field.strip())


def read_csv(path: str, num_slots: int, unit: str, field: str = "config.data.path") -> tuple[Events, list[str]]:
  """(events of a text file, warnings): objects beyond T are cut, and processes that have no name here are 0.

  Args:
    num_slots: T.
    unit: of energies and momenta, one of UNITS.
    field: that names the file, for messages.

  Raises:
    UserError: the file is missing or empty, or a line does not fit, which is named by its number.
  """
  files.check_path("csv", path, field)
  memory.check(os.path.getsize(path), "the file")
  lines, heads, objects = array.array("q"), array.array("d"), array.array("d")
  cut, cut_events, strange = 0, 0, set()
  with open(path, encoding="utf-8", errors="replace") as file:
    for number, line in enumerate(file, 1):
      if not line.strip():
        continue
      fields = line.split(";")
      try:
        process = fields[1].strip()
        known = process.lower() in PROCESSES
        heads.extend((PROCESSES[process.lower()] if known else 0, *map(float, fields[2:len(HEAD)])))
        own = [field.split(",") for field in fields[len(HEAD):] if field.strip()]
        for slot, (kind, *numbers) in enumerate(own[:num_slots]):
          e, pt, eta, phi = numbers
          objects.extend((len(lines), slot, OBJECTS[kind.strip()], float(e), float(pt), float(eta), float(phi)))
      except (ValueError, KeyError, IndexError) as error:
        raise UserError(f"{path}: line {number}: {describe(error, fields)}") from error
      if len(heads) != 4 * (len(lines) + 1):
        raise UserError(f"{path}: line {number}: {describe(IndexError(), fields)}")
      if not known:
        strange.add(process)
      cut, cut_events = cut + max(0, len(own) - num_slots), cut_events + (len(own) > num_slots)
      lines.append(number)
  if not lines:
    raise UserError(f"{path}: the file has no lines")
  events = from_lists(path, np.asarray(lines), np.asarray(heads), np.asarray(objects), num_slots, UNITS[unit])
  return events, csv_warnings(events, cut, cut_events, sorted(strange), unit)


def is_number(cell: str) -> bool:
  """Whether a cell is read as a number."""
  try:
    float(cell)
  except ValueError:
    return False
  return True


def describe(error: Exception, fields: list[str]) -> str:
  """What is wrong with a line that could not be read."""
  if len(fields) < len(HEAD):
    return f"{len(fields)} fields, allowed {'; '.join(HEAD)}; and objects, separated by ';'"
  if isinstance(error, KeyError):
    return f"an object of the type {error.args[0]!r}, allowed {', '.join(OBJECTS)}"
  wrong = lambda what, cell: f"{what} is {cell.strip()[:80]!r}, allowed a number"
  for name, cell in zip(HEAD[2:], fields[2:]):
    if not is_number(cell):
      return wrong(name, cell)
  for place, field in enumerate((field for field in fields[len(HEAD):] if field.strip()), 1):
    _, *cells = field.split(",")
    if len(cells) != len(NUMBERS):
      return f"the object {field.strip()[:80]!r}, allowed a type, {', '.join(NUMBERS)}, separated by ','"
    for name, cell in zip(NUMBERS, cells):
      if not is_number(cell):
        return wrong(f"{name} of object {place}", cell)
  return files.first_line(error)


def from_lists(path: str, lines: np.ndarray, heads: np.ndarray, objects: np.ndarray, num_slots: int,
               unit: float) -> Events:
  """Events of numbers of lines [N], (process, weight, MET, azimuth) of each, and (row, slot, type, E, pT, eta, phi) of
  each object; energies in `unit` GeV.
  """
  heads, objects = heads.reshape(-1, 4), objects.reshape(-1, 7)
  N = len(lines)
  memory.check(SLOT_BYTES * N * num_slots, "what the file holds")
  for rows, values in ((np.arange(N), heads), (objects[:, 0].astype(int), objects)):
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
      raise UserError(f"{path}: line {lines[rows[np.argmax(bad)]]}: a number that is not finite")
  if (heads[:, 1] < 0).any():
    raise UserError(f"{path}: line {lines[np.argmax(heads[:, 1] < 0)]}: a negative weight, allowed 0 or more")
  ids, momenta = np.zeros((N, num_slots), np.int32), np.zeros((N, num_slots, 4))
  at = objects[:, 0].astype(int), objects[:, 1].astype(int)
  ids[at], momenta[at] = objects[:, 2], objects[:, 3:] * (unit, unit, 1, 1)
  return events_lib.assemble(ids, momenta, heads[:, 2:] * (unit, 1), heads[:, 0], heads[:, 1], path)


def csv_warnings(events: Events, cut: int, cut_events: int, strange: list[str], unit: str) -> list[str]:
  """What may be wrong with a text file, a sentence for each kind."""
  found = []
  if cut:
    found.append(f"objects beyond {events.num_slots} slots (data.num_slots) are left out: {cut:,}, of {cut_events:,} "
                 f"event{'s' * (cut_events > 1)}")
  if strange:
    found.append(f"processes that are none of {', '.join(events_lib.PROCESS_NAMES[1:])} have the label 0: "
                 f"{', '.join(strange[:5])}{f' and {len(strange) - 5} more' if len(strange) > 5 else ''}")
  return found + unit_warnings(events, unit)


def unit_warnings(events: Events, unit: str) -> list[str]:
  """A sentence where the momenta of events, read in a unit, are those of another."""
  pt = events.momenta[..., 1][events.mask]
  median = float(np.median(pt)) if len(pt) else 0.0
  if not median > LARGE_PT and not 0 < median < SMALL_PT:
    return []
  other = "MeV" if unit == "GeV" else "GeV"
  return [f"the median pT is {median:g} GeV; is the file in {other} (--config.data.energy_unit={other})?"]
