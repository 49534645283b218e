"""What a trained run reads and writes: as its own file was read, or as flags say; what cannot be is refused before."""

import contextlib
import os
import shutil
import sqlite3

import numpy as np
import pytest

import runs
from jaxtrain import config as config_lib, loop, predict
from jaxtrain.data import inputs, writing
from jaxtrain.errors import UserError

NOTHING = dict.fromkeys(inputs.FIELDS)


def section(**fields):
  config = config_lib.tables()
  for name, value in fields.items():
    config[name] = value
  return config


def write(path, text, encoding="utf-8"):
  path.write_bytes(text.encode(encoding))
  return str(path)


def test_a_file_is_read_as_the_runs_own_was_or_as_flags_say(tmp_path):
  path = write(tmp_path / "t.csv", "a;b\n1,5;-\n2;-99\n")
  data = section(source="csv", separator=";", decimal=",", missing=("-", -99))
  np.testing.assert_array_equal(inputs.read(path, data, NOTHING).numbers("b"), [np.nan, np.nan])
  assert inputs.read(path, data, NOTHING).numbers("a").tolist() == [1.5, 2]
  plain = write(tmp_path / "p.csv", "a,b\n1.5,?\n2,-99\n")
  said = NOTHING | {"separator": ",", "decimal": ".", "missing": ("?",)}
  np.testing.assert_array_equal(inputs.read(plain, data, said).numbers("b"), [np.nan, -99])
  assert inputs.read(plain, {}, NOTHING | {"missing": ("?",)}).numbers("a").tolist() == [1.5, 2]  # without tables
  with pytest.raises(UserError, match="separated by ',', which --separator=',' declares"):
    inputs.read(plain, data, NOTHING)
  with pytest.raises(UserError, match="--decimal: got ';', allowed"):
    inputs.read(plain, data, NOTHING | {"decimal": ";"})


def test_the_table_of_a_database_is_the_runs_own_where_it_has_it(tmp_path):
  for name, tables in (("two.db", ("logs", "wells")), ("one.db", ("cores",)), ("others.db", ("x", "y"))):
    with contextlib.closing(sqlite3.connect(tmp_path / name)) as database, database:
      for table in tables:
        database.execute(f"create table {table} (a)")
        database.execute(f"insert into {table} values ({len(table)})")
  data = section(source="sqlite", table="logs")
  read = lambda name, **given: inputs.read(str(tmp_path / name), data, NOTHING | given).numbers("a").tolist()
  assert read("two.db") == [4] and read("one.db") == [5] and read("two.db", table="wells") == [5]
  with pytest.raises(UserError, match="--table: got '', allowed a table of .*others.db: x, y"):
    read("others.db")
  with pytest.raises(UserError, match="--table: got 'logs'"):
    read("others.db", table="logs")


def test_an_unknown_suffix_stands_for_the_kind_of_the_runs_own_file(tmp_path):
  path = write(tmp_path / "t.tsv", "a\tb\n1\t2\n")
  assert inputs.read(path, section(source="csv", separator="tab"), NOTHING).numbers("b").tolist() == [2]
  with pytest.raises(UserError, match="the suffix '.tsv' is not one of"):
    inputs.read(path, section(source="sklearn"), NOTHING)


@pytest.mark.parametrize("suffix, name, others, words", [
    (".h5", "m/s", ("m",), "a '/' makes 'm', which is another column, a group"),
    (".h5", "a//b", (), "is empty or a dot"), (".h5", "", (), "is empty or a dot"), (".h5", "a\0", (), "NUL"),
    (".npz", "a\0", (), "NUL")])
def test_names_that_a_format_cannot_hold_are_refused(suffix, name, others, words):
  with pytest.raises(UserError, match=f"--output: out{suffix}: {suffix} cannot hold the column .*{words}"):
    writing.check(f"out{suffix}", {name: np.arange(2), **{other: np.arange(2) for other in others}})


def test_columns_that_a_format_cannot_hold_are_refused_and_dates_are_held(tmp_path):
  mixed = {"x": np.array([2**60, 1.5], object)}
  with pytest.raises(UserError, match="out.parquet: .parquet cannot hold the column 'x': it mixes reals with integers"):
    writing.check("out.parquet", mixed)
  good = {"day": np.array(["2020-01-01", "2021-05-06"], "M8[D]"), "m/s": np.arange(2), "x": np.array([1, 1.5], object)}
  for suffix in (".csv", ".parquet", ".npz", ".h5"):
    path = str(tmp_path / f"out{suffix}")
    writing.check(path, good)
    writing.write(path, good)
  for suffix in (".csv", ".npz", ".h5"):
    writing.check(f"out{suffix}", mixed)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run over a file with semicolons and decimal commas."""
  folder = tmp_path_factory.mktemp("inputs")
  rows = "".join(f"{i % 7},5;{i * i % 11};h{i % 4}\n" for i in range(40))
  path = write(folder / "t.txt", "a;b;hole\n" + rows)
  loop.train(configured(path), str(folder / "run"))
  with runs.restored_once():
    yield folder


def configured(path, epochs=1):
  config = config_lib.read_file("configs/vae.py:csv")
  fields = {"data.path": path, "data.features": ("a", "b"), "data.separator": ";", "data.decimal": ",",
            "data.split.kind": "random", "model.hidden_dims": (4,), "model.latent_dim": 2,
            "train.num_epochs": epochs, "train.batch_size": 8, "log.figures": "none", "log.progress": False,
            "optim.plateau.factor": 0.0, "log.save_artifacts": False}
  for key, value in fields.items():
    config_lib.assign(config, key, value)
  return config


def test_a_run_applies_to_its_own_file_under_any_name(run):
  out = str(run / "out.csv")
  summary = predict.run([f"--workdir={run}/run", "--verb=embed", f"--input={run}/t.txt", f"--output={out}"])
  assert summary["rows"] == 40 and summary["rows_incomplete"] == 0


@pytest.mark.parametrize("flags, words", [
    (("--num=99999999999",), "--num: got 99999999999, allowed 1 or more, up to 2147483647"),
    (("--num=2147483647",), "--num: got 2147483647, allowed up to .* with the memory that is free"),
    (("--num=5", "--seed=-1"), "--seed: got -1, allowed 0 to 4294967295"),
    (("--num=5", "--seed=4294967296"), "--seed: got 4294967296"),
    (("--num=5", "--decimal=,"), "--decimal: got ',', allowed nothing with --verb=sample")])
def test_numbers_of_predict_are_checked(flags, words, run, monkeypatch):
  from jaxtrain import memory
  monkeypatch.setattr(memory, "free_bytes", lambda: 16 << 30)
  with pytest.raises(UserError, match=words):
    predict.run([f"--workdir={run}/run", "--verb=sample", f"--output={run}/s.csv", *flags])


@pytest.mark.parametrize("flag", ["--columns=a,b", "--seed=0", "--decimal=,", "--missing=x", "--num=3"])
def test_what_an_export_has_no_use_for_is_refused(flag, run):
  with pytest.raises(UserError, match=f"^{flag.partition('=')[0]}: got .*, allowed nothing with --export$"):
    predict.run([f"--workdir={run}/run", "--verb=embed", f"--export={run}/e.bin", flag])


def test_what_the_output_cannot_hold_is_refused_before_anything_is_computed(run, tmp_path, monkeypatch):
  path = write(tmp_path / "t.csv", "a;b;m;m/s\n1;2;3;4\n")
  with pytest.raises(UserError, match="out.h5: .h5 cannot hold the column 'm/s'"):
    predict.run([f"--workdir={run}/run", "--verb=embed", f"--input={path}", f"--output={tmp_path}/out.h5"])
  with pytest.raises(UserError, match="t.csv: data column 'a', row 2: 1e\\+39 lies so far"):
    predict.run([f"--workdir={run}/run", "--verb=embed", f"--output={tmp_path}/out.csv",
                 f"--input={write(tmp_path / 't.csv', 'a;b' + chr(10) + '1e39;2' + chr(10))}"])


@pytest.mark.slow
def test_a_moved_file_of_the_same_bytes_goes_on_and_another_does_not(run, tmp_path):
  workdir, moved = str(tmp_path / "run"), str(tmp_path / "moved.txt")
  shutil.copytree(run / "run", workdir)
  shutil.copy(run / "t.txt", moved)
  result = loop.train(configured(moved, epochs=2), workdir)
  assert result.digest == loop.train(configured(str(run / "t.txt"), epochs=2), None).digest
  with open(moved, "a", encoding="utf-8") as file:
    file.write("1,5;7;h1\n")
  os.rename(moved, tmp_path / "again.txt")
  with pytest.raises(UserError, match="config.data.path: '.*moved.txt' -> '.*again.txt'"):
    loop.train(configured(str(tmp_path / "again.txt"), epochs=3), workdir)
