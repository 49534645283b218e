"""Tables from TensorFlow Datasets, through `tfds.data_source`, without TensorFlow.

Scalars and labels become columns; tensors and images are taken apart into `name_0`, `name_1`, ... A dataset must be
prepared as array_record (`builder.download_and_prepare()` with `file_format="array_record"`); nothing is downloaded.
"""

import json
import logging
import os
import re
from typing import Any

import numpy as np

from jaxtrain.data import cells, files, host, tables
from jaxtrain.data.watched import Watched
from jaxtrain.errors import UserError

NAME = re.compile(r"\w+(/[\w.+=-]+)?(:(\d+|\*)(\.(\d+|\*)){2})?", re.ASCII)
CLASS_KEYS = ("pythonClassName", "python_class_name", "type")  # in features.json


def open_split(path: str, split: str) -> tuple[Any, Any, str]:
  """(random access examples, feature description, folder of its files) of a prepared dataset.

  Args:
    path: name of a dataset such as `iris:1.0.0`, or the folder of a prepared one.
    split: name of a split such as `train` or `train[:50%]`; "" = the only one, or `train`.

  Raises:
    UserError: it is not known or not prepared here, or has no such split.
  """
  import tensorflow_datasets as tfds  # slow to import
  logging.getLogger("absl").setLevel(logging.ERROR)
  if not path:
    raise UserError("config.data.path: got '', allowed the name or the folder of a prepared TFDS dataset")
  if os.path.isdir(path):
    check_features(path)
  elif not NAME.fullmatch(path):  # other forms load code from elsewhere
    raise UserError(f"config.data.path: got {path!r}, allowed the name of a TFDS dataset, NAME, NAME/CONFIG or "
                    "NAME:VERSION, or the folder of a prepared one")
  try:
    builder = tfds.builder_from_directory(path) if os.path.isdir(path) else tfds.builder(path)
  except Exception as error:  # many types: unknown name, unreadable folder, no network
    raise UserError(f"config.data.path: TFDS has no dataset {path!r} here: {first_line(error)}") from None
  names = list(builder.info.splits)
  split = split or ("train" if "train" in names or not names else names[0])
  try:
    return builder.as_data_source(split=split), builder.info.features, os.fspath(builder.data_dir)
  except Exception as error:
    hint = f"splits: {', '.join(names)}" if names else "it is not prepared on this machine, and nothing is downloaded"
    raise UserError(f"config.data.path: TFDS dataset {path!r}, split {split!r}: {first_line(error)}; {hint}") from None


def check_features(folder: str) -> None:
  """Raises UserError where the description of a dataset names classes that are not TFDS's own: TFDS would import them.
  """
  path = os.path.join(folder, "features.json")
  try:
    with open(path, encoding="utf-8") as file:
      left = [json.load(file)]
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(f"config.data.path: TFDS has no dataset {folder!r} here: {first_line(error)}") from None
  while left:
    value = left.pop()
    if isinstance(value, dict):
      left += value.values()
      for name in [value[key] for key in CLASS_KEYS if key in value]:
        if isinstance(name, str) and not name.startswith("tensorflow_datasets."):  # a column may be named so too
          raise UserError(f"{path} names {name!r}, which is not part of TFDS; a dataset is data, its code is not run")
    elif isinstance(value, list):
      left += value


def first_line(error: Exception) -> str:
  """The first line of an error's text that says something."""
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  return (lines or [type(error).__name__])[0][:160]


def open_columns(path: str, split: str, form: cells.Form) -> tuple[files.Columns, Any, dict]:
  """(columns without their values, examples, numeric features by name) of a split."""
  examples, features, _ = open_split(path, split)
  if not len(examples):
    raise UserError(f"config.data.path: TFDS dataset {path!r}: the split has no examples")
  example, wide, bad = examples[0], {}, {}
  found = {name: features[name] for name in features}
  values = {name: np.asarray(example[name]) for name in found}
  laid = files.lay_out({name: ((0, *value.shape), None) for name, value in values.items()}, bad)
  for name, value in values.items():
    if value.ndim:
      wide[name] = laid[name]
  values = {part: np.empty(0) for parts in laid.values() for part in parts}
  return files.Columns(path, values, wide, None, form, bad), examples, found


def column(examples, features: dict, name: str, place: int) -> np.ndarray:
  """A column of all examples, at its place in the flattened value; a class label by its names."""
  found = np.asarray([np.asarray(example[name]).reshape(-1)[place] for example in examples])
  if hasattr(features[name], "int2str") and found.dtype.kind in "iu":
    return np.fromiter((None if cell < 0 else features[name].int2str(int(cell)) for cell in found), object, len(found))
  return np.fromiter(map(cells.decode, found.tolist()), object, len(found))


def files_in(folder: str) -> list[str]:
  """The files of a folder; none where it is made up, as tests do it."""
  names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
  return [path for path in (os.path.join(folder, name) for name in names) if os.path.isfile(path)]


class TfdsRows:
  """Rows [n, D] float64 of a split by index, as an array's: `rows[index]`, `len(rows)`.

  Attributes:
    wanted: (feature, its place in the flattened value) of each column.
    form: of their numbers.
    watched: the files as they were found.
    index: [n] examples; None = all.
  """

  def __init__(self, path: str, split: str, wanted: tuple[tuple[str, int], ...], form: cells.Form):
    self.path, self.split, self.wanted, self.form = path, split, wanted, form
    self.index: np.ndarray | None = None
    self.examples, _, folder = open_split(path, split)
    self.watched = Watched(*files_in(folder))

  def __getstate__(self):
    return self.__dict__ | {"examples": None}

  def __setstate__(self, state):
    self.__dict__ = state | {"examples": open_split(state["path"], state["split"])[0]}

  def __len__(self) -> int:
    return len(self.examples) if self.index is None else len(self.index)

  def __getitem__(self, index) -> np.ndarray:
    rows = np.arange(len(self))[index] if isinstance(index, slice) else np.asarray(index)
    if self.index is not None:
      rows = self.index[rows]
    found = [self.examples[row] for row in rows.tolist()]  # as fast as __getitems__, which tfds.testing lacks
    flat = {name: self.flatten(name, found) for name in dict.fromkeys(name for name, _ in self.wanted)}
    return cells.blank(self.form, np.stack([flat[name][:, d] for name, d in self.wanted], axis=1))

  def flatten(self, name: str, found: list[dict]) -> np.ndarray:
    """A feature of examples [n, width]. Raises UserError where their lengths differ."""
    values = [np.asarray(example[name], np.float64).reshape(-1) for example in found]
    if len(set(map(len, values))) > 1:
      raise UserError(f"{self.path}: feature {name!r} has values of different lengths, which make no columns")
    return np.stack(values)


def open_table(path: str, split: str, features: tuple[str, ...], label: str, group: str, *,
               form: cells.Form = cells.PLAIN, leave_out: tuple[str, ...] = (), masked: bool = False) -> tables.Table:
  """The table of a split whose features stay in its files.

  Args:
    path, split: as of `open_split`.
    features, label, group, form, leave_out, masked: as of `tables.read_file`; no features = all numeric ones but label
      and group.

  Raises:
    UserError: as `open_split` and `tables.read_file` do.
  """
  columns, examples, found = open_columns(path, split, form)
  numeric = [name for name in found if np.asarray(examples[0][name]).dtype.kind in "fiub"]
  features = tables.pick_features(columns, features or tuple(n for n in numeric if n not in (label, group)), label,
                                  group, leave_out)
  place = {part: (name, d) for name in found
           for d, part in enumerate(columns.wide[name] if name in columns.wide else (name,))}
  for name in features:
    if place[name][0] not in numeric:
      raise UserError(f"{path}: column {name!r} holds no numbers")
  for name in {label, group} - {""}:
    columns.values[name] = column(examples, found, *place[name])
  rows = TfdsRows(path, split, tuple(place[name] for name in features), form)
  return host.close_over(rows, columns, features, label, group, {"source": f"tfds {path}"}, masked)


def read_table(path: str, split: str, features: tuple[str, ...], label: str, group: str, **more) -> tables.Table:
  """The same with the features in memory."""
  table = open_table(path, split, features, label, group, **more)
  return table._replace(features=table.features[:])
