"""The baseline that reads no data: random orders and edges with the probability that the training graphs have.

It has no parameters and needs no training: `train.num_steps` is 0 and the run goes straight to inference.
"""

import jax
import jax.numpy as jnp

from jaxtrain.experiments.causal_discovery import evaluate, posterior, predict, training
from jaxtrain.types import Experiment

INIT_ROWS, METRICS, SINCE = training.INIT_ROWS, training.METRICS, training.SINCE
LIMITS = training.LIMITS
TRAINS = False  # num_epochs and num_steps may both be 0

load = training.load


def make_model(config, meta) -> training.Model:
  """Order and edges at random, with the expected density for each number of nodes."""
  del config
  probability = training.density_of(meta)

  def terms(params, chunk, key, train):
    probs = jnp.broadcast_to(jax.vmap(probability)(chunk["node_mask"])[:, None, None], chunk["adjacency"].shape)
    truth = chunk["adjacency"]
    nll = -jnp.where(truth > 0, jnp.log(probs), jnp.log1p(-probs))
    return {"edge": training.mean_over_pairs(nll, chunk)}, probs

  def draw(params, chunk, key, num):
    terms_, probs = terms(params, chunk, key, False)
    mask = chunk["node_mask"]
    orders = lambda keys, count: jax.vmap(lambda k, m: posterior.rank_masks(
        posterior.plackett_luce_sample(k, jnp.zeros_like(m), m, count)))(keys, mask)
    p = 2.0 * jax.vmap(probability)(mask)
    logits = jnp.broadcast_to((jnp.log(p) - jnp.log1p(-jnp.minimum(p, 1 - 1e-6)))[:, None, None], probs.shape)
    return terms_["edge"], *posterior.draw_ordered(tuple(jax.random.split(key)), logits, orders, lambda _: probs, chunk,
                                                   num)

  return training.Model(lambda key: {}, terms, draw, ordered=True)


def make(config, meta) -> Experiment:
  """The experiment's pure functions."""
  model = make_model(config, meta)
  return training.make(config, meta, model, evaluate.make_assess(config, meta, model),
                       predict.make_verbs(config, model))
