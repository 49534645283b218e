"""Tables of the literature: what is known of the real ones, where their packages are installed, and how files of their
layout are read.

  pip install --no-deps econml causallib causaldata
"""

import functools
import importlib.util
import re
import sys

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from jaxtrain import config as config_lib
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_consistency import benchmarks, joint, sources

import consistency_cases as cases
import made_benchmarks


def config_of(source, **fields):
  """The checked config of a benchmark's variant."""
  config = config_lib.read_file(f"{cases.PATH}:{source}")
  for name, value in fields.items():
    config_lib.assign(config, f"data.{name}", value)
  return config_lib.resolve(config)


def read(source, **fields):
  """(rows, names, facts) of a benchmark."""
  return sources.make_rows(config_of(source, **fields))


def real(package):
  """Skips the test where the package is not installed."""
  if importlib.util.find_spec(package) is None:
    pytest.skip(f"pip install --no-deps {package}")


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
  """Made-up packages."""
  return made_benchmarks.write(tmp_path_factory.mktemp("packages"))


@pytest.fixture
def made(packages, monkeypatch):
  """The made-up packages, first on the path."""
  monkeypatch.syspath_prepend(str(packages))
  return packages


def effect(found):
  """The true effect of each row."""
  return (found.mean[:, 1] - found.mean[:, 0])[:, 0]


def design(x):
  """1 and the covariates of the infants as the surfaces have them."""
  scaled = x.copy()
  scaled[:, :6] = (x[:, :6] - x[:, :6].mean(axis=0)) / x[:, :6].std(axis=0)
  scaled[:, benchmarks.IHDP_COVARIATES.index("first")] += 1
  return np.concatenate([np.ones((len(x), 1)), scaled], axis=1)


def coefficients(x, values):
  """Of a linear function, by least squares."""
  return np.linalg.lstsq(design(x), values, rcond=None)[0]


@pytest.mark.parametrize("source", ["ihdp_a", "ihdp_b"])
def test_the_real_infants(source):
  real("econml")
  found, named, _ = read(source)
  assert found.x.shape == (747, 25) and found.y.sum() == 139 and found.observed.all()
  assert named["treatment"] == ("treat",) and named["outcomes"] == ("y",)
  assert named["covariates"][:2] == ("bw", "b.head")
  if source == "ihdp_a":
    np.testing.assert_allclose(effect(found), 4, rtol=1e-12)
  else:
    np.testing.assert_allclose(effect(found)[found.y == 1].mean(), 4, rtol=1e-12)
    assert effect(found).std() > 0.1


def test_the_real_births():
  """Mean effects of mu1 - mu0, summed by awk from the files."""
  real("causallib")
  for simulation, ate, treated in ((1, 2.128079258031, 858), (10, 4.223393263298, 1191)):
    found, named, facts = read("acic2016", simulation=simulation)
    assert found.x.shape == (4802, 79) and facts["simulation"] == simulation and found.y.sum() == treated
    np.testing.assert_allclose(effect(found).mean(), ate, rtol=1e-11)
  assert named["treatment"] == ("z",) and named["covariates"][1:3] == ("x_2_B", "x_2_C")


def test_the_real_jobs():
  """The counts and the estimate, 1,794 dollars with an error of 671, are those that the literature gives."""
  real("causaldata")
  found, named, facts = read("nsw_cps")
  assert found.x.shape == (16177, 8) and found.y.sum() == 185 and (found.y == 0).sum() == 15992
  assert found.mean is None and named["outcomes"] == ("re78",)
  assert round(facts["trial_att"], 2) == 1794.34 and round(facts["trial_att_se"]) == 671
  np.testing.assert_allclose(found.z[found.y == 1].mean() - found.z[found.y == 0].mean(), -8497.52, atol=0.01)


def test_infants_of_a_made_up_file(made):
  """Treated ones with non-white mothers are dropped; covariates are those of the file."""
  file = pd.read_csv(made / "econml/data/ihdp/sim.csv")
  file = file[~((file.treat == 1) & (file.momwhite == 0))]
  found, named, _ = read("ihdp_a")
  np.testing.assert_array_equal(found.x, file[list(named["covariates"])].to_numpy(float))
  np.testing.assert_array_equal(found.y, file.treat)
  assert set(made_benchmarks.IHDP) - set(named["covariates"]) == {"treat", "site8", "momwhite", "momblack", "momhisp"}
  noise = found.z[:, 0] - found.mean[np.arange(len(file)), found.y, 0]
  assert abs(noise.std() - 1) < 5 / (2 * len(file)) ** 0.5


def test_surface_a(made):
  """Linear with coefficients 0 to 4, and an effect of 4; another seed draws others, the same the same."""
  found = read("ihdp_a", seed=3)[0]
  b = coefficients(found.x, found.mean[:, 0, 0])
  np.testing.assert_allclose(b, b.round(), atol=1e-9)
  assert {0, 1} <= set(b.round()) <= {0, 1, 2, 3, 4}
  np.testing.assert_allclose(effect(found), 4, rtol=1e-12)
  np.testing.assert_array_equal(found.z, read("ihdp_a", seed=3)[0].z)
  assert (found.mean != read("ihdp_a", seed=4)[0].mean).any()


def test_surface_b(made):
  """log E[z | do(0)] and E[z | do(1)] are linear with the same slopes, one shifted by half their sum; ATT 4."""
  found = read("ihdp_b", seed=3)[0]
  control, treated = coefficients(found.x, np.log(found.mean[:, 0, 0])), coefficients(found.x, found.mean[:, 1, 0])
  np.testing.assert_allclose(control[1:], treated[1:], atol=1e-9)
  np.testing.assert_allclose(10 * control[1:], (10 * control[1:]).round(), atol=1e-8)
  assert {0, 1} <= set((10 * control[1:]).round()) <= {0, 1, 2, 3, 4}
  first = control[0] - 0.5 * control[1:].sum()  # the coefficient of the 1
  assert min(abs(first - np.arange(5) / 10)) < 1e-9
  np.testing.assert_allclose(effect(found)[found.y == 1].mean(), 4, rtol=1e-12)


def test_births_of_a_made_up_file(made):
  folder = made / "causallib/datasets/data/acic_challenge_2016"
  words, file = pd.read_csv(folder / "x.csv"), pd.read_csv(folder / "zymu_2.csv")
  found, named, _ = read("acic2016", simulation=2)
  want = pd.get_dummies(words, drop_first=True)
  assert sorted(named["covariates"]) == sorted(want.columns)
  np.testing.assert_array_equal(found.x, want[list(named["covariates"])].to_numpy(float))
  np.testing.assert_array_equal(found.z[:, 0], np.where(file.z == 1, file.y1, file.y0))
  np.testing.assert_array_equal(found.mean[:, :, 0], file[["mu0", "mu1"]])
  assert (read("acic2016", simulation=1)[0].z != found.z).any()


def test_jobs_of_a_made_up_file(made):
  trial, survey = (pd.read_stata(made / f"causaldata/{name}/{name}.dta") for name in ("nsw_mixtape", "cps_mixtape"))
  found, named, facts = read("nsw_cps")
  want = pd.concat([trial[trial.treat == 1], survey])
  np.testing.assert_array_equal(found.x, want[list(named["covariates"])])
  np.testing.assert_array_equal(found.z[:, 0], want.re78)
  arms = [trial.re78[trial.treat == k].astype(float) for k in (0, 1)]
  np.testing.assert_allclose(facts["trial_att"], arms[1].mean() - arms[0].mean(), rtol=1e-12)


@pytest.mark.parametrize("mechanism,prob", [
    ("mcar", lambda x, y, z: np.full(len(y), 0.8)), ("mar", lambda x, y, z: 0.8 * expit(x)),
    ("mnar", lambda x, y, z: 0.8 * (0.5 + 0.5 * y)), ("mar_z", lambda x, y, z: 0.8 * expit(z))])
def test_what_is_hidden(made, mechanism, prob, monkeypatch):
  """By the first covariate and the outcome, standardised: over 300 seeds, as often as stated, low and high."""
  data = config_of("nsw_cps", missing_rate=0.8, missing_mechanism=mechanism).data
  monkeypatch.setattr(benchmarks, "read_stata", functools.cache(benchmarks.read_stata))
  rows = [benchmarks.read(data, seed)[0] for seed in range(300)]
  share, first = np.mean([~one.observed for one in rows], axis=0), rows[0]
  standard = lambda v: (v - v.mean()) / v.std()
  want = prob(standard(first.x[:, 0]), first.y, standard(first.z[:, 0]))
  assert np.abs(share - want).max() < 5 * (0.25 / 300) ** 0.5
  assert np.corrcoef(share, want)[0, 1] > 0.9 or mechanism == "mcar"


def test_a_run_sees_columns_by_role_and_what_is_true(made):
  found = joint.load(config_of("ihdp_b", missing_rate=0.5))
  assert found.meta["treatment"] == "treat" and found.meta["outcomes"] == ["y"] and len(found.meta["covariates"]) == 25
  rows = found.train.rows(np.arange(found.train.num_rows))
  assert rows["true_mean"].shape[1:] == (2, 1) and (rows["label"] < 0).any() and (rows["true_label"] >= 0).all()
  few = joint.load(config_of("nsw_cps", leave_out=("re7*",)))
  assert few.meta["covariates"] == ["age", "educ", "black", "hisp", "marr", "nodegree"]
  rows = few.train.rows(np.arange(5))
  assert "true_mean" not in rows and "true_label" in rows and rows["x"].shape == (5, 7)


@pytest.mark.parametrize("source,package,command", [
    ("ihdp_a", "econml", "pip install --no-deps econml"), ("acic2016", "causallib", "pip install -e '.[effects]'"),
    ("nsw_cps", "causaldata", "pip install -e '.[effects]'")])
def test_a_package_that_is_not_there(source, package, command, monkeypatch):
  found = importlib.util.find_spec
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
  with pytest.raises(UserError, match=re.escape(f"{package}, which is not installed; {command}")):
    joint.load(config_of(source))


def test_a_package_without_its_file(tmp_path, monkeypatch):
  made = made_benchmarks.write(tmp_path)
  monkeypatch.syspath_prepend(str(made))
  (made / "econml/data/ihdp/sim.csv").unlink()
  (made / "causaldata/cps_mixtape/cps_mixtape.dta").write_bytes(b"no table")
  with pytest.raises(UserError, match="config.data.source: cannot read '.*sim.csv' as csv: there is no such file"):
    joint.load(config_of("ihdp_a"))
  with pytest.raises(UserError, match="config.data.source: cannot read '.*cps_mixtape.dta'"):
    joint.load(config_of("nsw_cps"))


def test_nothing_is_imported(made):
  for source in benchmarks.READERS:
    read(source)
  assert not {"econml", "causallib", "causaldata"} & set(sys.modules)


@pytest.mark.parametrize("fields,words", [
    ({"source": "ihdp_a", "simulation": 2}, "config.data.simulation: got 2, allowed 1 with config.data.source=ihdp_a"),
    ({"source": "acic2016", "num_classes": 3}, "config.data.num_classes: got 3, allowed 2"),
    ({"source": "acic2016", "simulation": 11}, "config.data.simulation: got 11"),
    ({"source": "ihdp_a", "path": "a.csv"}, "config.data.path: got 'a.csv', allowed '' with config.data.source=ihdp")])
def test_refused(made, fields, words):
  with pytest.raises(UserError, match=re.escape(words)):
    joint.load(config_of(**fields))
