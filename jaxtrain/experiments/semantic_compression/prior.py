"""Conditioned priors: a network of symbols that are decoded already gives each slot a mean and a scale.

  hyperprior   symbols of the same state: `num_side` numbers, a network's summary of it, which are coded first
  previous     symbols of the state before it in its block, unless a bit says that the state starts anew

A slot's density is a logistic with the mean m and the scale 2**((i - 8) / 3), in steps, where training has any index i
from 0 to 31 and the code has whole ones (`logistic`). Training computes it in floats; `integer_layers` are the same
network as layers for `integer_net`, so that no float decides how a file is read.

**Source:** Balle et al. 2018 (Variational image compression with a scale hyperprior), the side numbers; Minnen, Balle &
Toderici 2018 (Joint autoregressive and hierarchical priors for learned image compression), means beside scales.
"""

import math
from typing import NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.experiments.semantic_compression import logistic

BLOCK_SIZE = 1024  # states of a block of a file, each of which can be read alone
ESCAPE_BITS = 28.0  # about what a number far from the mean costs: the code writes it as an escape
GAIN = 16.0  # of hidden units in the integer network, whose numbers have 10 bits after the point
NEW = 64.0  # what the integer network passes on where a state is new, so that its weights can be small
SHUT = 8192.0  # more than any number in the integer network: a unit with this weight on a bit is 0 where the bit is 1
Layers = Sequence[tuple[np.ndarray, np.ndarray]]


class Before(NamedTuple):
  """What is known of the state before.

  Attributes:
    symbols: [B, L] its whole numbers.
    first: [B], 1 for a block's first state, else 0; its `symbols` are not looked at.
  """
  symbols: jax.Array
  first: jax.Array


def rows_before(x: np.ndarray) -> dict[str, np.ndarray]:
  """`x_prev` [N, D], the row before each row of x [N, D] (of the first one the last), and `first` [N] float32, 1 where
  a block starts.
  """
  return {"x_prev": np.roll(x, 1, axis=0), "first": (np.arange(len(x)) % BLOCK_SIZE == 0).astype(np.float32)}


@jax.custom_vjp
def bounded(index: jax.Array) -> jax.Array:
  """An index of scale within the table. Outside of it a gradient passes where it leads back."""
  return jnp.clip(index, 0.0, logistic.NUM_SCALES - 1.0)


def bounded_forward(index):
  """`bounded` and what its gradient needs."""
  return bounded(index), index


def bounded_backward(index, gradient):
  """The gradient, or 0 where a descent would lead further out."""
  out = ((index < 0) & (gradient > 0)) | ((index > logistic.NUM_SCALES - 1) & (gradient < 0))
  return (jnp.where(out, 0.0, gradient),)


bounded.defvjp(bounded_forward, bounded_backward)


def logistic_bits(y: jax.Array, mean: jax.Array, index: jax.Array) -> jax.Array:
  """Bits of a step around y under a logistic, elementwise; far from the mean they grow no more.

  sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - exp(a - b)), of which no factor is a difference of near numbers.
  """
  width = jnp.exp2((logistic.UNIT_SCALE - index) / logistic.PER_DOUBLING)  # of a step, in scales
  low = (y - mean - 0.5) * width
  log_p = jax.nn.log_sigmoid(low + width) + jax.nn.log_sigmoid(-low) + jnp.log(-jnp.expm1(-width))
  return -jnp.logaddexp(log_p, -ESCAPE_BITS * math.log(2)) / math.log(2)


def rate_in_training(y: jax.Array, noisy: jax.Array, mean: jax.Array, index: jax.Array) -> jax.Array:
  """Bits of the whole numbers near y, with gradients of the logistic from these, and of y from its noisy value.

  Under noise a logistic would learn to be wider than a slot needs whose numbers hardly vary.
  """
  stop = jax.lax.stop_gradient
  relaxed = logistic_bits(noisy, stop(mean), stop(index))
  return logistic_bits(stop(jnp.round(y)), mean, index) + relaxed - stop(relaxed)


def integer_layers(layers: Layers, steps: np.ndarray, base: np.ndarray, skip: np.ndarray,
                   read: tuple[np.ndarray, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
  """Layers whose outputs are means in steps and indices of scales, from those of a network in units of u = y / s.

  Args:
    layers: (kernel [I, O], bias [O]) of the network; the last has 2 L outputs, means and octaves of scales.
    steps: [L], s.
    base: [L] octaves to add to those of the scales.
    skip: [P, 2 L], what is added to the outputs of the P inputs that are passed by the network, which are not below 0;
      P = 0 without such.
    read: (A [inputs, I], a [I]): the network reads inputs A + a. Where inputs are passed by, these are all.
  """
  P, last, made = len(skip), len(layers) - 1, []
  to_outputs = np.concatenate([steps, np.full(len(steps), float(logistic.PER_DOUBLING))])
  first_index = logistic.UNIT_SCALE + logistic.PER_DOUBLING * (np.log2(steps) + base)
  for number, (W, b) in enumerate(layers):
    W, b = np.asarray(W, np.float64), np.asarray(b, np.float64)
    if number == 0:
      W, b = read[0] @ W, b + read[1] @ W
    if number < last:
      W, b = W * (GAIN if number == 0 else 1.0), b * GAIN
      beside = np.eye(P) if number == 0 else np.concatenate([np.zeros((len(W), P)), np.eye(P)])
      W = W if number == 0 else np.concatenate([W, np.zeros((P, W.shape[1]))])
      made.append((np.concatenate([W, beside], axis=1) if P else W, np.append(b, np.zeros(P))))
      continue
    W, b = W * to_outputs / (GAIN if last else 1.0), b * to_outputs
    b[len(steps):] += first_index
    made.append((W + skip if P and not last else np.concatenate([W, skip]), b))
  return made


def gate_layer(num_slots: int) -> tuple[np.ndarray, np.ndarray]:
  """The layer from [starts anew, symbols k of the state before, block's first] to [max(k, 0), max(-k, 0), NEW or 0],
  with zeros for k where the state is new, by either bit.
  """
  L, k = num_slots, np.eye(num_slots)
  W = np.zeros((L + 2, 2 * L + 1))
  W[1:-1, :L], W[1:-1, L:-1] = k, -k
  W[[0, -1], :-1], W[[0, -1], -1] = -SHUT, NEW
  return W, np.zeros(2 * L + 1)
