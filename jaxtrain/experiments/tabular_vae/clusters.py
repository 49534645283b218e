"""Part `clusters`: whether clusters of the embedding are the classes, beside clusters of the raw scaled features.

K-means and mixtures of normals with full covariances are fitted on training rows, for several numbers of clusters, and
held-out rows are assigned to them. The embedding is the posterior mean in the dimensions that are in use, standardised:
dimensions that carry nothing would count as much as the others.

**Source:** adjusted Rand index: Hubert & Arabie 1985. Normalised mutual information: by the mean of both entropies.
Silhouette: Rousseeuw 1987, on a sample of rows.
"""

import warnings

import numpy as np

from jaxtrain import statistics
from jaxtrain.experiments.tabular_vae import grouped, held_out
from jaxtrain.experiments.tabular_vae.grouped import ratio
from jaxtrain.experiments.tabular_vae.held_out import HeldOut
from jaxtrain.types import Metric

INPUTS, METHODS = ("embedding", "raw"), ("kmeans", "gmm")
OF_LABELS = ("ari", "nmi", "purity")
SILHOUETTE_ROWS = 2000
RESAMPLES = 200  # of a table of counts for each
SEED = 0
LEAST_COVARIANCE = 1e-4  # added to the diagonals, in standardised units
METRICS = {
    "cluster_ari": Metric("", "agreement of clusters and classes beyond chance (adjusted Rand index)", "higher", 0.0,
                          limits=(-1, 1)),
    "cluster_nmi": Metric("", "normalised mutual information of clusters and classes", "higher",
                          limits=(0, 1)),
    "cluster_purity": Metric("", "share of rows whose class is the most frequent one of their cluster", "higher",
                             limits=(0, 1)),
    "cluster_silhouette": Metric("", "how much nearer rows are to their own cluster than to the next one", "higher",
                                 limits=(-1, 1)),
    "cluster_ari_mean": Metric("", "adjusted Rand index of clusters of the embedding, mean over methods and numbers of "
                               "clusters", "higher", 0.0),
    "cluster_ari_mean_raw": Metric("", "the same of the raw features", "higher", 0.0),
    "cluster_ari_gain*": Metric("", "the first less the second, and the ends of its interval", "higher", 0.0),
    "cluster_rows": Metric("rows", "training rows that clusters were fitted on"),
}


def scores(counts: np.ndarray) -> np.ndarray:
  """Adjusted Rand index, normalised mutual information and purity [R, 3] of counts [R, C, K] of classes by clusters."""
  n = counts.sum(axis=(1, 2))
  pairs = lambda values: (values * (values - 1) / 2).sum(axis=-1)
  of_class, of_cluster = counts.sum(axis=2), counts.sum(axis=1)
  both, one, other = pairs(counts.reshape(len(counts), -1)), pairs(of_class), pairs(of_cluster)
  chance = ratio(one * other, n * (n - 1) / 2)
  same = (one + other) / 2 - chance
  ari = np.where(same > 0, ratio(both - chance, same), 1.0)
  entropy = lambda values: -(lambda p: (p * np.log(np.where(p > 0, p, 1))).sum(axis=1))(values / n[:, None])
  class_nats, cluster_nats = entropy(of_class), entropy(of_cluster)
  shared = class_nats + cluster_nats - entropy(counts.reshape(len(counts), -1))
  middle = (class_nats + cluster_nats) / 2
  nmi = np.where(middle > 0, ratio(shared, middle), 1.0)
  return np.stack([ari, nmi, counts.max(axis=1).sum(axis=1) / n], axis=1)


def inputs(held: HeldOut) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """(to fit on, to score) of the embedding and of the raw features, float64."""
  used = held_out.active(held.train.mean)
  train, scored = (rows.mean[:, used].astype(np.float64) for rows in (held.train, held.scored))
  middle, spread = train.mean(axis=0), np.maximum(train.std(axis=0), 1e-12)
  return {"embedding": ((train - middle) / spread, (scored - middle) / spread),
          "raw": (held.train.x.astype(np.float64), held.scored.x.astype(np.float64))}


def assign(method: str, k: int, train: np.ndarray, x: np.ndarray) -> np.ndarray | None:
  """The cluster of each row [N]; None where k clusters of the training rows cannot be found."""
  from sklearn import cluster, exceptions, mixture  # slow to import, and no need of training
  if len(train) < 2 * k:
    return None
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", exceptions.ConvergenceWarning)  # fewer distinct rows than clusters, or a late end
    try:
      model = (cluster.KMeans(k, n_init=1, random_state=SEED) if method == "kmeans" else
               mixture.GaussianMixture(k, random_state=SEED, reg_covar=LEAST_COVARIANCE))
      return model.fit(train).predict(x)
    except ValueError:  # covariances that have no inverse
      return None


def silhouette(x: np.ndarray, found: np.ndarray) -> float:
  """Mean silhouette of a sample of rows; NaN for one cluster."""
  from sklearn import metrics
  pick = held_out.some(len(x), SILHOUETTE_ROWS, SEED)
  num = len(np.unique(found[pick]))
  return float(metrics.silhouette_score(x[pick], found[pick])) if 1 < num < len(pick) else float("nan")


def assess(held: HeldOut, numbers: tuple[int, ...]) -> tuple[dict, dict]:
  """(scalars, arrays) of clusters in each of some numbers: `cluster_<score>/<input>_<method>_k<number>`, and
  `cluster_scores` [inputs, methods, numbers, scores] with `cluster_half`, half of 95 % intervals.
  """
  names = (*OF_LABELS, "silhouette")
  found = np.full((len(INPUTS), len(METHODS), len(numbers), len(names)), np.nan)
  half, scalars = found.copy(), {"cluster_rows": len(held.train.x)}
  groups = held.groups._replace(weights=held.groups.weights[:RESAMPLES])
  has, ari = held.scored.label >= 0, ({}, {})
  for i, (train, x) in enumerate(inputs(held).values()):
    for j, method in enumerate(METHODS):
      for n, k in enumerate(numbers):
        cluster = assign(method, k, train, x)
        if cluster is None:
          continue
        found[i, j, n, -1] = silhouette(x, cluster)
        if has.any():
          values = of_labels(groups, held.scored.label, cluster, k)
          found[i, j, n, :-1], half[i, j, n, :-1] = values[0], grouped.half_widths(values)
          ari[i][method, k] = values[:, 0]
        end = f"{INPUTS[i]}_{method}_k{k}"
        scalars |= {f"cluster_{name}/{end}": value for name, value in zip(names, found[i, j, n].tolist())}
        scalars |= {f"cluster_{name}_ci95/{end}": value for name, value in zip(names, half[i, j, n].tolist())
                    if np.isfinite(value)}
  return scalars | mean_ari(*ari), {"cluster_scores": found, "cluster_half": half, "cluster_numbers": np.array(numbers)}


def mean_ari(embedding: dict[tuple, np.ndarray], raw: dict[tuple, np.ndarray]) -> dict[str, float]:
  """Means of resampled adjusted Rand indices [1 + R] of both inputs over the clusterings that both have, and the
  interval of the difference; {} where there are none.
  """
  both = [which for which in embedding if which in raw]
  if not both:
    return {}
  one, other = (np.mean([found[which] for which in both], axis=0) for found in (embedding, raw))
  found = {"cluster_ari_mean": float(one[0]), "cluster_ari_mean_raw": float(other[0]),
           "cluster_ari_gain": float(one[0] - other[0])}
  if len(one) == 1:
    return found
  low, high = statistics.percentile_interval((one - other)[1:])
  return found | {"cluster_ari_gain_low": float(low), "cluster_ari_gain_high": float(high)}


def of_labels(groups: grouped.Groups, label: np.ndarray, cluster: np.ndarray, k: int) -> np.ndarray:
  """`scores` of clusters against the labels that there are, of all and of resamples [1 + R, 3]."""
  rows = np.flatnonzero(label >= 0)
  classes, code = np.unique(label[rows], return_inverse=True)
  of = groups if len(rows) == len(label) else groups.take(rows)
  of = of._replace(weights=of.weights[:RESAMPLES])
  return grouped.resampled(of, grouped.counts(of, code, cluster[rows], sizes=(len(classes), k)), scores)
