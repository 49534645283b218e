"""What an HDF5 file of columns holds: its datasets, their rows and names, with distrust in what it claims."""

import math
from typing import Any

import numpy as np

from jaxtrain import memory
from jaxtrain.errors import UserError, need

BLOCK = 8192  # rows of text read at once
UNFOLDED = 1100  # times its bytes in the file, the most that deflate packs
ROW_BYTES = 24  # of an index, a label and a group


def datasets(path: str, file) -> dict[str, Any]:
  """All datasets of an open HDF5 file that have rows, by name.

  Raises:
    UserError: one of them shows what other files of this machine hold. ValueError: it has more columns than names fit.
  """
  h5py, found, links = need("h5py", "tables"), {}, {}
  file.visititems(lambda name, item: found.__setitem__(name, item) if getattr(item, "shape", ()) else None)
  file.visititems_links(lambda name, link: links.__setitem__(name, link))
  away = {name: "a link into another file" for name, link in links.items() if isinstance(link, h5py.ExternalLink)}
  away |= {name: "a virtual dataset" for name, dataset in found.items() if dataset.is_virtual}
  away |= {name: "a dataset with external storage" for name, dataset in found.items() if dataset.external is not None}
  for name, what in away.items():
    raise UserError(f"{path}: {name!r} is {what}, which shows what other files hold; copy its values into this one")
  for name, dataset in found.items():
    memory.check(memory.CELL_BYTES * math.prod(dataset.shape[1:]), f"the columns of {name!r}")
  return found


def usable(found: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
  """(datasets with one plain value in an entry, why each of the others may not be used)."""
  h5py, bad = need("h5py", "tables"), {}
  for name, dataset in found.items():
    try:
      dtype = dataset.dtype
    except TypeError as error:  # NumPy has no such type
      bad[name] = f"column {name!r} is of a type that cannot be read: {error}"
      continue
    if dtype.kind == "V":
      bad[name] = f"column {name!r} holds records, allowed one value in a cell"
    elif h5py.check_vlen_dtype(dtype) is not None and h5py.check_string_dtype(dtype) is None:
      bad[name] = f"column {name!r} holds arrays of different lengths, allowed one value in a cell"
    elif dtype.kind == "O" and h5py.check_string_dtype(dtype) is None:
      bad[name] = f"column {name!r} holds references, allowed one value in a cell"
  return {name: dataset for name, dataset in found.items() if name not in bad}, bad


def part_names(dataset) -> tuple[str, ...] | None:
  """Names in the attribute `columns` of a dataset."""
  if "columns" not in dataset.attrs:
    return None
  return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in dataset.attrs["columns"])


def read_rows(dataset, at: tuple[int, ...] = ()) -> np.ndarray:
  """All rows of a dataset, or of one of its columns; of text, many entries may be one in the file, so it is counted."""
  if dataset.dtype.kind != "O":
    return dataset[(slice(None), *at)]
  blocks, size, most = [], 0, memory.room()
  for start in range(0, len(dataset), BLOCK):
    blocks.append(dataset[(slice(start, start + BLOCK), *at)])
    size += sum(len(cell) for cell in blocks[-1].flat if isinstance(cell, (bytes, str)))
    memory.check(size, "what it holds", most)
  return np.concatenate(blocks) if blocks else np.empty(0, object)


def check_claims(found: dict[str, Any]) -> None:
  """Raises ValueError for datasets that claim more than the file can hold, or more rows than can be counted in memory.

  For those that are not read as a whole.
  """
  for name, dataset in found.items():
    stored = dataset.id.get_storage_size()
    if dataset.nbytes > UNFOLDED * stored:
      memory.check(dataset.nbytes, f"{name!r}, of which the file has {stored:,} bytes,")
    memory.check(ROW_BYTES * len(dataset), f"the index of the rows of {name!r}")
