r"""Host-side peers of the causal task generator: milliseconds per synthetic task on one CPU thread.

The causal benchmark runs this file as a subprocess next to jaxtrain's generator. It prints one JSON line.

  usual   the generator of the original system, written again from its description: one task at a time on the host,
          the graph by NumPy, a module per node with a random state of its own, then ancestral sampling, a Python
          loop over nodes. Still leaner than the original, which used a graph library and hashed every task.
  lean    the same tasks with nothing but the operations they need: no modules, one random state, vectors drawn at
          once. What a careful user gets out of PyTorch one task at a time.
  avici   the synthetic-data code of the package avici 1.0.7, unchanged, installed without its dependencies (old
          JAX and TensorFlow) into a temporary folder: a bare stand-in for the package's top module leaves out
          everything but the synthetic data, which needs NumPy, pandas, PyYAML and igraph only. Linear and
          random-feature mechanisms with the parameters of its own training domains.

Run it as (one core; `avici` needs the network, or `--avici_dir` with an earlier installation)

  OMP_NUM_THREADS=1 taskset -c 0 python tests/benchmarks/causal_generator_torch.py --peer=lean
  OMP_NUM_THREADS=1 taskset -c 0 python tests/benchmarks/causal_generator_torch.py --peer=avici

Quoted are medians over rounds of a round's mean time per task, and the extremes; the mechanisms take turns, round
after round. Where wall time exceeds CPU time by more than a few per cent the core was shared. Graphs are Erdos-Renyi
(edge probability 0.2) and scale-free (2 edges a node), half and half.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import types

import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

EDGE_PROB, EDGES_PER_NODE = 0.2, 2
WEIGHT_SCALE, NOISE_SHAPE, NOISE_RATE = 1.0, 2.0, 2.0
HIDDEN = 32
FEATURES, LENGTHS = 256, (0.5, 2.0)
PACKAGES = ("avici==1.0.7", "igraph==1.0.0", "texttable==1.7.2")


def erdos_renyi(rng: np.random.Generator, nodes: int) -> np.ndarray:
  """Each unordered pair is an edge with one probability; nodes are relabelled at random."""
  upper = np.triu(rng.random((nodes, nodes)) < EDGE_PROB, k=1)
  order = rng.permutation(nodes)
  return upper[np.ix_(order, order)]


def scale_free(rng: np.random.Generator, nodes: int) -> np.ndarray:
  """Barabasi-Albert from a star, every edge oriented by one random order."""
  ends = [0] * EDGES_PER_NODE + list(range(1, EDGES_PER_NODE + 1))
  edges = [(0, node) for node in range(1, EDGES_PER_NODE + 1)]
  for node in range(EDGES_PER_NODE + 1, nodes):
    targets = set()
    while len(targets) < EDGES_PER_NODE:
      targets.add(ends[int(rng.random() * len(ends))])
    edges += [(target, node) for target in targets]
    ends += list(targets) + [node] * EDGES_PER_NODE
  place = rng.permutation(nodes)
  graph = np.zeros((nodes, nodes), bool)
  for i, j in edges:
    graph[(i, j) if place[i] < place[j] else (j, i)] = True
  return graph


def topological_order(graph: np.ndarray) -> list[int]:
  """Causes before effects (Kahn)."""
  missing = graph.sum(0).tolist()
  children = [np.flatnonzero(row).tolist() for row in graph]
  order = [node for node, count in enumerate(missing) if count == 0]
  for node in order:
    for child in children[node]:
      missing[child] -= 1
      if missing[child] == 0:
        order.append(child)
  return order


def linear(rng: np.random.Generator, parents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
  """w x + sigma eps: weights normal, sigma from a Gamma, once per node."""
  sigma = rng.gamma(NOISE_SHAPE, 1 / NOISE_RATE)
  return torch.addmv(noise, parents, WEIGHT_SCALE * torch.randn(parents.shape[1]), beta=sigma)


def mlp(rng: np.random.Generator, parents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
  """Two hidden layers of leaky ReLU on parents and noise, parameters U(+-1/sqrt(fan_in)) as PyTorch draws them."""
  del rng
  x = torch.cat([parents, noise[:, None]], 1)
  for width in (HIDDEN, HIDDEN, 1):
    bound = x.shape[1] ** -0.5
    parameters = torch.empty(width, x.shape[1] + 1).uniform_(-bound, bound)
    x = torch.addmm(parameters[:, -1], x, parameters[:, :-1].T)
    if width > 1:
      x = F.leaky_relu(x, 0.01)
  return x[:, 0]


def gp(rng: np.random.Generator, parents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
  """A draw of a Gaussian process on parents and noise, by random features of one squared-exponential kernel."""
  x = torch.cat([parents, noise[:, None]], 1)
  lengths = torch.from_numpy(rng.uniform(*LENGTHS, size=(x.shape[1], 1)).astype(np.float32))
  phases = torch.empty(FEATURES).uniform_(0, 2 * np.pi)
  features = torch.addmm(phases, x, torch.randn(x.shape[1], FEATURES) / lengths).cos_()
  return features @ (torch.randn(FEATURES) * (2 / FEATURES) ** 0.5)


class Linear(nn.Module):
  """The linear mechanism of a node with so many parents."""

  def __init__(self, parents: int):
    super().__init__()
    self.register_buffer("weights", WEIGHT_SCALE * torch.randn(parents))
    self.sigma = torch.distributions.Gamma(NOISE_SHAPE, NOISE_RATE).sample()

  def forward(self, parents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    return parents @ self.weights + self.sigma * noise


class MLP(nn.Module):
  """The network of a node with so many parents."""

  def __init__(self, parents: int):
    super().__init__()
    self.net = nn.Sequential(nn.Linear(parents + 1, HIDDEN), nn.LeakyReLU(), nn.Linear(HIDDEN, HIDDEN),
                             nn.LeakyReLU(), nn.Linear(HIDDEN, 1))

  def forward(self, parents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    return self.net(torch.cat([parents, noise[:, None]], 1)).squeeze(-1)


class GP(nn.Module):
  """The Gaussian process of a node with so many parents."""

  def __init__(self, parents: int):
    super().__init__()
    lengths = torch.empty(parents + 1, 1).uniform_(*LENGTHS)
    self.register_buffer("omega", torch.randn(parents + 1, FEATURES) / lengths)
    self.register_buffer("phases", 2 * torch.pi * torch.rand(FEATURES))
    self.register_buffer("weights", torch.randn(FEATURES))

  def forward(self, parents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    features = torch.cos(torch.cat([parents, noise[:, None]], 1) @ self.omega + self.phases)
    return (2 / FEATURES) ** 0.5 * features @ self.weights


MECHANISMS = {"linear": linear, "mlp": mlp, "gp": gp}
MODULES = {"linear": Linear, "mlp": MLP, "gp": GP}


@torch.no_grad()
def sample_usual(seed: int, mechanism: str, nodes: int, rows: int) -> tuple[torch.Tensor, np.ndarray]:
  """As `sample_task`, the usual way."""
  rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
  graph = (erdos_renyi if rng.random() < 0.5 else scale_free)(rng, nodes)
  adjacency, modules = torch.from_numpy(graph), []
  for node in range(nodes):
    kind = MODULES[mechanism] if mechanism != "mixture" else list(MODULES.values())[rng.integers(3)]
    with torch.random.fork_rng(devices=[]):
      torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
      modules.append(kind(int(adjacency[:, node].sum())))
  values = torch.zeros(rows, nodes)
  for node in topological_order(graph):
    parents = torch.nonzero(adjacency[:, node]).flatten()
    values[:, node] = modules[node](values[:, parents], torch.randn(rows, generator=generator))
  return (values - values.mean(0)) / values.std(0, correction=0).clamp(min=1e-8), graph


def sample_task(seed: int, mechanism: str, nodes: int, rows: int) -> tuple[torch.Tensor, np.ndarray]:
  """Values [rows, nodes], standardised, and the graph [nodes, nodes] of one task; `mixture` draws a kind per node."""
  rng = np.random.default_rng(seed)
  torch.manual_seed(seed)
  graph = (erdos_renyi if rng.random() < 0.5 else scale_free)(rng, nodes)
  values = torch.zeros(rows, nodes)
  for node in topological_order(graph):
    kind = MECHANISMS[mechanism] if mechanism != "mixture" else list(MECHANISMS.values())[rng.integers(3)]
    parents = values[:, torch.from_numpy(np.flatnonzero(graph[:, node]))]
    values[:, node] = kind(rng, parents, torch.randn(rows))
  std, mean = torch.std_mean(values, 0, correction=0)
  return (values - mean) / std.clamp(min=1e-8), graph


def install_avici(folder: str) -> None:
  """Puts the package and the graph library it needs into a folder of their own."""
  subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
                  "--target", folder, *PACKAGES], check=True, stdout=sys.stderr)


def avici_samplers(folder: str, nodes: int, rows: int) -> dict:
  """Functions of a seed that make one standardised task with avici's own code, by mechanism."""
  sys.path.insert(0, folder)
  package = types.ModuleType("avici")
  package.__path__ = [os.path.join(folder, "avici")]
  sys.modules["avici"] = package
  synthetic = importlib.import_module("avici.synthetic")
  standardise = importlib.import_module("avici.utils.data").onp_standardize_data
  graphs = (synthetic.ErdosRenyi(EDGE_PROB * (nodes - 1) / 2), synthetic.ScaleFree(EDGES_PER_NODE))
  additive = {"bias": synthetic.Uniform(-3.0, 3.0), "noise": synthetic.Gaussian(),
              "noise_scale": synthetic.Uniform(0.2, 2.0)}
  kinds = {
      "linear": synthetic.LinearAdditive(param=synthetic.SignedUniform(1.0, 3.0), **additive),
      "rff": synthetic.RFFAdditive(length_scale=synthetic.Uniform(7.0, 10.0),
                                   output_scale=synthetic.Uniform(10.0, 20.0), **additive),
  }

  def sample(seed, mechanism):
    rng = np.random.default_rng(seed)
    graph = graphs[rng.integers(2)](rng, nodes)
    data = mechanism(rng, graph, rows, 0)
    task = standardise({"g": graph, "x_obs": data.x_obs, "x_int": data.x_int, "is_count_data": data.is_count_data})
    return task["x_obs"][..., 0], graph

  return {name: lambda seed, mechanism=mechanism: sample(seed, mechanism) for name, mechanism in kinds.items()}


def torch_samplers(sample, nodes: int, rows: int) -> dict:
  """Functions of a seed that make one task, by mechanism."""
  return {name: lambda seed, name=name: sample(seed, name, nodes, rows) for name in (*MECHANISMS, "mixture")}


def check(sample, nodes: int, rows: int) -> float:
  """Ensures that ten tasks are what they should be; their mean number of edges."""
  edges = []
  for seed in range(10):
    values, graph = sample(seed)
    values = np.asarray(values)
    assert values.shape == (rows, nodes) and np.isfinite(values).all(), values.shape
    assert np.abs(values.mean(0)).max() < 1e-3 and np.abs(values.std(0) - 1).max() < 1e-3
    assert len(topological_order(np.asarray(graph) > 0)) == nodes, "the graph has a cycle"
    edges.append(int(np.asarray(graph).sum()))
  return statistics.mean(edges)


def measure(samplers: dict, tasks: int, rounds: int, nodes: int, rows: int) -> dict:
  """CPU and wall milliseconds per task of every sampler; the samplers take turns."""
  edges = {name: check(sample, nodes, rows) for name, sample in samplers.items()}
  cpu, wall = {name: [] for name in samplers}, {name: [] for name in samplers}
  for i in range(rounds):
    for name, sample in samplers.items():
      start, start_cpu = time.perf_counter(), time.process_time()
      for seed in range(i * tasks, (i + 1) * tasks):
        sample(seed)
      cpu[name].append(1e3 * (time.process_time() - start_cpu) / tasks)
      wall[name].append(1e3 * (time.perf_counter() - start) / tasks)
  return {name: {"cpu_ms": statistics.median(cpu[name]), "cpu_ms_range": [min(cpu[name]), max(cpu[name])],
                 "wall_ms": statistics.median(wall[name]), "edges": edges[name]} for name in samplers}


def main() -> None:
  """Measures one peer and prints a JSON line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--peer", required=True, choices=("usual", "lean", "avici"))
  parser.add_argument("--nodes", type=int, default=20)
  parser.add_argument("--rows", type=int, default=256)
  parser.add_argument("--tasks", type=int, default=100, help="tasks a round")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--threads", type=int, default=1)
  parser.add_argument("--avici_dir", default="", help="folder with the avici package, not to install it again")
  flags = parser.parse_args()
  torch.set_num_threads(flags.threads)
  with tempfile.TemporaryDirectory() as folder:
    if flags.peer == "avici":
      if not flags.avici_dir:
        install_avici(folder)
      samplers = avici_samplers(flags.avici_dir or folder, flags.nodes, flags.rows)
    else:
      samplers = torch_samplers(sample_usual if flags.peer == "usual" else sample_task, flags.nodes, flags.rows)
    mechanisms = measure(samplers, flags.tasks, flags.rounds, flags.nodes, flags.rows)
  print(json.dumps({"peer": flags.peer, "mechanisms": mechanisms, "nodes": flags.nodes, "rows": flags.rows,
                    "tasks_per_round": flags.tasks, "rounds": flags.rounds, "threads": torch.get_num_threads(),
                    "torch_version": torch.__version__, "numpy_version": np.__version__}))


if __name__ == "__main__":
  main()
