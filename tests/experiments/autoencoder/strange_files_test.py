"""Mutated files of events and of images: read as events of finite numbers, or refused in a few lines, in bounded memory
and time.
"""

import time
import tracemalloc

import numpy as np
import pytest

import made_events
import strange_files
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import event_files, idx_files

MOST_MEMORY, MOST_SECONDS = 64 << 20, 5.0


def read_hdf5(path):
  """Numbers of all events of a file."""
  parts = event_files.read_hdf5(path, event_files.DATASETS, 18)
  return [column for events in parts.values() for column in events]


def read_csv(path):
  """Numbers of all events of a file."""
  return list(event_files.read_csv(path, 18, "GeV")[0])


def read_idx(path):
  """The images of a file."""
  return [idx_files.read(path, 3)]


def written(folder):
  """{name: (path, how it is read)} of whole files."""
  made_events.write_images(folder, 6, 4)
  return {"hdf5": (made_events.write_hdf5(folder, 30), read_hdf5), "csv": (made_events.write_csv(folder, 12), read_csv),
          "idx": (str(folder / idx_files.FILES["train"][0]), read_idx)}


def assert_strange_files_are_harmless(kind, count, folder):
  """So many mutations of a file; some of them are read and some refused."""
  path, read = written(folder)[kind]
  with open(path, "rb") as file:
    whole = file.read()
  random, seen = np.random.default_rng(count), set()
  tracemalloc.start()
  try:
    for _ in range(count):
      with open(path, "wb") as file:
        file.write(strange_files.mutated(random, whole))
      tracemalloc.reset_peak()
      before = time.monotonic()
      try:
        assert all(np.isfinite(column).all() for column in read(path))
        seen.add("read")
      except UserError as error:
        assert len(str(error).splitlines()) <= 4 and "Traceback" not in str(error)
        seen.add("refused")
      assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY and time.monotonic() - before < MOST_SECONDS
  finally:
    tracemalloc.stop()
  assert seen == {"read", "refused"}


@pytest.mark.parametrize("kind, count", (("hdf5", 40), ("csv", 60), ("idx", 100)))
def test_mutated_files(kind, count, tmp_path):
  """Dozens of each."""
  assert_strange_files_are_harmless(kind, count, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("hdf5", "csv", "idx"))
def test_three_thousand_mutated_files(kind, tmp_path):
  """3,000 of each."""
  assert_strange_files_are_harmless(kind, 3000, tmp_path)
