"""What stands between a model and its table: formulas in float64, and what a task keeps of its model."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import corruptions, families, tasks

# A test calls what it compiles a few times: half the time to compile is worth more than fast code.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
quick_jit = functools.partial(jax.jit, compiler_options=QUICK)
X = np.random.RandomState(0).normal(size=(3, 2000)) * [[1.0], [5.0], [0.1]] + [[0.0], [3.0], [-1.0]]


def family(text):
  """A family by its line."""
  return families.parse("data.corruptions", (text,), corruptions.KNOWN)[0]


def read(text, seed=0, x=X):
  """(values, mask) of a reading in float64."""
  one = corruptions.reading(family(text))
  values, seen = quick_jit(lambda x: one(jax.random.key(seed), x))(np.float32(x))
  return np.asarray(values, np.float64), np.asarray(seen)


def test_noise_of_measurement_has_its_share_of_the_variance():
  """The variance of what is added is share / (1 - share) of the variable's, to 6 standard errors (1e-8)."""
  values, seen = read("measurement share=0.4")
  ratio = (values - X).var(1) / X.var(1)
  np.testing.assert_allclose(ratio, 0.4 / 0.6, rtol=6 * (2 / 2000) ** 0.5)
  assert seen.all() and abs(np.corrcoef((values - X)[0], X[0])[0, 1]) < 6 / 2000**0.5


def test_rounding_is_to_multiples_of_a_step_in_deviations():
  values, _ = read("rounded step=0.5")
  step = 0.5 * X.std(1, keepdims=True)
  np.testing.assert_allclose(values / step, np.round(X / step), atol=0.02)  # float32 at a boundary is a whole step
  assert (np.abs(values - X) <= 0.5001 * step).all()


def test_clipping_is_at_deviations_from_the_mean():
  values, seen = read("clipped limit=1.5")
  mean, reach = X.mean(1, keepdims=True), 1.5 * X.std(1, keepdims=True)
  np.testing.assert_allclose(values, np.clip(X, mean - reach, mean + reach), rtol=1e-5, atol=1e-5)
  assert seen.all() and (values != X).any()


def test_categories_keep_the_order_and_are_as_many_as_asked_at_most():
  values, _ = read("ordinal levels=4")
  for row, column in zip(values, X):
    assert set(row) <= {0.0, 1.0, 2.0, 3.0} and len(set(row)) >= 2
    assert (np.diff(row[np.argsort(column)]) >= 0).all()


def test_missing_cells_are_missing_at_random():
  """A share of 0.3 of 6,000 cells, to 6 standard errors; in each variable."""
  values, seen = read("missing share=0.3")
  np.testing.assert_allclose(1 - seen.mean(1), 0.3, atol=6 * (0.21 / 2000) ** 0.5)
  np.testing.assert_allclose(values, np.float32(X))


@pytest.mark.parametrize("persistence", [0.0, 0.5, 0.9])
def test_persisting_noise_is_an_autoregression_of_variance_one(persistence):
  noise = np.random.RandomState(1).normal(size=(2, 400))
  want, weight = np.zeros_like(noise), 1.0
  for k in range(400):
    want += weight * np.roll(noise, k, axis=1)
    weight *= persistence
  want *= (1 - persistence**2) ** 0.5
  lagged = corruptions.persisting(family(f"lagged persistence={persistence}"))
  got, same = quick_jit(lambda noise: (corruptions.persist(persistence, noise), lagged(noise)))(np.float32(noise))
  np.testing.assert_allclose(got, want, atol=2e-2)  # what is left out of the sum weighs 1e-3
  np.testing.assert_array_equal(same, got)
  assert corruptions.persisting(family("rounded"))(noise) is noise


def test_hidden_variables_are_those_of_the_tasks_of_their_family():
  found = tuple(map(family, ("none", "hidden num=3 prob=0.5", "hidden num=1 prob=1.0")))
  keys = jax.random.split(jax.random.key(0), 4)
  draw = quick_jit(lambda kinds: corruptions.draw_hidden(found, kinds, keys, 200, 5000))
  edges, values = map(np.asarray, draw(np.array([0, 1, 2, 1])))
  assert edges.shape == (4, 3, 200) and not edges[0].any()
  assert edges[2, 0].all() and not edges[2, 1:].any()
  np.testing.assert_allclose(edges[[1, 3]].mean(2), 0.5, atol=6 * 0.5 / 200**0.5)
  np.testing.assert_allclose(values.std(2), 1, atol=6 * (0.5 / 5000) ** 0.5)


@pytest.mark.parametrize("text, words", [
    ("measurement share=1.0", "share=1.0 in 'measurement share=1.0', allowed 0 to 0.99"),
    ("ordinal levels=1", "levels=1 in 'ordinal levels=1', allowed 2 to 100"),
    ("missing share=0.95", "allowed 0 to 0.9"), ("hidden num=0", "allowed 1 to 100")])
def test_corruptions_that_there_are_not(text, words):
  with pytest.raises(UserError, match="config.data.corruptions: got ") as caught:
    corruptions.check(family(text), 0)
  assert words in caught.value.message


def test_a_time_series_has_no_interventions():
  corruptions.check(family("lagged"), 0)
  with pytest.raises(UserError, match="num_rows_int = 5, allowed with 0"):
    corruptions.check(family("lagged"), 5)


def made(*lines):
  """A batch of 8 linear tasks of 5 variables with many rows, by lines of corruptions."""
  data = {"mechanisms": ("linear",), "noises": ("gaussian",), "graphs": ("er edge_prob=0.5",), "mixture": "node",
          "noise_mixture": "task", "noise_share": (0.2, 0.2), "num_rows": 1000, "num_rows_int": 0, "p_obs_only": 0.0,
          "intervention_value": 0.0, "intervention_scale": 1.0, "normalize": True, "reject_constant": True,
          "task_chunk": 8, "num_nodes": (5,)}
  spec = tasks.make_spec(SimpleNamespace(**data, corruptions=lines))
  make = jax.jit(lambda numbers: tasks.make_batch(spec, 5, (5,), jax.random.key(11), "train", numbers, jnp.ones(8),
                                                  True))
  return {name: np.asarray(value) for name, value in make(jnp.arange(8, dtype=jnp.uint32)).items()}


@functools.cache
def plain():
  """The same tasks without corruption."""
  return made("none")


@pytest.mark.slow
@pytest.mark.parametrize("corruption", ["measurement share=0.5", "missing share=0.25", "hidden", "lagged",
                                        "ordinal levels=3"])
def test_a_corrupted_task_has_the_graph_of_its_model_and_other_values(corruption):
  batch = made(corruption)
  np.testing.assert_array_equal(batch["adjacency"], plain()["adjacency"])
  assert (np.abs(batch["values"] - plain()["values"]).mean((1, 2)) > 0.05).all() and (batch["weight"] == 1).all()
  assert ("observed" in batch) == corruption.startswith("missing")
  if "observed" in batch:
    assert (batch["values"][batch["observed"] == 0] == 0).all() and abs(batch["observed"].mean() - 0.75) < 0.02
    there = np.where(batch["observed"] > 0, batch["values"], np.nan)
    np.testing.assert_allclose(np.nanmean(there, 1), 0, atol=1e-4)
    np.testing.assert_allclose(np.nanstd(there, 1), 1, atol=1e-3)
  else:
    np.testing.assert_allclose(batch["values"].std(1), 1, atol=1e-3)


def correlation(x, y):
  """Of two columns."""
  return abs(np.corrcoef(x, y)[0, 1])


@pytest.mark.slow
def test_an_effect_of_a_lagged_cause_comes_a_row_later():
  batch, ahead = made("lagged lag=2 persistence=0.0"), []
  for x, A in zip(batch["values"], batch["adjacency"]):
    for i, j in np.argwhere(A):
      if A[:, j].sum() == 1 and not A[:, i].any():  # a root that is the only cause
        assert correlation(x[:, i], x[:, j]) < 6 / 1000**0.5
        ahead.append(correlation(np.roll(x[:, i], 2), x[:, j]))
  assert len(ahead) >= 3 and min(ahead) > 0.8  # the share of noise is 0.2


@pytest.mark.slow
def test_hidden_variables_correlate_what_the_graph_does_not_join():
  """With a hidden cause of all, roots correlate; without, not beyond 6 standard errors."""
  def roots(batch):
    found = []
    for x, A in zip(batch["values"], batch["adjacency"]):
      at = np.flatnonzero(~A.any(0))
      found += [correlation(x[:, i], x[:, j]) for i in at for j in at if i < j]
    return np.asarray(found)
  assert roots(plain()).max() < 6 / 1000**0.5
  assert np.median(roots(made("hidden num=1 prob=1.0"))) > 0.3


@pytest.mark.slow
def test_tasks_of_a_mixture_share_out_corruptions_and_the_rest_is_as_before():
  same = [np.allclose(a, b, atol=1e-4) for a, b in zip(made("none", "rounded")["values"], plain()["values"])]
  assert sum(same) == 4
