"""A trained run in Python: its verbs give what the command writes; what it knows of itself; what it refuses."""

import asyncio
import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pandas as pd
import pytest

import child
import outside
import runs
import jaxtrain
from jaxtrain import loop, predict
from jaxtrain.data import files, writing
from jaxtrain.errors import UserError

FEATURES, CLASSES = ("depth", "density", "redness"), ("clay", "ooze", "sand")
FIELDS = {"data.features": FEATURES, "data.label": "rock", "data.split.kind": "random", "data.missing": ("n.d.", -99.0),
          "model.kind": "semisup", "model.hidden_dims": (8,), "model.latent_dim": 2, "model.head_dim": 4,
          "train.batch_size": 16, "train.num_epochs": 2, "checkpoint.every_epochs": 1, "log.figures": "none"}


def table(num_rows=60, seed=0):
  random = np.random.RandomState(seed)
  rock = random.randint(3, size=num_rows)
  values = 10 + 3 * rock + random.normal(size=num_rows), 1 + random.uniform(size=num_rows), random.normal(size=num_rows)
  return pd.DataFrame(dict(zip(FEATURES, values)) | {"rock": np.array(CLASSES)[rock]},
                      index=[f"r{i}" for i in range(num_rows)])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A run that was trained as in a notebook, whose thread runs an event loop."""
  folder = tmp_path_factory.mktemp("load")
  table().to_csv(folder / "t.csv", index=False)

  async def cell():
    return jaxtrain.train(f"{child.ROOT}/configs/vae.py:csv", folder / "run",
                          **FIELDS | {"data.path": str(folder / "t.csv")})
  result = asyncio.run(cell())
  assert result.workdir == str(folder / "run") and result.best_value is not None
  return result.workdir


@pytest.fixture(scope="module")
def run(workdir):
  async def cell():
    return jaxtrain.load(workdir)
  return asyncio.run(cell())


def command(workdir, verb, rows, folder, *flags):
  """What the command adds for these rows, by name."""
  if rows is not None:
    writing.write(str(folder / "in.parquet"), {name: rows[name].to_numpy(dtype=object) if rows[name].dtype.kind not in
                                               "fiub" else rows[name].to_numpy() for name in rows})
    flags += (f"--input={folder / 'in.parquet'}",)
  predict.run([f"--workdir={workdir}", f"--verb={verb}", f"--output={folder / 'out.npz'}", *flags])
  return files.read("npz", str(folder / "out.npz")).values


def test_importing_jaxtrain_imports_no_library():
  code = ("import sys, jaxtrain; assert {'load', 'train'} <= set(dir(jaxtrain)); "
          "assert not {'jax', 'numpy', 'matplotlib', 'absl', 'ml_collections', 'jaxtrain.loop'} & set(sys.modules)")
  subprocess.run([sys.executable, "-c", code], cwd=child.ROOT, check=True, timeout=60)
  with pytest.raises(AttributeError, match="no attribute 'laod'"):
    assert jaxtrain.laod


@pytest.mark.slow
def test_loading_a_run_draws_nothing(workdir):
  code = f"import sys, jaxtrain; jaxtrain.load({workdir!r}); assert not {{'matplotlib', 'sklearn'}} & set(sys.modules)"
  subprocess.run([sys.executable, "-c", code], cwd=child.ROOT, check=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["embed", "reconstruct", "classify", "impute"])
def test_each_kind_of_rows_gives_what_the_command_writes(verb, workdir, run, tmp_path):
  rows = table(21, 1)
  if verb == "impute":
    rows.loc["r3", "density"] = np.nan
  written = command(workdir, verb, rows, tmp_path)
  x = rows[list(FEATURES)].to_numpy()
  found = {"frame": run.verbs[verb](rows), "dict": run.verbs[verb](rows.to_dict("list")),
           "array": getattr(run, verb)(x), "jax": run.verbs[verb](jax.numpy.asarray(x))}
  assert list(found["frame"].index) == list(rows.index) and type(found["frame"]) is pd.DataFrame
  added = [name for name in written if name not in rows or verb == "impute" and name in FEATURES]
  for kind, columns in found.items():
    assert list(columns) == added, kind
    for name in added if kind != "jax" else ():  # whose numbers were rounded to 32 bits before
      got, want = np.asarray(columns[name]), written[name]
      assert got.dtype.kind == want.dtype.kind or {got.dtype.kind, want.dtype.kind} <= set("OUT"), (kind, name)
      np.testing.assert_array_equal(got, want, err_msg=f"{kind} {name}")
  assert all(len(column) == 21 for column in found["jax"].values())


@pytest.mark.slow
def test_rows_that_are_made(workdir, run, tmp_path):
  for flags, given in (((), {}), (("--seed=5",), {"seed": np.int64(5)})):
    written, found = command(workdir, "sample", None, tmp_path, "--num=7", *flags), run.sample(num=7, **given)
    assert list(found) == list(FEATURES)
    for name in FEATURES:
      np.testing.assert_array_equal(found[name], written[name])


def test_cells_follow_the_rules_of_files(run):
  """Words and numbers that mean missing, text, categories, missing marks of pandas, columns of no interest."""
  rows = table(6, 2).astype({"depth": "Float64", "density": object})
  rows["other"] = pd.Categorical(list("aabbcc"))
  plain = run.embed(rows)
  rows["density"] = rows["density"].map(str)
  rows["redness"] = pd.Categorical(rows["redness"])
  pd.testing.assert_frame_equal(run.embed(rows), plain)
  rows.loc["r0", "depth"], rows.loc["r1", "density"] = pd.NA, "n.d."
  rows["redness"] = [-99 if name == "r2" else value for name, value in rows["redness"].items()]
  found = run.embed(rows)
  assert found.isna().all(axis=1).tolist() == [True, True, True, False, False, False]
  pd.testing.assert_frame_equal(found.iloc[3:], plain.iloc[3:])
  assert run.impute(rows)["num_imputed"].tolist() == [1, 1, 1, 0, 0, 0]


def test_programs_are_compiled_once(workdir):
  run, compiled = jaxtrain.load(workdir), []

  def listen(event, seconds, **_):
    compiled.extend([event] * event.endswith("backend_compile_duration"))
  rows = table(40, 3)
  rows.iloc[0, 0] = np.nan
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    for verb in ("embed", "classify", "impute"):
      run.verbs[verb](rows)
    assert compiled  # so it is heard
    del compiled[:]
    for verb in ("embed", "classify", "impute"):
      run.verbs[verb](rows)
      run.verbs[verb](rows.iloc[:35])
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert not compiled


def test_what_a_run_knows_of_itself(workdir, run):
  assert run.config.data.features == FEATURES and run.config.seed == 42
  with open(os.path.join(workdir, "history.json"), encoding="utf-8") as file:
    assert run.history == json.load(file)
  frame = run.history_frame()
  assert list(frame["epoch"]) == [1, 2] and list(frame["val_loss"]) == run.history["val_loss"]
  with open(os.path.join(workdir, "eval", "test.json"), encoding="utf-8") as file:
    assert run.eval["test"]["accuracy"] == json.load(file)["scalars"]["accuracy"]
  assert set(run.eval) == {"train", "val", "test"} and isinstance(run.eval["test"]["rows"], int)
  assert run.step == int(os.readlink(os.path.join(workdir, "checkpoints", "best")))
  last = jaxtrain.load(workdir, "last")
  assert child.inspect(workdir)["digest"] == f"sha256:{last.digest} step={last.step}"
  assert run.quality.value == min(run.history["val_loss"]) and run.quality.monitor == "val_loss"
  words = repr(run)
  assert run.digest in words and f"best val_loss {run.quality.value:.6g} at step {run.step}" in words
  assert "run.embed(rows of 3 columns: depth, density, redness)" in words and "run.sample(num=rows to make)" in words
  assert run.verbs["impute"].needs == FEATURES == run.verbs["impute"].optional and "embed" in dir(run)


def test_a_frame_without_pandas_names_what_to_install(run, monkeypatch):
  monkeypatch.setitem(sys.modules, "pandas", None)
  with pytest.raises(UserError, match=r"^pandas is not installed; pip install -e '\.\[notebook\]'$"):
    run.history_frame()


def refused(call):
  with pytest.raises(UserError) as caught:
    call()
  return str(caught.value)


def test_mistakes_are_said_in_the_words_of_the_command(workdir, run):
  rows = table(5, 4)
  assert "the DataFrame has no column 'density'; the run needs depth, density, redness" in refused(
      lambda: run.embed(rows.drop(columns="density")))
  infinite = rows.assign(depth=[1, 2, np.inf, 3, 4])
  assert refused(lambda: run.embed(infinite)) == "the DataFrame: column 'depth', row r2: infinite value"
  assert refused(lambda: run.embed(infinite.to_dict("list"))) == "the columns: column 'depth', row 2: infinite value"
  assert refused(lambda: run.embed(rows.assign(depth="x"))) == (
      "the DataFrame: column 'depth', row r0: 'x' is not a number; make it a number, or None where it is missing")
  twice = pd.concat([rows, rows[["depth"]]], axis=1)
  assert "column names must differ; 'depth' stands more than once" in refused(lambda: run.embed(twice))
  assert refused(lambda: run.embed(np.zeros((4, 2)))) == (
      "the array: got the shape (4, 2), allowed (N, 3), a column for each of depth, density, redness")
  assert refused(lambda: run.embed(rows.iloc[:0])) == "the DataFrame: no rows"
  assert refused(lambda: run.embed()) == "embed: got nothing, allowed an array, a dict of columns or a DataFrame"
  assert refused(lambda: run.sample(rows, num=3)) == "sample: got rows, allowed no rows"
  assert refused(lambda: run.sample()) == "num: got 0, allowed 1 or more with verb=sample"
  assert refused(lambda: run.sample(num=1.5)) == "num: got 1.5, allowed a whole number"
  assert "seed: got -1, allowed" in refused(lambda: run.sample(num=3, seed=-1))
  assert refused(lambda: jaxtrain.load(workdir, "best ")) == "checkpoint: got 'best ', allowed best | last | STEP"
  assert refused(lambda: jaxtrain.load(workdir + "x")).startswith("workdir: ")
  with pytest.raises(AttributeError, match="no verb 'embedd'; this run has classify, embed, impute"):
    assert run.embedd


def test_a_run_of_foreign_code_is_loaded_where_it_is_named(tmp_path):
  loop.train(outside.get_config("table"), str(tmp_path / "run"))
  assert "experiment=outside runs its code" in refused(lambda: jaxtrain.load(tmp_path / "run"))
  found = jaxtrain.load(tmp_path / "run", experiment="outside")
  assert found.verbs == {} and len(found.history["epoch"]) == 6 and found.config.experiment == "outside"


def test_a_changed_checkpoint_is_refused(workdir, tmp_path):
  shutil.copytree(workdir, tmp_path / "run", symlinks=True)
  step = os.readlink(tmp_path / "run" / "checkpoints" / "best")
  child.damage(str(tmp_path / "run" / "checkpoints" / step), "one bit flipped")
  assert "cannot be read" in refused(lambda: jaxtrain.load(tmp_path / "run")) or "does not hold" in refused(
      lambda: jaxtrain.load(tmp_path / "run"))


def test_a_run_of_stages_that_an_older_version_made():
  folder = os.path.join(child.ROOT, "tests", "old_runs", "stages")
  found = jaxtrain.load(folder)
  with open(os.path.join(folder, "history.json"), encoding="utf-8") as file:
    assert found.history["val_loss"] == json.load(file)["val_loss"]
  assert set(found.eval) == {"train", "val", "test"} and found.quality.warnings == ()
  assert found.quality.value == min(found.history["val_loss"]) and "classify" in found.verbs


def test_rows_become_bytes_of_a_file_and_come_back(shared):
  """As `predict` writes and reads the file; bytes that are none, and a form that there is not, are one line."""
  run = jaxtrain.load(str(shared.run(*runs.smoke("semantic_compression"))))
  columns = {column.name: np.full(3, 0.4) for column in run.compress.verb.inputs}
  columns |= {"age": np.array([3, 70, 400]), "is_defending": np.array(["0", "1", "0"]),
              "role": np.array(["builder", "explorer", "attacker"])}
  data = run.compress(columns, form=".jtc")
  assert data[:4] == b"\x89JTC"
  back, codes = run.decompress(data), run.compress(columns)
  bits = codes.pop("bits")
  assert (bits > 0).all() and back["role"].tolist() == columns["role"].tolist()
  for name, values in run.decompress(codes).items():
    np.testing.assert_array_equal(values, back[name], err_msg=name)
  with pytest.warns(UserWarning, match=r"^decompress: block 1 of 1 .* is damaged; its rows are empty; all others are"):
    lost = run.decompress(data[:-1] + bytes([data[-1] ^ 16]))
  assert np.isnan(lost["age"]).all() and len(lost["age"]) == 3
  with pytest.raises(UserError, match="^the bytes: is cut off or damaged"):
    run.decompress(data[:-3])
  with pytest.raises(UserError, match="form='.zip', allowed .jtc"):
    run.compress(columns, form=".zip")
  with pytest.raises(UserError, match="got bytes"):
    run.probe(data)
