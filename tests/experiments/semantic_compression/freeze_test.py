"""The integer code of a codec against its density in float64, and real bits against modelled ones."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import codec_cases as cases
from jaxtrain.experiments.semantic_compression import (apply, code as code_lib, coding, freeze, generators, quantise,
                                                       schema, tables)

N = 2000
VARIANTS = {"entropy": ("smoke", {}), "e8": ("lattice", {}), "d4": ("lattice", {"model.compressor.lattice": "d4"}),
            "vq": ("vq", {}), "product": ("vq", {"model.compressor.num_slots": 2, "model.latent_dim": 12}),
            "fsq": ("fsq", {})}


@functools.cache
def case(kind):
  """A codec whose parameters have small random numbers added to them."""
  variant, fields = VARIANTS[kind]
  made = cases.made(variant, **fields)
  random = np.random.RandomState(1)
  move = lambda leaf: leaf + 0.03 * random.normal(size=leaf.shape).astype(np.float32)
  return made._replace(state=made.state.replace(params=jax.tree.map(move, made.state.params)))


@functools.cache
def states():
  return schema.encode(schema.AGENT15, generators.draw("independent", N, 9))


def probability(kind, slot, low, high):
  """Of slot's y between two ends [K], float64."""
  made = case(kind)
  p = jax.tree.map(lambda leaf: np.asarray(leaf[slot], np.float64), {
      name: made.state.params[name] for name in ("share", "centre", "log_scale", "log_gain")})
  plan = made.problem.model.layout
  s = (100 / 12**0.5 / plan.factor[slot] if plan.continuous[slot] else 1.0) * np.exp(p["log_gain"])
  middle, reach = (plan.low[slot] + plan.high[slot]) / 2, 4 * (plan.high[slot] - plan.low[slot])
  between = lambda centre, scale: (stats.logistic(centre, scale).cdf(high / s)
                                   - stats.logistic(centre, scale).cdf(low / s))
  near = sum(share * between(centre, np.exp(log_scale)) for share, centre, log_scale in zip(
      special.softmax(p["share"]), p["centre"], p["log_scale"]))
  return (1 - 1e-4) * near + 1e-4 * between(middle, reach)


@pytest.mark.slow
def test_tables_hold_the_density():
  """Each entry within the grain of the tables; the escape has what is left, which is little."""
  code = freeze.freeze(case("entropy").problem, case("entropy").state)
  assert len(code.slots) == 11 and not code.lattices and code.prior is None
  for i, slot in enumerate(code.slots):
    k = slot.offset + np.arange(slot.counts.shape[1] - 1)
    want = probability("entropy", i, k - 0.5, k + 0.5)
    got = slot.counts[0] / tables.TOTAL
    np.testing.assert_allclose(got[:-1], want, rtol=1e-3, atol=3 / tables.TOTAL)
    outside = 1 - want.sum()
    assert outside < 2e-4 and got[-1] == pytest.approx(outside, rel=0.05, abs=3 / tables.TOTAL)
    assert probability("entropy", i, k[:1] - 0.5, k[:1] + 0.5)[0] < 1e-4  # both ends are in the tails
    assert probability("entropy", i, k[-1:] - 0.5, k[-1:] + 0.5)[0] < 1e-4


def test_a_table_has_a_bound():
  """Where a step is a millionth of the range, the middle has entries and the rest escapes."""
  made = case("entropy")
  gain = made.state.params["log_gain"].at[0].set(np.log(1e5))
  code = freeze.freeze(made.problem, made.state.replace(params=made.state.params | {"log_gain": gain}))
  counts = code.slots[0].counts[0]
  assert len(counts) == freeze.MOST_VALUES + 2
  assert counts[-1] / tables.TOTAL > 0.9
  code_lib.check(code)


def test_bits_of_a_lattice_are_those_of_the_normalised_product():
  """Of D4 over all points that have a probability: the product of the coordinates' tables, over their sum."""
  made = case("d4")
  spacing, values = 2.0**-0.25, np.arange(-40, 41)
  tables_of = [probability("d4", i, (values - 0.5) * spacing, (values + 0.5) * spacing) for i in range(4)]
  even = lambda p: np.sum(p[values % 2 == 0])
  # The sum over even points: of products over all four coordinates, by the parities of the coordinates.
  total = sum(np.prod([even(p) if parity == 0 else p.sum() - even(p) for p, parity in zip(tables_of, parities)])
              for parities in itertools.product((0, 1), repeat=4) if sum(parities) % 2 == 0)
  symbols = apply.to_symbols(made.coder, made.state, states())[:300]
  inside = (np.abs(symbols[:, :4]) <= 20).all(axis=1)
  assert inside.mean() > 0.9
  code = freeze.freeze(made.problem, made.state)
  got = coding.bits(code, symbols, apply.BLOCK_SIZE)[:, :4].sum(axis=1)
  want = -np.log2(np.prod([p[symbols[:, i] + 40] for i, p in enumerate(tables_of)], axis=0) / total)
  np.testing.assert_allclose(got[inside], want[inside], atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("kind", VARIANTS)
def test_real_bits_are_those_of_the_model(kind):
  """Blocks of 2,000 states are within 1 % and 64 bits of the tables' rate, that within 1 % of the network's own, and
  the symbols come back."""
  made = case(kind)
  code = freeze.freeze(made.problem, made.state)
  symbols = apply.to_symbols(made.coder, made.state, states())
  blocks = coding.encode(code, symbols, apply.BLOCK_SIZE)
  modelled = coding.bits(code, symbols, apply.BLOCK_SIZE).sum()
  assert abs(8 * sum(map(len, blocks)) - modelled) < 0.01 * modelled + 64
  sizes = coding.block_sizes(N, apply.BLOCK_SIZE)
  np.testing.assert_array_equal(coding.decode(code, blocks, sizes), symbols)
  bound = made.problem.model.bind({"params": made.state.params})
  codes = made.state.model_state["codes"] if "codes" in made.state.model_state else None
  found = jax.jit(lambda x: quantise.coded(made.problem.plan, bound, codes, bound.analyse(x, 1.0)[0],
                                           jnp.float32(1.0), None).bits)(states())
  assert modelled == pytest.approx(float(np.asarray(found, np.float64).sum()), rel=0.01)


def test_a_code_that_was_never_used_can_be_coded():
  """It has the share of a thousandth of a mean code."""
  made = case("vq")
  book = made.state.model_state["codes"]
  state = made.state.replace(model_state={"codes": book.replace(use=book.use.at[0, 3].set(0.0))})
  counts = freeze.freeze(made.problem, state).slots[0].counts[0]
  use = np.asarray(state.model_state["codes"].use[0], np.float64)
  want = (use + 1e-3 * use.sum() / 16) / (use.sum() * 1.001)
  np.testing.assert_allclose(counts[:-1] / tables.TOTAL, want, rtol=0.02, atol=2 / tables.TOTAL)
  assert counts[3] > 0


def test_a_density_that_is_not_finite_makes_no_code():
  made = case("entropy")
  params = made.state.params | {"centre": made.state.params["centre"].at[0, 0].set(np.nan)}
  with pytest.raises(ValueError):
    freeze.freeze(made.problem, made.state.replace(params=params))
