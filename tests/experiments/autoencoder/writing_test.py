"""The command that writes the simulation's events to a file, and sources that read the file."""

import sys

import numpy as np
import pytest

import made_events
from jaxtrain.experiments.autoencoder import __main__ as command, sources

@pytest.fixture
def write(monkeypatch, capsys):
  """Runs the command, with the default config unless told; returns its exit code and what it printed."""
  def run(output, *flags, config=made_events.PATH):
    monkeypatch.setattr(sys, "argv", ["write", f"--config={config}", f"--output={output}", *flags])
    code = command.main()
    return code, "".join(capsys.readouterr())
  return run


def test_written_events_are_those_of_the_run(write, tmp_path):
  """A source that reads the file with its parts has the rows of the one that simulates them, bit for bit."""
  path = tmp_path / "events.h5"
  assert write(path, "--config.data.row_limit=100") == (0, f"jaxtrain: 100 events in {path}\n")
  shares = {"split__fractions": (0.6, 0.2, 0.2)}
  one = sources.load_events(made_events.configured(row_limit=100, **shares))
  other = sources.load_events(made_events.configured(source="hdf5", path=str(path), split__kind="file", row_limit=0,
                                                     **shares))
  assert {k: v for k, v in one.meta.items() if k != "table"} == {k: v for k, v in other.meta.items() if k != "table"}
  for part in sources.PARTS:
    a, b = (getattr(splits, part) for splits in (one, other))
    for name, column in a.rows(np.arange(a.num_rows)).items():
      np.testing.assert_array_equal(column, b.rows(np.arange(b.num_rows))[name])


@pytest.mark.parametrize("flag", ["--config.data.columns='[1,2,3]'", "--config.data.columns=(1,2,3)",
                                  "--config.data.columns=pt,eta,phi", "--config.data.columns=('pt','eta')"])
def test_columns_are_typed_in_any_form(flag, write, tmp_path):
  assert write(tmp_path / "events.h5", flag, "--config.data.row_limit=20")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("output,flags,words", [
    ("events.csv", (), "--output: got "), ("", (), "--output: got ''"), ("none/a.h5", (), "--output: cannot write "),
    ("a.h5", ("--config.data.row_limit=0",), "config.data.row_limit: got 0"),
    ("a.h5", ("--config.data.source=images",), "config.data.source: got 'images', allowed toy | hdf5 | csv"),
    ("a.h5", ("--config.data.source=table",), "config.data.source: got 'table', allowed toy | hdf5 | csv | images"),
    ("a.h5", ("--config.data.norm=log",), "config.data.norm: got 'log', allowed physics | zscore_masked | zscore_leg"),
    ("a.h5", ("--config.data.split.kind=group",), "config.data.split.kind: got 'group', allowed none | random | file"),
    ("a.h5", ("--config.data.loader=load",), "config.data.loader: got ('load',)"),
    ("a.h5", ("--config.data.columns=[1,2,3]",), "config.data.columns: got ([1, 2, 3],), allowed names or numbers of"),
    ("a.h5", ("--config.data.num_slots=0",), "config.data.num_slots: got 0, allowed 1 to 4096")])
def test_refused(output, flags, words, write, tmp_path):
  code, said = write(output and tmp_path / output, *flags)
  assert code == 2 and said.startswith(f"jaxtrain: {words}") and said.count("\n") == 1


def test_another_family_is_refused(write, tmp_path):
  code, said = write(tmp_path / "a.h5", config=made_events.PATH.replace("autoencoder", "vae"))
  assert code == 2 and said.startswith("jaxtrain: --config: its experiment is jaxtrain.experiments.tabular_vae.vae, a")
