"""A small variational autoencoder whose rate is held to a target by a dual variable, with gates that harden as a
temperature falls.

**Source:** Rezende & Viola 2018 (Taming VAEs), algorithm 1, with the constraint on the rate; Louizos et al. 2018
(Learning sparse neural networks through L0 regularization), for gates with a temperature.
"""

import math

import jax
import jax.numpy as jnp

from jaxtrain import bits, duals, losses, rng, schedules, step
from jaxtrain.config import limits
from jaxtrain.types import Experiment, Metric, TrainState
from toys import rows

LATENT_DIM = 2
LIMITS = {"dual.interval": limits.whole(1), "dual.target": limits.at_least(0), "dual.rate": limits.at_least(0)}
TRACEABLE = ("dual.target",)
METRICS = {"rate": Metric("bits", "KL of the posterior per row.")}


def get_config(variant=""):
  """At most `dual.target` bits a row."""
  config = rows.short("toys.dual")
  config.dual = {"interval": 2, "rate": 0.3, "average_rate": 0.5, "warmup_steps": 4, "target": 1.5, "weight": 0.01}
  config.model = {"hottest": 2.0, "coldest": 0.25}
  config.loss.weights = {"recon": 1.0}
  return config


load = rows.load


class DualState(TrainState):
  """A `TrainState` with the dual variable of the rate."""
  dual: duals.Dual


def make(config, meta):
  """Linear encoder and decoder; noise is drawn chunk by chunk."""
  tx, settings = rows.optimiser_of(config.optim, meta), config.dual
  temperature = schedules.kl_shape("exponential", config.model.hottest, config.model.coldest, config.optim.decay_steps)

  def init(key, sample):
    k = [rng.step_key(rng.stream_key(key, "init"), i) for i in range(2)]
    params = {"encoder": rows.matrix(k[0], rows.NUM_FEATURES, 2 * LATENT_DIM), "gate": jnp.ones(LATENT_DIM),
              "decoder": rows.matrix(k[1], LATENT_DIM, rows.NUM_FEATURES)}
    return DualState(**rows.begin(key, params, tx), dual=duals.init(settings.weight))

  def loss_sums(params, state, chunk, key):
    mean, log_var = jnp.split(chunk["x"] @ params["encoder"], 2, axis=1)
    z = mean + jnp.exp(0.5 * log_var) * rng.normal(key, mean.shape)
    x = (z * jax.nn.sigmoid(params["gate"] / temperature(state.step))[None]) @ params["decoder"]
    rate = jnp.sum(losses.gaussian_kl_nats(mean, log_var), axis=1) / math.log(2)
    return step.Chunk({"recon": losses.sum_rows(chunk["weight"], losses.squared_error(chunk["x"], x)),
                       "rate": losses.sum_rows(chunk["weight"], rate)})

  counts = lambda batch: {name: rows.count_rows(batch) for name in ("recon", "rate")}
  gradient = step.make_gradient(loss_sums, counts,
                                lambda state: {"recon": config.loss.weights.recon, "rate": state.dual.weight})

  def train_step(state, batch, key, over):
    found = gradient(state, batch, key, over)
    params, opt_state, seen = tx.update(found.grads, state.opt_state, state.params, state.step, found.metrics["loss"])
    total, count = found.metrics["rate"]
    dual = duals.ascend(state.dual, total / count - bits.opaque(settings.target), state.step, settings, low=0.0)
    seen |= {"dual_weight": state.dual.weight, "temperature": temperature(state.step)}
    new = state.replace(step=state.step + 1, params=params, opt_state=opt_state, dual=dual)
    return new, found.metrics | step.counted(seen)

  def eval_step(state, batch, key, over):
    sums = over(lambda chunk, k: loss_sums(state.params, state, chunk, k).terms, batch, key)
    return {"loss": (sums["recon"], rows.count_rows(batch)), "rate": (sums["rate"], rows.count_rows(batch))}

  return Experiment(init, train_step, eval_step)
