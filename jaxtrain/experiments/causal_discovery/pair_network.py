"""A network that reads statistics of pairs of variables, and gives edge probabilities.

A network that attends over rows has to learn what a correlation is before it can use one. This one is given the
statistics of each ordered pair (`pair_statistics.py`) and learns how the statistics of different pairs explain each
other (`nets_pairs.py`). The number of rows enters the statistics alone, so that it costs the network nothing. The loss,
the penalty for cycles and the sampled graphs are those of AVICI (`avici.py`), or of its head `arrow` (`arrow.py`).

Training tasks have one number of rows and all their cells; hiding rows and cells, a share of each drawn anew for each
task, teaches other numbers of rows and missing cells. Tables that are unlike those of training are read with caution
(`caution.py`), outside training alone.
"""

import functools

import jax
import jax.numpy as jnp

from jaxtrain import rng
from jaxtrain.config import limits
from jaxtrain.experiments.causal_discovery import avici, caution, evaluate, nets_pairs, pair_statistics, predict
from jaxtrain.experiments.causal_discovery import training
from jaxtrain.types import Batch, Experiment

INIT_ROWS, METRICS = training.INIT_ROWS, training.METRICS
SINCE = avici.SINCE | {f"model.{name}": () for name in caution.FIELDS}
LIMITS = training.LIMITS | {
    "model.statistics": limits.each(limits.one_of(*pair_statistics.GROUPS), 1),
    "model.hidden_rows": limits.between(0, 1),
    "model.hidden_cells": limits.between(0, 1),
    "model.tail_range": limits.each(limits.between(0, 100)),
    "model.dependence_range": limits.each(limits.between(0, 1e6)),
    "model.correlation_weights": limits.each(limits.between(-100, 100)),
    "model.head": avici.LIMITS["model.head"],
    "model.penalty": avici.LIMITS["model.penalty"],
    "model.dim": avici.LIMITS["model.dim"],
    "model.num_blocks": avici.LIMITS["model.num_blocks"],
    "model.num_heads": avici.LIMITS["model.num_heads"],
    "model.ff_dim": avici.LIMITS["model.ff_dim"],
} | {name: limit for name, limit in avici.LIMITS.items() if name.startswith("model.dual.")}

load = training.load


def hide(key: jax.Array, observed: jax.Array, rows: float, cells: float) -> jax.Array:
  """`observed` [B, n, D] with some rows and cells of each task set to 0.

  The share of rows that stay is log-uniform between 1 - `rows` and 1, that of the cells that go is uniform between 0
  and `cells`; each row and each cell is decided by itself.
  """
  def one(key, observed):
    keys = jax.random.split(key, 4)
    left = (1.0 - rows) ** jax.random.uniform(keys[0])
    gone = cells * jax.random.uniform(keys[1])
    stays = jax.random.uniform(keys[2], observed.shape[:1]) < left
    return observed * stays[:, None] * (jax.random.uniform(keys[3], observed.shape) >= gone)
  return jax.vmap(one)(jax.random.split(key, len(observed)), observed)


def make_model(config) -> training.Model:
  """Statistics, network and posterior of a config. Raises UserError as `caution.check` does."""
  m = config.model
  caution.check(m)
  net = nets_pairs.PairNetwork(m.dim, m.num_blocks, m.num_heads, m.ff_dim, config.train.precision, m.head)

  def read(chunk: Batch, key: jax.Array, train: bool) -> jax.Array:
    values, observed = chunk["values"], caution.observed_of(chunk)
    if train and (m.hidden_rows or m.hidden_cells):
      observed = hide(key, observed, m.hidden_rows, m.hidden_cells)
    return pair_statistics.of_tasks(values, chunk["intervened"], observed, chunk["node_mask"], m.statistics)

  def init(key):
    table = jnp.zeros((1, 2, 2))
    task = {"values": table, "intervened": table, "node_mask": jnp.ones((1, 2))}
    return net.init(rng.stream_key(key, "init"), read(task, key, False), task["node_mask"])["params"]

  def outputs_of(params, chunk, key, train):
    network = lambda statistics: net.apply({"params": params}, statistics, chunk["node_mask"])
    statistics = read(chunk, key, train)
    outputs = network(statistics)
    return outputs if train else caution.temper(m, chunk, statistics, outputs, network)

  return avici.with_head(config, init, outputs_of)


def trained_rows(config) -> tuple[int, int]:
  """The fewest and the most rows of a training task that are not hidden, but for the few that chance takes beyond."""
  num_rows = config.data.num_rows + config.data.num_rows_int
  return round((1.0 - config.model.hidden_rows) * num_rows), num_rows


def make(config, meta) -> Experiment:
  """The experiment's pure functions."""
  model = make_model(config)
  return training.make(config, meta, model, evaluate.make_assess(config, meta, model),
                       predict.make_verbs(config, model, True, trained_rows(config),
                                          functools.partial(caution.say, config.model)))
