"""Where events come from: batches and what stands beside them, parts, weights, and fields that do not fit a source."""

import functools
import json
import sys
import types

import jax
import numpy as np
import pytest

import made_events
from jaxtrain import config as config_lib
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import event_files, generator, scaling, sources

SET = {"path": "a", "seed": 3, "num_slots": 5, "norm": "zscore_masked", "columns": ("pt", "eta"),
       "energy_unit": "MeV"} | {f"datasets__{name}": "other" for name in event_files.DATASETS}


def rows_of(source):
  """All rows of a source on the host."""
  return source.rows(np.arange(source.num_rows))


def of_file(path, parts, **fields):
  """Splits of events that are written to a file."""
  event_files.write_hdf5(str(path), parts)
  more = {f"datasets__w_{part}": f"w_{part}" for part, events in parts.items() if (events.weight != 1).any()}
  more |= {f"datasets__{kind}_{part}": "" for part in sources.PARTS if part not in parts for kind in "xy"}
  more |= {"source": "hdf5", "path": str(path), "num_slots": 6, "row_limit": 0}
  return sources.load_events(made_events.configured(**more | fields))


def test_batches_of_the_simulation():
  """Normalised features, ids, globals and weights in batches; GeV, radians and processes beside them."""
  splits = sources.load_events(made_events.configured())
  meta = splits.meta
  assert meta["rows"] == {"train": 160, "val": 20, "test": 20} and meta["steps_per_epoch"] == 5
  assert (meta["kind"], meta["num_slots"], meta["num_types"], meta["num_features"], meta["num_globals"]) == (
      "events", 18, 8, 5, 3)
  assert meta["feature_names"] == ["log_e", "log_pt", "eta", "cos_phi", "sin_phi"] and meta["image_shape"] == []
  assert meta["class_names"] == ["unknown", "tttt", "ttH", "ttW", "ttWW", "ttZ"] and len(meta["type_names"]) == 8
  assert json.loads(json.dumps(meta)) == meta
  batch = jax.jit(splits.train.batch_at)(splits.train.data, 4, jax.random.key(0))
  assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
      "cont": ((32, 18, 5), "float32"), "ids": ((32, 18), "int32"), "globals": ((32, 3), "float32"),
      "event_weight": ((32,), "float32"), "weight": ((32,), "float32")}
  rows = rows_of(splits.test)
  assert rows["momenta"].shape == (20, 18, 4) and rows["met"].shape == (20, 2) and rows["label"].shape == (20,)
  back = jax.jit(functools.partial(scaling.to_momenta, meta["scaler"]))(rows["cont"])
  back = np.asarray(back) * (rows["ids"] > 0)[..., None]
  np.testing.assert_allclose(back, rows["momenta"], rtol=1e-4, atol=1e-4)
  made = generator.generate(200, 0)
  found = np.concatenate([rows_of(part)["met"] for part in (splits.train, splits.val, splits.test)])
  np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(made.globals, axis=0))


def test_seed_of_the_simulation_is_the_runs_where_it_says_so():
  first = rows_of(sources.load_events(made_events.configured()).train)["met"]
  config = made_events.configured(seed=-1)
  with config.unlocked():
    config.seed = 0
  np.testing.assert_array_equal(rows_of(sources.load_events(config).train)["met"], first)
  with config.unlocked():
    config.seed = 1
  assert (rows_of(sources.load_events(config).train)["met"] != first).any()


@pytest.mark.parametrize("norm,columns,num_features,num_globals", [
    ("physics", ("pt", "eta", "phi"), 4, 3), ("zscore_masked", (1, 2, 3), 3, 2), ("zscore_legacy", ("e", "pt"), 2, 2)])
def test_features_of_a_norm_and_of_columns(norm, columns, num_features, num_globals):
  splits = sources.load_events(made_events.configured(norm=norm, columns=columns))
  meta, rows = splits.meta, rows_of(splits.val)
  assert rows["cont"].shape[2] == meta["num_features"] == len(meta["feature_names"]) == num_features
  assert rows["globals"].shape[1] == meta["num_globals"] == num_globals


def test_statistics_are_those_of_the_training_part(tmp_path):
  """Other events of the held-out parts change nothing: not the scaler, not the scale of weights."""
  parts = {part: made_events.draw(30, seed=k) for k, part in enumerate(sources.PARTS)}
  first = of_file(tmp_path / "a.h5", parts, split__kind="file")
  larger = {part: events._replace(momenta=10 * events.momenta, weight=7 * events.weight)
            for part, events in parts.items()}
  again = of_file(tmp_path / "b.h5", larger | {"train": parts["train"]}, split__kind="file")
  assert first.meta["scaler"] == again.meta["scaler"]
  assert first.meta["scaler"] == scaling.fit(parts["train"], "physics", ("e", "pt", "eta", "phi"))
  np.testing.assert_allclose(rows_of(first.train)["event_weight"].mean(), 1, rtol=1e-6)
  mean = parts["train"].weight.mean(dtype=np.float64)
  np.testing.assert_allclose(rows_of(first.val)["event_weight"], parts["val"].weight / mean, rtol=1e-6)
  np.testing.assert_allclose(rows_of(again.val)["event_weight"], 7 * parts["val"].weight / mean, rtol=1e-6)


def test_parts_of_a_file(tmp_path):
  """As they are, or thrown together and split anew; a limit cuts each and is said."""
  parts = {part: made_events.draw(size, seed=size) for part, size in (("train", 30), ("val", 10), ("test", 20))}
  splits = of_file(tmp_path / "a.h5", parts, split__kind="file")
  assert splits.meta["rows"] == {"train": 30, "val": 10, "test": 20} and len(splits.meta["table"]["sha256"]) == 64
  np.testing.assert_array_equal(rows_of(splits.test)["momenta"], parts["test"].momenta)
  splits = of_file(tmp_path / "a.h5", parts, split__kind="random")
  assert splits.meta["rows"] == {"train": 48, "val": 6, "test": 6}
  splits = of_file(tmp_path / "a.h5", parts, split__kind="none")
  assert splits.meta["rows"] == {"train": 60, "val": 0, "test": 0} and splits.val is None and splits.test is None
  splits = of_file(tmp_path / "a.h5", parts, split__kind="file", row_limit=15)
  assert splits.meta["rows"] == {"train": 15, "val": 10, "test": 15}
  assert splits.meta["table"]["warnings"][:2] == ["train: data.row_limit=15 leaves out 15 of 30 events",
                                                  "test: data.row_limit=15 leaves out 5 of 20 events"]


def test_types_are_counted_over_all_parts(tmp_path):
  """And a type that no training event has is warned of, as are events without objects and few heavy weights."""
  train, test = made_events.draw(50), made_events.draw(20, seed=1)
  test.ids[3], test.momenta[3], test.ids[4, 0] = 0, 0, 11
  heavy = train._replace(weight=np.where(np.arange(50) < 2, 100, 1e-3).astype(np.float32))
  meta = of_file(tmp_path / "a.h5", {"train": heavy, "test": test}, split__kind="file").meta
  assert meta["num_types"] == 12 and meta["type_names"][-1] == "type_11"
  assert meta["table"]["warnings"] == ["test: 1 of 20 events have no object",
                                       "test: objects of the types type_11, which no training event has",
                                       "train: the weights leave 2 effective events of 50"]


def test_a_text_file_is_read_in_its_unit(tmp_path):
  lines = [f"{k};4top;2;50000;0.5;j,{90000 + k},80000,0.1,0.2;b,70000,60000,0,1" for k in range(20)]
  (tmp_path / "a.csv").write_text("\n".join(lines), encoding="utf-8")
  splits = sources.load_events(made_events.configured(source="csv", path=str(tmp_path / "a.csv"), energy_unit="MeV"))
  assert splits.meta["rows"]["train"] == 16 and splits.meta["num_slots"] == 18 and splits.meta["num_types"] == 3
  rows = rows_of(splits.train)
  np.testing.assert_allclose(rows["momenta"][:, 0, 1], 80)
  np.testing.assert_array_equal(rows["event_weight"], 1)  # all lines have the weight 2


def own_loader(given):
  """A module with a loader that returns `given`."""
  module = types.ModuleType("their_events")
  module.load = lambda config: given
  sys.modules["their_events"] = module


@pytest.mark.parametrize("in_parts", [False, True])
def test_events_of_a_loader_of_ones_own(in_parts, monkeypatch):
  events = made_events.draw()
  monkeypatch.setitem(sys.modules, "their_events", None)
  own_loader({"train": events, "test": made_events.draw(7, seed=2)} if in_parts else events)
  config = made_events.configured(loader=("their_events.load",), split__kind="file" if in_parts else "random",
                                  row_limit=0)
  splits = sources.load_events(config)
  assert splits.meta["rows"] == ({"train": 40, "val": 0, "test": 7} if in_parts else
                                 {"train": 32, "val": 4, "test": 4})
  assert splits.meta["table"]["source"] == "their_events.load"


@pytest.mark.parametrize("given,words", [
    (lambda: 3, "returned int, allowed Events"), (dict, "returned a dict with the keys none, allowed train, val, test"),
    (lambda: {"rest": made_events.draw()}, "a dict with the keys 'rest'"),
    (lambda: made_events.draw()._replace(globals=np.zeros((40, 3))), ": the globals have the shape (40, 3), allowed"),
    (lambda: {"train": made_events.draw(), "val": made_events.draw(9, 4)}, "returned parts with 6, 4 slots")])
def test_a_loader_that_returns_something_else_is_refused(given, words, monkeypatch):
  monkeypatch.setitem(sys.modules, "their_events", None)
  own_loader(given())
  with pytest.raises(UserError) as error:
    sources.load_events(made_events.configured(loader=("their_events.load",)))
  assert str(error.value).startswith("config.data.loader: their_events.load(config)") and words in str(error.value)


@pytest.mark.parametrize("field", SET)
def test_a_field_is_refused_where_it_is_not_read(field):
  """By name, with the sources that it is for."""
  named, _ = sources.DIALS[field.replace("__", ".")]
  for source in sources.SOURCES:
    data = made_events.configured(source=source, **{field: SET[field]}).data
    if source in named:
      sources.check_dials(data)
    else:
      with pytest.raises(UserError) as error:
        sources.check_dials(data)
      key = field.replace("__", ".")
      assert str(error.value).startswith(f"config.data.{key}: got ") and named[0] in str(error.value)


def test_every_field_of_the_section_is_a_dial_or_for_all_sources():
  data = made_events.configured().data
  assert set(data) - set(sources.DIALS) == {"source", "split", "shuffle", "row_limit", "loader", "datasets"}
  assert {field.replace("__", ".") for field in SET} == set(sources.DIALS)
  for field, (_, unset) in sources.DIALS.items():
    assert config_lib.lookup(data, field) == unset


@pytest.mark.parametrize("fields,words", [
    ({"row_limit": 0}, "config.data.row_limit: got 0, allowed 1 to 1048576 with config.data.source=toy"),
    ({"split__kind": "file"}, "config.data.split.kind: got 'file', allowed none | random with a source that has "),
    ({"source": "images"}, "config.data.source: got 'images', allowed toy | hdf5 | csv with an experiment of events"),
    ({"source": "hdf5", "path": "none.h5"}, "config.data.path: cannot read 'none.h5' as hdf5: there is no such file"),
    ({"columns": ("mass",)}, "config.data.columns: got 'mass'")])
def test_sources_that_are_refused(fields, words):
  with pytest.raises(UserError) as error:
    sources.load_events(made_events.configured(**fields))
  assert str(error.value).startswith(words) and "\n" not in str(error.value)


def test_weights_of_zero_and_a_file_without_a_training_part_are_refused(tmp_path):
  nothing = made_events.draw()._replace(weight=np.zeros(40, np.float32))
  with pytest.raises(UserError, match="data: the weights of all train events are 0"):
    of_file(tmp_path / "a.h5", {"train": nothing}, split__kind="file")
  with pytest.raises(UserError, match="data: the weights of all test events are 0"):
    of_file(tmp_path / "a.h5", {"train": made_events.draw(), "test": nothing}, split__kind="file")
  with pytest.raises(UserError, match="config.data.split.kind: got 'file', and the source has the parts val, of which"):
    of_file(tmp_path / "b.h5", {"val": made_events.draw()}, split__kind="file")


def test_batches_of_images(tmp_path):
  made_events.write_images(tmp_path)
  config = made_events.configured(source="images", path=str(tmp_path), row_limit=0, split__kind="file")
  splits = sources.load_images(config)
  assert splits.meta["image_shape"] == [28, 28, 1] and splits.meta["kind"] == "images"
  assert splits.meta["rows"] == {"train": 11, "val": 1, "test": 5} and splits.meta["class_names"][9] == "ankle boot"
  assert json.loads(json.dumps(splits.meta)) == splits.meta
  rows = rows_of(splits.test)
  assert rows["image"].shape == (5, 28, 28, 1) and rows["label"].tolist() == [0, 1, 2, 3, 4]
  assert set(splits.train.data) == {"image", "event_weight"} and (rows["event_weight"] == 1).all()
  with pytest.raises(UserError, match="config.data.source: got 'toy', allowed images"):
    sources.load_images(made_events.configured())


def test_a_file_in_mev_is_read_in_gev_and_is_warned_of_where_nothing_says_so(tmp_path):
  events = made_events.draw(40, 18)
  large = events._replace(momenta=events.momenta * np.float32((1000, 1000, 1, 1)),
                          globals=events.globals * np.float32((1000, 1)))
  path = tmp_path / "mev.h5"
  event_files.write_hdf5(str(path), {"train": large, "val": large, "test": large})
  read = lambda unit: sources.load_events(made_events.configured(source="hdf5", path=str(path), row_limit=0,
                                                                 split__kind="file", energy_unit=unit))
  found = read("MeV")
  np.testing.assert_allclose(rows_of(found.train)["momenta"], events.momenta, rtol=1e-5, atol=1e-5)
  assert not [text for text in found.meta["table"]["warnings"] if "median pT" in text]
  assert [text for text in read("GeV").meta["table"]["warnings"] if "--config.data.energy_unit=MeV" in text]
