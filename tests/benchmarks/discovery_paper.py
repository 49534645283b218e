"""The nine cells of the table of Dhir et al. 2024 for a run of causal discovery, beside what was published.

  python tests/benchmarks/discovery_paper.py --workdir=runs/paper_all_data --folder=runs/nine --json=nine.json

The best state of the run is assessed by `eval.suite=paper` into --folder; the same command goes on after a stop.
Cells are linear, neural-net and Gaussian-process mechanisms by 20, 40 and 60 edges: d = 20, n = 1,000, 25 tasks each
(`--tasks`). The published table has AUROC, E-SHD and E-edgeF1 of BCNP (All Data) and of AVICI, which was trained on
each cell alone; log-probabilities of graphs are those of BCNP's result files.

Figures compare only so far: exact numbers of edges and the number of rows are the paper's; mechanisms are built from
its text and code (`bcnp_*`), and the paper's own graphs are not ours. The verdict on a difference, 1 better, -1 worse,
0 undecided, takes the interval over our tasks together with the largest published standard error of that column. E-SHD
rewards few edges: read it beside `empty`, the empty graph, below which no published E-SHD lies.
"""

import json
import math
import os

import bench
from jaxtrain import config as config_lib, loop
from jaxtrain.workdir import records

EDGES = (20, 40, 60)
COLUMNS = {"auroc": ("higher", 0.02), "e_shd": ("lower", 2.0), "e_edge_f1": ("higher", 0.02)}  # largest errors
PUBLISHED = {  # cell -> ((AUROC, E-SHD, E-edgeF1) of BCNP All Data, of AVICI, log-probability of BCNP)
    "linear_er20": ((0.89, 23.35, 0.44), (0.89, 26.61, 0.31), -52.1),
    "linear_er40": ((0.90, 49.01, 0.40), (0.86, 56.22, 0.28), -86.5),
    "linear_er60": ((0.86, 72.15, 0.36), (0.83, 80.90, 0.31), -122.0),
    "mlp_er20": ((0.88, 30.05, 0.36), (0.84, 29.51, 0.24), -54.0),
    "mlp_er40": ((0.84, 53.44, 0.37), (0.79, 61.11, 0.24), -101.5),
    "mlp_er60": ((0.83, 68.34, 0.39), (0.79, 85.15, 0.29), -127.5),
    "gp_er20": ((0.83, 38.24, 0.20), (0.74, 36.27, 0.08), -64.0),
    "gp_er40": ((0.78, 62.05, 0.22), (0.72, 67.68, 0.15), -108.5),
    "gp_er60": ((0.77, 80.28, 0.25), (0.71, 91.33, 0.21), -143.0)}
THEIRS = ("bcnp_all_data", "avici")
Z = 1.96


def assess(workdir: str, folder: str, num_tasks: int) -> dict[str, float]:
  """Scalars of the run's best state on the nine cells, assessed where they are not yet."""
  config = config_lib.from_workdir(records.read_config(workdir), workdir)
  config = config_lib.with_values(config, {"eval.suite": "paper", "eval.max_test_tasks": num_tasks,
                                           "data.test_families": (), "data.test_seeds": (), "log.figures": "none"})
  begun = os.path.exists(os.path.join(folder, "config.json"))
  loop.evaluate(config, folder, None if begun else f"{workdir}@best")
  with open(os.path.join(folder, "eval", "test.json"), encoding="utf-8") as file:
    return json.load(file)["scalars"]


def verdict(ours: float, half: float, theirs: float, error: float, direction: str) -> int:
  """1 where ours is better than theirs beyond the interval of the difference, -1 where worse, 0 where undecided."""
  less = (ours - theirs) * (1 if direction == "higher" else -1)
  return 0 if abs(less) <= math.hypot(half, Z * error) else 1 if less > 0 else -1


def cell(name: str, scalars: dict[str, float]) -> dict:
  """A cell of the table: ours with half its interval, theirs and the verdicts; the empty graph's E-SHD."""
  key = lambda metric: f"{metric}/paper_{name}"
  found = {"empty": {"e_shd": int(name[-2:])}, "log_prob_bcnp": PUBLISHED[name][2]}
  log_prob = "joint_log_prob_nats" if key("joint_log_prob_nats") in scalars else "graph_log_prob_nats"
  found["log_prob"] = {"ours": scalars[key(log_prob)], "half": scalars[key(f"{log_prob}_ci95")], "of": log_prob}
  for k, (metric, (direction, error)) in enumerate(COLUMNS.items()):
    ours, half = scalars[key(metric)], scalars[key(f"{metric}_ci95")]
    found[metric] = {"ours": ours, "half": half}
    for method, published in zip(THEIRS, PUBLISHED[name]):
      found[metric] |= {method: published[k], f"verdict_{method}": verdict(ours, half, published[k], error, direction)}
  return found


def mean_of(cells: dict[str, dict]) -> dict:
  """Means over the cells, without intervals: the cells of three mechanisms share their graphs, so they are not
  independent.
  """
  found = {}
  for metric in COLUMNS:
    rows = [one[metric] for one in cells.values()]
    found[metric] = {name: sum(row[name] for row in rows) / len(rows) for name in ("ours", *THEIRS)}
  return found


def lines(cells: dict[str, dict]) -> list[str]:
  """The table as Markdown."""
  sign = {1: "better", 0: "undecided", -1: "worse"}
  found = ["| cell | AUROC | BCNP, AVICI | E-SHD | BCNP, AVICI, empty | E-edgeF1 | BCNP, AVICI | log p | BCNP |",
           "|---|---|---|---|---|---|---|---|---|"]
  for name, one in cells.items():
    words = [name]
    for metric, digits in (("auroc", 3), ("e_shd", 1), ("e_edge_f1", 3)):
      row = one[metric]
      theirs = ", ".join(f"{row[method]:.2f} {sign[row[f'verdict_{method}']]}" for method in THEIRS)
      empty = f", {one['empty']['e_shd']}" if metric == "e_shd" else ""
      words += [f"{row['ours']:.{digits}f} +- {row['half']:.{digits}f}", theirs + empty]
    words += [f"{one['log_prob']['ours']:.1f} +- {one['log_prob']['half']:.1f}", f"{one['log_prob_bcnp']}"]
    found.append(f"| {' | '.join(words)} |")
  return found


def main() -> None:
  """Runs the benchmark."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--workdir", required=True)
  parser.add_argument("--folder", required=True)
  parser.add_argument("--tasks", type=int, default=25)
  given = parser.parse_args()
  scalars = assess(given.workdir, given.folder, given.tasks)
  cells = {name: cell(name, scalars) for name in PUBLISHED}
  print("\n".join(lines(cells)))
  bench.tell({"tasks": given.tasks, "cells": cells, "mean": mean_of(cells)}, given.json)


if __name__ == "__main__":
  main()
