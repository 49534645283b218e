"""What the loops of autoencoders have in common: a state at its start, the random numbers of a step, what of the state
follows the batches beside the parameters (codes, and moments of latents), and all that is done with a trained state.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxtrain import optim, rng, step
from jaxtrain.experiments.autoencoder import evaluate, latents, objective, predict, prior
from jaxtrain.experiments.autoencoder.problem import Problem
from jaxtrain.types import Batch, Experiment, TrainState


def start(p: Problem, params_key: jax.Array, codes_key: jax.Array, sample: Batch
          ) -> tuple[Any, dict[str, Any]]:
  """(parameters of the networks, what follows the batches) at the start; `sample` is the first rows."""
  first = jax.tree.map(lambda leaf: leaf[:2], p.input_of(sample))
  params = p.model.init(params_key, first)["params"]
  z, mask = p.model.bind({"params": params}).encode(p.input_of(sample))
  codes = latents.start(p.plan, codes_key, z, mask * sample["weight"][:, None])
  followed = {} if codes is None else {"codes": codes}
  if p.has_prior:
    # Moments are of latents as in training. Noise is for a vae alone, which has no codes that would need the key.
    noise = rng.normal(rng.step_key(codes_key, 1), (*mask.shape, p.plan.dim))
    found = latents.quantise(p.plan, codes, z, mask, noise)
    followed["latent_moments"] = prior.start_moments(found.z, objective.row_weights(sample))
  return params, followed


def with_draws(p: Problem, batch: Batch, key: jax.Array) -> Batch:
  """The batch with all random numbers of a training step, drawn for the batch as a whole."""
  noise_key, fresh_key = jax.random.split(key)
  batch = batch | objective.draw(p, noise_key, len(batch["weight"]))
  if p.plan.kind in latents.WITH_CODES:
    batch |= latents.draw_fresh(fresh_key, batch["weight"] * objective.has_latents(p, batch))
  return batch


def follow(p: Problem, followed: dict[str, Any], found: step.Gradient, batch: Batch, settings: Any
           ) -> dict[str, Any]:
  """What follows the batches, after a batch whose gradient was found; `settings` is `config.model.latent`."""
  sums, changed = found.sums, {}
  if "codes" in followed:
    count = jnp.maximum(jnp.sum(sums["use"][0]), 1.0)
    changed["codes"] = latents.advance(p.plan, followed["codes"], sums["use"] / count, sums["total"] / count,
                                       sums["fresh"], settings)
  if p.has_prior:
    count = jnp.sum(objective.row_weights(batch))
    changed["latent_moments"] = prior.follow(followed["latent_moments"], sums["moments"], count)
  return followed | changed


def note_no_prior(p: Problem) -> tuple[str, ...]:
  """What a loop for new events notes where none can be made."""
  return () if p.has_prior else (
      "config.model.latent.per_object=True: objects have latents, of which no new ones are drawn, so that there is no "
      "verb generate and config.model.prior has no effect; False makes new events",)


def note_no_noise(p: Problem, decoder: Any) -> tuple[str, ...]:
  """What a loop for new events notes of a decoder, `config.model.decoder`, that draws nothing."""
  if p.draws or p.denoising or decoder.own:
    return ()
  return (f"config.model.decoder.kind={decoder.kind} reads no noise: a latent has one event alone; gan does",)


def make_experiment(p: Problem, config: Any, meta: dict, notes: tuple[str, ...] = ()) -> Experiment:
  """The experiment of a loss with one optimiser for all networks; `notes` of its own, see `Experiment`."""
  tx = optim.make(config.optim, meta["steps_per_epoch"])
  gradient = step.make_gradient(functools.partial(objective.loss_sums, p), functools.partial(objective.term_counts, p),
                                functools.partial(objective.weights, p))

  def init(key, sample):
    params, followed = start(p, *jax.random.split(rng.stream_key(key, "init")), sample)
    ema = jax.tree.map(jnp.copy, params) if config.optim.ema_decay else None
    return TrainState(step=jnp.zeros((), jnp.int32), key=key, params=params,
                      model_state=followed, opt_state=tx.init(params), ema=ema, guard=step.init_guard())

  def train_step(state, batch, key, over):
    draws_key, rows_key = jax.random.split(key)
    batch = with_draws(p, batch, draws_key)
    found = gradient(state, batch, rows_key, over)
    new, metrics = step.apply_gradient(found, state, tx, config.optim.ema_decay)
    return new.replace(model_state=follow(p, state.model_state, found, batch, config.model.latent)), metrics

  return Experiment(init=init, train_step=train_step, observe=optim.make_observe(tx, config.optim), notes=notes,
                    **judged(p))


def judged(p: Problem) -> dict[str, Any]:
  """The fields of an experiment that evaluate its state and make use of it."""
  return {"eval_step": functools.partial(objective.evaluate, p), "summarise": functools.partial(objective.summarise, p),
          "assess": evaluate.make_assess(p), "predict": predict.make_verbs(p),
          "alarms": functools.partial(evaluate.alarms, p)}
