"""Agent states whose role says where they are and how they fare: the generator `correlated`, with its entropies.

  role             uniform on the five
  x, y             N(centre of the role, spread^2); centres lie on a circle of radius 60 m, evenly, explorer at (60, 0)
  z                N(0, (spread / 6)^2)
  health           U(0.1, 1); let s = (health - 0.1) / 0.9
  energy           U(0.2 + 0.4 s, 0.6 + 0.4 s); let t = (energy - 0.2) / 0.8
  resource_level   U(t / 2, t / 2 + 1 / 2)
  current_health   U(health / 2, health)
  is_defending     Bernoulli, by role: 0.1, 0.1, 0.8, 0.4, 0.1
  age              uniform on 0 .. 500
  total_reward     N(pay of the role + age / 10, 8^2), pay: -20, -10, 0, 10, 20

Normal fields may pass the ranges of the schema. Each field's entropy is that given its parents above, in closed form;
their sum is the entropy of the state.
"""

import numpy as np

from jaxtrain.experiments.semantic_compression.fields import stream
from jaxtrain.experiments.semantic_compression.oracle import GAUSSIAN_BITS, Entropies, entropy_bits
from jaxtrain.experiments.semantic_compression.schema import ROLES, Record

RADIUS, MOST_AGE = 60.0, 500
DEFENDING = np.array([0.1, 0.1, 0.8, 0.4, 0.1])
PAY = np.array([-20.0, -10.0, 0.0, 10.0, 20.0])
REWARD_STD = 8.0


def centres() -> np.ndarray:
  """[5, 2] metres."""
  angle = 2 * np.pi * np.arange(len(ROLES)) / len(ROLES)
  return RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def draw(num_states: int, seed: int, spread: float = 12.0) -> Record:
  """So many states. `spread`: deviation of x and y about the centre of their role, metres."""
  normal = lambda field: stream(seed, field).normal(size=num_states)
  uniform = lambda field, low, width: low + width * stream(seed, field).random(num_states)
  role = stream(seed, "role").integers(0, len(ROLES), num_states)
  home = centres()[role]
  health = uniform("health", 0.1, 0.9)
  energy = uniform("energy", 0.2 + 0.4 * (health - 0.1) / 0.9, 0.4)
  age = stream(seed, "age").integers(0, MOST_AGE + 1, num_states)
  return {"position_x": home[:, 0] + spread * normal("position_x"),
          "position_y": home[:, 1] + spread * normal("position_y"), "position_z": spread / 6 * normal("position_z"),
          "health": health, "energy": energy,
          "resource_level": uniform("resource_level", 0.5 * (energy - 0.2) / 0.8, 0.5),
          "current_health": uniform("current_health", 0.5 * health, 0.5 * health),
          "is_defending": stream(seed, "is_defending").random(num_states) < DEFENDING[role], "age": age,
          "total_reward": PAY[role] + 0.1 * age + REWARD_STD * normal("total_reward"), "role": role,
          "agent_id": np.arange(num_states), "step_number": np.zeros(num_states, np.int64)}


def entropies(spread: float = 12.0) -> Entropies:
  """Bits of a state by field, each given the fields that it depends on."""
  normal = lambda deviation: float(np.log2(deviation) + GAUSSIAN_BITS)
  mean_log2_health = (-1 - (0.1 * np.log(0.1) - 0.1)) / 0.9 / np.log(2)  # of U(0.1, 1)
  continuous = {"position_x": normal(spread), "position_y": normal(spread), "position_z": normal(spread / 6),
                "health": float(np.log2(0.9)), "energy": float(np.log2(0.4)), "resource_level": -1.0,
                "current_health": float(mean_log2_health - 1), "age": float(np.log2(MOST_AGE)),
                "total_reward": normal(REWARD_STD)}
  defending = float(np.mean([entropy_bits([p, 1 - p]) for p in DEFENDING]))
  return Entropies(continuous, {"age": float(np.log2(MOST_AGE + 1))},
                   {"role": float(np.log2(len(ROLES))), "is_defending": defending},
                   {"role": len(ROLES), "is_defending": 2}, {})
