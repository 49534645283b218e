"""From a latent to what is coded, for each kind of compressor: in training, when a state is coded, and back.

  entropy   whole numbers                       lattice   points of E8 or D4 for as many numeric slots as fill it
  hyperprior, previous   whole numbers under a conditioned prior, and side symbols ahead of them (`prior`)
  vq        codes of a codebook                 fsq       a fixed number of levels a slot
  none      nothing is coded: a sample of a Normal in training, its mean otherwise
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.experiments.semantic_compression import nets, prior
from jaxtrain.experiments.semantic_compression.layout import Layout
from jaxtrain.nn import lattice, quantisers

CONDITIONED = ("hyperprior", "previous")
WITH_DENSITY = ("entropy", "lattice", *CONDITIONED)
KINDS = (*WITH_DENSITY, "vq", "fsq", "none")
WITH_LEVEL = (*WITH_DENSITY, "none")
LATTICES = ("e8", "d4")


class Plan(NamedTuple):
  """How a latent of L slots is quantised.

  Attributes:
    kind: one of KINDS.
    lattice: of the kind lattice; `z` otherwise.
    num_lattice: slots, from the first on, whose points are those of a lattice.
    num_codes, num_slots, residual: of a codebook.
    levels: of each slot, of the kind fsq.
    num_side: side symbols of a conditioned prior, H.
  """
  kind: str
  lattice: str = "z"
  num_lattice: int = 0
  num_codes: int = 0
  num_slots: int = 0
  residual: bool = False
  levels: tuple[int, ...] = ()
  num_side: int = 0

  @property
  def coded(self) -> bool:
    """Whether there is something to code."""
    return self.kind != "none"


class Quantised(NamedTuple):
  """A latent as the synthesis sees it.

  Attributes:
    y: [B, L], with gradients in training.
    bits: [B, S] of each slot of the code; [B, 0] where nothing is coded.
    index: [B, S] int32 codes of a codebook or of levels; None of the other kinds.
    looked: of a codebook.
    side: [B, H] whole numbers of a conditioned prior, in training with noise; None of the other kinds.
  """
  y: jax.Array
  bits: jax.Array
  index: jax.Array | None = None
  looked: quantisers.Looked | None = None
  side: jax.Array | None = None


def make_plan(settings: Any, layout: Layout, levels: tuple[int, ...]) -> Plan:
  """The plan of `config.model.compressor` for the slots of a layout, whose first hold numbers; `levels` of each slot
  are of the kind fsq.
  """
  kind = settings.kind
  if kind == "lattice":
    n, discrete = lattice.DIMENSIONS[settings.lattice], np.flatnonzero(~layout.continuous)
    return Plan(kind, settings.lattice, int(discrete[0] if len(discrete) else layout.size) // n * n)
  if kind == "vq":
    return Plan(kind, num_codes=settings.num_codes, num_slots=settings.num_slots, residual=settings.residual)
  if kind == "fsq":
    return Plan(kind, levels=levels, num_slots=layout.size, num_codes=max(levels))
  return Plan(kind, num_side={"hyperprior": settings.num_side, "previous": 1}[kind] if kind in CONDITIONED else 0)


def by_lattice(p: Plan, y: jax.Array, fn) -> jax.Array:
  """fn(name of a lattice, y [B, ..., n]) for the slots of the lattice, and for the rest by one."""
  first, n = y[:, :p.num_lattice], lattice.DIMENSIONS[p.lattice]
  parts = [fn(p.lattice, first.reshape(len(y), -1, n)).reshape(first.shape)] * (p.num_lattice > 0)
  return jnp.concatenate([*parts, fn("z", y[:, p.num_lattice:])], axis=1)


def in_training(p: Plan, bound: nets.Codec, codes: Any, y: jax.Array, log_var: jax.Array, level: jax.Array,
                drawn: dict[str, jax.Array], before: prior.Before | None) -> Quantised:
  """A latent with noise, or with gradients that pass its quantisation.

  Args:
    p: the plan.
    bound: the network with its parameters.
    codes: `model_state["codes"]`: a `Codebook` (vq), shares of levels [S, K] (fsq); None for the others.
    y, log_var: [B, L] of the analysis.
    level: [].
    drawn: `uniform` [B, H + L] in 0..1, or `normal` [B, L] (none).
    before: of the kind previous.
  """
  if p.kind == "none":
    return Quantised(y + jnp.exp(0.5 * log_var) * drawn["normal"], jnp.zeros((len(y), 0)))
  if p.kind in WITH_DENSITY:
    side, uniform = jnp.split(drawn["uniform"], [p.num_side], axis=1)
    noise = by_lattice(p, uniform, lambda name, u: u - 0.5 if name == "z" else lattice.cell_noise(name, u))
    noisy = y + noise
    if p.kind in CONDITIONED:
      return conditioned(bound, y, noisy, level, side - 0.5, before)
    return Quantised(noisy, bound.bits(noisy, level))
  return by_table(p, codes, y)


def coded(p: Plan, bound: nets.Codec, codes: Any, y: jax.Array, level: jax.Array, before: prior.Before | None
          ) -> Quantised:
  """A latent as it is coded; arguments as of `in_training`."""
  if p.kind == "none":
    return Quantised(y, jnp.zeros((len(y), 0)))
  if p.kind in WITH_DENSITY:
    point = points_near(p, y)
    if p.kind in CONDITIONED:
      return conditioned(bound, y, point, level, None, before)
    return Quantised(point, bound.bits(point, level))
  return by_table(p, codes, y)


def points_near(p: Plan, y: jax.Array) -> jax.Array:
  """The points [B, L] that y is coded as, of kinds with a density."""
  return by_lattice(p, y, lattice.closest)


def conditioned(bound: nets.Codec, y: jax.Array, point: jax.Array, level: jax.Array, noise: jax.Array | None,
                before: prior.Before | None) -> Quantised:
  """A latent y [B, L] that is coded as `point`, or has noise there, and its side numbers under the codec's prior."""
  side, bits = bound.prior.rate(y, point, bound.steps(level), noise, before)
  return Quantised(point, bits, side=side)


def before_of(bound: nets.Codec, level: jax.Array, x: jax.Array, first: jax.Array) -> prior.Before:
  """What a decoder knows of the states x [B, D] before others; `first` [B] is 1 where it knows nothing."""
  y, _ = bound.analyse(x, level)
  return prior.Before(jax.lax.stop_gradient(jnp.round(y)), first)


def by_table(p: Plan, codes: Any, y: jax.Array) -> Quantised:
  """A latent by a codebook or by levels, whose bits follow from how often each code is used."""
  if p.kind == "vq":
    z = y if p.residual else y.reshape(len(y), p.num_slots, -1)
    looked = quantisers.look_up(codes.codes, z, p.residual)
    chosen = jnp.sum(looked.chosen, axis=1) if p.residual else looked.chosen.reshape(y.shape)
    index, use, point = looked.index, codes.use, quantisers.straight_through(y, chosen)
  else:
    index, point = quantisers.finite_scalar(y, p.levels)
    looked, use = None, codes
  share = use / jnp.sum(use, axis=1, keepdims=True)  # [S, K]
  own = jnp.take_along_axis(share, index.T, axis=1).T
  return Quantised(point, -jnp.log2(jnp.maximum(own, nets.FLOOR)), index, looked)


def symbols(p: Plan, y: jax.Array) -> jax.Array:
  """Whole numbers [B, S - H] int32 of points y [B, L]: for E8 a coset bit ahead of each eight coordinates, of which k
  stands for k + 1/2 where the bit is 1.
  """
  if not p.num_lattice:
    return jnp.round(y).astype(jnp.int32)
  n, rest = lattice.DIMENSIONS[p.lattice], jnp.round(y[:, p.num_lattice:]).astype(jnp.int32)
  point = y[:, :p.num_lattice].reshape(len(y), -1, n) / lattice.SPACING[p.lattice]
  if p.lattice == "e8":
    coset = jnp.abs(point[..., :1] - jnp.round(point[..., :1])) > 0.25
    point = jnp.concatenate([coset, point - 0.5 * coset], axis=-1)
  return jnp.concatenate([jnp.round(point).astype(jnp.int32).reshape(len(y), -1), rest], axis=1)


def points(p: Plan, found: jax.Array, codes: Any) -> jax.Array:
  """The latent [B, L] float32 of symbols [B, S]."""
  if p.kind == "vq":
    chosen = quantisers.pick(codes.codes, found)
    return jnp.sum(chosen, axis=1) if p.residual else chosen.reshape(len(found), -1)
  if p.kind == "fsq":
    return quantisers.level_values(found, p.levels)
  value = found[:, p.num_side:].astype(jnp.float32)
  if not p.num_lattice:
    return value
  n, wide = lattice.DIMENSIONS[p.lattice], p.lattice == "e8"
  num_symbols = p.num_lattice // n * (n + wide)
  point = value[:, :num_symbols].reshape(len(value), -1, n + wide)
  point = point[..., 1:] + 0.5 * point[..., :1] if wide else point
  point = point.reshape(len(value), -1) * lattice.SPACING[p.lattice]
  return jnp.concatenate([point, value[:, num_symbols:]], axis=1)
