"""Codes of each kind and symbols for them, for the tests of the bitstream."""

import numpy as np

from jaxtrain.experiments.semantic_compression import code as code_lib
from jaxtrain.experiments.semantic_compression import integer_net
from jaxtrain.experiments.semantic_compression.code import Code, Lattice, Prior

KINDS = ("plain", "lattice", "hyperprior", "previous")


def bell(num_values: int, deviation: float, num_tables: int = 1) -> np.ndarray:
  """Probabilities [T, K + 1] of a discretised normal distribution about the middle; the escape has a millionth."""
  p = np.exp(-0.5 * ((np.arange(num_values) - num_values // 2) / deviation) ** 2)
  return np.tile(np.append(p / p.sum(), 1e-6), (num_tables, 1))


def float_net(num_inputs: int, num_outputs: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
  """Random weights of a network with one hidden layer, whose scales are about 2 steps."""
  random = np.random.default_rng(seed)
  bias = np.concatenate([np.zeros(num_outputs), np.full(num_outputs, 11.0)])
  return [(random.normal(size=(num_inputs, 24)) / num_inputs ** 0.5, random.normal(size=24)),
          (random.normal(size=(24, 2 * num_outputs)) / 24 ** 0.5, bias)]


def code(kind: str) -> Code:
  """A code: 5 slots alone; E8, D4 and a slot; 2 side latents and 4 slots on them; 3 slots on the state before."""
  if kind == "plain":
    return Code((code_lib.slot(-16, bell(32, 3)), code_lib.slot(-2, bell(5, 1)), code_lib.slot(0, [0.7, 0.2, 0.1, 0.0]),
                 code_lib.slot(-100, bell(200, 30)), code_lib.slot(7, [1.0, 1e-3])))
  if kind == "lattice":
    e8 = [code_lib.slot(0, [0.4, 0.6, 0.0]), *[code_lib.slot(-16, bell(32, 3, 2))] * 7,
          code_lib.slot(-8, bell(16, 1.5, 4))]
    d4 = [*[code_lib.slot(-16, bell(32, 3))] * 3, code_lib.slot(-8, bell(16, 1.5, 2))]
    return Code((*e8, *d4, code_lib.slot(0, [0.25] * 4 + [0.0])), (Lattice("E8", 0), Lattice("D4", 9)))
  side, own = (2, 4) if kind == "hyperprior" else (0, 3)
  same, before = (tuple(range(side)), ()) if kind == "hyperprior" else ((), tuple(range(own)))
  net = integer_net.quantise_net(float_net(side or own + 1, own))
  return Code((*[code_lib.slot(-16, bell(32, 3))] * side, *[None] * own), (),
              Prior(tuple(range(side, side + own)), same, before, net))


def symbols(kind: str, num_states: int, seed: int = 0, deviation: float = 3.0) -> np.ndarray:
  """Symbols [N, S] int32 that the code takes: rounded normal values, made points of the lattices where these are."""
  random = np.random.default_rng(seed)
  x = np.rint(random.normal(0, deviation, (num_states, len(code(kind).slots)))).astype(np.int32)
  if kind == "plain":
    x[:, 2], x[:, 4] = random.integers(0, 3, num_states), 7
  if kind == "lattice":
    x[:, 0] &= 1
    for first, last in ((1, 8), (9, 12)):
      x[:, last] += x[:, first:last + 1].sum(axis=1, dtype=np.int32) % 2
    x[:, 13] = random.integers(0, 4, num_states)
  if kind == "previous":
    x = np.cumsum(x // 3, axis=0, dtype=np.int32)
  return x
