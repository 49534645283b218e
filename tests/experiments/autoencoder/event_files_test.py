"""Files of events: round trips, a file laid out by hand, and files that are refused in one line."""

import h5py
import numpy as np
import pytest

import made_events
from jaxtrain import memory
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import event_files, events as events_lib

NAMES = event_files.DATASETS
LINES = ["0;4top;1;50000;-1.5;j,200000,100000,1.0,0.5;b,90000,80000,-0.4,3.0;e-,30000,29000,0.1,-2;m+,9,8,0,0",
         "1; ttbarHiggs ;2.5; 10000; 0.25; g, 60000, 50000, 0.6, 0.1 ;",
         "", "2;njets;0.5;0;0"]


def rows_by_hand(num_rows=3, num_slots=2):
  """Rows [N, 5 T + 2] of numbers that say where they stand."""
  rows = np.zeros((num_rows, 5 * num_slots + 2), np.float64)
  rows[:, 0], rows[:, num_slots], rows[:, num_slots + 1] = 2, 30.0, 0.5
  rows[:, num_slots + 2:num_slots + 6] = 100, 80, -0.5, 1.5
  return rows


def write(path, **datasets):
  """An HDF5 file of the three parts, other datasets in their place; None leaves one out."""
  rows = rows_by_hand()
  found = {"X_train": rows, "X_val": rows[:2], "X_test": rows[:1], "Y_train": [1, 2, 3], "y_val": [4, 5], "y_test": [1]}
  with h5py.File(path, "w") as file:
    for name, value in (found | datasets).items():
      if value is not None:
        file[name] = value
  return str(path)


def test_columns_of_a_row(tmp_path):
  """Types, then MET and its azimuth, then E, pT, eta and phi of each slot; [N, 1] labels are labels."""
  path = write(tmp_path / "a.h5", Y_train=np.array([[1], [2], [3]]))
  found = event_files.read_hdf5(path, NAMES, 2)
  assert list(found) == ["train", "val", "test"] and [len(part.ids) for part in found.values()] == [3, 2, 1]
  np.testing.assert_array_equal(found["train"].ids, [[2, 0]] * 3)
  np.testing.assert_array_equal(found["train"].globals, np.float32([[30, 0.5]] * 3))
  np.testing.assert_array_equal(found["train"].momenta[0], np.float32([[100, 80, -0.5, 1.5], [0] * 4]))
  assert found["train"].label.tolist() == [1, 2, 3] and found["val"].label.tolist() == [4, 5]
  assert (found["train"].weight == 1).all()


def test_written_events_come_back_bit_for_bit(tmp_path):
  path = str(tmp_path / "a.h5")
  parts = {part: made_events.draw(10 + k, seed=k) for k, part in enumerate(event_files.PARTS)}
  parts["test"] = parts["test"]._replace(weight=np.ones(12, np.float32))
  event_files.write_hdf5(path, parts)
  found = event_files.read_hdf5(path, NAMES | {"w_train": "w_train", "w_val": "w_val"}, 6)
  for part, events in parts.items():
    for want, got in zip(events, found[part]):
      np.testing.assert_array_equal(want, got)
  with h5py.File(path) as file:
    assert set(file) == {*filter(None, NAMES.values()), "w_train", "w_val"} and file["X_train"].shape == (10, 32)


def test_datasets_have_other_names_or_none(tmp_path):
  rows = rows_by_hand()
  path = write(tmp_path / "a.h5", X_train=None, y_val=None, **{"mc/rows": rows, "mc/weights": [0.5, 1, 2]})
  names = NAMES | {"x_train": "mc/rows", "y_train": "", "w_train": "mc/weights", "y_val": "", "x_test": "",
                   "y_test": "none"}
  found = event_files.read_hdf5(path, names, 2)
  assert list(found) == ["train", "val"] and found["train"].weight.tolist() == [0.5, 1, 2]
  assert not found["train"].label.any() and not found["val"].label.any()


def bad_rows(place, value):
  """Rows with one number changed in row 2."""
  rows = rows_by_hand()
  rows[1, place] = value
  return rows


@pytest.mark.parametrize("changed,names,words", [
    ({}, {"x_train": "X"}, "config.data.datasets.x_train: {path} has no dataset 'X'; it has X_test, X_train, X_val, "),
    ({"y_val": None}, {}, "config.data.datasets.y_val: {path} has no dataset 'y_val'; it has X_test, X_train, X_val, "
                          "Y_train, y_test; --config.data.datasets.y_val='' reads without it"),
    ({"X_train": rows_by_hand()[:, :-1]}, {}, "{path}: dataset 'X_train': its shape is (3, 11), allowed rows of 12"),
    ({part: rows_by_hand(3, 4) for part in ("X_train", "X_val", "X_test")}, {}, "{path}: dataset 'X_train': its shape "
     "is (3, 22), allowed rows of 12 numbers, which are 2 types, MET, its azimuth, and 2 times E, pT, eta, phi; "
     "4 slots have so many: --config.data.num_slots=4"),
    ({"X_train": np.zeros((3, 2))}, {}, "{path}: dataset 'X_train': its shape is (3, 2), allowed rows of 12 numbers, "
     "which are 2 types, MET, its azimuth, and 2 times E, pT, eta, phi"),
    ({"X_train": np.zeros(3)}, {}, "{path}: dataset 'X_train': its shape is (3,), allowed rows of 12 numbers"),
    ({"X_train": bad_rows(0, -1)}, {}, "{path}: dataset 'X_train': the type of an object in event 2 is -1, allowed"),
    ({"X_train": bad_rows(1, 0.5)}, {}, "{path}: dataset 'X_train': the type of an object in event 2 is 0.5, allowed"),
    ({"X_val": bad_rows(5, np.nan)[:2]}, {}, "{path}: dataset 'X_val': the momenta of event 2 are not all finite"),
    ({"X_train": bad_rows(2, np.inf)}, {}, "{path}: dataset 'X_train': the globals of event 2 are not all finite"),
    ({"Y_train": [1, 2]}, {}, "{path}: dataset 'Y_train' has 2 rows, 'X_train' has 3; both must have as many"),
    ({"w": [1.0, -1.0, 1.0]}, {"w_train": "w"}, "{path}: dataset 'X_train': the weight of event 2 is -1, allowed 0"),
    ({"Y_train": [b"a", b"b", b"c"]}, {}, "{path}: dataset 'Y_train' does not hold numbers"),
    ({"X_train": np.zeros((0, 12)), "Y_train": np.zeros(0)}, {}, "{path}: dataset 'X_train': no events"),
    ({}, dict.fromkeys(NAMES, ""), "config.data.datasets: no names of rows")])
def test_a_file_that_does_not_fit_is_refused_in_a_line(changed, names, words, tmp_path):
  path = write(tmp_path / "a.h5", **changed)
  with pytest.raises(UserError) as error:
    event_files.read_hdf5(path, NAMES | names, 2)
  assert str(error.value).startswith(words.format(path=path)) and "\n" not in str(error.value)
  assert "num_slots=0" not in str(error.value)


@pytest.mark.parametrize("part", ["X_train", "X_test"])
def test_another_number_of_slots_is_advised_only_where_all_parts_fit_it(part, tmp_path):
  with pytest.raises(UserError, match=rf"{part}': its shape is \(3, 22\), allowed rows of 12 numbers.* eta, phi$"):
    event_files.read_hdf5(write(tmp_path / "a.h5", **{part: rows_by_hand(3, 4)}), NAMES | {"y_test": ""}, 2)


@pytest.mark.parametrize("kind", ["link", "virtual", "external"])
def test_a_file_that_shows_another_is_refused(kind, tmp_path):
  write(tmp_path / "other.h5")
  path = write(tmp_path / "a.h5", X_train=None)
  with h5py.File(path, "a") as file:
    if kind == "link":
      file["X_train"] = h5py.ExternalLink("other.h5", "X_train")
    elif kind == "virtual":
      layout = h5py.VirtualLayout((3, 12), float)
      layout[:] = h5py.VirtualSource("other.h5", "X_train", (3, 12))
      file.create_virtual_dataset("X_train", layout)
    else:
      file.create_dataset("X_train", (3, 12), float, external=[(str(tmp_path / "raw"), 0, 288)])
  with pytest.raises(UserError, match="'X_train' is .*, which shows what other files hold; copy its values into this"):
    event_files.read_hdf5(path, NAMES, 2)


def test_a_claim_beyond_memory_is_refused_before_it_is_read(tmp_path):
  path = write(tmp_path / "a.h5", X_train=None)
  with h5py.File(path, "a") as file:  # chunks that nobody wrote take no room
    file.create_dataset("X_train", (memory.free_bytes() // 50, 12), "f8", chunks=(1024, 12))
  with pytest.raises(UserError, match="dataset 'X_train' unfolds to .* GiB, and .* GiB may be read here"):
    event_files.read_hdf5(path, NAMES, 2)


@pytest.mark.parametrize("content,words", [
    (None, "there is no such file"), (b"no HDF5", "cannot read "), (b"", "cannot read ")])
def test_no_file_of_hdf5(content, words, tmp_path):
  path = tmp_path / "a.h5"
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(UserError, match=f"^config.data.path: .*{words}"):
    event_files.read_hdf5(str(path), NAMES, 2)


def text(folder, *lines):
  """A text file of lines."""
  (folder / "a.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
  return str(folder / "a.csv")


def test_lines_of_a_text_file(tmp_path):
  """In MeV, with spaces and empty lines; an event without objects; what goes beyond the slots is cut and counted."""
  found, warnings = event_files.read_csv(text(tmp_path, *LINES), 3, "MeV")
  np.testing.assert_array_equal(found.ids, [[1, 2, 4], [7, 0, 0], [0, 0, 0]])
  np.testing.assert_allclose(found.momenta[0], [[200, 100, 1, 0.5], [90, 80, -0.4, 3], [30, 29, 0.1, -2]], rtol=1e-6)
  np.testing.assert_allclose(found.momenta[1, 0], [60, 50, 0.6, 0.1], rtol=1e-6)
  np.testing.assert_allclose(found.globals, [[50, -1.5], [10, 0.25], [0, 0]])
  assert found.label.tolist() == [1, 2, 0] and found.weight.tolist() == [1, 2.5, 0.5]
  assert warnings == ["objects beyond 3 slots (data.num_slots) are left out: 1, of 1 event",
                      "processes that are none of tttt, ttH, ttW, ttWW, ttZ, tt have the label 0: njets"]


def test_all_objects_have_their_types(tmp_path):
  kinds = ["j", "b", "e+", "e-", "m-", "m+", "g"]
  line = "0;ttbarZ;1;50;0;" + ";".join(f"{kind},60,50,0.1,0.2" for kind in kinds)
  found, warnings = event_files.read_csv(text(tmp_path, line), 8, "GeV")
  names = [events_lib.TYPE_NAMES[k] for k in found.ids[0]]
  assert names == ["jet", "b-jet", "e+", "e-", "mu-", "mu+", "photon", "empty"] and not warnings
  assert found.label.tolist() == [5] and found.momenta[0, 0, 1] == 50


@pytest.mark.parametrize("unit,pt,other", [("GeV", 50000, "MeV"), ("MeV", 50, "GeV")])
def test_a_wrong_unit_is_warned_of(unit, pt, other, tmp_path):
  _, warnings = event_files.read_csv(text(tmp_path, f"0;4top;1;{pt};0;j,{2 * pt},{pt},0,0"), 3, unit)
  assert warnings == [f"the median pT is {50 * (1000 if unit == 'GeV' else 0.001):g} GeV; is the file in {other} "
                      f"(--config.data.energy_unit={other})?"]


@pytest.mark.parametrize("line,words", [
    ("5;4top;1;50", "line 4: 4 fields, allowed event ID; process ID; event weight; MET; METphi; and objects"),
    ("5;4top;1;fifty;0;j,1,1,0,0", "line 4: MET is 'fifty', allowed a number"),
    ("5;4top;1;50;0;j,1,1,0", "line 4: the object 'j,1,1,0', allowed a type, E, pT, eta, phi, separated by ','"),
    ("5;4top;1;50;0;j,1,1,0,0,0", "line 4: the object 'j,1,1,0,0,0', allowed a type"),
    ("5;4top;1;50;0;tau,1,1,0,0", "line 4: an object of the type 'tau', allowed j, b, e+, e-, m-, m+, g"),
    ("5;4top;1;50;0;j,1,x,0,0", "line 4: pT of object 1 is 'x', allowed a number"),
    ("5;4top;1;50;0;j,1,1,0,0;;b, abc,1,0,0", "line 4: E of object 2 is 'abc', allowed a number"),
    ("5;4top;1;50;0;j,1,1,0,0;b,1,1,0,", "line 4: phi of object 2 is '', allowed a number"),
    ("5;4top;1;50;0;j,1,nan,0,0", "line 4: a number that is not finite"),
    ("5;4top;inf;50;0;j,1,1,0,0", "line 4: a number that is not finite"),
    ("5;4top;-1;50;0;j,1,1,0,0", "line 4: a negative weight"),
    ("event ID;process ID;event weight;MET;METphi", "line 4: event weight is 'event weight', allowed a number")])
def test_a_line_that_does_not_fit_is_named(line, words, tmp_path):
  path = text(tmp_path, *LINES[1:], line)
  with pytest.raises(UserError) as error:
    event_files.read_csv(path, 3, "MeV")
  assert str(error.value).startswith(f"{path}: {words}") and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\x00\x01"])
def test_a_text_file_without_events_is_refused(content, tmp_path):
  (tmp_path / "a.csv").write_bytes(content)
  with pytest.raises(UserError, match="a.csv: "):
    event_files.read_csv(str(tmp_path / "a.csv"), 3, "MeV")
