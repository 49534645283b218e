"""Kinds of columns: codes and their names, categories of the training rows alone, spikes, types of what comes back."""

import numpy as np
import pytest

from jaxtrain import config as config_lib
from jaxtrain.data import files, inputs, kinds, labels, scaling, tables, tabular
from jaxtrain.errors import UserError
from jaxtrain.experiments.tabular_vae import vae

ROWS = np.arange(6)


def columns(**values) -> files.Columns:
  return files.Columns("t.csv", {name: np.asarray(column, object) for name, column in values.items()}, {})


def table(categorical=("kind",), **values) -> tables.Table:
  given = {"kind": ["a", "b", "", "c", "a", "b"], "n": ["1", "2", "0", "0", "5", "3"]} | values
  return tables.from_columns(columns(**given), tuple(given), "", "", {"source": "t.csv"}, masked=True,
                             categorical=categorical)


def test_a_column_of_names_is_codes():
  made = table()
  assert made.categories == {"kind": ("a", "b", "c")}
  np.testing.assert_array_equal(made.features[:, 0], [0, 1, np.nan, 2, 0, 1])


@pytest.mark.parametrize("cells, names", [
    (["3", "3.0", "10", "3.00"], ("3", "10")),  # as pandas writes whole numbers beside missing ones
    ([3, 10.0, "3", "10"], ("3", "10")), (["007", "7", "7.5", "7.50"], ("007", "7", "7.5", "7.50"))])
def test_a_whole_number_is_one_category_however_it_is_written(cells, names):
  assert sorted(labels.encode_feature(columns(k=cells), "k")[1]) == sorted(names)


def test_categories_that_no_training_row_has_are_missing_and_said():
  made, found = kinds.settle(table(), kinds.Asked(("kind",)), np.array([0, 1, 2, 4]))
  assert found["categories"] == {"kind": ["a", "b"]} and np.isnan(made.features[3, 0])
  assert "1 cells count as missing" in made.facts["warnings"][-1] and "'c'" in made.facts["warnings"][-1]


def test_numbers_may_be_categories_and_whole():
  made = tables.Table(np.array([[1.0, 0.0], [2.0, 4.0], [1.0, 9.0]]), ("k", "n"), None, (), None, {"source": "own"})
  made, found = kinds.settle(made, kinds.Asked(("k",), ("n",), ("n",)), np.array([0, 1]))
  assert found == {"categories": {"k": ["1", "2"]}, "integer": {"n": [0.0, 4.0]}, "spikes": {"n": 0.0}}
  np.testing.assert_array_equal(made.features[:, 0], [0, 1, 0])


@pytest.mark.parametrize("said, words", [
    (kinds.Asked(("kind",), ("kind",)), "config.data.integer: t.csv has no column 'kind'"),
    (kinds.Asked((), (), ("z",)), "config.data.spikes: t.csv has no column 'z'"),
    (kinds.Asked((), (), ("n=much",)), "config.data.spikes: got 'n=much', allowed"),
    (kinds.Asked((), (), ("n=99",)), "no training row of the column 'n' is 99"),
    (kinds.Asked((), ("half",)), "column 'half', row 2: got 0.5, allowed whole")])
def test_what_does_not_fit_is_refused(said, words):
  with pytest.raises(UserError, match=words):
    kinds.settle(table(half=["1", "0.5", "2", "2", "3", "4"]), said, ROWS)


@pytest.mark.parametrize("cells, words", [(["a"] * 6, "has 1 categories, allowed 2 to 1,000"),
                                          ([f"id{i}" for i in range(1001)], "has 1,001 categories")])
def test_names_that_are_no_categories_are_refused(cells, words):
  with pytest.raises(UserError, match=words):
    labels.encode_feature(columns(k=cells), "k")


def test_the_scaler_leaves_spikes_out_and_gives_codes_and_one():
  config = config_lib.read_file("configs/vae.py:mixed")
  config_lib.assign(config, "data.row_limit", 3000)
  splits, whole = tabular.load(config, vae.GENERATORS, kinds.asked(config.data))
  scaler, rows = splits.meta["scaler"], splits.train.rows(np.arange(splits.train.num_rows))
  d = splits.meta["features"].index("savings")
  savings, at = rows["x"][:, d], scaling.scale(scaler, np.zeros((1, len(splits.meta["features"]))))[0, d]
  assert (savings == at).mean() > 0.2
  np.testing.assert_allclose([savings[savings != at].mean(), savings[savings != at].std()], [0, 1], atol=1e-4)
  region, there = rows["x"][:, 1], rows["observed"][:, 2]
  assert set(region) == {1, 2, 3, 4, 5} and set(rows["x"][there == 0, 2]) == {0}
  assert splits.meta["kinds"]["integer"]["age"][0] == 18 and whole.categories["owner"] == ("no", "yes")


def test_results_have_the_types_of_their_columns():
  meta = {"features": ["k", "b", "n", "x", "t"], "scaler": {
      "columns": ["k", "b", "n", "x", "t"], "transforms": ["identity"] * 2 + ["log1p", "log1p", "identity"],
      "mean": [-1.0, -1.0, 0.4, 0.3, -1.0], "std": [1.0, 1.0, 2.0, 0.7, 1.0]},
          "kinds": {"categories": {"k": ["3", "10"], "b": ["False", "True"], "t": ["x", "y"]},
                    "integer": {"n": [0.0, 7.0]}, "spikes": {"x": 0.1}}}
  z = scaling.scale(meta["scaler"], np.array([[1, 0, 3, 0.1, 1], [0, 1, 5, 2.5, np.nan]]))
  z[1, 2] = 9.0
  made = kinds.typed(meta, kinds.to_raw(meta, z))
  assert made["k"].tolist() == [10, 3] and made["b"].tolist() == [False, True] and made["t"].tolist() == ["y", None]
  assert made["n"].dtype == np.int64 and made["n"].tolist() == [3, 7]  # within the training rows
  assert made["x"][0] == 0.1  # to the bit
  np.testing.assert_allclose(made["x"][1], 2.5, rtol=1e-5)


def test_new_categories_of_an_input_are_missing_and_counted():
  given = columns(kind=["a", "zebra", "", "zebra", "b"], n=["1"] * 5)
  x = inputs.read_features(given, ["kind", "n"], {"kind": ["a", "b"]})
  np.testing.assert_array_equal(x[:, 0], [0, np.nan, np.nan, np.nan, 1])
  said, = inputs.say_unseen({"kind": ["a", "b"]}, given)
  assert "column 'kind': 2 cells count as missing" in said and "'zebra'" in said


def test_transforms_by_name():
  made = tables.Table(np.zeros((1, 2)), ("a", "b"), None, (), None, {})
  assert kinds.transforms_of({}, made, ("b*=log1p",)) == ("standardise", "log1p")
  assert kinds.transforms_of({"categories": {"a": []}}, made, ()) == ("identity", "standardise")
  with pytest.raises(UserError, match="got 'a=log2', allowed NAME=TRANSFORM with one of"):
    kinds.transforms_of({}, made, ("a=log2",))
  with pytest.raises(UserError, match="got 'log1p' for the column 'a', allowed identity"):
    kinds.transforms_of({"categories": {"a": []}}, made, ("log1p", "log1p"))
