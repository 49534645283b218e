"""An autoencoder of collider events, or of images: an encoder, a latent and a decoder, each of a kind: an experiment.

`model.encoder.kind`, `model.latent.kind` and `model.decoder.kind` combine freely; `nets`, `latents` and `objective` say
what they are and where they come from.
"""

import numpy as np

from jaxtrain import custom
from jaxtrain.config import limits
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import evaluate, latents, nets, nets_layers, prior, sources, training
from jaxtrain.experiments.autoencoder.problem import Problem
from jaxtrain.types import Experiment, Metric, Splits

DRAWING = ("gan", "diffusion")  # decoders that read noise
INIT_ROWS = 1024  # events whose latents a codebook starts at
TRACEABLE = ()
CODE = ("loss.extra", "eval.metrics", "data.loader", "model.encoder.own", "model.decoder.own", "model.latent.own")
METRICS = {
    "loss": Metric("", "the objective: its terms by their weights, in validation and test without commitment", "lower"),
    "cont": Metric("", "squared error of an object's normalised numbers, mean", "lower", words="numbers of objects"),
    "id": Metric("nats", "cross-entropy of an object's type", "lower", words="types of objects"),
    "exists": Metric("nats", "cross-entropy of whether a slot holds an object", "lower", words="presence of objects"),
    "globals": Metric("", "squared error of normalised missing energy and its azimuth, mean", "lower",
                      words="missing energy"),
    "commitment": Metric("", "squared distance of a latent from its code", "lower"),
    "kl": Metric("nats", "divergence of an object's latent from a standard Normal"),
    "prior": Metric("", "squared error of the prior's flow, mean over a latent's numbers: 1 knows nothing", "lower"),
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
    "model.latent.per_object": limits.switch(),
    "model.prior.hidden_dim": limits.whole(1, limits.MOST_WIDTH),
    "model.prior.num_blocks": limits.whole(1, limits.MOST_DEPTH),
    "model.prior.num_steps": limits.whole(1, 10000),
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
  if config.data.source == "images":
    return sources.load_images(config)
  splits = sources.load_events(config)
  if config.model.latent.per_object:
    return splits
  given = splits.train.rows(np.arange(splits.train.num_rows))
  table = prior.count_types(given["ids"], given["event_weight"], splits.meta["num_types"])
  return splits._replace(meta=splits.meta | {"type_counts": table})


def make_problem(config, meta, taken=TAKEN, how=None) -> Problem:
  """The networks, their latent and their loss of a config and the meta of its data; functions of the user's own may not
  have the names `taken`; `how` the decoder denoises, where it does. Raises UserError.
  """
  decoder, dim = config.model.decoder, config.model.latent.dim
  draws = decoder.kind in DRAWING and not decoder.own and meta["kind"] == "events" and how is None
  model = nets.build(config.model, meta, config.train.precision)
  if draws and decoder.kind == "diffusion" and dim < meta["num_features"]:
    raise UserError(f"config.model.latent.dim: got {dim}, the diffusion decoder takes noise of as many numbers as a "
                    f"slot has features, {meta['num_features']}")
  return Problem(
      model, latents.make_plan(config.model.latent, meta), config.loss,
      meta, config.model.legacy, draws, config.model.prior.num_steps, how,
      custom.named_functions("loss.extra", config.loss.extra, taken),
      custom.named_functions("eval.metrics", config.eval.metrics, taken))


def make(config, meta) -> Experiment:
  """The experiment's pure functions. The learning rate and the loss weights may be tracers."""
  p = make_problem(config, meta)
  notes = training.note_no_noise(p, config.model.decoder) if p.has_prior else ()
  return training.make_experiment(p, config, meta, notes)
