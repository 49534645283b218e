"""A small table of drill cores in every format that there is a source for, and a TFDS dataset of other columns.

A module at the top, because TFDS and worker processes import builders by name.
"""

import csv
import os
import sqlite3

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import tensorflow_datasets as tfds

FEATURES = ("density", "velocity", "porosity")
NUM_ROWS, MIXED_ROWS = 330, 40


def table(num_rows=NUM_ROWS):
  """Columns: three float64 features with NaN here and there, `rock` (None = not described), and `hole`.

  The numbers have the digits of float32, which is all that TFDS keeps of a number.
  """
  random = np.random.RandomState(0)
  rock = random.randint(3, size=num_rows)
  columns = {name: np.float64(np.float32(random.normal(10 ** d, 1 + d, num_rows) + rock))
             for d, name in enumerate(FEATURES)}
  columns["velocity"][::41] = np.nan
  columns["porosity"][7::97] = np.nan
  names = np.array(["clay", "sand, fine", "chalk \"x\""], object)[rock]
  names[::9] = None
  return columns | {"rock": names, "hole": np.array([f"U{i // 15:02d}" for i in range(num_rows)], object)}


class Cores(tfds.core.GeneratorBasedBuilder):
  """The table as a TFDS dataset."""
  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    scalar = tfds.features.Scalar(np.float64)
    features = {name: scalar for name in FEATURES} | {"rock": tfds.features.Text(), "hole": tfds.features.Text()}
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features),
                                 disable_shuffling=True)

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    columns = table()
    for i in range(NUM_ROWS):
      yield i, {name: "" if column[i] is None else column[i] for name, column in columns.items()}


class Mixed(tfds.core.GeneratorBasedBuilder):
  """A class label, a text, a vector, a scalar of each kind, and two splits."""
  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    features = {"spectrum": tfds.features.Tensor(shape=(3,), dtype=np.float32), "count": tfds.features.Scalar(np.int64),
                "rock": tfds.features.ClassLabel(names=["clay", "sand"]), "name": tfds.features.Text()}
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True)

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples(0), "test": self._generate_examples(100)}

  def _generate_examples(self, first):
    for i in range(MIXED_ROWS if first == 0 else 5):
      yield i, {"spectrum": spectrum()[i] + first, "count": i * 7 - 3, "rock": i % 2 if i % 5 else -1,
                "name": f"é{i % 4}"}


def spectrum():
  """The vectors of the other dataset."""
  return np.random.RandomState(2).normal(size=(MIXED_ROWS, 3)).astype(np.float32)


def prepare(folder, made=Cores):
  """Prepares a TFDS dataset; returns its folder."""
  builder = made(data_dir=str(folder), file_format="array_record")
  builder.download_and_prepare()
  return str(builder.data_path)


def write(source, folder):
  """Writes the table for a source by that format's own library; returns its path."""
  columns = table()
  text = {name: np.array(["" if v is None else v for v in column]) if column.dtype == object else column
          for name, column in columns.items()}
  rows = list(zip(*(column.tolist() for column in columns.values())))
  path = os.path.join(str(folder), f"cores.{source}")
  if source == "tfds":
    return prepare(folder)
  if source == "csv":
    with open(path, "w", newline="", encoding="utf-8") as file:
      csv.writer(file).writerows([list(columns), *(["" if v is None or v != v else v for v in row] for row in rows)])
  elif source == "parquet":
    pyarrow.parquet.write_table(pyarrow.table({name: column.tolist() for name, column in columns.items()}), path)
  elif source == "npz":
    np.savez_compressed(path, **text)
  elif source == "hdf5":
    with h5py.File(path, "w") as file:
      for name, column in text.items():
        file[name] = column if column.dtype.kind == "f" else column.astype(h5py.string_dtype())
  elif source == "sqlite":
    database = sqlite3.connect(path)
    database.execute("create table cores (density real, velocity real, porosity real, rock text, hole text)")
    database.executemany("insert into cores values (?, ?, ?, ?, ?)", rows)
    database.commit()
    database.close()
  return path
