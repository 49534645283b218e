"""Small databases of a simulation, written from its published schema."""

import sqlite3

TABLES = {
    "agent_states": "id text primary key, simulation_id text, step_number integer, agent_id text, position_x real, "
                    "position_y real, position_z real, resource_level real, current_health real, is_defending boolean, "
                    "total_reward real, age integer",
    "agents": "simulation_id text, agent_id text primary key, birth_time integer, death_time integer, agent_type text, "
              "position_x real, position_y real, initial_resources real, starting_health real",
    "agent_actions": "action_id integer primary key, simulation_id text, step_number integer, agent_id text, "
                     "action_type text, action_target_id text, reward real"}
AGENTS = [("s1", "a", 0, None, "system", 0, 0, 5, 100.0), ("s1", "b", 0, None, "control", 0, 0, 5, 80.0),
          ("s2", "c", 0, None, "system", 0, 0, 5, 50.0)]


def state(simulation, agent, step, **cells):
  """A row of agent_states."""
  values = dict(position_x=1.0 * step, position_y=2.0, position_z=None, resource_level=7.5, current_health=40.0,
                is_defending=0, total_reward=0.25 * step, age=step) | cells
  return (f"{agent}-{step}", simulation, step, agent, *(values[name] for name in (
      "position_x", "position_y", "position_z", "resource_level", "current_health", "is_defending", "total_reward",
      "age")))


STATES = [state(simulation, agent, step) for step in range(20) for simulation, agent in
          (("s1", "a"), ("s1", "b"), ("s2", "c"))]
ACTIONS = [(None, "s1", 2, "a", "gather", None, 0), (None, "s1", 3, "a", "gather", None, 0),
           (None, "s1", 4, "a", "attack", "b", 0), (None, "s1", 5, "a", "rest", None, 0),
           (None, "s1", 6, "a", "Attack", None, 0), (None, "s2", 0, "c", "defend", "a", 0)]


def database(path, states=STATES, agents=AGENTS, actions=ACTIONS, tables=TABLES):
  """A database with the tables whose rows are given."""
  connection = sqlite3.connect(path)
  for (name, columns), rows in zip(tables.items(), (states, agents, actions)):
    if rows is not None:
      connection.execute(f"create table {name} ({columns})")
      for row in rows:
        connection.execute(f"insert into {name} values ({', '.join('?' * len(row))})", row)
  connection.commit()
  connection.close()
  return str(path)


def write(path) -> str:
  """A database of 30 agents over 20 steps, whose numbers differ."""
  states = [state("s1", f"agent{i}", step, position_x=3.0 * i + step, position_y=step - 2.0 * i, position_z=0.1 * i,
                  resource_level=5.0 + 0.3 * i, current_health=40.0 + i + step, is_defending=(i + step) % 3 == 0)
            for step in range(20) for i in range(30)]
  agents = [("s1", f"agent{i}", 0, None, "system", 0, 0, 5, 100.0) for i in range(30)]
  actions = [(None, "s1", step, f"agent{i}", ("gather", "attack", "defend")[i % 3], None, 0)
             for step in range(0, 20, 5) for i in range(30)]
  return database(path, states, agents, actions)
