"""Assessment of the joint model: each scalar against its formula, for the exact model of simulated rows and for others.

The exact model of Z = X + Y + noise has p(y=j|x) in proportion to exp(j x), means x + j and the deviation of the noise.
"""

import fnmatch

import numpy as np
import pytest
from scipy import special, stats

from jaxtrain.experiments.causal_consistency import diagnostics, effects, evaluate

FACTS = {"covariates": ["age"], "outcomes": ["pain"], "instruments": [], "class_names": ["none", "drug"]}


def exact(num_rows, seed, num_classes=2, noise=1.0, hidden=0.5):
  """Rows with truth, and what the exact model says of them."""
  random = np.random.default_rng(seed)
  x = random.normal(size=num_rows)
  logits = np.arange(num_classes) * x[:, None]
  y = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
  z = x + y + noise * random.normal(size=num_rows)
  mean = (x[:, None] + np.arange(num_classes))[:, :, None]
  log_lik, log_prior = stats.norm.logpdf(z[:, None], mean[:, :, 0], noise), special.log_softmax(logits, axis=1)
  posterior = special.log_softmax(log_prior + log_lik, axis=1)
  recorded = random.uniform(size=num_rows) >= hidden
  rows = {"x": x[:, None], "y": np.where(recorded, y, -1), "z": z[:, None], "y_true": y, "mean_true": mean}
  return rows, evaluate.Predicted(mean, np.full_like(mean, noise), log_prior, log_lik, posterior, posterior)


@pytest.fixture(scope="module")
def assessed():
  """The exact model on 4,000 rows, half of them recorded."""
  rows, predicted = exact(4000, 0)
  return rows, predicted, *evaluate.assess_rows(rows, predicted, FACTS)


def test_the_exact_model_has_no_error(assessed):
  _, _, scalars, arrays = assessed
  for name in ("ate", "att", "atc", "ate_truth", "att_truth", "atc_truth", "cate_sd"):
    assert scalars[name] == pytest.approx(0 if name == "cate_sd" else 1, abs=1e-9)
  assert scalars["cate_rmse"] == pytest.approx(0, abs=1e-12) == scalars["consistency_gap"]
  np.testing.assert_allclose(arrays["sample_cate"], arrays["sample_cate_true"])
  assert arrays["sample_cate"].shape == (evaluate.SAMPLE, 1)


def test_estimators_without_the_model_find_the_effect(assessed):
  _, _, scalars, _ = assessed
  for name in ("ate_aipw", "ate_aipw_model", "att_aipw", "atc_aipw", "att_aipw_model"):
    error = (scalars[f"{name}_high"] - scalars[f"{name}_low"]) / 3.92
    assert abs(scalars[name] - 1) < 4 * error < 0.5, name
  assert abs(scalars["ate_unadjusted"] - 1.82648386) < 4 * scalars["ate_unadjusted_ci95"] / 1.96 < 0.3
  assert scalars["ate_ci95"] == pytest.approx((scalars["ate_high"] - scalars["ate_low"]) / 2)


def test_likelihoods_are_those_of_the_best_model(assessed):
  rows, predicted, scalars, _ = assessed
  assert abs(scalars["log_likelihood"] + 1.41893853) < 4 * scalars["log_likelihood_ci95"] / 1.96 < 0.1
  seen = rows["y"] >= 0
  x, y, z = rows["x"][seen, 0], rows["y"][seen], rows["z"][seen, 0]
  logit = (x + (2 * (z - x) - 1) / 2) * np.where(y == 1, 1, -1)  # exact posterior of two classes at noise 1
  assert scalars["log_lik_y_given_xz"] == pytest.approx(special.log_expit(logit).mean())
  assert scalars["log_lik_y_given_x"] == pytest.approx(special.log_expit(np.where(y == 1, x, -x)).mean())
  density = sum(special.expit(s * rows["x"][:, 0]) * stats.norm.pdf(rows["z"][:, 0], rows["x"][:, 0] + j)
                for j, s in ((0, -1), (1, 1)))
  assert scalars["log_marginal"] == pytest.approx(np.log(density).mean())
  assert scalars["rmse_z"] == pytest.approx(np.sqrt(np.mean((z - x - y) ** 2)))


def test_imputed_treatments_are_scored_where_they_were_hidden(assessed):
  rows, predicted, scalars, arrays = assessed
  hidden = rows["y"] < 0
  prob, truth = np.exp(predicted.log_head[hidden]), rows["y_true"][hidden]
  assert scalars["hidden_accuracy"] == pytest.approx((prob.argmax(axis=1) == truth).mean())
  assert scalars["hidden_cross_entropy"] == pytest.approx(-np.log(prob[np.arange(len(truth)), truth]).mean())
  assert scalars["hidden_brier"] == pytest.approx((((prob - np.eye(2)[truth]) ** 2).sum(axis=1)).mean())
  assert scalars["hidden_cross_entropy_bayes"] == pytest.approx(scalars["hidden_cross_entropy"])
  assert abs(scalars["hidden_cross_entropy"] - 0.506) < 0.04  # the oracle's, and its accuracy below
  assert abs(scalars["hidden_accuracy"] - 0.749) < 0.04 and scalars["hidden_ece"] < 0.06
  assert scalars["recorded_accuracy"] != scalars["hidden_accuracy"]
  counts = arrays["imputed_counts"]
  assert counts.shape == (2, 2, 20) and counts.sum() == hidden.sum() == arrays["calibration_hidden"][0].sum()
  np.testing.assert_array_equal(counts.sum(axis=(1, 2)), np.bincount(truth))
  assert counts[:, 1].sum() / counts.sum() == pytest.approx(scalars["hidden_accuracy"])
  assert counts[:, :, :9].sum() == 0 < counts[:, :, 10:].sum()  # the probability of the imputed class is above one half


def test_outcomes_are_as_spread_as_the_exact_model_says(assessed):
  rows, predicted, scalars, arrays = assessed
  assert abs(scalars["coverage_50"] - 0.5) < 0.05 and abs(scalars["coverage_90"] - 0.9) < 0.03
  assert arrays["pit_counts"].shape == (1, 20) and stats.chisquare(arrays["pit_counts"][0]).pvalue > 1e-4
  narrow, more = evaluate.assess_rows(rows, predicted._replace(sd=predicted.sd / 2), FACTS)
  assert narrow["coverage_90"] == pytest.approx(2 * stats.norm.cdf(1.6448536 / 2) - 1, abs=0.04)
  assert stats.chisquare(more["pit_counts"][0]).pvalue < 1e-6


def test_weighting_balances_the_covariate(assessed):
  rows, predicted, scalars, arrays = assessed
  e = special.expit(rows["x"][:, 0])
  least = np.minimum(e, 1 - e)
  assert scalars["overlap_outside"] == pytest.approx((least < 0.05).mean())
  assert scalars["overlap_min"] == pytest.approx(least.min())
  assert scalars["overlap_q05"] == pytest.approx(np.quantile(least, 0.05))
  assert scalars["smd_before_max"] == pytest.approx(2 * 0.41324193 / np.sqrt(1 - 0.41324193 ** 2), abs=0.08)
  assert scalars["smd_after_max"] < 0.1 and arrays["smd_after"].shape == (1, 1)
  assert scalars["ess_min"] == min(scalars["ess_arm/none"], scalars["ess_arm/drug"])
  assert scalars["ess_min"] == pytest.approx(4000 / (1 + np.exp(0.5)), rel=0.1)  # N / E[1 / e(x)]
  assert arrays["propensity_counts"][1, 1].sum() == pytest.approx(arrays["propensity_counts"][0, 1].sum())
  assert arrays["propensity_counts"].sum() == pytest.approx(2 * 4000)


def test_errors_of_a_wrong_model_are_told():
  rows, predicted = exact(500, 1)
  wrong = predicted.mean.copy()
  wrong[:, 1, 0] += 0.5 + 0.3 * np.sign(rows["x"][:, 0])
  head = np.log(np.full_like(predicted.log_head, 0.5))
  scalars, _ = evaluate.assess_rows(rows, predicted._replace(mean=wrong, log_head=head), FACTS)
  sign = np.sign(rows["x"][:, 0])
  assert scalars["cate_bias"] == pytest.approx(0.5 + 0.3 * sign.mean())
  assert scalars["cate_rmse"] == pytest.approx(np.sqrt(np.mean((0.5 + 0.3 * sign) ** 2)))
  assert scalars["ate"] == pytest.approx(1.5 + 0.3 * sign.mean()) and scalars["ate_truth"] == pytest.approx(1)
  p = np.exp(predicted.log_posterior)
  assert scalars["consistency_gap"] == pytest.approx((np.log(2) + (p * np.log(p)).sum(axis=1)).mean())
  assert scalars["hidden_cross_entropy"] == pytest.approx(np.log(2))


def test_classes_and_outcomes_beyond_the_first_are_named():
  rows, predicted = exact(800, 2, 3)
  both = lambda one: np.concatenate([one, 10 * one], axis=2)
  rows |= {"z": np.concatenate([rows["z"], 10 * rows["z"]], axis=1), "mean_true": both(rows["mean_true"])}
  predicted = predicted._replace(mean=both(predicted.mean), sd=both(predicted.sd))
  facts = FACTS | {"class_names": ["none", "drug", "knife"], "outcomes": ["pain", "cost"]}
  scalars, arrays = evaluate.assess_rows(rows, predicted, facts)
  for name, value in (("ate", 1), ("ate/knife", 2), ("ate/cost", 10), ("ate/knife/cost", 20)):
    assert scalars[name] == pytest.approx(value) and scalars[name.replace("ate", "ate_truth")] == pytest.approx(value)
  assert scalars["ate_aipw/cost"] == pytest.approx(10 * scalars["ate_aipw"], rel=1e-4)
  assert scalars["ate_aipw_ci95/knife"] > 0 and scalars["rmse_z/cost"] == pytest.approx(10 * scalars["rmse_z"])
  assert arrays["smd_before"].shape == (2, 1) and arrays["sample_cate"].shape == (800, 2)
  assert arrays["propensity_counts"].shape == (3, 3, 20) and arrays["pit_counts"].shape == (2, 20)
  assert "ate/drug" not in scalars


def test_user_rows_without_truth_and_all_recorded():
  rows, predicted = exact(300, 3, hidden=0.0)
  del rows["y_true"], rows["mean_true"]
  scalars, arrays = evaluate.assess_rows(rows | {"group": np.repeat(["a", "b"], 150)}, predicted, FACTS)
  assert not [name for name in scalars if "truth" in name or name.startswith(("hidden", "cate_rmse"))]
  assert "imputed_counts" not in arrays and "sample_cate_true" not in arrays and scalars["rows_recorded"] == 300
  rows["y"] = np.where(np.arange(300) < 100, rows["y"], -1)
  scalars, arrays = evaluate.assess_rows(rows, predicted, FACTS)
  assert "hidden_accuracy" not in scalars and arrays["imputed_counts"].shape == (2, 1, 20)
  assert arrays["imputed_counts"].sum() == 200


def test_nothing_recorded_leaves_the_model_alone():
  """A likelihood needs the treatment: recorded, or known of a simulated row."""
  rows, predicted = exact(100, 4, hidden=1.1)
  known = np.mean(predicted.log_lik[np.arange(100), rows["y_true"].astype(int)])
  assert evaluate.assess_rows(rows, predicted, FACTS)[0]["log_likelihood"] == pytest.approx(known)
  del rows["y_true"], rows["mean_true"]
  scalars, _ = evaluate.assess_rows(rows, predicted, FACTS)
  assert scalars["rows_recorded"] == 0 and scalars["ate"] == pytest.approx(1) and "log_likelihood" not in scalars
  assert np.isnan(scalars["ate_aipw"]) and np.isnan(scalars["ate_unadjusted"]) and "e_value" not in scalars


def test_instruments_and_optional_heads():
  rows, predicted = exact(600, 5)
  w = np.random.default_rng(6).normal(size=(600, 1)) + 2 * rows["y_true"][:, None]
  log_x = np.random.default_rng(7).normal(size=(600, 2))
  scalars, _ = evaluate.assess_rows(rows | {"w": w}, predicted._replace(log_x=log_x, log_w=np.arange(600.0)), FACTS)
  seen = rows["y"] >= 0
  assert scalars["log_x_given_yz"] == pytest.approx(log_x[seen, rows["y"][seen]].mean())
  assert scalars["log_w_given_x"] == pytest.approx(299.5)
  assert scalars["weak_instrument"] == 0 < 10 < scalars["first_stage_f"]
  assert scalars["ate_2sls_low"] < scalars["ate_2sls"] < scalars["ate_2sls_high"]
  weak, _ = evaluate.assess_rows(rows | {"w": np.random.default_rng(8).normal(size=(600, 1))}, predicted, FACTS)
  assert weak["weak_instrument"] == 1 and weak["first_stage_f"] < 10


def test_every_scalar_is_described(assessed):
  _, _, scalars, _ = assessed
  known = lambda name: any(fnmatch.fnmatchcase(name, pattern) for pattern in evaluate.METRICS)
  assert not [name for name in scalars if not known(name.partition("/")[0]) and not name.endswith("_ci95")]
  assert len(evaluate.KEYS) >= 6 and {f"{name}_ci95" for name in ("ate", "ate_aipw", "log_likelihood",
                                                                 "hidden_cross_entropy")} <= set(scalars)


def test_e_value_of_published_risk_ratio():
  assert diagnostics.e_value(np.log(3.9) / 0.91, 1.0) == pytest.approx(7.26, abs=0.005)  # of VanderWeele & Ding 2017
  assert diagnostics.e_value(-2 * np.log(3.9) / 0.91, 2.0) == pytest.approx(7.26, abs=0.005)
  assert diagnostics.e_value(0.0, 1.0) == 1 and np.isfinite(diagnostics.e_value(1e9, 1.0))
  limit = diagnostics.e_value_of_limit
  assert limit(effects.Estimate(1, -0.1, 2.1), 1.0) == 1
  assert limit(effects.Estimate(-2, -3, -1), 1.0) == diagnostics.e_value(1, 1.0)


def test_e_value_takes_the_deviation_within_groups(assessed):
  rows, _, scalars, _ = assessed
  seen = rows["y"] >= 0
  y, z = rows["y"][seen], rows["z"][seen, 0]
  deviation = np.sqrt(sum(((z[y == j] - z[y == j].mean()) ** 2).sum() for j in (0, 1)) / (len(y) - 2))
  assert scalars["e_value"] == pytest.approx(diagnostics.e_value(scalars["ate"], deviation))
  assert scalars["e_value_limit"] < scalars["e_value"]


def test_balance_by_hand_and_of_a_constant():
  x = np.array([[0.0, 5], [2, 5], [3, 5], [5, 5]])
  q = np.eye(2)[[0, 0, 1, 1]]
  log_prior = np.log(np.array([[0.5, 0.5], [0.25, 0.75], [0.75, 0.25], [0.5, 0.5]]))
  before, after = diagnostics.balance(x, log_prior, q)
  assert before[0, 0] == pytest.approx(3) and np.isnan([before[0, 1], after[0, 1]]).all()
  control, treated = (2 * 0 + 4 * 2) / 6, (4 * 3 + 2 * 5) / 6
  assert after[0, 0] == pytest.approx(treated - control)
  assert effects.effective_size(np.array([2.0, 4.0, 0.0])) == pytest.approx(36 / 20)


def test_sure_and_certain_probabilities_stay_numbers():
  log_p = np.log(np.array([[1.0, 1e-300], [0.5, 0.5]]))
  log_p[0] = [0, -np.inf]
  assert diagnostics.kl_divergence(log_p, np.log([[0.5, 0.5], [0.5, 0.5]])) == pytest.approx(np.log(2) / 2)
