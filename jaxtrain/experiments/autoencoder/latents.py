"""From what an encoder gives to what a decoder gets, for each kind of latent: pure functions.

  none     as it is                                   linear   as it is: the network's map comes before
  vq       the nearest code of a codebook             rvq      of one codebook after the other, for what is left
  fsq      a fixed number of levels a coordinate      vae      a sample of a Normal whose mean and variance are coded

One codebook serves all slots: its rows are the slots of all events. Slots of mask 0 are zero, cost nothing, have the
index -1 and no part in any statistic. Bits of a slot are those of an ideal code for how often each code was used: a
moving average of the training batches, or counts.

**Source:** van den Oord et al. 2017 (Neural discrete representation learning), section 3; gradients past a codebook by
a rotation: Fifty et al. 2024 (Restructuring vector quantization with the rotation trick); residual codes: Zeghidour et
al. 2021 (SoundStream), section III-C; levels: Mentzer et al. 2023 (FSQ: VQ-VAE made simple).
"""

import math
from typing import Any, Callable, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxtrain import losses
from jaxtrain.config import load_function
from jaxtrain.errors import UserError
from jaxtrain.nn import quantisers

KINDS = ("none", "linear", "vq", "fsq", "rvq", "vae")
WITH_CODEBOOK = ("vq", "rvq")
WITH_CODES = (*WITH_CODEBOOK, "fsq")
GRADIENTS = ("straight", "rotation")
FLOAT_BITS = 32.0  # of a coordinate that is not coded
START_ROWS = 32  # inputs that a code starts from, on average
FRESH = 16  # inputs of a batch that dead codes may move to
MOST_CODES = 65536
MOST_LOG_VAR = 20.0  # beyond which a variance has no gradient
MOST_TANH = 1 - 1e-6  # size of a number whose inverse of tanh is finite in float32
RARE = 1e-9  # least share of a code
NATS = math.log(2)  # of a bit


class Plan(NamedTuple):
  """How latents are quantised.

  Attributes:
    kind: one of KINDS, or "own".
    dim: L, width of z as the decoder gets it.
    num_stages: Q, codes of a slot. num_codes: K, of each.
    levels: of each coordinate, of the kind fsq.
    rotated: gradients pass a codebook by a rotation, not straight through.
    own: the user's function of (z, mask, noise), with the kind "own".
  """
  kind: str
  dim: int
  num_stages: int = 0
  num_codes: int = 0
  levels: tuple[int, ...] = ()
  rotated: bool = False
  own: Callable | None = None


class Latent(NamedTuple):
  """A latent as the decoder sees it; empty slots have zeros everywhere and the index -1.

  Attributes:
    z: [B, S, L], with gradients.
    index: [B, S, Q] int32, codes; None where nothing is coded.
    bits: [B, S] cost of a slot: of its codes by their shares, of a vae its divergence, of floats 32 a number.
    commitment: [B, S] mean squared distance of a slot from its code, whose gradient moves the encoder.
    kl: [B, S] divergence from a standard Normal, nats.
    looked: what codebooks saw, of B S rows; None without one.
  """
  z: jax.Array
  index: jax.Array | None
  bits: jax.Array
  commitment: jax.Array
  kl: jax.Array
  looked: quantisers.Looked | None = None


def make_plan(settings: Any, meta: dict) -> Plan:
  """The plan of `config.model.latent`; a function of one's own comes from `own(settings, meta)`. Raises UserError."""
  if settings.own:
    return Plan("own", settings.dim, own=load_function("model.latent.own", settings.own[0])(settings, meta))
  if settings.kind not in KINDS:
    raise UserError(f"config.model.latent.kind: got {settings.kind!r}, allowed {', '.join(KINDS)}")
  if settings.gradient not in GRADIENTS:
    raise UserError(f"config.model.latent.gradient: got {settings.gradient!r}, allowed {', '.join(GRADIENTS)}")
  if settings.kind in WITH_CODEBOOK:
    stages = settings.num_stages if settings.kind == "rvq" else 1
    return Plan(settings.kind, settings.dim, stages, settings.num_codes, rotated=settings.gradient == "rotation")
  if settings.kind == "fsq":
    levels = tuple(settings.levels)
    if not levels or min(levels) < 2 or math.prod(levels) > MOST_CODES:
      raise UserError(f"config.model.latent.levels: got {levels}, allowed levels of at least 2 whose product, the "
                      f"number of codes, is at most {MOST_CODES}")
    return Plan("fsq", settings.dim, 1, math.prod(levels), levels)
  return Plan(settings.kind, settings.dim)


def quantise(p: Plan, codes: quantisers.Codebook | None, z: jax.Array, mask: jax.Array, noise: jax.Array | None
             ) -> Latent:
  """The latent of z [B, S, F] as `Assembly.encode` gives it.

  Args:
    p: the plan.
    codes: of the kinds in WITH_CODES; None otherwise.
    z, mask: [B, S, F] with zeros in empty slots, and [B, S].
    noise: [B, S, L] standard normal numbers of a vae; None for its mean.
  """
  chex.assert_rank([z, mask], [3, 2])
  if p.kind == "own":
    return p.own(z, mask, noise)
  if p.kind in WITH_CODEBOOK:
    return by_codebook(p, codes, z, mask)
  if p.kind == "fsq":
    return by_levels(p, codes, z, mask)
  if p.kind == "vae":
    return by_sample(z, mask, noise)
  zero = jnp.zeros_like(mask)
  return Latent(z, None, FLOAT_BITS * p.dim * mask, zero, zero)


def by_codebook(p: Plan, codes: quantisers.Codebook, z: jax.Array, mask: jax.Array) -> Latent:
  """The latent by one codebook, or by one after the other."""
  B, S, L = z.shape
  x, real = z.reshape(B * S, L), mask.reshape(B * S) > 0
  looked = jax.lax.stop_gradient(quantisers.look_up(codes.codes, jax.lax.stop_gradient(x), residual=True))
  chosen = jnp.where(real[:, None], jnp.sum(looked.chosen, axis=1), 0.0)
  index = jnp.where(real[:, None], looked.index, -1)
  gap = jnp.mean(jnp.square(x - chosen), axis=1)
  passed = (quantisers.rotate if p.rotated else quantisers.straight_through)(x, chosen)
  return Latent(passed.reshape(B, S, L), index.reshape(B, S, -1), code_bits(codes.use, index).reshape(B, S),
                gap.reshape(B, S), jnp.zeros((B, S)), looked)


def by_levels(p: Plan, codes: quantisers.Codebook, z: jax.Array, mask: jax.Array) -> Latent:
  """The latent by levels of each coordinate of z [B, S, len(levels)], which count as one code."""
  B, S, _ = z.shape
  digits, value = quantisers.finite_scalar(z.reshape(B * S, -1), p.levels)
  index = jnp.where(mask > 0, jnp.sum(digits * place_values(p)[None], axis=1).reshape(B, S), -1)[..., None]
  looked = quantisers.Looked(index.reshape(B * S, 1), *(jax.lax.stop_gradient(value)[:, None],) * 2)
  zero = jnp.zeros_like(mask)
  return Latent(jnp.where(mask[..., None] > 0, value.reshape(z.shape), 0.0), index, code_bits(codes.use, index), zero,
                zero, looked)


def place_values(p: Plan) -> jax.Array:
  """[len(levels)] int32: what a level of each coordinate counts in the code, the first coordinate most."""
  return jnp.asarray([math.prod(p.levels[k + 1:]) for k in range(len(p.levels))], jnp.int32)


def by_sample(z: jax.Array, mask: jax.Array, noise: jax.Array | None) -> Latent:
  """The latent by a sample of Normals whose means and log-variances are halves of z [B, S, 2 L]."""
  mean, log_var = jnp.split(z, 2, axis=-1)
  log_var = jnp.clip(log_var, -MOST_LOG_VAR, MOST_LOG_VAR)
  sample = mean if noise is None else mean + jnp.exp(0.5 * log_var) * noise
  kl = mask * jnp.sum(losses.gaussian_kl_nats(mean, log_var), axis=-1)
  return Latent(jnp.where(mask[..., None] > 0, sample, 0.0), None, kl / NATS, jnp.zeros_like(mask), kl)


def nearest(p: Plan, codes: quantisers.Codebook | None, z: jax.Array) -> jax.Array:
  """[B, S, F]: new latents z [B, S, F], numbers as a decoder gets them, moved to codes where the kind has some. A code
  of `vq` or `fsq` stays where it is; `rvq` looks up one codebook after the other, as for what is encoded.
  """
  if p.kind not in WITH_CODES:
    return z
  if p.kind == "fsq":  # `by_levels` squashes what it gets
    z = jnp.arctanh(jnp.clip(z, -MOST_TANH, MOST_TANH))
  return quantise(p, codes, z, jnp.ones(z.shape[:2]), None).z


def points(p: Plan, codes: quantisers.Codebook, index: jax.Array) -> jax.Array:
  """What a decoder gets of codes index [B, S, Q]: [B, S, F], zeros where the index is -1."""
  B, S, Q = index.shape
  chosen = quantisers.pick(codes.codes, jnp.maximum(index, 0).reshape(B * S, Q))
  return jnp.where(index[..., :1] < 0, 0.0, jnp.sum(chosen, axis=1).reshape(B, S, -1))


def code_bits(use: jax.Array, index: jax.Array) -> jax.Array:
  """Bits [...] of codes index [..., Q] that are used in proportion to use [Q, K], summed over Q; 0 for index -1."""
  share = use / jnp.maximum(jnp.sum(use, axis=1, keepdims=True), RARE)
  cost = -jnp.log2(jnp.maximum(share, RARE))
  own = jnp.stack([cost[q][index[..., q]] for q in range(len(use))], axis=-1)
  return jnp.sum(jnp.where(index < 0, 0.0, own), axis=-1)


def start(p: Plan, key: jax.Array, z: jax.Array, mask: jax.Array) -> quantisers.Codebook | None:
  """Codes at the start: a codebook fitted to real slots of first events z [B, S, F], mask [B, S]; None without codes.
  """
  if p.kind == "fsq":
    digits = jnp.arange(p.num_codes)[:, None] // place_values(p)[None] % jnp.asarray(p.levels)[None]
    grid, even = quantisers.level_values(digits, p.levels)[None], jnp.full((1, p.num_codes), 1 / p.num_codes)
    return quantisers.Codebook(grid, even, grid * even[..., None])
  if p.kind not in WITH_CODEBOOK:
    return None
  rows_key, fit_key = jax.random.split(key)
  x, real = z.reshape(-1, z.shape[-1]), mask.reshape(-1)
  order = jnp.argsort(jnp.where(real > 0, jax.random.uniform(rows_key, real.shape), 2.0))
  order = order[:START_ROWS * p.num_codes]  # real ones first
  return quantisers.start(fit_key, x[order], p.num_stages, p.num_codes, True, real[order])


def statistics(p: Plan, latent: Latent, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(use [Q, K], total [Q, K, F]): sums that codes follow, over slots of weight [B, S], 0 for an empty one."""
  return quantisers.statistics(latent.looked, weight.reshape(-1), p.num_codes)


def usage(p: Plan, index: jax.Array, weight: jax.Array) -> jax.Array:
  """[Q, K]: how often each code is used by slots of index [B, S, Q] and weight [B, S]."""
  return quantisers.count(index.reshape(-1, index.shape[-1]), weight.reshape(-1), p.num_codes)


def draw_fresh(key: jax.Array, weight: jax.Array) -> dict[str, jax.Array]:
  """Which inputs of a batch dead codes may move to, as fields of the batch, so that chunks and devices see one choice.

  Args:
    key: of the step.
    weight: [B], 1 for a real row.

  Returns:
    `fresh` [B, FRESH], one-hot columns of rows, and `fresh_place` [B] in 0..1, which of a row's real slots.
  """
  row_key, place_key = jax.random.split(key)
  row = jax.random.choice(row_key, len(weight), (FRESH,), p=weight / jnp.sum(weight))
  return {"fresh": jax.nn.one_hot(row, len(weight)).T, "fresh_place": jax.random.uniform(place_key, weight.shape)}


def fresh_inputs(latent: Latent, mask: jax.Array, batch: dict[str, jax.Array]) -> jax.Array:
  """[Q, FRESH, F]: a chunk's part of the inputs that `draw_fresh` chose; sums over chunks. mask is [B, S]."""
  B, S = mask.shape
  place = jnp.cumsum(mask, axis=1)
  wanted = jnp.floor(batch["fresh_place"] * place[:, -1]) + 1
  slot = mask * (place == wanted[:, None])
  inputs = latent.looked.inputs.reshape(B, S, *latent.looked.inputs.shape[1:])
  of_row = jnp.einsum("bs,bsqd->bqd", slot, inputs, precision=jax.lax.Precision.HIGHEST)
  return jnp.einsum("bm,bqd->qmd", batch["fresh"], of_row, precision=jax.lax.Precision.HIGHEST)


def advance(p: Plan, codes: quantisers.Codebook, use: jax.Array, total: jax.Array, fresh: jax.Array, settings: Any
            ) -> quantisers.Codebook:
  """Codes after a batch: a codebook follows its averages and revives dead codes, of levels only their use follows.

  Args:
    p: the plan.
    codes: before the batch.
    use, total: `statistics` of the batch, each divided by its real slots.
    fresh: `fresh_inputs` of the batch.
    settings: `config.model.latent`, with `decay` and `revive_below`.
  """
  if p.kind == "fsq":
    return codes.replace(use=settings.decay * codes.use + (1 - settings.decay) * use)
  return quantisers.revive(quantisers.follow(codes, use, total, settings.decay), fresh, settings.revive_below)
