"""What several models are compared by: what a linear classifier reads off the latent space, how tight classes lie.

The classifier is fitted to latent means of the training part and scored on another part. Where there is no other, it is
fitted to the rows of one half of the groups (of the rows, where there are no groups) and scored on the other half.

**Source:** linear discriminant analysis: Fisher 1936, with Gaussian classes of one covariance (Hastie, Tibshirani &
Friedman 2009, section 4.3), shrunk by a thousandth of its mean variance. Distances to the own centroid, over a fifth of
the classes: the figure `zeroshot` of the release of the lithology VAE, which holds them out of nothing but the figure.
"""

import numpy as np

from jaxtrain.experiments.tabular_vae import scores

SHRINKAGE = 1e-3
HELD_SHARE, HELD_SEED, HELD_ROWS = 0.2, 42, 2  # share of the classes; rows that a class must have


def fit_discriminant(mean: np.ndarray, label: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
  """Weights [L, K] and biases [K] whose sum with x @ weights is the log-probability of each class but for a constant.

  Args:
    mean: [N, L] float64. label: [N], of rows that have one; a class without rows has the bias -inf.
  """
  count = np.bincount(label, minlength=num_classes)
  sums = np.stack([np.bincount(label, column, num_classes) for column in mean.T], axis=1)
  centroid = sums / np.maximum(count, 1)[:, None]
  within = mean - centroid[label]
  covariance = within.T @ within / max(len(mean) - (count > 0).sum(), 1)
  covariance += SHRINKAGE * max(np.trace(covariance) / len(covariance), 1e-12) * np.eye(len(covariance))
  weights = np.linalg.solve(covariance, centroid.T)
  prior = np.log(np.maximum(count, 1) / len(mean))
  return weights, np.where(count > 0, prior - 0.5 * (centroid * weights.T).sum(axis=1), -np.inf)


def halves(rows: dict[str, np.ndarray]) -> tuple[np.ndarray, bool]:
  """Which rows belong to the first half [N], and whether whole groups do."""
  units = rows["group"] if "group" in rows else np.arange(len(rows["label"]))
  names, index = np.unique(units, return_inverse=True)
  first = np.zeros(len(names), bool)
  first[np.random.default_rng(HELD_SEED).permutation(len(names))[:len(names) // 2]] = True
  return first[index], "group" in rows


def probe(fitted: tuple[np.ndarray, np.ndarray], scored: tuple[np.ndarray, np.ndarray], num_classes: int
          ) -> dict[str, np.ndarray]:
  """ROC curves of a linear classifier for the most frequent classes of the rows that it is scored on.

  Args:
    fitted, scored: latent means [N, L] and labels [N], those of rows without a label -1.

  Returns:
    `probe_class` [n], `probe_auc` [n], `probe_fpr` [G], `probe_tpr` [n, G] at these false positive rates, `probe_rows`
    [2]: labelled rows that it was fitted to and scored on; {} where no class can be scored.
  """
  (x, label), (x_new, label_new) = ((mean[label >= 0].astype(np.float64), label[label >= 0])
                                    for mean, label in (fitted, scored))
  known = np.bincount(label, minlength=num_classes) > 0
  top = [k for k in scores.most_frequent(label_new, num_classes, num_classes) if known[k]][:scores.ROC_CLASSES]
  finite = np.isfinite(x).all() and np.isfinite(x_new).all()
  if not top or (label_new == top[0]).all() or not finite:
    return {}
  weights, bias = fit_discriminant(x, label, num_classes)
  logit = x_new @ weights + bias
  logit -= logit.max(axis=1, keepdims=True)
  prob = np.exp(logit[:, top]) / np.exp(logit).sum(axis=1, keepdims=True)
  place = np.full(num_classes, -1)
  place[top] = np.arange(len(top))
  own = place[label_new]
  return {"probe_class": np.array(top, np.int64), "probe_auc": scores.one_vs_rest_auc(prob, own),
          "probe_fpr": scores.ROC_GRID,
          "probe_tpr": np.stack([scores.roc_curve(prob[:, j], own == j) for j in range(len(top))]),
          "probe_rows": np.array([len(x), len(x_new)], np.int64)}


def held_out(mean: np.ndarray, label: np.ndarray, num_classes: int) -> dict[str, np.ndarray]:
  """How tight the rows of some classes lie, drawn once for all runs of a table.

  Args:
    mean: latent means [N, L]. label: [N], -1 where a row has none.

  Returns:
    `held_class` and `held_rows` [n]; `held_own` [n]: mean distance of the rows to their centroid; `held_all` []: mean
    distance of all labelled rows to theirs. {} where too few classes have rows.
  """
  mean, label = mean[label >= 0].astype(np.float64), label[label >= 0]
  count = np.bincount(label, minlength=num_classes)
  there = np.flatnonzero(count >= HELD_ROWS)
  number = round(HELD_SHARE * len(there))
  if not number or not np.isfinite(mean).all():
    return {}
  held = np.sort(np.random.default_rng(HELD_SEED).permutation(there)[:number])
  spread = lambda rows: np.linalg.norm(rows - rows.mean(axis=0), axis=1).mean()
  return {"held_class": held, "held_rows": count[held], "held_all": spread(mean),
          "held_own": np.array([spread(mean[label == k]) for k in held])}


def arrays(latent, rows: dict[str, np.ndarray], training: dict[str, np.ndarray] | None, num_classes: int
           ) -> dict[str, np.ndarray]:
  """Arrays of a part for the comparison of models.

  Args:
    latent: `x [N, D] -> latent means [N, L]`.
    rows: of the part, with `x`, `label` and perhaps `group`.
    training: those of the training part; None where the part is that.
    num_classes: K.
  """
  mean = latent(rows["x"])
  if training is None:
    first, by_group = halves(rows)
    fitted, scored = ((mean[part], rows["label"][part]) for part in (first, ~first))
  else:
    fitted, scored = (latent(training["x"]), training["label"]), (mean, rows["label"])
    by_group = "group" in rows and not np.isin(rows["group"], training["group"]).any()
  found = probe(fitted, scored, num_classes) | held_out(mean, rows["label"], num_classes)
  return found | ({"probe_by_group": np.array(by_group)} if "probe_rows" in found else {})
