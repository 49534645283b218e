"""Causal discovery by a trained network beside PC, GES, NOTEARS and DirectLiNGAM, on the same tasks.

  python -m jaxtrain.main --config=configs/causal_discovery.py --workdir=runs/c
  python tests/benchmarks/discovery_comparators.py --workdir=runs/c --tasks=25 --folder=runs/peers --json=peers.json

  --workdir   a trained run: it is judged, and its config names the tasks; without it --config, and no network
  --suite     families of `eval.suite` as well as the test tasks of the training distribution
  --given     a folder of tasks in their place, such as python -m jaxtrain.experiments.causal_discovery --real=sachs
              --output=FOLDER writes
  --methods   some of pc, ges, notears, direct_lingam (needs `.[discovery]`; notears imports torch:
              `.[bench]`; direct_lingam: pip install --no-deps lingam autograd psy pygam semopy)
  --folder    keeps the graphs of each method and task: the same command goes on with what is missing; answers about
              another run or other tasks are refused

Methods are fitted on 10 bootstrap resamples of the rows, and judged by these graphs: a resample repeats rows, so one
graph that is fitted to all rows may be nearer to the truth, but it gives no probabilities. Baselines read the same
tables. Baselines and methods read a missing cell as the mean of its variable. Tasks that were rejected are left out.
Each row of the table is a mean over tasks with the half width of its 95 % interval by Student's t; `less` is the paired
difference from the first row, the network or partial correlation, over the tasks where both are defined.
Everything runs in one thread.
"""

import functools
import os
import time

import numpy as np

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
os.environ.update({name: "1" for name in THREADS})  # before a library of linear algebra is loaded

import jax  # noqa: E402

import bench  # noqa: E402
import discovery_methods  # noqa: E402
from jaxtrain import config as config_lib, jsonable, statistics  # noqa: E402
from jaxtrain.experiments.causal_discovery import (  # noqa: E402
    baselines, graphs, knowledge, metrics, named, task_files, tasks as tasks_lib)

RESAMPLES = 10
SHOWN = ("auroc", "auprc", "e_edge_f1", "e_shd", "ne_sid", "skeleton_f1", "edge_nll_nats", "brier")
BASELINES = ("partial_correlation", "correlation", "r2_sort_regress")
NUM_GRAPHS = 100  # that the network draws


def tasks_of(config, suite: str, num: int) -> dict[str, list[dict]]:
  """Family -> its tasks on the host."""
  config = config_lib.with_values(config, {"eval.suite": suite, "eval.max_test_tasks": num})
  return {name: list(task_files.unpacked(source)) for name, source in task_files.sources_of(config).items()}


def kept(path: str, fit) -> dict[str, np.ndarray]:
  """The arrays of a file, made and written where it is not there."""
  if os.path.exists(path):
    with np.load(path) as file:
      return dict(file)
  found = fit()
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with open(f"{path}.part", "wb") as file:
    np.savez_compressed(file, **found)
  os.replace(f"{path}.part", path)
  return found


def given_of(config, digest: str, suite: str, num: int) -> dict[str, dict]:
  """Family -> what answers about its tasks depend on; `digest` is that of the run's state."""
  config = config_lib.with_values(config, {"eval.suite": suite, "eval.max_test_tasks": num})
  lines = {named.TRAINING: ""} | {family.name: family.text for family in named.of_config(config, "test")}
  data = jsonable.digest_json(config_lib.to_record(config)["data"])
  return {name: {"run": digest, "data": data, "family": line, "resamples": RESAMPLES, "graphs": NUM_GRAPHS}
          for name, line in lines.items()}


def given_of_tasks(tasks: dict[str, list[dict]], digest: str) -> dict[str, dict]:
  """The same of tasks that were read from files."""
  content = lambda task: [[name, np.asarray(part).tolist()] for name, part in sorted(task.items())]
  return {name: {"run": digest, "data": jsonable.digest_json(list(map(content, each))), "family": name,
                 "resamples": RESAMPLES, "graphs": NUM_GRAPHS} for name, each in tasks.items()}


def fit_method(name: str, task: dict, number: int) -> dict[str, np.ndarray]:
  """Probabilities, graphs and seconds of a method on the observational rows of a task."""
  began, rows = time.perf_counter(), task["values"][task["intervened"].sum(1) == 0]
  probs, graphs = discovery_methods.bootstrapped(discovery_methods.METHODS[name], rows, RESAMPLES, number)
  return {"probs": probs, "graphs": graphs.astype(np.uint8), "seconds": np.float64(time.perf_counter() - began)}


def ask_baseline(name: str, edge_prob, task: dict, number: int) -> dict[str, np.ndarray]:
  """The same of a baseline; `edge_prob`: number of variables -> probability of an edge in training graphs."""
  began, d = time.perf_counter(), len(task["adjacency"])
  found = baselines.of_task(task["values"], task["intervened"], task["adjacency"], np.ones(d), edge_prob(d),
                            np.random.default_rng(number))
  probs, drawn = (part[baselines.NAMES.index(name)] for part in found)
  return {"probs": probs, "graphs": drawn.astype(np.uint8), "seconds": np.float64(time.perf_counter() - began)}


def ask_network(run, task: dict, number: int) -> dict[str, np.ndarray]:
  """The same of a trained run, through the verbs that its users call."""
  began, columns = time.perf_counter(), task_files.columns_of(task)
  place = {f"x{j}": j for j in range(len(task["adjacency"]))}
  probs, found = np.zeros(task["adjacency"].shape), run.graph(columns)
  for cause, effect, prob in zip(found["cause"], found["effect"], found["prob"]):
    probs[place[cause], place[effect]] = prob
  graphs = np.zeros((NUM_GRAPHS, *probs.shape), np.uint8)
  for name, drawn in run.sample_graphs(columns, num=NUM_GRAPHS, seed=number).items():
    cause, effect = name.split(knowledge.ARROW)
    graphs[:, place[cause], place[effect]] = drawn
  return {"probs": probs, "graphs": graphs, "seconds": np.float64(time.perf_counter() - began)}


def judge(tasks: list[dict], found: list[dict]) -> dict[str, np.ndarray]:
  """Each metric [T] of the answers to tasks; those of one size are judged together."""
  groups: dict[tuple, list[int]] = {}
  for k, one in enumerate(found):
    groups.setdefault(one["graphs"].shape, []).append(k)
  judged: dict[str, np.ndarray] = {}
  for places in groups.values():
    truth = np.stack([tasks[k]["adjacency"] for k in places])
    probs, drawn = (np.stack([found[k][name] for k in places]) for name in ("probs", "graphs"))
    for name, value in jax.device_get(metrics.of_tasks(truth, probs, drawn, np.ones(truth.shape[:2]))).items():
      judged.setdefault(name, np.full(len(tasks), np.nan))[places] = value
  return judged


def row(judged: dict, first: dict, seconds: float) -> dict:
  """Mean, half width, and paired difference from the first row, of each metric that is shown."""
  about = lambda values: {"mean": float(np.mean(values)), "half": statistics.t_half_width(values)}
  found = {"seconds_per_task": seconds}
  for name in SHOWN:
    both = np.isfinite(judged[name]) & np.isfinite(first[name])
    if both.any():
      found[name] = about(judged[name][both]) | {"less": about((judged[name] - first[name])[both])}
  return found


def compare(name: str, tasks: list[dict], methods: dict, folder: str) -> dict:
  """The table of a family: method -> row. Methods answer task by task and are resumed from the folder."""
  table, first = {}, None
  for method, ask in methods.items():
    found = []
    for k, task in enumerate(tasks):
      found.append(kept(os.path.join(folder, name, method, f"{k:04d}.npz"), lambda k=k, task=task: ask(task, k)))
    judged = judge(tasks, found)
    if method in BASELINES:  # their scores are no probabilities
      judged |= {key: np.full(len(tasks), np.nan) for key in metrics.OF_PROBABILITIES}
    first = judged if first is None else first
    table[method] = row(judged, first, float(np.mean([one["seconds"] for one in found])))
    shown = ", ".join(f"{key} {table[method][key]['mean']:.3f}" for key in SHOWN[:4])
    print(f"{name} {method}: {shown}, {table[method]['seconds_per_task']:.2f} s a task", flush=True)
  return table


def main() -> None:
  """Runs the benchmark."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--workdir", default="")
  parser.add_argument("--config", default="configs/causal_discovery.py")
  parser.add_argument("--suite", default="")
  parser.add_argument("--given", default="")
  parser.add_argument("--tasks", type=int, default=25)
  parser.add_argument("--folder", required=True)
  parser.add_argument("--methods", default=",".join(discovery_methods.METHODS))
  given = parser.parse_args()
  methods, config, digest = {}, config_lib.resolve(config_lib.read_file(given.config)), ""
  if given.workdir:
    import jaxtrain
    run = jaxtrain.load(given.workdir)
    config, digest = run.config, run.digest
    methods["network"] = lambda task, k: ask_network(run, task, k)
  if given.given:
    tasks = task_files.read_tasks(given.given)
    about = given_of_tasks(tasks, digest)
  else:
    tasks = tasks_of(config, given.suite, given.tasks)
    about = given_of(config, digest, given.suite, given.tasks)
  edge_prob = functools.partial(graphs.edge_probability, tasks_lib.make_spec(config.data).graphs)
  for name in BASELINES:
    methods[name] = lambda task, k, name=name: ask_baseline(name, edge_prob, task, k)
  for name in filter(None, given.methods.split(",")):
    methods[name] = lambda task, k, name=name: fit_method(name, task, k)
  for name, what in about.items():
    bench.check_given(os.path.join(given.folder, name), what)
  found = {name: compare(name, each, methods, given.folder) for name, each in tasks.items()}
  bench.tell({"tasks": {name: len(each) for name, each in tasks.items()}, "resamples": RESAMPLES, "families": found},
             given.json)


if __name__ == "__main__":
  main()
