"""How far imputed cells are from the truth: against the conditional deviations of Normals whose covariance is known."""

import csv
import pathlib
import runpy

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import config as config_lib, loop, predict
from jaxtrain.experiments.tabular_vae import doubt, novelty, predict as vae_predict
from jaxtrain.types import Verb

get_config = runpy.run_path(str(pathlib.Path(__file__).parents[3] / "configs/vae.py"))["get_config"]
RHO, STD = 0.8, (2.0, 5.0, 0.5)
NAMES = ["a", "b", "c"]


def fill(variables, x):
  """The conditional mean of a and b, which have correlation RHO; c is independent of both."""
  other = x[:, jnp.array([1, 0, 2])] * jnp.array([[RHO, RHO, 0.0]])
  return jnp.where(jnp.isnan(x), jnp.nan_to_num(other), x)


def draw(variables, x):
  """Decoder means of two draws, 0.1 above and below: of variance 0.02 in scaled units."""
  return jnp.stack([x - 0.1, x + 0.1], axis=1)


def imputed(meta_of=lambda kept: {novelty.KEY: kept}, seed=0, num_rows=4000):
  """(deviations by feature, truth, filled rows, missing cells) of rows that miss a, or a and b, or c, or nothing."""
  random = np.random.default_rng(seed)
  cov = np.array([[1, RHO, 0], [RHO, 1, 0], [0, 0, 1]])
  truth, kept = (random.multivariate_normal(np.zeros(3), cov, size=n).astype(np.float32) for n in (num_rows, 500))
  missing = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]], bool)[np.arange(num_rows) % 4]
  x = np.array(fill({}, jnp.where(missing, jnp.nan, truth)), np.float64) * STD
  scaler = {"columns": NAMES, "transforms": ["standardise"] * 3, "mean": [0.0] * 3, "std": list(STD)}
  kept = [[None if r % 10 == 0 and d == 1 else float(v) for d, v in enumerate(row)] for r, row in enumerate(kept)]
  found = doubt.columns(fill, draw, None, np.zeros((2, 1)), {"features": NAMES, "scaler": scaler} | meta_of(kept), {},
                        x, missing)
  return np.stack([found[f"{name}_sd"] for name in NAMES], axis=1), truth * STD, x, missing


def test_deviations_are_those_of_the_conditional_normal_by_what_is_missing_together():
  sd, truth, x, missing = imputed()
  alone, both, last = (np.flatnonzero(np.arange(len(x)) % 4 == k) for k in range(3))
  # The variance of the draws is no more than a part of the error: the sum is the mean squared error of what was filled.
  np.testing.assert_allclose(sd[alone, 0], STD[0] * np.sqrt(1 - RHO ** 2), rtol=0.1)
  np.testing.assert_allclose(sd[both][:, :2], np.broadcast_to(STD[:2], (len(both), 2)), rtol=0.1)
  np.testing.assert_allclose(sd[last, 2], STD[2], rtol=0.1)
  assert (sd[~missing] == 0).all()
  held = np.abs(x - truth)[missing] <= 1.96 * sd[missing]
  assert held.mean() == pytest.approx(0.95, abs=0.02)


def test_without_kept_rows_the_deviation_is_that_of_the_draws_and_it_is_known():
  for meta in ({}, {novelty.KEY: []}):
    sd, truth, x, missing = imputed(lambda _, meta=meta: meta, num_rows=40)
    np.testing.assert_allclose(sd[missing], np.where(missing, 0.2 / 2 ** 0.5 * np.array(STD), 0)[missing], rtol=1e-3)
    assert not doubt.has_noise(meta)
  assert doubt.has_noise({novelty.KEY: [[0.0]]})


def test_rare_ways_of_missing_share_their_noise(monkeypatch):
  """With one way of its own (of equally frequent ones that of c alone), a has the mean of its two variances."""
  monkeypatch.setattr(doubt, "MOST_PATTERNS", 1)
  sd, *_ = imputed()
  np.testing.assert_allclose(sd[2::4, 2], STD[2], rtol=0.1)
  np.testing.assert_allclose(np.r_[sd[0::4, 0], sd[1::4, 0]], STD[0] * np.sqrt((1 - RHO ** 2 + 1) / 2), rtol=0.1)


def test_a_cell_that_no_kept_row_has_where_the_others_are_is_measured_on_rows_that_lack_others_too():
  """Kept rows have a or b, never both, and rows to fill miss a; where no kept row has a its deviation is unknown."""
  whole = lambda kept: {novelty.KEY: [[row[0] if r % 2 else None, None if r % 2 else row[1], row[2]]
                                      for r, row in enumerate(kept)]}
  sd, *_ = imputed(whole)
  np.testing.assert_allclose(sd[0::4, 0], STD[0], rtol=0.1)  # nothing tells of a without b
  none, *_ = imputed(lambda kept: {novelty.KEY: [[None, *row[1:]] for row in kept]})
  assert np.isnan(none[0::4, 0]).all() and np.isfinite(none[2::4, 2]).all()


def test_where_a_logarithm_was_taken_moments_and_ends_are_those_of_a_log_normal():
  scaler = {"columns": NAMES, "transforms": ["log1p", "standardise", "log1p"], "mean": [0.0] * 3, "std": [1.0] * 3}
  kept = np.random.default_rng(1).normal(size=(500, 3)).astype(np.float32)
  x, missing = np.zeros((4, 3)), np.array([[0, 0, 1]] * 3 + [[0] * 3], bool)
  meta = {"features": NAMES, "scaler": scaler, novelty.KEY: kept.tolist()}
  flat = lambda variables, x: jnp.stack([x, x], axis=1)
  found = doubt.columns(fill, flat, None, np.zeros((2, 1)), meta, {}, x, missing)
  assert sorted(found) == ["c_high", "c_low", "c_mean", "c_sd", "imputed"]
  s2 = np.mean(kept[:, 2].astype(np.float64) ** 2)  # of the independent column, which is 0 where it is filled in
  wanted = {"mean": np.exp(s2 / 2) - 1, "sd": np.sqrt(np.expm1(s2) * np.exp(s2)), "low": np.expm1(-1.96 * s2 ** 0.5),
            "high": np.expm1(1.96 * s2 ** 0.5)}
  for name, value in wanted.items():
    np.testing.assert_allclose(found[f"c_{name}"], [value] * 3 + [0.0], rtol=1e-5)


def test_a_line_says_what_imputed_cells_are_worth():
  meta = {"features": ["a", "b"], novelty.KEY: [[0.0, 0.0]]}
  say = lambda *args: vae_predict.say_impute(*args, {"num_imputed": np.array([0, 1])})
  scored = {"val": {"accuracy": 0.9}, "test": {"impute_r2_model/a": 0.5, "impute_r2_model/b": 0.7,
                                               "impute_r2_model/a+b": -9.0}}
  assert len(say(meta, True, scored)) == 1 and "an R2 of 0.6 in scaled units, mean over 2" in say(meta, True, scored)[0]
  assert say(meta, True, {}) == [vae_predict.HOW_GOOD] and say(meta, False, {}) == []
  assert say(meta | {novelty.KEY: []}, False, {}) == [doubt.NO_NOISE]
  assert vae_predict.say_impute(meta, True, {}, {"num_imputed": np.zeros(3, int)}) == []


@pytest.mark.parametrize(("names", "lines"), [(["Sand", "clay"], 1), (["oak", "fir"], 0)])
def test_the_group_of_lithologies_is_said_not_to_be_the_tables(names, lines):
  verb = Verb(lambda *_: {}, None, "mean")
  meta = {"features": ["a"], "class_names": names, novelty.KEY: []}
  found = vae_predict.with_lines({"classify": verb, "impute": verb}, meta, False)
  assert found["classify"].say(None, {}) == [vae_predict.NOT_OWN] * lines


def write_rows(path, x):
  """A CSV file of rows [N, D], cells that are NaN empty."""
  with open(path, "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow([f"f{d}" for d in range(x.shape[1])])
    writer.writerows([["" if np.isnan(value) else repr(value) for value in row] for row in x.tolist()])


@pytest.mark.slow
def test_intervals_of_a_trained_model_hold_the_truth(tmp_path):
  """1.96 deviations held 0.94 of the cells of rows that no training saw; draws from the posterior alone 0.69."""
  random = np.random.default_rng(0)
  loadings = random.normal(size=(6, 3))
  cov = loadings @ loadings.T + 0.3 * np.eye(6)
  sd = np.sqrt(np.diag(cov))
  truth = random.multivariate_normal(np.zeros(6), cov / sd / sd[:, None], size=3000)
  truth[:, 0], truth[:, 1] = 100 + 15 * truth[:, 0], np.exp(1 + 0.5 * truth[:, 1])
  missing = random.random(truth.shape) < 0.15
  x = np.where(missing, np.nan, truth)
  write_rows(tmp_path / "train.csv", x[:2000])
  write_rows(tmp_path / "new.csv", x[2000:])
  config = get_config("csv")
  config.data.path, config.data.features = str(tmp_path / "train.csv"), ("f?",)
  config.data.transforms, config.data.split.kind, config.data.incomplete = ("f1=log1p",), "random", "mask"
  config.train.num_epochs, config.log.progress = 40, False
  loop.train(config_lib.resolve(config), str(tmp_path / "run"))
  predict.run([f"--workdir={tmp_path}/run", "--verb=impute", f"--input={tmp_path}/new.csv",
               f"--output={tmp_path}/filled.npz"])
  with np.load(tmp_path / "filled.npz") as found:
    filled, deviation = (np.stack([found[f"f{d}{end}"] for d in range(6)], axis=1) for end in ("", "_sd"))
  held = np.abs(filled - truth[2000:]) <= 1.96 * deviation
  assert held[missing[2000:]].mean() > 0.92
