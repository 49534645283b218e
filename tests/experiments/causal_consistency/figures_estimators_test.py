"""The figure of estimators and its sentences, from scalars alone."""

import pytest

from drawn import PHONE, texts
from jaxtrain.experiments.causal_consistency import evaluate_estimators, figures, figures_estimators
from jaxtrain.report import figures as report_figures
from jaxtrain.workdir import reading
from made_runs import make_run

META = {"class_names": ["none", "drug"], "outcomes": ["pain"]}
OF_MODEL = {"ate": 1.0, "ate_low": 0.9, "ate_high": 1.1, "ate_truth": 1.02}
FINE = OF_MODEL | {"mnar_tipping": 2.0, "rows_per_feature": 9.0} | {
    f"{name}{end}": value for name in evaluate_estimators.SCALARS.values()
    for end, value in (("", 1.1), ("_low", 0.8), ("_high", 1.4), ("_plain_low", 0.9), ("_plain_high", 1.3))}


@pytest.fixture
def run(tmp_path):
  """A run of two classes with all estimates."""
  found = reading.read_run(make_run(tmp_path / "run", parts=("test",)))
  return found._replace(evals={"test": {"scalars": FINE}}, split="test", meta=META)


def with_scalars(run, **changed):
  """The run with other scalars."""
  return run._replace(evals={"test": {"scalars": FINE | changed}})


def test_every_estimator_has_a_line_that_says_what_it_assumes(run, tmp_path):
  assert set(figures_estimators.ESTIMATED) == set(evaluate_estimators.SCALARS.values())
  with report_figures.styled():
    figure = figures.FAMILIES["estimators"](run)
    figure.savefig(tmp_path / "a.png", dpi=40)
  shown = texts(figure)
  for name in ("ate", *figures_estimators.ESTIMATED):
    for text in figures_estimators.ASSUMES[name]:
      assert text in shown, text
  assert "truth 1.02" in shown and "group means" not in shown and figure.get_size_inches()[0] <= PHONE


def test_nothing_is_drawn_without_estimates(run):
  only = {"ate": 1.0, "ate_unadjusted": 2.0}
  assert figures_estimators.estimators(run._replace(evals={"test": {"scalars": only}})) is None
  assert figures_estimators.estimators(run._replace(evals={}, split="", meta={})) is None


def test_sentences_follow_the_numbers(run):
  say = lambda **changed: " ".join(figures_estimators.findings(with_scalars(run, **changed)))
  assert "to be right. Its interval holds what the model says." in say() and "factor of 7.4." in say()
  assert "is outside of its interval" in say(ate=2.0)
  assert "little is needed" in say(mnar_tipping=0.5) and "factor" not in say(mnar_tipping="inf")
  assert "0.5 recorded rows for each feature" in say(rows_per_feature=0.5)
  assert "does not vary" in say(estimators_reason="No estimator: the outcome does not vary.")
  assert figures_estimators.findings(run._replace(evals={}, split="")) == []
