"""The keyed permutation: a bijection for every size, and as uniform as tests at a stated false-alarm rate can tell.

False alarms: keys are fixed, so a test that passes goes on passing on unchanged code; for a changed shuffle that is
truly uniform all statistical tests of this file together fail with a chance of 1e-6 (Bonferroni over NUM_TESTS).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxtrain.data import shuffle

# A test calls what it compiles a few times: half the time to compile is worth more than fast code.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
NUM_KEYS = 20_000
NUM_TESTS = 3 * 4 + 2 + 3 * 3 + 1  # positions, pairs, serial correlations
ALPHA = 1e-6 / NUM_TESTS


@functools.partial(jax.jit, static_argnums=2, compiler_options=QUICK)
def permute(key, index, num_rows):
  return shuffle.permute(key, index, num_rows)


@functools.cache
def images(num_rows, num_keys):
  """Images [num_keys, num_rows] of all indices, a row per key."""
  keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(2024), jnp.arange(num_keys))
  return np.asarray(jax.jit(jax.vmap(lambda key: shuffle.permute(key, jnp.arange(num_rows), num_rows)))(keys))


@pytest.mark.slow
def test_every_size_up_to_300_is_permuted(monkeypatch):
  """The module's own code on NumPy arrays: compiled, 300 sizes would be 300 programs."""
  compiled = {n: np.asarray(permute(jax.random.key(n), jnp.arange(n), n)) for n in (1, 7, 300)}
  bits = jax.random.bits

  def python_loop(condition, body, value):
    while condition(value):
      value = body(value)
    return value

  monkeypatch.setattr(shuffle, "jnp", np)
  monkeypatch.setattr(jax.lax, "while_loop", python_loop)
  monkeypatch.setattr(jax.random, "bits", lambda *args: np.asarray(bits(*args)))
  for n in range(1, 301):
    image = shuffle.permute.__wrapped__(jax.random.key(n), np.arange(n), n)
    np.testing.assert_array_equal(np.sort(image), np.arange(n), err_msg=str(n))
    if n in compiled:
      np.testing.assert_array_equal(image, compiled[n])


@settings(deadline=None, max_examples=6, derandomize=True)
@given(st.integers(301, 300_000), st.integers(0, 2**31 - 1))
def test_large_sizes_are_permuted(n, seed):
  image = np.asarray(permute(jax.random.key(seed), jnp.arange(n), n))
  assert np.array_equal(np.bincount(image, minlength=n), np.ones(n))


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.one_of(st.integers(1, 300), st.integers(1, 100_000)), st.integers(0, 2**31 - 1))
def test_any_size_is_permuted_on_the_host(n, seed):
  image = shuffle.permute_on_host(np.asarray(shuffle.round_keys(jax.random.key(seed), n)), np.arange(n), n)
  assert np.array_equal(np.bincount(image, minlength=n), np.ones(n))


@pytest.mark.slow
@settings(deadline=None, max_examples=10, derandomize=True)
@given(st.one_of(st.integers(1, 300), st.integers(1, 2**31 - 1)), st.integers(0, 2**31 - 1))
@example(1, 0)
@example(2, 0)
@example(256, 3)
@example(257, 3)
@example(238_506, 42)
@example(2**31 - 1, 1)
def test_host_and_device_permute_alike(n, seed):
  """Any indices, in any order, also repeated; the middle of a size that no table would be held in."""
  key, index = jax.random.key(seed), np.random.RandomState(seed).randint(n, size=100).astype(np.int32)
  on_host = shuffle.permute_on_host(np.asarray(shuffle.round_keys(key, n)), index, n)
  assert on_host.dtype == np.int64
  np.testing.assert_array_equal(on_host, np.asarray(permute(key, jnp.asarray(index), n)))


@pytest.mark.parametrize("n", [238_506, 2**17, 2**17 + 1])
def test_sizes_of_note_are_permuted(n):
  image = np.asarray(permute(jax.random.key(42), jnp.arange(n), n))
  assert image.dtype == np.int32 and np.array_equal(np.bincount(image, minlength=n), np.ones(n))


def test_the_largest_domain_stays_inside_and_distinct():
  n = 2**31 - 1
  index = np.unique(np.random.RandomState(0).randint(0, n, 50_000, dtype=np.int64)).astype(np.int32)
  image = np.asarray(permute(jax.random.key(0), index, n))
  assert image.min() >= 0 and image.max() < n and len(np.unique(image)) == len(index)
  assert image.max() > 0.99 * n and image.min() < 0.01 * n


def test_a_part_of_the_indices_gives_a_part_of_the_permutation():
  key, index = jax.random.key(5), jnp.asarray([999, 0, 17, 500])
  np.testing.assert_array_equal(permute(key, index, 1000), np.asarray(permute(key, jnp.arange(1000), 1000))[index])


def test_a_key_names_one_permutation():
  index = jnp.arange(1000)
  first, second = (np.asarray(permute(jax.random.key(s), index, 1000)) for s in (0, 1))
  np.testing.assert_array_equal(first, permute(jax.random.key(0), index, 1000))
  # Two random permutations agree in 1 place on average (Poisson): more than 20 has a chance below 1e-19.
  assert (first == second).sum() < 20 and (first == np.arange(1000)).sum() < 20


@pytest.mark.slow
@pytest.mark.parametrize("n", [7, 64, 1000])
def test_an_element_lands_everywhere_equally_often(n):
  """Chi-square with n - 1 degrees of freedom over keys."""
  for element in (0, 1, n // 2, n - 1):
    counts = np.bincount(images(n, NUM_KEYS)[:, element], minlength=n)
    statistic = ((counts - NUM_KEYS / n) ** 2).sum() / (NUM_KEYS / n)
    low, high = stats.chi2.ppf([ALPHA / 2, 1 - ALPHA / 2], n - 1)
    assert low < statistic < high, (element, statistic)


@pytest.mark.parametrize("n, first, second", [(7, 0, 1), (7, 2, 6)])
def test_pairs_land_everywhere_equally_often(n, first, second):
  """Chi-square over the n (n - 1) ordered pairs of distinct places."""
  image = images(n, NUM_KEYS)
  counts = np.bincount(image[:, first] * n + image[:, second], minlength=n * n).reshape(n, n)
  assert (np.diag(counts) == 0).all()
  expected = NUM_KEYS / (n * (n - 1))
  statistic = ((counts[~np.eye(n, dtype=bool)] - expected) ** 2).sum() / expected
  assert statistic < stats.chi2.isf(ALPHA, n * (n - 1) - 1), statistic


# The halves of an index mix most slowly between rows that share their low half: lags of 8 at 64, of 16 at 512.
@pytest.mark.slow
@pytest.mark.parametrize("n, lag", [
    (7, 1), (7, 2), (7, 3), (64, 1), (64, 8), (128, 8), (1000, 1), (1000, 32), (1000, 500),
    (512, 16)])
def test_rows_at_a_distance_are_uncorrelated(n, lag):
  """Mean over keys of the serial correlation of the images; -1/(n - 1) for a random permutation."""
  image = images(n, NUM_KEYS).astype(np.float64)
  centred = image - (n - 1) / 2
  correlation = (centred[:, lag:] * centred[:, :-lag]).mean(axis=1) / ((n * n - 1) / 12)
  z = (correlation.mean() + 1 / (n - 1)) / (correlation.std(ddof=1) / np.sqrt(NUM_KEYS))
  assert abs(z) < stats.norm.isf(ALPHA / 2), z
