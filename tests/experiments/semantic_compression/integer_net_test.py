"""The network of integers: exact in float64, near the floats it came from, and within its limits."""

import numpy as np
import pytest

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import integer_net

import symbol_cases as cases


def apply_float64(net, inputs):
  """What `apply` gives, by the same steps in float64, whose sums are exact integers: [N, C] float64 each."""
  one, limit = 2.0**10, 2**23 - 1
  x = np.clip(np.asarray(inputs, np.float64), -(limit >> 10), limit >> 10) * one
  for number, (W, b, shift) in enumerate(net.layers):
    unit = 2.0**shift
    y = np.floor((x @ W.astype(np.float64) + b + np.floor(unit / 2)) / unit)
    x = np.clip(y, -limit if number == len(net.layers) - 1 else 0, limit)
  C, step = x.shape[1] // 2, one / 8
  return np.floor((x[:, :C] + step / 2) / step), np.clip(np.floor((x[:, C:] + one / 2) / one), 0, 31)


@pytest.mark.parametrize("size", (1, 30, 9000, 2 ** 31 - 1))
def test_float64_gives_the_same(size):
  """Exactly, for symbols of any size, also with weights at their limits."""
  random = np.random.default_rng(size)
  inputs = random.integers(-size, size, (300, 7), endpoint=True)
  largest = [(np.full((7, 4000), 32766.0) * random.choice([-1, 1], (7, 4000)), np.full(4000, 8190.0)),
             (np.full((4000, 6), 32766.0) * random.choice([-1, 1], (4000, 6)), np.full(6, -8190.0))]
  for weights in (cases.float_net(7, 3), largest):
    net = integer_net.quantise_net(weights)
    for found, want in zip(integer_net.apply(net, inputs), apply_float64(net, inputs)):
      assert found.dtype == np.int64
      np.testing.assert_array_equal(found, want)


def test_it_is_near_the_floats():
  """Means within an eighth and 0.02 of those of the float network, and indices of scales within one and 0.02."""
  weights = cases.float_net(7, 3)
  inputs = np.random.default_rng(1).integers(-30, 31, (500, 7))
  (W, b), (V, c) = weights
  y = np.maximum(inputs @ W + b, 0) @ V + c
  mean, index = integer_net.apply(integer_net.quantise_net(weights), inputs)
  assert np.abs(mean / 8 - y[:, :3]).max() < 1 / 16 + 0.02
  assert np.abs(index - np.clip(y[:, 3:], 0, 31)).max() < 0.5 + 0.02


def test_by_hand():
  """One layer: mean 2 x + 0.5 and scale 8 + x / 2, rounded half up; inputs of any leading shape."""
  net = integer_net.quantise_net([(np.array([[2.0, 0.5]]), np.array([0.5, 8.0]))])
  mean, index = integer_net.apply(net, np.array([[[-3], [0]], [[1], [100]]]))
  assert mean[..., 0].tolist() == [[-44, 4], [20, 1604]] and index[..., 0].tolist() == [[7, 8], [9, 31]]


@pytest.mark.parametrize("layers,says", [
    ([], "has no layer"), ([(np.ones((2, 3)), np.ones(3))], "3 outputs"), ([(np.ones((2, 4)), np.ones(3))], "bias"),
    ([(np.ones((2, 4)), np.ones(4)), (np.ones((3, 2)), np.ones(2))], "layer 1 has weights .3, 2., .* and 4 inputs"),
    ([(np.full((2, 2), np.nan), np.ones(2))], "layer 0 .* not finite"), ([(np.full((2, 2), 4e4), np.ones(2))], "large"),
    ([(np.ones((2, 2)), np.full(2, 9e3))], "too large"), ([(np.ones(2), np.ones(2))], "bias")])
def test_what_is_refused(layers, says):
  """Each by what is wrong with it."""
  with pytest.raises(UserError, match=says):
    integer_net.quantise_net(layers)


def test_a_small_column_keeps_its_bits():
  """Columns of one layer have shifts of their own: one of 1e-4 beside one of 1e3 is right to a thousandth."""
  net = integer_net.quantise_net([(np.array([[1e3, 1e-4, 1.0, 1.0]]), np.zeros(4))])
  W, _, shift = net.layers[0]
  assert (W / 2.0 ** shift)[0, :2] == pytest.approx([1e3, 1e-4], rel=1e-3)
