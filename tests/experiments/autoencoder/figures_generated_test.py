"""Figures of generated events beside real ones: what each says, from arrays that are made by hand."""

import numpy as np
import pytest

import made_assessments
import made_generated as made
from drawn import assert_fits, texts
from jaxtrain.experiments.autoencoder import figures_generated as figures
from jaxtrain.report import figures as report_figures, pictures
from jaxtrain.workdir import reading

ALL = {"generated": figures.generated, "generated_peak": figures.generated_peak,
       "generated_events": figures.generated_events}
NEEDS = {"generated": [f"real_{name}" for name in made.NAMES], "generated_peak": ["m_jj_edges"],
         "generated_events": ["generated_shown_ids"]}


@pytest.fixture
def run(tmp_path):
  """A run whose generated events were compared with real ones."""
  return of_scalars(reading.read_run(made_assessments.make_run(tmp_path / "run"))._replace(
      arrays=made.arrays(), meta=made_assessments.META, split="test", problems=[]), made.SCALARS)


def of_scalars(run, scalars):
  """The run with these scalars of its test events."""
  return run._replace(evals={"test": {"scalars": scalars}})


@pytest.mark.parametrize("name", ALL)
def test_all_fit_a_page_and_a_phone_and_need_their_arrays(run, name):
  family = ALL[name]
  assert_fits(family, run)
  assert family(run._replace(arrays={k: v for k, v in run.arrays.items() if k not in NEEDS[name]})) is None
  assert family(run._replace(arrays={}, evals={}, split="", meta={}, rows=[])) is None


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "generated_peak"))
                                  for name in ALL])
def test_all_are_drawn(run, name, monkeypatch):
  """On paper, and for phones of what is not finite and has no scalars."""
  monkeypatch.setitem(report_figures.RC_PARAMS, "savefig.dpi", 40)
  spoilt = {key: np.where(np.arange(values.size).reshape(values.shape) % 5 == 0, np.nan, values)
            for key, values in run.arrays.items() if not key.endswith(("ids", "edges", "bins"))}
  with report_figures.styled():
    for case, narrow in ((run, False), (of_scalars(run, {})._replace(arrays=run.arrays | spoilt), True)):
      assert len(pictures.png(ALL[name](case, narrow=narrow))) > 1000


def test_shares_and_ratios_are_of_the_bins(run):
  """Numbers of objects have a bin each; twice the share stands at a ratio of 1.5 as an arrow, the error is Poisson."""
  real, other = np.repeat([4.0, 5, 6], [100, 200, 100]), np.repeat([4.0, 5], [200, 50])
  figure = figures.generated(run._replace(arrays={"real_multiplicity": real, "generated_multiplicity": other}))
  top, bottom = figure.axes
  np.testing.assert_allclose(top.patches[1].get_data().values, [0.8, 0.2, 0])
  np.testing.assert_array_equal(top.patches[1].get_data().edges, [3.5, 4.5, 5.5, 6.5])
  shown = {tuple(np.round(point, 3)) for line in bottom.lines[1:] for point in line.get_xydata()}
  assert shown == {(4.0, 1.46), (5.0, 0.54), (6.0, 0.54)}  # ratios of 3.2, 0.4 and 0
  assert "objects: 3.9 floors" in texts(figure)
  equal = figures.generated(run._replace(arrays={"real_multiplicity": real, "generated_multiplicity": real}))
  bars = equal.axes[1].containers[0].lines[2][0].get_segments()
  np.testing.assert_allclose([segment[1, 1] - 1 for segment in bars], np.array([100, 200, 100])**-0.5)


def test_all_observables_stand_in_the_figure(run):
  figure = figures.generated(run)
  assert len(figure.axes) == 18
  assert all(name in texts(figure) for name in ("HT in GeV: 4.6 floors", "m_bjj", "missing ET in GeV"))


def test_the_peak_stands_above_mixed_events(run):
  """In percent of all pairs of the window; one without a fit has its pairs alone."""
  figure = figures.generated_peak(run)
  counts, background, _ = run.arrays["generated_m_jj_bins"]
  points = figure.axes[2].lines[0].get_ydata()
  np.testing.assert_allclose(points, 100 * (counts - background) / counts.sum())
  assert "generated: 83.0 ± 1.5 GeV, 6.2 ± 1.1 % of pairs" in texts(figure) and "real: 81.0" in texts(figure)
  bins = np.stack([counts, counts * np.nan, counts * np.nan])
  bare = figures.generated_peak(of_scalars(run, {})._replace(arrays={"m_jj_edges": made.EDGES,
                                                                     "generated_m_jj_bins": bins}))
  assert "no peak was fitted" in texts(bare) and len(bare.axes) == 2 and len(bare.axes[0].patches) == 0


def test_generated_events_stand_beside_real_ones(run):
  figure = figures.generated_events(run)
  ids, momenta = run.arrays["generated_shown_ids"][0], run.arrays["generated_shown_momenta"][0]
  points = sorted(tuple(part.get_offsets()[0]) for part in figure.axes[0].collections if len(part.get_offsets()))
  np.testing.assert_allclose(points, sorted(map(tuple, momenta[ids > 0, 2:])))
  assert len(figure.axes) == 8 and "real: " in figure.axes[1].get_title()
  alone = {key: values for key, values in run.arrays.items() if not key.startswith("real")}
  assert len(figures.generated_events(run._replace(arrays=alone)).axes) == 4


def test_findings_say_what_is_near_and_what_is_far(run):
  apart, floors, peak = figures.findings(run)
  assert apart == ("A classifier tells generated events from real ones: AUC 0.710 ± 0.020, 0.5 is chance.")
  assert "2 of 9 observables are at 2 or less" in floors
  assert floors.endswith("farthest are m_bjj (6.7), m_jj (6.0), missing ET (5.3), HT (4.6).")
  assert "83.0 ± 1.5 GeV" in peak and "no peak" not in peak
  near = {name: 1.0 if name.endswith("floors") else value for name, value in made.SCALARS.items()}
  words = figures.findings(of_scalars(run, near | {"two_sample_auc": 0.51, "m_jj_window_share": 0.01}))
  assert words[0].startswith("A classifier cannot tell") and "none is above 4" in words[1]
  assert words[2].endswith("The generated share is compatible with no peak.")
  assert figures.findings(of_scalars(run, {"two_sample_auc": 0.53, "two_sample_auc_ci95": 0.01}))[0].startswith(
      "A classifier hardly tells")
  assert figures.findings(run._replace(evals={}, split="")) == []
