"""Whether an agent would act the same on its reconstructed state: a small built-in policy, and how often it agrees.

The policy takes the first of these that holds. A number is a share of its column's range, so that the policy serves
any units.

  flee     current_health below 0.1 and not defending
  heal     current_health below 0.3
  defend   is_defending, or a defender within a quarter of the range of the middle (x and y)
  attack   an attacker whose energy is above 0.4
  gather   resource_level below 0.3; below 0.7 for a gatherer
  explore  otherwise

**Departs:** the original compared actions of a policy that the caller had to bring.
"""

from typing import Mapping

import numpy as np

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression.columns import Schema
from jaxtrain.experiments.semantic_compression.preservation import checked_pair
from jaxtrain.experiments.semantic_compression.schema import Record, checked_values

ACTIONS = ("flee", "heal", "defend", "attack", "gather", "explore")
NEEDED = ("position_x", "position_y", "energy", "resource_level", "current_health", "is_defending", "role")
PARTS = {"preservation": 0.6, "agreement": 0.3, "human": 0.1}


def applies(schema: Schema) -> bool:
  """Whether a schema has the columns that the policy reads."""
  return set(NEEDED) <= set(schema.column)


def actions(schema: Schema, record: Mapping[str, np.ndarray]) -> np.ndarray:
  """The action of each state, [N] int64, an index of ACTIONS. Raises UserError where the schema lacks a column."""
  known = schema.column
  for name in NEEDED:
    if name not in known:
      raise UserError(f"the rule policy reads the column {name!r}, which schema {schema.name!r} does not have")
  values = {name: checked_values(known[name], record[name]) for name in NEEDED}
  share = lambda name: (values[name] - known[name].low) / (known[name].high - known[name].low)
  role = np.asarray(known["role"].classes)[values["role"]]
  health, defends = share("current_health"), values["is_defending"]
  near = np.hypot(share("position_x") - 0.5, share("position_y") - 0.5) < 0.25
  conditions = [(health < 0.1) & ~defends, health < 0.3, defends | ((role == "defender") & near),
                (role == "attacker") & (share("energy") > 0.4),
                share("resource_level") < np.where(role == "gatherer", 0.7, 0.3)]
  return np.select(conditions, range(len(conditions)), len(ACTIONS) - 1).astype(np.int64)


def agreement(schema: Schema, original: Record, reconstruction: Record) -> tuple[float, np.ndarray]:
  """(share of states with the same action, confusion [6, 6]: rows are actions on originals, columns on the others)."""
  checked_pair(schema, original, reconstruction)
  a, b = actions(schema, original), actions(schema, reconstruction)
  K = len(ACTIONS)
  return float(np.mean(a == b)), np.bincount(K * a + b, minlength=K * K).reshape(K, K)


def unified_score(parts: Mapping[str, float]) -> float:
  """0.6 preservation + 0.3 agreement + 0.1 human, over the weights of the parts that there are: none counts as 0.

  Raises ValueError for another part, or for none.
  """
  if not parts or not set(parts) <= set(PARTS):
    raise ValueError(f"unified score: got {', '.join(parts) or 'nothing'}, allowed some of {', '.join(PARTS)}")
  return sum(PARTS[name] * value for name, value in parts.items()) / sum(PARTS[name] for name in parts)
