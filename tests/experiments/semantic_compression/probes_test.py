"""Probes read what is in the symbols, and nothing else."""

import functools

import numpy as np
import pytest

import codec_cases as cases
from jaxtrain.experiments.semantic_compression import apply, coding, freeze, probes, schema

N = 600
RANDOM = np.random.RandomState(0)


@functools.cache
def case(variant="smoke"):
  """A codec of TOY by linear maps, at its start."""
  return cases.of_schema(cases.TOY, schema.encode(cases.TOY, cases.toy_record(N)), variant,
                         **{"model.hidden_dims": ()})


@functools.cache
def assessed(blind=False):
  """(scalars, arrays) of the probes; `blind`: of a codec whose symbol of `kind` is always the same."""
  made = case()
  state = made.state
  if blind:
    state = state.replace(params=state.params | {"matrix_in": state.params["matrix_in"].at[:, 3].set(0.0)})
  test = schema.encode(cases.TOY, cases.toy_record(200, 8))
  return probes.assess(made.coder, state, made.x("train"), test)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_feature_that_is_a_symbol_is_read(kind):
  scalars, _ = assessed()
  assert scalars[f"probe_{kind}/bit"] == 1.0
  assert scalars[f"probe_{kind}/kind"] >= (1.0 if kind == "linear" else 0.95)  # the network stops after 30 epochs
  assert scalars[f"probe_{kind}/length"] > 0.95


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_feature_that_is_not_there_is_not_read(kind):
  """Three classes as often each, of 200 states: a share of a half would be five standard errors away."""
  assert assessed(blind=True)[0][f"probe_{kind}/kind"] < 0.5


@pytest.mark.slow
def test_meaning_per_bit_is_the_mean_of_the_better_probes_over_the_rate():
  """The rate is that of the blocks of a file, which add a few bytes to 200 states; of a linear codec at its start the
  symbols are the columns in steps, whose probability is that of the density there.
  """
  made = case()
  scalars, _ = assessed()
  test = schema.encode(cases.TOY, cases.toy_record(200, 8))
  names = ("length", "long", "bit", "kind")
  best = [max(scalars[f"probe_linear/{name}"], scalars[f"probe_mlp/{name}"]) for name in names]
  symbols = apply.to_symbols(made.coder, made.state, test)
  blocks = coding.encode(freeze.freeze(made.problem, made.state), symbols, apply.BLOCK_SIZE)
  rate = np.mean(best) / scalars["meaning_per_bit"]
  assert rate <= 8 * sum(map(len, blocks)) / 200 < rate + 8 * 8 / 200
  bound = made.problem.model.bind({"params": made.state.params})
  of_density = np.asarray(bound.bits(symbols.astype(np.float32), np.float32(made.problem.level)))
  assert rate == pytest.approx(of_density.sum(axis=1).mean(), rel=0.01)


def test_a_slot_that_is_dealt_out_anew_loses_its_own_features():
  """Of linear maps: a bit that is a coin's costs 1 - 1 / (1 + sqrt(1 / 2)) of its similarity, and nothing else."""
  scalars, arrays = assessed()
  drop = arrays["drop"]  # slots length, count, bit, kind by features length, long, bit, kind
  assert drop.shape == (4, 4)
  np.testing.assert_allclose(drop[1], 0, atol=1e-9)  # no feature reads the count
  np.testing.assert_allclose(drop[2, [0, 1, 3]], 0, atol=1e-9)
  record = cases.toy_record(200, 8)
  wrong = 2 * record["bit"].mean() * (1 - record["bit"].mean())
  assert drop[2, 2] == pytest.approx(1 - 1 / (1 + wrong**0.5), abs=0.05)
  assert (drop[0, :2] > 0.1).all() and drop[3, 3] > 0.3
  assert scalars["drop/bit"] == pytest.approx(drop[2].mean())


def test_of_one_class_alone_its_share_is_right():
  a = RANDOM.normal(size=(10, 2))
  assert probes.score("linear", (a, np.ones(10, int)), (a, np.array([1] * 7 + [0] * 3))) == pytest.approx(0.7)


@pytest.mark.slow
def test_codes_of_a_codebook_are_read_one_of_k():
  made = case("vq")
  symbols = np.array([[3], [0]])
  found = probes.inputs(made.problem, symbols, symbols)
  assert found.shape == (2, 16)
  np.testing.assert_array_equal(found.argmax(axis=1), [3, 0])
  numbers = probes.inputs(case().problem, np.array([[2.0], [4.0]]), np.array([[0.0], [4.0]]))
  np.testing.assert_allclose(numbers, [[0.0], [1.0]])
