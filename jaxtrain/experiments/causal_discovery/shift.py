"""How far a family of tasks is from those of training, and whether a model notices.

  spectral    |difference of the mean spectral radius of the undirected graph|
  kl_degree   Kullback-Leibler divergence of the family's histogram of degrees from that of training, nats; half a count
              is added to every degree that either has
  mechanism   |difference of the mean share of a node's variance that a linear function of its parents leaves|, fitted
              on the first half of the observational rows and measured on the second

A model notices a shift where its edge probabilities are less sure: `detection_auroc` is the probability that a task of
the family has the higher edge entropy than a task of the training distribution.

All is in NumPy, on the tasks that are judged anyway; a missing cell counts as the mean of its variable, which raises
the share that parents leave.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxtrain.experiments.causal_discovery import signals

DISTANCES = ("spectral", "kl_degree", "mechanism")
MOST_DEGREE = 63


class Facts(NamedTuple):
  """What the distances read of a set of tasks.

  Attributes:
    radius: [T], spectral radius of each undirected graph.
    degree_counts: [T, MOST_DEGREE + 1], nodes of each degree, in and out together; the last counts larger ones too.
    unexplained: [T], mean share of the nodes with parents; NaN where there is none.
  """
  radius: np.ndarray
  degree_counts: np.ndarray
  unexplained: np.ndarray


def facts(batch: dict[str, Any]) -> Facts:
  """The facts of a batch of tasks on the host, padded tasks included."""
  each = [facts_of_task(*args) for args in zip(batch["values"], batch["intervened"], batch["adjacency"],
                                               batch["node_mask"] > 0)]
  return Facts(*(np.stack(part) for part in zip(*each)))


def facts_of_task(x: np.ndarray, intervened: np.ndarray, adjacency: np.ndarray, real: np.ndarray) -> tuple:
  """Radius, counts of degrees and unexplained share of one task.

  Args:
    x, intervened: [n, D]. adjacency: [D, D]. real: [D] bool.
  """
  skeleton = adjacency + adjacency.T
  rows = x[intervened.sum(1) == 0].astype(np.float64)
  shares = [1.0 - signals.linear_r2(rows[:, adjacency[:, j] > 0], rows[:, j])
            for j in np.flatnonzero(real) if adjacency[:, j].any() and len(rows) >= 4]
  degrees = np.minimum(skeleton.sum(1)[real].astype(int), MOST_DEGREE)
  return (np.abs(np.linalg.eigvalsh(skeleton)).max(), np.bincount(degrees, minlength=MOST_DEGREE + 1),
          np.mean(shares) if shares else np.nan)


def of_arrays(arrays: dict[str, np.ndarray]) -> Facts:
  """The facts that an assessment's arrays hold."""
  return Facts(*(arrays[f"task_{name}"] for name in Facts._fields))


def distances(family: Facts, training: Facts) -> dict[str, float]:
  """Each distance of a family's tasks from those of training."""
  count = lambda one: one.degree_counts.sum(0)
  there = (count(family) + count(training)) > 0
  share = lambda one: (count(one)[there] + 0.5) / (count(one)[there] + 0.5).sum()
  p, q = share(family), share(training)
  mean = lambda values: float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
  return {"spectral": abs(mean(family.radius) - mean(training.radius)), "kl_degree": float(np.sum(p * np.log(p / q))),
          "mechanism": abs(mean(family.unexplained) - mean(training.unexplained))}


def detection_auroc(family: np.ndarray, training: np.ndarray) -> float:
  """Probability that a value of the family [T] is larger than one of training [R]; ties count as half."""
  family, training = family[np.isfinite(family)], np.sort(training[np.isfinite(training)])
  if not family.size or not training.size:
    return float("nan")
  below = np.searchsorted(training, family, side="left") + np.searchsorted(training, family, side="right")
  return float(below.mean() / (2 * training.size))
