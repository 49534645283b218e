"""One table in all formats, TFDS among them, in memory or out of core, trains to the same bits."""

import functools

import numpy as np
import pytest

import cores
from jaxtrain import config as config_lib, loop
from jaxtrain.data import scaling, tabular

SOURCES = ("csv", "parquet", "npz", "hdf5", "sqlite", "tfds")
WAYS = [*((source, False) for source in SOURCES), ("hdf5", True), ("tfds", True)]
DIGESTS = {}


@pytest.fixture(scope="module")
def path_of(tmp_path_factory):
  folder = tmp_path_factory.mktemp("cores")
  return functools.cache(lambda source: cores.write(source, folder))


def configured(source, path, **overrides):
  config = config_lib.read_file("configs/vae.py:csv")
  fields = {"data.source": source, "data.path": path, "data.features": cores.FEATURES, "data.label": "rock",
            "data.group": "hole", "data.transforms": ("standardise", "signed_log1p", "min_max"),
            "model.kind": "semisup", "model.hidden_dims": (8,), "model.batch_norm": False,
            "model.latent_dim": 3, "model.head_dim": 8, "train.num_epochs": 2, "train.batch_size": 32,
            "optim.plateau.factor": 0.0, "log.figures": "none", "log.progress": False}
  for key, value in (fields | overrides).items():
    config_lib.assign(config, key, value)
  return config


def trained(source, path_of, out_of_core=False):
  """(digest of the trained state, training losses, test loss), once per way to read."""
  if (source, out_of_core) not in DIGESTS:
    config = configured(source, path_of(source), **{"data.out_of_core": out_of_core})
    result = loop.train(config, None)
    DIGESTS[source, out_of_core] = result.digest, result.history["loss"], result.test_loss
  return DIGESTS[source, out_of_core]


def complete_rows():
  """Rows without NaN, by plain NumPy."""
  columns = cores.table()
  x = np.column_stack([columns[name] for name in cores.FEATURES])
  keep = ~np.isnan(x).any(axis=1)
  return x[keep], columns["rock"][keep], columns["hole"][keep], int((~keep).sum())


@pytest.mark.parametrize("source, out_of_core", WAYS)
def test_the_table_read_is_the_table_written(source, out_of_core, path_of):
  table = tabular.read_table(configured(source, path_of(source), **{"data.out_of_core": out_of_core}), {})
  x, rock, hole, dropped = complete_rows()
  np.testing.assert_array_equal(table.features[:], x)
  assert table.class_names == ('chalk "x"', "clay", "sand, fine") and table.feature_names == cores.FEATURES
  assert table.label.tolist() == [table.class_names.index(name) if name else -1 for name in rock]
  assert table.group.tolist() == hole.tolist()
  assert table.facts["rows_dropped"] == dropped > 0
  assert table.facts["rows_unlabelled"] == sum(name is None for name in rock) > 0


@pytest.mark.slow
@pytest.mark.parametrize("source, out_of_core", WAYS[1:])
def test_all_formats_train_to_the_same_bits(source, out_of_core, path_of):
  assert trained(source, path_of, out_of_core) == trained("csv", path_of)


@pytest.mark.slow
def test_another_table_trains_to_other_bits(path_of, tmp_path):
  """The digest does look at the data: one cell of a training row is enough."""
  source, _ = tabular.load(configured("csv", path_of("csv")), {})
  kept = cores.table()["density"][~np.isnan(cores.table()["velocity"] + cores.table()["porosity"])]
  raw = scaling.unscale(source.meta["scaler"], source.train.data["x"][:1])[0, 0]
  value = float(kept[np.abs(kept - raw).argmin()])
  with open(path_of("csv"), encoding="utf-8") as file:
    text = file.read()
  assert text.count(f"{value!r},") == 1
  (tmp_path / "other.csv").write_text(text.replace(f"{value!r},", f"{value + 0.125!r},"), encoding="utf-8")
  other = loop.train(configured("csv", str(tmp_path / "other.csv")), None)
  assert other.digest != trained("csv", path_of)[0]
