"""What can be learned from a family's tasks: the signal of parents, and shortcuts that sort variables without learning.

For `--mode=check`: a few raw tasks (before they are standardised) of each mechanism on the config's own graphs.

  parents_r2_linear, parents_r2_trees   variance of a node that its parents explain on held-out rows, by least squares
                                        and by extremely randomised trees; median over nodes with parents
  varsortability     share of ancestor pairs in which the descendant has the larger variance (Reisach et al. 2021)
  r2_sortability     the same with the R2 of a node on all others (Reisach et al. 2023)
  constant           share of nodes that do not vary
  rejected           share of tasks rejected as not finite or constant

0.5 is no sortability. **Source:** the two papers, eq. 1.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import rng
from jaxtrain.experiments.causal_discovery import corruptions, functions, tasks

NUM_TASKS, NUM_ROWS = 8, 256


def describe(config) -> dict[str, Any]:
  """One line per mechanism of a config, of `NUM_TASKS` tasks of the largest number of nodes with `NUM_ROWS` rows."""
  num_nodes = max(config.data.num_nodes)
  whole = tasks.make_spec(config.data)
  spec = whole._replace(num_rows=NUM_ROWS, num_rows_int=0, normalize=False, reject_constant=False,
                        task_chunk=NUM_TASKS, corruptions=corruptions.NONE)
  found = {}
  for family in spec.mechanisms:
    one = spec._replace(mechanisms=(family,))
    make = lambda key: tasks.make_batch(one, num_nodes, (num_nodes,), key, "val", jnp.arange(NUM_TASKS),
                                        jnp.ones((NUM_TASKS,)), True)
    batch = jax.device_get(jax.jit(make)(rng.key_for(config.data.eval_seed, "data")))
    kept = batch["weight"] > 0
    measured = [measure(x, A) for x, A in zip(batch["values"][kept], batch["adjacency"][kept])]
    values = {name: np.asarray([one[name] for one in measured if np.isfinite(one[name])])
              for name in (measured[0] if measured else ())}
    shown = [f"{name} {np.median(value):.2f}" if name.startswith("parents") else f"{name} {np.mean(value):.2f}"
             for name, value in values.items() if value.size]
    found[f"signal {family.text}"] = ", ".join(shown + [f"rejected {1 - kept.mean():.2f}"])
  return found


def measure(x: np.ndarray, adjacency: np.ndarray) -> dict[str, float]:
  """Measures of one task, x [n, D], adjacency [D, D]; NaN where one has no meaning."""
  x = x.astype(np.float64)
  deviation = x.std(0)
  varies = deviation > functions.TINY
  with_parents = [j for j in range(len(adjacency)) if adjacency[:, j].any() and varies[j]]
  explained = lambda fit: np.median([fit(x[:, adjacency[:, j] > 0], x[:, j]) for j in with_parents] or [np.nan])
  others = [linear_r2(np.delete(x, j, 1), x[:, j]) if varies[j] else 0.0 for j in range(len(adjacency))]
  return {"parents_r2_linear": float(explained(linear_r2)), "parents_r2_trees": float(explained(trees_r2)),
          "varsortability": sortability(deviation, adjacency),
          "r2_sortability": sortability(np.asarray(others), adjacency),
          "constant": float(np.mean(~varies))}


def held_out_r2(predicted: np.ndarray, y: np.ndarray) -> float:
  """1 - residual variance over variance, at least 0."""
  return max(0.0, 1.0 - np.mean(np.square(y - predicted)) / max(np.var(y), 1e-30))


def linear_r2(x: np.ndarray, y: np.ndarray) -> float:
  """Of least squares, fitted on the first half of the rows and measured on the second."""
  half, x = len(y) // 2, np.column_stack([x, np.ones(len(x))])
  weights = np.linalg.lstsq(x[:half], y[:half], rcond=None)[0]
  return held_out_r2(x[half:] @ weights, y[half:])


def trees_r2(x: np.ndarray, y: np.ndarray) -> float:
  """Of a forest of extremely randomised trees, likewise."""
  from sklearn.ensemble import ExtraTreesRegressor  # slow to import, and no need of training
  half = len(y) // 2
  forest = ExtraTreesRegressor(n_estimators=30, min_samples_leaf=3, random_state=0).fit(x[:half], y[:half])
  return held_out_r2(forest.predict(x[half:]), y[half:])


def sortability(score: np.ndarray, adjacency: np.ndarray) -> float:
  """Share of pairs joined by a path of length 1, 2, ... whose later node has the larger score; ties count as half."""
  edges = adjacency > 0
  paths, joined, right = edges.copy(), 0, 0.0
  larger = (score[None, :] > score[:, None]) + 0.5 * (score[None, :] == score[:, None])
  while paths.any():
    joined, right = joined + paths.sum(), right + larger[paths].sum()
    paths = (paths.astype(int) @ edges) > 0
  return float(right / joined) if joined else float("nan")
