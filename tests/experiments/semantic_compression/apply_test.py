"""A codec applied to states: symbols, their names, and the way through them."""

import jax.numpy as jnp
import numpy as np
import pytest

import codec_cases as cases
from jaxtrain.experiments.semantic_compression import apply, schema

COLUMNS = ("position_x", "position_y", "position_z", "health", "energy", "resource_level", "current_health", "age",
           "total_reward", "is_defending", "role")


@pytest.mark.slow
@pytest.mark.parametrize("variant,fields,names", [
    ("smoke", {}, COLUMNS), ("lattice", {}, ("coset_0", *COLUMNS)),
    ("lattice", {"model.compressor.lattice": "d4"}, COLUMNS),
    ("vq", {"model.compressor.num_slots": 3, "model.compressor.residual": True}, ("0", "1", "2")),
    ("smoke", {"model.latent_dim": 13}, (*COLUMNS, "shared_0", "shared_1"))])
def test_symbols_have_names_and_lead_through(variant, fields, names):
  """What comes of the symbols is what comes without them, in blocks of any number of rows."""
  made = cases.made(variant, **fields)
  assert tuple(name for name, _ in apply.slots(made.problem)) == names
  x = made.x("val")
  symbols = apply.to_symbols(made.coder, made.state, x)
  assert symbols.shape == (len(x), len(names)) and symbols.dtype == np.int32
  r = apply.to_output(made.coder, made.state, symbols)
  np.testing.assert_allclose(r, apply.straight(made.coder, made.state, x), atol=1e-4)
  np.testing.assert_allclose(apply.to_output(made.coder, made.state, symbols[:3]), r[:3], atol=1e-5)
  record = apply.to_record(made.coder, made.state, symbols)
  want = schema.decode(schema.AGENT15, r)
  for name, column in want.items():
    np.testing.assert_array_equal(record[name], column)


def test_groups_of_symbols_are_those_of_their_columns():
  lattice = dict(apply.slots(cases.made("lattice").problem))
  assert lattice["coset_0"] == "shared" and lattice["position_z"] == "spatial" and lattice["role"] == "role"


def test_the_average_of_the_parameters_is_applied_where_there_is_one():
  """And the level that a target of bits has come to."""
  made = cases.made("smoke", **{"optim.ema_decay": 0.9})
  given = apply.variables(made.problem, made.state)
  assert given["codes"] is None and float(given["level"]) == 1.0
  shifted = made.state.ema | {"shift_out": made.state.ema["shift_out"] + 0.25}
  moved = apply.to_record(made.coder, made.state.replace(ema=shifted), np.zeros((2, 11), np.int32))
  first = apply.to_record(made.coder, made.state, np.zeros((2, 11), np.int32))
  np.testing.assert_allclose(moved["position_x"] - first["position_x"], 50.0, rtol=1e-4)
  assert jnp.array_equal(given["params"]["shift_out"], made.state.params["shift_out"])
