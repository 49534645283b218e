"""The head `arrow`: a skeleton times an order of the variables, so that every sampled graph is acyclic.

A network gives a logit l_ij = l_ji of each unordered pair and a score theta_i of each variable. Variables are drawn one
after the other with probability ~ exp(theta), those that come first are causes of those that come later, and a pair is
joined with probability sigmoid(l_ij). So the probability of an edge is exactly

  p_ij = sigmoid(l_ij) sigmoid(theta_i - theta_j)

and the loss is the negative log-likelihood of the three states of each unordered pair (i -> j, j -> i, none), each
divided by the number of ordered pairs, so that its scale is that of independent edges. There is no penalty for cycles.

**Source:** Plackett-Luce orders by Gumbel noise: Yellott 1977, whose pairs are those of Bradley & Terry 1952.
"""

from typing import Callable

import jax
import jax.numpy as jnp

from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import posterior, training

HEADS = {"independent": ("penalty", "dual"), "arrow": ()}  # the fields of `model` that a head alone reads


def check_head(config) -> None:
  """Raises UserError where the config has fields that its head does not read, or lacks some that it does."""
  m = config.model
  present = tuple(name for names in HEADS.values() for name in names if name in m)
  if present != HEADS[m.head] or ("acyclic" in config.loss.weights) != (m.head == "independent"):
    allowed = "with" if m.head == "independent" else "without"
    raise UserError(f"config.model.head: got {m.head!r}, allowed {allowed} model.penalty, model.dual and "
                    "loss.weights.acyclic; choose a variant of the config file that has this head")


def pair_nll(logits: jax.Array, order_scores: jax.Array, truth: jax.Array, node_mask: jax.Array) -> jax.Array:
  """Negative log-likelihood of the states of all unordered pairs by the number of ordered pairs, nats, [].

  Args:
    logits: [D, D], symmetric. order_scores, node_mask: [D]. truth: [D, D], at most one direction of a pair.
  """
  pairs = posterior.pair_mask(node_mask)
  joined = jax.nn.softplus(-logits) + jax.nn.softplus(order_scores[None, :] - order_scores[:, None])
  apart = 0.5 * (1.0 - truth - truth.T) * jax.nn.softplus(logits)  # stands at both ordered pairs
  return jnp.sum(pairs * (truth * joined + apart)) / jnp.maximum(jnp.sum(pairs), 1.0)


def marginals(logits: jax.Array, order_scores: jax.Array, node_mask: jax.Array) -> jax.Array:
  """Edge probabilities [D, D] of arguments as of `pair_nll`."""
  before = jax.nn.sigmoid(order_scores[:, None] - order_scores[None, :])
  return jax.nn.sigmoid(logits) * before * posterior.pair_mask(node_mask)


def sample_orders(key: jax.Array, order_scores: jax.Array, node_mask: jax.Array, num: int) -> jax.Array:
  """[num, D, D]: 1 where a drawn order allows the edge from the row to the column."""
  return posterior.rank_masks(-posterior.plackett_luce_sample(key, order_scores, node_mask, num))


def ordered_edges(init: Callable, outputs_of: Callable) -> training.Model:
  """A posterior of a skeleton and an order.

  Args:
    init: key -> parameters.
    outputs_of: `(params, tasks, key, train) -> (logits [B, D, D], order scores [B, D])`.
  """
  def losses(outputs, chunk):
    return jax.vmap(pair_nll)(*outputs, chunk["adjacency"], chunk["node_mask"])

  def terms(params, chunk, key, train):
    outputs = outputs_of(params, chunk, key, train)
    return {"edge": losses(outputs, chunk)}, jax.vmap(marginals)(*outputs, chunk["node_mask"])

  def draw(params, chunk, key, num):
    net_key, order_key, edge_key = jax.random.split(key, 3)
    logits, order_scores = outputs = outputs_of(params, chunk, net_key, False)
    orders = posterior.orders_of(sample_orders, order_scores, chunk["node_mask"])
    exact = lambda _: jax.vmap(marginals)(*outputs, chunk["node_mask"])
    return losses(outputs, chunk), *posterior.draw_ordered((order_key, edge_key), logits, orders, exact, chunk, num)

  def log_prob(params, chunk, key, num):
    net_key, order_key = jax.random.split(key)
    logits, order_scores = outputs_of(params, chunk, net_key, False)
    orders = posterior.orders_of(sample_orders, order_scores, chunk["node_mask"])
    return posterior.ordered_log_prob(order_key, logits, orders, chunk, num)

  return training.Model(init, terms, draw, log_prob=log_prob, ordered=True)
