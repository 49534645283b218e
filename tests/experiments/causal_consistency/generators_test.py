"""The simulated tables against what quadrature says of them, and how a table is put together from its columns."""

import re

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, softmax

from jaxtrain import config as config_lib
from jaxtrain.data import writing
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_consistency import generators, joint, sources

import consistency_cases as cases

N = 200_000
GRID, WEIGHT = np.polynomial.hermite_e.hermegauss(201)
WEIGHT = WEIGHT / WEIGHT.sum()  # of a standard normal


def drawn(num_rows=N, seed=0, **fields):
  """Rows of a generator."""
  return generators.draw(cases.configured(**{f"data.{name}": value for name, value in fields.items()}).data, num_rows,
                         seed)


def assert_near(found, want, deviation, count=N):
  """Within 5 standard errors: a false alarm in two million."""
  assert abs(found - want) < 5 * deviation / count ** 0.5, (found, want)


@pytest.mark.parametrize("num_classes,shares,means", [
    (2, (0.5, 0.5), (-0.41324193, 0.41324193)),
    (3, (0.36777165, 0.26445669, 0.36777165), (-0.66426395, 0.0, 0.66426395)),
    (4, (0.31468393, 0.18531607, 0.18531607, 0.31468393), (-0.80950069, -0.25964233, 0.25964233, 0.80950069))])
def test_classes_and_their_covariates(num_classes, shares, means):
  """Shares of classes and means of x within each: literals of quadrature, and the sample within 5 errors of them."""
  p = softmax(GRID[:, None] * np.arange(num_classes), axis=1)
  np.testing.assert_allclose(WEIGHT @ p, shares, atol=1e-7)
  np.testing.assert_allclose((WEIGHT * GRID) @ p / (WEIGHT @ p), means, atol=1e-7)
  found = drawn(source="multiclass", num_classes=num_classes)
  for k, (share, mean) in enumerate(zip(shares, means)):
    assert_near((found.y == k).mean(), share, (share * (1 - share)) ** 0.5)
    assert_near(found.x[found.y == k].mean(), mean, 1.0, (found.y == k).sum())


def test_unadjusted_difference_and_best_likelihood():
  """E[z | y = 1] - E[z | y = 0] is 1.82648386, not the effect 1; -ln(noise) - 1.41893853 is the best likelihood."""
  found = drawn()
  by_arm = [found.z[found.y == k] for k in (0, 1)]
  assert_near(by_arm[1].mean() - by_arm[0].mean(), 1.82648386, 2.0)
  log_prob = stats.norm.logpdf(found.z[:, 0], found.mean[np.arange(N), found.y, 0], 0.1)
  assert_near(log_prob.mean(), 0.88364656, 0.5 ** 0.5)
  np.testing.assert_allclose(found.mean[:, 1] - found.mean[:, 0], 1, rtol=1e-12)


def test_an_instrument_moves_the_treatment_and_a_hidden_confounder_both():
  """Without the hidden confounder E[x | y = 1] = E[w | y = 1] = 0.36316185; with it, x does not explain all of it."""
  found = drawn(source="iv", hidden_confounding=0.0)
  for column in (found.x, found.w):
    assert_near(column[found.y == 1].mean(), 0.36316185, 1.0, N / 2)
  assert_near(np.cov(found.w[:, 0], found.y)[0, 1], 0.18158092, 0.5)
  hidden = drawn(source="iv")
  rest = hidden.z[:, 0] - hidden.x[:, 0] - hidden.y
  assert_near(rest.std() ** 2, 1.0 + 0.1 ** 2, 1.5)
  assert np.corrcoef(rest, hidden.y)[0, 1] > 0.25 > 0.02 > abs(np.corrcoef(rest, hidden.w[:, 0])[0, 1])
  several = drawn(1000, source="iv", instrument_dim=3)
  assert several.w.shape == (1000, 3)


def test_an_effect_that_depends_on_covariates():
  found = drawn(source="hetero", noise_std=0.5)
  x, effect = found.x, (found.mean[:, 1] - found.mean[:, 0])[:, 0]
  np.testing.assert_allclose(effect, 1 + 0.5 * x[:, 0] + np.sin(x[:, 1]), atol=1e-12)
  assert_near(effect.mean(), 1.0, (0.25 + 0.5 * (1 - np.exp(-2))) ** 0.5)
  assert_near(found.y.mean(), 0.5, 0.5)
  rest = (found.z - found.mean[np.arange(N), found.y])[:, 0] / (0.5 * (1 + 0.5 * np.abs(x[:, 4])))
  assert_near(rest.std(), 1.0, 0.5 ** 0.5)


@pytest.mark.parametrize("mechanism,share,by", [
    ("mcar", 0.6, lambda d: np.full(N, 0.6)), ("mar", 0.3, lambda d: 0.6 * expit(d.x[:, 0])),
    ("mnar", 0.45, lambda d: 0.6 * (0.5 + 0.5 * d.y)), ("mar_z", None, lambda d: 0.6 * expit(d.z[:, 0] - 0.5))])
def test_what_is_hidden(mechanism, share, by):
  """Overall shares r, r/2, 3r/4, and in each tenth of rows by the probability that the mechanism states."""
  found = drawn(missing_mechanism=mechanism, missing_rate=0.6)
  hidden, prob = ~found.observed, by(found)
  if share is not None:
    assert_near(hidden.mean(), share, 0.5)
  for tenth in np.array_split(np.argsort(prob), 10):
    assert_near(hidden[tenth].mean(), prob[tenth].mean(), 0.5, N / 10)


def test_dials():
  """No confounding is a randomised treatment; strength 0 of mnar hides all alike; the same seed, the same rows."""
  free = drawn(confounding=0.0)
  assert_near(free.x[free.y == 1].mean(), 0.0, 1.0, N / 2)
  alike = drawn(missing_mechanism="mnar", missing_rate=0.6, mnar_strength=0.0)
  assert_near((~alike.observed)[alike.y == 0].mean(), 0.6, 0.5, N / 2)
  np.testing.assert_array_equal(drawn(50).z, drawn(50).z)
  assert (drawn(50, seed=1).z != drawn(50).z).all()


def test_posterior_of_the_treatment():
  """logit P(y = 1 | x, z) = x + (2 (z - x) - 1) / (2 noise^2): shares of y within cells of it, at noise 1."""
  found = drawn(noise_std=1.0)
  logit = found.x[:, 0] + (2 * (found.z - found.x)[:, 0] - 1) / 2
  for cell in np.array_split(np.argsort(logit), 20):
    assert_near(found.y[cell].mean(), expit(logit[cell]).mean(), 0.5, N / 20)


def test_a_run_sees_the_seen_and_no_batch_holds_the_truth():
  config = cases.configured(**{"data.missing_rate": 0.5})
  found = joint.load(config_lib.resolve(config))
  batch = found.train.batch_at(jax.device_put(found.train.data), 0, cases.KEY)
  assert set(batch) == {"x", "label", "weight"} == {*found.train.data, "weight"}
  rows = found.train.rows(np.arange(found.train.num_rows))
  assert found.train.num_rows == 200 and found.meta["rows"] == {"train": 200, "val": 100, "test": 200}
  hidden = rows["label"] < 0
  assert 60 < hidden.sum() < 140 and (rows["label"] == rows["true_label"])[~hidden].all()
  x, w, z = sources.split_columns(found.meta, rows)
  np.testing.assert_allclose(z[:, 0] - x[:, 0] - rows["true_label"], 0, atol=0.6)
  assert w.shape == (200, 0) and rows["true_mean"].shape == (200, 2, 1)


def test_data_of_a_seed_of_its_own_or_the_runs():
  of = lambda **fields: joint.load(config_lib.resolve(cases.configured(**fields))).train.data["x"]
  np.testing.assert_array_equal(of(seed=1), of(seed=2))
  same = of(**{"seed": 3, "data.seed": -1}), of(**{"seed": 5, "data.seed": 3})
  np.testing.assert_array_equal(*same)
  assert (of(**{"seed": 4, "data.seed": -1}) != same[0]).any()


@pytest.mark.parametrize("rows, values, allowed", [(2001, 1998, "200"), (101, 21, "20"), (101, 20, None)])
def test_a_treatment_of_many_values_is_no_treatment(rows, values, allowed, tmp_path):
  """One of whose rows is not recorded."""
  severity = np.array([None, *(f"{0.25 * (k % values)}" for k in range(rows - 1))], object)
  z, x = np.random.RandomState(0).normal(size=(2, rows))
  writing.write(str(tmp_path / "a.csv"), {"x": x, "severity": severity, "z": z})
  config = cases.configured("csv", **{
      "data.path": str(tmp_path / "a.csv"), "data.treatment": "severity", "data.outcomes": ("z",),
      "data.features": ("x",)})
  if allowed is None:
    assert len(joint.load(config_lib.resolve(config)).meta["class_names"]) == values
    return
  words = (f"config.data.treatment: column 'severity' has {values:,} different values in {rows - 1:,} recorded rows, "
           f"allowed up to {allowed} classes: cut it into a few")
  with pytest.raises(UserError, match=f"^{re.escape(words)}$"):
    joint.load(config_lib.resolve(config))


@pytest.mark.parametrize("fields,words", [
    ({"data.missing_rate": 1.0}, "config.data.missing_rate: got 1.0, allowed 0 or more and below 1: with no treatment"),
    ({"data.num_classes": 3}, "config.data.num_classes: got 3, allowed 2 with config.data.source=base"),
    ({"data.outcomes": ("z",)}, "config.data.outcomes: got ('z',), allowed nothing with config.data.source=base"),
    ({"data.missing_rate": 0.99999}, "no training row has the recorded treatment"),
    ({"data.source": "csv", "data.num_samples": 1000}, "config.data.treatment: got ''"),
    ({"data.transforms": ("signed_log1p", "identity")},
     "config.data.transforms: got 'signed_log1p' for the outcome 'z'"),
    ({"data.features": ("q",)}, "config.data.features: simulated, base has no column 'q'"),
    ({"data.hidden_confounding": 2.0},
     "config.data.hidden_confounding: got 2.0, allowed 1.0 with config.data.source=base"),
    ({"data.instrument_strength": 2.0}, "config.data.instrument_strength: got 2.0, allowed 1.0"),
    ({"data.source": "csv", "data.num_samples": 1000, "data.missing_rate": 0.9},
     "config.data.missing_rate: got 0.9, allowed 0.0 with config.data.source=csv; it is a dial of base | multiclass"),
    ({"data.source": "ihdp_a", "data.num_samples": 1000, "data.confounding": 2.0},
     "config.data.confounding: got 2.0, allowed 1.0 with config.data.source=ihdp_a")])
def test_refused(fields, words):
  with pytest.raises(UserError, match=re.escape(words)):
    joint.load(config_lib.resolve(cases.configured(**fields)))
