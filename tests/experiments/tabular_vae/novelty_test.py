"""Novelty: against formulas in float64, and what it says of rows that no training row is like."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.errors import UserError
from jaxtrain.experiments.tabular_vae import likelihoods, nets, novelty
from jaxtrain.run import start
from jaxtrain.types import Source


def linear_parts(variables, x):
  """As `novelty.parts` of a model whose reconstruction is half of x and whose divergence is the squared norm."""
  return jnp.concatenate([(x / 2) ** 2, (x ** 2).sum(axis=1, keepdims=True)], axis=1)


def test_percentiles_are_those_of_the_formula():
  random = np.random.default_rng(0)
  kept, z = random.normal(size=(50, 3)).astype(np.float32), random.normal(size=(20, 3)).astype(np.float32)
  z[0], z[1, 2] = kept[7], np.nan
  got = novelty.percentiles(linear_parts, {}, kept.tolist(), z)
  x = kept.astype(np.float64)
  variance = ((x / 2) ** 2).mean(axis=0)
  own = lambda row: 0.5 * np.nansum((row / 2) ** 2 / variance) * 3 / np.isfinite(row).sum() + np.nansum(row ** 2)
  reference = np.array([own(row) for row in x])
  want = [100 * ((reference < own(row) - 1e-6).mean() + (abs(reference - own(row)) < 1e-6).mean() / 2)
          for row in z.astype(np.float64)]
  np.testing.assert_allclose(got, want, atol=1e-4)
  assert 0 < got.min() and got.max() <= 100 and len(set(got)) > 10


def test_what_is_in_nats_is_not_scaled():
  """Of the first column -log p, which is what the parts have; of the second half of its error over the mean error."""
  random = np.random.default_rng(1)
  kept, z = random.normal(size=(40, 2)).astype(np.float32), random.normal(size=(10, 2)).astype(np.float32)
  layout = likelihoods.Layout((likelihoods.Column("categorical", 3), likelihoods.Column("continuous")), False)
  mean_error = np.mean((kept[:, 1].astype(np.float64) / 2) ** 2)
  own = lambda row: (row[0] / 2) ** 2 + 0.5 * (row[1] / 2) ** 2 / mean_error + (row ** 2).sum()
  reference = np.array([own(row) for row in kept.astype(np.float64)])
  want = [100 * (reference < own(row)).mean() for row in z.astype(np.float64)]
  np.testing.assert_allclose(novelty.percentiles(linear_parts, {}, kept.tolist(), z, layout), want, atol=1e-4)


def test_kept_rows_come_back_to_the_bit_where_spikes_need_it():
  x = np.random.default_rng(3).normal(size=(30, 2)).astype(np.float32)
  source = Source(None, None, 1, 30, rows=lambda index: {"x": x[index]})
  np.testing.assert_array_equal(np.array(novelty.keep_rows(source, 2, novelty.EXACT), np.float32), x)


def test_holes_of_the_kept_rows_do_not_count():
  kept = [[1.0, None], [2.0, 4.0], [None, None]]
  found = novelty.refer(linear_parts, {}, kept)
  np.testing.assert_allclose(found.variance, [(0.25 + 1) / 2, 4.0])
  want = sorted([0.5 * 0.25 / 0.625 * 2 + 1, 0.5 * (1 / 0.625 + 1) + 20])
  np.testing.assert_allclose(found.surprise, want, rtol=1e-6)


def test_parts_are_errors_and_the_divergence_of_a_model():
  model = nets.VAE(num_features=4, num_classes=0, latent_dim=2, hidden_dims=(8,), batch_norm=False, head_dim=4,
                   precision="float32")
  x = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
  variables = model.init(jax.random.key(0), x, jnp.ones(6), jnp.zeros((6, 2)))
  out, found = model.apply(variables, x, jnp.ones(6)), np.asarray(novelty.parts(model, variables, x))
  mean, log_var = (np.asarray(value, np.float64) for value in (out.mean, out.log_var))
  np.testing.assert_allclose(found[:, :4], (x - np.asarray(out.x_mean)) ** 2, rtol=1e-5)
  want = 0.5 * (mean ** 2 + np.exp(log_var) - 1 - log_var).sum(axis=1)
  np.testing.assert_allclose(found[:, 4], want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("num_rows", "num_features", "count"), [
    (5000, 6, 2000), (5000, 64, 375), (50, 6, 50), (5000, 240, 100), (5000, 241, 0)])
def test_as_many_rows_are_kept_as_fit_a_checkpoint(num_rows, num_features, count):
  x = np.random.default_rng(2).normal(size=(num_rows, num_features)).astype(np.float32)
  source = Source(None, None, 1, num_rows, rows=lambda index: {"x": x[index]})
  kept = novelty.keep_rows(source, num_features)
  assert len(kept) == count and kept == novelty.keep_rows(source, num_features)
  if count:
    near = [int(np.abs(x - row).sum(axis=1).argmin()) for row in kept[:20]]
    np.testing.assert_allclose(x[near], kept[:20], rtol=1e-4)
    assert len(set(near)) == 20


def test_missing_cells_are_kept_as_missing():
  rows = {"x": np.float32([[1, 0], [2, 3]]), "observed": np.float32([[1, 0], [1, 1]])}
  source = Source(None, None, 1, 2, rows=lambda index: {name: column[index] for name, column in rows.items()})
  assert novelty.keep_rows(source, 2) == [[1.0, None], [2.0, 3.0]]


def test_kept_rows_do_not_keep_a_run_from_going_on():
  """A run of an earlier version has none, and another processor may round one otherwise."""
  assert novelty.KEY.startswith(start.FOLLOWS)
  start.check_same_data("runs/a", {"features": ["a"]}, {"features": ["a"], novelty.KEY: [[1.0]]})
  start.check_same_data("runs/a", {novelty.KEY: [[1.0]]}, {novelty.KEY: [[1.0001]]})
  with pytest.raises(UserError, match="features was"):
    start.check_same_data("runs/a", {"features": ["a"], novelty.KEY: [[1.0]]}, {"features": ["b"]})
