"""Figures and sentences of what the embedding is worth, from arrays of the shapes that the assessment writes."""

import numpy as np
import pytest

from drawn import texts
from made_runs import make_run
from jaxtrain.experiments.tabular_vae import figures, figures_worth as figures_of
from jaxtrain.workdir import reading

NAMES = ["classifier", "embedding_knn", "raw_knn", "raw_forest"]
PAIRS = [["classifier", "raw_knn"], ["classifier", "raw_forest"], ["embedding_knn", "raw_knn"]]
DRAWN = {"clusters": "cluster_scores", "probes": "probe_scores", "imputation": "impute_r2", "transfer": "transfer_r2",
         "by_label": "label_errors"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run with all parts; the classifier gains `gain` over each other one, with the ends of an interval."""
  made = reading.read_run(make_run(tmp_path_factory.mktemp("made") / "run"))
  arrays = {"cluster_scores": np.linspace(0, 1, 24).reshape(2, 2, 2, 3)[..., [0, 1, 2, 2]],
            "cluster_half": np.full((2, 2, 2, 4), 0.1), "cluster_numbers": np.array([3, 5]),
            "probe_names": np.array(NAMES), "probe_scores": np.full((4, 3), 0.5), "probe_half": np.full((4, 3), 0.1),
            "gain_pairs": np.array(PAIRS), "impute_hidden": np.array(["depth", "depth+mass"]),
            "impute_r2": np.array([[0.5, -9.0, 0.2, 0.3]] * 2), "impute_half": np.full((2, 4), 0.1),
            "transfer_columns": np.array(["CaCO3"]), "transfer_r2": np.full((1, 2, 2), 0.4),
            "transfer_half": np.full((1, 2, 2), np.nan), "label_names": np.array(["Sand", "Silt"]),
            "label_rows": np.array([900, 8]), "label_errors": np.linspace(0, 2, 24).reshape(2, 6, 2)}
  return made._replace(arrays=made.arrays | arrays)


def with_scalars(run, scalars: dict):
  """The run whose shown part has such scalars."""
  record = run.evals[run.split]
  return run._replace(evals=run.evals | {run.split: record | {"scalars": record["scalars"] | scalars}})


def gains(accuracy: tuple, balanced: tuple) -> dict:
  """Scalars of the classifier against each other one: value, low, high."""
  found = {"probe_accuracy/classifier": 0.6, "probe_balanced_accuracy/classifier": 0.3}
  for what, values in (("accuracy", accuracy), ("balanced_accuracy", balanced)):
    for one, other in PAIRS:
      found |= {f"gain_{what}{end}/{one}-{other}": v for end, v in zip(("", "_low", "_high"), values)}
  return found


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("name", sorted(DRAWN))
def test_each_is_drawn_of_its_arrays_alone(run, name, narrow):
  draw = (figures.FAMILIES | figures.FULL_FAMILIES)[name]
  figure = draw(run, narrow=narrow)
  assert figure.get_size_inches()[0] <= (5.2 if narrow else 9) and draw.__doc__.startswith("Look for")
  assert draw(run._replace(arrays={k: v for k, v in run.arrays.items() if k != DRAWN[name]})) is None
  said = {"clusters": "adjusted Rand index", "probes": "raw features: random forest", "imputation": "depth+mass",
          "transfer": "CaCO3", "by_label": "Sand (900)"}
  assert said[name] in texts(figure)


@pytest.mark.parametrize(("accuracy", "balanced", "verdict"), [
    ((0.1, 0.02, 0.2), (0.1, 0.02, 0.2), "The classifier beats classifiers on the raw features on held-out rows"),
    ((0.1, 0.02, 0.2), (0.1, -0.02, 0.2), "The classifier beats classifiers on the raw features in part"),
    ((0.1, -0.02, 0.2), (-0.1, -0.2, -0.02), "the embedding adds nothing to the raw features")])
def test_the_verdict_follows_the_intervals(run, accuracy, balanced, verdict):
  said = figures_of.of_classifier(with_scalars(run, gains(accuracy, balanced)))
  assert len(said) == 1 and verdict in said[0]
  assert f"95 % interval {accuracy[1]:+.3f} to {accuracy[2]:+.3f}" in said[0]


def test_probes_that_gain_nothing_are_said_so(run):
  said = figures_of.of_embedding(with_scalars(run, gains((0.01, -0.02, 0.2), (0, -1, 1))))
  assert said == ["The same probes gain nothing from the embedding over the raw features. Differences of accuracy with "
                  "95 % intervals: 25 nearest rows +0.010 (-0.020 to +0.200)."]


def test_clusters_transfer_and_what_is_missing_are_said(run):
  scalars = {"cluster_ari_mean": 0.3, "cluster_ari_mean_raw": 0.2, "cluster_ari_gain_low": 0.05,
             "cluster_ari_gain_high": 0.2, "transfer_gain_low/forest/CaCO3": 0.1,
             "transfer_gain_high/forest/CaCO3": 0.2,
             "parts_reason": "Left out of the assessment: probes (rows have no labels)."}
  said = figures_of.findings(with_scalars(run, scalars))
  assert "surely more than clusters of the raw features" in said[0]
  assert "predict 1 surely better (CaCO3) and 0 surely worse" in said[1] and said[2] == scalars["parts_reason"]
  assert figures_of.findings(run._replace(arrays={})) == []


@pytest.mark.parametrize(("own", "half", "normal", "says"), [
    (8.0, 0.1, 7.5, True), (8.0, 1.0, 7.5, False), (7.5, 0.1, 8.0, False), (8.0, 0.0, 8.0, False),
    (8.0, 0.1, None, False)])
def test_a_density_worse_than_one_normal_distribution_is_said(run, own, half, normal, says):
  found = with_scalars(run, {"iw_nll_nats": own, "iw_nll_nats_ci95": half} | (
      {} if normal is None else {"gaussian_nll_nats": normal}))
  said = [line for line in figures_of.findings(found) if "do not trust sampled rows" in line]
  assert len(said) == says and (not says or "(8 and 7.5 nats a row)" in said[0])


@pytest.mark.parametrize(("parts", "says"), [([], True), (["clusters"], True), (["probes"], False)])
def test_an_accuracy_without_probes_is_said_to_be_compared_with_one_class_alone(run, parts, says):
  found = with_scalars(run, {"accuracy": 0.8})
  found = found._replace(config=found.config | {"eval": {"parts": parts}}, arrays={"class_count": np.array([3, 4])})
  said = [line for line in figures_of.findings(found) if "most frequent class alone" in line]
  assert len(said) == says and (not says or "--config.eval.parts=probes" in said[0])
  assert not figures_of.not_compared(found._replace(arrays={}))


def test_without_intervals_the_classifier_is_undecided_and_imputation_is_told(run):
  own = {"probe_accuracy/classifier": 0.967, "probe_accuracy/raw_knn": 0.9, "probe_accuracy/raw_forest": 0.965,
         "gain_accuracy/classifier-raw_knn": 0.067, "gain_accuracy/classifier-raw_forest": 0.002,
         "impute_summary": "Cells come back."}
  said = figures_of.findings(with_scalars(run, own))
  assert any("is undecided: too few groups are held out" in line and line.endswith(
      "Its accuracy is 0.967, that of the best of them (random forest) 0.965.") for line in said)
  assert "Cells come back." in said
