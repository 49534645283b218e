"""Latents of each kind: what comes out, what it costs, which slots count, against float64 NumPy."""

import math

import autoencoder_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies

from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import latents
from jaxtrain.nn import quantisers

B, S, L = 10, 5, 8
DRAW = np.random.RandomState(0)
MASK = (DRAW.uniform(size=(B, S)) < 0.6).astype(np.float32)
MASK[:2] = 0
MASK[1, 3] = 1


def compiled(function):
  """A function of a plan and arrays, compiled; its results are NumPy's, whose arithmetic compiles nothing."""
  run = jax.jit(function, static_argnums=0)
  return lambda *given: jax.tree.map(np.asarray, run(*given))


QUANTISE, START, STATISTICS, USAGE, NEAREST = map(compiled, (
    latents.quantise, latents.start, latents.statistics, latents.usage, latents.nearest))


def plan_of(kind, **changes):
  """The plan of a kind with 16 codes of 8 numbers."""
  return latents.make_plan(cases.model(latent=kind, **{f"latent__{key}": x for key, x in changes.items()}).latent, {})


def inputs(width=L, seed=1):
  """z [B, S, width], 0 in empty slots."""
  return (MASK[..., None] * np.random.RandomState(seed).normal(size=(B, S, width))).astype(np.float32)


def codes_of(p):
  """Codes of a plan in NumPy."""
  return jax.tree.map(np.asarray, cases.codes_of(p))


def nearest(codes, x):
  """Index of the nearest of codes [K, L] to x [L], float64."""
  return int(np.argmin([np.sum(np.square(x.astype(np.float64) - code)) for code in codes]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", latents.KINDS)
def test_empty_slots_are_zero_and_cost_nothing(kind):
  p, empty = plan_of(kind), MASK == 0
  z = inputs({"fsq": 2, "vae": 2 * L}.get(kind, L))
  found = QUANTISE(p, codes_of(p), z, MASK, DRAW.normal(size=(B, S, L)).astype(np.float32))
  assert all(np.all(np.asarray(x)[empty] == 0) for x in (found.z, found.bits, found.commitment, found.kl))
  assert found.index is None or np.all(np.asarray(found.index)[empty] == -1)
  assert found.index is None or np.asarray(found.index)[~empty].min() >= 0
  assert np.all(np.asarray(found.bits)[~empty] > 0)


@pytest.mark.parametrize("kind", ["none", "linear"])
def test_what_is_not_coded_costs_32_bits_a_number(kind):
  found = QUANTISE(plan_of(kind), None, inputs(), MASK, None)
  np.testing.assert_array_equal(found.z, inputs())
  np.testing.assert_array_equal(found.bits, 32 * L * MASK)
  assert found.index is None and found.looked is None


def test_a_code_costs_the_logarithm_of_its_share():
  p, z = plan_of("vq"), inputs()
  codes = codes_of(p)
  found, share = QUANTISE(p, codes, z, MASK, None), np.asarray(codes.use[0], np.float64) / np.asarray(codes.use).sum()
  for b, s in zip(*np.nonzero(MASK)):
    k = nearest(np.asarray(codes.codes[0]), z[b, s])
    assert found.index[b, s, 0] == k
    np.testing.assert_allclose(found.z[b, s], codes.codes[0, k], atol=1e-6)
    np.testing.assert_allclose(found.bits[b, s], -math.log2(share[k]), rtol=1e-5)
    gap = np.mean(np.square(z[b, s].astype(np.float64) - np.asarray(codes.codes[0, k])))
    np.testing.assert_allclose(found.commitment[b, s], gap, rtol=1e-5)


def test_even_codes_cost_the_logarithm_of_their_number():
  for kind, bits in (("vq", 4), ("rvq", 8), ("fsq", math.log2(12))):
    p = plan_of(kind)
    codes = codes_of(p)
    codes = codes.replace(use=np.ones_like(codes.use))
    found = QUANTISE(p, codes, inputs(2 if kind == "fsq" else L), MASK, None)
    np.testing.assert_allclose(found.bits, bits * MASK, rtol=1e-5)


def test_a_residual_code_codes_what_the_first_left():
  p, z = plan_of("rvq"), inputs()
  codes = codes_of(p)
  found = QUANTISE(p, codes, z, MASK, None)
  table = np.asarray(codes.codes, np.float64)
  share = np.asarray(codes.use, np.float64) / np.asarray(codes.use).sum(axis=1, keepdims=True)
  for b, s in zip(*np.nonzero(MASK)):
    first = nearest(table[0], z[b, s])
    second = nearest(table[1], z[b, s] - table[0, first])
    assert list(found.index[b, s]) == [first, second]
    np.testing.assert_allclose(found.z[b, s], table[0, first] + table[1, second], atol=1e-5)
    np.testing.assert_allclose(found.bits[b, s], -math.log2(share[0, first]) - math.log2(share[1, second]), rtol=1e-5)


def test_levels_count_as_one_code():
  p, z = plan_of("fsq"), inputs(2)
  assert (p.num_codes, p.levels) == (12, (4, 3))
  codes = START(p, jax.random.key(0), z, MASK)
  found = QUANTISE(p, codes, z, MASK, None)
  for b, s in zip(*np.nonzero(MASK)):
    digits = [min(int((np.tanh(np.float64(x)) + 1) / 2 * n), n - 1) for x, n in zip(z[b, s], p.levels)]
    assert found.index[b, s, 0] == digits[0] * 3 + digits[1]
    np.testing.assert_allclose(found.z[b, s], [(2 * k + 1) / n - 1 for k, n in zip(digits, p.levels)], atol=1e-6)
  np.testing.assert_array_equal(codes.use, np.full((1, 12), np.float32(1 / 12)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", latents.WITH_CODES)
def test_points_of_codes_are_what_the_decoder_got(kind):
  p, z = plan_of(kind), inputs(2 if kind == "fsq" else L)
  codes = START(p, jax.random.key(0), z, MASK)
  found = QUANTISE(p, codes, z, MASK, None)
  np.testing.assert_allclose(latents.points(p, codes, found.index), found.z, atol=1e-6)


def test_a_sample_costs_its_divergence():
  p, z = plan_of("vae"), inputs(2 * L)
  noise = DRAW.normal(size=(B, S, L)).astype(np.float32)
  mean, log_var = np.split(z.astype(np.float64), 2, axis=-1)
  found, still = (QUANTISE(p, None, z, MASK, x) for x in (noise, None))
  np.testing.assert_allclose(found.z, MASK[..., None] * (mean + np.exp(log_var / 2) * noise), rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(still.z, z[..., :L])
  kl = MASK * np.sum(0.5 * (mean**2 + np.exp(log_var) - 1 - log_var), axis=-1)
  np.testing.assert_allclose(found.kl, kl, rtol=1e-5)
  np.testing.assert_allclose(found.bits, kl / math.log(2), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vq", "rvq"])
@pytest.mark.parametrize("gradient", latents.GRADIENTS)
def test_gradients_pass_the_codes_and_leave_them_alone(kind, gradient):
  p, z = plan_of(kind, gradient=gradient), inputs()
  codes, slope = codes_of(p), DRAW.normal(size=(B, S, L)).astype(np.float32)
  both = lambda z, codes: jnp.sum(slope * latents.quantise(p, codes, z, MASK, None).z)
  to_z, to_codes = jax.jit(jax.grad(both, argnums=(0, 1)))(z, codes)
  assert all(np.all(np.asarray(x) == 0) for x in jax.tree.leaves(to_codes))
  if gradient == "straight":
    np.testing.assert_array_equal(to_z, slope)
  else:
    chosen = QUANTISE(p, codes, z, MASK, None).z
    ratio = np.linalg.norm(np.asarray(chosen, np.float64), axis=-1) / np.maximum(np.linalg.norm(z, axis=-1), 1e-30)
    want = ratio * np.linalg.norm(slope, axis=-1)
    real = MASK > 0
    np.testing.assert_allclose(np.linalg.norm(to_z, axis=-1)[real], want[real], rtol=1e-4)
  pull = jax.jit(jax.grad(lambda z: jnp.sum(latents.quantise(p, codes, z, MASK, None).commitment)))(z)
  chosen = np.asarray(QUANTISE(p, codes, z, MASK, None).z, np.float64)
  np.testing.assert_allclose(pull, 2 * (z - chosen) / L, rtol=1e-4, atol=1e-6)


@given(seed=strategies.integers(0, 2**16), scale=strategies.sampled_from([0.0, 1.0, 1e6]))
@settings(max_examples=20, deadline=None)
def test_statistics_are_those_of_real_slots(seed, scale):
  """Whatever stands in empty slots; rows of weight 0 do not count either."""
  p, draw = plan_of("vq"), np.random.RandomState(seed)
  z, weight = inputs(seed=seed), (draw.uniform(size=B) < 0.7).astype(np.float32)
  dirty = z + (1 - MASK[..., None]) * (scale * draw.normal(size=z.shape)).astype(np.float32)
  codes = codes_of(p)
  found = QUANTISE(p, codes, dirty, MASK, None)
  use, total = STATISTICS(p, found, MASK * weight[:, None])
  want_use, want_total = np.zeros(16), np.zeros((16, L))
  for b, s in zip(*np.nonzero(MASK * weight[:, None])):
    k = nearest(np.asarray(codes.codes[0]), z[b, s])
    want_use[k] += 1
    want_total[k] += z[b, s]
  np.testing.assert_array_equal(use[0], want_use)
  np.testing.assert_allclose(total[0], want_total, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(USAGE(p, found.index, np.repeat(weight[:, None], S, axis=1)), use)


@pytest.mark.parametrize("kind", ["vq", "rvq"])
def test_a_codebook_starts_at_real_slots_alone(kind):
  """Empty slots, far away, do not draw a code to them; with fewer real slots than codes each is one."""
  p, z = plan_of(kind), inputs()
  dirty = np.where(MASK[..., None] > 0, z, 1e4).astype(np.float32)
  codes = START(p, jax.random.key(0), dirty, MASK)
  real = z[MASK > 0]
  assert len(real) > p.num_codes and np.abs(codes.codes).max() <= np.abs(real).max() * p.num_stages
  np.testing.assert_allclose(np.sum(codes.use, axis=1), 1.0, rtol=1e-5)
  np.testing.assert_allclose(np.sum(codes.total[0], axis=0), real.astype(np.float64).mean(axis=0), rtol=1e-3, atol=1e-5)
  few = MASK * (np.arange(B) < 4)[:, None]
  count = int(few.sum())
  codes = np.asarray(START(p, jax.random.key(0), dirty, few).codes)
  assert 2 < count < p.num_codes
  gaps = [np.abs(codes[0] - x).max(axis=-1).min() for x in z[few > 0]]
  np.testing.assert_allclose(gaps, 0, atol=1e-6)


def test_dead_codes_move_to_real_slots_of_real_rows():
  p, z = plan_of("vq"), inputs()
  codes = codes_of(p)
  found = QUANTISE(p, codes, z, MASK, None)
  weight = np.ones(B, np.float32)
  weight[[0, 3]] = 0
  fresh = jax.jit(lambda key: latents.fresh_inputs(found, MASK, latents.draw_fresh(key, weight)))
  real = {tuple(x): (b, s) for b in range(B) for s in range(S) for x in [z[b, s].tolist()] if MASK[b, s]}
  seen = set()
  for seed in range(20):
    for x in np.asarray(fresh(jax.random.key(seed)))[0]:
      if np.any(x):  # an event without objects has none to give
        seen.add(real[tuple(x.tolist())])
  assert {b for b, _ in seen} == {b for b in range(B) if weight[b] and MASK[b].any()}
  assert len(seen) > 0.9 * np.sum(MASK * weight[:, None])  # 320 draws, of about 25 slots


def test_codes_follow_what_they_stand_for():
  p, z = plan_of("vq"), inputs()
  codes, latent = codes_of(p), cases.model(latent__decay=0.8, latent__revive_below=0.0).latent
  found = QUANTISE(p, codes, z, MASK, None)
  use, total = (np.asarray(x, np.float64) / MASK.sum() for x in STATISTICS(p, found, MASK))
  advance = compiled(lambda p, *given: latents.advance(p, *given, latent))
  after = advance(p, codes, use.astype(np.float32), total.astype(np.float32), np.zeros((1, 16, L), np.float32))
  want_use = 0.8 * np.asarray(codes.use, np.float64) + 0.2 * use
  want = (0.8 * np.asarray(codes.total, np.float64) + 0.2 * total) / want_use[..., None]
  np.testing.assert_allclose(after.use, want_use, rtol=1e-5)
  np.testing.assert_allclose(after.codes, want, rtol=1e-4, atol=1e-5)


def test_levels_stay_where_they_are_while_their_shares_follow():
  p, z = plan_of("fsq"), inputs(2)
  codes = START(p, jax.random.key(0), z, MASK)
  found = QUANTISE(p, codes, z, MASK, None)
  use, total = (x / MASK.sum() for x in STATISTICS(p, found, MASK))
  advance = compiled(lambda p, *given: latents.advance(p, *given, cases.model().latent))
  after = advance(p, codes, use, total, np.zeros((1, 16, 2), np.float32))
  np.testing.assert_array_equal(after.codes, codes.codes)
  np.testing.assert_allclose(after.use, 0.9 * codes.use + 0.1 * use, rtol=1e-6)
  np.testing.assert_allclose(np.sum(after.use), 1.0, rtol=1e-5)


def rounding(latent, meta):
  """A latent of one's own: whole numbers of a step that the settings have, at 8 bits each."""
  def quantise(z, mask, noise):
    value = quantisers.straight_through(z, jnp.round(z))
    zero = jnp.zeros_like(mask)
    return latents.Latent(value, None, 8.0 * z.shape[-1] * mask, zero, zero)
  return quantise


def test_a_latent_of_ones_own_is_named_by_its_path():
  p = plan_of("vq", own=(f"{__name__}.rounding",))
  found = QUANTISE(p, latents.start(p, jax.random.key(0), inputs(), MASK), inputs(), MASK, None)
  np.testing.assert_array_equal(found.z, np.round(inputs()))
  np.testing.assert_array_equal(found.bits, 64 * MASK)


@pytest.mark.parametrize("changes, message", [
    ({"kind": "lfq"}, "latent.kind: got 'lfq', allowed none, linear, vq"),
    ({"kind": "fsq", "levels": (1, 8)}, "levels of at least 2"),
    ({"kind": "fsq", "levels": ()}, "levels of at least 2"),
    ({"kind": "fsq", "levels": (256, 257)}, "at most 65536"),
    ({"kind": "vq", "gradient": "reinforce"}, "latent.gradient: got 'reinforce', allowed straight, rotation"),
])
def test_latents_that_do_not_exist_are_refused(changes, message):
  with pytest.raises(UserError, match=message):
    plan_of(**changes)


@pytest.mark.parametrize("kind", ["vq", "fsq"])
def test_new_latents_are_the_nearest_codes(kind):
  """One that is near what a decoder got in training becomes just that, the outermost levels too."""
  p, z = plan_of(kind, levels=(8, 3)), 3 * np.random.RandomState(3).normal(size=(40, S, 2 if kind == "fsq" else L))
  mask = np.ones((40, S), np.float32)
  codes = START(p, jax.random.key(0), z.astype(np.float32), mask)
  of_training = QUANTISE(p, codes, z.astype(np.float32), mask, None).z
  near = of_training + 1e-3 * np.random.RandomState(4).normal(size=of_training.shape).astype(np.float32)
  np.testing.assert_allclose(NEAREST(p, codes, near), of_training, atol=1e-5)
  assert np.isfinite(NEAREST(p, codes, 100 * of_training)).all()


@pytest.mark.parametrize("kind", ["none", "vae"])
def test_new_latents_without_codes_stay(kind):
  z = inputs()
  np.testing.assert_array_equal(latents.nearest(plan_of(kind), None, z), z)
