"""How well sampled graphs predict interventions: linear models fitted to each graph on rows without an intervention.

A missing cell counts as the mean of its variable.
A heuristic: mechanisms need not be linear, so compare with the value of the true graph. Each variable is regressed on
its parents in the sampled graph; a row in which variables were set is scored on the others. The sampled graphs are
mixed row by row: -log mean_s prod_j N(x_j | fit of graph s). A cyclic graph has the product of its regressions as well.

**Departs:** from mixing over whole data sets, where the single best graph decides.
"""

import math

import jax
import jax.numpy as jnp

from jaxtrain.experiments.causal_discovery.posterior import matmul, pair_mask

RIDGE = 1e-6  # of the regressions, per row
LEAST_VARIANCE = 1e-6  # of a residual


def fit(graph: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Coefficients [D, D] (cause in rows) and residual variances [D] of regressions on parents.

  graph [D, D]; second [D, D] are second moments of centred variables.
  """
  D = len(graph)

  def one(parents, own):
    within = parents[:, None] * parents[None, :]
    weights = jnp.linalg.solve(second * within + (RIDGE * jnp.eye(D) + jnp.diag(1.0 - parents)), parents * own)
    return weights * parents
  weights = jax.vmap(one, in_axes=(1, 1), out_axes=1)(graph, second)
  explained = 2.0 * jnp.sum(weights * second, 0) - jnp.sum(weights * matmul(second, weights), 0)
  return weights, jnp.maximum(jnp.diag(second) - explained, LEAST_VARIANCE)


def inil_nats(graphs: jax.Array, values: jax.Array, intervened: jax.Array,
              node_mask: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Interventional negative log-likelihood of one task.

  Args:
    graphs: [S, D, D]. values, intervened: [n, D]. node_mask: [D].

  Returns:
    Nats per row with an intervention, and the same by the number of variables that were not set, [] float32 each; NaN
    without such rows.
  """
  graphs = graphs * pair_mask(node_mask)[None]
  is_set = intervened * node_mask[None]
  row = (jnp.sum(is_set, 1) > 0).astype(jnp.float32)  # 1 for rows to score
  rest, count = 1.0 - row, jnp.maximum(jnp.sum(1.0 - row), 1.0)
  mean = jnp.sum(values * rest[:, None], 0) / count
  centred = (values - mean[None]) * node_mask[None]
  second = matmul((centred * rest[:, None]).T, centred) / count
  scored = node_mask[None] * (1.0 - is_set)

  def log_likelihood(graph):
    weights, variance = fit(graph, second)
    error = centred - matmul(centred, weights)
    each = -0.5 * (jnp.square(error) / variance[None] + jnp.log(2.0 * math.pi * variance)[None])
    return jnp.sum(each * scored, 1)  # [n]
  by_row = math.log(len(graphs)) - jax.nn.logsumexp(jax.lax.map(log_likelihood, graphs), axis=0)
  num = jnp.sum(row)
  average = lambda x: jnp.where(num > 0, jnp.sum(row * x) / jnp.maximum(num, 1.0), jnp.nan)
  return average(by_row), average(by_row / jnp.maximum(jnp.sum(scored, 1), 1.0))
