"""Tasks as files for any other method, and the graphs that a method finds, read back and judged by our metrics.

  FOLDER/<family>/0000.csv         a table: a column for each variable; `<name>_intervened` marks rows in which it was
                                   set; an empty cell is missing
  FOLDER/<family>/0000.truth.csv   cause, effect, and 1 or 0, for each ordered pair
  GRAPHS/<family>/0000.csv         what a method found: cause, effect, prob of each ordered pair, as the verb `graph`
                                   writes it; or a column `a->b` for each pair and a row for each sampled graph, as
                                   `sample_graphs` does

Pairs that a file of graphs leaves out have no edge. A file of probabilities counts as one graph: the edges above 0.5.
"""

import os
from typing import Any, Iterator

import jax
import numpy as np

from jaxtrain import statistics
from jaxtrain.data import files, writing
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import knowledge, metrics, named, predict, real_tables, training, user_table
from jaxtrain.experiments.causal_discovery import tasks as tasks_lib
from jaxtrain.types import Source

TRUTH = ".truth.csv"


def sources_of(config) -> dict[str, Source]:
  """The test tasks of a config by family, those of the training distribution first.

  Raises:
    UserError: there are none.
  """
  if not config.eval.max_test_tasks:
    raise UserError("config.eval.max_test_tasks: got 0, allowed 1 or more: so many tasks of each family are written")
  found = {named.TRAINING: training.load(config).test}
  return found | {family.name: named.source(family, config, "test") for family in named.of_config(config, "test")}


def unpacked(source: Source) -> Iterator[dict[str, np.ndarray]]:
  """Tasks of a source on the host, real variables alone, those that were rejected left out.

  Each has `values` and `intervened` [n, D], `observed` [n, D] bool, `adjacency` [D, D].
  """
  for batch in map(jax.device_get, tasks_lib.batches(source, jax.random.key(0))):
    there = batch["observed"] > 0 if "observed" in batch else np.ones(batch["values"].shape, bool)
    for k in np.flatnonzero(batch["weight"]):
      d = int(batch["node_mask"][k].sum())
      yield {"values": batch["values"][k, :, :d].astype(np.float64), "intervened": batch["intervened"][k, :, :d],
             "observed": there[k, :, :d], "adjacency": batch["adjacency"][k, :d, :d]}


def columns_of(task: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The columns of a task's table, `x0` and so on."""
  values = np.where(task["observed"], task["values"], np.nan)
  found = {f"x{j}": values[:, j] for j in range(values.shape[1])}
  marked = np.flatnonzero(task["intervened"].any(0))
  return found | {f"x{j}{user_table.SUFFIX}": task["intervened"][:, j].astype(np.int64) for j in marked}


def write_tasks(config, folder: str) -> int:
  """Writes the test tasks of a config into a folder and returns their number.

  Raises:
    UserError: the folder holds something already, or there are no tasks.
  """
  check_empty(folder)
  count = 0
  for name, source in sources_of(config).items():
    for k, task in enumerate(unpacked(source)):
      write_task(os.path.join(folder, name, f"{k:04d}"), columns_of(task), task["adjacency"])
      count += 1
  return count


def write_task(stem: str, table: dict[str, np.ndarray], adjacency: np.ndarray) -> None:
  """Writes the table of a task and its true graph [D, D], in the order of the columns that are variables."""
  os.makedirs(os.path.dirname(stem), exist_ok=True)
  writing.write(f"{stem}.csv", table)
  names = [column for column in table if not column.endswith(user_table.SUFFIX)]
  writing.write(f"{stem}{TRUTH}", predict.pairs_of(names, adjacency.astype(np.int64)))


def write_real(found: dict[str, dict[str, real_tables.Real]], folder: str) -> int:
  """Writes measured tables and their graphs as tasks into a folder and returns their number.

  Raises:
    UserError: the folder holds something already.
  """
  check_empty(folder)
  for name, tasks in found.items():
    for key, task in tasks.items():
      write_task(os.path.join(folder, name, key), dict(zip(task.names, task.values.T)), task.graph)
  return sum(map(len, found.values()))


def read_tasks(folder: str) -> dict[str, list[dict[str, np.ndarray]]]:
  """Family -> its tasks, as `unpacked` gives them, of a folder that this module wrote; variables are standardised.

  Raises:
    UserError: it holds no tasks.
  """
  found: dict[str, list] = {}
  for family in families_of(folder):
    for stem in stems_of(os.path.join(folder, family)):
      table = user_table.read_numbers(files.read("csv", f"{stem}.csv", field="--tasks"))
      truth = files.read("csv", f"{stem}{TRUTH}", field="--tasks")
      scale = np.nanstd(table.values, 0)
      values = (table.values - np.nanmean(table.values, 0)) / np.where(scale > 0, scale, 1.0)
      there = ~np.isnan(values)
      found.setdefault(family, []).append({
          "values": np.where(there, values, 0.0), "intervened": np.nan_to_num(table.marks), "observed": there,
          "adjacency": read_matrix(truth, table.names, "prob")})
  return found


def families_of(folder: str) -> list[str]:
  """Names of the families of tasks in a folder. Raises UserError where it holds none."""
  found = sorted(name for name in os.listdir(folder) if os.path.isdir(os.path.join(folder, name))) \
      if os.path.isdir(folder) else []
  if not found:
    raise UserError(f"--tasks: {folder!r} holds no tasks; --config=FILE --output={folder} writes some")
  return found


def stems_of(folder: str) -> list[str]:
  """Paths of the tasks of a family, without endings. Raises UserError where there are none."""
  found = sorted(name.removesuffix(TRUTH) for name in os.listdir(folder) if name.endswith(TRUTH))
  if not found:
    raise UserError(f"--tasks: {folder!r} holds no tasks, which are pairs of files NUMBER.csv and NUMBER{TRUTH}")
  return [os.path.join(folder, stem) for stem in found]


def check_empty(folder: str) -> None:
  """Raises UserError for a folder of results that holds something."""
  if os.path.isdir(folder) and os.listdir(folder):
    raise UserError(f"--output: {folder!r} is not empty; choose another folder")


def read_matrix(columns: files.Columns, names: list[str], value: str) -> np.ndarray:
  """[D, D] of the columns cause, effect and a value. Raises UserError for names that are none of the variables."""
  found, place = np.zeros((len(names), len(names))), {name: k for k, name in enumerate(names)}
  numbers = columns.numbers(value)
  for row, (cause, effect) in enumerate(zip(columns.values["cause"], columns.values["effect"])):
    for name in (str(cause), str(effect)):
      if name not in place:
        raise UserError(f"{columns.path}: {columns.row(row)}: got {name!r}, allowed {', '.join(names)}")
    if not 0 <= numbers[row] <= 1:
      raise UserError(f"{columns.path}: column {value!r}, {columns.row(row)}: {numbers[row]}, allowed 0 to 1")
    found[place[str(cause)], place[str(effect)]] = numbers[row]
  return found


def read_graphs(path: str, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
  """(probabilities [D, D], graphs [S, D, D]) of a method's file about variables of these names.

  Raises:
    UserError: no such file, or one that is of neither form.
  """
  columns = files.read("csv", path, field="--graphs")
  if {"cause", "effect", "prob"} <= columns.values.keys():
    probs = read_matrix(columns, names, "prob")
    return probs, (probs > 0.5)[None].astype(np.float64)
  drawn = np.zeros((columns.num_rows, len(names), len(names)))
  for name in columns.values:
    cause, arrow, effect = name.partition(knowledge.ARROW)
    if not arrow or cause not in names or effect not in names:
      raise UserError(f"{path}: got the column {name!r}, allowed cause, effect and prob, or "
                      f"CAUSE{knowledge.ARROW}EFFECT of {', '.join(names)}")
    values = columns.numbers(name)
    if not np.isin(values, (0, 1)).all():
      raise UserError(f"{path}: column {name!r} holds other numbers than 0 and 1")
    drawn[:, names.index(cause), names.index(effect)] = values
  return drawn.mean(0), drawn


def score_family(tasks: str, graphs: str) -> dict[str, np.ndarray]:
  """Each metric [T] of the graphs of a folder for the tasks of another; NaN where it is not defined.

  Raises:
    UserError: no tasks; a task without graphs, or with graphs that are of neither form.
  """
  groups: dict[tuple, list] = {}
  for stem in stems_of(tasks):
    truth = files.read("csv", f"{stem}{TRUTH}", field="--tasks")
    names = list(dict.fromkeys(map(str, truth.values["cause"])))
    answer = read_graphs(os.path.join(graphs, f"{os.path.basename(stem)}.csv"), names)
    groups.setdefault(answer[1].shape, []).append((read_matrix(truth, names, "prob"), *answer))
  found = []
  for group in groups.values():  # of one size and number of graphs
    truth, probs, drawn = (np.stack(part) for part in zip(*group))
    found.append(jax.device_get(metrics.of_tasks(truth, probs, drawn, np.ones(truth.shape[:2]))))
  return {name: np.concatenate([np.asarray(one[name], np.float64) for one in found]) for name in found[0]}


def score(tasks: str, graphs: str) -> dict[str, np.ndarray]:
  """A row for each family: its number of tasks, the mean of each metric, and half the width of its 95 % interval.

  Raises:
    UserError: a folder without tasks; a task without graphs.
  """
  families = families_of(tasks)
  rows: dict[str, list[Any]] = {"family": families, "tasks": []}
  for family in families:
    judged = score_family(os.path.join(tasks, family), os.path.join(graphs, family))
    rows["tasks"].append(len(judged["auroc"]))
    for name, values in judged.items():
      values = values[np.isfinite(values)]
      rows.setdefault(name, []).append(values.mean() if values.size else np.nan)
      rows.setdefault(f"{name}_ci95", []).append(statistics.t_half_width(values))
  return {name: np.asarray(column, object if name == "family" else None) for name, column in rows.items()}
