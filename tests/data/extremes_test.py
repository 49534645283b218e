"""Finite numbers that are too large, too small or too close for 32 bits: scaled where that is possible, else named."""

import h5py
import numpy as np
import pytest

from jaxtrain import config as config_lib
from jaxtrain.config import common, tables
from jaxtrain.data import scaling, tabular
from jaxtrain.errors import UserError


@pytest.mark.parametrize("unit", [2.0 ** 700, 2.0 ** -700, 2.0 ** 1020, 2.0 ** -1000])
@pytest.mark.parametrize("name", ["standardise", "min_max"])
def test_scaling_survives_what_64_bits_hold(name, unit):
  """In a unit that is a power of two the same numbers come out, to the bit."""
  x = np.random.RandomState(0).uniform(-3, 3, size=(300, 1))
  plain, scaler = scaling.fit(x, (name,), ("a",)), scaling.fit(x * unit, (name,), ("a",))
  np.testing.assert_allclose([scaler["mean"][0] / unit, scaler["std"][0] / unit], [plain["mean"][0], plain["std"][0]],
                             rtol=1e-12)
  np.testing.assert_allclose(scaling.scale(scaler, x * unit), scaling.scale(plain, x), rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(scaling.unscale(scaler, scaling.scale(scaler, x * unit)) / unit, x, rtol=1e-5, atol=1e-6)


def test_one_extreme_column_leaves_the_others_to_the_bit():
  x = np.random.RandomState(0).normal(size=(100, 2))
  plain = scaling.fit(x, ("standardise",) * 2, ("a", "b"))
  both = scaling.fit(x * [1.0, 1e250], ("standardise",) * 2, ("a", "b"))
  assert (both["mean"][0], both["std"][0]) == (plain["mean"][0], plain["std"][0]) and np.isfinite(both["std"]).all()


def test_times_in_nanoseconds_are_standardised():
  x = 1.7e18 + 1e6 * np.arange(64.0)[:, None]
  z = scaling.scale(scaling.fit(x, ("standardise",), ("t",)), x)[:, 0]
  np.testing.assert_allclose(z, (np.arange(64) - 31.5) / np.arange(64).std(), atol=1e-5)


def test_numbers_further_apart_than_64_bits_hold_are_refused_by_column():
  x = np.array([[1.0, -1.7e308], [2.0, 1.7e308], [3.0, 0.0]])
  with pytest.raises(UserError, match="data column 'b': its numbers lie further apart"):
    scaling.fit(x, ("identity", "min_max"), ("a", "b"))


def test_a_number_that_32_bits_do_not_hold_once_scaled_names_column_and_row():
  scaler = scaling.fit(np.arange(9.0)[:, None], ("standardise",), ("a",))
  with pytest.raises(UserError, match=r"data column 'a', row 2: 1e\+40 lies so far"):
    scaling.scale(scaler, np.array([[1.0], [1e40]]))
  assert np.isnan(scaling.scale(scaler, np.array([[np.nan]]))).all()  # missing is no such number


def test_missing_cells_are_left_out_of_a_fit(monkeypatch):
  x = np.random.RandomState(0).normal(size=(500, 2))
  x[::3, 0] = np.nan
  for rows in (scaling.BLOCK, 7):
    monkeypatch.setattr(scaling, "BLOCK", rows)
    found = scaling.fit(x, ("standardise", "min_max"), ("a", "b"))
    seen = x[~np.isnan(x[:, 0]), 0]
    np.testing.assert_allclose([found["mean"][0], found["std"][0]], [seen.mean(), seen.std()], rtol=1e-12)
    np.testing.assert_allclose([found["mean"][1], found["std"][1]], [x[:, 1].min(), np.ptp(x[:, 1])], rtol=1e-12)
  x[:, 0] = np.nan
  with pytest.raises(UserError, match="data column 'a': no training row has a number"):
    scaling.fit(x, ("standardise",) * 2, ("a", "b"))


def configured(path, source, **fields):
  config = common()
  config.data = tables()
  fields = {"source": source, "path": path, "features": ("a", "b"), "split.kind": "random"} | fields
  for key, value in fields.items():
    config_lib.assign(config, f"data.{key}", value)
  config.train.num_epochs = 1
  return config


INDEX = np.arange(60)


@pytest.mark.parametrize("out_of_core", [False, True])
@pytest.mark.parametrize("column, words", [
    (np.where(INDEX == 57, 1e300, INDEX), r"'b', row 58: 1e\+300 lies so far"),
    (1e-200 * (INDEX + 1), "'b': its numbers, 1e-200 to 6e-199, are one number by the transform 'identity'"),
    (1.7e18 + 1e6 * INDEX, "'b': its numbers, 1.7e\\+18 to 1.7e\\+18, are one number by the transform 'identity'")])
def test_before_training_they_are_named_also_in_files_read_as_training_goes(column, words, out_of_core, tmp_path):
  with h5py.File(tmp_path / "t.h5", "w") as file:
    file.update({"a": INDEX % 7.0, "b": column})
  config = configured(str(tmp_path / "t.h5"), "hdf5", out_of_core=out_of_core, transforms=("standardise", "identity"))
  with pytest.raises(UserError, match=words):
    tabular.load(config, {})


@pytest.mark.parametrize("out_of_core", [False, True])
@pytest.mark.parametrize("value", [-1.7976931348623157e308, 1e39])
def test_a_number_beside_which_the_others_become_one_names_column_and_row(value, out_of_core, tmp_path):
  with h5py.File(tmp_path / "t.h5", "w") as file:
    file.update({"a": INDEX % 7.0, "b": np.where(INDEX == 30, value, INDEX)})
  config = configured(str(tmp_path / "t.h5"), "hdf5", out_of_core=out_of_core)
  with pytest.raises(UserError, match="'b', row 31: .* lies so far from the others that these are one number"):
    tabular.load(config, {})


def test_an_export_takes_no_column_whose_numbers_32_bits_do_not_tell_apart():
  good = scaling.fit(np.arange(9.0)[:, None], ("standardise",), ("a",))
  scaling.exportable(good)
  for x in (1.7e18 + 1e6 * np.arange(9.0), 1e-200 * np.arange(9.0), 1e200 * np.arange(9.0)):
    with pytest.raises(UserError, match="--export: column 't' has a mean of"):
      scaling.exportable(scaling.fit(x[:, None], ("standardise",), ("t",)))


def test_a_transform_is_suggested_for_skewed_columns():
  random = np.random.RandomState(0)
  heavy = np.exp(random.normal(0, 2, 2000))
  x = np.stack([random.normal(size=2000), heavy, heavy * np.where(random.uniform(size=2000) < 0.2, -1, 1),
                np.where(random.uniform(size=2000) < 0.01, 1.0, 0.0), np.full(2000, 3.0), np.full(2000, np.nan)],
               axis=1)
  x[:5, 1] = np.nan
  assert scaling.suggest(x) == ["standardise", "log1p", "signed_log1p", "standardise", "standardise", "standardise"]


def test_a_table_of_ones_own_with_holes_needs_masks(monkeypatch):
  from jaxtrain.data import tables as tables_lib
  table = tables_lib.Table(np.array([[1.0, np.nan], [2.0, 3.0], [4.0, 5.0]]), ("a", "b"), None, (), None,
                           {"source": "own", "rows": 3})
  config = configured("", "own", **{"split.kind": "none", "features": ()})
  with pytest.raises(UserError, match="config.data.incomplete: got 'drop', allowed mask"):
    tabular.load(config, {"own": lambda _: table})
