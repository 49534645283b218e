"""Tables that are unlike those of training, told by two numbers, and read with more caution than others.

  tails       mean over variables of the log kurtosis. Where it is larger than in training tables the network reads the
              table a second time, each value replaced by the normal score of its rank, and the logits are averaged:
              moments of heavy tails say little, ranks keep what there is.
  dependence  median over variables (of an even number the lower of the two in the middle) of n r |r|, r the correlation
              of a row with the next one after a moving mean of rows is taken out; the rows of training tables are
              independent. Where it is larger, as in a time series, the logits give way to those of a logistic
              regression on the sizes of correlation and partial correlation, fitted to training tables. The variable
              that a table is sorted by has a large one too; the others do not, since the moving mean takes out what
              they have of the order, and what they have of blocks of rows.

Either number has a range: from its first end on the caution grows, at its second it is full. Below the first all is as
without. Both need nothing but the table.

**Source:** normal scores: van der Waerden 1952; rank-based scores instead of moments: Liu, Lafferty & Wasserman 2009
(The nonparanormal).
"""

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import pair_statistics
from jaxtrain.experiments.causal_discovery.pairs import edges_only
from jaxtrain.types import Batch

HALF_WINDOW = 10  # rows before and after one that its moving mean counts
BELOW_ONE = 1.0 - 2.0**-24  # the largest float32 below 1: a share of 20 million rows is rounded to 1
NUM_WEIGHTS = 7  # of the logistic regression, see `correlation_inputs`
FIELDS = ("tail_range", "dependence_range", "correlation_weights")  # of `model`; (): without


class Unlike(NamedTuple):
  """How unlike training tables are: the two numbers [B]."""
  tails: jax.Array
  dependence: jax.Array


def check(model) -> None:
  """Raises UserError where the fields of a config's section `model` do not fit each other."""
  for name in FIELDS[:2]:
    if model[name] and not (len(model[name]) == 2 and model[name][0] < model[name][1]):
      raise UserError(f"config.model.{name}: got {tuple(model[name])}, allowed () or two numbers, the first smaller")
  if len(model.correlation_weights) != (NUM_WEIGHTS if model.dependence_range else 0):
    raise UserError(f"config.model.correlation_weights: got {len(model.correlation_weights)} numbers, allowed "
                    f"{NUM_WEIGHTS} with model.dependence_range, else none")
  if model.dependence_range and model.statistics[0] != "linear":
    raise UserError(f"config.model.dependence_range: got {tuple(model.dependence_range)} with model.statistics that "
                    f"begin with {model.statistics[0]!r}, allowed where they begin with linear")
  if model.head != "independent" and (model.tail_range or model.dependence_range):
    raise UserError(f"config.model.head: got {model.head!r} with model.tail_range or model.dependence_range, allowed "
                    "independent: there are no logits of correlations for an order")


def normal_scores(values: jax.Array, observed: jax.Array) -> jax.Array:
  """Phi^-1((rank - 1/2) / n) of each cell among the n observed ones of its variable, 0 where missing.

  Ties share their mean rank. Arguments and result are [N, D].
  """
  def of_variable(x, there):
    x = jnp.where(there > 0, x, jnp.inf)
    ordered, count = jnp.sort(x), jnp.maximum(jnp.sum(there), 1.0)
    below, up_to = (jnp.searchsorted(ordered, x, side=side) for side in ("left", "right"))
    share = jnp.minimum(0.5 * (below + up_to) / count, BELOW_ONE)  # rank - 1/2 is the mean of both
    score = jax.scipy.special.ndtri(share)
    return jnp.where(there > 0, score, 0.0)
  return jax.vmap(of_variable, in_axes=1, out_axes=1)(values, observed)


def log_kurtosis(values: jax.Array, there: jax.Array) -> jax.Array:
  """log(E[(x - E x)^4] / Var[x]^2) of each variable [D] over its cells with `there` above 0; 0 where it is constant."""
  count = jnp.maximum(jnp.sum(there, 0), 1.0)
  mean = lambda x: jnp.sum(jnp.where(there > 0, x, 0.0), 0) / count
  centred = values - mean(values)[None]
  variance = mean(jnp.square(centred))
  ratio = mean(jnp.square(jnp.square(centred / jnp.sqrt(jnp.where(variance > 0, variance, 1.0))[None])))
  return jnp.where(variance > 0, jnp.log(jnp.maximum(ratio, 1.0)), 0.0)


def next_rows(scores: jax.Array, there: jax.Array) -> jax.Array:
  """n r |r| of each variable [D]: r = sum_t e_t e_{t+1} / sum_t e_t^2, e what a moving mean leaves of scores [N, D]."""
  def window(x):
    total = jnp.pad(jnp.cumsum(x, 0), [(1 + HALF_WINDOW, HALF_WINDOW), (0, 0)], mode="edge")
    total = total.at[:1 + HALF_WINDOW].set(0.0)
    return total[2 * HALF_WINDOW + 1:] - total[:-2 * HALF_WINDOW - 1]
  left = (scores - window(scores * there) / jnp.maximum(window(there), 1.0)) * there
  r = jnp.sum(left[1:] * left[:-1], 0) / jnp.maximum(jnp.sum(jnp.square(left), 0), 1e-6)
  return jnp.sum(there, 0) * r * jnp.abs(r)


def unlike(tasks: Batch) -> Unlike:
  """The two numbers of tasks; rows in which a variable was set do not count."""
  def of_task(values, observed, intervened, node_mask):
    there = observed * jnp.all(intervened < 0.5, axis=1, keepdims=True) * node_mask[None]
    values = jnp.where(there > 0, values, 0.0)
    tails = jnp.sum(log_kurtosis(values, there) * node_mask) / jnp.maximum(jnp.sum(node_mask), 1.0)
    each = next_rows(normal_scores(values, there), there)
    return Unlike(tails, jnp.nanquantile(jnp.where(node_mask > 0, each, jnp.nan), 0.5, method="lower"))
  return jax.vmap(of_task)(tasks["values"], observed_of(tasks), tasks["intervened"], tasks["node_mask"])


def observed_of(tasks: Batch) -> jax.Array:
  """[B, n, D]: 1 where a cell is there."""
  return tasks["observed"] if "observed" in tasks else jnp.ones_like(tasks["values"])


def caution(number: jax.Array, bounds: tuple[float, float]) -> jax.Array:
  """0 up to the first of `bounds`, 1 from the second on, a straight line between."""
  return jnp.clip((number - bounds[0]) / (bounds[1] - bounds[0]), 0.0, 1.0)


def correlation_inputs(statistics: jax.Array, node_mask: jax.Array) -> list[jax.Array]:
  """What the logistic regression is on, each [B, D, D], of statistics [B, D, D, F] whose first group is `linear`:

  1, |r|, arcsinh(sqrt(n) |r| / 4), both of the partial correlation, log(n / 100), log(d / 10).
  """
  log_rows, found = statistics[..., 1], statistics[..., 2:8]
  size = jnp.log(jnp.maximum(jnp.sum(node_mask, 1), 1.0) / 10.0)[:, None, None]
  return [jnp.ones_like(log_rows), found[..., 1], found[..., 2], found[..., 4], found[..., 5], log_rows,
          jnp.broadcast_to(size, log_rows.shape)]


def logits_of_correlations(statistics: jax.Array, node_mask: jax.Array, weights: tuple[float, ...]) -> jax.Array:
  """Edge logits [B, D, D] of that regression, the same both ways."""
  inputs = correlation_inputs(statistics, node_mask)
  return edges_only(sum(weight * part for weight, part in zip(weights, inputs)), node_mask)


def temper(model, tasks: Batch, statistics: jax.Array, logits: jax.Array, read: Callable) -> jax.Array:
  """Edge logits [B, D, D] of tasks, with the caution that each of them asks for.

  Args:
    model: the section of a config. tasks: a batch. statistics: of it, [B, D, D, F]. logits: of the network.
    read: `statistics -> logits`, the network.
  """
  if not (model.tail_range or model.dependence_range):
    return logits
  found, mask = unlike(tasks), tasks["node_mask"]
  if model.tail_range:
    by_ranks = 0.5 * caution(found.tails, model.tail_range)[:, None, None]

    def with_ranks(logits):
      observed = observed_of(tasks)
      scores = jax.vmap(normal_scores)(tasks["values"], observed)
      ranked = read(pair_statistics.of_tasks(scores, tasks["intervened"], observed, mask, model.statistics))
      return logits + by_ranks * (ranked - logits)
    logits = jax.lax.cond(jnp.any(by_ranks > 0), with_ranks, lambda logits: logits, logits)
  if model.dependence_range:
    by_correlations = caution(found.dependence, model.dependence_range)[:, None, None]
    simple = logits_of_correlations(statistics, mask, model.correlation_weights)
    logits = logits + by_correlations * (simple - logits)
  return logits


def say(model, task: Batch) -> list[str]:
  """Lines on a table, as a task [1, n, D], that asks for caution."""
  if not (model.tail_range or model.dependence_range):
    return []
  found, lines = jax.device_get(jax.jit(unlike)(task)), []
  share = lambda number, bounds: 100.0 * float(np.asarray(caution(number, bounds))[0]) if bounds else 0.0
  if percent := share(found.tails, model.tail_range):
    lines.append(f"heavy tails: the mean log kurtosis of the variables is {found.tails[0]:.1f}, and caution begins at "
                 f"{model.tail_range[0]:g}; the network read the ranks of the values too, and they count "
                 f"{percent / 2:.0f} %")
  if percent := share(found.dependence, model.dependence_range):
    lines.append(f"rows resemble the rows before them, as in a time series: n r^2 is {found.dependence[0]:.0f}, and "
                 f"caution begins at {model.dependence_range[0]:g}; correlations, which leave directions open, count "
                 f"{percent:.0f} %, the network the rest")
  return lines
