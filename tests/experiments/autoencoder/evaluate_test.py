"""The assessment of an autoencoder against NumPy and scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

import event_cases as cases
from jaxtrain.experiments.autoencoder import apply, corruptions, evaluate, figures_findings, ranking


@pytest.mark.parametrize("paired", [False, True])
def test_auroc_and_its_interval(paired):
  """The area is the share of pairs, and of 400 samples so many intervals hold the truth: 0.95 would be 380, with a
  false alarm of 1e-4 below 363 and above 395. Scores of copies go with those of the events.
  """
  random, truth = np.random.default_rng(0), 0.7602499389  # of Normals one deviation apart
  hits, ones = 0, np.ones(120)
  for _ in range(400):
    low, high = random.normal(size=120), random.normal(1.0, size=120)
    high = 1 + 0.9 * low + 0.19**0.5 * (high - 1) if paired else high
    area, half = ranking.auroc(low, high, (ones, ones), paired)
    hits += abs(area - truth) <= half
  assert area == pytest.approx((high[:, None] > low[None]).mean(), abs=1e-12) and 363 <= hits <= 395


def test_auroc_of_weighted_events_is_that_of_so_many_copies():
  """Ties count half; copies that cannot be told from the events have no uncertainty."""
  random = np.random.default_rng(1)
  low, high = random.integers(0, 6, 30) / 1.0, random.integers(2, 8, 40) / 1.0
  weights = random.integers(0, 4, 30), random.integers(0, 4, 40)
  area, _ = ranking.auroc(low, high, weights, paired=False)
  label, scores = np.repeat([0, 1], [weights[0].sum(), weights[1].sum()]), np.concatenate(
      [np.repeat(low, weights[0]), np.repeat(high, weights[1])])
  assert area == pytest.approx(metrics.roc_auc_score(label, scores), abs=1e-12)
  assert ranking.auroc(low, low, (weights[0], weights[0]), paired=True) == (pytest.approx(0.5), pytest.approx(0.0))


def test_information_of_codes():
  assert evaluate.information(np.eye(4, dtype=int) * 5) == pytest.approx(2.0)
  assert evaluate.information(np.ones((3, 7), int)) == pytest.approx(0.0, abs=1e-12)


def test_errors_go_around_the_circle_and_only_over_objects():
  given = {"ids": np.array([[1, 0], [2, 3]]), "event_weight": np.array([1.0, 3.0], np.float32),
           "momenta": np.array([[[10, 8, 0.5, 3.1], [0, 0, 0, 0]], [[20, 15, 1, 0], [9, 9, -1, -3.0]]]),
           "met": np.array([[30, -3.1], [40, 1.0]])}
  back = {"momenta": np.array([[[11, 9, 0.5, -3.1], [99, 99, 9, 1]], [[18, 15, 1, 0.5], [9, 9, -1, 3.0]]]),
          "met": np.array([[32, 3.1], [40, 1.0]])}
  found = evaluate.errors(given, back)
  turn = 2 * np.pi
  assert found["error_e_gev"] == pytest.approx((1 + 3 * 2) / 7)
  assert found["error_pt_gev"] == pytest.approx(1 / 7)
  assert found["error_phi_rad"] == pytest.approx((turn - 6.2 + 3 * (0.5 + turn - 6.0)) / 7)
  assert found["error_met_gev"] == pytest.approx(2 / 4)
  assert found["error_met_phi_rad"] == pytest.approx((turn - 6.2) / 4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("vq", pytest.param("vae", marks=pytest.mark.slow)))
def test_assessment_is_that_of_the_evaluation(kind):
  """Unexplained variance and bits are what the evaluation of every epoch says, but for a vae's sample."""
  made = cases.filled(model__latent__kind=kind)
  scalars, arrays = made.experiment.assess["test-events"](made.state, made.splits, cases.KEY)
  given = made.rows()
  back = apply.apply(made.coder, made.state, apply.rows_of(given))
  each = given["ids"] > 0
  gap = np.square(back["cont"].astype(np.float64) - given["cont"]).sum(axis=2)
  centred = np.square(given["cont"] - given["cont"][each].astype(np.float64).mean(axis=0)).sum(axis=2)
  assert scalars["unexplained_variance"] == pytest.approx(gap[each].sum() / centred[each].sum(), rel=1e-6)
  assert scalars["unexplained_variance_ci95"] > 0
  bits = back["bits"].sum(axis=1) + np.log2(19)
  assert scalars["bits_per_event"] == pytest.approx(bits.mean(), rel=1e-6)
  np.testing.assert_allclose(arrays["event_error"],
                             (gap * each).sum(axis=1) / given["cont"].shape[2] / each.sum(axis=1), rtol=1e-5)
  if kind == "vq":
    use = arrays["use"][0]
    assert use.sum() == each.sum() + len(each) and scalars["codes_used"] == (use > 0).sum()
    assert figures_findings.num_codes(scalars) == len(use)  # what figures make of it
    share = use[use > 0] / use.sum()
    assert scalars["perplexity_pooled"] == pytest.approx(np.exp(-np.sum(share * np.log(share))), rel=1e-5)
    assert arrays["type_use"].sum() == use.sum()


def test_types_and_codes_are_counted_by_event_weights():
  """An event of weight 3 counts as three; a type's row adds up to its effective number of objects."""
  p = cases.filled().problem
  given = {"ids": np.array([[1, 0], [2, 1]]), "event_weight": np.array([3.0, 1.0], np.float32)}
  back = {"ids": np.array([[1, 4], [2, 2]]), "exists": np.array([[0.9, 0.7], [0.8, 0.6]]),
          "index": np.array([[5, -1, 7], [5, 6, 7]])[..., None]}
  scalars, arrays = evaluate.type_scalars(p, given, back)
  assert scalars["id_accuracy"] == pytest.approx(4 / 5) and scalars["exists_accuracy"] == pytest.approx(5 / 8)
  counts = np.zeros((p.meta["num_types"],) * 2)
  counts[1, [1, 2]], counts[2, 2], counts[0, 4] = np.array([3, 1]) * 4 / 10, 1, 3 * 3 / 9
  np.testing.assert_allclose(arrays["confusion"], counts)
  scalars, arrays = evaluate.code_scalars(p, given, back)
  want = np.zeros(p.plan.num_codes)
  want[[5, 6, 7]] = 4, 1, 4
  np.testing.assert_allclose(arrays["use"], [want])
  share = want[5:8] / 9
  assert scalars["perplexity_pooled"] == pytest.approx(np.exp(-np.sum(share * np.log(share))), rel=1e-5)
  np.testing.assert_allclose(arrays["type_use"][[1, 2, -1], 5:8], [[3, 1, 0], [1, 0, 0], [0, 0, 4]])
  assert scalars["codes_used"] == 3


def test_anomalies_are_ranked_by_errors():
  made = cases.filled()
  scalars, arrays = made.experiment.assess["test-anomaly"](made.state, made.splits, cases.KEY)
  assert {f"auroc_{name}" for name in corruptions.CORRUPTIONS} <= set(scalars)
  for name in corruptions.CORRUPTIONS:
    strange, normal = arrays[f"anomaly_{name}"], arrays["event_error"]
    ranks = (strange[:, None] > normal[None]).mean() + 0.5 * (strange[:, None] == normal[None]).mean()
    assert scalars[f"auroc_{name}"] == pytest.approx(ranks, abs=1e-6)
  again = made.experiment.assess["test-anomaly"](made.state, made.splits, cases.KEY)[0]
  assert again == scalars


def test_a_perfect_reconstruction_explains_all():
  made = cases.filled()
  given = made.rows()
  found = evaluate.explained(made.splits.meta, given, given["cont"])
  assert found["unexplained_variance"] == 0 and all(found[f"unexplained/{name}"] == 0
                                                    for name in made.splits.meta["feature_names"])
  mean = given["cont"][given["ids"] > 0].mean(axis=0)
  assert evaluate.explained(made.splits.meta, given, np.broadcast_to(mean, given["cont"].shape))[
      "unexplained_variance"] == pytest.approx(1.0, rel=1e-6)
