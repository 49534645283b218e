"""Figures of adversarial training: its curves, and which side has won, from metrics that are made by hand."""

import numpy as np
import pytest

import made_assessments
import made_generated as made
from drawn import assert_fits
from jaxtrain.experiments.autoencoder import figures_adversarial as figures
from jaxtrain.report import figures as report_figures, pictures
from jaxtrain.workdir import reading


@pytest.fixture
def plain(tmp_path):
  """A run without a critic."""
  return reading.read_run(made_assessments.make_run(tmp_path / "run"))


def panel(figure, title):
  """The panel of a title."""
  return next(ax for ax in figure.axes if ax.get_title().startswith(title))


def test_it_fits_a_page_and_a_phone(plain, monkeypatch):
  monkeypatch.setitem(report_figures.RC_PARAMS, "savefig.dpi", 40)
  run = made.with_critic(plain)
  assert_fits(figures.adversarial, run)
  with report_figures.styled():
    assert len(pictures.png(figures.adversarial(run, narrow=True))) > 1000


def test_no_figure_without_a_critic(plain):
  assert figures.adversarial(plain) is None and figures.findings(plain) == []


def test_curves_are_those_of_the_epochs(plain):
  """Training solid and validation dashed, chance at half, and shaded until the term sets in, in epochs."""
  run = made.with_critic(plain, 0.7, 20)
  figure = figures.adversarial(run)
  lines = panel(figure, "the critic's output").get_lines()
  x, real = reading.curve(run, "train", "real_logit")
  np.testing.assert_allclose(lines[0].get_xydata(), np.stack([x, real], axis=1))
  np.testing.assert_allclose(lines[3].get_ydata(), reading.curve(run, "val", "fake_logit")[1])
  assert lines[0].get_linestyle() == "-" != lines[1].get_linestyle()
  assert [text.get_text() for text in panel(figure, "the critic's output").get_legend().get_texts()] == ["real", "made"]
  right = panel(figure, "the critic is right")
  assert [0.5, 0.5] in [list(line.get_ydata()) for line in right.get_lines()]
  shade = right.patches[0].get_extents().transformed(right.transData.inverted())
  assert (shade.x0, shade.x1) == (pytest.approx(0), pytest.approx(2)) and len(figure.axes) == 6
  assert not panel(figures.adversarial(made.with_critic(plain, 0.7, 0)), "the critic is right").patches


@pytest.mark.parametrize("accuracy, words", [(0.99, "it has won"), (0.7, "neither"), (0.51, "does not tell")])
def test_the_verdict_is_that_of_the_last_epochs(plain, accuracy, words):
  found, = figures.findings(made.with_critic(plain, accuracy))
  assert found.startswith(f"At the end the critic is right about {100 * accuracy + 1:.0f} % of events")
  assert words in found
