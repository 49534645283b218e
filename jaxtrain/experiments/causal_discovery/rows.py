"""Posteriors of tables with more rows than a network reads at once.

Networks that attend over rows need memory that grows with the square of their number. A longer table is split into
groups of rows, row r into group r mod G, and what the network gives for each (logits, scores of an order) is averaged:
each group is a table like those of training, and the average is less noisy than one of them, though not as sure as a
network that read all rows together could be. The network on pair statistics sums over rows, and takes any number.
"""

import math

import jax
import numpy as np

from jaxtrain.experiments.causal_discovery import training
from jaxtrain.types import Batch

MEMORY = 2**30  # bytes of the attention of all rows to all rows, every head and variable at once
FEWEST = 16  # rows of a group, however many variables there are


def num_groups(model, num_rows: int, num_nodes: int) -> int:
  """Groups that a table is split into; 1 where it is read whole.

  Args:
    model: the section of the config. num_rows, num_nodes: of the table.
  """
  if "num_heads" not in model:
    return 1
  most = max(math.isqrt(MEMORY // (4 * model.num_heads * num_nodes)), FEWEST)
  if model.sample_chunk:  # rows are attended to in chunks, which have to be whole
    if num_rows <= model.sample_chunk or num_rows % model.sample_chunk == 0:
      return 1
    most = min(most, model.sample_chunk)
  return -(-num_rows // most)


def group(task: Batch, num: int) -> Batch:
  """A task [1, n, D] with its rows in `num` groups, [1, num, n / num, D]; less than `num` rows are there twice."""
  n = task["values"].shape[1]
  index = np.arange(-(-n // num) * num).reshape(-1, num).T % n
  return task | {name: task[name][:, index] for name in ("values", "intervened")}


def posterior(config, model: training.Model, incomplete: bool, params, task: Batch, key: jax.Array,
              num: int) -> tuple[np.ndarray, np.ndarray]:
  """(edge probabilities [D, D] float64, graphs [num, D, D]) of a task [1, n, D].

  Args:
    config, model: of the run. incomplete: whether it is the network on pair statistics.
  """
  _, n, D = task["values"].shape
  count = 1 if incomplete else num_groups(config.model, n, D)
  if count > 1:
    task = group(task, count)
  _, probs, drawn = jax.jit(model.posterior, static_argnums=3)(params, task, key, num)
  return np.asarray(probs[0], np.float64), np.asarray(drawn[0])


def say(config, incomplete: bool, shape: tuple[int, int]) -> list[str]:
  """A line on a table [n, D] that is read in groups."""
  count = 1 if incomplete else num_groups(config.model, *shape)
  if count == 1:
    return []
  return [f"{shape[0]:,} rows are read in {count} groups of {-(-shape[0] // count):,}, whose logits are averaged: what "
          f"attends over rows is kept within {MEMORY >> 20:,} MiB"]
