"""States to vectors and back, by name; what is refused; schemas as JSON; a user's own table."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import generators, schema
from jaxtrain.experiments.semantic_compression.schema import AGENT15, LEGACY10, Column, Feature, Schema

RECORD = {"position_x": [100.0, -50.0], "position_y": [0.0, 25.0], "position_z": [-10.0, 5.0], "health": [0.1, 1.0],
          "energy": [0.6, 0.2], "resource_level": [0.0, 1.0], "current_health": [0.0, 0.75],
          "is_defending": [True, False], "age": [0, 125], "total_reward": [25.0, -50.0],
          "role": ["builder", "explorer"]}
VECTORS = [[.5, 0, -.5, -.5, 0, -.5, -.5, .5, -.5, 0, 0, 0, 0, 0, 1],
           [-.25, .125, .25, .5, -.5, .5, .25, -.5, -.25, -.5, 1, 0, 0, 0, 0]]


def arrays(record):
  """A record's lists as arrays."""
  return {name: np.asarray(values) for name, values in record.items()}


def test_vectors_of_agents():
  """By hand from (v - middle) / width: a dead agent of age 0 stays dead and young."""
  found = schema.encode(AGENT15, arrays(RECORD))
  assert found.dtype == np.float32 and AGENT15.width == 15
  np.testing.assert_allclose(found, VECTORS, atol=1e-6)
  back = schema.decode(AGENT15, np.asarray(VECTORS))
  for name, values in RECORD.items():
    if isinstance(values[0], float):
      np.testing.assert_allclose(back[name], values, atol=1e-9)
    else:
      assert back[name].tolist() == values
  by_code = schema.encode(AGENT15, arrays(RECORD) | {"role": np.array([4, 0])})
  np.testing.assert_array_equal(by_code, found)


def test_places_of_the_shipped_schemas():
  assert AGENT15.numeric.tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 9] and AGENT15.slices["role"] == slice(10, 15)
  assert AGENT15.places("binary").tolist() == [7] and AGENT15.places("categorical").tolist() == [10, 11, 12, 13, 14]
  assert AGENT15.groups == {
      "spatial": ("position_x", "position_y", "position_z"), "resource": ("health", "energy", "resource_level"),
      "status": ("current_health", "is_defending"), "performance": ("age", "total_reward"), "role": ("role",)}
  assert list(LEGACY10.slices.values()) == [*(slice(k, k + 1) for k in range(5)), slice(5, 10)]
  assert abs(sum(feature.weight for feature in AGENT15.features) - 1) < 1e-12
  assert schema.with_blocks(AGENT15, ("inventory", "goals")).width == 15 + 6 + 8
  acting = schema.with_blocks(AGENT15, ("target",))
  assert {f.name: f.columns for f in acting.features}["has_target"] == ("has_target",)


def test_outputs_of_a_network_are_read_as_vectors_are():
  """Logits of any size; continuous values are not clipped; an integer is the nearest; the first of equal logits."""
  output = np.asarray(VECTORS[:1]) * 1.0
  output[0, [0, 7, 8]], output[0, 10:] = (0.75, 3.2, 0.10013), (-5, 9, 9, 0, 1)
  back = schema.decode(AGENT15, output)
  assert (back["position_x"][0], back["is_defending"][0], back["age"][0]) == (150.0, True, 300)
  assert back["age"].dtype == np.int64 and back["role"][0] == "gatherer"


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(11)), st.integers(0, 2**31))
def test_columns_in_any_order_give_the_same_states(order, seed):
  permuted = schema.checked(AGENT15._replace(columns=tuple(AGENT15.columns[k] for k in order)))
  record = generators.draw("independent", 5, seed)
  one, other = (schema.decode(s, schema.encode(s, record)) for s in (AGENT15, permuted))
  for name in one:
    np.testing.assert_array_equal(one[name], other[name])
  assert one["age"].tolist() == record["age"].tolist()
  np.testing.assert_allclose(one["total_reward"], record["total_reward"], atol=1e-5)


@pytest.mark.parametrize("column,values,words", [
    ("health", [0.5, np.nan], "data column 'health', row 2: got nan, allowed a finite number"),
    ("health", [None, 0.5], "data column 'health': got object, allowed numbers"),
    ("age", [np.inf, 2.0], "data column 'age', row 1: got inf"),
    ("energy", [0.5, 1e39], "data column 'energy', row 2: got 1e+39, allowed a finite number of 32 bits"),
    ("is_defending", [0, 2], "data column 'is_defending', row 2: got 2, allowed 0 or 1"),
    ("role", ["builder", "wizard"], "data column 'role', row 2: got 'wizard', allowed explorer, gatherer"),
    ("role", [None, "builder"], "data column 'role', row 1: got None"),
    ("role", [5, 0], "data column 'role', row 1: got 5, allowed codes 0..4"),
    ("role", [0.0, 1.0], "data column 'role', row 1: got"), ("energy", [0.5], "data columns have different lengths")])
def test_missing_and_wrong_values_are_refused(column, values, words):
  with pytest.raises(UserError, match=re.escape(words)):
    schema.encode(AGENT15, arrays(RECORD) | {column: np.asarray(values)})


def test_a_missing_column_is_named():
  record = arrays(RECORD)
  del record["energy"]
  with pytest.raises(UserError, match="data column 'energy' of schema 'agent15' is missing; there are: position_x"):
    schema.encode(AGENT15, record)


@pytest.mark.parametrize("known", [AGENT15, LEGACY10, schema.with_blocks(AGENT15, ("inventory", "goals", "target"))])
def test_schemas_as_json(known):
  assert schema.from_json(json.loads(json.dumps(schema.to_json(known)))) == known
  assert hash(schema.from_json(schema.to_json(known))) == hash(known)


@pytest.mark.parametrize("change,words", [
    (lambda s: s.pop("columns"), "this is no schema: 'columns'"), (lambda s: s.update(columns=3), "this is no schema"),
    (lambda s: s["columns"][0].update(kind="text"), "column 'position_x': got 'text', allowed a kind of continuous"),
    (lambda s: s["columns"][0].update(low=100.0), "column 'position_x': got (100.0, 100.0), allowed finite low < high"),
    (lambda s: s["columns"][0].update(low=float("nan")), "this is no schema: got nan, allowed a finite number"),
    (lambda s: s["columns"][0].update(low="a"), "this is no schema"),
    (lambda s: s["columns"][0].update(extra=1), "this is no schema"),
    (lambda s: s["columns"][0].update(name=["a"]), "this is no schema: got ['a'], allowed text"),
    (lambda s: s["columns"][10].update(classes="ab"), "this is no schema: got 'ab', allowed a list"),
    (lambda s: s["features"][7].update(thresholds=["a"]), "this is no schema: got 'a', allowed a finite number"),
    (lambda s: s["features"][7].pop("weight"), "this is no schema: got the fields"),
    (lambda s: s["features"][7].update(weight=-1), "feature 'is_alive'"),
    (lambda s: s["columns"][1].update(name="position_x"), "columns: got 'position_x', allowed each name once"),
    (lambda s: s["columns"][10].update(classes=["a", "a"]), "column 'role': got ('a', 'a'), allowed two or more"),
    (lambda s: s["features"][1].update(columns=["heath"]), "feature 'health': got 'heath', allowed a column: position"),
    (lambda s: s["features"][7].update(thresholds=[]), "feature 'is_alive': got ('continuous',), allowed"),
    (lambda s: s["features"][9].update(thresholds=[0.3, 0.1]), "feature 'threatened'"),
    (lambda s: s["features"][0].update(kind="binary"), "feature 'position'"),
    (lambda s: s["features"][0].update(rule="near"), "feature 'position': got ('numeric', 'near'), allowed numeric")])
def test_a_schema_that_contradicts_itself_is_refused(change, words):
  plain = schema.to_json(AGENT15)
  change(plain)
  with pytest.raises(UserError, match=re.escape(words)):
    schema.from_json(plain)


def junk_of(text):
  """Any JSON value, with such texts."""
  one = st.none() | st.booleans() | st.integers() | st.floats() | text
  return one | st.lists(one, max_size=3) | st.dictionaries(text, one, max_size=2)


def assert_whole_or_refused(part, row, place, junk):
  """Any one field of any column or feature replaced by anything: a schema that encodes and is hashed, or UserError."""
  plain = schema.to_json(AGENT15)
  fields = plain[part][row]
  fields[list(fields)[place % len(fields)]] = junk
  try:
    made = schema.from_json(plain)
  except UserError:
    return
  hash(made)
  if {column.name for column in made.columns} == set(AGENT15.column):
    assert made.column["role"].kind != "categorical" or len(made.column["role"].classes) >= 2
    assert made.width == sum(len(column.classes) if column.kind == "categorical" else 1 for column in made.columns)


PLACES = st.sampled_from(("columns", "features")), st.integers(0, 10), st.integers(0, 7)


@settings(max_examples=100, deadline=None)
@given(*PLACES, junk_of(st.text('a" %\0\u00e9\u2028\ud800\U0001f600', max_size=3)))
def test_a_strangers_schema_is_whole_or_refused(part, row, place, junk):
  assert_whole_or_refused(part, row, place, junk)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(*PLACES, junk_of(st.text(max_size=3)))
def test_strangers_schemas_of_any_text_are_whole_or_refused(part, row, place, junk):
  assert_whole_or_refused(part, row, place, junk)


def test_a_table_of_ones_own():
  """Ranges and classes come from the rows; a constant has a range; quantiles bear an outlier."""
  record = {"depth": np.array([1.0, 3.0, 2.0]), "count": np.array([7, 7, 7]), "wet": np.array([0, 1, 1]),
            "rock": np.array(["shale", "lime", "shale"])}
  made = schema.of_table(record, ("depth",), ("count",), ("wet",), ("rock",))
  assert made.columns == (Column("depth", "continuous", 1.0, 3.0, (), "depth"),
                          Column("count", "integer", 6.5, 7.5, (), "count"), Column("wet", "binary", group="wet"),
                          Column("rock", "categorical", classes=("lime", "shale"), group="rock"))
  assert [f.kind for f in made.features] == ["numeric", "numeric", "binary", "categorical"]
  np.testing.assert_allclose(schema.encode(made, record), [[-.5, 0, -.5, 0, 1], [.5, 0, .5, 1, 0], [0, 0, .5, 0, 1]])
  long = {"v": np.append(np.linspace(0, 1, 101), 1e9)}
  assert schema.of_table(long, ("v",), quantiles=(0.0, 0.9)).columns[0].high < 1
  for other, words in (({"continuous": ("depth", "depth")}, "is named twice"), ({"continuous": ("wett",)}, "'wett'"),
                       ({"categorical": ("wet",)}, "allowed text alone"), ({}, "columns: got ()")):
    with pytest.raises(UserError, match=re.escape(words)):
      schema.of_table(record, **other)


def test_records_as_json_lines():
  """Each line is JSON, floats come back as the same float32, and names with % and quotes are kept."""
  record = generators.draw("independent", 50, 3)
  lines = schema.to_json_lines(AGENT15, record).decode().splitlines()
  rows = [json.loads(line) for line in lines]
  assert len(rows) == 50 and list(rows[0]) == [column.name for column in AGENT15.columns]
  for name in ("position_x", "energy", "total_reward"):
    assert [np.float32(row[name]) for row in rows] == record[name].astype(np.float32).tolist()
  assert [row["age"] for row in rows] == record["age"].tolist()
  assert [schema.ROLES.index(row["role"]) for row in rows] == record["role"].tolist()
  assert {row["is_defending"] for row in rows} == {True, False}
  odd = Schema("odd", (Column('a % "b"', "categorical", classes=("x%", '"')),),
               (Feature("f", "categorical", ('a % "b"',)),))
  assert json.loads(schema.to_json_lines(odd, {'a % "b"': np.array([1])})) == {'a % "b"': '"'}


@pytest.mark.parametrize("place,value,words", [
    (0, np.nan, "decoded column 'position_x', row 2: got [nan]"), (12, np.inf, "decoded column 'role', row 2: got ["),
    (8, 1e17, "decoded column 'age', row 2: got 5e+19, allowed integers of 62 bits")])
def test_outputs_that_are_no_state_are_refused(place, value, words):
  output = np.asarray(VECTORS, np.float64)
  output[1, place] = value
  with pytest.raises(ValueError, match=re.escape(words)):
    schema.decode(AGENT15, output)
