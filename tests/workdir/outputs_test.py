"""Nothing that a user names replaces what a run or a sweep keeps: outputs of report and predict, a run in a sweep."""

import os

import pytest

import made_sweeps
import outside
from jaxtrain import loop, predict
from jaxtrain.errors import UserError
from jaxtrain.workdir import outputs

OWN = ("config.json", "run.json", "history.json", "log.txt", "report.html", "facts/scalars.csv", "facts/new.csv",
       "eval/test.npz", "checkpoints/last/record/metadata", "figures/losses.png", "stages/0/config.json")
OF_SWEEP = ("sweep.json", "journal.jsonl", "report.html", "runs/new.csv", "runs/000/config.json", "waves/0/x.npz")


@pytest.fixture
def folders(tmp_path):
  """A run, a sweep, and a folder that is neither."""
  made_sweeps.make_run(tmp_path / "run", 1.0)
  made_sweeps.make_sweep(tmp_path / "sweep", seeds=(0,))
  made_sweeps.write_lines(tmp_path / "other" / "config.json", ["{}"])
  return tmp_path


def contents(folder):
  """Path -> bytes of all files below a folder."""
  return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("path", [f"run/{name}" for name in OWN] + [f"sweep/{name}" for name in OF_SWEEP])
def test_what_a_run_or_a_sweep_keeps_is_no_output(folders, monkeypatch, path):
  os.symlink("run", folders / "link")
  monkeypatch.chdir(folders)
  for spelt in (path, str(folders / path), os.path.join("other", "..", path), path.replace("run/", "link/", 1)):
    with pytest.raises(UserError, match="^--output: .* is one of the files that a (run|sweep) keeps"):
      outputs.check_free("--output", spelt)


@pytest.mark.parametrize("path", ["run/embedded.csv", "sweep/all.html", "other/config.json", "other/facts/x.csv",
                                  "run/own/config.json", "new.csv", "facts"])
def test_other_outputs_are_allowed(folders, path):
  outputs.check_free("--output", str(folders / path))


@pytest.mark.parametrize("flag, path", [("--output", "run/facts/scalars.csv"), ("--output", "run/eval/test.npz"),
                                        ("--export", "run/config.json")])
def test_predict_keeps_the_files_of_runs(folders, monkeypatch, capsys, flag, path):
  before = contents(folders)
  monkeypatch.setattr("sys.argv", ["predict", f"--workdir={folders}/run", "--verb=sample", "--num=3",
                                   f"{flag}={folders}/{path}"])
  assert predict.main() == 2 and contents(folders) == before
  err = capsys.readouterr().err
  assert err.startswith(f"jaxtrain: {flag}: ") and "keeps in" in err and err.count("\n") == 1


def test_the_report_replaces_pages_alone(folders, monkeypatch, capsys):
  made_sweeps.write_lines(folders / "notes.html", ["my notes"])
  before = contents(folders)
  for path, says in (("run/config.json", ".html"), ("sweep/sweep.json", ".html"), ("run/report.html", "keeps in"),
                     ("notes.html", "is no page")):
    assert made_sweeps.run_main(monkeypatch, folders / "run", f"--output={folders}/{path}") == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and contents(folders) == before
  for _ in range(2):  # a page of ours is replaced, and that of the sweep itself
    assert made_sweeps.run_main(monkeypatch, folders / "run", f"--output={folders}/new.html") == 0
    assert made_sweeps.run_main(monkeypatch, folders / "sweep", f"--output={folders}/sweep/report.html") == 0


def test_no_run_is_trained_in_the_folder_of_a_sweep(folders):
  before = contents(folders)
  with pytest.raises(UserError, match="is the folder of a sweep; its members are in runs/"):
    loop.train(outside.get_config("table"), str(folders / "sweep"))
  assert {path for path in contents(folders) if path.name != ".lock"} == before.keys()
