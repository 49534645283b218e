"""Conformance of every config and variant: what every experiment promises, found by glob and tested alike."""

import csv
import glob
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import child
import cores
from jaxtrain import config as config_lib, loop, step as step_lib
from jaxtrain.config import fields
from jaxtrain.devices import parallel
from jaxtrain.run import setup

FILES = sorted(glob.glob(os.path.join(child.ROOT, "configs", "*.py")))


def variants(path: str) -> list[str]:
  """Variants of a config file, as its own message lists them."""
  with pytest.raises(fields.UserError) as caught:
    config_lib.read_file(f"{path}:no-such-variant")
  return str(caught.value).rsplit("allowed ", 1)[1].split(", ")


CASES = [(path, variant) for path in FILES for variant in variants(path)]
NAMES = [f"{os.path.basename(path)[:-3]}-{variant}" for path, variant in CASES]
# Variants that compile for long are slow tests; those that differ from another in size alone are checked, not trained.
SLOW = tuple(f"causal_discovery-{variant}" for variant in ("bcnp", "bcnp_pl", "avici_lite", "paper_all_data"))
SIZES = tuple(f"causal_discovery-{variant}" for variant in ("cpu", "avici", "bcnp_local_large", "benchmark"))
MATRIX = ("causal_discovery-bcnp", "causal_discovery-paper_all_data")  # of the slow ones, those that CI leaves out
MARKS = {name: [pytest.mark.slow] + [pytest.mark.matrix] * (name in MATRIX) if name in SLOW else [pytest.mark.smoke]
         for name in NAMES}
TRAINED = [pytest.param(case, id=name, marks=MARKS[name]) for case, name in zip(CASES, NAMES) if name not in SIZES]
CHECKED = [pytest.param(case, id=name, marks=[pytest.mark.slow] * (name in SLOW + SIZES) + [
    pytest.mark.matrix] * (name in SIZES)) for case, name in zip(CASES, NAMES)]
EPOCH = 4  # steps of a stream that are tested in place of an epoch
STREAM = {"data.num_nodes": (4, 5), "data.pad_to": (5,), "data.num_rows": 12, "data.num_rows_int": 0,
          "data.task_chunk": 4, "train.batch_size": 8, "eval.max_val_tasks": 8, "eval.max_test_tasks": 0,
          "eval.val_num_samples": 4, "eval.test_num_samples": 4, "eval.every_steps": EPOCH,
          "checkpoint.every_steps": EPOCH, "log.every_steps": 0}
NETS = {"model.dim": 8, "model.num_heads": 2, "model.ff_dim": 8, "model.num_blocks": 2, "model.key_size": 4,
        "model.num_layers": 2, "model.num_layers_decoder": 2, "model.n_perm_samples": 3, "model.sinkhorn_iter": 5}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
  """A CSV file and a TFDS dataset for the variants that read one, by source."""
  folder = tmp_path_factory.mktemp("table")
  path = str(folder / "table.csv")
  random = np.random.RandomState(0)
  with open(path, "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["well", "a", "b", "c"])
    for i in range(600):
      writer.writerow([f"w{i // 20}", *random.normal(size=3).round(4)])
  return {"csv": path, "tfds": cores.write("tfds", folder)}


def small(path, variant, table, num_epochs=2, **overrides):
  """A variant at a size of seconds: few rows, two epochs; of a stream `EPOCH` steps for each, of what is trained."""
  config = config_lib.read_file(f"{path}:{variant}")
  values = {"train.num_epochs": num_epochs, "train.num_steps": 0, "log.figures": "none", "log.progress": False,
            "checkpoint.every_epochs": 1}
  if "num_nodes" in config.data:
    values |= STREAM | {"train.num_epochs": 0, "train.num_steps": EPOCH * num_epochs * (variant != "random")}
    values |= {key: value for key, value in NETS.items() if key.removeprefix("model.") in config.model}
    sized = lambda text: "er num_edges=2" if "num_edges" in text else "sf m=1" if "sf" in text else text
    values["data.graphs"] = tuple(map(sized, config.data.graphs))
  if "source" in config.data and config.data.source == "synthetic":
    values["data.row_limit"] = 1500
  if "source" in config.data and config.data.source == "csv":
    values |= {"data.path": table["csv"], "data.features": ("a", "b", "c"), "data.group": "well"}
  if "source" in config.data and config.data.source == "tfds":
    values |= {"data.path": table["tfds"], "data.features": cores.FEATURES, "train.batch_size": 64}
  for key, value in (values | overrides).items():
    config_lib.assign(config, key, value)
  return config


@pytest.mark.parametrize("case", TRAINED)
def test_trains_resumes_and_repeats(case, table, tmp_path):
  """Finite loss; a run stopped after one epoch and continued equals one never stopped: digest and losses. What has
  nothing to train gives the same twice.
  """
  straight = loop.train(small(*case, table), str(tmp_path / "straight"))
  loop.train(small(*case, table, num_epochs=1), str(tmp_path / "stopped"))
  resumed = loop.train(small(*case, table), str(tmp_path / "stopped"))
  assert resumed.digest == straight.digest
  if not straight.history:
    assert case[1] == "random"
    return
  assert np.isfinite(straight.history["loss"]).all() and len(straight.history["loss"]) == 2
  assert resumed.history["loss"] == straight.history["loss"]
  assert child.resume_steps(str(tmp_path / "stopped"))[-1] > 0


@pytest.mark.parametrize("case", CHECKED)
def test_check_describes_without_computing(case, table):
  described = loop.check(small(*case, table))
  assert described["parameters"] > 0 or case[1] == "random"
  assert any(key.startswith("batch ") and key.endswith("weight") for key in described)
  assert "loss" in described["metrics"].split(", ")


@pytest.mark.parametrize("path", FILES, ids=[os.path.basename(path)[:-3] for path in FILES])
def test_every_config_has_smoke_and_another_seed_differs(path, table):
  assert "smoke" in variants(path)
  digests = [loop.train(small(path, "smoke", table, 1, seed=seed)).digest for seed in (1, 1, 2)]
  assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("path", FILES, ids=[os.path.basename(path)[:-3] for path in FILES])
def test_a_vmapped_member_equals_its_solo_run(path, table):
  """Two learning rates as one program, and each alone, 20 steps: losses agree to 1e-5."""
  parts = setup.assemble(config_lib.resolve(small(path, "smoke", table)))
  module = config_lib.load_experiment(parts.config.experiment)
  rates, seeds = jnp.array([1e-3, 3e-3]), jnp.array([5, 6])
  data = jax.device_put(parts.splits.train.data)

  def train(rate, seed):
    config = config_lib.substitute(parts.config, {"optim.learning_rate": rate})
    experiment = module.make(config, parts.splits.meta)
    one_step = step_lib.make_one_step(experiment, parts.splits.train, parallel.over_whole, "halt")
    totals = step_lib.zero_totals(parts.totals)
    return step_lib.make_repeat(one_step)(experiment.init(jax.random.key(seed), {}), totals, data, 20)[1]["loss"]

  together = jax.jit(jax.vmap(train))(rates, seeds)
  for i in range(2):
    alone = jax.jit(train)(rates[i], seeds[i])
    np.testing.assert_allclose(together[0][i] / together[1][i], alone[0] / alone[1], rtol=1e-5)


MODES = """
import sys, jax
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
from jaxtrain import config as config_lib, loop
path, batch_norm = sys.argv[1], sys.argv[2] == "True"
results = {}
for mode, chunks in (("jit", 1), ("pmap", 2), ("canonical", 2)):
  config = config_lib.read_file(path + ":smoke")
  values = {"train.num_epochs": 1, "parallel.mode": mode, "parallel.chunks": chunks, "log.progress": False,
            "data.row_limit": 1500, "model.batch_norm": batch_norm}
  for key, value in values.items():
    config_lib.assign(config, key, value)
  result = loop.train(config)
  results[mode] = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(result.state.params)])
gap = lambda a, b: float(np.abs(results[a] - results[b]).max())
print("GAPS", gap("pmap", "canonical"), gap("jit", "canonical"))
"""


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("path", [path for path in FILES if path.endswith("vae.py")])
def test_parallel_modes_agree_as_promised(path, batch_norm):
  """On two devices: pmap equals canonical with two chunks; jit equals both where there is no BatchNorm, not where there
  is.
  """
  import subprocess
  import sys
  done = subprocess.run([sys.executable, "-c", MODES, path, str(batch_norm)], cwd=child.ROOT, capture_output=True,
                        text=True,
                        timeout=300)
  assert done.returncode == 0, done.stderr[-2000:]
  pmap_gap, jit_gap = map(float, done.stdout.split("GAPS ")[1].split())
  assert pmap_gap < 1e-5
  assert (jit_gap > 1e-5) if batch_norm else (jit_gap < 1e-5)
