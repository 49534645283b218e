"""Figures of diffusion: levels, losses and trajectories, from arrays that are made by hand."""

import numpy as np
import pytest

import made_assessments
import made_generated as made
from drawn import assert_fits
from jaxtrain.experiments.autoencoder import figures_diffusion as figures
from jaxtrain.report import figures as report_figures, pictures
from jaxtrain.workdir import reading

ALL = {"diffusion": (figures.diffusion, "level_loss"), "denoising": (figures.denoising, "trajectory")}


@pytest.fixture
def run(tmp_path):
  """A run with losses at 25 levels and trajectories of seven states."""
  return reading.read_run(made_assessments.make_run(tmp_path / "run"))._replace(arrays=made.diffusion_arrays())


@pytest.mark.parametrize("name", ALL)
def test_they_fit_a_page_and_a_phone_and_need_their_arrays(run, name, monkeypatch):
  monkeypatch.setitem(report_figures.RC_PARAMS, "savefig.dpi", 40)
  family, needed = ALL[name]
  assert_fits(family, run)
  assert family(run._replace(arrays={k: v for k, v in run.arrays.items() if k != needed})) is None
  spoilt = {k: np.where(np.arange(len(v)).reshape(-1, *[1] * (v.ndim - 1)) % 3 == 0, np.nan, v) if k != "trajectory_ids"
            else v for k, v in run.arrays.items()}
  with report_figures.styled():
    assert len(pictures.png(family(run._replace(arrays=spoilt), narrow=True))) > 1000
  nothing = {k: v * np.nan if k.startswith("level") else v[:0] for k, v in run.arrays.items()}
  assert family(run._replace(arrays=nothing)) is None


def test_each_level_is_a_dot_in_its_order(run):
  """A level whose loss is not finite is left out."""
  arrays = {k: v.copy() for k, v in run.arrays.items()}
  arrays["level_loss"][3] = np.nan
  line = figures.diffusion(run._replace(arrays=arrays)).axes[2].get_lines()[0]
  kept = np.delete(np.arange(len(arrays["level_loss"])), 3)[::-1]  # levels fall in the arrays
  np.testing.assert_allclose(line.get_xydata().T, [arrays[name][kept] for name in ("level_log_snr", "level_loss")])


def test_the_schedule_is_the_share_of_training_at_more_noise(run):
  """Half of the levels lie below their median; there are panels for what is known alone."""
  figure = figures.diffusion(run)
  x, y = figure.axes[0].get_lines()[0].get_xydata().T
  assert np.interp(0.5, y, x) == pytest.approx(np.median(run.arrays["level_log_snr"]), abs=0.01)
  assert [ax.get_title() for ax in figure.axes] == [
      "schedule", "weight in the loss (log)", "weighted loss", "denoising error (log)"]
  few = {name: run.arrays[name] for name in ("level_log_snr", "level_loss")}
  assert len(figures.diffusion(run._replace(arrays=few)).axes) == 2


def test_a_trajectory_goes_from_noise_to_the_event(run):
  """Its first and last state are shown, objects in their places; without types objects of 0 are none."""
  figure = figures.denoising(run)
  path, ids = run.arrays["trajectory"], run.arrays["trajectory_ids"]
  assert len(figure.axes) == 15 and [ax.get_title().partition(",")[0] for ax in figure.axes[:5]] == [
      "noise", "state 3 of 7", "state 4 of 7", "state 5 of 7", "event"]
  for case in (figure, figures.denoising(run._replace(arrays={"trajectory": path}))):
    marks = sorted(tuple(part.get_offsets()[0]) for part in case.axes[4].collections)
    np.testing.assert_allclose(marks, sorted(map(tuple, path[-1, 0, ids[0] > 0, 2:])))
  sum_of_pt = path[-1, 0, :, 1].sum()
  assert figure.axes[4].get_title() == f"event, {sum_of_pt:,.0f} GeV"
