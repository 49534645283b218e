"""Other methods on sources whose rates are known. Seeds are fixed; a bound of five standard errors fails by chance once
in two million draws."""

import gzip
import json

import numpy as np
import pytest

import codec_cases as cases
from jaxtrain.experiments.semantic_compression import baselines, generators, oracle, preservation, schema

N = 20_000


@pytest.mark.parametrize("p", [[0.5, 0.5], [0.9, 0.1], [0.7, 0.1, 0.1, 0.1], [1.0]])
def test_symbols_of_a_known_distribution_cost_its_entropy(p):
  random = np.random.RandomState(0)
  train, held_out = (random.choice(len(p), N, p=p) - 3 for _ in range(2))
  p = np.array(p)
  spread = np.sqrt((p * np.log2(p)**2).sum() - (p * np.log2(p)).sum()**2)
  assert abs(baselines.symbol_bits(train, held_out) - -(p * np.log2(p)).sum()) < 5 * spread / N**0.5 + 1e-3


def test_a_wrong_table_costs_the_divergence_too():
  """Tables of (3/4, 1/4) for symbols of (1/4, 3/4), exactly as often."""
  train, held_out = np.repeat([0, 1], [30_000, 10_000]), np.repeat([0, 1], [1, 3])
  want = 0.25 * -np.log2(0.75) + 0.75 * 2
  assert baselines.symbol_bits(train, held_out) == pytest.approx(want, rel=1e-3)
  # A value without a count is in a cell with one that has: 2 bits say which of 4 it is. One far away escapes.
  assert baselines.symbol_bits(np.zeros(999, int), np.ones(1, int)) == pytest.approx(2.0, abs=0.01)
  assert 20 < baselines.symbol_bits(np.zeros(999, int), np.full(1, 2**40)) < 70


def test_many_values_cost_no_more_than_their_density():
  """Uniform values of 3,000 and of 300,000, of which 8,000 are counted: log2 of their number, within .05 bit: a cell at
  either end is not full."""
  random = np.random.RandomState(5)
  for K in (3_000, 300_000):
    train, x = random.randint(-K // 2, K // 2, (2, 8_000))
    assert abs(baselines.symbol_bits(train, x) - np.log2(K)) < 0.05


@pytest.mark.parametrize("low,high", [(0.0, 500.0), (0.0, 501.0)])
def test_integers_that_come_back_exactly_cost_their_entropy(low, high):
  """A uniform column of 501 or 502 whole numbers; an outlier in either part widens the table, no more."""
  states = schema.checked(schema.Schema("ages", (schema.Column("age", "integer", low, high),),
                                        (schema.Feature("age", "numeric", ("age",), weight=1.0),)))
  random = np.random.RandomState(6)
  draw = lambda: schema.encode(states, {"age": random.randint(int(low), int(high) + 1, N)})
  train, x = draw(), draw()
  want = np.log2(high - low + 1)
  for error in (0.0, 0.1 / high):
    assert baselines.compare(states, train, x, x + np.float32(error))["baseline_scalar_bits"] == pytest.approx(
        want, abs=0.03)
  x[0], train[0] = 100.0, -300.0
  assert baselines.compare(states, train, x, x)["baseline_scalar_bits"] == pytest.approx(want, abs=0.1)


@pytest.mark.parametrize("num_cells", [15, 57])
def test_a_scalar_quantiser_is_on_the_line_of_uniform_columns(num_cells):
  """h - log2(step) of each of four columns whose ranges whole cells fill, within .02 bit for what tables cost; the
  border costs 1 / K bit where its cells are halves."""
  random = np.random.RandomState(1)
  train, x = random.uniform(-0.5, 0.5, (N, 4)), random.uniform(-0.5, 0.5, (N, 4))
  known = oracle.Entropies({str(k): 0.0 for k in range(4)}, {}, {}, {}, {})
  for K, border in ((num_cells, 0.0), (num_cells + 1, 1 / (num_cells + 1))):
    bits = baselines.quantised_bits(train, x, np.full(4, 1 / K))
    mse = np.mean(np.square(np.rint(x * K) / K - x), axis=0)
    np.testing.assert_allclose(mse, 1 / K**2 / 12, rtol=0.04)  # five standard errors are 3.2 %
    line = oracle.scalar_bits(known, {str(k): 1 / K / 12**0.5 for k in range(4)})
    assert bits == pytest.approx(line + 4 * border, abs=4 * 0.02)
    assert baselines.scalar_bits(train, x, np.full(4, 1 / K**2 / 12), np.zeros(4)) == pytest.approx(bits)


def test_principal_components_find_the_directions_that_vary():
  """Two columns of one number and a little noise: at the same error, about the bits of the one; the error is met."""
  random = np.random.RandomState(2)
  def draw():
    z = random.normal(0, 0.3, N)
    return np.stack([z, z], axis=1) + random.normal(0, 1e-4, (N, 2))
  train, x, mse = draw(), draw(), 1e-4
  pca, alone = baselines.pca_bits(train, x, mse), baselines.scalar_bits(train, x, np.full(2, mse), np.zeros(2))
  # Of the component of deviation .3 sqrt 2, whose error is 2 mse, as the other has none.
  want = np.log2(0.3 * 2**0.5 * np.sqrt(2 * np.pi * np.e)) - np.log2(np.sqrt(12 * 2 * mse))
  assert pca == pytest.approx(want, abs=0.05) and alone > 1.5 * pca
  independent = random.normal(0, 0.3, (2, N, 2))  # any directions are as good
  assert baselines.pca_bits(*independent, mse) == pytest.approx(baselines.scalar_bits(
      *independent, np.full(2, mse), np.zeros(2)), abs=0.05)


def test_lossless_sizes_are_those_of_gzip():
  record = cases.toy_record(100)
  x = schema.encode(cases.TOY, record)
  found = baselines.lossless_bits(cases.TOY, x)
  numbers = schema.decode(cases.TOY, x)
  data = record["bit"].astype(np.uint8).tobytes() + numbers["length"].astype(np.float32).tobytes() + record[
      "kind"].astype(np.uint8).tobytes() + record["count"].astype(np.float32).tobytes()
  assert found["baseline_gzip_float32_bits"] == 8 * len(gzip.compress(data, 9)) / 100
  lines = schema.to_json_lines(cases.TOY, numbers).splitlines()
  assert len(lines) == 100 and json.loads(lines[7])["length"] == pytest.approx(record["length"][7], rel=1e-6)
  assert found["baseline_gzip_json_bits"] > found["baseline_gzip_float32_bits"] > 0


def test_all_are_compared_at_the_errors_of_the_codec():
  """Of simulated agents that come back with an error of 1 % of the range."""
  train, x = (schema.encode(schema.AGENT15, generators.draw("independent", 4000, seed)) for seed in (0, 1))
  r = x.copy()
  numeric = schema.AGENT15.numeric
  r[:, numeric] += 0.01 * np.random.RandomState(3).normal(size=(4000, len(numeric)))
  found = baselines.compare(schema.AGENT15, train, x, r)
  assert set(found) == set(baselines.METRICS)
  known = generators.entropies("independent")
  line = oracle.scalar_bits(known, oracle.rmse_of_shares(schema.AGENT15, 0.01))
  assert line - 0.5 < found["baseline_scalar_bits"] < line + 1.0
  assert found["baseline_pca_bits"] > line - 0.5
  given = schema.decode(schema.AGENT15, x)
  spread = [np.std(x[:, at], dtype=np.float64) for at in numeric]
  assert found["baseline_mean_rmse_percent"] == pytest.approx(100 * np.mean(spread), rel=0.01)
  mean = preservation.mean_prediction(schema.AGENT15, schema.decode(schema.AGENT15, train), 4000)
  assert found["baseline_mean_preservation"] == preservation.scores(schema.AGENT15, given, mean).overall
  assert found["baseline_gzip_json_bits"] > found["baseline_gzip_float32_bits"] > found["baseline_scalar_bits"]


def test_mutual_information_has_closed_forms():
  a = np.repeat(np.arange(4), 50)
  assert baselines.mutual_information(a, a) == pytest.approx(2.0)
  assert baselines.mutual_information(a, a // 2) == pytest.approx(1.0)
  assert baselines.mutual_information(a, np.tile(np.arange(50), 4)) == pytest.approx(0.0, abs=1e-12)
  assert baselines.mutual_information(a, np.array(list("abcd"))[a]) == pytest.approx(2.0)
  flipped = np.concatenate([np.repeat([0, 1], [90, 10]), np.repeat([1, 0], [90, 10])])  # a channel with 10 % errors
  want = 1 + 0.9 * np.log2(0.9) + 0.1 * np.log2(0.1)
  assert baselines.mutual_information(np.repeat([0, 1], 100), flipped) == pytest.approx(want)
