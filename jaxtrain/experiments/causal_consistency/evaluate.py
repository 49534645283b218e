"""Assessment of a joint model of covariates, treatments and outcomes on held-out rows: effects, likelihoods, imputed
treatments, calibration, diagnostics.

`assess_rows` takes plain arrays in raw units and returns scalars and arrays; it loads no model. Effects are each class
against class 0. Names without an ending are of class 1 and the first outcome; other classes and outcomes follow after a
slash: `ate/<class>`, `ate/<outcome>`, `ate/<class>/<outcome>`.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

from jaxtrain import statistics
from jaxtrain.experiments.causal_consistency import diagnostics, effects
from jaxtrain.types import Metric

SAMPLE, SAMPLE_SEED = 2000, 0  # rows kept for figures
UNIT = "units of the outcome"
METRICS = {
    "ate": Metric(UNIT, "of class 1 against class 0, the model's means averaged over rows; the interval leaves out the "
                  "model's own error", key=True, words="average effect, by the model"),
    "ate_aipw": Metric(UNIT, "the same by cross-fitted doubly robust regression, without the model", key=True,
                       words="average effect, doubly robust"),
    "ate_unadjusted": Metric(UNIT, "no effect where covariates drive both", key=True,
                             words="difference of group means"),
    "ate_2sls": Metric(UNIT, "effect by the instrument, two-stage least squares", key=True,
                       words="average effect, by the instrument"),
    "hidden_cross_entropy": Metric("nats", "mean -log p(y|x,z) of treatments that were hidden", "lower", key=True),
    "cate_rmse": Metric(UNIT, "root mean squared error of the effect of a row", "lower", key=True),
    "log_likelihood": Metric("nats", "mean log p(z|x,y) of an outcome of a row whose y is known", "higher", key=True),
    "e_value": Metric("risk ratio", "strength that a hidden confounder needs to explain the effect away"),
    "rows": Metric("rows", "rows that were assessed"),
    "rows_recorded": Metric("rows", "assessed rows whose treatment is recorded"),
    "ate_aipw_model": Metric(UNIT, "average effect, doubly robust with the model's own nuisances"),
    "ate_truth": Metric(UNIT, "true average effect over these rows"),
    "att": Metric(UNIT, "average effect on the rows of the class"),
    "atc": Metric(UNIT, "average effect on the rows of the control"),
    "att_*": Metric(UNIT, "average effect on the rows of the class, by another estimator, or its truth or interval"),
    "atc_*": Metric(UNIT, "average effect on the rows of the control, likewise"),
    "ate_*": Metric(UNIT, "end of an interval of an average effect"),
    "cate_bias": Metric(UNIT, "mean error of the effect of a row"),
    "cate_sd": Metric(UNIT, "spread of the estimated effect over rows"),
    "first_stage_f": Metric("", "robust F of the instruments; below 10 they are weak", "higher"),
    "weak_instrument": Metric("", "1 where the instruments are too weak for their interval to be trusted", "lower"),
    "e_value_limit": Metric("risk ratio", "E-value of the end of the interval that is nearer to no effect"),
    "log_marginal": Metric("nats", "mean log p(z|x) of an outcome, over all rows", "higher"),
    "log_lik_y_given_xz": Metric("nats", "mean log p(y|x,z) of the amortised head on recorded rows", "higher"),
    "log_lik_y_given_x": Metric("nats", "mean log p(y|x) on recorded rows", "higher"),
    "log_x_given_yz": Metric("nats", "mean log p(x|y,z) of the covariates of a recorded row", "higher"),
    "log_w_given_x": Metric("nats", "mean log p(w|x) of the instruments of a row", "higher"),
    "rmse_z": Metric(UNIT, "root mean squared error of the outcome of a recorded row", "lower"),
    "coverage_50": Metric("", "share of outcomes within the model's 50 % interval; 0.5 where it is calibrated",
                          limits=(0, 1)),
    "coverage_90": Metric("", "share of outcomes within the model's 90 % interval; 0.9 where it is calibrated",
                          limits=(0, 1)),
    "consistency_gap": Metric("nats", "KL of the head p(y|x,z) from the Bayes posterior of the joint", "lower"),
    "overlap_outside": Metric("", "share of rows with a propensity below 0.05: little to compare with", "lower",
                              limits=(0, 1)),
    "overlap_*": Metric("", "propensity of a row's least probable class: the smallest, or a quantile over rows",
                        limits=(0, 1)),
    "ess_*": Metric("rows", "effective number of rows after weighting", "higher"),
    "smd_before_max": Metric("standard deviations", "largest difference of a covariate between classes"),
    "smd_after_max": Metric("standard deviations", "the same after weighting; below 0.1 is balanced", "lower"),
    "*_accuracy": Metric("", "share of rows whose imputed treatment is right", "higher", limits=(0, 1)),
    "*_cross_entropy*": Metric("nats", "mean -log probability of the true treatment", "lower"),
    "*_brier": Metric("", "squared error of the probabilities of treatments, summed over classes", "lower"),
    "*_ece": Metric("", "expected calibration error of imputed treatments", "lower"),
}
# whose half widths are scalars too; the last is made by `evaluate_estimators`
KEYS = (*(name for name, metric in METRICS.items() if metric.key), "ate_triply_robust")


class Predicted(NamedTuple):
  """What a model says of N rows, float64 in raw units.

  Attributes:
    mean, sd: [N, C, Z], of the outcomes under each class.
    log_prior: [N, C], log p(y|x).
    log_lik: [N, C], log p(z|x,y), summed over outcomes.
    log_posterior: [N, C], the Bayes posterior of the joint given (x, z).
    log_head: [N, C], the amortised p(y|x,z).
    log_x: [N, C], log p(x|y,z), summed over covariates; None where there is no such head.
    log_w: [N], log p(w|x), summed over instruments; None likewise.
  """
  mean: np.ndarray
  sd: np.ndarray
  log_prior: np.ndarray
  log_lik: np.ndarray
  log_posterior: np.ndarray
  log_head: np.ndarray
  log_x: np.ndarray | None = None
  log_w: np.ndarray | None = None


def ending(facts: dict, j: int, k: int) -> str:
  """What follows the name of a scalar of class j and outcome k."""
  names = [facts["class_names"][j]] * (j > 1) + [facts["outcomes"][k]] * (k > 0)
  return "".join(f"/{name}" for name in names)


def named(facts: dict, name: str, k: int, estimates: tuple[effects.Estimate, ...]) -> dict[str, float]:
  """Scalars of the estimates of classes 1 .. C-1 for outcome k, with their intervals."""
  found = {}
  for j, one in enumerate(estimates, 1):
    end = ending(facts, j, k)
    found |= {f"{name}{end}": one.value, f"{name}_low{end}": one.low, f"{name}_high{end}": one.high}
    if name in KEYS:
      found[f"{name}_ci95{end}"] = (one.high - one.low) / 2
  return found


def effect_scalars(rows: dict, predicted: Predicted, q: np.ndarray, facts: dict, k: int,
                   draws: np.ndarray | None) -> dict[str, float]:
  """Effects on outcome k by every estimator, and how strong a hidden confounder would have to be."""
  y, z, C = rows["y"], rows["z"][:, k], q.shape[1]
  fitted = effects.aipw(rows["x"], y, z, C)
  robust = effects.aipw_with(predicted.mean[:, :, k], predicted.log_prior, q, z)
  own = effects.plug_in(robust, predicted.mean[:, :, k], q)
  if draws is not None:
    own = own._replace(ate=tuple(effects.of_draws(draws[:, j, k]) for j in range(1, C)))
  found = {}
  for target in ("ate", "att", "atc"):
    found |= named(facts, target, k, getattr(own, target))
    found |= named(facts, f"{target}_aipw", k, getattr(fitted.effects, target))
    found |= named(facts, f"{target}_aipw_model", k, getattr(robust, target))
  found |= named(facts, "ate_unadjusted", k, effects.unadjusted(y, z, C))
  if "w" in rows and C == 2:  # more classes are more than one treatment to instrument
    found |= instrument_scalars(rows, fitted.weight, facts, k)
  deviation = diagnostics.deviation_within(y, z, C)
  for j, one in enumerate(own.ate, 1):
    if deviation > 0:
      found[f"e_value{ending(facts, j, k)}"] = diagnostics.e_value(one.value, deviation)
      found[f"e_value_limit{ending(facts, j, k)}"] = diagnostics.e_value_of_limit(one, deviation)
  if k == 0:
    found["ess_recorded"] = effects.effective_size(fitted.weight)
  return found


def instrument_scalars(rows: dict, weight: np.ndarray, facts: dict, k: int) -> dict[str, float]:
  """Two-stage least squares of outcome k on the recorded treatment."""
  seen = rows["y"] >= 0
  w, x, z = (rows[name][seen] for name in ("w", "x", "z"))
  stage = effects.two_stage_least_squares(w, rows["y"][seen].astype(float), z[:, k], x, weight[seen])
  end = ending(facts, 1, k)
  return named(facts, "ate_2sls", k, (stage.effect,)) | {f"first_stage_f{end}": stage.first_stage_f,
                                                         f"weak_instrument{end}": float(stage.is_weak)}


def truth_scalars(rows: dict, predicted: Predicted, facts: dict, k: int) -> dict[str, float]:
  """True effects on outcome k over these rows, and how far the model's effect of each row is from the truth."""
  true = rows["mean_true"][:, 1:, k] - rows["mean_true"][:, :1, k]
  error = predicted.mean[:, 1:, k] - predicted.mean[:, :1, k] - true
  found = {}
  for j in range(1, true.shape[1] + 1):
    end, effect = ending(facts, j, k), true[:, j - 1]
    found[f"ate_truth{end}"] = float(effect.mean())
    for name, group in (("att", j), ("atc", 0)):
      if (rows["y_true"] == group).any():
        found[f"{name}_truth{end}"] = float(effect[rows["y_true"] == group].mean())
    found[f"cate_rmse{end}"] = float(np.sqrt(np.square(error[:, j - 1]).mean()))
    found[f"cate_bias{end}"] = float(error[:, j - 1].mean())
  return found


def likelihood_scalars(rows: dict, predicted: Predicted, facts: dict) -> dict[str, float]:
  """Mean log probabilities that the model gives to what was recorded (`log_likelihood`: to all rows where their true
  treatment is known), errors of outcomes, and the consistency gap.
  """
  seen, Z = rows["y"] >= 0, rows["z"].shape[1]
  own = lambda log_prob: log_prob[seen, rows["y"][seen]]
  marginal = special.logsumexp(predicted.log_prior + predicted.log_lik, axis=1)
  found = {"log_marginal": float(marginal.mean() / Z),
           "consistency_gap": diagnostics.kl_divergence(predicted.log_posterior, predicted.log_head)}
  if predicted.log_w is not None:
    found["log_w_given_x"] = float(predicted.log_w.mean())
  if "y_true" in rows:
    likelihood = predicted.log_lik[np.arange(len(seen)), rows["y_true"]] / Z
  else:
    likelihood = own(predicted.log_lik) / Z
  if likelihood.size:
    found |= {"log_likelihood": float(likelihood.mean()), "log_likelihood_ci95": statistics.t_half_width(likelihood)}
  if seen.any():
    found |= {"log_lik_y_given_xz": float(own(predicted.log_head).mean()),
              "log_lik_y_given_x": float(own(predicted.log_prior).mean())}
    error = np.square(rows["z"][seen] - own(predicted.mean))
    found |= {f"rmse_z{ending(facts, 1, k)}": float(np.sqrt(error[:, k].mean())) for k in range(Z)}
    if predicted.log_x is not None:
      found["log_x_given_yz"] = float(own(predicted.log_x).mean())
  return found


def imputation(rows: dict, predicted: Predicted) -> tuple[dict, dict]:
  """Scores of the imputed treatment p(y|x,z), of the head, on rows where it was recorded and where it was hidden but is
  known; on the latter also the cross-entropy of the Bayes posterior.

  The array `imputed_counts` counts hidden rows by the probability of the imputed class: [C, 2, bins], by true class
  and whether it is right, or [C, 1, bins] by imputed class where the truth is not known.
  """
  log_prob, seen, C = predicted.log_head, rows["y"] >= 0, predicted.log_head.shape[1]
  known = "y_true" in rows
  scalars, arrays = {}, {}
  for part, at, label in (("recorded", seen, rows["y"]), ("hidden", ~seen, rows["y_true"] if known else None)):
    if label is not None and at.any():
      scores, arrays[f"calibration_{part}"] = diagnostics.class_scores(log_prob[at], label[at])
      scalars |= {f"{part}_{name}": value for name, value in scores.items()}
  if seen.all():
    return scalars, arrays
  hidden, guess = log_prob[~seen], log_prob[~seen].argmax(axis=1)
  place = np.minimum((np.exp(hidden.max(axis=1)) * diagnostics.NUM_BINS).astype(int), diagnostics.NUM_BINS - 1)
  group = rows["y_true"][~seen] if known else guess
  counts = np.zeros((C, 2 if known else 1, diagnostics.NUM_BINS), np.int64)
  np.add.at(counts, (group, (guess == group).astype(int) if known else 0, place), 1)
  arrays["imputed_counts"] = counts
  if known:
    scalars["hidden_cross_entropy_bayes"] = float(-predicted.log_posterior[~seen][np.arange(len(group)), group].mean())
  return scalars, arrays


def weighting(rows: dict, predicted: Predicted, q: np.ndarray, facts: dict) -> tuple[dict, dict]:
  """Overlap, effective rows and balance of covariates by the model's propensity, as scalars and arrays."""
  before, after = diagnostics.balance(rows["x"], predicted.log_prior, q)
  size = diagnostics.arm_sizes(predicted.log_prior, q).tolist()
  scalars = diagnostics.overlap(predicted.log_prior) | {"ess_min": min(size)}
  scalars |= {f"ess_arm/{name}": one for name, one in zip(facts["class_names"], size)}
  for name, table in (("smd_before_max", before), ("smd_after_max", after)):
    if np.isfinite(table).any():
      scalars[name] = float(np.nanmax(np.abs(table)))
  return scalars, {"propensity_counts": diagnostics.propensity_counts(predicted.log_prior, q), "smd_before": before,
                   "smd_after": after}


def assess_rows(rows: dict, predicted: Predicted, facts: dict,
                draws: np.ndarray | None = None) -> tuple[dict[str, float], dict[str, np.ndarray]]:
  """Scalars and arrays of held-out rows.

  Args:
    rows: x [N, D], y [N] (-1 = hidden), z [N, Z], w [N, W] where there are instruments; and where the truth is known,
      y_true [N] and mean_true [N, C, Z] = E[z | x, do(y)]. `group` [N], what rows depend through, is not looked at.
    predicted: what the model says of them.
    facts: covariates, outcomes, instruments and class_names.
    draws: [S, C, Z] average effects against class 0 for draws from a posterior of the model's parameters, whose mean
      and quantiles are then the model's average effect and its interval; None where there is no posterior.
  """
  rows = {name: np.asarray(value, np.int64 if name in ("y", "y_true") else np.float64) for name, value in rows.items()
          if name != "group"}
  seen = rows["y"] >= 0
  q = effects.responsibilities(rows["y"], predicted.log_posterior)
  scalars: dict[str, float] = {"rows": len(seen), "rows_recorded": int(seen.sum())}
  cate = predicted.mean[:, 1:] - predicted.mean[:, :1]
  for k in range(rows["z"].shape[1]):
    scalars |= effect_scalars(rows, predicted, q, facts, k, draws)
    scalars |= truth_scalars(rows, predicted, facts, k) if "mean_true" in rows else {}
    scalars |= {f"cate_sd{ending(facts, j, k)}": float(cate[:, j - 1, k].std()) for j in range(1, q.shape[1])}
  scalars |= likelihood_scalars(rows, predicted, facts)
  imputed, arrays = imputation(rows, predicted)
  weighted, more = weighting(rows, predicted, q, facts)
  scalars, arrays = scalars | imputed | weighted, arrays | more
  if seen.any():
    at = (np.flatnonzero(seen), rows["y"][seen])
    coverage, arrays["pit_counts"] = diagnostics.normal_calibration(rows["z"][seen], predicted.mean[at],
                                                                    predicted.sd[at])
    scalars |= coverage
  pick = np.sort(np.random.default_rng(SAMPLE_SEED).permutation(len(seen))[:SAMPLE])
  arrays["sample_cate"] = cate[pick, :, 0]
  if draws is not None:
    arrays["effect_draws"] = draws
  if "mean_true" in rows:
    arrays["sample_cate_true"] = (rows["mean_true"][:, 1:] - rows["mean_true"][:, :1])[pick, :, 0]
  return scalars, arrays
