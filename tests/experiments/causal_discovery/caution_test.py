"""Caution with tables unlike those of training: the numbers that ask for it, and what it does to the logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import scipy.stats
from ml_collections import ConfigDict

from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import caution, pair_statistics

WEIGHTS = (-2.0, 0.5, 1.0, -0.25, 1.5, -0.5, 0.3)
# A test calls what it compiles a few times: half the time to compile is worth more than fast code.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
quick_jit = functools.partial(jax.jit, compiler_options=QUICK)


def tables(seed=0, n=90, D=3):
  """Values, which cells are there, and where variables were set, of one table."""
  random = np.random.RandomState(seed)
  x = random.normal(size=(n, D)) ** 3
  x[:, 1] = np.round(x[:, 1])  # ties
  return x.astype(np.float32), (random.rand(n, D) < 0.8).astype(np.float32), np.zeros((n, D), np.float32)


def batch_of(values, observed, intervened):
  """One task of it."""
  return {"values": values[None], "observed": observed[None], "intervened": intervened[None],
          "node_mask": np.ones((1, values.shape[1]), np.float32)}


def test_normal_scores_are_those_of_mean_ranks():
  """scipy's ranks and normal quantiles in float64; a missing cell, whatever stands there, is 0 and takes no rank."""
  values, observed, _ = tables()
  found = np.asarray(quick_jit(caution.normal_scores)(np.where(observed > 0, values, np.nan), observed))
  for j in range(3):
    there = observed[:, j] > 0
    ranks = scipy.stats.rankdata(values[there, j].astype(np.float64))
    np.testing.assert_allclose(found[there, j], scipy.stats.norm.ppf((ranks - 0.5) / there.sum()), atol=2e-5)
    assert not found[~there, j].any()


def test_both_numbers_are_their_formulas():
  """Log kurtosis by scipy; n r |r| of rows by a loop over windows. Rows with an intervention and padding count not."""
  values, observed, intervened = tables()
  intervened[70:, 0] = 1.0
  batch = batch_of(values, observed, intervened)
  batch["node_mask"][0, 2] = 0.0
  found = quick_jit(caution.unlike)(batch)
  there = (observed > 0) & (intervened.max(1, keepdims=True) == 0)
  kurtosis = [np.log(scipy.stats.kurtosis(values[there[:, j], j].astype(np.float64), fisher=False)) for j in range(2)]
  np.testing.assert_allclose(found.tails[0], np.mean(kurtosis), rtol=1e-4)
  each = []
  for j in range(2):
    x = np.zeros(len(values))
    x[there[:, j]] = scipy.stats.norm.ppf((scipy.stats.rankdata(values[there[:, j], j]) - 0.5) / there[:, j].sum())
    left = np.zeros(len(x))
    for t in np.flatnonzero(there[:, j]):
      window = slice(max(t - 10, 0), t + 11)
      left[t] = x[t] - x[window].sum() / there[window, j].sum()
    r = left[1:] @ left[:-1] / (left @ left)
    each.append(there[:, j].sum() * r * abs(r))
  np.testing.assert_allclose(found.dependence[0], min(each), rtol=1e-3)  # of two the lower


def test_a_sorted_table_passes_and_a_time_series_does_not():
  """Rows of independent draws in the order of one variable, which is a cause of the others, against an AR(1)."""
  random, n = np.random.RandomState(1), 400
  x = random.normal(size=(n, 5))
  x[:, 1:] += 0.7 * x[:, :1]
  series = scipy.signal.lfilter([1.0], [1.0, -0.8], random.normal(size=(n, 5)), axis=0)
  unlike = quick_jit(caution.unlike)
  def number(rows, num=5):
    tables = (part.astype(np.float32) for part in (rows, np.ones_like(rows), np.zeros_like(rows)))
    return float(unlike(batch_of(*tables) | {"node_mask": np.float32(np.arange(5) < num)[None]}).dependence[0])
  assert number(x) < 2.0 and number(x[np.argsort(x[:, 0])]) < 5.0 and number(series) > 20.0
  assert number(x[np.argsort(x[:, 0])], 2) < 5.0  # of two variables one is in order


def model_of(**fields):
  """The section `model` of a config, as far as caution reads it."""
  return ConfigDict({"statistics": ("linear",), "head": "independent", "tail_range": (), "dependence_range": (),
                     "correlation_weights": ()} | fields)


def batch_of_three():
  """Three tables, the first with the lightest tails."""
  values, observed, intervened = (np.stack(parts) for parts in zip(*(tables(seed) for seed in range(3))))
  values = np.sign(values) * np.abs(values) ** np.array([0.2, 0.6, 1.0], np.float32)[:, None, None]
  return {"values": values, "observed": observed, "intervened": intervened, "node_mask": np.ones((3, 3), np.float32)}


def test_ranks_count_as_tails_grow(monkeypatch):
  """A network whose logit of (i, j) is the mean of i's absolute values; tables without, with part and all of it."""
  batch = batch_of_three()
  statistics_of = lambda values, *_: jnp.broadcast_to(jnp.mean(jnp.abs(values), 1)[:, :, None, None], (3, 3, 3, 1))
  monkeypatch.setattr(pair_statistics, "of_tasks", statistics_of)
  read = lambda statistics: statistics[..., 0]
  own, ranked, tails = jax.device_get(quick_jit(lambda: (
      read(statistics_of(batch["values"])),
      read(statistics_of(jax.vmap(caution.normal_scores)(batch["values"], batch["observed"]))),
      caution.unlike(batch).tails))())
  low, middle, high = map(float, tails)
  model = model_of(tail_range=(low + 0.1, high))
  found = np.asarray(quick_jit(lambda: caution.temper(model, batch, statistics_of(batch["values"]), own, read))())
  part = (middle - low - 0.1) / (high - low - 0.1) / 2  # of the weight of the ranks, whose most is a half
  np.testing.assert_array_equal(found[0], own[0])
  np.testing.assert_allclose(found[1], own[1] + part * (ranked[1] - own[1]), atol=1e-6)
  np.testing.assert_allclose(found[2], 0.5 * (own[2] + ranked[2]), atol=1e-6)
  assert low + 0.2 < middle < high - 0.1 and np.abs(own - ranked)[1:].max() > 0.05


def test_correlations_take_over_where_rows_depend():
  """The regression written out in float64 on the statistics r (position 2) and partial r (5)."""
  batch = batch_of_three()
  model = model_of(dependence_range=(-100.0, -90.0), correlation_weights=WEIGHTS)

  @quick_jit
  def both(batch):
    tables = (batch[name] for name in ("values", "intervened", "observed", "node_mask"))
    statistics = pair_statistics.of_tasks(*tables, ("linear",))
    return statistics, caution.temper(model, batch, statistics, jnp.zeros((3, 3, 3)), None)
  statistics, found = map(np.asarray, both(batch))
  n = np.einsum("bni,bnj->bij", batch["observed"], batch["observed"])
  r, partial = (np.abs(np.asarray(statistics, np.float64)[..., k]) for k in (2, 5))
  inputs = [np.ones_like(r), r, np.arcsinh(np.sqrt(n) * r / 4), partial, np.arcsinh(np.sqrt(n) * partial / 4),
            np.log(n / 100), np.full(r.shape, np.log(0.3))]
  simple = sum(weight * part for weight, part in zip(WEIGHTS, inputs))
  off = ~np.eye(3, dtype=bool)
  np.testing.assert_allclose(found[:, off], simple[:, off], atol=1e-5)
  np.testing.assert_allclose(found[:, off], np.swapaxes(found, 1, 2)[:, off])


def test_a_table_that_is_far_away_is_told_so():
  batch = batch_of(*tables())
  model = model_of(tail_range=(0.5, 1.0), dependence_range=(-100.0, -50.0), correlation_weights=WEIGHTS)
  tails, rows = caution.say(model, batch)
  assert tails.startswith("heavy tails: ") and "begins at 0.5" in tails and tails.endswith("count 50 %")
  assert rows.startswith("rows resemble") and "open, count 100 %" in rows
  assert caution.say(model_of(tail_range=(50.0, 60.0)), batch) == [] == caution.say(model_of(), batch)


@pytest.mark.parametrize("fields", [
    {"tail_range": (1.0,)}, {"tail_range": (2.0, 2.0)}, {"dependence_range": (1.0, 2.0)},
    {"correlation_weights": WEIGHTS}, {"tail_range": (1.0, 2.0), "head": "arrow"},
    {"dependence_range": (1.0, 2.0), "correlation_weights": WEIGHTS, "statistics": ("moments", "linear")}])
def test_fields_that_do_not_fit_are_refused(fields):
  with pytest.raises(UserError, match="allowed"):
    caution.check(model_of(**fields))
  caution.check(model_of(tail_range=(1.0, 2.0), dependence_range=(1.0, 2.0), correlation_weights=WEIGHTS))
