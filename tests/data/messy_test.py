"""Tables as people have them: what is read, what is refused in one line, and what is warned of."""

import os

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from jaxtrain.data import cells, files, labels, tables, writing
from jaxtrain.errors import UserError


@pytest.fixture
def write(tmp_path):
  def write(text, name="t.csv", encoding="utf-8"):
    (tmp_path / name).write_bytes(text.encode(encoding))
    return str(tmp_path / name)
  return write


def read(path, features=("a", "b"), label="", group="", kind="csv", **more):
  return tables.read_file(kind, path, "", features, label, group, **more)


def rows(*lines, header="a,b,note"):
  return "\n".join([header, *lines]) + "\n"


@pytest.mark.parametrize("text, line", [
    (rows("1,5,x", '2,6,"y', "3,7,x", "4,8,x"), 3),  # to the end of the file
    (rows("1,5,x", '2,6,"y', "3,7,x", '4,8,"z"'), 3),  # closed by the quote that opens the next cell
    (rows("1,5,x", '2,6,"y"s', "3,7,x"), 3),
    (rows('1,5,"x ""y"""', '2,6,"two', 'lines"', '3,7,"', "4,8,x"), 5),
    ('a,b,"note\n1,2,3\n4,5,6\n', 1)])
def test_a_broken_quote_is_refused_with_the_line_where_it_opens(text, line, write):
  with pytest.raises(UserError, match=f"t.csv: the quote that opens in line {line} does not close"):
    read(write(text))


def test_quotes_within_a_cell_and_doubled_ones_are_text(write):
  columns = files.read("csv", write(rows('1,5,6" pipe', '2,7,"a ""b"""', '3,9,""')))
  assert columns.values["note"].tolist() == ['6" pipe', 'a "b"', ""]


@pytest.mark.parametrize("text", ["\n", "\na,b\n1,2\n", "\r\n\r\na,b\n1,2\n"])
def test_an_empty_first_line_is_no_empty_file(text, write):
  with pytest.raises(UserError, match="its first line is empty, allowed the names of the columns"):
    read(write(text))


@pytest.mark.parametrize("kind", files.KINDS)
def test_a_pipe_is_no_file(kind, tmp_path):
  os.mkfifo(tmp_path / "pipe")
  with pytest.raises(UserError, match="pipe' as .*: it is no regular file"):
    files.read(kind, str(tmp_path / "pipe"))


def test_a_cell_larger_than_a_csv_cell_may_be_is_one_line(write):
  with pytest.raises(UserError, match="t.csv: field larger than field limit"):
    read(write(rows("1,5," + "x" * 200_000)))


def test_columns_that_are_not_used_never_make_a_file_unreadable(write):
  text = rows("1,5,x,y,,", "2,7,x,z,3,", header="a,b,note,note,,")
  columns = files.read("csv", write(text))
  assert list(columns.values) == ["a", "b", "note", "note (2)", "column 5"]  # the last one has no name and no cell
  assert columns.values["note (2)"].tolist() == ["y", "z"]
  assert read(write(text)).features.tolist() == [[1, 5], [2, 7]]
  with pytest.raises(UserError, match="column names must differ; 'note' stands more than once"):
    read(write(text), label="note")


def test_datasets_that_are_not_used_never_make_a_file_unreadable(tmp_path):
  path, x = str(tmp_path / "t.h5"), np.arange(8.0)
  with h5py.File(path, "w") as file:
    file.update({"a": x, "b": x ** 2, "other": np.arange(3), "wide": np.zeros((2, 2))})
    file["record"] = np.zeros(8, [("p", "i4"), ("q", "f8")])
    file.create_dataset("kind", data=np.arange(8) % 2, dtype=h5py.enum_dtype({"clay": 0, "sand": 1}, basetype="i"))
    file.create_dataset("lists", (8,), h5py.vlen_dtype("f8"))
    file["lists"][:] = np.array([np.arange(k % 3 + 1.0) for k in range(8)], object)
    file["bytes"] = np.array([b"\xff\xfe"] * 8)
  from jaxtrain.data import host
  for read_it in (lambda *names: read(path, *names, kind="hdf5"), lambda *names: host.open_hdf5(path, *names)):
    np.testing.assert_array_equal(read_it(("a", "b"), "", "").features[:], np.stack([x, x ** 2], 1))
    assert read_it(("a",), "kind", "").class_names == ("0", "1")
    for name, words in (("other", "'other' has 3 rows, 'a' has 8"), ("record", "records, allowed one value"),
                        ("lists", "arrays of different lengths"), ("wide_0", "has 2 rows")):
      with pytest.raises(UserError, match=f"t.h5: .*{words}"):
        read_it(("a", name), "", "")
      with pytest.raises(UserError, match=f"t.h5: .*{words}"):
        read_it(("a",), name, "")
    with pytest.raises(UserError, match="column 'bytes', row 1: .* no text in UTF-8"):
      read_it(("a",), "bytes", "")


def test_cells_that_are_no_scalar_are_one_line(tmp_path):
  path = str(tmp_path / "t.parquet")
  table = {"a": [1.0, 2.0, 4.0], "lists": [["u"], ["v"], ["w"]], "records": [{"u": 1}, {"u": 2}, {"u": 3}],
           "name": [b"clay", b"sand", b"clay"]}
  pyarrow.parquet.write_table(pyarrow.table(table), path)
  for name, word in (("lists", "a list"), ("records", "a record")):
    for fields in ((("a", name), "", ""), (("a",), name, ""), (("a",), "", name)):
      with pytest.raises(UserError, match=f"column '{name}', row 1: .* is {word}, allowed one value in a cell"):
        read(path, *fields, kind="parquet")
  assert read(path, ("a",), "name", kind="parquet").class_names == ("clay", "sand")


def test_duplicate_columns_of_parquet_that_are_not_used(tmp_path):
  table = pyarrow.table([[1.0, 2.0], ["x", "y"], ["u", "v"]], names=["a", "note", "note"])
  pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
  columns = files.read("parquet", str(tmp_path / "t.parquet"))
  assert columns.numbers("a").tolist() == [1, 2] and columns.values["note (2)"].tolist() == ["u", "v"]


def test_booleans_are_read_alike(tmp_path, write):
  arrow = pyarrow.table({"a": [1.0, 2.0, 3.0], "b": [True, False, True], "hole": [True, None, False]})
  pyarrow.parquet.write_table(arrow, tmp_path / "t.parquet")
  text = write(rows("1,True,true", "2,False,", "3,True,false", header="a,b,hole"))
  for kind, path in (("parquet", str(tmp_path / "t.parquet")), ("csv", text)):
    columns = files.read(kind, path)
    assert columns.numbers("b").tolist() == [1, 0, 1], kind
    np.testing.assert_array_equal(columns.numbers("hole"), [1, np.nan, 0])
  with pytest.raises(UserError, match="column 'b', row 2: 'True' is not a number"):
    read(write(rows("1,True,x", "2,0.5,y")))


def test_words_and_numbers_that_mean_missing(write):
  form = cells.Form(missing=(-999.25, "-9999", "-", "n.d."))
  text = rows("1,5,clay", "-999.250,6,clay", "3,-,sand", "4, N.D. ,sand", "5,-9999.0,x", "6,7,-9999", "7,9,-", "8,2,x")
  table = read(write(text), label="note", form=form)
  assert table.features.tolist() == [[1, 5], [6, 7], [7, 9], [8, 2]] and table.facts["rows_dropped"] == 4
  assert table.facts["missing"] == {"columns": ["a", "b"], "cells": [1, 3]}
  assert table.class_names == ("clay", "x") and table.label.tolist() == [0, -1, -1, 1]


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8"])
def test_numbers_that_mean_missing_in_files_of_numbers(dtype, tmp_path):
  from jaxtrain.data import host
  code = -999.9 if dtype != "i8" else -999
  x = np.array([1, 2, code, 4, 8], dtype)
  with h5py.File(tmp_path / "t.h5", "w") as file:
    file["a"] = x
  form = cells.Form(missing=(code,))
  for table in (read(str(tmp_path / "t.h5"), ("a",), kind="hdf5", form=form),
                host.open_hdf5(str(tmp_path / "t.h5"), ("a",), "", "", form=form)):
    assert table.features[:].ravel().tolist() == [1, 2, 4, 8]


@pytest.mark.parametrize("form, text", [
    (cells.Form(separator=";", decimal=","), "a;b;note\n1,5;-2;x\n1000,25;3e1;y\n"),
    (cells.Form(separator="\t", decimal=",", thousands="."), "a\tb\tnote\n1,5\t-2\tx\n1.000,25\t30\ty\n"),
    (cells.Form(thousands=","), 'a,b,note\n1.5,-2,x\n"1,000.25",30,y\n'),
    (cells.Form(separator=";", thousands=" "), "a;b;note\n1.5;-2;x\n1\u202f000.25;30;y\n"),
    (cells.Form(separator="|", thousands="'"), "a|b|note\n1.5|-2|x\n1'000.25|30|y\n")])
def test_declared_separators(form, text, write):
  assert read(write(text), form=form).features.tolist() == [[1.5, -2], [1000.25, 30]]


@pytest.mark.parametrize("cell, words", [("1,5", "config.data.decimal=','"), ("1,234", "config.data.thousands"),
                                         ("1 234.5", "config.data.thousands"), ("n.d.", "config.data.missing"),
                                         ("12 m", "not a number$"), ("1_000", "not a number$")])
def test_a_cell_that_is_no_number_names_the_field_that_may_help(cell, words, write):
  with pytest.raises(UserError, match=f"column 'b', row 3: '{cell}' is .*{words}"):
    read(write(rows("1,5,x", f'2,"{cell}",y')))


@pytest.mark.parametrize("form, cell", [
    (cells.Form(thousands=","), "1,5"), (cells.Form(decimal=",", separator=";"), "1.5"),
    (cells.Form(thousands=".", decimal=",", separator=";"), "12.34"), (cells.Form(thousands=","), "1,0000")])
def test_a_number_of_another_form_is_refused(form, cell, write):
  mark = form.separator
  with pytest.raises(UserError, match=f"'{cell}' is not a number"):
    read(write(f'a{mark}b\n1{mark}2\n3{mark}"{cell}"\n'), form=form)


MIXED = 'a,b,c,"d, e"\n1.52,x,"87,06",1.927\n2.5,y,"9,1",2.013\n'


@pytest.mark.parametrize("form", [cells.PLAIN, cells.Form(decimal=",")])
def test_a_table_that_mixes_points_and_commas_is_said_to_in_either_form(form, write):
  """Neither form reads it, so neither is suggested, and 1.927 is not taken for 1927."""
  with pytest.raises(UserError) as refused:
    read(write(MIXED), ("d, e", "c", "a"), form=form)
  assert "points before decimals in some columns (a), commas in others (c)" in str(refused.value)
  assert "thousands" not in str(refused.value) and "config.data.decimal" not in str(refused.value)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "latin-1"])
def test_encodings_are_declared_and_the_error_names_the_field(encoding, write):
  path = write(rows("1,5,Tonschiefer grün", "2,7,grau"), encoding=encoding)
  assert read(path, label="note", form=cells.Form(encoding=encoding)).class_names == ("Tonschiefer grün", "grau")
  with pytest.raises(UserError, match=f"config.data.encoding={'utf-16' if encoding == 'utf-16' else 'cp1252'}"):
    read(path)


@pytest.mark.parametrize("separator, word", [(";", "';'"), ("\t", "tab"), ("|", "'|'")])
def test_another_separator_names_the_field(separator, word, write):
  with pytest.raises(UserError) as caught:
    read(write(rows("1,5,x").replace(",", separator)))
  assert f"config.data.separator={word}" in str(caught.value)


def test_columns_by_pattern_and_columns_left_out(write):
  path = write("pixel_0,pixel_1,pixel_10,x [m],rock\n"
               + "".join(f"{i},{i * i},{3 - i},{i % 3},{'ab'[i % 2]}\n" for i in range(5)))
  assert read(path, ("pixel_*",)).feature_names == ("pixel_0", "pixel_1", "pixel_10")
  assert read(path, ("*",), "rock").feature_names == ("pixel_0", "pixel_1", "pixel_10", "x [m]")
  assert read(path, ("x [m]", "pixel_?")).feature_names == ("x [m]", "pixel_0", "pixel_1")
  assert read(path, ("*",), "rock", leave_out=("pixel_1*",)).feature_names == ("pixel_0", "x [m]")
  for fields, words in (({"features": ("*",)}, "column 'rock', row 2: 'a' is not a number.*config.data.leave_out$"),
                        ({"features": ("rock",)}, "column 'rock', row 2: 'a' is not a number.*config.data.missing$"),
                        ({"features": ()}, "alone are in --config.data.features='pixel_0,pixel_1,pixel_10,x .m.'$"),
                        ({"features": ("voxel_*",)}, "config.data.features: .* no column 'voxel_"),
                        ({"features": ("*",), "leave_out": ("rok",)}, "config.data.leave_out: .* 'rok'"),
                        ({"features": ("pixel_*",), "leave_out": ("*",)}, "leaves no features")):
    with pytest.raises(UserError, match=words):
      read(path, **fields)


def test_all_columns_with_cells_that_are_no_numbers_are_named_at_once(write):
  path = write("a,b,rock,remark\n" + "1,n/d,sand,none\n2,3,clay,wet\n")
  with pytest.raises(UserError, match="column 'b', row 2: 'n/d' is not a number.*; columns rock, remark hold such"):
    read(path, ("a", "b", "rock", "remark"))
  with pytest.raises(UserError, match="has b, of which none holds numbers alone$"):
    read(write("b\nx\ny\n"), ())


def test_a_value_that_repeats_at_an_end_is_warned_of_by_column(write):
  random = np.random.RandomState(0)
  x = random.normal(size=(50, 3))
  x[:4, 0], x[:4, 1], x[4:6, 2] = -999.25, 40.0, -50.0
  path = write("a,b,c\n" + "".join(",".join(map(repr, row)) + "\n" for row in x.tolist()))
  warned = read(path, ("a", "b", "c")).facts["warnings"]
  assert [words.split(" stands")[0] for words in warned] == ["column 'a': -999.25", "column 'b': 40"]  # c: too few
  assert "in 4 rows, at the lower end of the others (-1.98" in warned[0] and "config.data.missing" in warned[0]
  assert read(path, ("a", "b", "c"), form=cells.Form(missing=(-999.25, 40))).facts["warnings"] == []


def test_flags_and_counts_are_not_taken_for_missing(write):
  path = write("a,b\n" + "".join(f"{i % 2},{(0, 0, 1, 2, 3)[i % 5]}\n" for i in range(40)))
  assert read(path).facts["warnings"] == []


def test_an_index_of_pandas_is_noticed(write):
  text = ",a,b\n" + "".join(f"{i},{i * i % 7},{i % 3}\n" for i in range(9))
  assert read(write(text), ("*",)).facts["warnings"][0].startswith("column 'column 1' counts the rows, as an index")
  assert read(write(text), ("a", "b")).facts["warnings"] == []


@pytest.mark.parametrize("left_out, words", [((), "counts the rows, as"), ((17,), "counts the rows with gaps, as"),
                                             (range(5, 40, 5), "counts the rows with gaps, as")])
def test_an_index_is_noticed_also_where_rows_were_taken_out(left_out, words, write):
  text = "id,a\n" + "".join(f"{i},{i * i % 7}\n" for i in range(40) if i not in left_out)
  [warned] = read(write(text), ("id", "a")).facts["warnings"]
  assert warned.startswith(f"column 'id' {words} an index")


def test_repeated_values_are_counted_among_the_rows_that_are_used(write):
  path = write("a,b\n" + "".join(f"{-999 if i % 8 == 0 else i},{'' if i % 2 else i * i % 7}\n" for i in range(40)))
  [warned] = read(path).facts["warnings"]
  assert warned.startswith("column 'a': -999 stands in 5 rows of the 20 without a missing cell, at the lower end of")
  [warned] = read(path, masked=True).facts["warnings"]
  assert warned.startswith("column 'a': -999 stands in 5 rows, at the lower end of")


def test_a_column_that_hardly_varies_is_warned_of_with_its_rows(write):
  """Of 400 rows 4 differ, one of which has no cell; of another 16 do, too many for a word."""
  cell = lambda i: "" if i == 50 else "5.01" if i % 100 == 50 else "5"
  text = "a,b,c\n" + "".join(f"{cell(i)},{int(i % 25 == 0)},{i * i % 7}\n" for i in range(400))
  [warned] = read(write(text), ("*",), masked=True).facts["warnings"]
  assert warned.startswith("column 'a' is 5 in all but 3 of 399 rows, which lie far out once it is scaled; leave it")
  alike = lambda cell: ",".join([cell] * 6)
  wide = "p0,p1,p2,p3,p4,p5,x\n" + "".join(f"{alike('0')},{i * i % 7}\n" for i in range(199)) + alike("1") + ",2\n"
  [warned] = read(write(wide), ("*",)).facts["warnings"]
  assert warned.startswith("6 columns have one value in 98% of the rows or more: 'p0', 'p1', 'p2' and 3 more; the")


def test_numbers_that_rise_and_count_nothing_are_no_index(write):
  text = "a,b\n" + "".join(f"{i * i},{i + i % 2 / 4}\n" for i in range(40))  # 2 i + 1 apart; not by whole numbers
  assert read(write(text), ("a", "b")).facts["warnings"] == []


@pytest.mark.parametrize("names, counts, words", [
    (("Sand", "clay", "sand"), [5, 5, 5], "the classes 'Sand', 'sand' differ in case or spaces only"),
    (("fine  sand", "fine sand"), [5, 5], "differ in case or spaces only"),
    (("01", "1", "1.0", "2"), [5, 5, 5, 5], "the classes '01', '1', '1.0' are the same number"),
    (("1", "2", "clay"), [5, 5, 5], "some classes are numbers ('1', '2'), others words ('clay')"),
    (tuple(f"s{k}" for k in range(25)), [1] * 25, "25 classes in 25 rows: nearly every row"),
    (("a", "b", "c"), [9, 1, 1], "2 classes of one row: 'b', 'c'")])
def test_labels_that_may_be_slips_are_warned_of_by_name(names, counts, words):
  found = labels.warn("rock", names, counts)
  assert len(found) == 1 and found[0].startswith("label column 'rock': ") and words in found[0]


def test_good_labels_are_not_warned_of():
  assert labels.warn("rock", ("clay", "sand", "silt"), [5, 5, 2]) == labels.warn("k", ("0", "1", "10"), [9, 9, 9]) == []


def test_rows_with_holes_are_kept_where_they_are_masked(write):
  path = write(rows("1,5,x", ",6,x", "3,,y", ",,y", "7,9,y"))
  table = read(path, label="note", masked=True)
  np.testing.assert_array_equal(table.features, [[1, 5], [np.nan, 6], [3, np.nan], [7, 9]])
  assert (table.facts["rows"], table.facts["rows_dropped"], table.facts["rows_incomplete"]) == (4, 1, 2)
  assert table.label.tolist() == [0, 0, 1, 1] and [table.row(i) for i in (2, 3)] == ["row 4", "row 6"]
  assert tables.first_rows(table, 2).facts["rows_incomplete"] == 1
  np.testing.assert_array_equal(table.bounds, [[1, 5], [3, 6], [3, 6], [7, 9]])


def test_numbers_beyond_64_bits_are_one_line(tmp_path, write):
  with pytest.raises(UserError, match="column 'b', row 3: infinite value"):
    read(write(rows("1,5,x", "2,-1.8e309,y")))
  columns = files.Columns("t.db", {"a": np.array([1, 10**400, None], object)}, {})
  with pytest.raises(UserError, match="t.db: column 'a', row 2: an integer is more than a number of 64 bits holds"):
    columns.numbers("a")


def test_what_is_written_with_odd_columns_is_carried(write, tmp_path):
  columns = files.read("csv", write(rows("1,5,x,y", "2,7,x,z", header=",b,note,note")))
  for suffix in (".csv", ".parquet", ".npz", ".h5"):
    writing.write(str(tmp_path / f"out{suffix}"), columns.values)
    assert sorted(files.read(files.kind_of(suffix.join(["x", ""])), str(tmp_path / f"out{suffix}")).values) == [
        "b", "column 1", "note", "note (2)"]
