"""Batches read from a file as training goes: those of the same table in memory, whatever the file's layout.

The last test writes 2.5 GB and trains on it: resident memory does not grow with the file.
"""

import functools
import json
import os
import subprocess
import sys

import h5py
import jax
import numpy as np
import pytest

import child
from jaxtrain import config as config_lib, loop, rng
from jaxtrain.data import arrays, host, scaling, tables, tabular
from jaxtrain.errors import Stopped, UserError
from jaxtrain.run import feed as feed_lib, stops as stops_lib

NUM_ROWS, NAMES = 75, ("a", "b", "c")
KEY = rng.key_for(5, "data")


def numbers(num_rows=NUM_ROWS):
  x = np.random.RandomState(1).normal(size=(num_rows, 3)).astype(np.float32)
  x[4, 1], x[40, 2], x[33, 0] = np.nan, np.nan, np.nan
  return x


LAYOUTS = {
    "contiguous": {},
    "chunked": {"chunks": (16, 2)},
    "compressed": {"chunks": (16, 3), "compression": "gzip", "shuffle": True},
    "big-endian": {"dtype": ">f4"},
    "double": {"dtype": "<f8"},
}


def write_file(path, layout="contiguous", num_rows=NUM_ROWS):
  """A file of one wide dataset and a label."""
  with h5py.File(path, "w") as file:
    x = file.create_dataset("x", data=numbers(num_rows), **LAYOUTS[layout])
    x.attrs["columns"] = NAMES
    file["rock"] = np.array(["clay", "sand", "chalk"])[np.arange(num_rows) % 3].astype(h5py.string_dtype())
  return str(path)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  return write_file(tmp_path_factory.mktemp("host") / "x.h5")


def sources(path, batch_size, shuffled=True, num_epochs=2, part=None):
  """(source over the file, source over the same rows in memory)."""
  table = host.open_hdf5(path, ("c", "a"), "rock", "")
  part = np.arange(len(table.features)) if part is None else part
  scaler = scaling.fit(table.features[:], ("standardise", "signed_log1p"), table.feature_names)
  over_file = host.host_source(table, part, table.label, scaler, batch_size, shuffled=shuffled, num_epochs=num_epochs)
  columns = {"x": scaling.scale(scaler, table.features[:])[part], "label": table.label[part]}
  return over_file, arrays.table_source(columns, batch_size, shuffled)


def batch_of(source, feed, step):
  return {name: np.asarray(value) for name, value in source.batch_at(feed.data(step), np.int32(step), KEY).items()}


def check_equal(over_file, in_memory, steps):
  put = lambda tree, like=None: jax.device_put(tree)
  feeds = [feed_lib.Feed(source, put, put, KEY) for source in (over_file, in_memory)]
  for step in steps:
    got, want = batch_of(over_file, feeds[0], step), batch_of(in_memory, feeds[1], step)
    assert sorted(got) == sorted(want) == ["label", "weight", "x"]
    for name in want:
      np.testing.assert_array_equal(got[name], want[name], err_msg=f"{name} of step {step}")
      assert got[name].dtype == want[name].dtype
    feeds[0].fetch_ahead()


@pytest.mark.slow
@pytest.mark.parametrize("batch_size, window", [(16, 64), (16, 3), (16, 1), (5, 4), (200, 64), (73, 2)])
def test_batches_are_those_of_the_table_in_memory_over_two_epochs(batch_size, window, path, monkeypatch):
  """The last batch of an epoch is ragged (73 rows are complete), and so is the last window."""
  monkeypatch.setattr(host, "WINDOW_STEPS", window)
  over_file, in_memory = sources(path, batch_size)
  assert over_file.num_batches == in_memory.num_batches == -(-73 // batch_size) and over_file.num_rows == 73
  assert over_file.window_steps <= window
  check_equal(over_file, in_memory, range(2 * over_file.num_batches))


def test_unshuffled_rows_and_a_part_of_the_rows(path):
  part = np.array([0, 3, 4, 20, 21, 22, 60, 72])
  check_equal(*sources(path, 3, shuffled=False, part=part), range(6))
  check_equal(*sources(path, 3, part=part), range(6))


def test_any_order_of_steps_gives_the_same_batches(path, monkeypatch):
  """A jump is a seek: a resumed run begins in the middle, an evaluation begins again."""
  monkeypatch.setattr(host, "WINDOW_STEPS", 2)
  check_equal(*sources(path, 16), [3, 4, 9, 0, 1, 2, 7, 7, 5])


def test_another_key_gives_another_order(path):
  over_file, _ = sources(path, 16)
  first, other = (next(over_file.windows(rng.key_for(seed, "data"), 0))["batches"]["x"] for seed in (5, 6))
  assert first.shape == other.shape and not np.array_equal(first, other)


def test_rows_on_the_host_are_the_rows_of_the_table(path):
  over_file, in_memory = sources(path, 16)
  index = np.array([0, 5, 5, 72, 1])
  for name, value in in_memory.rows(index).items():
    np.testing.assert_array_equal(over_file.rows(index)[name], value)


@pytest.mark.parametrize("shards", [1, 2, 4, 8])
def test_shards_of_a_batch_are_disjoint_and_cover_it(shards, path):
  over_file, _ = sources(path, 16)
  whole = over_file.windows.batches_of(KEY)
  for step in (0, 3, 4, 7):
    parts = []
    for i in range(shards):
      shard = over_file.windows.batches_of(KEY)
      shard.shard = (i, shards)
      parts.append(shard[step])
      assert len(parts[-1]["weight"]) == 16 // shards
    for name, value in whole[step].items():
      np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), value)
  epoch = np.concatenate([whole[step]["x"][whole[step]["weight"] == 1] for step in range(5)])
  assert len(np.unique(epoch, axis=0)) == 73  # no row twice, so shards of it are disjoint


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_rows(layout, tmp_path):
  table = host.open_hdf5(write_file(tmp_path / "x.h5", layout), ("b", "c", "a"), "rock", "")
  assert (table.features.parts[0].offset is None) == (layout in ("chunked", "compressed", "big-endian"))
  want = numbers()[:, [1, 2, 0]].astype(np.float64)
  want = want[~np.isnan(want).any(axis=1)]
  random = np.random.RandomState(0)
  for index in (slice(None), slice(10, 20), slice(3, 60, 7), random.permutation(72), np.array([7]), np.array([5, 5, 2]),
                random.randint(72, size=200)):
    np.testing.assert_array_equal(table.features[index], want[index])
    assert table.features[index].dtype == np.float64
  assert len(table.features) == 72 and table.facts["rows_dropped"] == 3
  assert [table.class_names[k] for k in table.label[:5]] == ["clay", "sand", "chalk", "clay", "chalk"]


def test_features_of_several_datasets_in_the_users_order(tmp_path):
  path, x = str(tmp_path / "x.h5"), numbers()
  whole = np.arange(NUM_ROWS, dtype=np.int64) * 3
  with h5py.File(path, "w") as file:
    file.update({"x": x, "log/depth": whole, "unused": np.full(NUM_ROWS, np.nan)})
    file.create_dataset("flag", data=np.arange(NUM_ROWS) % 2 == 0, chunks=(8,))
    file["x"].attrs["columns"] = NAMES
  features = ("flag", "c", "log/depth", "a")
  table = host.open_hdf5(path, features, "", "")
  want = np.column_stack([np.arange(NUM_ROWS) % 2 == 0, x[:, 2], whole, x[:, 0]]).astype(np.float64)
  np.testing.assert_array_equal(table.features[:], want[~np.isnan(want).any(axis=1)])
  assert table.feature_names == features and table.facts["rows_dropped"] == 2  # `b` is no feature, its NaN no matter
  np.testing.assert_array_equal(tables.read_file("hdf5", path, "", features, "", "").features, table.features[:])
  assert host.open_hdf5(path, ("x", "flag"), "", "").feature_names == ("a", "b", "c", "flag")


def test_mistakes_are_those_of_a_table_in_memory(tmp_path):
  path = str(tmp_path / "x.h5")
  with h5py.File(path, "w") as file:
    file.update({"a": np.arange(6.0), "b": np.full(6, 2.0), "c": [1, 2, 3, np.inf, 4, 5], "d": np.full(6, np.nan)})
    file["rock"] = np.array(["x"] * 6).astype(h5py.string_dtype())
  for features, label, group in ((("b",), "", ""), (("a", "c"), "", ""), (("a", "d"), "", ""), (("a", "e"), "", ""),
                                 (("a", "a"), "", ""), (("a",), "rock", ""), (("a",), "", "hole"), ((), "", "")):
    messages = []
    for read in (functools.partial(host.open_hdf5, path), functools.partial(tables.read_file, "hdf5", path, "")):
      with pytest.raises(UserError) as caught:
        read(features, label, group)
      messages.append(str(caught.value))
    assert messages[0] == messages[1] and "\n" not in messages[0]
  with pytest.raises(UserError, match="x.h5: column 'rock' holds object, allowed numbers"):
    host.open_hdf5(path, ("a", "rock"), "", "")


def configured(path, **overrides):
  """A small run over a file; names of fields with __ for dots."""
  config = config_lib.read_file("configs/vae.py:csv")
  fields = {"data.source": "hdf5", "data.path": path, "data.features": ("a", "c"), "data.out_of_core": True,
            "data.split.kind": "random", "model.hidden_dims": (8,), "model.batch_norm": False, "model.latent_dim": 2,
            "optim.plateau.factor": 0.0, "train.num_epochs": 2,
            "train.batch_size": 8, "log.figures": "none", "log.progress": False, "checkpoint.every_epochs": 1}
  for key, value in (fields | overrides).items():
    config_lib.assign(config, key, value)
  return config


@pytest.mark.slow
def test_a_run_stopped_and_resumed_ends_as_one_never_stopped(path, tmp_path, monkeypatch):
  monkeypatch.setattr(host, "WINDOW_STEPS", 3)
  straight = loop.train(configured(path), str(tmp_path / "straight"))
  monkeypatch.setattr(loop.Pace, "num_steps", lambda self: 1)
  calls, stops = [], 0

  def reason(self, started=True):
    calls.append(1)
    return "test" if len(calls) % 5 == 0 else None

  monkeypatch.setattr(stops_lib.Stop, "reason", reason)
  while True:
    try:
      stopped = loop.train(configured(path), str(tmp_path / "stopped"))
      break
    except Stopped:
      stops += 1
  assert stops >= 2
  assert any(step % 3 for step in child.resume_steps(str(tmp_path / "stopped")))  # inside a window
  assert stopped.digest == straight.digest and stopped.history["loss"] == straight.history["loss"]
  assert child.facts(str(tmp_path / "stopped"))[1] == child.facts(str(tmp_path / "straight"))[1]


@pytest.mark.slow
def test_a_finished_run_started_again_has_nothing_to_do(path, tmp_path, monkeypatch):
  """There is no window after the last step."""
  monkeypatch.setattr(host, "WINDOW_STEPS", 1)
  done = loop.train(configured(path), str(tmp_path))
  assert loop.train(configured(path), str(tmp_path)).digest == done.digest


def test_transforms_are_fitted_to_the_bit_as_in_memory(tmp_path):
  """Columns picked out of a wide dataset lie in another order in memory, in which sums would round otherwise."""
  path = str(tmp_path / "wide.h5")
  with h5py.File(path, "w") as file:
    file["x"] = np.random.RandomState(3).lognormal(3, 2, (5000, 7))
  settings = {"data__features": ("x_5", "x_0", "x_3"), "data__transforms": ("log1p", "standardise", "signed_log1p")}
  scalers = [tabular.load(configured(path, **{k.replace("__", "."): v for k, v in settings.items()},
                                     **{"data.out_of_core": over_file}), {})[0].meta["scaler"]
             for over_file in (True, False)]
  assert scalers[0] == scalers[1]


def test_label_and_group_may_be_parts_of_a_wide_dataset(tmp_path):
  path = str(tmp_path / "wide.h5")
  with h5py.File(path, "w") as file:
    file["x"] = np.stack([np.arange(12.0), np.arange(12) % 3, np.arange(12) // 4, np.arange(12.0) ** 2], axis=1)
  over_file = host.open_hdf5(path, ("x_3", "x_0"), "x_1", "x_2")
  in_memory = tables.read_file("hdf5", path, "", ("x_3", "x_0"), "x_1", "x_2")
  np.testing.assert_array_equal(over_file.features[:], in_memory.features)
  assert over_file.label.tolist() == in_memory.label.tolist() == [k % 3 for k in range(12)]
  assert over_file.group.tolist() == in_memory.group.tolist()


def flags_of(path, **fields):
  fields = {"data.source": "hdf5", "data.path": path, "data.out_of_core": True, "log.figures": "none",
            "log.progress": False} | fields
  return ["--config=configs/vae.py:csv", *(f"--config.{key}={value}" for key, value in fields.items())]


@pytest.mark.slow
def test_the_number_of_reading_processes_changes_nothing(tmp_path):
  """Workers are processes of their own, which open the file again; so through the command."""
  path, digests = write_file(tmp_path / "x.h5", "compressed", 500), []
  for workers in (0, 2):
    flags = flags_of(path, **{"data.num_workers": workers, "data.features": "a,c", "data.split.kind": "random",
                              "train.num_epochs": 2, "train.batch_size": 32})
    done = child.run(*flags, f"--workdir={tmp_path / str(workers)}")
    assert done.returncode == 0, done.stderr
    digests.append(child.inspect(str(tmp_path / str(workers)))["digest"])
  assert digests[0] == digests[1]


WIDTH, MIB = 256, 1 << 20
LIMIT_MIB, GROWTH_MIB = 500, 200  # the file is five times the limit; what a run may grow by
# Trains like the command, but with no final assessment; prints what of it was resident at most, and its digest.
MEASURED = """
import json, resource, sys
import numpy as np
from jaxtrain import config as config_lib, loop
config = config_lib.read_file('configs/vae.py:csv')
for key, value in json.loads(sys.argv[1]).items():
  config_lib.assign(config, key, tuple(value) if isinstance(value, list) else value)
limit = int(sys.argv[2])
if limit:
  resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
result = loop.train(config, None)
used = {}
for line in open('/proc/self/status'):
  name, _, value = line.partition(':')
  if name in ('VmHWM', 'VmData', 'RssAnon'):
    used[name] = int(value.split()[0]) * 1024
print(json.dumps({'loss': result.history['loss'], 'digest': result.digest} | used))
"""


def measure(path, limit=0):
  """What a run over a file used, in bytes, and its losses; under a limit on the data segment, all that is not a file.
  """
  fields = {"data.source": "hdf5", "data.path": path, "data.out_of_core": True, "data.features": ["x"],
            "data.split.kind": "none", "train.monitor": "train_loss", "optim.plateau.monitor": "train_loss",
            "train.num_epochs": 0, "train.num_steps": 300, "log.figures": "none", "log.progress": False}
  done = subprocess.run([sys.executable, "-c", MEASURED, json.dumps(fields), str(limit)], cwd=child.ROOT,
                        env=os.environ | {"PYTHONPATH": ".", "JAX_ENABLE_COMPILATION_CACHE": "false"},
                        capture_output=True, text=True, timeout=500)  # compiling takes memory: in all or in none
  assert done.returncode == 0, done.stdout + done.stderr
  return json.loads(done.stdout.splitlines()[-1])


def write_blocks(path, num_rows):
  """A float32 file [num_rows, WIDTH], a block at a time."""
  random = np.random.default_rng(0)
  with h5py.File(path, "w") as file:
    x = file.create_dataset("x", (num_rows, WIDTH), "f4")
    for start in range(0, num_rows, 16384):
      stop = min(start + 16384, num_rows)
      x[start:stop] = random.random((stop - start, WIDTH), np.float32)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path):
  tiny, large = str(tmp_path / "tiny.h5"), str(tmp_path / "large.h5")
  write_blocks(tiny, 1024)
  base = measure(tiny)
  try:
    write_blocks(large, 5 * LIMIT_MIB * MIB // (4 * WIDTH) + 128)
    assert os.path.getsize(large) > 5 * LIMIT_MIB * MIB
    used = measure(large, base["VmData"] + LIMIT_MIB * MIB)
  finally:
    if os.path.exists(large):
      os.remove(large)
  print("tiny", base, "large", used)
  assert len(used["loss"]) >= 1 and np.isfinite(used["loss"]).all()
  assert used["VmHWM"] - base["VmHWM"] < GROWTH_MIB * MIB
