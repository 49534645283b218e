"""Reading CSV files: what comes out, and one line of complaint for each thing that can be wrong with a file."""

import hashlib

import numpy as np
import pytest

from jaxtrain.data import files, tables
from jaxtrain.errors import UserError

GOOD = """well,GRA,lithology,MS,R
346-U1422-A,1.5,clay,-12.5,40
346-U1422-A,1.6,"nannofossil ooze, with clay",3e2,41.5
351-U1438-B,1.7,clay,0.25,42
351-U1438-B,1.9,,8,43
"""


@pytest.fixture
def write(tmp_path):
  def write(text, name="table.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)
  return write


def read(path, features=("MS", "GRA"), label="lithology", group="well"):
  return tables.read_file("csv", path, "", features, label, group)


def complaint(path, *words, **columns):
  """The message of the error, which is one line and holds the words."""
  with pytest.raises(UserError) as caught:
    read(path, **columns)
  message = str(caught.value)
  assert "\n" not in message
  for word in words:
    assert word in message, message


def test_columns_are_picked_by_name(write):
  path = write(GOOD)
  table = read(path)
  np.testing.assert_array_equal(table.features, [[-12.5, 1.5], [300, 1.6], [0.25, 1.7], [8, 1.9]])
  assert table.features.dtype == np.float64 and table.feature_names == ("MS", "GRA")
  assert table.class_names == ("clay", "nannofossil ooze, with clay")
  assert table.label.tolist() == [0, 1, 0, -1] and table.label.dtype == np.int32
  assert table.group.tolist() == ["346-U1422-A"] * 2 + ["351-U1438-B"] * 2
  assert table.facts == {"source": path, "sha256": hashlib.sha256(GOOD.encode()).hexdigest(), "rows": 4,
                         "rows_dropped": 0, "rows_unlabelled": 1, "class_rows": [2, 1],
                         "missing": {"columns": [], "cells": []}, "warnings": [], "label_warnings": [
                             "label column 'lithology': 1 class of one row: 'nannofossil ooze, with clay'"]}


def test_label_and_group_are_optional(write):
  table = read(write(GOOD), label="", group="")
  assert table.label is None and table.group is None and table.class_names == ()


@pytest.mark.parametrize("text", [
    "\ufeff" + GOOD, GOOD.replace("\n", "\r\n"), GOOD.replace("\n", "\n\n"), GOOD.rstrip("\n"),
    GOOD.replace("well,GRA", "well, GRA "), GOOD.replace("1.6", '"1.6"').replace("3e2", " 3e2 ")])
def test_byte_order_mark_line_ends_quotes_and_blanks_do_not_matter(write, text):
  table, plain = read(write(text)), read(write(GOOD, "plain.csv"))
  np.testing.assert_array_equal(table.features, plain.features)
  np.testing.assert_array_equal(table.label, plain.label)
  assert table.class_names == plain.class_names and table.group.tolist() == plain.group.tolist()


def test_quoted_cells_may_hold_quotes_and_line_breaks(write):
  table = read(write('a,b,c\n1,2,"x ""y"", z"\n3,4,"two\nlines"\n5,7,"x ""y"", z"\n'), ("a", "b"), "c", "")
  assert table.class_names == ("two\nlines", 'x "y", z') and table.label.tolist() == [1, 0, 1]


@pytest.mark.parametrize("missing", ["", "NaN", "nan", "NA", "null", "None", "  "])
def test_rows_with_a_missing_number_are_dropped_and_counted(write, missing):
  table = read(write(GOOD.replace("-12.5", missing)))
  np.testing.assert_array_equal(table.features[:, 1], [1.6, 1.7, 1.9])
  assert table.label.tolist() == [1, 0, -1] and table.group[0] == "346-U1422-A" and len(table.group) == 3
  assert (table.facts["rows"], table.facts["rows_dropped"], table.facts["rows_unlabelled"]) == (3, 1, 1)


def test_a_class_that_goes_with_its_dropped_rows_has_no_number(write):
  text = GOOD + "x,,basalt,1,1\ny,2.0,sand,1,1\n"
  table = read(write(text))
  assert table.class_names == ("clay", "nannofossil ooze, with clay", "sand")
  assert table.label.tolist() == [0, 1, 0, -1, 2]


@pytest.mark.parametrize("missing", ["", " ", "NaN", "NA", "null"])
def test_missing_labels_are_minus_one(write, missing):
  text = GOOD.replace("1.7,clay", f"1.7,{missing}").replace("1.9,", "1.9,clay")
  assert read(write(text)).label.tolist() == [0, 1, -1, 0]


def test_labels_that_look_like_numbers_stay_names(write):
  table = read(write("a,c\n1,10\n2,9\n3,10\n"), ("a",), "c", "")
  assert table.class_names == ("9", "10") and table.label.tolist() == [1, 0, 1]


def test_a_file_that_cannot_be_read(write, tmp_path):
  complaint(str(tmp_path / "absent.csv"), "config.data.path", "absent.csv", "no such file")
  complaint(str(tmp_path), "config.data.path", str(tmp_path))
  complaint(write("a,b\n1,é\n".encode("latin-1")), "config.data.path", "table.csv")


def test_an_empty_file_and_a_header_alone(write):
  complaint(write(""), "table.csv", "empty")
  complaint(write("well,GRA,lithology,MS,R\n"), "table.csv", "no rows")


@pytest.mark.parametrize("field", ["features", "label", "group"])
def test_a_column_that_is_not_there(write, field):
  columns = {"features": {"features": ("GRA", "NGR")}, "label": {"label": "NGR"}, "group": {"group": "NGR"}}[field]
  complaint(write(GOOD), f"config.data.{field}", "table.csv", "'NGR'", "well, GRA, lithology, MS, R", **columns)


def test_no_features_asked_for(write):
  complaint(write(GOOD), "config.data.features", features=())


@pytest.mark.parametrize("cell", ["n.d.", "1,5", "12 m", "0x1F", "--"])
def test_text_in_a_number_column_names_column_row_and_cell(write, cell):
  complaint(write(GOOD.replace("0.25", f'"{cell}"')), "table.csv", "'MS'", "row 4", repr(cell))


@pytest.mark.parametrize("cell", ["inf", "-inf", "Infinity", "1e999"])
def test_an_infinite_number_names_column_and_row(write, cell):
  complaint(write(GOOD.replace("0.25", cell)), "table.csv", "'MS'", "row 4")


def test_the_row_named_is_the_line_of_the_file_also_behind_blank_lines(write):
  complaint(write(GOOD.replace("351-U1438-B,1.7", "\n\n351-U1438-B,1.7").replace("0.25", "bad")), "'MS'", "row 6")


def test_columns_without_information(write):
  columns = {"features": ("a", "b"), "label": "", "group": ""}
  complaint(write("a,b\n1,\n2,NaN\n3,\n"), "table.csv", "'b'", "empty in every row", **columns)
  complaint(write("a,b\n1,5\n2,5\n3,5.0\n"), "table.csv", "'b'", "constant (5)", **columns)
  complaint(write("a,b\n1,5\n2,5\n,6\n"), "table.csv", "'b'", "constant (5)", **columns)  # in the complete rows


@pytest.mark.parametrize(("rows", "words"), [("1,5\n", "1 of 1 rows"), ("1,5\n2,\n3,\n", "1 of 3 rows")])
def test_a_single_row_is_too_few_and_not_called_constant(write, rows, words):
  complaint(write("a,b\n" + rows), "table.csv", words, "too few; 2 at least", features=("a", "b"), label="", group="")


def test_no_row_is_complete(write):
  complaint(write("a,b\n1,\n,2\n"), "table.csv", "2 rows", features=("a", "b"), label="", group="")


@pytest.mark.parametrize("line", ["x,1.0,clay,2", "x,1.0,clay,2,3,4", "x"])
def test_a_row_with_another_number_of_cells(write, line):
  complaint(write(GOOD + line + "\n"), "table.csv", "row 6", "cells", "5")


def test_a_name_that_stands_twice_in_the_header(write):
  complaint(write(GOOD.replace("R\n", "GRA\n", 1)), "table.csv", "'GRA'", "more than once")


def test_fewer_than_two_classes(write):
  complaint(write(GOOD.replace('"nannofossil ooze, with clay"', "clay")), "table.csv", "'lithology'", "1 classes")
  complaint(write("a,c\n1,\n2,NA\n"), "'c'", "0 classes", features=("a",), label="c", group="")


def test_the_first_rows(write):
  table = tables.first_rows(read(write(GOOD)), 2)
  assert len(table.features) == len(table.label) == len(table.group) == table.facts["rows"] == 2
  assert len(tables.first_rows(read(write(GOOD)), 99).features) == 4


@pytest.mark.parametrize("name, rows, columns, classes", [("iris", 150, 4, 3), ("breast_cancer", 569, 30, 2)])
def test_tables_of_scikit_learn(name, rows, columns, classes):
  table = tables.read_sklearn(name)
  assert table.features.shape == (rows, columns) and len(table.feature_names) == columns
  assert len(table.class_names) == classes and sorted(set(table.label.tolist())) == list(range(classes))
  with pytest.raises(UserError, match="'boston'.*iris"):
    tables.read_sklearn("boston")


def test_a_numeric_label_with_nan_is_unlabelled_there():
  columns = files.Columns("t.npz", {"a": np.arange(4.0), "c": np.array([0.0, np.nan, 1.0, np.nan])}, {})
  table = tables.from_columns(columns, ("a",), "c", "", {})
  assert table.label.tolist() == [0, -1, 1, -1] and table.class_names == ("0.0", "1.0")


def test_columns_beside_the_features_follow_the_rows(write):
  path = write("well,MS,depth\na,1,0.2\nb,,0.4\na,3,\nb,4,0.8\n")
  table = tables.read_file("csv", path, "", ("MS",), "", "well", beside=("depth",))
  np.testing.assert_array_equal(table.truth["depth"], [0.2, np.nan, 0.8])  # the row without MS is left out
  assert tables.read_file("csv", path, "", ("*",), "", "well", beside=("depth",)).feature_names == ("MS",)
  with pytest.raises(UserError, match="config.eval.transfer: .* has no column 'CaCO3'; it has well, MS, depth"):
    tables.read_file("csv", path, "", ("MS",), "", "well", beside=("CaCO3",))
