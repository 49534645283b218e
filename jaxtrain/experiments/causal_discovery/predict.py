"""What a trained model does with a table of its user's: edge probabilities, and graphs sampled from the posterior.

`user_table.py` decides which columns and rows are used, `knowledge.py` what is known of the graph beforehand. A graph
is written as a table, or drawn as .png, .html, .dot and .graphml. The number of rows and of variables may differ from
those of training; the further away, the less the posterior is to be trusted.
"""

import functools
from typing import Any, Callable, NamedTuple

import jax
import numpy as np

from jaxtrain.data import graphs, inputs
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import knowledge, labels, rows, threshold, training, user_table
from jaxtrain.types import Batch, Verb

NUM_ORDERS = 200  # orders that edge probabilities are averaged over, where a model has orders
MOST_DRAWS = 50  # times that graphs are drawn until enough of them are acyclic
KNOWN = ("required", "forbidden", "tiers")  # options


class Settings(NamedTuple):
  """What verbs are told beside a table.

  Attributes:
    known: of the graph.
    acyclic: whether cyclic graphs are drawn again.
    threshold: edge probability from which a graph has an edge. origin: where it comes from, in words.
    state: of the model, in words.
  """
  known: knowledge.Knowledge = knowledge.Knowledge()
  acyclic: bool = False
  threshold: float = threshold.DEFAULT
  origin: str = "none was chosen for this state"
  state: str = ""


def settings_of(options: dict[str, Any], assessed: dict[str, dict[str, Any]], state: str = "") -> Settings:
  """What options and the assessment of the state say. Raises UserError for options that do not fit."""
  told = Settings(knowledge.parse(options), "acyclic" in options and bool(options["acyclic"]), state=state)
  if "threshold" in options:
    return told._replace(threshold=threshold.parse(options["threshold"]), origin="as given")
  of_tasks = assessed["val"] if "val" in assessed else {}
  chosen = of_tasks["threshold"] if "threshold" in of_tasks else None
  if chosen is None or not 0 <= chosen <= 1:
    return told
  return told._replace(threshold=chosen, origin="chosen on validation tasks; --threshold sets another")


def acyclic_graphs(draw_some: Callable[[int], np.ndarray], num: int) -> np.ndarray:
  """The first `num` acyclic graphs of `draw_some(0)` [num, D, D], `draw_some(1)` and so on.

  Raises:
    UserError: after `MOST_DRAWS` times there are fewer.
  """
  found, tried = [], 0
  for k in range(MOST_DRAWS):
    drawn = draw_some(k)
    tried += len(drawn)
    found += list(drawn[~np.asarray([np.diag(knowledge.ancestors(one)).any() for one in drawn])])
    if len(found) >= num:
      return np.stack(found[:num])
  raise UserError(f"--acyclic: {len(found)} of {tried} sampled graphs are acyclic, and {num} were asked for; models "
                  "with an order, such as the variant arrow, sample no others")


def draw(write: Callable, say: Callable, about: Callable, at: float, path: str, state: Any, columns: Any,
         found: dict[str, np.ndarray]) -> None:
  """Writes a graph with the edges of the threshold `at`, what is to be said of its table, and what it is."""
  write(path, found, at, notes=say(columns, found), about=about(columns))


def pairs_of(names: list[str], matrix: np.ndarray) -> dict[str, np.ndarray]:
  """Cause, effect and prob of each ordered pair of variables with these names; matrix [D, D]."""
  pairs = [(i, j) for i in range(len(names)) for j in range(len(names)) if i != j]
  text = lambda k: np.asarray([names[pair[k]] for pair in pairs], object)
  return {"cause": text(0), "effect": text(1), "prob": np.asarray([matrix[pair] for pair in pairs])}


def make_verbs(config, model: training.Model, incomplete: bool = False,
               num_rows: tuple[int, int] | None = None,
               say_more: Callable[[Batch], list[str]] = lambda task: []) -> dict[str, Verb]:
  """`graph`: each ordered pair with the probability of its edge. `sample_graphs`: a graph a row, a column a pair.

  Args:
    config, model: of the run.
    incomplete: whether the model reads rows with missing cells, by the mask `observed` of a task.
    num_rows: the fewest and the most rows that it was trained on; None where all training tasks have the same number.
    say_more: lines on a task [1, n, D].
  """
  def trained_on():
    return num_rows or (config.data.num_rows + config.data.num_rows_int,) * 2

  def posterior(settings, state, columns, key, num):
    table = user_table.read(columns, incomplete)
    task = user_table.task_of(table)
    inputs.check_num(num, 64 * len(table.names) ** 2)
    if any(settings.known):
      task["known"] = knowledge.matrix(settings.known, table.names, table.left_out)[None]
    probs, drawn = rows.posterior(config, model, incomplete, state.applied, task, key, num)
    if np.isnan(probs).any():
      raise UserError("--required: the model gives no order of the variables that has these edges; ask with fewer")
    return table.names, probs, drawn

  def graph(settings, state, columns, num, key):
    names, probs, _ = posterior(settings, state, columns, key, NUM_ORDERS)
    found = pairs_of(names, probs)
    return found | labels.decide(model.ordered, settings.threshold, found)

  def sample_graphs(settings, state, columns, num, key):
    draw_some = lambda k: posterior(settings, state, columns, jax.random.fold_in(key, k) if k else key, num)[2]
    names = user_table.read(columns, incomplete).names
    drawn = acyclic_graphs(draw_some, num) if settings.acyclic else draw_some(0)
    return {f"{cause}{knowledge.ARROW}{effect}": drawn[:, i, j].astype(np.int64) for i, cause in enumerate(names)
            for j, effect in enumerate(names) if i != j}

  def say(columns, found):
    del found
    table = user_table.read(columns, incomplete)
    lines = user_table.say(columns, incomplete, config.data.num_nodes, trained_on())
    return lines + rows.say(config, incomplete, table.values.shape) + say_more(user_table.task_of(table))

  def about(settings, columns):
    n, D = user_table.read(columns, incomplete).values.shape
    model_name = config.experiment.removeprefix("jaxtrain.experiments.")
    state = f", state of {settings.state}" * bool(settings.state)
    return [f"Made by {model_name}{state}, from {columns.path}: {n:,} rows and {D} variables.",
            *labels.say_assumptions(model.ordered, config.data.num_nodes, trained_on()),
            f"An edge is drawn from a probability of {settings.threshold:g} on ({settings.origin})."]

  def graph_verb(settings):
    return Verb(functools.partial(graph, settings), None, "mean", carries=False, companions=(user_table.SUFFIX,),
                decide=functools.partial(labels.decide, model.ordered, settings.threshold),
                writers={suffix: functools.partial(draw, write, say, functools.partial(about, settings),
                                                    settings.threshold)
                         for suffix, write in graphs.WRITERS.items()},
                say=lambda columns, found: [
                    *say(columns, found), *graphs.strongest(found),
                    *labels.say(settings.threshold, settings.origin, found), about(settings, columns)[1]],
                makes="pairs", options=("threshold", *KNOWN),
                settle=lambda *told: graph_verb(settings_of(*told)))

  def sampling_verb(settings):
    return Verb(functools.partial(sample_graphs, settings), None, "turns", counts=True, carries=False,
                companions=(user_table.SUFFIX,), say=say, makes="graphs", options=(*KNOWN, "acyclic"),
                settle=lambda *told: sampling_verb(settings_of(*told)))

  return {"graph": graph_verb(Settings()), "sample_graphs": sampling_verb(Settings())}
