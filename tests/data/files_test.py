"""Files of columns: what is written comes back exactly, in every format, and damage is one line."""

import csv
import os
import sqlite3

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrain.data import cells, files, tables, writing
from jaxtrain.errors import UserError

WRITTEN = (".csv", ".parquet", ".npz", ".h5")
AWKWARD = np.array([0.1, 1 / 3, -0.0, 1e-308, 5e-324, 1.7976931348623157e308, 123456789.123456789, np.nan])
TEXT = np.array(['plain', 'with, comma', 'a "quote"', 'Ünïcode ☃', None, 'two\nlines', '', ' spaces '], object)
SINGLE = np.array([0.1, 1 / 3, -0.0, 1e-38, 1e-45, 3.4028235e38, 16777217, np.nan], np.float32)
COLUMNS = {"x [m/s]": AWKWARD, "single": SINGLE, "count": np.arange(8) - 3, "rock": TEXT}
BITS = {"single": (np.float32, np.uint32), "x [m/s]": (np.float64, np.uint64)}


@pytest.fixture
def saved(tmp_path):
  def saved(suffix, columns):
    path = str(tmp_path / f"table{suffix}")
    writing.write(path, columns)
    return path
  return saved


def read(path, table=""):
  return files.read(files.kind_of(path), path, table)


def write_database(path, tables_of):
  """An SQLite file by its own library: table -> (column names, rows)."""
  database = sqlite3.connect(path)
  for name, (columns, rows) in tables_of.items():
    database.execute(f'create table "{name}" ({", ".join(f"""{c!r}""" for c in columns)})')
    database.executemany(f'insert into "{name}" values ({", ".join("?" * len(columns))})', rows)
  database.commit()
  database.close()
  return str(path)


@pytest.mark.parametrize("suffix", WRITTEN)
def test_numbers_come_back_to_the_bit(suffix, saved):
  back = read(saved(suffix, COLUMNS))
  assert sorted(back.values) == sorted(COLUMNS) and back.num_rows == 8
  for name, (kind, bits) in BITS.items():
    found = np.array([float("nan" if cell == "" else cell) for cell in back.values[name].tolist()]).astype(kind)
    nan = np.isnan(COLUMNS[name])
    np.testing.assert_array_equal(np.isnan(found), nan)
    np.testing.assert_array_equal(found.view(bits)[~nan], COLUMNS[name].view(bits)[~nan], err_msg=name)
  assert [int(cell) for cell in back.values["count"]] == [-3, -2, -1, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("suffix", WRITTEN)
def test_text_comes_back_and_none_stays_missing(suffix, saved):
  back = read(saved(suffix, COLUMNS)).values["rock"]
  assert back.dtype == object
  missing = None if suffix == ".parquet" else ""  # the other formats have no other empty text
  assert back.tolist() == [missing if cell is None else cell for cell in TEXT]
  assert [cells.is_missing(cell) for cell in back] == [cell in (None, "") for cell in TEXT]


@settings(deadline=None, max_examples=15, derandomize=True)
@given(st.lists(st.tuples(st.floats(allow_infinity=False), st.text(st.characters(exclude_characters="\0",
                                                                                    exclude_categories=["Cs"]))),
                min_size=1, max_size=6))
def test_any_number_and_any_text_comes_back(tmp_path_factory, rows):
  folder = tmp_path_factory.mktemp("any")
  columns = {"a": np.array([a for a, _ in rows]), "b": np.array(["t" + b for _, b in rows], object)}
  for suffix in WRITTEN:
    path = str(folder / f"t{suffix}")
    writing.write(path, columns)
    back = read(path)
    found = np.array([float("nan" if cell == "" else cell) for cell in back.values["a"].tolist()])
    np.testing.assert_array_equal(found, columns["a"])
    assert back.values["b"].tolist() == columns["b"].tolist(), suffix


def test_what_is_written_is_what_other_programs_read(saved):
  with open(saved(".csv", COLUMNS), newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  assert [row["rock"] for row in rows] == [cell or "" for cell in TEXT]
  assert [float(row["x [m/s]"]) for row in rows[:7]] == AWKWARD[:7].tolist()
  table = pyarrow.parquet.read_table(saved(".parquet", COLUMNS))
  assert table.column("rock").to_pylist() == TEXT.tolist() and str(table.schema.field("single").type) == "float"
  with np.load(saved(".npz", COLUMNS), allow_pickle=False) as archive:
    np.testing.assert_array_equal(archive["single"], COLUMNS["single"])
    assert archive["rock"].dtype.kind == "U"
  with h5py.File(saved(".h5", COLUMNS), "r") as file:
    np.testing.assert_array_equal(file["x [m/s]"][()], AWKWARD)
    assert file["rock"].asstr()[0] == "plain"


def test_what_other_programs_write_is_read(tmp_path):
  """Types that our own writer has no use for: big-endian, half, boolean, nullable and dictionary columns."""
  arrow = pyarrow.table({"half": pyarrow.array(np.float16([1.5, 2, 3])), "flag": [True, False, True],
                         "nullable": pyarrow.array([1, None, 3]), "gap": pyarrow.array([1.5, None, 2.5]),
                         "rock": pyarrow.array(["a", None, "b"]).dictionary_encode()})
  pyarrow.parquet.write_table(arrow, tmp_path / "a.parquet")
  columns = read(str(tmp_path / "a.parquet"))
  assert columns.numbers("half").tolist() == [1.5, 2, 3]
  assert columns.numbers("flag").tolist() == [1, 0, 1]
  for name, want in (("nullable", [1, np.nan, 3]), ("gap", [1.5, np.nan, 2.5])):
    np.testing.assert_array_equal(columns.numbers(name), want)
  assert columns.values["rock"].tolist() == ["a", None, "b"]
  np.savez_compressed(tmp_path / "a.npz", big=np.arange(3, dtype=">f8"), rock=np.array([b"a", b"bc", b""]), scalar=3)
  columns = read(str(tmp_path / "a.npz"))
  assert columns.numbers("big").tolist() == [0, 1, 2] and columns.values["rock"].tolist() == ["a", "bc", ""]
  assert list(columns.values) == ["big", "rock"]  # what has no rows is no column


def test_wide_columns_stand_for_their_parts(tmp_path):
  x, image = np.arange(12.0).reshape(4, 3), np.arange(16).reshape(4, 2, 2)
  np.savez(tmp_path / "w.npz", x=x, image=image, y=np.arange(4))
  with h5py.File(tmp_path / "w.h5", "w") as file:
    file.update({"x": x, "image": image, "log/y": np.arange(4)})
    file["x"].attrs["columns"] = ["depth", "density", "velocity"]
  npz, hdf5 = read(str(tmp_path / "w.npz")), read(str(tmp_path / "w.h5"))
  assert npz.wide == {"x": ("x_0", "x_1", "x_2"), "image": ("image_0", "image_1", "image_2", "image_3")}
  assert hdf5.wide["x"] == ("depth", "density", "velocity") and "log/y" in hdf5.values
  for d, (plain, named) in enumerate(zip(npz.wide["x"], hdf5.wide["x"])):
    np.testing.assert_array_equal(npz.values[plain], x[:, d])
    np.testing.assert_array_equal(hdf5.values[named], x[:, d])
  np.testing.assert_array_equal(npz.values["image_2"], image[:, 1, 0])
  assert npz.expand(("y", "x")) == ("y", "x_0", "x_1", "x_2")
  table = tables.read_file("hdf5", str(tmp_path / "w.h5"), "", ("log/y", "x"), "", "")
  assert table.feature_names == ("log/y", "depth", "density", "velocity")
  np.testing.assert_array_equal(table.features, np.column_stack([np.arange(4), x]))


@pytest.mark.parametrize("names, words", [(["a", "b"], "3 wide, its attribute columns has 2 names"),
                                          (["a", "b", "a"], "'a' stands more than once"),
                                          (["a", "b", "y"], "'y' stands more than once")])
def test_names_of_parts_must_fit(names, words, tmp_path):
  path = str(tmp_path / "w.h5")
  with h5py.File(path, "w") as file:
    file.update({"x": np.zeros((4, 3)), "y": np.arange(4), "z": np.arange(4)})
    file["x"].attrs["columns"] = names
  with pytest.raises(UserError, match=f"w.h5.*{words}"):
    tables.read_file("hdf5", path, "", ("x",), "", "")
  assert tables.read_file("hdf5", path, "", ("z",), "", "").feature_names == ("z",)  # what is not used does not matter


def test_a_part_with_the_name_of_another_column_is_refused(tmp_path):
  np.savez(tmp_path / "w.npz", x=np.zeros((4, 2)), x_0=np.ones(4))
  for name in ("x", "x_0"):
    with pytest.raises(UserError, match="w.npz.*'x_0' stands more than once"):
      tables.read_file("npz", str(tmp_path / "w.npz"), "", (name,), "", "")


def test_sqlite_with_one_table_and_with_several(tmp_path):
  rows = [(1.5, "clay", None), (2, "sand", b"x"), (None, "", 3)]
  one = write_database(tmp_path / "one.db", {"cores": (("a", "rock", "c"), rows)})
  columns = read(one)
  assert columns.values["a"].tolist() == [1.5, 2, None] and columns.values["rock"].tolist() == ["clay", "sand", ""]
  np.testing.assert_array_equal(columns.numbers("a"), [1.5, 2, np.nan])
  several = write_database(tmp_path / "several.sqlite", {"cores": (("a",), [(1,)]), "odd name": (("b",), [(7,)])})
  assert read(several, "odd name").values["b"].tolist() == [7]
  for table in ("", "wells"):
    with pytest.raises(UserError, match=f"config.data.table: got '{table}'.*several.sqlite: cores, odd name$"):
      read(several, table)
  assert read(one, "cores").num_rows == 3
  with pytest.raises(UserError, match="it has none"):
    read(write_database(tmp_path / "empty.db", {}))


@pytest.mark.parametrize("name", ["50%20.db", "what?.db", "no#1.db", "ä b.db"])
def test_sqlite_files_of_any_name_are_read_and_left_alone(name, tmp_path):
  path = write_database(tmp_path / name, {"t": (("a",), [(1,), (2,)])})
  assert read(path).values["a"].tolist() == [1, 2]
  assert os.listdir(tmp_path) == [name]


def test_the_suffix_names_the_kind():
  kinds = {"a.csv": "csv", "a.CSV": "csv", "a.b.parquet": "parquet", "a.npz": "npz", "a.h5": "hdf5", "a.hdf5": "hdf5",
           "a.db": "sqlite", "a.sqlite": "sqlite"}
  assert {path: files.kind_of(path) for path in kinds} == kinds
  for path in ("a.xlsx", "a", "a.csv.gz"):
    with pytest.raises(UserError, match=f"{path}: the suffix"):
      files.kind_of(path)
  with pytest.raises(UserError, match="a.db: cannot write sqlite"):
    writing.write("a.db", {"a": np.arange(2)})


@pytest.mark.parametrize("suffix", WRITTEN)
def test_a_write_that_fails_leaves_the_old_file(suffix, tmp_path, monkeypatch):
  path = str(tmp_path / f"t{suffix}")
  writing.write(path, {"a": np.arange(3.0)})
  kind = files.kind_of(path)
  writer = writing.WRITERS[kind]

  def fail_at_the_end(fresh, columns):
    writer(fresh, columns)
    raise OSError(28, "No space left on device")

  monkeypatch.setitem(writing.WRITERS, kind, fail_at_the_end)
  with pytest.raises(OSError, match="No space"):
    writing.write(path, {"a": np.arange(5.0)})
  assert os.listdir(tmp_path) == [f"t{suffix}"] and read(path).num_rows == 3


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("name", ["file", "allow_pickle", "a/b", "self", "x,y", "ünï"])
def test_columns_of_any_name_are_written(suffix, name, saved):
  assert [float(v) for v in read(saved(suffix, {name: np.arange(3.0), "other": np.ones(3)})).values[name]] == [0, 1, 2]


@pytest.mark.parametrize("suffix", WRITTEN)
def test_cells_of_several_types_in_a_column_are_written(suffix, saved):
  """As SQLite may have them."""
  back = read(saved(suffix, {"a": np.array([1, "two", 3.5, None], object)})).values["a"]
  assert ["" if cell is None else cell for cell in back] == ["1", "two", "3.5", ""]


@pytest.mark.parametrize("suffix", [*WRITTEN, ".db"])
def test_damage_is_one_line_that_names_the_file_or_goes_unseen(suffix, tmp_path):
  """Cut anywhere, or with bytes changed: no error but UserError leaves `read`."""
  path, random = str(tmp_path / f"t{suffix}"), np.random.RandomState(0)
  columns = {"a": random.normal(size=50), "b": np.array(["clay", "sand"] * 25, object)}
  if suffix == ".db":
    write_database(path, {"t": (("a", "b"), list(zip(*(c.tolist() for c in columns.values()))))})
  elif suffix == ".npz":
    np.savez_compressed(path, a=columns["a"], b=columns["b"].astype(str))
  else:
    writing.write(path, columns)
  with open(path, "rb") as file:
    good = file.read()
  said = 0
  for k in range(120):
    bad = bytearray(good[:random.randint(len(good))] if k % 2 else good)
    if k % 2 == 0:
      for place in random.randint(len(bad), size=3):
        bad[place] = random.randint(256)
    with open(path, "wb") as file:
      file.write(bad)
    try:
      read(path)
    except UserError as error:
      assert path in str(error) and "\n" not in str(error), error
      said += 1
  assert said >= (1 if suffix == ".csv" else 30)


@pytest.mark.parametrize("suffix", WRITTEN)
def test_a_file_is_replaced_whole(suffix, tmp_path):
  """What had the old file open goes on reading it: the new one is another file under its name."""
  path, old = str(tmp_path / f"t{suffix}"), str(tmp_path / f"old{suffix}")
  writing.write(path, {"a": np.arange(3.0)})
  os.link(path, old)
  writing.write(path, {"a": np.arange(5.0)})
  assert (read(old).num_rows, read(path).num_rows) == (3, 5)


def test_numbers_of_a_csv_file_are_numbers_in_the_others_and_names_stay_names(tmp_path):
  columns = {"depth": np.array(["1.5", "", "-2e3"], object), "hole": np.array(["007", "12", "3"], object),
             "empty": np.array(["", "", ""], object),
             "number": np.array(["123456789012345678", "-3", "0"], object)}
  for suffix in (".parquet", ".npz", ".h5"):
    path = str(tmp_path / f"t{suffix}")
    writing.write(path, columns)
    back = files.read(files.kind_of(path), path)
    np.testing.assert_array_equal(back.values["depth"], [1.5, np.nan, -2000])
    assert back.values["number"].tolist() == [123456789012345678, -3, 0]
    assert back.values["depth"].dtype == np.float64 and back.values["hole"].tolist() == ["007", "12", "3"]
    assert back.values["empty"].tolist() == ["", "", ""]
  writing.write(str(tmp_path / "t.csv"), {"a": np.array([0.5, np.nan]), "b": np.array([1, 2])})
  assert (tmp_path / "t.csv").read_text() == "a,b\n0.5,1\n,2\n"
