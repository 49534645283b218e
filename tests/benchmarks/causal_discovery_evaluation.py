"""What judging a posterior over graphs costs: 128 tasks of 20 variables, 100 sampled graphs each.

  python tests/benchmarks/causal_discovery_evaluation.py --json=out.json            # 3 minutes of one core
  python tests/benchmarks/causal_discovery_evaluation.py --variant=avici            # its network takes 10 minutes more

The tasks are those of the test part of `--variant` of configs/causal_discovery.py, with `--nodes` variables and
`--rows` rows; its network has its first, untrained parameters. Only `network` depends on its size, so the default is
the small one of `cpu`. Seconds, of all tasks together:

  network     tasks, posterior with its samples, joint log-probability: what a model costs, whatever is measured
  metrics     all metrics of `metrics.of_tasks`
  distances   of them SID and the ancestor-adjustment distance
  baselines   the seven baselines, with 10 graphs each, and all their metrics
  summary     means, intervals and gains
  gadjid      SID and ancestor-adjustment distance of the same graphs by the package gadjid, where it is installed; it
              refuses cyclic graphs, so that edges against a random order are left out of the samples for it and for us

CPU seconds of the process, best of `--rounds` after a first call, and seconds of the wall clock of that round. Left
out: compiling.
"""

import os
import time

import jax
import jax.numpy as jnp
import numpy as np

import bench
from jaxtrain import config as config_lib
from jaxtrain.experiments.causal_discovery import avici, comparison, distances, evaluate, metrics
from jaxtrain.errors import UserError, need

CONFIG = os.path.join(bench.ROOT, "configs", "causal_discovery.py")
BATCH = 16


def flags():
  """The command line."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--variant", default="cpu")
  parser.add_argument("--tasks", type=int, default=128)
  parser.add_argument("--nodes", type=int, default=20)
  parser.add_argument("--rows", type=int, default=256)
  return parser.parse_args()


def best_of(rounds: int, call) -> tuple[dict, object]:
  """({cpu_s, wall_s} of the round with the least CPU time, the result) of a call, after a first one."""
  found, result = [], call()
  for _ in range(rounds):
    cpu, wall = time.process_time(), time.perf_counter()
    result = call()
    found.append((time.process_time() - cpu, time.perf_counter() - wall))
  return dict(zip(("cpu_s", "wall_s"), min(found))), result


def make_tasks(args):
  """(config, its splits, model) with so many test tasks."""
  config = config_lib.read_file(f"{CONFIG}:{args.variant}")
  changed = {"eval.max_test_tasks": args.tasks, "train.precision": "float32", "eval.batch_size": BATCH,
             "data.num_nodes": (args.nodes,), "data.num_rows": args.rows}
  for name, value in changed.items():
    config_lib.assign(config, name, value)
  config = config_lib.resolve(config)
  return config, avici.load(config), avici.make_model(config)


def judged(config, splits, model, rounds: int) -> tuple[dict, list]:
  """Seconds of the network, and (batch, own metrics, probs, samples) of each batch."""
  judge, source = evaluate.make_judge(config, model), splits.test
  params, make = model.init(jax.random.key(0)), jax.jit(source.batch_at)

  def all_batches():
    found = []
    for step in range(source.num_batches):
      batch = make(source.data, jnp.int32(step), jax.random.key(0))
      found.append((batch, *judge(params, batch, jax.random.key(step))))
    return jax.device_get(found)
  return best_of(rounds, all_batches)


def by_gadjid(gadjid, truth: np.ndarray, samples: np.ndarray) -> np.ndarray:
  """[T, S, 2] numbers of mistakes: SID and the ancestor-adjustment distance."""
  direction = {"edge_direction": "from row to column"}
  return np.array([[(gadjid.sid(t, g, **direction)[1], gadjid.ancestor_aid(t, g, **direction)[1]) for g in graphs]
                   for t, graphs in zip(truth.astype(np.int8), samples.astype(np.int8))])


def beside_gadjid(found: list, rounds: int) -> dict:
  """Seconds of both on acyclic samples, and whether all distances are equal; {} without the package."""
  try:
    gadjid = need("gadjid", "discovery")
  except UserError as error:
    return {"gadjid": str(error)}
  truth, samples, mask = (np.concatenate([pick(one) for one in found]) for pick in (
      lambda one: one[0]["adjacency"], lambda one: one[3], lambda one: one[0]["node_mask"]))
  rank = np.random.default_rng(0).permuted(np.broadcast_to(np.arange(samples.shape[-1]), samples.shape[:-1]), axis=-1)
  samples = samples * (rank[..., :, None] < rank[..., None, :])
  ours = jax.jit(lambda *tasks: jax.lax.map(lambda task: distances.adjustment_distances(*task), tasks))
  own_s, own = best_of(rounds, lambda: jax.device_get(ours(truth, samples, mask)))
  their_s, theirs = best_of(1, lambda: by_gadjid(gadjid, truth, samples))
  return {"distances_acyclic": own_s, "gadjid": their_s, "pairs_of_graphs": int(theirs[..., 0].size),
          "differences": int(np.sum(np.stack(own, -1) != theirs))}


def main() -> None:
  """Measures all parts and tells the results."""
  args = flags()
  config, splits, model = make_tasks(args)
  network_s, found = judged(config, splits, model, 1)
  edge_probs = {int(d): p for d, p in splits.meta["edge_probs"].items()}
  metrics_s, values = best_of(args.rounds, lambda: jax.device_get(
      [metrics.of_tasks(batch["adjacency"], probs, samples, batch["node_mask"]) for batch, _, probs, samples in found]))
  of_batch = jax.jit(lambda *tasks: jax.lax.map(lambda task: distances.adjustment_distances(*task), tasks))
  distances_s, _ = best_of(args.rounds, lambda: jax.device_get(
      [of_batch(batch["adjacency"], samples, batch["node_mask"]) for batch, _, _, samples in found]))
  baselines_s, beside = best_of(args.rounds, lambda: [
      comparison.of_baselines(batch, edge_probs, np.random.default_rng(k)) for k, (batch, *_) in enumerate(found)])
  join = lambda parts: {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}
  tasks = join([{**own, **one, "graph_kind": batch["graph_kind"], "mechanism_kind": evaluate.dominant(
      batch["mechanism_kinds"])} for (batch, own, _, _), one in zip(found, values)])
  methods = {comparison.MODEL: tasks} | {name: join([one[name] for one in beside]) for name in beside[0]}
  examples = [(p, t, len(t)) for batch, _, probs, _ in found for p, t in zip(probs, batch["adjacency"])]
  summary_s, _ = best_of(args.rounds, lambda: evaluate.summary(methods, examples, splits.meta))
  parts = {"network": network_s, "metrics": metrics_s, "distances": distances_s, "baselines": baselines_s,
           "summary": summary_s}
  total = {unit: sum(parts[part][unit] for part in ("metrics", "baselines", "summary")) for unit in metrics_s}
  bench.tell({"tasks": len(examples), "variables": int(max(map(len, (t for _, t, _ in examples)))),
              "samples": config.eval.test_num_samples, "threads": os.environ.get("OMP_NUM_THREADS", ""),
              "device": jax.devices()[0].device_kind} | parts | {"without_network": total} |
             beside_gadjid(found, args.rounds), args.json)


if __name__ == "__main__":
  main()
