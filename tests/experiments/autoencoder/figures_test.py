"""Figures of an autoencoder: what each says of its events, against formulas, from arrays that are made by hand."""

import matplotlib
import numpy as np
import pytest
from scipy import stats

import made_assessments as made
import made_generated
from drawn import assert_fits, texts
from jaxtrain.experiments.autoencoder import (figures, figures_codes, figures_events, figures_findings, figures_recon)
from jaxtrain.report import figures as report_figures, pictures, results
from jaxtrain.workdir import reading

ALL = figures.FAMILIES | figures.FULL_FAMILIES
NEEDS = {"event_display": "shown_true", "recon": ("slots_true", "met_true"), "residuals": ("slots_true", "met_true"),
         "confusion": "confusion", "images": "shown_images", "codebook": "use", "bits": "event_bits",
         "anomaly": "event_error"}


def run_of(folder, **how):
  """A run with such an assessment of its test events, a critic, and generated events."""
  run = made_generated.with_critic(reading.read_run(made.make_run(folder / "run")))
  arrays = made.assessment(**how) | made_generated.arrays() | made_generated.diffusion_arrays()
  return run._replace(arrays=arrays, meta=made.META, split="test", problems=[])


@pytest.fixture
def run(tmp_path):
  """A run of 300 events and 64 codes."""
  return run_of(tmp_path)


def with_arrays(run, **arrays):
  """The run with other arrays; None leaves one out."""
  return run._replace(arrays={name: values for name, values in (run.arrays | arrays).items() if values is not None})


def families(*elsewhere):
  """All names; those that tests of their own files draw too, and others that are named, are slow here."""
  slow = {"generated", "generated_peak", "generated_events", "diffusion", "denoising", "adversarial", *elsewhere}
  return [pytest.param(name, marks=[pytest.mark.slow] * (name in slow)) for name in ALL]


@pytest.mark.parametrize("name", families())
def test_all_fit_a_page_and_a_phone(run, name):
  """640 pixels at 120 an inch, and a caption that says what to look for."""
  family = ALL[name]
  assert_fits(family, run)


@pytest.mark.parametrize("name", families(*ALL.keys() - {"event_display"}))
def test_all_are_drawn(run, name, monkeypatch):
  """On paper, and for phones of arrays with gaps."""
  monkeypatch.setitem(report_figures.RC_PARAMS, "savefig.dpi", 40)
  with report_figures.styled():
    for case, narrow in ((run, False), (gaps_of(run)[1], True)):
      assert len(pictures.png(ALL[name](case, narrow=narrow))) > 1000


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_nothing_is_drawn_without_its_arrays(run, name):
  needs = (NEEDS[name],) if isinstance(NEEDS[name], str) else NEEDS[name]
  bare = with_arrays(run, **dict.fromkeys(needs))
  assert ALL[name](bare) is None
  assert ALL[name](run._replace(arrays={}, evals={}, split="", meta={}, rows=[])) is None


def gaps_of(run):
  """Types and processes without a name and NaN in what came back; and a single event to show of these."""
  spoilt = {name: values.astype(float) for name, values in run.arrays.items()
            if name.startswith(("slots_recon", "shown_recon"))}
  for values in spoilt.values():
    values[::3] = np.nan
  error, ids = run.arrays["event_error"], run.arrays["shown_ids"]
  few = with_arrays(run, **spoilt, event_error=np.where(np.arange(len(error)) % 2, np.nan, error),
                    event_label=np.full(len(error), 77), shown_ids=ids + 9 * (ids > 0))
  one = few._replace(arrays={name: values[:1] if name.startswith("shown") else values
                             for name, values in few.arrays.items()})
  return few._replace(meta={}), one


@pytest.mark.parametrize("name", families())
def test_figures_are_drawn_of_what_is_finite(run, name):
  few, _ = gaps_of(run)
  assert ALL[name](few) is not None


def test_events_are_shown_of_what_is_finite(run):
  few, one = gaps_of(run)
  assert len(figures.event_display(one).axes) == 2 and "type 10" in texts(figures.event_display(few))


def test_an_event_is_a_mark_for_each_object_and_an_arrow(run):
  """Places, areas in proportion to pT, and the arrow at the azimuth of the missing energy."""
  ids, true, met = (run.arrays[name] for name in ("shown_ids", "shown_true", "shown_met"))
  figure = figures.event_display(run)
  assert len(figure.axes) == 8
  ax, real = figure.axes[0], ids[0] > 0
  marks = [part for part in ax.collections if len(part.get_offsets())]
  points = sorted(tuple(part.get_offsets()[0]) for part in marks)
  np.testing.assert_allclose(points, sorted(map(tuple, true[0, real, 2:])))
  areas = sorted(part.get_sizes()[0] for part in marks)
  np.testing.assert_allclose(areas, np.sort(np.clip(2.2 * true[0, real, 1], 14, 1500)))
  arrow = next(text for text in ax.texts if text.arrow_patch)
  assert arrow.xy[1] == arrow.xyann[1] == pytest.approx(met[0, 1]) and arrow.xy[0] > arrow.xyann[0]
  words = texts(figure)
  assert f"event: {real.sum()} objects, sum of pT {true[0, real, 1].sum():,.0f} GeV, MET {met[0, 0]:,.0f} GeV" in words
  assert "b-jet" in words and "missing ET" in words and "reconstruction: " in words
  assert len(figures.event_display(run, narrow=True).axes) == 4


def test_spectra_keep_all_weight_and_their_ratio_is_that_of_the_sums():
  random = np.random.default_rng(0)
  values, weight = np.exp(random.normal(size=5000)), random.uniform(0.5, 2, 5000)
  edges = np.linspace(0, 3, 11)
  sums, squares = figures_recon.spectrum(values, weight, edges)
  assert sums.sum() == pytest.approx(weight.sum()) and squares.sum() == pytest.approx(np.square(weight).sum())
  inside = (values >= 0.3) & (values < 0.6)
  assert sums[1] == pytest.approx(weight[inside].sum())
  assert sums[-1] == pytest.approx(weight[values >= 2.7].sum())


def test_recon_shows_each_quantity_with_its_ratio(run):
  figure = figures_recon.recon(run)
  assert len(figure.axes) == 12
  words = texts(figure)
  assert all(name in words for name in ("E in GeV", "pT in GeV", "eta", "missing ET in GeV"))
  only_met = with_arrays(run, slots_true=None)
  assert len(figures_recon.recon(only_met).axes) == 4 and len(figures.residuals(only_met).axes) == 2


def test_ratios_stand_in_their_bins_and_arrows_point_beyond_the_axis(run):
  """Twice as many come back with eta below 0, whose targets lie at 9: arrows up there, and dots at 1 above 0."""
  eta = np.random.default_rng(3).uniform(-2, 2, 8000)
  more = eta[eta < 0]
  of_eta = lambda values: np.stack([np.full(len(values), 50.0)] * 2 + [values, np.zeros(len(values))], axis=1)
  target, recon = np.concatenate([eta, np.full(len(more), 9.0)]), np.concatenate([eta, more])
  figure = figures_recon.recon(with_arrays(run, slots_true=of_eta(target), slots_recon=of_eta(recon), met_true=None,
                                           slots_weight=np.ones(len(target))))
  below = figure.axes[2 + next(k for k, ax in enumerate(figure.axes) if ax.get_title() == "eta")]
  lines = {line.get_marker(): line for line in below.lines}
  arrows, dots = (lines[marker].get_xdata() for marker in ("^", "."))
  assert len(arrows) and max(arrows) < 0.1 and min(dots) > -0.1
  np.testing.assert_allclose(lines["."].get_ydata()[dots > 0.3][:5], 1.0)


def test_residuals_of_angles_go_the_short_way(run):
  """A whole turn is no error; a known shift and spread are told."""
  random = np.random.default_rng(1)
  true = run.arrays["slots_true"]
  recon = true + [5.0, 0, 0, 2 * np.pi] + random.normal(size=true.shape) * [3.0, 1e-3, 1e-3, 1e-3]
  words = texts(figures.residuals(with_arrays(run, slots_recon=recon, met_true=None)))
  # of 1,800 slots the median errs by 0.09 and the width by 0.09
  first = words.split("median ")[1]
  assert 4.5 < float(first.split()[0]) < 5.5 and 2.5 < float(first.split("within ")[1].split()[0]) < 3.5
  assert "rad" in words.split("median ")[4] and abs(float(words.split("median ")[4].split()[0])) < 1e-3


def test_weighted_quantiles_are_those_of_repeated_values():
  values, weight = np.array([3.0, 1.0, 2.0]), np.array([1.0, 2.0, 5.0])
  found = figures_recon.weighted_quantiles(values, weight, (0.125, 0.5))
  np.testing.assert_allclose(found, [1.0, 1.0 + 3.0 / 3.5])


def test_confusion_shows_shares_of_each_type(run):
  table = np.zeros((8, 8), int)
  table[1, 1], table[1, 2], table[2, 2] = 97, 3, 50
  words = texts(figures.confusion(with_arrays(run, confusion=table)))
  assert "jet (100)" in words and "b-jet (50)" in words and "97 | " in words and "photon" not in words
  jets = run.arrays["slots_type"] == 1
  error = np.median(np.abs(run.arrays["slots_recon"] - run.arrays["slots_true"])[jets, 1])
  assert f"{error:.2g}" in words and "median |pT error|" in words


def test_confusion_has_a_row_for_types_that_are_there_and_a_column_for_absent_ones(run):
  """Of 40 muons 30 come back as photons, of which there are none, and 10 as nothing; jets are all lost."""
  table = np.zeros((8, 8), int)
  table[0, 0], table[0, 3], table[1, 0], table[5, 7], table[5, 0] = 900, 5, 20, 30, 10
  left = figures.confusion(with_arrays(run, confusion=table)).axes[0]
  labels = lambda axis: [label.get_text() for label in axis.get_ticklabels()]
  assert labels(left.yaxis) == ["jet (20)", "mu- (40)"]
  assert labels(left.xaxis) == ["jet", "mu-", "photon", "absent"]
  np.testing.assert_allclose(left.images[0].get_array(), [[0, 0, 0, 1], [0, 0, 0.75, 0.25]])
  assert left.get_title() == "% of the type"
  table[5] = [40] + [0] * 7
  assert figures.confusion(with_arrays(run, confusion=table)).axes[0].get_title() == (
      "all objects come back absent")


def ticks_of(axis, figure):
  """Labels of the ticks within the limits of an axis, and whether two that follow each other overlap."""
  figure.draw_without_rendering()
  low, high = axis.get_view_interval()
  boxes = [label.get_window_extent() for at, label in zip(axis.get_ticklocs(), axis.get_ticklabels())
           if low <= at <= high]
  return boxes, any(one.overlaps(other) for one, other in zip(boxes, boxes[1:]))


@pytest.mark.parametrize("decades", [0.3, 1, 2, 3, 6])
def test_ticks_of_the_errors_do_not_overlap(decades, run):
  """Errors over a third of a decade to six."""
  scores = 10**np.random.default_rng(0).uniform(-decades, 0, len(run.arrays["event_error"]))
  spread = {name: scores for name in run.arrays if name.startswith("anomaly_")}
  figure = figures.anomaly(with_arrays(run, event_error=scores, **spread))
  boxes, overlap = ticks_of(figure.axes[0].xaxis, figure)
  assert len(boxes) >= (2 if decades >= 1 else 1) and not overlap


@pytest.mark.parametrize("log", [{"figures": "full", "families": []}, {"figures": "standard", "families": ["recon"]},
                                 {"figures": "standard", "families": []}])
def test_recon_is_drawn_where_it_is_asked_for(log, run, monkeypatch):
  """By the preset full and by its name; not by the preset standard."""
  monkeypatch.setitem(report_figures.RC_PARAMS, "savefig.dpi", 40)
  asked = run._replace(config=run.config | {"log": log})
  chosen = report_figures.select(asked.config, "end")
  assert ("recon" in chosen) == (log["figures"] == "full" or log["families"] == ["recon"])
  assert log["families"] == ["recon"] or {"losses", "confusion"} <= set(chosen)
  if log["families"]:
    (name, path, caption), = report_figures.draw(asked, "end")
    assert name == "recon" and caption.startswith("Look for a ratio") and path.endswith(".png")


def test_codebook_counts_what_is_used(run):
  """Sixteen of 64 codes alike: perplexity 16, 75 % dead, use fair; and each disc has the colour of its type."""
  use = np.zeros((1, 64), int)
  use[0, :16] = 10
  types = np.zeros((9, 64))
  types[1, :8], types[2, 8:16] = 5, 5
  figure = figures.codebook(with_arrays(run, use=use, type_use=types))
  curves = [row | {"metric_perplexity_pooled": 9.0 + row["step"]} for row in run.rows]
  assert "perplexity" in texts(figures.codebook(with_arrays(run, use=None)._replace(rows=curves)))
  words = texts(figure)
  assert "16 of 64 used, 75 % dead" in words and "perplexity 16 (25 % of 64)" in words and "codes: fair" in words
  axes = {ax.get_title(loc="left") or ax.get_title(): ax for ax in figure.axes}
  discs = [part for part in axes["where the codes lie"].collections if len(part.get_offsets())]
  assert [len(part.get_offsets()) for part in discs] == [8, 8]
  assert matplotlib.colors.same_color(discs[0].get_facecolor()[0][:3], report_figures.HUES[0])
  assert axes["codes by type of object"].images[0].get_array().shape == (2, 16)
  assert figures_codes.perplexity(np.array([3, 3, 0])) == pytest.approx(2)
  assert figures_codes.perplexity(np.zeros(3)) == 0


def test_stages_of_a_residual_codebook_have_a_line_each(tmp_path):
  words = texts(figures.codebook(run_of(tmp_path, stages=3)))
  assert "stage 1: " in words and "stage 3: " in words


def test_the_map_is_the_plane_of_most_variance():
  random = np.random.default_rng(0)
  turned = np.linalg.qr(random.normal(size=(3, 3)))[0]
  flat = random.normal(size=(200, 2)) @ np.array([[3.0, 0, 0], [0, 1.0, 0]]) @ turned
  at, share = figures_codes.plane(flat + 7.0)
  assert share.sum() == pytest.approx(1) and 0.8 < share[0] < 0.97
  gaps = lambda points: np.linalg.norm(points[:, None] - points[None], axis=2)
  np.testing.assert_allclose(gaps(at), gaps(flat), atol=1e-9)


def test_area_under_the_curve_is_mann_whitney_with_weights():
  """Ties count as halves; a weight of two is a row that stands twice."""
  random = np.random.default_rng(2)
  normal, other = random.integers(0, 6, 50).astype(float), random.integers(1, 8, 70).astype(float)
  ones = lambda values: np.ones(len(values))
  fpr, tpr, area = figures_events.roc(normal, other, ones(normal), ones(other))
  assert area == pytest.approx(stats.mannwhitneyu(other, normal).statistic / 3500)
  assert fpr[0] == tpr[0] == 0 and fpr[-1] == tpr[-1] == 1 and (np.diff(fpr) >= 0).all()
  weight = random.integers(1, 4, 70)
  repeated = figures_events.roc(normal, np.repeat(other, weight), ones(normal), np.ones(weight.sum()))[2]
  assert figures_events.roc(normal, other, ones(normal), weight.astype(float))[2] == pytest.approx(repeated)


def test_anomaly_names_what_the_assessment_says_else_the_area_itself(run):
  words = texts(figures.anomaly(run))
  assert "gaussian noise, AUROC 0.640 ± 0.020" in words and "token shuffle, AUROC 0.9800" in words
  assert "tttt against other processes, AUROC 0.5500" in words
  bare = run._replace(evals={"test": {"scalars": {}}})
  weight, error = run.arrays["event_weight"], run.arrays["event_error"]
  area = figures_events.roc(error, run.arrays["anomaly_token_shuffle"], weight, weight)[2]
  assert f"token shuffle, AUROC {area:.4f}"[:-1] in texts(figures.anomaly(bare))
  assert figures.anomaly(with_arrays(run, event_label=None, **{f"anomaly_{name}": None for name in made.CORRUPTIONS})
                         ) is None


def test_bits_are_by_process(run):
  own = run.arrays["event_label"] == 2
  mean = np.average(run.arrays["event_bits"][own], weights=run.arrays["event_weight"][own])
  words = texts(figures.bits(run))
  assert f"ttH, mean {mean:,.0f}" in words and "tttt, mean" in words
  assert len(figures.bits(with_arrays(run, event_error=None)).axes) == 1


def test_images_stand_above_what_comes_back(run):
  """Sixteen pairs in one picture, white between them."""
  figure = figures.images(run)
  shown = np.asarray(figure.axes[0].images[0].get_array())
  true, recon = run.arrays["shown_images"], run.arrays["shown_images_recon"]
  np.testing.assert_array_equal(shown[:28, 30:58], true[1])
  np.testing.assert_array_equal(shown[30:58, 30:58], recon[1])
  np.testing.assert_array_equal(shown[-28:, -28:], recon[15])
  assert not shown[28:30].any() and shown.shape == (4 * 30 - 2, 8 * 30 - 2)


def test_latency_says_seconds_and_rows(run):
  words = texts(figures.latency(run))
  assert "seconds per epoch, median 0.5" in words and "rows per second, median 900" in words


def test_what_the_page_opens_on(run):
  say = lambda **changed: figures_findings.findings(run._replace(evals={"test": {"scalars": made.SCALARS | changed}}))
  assert say()[0] == ("The reconstruction leaves 4.30 ± 0.20 % of the variance of held-out features unexplained. "
                      "Errors are 8.100 GeV in pT, 0.08000 rad in phi.")
  assert say()[1] == "An event costs 83.20 bits, 8.100 a slot, by the frequencies of the codes."
  assert say()[2] == ("Use of the codes, whatever they keep of an event, is good: 48 of 64 (75 %) occur in held-out "
                      "events, which are used as 21 equally frequent ones would be (perplexity).")
  assert say()[3].startswith("7 % of the objects come back as another type")
  assert say()[4] == ("The error of an event tells these corruptions from sound events (AUROC): token shuffle (0.98). "
                      "It hardly sees gaussian noise (0.64), drop tokens (0.52); 0.5 is chance.")
  assert ("9 % of the slots come back wrong about whether they hold an object: objects come back absent (in the figure "
          "confusion the column absent), or empty slots as objects; a larger loss.weights.exists makes it fewer."
          ) in say(exists_accuracy=0.91)
  assert len(say(exists_accuracy=0.96)) == 5
  assert say(auroc_token_shuffle=0.5)[4] == (
      "The error of an event tells no corruption clearly from sound events. It hardly sees gaussian noise (0.64), drop "
      "tokens (0.52); 0.5 is chance. That token shuffle (0.50) is not seen is by construction: the networks treat all "
      "slots alike.")
  for model in ({"encoder": {"own": ["my_encoder.make"]}}, {"latent": {"per_object": False}}):
    placed = run._replace(config=run.config | {"model": model}, evals={
        "test": {"scalars": made.SCALARS | {"auroc_token_shuffle": 0.5}}})
    assert "token shuffle (0.50); 0.5 is chance." in figures_findings.findings(placed)[-1]
  assert len(say(id_accuracy=0.99)) == 4 and "no corruption clearly" in say(auroc_token_shuffle=0.6)[4]
  plain = run._replace(config=run.config | {"model": {"latent": {"kind": "none"}}})
  assert "is not quantised (kind none)" in figures_findings.findings(plain)[1]
  assert len(figures_findings.findings(plain)) == 4  # no verdict on codes
  assert figures.FINDINGS["autoencoder"](run._replace(evals={}, split="")) == []
  assert results.findings(run)[0].startswith("The reconstruction leaves 5.")


@pytest.mark.parametrize(("share", "word"), [
    (0.81, "excellent"), (0.8, "good"), (0.51, "good"), (0.5, "fair"), (0.21, "fair"), (0.2, "poor"), (0.0, "poor")])
def test_verdicts_on_codebooks(share, word):
  assert figures_findings.verdict(share) == word
