"""What asks for caution with a table of another kind: where the numbers of the variant `kept` come from.

  python tests/benchmarks/discovery_caution.py --tasks=256 --json=caution.json

On validation tasks of a config, with rows and cells hidden as in training: quantiles of the two numbers of
`jaxtrain/experiments/causal_discovery/caution.py`, those of `dependence` also with the rows in the order of the first
variable, and the weights of a logistic regression of edges on the sizes of correlations, each task with the same
weight. No network is asked, so they belong to the training tasks alone.
"""

import functools
import os

import jax
import numpy as np

import bench
from jaxtrain import config as config_lib
from jaxtrain.experiments.causal_discovery import caution, named, pair_network, pair_statistics, tasks as tasks_lib

QUANTILES = (0.5, 0.9, 0.99, 1.0)
NEWTON_STEPS = 30


def fit(inputs: np.ndarray, edges: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Weights of a logistic regression by Newton's method; inputs [N, F], edges and weights [N]."""
  found = np.zeros(inputs.shape[1])
  for _ in range(NEWTON_STEPS):
    p = 1.0 / (1.0 + np.exp(-inputs @ found))
    curvature = (inputs * (weights * p * (1.0 - p))[:, None]).T @ inputs + 1e-6 * np.eye(len(found))
    found += np.linalg.solve(curvature, inputs.T @ (weights * (edges - p)))
  return found


def look(config, batch: dict, key: jax.Array):
  """The two numbers of a batch, dependence with sorted rows, and the inputs of the regression."""
  m, mask = config.model, batch["node_mask"]
  observed = pair_network.hide(key, caution.observed_of(batch), m.hidden_rows, m.hidden_cells)
  batch = {name: batch[name] for name in ("values", "intervened", "node_mask")} | {"observed": observed}
  order = jax.numpy.argsort(batch["values"][..., 0], axis=1)[..., None]
  ordered = {name: batch[name] if name == "node_mask" else jax.numpy.take_along_axis(batch[name], order, 1)
             for name in batch}
  statistics = pair_statistics.of_tasks(batch["values"], batch["intervened"], observed, mask, ("linear",))
  return (caution.unlike(batch), caution.unlike(ordered).dependence,
          jax.numpy.stack(caution.correlation_inputs(statistics, mask), -1))


def main() -> None:
  """Runs the benchmark."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--config", default=os.path.join(bench.ROOT, "configs", "causal_discovery.py:kept"))
  parser.add_argument("--tasks", type=int, default=256)
  given = parser.parse_args()
  config = config_lib.resolve(config_lib.with_values(config_lib.read_file(given.config),
                                                     {"eval.max_val_tasks": given.tasks}))
  source, compiled = named.source(named.of_training(config), config, "val"), jax.jit(functools.partial(look, config))
  tails, dependence, ordered, inputs, edges, weights = ([] for _ in range(6))
  for step, batch in enumerate(tasks_lib.batches(source, jax.random.key(0))):
    numbers, sorted_rows, found = jax.device_get(compiled(batch, jax.random.fold_in(jax.random.key(1), step)))
    for k in np.flatnonzero(batch["weight"]):
      d = int(batch["node_mask"][k].sum())
      off = ~np.eye(d, dtype=bool)
      inputs.append(found[k, :d, :d][off].astype(np.float64))
      edges.append(np.asarray(batch["adjacency"][k, :d, :d])[off])
      weights.append(np.full(off.sum(), 1.0 / off.sum()))
      tails.append(numbers.tails[k])
      dependence.append(numbers.dependence[k])
      ordered.append(sorted_rows[k])
  quantiles = lambda values: dict(zip(map(str, QUANTILES), np.quantile(values, QUANTILES).round(2).tolist()))
  bench.tell({"tasks": len(tails), "tails": quantiles(tails), "dependence": quantiles(dependence),
              "dependence_sorted": quantiles(ordered),
              "correlation_weights": fit(*map(np.concatenate, (inputs, edges, weights))).round(3).tolist()}, given.json)


if __name__ == "__main__":
  main()
