"""Sources over files that do not fit in memory: batches read by step, by Grain, ahead of the devices.

Batch t holds the rows that `arrays.table_source` would put there for the same key, so that a run over a file gives the
weights of a run over the same table in memory. Grain's `MapDataset` is indexed by step and its workers take whole
batches, so that their number changes nothing. What is kept in memory is an index of the complete rows, labels and
groups, and a few windows of batches.

A source has `windows(key, step)`, an iterator, because reading ahead needs to know where reading is, and the key
decides which rows a step holds.
"""

import contextlib
import itertools
import os
import signal
from typing import Any, Callable, Iterator, NamedTuple

import jax
import numpy as np

from jaxtrain import rng
from jaxtrain.data import cells, files, hdf5, scaling, shuffle, surveys, tables
from jaxtrain.data.watched import Watched
from jaxtrain.errors import UserError, need
from jaxtrain.types import Source

WINDOW_BYTES, WINDOW_STEPS = 32 << 20, 64  # a window has no more than either
READ_BYTES = 16 << 20  # of a dataset, at once
SPARSE, LIST = 8, 1024  # read a span where it has up to so many times the rows wanted; else lists of so many rows


class Part(NamedTuple):
  """Feature columns out of one dataset of an HDF5 file.

  Attributes:
    dataset: its name.
    num_rows: N.
    columns: which of its columns, in order.
    width, dtype: of a row.
    offset: of the first row in the file, in bytes; None where rows are chunked, compressed or not the machine's own.
  """
  dataset: str
  num_rows: int
  columns: tuple[int, ...]
  width: int
  dtype: np.dtype
  offset: int | None


class Hdf5Rows:
  """Rows [n, D] float64 of an HDF5 file by index, as an array's: `rows[index]`, `len(rows)`. Opened where it is used.

  A contiguous dataset is read at its offset, without HDF5: a tenth of the time, and threads do not wait for each other.

  Attributes:
    parts: where features are read from.
    order: [D] place of each feature among the columns of all parts.
    watched: the file as it was found.
    form: of its cells.
    index: [n] rows of the file; None = all.
  """

  def __init__(self, path: str, parts: tuple[Part, ...], order: tuple[int, ...], num_rows: int, watched: Watched,
               form: cells.Form):
    self.path, self.parts, self.order, self.num_rows, self.watched = path, parts, order, num_rows, watched
    self.form = form
    self.index: np.ndarray | None = None
    self.opened: Any = None

  def __getstate__(self):
    return self.__dict__ | {"opened": None}

  def __del__(self):
    if self.opened is not None:
      os.close(self.opened[0])
      if self.opened[1] is not None:
        self.opened[1].close()

  def __len__(self) -> int:
    return self.num_rows if self.index is None else len(self.index)

  def __getitem__(self, index) -> np.ndarray:
    rows = np.arange(len(self))[index] if isinstance(index, slice) else np.asarray(index)
    if self.index is not None:
      rows = self.index[rows]
    blocks = [read_part(self.open(), part, rows) for part in self.parts]
    return cells.blank(self.form, take(blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1), self.order))

  def open(self):
    """(Descriptor of the open file, h5py's file or None where no part needs it).

    A descriptor and no file object: in a cycle that is collected, that may go first and warns that nobody closed it.
    """
    if self.opened is None:
      needs_hdf5 = any(part.offset is None for part in self.parts)
      self.opened = (os.open(self.path, os.O_RDONLY | os.O_CLOEXEC),
                     need("h5py", "tables").File(self.path, "r") if needs_hdf5 else None)
    return self.opened


def read_part(opened, part: Part, rows: np.ndarray) -> np.ndarray:
  """The columns [n, D] float64 of one dataset at rows in any order, a piece of at most `READ_BYTES` at a time."""
  most = max(1, READ_BYTES // (part.width * part.dtype.itemsize))
  out = np.empty((len(rows), len(part.columns)))
  for start in range(0, len(rows), most):
    piece = rows[start:start + most]
    read = read_chunked if part.offset is None else read_contiguous
    out[start:start + most] = take(read(opened, part, piece), part.columns)
  return out


def take(rows: np.ndarray, columns: tuple[int, ...]) -> np.ndarray:
  """These columns; the array itself where they are all of them in order."""
  return rows if columns == tuple(range(rows.shape[1])) else rows[:, columns]


def read_contiguous(opened, part: Part, rows: np.ndarray) -> np.ndarray:
  """Rows [n, width] of a dataset that lies in the file as in memory."""
  descriptor, size = opened[0], part.width * part.dtype.itemsize
  if (np.diff(rows) == 1).all():
    data = os.pread(descriptor, size * len(rows), part.offset + size * int(rows[0]))
  else:
    data = b"".join(os.pread(descriptor, size, part.offset + size * row) for row in rows.tolist())
  return np.frombuffer(data, part.dtype).reshape(len(rows), part.width)


def read_chunked(opened, part: Part, rows: np.ndarray) -> np.ndarray:
  """Rows [n, width] through HDF5, which is quick with a span of rows and slow with a long list of them."""
  dataset = opened[1][part.dataset]
  unique, inverse = np.unique(rows, return_inverse=True)
  first, last = int(unique[0]), int(unique[-1]) + 1
  if last - first <= SPARSE * len(unique):
    found = dataset[first:last].reshape(last - first, part.width)[unique - first]
  else:
    found = np.concatenate([dataset[unique[k:k + LIST]] for k in range(0, len(unique), LIST)])
  return found.reshape(len(unique), part.width)[inverse]


def open_hdf5(path: str, features: tuple[str, ...], label: str, group: str, *, form: cells.Form = cells.PLAIN,
              leave_out: tuple[str, ...] = (), masked: bool = False) -> tables.Table:
  """The table of an HDF5 file whose features stay in the file; arguments and errors as of `tables.read_file`."""
  files.check_path("hdf5", path, "config.data.path")
  watched = Watched(path)
  try:
    with need("h5py", "tables").File(path, "r") as file:
      datasets, bad = hdf5.usable(hdf5.datasets(path, file))
      hdf5.check_claims(datasets)
      names = files.lay_out({name: (item.shape, hdf5.part_names(item)) for name, item in datasets.items()}, bad)
      unread = {part: np.empty(0, datasets[name].dtype) for name, parts in names.items() for part in parts}
      columns = files.Columns(path, unread,
                              {name: parts for name, parts in names.items() if datasets[name].ndim > 1}, None, form,
                              bad)
      features = tables.pick_features(columns, features, label, group, leave_out)
      for name, parts in names.items():
        for k, part in enumerate(parts):
          if part in (label, group):
            found = hdf5.read_rows(datasets[name], np.unravel_index(k, datasets[name].shape[1:]))
            columns.values[part] = cells.decoded(found)
      parts = tuple(describe_part(path, name, datasets[name], names[name], features) for name in names
                    if set(names[name]) & set(features))
  except UserError:
    raise
  except Exception as error:  # h5py raises many types for damaged files
    raise UserError(f"config.data.path: cannot read {path!r} as hdf5: {files.first_line(error)}") from error
  flat = [names[part.dataset][d] for part in parts for d in part.columns]
  rows = Hdf5Rows(path, parts, tuple(flat.index(name) for name in features), parts[0].num_rows, watched, form)
  watched.digests[path] = tables.file_digest(path)
  return close_over(rows, columns, features, label, group, {"source": path, "sha256": watched.digests[path]}, masked)


def describe_part(path: str, name: str, dataset, names: tuple[str, ...], features: tuple[str, ...]) -> Part:
  """The part of a dataset that features are read from. Raises UserError for a dataset that holds no numbers."""
  if dataset.dtype.kind not in "fiub":
    raise UserError(f"{path}: column {name!r} holds {dataset.dtype}, allowed numbers")
  plain = dataset.chunks is None and dataset.dtype.isnative and dataset.id.get_offset() is not None
  return Part(name, len(dataset), tuple(names.index(f) for f in features if f in names), len(names), dataset.dtype,
              dataset.id.get_offset() if plain else None)


def close_over(rows, columns: files.Columns, features: tuple[str, ...], label: str, group: str,
               facts: dict, masked: bool) -> tables.Table:
  """The table of rows that stay where they are: all are looked at once, block by block; those not used are left out.
  """
  size = scaling.block_rows(len(features))
  with unchanged(rows.watched):
    found = surveys.look(columns, features, (rows[start:start + size] for start in range(0, len(rows), size)), masked)
  rows.index = None if found.keep.all() else np.flatnonzero(found.keep)
  return tables.choose_rows(columns, rows, features, found, label, group, facts, masked)


@contextlib.contextmanager
def unchanged(watched: Watched) -> Iterator[None]:
  """A context of reading from files, which must be what they were. Raises UserError, before errors of the reading."""
  try:
    yield
  finally:
    watched.check()


def scaled_rows(scaler: dict, x: np.ndarray, label: np.ndarray, masked: bool,
                row: Callable[[int, int], str] = scaling.row_number) -> dict[str, np.ndarray]:
  """The columns of a batch but its weight: of features x [n, D] in raw units. Raises as `scaling.scale` does."""
  z = scaling.scale(scaler, x, row)
  if not masked:
    return {"x": z, "label": label}
  gap = np.isnan(z)
  return {"x": np.where(gap, np.float32(0), z), "label": label, "observed": (~gap).astype(np.float32)}


class Batches:
  """Batch of each step, as Grain reads it: `len`, `batches[step]`.

  Attributes:
    rows: what `rows[index]` gives features of.
    part: [n] the rows of this part, indices into `rows`.
    label: [N] int32, of all rows.
    keys: [epochs, rounds] round keys of each epoch's permutation; None = in order.
    num_epochs: passes there are.
    shard: (i, n): this process reads the i-th of n equal slices of each batch.
    masked: whether batches say which cells are there.
  """

  def __init__(self, rows, part, label, scaler, batch_size, keys, num_epochs=1, shard=(0, 1), masked=False):
    self.rows, self.part, self.label, self.scaler, self.masked = rows, part, label, scaler, masked
    self.batch_size, self.keys, self.num_epochs, self.shard = batch_size, keys, num_epochs, shard
    self.num_batches = -(-len(part) // batch_size)

  def __len__(self) -> int:
    return self.num_batches * self.num_epochs

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    epoch, position = divmod(int(step), self.num_batches)
    N, size = len(self.part), self.batch_size // self.shard[1]
    row = position * self.batch_size + self.shard[0] * size + np.arange(size)
    index = np.minimum(row, N - 1)
    if self.keys is not None:
      index = shuffle.permute_on_host(self.keys[epoch], index, N)
    return self.read(index) | {"weight": (row < N).astype(np.float32)}

  def read_checked(self, index: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of this part by their place in it. Raises UserError where a file has changed."""
    with unchanged(self.rows.watched):
      return self.read(index)

  def read(self, index: np.ndarray) -> dict[str, np.ndarray]:
    """The same, for threads and processes that read ahead: whoever takes a window checks the files."""
    rows = self.part[index]
    return scaled_rows(self.scaler, self.rows[rows], self.label[rows], self.masked)


def ignore_interrupts(index: int, count: int) -> None:
  """Lets a reading process live through a Ctrl-C, which the terminal sends it too: the run is to save first."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)


class Windows(NamedTuple):
  """Windows of batches from a file; called as `Source.windows`."""
  batches_of: Callable[[Any], Batches]
  num_steps: int
  num_workers: int

  def __call__(self, key, step: int) -> Iterator[dict]:
    import grain  # slow to import
    batches = self.batches_of(key)
    first = step // self.num_steps * self.num_steps
    steps = grain.MapDataset.source(batches)[first:].batch(self.num_steps, drop_remainder=False)
    ahead = steps.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=2))
    if self.num_workers:
      ahead = ahead.mp_prefetch(grain.MultiprocessingOptions(num_workers=self.num_workers), ignore_interrupts)
    windows = iter(ahead)
    for k in itertools.count():
      with unchanged(batches.rows.watched):
        window = next(windows, None)
      if window is None:
        return
      short = self.num_steps - len(window["weight"])  # the last one of a run: its shape stays
      if short:
        window = {name: np.concatenate([value, np.zeros((short, *value.shape[1:]), value.dtype)])
                  for name, value in window.items()}
      yield {"batches": window, "start": np.int32(first + k * self.num_steps)}


def host_source(table: tables.Table, part: np.ndarray, label: np.ndarray, scaler: dict, batch_size: int, *,
                shuffled: bool, num_epochs: int, num_workers: int = 0, masked: bool = False) -> Source:
  """A source of batches read from a file as training goes; the batches of `arrays.table_source`.

  Args:
    table: whose features are rows in a file, such as `Hdf5Rows`.
    part: [n] row indices of this part, ascending.
    label: [N] int32.
    batch_size: B.
    num_epochs: passes that will be asked for.
    num_workers: processes that read; 0 = threads of this one.
    masked: whether batches say which cells are there.
  """
  row_bytes = 4 * len(table.feature_names) * (2 if masked else 1) + 8
  num_steps = max(1, min(WINDOW_STEPS, WINDOW_BYTES // (row_bytes * batch_size), -(-len(part) // batch_size)))

  def batches_of(key) -> Batches:
    keys = None
    if shuffled:
      of_epoch = jax.vmap(lambda epoch: shuffle.round_keys(rng.step_key(key, epoch), len(part)))
      keys = np.asarray(of_epoch(np.arange(num_epochs)))
    shard = (jax.process_index(), jax.process_count())
    return Batches(table.features, part, label, scaler, batch_size, keys, num_epochs, shard, masked)

  def batch_at(data, step, key):
    return jax.tree.map(lambda value: value[step - data["start"]], data["batches"])

  shape = (num_steps, batch_size)
  empty = {"x": (np.float32, (len(table.feature_names),)), "label": (np.int32, ()), "weight": (np.float32, ())}
  if masked:
    empty["observed"] = empty["x"]
  template = {name: np.broadcast_to(dtype(0), shape + more) for name, (dtype, more) in empty.items()}
  num_batches = -(-len(part) // batch_size)
  return Source(data={"batches": template, "start": np.int32(0)}, batch_at=batch_at, num_batches=num_batches,
                num_rows=len(part), windows=Windows(batches_of, num_steps, num_workers), window_steps=num_steps,
                rows=Batches(table.features, part, label, scaler, batch_size, None, masked=masked).read_checked)
