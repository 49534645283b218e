"""Estimators of effects with missing treatments: values and standard errors against stacked equations in NumPy, what
they are invariant to, and degenerate tables.
"""

import functools

import jax
import numpy as np
import pytest
from scipy import special

from jaxtrain.experiments.causal_consistency import estimators
from jaxtrain.experiments.causal_consistency.estimators import Data, Spec

N, RIDGE = 512, 1e-9
SPEC = Spec(2, num_folds=1, ridge=RIDGE)
MISSING_ALIKE = ("deletion", "ipo", "mi_propensity", "mi_outcome", "aipw", "triply_robust")


@functools.cache
def compiled():
  """`estimate`, compiled, with the ridge as an argument: one program for all of them."""
  return jax.jit(lambda data, spec, ridge: estimators.estimate(data, spec._replace(ridge=ridge)), static_argnums=1)


def estimate(data, spec=SPEC):
  """Estimates of a table as it is, in the precision of its numbers."""
  return jax.tree.map(np.asarray, compiled()(data, spec._replace(ridge=None), data.z.dtype.type(spec.ridge)))


def run(data, spec=SPEC):
  """Estimates of a table in float64; one of N rows is filled up to 2 N, so that one program serves most tests."""
  data = filled(data) if len(data.z) == N else data
  with jax.enable_x64(True):
    return estimate(data, spec)


def filled(data):
  """A table with its rows once more, which have no weight."""
  longer, rows = Data(*(np.concatenate([leaf, leaf]) for leaf in data)), np.arange(2 * len(data.z), dtype=np.int32)
  return longer._replace(weight=(rows < len(data.z)).astype(float), group=rows)


def made(seed=0, missing=True, num_rows=N):
  """A table of one covariate, the treatment recorded by covariate and outcome, effect 1; z has mean 3, deviation 2."""
  random = np.random.default_rng(seed)
  x = random.normal(size=num_rows)
  y = (random.uniform(size=num_rows) < special.expit(0.7 * x)).astype(np.int32)
  z = 2 + x + y + random.normal(size=num_rows)
  recorded = (random.uniform(size=num_rows) < special.expit(0.4 * x + 0.5 * (z - 2.5))) | (not missing)
  ones = np.ones(num_rows)
  of_x = np.stack([ones, x], axis=1)
  return Data(np.where(recorded, y, -1).astype(np.int32), z, np.stack([ones, x, (z - 2.5) / 2], axis=1), of_x, of_x,
              ones, np.arange(num_rows, dtype=np.int32), np.arange(num_rows, dtype=np.int32) % 5)


@pytest.fixture(scope="module")
def table():
  """A table and its estimates."""
  data = made()
  return data, run(data)


def rows_of(theta, name, data):
  """[N, parameters]: the stacked estimating functions of an estimator, written out for two classes."""
  f, g, z, y = data.treatment, data.recording, data.z, data.y
  R = (y >= 0).astype(float)
  own = np.stack([y == 0, y == 1], axis=1).astype(float)
  pi, used = special.expit(g @ theta[:3]), 3
  parts = [(R - pi)[:, None] * g]
  odds = R / pi

  def arms(q):
    nonlocal used
    b, a = theta[used:used + 2], theta[used + 2:used + 6].reshape(2, 2)
    used += 6
    e, m = special.expit(f @ b), f @ a.T
    told = np.stack([1 - e, e], axis=1), m
    return told, [(q[:, 1] - q.sum(axis=1) * e)[:, None] * f] + [(q[:, j] * (z - m[:, j]))[:, None] * f for j in (0, 1)]

  if name in ("ipo", "aipw", "ipw_hajek", "ipw_ht"):
    q = odds[:, None] * own
    (e, m), more = arms(q)
    size = {"ipo": odds[:, None], "ipw_hajek": q / e}.get(name, np.ones((len(z), 1)))
    score = q / e * z[:, None] if name.startswith("ipw") else size * m + q / e * (z[:, None] - m)
  else:
    b, a, sd = theta[3:5], theta[5:9].reshape(2, 2), np.exp(theta[9:11])
    used = 11
    e, m = special.expit(f @ b), f @ a.T
    joint = np.stack([1 - e, e], axis=1) * np.exp(-0.5 * ((z[:, None] - m) / sd) ** 2) / sd
    posterior = joint / joint.sum(axis=1, keepdims=True)
    q = np.where(R[:, None] > 0, own, posterior)
    more = [(q[:, 1] - e)[:, None] * f] + [(q[:, j] * (z - m[:, j]))[:, None] * f for j in (0, 1)]
    more += [q * (((z[:, None] - m) / sd) ** 2 - 1)]
    q = posterior + odds[:, None] * (own - posterior)
    (e, m), last = arms(q)
    more, size = more + last, 1.0
    score = m + q / e * (z[:, None] - m)
  return np.concatenate([*parts, *more, score - size * theta[used:used + 2]], axis=1)


def solved(name, data):
  """(effect, its stacked standard error) by Newton's method on all equations at once with numerical derivatives."""
  size = 3 + 6 + 2 + (8 if name == "triply_robust" else 0)
  theta = np.zeros(size)
  if name == "triply_robust":
    theta[[5, 7, 13, 15]] = [2, 3, 2, 3]
  mean = lambda at: rows_of(at, name, data).mean(axis=0)
  slope = lambda at: np.stack([(mean(at + h) - mean(at - h)) / 2e-6 for h in 1e-6 * np.eye(size)], axis=1)
  for _ in range(40):
    move = np.linalg.solve(slope(theta), mean(theta))
    theta = theta - move * min(1, 1 / np.abs(move).max())
  assert np.abs(mean(theta)).max() < 1e-8
  bread = np.linalg.inv(slope(theta))
  rows = rows_of(theta, name, data)
  influence = (rows @ bread.T)[:, -1] - (rows @ bread.T)[:, -2]
  return theta[-1] - theta[-2], np.sqrt((influence ** 2).sum() * len(rows) / (len(rows) - 1)) / len(rows)


@pytest.mark.parametrize("name", ["ipo", "aipw", "ipw_ht", "ipw_hajek", "triply_robust"])
def test_value_and_stacked_error_are_those_of_the_equations(table, name):
  data, found = table
  value, error = solved(name, data)
  assert found[name].value == pytest.approx([value], abs=1e-6)
  assert found[name].stacked_se == pytest.approx([error], rel=1e-5)


def test_estimates_are_near_the_effect_where_nothing_is_wrong(table):
  _, found = table
  for name in ("ipo", "mi_outcome", "plug_in", "ipw_ht", "ipw_hajek", "aipw", "triply_robust"):
    assert abs(found[name].value[0] - 1) < 4 * found[name].stacked_se[0] < 1, name
  assert found["mi_propensity"].value[0] + 4 * found["mi_propensity"].stacked_se[0] < 1


def test_with_all_recorded_those_that_treat_missing_ones_differently_agree():
  found = run(made(1, missing=False))
  for name in MISSING_ALIKE:
    assert found[name].value == pytest.approx(found["deletion"].value, abs=1e-4), name
    assert found[name].stacked_se == pytest.approx(found["deletion"].stacked_se, rel=1e-3), name


def test_padding_and_order_of_rows_do_not_matter(table):
  data, found = table
  order = np.random.default_rng(2).permutation(N)
  mixed = run(Data(*(leaf[order] for leaf in data)))
  order = np.random.default_rng(3).permutation(2 * N)
  between = run(Data(*(leaf[order] for leaf in filled(data))))  # padding need not come last
  for name, one in found.items():
    for other in (mixed[name], between[name]):
      np.testing.assert_allclose(np.ravel(other), np.ravel(one), rtol=1e-6, err_msg=name)


def test_rows_that_stand_twice_in_a_group_tell_no_more(table):
  data, found = table
  twice = Data(*(np.concatenate([leaf, leaf]) for leaf in data))
  grouped = run(twice)
  apart = run(twice._replace(group=np.arange(2 * N, dtype=np.int32)))
  for name, one in found.items():  # the floor of propensities goes by the number of rows
    np.testing.assert_allclose(grouped[name].stacked_se, one.stacked_se, rtol=5e-3, err_msg=name)
    np.testing.assert_allclose(apart[name].stacked_se * 2 ** 0.5, one.stacked_se, rtol=5e-3, err_msg=name)


def test_the_unit_of_the_outcome_does_not_matter(table):
  data, found = table
  moved = run(data._replace(z=10 * data.z))
  for name, one in found.items():
    np.testing.assert_allclose(np.ravel(moved[name]), 10 * np.ravel(one), rtol=1e-6, err_msg=name)


@pytest.mark.slow
def test_a_table_without_padding_has_the_same_estimates(table):
  data, found = table
  with jax.enable_x64(True):
    plain = estimate(data)
  for name, one in found.items():
    np.testing.assert_allclose(np.ravel(plain[name]), np.ravel(one), rtol=1e-6, err_msg=name)


@pytest.mark.slow
def test_single_precision_is_good_to_four_digits(table):
  data, found = table
  single = Data(*(leaf.astype(np.float32) if leaf.dtype == np.float64 else leaf for leaf in data))
  for name, one in estimate(single).items():
    assert one.value.dtype == np.float32
    np.testing.assert_allclose(np.ravel(one), np.ravel(found[name]), atol=2e-4, err_msg=name)


def test_degenerate_tables_give_numbers_or_nan(table):
  data, _ = table
  assert all(np.isnan(np.ravel(one)).all() for one in run(data._replace(z=np.ones(N))).values())
  split = np.where(data.y >= 0, data.treatment[:, 1] > 0, -1).astype(np.int32)
  for one in run(data._replace(y=split), SPEC._replace(ridge=1.0)).values():
    assert np.isfinite(one.value).all()
  none = run(data._replace(y=np.full(N, -1, np.int32)), SPEC._replace(ridge=1.0))
  assert none["deletion"].value.shape == (1,)


@pytest.mark.slow
def test_cross_fitting_is_close_to_the_whole(table):
  data, found = table
  split = run(data, SPEC._replace(num_folds=5))
  for name, one in found.items():
    if name != "aipw":
      np.testing.assert_allclose(np.ravel(split[name]), np.ravel(one), rtol=1e-6)
  assert 0 < abs(split["aipw"].value[0] - found["aipw"].value[0]) < found["aipw"].stacked_se[0] / 2


@pytest.mark.slow
def test_three_classes_have_an_effect_each():
  random, rows = np.random.default_rng(3), 4000
  data = made(3, num_rows=rows)
  x = data.treatment[:, 1]
  y = (np.arange(3) * x[:, None] + random.gumbel(size=(rows, 3))).argmax(axis=1)
  z = x + y + random.normal(size=rows)
  recorded = random.uniform(size=rows) < special.expit(0.5 * (z - 1))
  g = np.stack([np.ones(rows), x, z - 1], axis=1)
  found = run(data._replace(y=np.where(recorded, y, -1).astype(np.int32), z=z, recording=g), Spec(3))
  for name in ("ipo", "mi_outcome", "plug_in", "ipw_hajek", "aipw", "triply_robust"):
    assert (np.abs(found[name].value - [1, 2]) < 4 * found[name].stacked_se).all(), name
    assert (found[name].stacked_se < 0.3).all()


@pytest.mark.slow
def test_a_tilt_moves_the_imputed_treatments():
  data = made()
  with jax.enable_x64(True):
    fits = jax.jit(estimators.fit, static_argnums=1)(data, SPEC)
    found = jax.tree.map(np.asarray, jax.jit(estimators.tilted, static_argnums=2)(
        fits, data, SPEC, np.array([-40.0, 0.0, 40.0])))
  plain = run(data)["mi_outcome"]
  np.testing.assert_allclose([found.value[1], found.stacked_se[1]], [plain.value, plain.stacked_se], rtol=1e-6)
  for tilt, all_of in ((0, 0), (2, 1)):  # then all that is unrecorded is of one class
    sure = run(data._replace(y=np.where(data.y < 0, all_of, data.y).astype(np.int32)))["deletion"]
    np.testing.assert_allclose(found.value[tilt], sure.value, rtol=1e-5)
