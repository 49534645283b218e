"""Agents that move, are hurt and recover, and earn: the generator `trajectory`, with its entropy rate.

An agent starts anywhere and then makes one step after another. With e a standard normal number of its own each time,
and fold(., low, high) the reflection of a number at the ends of a range, as often as needed:

  x, y             fold(x + step_std e, -100, 100); z: fold(z + step_std / 10 e, -10, 10), metres
  health, energy, resource_level
                   fold(v + drift (high - low) e, low, high) of each one's range
  current_health   health f, f the share of health that is left: the agent recovers a share of what it lacks and loses
                   some, f = fold(f + recovery (1 - f) - damage + health_std e, 0, 1)
  role             stays with probability role_persistence, else one of the other four
  is_defending     stays with probability defending_persistence, else is drawn anew, true with probability 0.3
  age              + 1
  total_reward     + reward_mean + reward_std e

The start is drawn from what the steps leave as it is: uniform in folded walks and roles, 0.3 of defending, and f after
SETTLING steps. Age starts uniform on 0 .. 500 - num_steps, and the reward U(-50, 25), which may pass its range later.

The entropy of a state given the one before adds up over fields. That of folded steps has no closed form: it is E of
-log2 p(u | m) over u = m + s e, where p, the sum of normal densities at all mirror images, is analytic, by
Gauss-Hermite quadrature, and over m by Gauss-Legendre quadrature with the stationary density of m, which is uniform or,
of f, the fixed point of the discretised kernel (Nystrom).
"""

from typing import Mapping, NamedTuple

import numpy as np

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression.fields import stream
from jaxtrain.experiments.semantic_compression.oracle import GAUSSIAN_BITS, Entropies, entropy_bits
from jaxtrain.experiments.semantic_compression.schema import AGENT15, ROLES, Record

DEFENDING, MOST_AGE, START_REWARD = 0.3, 500, (-50.0, 25.0)
SETTLING = 200  # steps; what is left of the start is (1 - recovery)^200, 1e-9 at 0.1
WALKS = ("position_x", "position_y", "position_z", "health", "energy", "resource_level")
HERMITE_NODES, LEGENDRE_NODES, HEALTH_NODES, NODES_PER_STEP = 80, 200, 24, 6
LEAST_STEP = 0.002  # of folded health, as a share of its range: the quadrature has NODES_PER_STEP nodes in it


class Dynamics(NamedTuple):
  """Parameters of a trajectory, those that the module's text names; num_steps is the number of states of an agent.

  Steps of all fields but x, y and z are by default about 3 % of a range; theirs are with a step_std of 6.
  """
  num_steps: int = 50
  step_std: float = 3.0
  drift: float = 0.03
  recovery: float = 0.1
  damage: float = 0.04
  health_std: float = 0.06
  role_persistence: float = 0.98
  defending_persistence: float = 0.9
  reward_mean: float = 0.5
  reward_std: float = 4.5


def checked(parameters: Mapping[str, float]) -> Dynamics:
  """Raises UserError, naming the parameter, where one is unknown or out of its range."""
  for name in parameters:
    if name not in Dynamics._fields:
      raise UserError(f"config.data.{name}: is no parameter of a trajectory; there are: {', '.join(Dynamics._fields)}")
  made = Dynamics(**parameters)
  ranges = {"num_steps": (1, MOST_AGE), "step_std": (1e-6, 1e3), "drift": (1e-6, 10.0), "recovery": (0.01, 1.0),
            "damage": (0.0, 1.0), "health_std": (LEAST_STEP, 10.0), "role_persistence": (0.0, 1.0),
            "defending_persistence": (0.0, 1.0), "reward_std": (1e-6, 1e6)}
  for name, (low, high) in ranges.items():
    if not low <= getattr(made, name) <= high:
      raise UserError(f"config.data.{name}: got {getattr(made, name)}, allowed {low:g} to {high:g}")
  return made


def fold(v: np.ndarray, low: float, high: float) -> np.ndarray:
  """Numbers reflected at the ends of a range, as often as needed."""
  width = high - low
  return low + width - np.abs((v - low) % (2 * width) - width)


def walk_std(dynamics: Dynamics, field: str) -> float:
  """Deviation of a step of a folded walk, physical units."""
  if field.startswith("position"):
    return dynamics.step_std * (0.1 if field == "position_z" else 1.0)
  column = AGENT15.column[field]
  return dynamics.drift * (column.high - column.low)


def draw(num_states: int, seed: int, **parameters) -> Record:
  """So many states, ordered by agent and then by step; the last agent may have fewer. Parameters: `Dynamics`."""
  dynamics = checked(parameters)
  T = dynamics.num_steps
  A = -(-num_states // T)
  found = {name: walk(name, A, seed, dynamics) for name in WALKS}
  found["current_health"] = found["health"] * share_left(A, seed, dynamics)
  found["role"] = roles(A, seed, dynamics)
  found["is_defending"] = defending(A, seed, dynamics)
  found["age"] = stream(seed, "age").integers(0, MOST_AGE - T + 1, A)[:, None] + np.arange(T)
  random = stream(seed, "total_reward")
  start = random.uniform(*START_REWARD, (A, 1))
  gains = dynamics.reward_mean + dynamics.reward_std * random.normal(size=(A, T - 1))
  found["total_reward"] = np.cumsum(np.concatenate([start, gains], axis=1), axis=1)
  found["agent_id"] = np.repeat(np.arange(A)[:, None], T, axis=1)
  found["step_number"] = np.repeat(np.arange(T)[None], A, axis=0)
  return {name: values.reshape(-1)[:num_states] for name, values in found.items()}


def walk(field: str, A: int, seed: int, dynamics: Dynamics) -> np.ndarray:
  """[A, T] of a folded walk. Folding the sum of all steps is the same as folding after each: reflections commute with
  steps of a symmetric distribution.
  """
  column, random = AGENT15.column[field], stream(seed, field)
  start = random.uniform(column.low, column.high, (A, 1))
  steps = walk_std(dynamics, field) * random.normal(size=(A, dynamics.num_steps - 1))
  return fold(np.cumsum(np.concatenate([start, steps], axis=1), axis=1), column.low, column.high)


def share_left(A: int, seed: int, dynamics: Dynamics) -> np.ndarray:
  """[A, T] of f, the share of health that is left."""
  random = stream(seed, "current_health")
  f, found = random.random(A), []
  for step in range(SETTLING + dynamics.num_steps):
    f = fold(mean_left(f, dynamics) + dynamics.health_std * random.normal(size=A), 0.0, 1.0)
    if step >= SETTLING:
      found.append(f)
  return np.stack(found, axis=1)


def mean_left(f: np.ndarray, dynamics: Dynamics) -> np.ndarray:
  """Where f is on its way to before it is hit by chance and folded."""
  return f + dynamics.recovery * (1 - f) - dynamics.damage


def roles(A: int, seed: int, dynamics: Dynamics) -> np.ndarray:
  """[A, T] codes."""
  random, K = stream(seed, "role"), len(ROLES)
  start = random.integers(0, K, (A, 1))
  changes = random.random((A, dynamics.num_steps - 1)) >= dynamics.role_persistence
  moves = changes * random.integers(1, K, changes.shape)
  return np.cumsum(np.concatenate([start, moves], axis=1), axis=1) % K


def defending(A: int, seed: int, dynamics: Dynamics) -> np.ndarray:
  """[A, T] bool: the newest draw holds."""
  random, T = stream(seed, "is_defending"), dynamics.num_steps
  drawn = random.random((A, T)) < DEFENDING
  anew = random.random((A, T)) >= dynamics.defending_persistence
  anew[:, 0] = True
  newest = np.maximum.accumulate(np.where(anew, np.arange(T), 0), axis=1)
  return np.take_along_axis(drawn, newest, axis=1)


def folded_density(u: np.ndarray, m: np.ndarray, s: float) -> np.ndarray:
  """Density at u of fold(m + s e, 0, 1), u and m [...] of shapes that broadcast."""
  far = int(np.ceil(5 * s)) + 2
  images = 2.0 * np.arange(-far, far + 1)
  normal = lambda v: np.exp(-0.5 * (v / s) ** 2).sum(axis=-1)
  return (normal((u - m)[..., None] + images) + normal((u + m)[..., None] + images)) / (s * np.sqrt(2 * np.pi))


def folded_bits(m: np.ndarray, s: float) -> np.ndarray:
  """Differential entropy [n] of fold(m + s e, 0, 1) for each m [n]."""
  node, weight = np.polynomial.hermite_e.hermegauss(HERMITE_NODES)
  density = folded_density(m[:, None] + s * node, m[:, None], s)
  return -(np.log2(density) * (weight / weight.sum())).sum(axis=1)


def legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
  """Nodes and weights [n] of quadrature on (0, 1)."""
  node, weight = np.polynomial.legendre.leggauss(n)
  return 0.5 * (node + 1), 0.5 * weight


def walk_bits(width: float, step: float) -> float:
  """Entropy of a step of a folded walk in a range of this width, given where it starts: uniform."""
  m, weight = legendre(LEGENDRE_NODES)
  return float((weight * folded_bits(m, step / width)).sum() + np.log2(width))


def left_density(dynamics: Dynamics) -> tuple[np.ndarray, np.ndarray]:
  """Nodes [n] and their stationary probabilities [n] of f."""
  s = dynamics.health_std
  f, weight = legendre(max(LEGENDRE_NODES, int(np.ceil(NODES_PER_STEP / s))))
  kernel = folded_density(f[None], mean_left(f, dynamics)[:, None], s) * weight
  kernel /= kernel.sum(axis=1, keepdims=True)
  p, before = weight / weight.sum(), np.zeros(len(f))
  while np.abs(p - before).sum() > 1e-13:
    p, before = p @ kernel, p
    p = p / p.sum()
  return f, p


def left_bits(dynamics: Dynamics, error: float) -> float:
  """Entropy of current_health given health and the state before, whose current_health is known but for an error."""
  f, p = left_density(dynamics)
  column = AGENT15.column["health"]
  unit, weight = legendre(HEALTH_NODES if error else 1)
  health = column.low + (column.high - column.low) * unit
  found = 0.0
  for h, w in zip(health, weight):
    s = np.hypot(dynamics.health_std, (1 - dynamics.recovery) * error / h)
    found += w * (p * folded_bits(mean_left(f, dynamics), s)).sum()
  return float(found)


def start_entropies(**parameters) -> Entropies:
  """Bits of an agent's first state by field, which nothing is known of before. Parameters: `Dynamics`."""
  dynamics = checked(parameters)
  health, age = AGENT15.column["health"], float(np.log2(MOST_AGE - dynamics.num_steps + 1))
  continuous = {name: float(np.log2(AGENT15.column[name].high - AGENT15.column[name].low)) for name in WALKS}
  unit, weight = legendre(LEGENDRE_NODES)
  node, p = left_density(dynamics)
  of_node = legendre(len(node))[1]
  continuous["current_health"] = float(-(p * np.log2(p / of_node)).sum() + (
      weight * np.log2(health.low + (health.high - health.low) * unit)).sum())
  continuous |= {"total_reward": float(np.log2(START_REWARD[1] - START_REWARD[0])), "age": age}
  return Entropies(continuous, {"age": age}, {"role": float(np.log2(len(ROLES))), "is_defending": entropy_bits(
      [DEFENDING, 1 - DEFENDING])}, {"role": len(ROLES), "is_defending": 2}, {})


def entropies(decoder_rmse: Mapping[str, float] | None = None, **parameters) -> Entropies:
  """Bits of a state given the one before: the entropy rate, by field.

  Args:
    decoder_rmse: error of the decoded state that the next one is predicted from, by numeric field, physical units.
      Without it the state before is known exactly; with it, the variance of each innovation is that of the step plus
      that of the (propagated) error, as if the error were normal. Age needs no bits either way.
    parameters: `Dynamics`.
  """
  dynamics = checked(parameters)
  error = {name: 0.0 if decoder_rmse is None else float(decoder_rmse[name]) for name in AGENT15.numeric_names}
  width = {name: AGENT15.column[name].high - AGENT15.column[name].low for name in WALKS}
  continuous = {name: walk_bits(width[name], np.hypot(walk_std(dynamics, name), error[name])) for name in WALKS}
  unit, weight = legendre(LEGENDRE_NODES)
  health = AGENT15.column["health"].low + width["health"] * unit
  continuous["current_health"] = left_bits(dynamics, error["current_health"]) + float((weight * np.log2(health)).sum())
  continuous["total_reward"] = float(np.log2(np.hypot(dynamics.reward_std, error["total_reward"])) + GAUSSIAN_BITS)
  K, stays = len(ROLES), dynamics.role_persistence
  keep = dynamics.defending_persistence
  again = [keep * was + (1 - keep) * DEFENDING for was in (0, 1)]  # P(defending) after not, after yes
  defends = sum(share * entropy_bits([p, 1 - p]) for share, p in zip((1 - DEFENDING, DEFENDING), again))
  return Entropies(continuous, {"age": 0.0}, {"role": entropy_bits([stays, *[(1 - stays) / (K - 1)] * (K - 1)]),
                                              "is_defending": defends}, {"role": K, "is_defending": 2}, {})
