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
from jaxtrain.workdir import quality

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
    worth: of the model; None where it is not known.
  """
  known: knowledge.Knowledge = knowledge.Knowledge()
  acyclic: bool = False
  threshold: float = threshold.DEFAULT
  origin: str = "none was chosen for this state"
  state: str = ""
  worth: quality.Quality | None = None


def settings_of(options: dict[str, Any], assessed: dict[str, dict[str, Any]], state: str = "",
                worth: quality.Quality | None = None) -> Settings:
  """What options, the assessment of the state and its worth say. Raises UserError for options that do not fit."""
  told = Settings(knowledge.parse(options), "acyclic" in options and bool(options["acyclic"]), state=state,
                  worth=worth)
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


def pairs_of(names: list[str], matrix: np.ndarray) -> dict[str, np.ndarray]:
  """Cause, effect and prob of each ordered pair of variables with these names; matrix [D, D]."""
  pairs = [(i, j) for i in range(len(names)) for j in range(len(names)) if i != j]
  text = lambda k: np.asarray([names[pair[k]] for pair in pairs], object)
  return {"cause": text(0), "effect": text(1), "prob": np.asarray([matrix[pair] for pair in pairs])}


class Reader(NamedTuple):
  """What answers for a table.

  Attributes:
    config, model: of the run.
    incomplete: whether the model reads rows with missing cells, by the mask `observed` of a task.
    num_rows: the fewest and the most rows that it was trained on; None where all training tasks have the same number.
    say_more: lines on a task [1, n, D].
  """
  config: Any
  model: training.Model
  incomplete: bool
  num_rows: tuple[int, int] | None
  say_more: Callable[[Batch], list[str]]

  def trained_on(self) -> tuple[int, int]:
    """The fewest and the most rows of training tasks."""
    of_tasks = self.config.data
    return self.num_rows or (of_tasks.num_rows + of_tasks.num_rows_int,) * 2

  def table(self, columns: Any) -> user_table.Table:
    """The table of an input."""
    return user_table.read(columns, self.incomplete)

  def posterior(self, settings: Settings, state: Any, table: user_table.Table, key: jax.Array,
                num: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of edges [D, D], and sampled graphs [num, D, D]. Raises UserError for edges that no order has."""
    task = user_table.task_of(table)
    inputs.check_num(num, 64 * len(table.names) ** 2)
    if any(settings.known):
      task["known"] = knowledge.matrix(settings.known, table.names, table.left_out)[None]
    probs, drawn = rows.posterior(self.config, self.model, self.incomplete, state.applied, task, key, num)
    if np.isnan(probs).any():
      raise UserError("--required: the model gives no order of the variables that has these edges; ask with fewer")
    return probs, drawn

  def graph(self, settings: Settings, state, columns, num, key) -> dict[str, np.ndarray]:
    """Each ordered pair with the probability of its edge, and what follows from all of them."""
    table = self.table(columns)
    found = pairs_of(table.names, self.posterior(settings, state, table, key, NUM_ORDERS)[0])
    return found | self.decide(settings, found)

  def decide(self, settings: Settings, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What follows from `cause`, `effect` and `prob` of all pairs, and which of them were given."""
    decided = labels.decide(self.model.ordered, settings.threshold, columns)
    return decided | knowledge.mark(settings.known, columns | decided)

  def sample_graphs(self, settings: Settings, state, columns, num, key) -> dict[str, np.ndarray]:
    """A graph a row, a column a pair."""
    table = self.table(columns)
    draw_some = lambda k: self.posterior(settings, state, table, jax.random.fold_in(key, k) if k else key, num)[1]
    drawn = acyclic_graphs(draw_some, num) if settings.acyclic else draw_some(0)
    return {f"{cause}{knowledge.ARROW}{effect}": drawn[:, i, j].astype(np.int64) for i, cause in enumerate(table.names)
            for j, effect in enumerate(table.names) if i != j}

  def say(self, columns, found) -> list[str]:
    """Lines on a table."""
    del found
    table = self.table(columns)
    return [*user_table.say(columns, self.incomplete, self.config.data.num_nodes, self.trained_on()),
            *rows.say(self.config, self.incomplete, table.values.shape), *self.say_more(user_table.task_of(table))]

  def assumptions(self) -> list[str]:
    """A sentence on what the model takes for granted."""
    return labels.say_assumptions(self.model.ordered, self.config.data.num_nodes, self.trained_on())

  def say_samples(self, settings: Settings, columns, found) -> list[str]:
    """Lines on a table and on what was given of its graphs."""
    return [*self.say(columns, found), *knowledge.say(settings.known, self.table(columns).names)]

  def say_graph(self, settings: Settings, columns, found) -> list[str]:
    """Lines on a table and on its graph."""
    return [*self.say(columns, found), *graphs.strongest(found),
            *knowledge.say(settings.known, self.table(columns).names),
            *labels.say(settings.threshold, settings.origin, found), *self.assumptions()]

  def draw(self, write: Callable, settings: Settings, path: str, state: Any, columns: Any,
           found: dict[str, np.ndarray]) -> None:
    """Writes a graph with the edges of the threshold, what is to be said of its table, and what it is."""
    table = self.table(columns)
    n, D = table.values.shape
    made_by = self.config.experiment.removeprefix("jaxtrain.experiments.")
    of_state = f", state of {settings.state}" * bool(settings.state)
    about = [f"Made by {made_by}{of_state}, from {columns.path}: {n:,} rows and {D} variables.", *self.assumptions(),
             f"An edge is drawn from a probability of {settings.threshold:g} on ({settings.origin}).",
             *map(sentence, knowledge.say(settings.known, table.names))]
    notes = self.say(columns, found)
    if settings.worth is not None:
      about += map(sentence, settings.worth.results_in_words())
      notes = [*map(sentence, settings.worth.warnings), *notes]
    write(path, found, settings.threshold, notes=notes, about=about)


def sentence(line: str) -> str:
  """A line for the screen as a sentence."""
  return f"{line[0].upper()}{line[1:]}."


def make_verbs(config, model: training.Model, incomplete: bool = False, num_rows: tuple[int, int] | None = None,
               say_more: Callable[[Batch], list[str]] = lambda task: []) -> dict[str, Verb]:
  """`graph`: each ordered pair with the probability of its edge. `sample_graphs`: a graph a row, a column a pair.

  Arguments are those of `Reader`.
  """
  reader = Reader(config, model, incomplete, num_rows, say_more)

  def graph_verb(settings):
    writers = {suffix: functools.partial(reader.draw, write, settings) for suffix, write in graphs.WRITERS.items()}
    decide = functools.partial(reader.decide, settings)
    return Verb(functools.partial(reader.graph, settings), None, "mean", carries=False, writers=writers,
                companions=(user_table.SUFFIX,), decide=decide, say=functools.partial(reader.say_graph, settings),
                makes="pairs", options=("threshold", *KNOWN), settle=lambda *told: graph_verb(settings_of(*told)))

  def sampling_verb(settings):
    return Verb(functools.partial(reader.sample_graphs, settings), None, "turns", counts=True, carries=False,
                companions=(user_table.SUFFIX,), say=functools.partial(reader.say_samples, settings), makes="graphs",
                options=(*KNOWN, "acyclic"), settle=lambda *told: sampling_verb(settings_of(*told)))

  return {"graph": graph_verb(Settings()), "sample_graphs": sampling_verb(Settings())}
