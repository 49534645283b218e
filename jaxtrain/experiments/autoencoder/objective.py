"""The loss of an autoencoder of events, and what is measured of it.

Of the real slots of an event, that is, those that hold an object, unless said otherwise:

  cont        squared error of the normalised numbers of an object, mean over them
  denoise     in place of cont, of a decoder that denoises: the same of noisy objects, weighted by the level of noise
  id          cross-entropy of its type, nats
  exists      cross-entropy of whether a slot holds an object, nats, over all slots
  globals     squared error of the normalised missing energy and its azimuth, mean over them
  commitment  squared distance of a latent from its code, mean over its dimensions (vq, rvq)
  kl          divergence of a latent from a standard Normal, nats (vae)
  prior       squared error of the prior's flow, mean over a latent's numbers, where events have one latent alone
  image       of images alone: cross-entropy of a pixel's brightness, nats

Each is a mean over objects, or events, by their event weights. The loss of an evaluation leaves out commitment. The
legacy loss has cont over all slots, empty ones too, and globals and commitment as means over all there is.

**Source:** van den Oord et al. 2017 (Neural discrete representation learning), eq. 3; Kingma & Welling 2014
(Auto-encoding variational Bayes), eq. 10.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxtrain import custom, losses, rng, step as step_lib
from jaxtrain.experiments.autoencoder import denoising, latents, prior
from jaxtrain.experiments.autoencoder.problem import Output, Problem
from jaxtrain.nn import quantisers
from jaxtrain.types import Batch, Metrics


def objects(p: Problem, batch: Batch) -> jax.Array:
  """[B, T], 1 for slots that hold an object; of all slots with the legacy loss."""
  return jnp.ones(batch["ids"].shape) if p.legacy else (batch["ids"] > 0).astype(jnp.float32)


def side_bits(p: Problem, batch: Batch) -> jax.Array | float:
  """Bits of an event beside its latents: how many objects it has and, where the decoder is given types, these, [B]."""
  if not p.has_prior:
    return p.count_bits
  of_type = jnp.asarray(prior.type_bits(p.meta["type_counts"]), jnp.float32)
  return p.count_bits + jnp.sum(of_type[batch["ids"]], axis=1)


def row_weights(batch: Batch) -> jax.Array:
  """[B], event weights of real rows."""
  return batch["weight"] * batch["event_weight"]


def has_latents(p: Problem, batch: Batch) -> jax.Array:
  """[B], 1 for rows with a latent: all but events of no object where the event has none of its own."""
  if p.of_images or p.has_event:
    return jnp.ones_like(batch["weight"])
  return jnp.max(objects(p, batch), axis=1)


def weights(p: Problem, state: Any) -> dict[str, Any]:
  """Weight of each term."""
  del state
  return {name: p.loss.weights[name] for name in p.terms}


def term_counts(p: Problem, batch: Batch) -> dict[str, jax.Array]:
  """What each term is divided by: weighted events, their objects, their latents, or their slots."""
  weight = row_weights(batch)
  events = jnp.sum(weight)
  found = dict.fromkeys(("globals", "prior", *p.extra_terms), events)
  if p.of_images:
    found |= {"image": events * batch["image"][0].size} | dict.fromkeys(("commitment", "kl"), events * p.num_latents)
  else:
    each = jnp.sum(weight * jnp.sum(objects(p, batch), axis=1))
    found |= {"cont": each, "denoise": each, "id": each, "exists": events * batch["ids"].shape[1]}
    coded = (0.0 if p.model.given_types else each) + (events if p.has_event else 0.0)
    found |= dict.fromkeys(("commitment", "kl"), coded)
  return {name: found[name] for name in p.terms}


def draw(p: Problem, key: jax.Array, num_rows: int) -> Batch:
  """Random numbers of a step for the whole batch, so that every parallel mode sees the same noise."""
  latent_key, decoder_key, prior_key = jax.random.split(key, 3)
  width = len(p.plan.levels) or p.plan.dim
  normal = lambda own_key, num_slots: rng.normal(own_key, (num_rows, num_slots, p.plan.dim))
  found = {"latent_noise": normal(latent_key, p.num_latents)} if p.plan.kind == "vae" else {}
  found |= prior.draw(prior_key, num_rows, width) if p.has_prior else {}
  if p.denoising:
    found |= denoising.draw(p.denoising, decoder_key, num_rows, p.meta["num_slots"], p.meta["num_features"])
  return found | ({"decoder_noise": normal(decoder_key, p.meta["num_slots"])} if p.draws else {})


def of_batch(batch: Batch, name: str) -> jax.Array | None:
  """A part of a batch; None where it has none."""
  return batch[name] if name in batch else None


def through(p: Problem, variables: Any, batch: Batch, codes: Any, dropout: jax.Array | None = None
            ) -> tuple[latents.Latent, Output]:
  """A batch from end to end: its latent, and what comes back, of a decoder that denoises what noisy objects are taken
  for where the batch has noise. `dropout` is a key, None where nothing is dropped.
  """
  bound = p.model.bind(variables, rngs={} if dropout is None else {"dropout": dropout})
  z, mask = bound.encode(p.input_of(batch))
  found = latents.quantise(p.plan, codes, z, mask, of_batch(batch, "latent_noise"))
  if "level" in batch:
    decoded, error = denoising.denoise(p.denoising, bound, found.z, mask, batch)
  else:
    decoded, error = decode(p, bound, found.z, mask, batch), None
  return found, Output(decoded, found.z, found.index, mask, error)


def decode(p: Problem, bound: Any, z: jax.Array, mask: jax.Array, batch: Batch) -> Any:
  """What comes back of latents z [B, S, F] and mask [B, S] of a batch, of a decoder that denoises by them alone."""
  if p.of_images:
    return bound.decode(z, mask, None)
  if p.denoising:
    return denoising.expected(p.denoising, bound, z, mask, batch["ids"], p.meta["num_features"])
  return bound.decode(z, mask, of_batch(batch, "decoder_noise"), batch["ids"])


def row_terms(p: Problem, params: Any, state: Any, batch: Batch, found: latents.Latent, out: Output
              ) -> dict[str, jax.Array]:
  """[B] of each term of the loss: sums over an event's slots."""
  rows = {"commitment": jnp.sum(found.commitment, axis=1), "kl": jnp.sum(found.kl, axis=1)}
  if p.of_images:
    x, logits = batch["image"], out.decoded
    nats = jax.nn.softplus(logits) - x * logits
    rows["image"] = jnp.sum(nats, axis=(1, 2, 3))
  else:
    there, decoded = objects(p, batch), out.decoded
    if p.denoising:
      rows["denoise"] = out.error
    else:
      rows["cont"] = cont_rows(there, decoded, batch)
    rows["globals"] = jnp.mean(jnp.square(decoded.globals - batch["globals"]), axis=1)
    if p.decodes_types:
      B, T, K = decoded.id_logits.shape
      nats = losses.cross_entropy_nats(decoded.id_logits.reshape(B * T, K), batch["ids"].reshape(B * T))
      rows["id"] = jnp.sum(there * nats.reshape(B, T), axis=1)
      rows["exists"] = jnp.sum(jax.nn.softplus(decoded.exists_logit) - there * decoded.exists_logit, axis=1)
  if p.has_prior:
    bound = p.model.bind({"params": params})
    rows["prior"] = prior.loss_rows(bound, state.model_state["latent_moments"], batch, out.z)
  rows |= {name: custom.check_term(name, function(batch, out), len(batch["weight"]))
           for name, function in p.extra_terms.items()}
  return {name: rows[name] for name in p.terms}


def cont_rows(there: jax.Array, decoded: Any, batch: Batch) -> jax.Array:
  """[B]: squared error of decoded objects' numbers, mean over them, summed over slots that are `there` [B, T]."""
  return jnp.sum(there * jnp.mean(jnp.square(decoded.cont - batch["cont"]), axis=2), axis=1)


def measured(p: Problem, batch: Batch, found: latents.Latent, out: Output, use: jax.Array | None) -> Metrics:
  """Metrics of a chunk that are no terms of the loss; `use` [Q, K] counts codes, None where there are none."""
  weight, own = row_weights(batch), {}
  events = jnp.sum(weight)
  own["bits_per_event"] = (losses.sum_rows(weight, jnp.sum(found.bits, axis=1) + side_bits(p, batch)), events)
  if p.of_images:
    error = jnp.square(jax.nn.sigmoid(out.decoded) - batch["image"])
    own["image_mse"] = (losses.sum_rows(weight, jnp.sum(error, axis=(1, 2, 3))), events * batch["image"][0].size)
  else:
    there = (batch["ids"] > 0).astype(jnp.float32)
    each, x = weight[:, None] * there, batch["cont"]
    if p.decodes_types:
      right = (jnp.argmax(out.decoded.id_logits, axis=2) == batch["ids"]).astype(jnp.float32)
      own["id_accuracy"] = (jnp.sum(each * right), jnp.sum(each))
  if not p.of_images and out.error is None:
    total = lambda values: jnp.einsum("bt,btc->c", each, values, precision=jax.lax.Precision.HIGHEST)
    own["square"] = (total(jnp.square(out.decoded.cont - x)), jnp.sum(each))
    own["moments"] = (jnp.stack([total(x), total(jnp.square(x))]), jnp.sum(each))
    if p.denoising:
      own["cont"] = (losses.sum_rows(weight, cont_rows(there, out.decoded, batch)), jnp.sum(each))
  if use is not None:
    own["use"] = (use, events)
  return own | {name: custom.check_metric(name, function(batch, out)) for name, function in p.extra_metrics.items()}


def loss_sums(p: Problem, params: Any, state: Any, chunk: Batch, key: jax.Array) -> step_lib.Chunk:
  """Terms of a chunk, and what a codebook follows."""
  return sums_of(p, params, state, chunk, *through(p, {"params": params}, chunk, codes_of(state), key))


def sums_of(p: Problem, params: Any, state: Any, chunk: Batch, found: latents.Latent, out: Output) -> step_lib.Chunk:
  """The same of a chunk that `through` has taken from end to end."""
  weight, rows = row_weights(chunk), row_terms(p, params, state, chunk, found, out)
  terms = {name: losses.sum_rows(weight, rows[name]) for name in p.terms}
  followed = follow_sums(p, found, chunk, out)
  return step_lib.Chunk(terms, followed, {}, measured(p, chunk, found, out, of_batch(followed, "use")))


def codes_of(state: Any) -> Any:
  """The codebook of a state; None where it has none."""
  return state.model_state["codes"] if "codes" in state.model_state else None


def follow_sums(p: Problem, found: latents.Latent, chunk: Batch, out: Output) -> Any:
  """Sums over a chunk that codes follow, the latents that dead codes move to, and moments of latents of events."""
  sums = {"moments": prior.moment_sums(out.z, row_weights(chunk))} if p.has_prior else {}
  if p.plan.kind not in latents.WITH_CODES:
    return sums
  use, total = latents.statistics(p.plan, found, row_weights(chunk)[:, None] * out.mask)
  return sums | {"use": use, "total": total, "fresh": latents.fresh_inputs(found, out.mask, chunk)}


def evaluate(p: Problem, state: Any, batch: Batch, key: jax.Array, over) -> Metrics:
  """Terms of an evaluation batch, the loss among them, and how often each code is used."""
  def chunk_sums(chunk, _):
    return evaluated(p, state.applied, state, chunk, *through(p, {"params": state.applied}, chunk, codes_of(state)))
  noise_key, rows_key = jax.random.split(key)
  return over(chunk_sums, batch | draw(p, noise_key, len(batch["weight"])), rows_key)


def evaluated(p: Problem, params: Any, state: Any, chunk: Batch, found: latents.Latent, out: Output) -> Metrics:
  """The same of a chunk that `through` has taken from end to end."""
  rows, counts, weight = row_terms(p, params, state, chunk, found, out), term_counts(p, chunk), row_weights(chunk)
  use = latents.usage(p.plan, found.index, weight[:, None] * out.mask) if p.plan.num_codes else None
  terms = {name: (losses.sum_rows(weight, rows[name]), counts[name]) for name in p.terms}
  if p.denoising:  # what comes back is judged without noise
    terms |= denoising.bucket_metrics(p.denoising, out.error, chunk, weight)
    chunk = {name: leaf for name, leaf in chunk.items() if name != "level"}
    found, out = through(p, {"params": params}, chunk, codes_of(state))
  return terms | measured(p, chunk, found, out, use)


def summarise(p: Problem, totals: Metrics) -> dict[str, jax.Array]:
  """The loss of an evaluation, the share of the variance that is not explained, and the codes' use."""
  found = {}
  if "square" in totals:
    (square, count), (moments, _) = totals["square"], totals["moments"]
    spread = moments[1] - jnp.square(moments[0]) / count
    found["unexplained_variance"] = jnp.sum(square) / jnp.sum(spread)
  if "use" in totals:
    use = totals["use"][0]
    found["perplexity_pooled"] = jnp.mean(quantisers.perplexity(use))
    found["codes_used"] = jnp.mean(jnp.sum(use > 0, axis=1).astype(jnp.float32))
  if "loss" not in totals:  # each term has its own count
    found["loss"] = sum(p.loss.weights[name] * totals[name][0] / totals[name][1] for name in p.judged)
  return found
