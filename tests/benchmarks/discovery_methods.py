"""Methods of other packages that read a graph off a table, behind one adapter: marks of a table of rows.

  pc             causal-learn, partial correlations with Fisher's z at level 0.05; its graph leaves directions open
  ges            causal-learn, BIC of linear Gaussian models; likewise
  notears        gcastle (which imports torch), linear, its default penalty and threshold
  direct_lingam  lingam, its default adaptive lasso

`bootstrapped` fits a method on resamples of the rows. The probability of an edge is its mean mark; a sampled graph is
that of one resample, where an open direction is decided by a random consistent extension.

**Source:** consistent extensions: Dor & Tarsi 1992 (A simple algorithm to construct a consistent extension of a
partially oriented graph).
**Departs:** where there is no such extension, which errors of finite samples cause, open directions are coin tosses.
"""

import contextlib
import io
import logging
import warnings
from typing import Callable

import numpy as np

OPEN = 0.5  # mark of either direction of an edge whose direction is not known


def of_endpoints(ends: np.ndarray) -> np.ndarray:
  """Marks [D, D] of causal-learn's matrix of endpoints, where i -> j has ends[i, j] = -1 and ends[j, i] = 1.

  An edge with two arrows, which contradictory tests make, is open too.
  """
  tail, arrow = ends == -1, ends == 1
  directed = tail & arrow.T
  return np.where(directed, 1.0, np.where((tail & tail.T) | (arrow & arrow.T), OPEN, 0.0))


def pc(x: np.ndarray) -> np.ndarray:
  """Marks of the PC algorithm."""
  from causallearn.search.ConstraintBased.PC import pc as search
  return of_endpoints(search(x, alpha=0.05, indep_test="fisherz", show_progress=False, verbose=False).G.graph)


def ges(x: np.ndarray) -> np.ndarray:
  """Marks of greedy equivalence search."""
  from causallearn.search.ScoreBased.GES import ges as search
  return of_endpoints(search(x, score_func="local_score_BIC")["G"].graph)


def notears(x: np.ndarray) -> np.ndarray:
  """Marks of linear NOTEARS."""
  from castle.algorithms import Notears
  logging.getLogger().setLevel(logging.WARNING)  # of all loggers, which castle sets to INFO
  learner = Notears()
  learner.learn(x)
  return (np.asarray(learner.causal_matrix) != 0).astype(np.float64)


def direct_lingam(x: np.ndarray) -> np.ndarray:
  """Marks of DirectLiNGAM, whose matrix has effects in rows."""
  from lingam.direct_lingam import DirectLiNGAM
  learner = DirectLiNGAM(random_state=0)
  learner.fit(x)
  return (learner.adjacency_matrix_.T != 0).astype(np.float64)


METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"pc": pc, "ges": ges, "notears": notears,
                                                           "direct_lingam": direct_lingam}


def extend(marks: np.ndarray, random: np.random.Generator) -> np.ndarray:
  """A directed graph [D, D] of 0 and 1 with the directed edges of marks [D, D] and a direction for each open one.

  It is acyclic and makes no new collider where there is such a graph; ties are broken at random.
  """
  directed, undirected = marks == 1, marks == OPEN
  graph, left = directed.copy(), list(range(len(marks)))
  while left:
    fitting = [v for v in left if is_sink(v, left, directed, undirected)]
    if not fitting:
      return toss(marks, random)
    v = fitting[random.integers(len(fitting))]
    graph[left, v] |= undirected[left, v]
    left.remove(v)
  return graph.astype(np.float64)


def is_sink(v: int, left: list[int], directed: np.ndarray, undirected: np.ndarray) -> bool:
  """Whether v has no effect among the nodes that are left, and each of its open neighbours is joined to all others."""
  others = [u for u in left if u != v]
  joined = directed | directed.T | undirected
  if directed[v, others].any():
    return False
  near = [u for u in others if joined[u, v]]
  return all(joined[u, w] for u in near if undirected[u, v] for w in near if w != u)


def toss(marks: np.ndarray, random: np.random.Generator) -> np.ndarray:
  """A directed graph of marks whose open directions are coin tosses."""
  heads = np.triu(random.random(marks.shape) < 0.5, 1)
  return ((marks == 1) | ((marks == OPEN) & (heads | (np.tril(~heads.T, -1))))).astype(np.float64)


def bootstrapped(method: Callable, x: np.ndarray, num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """(probabilities [D, D], graphs [num, D, D]) of a method on resamples of the rows of x [n, D].

  A resample on which the method fails, such as one with a singular covariance, gives the empty graph.
  """
  random, marks, graphs = np.random.default_rng(seed), [], []
  for _ in range(num):
    rows = x[random.integers(len(x), size=len(x))]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
      warnings.simplefilter("ignore")
      try:
        found = method(rows)
      except (ValueError, np.linalg.LinAlgError):
        found = np.zeros((x.shape[1], x.shape[1]))
    marks.append(found)
    graphs.append(extend(found, random))
  return np.mean(marks, 0), np.stack(graphs)
