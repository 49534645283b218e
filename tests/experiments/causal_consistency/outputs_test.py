"""What a model says of rows in raw units, and the posterior of its mean effects."""

import jax
import numpy as np
import pytest

import consistency_cases as cases
from jaxtrain import config as config_lib, rng
from jaxtrain.experiments.causal_consistency import evaluate, joint, outputs


def untrained(**fields):
  """(functions, meta, parameters, training rows) of a model that has not been trained."""
  config = config_lib.with_values(config_lib.resolve(cases.configured(**fields)), {"optim.decay_steps": 10})
  found = joint.load(config)
  params = joint.make(config, found.meta).init(rng.root_key(1), {}).params
  rows = found.train.rows(np.arange(found.train.num_rows))
  return outputs.make_functions(joint.make_model(config, found.meta), found.meta), found.meta, params, rows


@pytest.mark.slow
def test_units():
  """The same scaled rows under other shifts and factors: means and deviations follow, densities divide by factors."""
  functions, meta, params, rows = untrained(**{"data.source": "iv", "data.transforms": ("identity",) * 3})
  plain = outputs.predicted(functions, meta, params, rows["x"])
  other = meta | {"scaler": meta["scaler"] | {"mean": [5.0, 1.0, 2.0], "std": [2.0, 3.0, 7.0]}}  # z, w, x
  raw = outputs.predicted(functions, other, params, rows["x"])
  np.testing.assert_allclose(raw.mean, 5 + 2 * plain.mean, rtol=1e-12)
  np.testing.assert_allclose(raw.sd, 2 * plain.sd, rtol=1e-12)
  for name, factor in (("log_lik", 2), ("log_w", 3), ("log_x", 7)):
    np.testing.assert_allclose(getattr(raw, name), getattr(plain, name) - np.log(factor), rtol=1e-9)
  for name in ("log_prior", "log_head", "log_posterior"):
    np.testing.assert_array_equal(getattr(raw, name), getattr(plain, name))
  curved = meta | {"scaler": meta["scaler"] | {"transforms": ["identity", "signed_log1p", "identity"]}}
  assert outputs.predicted(functions, curved, params, rows["x"]).log_x is None  # its density is another one
  found = outputs.rows_of(other, rows)
  np.testing.assert_allclose(found["z"], 5 + 2 * rows["x"][:, :1], atol=1e-5)
  np.testing.assert_allclose(found["w"], 1 + 3 * rows["x"][:, 1:2], atol=1e-5)
  assert set(found) == {"x", "w", "z", "y", "y_true", "mean_true"}


@pytest.mark.slow
def test_a_bayesian_assessment_has_one_interval(monkeypatch):
  """One linear layer: the mean effect is Normal, by the formula; the E-value's limit is that of the same interval."""
  monkeypatch.setattr(outputs, "DRAWS", 4000)
  functions, meta, params, rows = untrained(**{"model.bayesian": True, "model.hidden_dims": ()})
  draws = outputs.effect_draws(functions, meta, params, rows["x"][:, 1:], cases.KEY)
  layer, sd = params["mean"]["Linear_0"], jax.tree.map(np.exp, params["log_sd"]["Linear_0"])
  slope, bias, x = np.asarray(layer["kernel"]), np.asarray(layer["bias"]), rows["x"][:, 1].mean(dtype=np.float64)
  mean = (slope[1] - slope[0])[0, 0] * x + (bias[1] - bias[0])[0]
  deviation = np.sqrt(x ** 2 * np.square(sd["kernel"][:, 0, 0]).sum() + np.square(sd["bias"][:, 0]).sum())
  # 5 standard errors of a mean of 4,000, and of their deviation: each fails by chance once in two million
  assert draws.shape == (4000, 2, 1) and not draws[:, 0].any()
  assert abs(draws[:, 1, 0].mean() - mean) < 5 * deviation / 4000 ** 0.5
  assert abs(draws[:, 1, 0].std() - deviation) < 5 * deviation / 8000 ** 0.5
  said = outputs.predicted(functions, meta, params, rows["x"])
  scalars, arrays = evaluate.assess_rows(outputs.rows_of(meta, rows), said, meta, draws + 10)
  low, high = np.quantile(draws[:, 1, 0] + 10, [0.025, 0.975])
  assert (scalars["ate"], scalars["ate_low"], scalars["ate_high"]) == pytest.approx(
      (draws[:, 1, 0].mean() + 10, low, high))
  assert scalars["ate_ci95"] == pytest.approx((high - low) / 2) and "effect_draws" in arrays
  assert 1 < scalars["e_value_limit"] < scalars["e_value"]  # of this interval, which excludes 0
