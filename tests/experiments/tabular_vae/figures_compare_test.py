"""Figures of two models side by side: what they show of whom, from run folders that the tests write."""

import os

import pytest

from drawn import assert_fits, texts
from jaxtrain.experiments.tabular_vae import figures as vae_figures, figures_compare
from jaxtrain.report import collection, comparisons, figures
from jaxtrain.workdir import reading
from made_runs import MODEL, make_run

LABELS = ["kind=unsup", "kind=semisup"]
NEEDS = {"roc_comparison": "probe_tpr", "zero_shot": "held_own", "maps": "sample_components",
         "reconstruction_scatter": "sample_x_mean"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """An unsupervised and a semi-supervised run."""
  folder = tmp_path_factory.mktemp("pair")
  return [make_run(folder / kind, config={"model": MODEL | {"kind": kind}, "seed": 0}, transforms=("identity", "log1p"),
                   predicted=kind == "semisup") for kind in ("unsup", "semisup")]


@pytest.fixture(scope="module")
def runs(folders):
  """The two, as pages read them."""
  return [reading.read_newest(folder)[1] for folder in folders]


@pytest.mark.parametrize("name", sorted(vae_figures.COMPARISONS))
def test_two_runs_stand_side_by_side_and_one_alone_is_no_comparison(runs, name):
  family = vae_figures.COMPARISONS[name]
  with figures.styled():
    assert_fits(family, runs, LABELS)
    said = texts(family(runs, LABELS))
    assert all(label in said for label in LABELS), said
    assert family(runs[:1], LABELS[:1]) is None and family(runs, ["same", "same"]) is None


def test_numbers_are_those_of_the_runs(runs):
  arrays = [reading.read_run(run.folder).arrays for run in runs]
  said = texts(vae_figures.roc_comparison(runs, LABELS))
  assert all(f"mean area {one['probe_auc'].mean():.3f}" in said for one in arrays)
  assert "fitted to 700 rows, scored on 534 of other groups (test)" in said
  said = texts(vae_figures.zero_shot(runs, LABELS))
  assert all(f"mean {one['held_own'].mean() / 2:.3f} (unscaled {one['held_own'].mean():.3f})" in said for one in arrays)
  figure = vae_figures.r2_comparison(runs, LABELS)
  assert "0.900" in texts(figure) and "0.890" in texts(figure)  # of depth and of mass


def test_several_runs_of_a_label_have_their_mean(runs):
  figure = vae_figures.r2_comparison([*runs, runs[0]], [*LABELS, LABELS[0]])
  assert "kind=unsup, 2 runs" in texts(figure)


def test_runs_without_the_arrays_are_left_out(folders, runs, monkeypatch):
  read = reading.read_run
  for name, array in NEEDS.items():
    without = lambda folder, array=array: read(folder)._replace(
        arrays={key: value for key, value in read(folder).arrays.items() if key != array or folder != folders[1]})
    monkeypatch.setattr(figures_compare.reading, "read_run", without)
    assert vae_figures.COMPARISONS[name](runs, LABELS) is None


def test_the_page_of_a_folder_has_them_as_files_too(folders, tmp_path, monkeypatch):
  family = {"r2_comparison": vae_figures.r2_comparison}
  monkeypatch.setattr(figures, "experiment_families", lambda *_: family)
  found = comparisons.draw(collection.gather(folders), LABELS, str(tmp_path / "figures"))
  assert len(found) == 1 and os.listdir(tmp_path / "figures") == ["r2_comparison.png"]
  assert all(path.read_bytes().startswith(b"\x89PNG") for path in (tmp_path / "figures").iterdir())
