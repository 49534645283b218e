"""Random numbers of the fields of simulated states: none depends on which other fields are drawn."""

import numpy as np

# The position of a name is the number of its random stream: append, never reorder.
FIELDS = ("position_x", "position_y", "position_z", "health", "energy", "resource_level", "current_health",
          "is_defending", "age", "total_reward", "role", "step_number", "inventory", "goals", "gaussian")


def stream(seed: int, field: str) -> np.random.Generator:
  """The random numbers of a field."""
  return np.random.default_rng([seed, FIELDS.index(field)])
