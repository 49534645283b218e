"""A trained codec applied to states: for the assessment, for `predict`, and for Python.

States become symbols once, on the machine that compresses. From symbols on all is integers until the synthesis, whose
numbers differ between machines in their last digits.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxtrain.data import blocks
from jaxtrain.experiments.semantic_compression import objective, prior, quantise, schema as schema_lib
from jaxtrain.experiments.semantic_compression.layout import SHARED

BLOCK_SIZE = prior.BLOCK_SIZE  # states of a block of a file
SIDE = "side"  # group of the symbols that a prior alone reads


class Coder(NamedTuple):
  """Functions of a problem, made once so that their programs are kept between calls; for `blocks.in_blocks`.

  Attributes:
    problem: the problem.
    symbols_of: `(variables, rows [B, .] of `rows_of`) -> [B, S] int32`.
    output_of: `(variables, symbols [B, S] int32) -> r [B, D]`.
    through: `(variables, x [B, D]) -> r [B, D]`, without symbols: of the mean where nothing is coded.
  """
  problem: objective.Problem
  symbols_of: Any
  output_of: Any
  through: Any


def variables(p: objective.Problem, state: Any) -> dict[str, Any]:
  """What a codec is applied with."""
  codes = state.model_state["codes"] if "codes" in state.model_state else None
  return {"params": state.applied, "codes": codes, "level": objective.current_level(p, state)}


def make_coder(p: objective.Problem) -> Coder:
  """The functions of a problem."""
  D, has_before = p.schema.width, p.plan.kind == "previous"

  def coded_of(given, rows):
    bound, level = p.model.bind({"params": given["params"]}), given["level"]
    y, _ = bound.analyse(rows[:, :D], level)
    before = quantise.before_of(bound, level, rows[:, D:2 * D], rows[:, 2 * D]) if has_before else None
    return quantise.coded(p.plan, bound, given["codes"], y, level, before)

  def symbols_of(given, rows):
    found = coded_of(given, rows)
    if found.index is not None:
      return found.index
    own = quantise.symbols(p.plan, found.y)
    return own if found.side is None else jnp.concatenate([found.side.astype(jnp.int32), own], axis=1)

  def output_of(given, symbols):
    bound = p.model.bind({"params": given["params"]})
    return bound.synthesise(quantise.points(p.plan, symbols, given["codes"]), given["level"])

  def through(given, x):
    bound = p.model.bind({"params": given["params"]})
    y, _ = bound.analyse(x, given["level"])
    with_density = p.plan.kind in quantise.WITH_DENSITY  # what comes back does not depend on the state before
    point = quantise.points_near(p.plan, y) if with_density else coded_of(given, x).y
    return bound.synthesise(point, given["level"])
  return Coder(p, symbols_of, output_of, through)


def to_symbols(coder: Coder, state: Any, x: np.ndarray) -> np.ndarray:
  """Symbols [N, S] int32 of vectors x [N, D], which are in the order in which they are coded."""
  return blocks.in_blocks(coder.symbols_of, variables(coder.problem, state), rows_of(coder.problem, x))


def rows_of(p: objective.Problem, x: np.ndarray) -> np.ndarray:
  """What symbols are made of: vectors x [N, D], of the kind previous [N, 2 D + 1] with the vector before each and
  whether it is a block's first.
  """
  if p.plan.kind != "previous":
    return x
  found = prior.rows_before(x)
  return np.concatenate([x, found["x_prev"], found["first"][:, None]], axis=1)


def to_record(coder: Coder, state: Any, symbols: np.ndarray) -> schema_lib.Record:
  """The states of symbols [N, S]."""
  return schema_lib.decode(coder.problem.schema, to_output(coder, state, symbols))


def to_output(coder: Coder, state: Any, symbols: np.ndarray) -> np.ndarray:
  """The network's output r [N, D] for symbols [N, S]."""
  if not len(symbols):  # of a file whose blocks are all damaged
    return np.zeros((0, coder.problem.schema.width), np.float32)
  return blocks.in_blocks(coder.output_of, variables(coder.problem, state), symbols)


def straight(coder: Coder, state: Any, x: np.ndarray) -> np.ndarray:
  """The network's output r [N, D] for vectors x [N, D], of the mean where nothing is coded."""
  return blocks.in_blocks(coder.through, variables(coder.problem, state), x)


def slots(p: objective.Problem) -> tuple[tuple[str, str], ...]:
  """(name, group of columns) of each symbol of a state; `coset_<k>` is the bit of the k-th point of E8, `anew` that of
  a state that the one before says nothing of, `side_<k>` a side number.
  """
  if p.plan.kind == "vq":
    return tuple((str(s), SHARED) for s in range(p.plan.num_slots))
  plan, n = p.model.layout, quantise.lattice.DIMENSIONS[p.plan.lattice]
  found = [("anew", SIDE)] if p.plan.kind == "previous" else [(f"side_{k}", SIDE) for k in range(p.plan.num_side)]
  for i, pair in enumerate(zip(plan.names, plan.groups)):
    if p.plan.lattice == "e8" and i < p.plan.num_lattice and i % n == 0:
      found.append((f"coset_{i // n}", SHARED))
    found.append(pair)
  return tuple(found)
