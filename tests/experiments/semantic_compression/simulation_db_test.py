"""States of small databases that are written here from the published schema of a simulation."""

import re

import numpy as np
import pytest

from made_simulations import AGENTS, TABLES, database, state
from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import schema, simulation_db
from jaxtrain.experiments.semantic_compression.simulation_db import Asked


def test_states_of_all_tables(tmp_path):
  path = database(tmp_path / "simulation.db")
  found = simulation_db.read(path, Asked(), "actions")
  record = found.record
  assert record["agent_id"].tolist() == ["a"] * 20 + ["b"] * 20 + ["c"] * 20
  assert record["step_number"].tolist() == [*range(20)] * 3 and found.group.tolist() == [0] * 20 + [1] * 20 + [2] * 20
  np.testing.assert_allclose(record["health"][[0, 20, 40]], [0.4, 0.5, 0.8])
  assert (record["current_health"] == 40).all() and (record["energy"] == 7.5).all()
  assert found.missing == {"position_z": 60} and (record["position_z"] == 0).all()
  assert record["total_reward"][19] == 4.75 and record["age"].dtype == np.int64
  features = {feature.name: feature.columns for feature in found.schema.features}
  assert features["is_alive"] == features["threatened"] == ("health",) and features["has_target"] == ("has_target",)
  fitted = schema.with_ranges(found.schema, record)
  assert schema.encode(fitted, record).shape == (60, 16) and fitted.column["position_x"].high == 19


def test_roles_and_targets_of_actions(tmp_path):
  """Agent a gathers at 2 and 3, attacks at 4 and 6: the newest of equals counts, for ten steps; c has one target."""
  record = simulation_db.read(database(tmp_path / "a.db"), Asked(), "actions").record
  assert record["role"][:20].tolist() == (["explorer"] * 2 + ["gatherer"] * 4 + ["attacker"] * 10 + ["explorer"] * 4)
  assert np.flatnonzero(record["has_target"]).tolist() == [4, 40]
  assert record["role"][40:].tolist() == ["defender"] * 10 + ["explorer"] * 10
  late = simulation_db.read(str(tmp_path / "a.db"), Asked("s1", 7, 9), "actions").record
  assert late["role"].tolist() == ["attacker"] * 3 + ["explorer"] * 3


def test_types_as_roles(tmp_path):
  found = simulation_db.read(database(tmp_path / "a.db", actions=None), Asked(), "agent_type")
  assert found.schema.column["role"].classes == ("control", "system")
  assert found.record["role"][[0, 20, 40]].tolist() == ["system", "control", "system"]
  assert found.schema.width == 12 and "has_target" not in found.record


def test_states_alone(tmp_path):
  """Raw health; without a full health nobody is known to be alive or threatened; a defender defends."""
  rows = [state("s1", "a", step, is_defending=step % 2, position_z=1.0) for step in range(4)]
  found = simulation_db.read(database(tmp_path / "a.db", rows, None, None), Asked(), "defending")
  assert found.record["role"].tolist() == ["explorer", "defender"] * 2 and (found.record["health"] == 40).all()
  assert not {"is_alive", "threatened"} & {feature.name for feature in found.schema.features} and found.missing == {}
  assert {f.name: f.columns for f in found.schema.features}["has_target"] == ("is_defending",)


def test_which_rows(tmp_path):
  """A simulation, a range of steps, and the earliest so many; text with quotes is a value, not SQL."""
  path = database(tmp_path / "a.db")
  of = lambda *asked: simulation_db.read(path, Asked(*asked), "defending").record
  assert set(of("s2")["agent_id"]) == {"c"}
  assert of("s1", 3, 4)["step_number"].tolist() == [3, 4, 3, 4]
  assert of("", None, 1)["step_number"].tolist() == [0, 1] * 3
  few = of("", None, None, 5)
  assert few["agent_id"].tolist() == ["a", "a", "b", "b", "c"] and few["step_number"].tolist() == [0, 1, 0, 1, 0]
  for simulation in ("s3", "' or '1' = '1", "s1'; drop table agents; --"):
    with pytest.raises(UserError, match="has no rows that config.data asks for"):
      of(simulation)
  assert len(of("")["age"]) == 60


def test_rows_with_null_are_left_out_and_counted(tmp_path):
  """A health of 0 is no NULL: a dead agent stays dead."""
  rows = [state("s1", "a", 0, current_health=0.0), state("s1", "a", 1, current_health=None),
          state("s1", "a", 2, age=None), state("s1", "a", 3, age=None, total_reward=None),
          state("s1", "lost", 4), state("s1", "a", 5)]
  found = simulation_db.read(database(tmp_path / "a.db", rows), Asked(), "actions")
  assert found.record["step_number"].tolist() == [0, 5] and found.record["health"].tolist() == [0.0, 0.4]
  assert found.missing == {"position_z": 6, "current_health": 1, "age": 2, "total_reward": 1, "starting_health": 1}


@pytest.mark.parametrize("fields,role,words", [
    ({"states": None}, "defending", "there is no table 'agent_states'; there are: agent_actions, agents"),
    ({"agents": None}, "agent_type", "no table 'agents', which config.data.role=agent_type needs; there are"),
    ({"actions": None}, "actions", "there is no table 'agent_actions', which config.data.role=actions needs"),
    ({"tables": TABLES | {"agent_states": "id text", "agents": "a"}, "states": [], "agents": []}, "defending",
     "table 'agent_states' has no column 'simulation_id'; it has: id"),
    ({}, "type", "config.data.role: got 'type', allowed actions, agent_type, defending"),
    ({"agents": [row for row in AGENTS if row[4] == "system"]}, "agent_type", "all agents are of the type 'system'"),
    ({"states": [state("s1", "a", 0, position_x="far")]}, "defending", "column 'position_x': got 'far', allowed"),
    ({"states": [state("s1", "a", 0, age=1.5)]}, "defending", "column 'age': got 1.5, allowed whole numbers"),
    ({"states": [state("s1", "a", 0, is_defending=2)]}, "defending", "column 'is_defending': got 2, allowed 0 or 1"),
    ({"states": [state("s1", "a", 0, total_reward=float("inf"))]}, "defending", "column 'total_reward': got inf"),
    ({"states": [state("s1", "a", k, age=None) for k in (0, 1)]}, "defending", "column 'age' is NULL in all 2 rows"),
    ({"states": [state("s1", "a", 0, age=None), state("s1", "a", 1, total_reward=None)]}, "defending",
     "each of the 2 rows has a NULL: position_z 2, age 1, total_reward 1"),
    ({"agents": [("s1", "a", 0, None, "x", 0, 0, 5, 0.0)]}, "defending", "'starting_health': got 0, allowed more"),
    ({"states": []}, "defending", "table 'agent_states' has no rows that config.data asks for")])
def test_what_is_wrong_is_said_in_one_line(fields, role, words, tmp_path):
  path = database(tmp_path / "a.db", **fields)
  with pytest.raises(UserError, match=re.escape(words)) as raised:
    simulation_db.read(path, Asked(), role)
  assert "\n" not in str(raised.value)


def test_no_database(tmp_path):
  (tmp_path / "b.db").write_bytes(b"no database, but a text of some length" * 100)
  with pytest.raises(UserError, match="there is no such file"):
    simulation_db.read(str(tmp_path / "a.db"), Asked(), "defending")
  with pytest.raises(UserError, match=re.escape("b.db: file is not a database")):
    simulation_db.read(str(tmp_path / "b.db"), Asked(), "defending")


def test_the_file_is_left_as_it_is(tmp_path):
  path = database(tmp_path / "a.db")
  before = (tmp_path / "a.db").read_bytes()
  simulation_db.read(path, Asked(), "actions")
  assert (tmp_path / "a.db").read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.db"]
