"""A small network in integers: what conditions a prior gives the same numbers on every machine.

An encoder and a decoder must use the same table for a symbol. A network in floats does not promise that: the order of
a sum, a library or a device changes the last bit, and one other table makes all that follows wrong. Here weights are
rounded to integers once, where a code is made, and all that follows is int64: multiply, add, shift right, ReLU, clip.

Activations have F = 10 bits after the point and are kept within +-(2**23 - 1), so +-8191. Column o of a layer's weights
has at most 16 bits and `shift[o]` bits after the point: y = (x W + b + 2**(shift - 1)) >> shift, where b has
F + shift bits after the point. No sum passes 2**52, so that the same arithmetic in float64 is exact in any order.

Of 2 C outputs, the first C are means, in steps of the symbols, rounded to eighths; the others are indices of scales
(see `logistic`), rounded and kept within the table.

**Source:** integer networks for priors: Balle, Johnston & Minnen, Integer networks for data compression with
latent-variable models, 2019. The rounding here is after training.
"""

from typing import NamedTuple, Sequence

import numpy as np

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression.logistic import NUM_SCALES

FRACTION_BITS, MEAN_BITS = 10, 3
LIMIT = (1 << 23) - 1
WEIGHT_LIMIT = (1 << 15) - 1
MOST_SHIFT = 24
BIAS_LIMIT = 1 << 47
MOST_WIDTH = 1 << 12
MOST_CELLS = 1 << 18  # activations of a layer that are held at once


class Layer(NamedTuple):
  """A layer of integers: weights [I, O], bias [O] and shift [O], int64."""
  weights: np.ndarray
  bias: np.ndarray
  shift: np.ndarray


class IntegerNet(NamedTuple):
  """Layers from the inputs to the 2 C outputs; ReLU follows each but the last."""
  layers: tuple[Layer, ...]

  @property
  def num_inputs(self) -> int:
    """I, symbols that the first layer reads."""
    return len(self.layers[0].weights)

  @property
  def num_outputs(self) -> int:
    """2 C, means and indices of scales."""
    return len(self.layers[-1].bias)


def quantise_net(weights: Sequence[tuple[np.ndarray, np.ndarray]]) -> IntegerNet:
  """A network in integers from float layers (kernel [I, O], bias [O]), y = x W + b, which takes symbols as they are.

  Raises:
    UserError: for shapes that do not follow on each other, NaN or infinity, a weight of 32767 or more, a bias of 8192
      or more, or a layer wider than 4,096.
  """
  layers = []
  for number, (kernel, bias) in enumerate(weights):
    W, b = np.asarray(kernel, np.float64), np.asarray(bias, np.float64)
    if not (np.isfinite(W).all() and np.isfinite(b).all()):
      raise UserError(f"layer {number} of the network of a prior: a weight is not finite")
    if W.ndim != 2 or b.shape != W.shape[1:]:
      raise UserError(f"layer {number} of the network of a prior: weights {W.shape} and bias {b.shape}")
    largest = np.abs(W).max(axis=0, initial=0)
    if largest.max(initial=0) >= WEIGHT_LIMIT or np.abs(b).max(initial=0) >= LIMIT >> FRACTION_BITS:
      raise UserError(f"layer {number} of the network of a prior: a weight or a bias is too large for 16 bits")
    exponent = np.frexp(largest)[1].astype(np.int64)  # largest < 2**exponent
    shift = np.clip(15 - exponent, 0, MOST_SHIFT)
    rounded = np.clip(np.rint(np.ldexp(W, shift.astype(np.int32))), -WEIGHT_LIMIT, WEIGHT_LIMIT)
    raised = np.rint(np.ldexp(b, (FRACTION_BITS + shift).astype(np.int32)))
    layers.append(Layer(rounded.astype(np.int64), raised.astype(np.int64), shift))
  net = IntegerNet(tuple(layers))
  check(net, "the network of a prior")
  return net


def check(net: IntegerNet, where: str) -> None:
  """Raises UserError where the layers do not follow on each other, or a sum could pass 2**52."""
  if not net.layers:
    raise UserError(f"{where}: has no layer")
  width = len(net.layers[0].weights)
  for number, (W, b, shift) in enumerate(net.layers):
    fits = W.ndim == 2 and 0 < min(W.shape) and max(W.shape) <= MOST_WIDTH and W.shape == (width, len(b))
    if not (fits and b.shape == shift.shape == W.shape[1:]):
      raise UserError(f"{where}: layer {number} has weights {W.shape}, bias {b.shape}, and {width} inputs")
    if np.abs(W).max() > WEIGHT_LIMIT or np.abs(b).max() > BIAS_LIMIT or shift.min() < 0 or shift.max() > MOST_SHIFT:
      raise UserError(f"{where}: layer {number} has a number that is too large")
    width = len(b)
  if width % 2:
    raise UserError(f"{where}: has {width} outputs, and a mean and a scale are two")


def apply(net: IntegerNet, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(mean in eighths [.., C] int64, index of the scale [.., C] int64) of symbols [.., I] of any integer type."""
  inputs, C = np.asarray(inputs), net.num_outputs // 2
  rows = inputs.reshape(-1, net.num_inputs)
  mean, index = np.empty((2, len(rows), C), np.int64)
  step = max(1, MOST_CELLS // max(len(layer.bias) for layer in net.layers))
  for first in range(0, len(rows), step):
    mean[first:first + step], index[first:first + step] = apply_rows(net, rows[first:first + step])
  return tuple(one.reshape(*inputs.shape[:-1], C) for one in (mean, index))


def apply_rows(net: IntegerNet, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """`apply` for symbols [R, I] whose activations are held at once."""
  x = np.clip(rows.astype(np.int64), -(LIMIT >> FRACTION_BITS), LIMIT >> FRACTION_BITS) << FRACTION_BITS
  for number, (W, b, shift) in enumerate(net.layers):
    lowest = -LIMIT if number == len(net.layers) - 1 else 0
    x = np.clip((x @ W + b + (np.int64(1) << shift >> 1)) >> shift, lowest, LIMIT)
  C = x.shape[-1] // 2
  mean = (x[:, :C] + (1 << FRACTION_BITS - MEAN_BITS - 1)) >> FRACTION_BITS - MEAN_BITS
  return mean, np.clip((x[:, C:] + (1 << FRACTION_BITS - 1)) >> FRACTION_BITS, 0, NUM_SCALES - 1)
