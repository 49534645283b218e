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
                   predicted=kind == "semisup", classes="abcde") for kind in ("unsup", "semisup")]


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


def with_r2(runs, *rows):
  """The runs with R2 of the features f0, f1, ... of its row each."""
  features = [f"f{d}" for d in range(len(rows[0]))]
  metrics = ({f"r2_raw/{name}": value for name, value in zip(features, row)} for row in rows)
  return [run._replace(meta=run.meta | {"features": features}, evals={"test": {"scalars": each}})
          for run, each in zip(runs, metrics)]


def test_r2_is_that_of_held_out_rows(runs, monkeypatch):
  monkeypatch.setattr(figures_compare.reading, "known_meta", lambda run: run.meta)
  seen = [run._replace(evals={"train": {"scalars": {"r2_raw/f0": 0.99}}} | run.evals)
          for run in with_r2(runs, [0.25], [0.75])]
  figure = vae_figures.r2_comparison(seen, LABELS)
  said = texts(figure)
  assert "0.250" in said and "0.750" in said and "0.990" not in said and "part test" in figure.get_label()


def test_a_constant_feature_is_left_out_and_does_not_blank_the_others(runs, monkeypatch):
  monkeypatch.setattr(figures_compare.reading, "known_meta", lambda run: run.meta)
  figure = vae_figures.r2_comparison(with_r2(runs, [float("nan"), 0.5, 0.1], [float("nan"), 0.7, float("nan")]), LABELS)
  (ax,) = figure.axes
  assert [tick.get_text() for tick in ax.get_yticklabels()] == ["f1", "f2"]
  assert 0.0 < ax.get_xlim()[0] < 0.1 and ax.get_xlim()[1] > 1.0  # from the lowest that there is
  assert "0.500" in texts(figure) and "no R²" in texts(figure) and "nan" not in texts(figure)
  assert "1 feature has no R²" in figure.get_label()


def test_of_many_features_some_are_shown_and_the_caption_says_so(runs, monkeypatch):
  monkeypatch.setattr(figures_compare.reading, "known_meta", lambda run: run.meta)
  row = [k / 100 for k in range(100)]
  figure = vae_figures.r2_comparison(with_r2(runs, row, row[::-1]), LABELS)
  shown = len(figure.axes[0].get_yticks())
  assert 10 < shown < 30 and f"{shown} of 100 features" in figure.get_label()
  assert figure.get_size_inches()[1] < 11


def test_the_best_of_many_groups_is_drawn_and_how_many_are_not_is_said(runs, monkeypatch):
  best = {f"g{k}": value for k, value in enumerate((3.0, 2.0, 4.0, 2.5, 2.2, 1.0))}
  many = [runs[0]._replace(process={"label": label}) for label in best]
  monkeypatch.setattr(figures_compare.reading, "best_of", lambda run: reading.Best(
      "val_loss", best[run.process["label"]], 1))
  figure = vae_figures.reconstruction_scatter(many, list(best))
  assert [label for label in best if label in texts(figure)] == ["g0", "g1", "g2", "g5"]
  assert "Drawn are 4 of 6 groups, the best by val_loss (g5) among them." in figure.get_label()
  assert figures_compare.hues_of(list(best))["g5"] == figures.HUES[5]


def test_nine_groups_of_two_fields_keep_the_shape_of_their_panels_and_whole_names(runs):
  """Legends lie above the axes and within the figure, and titles have a line for each field."""
  labels = [f"weights.class={k // 3}.1, learning_rate=0.000{k % 3}" for k in range(9)]
  many = [runs[k % 2] for k in range(9)]
  with figures.styled():
    maps, zero, r2 = (vae_figures.COMPARISONS[name](many, labels) for name in ("maps", "zero_shot", "r2_comparison"))
    for figure in (maps, zero, r2):
      figure.draw_without_rendering()
  titles = [ax.get_title(loc="left").splitlines()[:2] for ax in maps.axes]
  assert titles == [label.split(", ") for label in labels[:4]]
  assert all(0.8 < ax.bbox.width / ax.bbox.height < 1.25 for ax in maps.axes)
  for figure in (zero, r2):
    (legend,), (ax,) = figure.legends, figure.axes
    box = legend.get_window_extent()
    assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 + 1 and box.y0 >= ax.get_tightbbox().y1
    assert all(label in texts(figure) for label in labels)


def test_a_fifth_of_few_classes_is_not_drawn(runs, monkeypatch):
  read = reading.read_run
  few = lambda folder: (run := read(folder))._replace(meta=run.meta | {"class_names": ["a", "b", "c", "d"]})
  monkeypatch.setattr(figures_compare.reading, "read_run", few)
  assert vae_figures.zero_shot(runs, LABELS) is None


def test_features_are_found_by_name_where_runs_have_them_in_another_order(runs, monkeypatch):
  read, seen = reading.read_run, []
  def turned(folder):
    run = read(folder)
    if folder == runs[0].folder:
      return run
    scaler = run.meta["scaler"] | {"transforms": run.meta["scaler"]["transforms"][::-1]}
    arrays = run.arrays | {name: run.arrays[name][:, ::-1] for name in ("sample_x", "sample_x_mean")}
    return run._replace(arrays=arrays, meta=run.meta | {"features": run.meta["features"][::-1], "scaler": scaler})
  monkeypatch.setattr(figures_compare.reading, "read_run", turned)
  monkeypatch.setattr(figures_compare, "draw_feature", lambda ax, x, mean, log: seen.append((x.tolist(), log)))
  assert vae_figures.reconstruction_scatter(runs, LABELS) is not None
  whole = [read(run.folder) for run in runs]
  assert seen == [(run.arrays["sample_x"][:, d].tolist(), d == 1) for run in whole for d in range(2)]


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
