"""Codebooks and scalar levels against float64 NumPy that writes each sum out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies

from jaxtrain.devices import parallel
from jaxtrain.nn import quantisers

B, S, K, d = 24, 2, 5, 3
RANDOM = np.random.RandomState(0)
CODES = RANDOM.normal(size=(S, K, d)).astype(np.float32)
PARTS = RANDOM.normal(size=(B, S, d)).astype(np.float32)
WHOLE = RANDOM.normal(size=(B, d)).astype(np.float32)


LOOK_UP = jax.jit(quantisers.look_up, static_argnames="residual")
STATISTICS = jax.jit(quantisers.statistics, static_argnums=2)
FOLLOW, REVIVE = jax.jit(quantisers.follow), jax.jit(quantisers.revive)
NEAREST = jax.jit(quantisers.nearest)
TURN = jax.jit(lambda x, code, slope: (quantisers.rotate(x, code), *jax.vjp(quantisers.rotate, x, code)[1](slope)))
START = jax.jit(quantisers.start, static_argnums=(2, 3, 4))


def nearest(codes, x):
  """Indices [B] of the nearest of codes [K, d], float64."""
  return np.square(x[:, None].astype(np.float64) - codes[None]).sum(axis=2).argmin(axis=1)


def book(codes=CODES, use=None, total=None):
  """A codebook whose codes are the means of what they stand for."""
  use = np.full(codes.shape[:2], 1 / codes.shape[1], np.float32) if use is None else np.asarray(use, np.float32)
  return quantisers.Codebook(jnp.asarray(codes), jnp.asarray(use),
                             jnp.asarray(codes * use[..., None] if total is None else total))


def test_codes_are_the_nearest_ones():
  np.testing.assert_array_equal(quantisers.nearest(CODES[0], WHOLE), nearest(CODES[0], WHOLE))
  found = LOOK_UP(CODES, PARTS, residual=False)
  want = np.stack([nearest(CODES[s], PARTS[:, s]) for s in range(S)], axis=1)
  np.testing.assert_array_equal(found.index, want)
  np.testing.assert_array_equal(found.inputs, PARTS)
  np.testing.assert_array_equal(found.chosen, np.stack([CODES[s][want[:, s]] for s in range(S)], axis=1))
  np.testing.assert_array_equal(quantisers.pick(CODES, found.index), found.chosen)


def test_a_residual_code_quantises_what_is_left():
  found = LOOK_UP(CODES, WHOLE, residual=True)
  left = WHOLE.astype(np.float64)
  for s in range(S):
    want = nearest(CODES[s], left)
    np.testing.assert_array_equal(found.index[:, s], want)
    np.testing.assert_allclose(found.inputs[:, s], left, atol=1e-6)
    left = left - CODES[s][want]
  np.testing.assert_allclose(WHOLE - np.sum(found.chosen, axis=1), left, atol=1e-6)


def test_shapes_that_do_not_fit_are_refused():
  with pytest.raises(AssertionError):
    quantisers.look_up(CODES, PARTS, residual=True)


def test_gradients_pass_the_quantisation():
  chosen, slope = 3 * PARTS[:, 0], RANDOM.normal(size=(B, d)).astype(np.float32)
  fn = lambda x, q: jnp.sum(slope * quantisers.straight_through(x, q))
  np.testing.assert_allclose(quantisers.straight_through(PARTS[:, 1], chosen), chosen, atol=1e-6)
  to_x, to_q = jax.grad(fn, argnums=(0, 1))(PARTS[:, 1], chosen)
  np.testing.assert_array_equal(to_x, slope)
  np.testing.assert_array_equal(to_q, np.zeros_like(slope))


def test_averages_over_steps_are_those_of_a_loop():
  """Ten batches with rows of padding; each code is the mean of what it stood for, by the weights of the average."""
  now, decay = book(), 0.8
  use, total = np.full((S, K), 1 / K), CODES.astype(np.float64) / K
  codes = CODES.astype(np.float64)
  for step in range(10):
    z = np.random.RandomState(step).normal(size=(B, S, d)).astype(np.float32)
    weight = (np.arange(B) < B - step).astype(np.float32)
    found = LOOK_UP(now.codes, z, residual=False)
    more_use, more_total = STATISTICS(found, weight, K)
    rows = weight.sum()
    now = FOLLOW(now, more_use / rows, more_total / rows, decay)
    for s in range(S):
      index = nearest(codes[s], z[:, s])
      for k in range(K):
        mine = (index == k) & (weight > 0)
        use[s, k] = decay * use[s, k] + (1 - decay) * mine.sum() / rows
        total[s, k] = decay * total[s, k] + (1 - decay) * z[mine, s].astype(np.float64).sum(axis=0) / rows
        codes[s, k] = total[s, k] / use[s, k]
  np.testing.assert_allclose(now.use, use, rtol=1e-5)
  np.testing.assert_allclose(now.codes, codes, rtol=1e-4, atol=1e-5)


def test_a_code_that_stands_for_nothing_stays_where_it_is():
  use = np.full((S, K), 0.25, np.float32)
  use[1, 3] = 0.0
  now = FOLLOW(book(use=use), jnp.zeros((S, K)), jnp.zeros((S, K, d)), 0.5)
  np.testing.assert_allclose(now.codes, CODES, rtol=1e-6)
  assert np.isfinite(now.codes).all()


@pytest.mark.parametrize("num_chunks", [2, 3, 4])
def test_chunks_of_a_batch_give_the_same_codebook(num_chunks):
  weight = (np.arange(B) % 5 > 0).astype(np.float32)

  def after(over):
    def sums(chunk, _):
      return quantisers.statistics(quantisers.look_up(CODES, chunk["z"], False), chunk["weight"], K)
    use, total = jax.jit(lambda batch: over(sums, batch, jax.random.key(0)))({"z": PARTS, "weight": weight})
    return FOLLOW(book(), use / weight.sum(), total / weight.sum(), 0.9)
  whole, cut = after(parallel.over_whole), after(parallel.make_over_chunks(num_chunks))
  np.testing.assert_allclose(cut.codes, whole.codes, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(cut.use, whole.use, rtol=1e-6)


def test_the_mth_dead_code_moves_to_the_mth_input():
  """Of three dead codes in the first slot two find an input; all other codes are as they were."""
  use = np.array([[0.5, 0.001, 0.499, 0.0, 0.0], [0.2, 0.2, 0.2, 0.2, 0.2]], np.float32)
  before, fresh = book(use=use), 10 + RANDOM.normal(size=(S, 2, d)).astype(np.float32)
  after = REVIVE(before, fresh, least=0.1)
  want_codes, want_use = CODES.copy(), use.copy()
  want_codes[0, 1], want_codes[0, 3] = fresh[0]
  want_use[0, [1, 3]] = use[0].mean()
  np.testing.assert_array_equal(after.codes, want_codes)
  np.testing.assert_allclose(after.use, want_use)
  np.testing.assert_allclose(after.total, want_codes * want_use[..., None], rtol=1e-6)
  same = REVIVE(before, fresh, least=0.0)
  np.testing.assert_array_equal(same.codes, CODES)


@pytest.mark.slow
@pytest.mark.parametrize("residual", [False, True])
def test_a_codebook_starts_at_clusters(residual):
  """Of two clusters far apart, from wherever it begins; the second residual slot finds nothing left but the noise."""
  label = np.repeat([0, 1], (120, 80))
  z = (np.array([[-50.0, 0, 0], [50, 20, 0]])[label] + RANDOM.normal(size=(200, d))).astype(np.float32)
  for seed in range(6):
    found = START(jax.random.key(seed), z if residual else z[:, None].repeat(S, axis=1), S, 2, residual)
    order = np.argsort(found.codes[0, :, 0])
    np.testing.assert_allclose(found.codes[0, order], [z[label == k].mean(axis=0) for k in (0, 1)], atol=1e-3)
    np.testing.assert_allclose(found.use[0, order], [0.6, 0.4], atol=1e-6)
    np.testing.assert_allclose(found.total, found.codes * found.use[..., None], rtol=1e-6)
    assert not residual or np.abs(found.codes[1]).max() < 5


def test_a_codebook_starts_at_fewer_inputs_than_codes():
  found = START(jax.random.key(0), PARTS[:3], S, K, False)
  assert np.isfinite(found.codes).all() and found.codes.shape == (S, K, d)
  np.testing.assert_allclose(found.use.sum(axis=1), 1.0, rtol=1e-6)


@given(levels=strategies.lists(strategies.integers(2, 9), min_size=2, max_size=2),
       z=strategies.lists(strategies.floats(-30, 30, width=32), min_size=8, max_size=8))
@settings(max_examples=60, deadline=None)
def test_levels_are_the_middles_of_equal_parts(levels, z):
  levels = tuple(levels)
  z = np.repeat(np.asarray(z, np.float32)[:, None], len(levels), axis=1)
  index, value = quantisers.finite_scalar(jnp.asarray(z), levels)
  middles = [np.array([-1 + (2 * k + 1) / n for k in range(n)]) for n in levels]
  for place, middle in enumerate(middles):
    got = np.asarray(index)[:, place]
    assert ((got >= 0) & (got < levels[place])).all()
    np.testing.assert_allclose(np.asarray(value)[:, place], middle[got], atol=1e-6)
    squashed = np.tanh(z[:, place].astype(np.float64))
    assert (np.abs(squashed - middle[got]) <= 1 / levels[place] + 1e-5).all()
  np.testing.assert_allclose(quantisers.level_values(index, levels), value, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("num_levels", range(2, 10))
def test_every_level_is_hit_by_its_own_value(num_levels):
  index = np.arange(num_levels, dtype=np.int32)[:, None]
  value = np.asarray(quantisers.level_values(index, (num_levels,)), np.float64)
  assert len(np.unique(value)) == num_levels and np.abs(value).max() < 1
  again, same = quantisers.finite_scalar(jnp.asarray(np.arctanh(value), jnp.float32), (num_levels,))
  np.testing.assert_array_equal(again, index)
  np.testing.assert_allclose(same, value, atol=1e-6)


def test_levels_have_the_gradient_of_tanh():
  z = np.linspace(-2, 2, 9, dtype=np.float32)[:, None]
  slope = jax.grad(lambda z: jnp.sum(quantisers.finite_scalar(z, (5,))[1]))(z)
  np.testing.assert_allclose(slope, 1 / np.cosh(z.astype(np.float64))**2, rtol=1e-5)


def test_perplexity_is_the_effective_number_of_codes():
  half = np.array([3.0, 3.0, 0.0, 0.0])
  p = np.array([0.5, 0.25, 0.125, 0.125])
  found = quantisers.perplexity(jnp.asarray(np.stack([np.ones(4), half, p, np.zeros(4)]), jnp.float32))
  np.testing.assert_allclose(found, [4.0, 2.0, 2**1.75, 1.0], rtol=1e-6)


@given(num_codes=strategies.sampled_from([1, 7, 12, 32]), seed=strategies.integers(0, 1000), same=strategies.booleans())
@settings(max_examples=40, deadline=None)
def test_the_first_of_equally_near_codes_is_found(num_codes, seed, same):
  """For any number of codes, whatever the blocks that they are compared in; twins have equal scores."""
  draw = np.random.RandomState(seed)
  codes = draw.randint(-3, 4, (num_codes, d)).astype(np.float32)  # whole numbers, so that scores are exact
  codes = np.concatenate([codes, codes]) if same else codes
  x = draw.randint(-3, 4, (B, d)).astype(np.float32)
  np.testing.assert_array_equal(NEAREST(codes, x), nearest(codes, x))


def rotation_of(x, code):
  """(|code| / |x|) R, float64: the matrix that takes x to the code, by its formula."""
  unit = lambda y: y / np.linalg.norm(y)
  e, q = unit(x), unit(code)
  r = unit(e + q)
  return np.linalg.norm(code) / np.linalg.norm(x) * (np.eye(len(x)) - 2 * np.outer(r, r) + 2 * np.outer(q, e))


@given(seed=strategies.integers(0, 2**16), dim=strategies.sampled_from([2, 5, 8]),
       scale=strategies.sampled_from([0.01, 1.0, 50.0]))
@settings(max_examples=40, deadline=None)
def test_a_rotation_turns_gradients_as_it_turns_inputs(seed, dim, scale):
  """In float32, whose error grows as the code comes to lie opposite to the input: their sum is then near 0."""
  draw = np.random.RandomState(seed)
  x, code, slope = (s * draw.normal(size=(6, dim)) for s in (1.0, scale, 1.0))
  to32 = lambda y: jnp.asarray(y, jnp.float32)
  value, dx, dcode = TURN(to32(x), to32(code), to32(slope))
  np.testing.assert_array_equal(value, to32(code))
  np.testing.assert_array_equal(dcode, np.zeros_like(code))
  for row in range(6):
    matrix = rotation_of(x[row], code[row])
    np.testing.assert_allclose(matrix @ x[row], code[row], rtol=1e-9, atol=1e-12)  # it is that rotation
    size = np.linalg.norm(slope[row]) * np.linalg.norm(code[row]) / np.linalg.norm(x[row])
    between = np.linalg.norm(x[row] / np.linalg.norm(x[row]) + code[row] / np.linalg.norm(code[row]))
    near = 1e-5 + 2e-6 / between
    np.testing.assert_allclose(np.asarray(dx[row], np.float64), matrix.T @ slope[row], atol=near * size)
    np.testing.assert_allclose(np.linalg.norm(dx[row]), size, rtol=near)


def test_a_rotation_of_nothing_passes_straight_through():
  x, code = np.zeros((2, d), np.float32), PARTS[:2, 0].copy()
  x[1], code[1] = PARTS[1, 1], 0.0
  dx = TURN(x, code, WHOLE[:2])[1]
  np.testing.assert_array_equal(dx, WHOLE[:2])
  opposite = TURN(PARTS[:2, 0], -2 * PARTS[:2, 0], WHOLE[:2])[1]
  # float32 hardly tells in which plane it turns
  np.testing.assert_allclose(np.linalg.norm(opposite, axis=1), 2 * np.linalg.norm(WHOLE[:2], axis=1), rtol=1e-3)


def test_rows_without_weight_have_no_part_in_a_start():
  """20 rows of weight 0 far away; each of the four others is a code, and the rest of the codes repeat them."""
  x = np.concatenate([WHOLE[:4], 1e3 + WHOLE[4:]]).astype(np.float32)
  weight = (np.arange(B) < 4).astype(np.float32)
  found = START(jax.random.key(0), x, 1, 6, True, weight)
  gaps = np.abs(np.asarray(found.codes)[0][:, None] - WHOLE[None, :4]).max(axis=2)
  assert np.all(gaps.min(axis=0) < 1e-6) and np.all(gaps.min(axis=1) < 1e-6)
  np.testing.assert_allclose(np.sum(found.use), 1.0, rtol=1e-6)
  mean = WHOLE[:4].astype(np.float64).mean(axis=0)
  np.testing.assert_allclose(np.sum(found.total[0], axis=0), mean, rtol=1e-5, atol=1e-6)


def test_sums_on_a_cpu_are_those_of_one_hot_codes(monkeypatch):
  weight = np.abs(WHOLE[:, 0])
  found = LOOK_UP(CODES, PARTS, residual=False)
  here = quantisers.statistics(found, weight, K)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  there = quantisers.statistics(found, weight, K)
  for one, two in zip(here, there):
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(quantisers.count(np.full((B, S), -1), weight, K), np.zeros((S, K)))
