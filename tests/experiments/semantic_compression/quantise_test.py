"""What is coded of a latent, and back: each kind of compressor."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import codec_cases as cases
from jaxtrain.experiments.semantic_compression import generators, quantise, schema
from jaxtrain.nn import lattice

N = 20_000
KINDS = {"entropy": {}, "e8": {"model.compressor.lattice": "e8"}, "d4": {"model.compressor.lattice": "d4"},
         "vq": {}, "product": {"model.compressor.num_slots": 2, "model.latent_dim": 12},
         "residual": {"model.compressor.num_slots": 3, "model.compressor.residual": True}, "fsq": {}}
VARIANT = {"entropy": "smoke", "e8": "lattice", "d4": "lattice", "product": "vq", "residual": "vq"}


@functools.cache
def case(kind):
  """A codec of each kind at its start."""
  return cases.made(VARIANT[kind] if kind in VARIANT else kind, **KINDS[kind])


def parts(kind):
  """(case, plan, network with its parameters, codes)."""
  made = case(kind)
  state = made.state
  return made, made.problem.plan, made.problem.model.bind({"params": state.params}), (
      state.model_state["codes"] if "codes" in state.model_state else None)


def latents(kind, x):
  """Latents y [B, L] of vectors."""
  made = case(kind)
  return jax.jit(lambda params, x: made.problem.model.bind({"params": params}).analyse(x, 1.0)[0])(made.state.params, x)


def coded(kind, codes, y):
  """A latent as it is coded at level 1."""
  made, plan, _, _ = parts(kind)
  bound = lambda params: made.problem.model.bind({"params": params})
  return jax.jit(lambda params, codes, y: quantise.coded(plan, bound(params), codes, y, jnp.float32(1.0), None))(
      made.state.params, codes, y)


@pytest.mark.parametrize("level", [1.0, 3.0])
def test_at_its_start_a_codec_is_the_scalar_quantiser(level):
  """Numbers come back as whole steps of `level` sqrt(12) per cent of the range, bits and classes exactly.

  At level 1 the error of a uniform column is the step over sqrt(12) to 2 % (five standard errors are 1.6 %)."""
  made = case("entropy")
  record = generators.draw("independent", N, 3)
  x = schema.encode(schema.AGENT15, record)
  given = {"params": made.state.params, "codes": None, "level": jnp.float32(level)}
  back = schema.decode(schema.AGENT15, np.asarray(jax.jit(made.coder.through)(given, x)))
  for column in schema.AGENT15.columns:
    if column.kind not in ("continuous", "integer"):
      np.testing.assert_array_equal(back[column.name], schema.decode(schema.AGENT15, x)[column.name])
      continue
    width, middle = column.high - column.low, (column.high + column.low) / 2
    step = level / 100 * 12**0.5 * width
    want = middle + step * np.rint((record[column.name] - middle) / step)
    want = np.rint(want) if column.kind == "integer" else want
    wrong = np.abs(back[column.name] - want) > 1e-4 * width
    assert wrong.mean() < 1e-3, column.name  # a number between two steps, up to float32
    rmse = np.sqrt(np.mean(np.square(back[column.name] - record[column.name])))
    assert level > 1 or rmse == pytest.approx(step / 12**0.5, rel=0.02), column.name


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_symbols_give_the_latent_back(kind):
  made, plan, _, codes = parts(kind)
  found = coded(kind, codes, latents(kind, made.x()[:50]))
  symbols = jax.jit(lambda y: quantise.symbols(plan, y))(found.y) if found.index is None else found.index
  assert symbols.dtype == jnp.int32
  back = jax.jit(lambda symbols: quantise.points(plan, symbols, codes))(symbols)
  np.testing.assert_allclose(back, found.y, atol=2e-5)
  assert found.bits.shape[0] == 50 and (np.asarray(found.bits) > -1e-6).all()


@pytest.mark.parametrize("kind,num_lattice,num_symbols", [
    ("e8", 8, 12), pytest.param("d4", 8, 11, marks=pytest.mark.slow)])
def test_numeric_slots_that_fill_points_are_coded_as_points(kind, num_lattice, num_symbols):
  made, plan, _, _ = parts(kind)
  assert plan.num_lattice == num_lattice
  y = latents(kind, made.x()[:50])
  point = coded(kind, None, y).y
  n = lattice.DIMENSIONS[kind]
  closest = jax.jit(lambda part: lattice.closest(kind, part))
  want = np.concatenate([closest(y[:, i:i + n]) for i in range(0, 8, n)], axis=1)
  np.testing.assert_allclose(point[:, :8], want, atol=1e-6)
  np.testing.assert_array_equal(point[:, 8:], np.round(y[:, 8:]))
  symbols = np.asarray(jax.jit(lambda point: quantise.symbols(plan, point))(point))
  assert symbols.shape == (50, num_symbols)
  assert kind != "e8" or set(np.unique(symbols[:, 0])) == {0, 1}
  own = symbols[:, 1:9] if kind == "e8" else symbols[:, :4]
  assert (own.sum(axis=1) % 2 == 0).all()


def test_a_lattice_takes_no_slot_of_a_class():
  """TOY has two numbers, too few for a point of either lattice."""
  small = cases.of_schema(cases.TOY, schema.encode(cases.TOY, cases.toy_record(70)), "lattice")
  assert small.problem.plan.num_lattice == 0
  record = schema.encode(cases.TOY, cases.toy_record(20, 1))
  symbols = np.asarray(jax.jit(small.coder.symbols_of)(
      {"params": small.state.params, "codes": None, "level": jnp.float32(1.0)}, record))
  np.testing.assert_array_equal(symbols[:, 3], cases.toy_record(20, 1)["kind"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["entropy", "e8", "d4"])
def test_noise_of_training_is_that_of_the_cells(kind):
  """Uniform over a step where a slot stands alone (Kolmogorov-Smirnov: a false alarm in a million), over a cell else;
  its rate is that of the density around the noisy latent."""
  made, plan, bound, _ = parts(kind)
  y = jnp.zeros((2000, 11))
  drawn = {"uniform": np.random.RandomState(5).uniform(size=y.shape).astype(np.float32)}
  found = jax.jit(lambda y: quantise.in_training(plan, bound, None, y, y, jnp.float32(1.0), drawn, None))(y)
  noise = np.asarray(found.y, np.float64)
  alone = noise[:, plan.num_lattice:].ravel()
  assert stats.kstest(alone, stats.uniform(-0.5, 1).cdf).pvalue > 1e-6
  for i in range(0, plan.num_lattice, lattice.DIMENSIONS[plan.lattice]):
    own = jnp.float32(0.9999 * noise[:, i:i + lattice.DIMENSIONS[kind]])
    assert np.abs(jax.jit(lambda own: lattice.closest(kind, own))(own)).max() < 1e-5
  want = jax.jit(lambda y: bound.bits(y, 1.0))(found.y)  # a cell has volume 1
  np.testing.assert_allclose(found.bits, want, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vq", "fsq", "residual", "product"])
def test_bits_of_a_code_are_those_of_its_share(kind):
  made, plan, bound, codes = parts(kind)
  random = np.random.RandomState(0)
  use = random.dirichlet(np.ones(plan.num_codes), size=plan.num_slots).astype(np.float32)
  if kind == "fsq":
    use = np.where(np.arange(plan.num_codes) < np.array(plan.levels)[:, None], use, 0)
    given = jnp.asarray(use)
  else:
    given = codes.replace(use=jnp.asarray(use))
  y = latents(kind, made.x()[:50])
  in_training = jax.jit(lambda y: quantise.in_training(plan, bound, given, y, y, 1.0, {}, None))
  for found in (coded(kind, given, y), in_training(y)):
    share = use / use.sum(axis=1, keepdims=True)
    want = -np.log2(np.maximum(share[np.arange(plan.num_slots), np.asarray(found.index)], 1e-9))
    np.testing.assert_allclose(found.bits, want, rtol=1e-4)
    assert found.bits.shape == (50, plan.num_slots)


def test_nothing_is_coded_of_a_variational_codec():
  """In training a sample, else the mean."""
  made, plan, bound, _ = parts("entropy")
  plan = quantise.Plan("none")
  y, normal = jnp.ones((3, 11)), np.random.RandomState(0).normal(size=(3, 11)).astype(np.float32)
  found = quantise.in_training(plan, bound, None, y, jnp.full((3, 11), np.log(4.0)), 1.0, {"normal": normal}, None)
  np.testing.assert_allclose(found.y, 1 + 2 * normal, rtol=1e-6)
  assert found.bits.shape == (3, 0) and not plan.coded
  np.testing.assert_array_equal(quantise.coded(plan, bound, None, y, 1.0, None).y, y)
