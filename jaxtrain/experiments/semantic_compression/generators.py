"""Simulated agent states whose entropies are known.

  independent  every field is drawn alone; only current_health depends on another field, health
  correlated   a role decides where an agent is and how it fares (`clusters`)
  trajectory   agents that move, age, are hurt and recover over steps (`trajectories`)

  independent: x, y ~ U(-100, 100), z ~ U(-10, 10) metres; health ~ U(0.1, 1); energy ~ U(0.2, 1); resource_level ~
  U(0, 1); current_health ~ U(0, health); is_defending ~ Bernoulli(0.3); age uniform on 0 .. 500; total_reward ~
  U(-50, 100); role uniform on five.

Two blocks may be added to each state, whatever the kind: `inventory`, six counts, each 0 with probability 1/2 and else
uniform on 0 .. 20; `goals`, 1 to 3 (uniform) of eight, without replacement. `gaussian` is a source of normal vectors.

A record also holds `agent_id` and `step_number`, int64, which are no part of a state. Every field has random numbers of
its own, which a seed and the field's place fix: a field's values do not depend on which others are drawn.

**Source:** the distributions of `independent` and of the blocks are those of the original system's generator.
**Departs:** the original draws also speed, skill and team of some agents, which no part of it reads.
"""

import math

import numpy as np

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import clusters, trajectories
from jaxtrain.experiments.semantic_compression.columns import NUMERIC
from jaxtrain.experiments.semantic_compression.fields import stream
from jaxtrain.experiments.semantic_compression.oracle import Entropies, entropy_bits
from jaxtrain.experiments.semantic_compression.schema import AGENT15, GOALS, ITEMS, MOST_ITEMS, ROLES, Record

DEFENDING, MOST_AGE, MOST_STEP = 0.3, 500, 1000
HAS_ITEM, MOST_GOALS = 0.5, 3


def independent(num_states: int, seed: int) -> Record:
  """States whose fields are drawn alone."""
  record: Record = {}
  for column in AGENT15.columns:
    random = stream(seed, column.name)
    if column.name == "role":
      record[column.name] = random.integers(0, len(ROLES), num_states)
    elif column.name == "is_defending":
      record[column.name] = random.random(num_states) < DEFENDING
    elif column.name == "age":
      record[column.name] = random.integers(0, MOST_AGE + 1, num_states)
    elif column.name == "current_health":
      record[column.name] = record["health"] * random.random(num_states)
    else:
      record[column.name] = random.uniform(column.low, column.high, num_states)
  record["agent_id"] = np.arange(num_states)
  record["step_number"] = stream(seed, "step_number").integers(0, MOST_STEP + 1, num_states)
  return record


def mean_log2_uniform(low: float, high: float) -> float:
  """E[log2 u] of u ~ U(low, high), 0 <= low < high."""
  antiderivative = lambda u: u * np.log(u) - u if u > 0 else 0.0
  return float((antiderivative(high) - antiderivative(low)) / (high - low) / np.log(2))


def independent_entropies() -> Entropies:
  """Of `independent`, in closed form: log2 of each width; E[log2 health] of current_health, given health."""
  continuous = {column.name: float(np.log2(column.high - column.low)) for column in AGENT15.columns
                if column.kind in NUMERIC}
  health = AGENT15.column["health"]
  continuous["current_health"] = mean_log2_uniform(health.low, health.high)
  return Entropies(continuous, {"age": float(np.log2(MOST_AGE + 1))},
                   {"is_defending": entropy_bits([DEFENDING, 1 - DEFENDING]), "role": float(np.log2(len(ROLES)))},
                   {"is_defending": 2, "role": len(ROLES)}, {})


def inventory(num_states: int, seed: int) -> Record:
  """The six counts of each state."""
  random = stream(seed, "inventory")
  counts = (random.random((num_states, len(ITEMS))) < HAS_ITEM) * random.integers(0, MOST_ITEMS + 1,
                                                                                  (num_states, len(ITEMS)))
  return {f"inventory_{item}": counts[:, k] for k, item in enumerate(ITEMS)}


def goals(num_states: int, seed: int) -> Record:
  """The eight bits of each state, of which 1 to 3 are set."""
  random = stream(seed, "goals")
  rank = np.argsort(np.argsort(random.random((num_states, len(GOALS))), axis=1), axis=1)
  chosen = rank < random.integers(1, MOST_GOALS + 1, num_states)[:, None]
  return {f"goal_{goal}": chosen[:, k] for k, goal in enumerate(GOALS)}


def block_entropies(block: str) -> tuple[dict[str, float], dict[str, float]]:
  """(of integer fields, of discrete fields) of a block. The goals are one field: its bits depend on each other."""
  if block == "inventory":
    one = np.full(MOST_ITEMS + 1, HAS_ITEM / (MOST_ITEMS + 1))
    one[0] += 1 - HAS_ITEM
    return {f"inventory_{item}": entropy_bits(one) for item in ITEMS}, {}

  sets = [np.log2(MOST_GOALS * math.comb(len(GOALS), count)) for count in range(1, MOST_GOALS + 1)]
  return {}, {"goals": float(np.mean(sets))}


BLOCKS = {"inventory": inventory, "goals": goals}
SOURCES = {"independent": (independent, independent_entropies), "correlated": (clusters.draw, clusters.entropies),
           "trajectory": (trajectories.draw, trajectories.entropies)}


def source_of(kind: str):
  """(draws, entropies) of a kind. Raises UserError for another."""
  if kind not in SOURCES:
    raise UserError(f"config.data.source: got {kind!r}, allowed {', '.join(SOURCES)}")
  return SOURCES[kind]


def checked_blocks(blocks: tuple[str, ...]) -> tuple[str, ...]:
  """The blocks. Raises UserError for one that cannot be drawn."""
  for block in blocks:
    if block not in BLOCKS:
      raise UserError(f"config.data.blocks: got {block!r}, allowed {', '.join(BLOCKS)}")
  return blocks


def draw(kind: str, num_states: int, seed: int, blocks: tuple[str, ...] = (), **parameters) -> Record:
  """So many states of a kind; equal arguments give equal states.

  Args:
    blocks: of `inventory` and `goals`; the schema is then `schema.with_blocks(AGENT15, blocks)`.
    parameters: of the kind, as its own module names and explains them.
  """
  record = source_of(kind)[0](num_states, seed, **parameters)
  for block in checked_blocks(blocks):
    record |= BLOCKS[block](num_states, seed)
  return record


def entropies(kind: str, blocks: tuple[str, ...] = (), **parameters) -> Entropies:
  """Bits of a state of a kind by field: of a trajectory, of a state given the one before (the entropy rate)."""
  return with_blocks(source_of(kind)[1](**parameters), blocks)


def start_entropies(blocks: tuple[str, ...] = (), **parameters) -> Entropies:
  """Bits of the first state of an agent of a trajectory by field."""
  return with_blocks(trajectories.start_entropies(**parameters), blocks)


def with_blocks(found: Entropies, blocks: tuple[str, ...]) -> Entropies:
  """Entropies of states that have blocks too."""
  for block in checked_blocks(blocks):
    whole, discrete = block_entropies(block)
    parts = {name: [f"goal_{goal}" for goal in GOALS] for name in discrete}
    found = found._replace(integer=found.integer | whole, discrete=found.discrete | discrete,
                           parts=found.parts | parts)
  return found


def autoregressive_covariance(num_dims: int, correlation: float) -> np.ndarray:
  """Covariance [n, n] of consecutive values of an autoregressive process of variance 1: correlation^|i - j|."""
  place = np.arange(num_dims)
  return correlation ** np.abs(place[:, None] - place)


def gaussian(covariance: np.ndarray, num: int, seed: int) -> np.ndarray:
  """Normal vectors [num, n] float64 of mean 0 and a covariance [n, n]."""
  values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
  if values.min() < -1e-9 * max(values.max(), 0.0):
    raise ValueError(f"gaussian: the covariance has a negative eigenvalue, {values.min():g}")
  root = vectors * np.sqrt(np.maximum(values, 0))
  return stream(seed, "gaussian").normal(size=(num, len(values))) @ root.T
