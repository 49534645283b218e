"""What a trained model does with a table of its user's: edge probabilities, and graphs sampled from the posterior.

`user_table.py` decides which columns and rows are used. A graph is written as a table, or drawn as
.png, .html, .dot and .graphml. The number of rows and of variables may differ from those of training; the further away,
the less the posterior is to be trusted.
"""

import functools
from typing import Any, Callable

import jax
import numpy as np

from jaxtrain.data import graphs, inputs
from jaxtrain.experiments.causal_discovery import training, user_table
from jaxtrain.types import Verb

NUM_ORDERS = 200  # orders that edge probabilities are averaged over, where a model has orders


def draw(write: Callable, path: str, state: Any, columns: Any, found: dict[str, np.ndarray]) -> None:
  """Writes a graph: `found` alone defines the drawing."""
  write(path, found)


def pairs_of(names: list[str], matrix: np.ndarray) -> dict[str, np.ndarray]:
  """Cause, effect and prob of each ordered pair of variables with these names; matrix [D, D]."""
  pairs = [(i, j) for i in range(len(names)) for j in range(len(names)) if i != j]
  text = lambda k: np.asarray([names[pair[k]] for pair in pairs], object)
  return {"cause": text(0), "effect": text(1), "prob": np.asarray([matrix[pair] for pair in pairs])}


def make_verbs(config, model: training.Model, incomplete: bool = False,
               num_rows: tuple[int, int] | None = None) -> dict[str, Verb]:
  """`graph`: cause, effect and probability of each ordered pair. `sample_graphs`: a graph a row, a column a pair.

  Args:
    config, model: of the run.
    incomplete: whether the model reads rows with missing cells, by the mask `observed` of a task.
    num_rows: the fewest and the most rows that it was trained on; None where all training tasks have the same number.
  """
  def posterior(state, columns, key, num):
    table = user_table.read(columns, incomplete)
    task = user_table.task_of(table)
    training.check_sizes(config.model, task["values"].shape[1])
    inputs.check_num(num, 64 * len(table.names) ** 2)
    _, probs, drawn = jax.jit(model.posterior, static_argnums=3)(state.applied, task, key, num)
    return table.names, np.asarray(probs[0], np.float64), np.asarray(drawn[0])

  def graph(state, columns, num, key):
    names, probs, _ = posterior(state, columns, key, NUM_ORDERS)
    return pairs_of(names, probs)

  def sample_graphs(state, columns, num, key):
    names, _, drawn = posterior(state, columns, key, num)
    return {f"{cause}->{effect}": drawn[:, i, j].astype(np.int64) for i, cause in enumerate(names)
            for j, effect in enumerate(names) if i != j}

  def say(columns, found):
    del found
    of_tasks = config.data.num_rows + config.data.num_rows_int
    return user_table.say(columns, incomplete, config.data.num_nodes, num_rows or (of_tasks, of_tasks))

  return {"graph": Verb(graph, None, "mean", carries=False, companions=(user_table.SUFFIX,),
                        writers={suffix: functools.partial(draw, write) for suffix, write in graphs.WRITERS.items()},
                        say=lambda columns, found: [*say(columns, found), *graphs.strongest(found)], makes="pairs"),
          "sample_graphs": Verb(sample_graphs, None, "turns", counts=True, carries=False,
                                companions=(user_table.SUFFIX,), say=say, makes="graphs")}
