"""TFDS without TensorFlow: a dataset made here, a mocked one of a real name, and one line for each mistake."""

import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

import cores
from jaxtrain import config as config_lib, loop
from jaxtrain.data import tabular, tfds as tfds_source
from jaxtrain.errors import UserError

NUM_ROWS = cores.MIXED_ROWS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return cores.prepare(tmp_path_factory.mktemp("tfds"), cores.Mixed)


def configured(path, **overrides):
  config = config_lib.read_file("configs/vae.py:csv")
  fields = {"data.source": "tfds", "data.path": path, "data.split.kind": "random", "model.hidden_dims": (8,),
            "model.batch_norm": False, "optim.plateau.factor": 0.0, "model.latent_dim": 2, "train.num_epochs": 1,
            "train.batch_size": 16, "log.figures": "none", "log.progress": False}
  for key, value in (fields | overrides).items():
    config_lib.assign(config, key, value)
  return config


READERS = [tfds_source.read_table, tfds_source.open_table]


@pytest.mark.parametrize("read", READERS)
def test_columns_of_every_kind(read, folder):
  table = read(folder, "", ("count", "spectrum"), "rock", "name")
  assert table.feature_names == ("count", "spectrum_0", "spectrum_1", "spectrum_2")
  np.testing.assert_array_equal(table.features[:], np.column_stack([np.arange(NUM_ROWS) * 7 - 3, cores.spectrum()]))
  assert table.class_names == ("clay", "sand")
  assert table.label.tolist() == [i % 2 if i % 5 else -1 for i in range(NUM_ROWS)]
  assert table.group.tolist() == [f"é{i % 4}" for i in range(NUM_ROWS)]
  assert table.facts == {"source": f"tfds {folder}", "rows": NUM_ROWS, "rows_dropped": 0, "rows_unlabelled": 8,
                         "class_rows": [16, 16], "missing": {"columns": [], "cells": []}, "warnings": [],
                         "label_warnings": []}


def test_rows_in_any_order(folder):
  rows = tfds_source.open_table(folder, "", ("spectrum_2", "count"), "", "").features
  index = np.array([31, 0, 7, 7])
  np.testing.assert_array_equal(rows[index], np.column_stack([cores.spectrum()[index, 2], index * 7 - 3]))
  np.testing.assert_array_equal(rows[3:6], np.column_stack([cores.spectrum()[3:6, 2], np.arange(3, 6) * 7 - 3]))


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name", "type"])
def test_no_class_that_a_dataset_names_is_imported(key, folder, tmp_path, monkeypatch):
  copy = shutil.copytree(folder, tmp_path / "mixed")
  (tmp_path / "evil.py").write_text("raise SystemExit('the code of a dataset was run')")
  monkeypatch.syspath_prepend(tmp_path)
  text = (copy / "features.json").read_text()
  first = '"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text"'
  assert first in text
  (copy / "features.json").write_text(text.replace(first, f'"{key}": "evil.Text"'))
  with pytest.raises(UserError, match="features.json names 'evil.Text', which is not part of TFDS"):
    tfds_source.open_split(str(copy), "")


@pytest.mark.parametrize("name", ["kaggle:iris", "huggingface:a/b", "../iris", "gs://bucket/iris", "a.b:1.0.0"])
def test_names_that_would_load_code_from_elsewhere_are_refused(name):
  with pytest.raises(UserError, match="allowed the name of a TFDS dataset"):
    tfds_source.open_split(name, "")


def test_without_features_all_numeric_columns_are_taken(folder):
  table = tfds_source.read_table(folder, "", (), "rock", "")
  assert sorted(table.feature_names) == ["count", "spectrum_0", "spectrum_1", "spectrum_2"]


@pytest.mark.parametrize("split, want", [("test", range(5)), ("train[:25%]", range(10)), ("train[30:]", range(30, 40))])
def test_splits_and_slices_of_them(split, want, folder):
  table = tfds_source.read_table(folder, split, ("count",), "", "")
  assert table.features[:, 0].tolist() == [i * 7 - 3 for i in want]


def test_a_dataset_by_its_name_in_the_data_folder(folder, monkeypatch):
  """As a user has it: prepared under $TFDS_DATA_DIR, its builder imported."""
  data_dir = folder.rsplit("/mixed/", 1)[0]
  find = tfds.builder
  monkeypatch.setattr(tfds, "builder", lambda name: find(name, data_dir=data_dir))
  assert len(tfds_source.read_table("mixed:1.0.0", "", ("count",), "", "").features) == NUM_ROWS
  splits, _ = tabular.load(configured("mixed", **{"data.features": ("spectrum",)}), {})
  assert splits.meta["features"] == ["spectrum_0", "spectrum_1", "spectrum_2"]


@pytest.mark.slow
def test_mnist_mocked_trains_offline():
  with tfds.testing.mock_data(num_examples=40):
    splits, table = tabular.load(configured("mnist", **{"data.features": ("image",), "data.label": "label",
                                                        "data.table": "train"}), {})
    assert table.features.shape == (40, 784) and table.feature_names[783] == "image_783"
    assert 0 <= table.features.min() and 100 < table.features.max() < 256
    assert set(table.class_names) <= set("0123456789") and len(table.class_names) > 1
    assert splits.meta["rows"] == {"train": 28, "val": 6, "test": 6}
    result = loop.train(configured("mnist", **{"data.features": ("image",), "data.label": "label",
                                               "model.kind": "semisup"}), None)
  assert np.isfinite(result.history["loss"]).all() and "tensorflow" not in sys.modules


def complaint(path, split="", features=("count",), label="", group=""):
  with pytest.raises(UserError) as caught:
    tfds_source.open_table(path, split, features, label, group)
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_mistakes_are_one_line(folder, tmp_path, monkeypatch):
  data_dir = str(tmp_path)
  find = tfds.builder
  monkeypatch.setattr(tfds, "builder", lambda name: find(name, data_dir=data_dir))
  assert complaint("no_such_dataset").startswith("config.data.path: TFDS has no dataset 'no_such_dataset'")
  message = complaint("mnist")
  assert "'mnist'" in message and "it is not prepared on this machine, and nothing is downloaded" in message
  message = complaint(folder, "validation")
  assert "split 'validation'" in message and "splits: train, test" in message
  assert "'train[:3:4'" in complaint(folder, "train[:3:4")
  assert f"TFDS has no dataset {str(tmp_path)!r}" in complaint(str(tmp_path))
  assert "has no column 'weight'; it has" in complaint(folder, features=("weight",))
  assert "column 'name' holds no numbers" in complaint(folder, features=("name",))
  assert "has no column 'lithology'" in complaint(folder, label="lithology")
  assert "'rock' is named as a feature and as the label" in complaint(folder, features=("rock",), label="rock")
  assert "got ''" in complaint("")


def test_missing_numbers_are_left_out(tmp_path):
  table = tfds_source.open_table(cores.prepare(tmp_path), "train", cores.FEATURES, "rock", "hole")
  columns = cores.table()
  keep = ~np.isnan(np.column_stack([columns[name] for name in cores.FEATURES])).any(axis=1)
  np.testing.assert_array_equal(table.features[:][:, 0], columns["density"][keep])
  assert len(table.features) == len(table.label) == len(table.group) == keep.sum() < len(keep)
