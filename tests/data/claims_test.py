"""Files made to harm: they show what other files hold, claim what they do not hold, or unfold without end."""

import io
import math
import os
import sqlite3
import zipfile

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from jaxtrain import memory
from jaxtrain.data import files, host, sqlite_files, tables
from jaxtrain.errors import UserError
from jaxtrain.workdir import jsonfile, lines, reading

ROOM = 1 << 20  # of a machine with little memory, where a test says so


@pytest.fixture
def small(monkeypatch):
  monkeypatch.setattr(memory, "free_bytes", lambda: int(ROOM / memory.SHARE))


def refusal(read, *args) -> str:
  """The one line in which a file is refused."""
  with pytest.raises(UserError) as caught:
    read(*args)
  assert len(str(caught.value).splitlines()) == 1
  return str(caught.value)


READERS = {"in memory": lambda path: files.read("hdf5", path),
           "out of core": lambda path: host.open_hdf5(path, ("a",), "", "")}


def external(folder, file):
  (folder / "secret").write_bytes(np.arange(8.0).tobytes())
  file.create_dataset("a", shape=(8,), dtype="f8", external=[(str(folder / "secret"), 0, 64)])


def virtual(folder, file):
  with h5py.File(folder / "secret", "w") as other:
    other["x"] = np.arange(8.0)
  layout = h5py.VirtualLayout(shape=(8,), dtype="f8")
  layout[:] = h5py.VirtualSource(str(folder / "secret"), "x", shape=(8,))
  file.create_virtual_dataset("a", layout)


def linked(folder, file):
  with h5py.File(folder / "secret", "w") as other:
    other["x"] = np.arange(8.0)
  file["b"] = np.arange(8.0)
  file["a"] = h5py.ExternalLink(str(folder / "secret"), "x")


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("make, what", [(external, "a dataset with external storage"), (virtual, "a virtual dataset"),
                                        (linked, "a link into another file")])
def test_no_hdf5_file_shows_what_another_holds(make, what, read, tmp_path):
  path = str(tmp_path / "a.h5")
  with h5py.File(path, "w") as file:
    make(tmp_path, file)
  assert refusal(read, path).endswith(f"{path}: 'a' is {what}, which shows what other files hold; copy its values into "
                                      "this one")


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("shape", [(10 ** 12,), (0, 10 ** 12), (2, 10 ** 7, 10 ** 7)])
def test_an_hdf5_file_of_hardly_a_byte_that_claims_terabytes(shape, read, tmp_path):
  path = str(tmp_path / "a.h5")
  with h5py.File(path, "w") as file:
    file.create_dataset("a", shape=shape, dtype="f8", chunks=tuple(min(n, 100) for n in shape) if shape[0] else None)
  assert os.path.getsize(path) < 10_000 and "unfolds to" in refusal(read, path)


def test_text_that_is_there_once_and_meant_often(small, tmp_path):
  path = str(tmp_path / "a.parquet")
  column = pyarrow.DictionaryArray.from_arrays(np.zeros(4000, np.int32), ["x" * 1000])
  pyarrow.parquet.write_table(pyarrow.table({"a": column.cast("string")}), path)
  assert os.path.getsize(path) < 10_000
  assert "what it holds unfolds to" in refusal(files.read, "parquet", path)


def test_rows_that_are_written_in_no_space(small, tmp_path):
  path = str(tmp_path / "a.parquet")
  pyarrow.parquet.write_table(pyarrow.table({"a": np.zeros(10 ** 6)}), path)
  assert os.path.getsize(path) < ROOM / 10 and "unfolds to" in refusal(files.read, "parquet", path)


def archive(path, headers, compression=zipfile.ZIP_DEFLATED):
  """An .npz file of arrays of so many zeros; a header may claim another number."""
  with zipfile.ZipFile(path, "w", compression) as made:
    for name, (claimed, held) in headers.items():
      header = io.BytesIO()
      np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (claimed,)})
      made.writestr(name, header.getvalue() + bytes(8 * held))


@pytest.mark.parametrize("headers, says", [
    ({"a.npy": (10 ** 13, 3)}, "unfolds to 74,505.8 GiB"), ({"a.npy": (10 ** 5, 10 ** 5), "b.npy": (10 ** 5,) * 2},
                                                           "unfolds to 0.0 GiB"),
    ({"a.npy": (3, 3), "b": (3, 3)}, "b is no array"), ({"a.npy": (5, 3)}, "cannot read")])
def test_an_archive_is_believed_by_its_headers(headers, says, small, tmp_path):
  path = str(tmp_path / "a.npz")
  archive(path, headers)
  assert says in refusal(files.read, "npz", path)


def test_arrays_of_a_run_that_unfold_too_far_are_left_out_of_its_page(small, tmp_path):
  archive(tmp_path / "a.npz", {"a.npy": (10 ** 6, 10 ** 6)})
  assert os.path.getsize(tmp_path / "a.npz") < ROOM / 10
  with pytest.raises(ValueError, match="unfolds to"):
    reading.read_arrays(str(tmp_path / "a.npz"))


def database(path, view):
  made = sqlite3.connect(path)
  made.execute(f"create view t as {view}")
  made.commit()
  made.close()
  return str(path)


ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n"


def test_a_view_without_an_end(small, tmp_path):
  assert "what it holds unfolds to" in refusal(files.read, "sqlite", database(tmp_path / "a.db", ENDLESS))


def test_a_view_without_an_end_and_without_a_row(tmp_path, monkeypatch):
  monkeypatch.setattr(sqlite_files, "IDLE_STEPS", 3 * sqlite_files.STEPS)
  path = database(tmp_path / "a.db", ENDLESS + " where i < 0")
  assert "its view gave no row for 3,000,000 steps and may have no end" in refusal(files.read, "sqlite", path)


def test_a_cell_of_a_gigabyte(tmp_path):
  path = database(tmp_path / "a.db", "select zeroblob(1000000000) as a")
  assert "too big" in refusal(files.read, "sqlite", path)


def test_a_query_may_take_its_time_where_rows_come(tmp_path, monkeypatch):
  monkeypatch.setattr(sqlite_files, "IDLE_STEPS", 20_000)
  monkeypatch.setattr(sqlite_files, "STEPS", 10_000)
  path = database(tmp_path / "a.db", f"{ENDLESS} limit 9000")  # some 100,000 steps
  assert files.read("sqlite", path).num_rows == 9000


def test_text_with_many_cells(small, tmp_path):
  path = tmp_path / "a.csv"
  path.write_text("a,b\n" + "1,2\n" * 100_000)
  assert path.stat().st_size < ROOM and "what it holds unfolds to" in refusal(files.read, "csv", str(path))


@pytest.mark.parametrize("kind", files.KINDS)
def test_a_file_larger_than_memory(kind, small, tmp_path):
  path = tmp_path / "a"
  with open(path, "wb") as file:
    file.truncate(1 << 40)  # of which the disk holds nothing
  assert "the file unfolds to 1,024.0 GiB" in refusal(files.read, kind, str(path))


def test_records_larger_than_memory_and_pipes_are_not_read(small, tmp_path):
  path = tmp_path / "config.json"
  with open(path, "wb") as file:
    file.truncate(1 << 40)
  assert "unfolds to" in refusal(jsonfile.read_object, str(path), {})
  os.mkfifo(tmp_path / "pipe")
  assert "it is no file" in refusal(jsonfile.read_object, str(tmp_path / "pipe"), {})
  with pytest.raises(OSError, match="it is no file"):
    lines.read("/dev/zero")


def test_what_fits_is_read(tmp_path):
  path = str(tmp_path / "a.h5")
  with h5py.File(path, "w") as file:
    file["a"], file["text"] = np.arange(20_000.0), np.array([f"n{i}" for i in range(20_000)], object)
    file["soft"] = h5py.SoftLink("/a")
  found = files.read("hdf5", path)
  assert found.values["a"].tolist() == list(range(20_000)) and found.values["text"][-1] == "n19999"
  assert math.isclose(tables.read_file("hdf5", path, "", ("a",), "", "").features.sum(), 20_000 * 19_999 / 2)
