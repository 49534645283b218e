"""The command that writes a simulated table or a benchmark to a file, and runs that read the file."""

import csv
import sys

import jax
import numpy as np
import pytest

from jaxtrain import config as config_lib, loop
from jaxtrain.data import files
from jaxtrain.experiments.causal_consistency import __main__ as command, joint

import consistency_cases as cases
import made_benchmarks

OF_CSV = {"data.features": ("x",), "data.treatment": "y", "data.outcomes": ("z",)}
SHARED = ("data.split.fractions", "data.transforms")


def write(monkeypatch, capsys, path, *flags, variant="base"):
  """Runs the command; returns its exit code and what it printed."""
  monkeypatch.setattr(sys, "argv", ["write", f"--config={cases.PATH}:{variant}", f"--output={path}", *flags])
  code = command.main()
  return code, "".join(capsys.readouterr())


def read_back(path, original):
  """A config that reads the file as a run of the original reads its own table."""
  same = {name: config_lib.lookup(original, name) for name in SHARED}
  return cases.configured("csv", **{"data.path": str(path), "data.source": files.kind_of(str(path))} | OF_CSV | same)


def test_columns_of_a_written_table(tmp_path, monkeypatch, capsys):
  path = tmp_path / "table.csv"
  code, said = write(monkeypatch, capsys, path, "--config.data.num_samples=40", variant="mnar")
  assert (code, said) == (0, f"jaxtrain: 100 rows in {path}\n")
  with open(path, newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  assert list(rows[0]) == ["x", "y", "z", "true_y", "true_mean_0", "true_mean_1"] and len(rows) == 100
  hidden = [row for row in rows if row["y"] == ""]
  assert 20 < len(hidden) < 90 and all(row["y"] == row["true_y"] for row in rows if row not in hidden)
  for row in rows:  # z = x + y + noise
    assert float(row["true_mean_1"]) == float(row["x"]) + 1 and abs(float(row["z"]) - float(row["x"])
                                                                    - float(row["true_y"])) < 0.6


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz", "h5"])
def test_a_written_table_is_the_table(suffix, tmp_path, monkeypatch, capsys):
  """Read again by its column names, it gives the parts and the numbers of the run that it was written for. A column of
  numbers with holes is one of reals but in a CSV file, so that classes are named 0.0 and 1.0.
  """
  path, original = tmp_path / f"table.{suffix}", cases.configured()
  assert write(monkeypatch, capsys, path, "--config.data.num_samples=200")[0] == 0
  one, other = (joint.load(config_lib.resolve(each)) for each in (original, read_back(path, original)))
  assert other.meta["class_names"] == (["0", "1"] if suffix == "csv" else ["0.0", "1.0"])
  assert one.meta["rows"] == other.meta["rows"]
  jax.tree.map(np.testing.assert_array_equal, dict(one.train.data), dict(other.train.data))


@pytest.mark.slow
def test_a_written_table_trains_as_the_table(tmp_path, monkeypatch, capsys):
  path, original = tmp_path / "table.csv", cases.configured()
  write(monkeypatch, capsys, path, "--config.data.num_samples=200")
  one, other = loop.train(original), loop.train(read_back(path, original))
  assert one.history["loss"] == other.history["loss"] and len(one.history["loss"]) == 2


@pytest.mark.parametrize("variant,columns", [
    ("multiclass", ["x", "y", "z", "true_y", "true_mean_0", "true_mean_1", "true_mean_2"]),
    ("iv", ["x", "w1", "w2", "y", "z", "true_y", "true_mean_0", "true_mean_1"]),
    ("hetero", ["x1", "x2", "x3", "x4", "x5", "y", "z", "true_y", "true_mean_0", "true_mean_1"]),
    ("nsw_cps", ["age", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75", "treat", "re78", "true_treat"])])
def test_every_source_is_written(variant, columns, tmp_path, monkeypatch, capsys):
  monkeypatch.syspath_prepend(str(made_benchmarks.write(tmp_path / "packages")))
  flags = ["--config.data.instrument_dim=2"] if variant == "iv" else []
  assert write(monkeypatch, capsys, tmp_path / "a.npz", *flags, variant=variant)[0] == 0
  assert list(files.read("npz", str(tmp_path / "a.npz")).values) == columns


@pytest.mark.parametrize("output,flags,words", [
    ("a.txt", (), "--output: got "), ("", (), "--output: got ''"), ("a.db", (), "--output: got "),
    ("none/a.csv", (), "--output: cannot write "),
    ("a.csv", ("--config.data.source=csv",), "config.data.source: got 'csv', allowed base | multiclass"),
    ("a.csv", ("--config.data.missing_rate=2",), "config.data.missing_rate: got 2.0"),
    ("a.csv", (f"--config={cases.PATH.replace('causal_consistency', 'vae')}",), "--config: its experiment is ")])
def test_refused(output, flags, words, tmp_path, monkeypatch, capsys):
  code, said = write(monkeypatch, capsys, output and tmp_path / output, *flags)
  assert code == 2 and said.startswith(f"jaxtrain: {words}") and said.count("\n") == 1
