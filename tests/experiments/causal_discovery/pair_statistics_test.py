"""Statistics of pairs against NumPy and scikit-learn in float64: missing cells, interventions, many rows."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings, strategies
from sklearn import linear_model

from jaxtrain.experiments.causal_discovery import pair_statistics

# A test calls what it compiles a few times: half the time to compile is worth more than fast code.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
quick_jit = functools.partial(jax.jit, compiler_options=QUICK)

N, D = 90, 4
SHARED = 2 + 9  # statistics that are the same in both directions; then come those of i, j and those of j, i
ALL = pair_statistics.GROUPS
of_tasks = quick_jit(lambda *tables: pair_statistics.of_tasks(*tables, ALL))
moments = quick_jit(pair_statistics.moments)


def table(seed=0, missing=0.2, num_rows=N):
  """(values, intervened, observed) [n, D] float32: nonlinear effects, a third of the rows with one variable set."""
  random = np.random.RandomState(seed)
  x = random.normal(size=(num_rows, D))
  x[:, 1] += 1.5 * x[:, 0]
  x[:, 2] = 0.5 * x[:, 2] + np.tanh(2 * x[:, 1]) + 3
  x[:, 3] = 20 * (np.square(x[:, 2] - 3) + 0.2 * x[:, 3])
  marks, rows = np.zeros((num_rows, D)), np.arange(num_rows)[::3]
  marks[rows, random.randint(D, size=len(rows))] = 1
  x = np.where(marks > 0, random.normal(size=x.shape), x)
  return tuple(part.astype(np.float32) for part in (x, marks, random.rand(num_rows, D) >= missing))


def functions(z):
  """The basis of one variable [m] in float64, [m, 5]."""
  return np.stack([z, z**2, z**3 - 3 * z, np.tanh(1.5 * z), np.abs(z)], 1)


class Plain:
  """Moments of a table by loops over pairs; a cell that is missing is NaN."""

  def __init__(self, values, marks, observed):
    x = np.where(observed > 0, values.astype(np.float64), np.nan)
    self.marks, self.free = marks, marks.sum(1) == 0
    self.z = (x - np.nanmean(x[self.free], 0)) / np.nanstd(x[self.free], 0)
    f = np.stack([functions(column) for column in self.z.T], 1)  # [n, D, K]
    inside = f[self.free]
    self.scale = np.nanstd(inside, 0)
    self.f = (inside - np.nanmean(inside, 0)) / self.scale

  def mean(self, *factors):
    """Mean of a product over the rows in which all are there."""
    return np.nanmean(np.prod(factors, 0))

  def shrunk(self, chosen):
    """Sums over rows with both cells, over the root of both counts; the ridge on the diagonal."""
    f = self.f[..., chosen].reshape(len(self.f), -1)
    count = np.sqrt((~np.isnan(f)).sum(0))
    C = np.nan_to_num(f).T @ np.nan_to_num(f) / count[:, None] / count[None]
    ridge = f.shape[1] / 6 / (~np.isnan(self.f[..., 0])).sum(0).max()
    return C * (1 - np.eye(len(C))) + (1 + ridge) * np.eye(len(C))


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_moments_are_means_over_the_rows_with_both_cells(missing):
  tables = table(missing=missing)
  got, want = jax.device_get(moments(*tables)), Plain(*tables)
  f, z, size = want.f, want.z, want.f[..., 4]
  for i in range(D):
    there = ~np.isnan(z[:, i])
    assert got.powers[i, 0] == pytest.approx(np.mean(z[there & want.free, i]**3), rel=1e-3, abs=1e-4)
    assert got.powers[i, 1] == pytest.approx(np.mean(z[there & want.free, i]**4), rel=1e-3)
    np.testing.assert_allclose(got.scale[i], want.scale[i], rtol=1e-4)
    for j in range(D):
      both, chosen = ~np.isnan(f[:, i, 0] + f[:, j, 0]), (want.marks[:, i] > 0) & ~np.isnan(z[:, i] + z[:, j])
      assert got.count[i, j] == both.sum() and got.num_set[i, j] == chosen.sum()
      a, b = z[chosen, i], z[chosen, j]
      set_means = [b.mean(), (b**2 - 1).mean(), (a * b).mean(), ((a**2 - 1) * b).mean()]
      np.testing.assert_allclose(got.set_means[:, i, j], set_means, rtol=1e-3, atol=1e-4)
  cross, third, mixed = np.zeros((5, 5, D, D)), np.zeros((D, 5, 5)), np.zeros((D, 5, D))
  for i, k in np.ndindex(D, 5):
    for j in range(D):
      mixed[i, k, j] = want.mean(f[:, i, k], size[:, i], f[:, j, 0])
      cross[k, :, i, j] = [want.mean(f[:, i, k], f[:, j, other]) for other in range(5)]
    third[i, k] = [want.mean(f[:, i, k], f[:, i, other], size[:, i]) for other in range(5)]
  np.testing.assert_allclose(got.mixed, mixed, atol=1e-4)
  np.testing.assert_allclose(got.cross, cross, atol=1e-4)
  np.testing.assert_allclose(got.third, third, rtol=1e-3, atol=1e-4)


def test_partial_correlation_and_residuals_are_those_of_the_inverse():
  tables = table()
  got, want = moments(*tables), Plain(*tables)
  mask = np.ones(D, np.float32)
  precision = quick_jit(lambda m: pair_statistics.invert(pair_statistics.shrunk(m, (0,), mask)))(got)
  P = np.linalg.inv(want.shrunk([0]))
  np.testing.assert_allclose(precision, P, rtol=1e-3, atol=1e-4)
  r = np.array([[want.mean(want.f[:, i, 0], want.f[:, j, 0]) for j in range(D)] for i in range(D)])
  r[np.diag_indices(D)] = 1
  partial = -P / np.sqrt(np.outer(np.diag(P), np.diag(P)))
  partial[np.diag_indices(D)] = 1
  errors = np.arcsinh(np.sqrt(np.asarray(got.count)) * np.abs(r) / 4)
  found = quick_jit(pair_statistics.linear)(got, precision)
  for one, other in zip(found.both[:5], (r, np.abs(r), errors, partial, np.abs(partial)), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
  left = quick_jit(pair_statistics.residual)(got, precision)
  for k, one in zip((1, 2, 3, 4), left.each, strict=True):
    with_k = np.array([[want.mean(want.f[:, i, k], want.f[:, j, 0]) for j in range(D)] for i in range(D)])
    np.testing.assert_allclose(one, with_k @ P / np.sqrt(np.diag(P @ r @ P)), rtol=1e-3, atol=1e-3)


def test_the_regression_on_one_variable_is_that_of_ridge_regression():
  """Left-over variance and how the squared residual goes with |i|, from the residuals themselves."""
  tables = table(missing=0.0)
  found, want = quick_jit(pair_statistics.regression)(moments(*tables), None), Plain(*tables)
  for i in range(D):
    for j in (j for j in range(D) if j != i):
      X, y = want.f[:, i], want.f[:, j, 0]
      ridge = linear_model.Ridge(alpha=0.05 * len(X), fit_intercept=False).fit(X, y)
      squared = np.square(y - ridge.predict(X))
      np.testing.assert_allclose(found.each[0][i, j], squared.mean(), rtol=1e-3, atol=1e-4)
      np.testing.assert_allclose(found.each[1][i, j], np.mean(squared * X[:, 4]), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_gains_of_the_additive_regression_are_those_of_leaving_a_variable_out(missing):
  tables, K, chosen = table(missing=missing), 4, [0, 1, 3, 4]
  found = quick_jit(pair_statistics.additive)(moments(*tables), np.ones(D, np.float32))
  S = Plain(*tables).shrunk(chosen)
  block = lambda i: list(range(K * i, K * i + K))

  def fit(j, left_out):
    columns = sum((block(i) for i in range(D) if i != j and i not in left_out), [])
    slopes = np.linalg.solve(S[np.ix_(columns, columns)], S[columns, K * j])
    return S[K * j, K * j] - S[K * j, columns] @ slopes, dict(zip(columns, slopes, strict=True))
  for j in range(D):
    whole, slopes = fit(j, ())
    for i in (i for i in range(D) if i != j):
      gain = np.log(fit(j, (i,))[0] / whole)
      want = [gain, np.log(gain + 1e-3), slopes[K * i], np.log(whole)]
      np.testing.assert_allclose([one[i, j] for one in found.each], want, rtol=1e-2, atol=2e-3)


def test_rows_in_chunks_give_the_same_moments(monkeypatch):
  """90 rows in chunks of 40, the last one short; all statistics are made of these moments."""
  tables = table()
  whole = moments(*tables)
  monkeypatch.setattr(pair_statistics, "ROWS_AT_A_TIME", 40)
  parts = quick_jit(lambda *args: pair_statistics.moments(*args))(*tables)
  for one, other in zip(parts, whole, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_what_is_missing_or_padding_is_never_read():
  values, marks, observed = table()
  mask = np.array([1, 1, 0, 1], np.float32)
  lone = [np.delete(part, 2, axis=1)[None] for part in (values, marks, observed)]
  for filling in (0.0, np.nan, 1e30):
    filled = np.where((observed > 0) & (mask > 0), values, filling).astype(np.float32)
    found = of_tasks(filled[None], np.where(mask > 0, marks, filling)[None], observed[None], mask[None])
    assert (found[0, 2] == 0).all() and (found[0, :, 2] == 0).all()
    inner = np.delete(np.delete(np.asarray(found), 2, axis=1), 2, axis=2)
    np.testing.assert_allclose(inner, of_tasks(*lone, np.ones((1, 3), np.float32)), rtol=1e-3, atol=1e-3)


@settings(deadline=None, max_examples=10)
@given(seed=strategies.integers(0, 10_000), order=strategies.permutations(range(D)))
def test_statistics_move_with_the_variables_and_change_sides_with_the_pair(seed, order):
  tables, mask = table(seed), np.ones((1, D), np.float32)
  found = np.asarray(of_tasks(*(part[None] for part in tables), mask))[0]
  moved = np.asarray(of_tasks(*(part[:, list(order)][None] for part in tables), mask))[0]
  np.testing.assert_allclose(moved, found[list(order)][:, list(order)], rtol=1e-3, atol=1e-3)
  both, each = found[..., :SHARED], found[..., SHARED:]
  np.testing.assert_allclose(both, np.swapaxes(both, 0, 1), atol=1e-5)
  half = each.shape[-1] // 2
  np.testing.assert_array_equal(each[..., :half], np.swapaxes(each[..., half:], 0, 1))


@pytest.mark.parametrize("values", ["constant", "binary", "alike", "few", "none", "tails"])
def test_degenerate_tables_give_finite_statistics(values):
  x, marks, observed = table()
  x, observed = {"constant": (np.ones_like(x), observed), "binary": (np.sign(x - x.mean(0)), observed),
                 "alike": (np.repeat(x[:, :1], D, axis=1), observed),
                 "few": (x, observed * (np.arange(N) < 2)[:, None]), "none": (x, np.zeros_like(observed)),
                 "tails": ((x / 20)**9, observed)}[values]
  found = np.asarray(of_tasks(*(part[None].astype(np.float32) for part in (x, marks, observed)), np.ones((1, D))))
  assert np.isfinite(found).all() and np.abs(found).max() <= pair_statistics.MOST


def test_inverses_of_positive_definite_matrices():
  random = np.random.RandomState(0)
  A = random.normal(size=(3, 2, 7, 9))
  S = A @ np.swapaxes(A, -1, -2) + 0.1 * np.eye(7)
  np.testing.assert_allclose(quick_jit(pair_statistics.invert)(S.astype(np.float32)), np.linalg.inv(S), rtol=1e-3,
                             atol=1e-4)


def test_groups_of_statistics_can_be_left_out():
  size = lambda *groups: jax.eval_shape(lambda *args: pair_statistics.of_task(*args, groups), *table(),
                                        np.ones(D, np.float32)).shape[-1]
  assert all(size(group) > 8 for group in ALL)  # 8 are there whatever is chosen
  assert size(*ALL) == 8 + sum(size(group) - 8 for group in ALL)
