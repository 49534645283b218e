"""Likelihoods of columns with kinds: against formulas in float64, sums over all values, and shares of draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from jaxtrain.data import scaling
from jaxtrain.experiments.tabular_vae import likelihoods
from jaxtrain.experiments.tabular_vae.likelihoods import Column, Layout

COUNTS = np.arange(0.0, 31.0)
TRANSFORMS = ("standardise", "log1p", "signed_log1p", "min_max", "identity")


def whole(transform: str, spike: float | None = None) -> tuple[Column, dict]:
  """A column of whole numbers 0 .. 30 and its scaler."""
  scaler = {"columns": ["k"], "transforms": [transform], "mean": [0.7], "std": [1.9]}
  at = None if spike is None else float(scaling.scale(scaler, np.array([[spike]]))[0, 0])
  return Column("integer", 0, at, transform, 0.7, 1.9, 0.0, 30.0), scaler


def logistic_pmf(transform: str, mean: float, scale: float) -> np.ndarray:
  """P(k) for k = 0 .. 30 from the definition, float64."""
  forward = scaling.TRANSFORMS[transform].forward
  ends = (forward(np, COUNTS[:-1] + 0.5) - 0.7) / 1.9
  cdf = np.concatenate([[0.0], special.expit((ends - mean) / scale), [1.0]])
  return np.diff(cdf)


@functools.partial(jax.jit, static_argnums=0)
def nats(layout: Layout, x, raw: list[float], log_sd=()) -> dict:
  """Costs of rows x of which the decoder says the same."""
  return likelihoods.nats(layout, x, given_of(layout, raw, len(x), log_sd))


def given_of(layout: Layout, raw: list[float], rows: int = 1, log_sd=()) -> likelihoods.Given:
  tiled = jnp.tile(jnp.asarray([raw], jnp.float32), (rows, 1))
  return likelihoods.split(layout, tiled, jnp.asarray(log_sd, jnp.float32))


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("mean, log_scale", [(0.3, -1.0), (1.1, -3.0)])
def test_a_discretised_logistic_is_its_definition(transform, mean, log_scale):
  column, scaler = whole(transform)
  found = nats(Layout((column,), False), np.float32(scaling.scale(scaler, COUNTS[:, None])), [mean, log_scale])
  want = logistic_pmf(transform, mean, np.exp(log_scale))
  large = want > 1e-12  # below, the definition has lost its digits
  np.testing.assert_allclose(np.asarray(found["integer"])[large, 0], -np.log(want[large]), rtol=2e-4, atol=2e-5)
  np.testing.assert_allclose(np.exp(-np.asarray(found["integer"], np.float64)).sum(), 1.0, rtol=1e-4)


def test_a_spike_of_whole_numbers_is_a_mixture():
  column, scaler = whole("log1p", spike=0.0)
  layout = Layout((column,), False)
  x = np.float32(scaling.scale(scaler, COUNTS[:, None]))
  found = np.exp(-np.asarray(nats(layout, x, [0.3, -1.0, 0.4])["integer"])[:, 0])
  p = special.expit(0.4)
  want = (1 - p) * logistic_pmf("log1p", 0.3, np.exp(-1.0)) + p * (COUNTS == 0)
  np.testing.assert_allclose(found, want, rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize("learned", [False, True])
def test_numbers_and_their_spikes(learned):
  """Squared error, or a Normal of the column's own deviation; beside a spike with the log-odds of each side."""
  layout = Layout((Column("continuous"), Column("continuous", spike=-1.25)), learned)
  x = np.array([[0.5, -1.25], [2.0, 0.75], [-1.25, -1.24]])
  found = nats(layout, np.float32(x), [0.2, 0.4, 9.9, -0.6], [0.3, -0.7])["continuous"]
  error = x - [0.2, 0.4]
  want = -stats.norm.logpdf(error, scale=np.exp([0.3, -0.7])) if learned else error ** 2
  at = np.array([True, False, False])
  want[:, 1] = np.where(at, -special.log_expit(-0.6), want[:, 1] - special.log_expit(0.6))
  np.testing.assert_allclose(found, want, rtol=1e-5)


def test_categories_cost_their_cross_entropy():
  layout = Layout((Column("categorical", 3), Column("continuous"), Column("categorical", 2)), False)
  raw = [0.1, 0.5, -1.0, 2.0, 0.3, -0.3]
  x = np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 1.0]], np.float32)
  found, point = jax.jit(lambda x: (nats(layout, x, raw, [0.0]),
                                    likelihoods.point(layout, given_of(layout, raw, 1, [0.0]))))(x)
  logp = [special.log_softmax(raw[1:4]), special.log_softmax(raw[4:])]
  np.testing.assert_allclose(found["categorical"], [[-logp[0][0], -logp[1][1]], [-logp[0][2], -logp[1][0]]], rtol=1e-5)
  np.testing.assert_allclose(point, [[3.0, 0.1, 1.0]], rtol=1e-6)


@pytest.mark.parametrize("kind", ["continuous", "integer"])
def test_a_spike_needs_no_column_of_another_kind(kind):
  """The guess, and draws, of a lone column with a spike that is likelier than not."""
  column = Column("continuous", spike=4.0) if kind == "continuous" else whole("standardise", spike=2.0)[0]
  layout, at = Layout((column,), False), column.spike
  given = given_of(layout, [0.5, 3.0], 1, [0.0]) if kind == "continuous" else given_of(layout, [0.5, 0.3, 3.0])
  assert float(likelihoods.point(layout, given)[0, 0]) == pytest.approx(at)
  found = [float(likelihoods.draw(layout, given, np.full((1, 1), u, np.float32))[0, 0]) for u in (0.5, 0.99)]
  assert [value == pytest.approx(at) for value in found].count(True) == 1


def test_draws_have_the_shares_that_the_likelihood_says():
  """20,000 draws: shares of spike, category and counts within 5 standard errors (false alarm below 1e-4 together)."""
  column, scaler = whole("standardise", spike=2.0)
  layout = Layout((Column("categorical", 3), Column("continuous", spike=4.0), column), True)
  raw = [0.5, 0.3, -0.2, -0.6, 0.4, 0.2, 1.0, -1.0]
  uniform = np.random.default_rng(0).random((20_000, 3), np.float32)
  draw = jax.jit(lambda uniform: likelihoods.draw(layout, given_of(layout, raw, 20_000, [-0.5]), uniform))
  found = np.asarray(draw(uniform), np.float64)
  close = lambda event, p: abs(event.mean() - p) < 5 * np.sqrt(p * (1 - p) / len(event))
  assert all(close(found[:, 0] == k + 1, p) for k, p in enumerate(special.softmax([0.2, 1.0, -1.0])))
  at = found[:, 1] == 4.0
  assert close(at, special.expit(-0.6))
  rest = found[~at, 1]
  assert stats.kstest(rest, stats.norm(0.5, np.exp(-0.5)).cdf).pvalue > 1e-4
  counts = np.clip(np.rint(scaling.unscale(scaler, found[:, 2:])[:, 0]), 0, 30)
  p = special.expit(0.4)
  want = (1 - p) * logistic_pmf("standardise", 0.3, np.exp(-0.2)) + p * (COUNTS == 2)
  assert all(close(counts == k, want[k]) for k in range(31))


def test_far_whole_numbers_cost_a_finite_number_with_a_gradient():
  column = Column("integer", 0, None, "standardise", 0.0, 1e6, 0.0, 1e9)
  layout = Layout((column,), False)
  x = np.array([[0.0], [1e3 / 1e6], [1e3], [-50.0], [5e4]], np.float32)
  lost = lambda raw: jnp.sum(likelihoods.nats(layout, x, likelihoods.split(layout, raw, jnp.zeros(0)))["integer"])
  value, slope = jax.jit(jax.value_and_grad(lost))(np.tile(np.float32([[0.0, -8.9]]), (5, 1)))
  assert np.isfinite(value) and np.isfinite(slope).all()
