"""Figures of causal consistency: what each says of its rows, from scalars and arrays that the assessment makes."""

import matplotlib
import numpy as np
import pytest

from made_runs import make_run
from drawn import PHONE, texts
from jaxtrain.experiments.causal_consistency import evaluate, figures
from jaxtrain.report import figures as report_figures, results
from jaxtrain.workdir import reading

NEEDS = {"overlap": "propensity_counts", "balance": "smd_before", "cate": "sample_cate",
         "calibration": "calibration_hidden", "sigma": "pit_counts", "responsibilities": "imputed_counts"}


def made(num_classes=2, num_outcomes=1, truth=True, seed=0):
  """Scalars and arrays of a model that is not exact, on 400 rows of three covariates."""
  random = np.random.default_rng(seed)
  x = random.normal(size=(400, 3)) * [1, 1, 0]
  logits = np.arange(num_classes) * x[:, :1]
  y = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
  mean = np.repeat((x[:, :1] + np.arange(num_classes) * (1 + 0.3 * x[:, 1:2]))[:, :, None], num_outcomes, axis=2)
  z = mean[np.arange(400), y] + random.normal(size=(400, num_outcomes))
  rows = {"x": x, "y": np.where(np.arange(400) % 2, y, -1), "z": z, "w": x[:, 1:2] + y[:, None]}
  rows |= {"y_true": y, "mean_true": mean} if truth else {}
  log_prob = lambda logit: logit - np.log(np.exp(logit).sum(axis=1, keepdims=True))
  posterior = log_prob(logits + random.normal(size=logits.shape))
  told = evaluate.Predicted(mean + 0.2, np.full_like(mean, 0.8), log_prob(logits), random.normal(size=logits.shape),
                            posterior, posterior)
  facts = {"covariates": ["age", "dose $m$", "constant"], "outcomes": ["pain", "cost"][:num_outcomes],
           "instruments": ["distance"], "class_names": ["none", "drug", "knife"][:num_classes]}
  return evaluate.assess_rows(rows, told, facts), facts


def run_of(tmp_path, **how):
  """A run with such an assessment of its test rows."""
  (scalars, arrays), facts = made(**how)
  run = reading.read_run(make_run(tmp_path / "run", parts=("test",)))
  return run._replace(evals={"test": {"scalars": scalars}}, split="test", arrays=arrays, meta=facts)


@pytest.fixture
def run(tmp_path):
  """A run of two classes whose truth is known."""
  return run_of(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("num_classes", "num_outcomes", "truth"), [
    (2, 1, True), pytest.param(3, 2, False, marks=pytest.mark.slow)])
def test_all_are_drawn_and_fit_a_phone(tmp_path, num_classes, num_outcomes, truth):
  run = run_of(tmp_path, num_classes=num_classes, num_outcomes=num_outcomes, truth=truth)
  with report_figures.styled():
    for name, family in figures.FAMILIES.items():
      figure = family(run)
      assert figure is not None and figure.get_size_inches()[0] <= PHONE, name
      with open(tmp_path / f"{name}.png", "wb") as file:
        figure.savefig(file, format="png", dpi=40)
      assert figure.get_label() or family.__doc__


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_nothing_is_drawn_without_its_arrays(run, name):
  arrays = {k: v for k, v in run.arrays.items() if not k.startswith(NEEDS[name].partition("_hid")[0])}
  assert figures.FAMILIES[name](run._replace(arrays=arrays)) is None
  assert figures.FAMILIES[name](run._replace(arrays={}, evals={}, split="", meta={})) is None


def test_no_effect_no_figure(run):
  assert figures.effects(run._replace(evals={}, split="")) is None
  assert figures.effects(run._replace(evals={"test": {"scalars": {"ate": float("nan")}}})) is None


def test_effects_say_how_much_how_sure_and_what_would_change_it(run):
  scalars = run.evals["test"]["scalars"]
  figure = figures.effects(run)
  found, caption = texts(figure), figure.get_label()
  assert "drug against none on pain" in found and "instrument (2SLS)" in found and "cross-fitted" in found
  assert f"truth {scalars['ate_truth']:.3g}" in found and "unadjusted" in found
  assert f"effect of drug against none on pain is {scalars['ate']:.3g} (95 % interval " in caption
  assert f"{scalars['ate_low']:.3g} to {scalars['ate_high']:.3g}, which leaves out" in caption
  posterior = figures.effects(run._replace(arrays=run.arrays | {"effect_draws": np.zeros((9, 2, 1))})).get_label()
  assert f"95 % posterior interval {scalars['ate_low']:.3g} to {scalars['ate_high']:.3g})" in posterior
  assert f"risk ratios of {scalars['e_value']:.2f} each" in caption and "first-stage F is " in caption
  lines = [line.get_xdata() for line in figure.axes[0].get_lines()]
  assert any(np.allclose(x, [scalars["ate_aipw_low"], scalars["ate_aipw_high"]]) for x in lines if len(x) == 2)


def test_effects_warn_of_weak_instruments_and_disagreement(run):
  scalars = run.evals["test"]["scalars"]
  changed = scalars | {"first_stage_f": 3.2, "ate_aipw_low": scalars["ate"] + 1, "ate_aipw_high": scalars["ate"] + 2}
  caption = figures.effects(run._replace(evals={"test": {"scalars": changed}})).get_label()
  assert "F is 3.2: weak, do not trust" in caption and "does not hold the model's effect: trust none" in caption
  agreeing = changed | {"ate_aipw_low": scalars["ate"] - 1, "first_stage_f": 30.0}
  caption = figures.effects(run._replace(evals={"test": {"scalars": agreeing}})).get_label()
  assert "without the model agrees" in caption and "weak" not in caption


@pytest.mark.slow
def test_each_class_and_outcome_has_its_panel(tmp_path):
  run = run_of(tmp_path, num_classes=3, num_outcomes=2)
  titles = [ax.get_title() for ax in figures.effects(run).axes]
  assert titles == ["drug against none on pain", "knife against none on pain", "drug against none on cost",
                    "knife against none on cost"]
  assert len(figures.overlap(run).axes) == 3 and len(figures.cate(run).axes) == 2 == len(figures.sigma(run).axes)


def test_overlap_shows_each_group_in_full(run):
  figure = figures.overlap(run)
  counts = run.arrays["propensity_counts"]
  shares = [patch.get_data().values for patch in figure.axes[0].patches[::2]]
  np.testing.assert_allclose(shares, 100 * counts[1] / counts[1].sum(axis=1, keepdims=True))
  assert "probability of drug given the covariates" in texts(figure) and "% of rows have" in figure.get_label()


def test_balance_ranks_covariates_and_counts_what_is_left(run):
  figure = figures.balance(run)
  assert [t.get_text() for t in figure.axes[0].get_yticklabels()][0] == "age"
  assert "constant" in texts(figure) and r"dose \$m\$" in texts(figure)
  after = np.nan_to_num(np.abs(run.arrays["smd_after"]))
  assert (f"{(after > 0.1).sum()} of 3 do" if (after > 0.1).any() else "None does") in figure.get_label()
  bad = figures.balance(run._replace(arrays=run.arrays | {"smd_after": np.array([[0.5, -0.2, 0.0]])}))
  assert "2 of 3 do." in bad.get_label()


def test_effects_of_rows_stand_against_the_truth(run):
  known, unknown = figures.cate(run), figures.cate(run._replace(
    arrays={k: v for k, v in run.arrays.items() if k != "sample_cate_true"}))
  points = known.axes[0].collections[0].get_offsets()
  want = np.concatenate([run.arrays["sample_cate_true"], run.arrays["sample_cate"]], axis=1)
  np.testing.assert_allclose(points, want)
  assert "root mean squared" in known.get_label() and "mean 1." in texts(unknown)
  one = run._replace(arrays={"sample_cate": np.ones((50, 1))})  # a model of one effect for all
  assert figures.cate(one).axes[0].patches[0].get_data().values.sum() == 50


def test_imputed_rows_are_counted_right_and_wrong(run):
  figure = figures.responsibilities(run)
  assert "none in truth" in texts(figure) and "wrong" in texts(figure) and len(figure.axes) == 2
  values = [patch.get_data().values for patch in figure.axes[1].patches]
  counts = run.arrays["imputed_counts"][1]
  np.testing.assert_array_equal(values, [counts[1], counts.sum(axis=0)])
  assert matplotlib.colors.same_color(figure.axes[1].patches[1].get_facecolor()[:3], figures.HUES[1])


def test_calibration_says_of_which_rows(run):
  assert "treatment hidden" in texts(figures.calibration(run))
  recorded = run._replace(arrays={k: v for k, v in run.arrays.items() if k != "calibration_hidden"})
  assert "treatment recorded" in texts(figures.calibration(recorded))


def test_the_page_opens_on_the_effect_and_what_would_change_it(run):
  """A sentence for each assumption, a warning for each diagnostic that is off, and none where they are fine."""
  fine = {"rows": 400, "rows_recorded": 200, "ate": 1.0, "ate_low": 0.9, "ate_high": 1.1, "ate_aipw": 1.05,
          "ate_aipw_low": 0.9, "ate_aipw_high": 1.2, "ate_unadjusted": 1.8, "e_value": 4.0, "overlap_outside": 0.02,
          "smd_after_max": 0.05, "coverage_90": 0.9, "consistency_gap": 0.01, "first_stage_f": 40.0}
  say = lambda **changed: figures.findings(run._replace(evals={"test": {"scalars": fine | changed}}))
  assert say() == [
      "The average effect of drug against none on pain is 1.00 ± 0.10 (95 % interval, which leaves out the error of "
      "the model itself). Without adjusting for covariates the groups differ by 1.800. The doubly robust estimate, "
      "without the model, is 1.05 ± 0.15, and agrees with the model.",
      "The effect assumes that the covariates hold all that drives both treatment and outcome. To explain the "
      "model's effect away, a hidden confounder would have to make both of them 4.00 times as likely (E-value).",
      "The treatment is recorded in 50 % of these rows. The effect assumes that whether it is recorded depends on "
      "covariates and outcomes alone, not on the treatment itself."]
  assert "explain the triply robust estimate away, a hidden confounder would have to make both of them 6.00" in say(
      e_value_triply_robust=6.0)[1]
  assert say(ate_triply_robust=0.9, ate_triply_robust_low=0.5, ate_triply_robust_high=1.3)[0].startswith(
      "The average effect of drug against none on pain is 0.90 ± 0.40 by the triply robust estimate (95 % interval): "
      "quote this one. The model says 1.00 ± 0.10, ")
  apart = say(ate_triply_robust=0.9, ate_triply_robust_low=0.5, ate_triply_robust_high=1.3, ate_aipw=1.55,
              ate_aipw_low=1.5, ate_aipw_high=1.6)[0]
  assert "by the triply robust estimate (95 % interval). The model says" in apart and "quote" not in apart
  assert apart.endswith("is 1.550 ± 0.050, and its interval does not hold the model's effect: trust none of these "
                        "estimates until you know why.")
  assert len(say(rows_recorded=400)) == 2
  for name, value, words in (("overlap_outside", 0.3, "30 % of rows have a class"), ("smd_after_max", 0.4, "by 0.40 "),
                             ("rows_recorded", 12, "Only 12 rows"), ("coverage_90", 0.7, "hold 70 %"),
                             ("consistency_gap", 0.5, "0.50 nats from"),
                             ("first_stage_f", 3.0, "weak (first-stage F 3")):
    warned = say(**{name: value})
    assert len(warned) == 4 and words in warned[3], name
  assert figures.findings(run._replace(evals={}, split="")) == []
  assert results.findings(run._replace(config={"experiment": "jaxtrain.experiments.causal_consistency.joint"}))[0] == (
      figures.findings(run)[0])


def test_a_constant_effect_is_no_cloud(run):
  """The spread of the estimated effect about the one true effect, as a histogram."""
  figure = figures.cate(run._replace(arrays=run.arrays | {"sample_cate_true": np.ones_like(run.arrays["sample_cate"])}))
  assert "truth 1" in texts(figure) and "all spread of the estimated one is error" in figure.get_label()
