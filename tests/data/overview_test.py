"""What `--mode=check` says of the data, on tables small enough to count by hand."""

import os

import numpy as np
import pytest

import child
import outside
from jaxtrain import config as config_lib
from jaxtrain.data import arrays, overview, splits, tabular
from jaxtrain.errors import UserError
from jaxtrain.experiments.tabular_vae import vae
from jaxtrain.run import console

FRACTIONS = (0.5, 0.25, 0.25)


def table(tmp_path, columns, **data):
  """The parts of a CSV file of these columns, as the tabular VAE reads them."""
  path = tmp_path / "t.csv"
  path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values()))]) + "\n")
  config = config_lib.read_file(os.path.join(child.ROOT, "configs", "vae.py:csv"))
  config.data.path, config.data.split.kind, config.data.split.fractions = str(path), "random", FRACTIONS
  config.data.label = config.data.group = ""
  for field, value in ({"features": tuple(columns)} | data).items():
    config.data[field] = value
  return tabular.load(config_lib.resolve(config), vae.GENERATORS)[0]


def numbers(n=40, seed=0):
  return np.random.RandomState(seed).normal(size=n).round(4).tolist()


def test_rows_and_missing_cells_are_counted_by_column(tmp_path):
  a, b = numbers(), numbers(seed=1)
  a[3], a[7], b[7], b[9] = "", "", "", ""
  found = overview.describe(table(tmp_path, {"a": a, "b": b, "c": numbers(seed=2)}))
  assert (found["rows_read"], found["rows_kept"], found["rows_dropped"], found["rows_incomplete"]) == (40, 37, 3, None)
  assert found["missing"] == [{"column": "a", "cells": 2}, {"column": "b", "cells": 2}]
  assert [one["rows"] for one in found["parts"]] == [18, 10, 9] and found["stream"] is False
  used = overview.describe(table(tmp_path, {"a": a, "b": b}, incomplete="mask"))
  assert (used["rows_read"], used["rows_kept"], used["rows_dropped"], used["rows_incomplete"]) == (40, 39, 1, 2)
  first = overview.describe(table(tmp_path, {"a": a, "b": b}, row_limit=20))
  assert (first["rows_read"], first["rows_kept"], first["rows_beyond_limit"]) == (40, 20, 17)


def test_classes_and_groups_are_counted_by_part(tmp_path):
  label = ["sand", "clay", "Clay", "clay", ""] * 8
  made = table(tmp_path, {"a": numbers(), "kind": label, "well": [f"w{i // 4}" for i in range(40)]},
                 features=("a",), label="kind", group="well", split=config_lib.tables().split)
  found = overview.describe(made)
  assert {one["name"]: one["rows"] for one in found["classes"]} == {"Clay": 8, "clay": 16, "sand": 8}
  assert all(one["rows"] == sum(one[part["part"]] for part in found["parts"]) for one in found["classes"])
  assert found["rows_unlabelled"] == 8 and any("differ in case" in words for words in found["warnings"])
  assert all(one["groups"] is None or one["groups"] > 0 for one in found["parts"])


def test_hidden_labels_are_of_training_rows_and_counted(tmp_path):
  label = ["sand", "clay", "clay", ""] * 10
  read = lambda **more: table(tmp_path, {"a": numbers(), "kind": label}, features=("a",), label="kind", **more)
  whole, made = read(), read(label_share=0.25)
  found = overview.describe(made)
  had = sum(one["train"] for one in overview.describe(whole)["classes"])
  left = round(had / 4)
  assert sum(one["train"] for one in found["classes"]) == left and found["labels_hidden"] == had - left
  np.testing.assert_array_equal(made.val.data["label"], whole.val.data["label"])
  np.testing.assert_array_equal(made.test.data["label"], whole.test.data["label"])
  np.testing.assert_array_equal(made.train.data["x"], whole.train.data["x"])
  assert f"{found['labels_hidden']} labels of training rows hidden" in console.describe_data(made.meta)
  of_part = splits.hide_labels(whole.train.data["label"], np.arange(20), 0.25, splits.label_random(42))
  np.testing.assert_array_equal(made.train.data["label"], of_part)
  with pytest.raises(UserError, match="config.data.label_share: got 0.5, allowed 1 where no training row has a label"):
    table(tmp_path, {"a": numbers()}, label_share=0.5)


def test_columns_that_are_the_same_but_for_their_units_are_named(tmp_path):
  a = numbers()
  columns = {"a": a, "b": numbers(seed=1), "again": a, "other_unit": [1000 * v + 273.15 for v in a],
             "almost": [a[0] + 0.01, *a[1:]], "cubed": [v ** 3 for v in a]}
  found = overview.describe(table(tmp_path, columns))
  assert found["duplicate_columns"] == [["a", "again", "other_unit"]] and found["constant_columns"] == []


def test_a_column_that_varies_outside_the_training_rows_alone_is_constant(tmp_path):
  split = config_lib.tables().split
  split.kind, split.fractions = "random", FRACTIONS
  row = splits.split_rows(split, 40, None)["val"][0]
  found = overview.describe(table(tmp_path, {"a": numbers(), "b": [5.0 * (i == row) for i in range(40)]}))
  assert found["constant_columns"] == ["b"] and found["duplicate_columns"] == []


@pytest.mark.parametrize("incomplete", ["drop", "mask"])
def test_skewed_columns_get_a_flag_that_can_be_pasted(tmp_path, incomplete):
  """exp of 3 normal deviations has a skewness far above 2, and log1p of it one near 0; a 0 stays one when read back."""
  wide = np.exp(3 * np.asarray(numbers(200)))
  wide[:20] = 0.0
  signed = wide * np.where(np.arange(200) % 9 == 0, -1, 1)
  columns = {"a": numbers(200, 1), "wide": wide.tolist(), "signed": signed.tolist()}
  found = overview.describe(table(tmp_path, columns, incomplete=incomplete))
  assert found["skewed_columns"][0] == {"column": "wide", "transform": "log1p"}
  assert found["suggested_flag"].startswith("--config.data.transforms=standardise,log1p,")
  names = tuple(found["suggested_flag"].partition("=")[2].split(","))
  again = overview.describe(table(tmp_path, columns, incomplete=incomplete, transforms=names))
  assert again["skewed_columns"] == [] and again["suggested_flag"] is None


def test_a_chosen_transform_stays(tmp_path):
  wide = np.exp(3 * np.asarray(numbers(200))).tolist()
  chosen = ("min_max", "standardise")
  found = overview.describe(table(tmp_path, {"wide": wide, "b": numbers(200, 1)}, transforms=chosen))
  assert found["skewed_columns"] == []


def test_batches_of_another_make_are_counted_and_not_looked_into(tmp_path):
  """A family may hold its rows under names of its own."""
  made = table(tmp_path, {"a": numbers(), "kind": ["sand", "clay"] * 20}, features=("a",), label="kind")
  source = arrays.table_source({"signal": np.zeros((40, 7))}, 8, False)
  found = overview.describe(made._replace(train=source, val=None, test=None))
  assert found["rows_kept"] == 40 and [one["rows"] for one in found["parts"]] == [40]
  assert (found["classes"], found["duplicate_columns"], found["suggested_flag"]) == ([], [], None)


def test_a_stream_says_that_it_is_one():
  found = overview.describe(outside.load(outside.get_config("stream")))
  assert found["stream"] and found["rows_read"] is None and found["parts"][0]["rows"] is None
  assert (found["classes"], found["skewed_columns"], found["suggested_flag"]) == ([], [], None)
  rows = overview.describe(outside.load(outside.get_config("table")))
  assert (rows["rows_read"], rows["stream"]) == (300, False)  # three parts of the same 100 rows
