"""The experiment on pair statistics: missing cells in a batch, one digest on any number of devices, bad configs."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import child
from jaxtrain import config as config_lib
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import pair_network, training
from jaxtrain.run import check

# A test calls what it compiles a few times: half the time to compile is worth more than fast code.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
quick_jit = functools.partial(jax.jit, compiler_options=QUICK)

PATH = os.path.join(child.ROOT, "configs", "causal_discovery.py")
TINY = {"data.num_nodes": (4, 5), "data.pad_to": (5,), "data.graphs": ("er edge_prob=0.5",),
        "data.mechanisms": ("linear",), "data.num_rows": 20, "data.num_rows_int": 8, "data.task_chunk": 4,
        "train.batch_size": 8, "train.num_steps": 20, "model.dim": 8, "model.num_heads": 2, "model.ff_dim": 8,
        "model.num_blocks": 1, "model.hidden_rows": 0.5, "model.dual.interval": 2, "eval.max_val_tasks": 8,
        "eval.max_test_tasks": 0,
        "eval.val_num_samples": 4, "eval.every_steps": 10, "checkpoint.every_steps": 10, "log.every_steps": 10}


def configured(**changed):
  """The variant at a size of seconds."""
  config = config_lib.read_file(f"{PATH}:pairs")
  for key, value in (TINY | {key.replace("__", "."): value for key, value in changed.items()}).items():
    config_lib.assign(config, key, value)
  return config_lib.resolve(config)


@pytest.mark.slow
def test_cells_that_are_not_observed_are_never_read():
  """A batch without the mask has all its cells; with it, nothing depends on what stands in the others."""
  config = configured(data__num_rows_int=0, model__statistics=("linear", "moments"))
  model = pair_network.make_model(config)
  random = np.random.RandomState(0)
  batch = {"values": random.normal(size=(2, 20, 4)).astype(np.float32), "intervened": np.zeros((2, 20, 4), np.float32),
           "node_mask": np.ones((2, 4), np.float32), "adjacency": np.zeros((2, 4, 4), np.float32)}
  seen = (random.rand(2, 20, 4) < 0.7).astype(np.float32)
  params = jax.tree.map(lambda x: x + 0.1, model.init(jax.random.key(0)))
  probs = quick_jit(lambda chunk: model.terms(params, chunk, jax.random.key(1), True)[1])
  np.testing.assert_array_equal(probs(batch), probs(batch | {"observed": np.ones_like(seen)}))
  some = probs(batch | {"observed": seen})
  assert np.abs(np.asarray(some - probs(batch))).max() > 1e-3
  filled = jnp.where(seen > 0, batch["values"], jnp.nan)
  np.testing.assert_array_equal(probs(batch | {"observed": seen, "values": filled}), some)


def test_training_hides_rows_and_cells_of_each_task_by_its_own_share():
  """Of 3,000 tasks: the logarithm of the share of rows that stay, and the share of cells that go, are uniform.

  Bounds are 5 standard errors of the mean of 3,000 uniform numbers, 5 x 0.29 / 55.
  """
  draw = quick_jit(lambda: (pair_network.hide(jax.random.key(0), jnp.ones((3000, 100, 3)), 0.9, 0.4),
                            pair_network.hide(jax.random.key(1), jnp.ones((20, 50, 3)), 0.9, 0.0)))
  seen, rows_alone = map(np.asarray, draw())
  assert set(np.unique(seen)) == {0, 1}
  rows = seen.any(2).mean(1)  # of three cells one is there but for a row that was hidden, and 6 % at the most
  assert 0.02 <= rows.min() and rows.max() <= 1
  cells = seen.sum((1, 2)) / (3 * np.maximum(100 * rows, 1))
  assert abs((1 - cells).mean() / 0.4 - 0.5) < 0.03 and (1 - cells).max() < 0.7
  assert abs(np.log10(rows).mean() + 0.5) < 0.03
  assert (rows_alone == rows_alone[:, :, :1]).all() and 0 < rows_alone.mean() < 1


@pytest.mark.slow
def test_one_digest_on_one_two_and_eight_devices(tmp_path):
  """Canonical mode: padded tasks, interventions, a dual weight that rises."""
  flags = [f"--config={PATH}:pairs", "--config.parallel.mode=canonical", "--config.parallel.chunks=8",
           "--config.log.figures=none", "--config.log.progress=False", "--config.data.task_chunk=1"]
  flags += [f"--config.{key}={','.join(map(str, value)) + ',' if isinstance(value, tuple) else value}"
            for key, value in TINY.items() if key != "data.task_chunk"]
  digests = set()
  for num_devices in (1, 2, 8):
    environ = child.USUAL | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices}"}
    workdir = str(tmp_path / str(num_devices))
    done = child.run(*flags, f"--workdir={workdir}", environ=environ, timeout=300)
    assert done.returncode == 0 and f"on {num_devices} x cpu" in done.stdout, done.stderr
    digests.add(child.inspect(workdir)["digest"])
  assert len(digests) == 1


@pytest.mark.parametrize("changed, words", [
    ({"model__statistics": ("linear", "cubic")}, "config.model.statistics: got ('linear', 'cubic'), allowed linear | "),
    ({"model__statistics": ()}, "config.model.statistics"),
    ({"model__hidden_rows": 1.0}, "config.model.hidden_rows: got 1.0, allowed 0 or more and below 1"),
    ({"model__hidden_cells": -0.1}, "config.model.hidden_cells: got -0.1, allowed 0 or more and below 1"),
    ({"model__num_heads": 3}, "config.model.num_heads: got 3, allowed divisors of config.model.dim = 8"),
    ({"model__num_blocks": 0}, "config.model.num_blocks: got 0, allowed 1 to"),
    ({"model__penalty": "none"}, "config.model.penalty: got 'none', allowed spectral | exponential"),
    ({"model__dual__rate": -1.0}, "config.model.dual.rate")])
def test_bad_configs_are_refused_in_a_line(changed, words):
  with pytest.raises(UserError) as caught:
    check.describe(configured(**changed))
  assert words in str(caught.value) and "\n" not in str(caught.value)


def test_widths_and_statistics_set_the_number_of_parameters():
  """Embedding; in a block the inputs, nodes, paths, hidden layer and output with their norms; the logits."""
  config = configured(model__statistics=("linear",), model__num_blocks=3)
  C, H, F, features = 8, 2, 8, 8 + 6
  block = (2 * C + C * (4 * C + 2 * H) + 4 * C + 2 * H) + (2 * C * 2 * C + 2 * C) + (2 * C + C * C + C)
  block += (2 * C + C * F + F) + (F * C + C)
  shapes = jax.eval_shape(pair_network.make_model(config).init, jax.random.key(0))
  assert sum(x.size for x in jax.tree.leaves(shapes)) == features * C + C + 3 * block + (2 * C + C + 1)
  assert training.load(config).meta["num_nodes"] == [4, 5]


def test_the_rows_of_training_are_those_that_hiding_leaves():
  config = configured(data__num_rows=490, data__num_rows_int=10, model__hidden_rows=0.9)
  assert pair_network.trained_rows(config) == (50, 500)
  assert pair_network.trained_rows(configured(model__hidden_rows=0.0)) == (28, 28)
