"""Estimators of held-out rows: names, intervals, groups, and why some are missing."""

import fnmatch

import jax
import numpy as np
import pytest
from scipy import special, stats

import consistency_cases as cases
from jaxtrain import config as config_lib
from jaxtrain.experiments.causal_consistency import (diagnostics, estimators, evaluate_estimators as assessing, joint,
                                                     outputs)
from jaxtrain.experiments.causal_consistency.estimators import Estimated

FACTS = {"covariates": ["age"], "outcomes": ["pain"], "instruments": [], "class_names": ["none", "drug"]}


def rows(seed=0, missing=True, num_rows=300):
  """Held-out rows of one covariate and effect 1, half of the treatments missing by covariate and outcome."""
  random = np.random.default_rng(seed)
  x = random.normal(size=num_rows)
  y = (random.uniform(size=num_rows) < special.expit(x)).astype(int)
  z = x + y + random.normal(size=num_rows)
  recorded = (random.uniform(size=num_rows) < special.expit(z - 0.5)) | (not missing)
  return {"x": x[:, None], "y": np.where(recorded, y, -1), "z": z[:, None]}


@pytest.fixture
def programs(monkeypatch):
  """Stands in for the compiled programs: every estimator gives 2 with errors 0.5 and 0.25; a tilt adds itself."""
  calls = []

  def run(data, spec, with_tilts):
    calls.append((data, spec))
    effects = np.arange(1, spec.num_classes)
    made = {name: Estimated(2.0 * effects, 0.5 * effects, 0.25 * effects) for name in spec.names}
    tilts = assessing.TILTS[:, None] * effects
    return made, Estimated(2.0 + tilts, 0 * tilts + 0.5, 0 * tilts + 0.25) if with_tilts else None
  monkeypatch.setattr(assessing, "run", run)
  return calls


def test_names_intervals_and_what_would_change_them(programs):
  given = rows()
  found = assessing.assess_rows(given, FACTS)
  half = stats.t.ppf(0.975, (given["y"] >= 0).sum() - 1)
  for name in assessing.SCALARS.values():
    assert found[name] == 2
    assert (found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx((2 - half / 2, 2 + half / 2))
    assert (found[f"{name}_plain_low"], found[f"{name}_plain_high"]) == pytest.approx((2 - half / 4, 2 + half / 4))
  deviation = diagnostics.deviation_within(given["y"], given["z"][:, 0], 2)
  assert found["e_value_ipo"] == pytest.approx(diagnostics.e_value(2.0, deviation))
  assert found["mnar_tipping"] == pytest.approx(2 - half / 2, abs=1e-9)  # where 2 - tilt - half / 2 is 0
  assert found["estimators_rows"] == 300 and "estimators_reason" not in found
  known = lambda name: any(fnmatch.fnmatchcase(name, pattern) for pattern in joint.METRICS)
  assert not [name for name in found if not known(name)]


def test_rows_are_padded_and_standardised(programs):
  given = rows()
  assessing.assess_rows(given, FACTS)
  (data, spec), = programs
  assert data.weight.shape == (512,) and data.weight.sum() == 300 and spec.num_folds == 5
  columns = data.recording[:300, 1:3]
  np.testing.assert_allclose(columns.mean(axis=0), 0, atol=1e-12)
  np.testing.assert_allclose(columns.std(axis=0), 1)
  np.testing.assert_allclose(data.recording[:300, 3], columns[:, 0] * columns[:, 1])
  assert (data.outcome[:300, 0] == 1).all() and data.outcome.shape[1] == 3  # 1, x, x^2
  assert (np.bincount(data.fold[:300]) == 60).all() and (data.group[:300] == np.arange(300)).all()


def test_groups_are_what_is_independent(programs):
  given = rows() | {"group": np.repeat(["a", "b", "c", "d"], 75)}
  found = assessing.assess_rows(given, FACTS)
  assert found["ate_ipo_high"] == pytest.approx(2 + 0.5 * stats.t.ppf(0.975, 3))
  assert (programs[0][0].group[:300] == np.repeat(np.arange(4), 75)).all()


def test_classes_and_outcomes_beyond_the_first_are_named(programs):
  given = rows()
  given["y"] = np.where(given["y"] >= 0, np.arange(300) % 3, -1)
  given["z"] = np.concatenate([given["z"], given["z"] ** 2], axis=1)
  found = assessing.assess_rows(given, FACTS | {"class_names": ["none", "drug", "knife"], "outcomes": ["pain", "cost"]})
  for end, value in (("", 2), ("/knife", 4), ("/cost", 2), ("/knife/cost", 4)):
    assert found[f"ate_triply_robust{end}"] == value and f"mnar_tipping{end}" in found
  assert "ate_triply_robust_plain_low/knife/cost" in found and "e_value_ipo/cost" in found


def test_what_is_missing_is_said(programs):
  whole = assessing.assess_rows(rows(missing=False), FACTS)
  assert "recorded" in whole["estimators_reason"] and "ate_aipw_stacked" in whole and "ate_ipo" not in whole
  thin = rows()
  thin["y"] = np.where(thin["y"] == 1, -1, thin["y"])
  assert "'drug' has 0 rows" in assessing.assess_rows(thin, FACTS)["estimators_reason"]
  flat = rows() | {"z": np.full((300, 1), 7.0)}
  assert "does not vary" in assessing.assess_rows(flat, FACTS)["estimators_reason"]
  wide = rows() | {"x": np.random.default_rng(1).normal(size=(300, 200))}
  assert "parameters" in assessing.assess_rows(wide, FACTS)["estimators_reason"]
  assert len(programs) == 1


def test_an_estimator_that_fails_is_absent_and_named(programs, monkeypatch):
  plain = assessing.run
  def run(*given):
    made, by_tilt = plain(*given)
    return made | {"ipo": Estimated(np.array([2.0]), np.array([np.nan]), np.array([0.1]))}, by_tilt
  monkeypatch.setattr(assessing, "run", run)
  found = assessing.assess_rows(rows(), FACTS)
  assert "by ipo:" in found["estimators_reason"] and "ate_ipo" not in found and "ate_triply_robust" in found
  assert "mnar_tipping" in found


def test_long_tables_are_sampled(programs, monkeypatch):
  monkeypatch.setattr(assessing, "MOST_ROWS", 100)
  assert assessing.assess_rows(rows(), FACTS)["estimators_rows"] == 100
  assert programs[0][0].weight.sum() == 100


def test_tipping_points():
  T = assessing.TILTS
  assert assessing.tipping_point(1 + 0 * T, 0.1 + 0 * T) == np.inf
  assert assessing.tipping_point(1 + 0 * T, 1.1 + 0 * T) == 0
  assert np.isnan(assessing.tipping_point(np.nan * T, T))
  assert assessing.tipping_point(-1 + 0.4 * T, 0.1 + 0 * T) == pytest.approx(0.9 / 0.4)
  assert assessing.tipping_point(1 + np.where(T < 0, 0.5, 0.25) * T, 0 * T) == pytest.approx(2)


def test_groups_of_a_file_reach_the_assessment(tmp_path):
  lines = ["site,age,drug,pain"] + [f"s{i // 10},{i % 7},{('no', 'yes', '')[i % 3]},{i % 5}" for i in range(200)]
  (tmp_path / "table.csv").write_text("\n".join(lines), encoding="utf-8")
  config = cases.configured("csv", **{"data.path": str(tmp_path / "table.csv"), "data.features": ("age",),
                                      "data.treatment": "drug", "data.outcomes": ("pain",), "data.group": "site"})
  found = joint.load(config_lib.resolve(config))
  held_out = outputs.rows_of(found.meta, found.test.rows(np.arange(found.test.num_rows)))
  assert set(held_out) == {"x", "y", "z", "group"} and set(held_out["group"]) <= {f"s{i}" for i in range(20)}
  assert set(found.train.data) == {"x", "label"}  # no batch has it


@pytest.mark.slow
def test_the_programs_give_what_estimate_gives():
  given = rows()
  found, data = assessing.assess_rows(given, FACTS), assessing.data_of(given, 0, 2)
  with jax.enable_x64(True):
    made = jax.jit(estimators.estimate, static_argnums=1)(data, estimators.Spec(2))
  for name, scalar in assessing.SCALARS.items():
    assert found[scalar] == pytest.approx(float(made[name].value[0]), rel=1e-6), name
    assert abs(found[scalar] - 1) < 0.8 or name == "mi_propensity"
  assert found["ate_mi_outcome_low"] < found["ate_mi_outcome"] < found["ate_mi_outcome_high"]
  assert found["mnar_tipping"] > 0 and found["ate_mi_propensity"] < 0.8
