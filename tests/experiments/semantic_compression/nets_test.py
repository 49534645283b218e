"""The network and its density against float64 NumPy and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import codec_cases as cases
from jaxtrain.experiments.semantic_compression import layout, nets, schema

L, M = 3, 4
RANDOM = np.random.RandomState(0)
DENSITY = nets.Density(
    log_share=np.log(RANDOM.dirichlet(np.ones(M), size=L)).astype(np.float32),
    centre=RANDOM.normal(0, 0.4, size=(L, M)).astype(np.float32),
    log_scale=RANDOM.normal(-2.5, 0.5, size=(L, M)).astype(np.float32),
    middle=np.array([0.0, 0.1, -0.2], np.float32), reach=np.array([4.0, 4.0, 8.0], np.float32))
X = schema.encode(cases.TOY, cases.toy_record(30)).astype(np.float32)


BETWEEN = jax.jit(DENSITY.between)
BITS = jax.jit(DENSITY.bits)
SLOPE = jax.jit(jax.grad(lambda u, step: jnp.sum(DENSITY.bits(u, step))))


def mixture(low, high, i):
  """Probability of slot i between two ends, float64; of the upper tail where that is the smaller number."""
  def between(centre, scale):
    law = stats.logistic(np.float64(centre), np.float64(scale))
    return np.where((low + high) / 2 > centre, law.sf(low) - law.sf(high), law.cdf(high) - law.cdf(low))
  near = sum(np.exp(np.float64(DENSITY.log_share[i, m])) * between(DENSITY.centre[i, m], np.exp(np.float64(
      DENSITY.log_scale[i, m]))) for m in range(M))
  return (1 - nets.WIDE) * near + nets.WIDE * between(DENSITY.middle[i], DENSITY.reach[i])


def codec_of(kind="smoke", seed=1, scale=0.1, **fields):
  """A codec of TOY whose parameters have random numbers added to them."""
  case = cases.of_schema(cases.TOY, X, kind, **fields)
  random = np.random.RandomState(seed)
  moved = jax.tree.map(lambda leaf: leaf + scale * random.normal(size=leaf.shape).astype(np.float32),
                       case.state.params)
  return case.problem.model, moved


def called(model, params, name, *args):
  """What a method of a network gives."""
  return jax.jit(lambda params, *args: getattr(model.bind({"params": params}), name)(*args))(params, *args)


def test_probabilities_are_those_of_mixtures_of_logistics():
  u = np.linspace(-2, 2, 41)[:, None] + np.zeros(L)
  got = np.asarray(BETWEEN(jnp.float32(u - 0.02), jnp.float32(u + 0.02)))
  want = np.stack([mixture(np.float32(u[:, i] - 0.02).astype(np.float64), np.float32(u[:, i] + 0.02).astype(np.float64),
                           i) for i in range(L)], axis=1)
  np.testing.assert_allclose(got, want, rtol=2e-3, atol=1e-9)
  step = np.full(L, 0.04, np.float32)
  np.testing.assert_allclose(BITS(jnp.float32(u), step), -np.log2(want), atol=4e-3)


@pytest.mark.parametrize("u", [-20.0, -5.0, 5.0, 20.0])
def test_far_out_bits_are_finite_and_lead_back(u):
  """At 20 ranges, where no near logistic has a probability that float32 holds."""
  step = np.full(L, 0.5, np.float32)
  at = jnp.full((1, L), u, jnp.float32)
  bits_at = lambda u, i: -np.log2(mixture(np.float64(u) - 0.25, np.float64(u) + 0.25, i))
  np.testing.assert_allclose(BITS(at, step)[0], [bits_at(u, i) for i in range(L)], rtol=2e-3)
  slopes = [(bits_at(u + 1e-3, i) - bits_at(u - 1e-3, i)) / 2e-3 for i in range(L)]
  np.testing.assert_allclose(SLOPE(at, step)[0], slopes, rtol=0.01)


def test_probabilities_of_all_whole_numbers_sum_to_1():
  step = np.array([0.03, 0.5, 2.0], np.float32)
  k = np.arange(-6000, 6001, dtype=np.float32)[:, None]
  total = np.asarray(BETWEEN((k - 0.5) * step, (k + 0.5) * step), np.float64).sum(axis=0)
  np.testing.assert_allclose(total, 1.0, atol=1e-5)


def test_a_number_below_the_floor_costs_its_bits():
  assert float(BITS(jnp.full((1, L), 1e4), np.full(L, 1e-3, np.float32))[0, 0]) == pytest.approx(-np.log2(1e-9))


def linear(p, x):
  """x @ W + b; the code stores W with its longer side last."""
  kernel = np.asarray(p["kernel"], np.float64)
  return x @ (kernel if x.shape[1] == kernel.shape[0] and len(p["bias"]) == kernel.shape[1] else kernel.T) + p["bias"]


def stack(p, x):
  """Two layers with the gelu of tanh between them."""
  h = linear(p["Linear_0"], x)
  h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
  return linear(p["Linear_1"], h)


@pytest.mark.slow
def test_analysis_and_synthesis_are_the_formulas():
  model, params = codec_of(**{"model.hidden_dims": (7,), "model.compressor.group_levels": ("a=2.0",)})
  level = 1.7
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  s = np.array([100 / (12**0.5 * level * 2.0)] * 2 + [1.0] * 2) * np.exp(p["log_gain"])
  x = X.astype(np.float64)
  y = s * (x @ p["matrix_in"] + p["shift_in"]) + stack(p["encoders_0"], x)
  np.testing.assert_allclose(called(model, params, "steps", level), s, rtol=1e-5)
  got, log_var = called(model, params, "analyse", X, level)
  np.testing.assert_allclose(got, y, rtol=1e-4, atol=1e-3)
  np.testing.assert_array_equal(log_var, 0)
  u = y / s
  unit = np.where(np.isin(np.arange(6), cases.TOY.numeric), level / 100, 1.0)
  want = u @ p["matrix_out"] + p["shift_out"] + unit * stack(p["decoder"], u)
  np.testing.assert_allclose(called(model, params, "synthesise", jnp.float32(y), level), want, rtol=1e-4, atol=1e-3)
  np.testing.assert_allclose(called(model, params, "__call__", X, level), want, rtol=1e-3, atol=1e-2)


def test_the_density_of_a_model_starts_even_over_the_range():
  """Quantisers at their start spend log2(steps of the range) bits on a number within it, whatever it is."""
  case = cases.of_schema(cases.TOY, X, **{"model.num_components": 8})
  model, params = case.problem.model, case.state.params
  s = np.asarray(called(model, params, "steps", 1.0))
  u = np.linspace(-0.4, 0.4, 17)[:, None] + np.zeros(4)
  bits = np.asarray(called(model, params, "bits", jnp.float32(u * s), 1.0))
  np.testing.assert_allclose(bits[:, :2], np.log2(s[0]), atol=0.25)


@pytest.mark.slow
def test_slots_of_a_group_depend_on_its_own_columns_alone():
  """Gradients by columns of other groups are 0, in grouped codecs; shared slots see all columns."""
  model, params = codec_of(**{"model.grouped": True, "model.latent_dim": 6})
  plan = model.layout
  slopes = jax.jit(jax.jacobian(lambda x: model.bind({"params": params}).analyse(x[None], 1.0)[0][0]))(X[0])
  own = dict(layout.inputs_of(cases.TOY, plan))
  for slot, group in enumerate(plan.groups):
    others = [d for d in range(6) if d not in own[group]]
    np.testing.assert_array_equal(slopes[slot, others], 0)
    assert (np.abs(slopes[slot, list(own[group])]) > 0).all()


@pytest.mark.slow
def test_half_precision_computes_to_float32_near_the_same():
  full, params = codec_of()
  half, _ = codec_of(**{"train.precision": "bfloat16"})
  a, b = (called(model, params, "__call__", X, 1.0) for model in (full, half))
  assert b.dtype == jnp.float32 and np.abs(a - b).max() > 0
  np.testing.assert_allclose(a[:, [1, 5]], b[:, [1, 5]], atol=0.01)


def test_a_variational_codec_has_a_variance_of_each_slot():
  model, params = codec_of("none", scale=0.0)
  y, log_var = called(model, params, "analyse", X, 5.0)
  np.testing.assert_array_equal(log_var, np.full(y.shape, -4.0))
  np.testing.assert_allclose(y[:, 0], 12**0.5 * X[:, 1], rtol=1e-5)


def test_an_outlier_moves_no_other_column():
  """Whatever the weights: with a number 1,000 ranges away all other latents and columns are those of one that is one
  range away, and the outlier itself comes back to a step and what weights within the range add.
  """
  model, params = codec_of()
  x = np.array(X[:1])
  far, near = x.copy(), x.copy()
  at = cases.TOY.slices["length"].start
  far[0, at], near[0, at] = 1000.0, 1.0
  slot = model.layout.names.index("length")
  y, other = (np.asarray(called(model, params, "analyse", v, 1.0)[0][0]) for v in (far, near))
  np.testing.assert_allclose(np.delete(y, slot), np.delete(other, slot), rtol=1e-5, atol=1e-4)
  assert y[slot] - other[slot] == pytest.approx(999 * np.asarray(called(model, params, "steps", 1.0))[slot], rel=1e-4)
  r, back = (np.asarray(called(model, params, "synthesise", v[None], 1.0)[0]) for v in (y, other))
  assert (np.abs(np.delete(r, at)) < 1e3).all() and np.isfinite(back).all()
