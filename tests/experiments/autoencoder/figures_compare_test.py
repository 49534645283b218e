"""Figures of several runs of an autoencoder: numbers of each run in its place, means of those alike, gaps left out."""

import numpy as np
import pytest

import made_assessments as made
from drawn import assert_fits
from jaxtrain.experiments.autoencoder import figures, figures_compare
from jaxtrain.report import figures as report_figures, pictures
from jaxtrain.workdir import reading

KINDS = ("none", "vq", "fsq")
NO_CODES = {name: value for name, value in made.SCALARS.items() if not name.startswith(("codes", "perplexity"))}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """(runs, labels): three kinds of latent space, two weights of the globals, two seeds; vq and fsq have codes."""
  folder, found, labels = tmp_path_factory.mktemp("runs"), [], []
  for i, kind in enumerate(KINDS):
    for weight in (0.0, 10.0):
      for seed in (0, 1):
        lost = 0.02 * (1 + i) + 0.01 * seed
        scalars = (NO_CODES if kind == "none" else made.SCALARS) | {
            "unexplained_variance": lost, "bits_per_event": 4 / lost, "auroc_gaussian_noise": 0.6 + 0.1 * i}
        run = made.make_run(folder / f"{kind}{weight:g}{seed}", kind=kind, weight=weight, seed=seed, lost=lost,
                            scalars=scalars)
        found.append(reading.read_newest(run)[1])
        labels.append(f"kind={kind}, globals={weight:g}")
  return found, labels


def axes_of(figure):
  """The panels that are shown by title."""
  return {ax.get_title() or ax.get_title(loc="left"): ax for ax in figure.axes if ax.get_visible()}


def points(ax):
  """Places of the dots of a panel, sorted."""
  return sorted(tuple(map(float, np.ravel(line.get_xydata()))) for line in ax.lines
                if line.get_marker() == "o" and len(line.get_xdata()) == 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", figures.COMPARISONS)
def test_all_fit_a_page_and_a_phone(runs, name):
  assert_fits(figures.COMPARISONS[name], *runs)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "compare_latents"))
                                  for name in figures.COMPARISONS])
def test_all_are_drawn(runs, name, monkeypatch):
  monkeypatch.setitem(report_figures.RC_PARAMS, "savefig.dpi", 40)
  with report_figures.styled():
    for narrow in (False, True):
      assert len(pictures.png(figures.COMPARISONS[name](*runs, narrow=narrow))) > 1000


@pytest.mark.parametrize("name", figures.COMPARISONS)
def test_runs_without_data_are_left_out(runs, name, tmp_path):
  """Runs that only began, of no assessment or with numbers that are not finite, beside sound ones and alone."""
  compare = figures.COMPARISONS[name]
  bare = [run._replace(evals={}, rows=[], config={"model": {}}) for run in runs[0][:2]]
  broken = {key: float("nan") for key in made.SCALARS}
  bare.append(runs[0][0]._replace(evals={"test": {"scalars": broken}}, rows=[]))
  assert compare(bare, ["a"] * 3) is None
  of_rows = runs[0][0]._replace(config={"model": {"hidden_dims": [64, 64]}}, evals={"val": {"scalars": {"mse": 0.1}}})
  assert compare([of_rows] * 2, ["a", "b"]) is None  # of the experiment mlp, which has no latent space
  both = compare([*bare, *runs[0]], [*["a"] * 3, *runs[1]])
  assert both is not None and "a" not in [label.get_text() for ax in both.axes for label in ax.get_yticklabels()]


def test_losses_stand_at_the_seconds_that_steps_took(runs):
  seconds, loss = figures_compare.wall_clock(runs[0][0])
  np.testing.assert_allclose(seconds, [0.5, 1.0, 1.5, 2.0])
  np.testing.assert_allclose(loss, 0.02 * (1 + np.array([2, 1, 0, 1])))  # the weight of the globals is 0
  panels = axes_of(figures_compare.compare_latents(*runs))
  lines = list(panels["loss against time"].lines)
  assert len(lines) == 12
  np.testing.assert_allclose(lines[0].get_ydata(), loss)
  lost = [0.02 * (1 + i) + 0.01 * seed for i in range(3) for _ in range(2) for seed in (0, 1)]
  np.testing.assert_allclose(points(panels["rate and distortion"]), sorted((4 / one, one) for one in lost))


def test_labels_of_runs_are_short_and_stand_apart(tmp_path):
  """Ten members of a sweep at nearly one point: a kind and a number each, within the panel."""
  found = [reading.read_newest(made.make_run(tmp_path / f"{k:03d}-kind={kind},globals=0.5", kind=kind,
                                             lost=0.02 * (1 + 0.01 * k)))[1]
           for k, kind in enumerate((*figures_compare.KINDS, *KINDS, "vq"))]
  for narrow in (False, True):
    figure = figures_compare.compare_latents(found, [f"run {k}" for k in range(10)], narrow=narrow)
    figure.draw_without_rendering()
    ax = axes_of(figure)["rate and distortion"]
    assert [text.get_text() for text in ax.texts][:3] == ["none 000", "linear 001", "vq 002"] and len(ax.texts) == 10
    boxes = [text.get_window_extent() for text in ax.texts]
    assert all(ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1 for box in boxes)
    if not narrow:
      assert not any(one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[:k])
  alone = reading.read_newest(made.make_run(tmp_path / "alone", kind="vq"))[1]
  assert figures_compare.short_label(alone) == "vq"


def test_cells_are_means_over_seeds(runs):
  """Three kinds across, weights 0 and 10 down; of the validation at the best state, epoch 3."""
  panels = axes_of(figures_compare.compare_globals(*runs))
  objects = np.array([[0.02 * (1 + i) + 0.005 for i in range(3)]] * 2)
  globals_error = np.array([[0.43] * 3, [0.4 / 11 + 0.03] * 3])
  for title, want in (("error of the objects", objects), ("error of the globals", globals_error),
                      ("loss at the best state", objects + [[0.0], [10.0]] * globals_error)):
    np.testing.assert_allclose(panels[title].images[0].get_array(), want)
    assert [t.get_text() for t in panels[title].get_xticklabels()] == list(KINDS)
    assert [t.get_text() for t in panels[title].get_yticklabels()] == ["0", "10"]
  assert len(points(panels["what one gains and the other loses"])) == 12
  same = [(run, label) for run, label in zip(*runs) if label.endswith("globals=10")]
  assert figures_compare.compare_globals(*map(list, zip(*same))) is None  # nothing is traded with one weight


def test_scores_of_corruptions_have_their_intervals(runs):
  panels = axes_of(figures_compare.anomaly(*runs))
  assert list(panels) == ["gaussian noise", "token shuffle", "drop tokens", "tttt"]
  found = sorted({x for x, _ in points(panels["gaussian noise"])})
  np.testing.assert_allclose(found, [0.6, 0.7, 0.8])
  ends = panels["gaussian noise"].collections[0].get_segments()[0][:, 0]
  np.testing.assert_allclose(ends, [0.58, 0.62])


def test_codebooks_have_a_bar_a_label(runs):
  """48 of 64 codes, perplexity 21, 16 dead; none where nothing is quantised."""
  panels = axes_of(figures_compare.codebook_quality(*runs))
  for title, want in (("codes in use, %", 75.0), ("perplexity, codes", 21.0), ("dead codes", 16.0)):
    np.testing.assert_allclose([bar.get_width() for bar in panels[title].patches], [want] * 4)
  names = [label.get_text() for label in panels["codes in use, %"].get_yticklabels()]
  assert names == ["kind=vq, globals=0", "kind=vq, globals=10", "kind=fsq, globals=0", "kind=fsq, globals=10"]
