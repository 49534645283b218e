"""The integer code of a trained codec: made once where states are compressed, stored with them, never computed anew.

Densities become tables of integers over the numbers that have a probability worth an entry; what lies outside is an
escape. A decoder reads the tables, so that no difference of floats between machines reaches a symbol.
"""

from typing import Any

import jax
import numpy as np

from jaxtrain.data import blocks
from jaxtrain.experiments.semantic_compression import code as code_lib, integer_net, nets, objective, prior, quantise
from jaxtrain.nn import lattice

TAIL = 2.0**-18  # probability beyond either end of a table
MOST_VALUES = 4096  # entries of a table


def freeze(p: objective.Problem, state: Any) -> code_lib.Code:
  """The code of a state's parameters. Raises ValueError for a density that is not finite, UserError for a network of a
  prior that is not, or whose weights are too large for integers.
  """
  codes = state.model_state["codes"] if "codes" in state.model_state else None
  if p.plan.kind in quantise.CONDITIONED:
    return code_of_prior(p, state)
  if p.plan.kind in quantise.WITH_DENSITY:
    bound = p.model.bind({"params": state.applied})
    density = jax.tree.map(np.asarray, bound.density())
    return code_of_density(p, density, np.asarray(bound.steps(objective.current_level(p, state))))
  use = np.asarray(codes.use if p.plan.kind == "vq" else codes, np.float64)
  counts = [p.plan.num_codes] * p.plan.num_slots if p.plan.kind == "vq" else p.plan.levels
  # A code that was never used keeps the share of a thousandth of a mean one: it may come up in other states.
  return code_lib.Code(tuple(code_lib.slot(0, np.append(share[:K] + 1e-3 * share.sum() / K, 0.0))
                             for share, K in zip(use, counts)))


def code_of_prior(p: objective.Problem, state: Any) -> code_lib.Code:
  """The code of a conditioned prior: side slots with tables, then the latent's, whose tables a network chooses."""
  bound = p.model.bind({"params": state.applied})
  H, L = p.plan.num_side, p.model.layout.size
  steps = np.asarray(bound.steps(objective.current_level(p, state)), np.float64)
  found = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.applied["prior"])
  layers = [kernel_and_bias(found["network"][f"layers_{k}"]) for k in range(len(found["network"]))]
  own = tuple(range(H, H + L))
  if p.plan.kind == "hyperprior":
    density = jax.tree.map(np.asarray, bound.prior.density())
    ends, ones = reach(density), np.ones(H)
    side = [code_lib.slot(*table(density, ones, ends, h, 0.0, 1.0)) for h in range(H)]
    made = prior.integer_layers(layers, steps, found["base"], np.zeros((0, 2 * L)), (np.eye(H), np.zeros(H)))
    same, before = tuple(range(H)), ()
  else:
    share = 2.0**-np.asarray(bound.prior.new_bits(), np.float64)
    side = [code_lib.slot(0, np.append(share, 1e-9))]
    unit, shift = bound.prior.reading()
    scaled, zeros, k = np.diag(unit / steps), np.zeros((L, L)), np.eye(L)
    new = np.concatenate([steps * found["new_mean"], prior.logistic.PER_DOUBLING * found["new_octaves"]])
    skip = np.concatenate([np.concatenate([k, zeros], axis=1), np.concatenate([-k, zeros], axis=1),
                           new[None] / prior.NEW])
    made = [prior.gate_layer(L), *prior.integer_layers(
        layers, steps, found["base"], skip, (np.concatenate([scaled, -scaled, np.zeros((1, L))]), shift))]
    same, before = (0,), own
  net = integer_net.quantise_net(made)
  return code_lib.Code((*side, *[None] * L), (), code_lib.Prior(own, same, before, net))


def kernel_and_bias(layer: Any) -> tuple[np.ndarray, np.ndarray]:
  """(kernel [I, O], bias [O]) of a `Linear`, whose kernel has its longer side last."""
  kernel, bias = layer["kernel"], layer["bias"]
  return (kernel if kernel.shape[1] == len(bias) else kernel.T), bias


def code_of_density(p: objective.Problem, density: nets.Density, steps: np.ndarray) -> code_lib.Code:
  """The code of densities over u = y / steps."""
  ends = reach(density)
  for i in np.flatnonzero(~(np.abs(ends * steps[:, None]) < 2.0**31).all(axis=1))[:1]:
    raise ValueError(f"the density of slot {i} reaches from {ends[i, 0]:g} to {ends[i, 1]:g}, which has no table")
  name, n = p.plan.lattice, lattice.DIMENSIONS[p.plan.lattice]
  slots, lattices = [], []
  for i in range(0, p.plan.num_lattice, n):
    lattices.append(code_lib.Lattice(name.upper(), len(slots)))
    slots += lattice_slots(density, steps, ends, i, name)
  for i in range(p.plan.num_lattice, len(steps)):
    low, pmf = table(density, steps, ends, i, 0.0, 1.0)
    slots.append(code_lib.slot(low, pmf))
  return code_lib.Code(tuple(slots), tuple(lattices))


def reach(density: nets.Density) -> np.ndarray:
  """[L, 2] u between which all but `TAIL` of each slot's density lies, without the logistic that reaches far out."""
  share, centre, scale = np.exp(density.log_share), density.centre, np.exp(density.log_scale)
  far = scale * -np.log(TAIL)
  there = share > TAIL
  return np.stack([np.min(np.where(there, centre - far, np.inf), axis=1),
                   np.max(np.where(there, centre + far, -np.inf), axis=1)], axis=1)


def mass(one: nets.Density, ends: jax.Array) -> jax.Array:
  """Probability [K] of the density of one slot between ends [K, 2]."""
  return one.between(ends[:, :1], ends[:, 1:])[:, 0]


def table(density: nets.Density, steps: np.ndarray, ends: np.ndarray, i: int, offset: float,
          spacing: float) -> tuple[int, np.ndarray]:
  """(first value k, probabilities of the values and of the escape) of the coordinates (k + offset) spacing of slot
  i.
  """
  low, high = np.floor(ends[i] * steps[i] / spacing - offset).astype(int) + (0, 1)
  middle = (low + high) // 2
  low, high = max(low, middle - MOST_VALUES // 2), min(high, middle + MOST_VALUES // 2)
  k = np.arange(low, high + 1)
  one = jax.tree.map(lambda leaf: leaf[i:i + 1], density)
  ends_of = (k[:, None] + offset + np.array([-0.5, 0.5])) * spacing / steps[i]
  inside = blocks.in_blocks(mass, one, ends_of.astype(np.float32)).astype(np.float64)
  return int(low), np.append(inside, max(1.0 - inside.sum(), 1e-9))


def lattice_slots(density: nets.Density, steps: np.ndarray, ends: np.ndarray, first: int, name: str) -> list:
  """Slots of the coordinates of a lattice's point; of E8 also of the coset, whose two values are as probable.

  Given the others the last coordinate has the parity that makes the sum even, and a table for each.
  """
  n, spacing = lattice.DIMENSIONS[name], lattice.SPACING[name]
  offsets = (0.0, 0.5) if name == "e8" else (0.0,)
  slots = [code_lib.slot(0, np.array([0.5, 0.5, 0.0]))] if name == "e8" else []
  for i in range(first, first + n - 1):
    slots.append(joined([table(density, steps, ends, i, offset, spacing) for offset in offsets]))
  last = [table(density, steps, ends, first + n - 1, offset, spacing) for offset in offsets]
  return [*slots, joined([of_parity(*one, parity) for one in last for parity in (0, 1)])]


def of_parity(low: int, pmf: np.ndarray, parity: int) -> tuple[int, np.ndarray]:
  """The table of the values of one parity, which stand as (k - parity) / 2."""
  k = np.arange(low, low + len(pmf) - 1)
  chosen = k % 2 == parity
  return int((k[chosen][0] - parity) // 2), np.append(pmf[:-1][chosen], pmf[-1] / 2)


def joined(parts: list[tuple[int, np.ndarray]]) -> code_lib.Slot:
  """A slot of several tables with one range of values."""
  low = min(first for first, _ in parts)
  high = max(first + len(pmf) - 1 for first, pmf in parts)
  rows = np.zeros((len(parts), high - low + 1))
  for row, (first, pmf) in zip(rows, parts):
    row[first - low:first - low + len(pmf) - 1] = pmf[:-1]
    row[-1] = pmf[-1]
  return code_lib.slot(low, rows)
