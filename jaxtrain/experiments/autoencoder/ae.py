"""An autoencoder of collider events, or of images: an encoder, a latent and a decoder, each of a kind: an experiment.

`model.encoder.kind`, `model.latent.kind` and `model.decoder.kind` combine freely; `nets`, `latents` and `objective` say
what they are and where they come from.
"""

import functools

import jax
import jax.numpy as jnp

from jaxtrain import custom, optim, rng, step
from jaxtrain.config import limits
from jaxtrain.experiments.autoencoder import evaluate, latents, nets, nets_layers, objective, predict, sources
from jaxtrain.types import Experiment, Metric, Splits, TrainState

DRAWING = ("gan", "diffusion")  # decoders that read noise
INIT_ROWS = 1024  # events whose latents a codebook starts at
TRACEABLE = ()
CODE = ("loss.extra", "eval.metrics", "data.loader", "model.encoder.own", "model.decoder.own", "model.latent.own")
METRICS = {
    "loss": Metric("", "the objective: its terms by their weights, in validation and test without commitment", "lower"),
    "cont": Metric("", "squared error of an object's normalised numbers, mean", "lower"),
    "id": Metric("nats", "cross-entropy of an object's type", "lower"),
    "exists": Metric("nats", "cross-entropy of whether a slot holds an object", "lower"),
    "globals": Metric("", "squared error of normalised missing energy and its azimuth, mean", "lower"),
    "commitment": Metric("", "squared distance of a latent from its code", "lower"),
    "kl": Metric("nats", "divergence of an object's latent from a standard Normal"),
    "image": Metric("nats", "cross-entropy of a pixel", "lower"),
    "image_mse": Metric("", "squared error of a pixel's brightness, mean", "lower"),
    "lr": Metric("", "learning rate"),
    "grad_norm": Metric("", "norm of the gradient before clipping"),
} | evaluate.METRICS
TAKEN = (*METRICS, "weight", "event_weight", "ids", "square", "moments", "use")  # names that own functions may not have
LIMITS = sources.LIMITS | {
    f"model.{part}.{name}": limit for part in ("encoder", "decoder") for name, limit in {
        "kind": limits.one_of(*nets.KINDS),
        "own": limits.function(),
        "hidden_dims": limits.each(limits.whole(1, limits.MOST_WIDTH), 1, limits.MOST_DEPTH),
        "num_blocks": limits.whole(1, 64),
        "num_heads": limits.whole(1, 64)}.items()} | {
    "model.encoder.embed_dim": limits.whole(1, 1024),
    "model.decoder.globals_dims": limits.each(limits.whole(1, limits.MOST_WIDTH), 0, limits.MOST_DEPTH),
    "model.latent.kind": limits.one_of(*latents.KINDS),
    "model.latent.own": limits.function(),
    "model.latent.dim": limits.whole(1, limits.MOST_WIDTH),
    "model.latent.num_codes": limits.whole(2, 65536),
    "model.latent.num_stages": limits.whole(1, 64),
    "model.latent.levels": limits.each(limits.whole(2, 4096), 1, 64),
    "model.latent.decay": limits.between(0, 1),
    "model.latent.revive_below": limits.between(0, 1),
    "model.latent.gradient": limits.one_of(*latents.GRADIENTS),
    "model.activation": limits.one_of(*nets_layers.ACTIVATIONS),
    "model.dropout": limits.between(0, 0.99),
    "model.globals_slot": limits.switch(),
    "model.legacy": limits.switch(),
    "loss.extra": limits.functions(),
    "eval.metrics": limits.functions(),
}


def load(config) -> Splits:
  """Reads or simulates the events, and makes a source of each part. Raises UserError."""
  custom.check_weights(config.loss)
  return sources.load_images(config) if config.data.source == "images" else sources.load_events(config)


def make_problem(config, meta) -> objective.Problem:
  """The networks, their latent and their loss of a config and the meta of its data."""
  decoder = config.model.decoder
  draws = decoder.kind in DRAWING and not decoder.own and meta["kind"] == "events"
  return objective.Problem(
      nets.build(config.model, meta, config.train.precision), latents.make_plan(config.model.latent, meta), config.loss,
      meta, config.model.legacy, draws,
      custom.named_functions("loss.extra", config.loss.extra, TAKEN),
      custom.named_functions("eval.metrics", config.eval.metrics, TAKEN))


def make(config, meta) -> Experiment:
  """The experiment's pure functions. The learning rate and the loss weights may be tracers."""
  p, settings = make_problem(config, meta), config.model.latent
  tx = optim.make(config.optim, meta["steps_per_epoch"])
  gradient = step.make_gradient(functools.partial(objective.loss_sums, p), functools.partial(objective.term_counts, p),
                                functools.partial(objective.weights, p))

  def init(key, sample):
    params_key, codes_key = jax.random.split(rng.stream_key(key, "init"))
    first = jax.tree.map(lambda leaf: leaf[:2], p.input_of(sample))
    params = p.model.init(params_key, first)["params"]
    z, mask = p.model.bind({"params": params}).encode(p.input_of(sample))
    codes = latents.start(p.plan, codes_key, z, mask * sample["weight"][:, None])
    ema = jax.tree.map(jnp.copy, params) if config.optim.ema_decay else None
    return TrainState(step=jnp.zeros((), jnp.int32), key=key, params=params,
                      model_state={} if codes is None else {"codes": codes}, opt_state=tx.init(params), ema=ema,
                      guard=step.init_guard())

  def train_step(state, batch, key, over):
    noise_key, fresh_key, rows_key = jax.random.split(key, 3)
    batch = batch | objective.draw(p, noise_key, len(batch["weight"]))
    if p.plan.kind in latents.WITH_CODES:
      batch |= latents.draw_fresh(fresh_key, batch["weight"] * objective.has_latents(p, batch))
    found = gradient(state, batch, rows_key, over)
    new, metrics = step.apply_gradient(found, state, tx, config.optim.ema_decay)
    if "codes" in state.model_state:
      sums = found.sums
      count = jnp.maximum(jnp.sum(sums["use"][0]), 1.0)
      new = new.replace(model_state={"codes": latents.advance(p.plan, state.model_state["codes"], sums["use"] / count,
                                                              sums["total"] / count, sums["fresh"], settings)})
    return new, metrics

  def eval_step(state, batch, key, over):
    return objective.evaluate(p, state, batch, key, over)

  return Experiment(init=init, train_step=train_step, eval_step=eval_step,
                    summarise=functools.partial(objective.summarise, p), observe=optim.make_observe(tx, config.optim),
                    assess=evaluate.make_assess(p), predict=predict.make_verbs(p),
                    alarms=functools.partial(evaluate.alarms, p))
