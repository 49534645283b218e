"""Figures on small run folders that the tests write: what is drawn and left out, and what a damaged run loses."""

import math
import os
import pathlib

import matplotlib.image
import numpy as np
import pytest

from made_runs import CURVES, MODEL, VAE, make_run, replace_text, write_eval
from jaxtrain.errors import UserError
from jaxtrain.experiments.tabular_vae import figures as vae_figures, figures_data
from jaxtrain.report import figures
from jaxtrain.workdir import reading

NAN = float("nan")
ALL = [*CURVES, "reconstruction", "latent", "confusion", "classes", "roc", "calibration", "generated"]
FULL = [*ALL, "distributions", "dataset", "distances", "umap", "architecture"]
# What there is to be chosen: some are drawn of tables with kinds alone, or of what was assessed.
STANDARD = [*ALL, "categories", "associations", "clusters", "probes", "imputation", "transfer"]
ANY = [*STANDARD, *FULL[len(ALL):], "by_label"]


def drawn_names(folder, moment="end"):
  """Draws and returns the families drawn, after a look at every picture."""
  drawn = figures.draw(reading.read_run(folder), moment)
  for name, path, caption in drawn:
    pixels = matplotlib.image.imread(path)
    ink = (pixels[..., :3] < 0.9).any(axis=-1)
    assert min(pixels.shape[:2]) >= 60 and 280 <= pixels.shape[1] <= 600, name
    assert 0.01 < ink.mean() < 0.8 and len(np.unique(pixels[..., :3] @ (1, 256, 65536))) > 50, name
    assert len(caption) > 30 and caption.startswith("Look for"), name
  return [name for name, _, _ in drawn]


@pytest.mark.parametrize("parts", [("train", "val", "test"), pytest.param(("train",), marks=pytest.mark.slow)])
def test_every_family_draws(tmp_path, parts):
  folder = make_run(tmp_path / "run", parts=parts, config={"log": {"figures": "full", "families": []}})
  assert drawn_names(folder) == FULL
  assert sorted(os.listdir(os.path.join(folder, "figures"))) == sorted(f"{name}-end-e004.png" for name in FULL)
  assert reading.read_run(folder).split == parts[-1]


@pytest.mark.parametrize(("preset", "moment", "wanted"), [
    ("none", "end", []), ("minimal", "end", ["losses"]), ("standard", "end", STANDARD), ("full", "end", ANY),
    ("full", "train", CURVES)])
def test_presets(tmp_path, preset, moment, wanted):
  folder = make_run(tmp_path / "run", config={"log": {"figures": preset, "families": []}})
  assert list(figures.select(reading.read_run(folder).config, moment)) == wanted


def test_families_replace_the_preset(tmp_path):
  config = {"experiment": VAE, "log": {"figures": "minimal", "families": ["classes", "metrics"]}}
  assert list(figures.select(config, "end")) == ["classes", "metrics"]
  assert list(figures.select(config, "train")) == ["metrics"]


@pytest.mark.parametrize(("log", "says"), [
    ({"figures": "standard", "families": ["latnet"]}, "config.log.families: got 'latnet', allowed " + ", ".join(ANY)),
    ({"figures": "lots", "families": []}, "config.log.figures: got 'lots', allowed none | minimal | standard | full")])
def test_unknown_names(log, says):
  with pytest.raises(UserError) as caught:
    figures.select({"experiment": VAE, "log": log}, "end")
  assert str(caught.value) == says


@pytest.mark.parametrize("experiment", [
    "outside.vae", "os.path", "jaxtrain.experiments", "jaxtrain.experiments.none.such", "jaxtrain.experiments..vae",
    "jaxtrain.experiments_outside.vae", "", None])
def test_only_our_figures_modules_are_imported(tmp_path, monkeypatch, experiment):
  (tmp_path / "outside").mkdir()
  (tmp_path / "outside" / "figures.py").write_text("raise SystemExit('a run folder was run')")
  monkeypatch.syspath_prepend(tmp_path)
  assert figures.experiment_families(experiment) == {}


def test_a_failing_family_loses_no_other(tmp_path, monkeypatch, capsys):
  def broken(run):
    raise KeyError("no\nsuch thing")
  monkeypatch.setitem(figures.FAMILIES, "metrics", broken)
  monkeypatch.setitem(figures.RC_PARAMS, "savefig.dpi", 40)
  families = ["losses", "metrics", "reconstruction", "latent", "confusion"]
  run = reading.read_run(make_run(tmp_path / "run", config={"log": {"figures": "standard", "families": families}}))
  run.arrays["sample_x_mean"] = run.arrays["sample_x_mean"][:, :1]
  assert [name for name, _, _ in figures.draw(run, "end")] == ["losses", "latent", "confusion"]
  assert [problem.split()[1] for problem in run.problems] == ["metrics", "reconstruction"]
  assert capsys.readouterr().err.splitlines() == [f"jaxtrain: {problem}" for problem in run.problems]


def test_stream_has_step_names_and_axes(tmp_path):
  families = [*CURVES, "latent"]
  config = {"log": {"figures": "standard", "families": families}}
  folder = make_run(tmp_path / "run", steps_per_epoch=None, config=config)
  assert drawn_names(folder) == families
  assert "losses-end-s000500.png" in os.listdir(os.path.join(folder, "figures"))
  assert figures.losses(reading.read_run(folder)).axes[0].get_xlabel() == "step"


@pytest.mark.parametrize(("name", "change", "wanted", "num_problems"), [
    ("facts/scalars.csv", lambda text: text.splitlines()[0] + "\n", ["latent"], 0),
    ("facts/scalars.csv", lambda text: text[:-9], ["losses", "latent"], 0),
    ("facts/scalars.csv", lambda text: "\n".join(text.splitlines()[:2]) + "\n", ["losses", "latent"], 0),  # one epoch
    ("facts/scalars.csv", lambda text: None, ["latent"], 0),
    ("facts/events.jsonl", lambda text: None, ["losses", "latent"], 0),
    ("facts/events.jsonl", lambda text: "{broken\n[]\n" + text[:-3], ["losses", "latent"], 0),
    ("eval/test.npz", lambda text: text[:len(text) // 2], ["losses", "latent"], 1),  # val is shown
    ("eval/test.npz", lambda text: None, ["losses", "latent"], 0),
    ("eval/test.json", lambda text: text[:50], ["losses", "latent"], 1)])
def test_files_that_a_kill_left_short(tmp_path, name, change, wanted, num_problems):
  folder = make_run(tmp_path / "run", config={"log": {"figures": "standard", "families": ["losses", "latent"]}})
  replace_text(folder, name, change)
  assert drawn_names(folder) == wanted
  run = reading.read_run(folder)
  assert len(run.problems) == num_problems and all(name in problem for problem in run.problems)
  assert run.split == ("val" if name.startswith("eval") else "test")
  if wanted == ["latent"]:
    assert os.listdir(os.path.join(folder, "figures")) == ["latent-end-eNA.png"]


def test_half_a_row_is_not_read_as_a_number(tmp_path):
  folder = make_run(tmp_path / "run")
  before = reading.read_run(folder).rows
  replace_text(folder, "facts/scalars.csv", lambda text: text[:-4])
  assert reading.read_run(folder).rows == before[:-1]


@pytest.mark.parametrize(("content", "says"), [(None, "holds no run"), ("{", "config.json cannot be read")])
def test_no_run(tmp_path, content, says):
  if content:
    (tmp_path / "config.json").write_text(content)
  with pytest.raises(UserError) as caught:
    reading.read_run(str(tmp_path))
  assert says in str(caught.value) and "\n" not in str(caught.value)


def test_curves_without_a_finite_value_are_left_out(tmp_path):
  run = reading.read_run(make_run(tmp_path / "run", parts=("train",)))
  row = {"epoch": 1, "split": "train", "step": 10, "train_loss": NAN, "metric_kl": -math.inf, "metric_recon": None}
  run = run._replace(rows=[row])
  assert figures.losses(run) is None
  rows = [row | {"step": step, "metric_recon": 0.5} for step in (20, 30)]
  assert [ax.get_title() for ax in figures.losses(run._replace(rows=run.rows + rows)).axes] == ["reconstruction"]


def test_a_legend_over_one_panel_fits_the_figure(tmp_path):
  figure = figures.metrics(reading.read_run(make_run(tmp_path / "run")))
  assert len(figure.axes) == 1
  figure.draw_without_rendering()
  box = figure.legends[0].get_window_extent()
  assert len(figure.legends[0].get_texts()) == 4 and 0 <= box.x0 < box.x1 <= figure.bbox.x1


def test_losses_panels_scale_and_best(tmp_path):
  axes = figures.losses(reading.read_run(make_run(tmp_path / "run"))).axes
  assert [ax.get_title() for ax in axes] == ["loss", "terms, before weighting"]
  assert [ax.get_yscale() for ax in axes] == ["linear", "linear"]
  lines = {line.get_label(): line for line in axes[0].get_lines()}
  assert list(lines) == ["training", "validation", "best validation loss 2 (epoch 3)", "test, best state"]
  assert list(lines["best validation loss 2 (epoch 3)"].get_xdata()) == [3, 3]
  assert list(lines["training"].get_xdata()) == [1, 2, 3, 4]
  assert [text.get_text() for text in axes[1].get_legend().get_texts()] == ["KL"]  # recon is half of the loss here


def made_rows(num_epochs, **metrics):
  """Rows of training, an epoch each; a metric is a function of the epoch."""
  return [{"split": "train", "epoch": k, "step": 10.0 * k, "train_loss": metrics["loss"](k)}
          | {f"metric_{name}": value(k) for name, value in metrics.items() if name not in ("loss", "lr")}
          | ({"lr": metrics["lr"](k)} if "lr" in metrics else {}) for k in range(1, num_epochs + 1)]


def test_the_annealed_part_is_shaded_and_named(tmp_path):
  run = reading.read_run(make_run(tmp_path / "run", parts=("train",)))
  rows = made_rows(20, loss=lambda k: 3 / k, beta=lambda k: min(k, 6) / 6)
  figure = figures.losses(run._replace(rows=rows))
  assert [text.get_text() for text in figure.axes[0].texts][-1] == "beta changes before epoch 6"
  figure.canvas.draw()
  for ax in figure.axes:
    text, inside = ax.texts[-1].get_window_extent(), ax.get_window_extent()
    assert inside.x0 <= text.x0 < text.x1 <= inside.x1 and inside.y0 <= text.y0
  assert "beta changes" in figure.get_label() and "no validation loss" in figure.get_label()
  assert figures.annealed(run._replace(rows=made_rows(20, loss=lambda k: 3 / k, beta=lambda k: 0.5))) is None


def test_the_first_epochs_do_not_set_the_scale(tmp_path):
  run = reading.read_run(make_run(tmp_path / "run", parts=("train",)))
  rows = made_rows(40, loss=lambda k: 9.0 if k < 3 else 2 - 0.01 * k)
  ax = figures.losses(run._replace(rows=rows)).axes[0]
  assert 1.5 < ax.get_ylim()[0] < 1.6 and 1.9 < ax.get_ylim()[1] < 2.1 and ax.texts[0].get_text() == "starts at 9"


def test_constant_and_redundant_curves_are_named_instead_of_drawn(tmp_path):
  """In the words that the experiment has for them."""
  said = {"kl_nats": {"unit": "nats", "meaning": "", "direction": "", "chance": None, "words": "total KL"}}
  run = reading.read_run(make_run(tmp_path / "run", parts=("train",), metrics=said))
  rows = made_rows(9, loss=lambda k: 3 / k, kl=lambda k: 1 + 1 / k**2, kl_nats=lambda k: 10 + 10 / k**2,
                   accuracy=lambda k: 0.1 * k, rejected=lambda k: 0.25)
  figure = figures.metrics(run._replace(rows=rows))
  assert [ax.get_title() for ax in figure.axes] == ["accuracy"]
  assert "Not drawn: total KL (in proportion to KL), rejected (0.25 throughout)." in figure.get_label()


def test_a_learning_rate_that_changes_is_on_a_logarithmic_axis(tmp_path):
  run = reading.read_run(make_run(tmp_path / "run", parts=("train",)))
  figure = figures.learning_rate(run._replace(rows=made_rows(9, loss=lambda k: 3 / k, lr=lambda k: 0.1 ** (k // 4))))
  assert [(ax.get_title(), ax.get_yscale()) for ax in figure.axes] == [("learning rate (log)", "log")]
  assert figures.learning_rate(run._replace(rows=made_rows(9, loss=lambda k: 3 / k, lr=lambda k: 0.1))) is None


@pytest.mark.parametrize(("values", "scale"), [([900.0, 90, 9, 8, 7], "log"), ([1.0, 2, 3, 4, 90], "log"),
                                               ([1e-6, 1, 2, 3, 4], "linear"), ([-1.0, 900, 1, 1, 1], "linear")])
def test_logarithmic_axis_for_falls_and_spikes_of_positive_values(tmp_path, values, scale):
  run = reading.read_run(make_run(tmp_path / "run", parts=("train",)))
  rows = [{"split": "train", "epoch": k + 1, "step": 10.0 * (k + 1), "train_loss": v} for k, v in enumerate(values)]
  assert figures.losses(run._replace(rows=rows)).axes[0].get_yscale() == scale


@pytest.mark.slow
def test_hard_tables(tmp_path):
  features = [f"$\\wrong{{$ a_long_name\nof number {d} " * 3 for d in range(64)]
  classes = [f"$\\frac$ class {k} with a name that goes on & on" for k in range(139)]
  transforms = [("identity", "log1p", "signed_log1p")[d % 3] for d in range(64)]
  config = {"log": {"figures": "full", "families": []}, "model": MODEL | {"hidden_dims": [1024] * 7}}
  folder = make_run(tmp_path / "run", features=features, classes=classes, transforms=transforms, num_epochs=1,
                    config=config)
  assert drawn_names(folder) == FULL


@pytest.mark.parametrize(("options", "wanted"), [
    ({"classes": ()}, [*ALL[:5], "generated"]),
    pytest.param({"predicted": False}, [*ALL[:5], "classes", "generated"], marks=pytest.mark.slow)])
def test_without_labels_or_predictions(tmp_path, options, wanted):
  assert drawn_names(make_run(tmp_path / "run", **options)) == wanted


def test_counts_of_classes_are_on_a_linear_axis_by_name(tmp_path):
  run = reading.read_run(make_run(tmp_path / "run", classes=[f"class {k}" for k in range(9)]))
  ax = vae_figures.classes(run).axes[0]
  assert ax.get_xscale() == "linear" and ax.patches[0].get_width() == 81
  assert [text.get_text() for text in ax.get_yticklabels()] == [f"class {k}" for k in range(9)]


def test_many_classes_are_compared_by_their_areas_from_the_lowest_with_intervals(tmp_path):
  run = reading.read_run(make_run(tmp_path / "run", classes=[f"class {k}" for k in range(9)]))
  figure = vae_figures.roc(run)
  ax, = figure.axes
  assert [text.get_text() for text in ax.get_yticklabels()][:2] == ["class 7 (4)", "class 6 (9)"]  # 8 has no area
  assert ax.lines[0].get_xdata()[0] == pytest.approx(0.6) and "1982" in figure.get_label()
  segments = ax.collections[0].get_segments()
  assert segments[0][0][0] == pytest.approx(0.55) and segments[0][1][0] == pytest.approx(0.65)


def test_precision_and_recall_of_each_class_stand_beside_the_confusion_matrix(tmp_path):
  run = reading.read_run(make_run(tmp_path / "run"))
  run.arrays["confusion"] = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])
  left, right = vae_figures.confusion(run).axes
  assert [text.get_text() for text in left.get_yticklabels()] == ["ooze", "clay"]
  shown = {c.get_label(): c.lines[0].get_xdata() for c in right.containers}
  np.testing.assert_allclose(shown["precision"], [8 / 9, 9 / 11])
  np.testing.assert_allclose(shown["recall"], [0.8, 0.9])


def test_bins_without_rows_have_no_bar_and_others_an_interval(tmp_path):
  run = reading.read_run(make_run(tmp_path / "run"))
  bins = np.zeros((3, 15))
  bins[:, 12], bins[:, 14] = (40, 0.84, 0.5), (60, 0.97, 1.0)
  run.arrays["calibration"] = bins
  upper, lower = vae_figures.calibration(run).axes
  assert len(lower.patches) == 2 and list(upper.lines[0].get_xdata()) == [0.84, 0.97]
  segment = upper.collections[0].get_segments()[0]  # Wilson 1927 of 20 in 40
  np.testing.assert_allclose([segment[0][1], segment[1][1]], [0.3520, 0.6480], atol=1e-3)


@pytest.mark.slow
def test_one_latent_dimension(tmp_path):
  folder = make_run(tmp_path / "run", parts=("train",))
  write_eval(folder, "train", np.random.default_rng(0), ["a"], ["b", "c"], None, True, L=1)
  assert drawn_names(folder) == ALL


def test_shown_features_span_all_ranks():
  r2 = list(np.random.default_rng(0).permutation(64) / 64) + [float("nan"), None]
  shown = [r2[d] for d in figures_data.pick_features(r2)]
  assert len(shown) == 12 and shown == sorted(shown, reverse=True) and (shown[0], shown[-1]) == (63 / 64, 0.0)
  assert figures_data.pick_features([0.1, None, 0.3]) == [0, 1, 2]


def test_reconstruction_titles_and_range(tmp_path):
  folder = make_run(tmp_path / "run", transforms=("identity", "signed_log1p"))
  axes = vae_figures.reconstruction(reading.read_run(folder)).axes
  assert [ax.get_title() for ax in axes] == ["depth", "mass"]
  assert [ax.texts[0].get_text() for ax in axes] == ["R² 0.900   (scaled 0.800)", "R² 0.890   (scaled 0.800)"]
  assert all(ax.get_xlim() == ax.get_ylim() for ax in axes)


@pytest.mark.parametrize("span", [(-4.0, 9.0), (0.0, 5.0), (2.0, 5.7), (0.0, 0.5), (-0.01, 0.01)])
def test_round_values(span):
  values = figures_data.round_values(lambda v: np.sign(v) * np.log1p(np.abs(v)), *span)
  places = np.sign(values) * np.log1p(np.abs(values))
  assert 1 <= len(values) <= 7 and places.min() >= span[0] and places.max() <= span[1]
  assert (np.diff(places) > (span[1] - span[0]) / 6.5).all()


@pytest.mark.slow
def test_same_run_same_bytes(tmp_path, monkeypatch):
  monkeypatch.setitem(figures.RC_PARAMS, "savefig.dpi", 40)
  folder = make_run(tmp_path / "run")
  drawn = (figures.draw(reading.read_run(folder), "end") for _ in range(2))
  contents = [pathlib.Path(path).read_bytes() for figure in drawn for _, path, _ in figure]
  assert len(contents) == 20 and contents[:10] == contents[10:]


def test_figures_of_an_older_end_go(tmp_path):
  made = reading.read_run(make_run(tmp_path / "run"))
  (tmp_path / "run" / "figures").mkdir(exist_ok=True)
  older, kept = (tmp_path / "run" / "figures" / name for name in ("losses-end-e001.png", "losses-train-e001.png"))
  older.touch(), kept.touch()
  made.config["log"] = {"figures": "minimal"}
  ((_, path, _),) = figures.draw(made, "end")
  assert os.path.exists(path) and kept.exists() and not older.exists()
