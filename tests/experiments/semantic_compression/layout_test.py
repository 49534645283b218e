"""The linear maps that a network starts from: what goes in comes out, for every schema."""

import numpy as np
import pytest
from scipy import special

import codec_cases as cases
from jaxtrain.experiments.semantic_compression import generators, layout, schema

N = 200
RECORDS = {"toy": (cases.TOY, cases.toy_record(N)), "agent15": (schema.AGENT15, generators.draw("independent", N, 0)),
           "legacy10": (schema.LEGACY10, {
               **{name: np.linspace(-0.7, 0.5, N) for name in ("position_x", "position_y", "health", "energy")},
               "has_target": np.arange(N) % 2, "role": np.arange(N) % 5})}


def made(name, latent_dim=None, whole=True, **factors):
  """(schema, vectors [N, D], layout) with one slot for each column."""
  states, record = RECORDS[name]
  given = {layout.group_of(column): 1.0 for column in states.columns} | factors
  return states, schema.encode(states, record).astype(np.float64), layout.make_layout(
      states, latent_dim or len(states.columns), given, whole)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("more", [0, 2])
def test_a_state_comes_back_through_its_slots(name, whole, more):
  states, x, plan = made(name, len(RECORDS[name][0].columns) + more, whole)
  u = x @ plan.matrix_in + plan.shift_in
  r = u @ plan.matrix_out + plan.shift_out
  given, back = schema.decode(states, x), schema.decode(states, r)
  for column in states.columns:
    if column.kind == "continuous":
      np.testing.assert_allclose(back[column.name], given[column.name], atol=1e-6)
    else:
      np.testing.assert_array_equal(back[column.name], given[column.name])
  assert plan.size == len(plan.names) == len(plan.groups) == len(states.columns) + more
  np.testing.assert_array_equal(plan.matrix_out[len(states.columns):], 0)  # shared slots change nothing at first


@pytest.mark.parametrize("whole", [True, False])
def test_slots_have_their_own_range_and_classes_are_whole_numbers(whole):
  """Numbers first, in the schema's order; then the bit and the classes."""
  _, x, plan = made("toy", whole=whole)
  assert plan.names == ("length", "count", "bit", "kind")
  assert plan.groups == ("a", "a", "b", "b")
  np.testing.assert_array_equal(plan.continuous, [True, True, False, False])
  np.testing.assert_array_equal(plan.low, [-0.5] * 4)
  np.testing.assert_array_equal(plan.high, [0.5, 0.5, 1.5, 2.5] if whole else [0.5] * 4)
  u = x @ plan.matrix_in + plan.shift_in
  record = RECORDS["toy"][1]
  inside = (record["length"] > -1) & (record["length"] < 3)
  assert (u[inside] >= plan.low).all() and (u[inside] <= plan.high).all()
  if whole:
    np.testing.assert_allclose(u[:, 2], record["bit"], atol=1e-12)
    np.testing.assert_allclose(u[:, 3], record["kind"], atol=1e-12)


def test_probabilities_of_classes_fall_with_the_squared_distance():
  """log p(class k | u) = -8 (u - k)^2 and what all classes share; the log-odds of a bit are 16 u - 8."""
  _, _, plan = made("toy")
  u = np.zeros((1, 4))
  u[0, 2:] = 0.3, 1.4
  r = u @ plan.matrix_out + plan.shift_out
  assert r[0, 0] == pytest.approx(16 * 0.3 - 8)
  np.testing.assert_allclose(special.softmax(r[0, 2:5]), special.softmax(-8 * (1.4 - np.arange(3))**2), rtol=1e-9)


def test_fewer_slots_than_columns_are_projections():
  """All are shared; what comes back is the nearest that the slots can say, and again the same of itself."""
  states, x, plan = made("agent15", 4)
  assert set(plan.groups) == {"shared"} and plan.continuous.all()
  r = x @ plan.matrix_in @ plan.matrix_out
  np.testing.assert_allclose(r @ plan.matrix_in @ plan.matrix_out, r, atol=1e-9)
  np.testing.assert_allclose((x - r) @ plan.matrix_in, 0, atol=1e-9)
  assert layout.inputs_of(states, plan) == (("shared", tuple(range(15))),)


def test_weights_and_factors_are_those_of_the_groups():
  states, _, plan = made("toy", a=0.5, b=3.0)
  np.testing.assert_array_equal(plan.factor, [0.5, 0.5, 1.0, 1.0])
  np.testing.assert_array_equal(layout.column_weights(states, {"a": 0.5, "b": 3.0}), [0, 4, 0, 0, 0, 4])
  np.testing.assert_array_equal(plan.numeric, [False, True, False, False, False, True])
  assert layout.inputs_of(states, plan) == (("b", (0, 2, 3, 4)), ("a", (1, 5)))
  more = made("toy", 6)[2]
  assert layout.inputs_of(states, more)[-1] == ("shared", (0, 1, 2, 3, 4, 5))
