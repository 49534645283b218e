"""AVICI: independent edge probabilities by amortised variational inference, with acyclicity as a constraint.

loss = mean over tasks of [ mean over ordered pairs of the binary cross-entropy + lambda rho ], rho the spectral radius
of the edge probabilities, lambda a dual variable that rises while rho is above 0. Samples are independent Bernoulli
draws and need not be acyclic.

**Source:** Lorch et al. 2022 (Amortized inference for causal structure learning), eq. 6-9; spec causal_discovery 4.2.
**Departs:** the power iteration starts from positive vectors, so that rho has the right sign (spec W1); dual ascent is
on by default, every 250 steps (the original's interval of 0 never fires).
"""

import functools

import jax
import jax.numpy as jnp

from jaxtrain import fields, rng
from jaxtrain.experiments.causal_discovery import evaluate, nets, posterior, scores, training
from jaxtrain.types import Experiment

LIMITS = training.LIMITS | {
    "model.dim": fields.at_least(1),
    "model.num_blocks": fields.at_least(1),
    "model.num_heads": fields.at_least(1),
    "model.key_size": fields.at_least(1),
    "model.ff_dim": fields.at_least(1),
    "model.dual.interval": fields.at_least(1),
    "model.dual.rate": fields.at_least(0),
    "model.dual.average_rate": fields.between(0, 1),
    "model.dual.warmup_steps": fields.at_least(0),
    "model.dual.init": fields.at_least(0),
}

load = training.load


def make_model(config) -> training.Model:
  """Network and posterior of a config."""
  m = config.model
  net = nets.AVICI(dim=m.dim, num_blocks=m.num_blocks, num_heads=m.num_heads, key_size=m.key_size, ff_dim=m.ff_dim,
                   dropout_rate=m.dropout_rate, tau_init=m.tau_init, beta_init=m.beta_init,
                   precision=config.train.precision, remat=m.remat, sample_chunk=m.sample_chunk)

  def logits_of(params, chunk, key, train):
    return net.apply({"params": params}, chunk["values"], chunk["intervened"], chunk["node_mask"], train,
                     rngs={"dropout": key})

  def init(key):
    table = jnp.zeros((1, 2, 2))
    return net.init(rng.stream_key(key, "init"), table, table, jnp.ones((1, 2)), False)["params"]

  def cross_entropy(logits, chunk):
    each = jax.nn.softplus(logits) - chunk["adjacency"] * logits
    return training.mean_over_pairs(each, chunk)

  def terms(params, chunk, key, train):
    logits = logits_of(params, chunk, key, train)
    probs = jax.nn.sigmoid(logits)
    radius = jax.vmap(functools.partial(posterior.spectral_radius, num_steps=scores.RADIUS_STEPS))(probs)
    return {"edge": cross_entropy(logits, chunk), "acyclic": radius}, probs

  def draw(params, chunk, key, num):
    logits = logits_of(params, chunk, key, False)
    keys = jax.random.split(key, len(logits))
    graphs = jax.vmap(functools.partial(posterior.sample_graphs, num=num))(keys, logits, chunk["node_mask"])
    return cross_entropy(logits, chunk), jax.nn.sigmoid(logits), graphs

  return training.Model(init, terms, draw, dual=("acyclic",))


def make(config, meta) -> Experiment:
  """The experiment's pure functions."""
  model = make_model(config)
  return training.make(config, meta, model, evaluate.make_assess(config, meta, model))
