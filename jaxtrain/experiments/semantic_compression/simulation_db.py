"""Agent states of a simulation's SQLite database, read with distrust and read-only.

What is read: the table `agent_states` and, where they are there, `agents` (starting health, type) and `agent_actions`
(what an agent did at a step, and whether upon a target). A state of agent15 comes about so:

  position, resource_level, current_health, is_defending, age, total_reward: as they are, in the simulation's units
  energy    = resource_level; the database has no other
  health    = current_health / starting_health with `agents`, else current_health
  role      by a rule: `actions`, the role that fits most of the last RECENT_STEPS steps' actions (`ACTION_ROLES`; of
            equally many the newest; an explorer where there is none); `agent_type`, the agent's type, whose names are
            the classes; `defending`, a defender where is_defending, else an explorer
  has_target (block `target`, with `agent_actions`): an action with a target at that step

The features `is_alive` and `threatened` are of the share `health`; without `agents` it is not known what full health
is, and the schema leaves them out. Ranges of the schema are for the caller to fit: `schema.with_ranges`.

A row with NULL in a column that is used is left out, and counted under that column's name. A `position_z` that is NULL
in every row is that of a plane and becomes 0; any other such column is an error.
"""

import sqlite3
from collections import Counter, deque
from typing import Any, NamedTuple

import numpy as np

from jaxtrain.data import files, sqlite_files
from jaxtrain.errors import UserError, reason
from jaxtrain.experiments.semantic_compression import schema as schemas
from jaxtrain.experiments.semantic_compression.columns import Schema, checked

STATES, AGENTS, ACTIONS = "agent_states", "agents", "agent_actions"
KEYS = ("simulation_id", "agent_id", "step_number")
VALUES = ("position_x", "position_y", "position_z", "resource_level", "current_health", "is_defending", "age",
          "total_reward")
NEEDED = {STATES: KEYS + VALUES, AGENTS: ("simulation_id", "agent_id", "starting_health", "agent_type"),
          ACTIONS: KEYS + ("action_type", "action_target_id")}
RULES = ("actions", "agent_type", "defending")
RECENT_STEPS = 10
ACTION_ROLES = {"gather": "gatherer", "collect": "gatherer", "attack": "attacker", "defend": "defender",
                "build": "builder", "craft": "builder", "share": "builder", "reproduce": "builder", "move": "explorer",
                "explore": "explorer"}


class Found(NamedTuple):
  """What a database holds.

  Attributes:
    schema: of the states; the ranges are those of agent15 and do not fit.
    record: states [N], with `simulation_id` and `agent_id` as text and `step_number`; ordered by these.
    group: [N] int64, a number of each agent of each simulation: rows of one agent belong into one part.
    missing: how many rows were NULL in a column, and left out (or, of position_z, set to 0).
  """
  schema: Schema
  record: schemas.Record
  group: np.ndarray
  missing: dict[str, int]


class Asked(NamedTuple):
  """Which rows: of one simulation (or "" for all), of steps from first to last (or None), and at most so many of the
  earliest (or 0 for all).
  """
  simulation_id: str = ""
  first_step: int | None = None
  last_step: int | None = None
  limit: int = 0

  @property
  def parameters(self) -> tuple:
    """What CONDITION binds."""
    return (self.simulation_id, self.simulation_id, self.first_step, self.first_step, self.last_step, self.last_step)


CONDITION = "(? = '' or simulation_id = ?) and (? is null or step_number >= ?) and (? is null or step_number <= ?)"


def read(path: str, asked: Asked, role: str) -> Found:
  """The states of a database.

  Args:
    role: one of RULES.

  Raises:
    UserError: names the file and what is wrong with it: no database, a table or column that is missing, a value that is
      no number, no rows.
  """
  if role not in RULES:
    raise UserError(f"config.data.role: got {role!r}, allowed {', '.join(RULES)}")
  files.check_path("sqlite", path, "config.data.path")
  try:
    with sqlite_files.opened(path) as (database, tables):
      return build(path, *fetched(path, database, tables, asked, role), role)
  except UserError:
    raise
  except (sqlite3.Error, ValueError) as error:
    raise UserError(f"{path}: {reason(error)}") from None


def fetched(path: str, database: sqlite3.Connection, tables: list[str], asked: Asked,
            role: str) -> tuple[list[tuple], dict[tuple, tuple] | None, list[tuple] | None]:
  """(rows of states, (starting health, type) by agent, rows of actions); None of a table that is not there."""
  needed = {STATES} | ({AGENTS} if role == "agent_type" else set()) | ({ACTIONS} if role == "actions" else set())
  for table in NEEDED:
    if table in tables:
      there = sqlite_files.fetch(database, f"select * from {table} limit 0")[0]
      lacks = [column for column in NEEDED[table] if column not in there]
      if lacks:
        raise UserError(f"{path}: table {table!r} has no column {lacks[0]!r}; it has: {', '.join(there)}")
    elif table in needed:
      why = "" if table == STATES else f", which config.data.role={role} needs"
      raise UserError(f"{path}: there is no table {table!r}{why}; there are: {', '.join(tables) or 'none'}")
  order = "simulation_id, agent_id, step_number"
  columns = ", ".join(KEYS + VALUES)
  states = sqlite_files.fetch(
      database, f"select {columns} from (select * from {STATES} where {CONDITION} order by step_number, simulation_id, "
      f"agent_id limit ?) order by {order}", (*asked.parameters, asked.limit or -1))[1]
  agents = actions = None
  if AGENTS in tables:
    rows = sqlite_files.fetch(database, f"select simulation_id, agent_id, starting_health, agent_type from {AGENTS}")[1]
    agents = {(str(simulation), str(agent)): (health, kind) for simulation, agent, health, kind in rows}
  if ACTIONS in tables:
    earlier = None if asked.first_step is None else asked.first_step - RECENT_STEPS + 1
    actions = sqlite_files.fetch(
        database, f"select {order}, action_type, action_target_id is not null from {ACTIONS} where {CONDITION} "
        f"order by {order}, action_type", asked._replace(first_step=earlier).parameters)[1]
  return states, agents, actions


def build(path: str, states: list[tuple], agents: dict[tuple, tuple] | None, actions: list[tuple] | None,
          role: str) -> Found:
  """States from the rows of the tables."""
  if not states:
    raise UserError(f"{path}: table {STATES!r} has no rows that config.data asks for")
  columns: dict[str, list] = dict(zip(KEYS + VALUES, map(list, zip(*states))))
  keys = [(str(simulation), str(agent)) for simulation, agent in zip(columns["simulation_id"], columns["agent_id"])]
  if agents is not None:
    known = [agents[key] if key in agents else (None, None) for key in keys]
    columns |= dict(zip(("starting_health", "agent_type"), map(list, zip(*known))))
    if role != "agent_type":
      del columns["agent_type"]
  missing = {name: sum(cell is None for cell in cells) for name, cells in columns.items()}
  if missing["position_z"] == len(states):
    columns["position_z"] = [0.0] * len(states)
  for name, count in missing.items():
    if count == len(states) and name != "position_z":
      raise UserError(f"{path}: column {name!r} is NULL in all {count:,} rows")
  kept = [k for k, cells in enumerate(zip(*columns.values())) if None not in cells]
  if not kept:
    raise UserError(f"{path}: each of the {len(states):,} rows has a NULL: {counted(missing)}")
  record = {name: typed(path, name, [cells[k] for k in kept]) for name, cells in columns.items()}
  if agents is not None and not (record["starting_health"] > 0).all():
    raise UserError(f"{path}: table {AGENTS!r}, column 'starting_health': got "
                    f"{record['starting_health'].min():g}, allowed more than 0")
  made = described(record, agents is not None, actions, role)
  group = np.unique(np.asarray([keys[k] for k in kept], str), axis=0, return_inverse=True)[1].reshape(-1)
  return Found(*made, group.astype(np.int64), {name: count for name, count in missing.items() if count})


def counted(missing: dict[str, int]) -> str:
  """Columns with their number of NULLs, in words."""
  return ", ".join(f"{name} {count:,}" for name, count in missing.items() if count)


def typed(path: str, name: str, cells: list[Any]) -> np.ndarray:
  """A column without NULLs: text of names, int64 of steps and ages, bool of is_defending, else float64."""
  if name in ("simulation_id", "agent_id", "agent_type"):
    return np.asarray([str(cell) for cell in cells], str)
  whole = name in ("step_number", "age", "is_defending")
  for cell in cells:
    fits = isinstance(cell, (int, float)) and np.isfinite(cell) and (not whole or cell == int(cell))
    if not fits or (name == "is_defending" and cell not in (0, 1)) or abs(cell) >= 2**62:
      raise UserError(f"{path}: column {name!r}: got {cell!r}, allowed "
                      f"{'0 or 1' if name == 'is_defending' else 'whole numbers' if whole else 'finite numbers'}")
  return np.asarray(cells, bool if name == "is_defending" else np.int64 if whole else np.float64)


def described(columns: schemas.Record, with_agents: bool, actions: list[tuple] | None,
              role: str) -> tuple[Schema, schemas.Record]:
  """(schema, record) of typed columns."""
  record = {name: columns[name] for name in KEYS + VALUES}
  record["energy"] = columns["resource_level"]
  record["health"] = columns["current_health"] / (columns["starting_health"] if with_agents else 1.0)
  found = schemas.AGENT15
  of_health = ("is_alive", "threatened")
  found = found._replace(features=tuple(
      feature._replace(columns=("health",)) if feature.name in of_health else feature for feature in found.features
      if with_agents or feature.name not in of_health))
  if role == "agent_type":
    classes = tuple(sorted(set(columns["agent_type"].tolist())))
    if len(classes) < 2:
      raise UserError(f"config.data.role: got 'agent_type', but all agents are of the type {classes[0]!r}; allowed "
                      "actions, defending")
    record["role"] = columns["agent_type"]
    found = found._replace(columns=tuple(column._replace(classes=classes) if column.name == "role" else column
                                         for column in found.columns))
  elif role == "defending":
    record["role"] = np.where(columns["is_defending"], "defender", "explorer")
  if actions is not None:
    dominant, record["has_target"] = of_actions(columns, actions)
    found = schemas.with_blocks(found, ("target",))
    if role == "actions":
      record["role"] = dominant
  return checked(found._replace(name="simulation")), record


def of_actions(columns: schemas.Record, actions: list[tuple]) -> tuple[np.ndarray, np.ndarray]:
  """(dominant recent role, whether an action has a target at the step) of each state [N]; states are in order."""
  by_agent: dict[tuple, list] = {}
  for simulation, agent, step, kind, has_target in actions:
    if None not in (simulation, agent, step):
      by_agent.setdefault((str(simulation), str(agent)), []).append((step, str(kind).lower(), bool(has_target)))
  roles, targets = [], []
  before, waiting, recent, counts = None, deque(), deque(), Counter()
  for key, step in zip(zip(columns["simulation_id"].tolist(), columns["agent_id"].tolist()),
                       columns["step_number"].tolist()):
    if key != before:
      before, waiting = key, deque(by_agent[key] if key in by_agent else ())
      recent, counts = deque(), Counter()
    while waiting and waiting[0][0] <= step:
      recent.append(waiting.popleft())
      counts[recent[-1][1]] += 1
    while recent and recent[0][0] <= step - RECENT_STEPS:
      counts[recent.popleft()[1]] -= 1
    roles.append(dominant_role(recent, counts))
    targets.append(any(has_target for at, _, has_target in recent if at == step))
  return np.asarray(roles), np.asarray(targets, bool)


def dominant_role(recent: deque, counts: Counter) -> str:
  """The role of most of the recent actions whose type has one; of equally many the newest."""
  by_role: Counter = Counter()
  for kind, count in counts.items():
    if kind in ACTION_ROLES:
      by_role[ACTION_ROLES[kind]] += count
  most = max(by_role.values(), default=0)
  for _, kind, _ in reversed(recent):
    if kind in ACTION_ROLES and by_role[ACTION_ROLES[kind]] == most:
      return ACTION_ROLES[kind]
  return "explorer"
