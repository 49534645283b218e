"""Rows with missing features: trained on by what they have, embedded, classified, imputed, assessed, and counted."""

import csv
import json
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import runs
from jaxtrain import config as config_lib, loop, predict
from jaxtrain.experiments.tabular_vae import evaluate, nets, objective, vae
from jaxtrain.run import console

get_config = runpy.run_path(str(pathlib.Path(__file__).parents[3] / "configs/vae.py"))["get_config"]
N, HOLES = 120, 30


def write_table(path):
  """Three columns that follow from one number; a hole in every fourth row, one row with nothing."""
  random = np.random.RandomState(0)
  z = random.normal(size=N)
  x = np.stack([z, 2 - z, 10 * z + 100], axis=1) + 0.05 * random.normal(size=(N, 3))
  for i in range(0, N, N // HOLES):
    x[i, i // 4 % 3] = np.nan
  with open(path, "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["a", "b", "c", "rock"])
    writer.writerows([*(["" if np.isnan(v) else repr(v) for v in row] + ["sand" if z[i] > 0 else "clay"])]
                     for i, row in enumerate(x.tolist()))
    writer.writerow(["", "", "", "sand"])
  return x


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp("holes")
  x = write_table(folder / "t.csv")
  config = get_config("csv")
  config.model.kind, config.model.hidden_dims, config.model.latent_dim = "semisup", (8,), 2
  config.data.path, config.data.features, config.data.label = str(folder / "t.csv"), ("a", "b", "c"), "rock"
  config.data.incomplete, config.data.split.kind = "mask", "random"
  config.train.batch_size, config.train.num_epochs = 16, 40
  config.optim.learning_rate = 1e-2
  config.log.figures, config.log.progress = "none", False
  config.optim.plateau.factor = 0.0  # a plateau says nothing of holes, and costs its compiling
  loop.train(config_lib.resolve(config), str(folder / "run"))
  with runs.restored_once():
    yield folder, x


def apply(folder, verb):
  path = str(folder / f"{verb}.npz")
  predict.run([f"--workdir={folder}/run", f"--verb={verb}", f"--input={folder}/t.csv", f"--output={path}"])
  with np.load(path) as found:
    return dict(found)


def test_counts_are_in_the_first_lines_and_in_the_facts(trained):
  folder, _ = trained
  log = (folder / "run" / "log.txt").read_text()
  assert "120 rows; 1 of 121 rows dropped for missing all features; " in log
  assert "30 rows with missing features used by what they have (a 11, b 11, c 11)" in log
  assert "2 classes: clay" in log
  meta = json.loads((folder / "run" / "run.json").read_text())["data"]
  assert meta["rows_incomplete"] == 30 and meta["missing"] == {"columns": ["a", "b", "c"], "cells": [11, 11, 11]}


def test_every_row_with_something_gets_a_result(trained):
  folder, x = trained
  for verb, name in (("embed", "emb_0"), ("reconstruct", "a_recon"), ("classify", "prob_sand")):
    column = apply(folder, verb)[name]
    assert len(column) == N + 1 and np.isfinite(column[:N]).all() and np.isnan(column[N]), verb
  label = np.where(sign_of(x) > 0, "sand", "clay")
  assert (apply(folder, "classify")["pred_label"][:N] == label).mean() > 0.8


def sign_of(x):
  """The number behind each row, by what it has."""
  return np.nanmean(np.stack([x[:, 0], 2 - x[:, 1], (x[:, 2] - 100) / 10], axis=1), axis=1)


def test_imputed_cells_follow_from_the_others(trained):
  folder, x = trained
  found, z = apply(folder, "impute"), sign_of(x)
  want = np.stack([z, 2 - z, 10 * z + 100], axis=1)
  for d, name in enumerate("abc"):
    hole = np.isnan(x[:, d])
    np.testing.assert_array_equal(found[name][:N][~hole], x[~hole, d])
    error = found[name][:N][hole] - want[hole, d]
    assert np.sqrt(np.mean(error ** 2)) < 0.5 * want[:, d].std()
  assert found["num_imputed"].tolist() == [*np.isnan(x).sum(axis=1).tolist(), 3]


def test_the_assessment_is_over_what_is_there(trained):
  folder, _ = trained
  record = json.loads((folder / "run" / "eval" / "test.json").read_text())["scalars"]
  assert all(0 < record[f"r2_raw/{name}"] <= 1 for name in "abc")


def test_terms_run_over_the_entries_that_are_there():
  random = np.random.RandomState(1)
  x, observed = random.normal(size=(6, 3)), (random.uniform(size=(6, 3)) < 0.6).astype(np.float32)
  mask, weight = (random.uniform(size=(6, 3)) < 0.5).astype(np.float32), np.float32([1, 1, 1, 1, 1, 0])
  batch = {"x": np.float32(x * observed), "observed": observed, "mask": mask, "weight": weight,
           "label": np.zeros(6, np.int32)}
  out = nets.Output(np.float32(random.normal(size=(6, 3))), *np.zeros((2, 6, 2), np.float32), None)
  model = nets.VAE(3, 0, 2, (4,), False, 4, "float32")
  o = objective.Objective(model, get_config("csv").loss, 10, 0.0, {}, {})
  sums, counts = jax.jit(lambda batch: (objective.term_sums(o, batch, out)[0], objective.term_counts(o, batch)))(batch)
  pairs = [(r, d) for r in range(5) for d in range(3) if observed[r, d]]
  hidden = [(r, d) for r, d in pairs if mask[r, d]]
  square = (x - np.asarray(out.x_mean)) ** 2
  assert counts["recon"] == len(pairs) and counts["masked"] == len(hidden) and counts["kl"] == 10
  np.testing.assert_allclose(sums["recon"], sum(square[at] for at in pairs), rtol=1e-5)
  np.testing.assert_allclose(sums["masked"], sum(square[at] for at in hidden), rtol=1e-5)


@pytest.mark.slow
def test_what_a_missing_cell_would_hold_changes_nothing():
  """The same gradient whatever stands behind the zeros: the loss does not see them."""
  config = get_config("csv")
  model = nets.VAE(3, 0, 2, (4,), False, 4, "float32")
  o = objective.Objective(model, config.loss, 10, 0.0, {}, {})
  x = jnp.asarray(np.random.RandomState(0).normal(size=(8, 3)), jnp.float32)
  observed = jnp.ones((8, 3)).at[::2, 1].set(0)
  out = lambda shift: nets.Output(x + shift * (1 - observed), jnp.zeros((8, 2)), jnp.zeros((8, 2)), None)
  batch = {"x": x * observed, "observed": observed, "weight": jnp.ones(8), "label": jnp.zeros(8, jnp.int32)}
  slope = jax.grad(lambda shift: objective.term_sums(o, batch, out(shift))[0]["recon"])(3.0)
  assert slope == 0.0


def test_errors_leave_missing_entries_out_and_survive_extreme_units():
  x = np.array([[1.0, np.nan], [2.0, 1e200], [4.0, 3e200]])
  found = evaluate.errors(x, np.array([[1.0, 5.0], [2.0, 1e200], [3.0, 2e200]]), ["a", "b"], "raw")
  np.testing.assert_allclose([found["r2_raw/a"], found["rmse_raw/a"]], [1 - 1 / (14 / 3), (1 / 3) ** 0.5], rtol=1e-12)
  np.testing.assert_allclose([found["r2_raw/b"], found["rmse_raw/b"], found["mae_raw/b"]],
                             [0.5, 1e200 / 2 ** 0.5, 0.5e200], rtol=1e-12)


def test_the_data_line_of_a_run_of_before_stays():
  table = {"source": "wells.csv", "rows": 1333, "rows_dropped": 17}
  assert console.describe_data({"table": table}) == \
      "wells.csv, 1,333 rows; 17 of 1,350 rows dropped for missing features"


def test_labels_that_may_be_slips_are_an_alarm_where_a_classifier_is_trained_on_them():
  words = "label column 'rock': the classes 'Sand', 'sand' differ in case or spaces only"
  meta = {"features": ["a"], "num_features": 1, "class_names": ["Sand", "sand"], "steps_per_epoch": 3, "scaler": None,
          "table": {"label_warnings": [words]}}
  config = get_config("csv")
  assert vae.make(config, meta).alarms is None
  config.model.kind = "semisup"
  assert vae.make(config, meta).alarms({}) == [words]
