"""What tells whether an estimated effect can be trusted: overlap, weights, balance, calibration, hidden confounding.

Everything is in float64 from plain arrays; q [N, C] says how much a row counts as one of a class (see `effects.py`).

**Source:** standardised mean differences and their use after weighting: Austin & Stuart 2015; probability integral
transform: Dawid 1984; E-value: VanderWeele & Ding, Sensitivity analysis in observational research, 2017.
"""

import numpy as np
from scipy import special

from jaxtrain import statistics
from jaxtrain.experiments.causal_consistency import effects

LOW_PROPENSITY = 0.05  # below it a class has few rows to compare with
QUANTILES = (0.01, 0.05, 0.5)
NUM_BINS = 20
RISK_RATIO_PER_SD = 0.91  # log risk ratio of an effect of one standard deviation (VanderWeele & Ding 2017)


def overlap(log_prior: np.ndarray) -> dict[str, float]:
  """How far the classes share the covariates, from log_prior [N, C]: quantiles over rows of the propensity of the least
  probable class, the smallest of all, and the share of rows with one below LOW_PROPENSITY (of two classes: outside
  0.05 to 0.95).
  """
  least = np.exp(log_prior).min(axis=1)
  found = {f"overlap_q{round(100 * at):02d}": float(np.quantile(least, at)) for at in QUANTILES}
  return {"overlap_outside": float((least < LOW_PROPENSITY).mean()), "overlap_min": float(least.min())} | found


def inverse_weights(log_prior: np.ndarray, q: np.ndarray) -> np.ndarray:
  """Inverse-propensity weights [N, C] of rows as members of each class."""
  return q / np.maximum(np.exp(log_prior), effects.least_propensity(effects.effective_size(q.sum(axis=1))))


def arm_sizes(log_prior: np.ndarray, q: np.ndarray) -> np.ndarray:
  """Effective number of rows of each class [C] after inverse-propensity weighting: Kish's, where a row that is one of a
  class with probability q adds q times the squared weight of one that is.
  """
  weight = inverse_weights(log_prior, np.ones_like(q))
  return (q * weight).sum(axis=0) ** 2 / np.maximum((q * weight ** 2).sum(axis=0), 1e-300)


def propensity_counts(log_prior: np.ndarray, q: np.ndarray) -> np.ndarray:
  """Rows by their propensity of a class (first axis), of those that are of a class (second), in equal bins of it:
  [C, C, NUM_BINS], each row counted as q says.
  """
  place = np.minimum((np.exp(log_prior) * NUM_BINS).astype(int), NUM_BINS - 1)
  C = q.shape[1]
  return np.array([[np.bincount(place[:, a], q[:, b], NUM_BINS) for b in range(C)] for a in range(C)])


def balance(x: np.ndarray, log_prior: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Standardised mean differences of covariates x [N, D] of each class from the control, before and after inverse-
  propensity weighting: [C-1, D] each.

  Both are in units of the root of the mean variance of the two groups before weighting; NaN for a covariate that is
  constant in both, or for a class without rows.
  """
  def moments(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    total = weight.sum(axis=0)[:, None]
    share = np.divide(weight.T, total, out=np.full((weight.shape[1], len(x)), np.nan), where=total > 0)
    mean = share @ x
    return mean, np.maximum(share @ x ** 2 - mean ** 2, 0)

  x = x - x.mean(axis=0)
  raw, variance = moments(q)
  weighted, _ = moments(inverse_weights(log_prior, q))
  unit = np.sqrt((variance[1:] + variance[:1]) / 2)
  unit[~(unit > 1e-12 * np.maximum(np.abs(x).max(axis=0), 1e-300))] = np.nan
  return (raw[1:] - raw[:1]) / unit, (weighted[1:] - weighted[:1]) / unit


def normal_calibration(z: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
  """Coverage of central 50 and 90 % intervals of a Normal for outcomes z [N, Z], and the rows of each outcome by the
  probability that the model gives to smaller values, in equal bins: [Z, NUM_BINS], all alike where it is calibrated.
  """
  below = special.ndtr((z - mean) / sd)
  away = np.abs(below - 0.5)
  place = np.minimum((below * NUM_BINS).astype(int), NUM_BINS - 1)
  counts = np.array([np.bincount(column, minlength=NUM_BINS) for column in place.T])
  return {"coverage_50": float((away <= 0.25).mean()), "coverage_90": float((away <= 0.45).mean())}, counts


def class_scores(log_prob: np.ndarray, label: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
  """Accuracy, cross-entropy in nats with half its interval, Brier score (summed over classes) and expected calibration
  error of class probabilities [N, C] for true labels [N], and the bins of `statistics.calibration`.
  """
  own = log_prob[np.arange(len(label)), label]
  one_hot = np.arange(log_prob.shape[1]) == label[:, None]
  ece, bins = statistics.calibration(log_prob, label)
  return {"accuracy": float((log_prob.argmax(axis=1) == label).mean()), "cross_entropy": float(-own.mean()),
          "cross_entropy_ci95": statistics.t_half_width(own),
          "brier": float(((np.exp(log_prob) - one_hot) ** 2).sum(axis=1).mean()), "ece": ece}, bins


def kl_divergence(log_p: np.ndarray, log_q: np.ndarray) -> float:
  """Mean over rows of KL(p || q) in nats, of log probabilities [N, C]."""
  p = np.exp(log_p)
  return float((p * np.subtract(log_p, log_q, out=np.zeros_like(p), where=p > 0)).sum(axis=1).mean())


def e_value(effect: float, deviation: float) -> float:
  """How strong a hidden confounder must be to explain an effect away, as a risk ratio.

  It would have to be associated with both the treatment and the outcome by risk ratios of this size, beyond the
  covariates; 1 means that none is needed. The effect is put in standard deviations of the outcome within the classes,
  and these into a risk ratio of 0.91 in its logarithm for one.
  """
  ratio = np.exp(min(RISK_RATIO_PER_SD * abs(effect) / deviation, 700.0))
  return float(ratio * (1 + np.sqrt(1 - 1 / ratio)))  # ratio + sqrt(ratio (ratio - 1))


def e_value_of_limit(estimate: effects.Estimate, deviation: float) -> float:
  """The E-value of the end of an interval that is nearer to no effect: 1 where the interval holds none."""
  if estimate.low <= 0 <= estimate.high:
    return 1.0
  return e_value(min(abs(estimate.low), abs(estimate.high)), deviation)


def deviation_within(y: np.ndarray, z: np.ndarray, num_classes: int) -> float:
  """Standard deviation of an outcome [N] within the recorded classes, pooled; NaN for fewer than two rows."""
  arms = [z[y == j] for j in range(num_classes) if (y == j).any()]
  degrees = sum(len(arm) - 1 for arm in arms)
  return float(np.sqrt(sum(((arm - arm.mean()) ** 2).sum() for arm in arms) / degrees)) if degrees > 0 else float("nan")
