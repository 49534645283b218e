"""Column transforms: formulas, exact inverses, and what is refused."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxtrain.data import scaling
from jaxtrain.errors import UserError

NAMES = ("standardise", "signed_log1p", "log1p")
COLUMNS = ("density", "susceptibility", "red")


def table(num_rows=200):
  random = np.random.RandomState(0)
  columns = random.normal(1.7, 0.25, num_rows), random.standard_t(2, num_rows) * 50, random.uniform(0, 255, num_rows)
  return np.stack(columns, axis=1)


def test_the_formulas_of_the_spec():
  x = table()
  t = x.copy()
  t[:, 1] = np.sign(x[:, 1]) * np.log(1 + np.abs(x[:, 1]))
  t[:, 2] = np.log(1 + x[:, 2])
  mean, std = t.sum(axis=0) / 200, np.sqrt(((t - t.sum(axis=0) / 200) ** 2).sum(axis=0) / 200)  # population, ddof 0
  scaler = scaling.fit(x, NAMES, COLUMNS)
  np.testing.assert_allclose(scaler["mean"], mean, rtol=1e-12)
  np.testing.assert_allclose(scaler["std"], std, rtol=1e-12)
  z = scaling.scale(scaler, x)
  assert z.dtype == np.float32
  np.testing.assert_allclose(z, (t - mean) / std, rtol=1e-6, atol=1e-6)


def test_the_fit_is_in_float64():
  """A standard deviation of 1 beside a mean of 1e8 is lost in float32."""
  x = 1e8 + np.tile([-1.0, 1.0], 50)[:, None]
  scaler = scaling.fit(x, ("standardise",), ("a",))
  assert scaler["mean"] == [1e8] and scaler["std"] == [1.0]
  np.testing.assert_array_equal(scaling.scale(scaler, x)[:2, 0], [-1.0, 1.0])


@settings(deadline=None, max_examples=50, derandomize=True)
@given(hnp.arrays(np.float64, (12, 3), elements=st.floats(-1e4, 1e4)))
def test_unscale_undoes_scale(x):
  x[:, 2] = np.abs(x[:, 2])
  x[:, 2][:2], x[:, 1][:2], x[:, 0][:2] = (0, 10), (-5, 5), (-1, 1)  # no constant columns
  scaler = scaling.fit(x, NAMES, COLUMNS)
  back = scaling.unscale(scaler, scaling.scale(scaler, x))
  assert back.dtype == np.float64
  # float32 keeps z to 6e-8 of its size, at most sqrt(12) here; the logarithms make a relative error of an absolute one.
  largest = np.abs(x[:, 0] - x[:, 0].mean()).max()
  np.testing.assert_allclose(back[:, 0], x[:, 0], rtol=1e-6, atol=1e-6 * largest)
  for d in (1, 2):
    np.testing.assert_allclose(back[:, d], x[:, d], rtol=2e-5, atol=2e-5)


def test_a_scaler_survives_json():
  x = table()
  scaler = scaling.fit(x, NAMES, COLUMNS)
  again = json.loads(json.dumps(scaler))
  np.testing.assert_array_equal(scaling.scale(scaler, x), scaling.scale(again, x))
  np.testing.assert_array_equal(scaling.unscale(scaler, x[:5]), scaling.unscale(again, x[:5]))


def test_training_rows_alone_are_fitted_and_others_may_lie_outside():
  x = table()
  scaler = scaling.fit(x[:100], NAMES, COLUMNS)
  assert scaler["mean"] != scaling.fit(x, NAMES, COLUMNS)["mean"]
  np.testing.assert_allclose(scaling.scale(scaler, x)[:100].mean(axis=0), 0, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 5.0, 0.1, 1.7, 123.456])
def test_a_constant_column_counts_as_standard_deviation_one(value):
  """Rounding of the mean must not turn into a tiny standard deviation: another row would be scaled to 1e17."""
  scaler = scaling.fit(np.full((1000, 1), value), ("standardise",), ("a",))
  assert scaler["std"] == [1.0]
  np.testing.assert_allclose(scaling.scale(scaler, np.array([[value], [value + 2]])), [[0.0], [2.0]], atol=1e-6)


def test_names_are_checked():
  assert scaling.check_names((), 3) == ("standardise",) * 3
  assert scaling.check_names(NAMES, 3) == NAMES
  with pytest.raises(UserError, match="config.data.transforms: got 2 names for 3 features"):
    scaling.check_names(("identity", "log1p"), 3)
  with pytest.raises(UserError, match="config.data.transforms: got 'log'.*signed_log1p"):
    scaling.check_names(("identity", "log", "log1p"), 3)


@pytest.mark.parametrize("value", [-1.0, -3.0])
def test_a_value_outside_a_transforms_domain_names_the_column(value):
  x = table()
  x[7, 2] = value
  with pytest.raises(UserError, match=f"'red'.*log1p.*{value:g}"):
    scaling.fit(x, NAMES, COLUMNS)


@pytest.mark.parametrize("value", [-1.0, -3.0])
def test_a_row_to_scale_outside_a_transforms_domain_is_refused(value):
  """A validation row, or a file to predict on: without an error it becomes NaN or -inf."""
  x = table()
  scaler = scaling.fit(x, NAMES, COLUMNS)
  x[7, 2] = value
  with pytest.raises(UserError, match="log1p"):
    scaling.scale(scaler, x)


FORWARD = {"identity": lambda v: v, "standardise": lambda v: v, "min_max": lambda v: v, "log1p": math.log1p,
           "signed_log1p": lambda v: math.copysign(math.log1p(abs(v)), v)}


def two_pass(values, name):
  """(shift, size) of a column by its transform, in exactly rounded sums of Python floats."""
  t = [FORWARD[name](v) for v in values]
  if name == "identity":
    return 0.0, 1.0
  if name == "min_max":
    return min(t), max(t) - min(t)
  mean = math.fsum(t) / len(t)
  return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in t) / len(t))


def stretched(x):
  """Columns of x [N, 5] for the five transforms: no constant ones, and none below 0 for log1p."""
  x[0], x[1] = -1, 10
  x[:, list(FORWARD).index("log1p")] = np.abs(x[:, list(FORWARD).index("log1p")])
  return x


@settings(deadline=None, max_examples=60, derandomize=True)
@given(hnp.arrays(np.float64, (9, 5), elements=st.floats(-1e6, 1e6)))
def test_all_transforms_invert(x):
  """To float32: an error of 2^-24 of the scaled value, times the scale, through the slope of the inverse."""
  x = stretched(x)
  scaler = scaling.fit(x, tuple(FORWARD), tuple(FORWARD))
  z, back = scaling.scale(scaler, x), scaling.unscale(scaler, scaling.scale(scaler, x))
  error = 2.0 ** -23 * np.abs(z) * np.array(scaler["std"]) + 1e-12 * np.abs(x)
  for d, name in enumerate(FORWARD):
    slope = 1 + np.abs(x[:, d]) if "log1p" in name else 1.0
    assert (np.abs(back[:, d] - x[:, d]) <= 2 * error[:, d] * slope + 1e-12).all(), name
  assert z[:, 2].min() == 0 and z[:, 2].max() == 1  # min_max


@settings(deadline=None, max_examples=60, derandomize=True)
@given(hnp.arrays(np.float64, st.tuples(st.integers(2, 40), st.just(5)), elements=st.floats(-1e6, 1e6)),
       st.integers(1, 50), st.sampled_from([0.0, 1e9]))
def test_a_fit_by_blocks_is_a_fit_in_two_passes(x, block, offset):
  x = stretched(x) + offset
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(scaling, "BLOCK", block)
    scaler = scaling.fit(x, tuple(FORWARD), tuple(FORWARD))
  for d, name in enumerate(FORWARD):
    mean, std = two_pass(x[:, d].tolist(), name)
    np.testing.assert_allclose(scaler["mean"][d], mean, rtol=1e-12, atol=1e-9)
    # Values near 1e9 have an error of 1e-7 before anything is computed.
    np.testing.assert_allclose(scaler["std"][d], std, rtol=1e-9, atol=1e-6 * (offset > 0) + 1e-12)


@pytest.mark.parametrize("width", [1, 6, 32, 33, 784, 10**7])
def test_blocks_follow_from_the_width_alone_and_are_bounded(width):
  """A file read block by block then gives the bits of a table in memory, and memory does not grow with the width."""
  rows = scaling.block_rows(width)
  assert 1 <= rows <= scaling.BLOCK and (rows == 1 or rows * width * 8 <= scaling.BLOCK_BYTES)
  assert rows == scaling.BLOCK or (rows + 1) * width * 8 > scaling.BLOCK_BYTES


def test_blocks_are_read_once_and_in_order(monkeypatch):
  monkeypatch.setattr(scaling, "BLOCK", 64)
  x, asked = table(), []

  def read(start, stop):
    asked.append((start, stop))
    return x[start:stop]

  scaler = scaling.fit_blocks(read, 200, NAMES, COLUMNS)
  assert asked == [(0, 64), (64, 128), (128, 192), (192, 200)] and scaler == scaling.fit(x, NAMES, COLUMNS)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(hnp.arrays(np.float64, (9, 5), elements=st.floats(-1e3, 1e3)))
def test_on_device_it_is_the_same_to_float32(x):
  x = stretched(x)
  scaler = scaling.fit(x, tuple(FORWARD), tuple(FORWARD))
  z = scaling.scale(scaler, x)
  np.testing.assert_allclose(scaling.scale_on_device(scaler, jnp.asarray(x, jnp.float32)), z, rtol=1e-5, atol=2e-5)
  np.testing.assert_allclose(scaling.unscale_on_device(scaler, jnp.asarray(z)), scaling.unscale(scaler, z), rtol=1e-4,
                             atol=1e-4 * np.abs(x).max())
