"""Stochastic variational inference in NumPyro: a mixture model whose assignments are summed out exactly (enumeration),
and whose centres are latent variables that all rows share.

The centres are drawn once per step, and every chunk sees that draw. Their KL is added once per step and divided by the
number of training rows; the likelihood is divided by the rows of the batch.

**Source:** Hoffman et al. 2013 (Stochastic variational inference), section 2; enumeration: Obermeyer et al. 2019
(Tensor variable elimination for plated factor graphs).
"""

import functools

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.funsor import config_enumerate
from numpyro.infer import TraceEnum_ELBO

from jaxtrain import rng, step
from jaxtrain.types import Experiment, Metric, TrainState
from toys import rows

NUM_CLUSTERS, PRIOR_SCALE = 3, 3.0
METRICS = {"loss": Metric("nats", "Negative evidence lower bound per row.", "lower")}


def get_config(variant=""):
  """Both terms of the bound have weight 1."""
  config = rows.short("toys.svi")
  config.loss.weights = {"likelihood": 1.0, "kl": 1.0}
  return config


load = rows.load


@config_enumerate
def model(centres, logits, x, weight):
  """Rows from clusters with standard deviation 1; padding has no say."""
  with numpyro.plate("rows", len(x)), numpyro.handlers.mask(mask=weight > 0):
    cluster = numpyro.sample("cluster", dist.Categorical(logits=logits))
    numpyro.sample("x", dist.Normal(centres[cluster], 1.0).to_event(1), obs=x)


def guide(centres, logits, x, weight):
  """Nothing is left to guess: clusters are summed over."""


def nats(centres, logits, chunk):
  """Sum over real rows of the negative log likelihood given the centres."""
  with jax.numpy_rank_promotion("allow"):  # NumPyro broadcasts as NumPy does
    return TraceEnum_ELBO().loss(jax.random.key(0), {}, model, guide, centres, logits, chunk["x"], chunk["weight"])


def posterior(params):
  """The approximate posterior of the centres [K, D]."""
  return dist.Normal(params["mean"], jnp.exp(params["log_scale"]))


def make(config, meta):
  """A normal posterior of the centres; the clusters' shares are parameters."""
  tx = rows.optimiser_of(config.optim, meta)

  def init(key, sample):
    shape = (NUM_CLUSTERS, rows.NUM_FEATURES)
    params = {"mean": rows.matrix(rng.stream_key(key, "init"), *shape), "log_scale": jnp.full(shape, -2.0),
              "logits": jnp.zeros(NUM_CLUSTERS)}
    return TrainState(**rows.begin(key, params, tx))

  def loss_sums(noise, params, state, chunk, key):
    q = posterior(params)
    return step.Chunk({"likelihood": nats(q.mean + q.scale * noise, params["logits"], chunk)})

  def global_terms(params, state):
    with jax.numpy_rank_promotion("allow"):
      return {"kl": jnp.sum(dist.kl_divergence(posterior(params), dist.Normal(0.0, PRIOR_SCALE)))}

  counts = lambda batch: {"likelihood": rows.count_rows(batch), "kl": jnp.float32(meta["num_rows"])}
  weights = lambda state: {"likelihood": config.loss.weights.likelihood, "kl": config.loss.weights.kl}

  def train_step(state, batch, key, over):
    noise = rng.normal(rng.step_key(key, 0), (NUM_CLUSTERS, rows.NUM_FEATURES))
    gradient = step.make_gradient(functools.partial(loss_sums, noise), counts, weights, global_terms=global_terms)
    found = gradient(state, batch, rng.step_key(key, 1), over)
    params, opt_state, seen = tx.update(found.grads, state.opt_state, state.params, state.step, found.metrics["loss"])
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state), found.metrics | step.counted(seen)

  def eval_step(state, batch, key, over):
    found = over(lambda chunk, k: nats(state.params["mean"], state.params["logits"], chunk), batch, key)
    return {"loss": (found, rows.count_rows(batch))}

  return Experiment(init, train_step, eval_step)
