"""AVICI: independent edge probabilities by amortised variational inference, with acyclicity as a constraint.

loss = mean over tasks of [ mean over ordered pairs of the binary cross-entropy + lambda rho ], lambda a dual variable
that rises while rho is above 0. Samples are independent Bernoulli draws and need not be acyclic. Either architecture
goes with either penalty rho of the edge probabilities P, or with the head `arrow` (`arrow.py`), which needs none:

  model.architecture   official: AVICI; lite: BCNP's encoder, a maximum over samples, a bilinear map
  model.penalty        spectral: the spectral radius of P; exponential: tr(exp P) - d
  model.head           independent: as above; arrow: a skeleton times an order

**Source:** Lorch et al. 2022 (Amortized inference for causal structure learning), eq. 6-9; tr(exp P) - d: Zheng et al.
2018 (NOTEARS).
**Departs:** the power iteration starts from positive vectors, so that rho has the right sign; dual ascent is
on by default, every 250 steps (the original's interval of 0 never fires).
"""

from typing import Callable

import jax
import jax.numpy as jnp

from jaxtrain.config import limits
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import arrow, bcnp, evaluate, nets, posterior, predict, scores, training
from jaxtrain.types import Experiment

ARCHITECTURES = {  # the network, and the fields that it alone reads
    "official": (nets.AVICI, ("num_blocks", "key_size", "tau_init", "beta_init")),
    "lite": (nets.AVICILite, ("num_layers", "emb_depth")),
}
PENALTIES = {  # of edge probabilities [D, D] and a mask of nodes [D]
    "spectral": lambda probs, _: posterior.spectral_radius(probs, scores.RADIUS_STEPS),
    "exponential": lambda probs, node_mask: scores.cyclicity(probs, node_mask)[0],
}
INIT_ROWS, METRICS = training.INIT_ROWS, training.METRICS
SINCE = training.SINCE | {"model.head": "independent"}
LIMITS = training.LIMITS | {
    "model.head": limits.one_of(*arrow.HEADS),
    "model.architecture": limits.one_of(*ARCHITECTURES),
    "model.penalty": limits.one_of(*PENALTIES),
    "model.dim": limits.whole(1, limits.MOST_WIDTH),
    "model.num_blocks": limits.whole(1, limits.MOST_DEPTH),
    "model.num_heads": limits.whole(1, limits.MOST_DEPTH),
    "model.key_size": limits.whole(1, limits.MOST_WIDTH),
    "model.num_layers": bcnp.LIMITS["model.num_layers"],
    "model.emb_depth": bcnp.LIMITS["model.emb_depth"],
    "model.ff_dim": limits.whole(1, limits.MOST_WIDTH),
    "model.tau_init": limits.at_least(-50, 50),
    "model.beta_init": limits.at_least(-1e3, 1e3),
    "model.dual.interval": limits.whole(1),
    "model.dual.rate": limits.at_least(0, 1e6),
    "model.dual.average_rate": limits.between(0, 1),
    "model.dual.warmup_steps": limits.whole(0),
    "model.dual.init": limits.at_least(0, 1e12),
}

load = training.load


def make_net(config):
  """The network of a config. Raises UserError where its section `model` has not the fields of its architecture."""
  m = config.model
  net, own = ARCHITECTURES[m.architecture]
  present = [name for _, names in ARCHITECTURES.values() for name in names if name in m]
  if set(present) != set(own):
    raise UserError(f"config.model.architecture: got {m.architecture!r} with fields {', '.join(present)}, allowed with "
                    f"{', '.join(own)} and no other's; choose a variant of the config file that has them")
  shared = ("dim", "num_heads", "ff_dim", "dropout_rate", "remat", "sample_chunk", "head")
  return net(**{name: m[name] for name in (*shared, *own)}, precision=config.train.precision)


def independent_edges(init: Callable, logits_of: Callable, penalty: Callable) -> training.Model:
  """A posterior of independent edges with a penalty for cycles.

  Args:
    init: key -> parameters.
    logits_of: `(params, tasks, key, train) -> [B, D, D]`, edge logits.
    penalty: of edge probabilities [D, D] and a mask of nodes [D].
  """
  def cross_entropy(logits, chunk):
    each = jax.nn.softplus(logits) - chunk["adjacency"] * logits
    return training.mean_over_pairs(each, chunk)

  def terms(params, chunk, key, train):
    logits = logits_of(params, chunk, key, train)
    probs = jax.nn.sigmoid(logits)
    return {"edge": cross_entropy(logits, chunk), "acyclic": jax.vmap(penalty)(probs, chunk["node_mask"])}, probs

  def draw(params, chunk, key, num):
    logits = logits_of(params, chunk, key, False)
    keys = jax.random.split(key, len(logits))
    graphs = jax.vmap(lambda *args: posterior.sample_graphs(*args, num))(keys, logits, chunk["node_mask"])
    probs = jax.nn.sigmoid(logits)
    if "known" in chunk:  # the other edges do not depend on these
      probs, graphs = (jax.vmap(posterior.settle)(x, chunk["known"]) for x in (probs, graphs))
    return cross_entropy(logits, chunk), probs, graphs

  def log_prob(params, chunk, key, num):
    """Edges are independent: exact, whatever `num`."""
    pairs = jnp.sum(jax.vmap(posterior.pair_mask)(chunk["node_mask"]), (1, 2))
    return -pairs * cross_entropy(logits_of(params, chunk, key, False), chunk)

  return training.Model(init, terms, draw, dual=("acyclic",), log_prob=log_prob)


def with_head(config, init: Callable, outputs_of: Callable) -> training.Model:
  """The posterior that `model.head` makes of what a network gives. Raises UserError as `arrow.check_head` does."""
  arrow.check_head(config)
  if config.model.head == "arrow":
    return arrow.ordered_edges(init, outputs_of)
  return independent_edges(init, outputs_of, PENALTIES[config.model.penalty])


def make_model(config) -> training.Model:
  """Network and posterior of a config."""
  return with_head(config, *training.bind(make_net(config)))


def make(config, meta) -> Experiment:
  """The experiment's pure functions."""
  model = make_model(config)
  return training.make(config, meta, model, evaluate.make_assess(config, meta, model),
                       predict.make_verbs(config, model))
