"""The rule policy by hand and by name, and how actions agree."""

import re

import numpy as np
import pytest

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import behaviour, generators, schema
from jaxtrain.experiments.semantic_compression.schema import AGENT15, LEGACY10

HEALTHY = dict(position_x=80.0, position_y=0.0, position_z=0.0, health=0.9, energy=0.6, resource_level=0.5,
               current_health=0.8, is_defending=False, age=10, total_reward=0.0, role="explorer")


@pytest.mark.parametrize("change,action", [
    ({}, "explore"), ({"current_health": 0.05}, "flee"), ({"current_health": 0.05, "is_defending": True}, "heal"),
    ({"current_health": 0.2}, "heal"), ({"is_defending": True}, "defend"), ({"role": "defender"}, "explore"),
    ({"role": "defender", "position_x": 30.0}, "defend"), ({"role": "attacker"}, "attack"),
    ({"role": "attacker", "energy": 0.4}, "explore"), ({"resource_level": 0.2}, "gather"),
    ({"role": "gatherer"}, "gather"), ({"role": "gatherer", "resource_level": 0.8}, "explore")])
def test_policy(change, action):
  record = {name: np.array([value]) for name, value in (HEALTHY | change).items()}
  assert behaviour.ACTIONS[behaviour.actions(AGENT15, record)[0]] == action


def test_every_action_occurs_and_order_and_units_do_not_matter():
  record = generators.draw("independent", 2000, 0)
  found = behaviour.actions(AGENT15, record)
  assert set(found) == set(range(6))
  backwards = AGENT15._replace(columns=AGENT15.columns[::-1])
  np.testing.assert_array_equal(behaviour.actions(backwards, record), found)
  other = record | {"current_health": 100 * record["current_health"]}
  in_percent = AGENT15._replace(columns=tuple(column._replace(high=100.0) if column.name == "current_health" else column
                                              for column in AGENT15.columns))
  np.testing.assert_array_equal(behaviour.actions(in_percent, other), found)


def test_agreement():
  record = generators.draw("independent", 500, 1)
  assert behaviour.agreement(AGENT15, record, record)[0] == 1
  healed = record | {"current_health": np.ones(500)}
  share, confusion = behaviour.agreement(AGENT15, record, healed)
  a, b = behaviour.actions(AGENT15, record), behaviour.actions(AGENT15, healed)
  assert share == np.mean(a == b) < 1 and confusion.sum() == 500 and confusion[1].sum() == (a == 1).sum()
  assert not confusion[:, :2].any() and confusion[0, 2] + confusion[1, 2] == (a < 2)[b == 2].sum()


def test_unified_score():
  """Weights 0.6, 0.3, 0.1 of the parts that there are."""
  assert behaviour.unified_score({"preservation": 0.5, "agreement": 0.8}) == pytest.approx(0.54 / 0.9)
  assert behaviour.unified_score({"preservation": 1, "agreement": 1, "human": 0.0}) == pytest.approx(0.9)
  for bad in ({}, {"humans": 1.0}):
    with pytest.raises(ValueError, match="unified score"):
      behaviour.unified_score(bad)


def test_a_schema_without_the_columns():
  assert behaviour.applies(AGENT15) and not behaviour.applies(LEGACY10)
  with pytest.raises(UserError, match=re.escape("reads the column 'resource_level', which schema 'legacy10' does not")):
    behaviour.actions(LEGACY10, {})
  assert behaviour.applies(schema.with_blocks(AGENT15, ("goals",)))
