"""What a trained model does with a table of its user's: edge probabilities, and graphs sampled from the posterior.

All columns are variables, or those of --columns, and all rows without missing cells samples. A graph is written as a
table, or drawn as .png, .html, .dot and .graphml. A column `<name>_intervened` of zeros and ones marks the rows in
which `<name>` was set from outside. Columns are standardised over the rows, as tasks are. The number of rows and of
variables may differ from those of training; the further away, the less the posterior is to be trusted.
"""

import functools
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.data import files, graphs, inputs
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import training
from jaxtrain.types import Verb

SUFFIX = "_intervened"
NUM_ORDERS = 200  # orders that edge probabilities are averaged over, where a model has orders


def read_task(columns: files.Columns) -> tuple[list[str], dict[str, jax.Array]]:
  """(names, one task) of a file. Raises UserError for a table that is none."""
  names, x, marks = read_numbers(columns)
  for r, d in np.argwhere(np.isinf(x))[:1]:
    raise UserError(f"{columns.path}: column {names[d]!r}, {columns.row(r)}: {x[r, d]}, allowed a finite number")
  for r, d in np.argwhere((marks != 0) & (marks != 1) & ~np.isnan(marks))[:1]:
    raise UserError(f"{columns.path}: column {names[d] + SUFFIX!r}, {columns.row(r)}: {marks[r, d]}, allowed 0 or 1")
  whole = ~np.isnan(x + marks).any(axis=1)
  if len(names) < 2 or whole.sum() < 2:
    raise UserError(f"{columns.path}: got {len(names)} variables and {whole.sum()} rows"
                    f"{'' if whole.all() else ' without missing cells'}, allowed 2 or more of each")
  x, marks = x[whole], marks[whole]
  for d in np.flatnonzero(x.std(0) <= 1e-9 * np.abs(x).max(0))[:1]:
    raise UserError(f"{columns.path}: column {names[d]!r} is constant")
  D, values = len(names), (x - x.mean(0)) / x.std(0)
  return names, {"values": jnp.asarray(values, jnp.float32)[None], "intervened": jnp.asarray(marks, jnp.float32)[None],
                 "adjacency": jnp.zeros((1, D, D)), "node_mask": jnp.ones((1, D)), "weight": jnp.ones((1,)),
                 "rejected": jnp.zeros((1,))}


def read_numbers(columns: files.Columns) -> tuple[list[str], np.ndarray, np.ndarray]:
  """(names of variables, values [N, D], marks of interventions [N, D]) of all rows, NaN where a cell is missing.

  Raises UserError for a column that is not of numbers.
  """
  names = [name for name in columns.values if not name.endswith(SUFFIX)]
  marked = [name.removesuffix(SUFFIX) for name in columns.values if name.endswith(SUFFIX)]
  for name in marked:
    if name not in names:
      raise UserError(f"{columns.path}: column {name + SUFFIX!r} marks a variable {name!r} that is not there")
  try:
    values = [columns.numbers(name) for name in names]
  except UserError as error:
    raise UserError(f"{error.message}; choose the columns of numbers with --columns") from None
  marks = [columns.numbers(name + SUFFIX) if name in marked else np.zeros(columns.num_rows) for name in names]
  return names, *(np.reshape(part, (len(names), columns.num_rows)).T for part in (values, marks))


def say_rows(columns: files.Columns, found: dict[str, np.ndarray]) -> list[str]:
  """A line that counts the rows that were left out; none where all were used."""
  _, x, marks = read_numbers(columns)
  num_left = int(np.isnan(x + marks).any(axis=1).sum())
  return [f"{len(x) - num_left:,} of {len(x):,} rows, {num_left:,} with missing cells left out"] * bool(num_left)


def draw(write: Callable, path: str, state: Any, columns: Any, found: dict[str, np.ndarray]) -> None:
  """Writes a graph, which its columns say all of."""
  write(path, found)


def make_verbs(config, model: training.Model) -> dict[str, Verb]:
  """`graph`: cause, effect and probability of each ordered pair. `sample_graphs`: a graph a row, a column a pair."""
  def posterior(state, columns, key, num):
    names, task = read_task(columns)
    training.check_sizes(config.model, task["values"].shape[1])
    inputs.check_num(num, 64 * len(names) ** 2)
    _, probs, drawn = jax.jit(model.posterior, static_argnums=3)(state.applied, task, key, num)
    pairs = [(i, j) for i in range(len(names)) for j in range(len(names)) if i != j]
    return names, np.asarray(probs[0], np.float64), np.asarray(drawn[0]), pairs

  def graph(state, columns, num, key):
    names, probs, _, pairs = posterior(state, columns, key, NUM_ORDERS)
    text = lambda k: np.asarray([names[pair[k]] for pair in pairs], object)
    return {"cause": text(0), "effect": text(1), "prob": np.asarray([probs[pair] for pair in pairs])}

  def sample_graphs(state, columns, num, key):
    names, _, drawn, pairs = posterior(state, columns, key, num)
    return {f"{names[i]}->{names[j]}": drawn[:, i, j].astype(np.int64) for i, j in pairs}

  return {"graph": Verb(graph, None, "mean", carries=False, companions=(SUFFIX,),
                        writers={suffix: functools.partial(draw, write) for suffix, write in graphs.WRITERS.items()},
                        say=lambda columns, found: [*say_rows(columns, found), *graphs.strongest(found)],
                        makes="pairs"),
          "sample_graphs": Verb(sample_graphs, None, "turns", counts=True, carries=False, companions=(SUFFIX,),
                                say=say_rows, makes="graphs")}
