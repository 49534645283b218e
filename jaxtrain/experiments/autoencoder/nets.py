"""An autoencoder of events: an encoder, a latent of each slot and of the event, a decoder, each of a kind.

The latent of an event has S = T + 1 slots with `globals_slot`: those of its objects, and the last for the event itself,
an MLP of its globals and the mean of the others. Without it S = T, and the event's vector is the mean of the slots'.

Encoder and decoder have linear maps between them where a kind of latent needs some: the one of `linear`, those to the
levels of `fsq` and back, to mean and log-variance of `vae`. What is quantised, and how, is in `latents`.

Without `per_object` objects have no latents of their own: the event's is the only one, S = 1, and the decoder is given
each object's type and its place among those of its type. Where the objects of an event stand in falling order of
momentum, as is usual in files, a decoder so knows the hardest jet from the next.

`legacy` is the network of the original: slots that are empty count as others do, the event's vector is the plain mean
over all of them, and only features and globals are decoded.
"""

import functools
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.config import load_function
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import scaling
from jaxtrain.experiments.autoencoder.nets_decoders import Denoiser, Generator, GNNDecoder, MLPDecoder
from jaxtrain.experiments.autoencoder.nets_encoders import GNNEncoder, MLPEncoder, SetEncoder
from jaxtrain.experiments.autoencoder.nets_images import SHRINK, ConvDecoder, ConvEncoder, ImageAssembly
from jaxtrain.experiments.autoencoder.nets_prior import PriorNet
from jaxtrain.experiments.autoencoder.nets_layers import (Decoded, LatentMaps, Manner, SlotHeads, Slots, Stack,
                                                          Embedding, masked_mean, only_real)
from jaxtrain.types import Batch

KINDS = ("mlp", "gnn", "gan", "diffusion")
MOST_PLACES = 32  # of objects of a type that a decoder tells apart


def make_slots(batch: Batch) -> Slots:
  """The slots of a batch of events: `cont` [B, T, C], `ids` [B, T], `globals` [B, G]; empty ones have id 0."""
  return Slots(batch["cont"], batch["ids"], batch["globals"], (batch["ids"] > 0).astype(jnp.float32))


def places_of(ids: jax.Array, num_types: int) -> jax.Array:
  """[B, T] int32: how many objects of its own type stand before an object of ids [B, T], up to MOST_PLACES - 1."""
  same = jax.nn.one_hot(ids, num_types, dtype=jnp.int32)
  return jnp.minimum(jnp.sum(same * (jnp.cumsum(same, axis=1) - 1), axis=-1), MOST_PLACES - 1)


class Assembly(nn.Module):
  """Encoder, latent and decoder of events.

  Attributes:
    encoder: `(slots) -> z [B, T, L]`. decoder: `(z, event, mask, noise) -> Decoded`.
    maps: of the kind of latent.
    event_dims: widths of the MLP of the event's slot; None without that slot.
    given_types: K, of the types that the decoder is given in place of latents of objects; 0 where it is not.
    prior: the network of the latent's prior given types, where the decoder is given them; None where it is not.
    legacy: empty slots count as real ones.
    manner: of the layers.
  """
  encoder: nn.Module
  decoder: nn.Module
  maps: LatentMaps
  event_dims: tuple[int, ...] | None
  given_types: int
  prior: nn.Module | None
  legacy: bool
  manner: Manner

  def setup(self):
    if self.event_dims is not None:
      self.event = Stack(self.event_dims, self.maps.dim, self.manner)
    if self.given_types:
      self.types = Embedding(self.given_types, self.maps.dim)
      self.places = Embedding(MOST_PLACES, self.maps.dim)

  def encode(self, slots: Slots) -> tuple[jax.Array, jax.Array]:
    """(z [B, S, F] float32, 0 in empty slots, mask [B, S]) of events; F is L, of fsq its coordinates, of vae 2 L. The
    mask is 1 for the event's slot, and everywhere with `legacy`.
    """
    chex.assert_rank([slots.cont, slots.ids, slots.globals, slots.mask], [3, 2, 2, 2])
    if self.legacy:
      return self.maps.enter(self.encoder(slots)).astype(jnp.float32), jnp.ones_like(slots.mask)
    mask = slots.mask
    slots = slots._replace(cont=only_real(slots.cont, mask), ids=jnp.where(mask > 0, slots.ids, 0))
    z = only_real(self.encoder(slots), mask)
    if self.event_dims is not None:
      of_event = self.event(jnp.concatenate([slots.globals, masked_mean(z, mask)], axis=-1))[:, None]
      if self.given_types:
        return self.maps.enter(of_event).astype(jnp.float32), jnp.ones((len(z), 1))
      z = jnp.concatenate([z, of_event.astype(z.dtype)], axis=1)
      mask = jnp.pad(mask, ((0, 0), (0, 1)), constant_values=1.0)
    return only_real(self.maps.enter(z).astype(jnp.float32), mask), mask

  def decode(self, z: jax.Array, mask: jax.Array, noise: jax.Array | None, ids: jax.Array | None = None) -> Decoded:
    """Events of z [B, S, F] as `latents.quantise` gives it and mask [B, S]; F is L, of fsq its coordinates. `noise`
    [B, T, L] is for decoders that draw; None is a fixed choice. `ids` [B, T] are for decoders that are given types.
    What is decoded of empty slots means nothing but for the logit of their existence.
    """
    return self.decoder(*self.seen(z, mask, ids), None if self.legacy else noise)

  def raw(self, x: jax.Array, level: jax.Array, z: jax.Array, mask: jax.Array, ids: jax.Array | None) -> Decoded:
    """What the network of a denoiser, a decoder of the kind diffusion, gives of x [B, T, C] and a noise level [B]."""
    return self.decoder.raw(x, level, *self.seen(z, mask, ids))

  def seen(self, z: jax.Array, mask: jax.Array, ids: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(z [B, T, L], the event's vector [B, L], mask [B, T]), what a decoder gets."""
    z = self.maps.leave(z)
    if self.legacy:
      return z, jnp.mean(z, axis=1), mask
    z = only_real(z, mask)
    if self.given_types:
      there = (ids > 0).astype(jnp.float32)
      named = self.types(ids, z.dtype) + self.places(places_of(ids, self.given_types), z.dtype)
      return only_real(named, there), z[:, 0], there
    if self.event_dims is None:
      return z, masked_mean(z, mask), mask
    return z[:, :-1], z[:, -1], mask[:, :-1]

  def __call__(self, slots: Slots) -> Decoded:
    """An event after encoder and decoder without quantisation; touches all parameters."""
    z, mask = self.encode(slots)
    z = self.maps.middle(z)
    if self.prior is not None:
      self.prior(z[:, 0], jnp.zeros(len(z)), slots.ids)
    return self.decode(z, mask, None, slots.ids)


def check(settings: Any, meta: dict) -> None:
  """Raises UserError where parts do not fit each other or the data."""
  encoder, decoder, latent = settings.encoder, settings.decoder, settings.latent
  if settings.legacy and meta["kind"] == "images":
    raise UserError("config.model.legacy: got True, allowed False for images: the original had no network of them")
  for name, part in (("encoder", encoder), ("decoder", decoder)):
    if part.kind not in KINDS:
      raise UserError(f"config.model.{name}.kind: got {part.kind!r}, allowed {', '.join(KINDS)}")
    if part.own:
      continue
    if part.kind != "mlp" and settings.legacy:
      raise UserError(f"config.model.{name}.kind: got {part.kind!r} with model.legacy, allowed mlp: the original had "
                      "no other that ran")
    if part.kind != "mlp" and meta["kind"] == "images":
      raise UserError(f"config.model.{name}.kind: got {part.kind!r}, allowed mlp for images, whose network has "
                      "convolutions: others are for sets of objects")
    if part.kind != "mlp" and not part.hidden_dims:
      raise UserError(f"config.model.{name}.hidden_dims: got none, kind {part.kind} needs the width of its stream")
    if part.kind in ("gan", "diffusion") and part.hidden_dims[0] % part.num_heads:
      raise UserError(f"config.model.{name}.num_heads: got {part.num_heads}, allowed divisors of the first width "
                      f"{part.hidden_dims[0]}")
    if meta["kind"] == "images" and len(part.hidden_dims) < 2:
      raise UserError(f"config.model.{name}.hidden_dims: got {tuple(part.hidden_dims)}, images need two widths or more")
  if not latent.per_object and (settings.legacy or not settings.globals_slot or meta["kind"] == "images"):
    raise UserError("config.model.latent.per_object: got False, allowed True for images, with model.legacy, and "
                    "without model.globals_slot: the latent that is left is the event's")
  if settings.legacy and not latent.own and latent.kind not in ("none", "linear", "vq"):
    raise UserError(f"config.model.latent.kind: got {latent.kind!r} with model.legacy, allowed none, linear, vq")
  if meta["kind"] == "images" and any(side % SHRINK for side in meta["image_shape"][:2]):
    raise UserError(f"data: images of {meta['image_shape']} pixels, allowed sides that {SHRINK} divides")


def make_encoder(settings: Any, meta: dict, manner: Manner) -> nn.Module:
  """The encoder of `config.model`."""
  part, L = settings.encoder, settings.latent.dim
  if part.own:
    return load_function("model.encoder.own", part.own[0])(settings, meta)
  if meta["kind"] == "images":
    return ConvEncoder(tuple(part.hidden_dims), L, manner)
  sizes = (meta["num_types"], part.embed_dim, tuple(part.hidden_dims), L, manner)
  if part.kind == "mlp":
    return MLPEncoder(*sizes)
  if part.kind == "gnn":
    return GNNEncoder(*sizes, part.num_blocks, functools.partial(scaling.to_momenta, meta["scaler"]))
  return SetEncoder(*sizes, part.num_blocks, part.num_heads, with_noise_level=part.kind == "diffusion")


def make_decoder(settings: Any, meta: dict, manner: Manner) -> nn.Module:
  """The decoder of `config.model`."""
  part = settings.decoder
  if part.own:
    return load_function("model.decoder.own", part.own[0])(settings, meta)
  if meta["kind"] == "images":
    return ConvDecoder(tuple(part.hidden_dims), tuple(meta["image_shape"]), manner)
  decodes_types = settings.latent.per_object and not settings.legacy
  heads = SlotHeads(meta["num_features"], meta["num_types"] if decodes_types else 0)
  sizes = (heads, meta["num_globals"], tuple(part.hidden_dims), tuple(part.globals_dims), manner)
  if part.kind == "mlp":
    return MLPDecoder(*sizes, with_event=not settings.legacy)
  if part.kind == "gnn":
    return GNNDecoder(*sizes, part.num_blocks)
  return {"gan": Generator, "diffusion": Denoiser}[part.kind](*sizes, part.num_blocks, part.num_heads)


def build(settings: Any, meta: dict, precision: str) -> Assembly | ImageAssembly:
  """The network of `config.model` for data of `meta`, computed in the dtype named `precision`. Raises UserError."""
  check(settings, meta)
  latent = settings.latent
  manner = Manner(settings.activation, settings.dropout, precision)
  maps = LatentMaps("own" if latent.own else latent.kind, latent.dim, len(latent.levels))
  encoder, decoder = make_encoder(settings, meta, manner), make_decoder(settings, meta, manner)
  if meta["kind"] == "images":
    return ImageAssembly(encoder, decoder, maps)
  has_event = settings.globals_slot and not settings.legacy
  given_types = 0 if latent.per_object else meta["num_types"]
  prior = PriorNet(given_types, settings.prior.hidden_dim, settings.prior.num_blocks, manner) if given_types else None
  return Assembly(encoder, decoder, maps, tuple(settings.encoder.hidden_dims) if has_event else None, given_types,
                  prior, settings.legacy, manner)
