"""Scores and curves of what a tabular VAE has learned, on the host: classes, latent distances, histograms.

**Source:** AUC: Mann-Whitney's U with ties as halves, and its standard error (Hanley & McNeil 1982). UMAP: McInnes,
Healy & Melville 2018, of the package umap-learn.
"""

import numpy as np

from jaxtrain import statistics

ROC_CLASSES, DISTANCE_CLASSES = 10, 20
ROC_GRID = np.linspace(0, 1, 201) ** 2  # false positive rates at which curves are kept, denser near 0
NUM_BINS = 40
UMAP_ROWS, UMAP_NEIGHBOURS, UMAP_MIN_DIST, UMAP_SEED = 5000, 15, 0.1, 42


def most_frequent(label: np.ndarray, num_classes: int, limit: int) -> np.ndarray:
  """Up to `limit` classes that have rows, the most frequent first; equal ones in order."""
  count = np.bincount(label[label >= 0], minlength=num_classes)
  return np.array([k for k in np.argsort(-count, kind="stable")[:limit] if count[k]], np.int64)


def labelled(log_prob: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The rows that have a label, of log_prob [N, K] and label [N]."""
  seen = label >= 0
  return (log_prob, label) if seen.all() else (log_prob[seen], label[seen])


def classification(log_prob: np.ndarray, label: np.ndarray) -> dict[str, float]:
  """Accuracy, top-5, balanced accuracy, macro-F1 and negative log-likelihood in nats over labelled rows.

  Macro-F1 is over classes that are true or predicted somewhere; one without a right prediction counts 0.
  """
  log_prob, label = labelled(log_prob, label)
  if not len(label):
    return {}
  K, pred, own = log_prob.shape[1], log_prob.argmax(axis=1), log_prob[np.arange(len(label)), label]
  right = pred == label
  rank = (log_prob > own[:, None]).sum(axis=1)
  num_true, num_pred = np.bincount(label, minlength=K), np.bincount(pred, minlength=K)
  hits = np.bincount(label, right, K)
  named = num_true + num_pred > 0
  return {"accuracy": float(right.mean()), "accuracy_top5": float((rank < 5).mean()),
          "balanced_accuracy": float((hits[num_true > 0] / num_true[num_true > 0]).mean()),
          "nll_nats": float(-own.mean(dtype=np.float64)),
          "f1_macro": float((2 * hits[named] / (num_true + num_pred)[named]).mean())}


def one_vs_rest_auc(log_prob: np.ndarray, label: np.ndarray) -> np.ndarray:
  """Area under the ROC curve of each class [K] against all others; NaN for one without rows, or with all of them."""
  found = np.full(log_prob.shape[1], np.nan)
  for k in range(len(found)):
    own = np.sort(log_prob[label == k, k])
    P, M = len(own), len(label) - len(own)
    if P and M:
      score = np.sort(log_prob[:, k])  # a copy: a column may be a view of the caller's
      below = np.searchsorted(score, own, "left") + np.searchsorted(score, own, "right")
      found[k] = (below.sum() - float(P) ** 2) / 2 / (P * M)  # less the pairs among the class's own rows
  return found


def roc_curve(score: np.ndarray, positive: np.ndarray) -> np.ndarray:
  """True positive rates at the false positive rates `ROC_GRID`, linear between neighbouring thresholds."""
  order = np.argsort(-score, kind="stable")
  last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)  # of rows that share a score
  hits = positive[order].cumsum()[last]
  tpr, fpr = (np.append(0, counts) / counts[-1] for counts in (hits, last + 1 - hits))
  left = np.minimum(np.searchsorted(fpr, ROC_GRID, "right"), len(fpr) - 1) - 1
  share = (ROC_GRID - fpr[left]) / np.maximum(fpr[left + 1] - fpr[left], 1e-300)
  return tpr[left] + np.clip(share, 0, 1) * (tpr[left + 1] - tpr[left])


def auc_half_widths(auc: np.ndarray, count: np.ndarray) -> np.ndarray:
  """Half the width of the 95 % interval of each class's AUC [K], from the rows of each class: Hanley & McNeil's.

  An AUC of 1 has no spread in their formula; half a wrongly ordered pair is assumed then.
  """
  P, M = count.astype(float), count.sum() - count.astype(float)
  area = np.clip(auc, None, 1 - 0.5 / np.maximum(P * M, 1))
  one, two = area / (2 - area), 2 * area ** 2 / (1 + area)
  var = area * (1 - area) + (P - 1) * (one - area ** 2) + (M - 1) * (two - area ** 2)
  return 1.96 * np.sqrt(np.maximum(var, 0) / np.where(P * M > 0, P * M, np.nan))


def intervals(log_prob: np.ndarray, label: np.ndarray, auc_half: np.ndarray) -> dict[str, float]:
  """Half the widths of 95 % intervals of scores of a classifier, as if labelled rows were independent.

  Accuracy has Wilson's interval. Of classes the right shares are taken as (right + 1) / (rows + 2), so that a class of
  one row is not taken as certain. The mean AUC has the mean of the widths of the classes, which is the most that it can
  be, because classes share their rows.
  """
  log_prob, label = labelled(log_prob, label)
  if len(label) < 2 or np.isnan(log_prob.max()):
    return {}
  n, K, z = len(label), log_prob.shape[1], 1.96
  right = log_prob.argmax(axis=1) == label
  p, count = right.mean(), np.bincount(label, minlength=K)
  there = count > 0
  share = (np.bincount(label, right, K)[there] + 1) / (count[there] + 2)
  widths = auc_half[np.isfinite(auc_half)]
  found = {"accuracy_ci95": float(z / (1 + z ** 2 / n) * np.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)),
           "balanced_accuracy_ci95": float(z * np.sqrt((share * (1 - share) / count[there]).sum()) / there.sum()),
           "nll_nats_ci95": statistics.t_half_width(-log_prob[np.arange(n), label].astype(np.float64))}
  return found | ({"auc_macro_ci95": float(widths.mean())} if len(widths) else {})


def confusion(log_prob: np.ndarray, label: np.ndarray) -> np.ndarray:
  """Rows of each true class (first axis) by the predicted one [K, K]."""
  K = log_prob.shape[1]
  return np.bincount(label * K + log_prob.argmax(axis=1), minlength=K * K).reshape(K, K)


def classifier_curves(log_prob: np.ndarray, label: np.ndarray) -> tuple[dict, dict]:
  """Scalars and arrays of a classifier over labelled rows; both empty where there is none, or a NaN."""
  log_prob, label = labelled(log_prob, label)
  if not len(label) or np.isnan(log_prob.max()):
    return {}, {}
  auc = one_vs_rest_auc(log_prob, label)
  top = [k for k in most_frequent(label, len(auc), ROC_CLASSES) if np.isfinite(auc[k])]
  ece, bins = statistics.calibration(log_prob, label)
  curves = [roc_curve(log_prob[:, k], label == k) for k in top]
  defined = auc[np.isfinite(auc)]
  scalars = {"auc_macro": float(defined.mean()) if len(defined) else float("nan"), "ece": ece}
  half = auc_half_widths(auc, np.bincount(label, minlength=len(auc)))
  return scalars, {"auc": auc, "auc_half": half, "roc_class": np.array(top, np.int64), "roc_fpr": ROC_GRID,
                   "roc_tpr": np.array(curves).reshape(len(top), len(ROC_GRID)), "calibration": bins,
                   "confusion": confusion(log_prob, label),
                   "predicted_count": np.bincount(log_prob.argmax(axis=1), minlength=log_prob.shape[1])}


def class_distances(mean: np.ndarray, label: np.ndarray, num_classes: int) -> dict[str, np.ndarray]:
  """Distances of latent means [N, L] to centroids, of the most frequent classes; {} with fewer than two.

  Returns:
    `distance_class` and `distance_nearest`: a class, and among these classes the one with the nearest centroid to its
    own. `distance_own`, `distance_other`: mean distances of its rows to the centroid of each.
  """
  top = most_frequent(label, num_classes, DISTANCE_CLASSES)
  if len(top) < 2:
    return {}
  rows = [mean[label == k].astype(np.float64) for k in top]
  centroid = np.stack([own.mean(axis=0) for own in rows])
  apart = np.linalg.norm(centroid[:, None] - centroid[None], axis=2)
  nearest = (apart + np.diag(np.full(len(top), np.inf))).argmin(axis=1)
  away = lambda i, j: np.linalg.norm(rows[i] - centroid[j], axis=1).mean()
  return {"distance_class": top, "distance_nearest": top[nearest],
          "distance_own": np.array([away(i, i) for i in range(len(top))]),
          "distance_other": np.array([away(i, j) for i, j in enumerate(nearest)])}


def bin_edges(x: np.ndarray) -> np.ndarray:
  """Edges [D, NUM_BINS + 1] of equal bins for the columns of x [N, D]: all but a thousandth at either end; for a few
  evenly spaced values one bin each, the rest of the bins above them; for a constant a bin of width 1 about it.
  """
  edges = np.empty((x.shape[1], NUM_BINS + 1))
  for d, column in enumerate(x.T.astype(np.float64)):
    column = column[~np.isnan(column)]
    column = column if len(column) else np.zeros(1)
    low, high = column.min(), column.max()
    values = np.unique(np.round((column - low) / max(high - low, 1e-300), 5))
    gap = np.diff(values).min() if len(values) > 1 else 0.0
    if not gap:
      edges[d] = low + np.arange(NUM_BINS + 1) - 0.5
    elif (1 / gap) < NUM_BINS - 1 and np.allclose(values / gap, np.round(values / gap), atol=0.05):
      gap *= high - low
      edges[d] = low + (np.arange(NUM_BINS + 1) - 0.5) * gap
    else:
      low, high = np.quantile(column, (0.001, 0.999)) if high > low else (low, high)
      edges[d] = np.linspace(low, high if high > low else low + 1, NUM_BINS + 1)
  return edges


def histograms(x: np.ndarray, edges: np.ndarray, there: np.ndarray | None = None) -> np.ndarray:
  """Rows of x [N, D] in each bin, after those below and before those above all bins: [D, bins + 2].

  Entries that are not `there` [N, D] are not counted; None = all are.
  """
  B = edges.shape[1] - 1
  found = np.empty((x.shape[1], B + 2), np.int64)
  for d, column in enumerate(x.T.astype(np.float64)):
    column = column if there is None else column[there[:, d]]
    low, high = edges[d, 0], edges[d, -1]
    place = np.floor((column - low) / (high - low) * B)
    place[column == high] = B - 1
    place = np.clip(np.nan_to_num(place, nan=B), -1, B)  # what is not finite is outside
    found[d] = np.bincount(place.astype(np.int64) + 1, minlength=B + 2)
  return found


def umap_map(mean: np.ndarray) -> np.ndarray | None:
  """Two-dimensional UMAP of latent means [N, L], deterministic; None without umap-learn or with too few rows."""
  try:
    import umap  # optional, and seconds to import
  except ImportError:
    return None
  if len(mean) < 10 or not np.isfinite(mean).all():
    return None
  reducer = umap.UMAP(n_neighbors=min(UMAP_NEIGHBOURS, len(mean) - 1), min_dist=UMAP_MIN_DIST, random_state=UMAP_SEED,
                      n_jobs=1)
  return np.asarray(reducer.fit_transform(mean), np.float32)
