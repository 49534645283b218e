"""Does a synthetic table keep the causal structure of the real one? Graphs read off rows that the tabular VAE samples.

  python tests/benchmarks/structure_of_samples.py --json=structure.json
  python tests/benchmarks/structure_of_samples.py --workdir=runs/c --tables=10

Simulated causal models of 10 variables and 2,000 rows, whose graphs are known, stand for real tables. On each the VAE
is trained (the recipe of `configs/vae.py:csv`, all rows), all tables as one program, and asked for as many rows. The
network of causal discovery reads graphs off

  real    the table itself
  half    a half of its rows, drawn at random: what fewer rows cost
  means   rows of the VAE as `--verb=sample` gives them: means of p(x | z) for z from the prior
  noisy   the same with Gaussian noise of the variance that the VAE's reconstruction leaves of each variable

Each row of the table is the mean AUROC over tables with its 95 % interval by Student's t, and the paired loss against
`real`.
"""

import os
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

import bench
import jaxtrain
from jaxtrain import config as config_lib, loop, rng
from jaxtrain.data import writing
from jaxtrain.experiments.causal_discovery import scores, task_files
from jaxtrain.experiments.tabular_vae import predict as vae_verbs, vae

TASKS = {"data.num_nodes": (10,), "data.pad_to": (), "data.num_rows": 2000, "data.num_rows_int": 0,
         "data.corruptions": ("none",), "eval.suite": ""}
TRAINING = {"data.source": "npz", "data.split.kind": "none", "data.transforms": (), "train.patience": 0,
            "train.monitor": "train_loss", "optim.plateau.monitor": "train_loss"}
READINGS = ("real", "half", "means", "noisy")


def read(path: str, fields: dict):
  """The config of a file of this clone, with other values at dotted keys."""
  return config_lib.with_values(config_lib.read_file(os.path.join(bench.ROOT, path)), fields)


def make_tables(num: int) -> list[dict[str, np.ndarray]]:
  """`values` [n, D] and `adjacency` [D, D] of some test tasks of the kept model's families."""
  config = read("configs/causal_discovery.py:kept", TASKS | {"eval.max_test_tasks": num})
  [source] = task_files.sources_of(config).values()
  return list(task_files.unpacked(source))


def sample(tables: list[np.ndarray], num_epochs: int) -> list[tuple[np.ndarray, np.ndarray]]:
  """(means, noisy) [n, D] for each table [n, D], all VAEs trained as one program, in scaled units."""
  names = [f"x{d}" for d in range(tables[0].shape[1])]
  with tempfile.TemporaryDirectory() as folder:
    splits = []
    for k, table in enumerate(tables):
      path = os.path.join(folder, f"{k}.npz")
      writing.write(path, dict(zip(names, table.T)))
      config = read("configs/vae.py:csv", TRAINING | {"data.path": path, "data.features": tuple(names),
                                                      "train.num_epochs": num_epochs})
      splits.append(vae.load(config))
    train = loop.make_train(config, splits[0].meta)
  data = jax.tree.map(lambda *columns: jnp.asarray(np.stack(columns)), *(one.train.data for one in splits))
  model, n = vae.make_model(config, splits[0].meta), len(tables[0])

  def one(number, data):
    state = train(rng.root_key(number), {}, data)
    variables, key = vae_verbs.variables_of(state), jax.random.key(number)
    draws = jax.random.normal(key, (n, config.model.latent_dim))
    means = vae_verbs.decode(model, variables, draws)
    left = jnp.sqrt(jnp.mean(jnp.square(vae_verbs.reconstruct(model, variables, data["x"]) - data["x"]), 0))
    return means, means + left[None] * jax.random.normal(jax.random.fold_in(key, 1), means.shape)
  made = jax.jit(jax.vmap(one))(jnp.arange(len(tables)), data)
  return [tuple(np.asarray(part[k]) for part in made) for k in range(len(tables))]


def area(run, values: np.ndarray, truth: np.ndarray) -> float:
  """AUROC of the edges that a trained run reads off a table [n, D]."""
  D = len(truth)
  prob = np.zeros((D, D))
  prob[~np.eye(D, dtype=bool)] = run.graph({f"x{d}": values[:, d] for d in range(D)})["prob"]
  found, has_both = scores.auroc(jnp.float32(prob), jnp.float32(truth), jnp.ones(D))
  return float(found) if has_both else float("nan")


def measure(workdir: str, num_tables: int, num_epochs: int) -> dict[str, dict]:
  """AUROC by reading, with the loss against the real table; values of each table are kept too."""
  run, tasks = jaxtrain.load(workdir), make_tables(num_tables)
  rows = [task["values"] for task in tasks]
  made = sample(rows, num_epochs)
  halves = [values[np.random.default_rng(k).permutation(len(values))[::2]] for k, values in enumerate(rows)]
  areas = {name: np.array([area(run, values, task["adjacency"]) for values, task in zip(tables, tasks)])
           for name, tables in zip(READINGS, (rows, halves, *zip(*made)))}
  there = np.isfinite(areas["real"])
  found = {}
  for name, values in areas.items():
    mean, half = bench.interval(values[there].tolist())
    less, less_half = bench.interval((areas["real"] - values)[there].tolist())
    found[name] = {"auroc": mean, "half": half, "loss": less, "loss_half": less_half, "values": values.tolist()}
  return found


def main() -> None:
  """Measures and tells."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--workdir", default="kept:causal_discovery", help="a trained run of causal discovery")
  parser.add_argument("--tables", type=int, default=25)
  parser.add_argument("--epochs", type=int, default=100, help="of the VAE")
  given = parser.parse_args()
  found = measure(given.workdir, given.tables, given.epochs)
  bench.say_row("rows", "AUROC", "loss")
  bench.say_row(*["---"] * 3)
  for name, row in found.items():
    bench.say_row(name, [row["auroc"], row["half"]], [row["loss"], row["loss_half"]])
  bench.tell(found, given.json)


if __name__ == "__main__":
  main()
