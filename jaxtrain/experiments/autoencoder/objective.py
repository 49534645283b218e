"""The loss of an autoencoder of events, and what is measured of it.

Of the real slots of an event, that is, those that hold an object, unless said otherwise:

  cont        squared error of the normalised numbers of an object, mean over them
  id          cross-entropy of its type, nats
  exists      cross-entropy of whether a slot holds an object, nats, over all slots
  globals     squared error of the normalised missing energy and its azimuth, mean over them
  commitment  squared distance of a latent from its code, mean over its dimensions (vq, rvq)
  kl          divergence of a latent from a standard Normal, nats (vae)
  image       of images alone: cross-entropy of a pixel's brightness, nats

Each is a mean over objects, or events, by their event weights. The loss of an evaluation leaves out commitment. The
legacy loss has cont over all slots, empty ones too, and globals and commitment as means over all there is.

**Source:** van den Oord et al. 2017 (Neural discrete representation learning), eq. 3; Kingma & Welling 2014
(Auto-encoding variational Bayes), eq. 10.
"""

import math
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from jaxtrain import custom, losses, rng, step as step_lib
from jaxtrain.experiments.autoencoder import latents, nets, nets_images
from jaxtrain.nn import quantisers
from jaxtrain.types import Batch, Metrics


class Output(NamedTuple):
  """What a term or a metric of the user's own sees beside the batch.

  Attributes:
    decoded: what the decoder says of the slots; of images their logits [B, H, W, 1].
    z: [B, S, L], the latents that it was given.
    index: [B, S, Q] int32, their codes; None where there are none.
    mask: [B, S], 1 for latents of something that is there.
  """
  decoded: Any
  z: jax.Array
  index: jax.Array | None
  mask: jax.Array


class Problem(NamedTuple):
  """What the loss needs to know.

  Attributes:
    model: the networks.
    plan: what its latents are.
    loss: `config.loss`; its weights may be tracers.
    meta: of the data.
    legacy: whether the loss is the original's.
    draws: whether the decoder reads noise.
    extra_terms, extra_metrics: the user's own functions by name.
  """
  model: nets.Assembly | nets_images.ImageAssembly
  plan: latents.Plan
  loss: Any
  meta: dict
  legacy: bool
  draws: bool
  extra_terms: dict[str, Callable]
  extra_metrics: dict[str, Callable]

  @property
  def of_images(self) -> bool:
    """Whether the data are images."""
    return self.meta["kind"] == "images"

  @property
  def terms(self) -> tuple[str, ...]:
    """Names of the loss's terms."""
    of_events = ("cont", "globals") if self.legacy else ("cont", "id", "exists", "globals")
    own = {"vq": ("commitment",), "rvq": ("commitment",), "vae": ("kl",), "own": ("commitment", "kl")}
    return (*(("image",) if self.of_images else of_events), *(own[self.plan.kind] if self.plan.kind in own else ()),
            *self.extra_terms)

  @property
  def judged(self) -> tuple[str, ...]:
    """Names of the terms of an evaluation's loss, which say how an event comes back and what it costs. The distance
    from codes does neither, and grows while events come back better; the original's loss has it.
    """
    return tuple(name for name in self.terms if name != "commitment" or self.legacy)

  @property
  def num_latents(self) -> int:
    """S."""
    if self.of_images:
      return math.prod(self.meta["image_shape"][:2]) // nets_images.SHRINK**2
    return self.meta["num_slots"] + (self.model.event_dims is not None)

  @property
  def count_bits(self) -> float:
    """What it costs to say how many objects an event has."""
    return 0.0 if self.of_images else math.log2(self.meta["num_slots"] + 1)

  def input_of(self, batch: Batch) -> Any:
    """What the encoder reads of a batch."""
    return batch["image"] if self.of_images else nets.make_slots(batch)


def objects(p: Problem, batch: Batch) -> jax.Array:
  """[B, T], 1 for slots that hold an object; of all slots with the legacy loss."""
  return jnp.ones(batch["ids"].shape) if p.legacy else (batch["ids"] > 0).astype(jnp.float32)


def row_weights(batch: Batch) -> jax.Array:
  """[B], event weights of real rows."""
  return batch["weight"] * batch["event_weight"]


def has_latents(p: Problem, batch: Batch) -> jax.Array:
  """[B], 1 for rows with a latent: all but events of no object where the event has none of its own."""
  if p.of_images or p.num_latents > p.meta["num_slots"]:
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
  found = dict.fromkeys(("globals", *p.extra_terms), events)
  if p.of_images:
    found |= {"image": events * batch["image"][0].size} | dict.fromkeys(("commitment", "kl"), events * p.num_latents)
  else:
    each = jnp.sum(weight * jnp.sum(objects(p, batch), axis=1))
    found |= {"cont": each, "id": each, "exists": events * batch["ids"].shape[1]}
    more = events * (p.num_latents - batch["ids"].shape[1])  # the event's own latent
    found |= dict.fromkeys(("commitment", "kl"), each + more)
  return {name: found[name] for name in p.terms}


def draw(p: Problem, key: jax.Array, num_rows: int) -> Batch:
  """Random numbers of a step for the whole batch, so that every parallel mode sees the same noise."""
  latent_key, decoder_key = jax.random.split(key)
  normal = lambda own_key, num_slots: rng.normal(own_key, (num_rows, num_slots, p.plan.dim))
  found = {"latent_noise": normal(latent_key, p.num_latents)} if p.plan.kind == "vae" else {}
  return found | ({"decoder_noise": normal(decoder_key, p.meta["num_slots"])} if p.draws else {})


def of_batch(batch: Batch, name: str) -> jax.Array | None:
  """A part of a batch; None where it has none."""
  return batch[name] if name in batch else None


def through(p: Problem, variables: Any, batch: Batch, codes: Any, dropout: jax.Array | None = None
            ) -> tuple[latents.Latent, Output]:
  """A batch from end to end: its latent, and what comes back. `dropout` is a key, None where nothing is dropped."""
  bound = p.model.bind(variables, rngs={} if dropout is None else {"dropout": dropout})
  z, mask = bound.encode(p.input_of(batch))
  found = latents.quantise(p.plan, codes, z, mask, of_batch(batch, "latent_noise"))
  decoded = bound.decode(found.z, mask, of_batch(batch, "decoder_noise"))
  return found, Output(decoded, found.z, found.index, mask)


def row_terms(p: Problem, batch: Batch, found: latents.Latent, out: Output) -> dict[str, jax.Array]:
  """[B] of each term of the loss: sums over an event's slots."""
  rows = {"commitment": jnp.sum(found.commitment, axis=1), "kl": jnp.sum(found.kl, axis=1)}
  if p.of_images:
    x, logits = batch["image"], out.decoded
    nats = jax.nn.softplus(logits) - x * logits
    rows["image"] = jnp.sum(nats, axis=(1, 2, 3))
  else:
    there, decoded = objects(p, batch), out.decoded
    rows["cont"] = jnp.sum(there * jnp.mean(jnp.square(decoded.cont - batch["cont"]), axis=2), axis=1)
    rows["globals"] = jnp.mean(jnp.square(decoded.globals - batch["globals"]), axis=1)
    if not p.legacy:
      B, T, K = decoded.id_logits.shape
      nats = losses.cross_entropy_nats(decoded.id_logits.reshape(B * T, K), batch["ids"].reshape(B * T))
      rows["id"] = jnp.sum(there * nats.reshape(B, T), axis=1)
      rows["exists"] = jnp.sum(jax.nn.softplus(decoded.exists_logit) - there * decoded.exists_logit, axis=1)
  rows |= {name: custom.check_term(name, function(batch, out), len(batch["weight"]))
           for name, function in p.extra_terms.items()}
  return {name: rows[name] for name in p.terms}


def measured(p: Problem, batch: Batch, found: latents.Latent, out: Output, use: jax.Array | None) -> Metrics:
  """Metrics of a chunk that are no terms of the loss; `use` [Q, K] counts codes, None where there are none."""
  weight, own = row_weights(batch), {}
  events = jnp.sum(weight)
  own["bits_per_event"] = (losses.sum_rows(weight, jnp.sum(found.bits, axis=1) + p.count_bits), events)
  if p.of_images:
    error = jnp.square(jax.nn.sigmoid(out.decoded) - batch["image"])
    own["image_mse"] = (losses.sum_rows(weight, jnp.sum(error, axis=(1, 2, 3))), events * batch["image"][0].size)
  else:
    there = (batch["ids"] > 0).astype(jnp.float32)
    each, x = weight[:, None] * there, batch["cont"]
    total = lambda values: jnp.einsum("bt,btc->c", each, values, precision=jax.lax.Precision.HIGHEST)
    own["square"] = (total(jnp.square(out.decoded.cont - x)), jnp.sum(each))
    own["moments"] = (jnp.stack([total(x), total(jnp.square(x))]), jnp.sum(each))
    if not p.legacy:
      right = (jnp.argmax(out.decoded.id_logits, axis=2) == batch["ids"]).astype(jnp.float32)
      own["id_accuracy"] = (jnp.sum(each * right), jnp.sum(each))
  if use is not None:
    own["use"] = (use, events)
  return own | {name: custom.check_metric(name, function(batch, out)) for name, function in p.extra_metrics.items()}


def loss_sums(p: Problem, params: Any, state: Any, chunk: Batch, key: jax.Array) -> step_lib.Chunk:
  """Terms of a chunk, and what a codebook follows."""
  found, out = through(p, {"params": params}, chunk, codes_of(state), key)
  weight, rows = row_weights(chunk), row_terms(p, chunk, found, out)
  terms = {name: losses.sum_rows(weight, rows[name]) for name in p.terms}
  followed = follow_sums(p, found, chunk, out)
  return step_lib.Chunk(terms, followed, {}, measured(p, chunk, found, out, of_batch(followed, "use")))


def codes_of(state: Any) -> Any:
  """The codebook of a state; None where it has none."""
  return state.model_state["codes"] if "codes" in state.model_state else None


def follow_sums(p: Problem, found: latents.Latent, chunk: Batch, out: Output) -> Any:
  """Sums over a chunk that codes follow, and the latents that dead codes move to."""
  if p.plan.kind not in latents.WITH_CODES:
    return {}
  use, total = latents.statistics(p.plan, found, row_weights(chunk)[:, None] * out.mask)
  return {"use": use, "total": total, "fresh": latents.fresh_inputs(found, out.mask, chunk)}


def evaluate(p: Problem, state: Any, batch: Batch, key: jax.Array, over) -> Metrics:
  """Terms of an evaluation batch, the loss among them, and how often each code is used."""
  def chunk_sums(chunk, _):
    found, out = through(p, {"params": state.applied}, chunk, codes_of(state))
    rows, counts = row_terms(p, chunk, found, out), term_counts(p, chunk)
    weight = row_weights(chunk)
    use = latents.usage(p.plan, found.index, weight[:, None] * out.mask) if p.plan.num_codes else None
    return {name: (losses.sum_rows(weight, rows[name]), counts[name]) for name in p.terms} | measured(
        p, chunk, found, out, use)
  noise_key, rows_key = jax.random.split(key)
  return over(chunk_sums, batch | draw(p, noise_key, len(batch["weight"])), rows_key)


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
