"""BCNP: a posterior over orders of the variables, and over edges given an order; every sampled graph is acyclic.

Two forms (`model.order`):

  sinkhorn        the paper's: Gumbel-Sinkhorn permutations of position scores with a straight-through gradient, one
                  logit per pair, and a loss that mixes over permutations pair by pair, so that it fits marginals
  plackett_luce   orders by sorting scores with Gumbel noise: no Sinkhorn, no assignment, an exact log-probability; a
                  logit per direction, which the order chooses from; and the joint loss -log 1/K sum_k prod_e p, whose
                  gradient for the order is a leave-one-out score function

**Source:** Dhir et al. 2024 (A meta-learning approach to Bayesian causal discovery).
**Departs:** the joint loss is divided by the number of pairs, so that its scale is that of the other; marginals are
means over the sampled orders of exact edge probabilities, not over sampled graphs.
"""

import jax
import jax.numpy as jnp

from jaxtrain.config import limits
from jaxtrain.experiments.causal_discovery import evaluate, nets, posterior, predict, training
from jaxtrain.types import Experiment

EVEN = limits.Limit(lambda v: 2 <= v <= limits.MOST_DEPTH and v % 2 == 0, f"even, 2 to {limits.MOST_DEPTH}", int)
INIT_ROWS, METRICS, SINCE = training.INIT_ROWS, training.METRICS, training.SINCE
LIMITS = training.LIMITS | {
    "model.dim": limits.whole(1, limits.MOST_WIDTH),
    "model.num_layers": EVEN,
    "model.num_layers_decoder": EVEN,
    "model.num_heads": limits.whole(1, limits.MOST_DEPTH),
    "model.ff_dim": limits.whole(1, limits.MOST_WIDTH),
    "model.emb_depth": limits.whole(1, limits.MOST_DEPTH),
    "model.order": limits.one_of("sinkhorn", "plackett_luce"),
    "model.q_before_l": limits.switch(),
    "model.n_perm_samples": limits.whole(2, limits.MOST_WIDTH),
    "model.sinkhorn_iter": limits.whole(1, limits.MOST_ROWS),
}

load = training.load


def make_model(config) -> training.Model:
  """Network and posterior of a config."""
  m = config.model
  ranked = m.order == "plackett_luce"
  net = nets.BCNP(dim=m.dim, num_layers=m.num_layers, num_layers_decoder=m.num_layers_decoder, num_heads=m.num_heads,
                  ff_dim=m.ff_dim, dropout_rate=m.dropout_rate, emb_depth=m.emb_depth, q_before_l=m.q_before_l,
                  symmetric=not ranked, precision=config.train.precision, remat=m.remat, sample_chunk=m.sample_chunk)

  init, apply = training.bind(net)

  def mixture(key, logits, order_scores, truth, mask):
    """(loss, order masks [K, D, D]) of a task."""
    if ranked:
      ranks = posterior.plackett_luce_sample(key, order_scores, mask, m.n_perm_samples)
      nll = posterior.joint_mixture_nll(logits, order_scores, ranks, truth, mask)
      return nll / jnp.maximum(jnp.sum(posterior.pair_mask(mask)), 1.0), posterior.rank_masks(ranks)
    perms = posterior.sample_permutations(key, order_scores, mask, m.n_perm_samples, m.sinkhorn_iter)
    masks = posterior.order_masks(perms)
    return posterior.marginal_mixture_nll(logits, masks, truth, mask), masks

  def sample_orders(key, order_scores, mask, num):
    """Order masks [num, D, D] alone, without what a gradient needs."""
    if ranked:
      return posterior.rank_masks(posterior.plackett_luce_sample(key, order_scores, mask, num))
    return posterior.order_masks(posterior.sample_permutations(key, order_scores, mask, num, 0))

  def losses(key, logits, order_scores, chunk):
    return jax.vmap(mixture)(jax.random.split(key, len(logits)), logits, order_scores, chunk["adjacency"],
                             chunk["node_mask"])

  def marginals(logits, masks):
    return jax.nn.sigmoid(logits) * jnp.mean(masks, 1)

  def terms(params, chunk, key, train):
    net_key, order_key = jax.random.split(key)
    logits, order_scores = apply(params, chunk, net_key, train)
    loss, masks = losses(order_key, logits, order_scores, chunk)
    return {"edge": loss}, jax.lax.stop_gradient(marginals(logits, masks))

  def draw(params, chunk, key, num):
    net_key, loss_key, order_key, edge_key = jax.random.split(key, 4)
    logits, order_scores = apply(params, chunk, net_key, False)
    loss, _ = losses(loss_key, logits, order_scores, chunk)
    orders = posterior.orders_of(sample_orders, order_scores, chunk["node_mask"])
    return loss, *posterior.draw_ordered((order_key, edge_key), logits, orders,
                                         lambda masks: marginals(logits, masks), chunk, num)

  def log_prob(params, chunk, key, num):
    net_key, order_key = jax.random.split(key)
    logits, order_scores = apply(params, chunk, net_key, False)
    orders = posterior.orders_of(sample_orders, order_scores, chunk["node_mask"])
    return posterior.ordered_log_prob(order_key, logits, orders, chunk, num)

  return training.Model(init, terms, draw, log_prob=log_prob, ordered=True)


def make(config, meta) -> Experiment:
  """The experiment's pure functions."""
  model = make_model(config)
  return training.make(config, meta, model, evaluate.make_assess(config, meta, model),
                       predict.make_verbs(config, model))
