"""What encoders and decoders of events are made of: slots, stacks of layers, pooling, heads.

An event is a set of T slots, some of which are empty. Layers act on rows, B T of them at once; what is in an empty slot
has no part in what comes out of others.
"""

from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain import rng
from jaxtrain.nn import activations
from jaxtrain.nn.linear import Linear

ACTIVATIONS = {"gelu": activations.gelu, "relu": nn.relu, "silu": nn.silu}
NEVER = -1e9  # logit of the id of an empty slot where a slot exists: finite, so that no product with 0 is NaN


class Slots(NamedTuple):
  """Events as an encoder sees them.

  Attributes:
    cont: [B, T, C] normalised features.
    ids: [B, T] int32 object types, 0 in an empty slot.
    globals: [B, G] normalised features of the whole event.
    mask: [B, T] float32, 1 where a slot holds an object.
  """
  cont: jax.Array
  ids: jax.Array
  globals: jax.Array
  mask: jax.Array


class Decoded(NamedTuple):
  """Events as a decoder gives them, float32.

  Attributes:
    cont: [B, T, C] normalised features.
    id_logits: [B, T, K], of which the first, an empty slot's, never wins; None where types are not decoded.
    exists_logit: [B, T], whether a slot holds an object; likewise.
    globals: [B, G] normalised features of the whole event.
  """
  cont: jax.Array
  id_logits: jax.Array | None
  exists_logit: jax.Array | None
  globals: jax.Array


def only_real(x: jax.Array, mask: jax.Array) -> jax.Array:
  """x [B, T, F] with zeros in empty slots, whatever was there."""
  return jnp.where(mask[..., None] > 0, x, jnp.zeros_like(x))


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
  """Mean [B, F] of x [B, T, F] over slots of mask 1; zeros where there are none."""
  total = jnp.einsum("bt,btf->bf", mask, x.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
  return total / jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1.0)


def drop(module: nn.Module, x: jax.Array, rate: float) -> jax.Array:
  """x with entries zeroed at `rate`, the others scaled by 1 / (1 - rate), where a random stream "dropout" is given."""
  if rate == 0.0 or not module.has_rng("dropout"):
    return x
  keep = rng.bernoulli(module.make_rng("dropout"), 1.0 - rate, x.shape)
  return jnp.where(keep, x * (1.0 / (1.0 - rate)), jnp.zeros_like(x))


class Manner(NamedTuple):
  """What all layers of a network have in common.

  Attributes:
    activation: gelu, relu or silu. dropout: rate after each activation. precision: dtype name of the computation.
  """
  activation: str
  dropout: float
  precision: str

  def act(self, x: jax.Array) -> jax.Array:
    """The activation of x."""
    return ACTIVATIONS[self.activation](x)


class Rows(nn.Module):
  """An affine layer on the last axis of x [..., D], as one product over all rows; `zeros` as of `Linear`."""
  features: int
  zeros: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = Linear(self.features, zeros=self.zeros, name="linear")(x.reshape(-1, x.shape[-1]))
    return y.reshape(*x.shape[:-1], self.features)


class Stack(nn.Module):
  """[affine, activation, dropout] for each width, then an affine layer to `features`: x [..., D] to [..., features].

  Attributes:
    widths, features: of the layers.
    manner: of the layers.
  """
  widths: tuple[int, ...]
  features: int
  manner: Manner

  @nn.compact
  def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
    """`context` [B, E], where there is one, is added to the first layer of each slot of x [B, T, D], by a map that
    starts at zero.
    """
    x = x.astype(self.manner.precision)
    for i, width in enumerate((*self.widths, self.features)):
      h = Rows(width, name=f"layer_{i}")(x)
      if context is not None and i == 0:
        h = h + Rows(width, zeros=True, name="context")(context.astype(h.dtype))[:, None]
      x = drop(self, self.manner.act(h), self.manner.dropout) if i < len(self.widths) else h
    return x


class Embedding(nn.Module):
  """Vectors [B, T, dim] of object types, from N(0, 1) at first; a product with one-hot ids, whose gradient is one too.
  """
  num_types: int
  dim: int

  @nn.compact
  def __call__(self, ids: jax.Array, dtype) -> jax.Array:
    table = self.param("table", nn.initializers.normal(1.0), (self.num_types, self.dim))
    one_hot = jax.nn.one_hot(ids, self.num_types, dtype=dtype)
    return (one_hot.reshape(-1, self.num_types) @ table.astype(dtype)).reshape(*ids.shape, self.dim)


class Inputs(nn.Module):
  """[B, T, C + embed_dim]: features and embedding of each slot's object."""
  num_types: int
  embed_dim: int
  precision: str

  @nn.compact
  def __call__(self, slots: Slots) -> jax.Array:
    chex.assert_equal_shape_prefix([slots.cont, slots.ids, slots.mask], 2)
    kind = Embedding(self.num_types, self.embed_dim, name="types")(slots.ids, self.precision)
    return jnp.concatenate([slots.cont.astype(self.precision), kind], axis=-1)


class SlotHeads(NamedTuple):
  """Sizes of what is decoded of a slot: features C, types K with the empty one; 0 types: features alone."""
  num_features: int
  num_types: int

  @property
  def size(self) -> int:
    """Outputs of a slot: features, logits of types but the empty one, a logit of existence."""
    return self.num_features + self.num_types

  def split(self, out: jax.Array, of_event: jax.Array) -> Decoded:
    """A decoded event of the outputs [B, T, size] of slots and of_event [B, G], its globals."""
    out, of_event = out.astype(jnp.float32), of_event.astype(jnp.float32)
    if not self.num_types:
      return Decoded(out, None, None, of_event)
    C, K = self.num_features, self.num_types
    never = jnp.full((*out.shape[:2], 1), NEVER)
    id_logits = jnp.concatenate([never, out[..., C:C + K - 1]], axis=-1)
    return Decoded(out[..., :C], id_logits, out[..., C + K - 1], of_event)


class LatentMaps(nn.Module):
  """Linear maps that a kind of latent needs between encoder and decoder.

  Attributes:
    kind: see `latents`. dim: L. num_levels: coordinates of the kind fsq.
  """
  kind: str
  dim: int
  num_levels: int

  def setup(self):
    width = {"linear": self.dim, "fsq": self.num_levels, "vae": 2 * self.dim}
    self.into = Rows(width[self.kind]) if self.kind in width else None
    self.back = Rows(self.dim) if self.kind == "fsq" else None

  def enter(self, z: jax.Array) -> jax.Array:
    """What is quantised of the encoder's z [B, S, L]."""
    return z if self.into is None else self.into(z)

  def leave(self, z: jax.Array) -> jax.Array:
    """What the decoder gets [B, S, L] of what is quantised."""
    return z if self.back is None else self.back(z)

  def middle(self, z: jax.Array) -> jax.Array:
    """What `leave` takes, without quantisation, of what `enter` gave: of a vae its means."""
    return z[..., :self.dim] if self.kind == "vae" else z
