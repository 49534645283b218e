"""A trained autoencoder applied to events or images: for the assessment, for `predict`, and for figures.

Nothing is drawn: a vae gives the mean of its latent, and a decoder that reads noise gets a fixed choice of it.
"""

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.data import blocks
from jaxtrain.experiments.autoencoder import objective, scaling
from jaxtrain.experiments.autoencoder.events import Events
from jaxtrain.experiments.autoencoder.problem import Problem

BLOCK = 2048  # events of a compiled call


class Coder(NamedTuple):
  """Functions of a problem, made once so that their programs are kept between calls; for `blocks.in_blocks`.

  Attributes:
    problem: the problem.
    through: `(variables, rows [B, .] of rows_of) -> {name: [B, ...]}`: `z` [B, S, L], `bits` [B, S], `index` [B, S, Q]
      where there are codes, `error` [B] (mean squared error of an event's normalised numbers, over its objects), and
      what comes back: `cont`, `momenta` [B, T, 4], `met` [B, 2], `ids` [B, T], `exists` [B, T] in 0..1; of images
      `image`.
  """
  problem: Problem
  through: Callable


def variables(state: Any) -> dict[str, Any]:
  """What a problem is applied with."""
  return {"params": state.applied, "codes": objective.codes_of(state)}


def rows_of_events(scaler: dict, events: Events) -> np.ndarray:
  """[N, T C + T + G] float32: events as rows of numbers."""
  cont, met = scaling.forward(scaler, events)
  return np.concatenate([cont.reshape(len(cont), -1), events.ids.astype(np.float32), met], axis=1)


def rows_of(batch: dict[str, np.ndarray]) -> np.ndarray:
  """The same of the columns of a source."""
  if "image" in batch:
    return batch["image"].reshape(len(batch["image"]), -1)
  N = len(batch["ids"])
  return np.concatenate([batch["cont"].reshape(N, -1), batch["ids"].astype(np.float32), batch["globals"]], axis=1)


def batch_of(meta: dict, rows: jax.Array) -> dict[str, jax.Array]:
  """A batch of such rows."""
  B = len(rows)
  ones = {"weight": jnp.ones(B), "event_weight": jnp.ones(B)}
  if meta["kind"] == "images":
    return ones | {"image": rows.reshape(B, *meta["image_shape"])}
  T, C = meta["num_slots"], meta["num_features"]
  cont, ids, met = jnp.split(rows, [T * C, T * C + T], axis=1)
  return ones | {"cont": cont.reshape(B, T, C), "ids": ids.astype(jnp.int32), "globals": met}


def make_coder(p: Problem) -> Coder:
  """The functions of a problem."""
  def through(given, rows):
    batch = batch_of(p.meta, rows)
    found, out = objective.through(p, {"params": given["params"]}, batch, given["codes"])
    result = {"z": found.z, "bits": found.bits} | ({} if found.index is None else {"index": found.index})
    if p.of_images:
      image = jax.nn.sigmoid(out.decoded)
      return result | {"image": image, "error": jnp.mean(jnp.square(image - batch["image"]), axis=(1, 2, 3))}
    there = (batch["ids"] > 0).astype(jnp.float32)
    result |= {"error": event_error(out.decoded.cont, batch["cont"], there), "cont": out.decoded.cont,
               "momenta": scaling.to_momenta(p.meta["scaler"], out.decoded.cont),
               "met": scaling.to_met(p.meta["scaler"], out.decoded.globals)}
    if not p.decodes_types:
      return result | {"ids": batch["ids"], "exists": there}
    return result | {"ids": jnp.argmax(out.decoded.id_logits, axis=2).astype(jnp.int32),
                     "exists": jax.nn.sigmoid(out.decoded.exists_logit)}
  return Coder(p, through)


def event_error(decoded: jax.Array, cont: jax.Array, there: jax.Array) -> jax.Array:
  """[B], mean over an event's objects and their numbers of the squared error; 0 for an event without an object."""
  each = jnp.mean(jnp.square(decoded - cont), axis=2) * there
  return jnp.sum(each, axis=1) / jnp.maximum(jnp.sum(there, axis=1), 1.0)


def apply(coder: Coder, state: Any, rows: np.ndarray) -> dict[str, np.ndarray]:
  """What `Coder.through` gives, over all rows."""
  return blocks.in_blocks(coder.through, variables(state), rows, BLOCK)
