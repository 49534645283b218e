"""Training of many tables as one program, for the studies of known effects."""

import argparse

import effect_dial
import effect_models
import jax
import numpy as np
import pytest

SHORT = {"data.num_samples": 60, "model.hidden_dims": (4,), "train.num_epochs": 2, "train.batch_size": 20,
         "loss.warmup_epochs": 0, "data.split.kind": "none", "data.missing_rate": 0.0}


@pytest.mark.slow
def test_deletion_does_not_look_at_rows_without_a_treatment_and_the_model_does():
  """Two tables that differ in the outcomes of hidden rows alone: equal outcome networks and propensities at
  loss.beta = 0, others at 1. Members differ, and what is said of rows is the mean over them."""
  config = effect_models.read_config("base", SHORT)
  table, = effect_models.load(config, [{}])
  part = effect_models.part(table, "train")
  label = np.where(np.arange(60) % 2 == 0, part.y, -1)
  x = np.array(table.train.data["x"])
  x[label < 0, 0] += 3.0
  other = table._replace(train=table.train._replace(data=table.train.data | {"x": x}))
  params = effect_models.fit(config, [table, other] * 2, [label] * 4, {"loss.beta": [0.0, 0.0, 1.0, 1.0]}, 2)
  largest = lambda a, b: max(np.abs(one[a] - one[b]).max() for name in ("outcome", "prior")
                             for one in jax.tree.leaves(params[name]))
  assert largest(0, 1) < 1e-6 and largest(2, 3) > 1e-3 and largest(0, 2) > 1e-3
  first = effect_models.of_table(params, 0)
  assert max(np.abs(leaf[0] - leaf[1]).max() for leaf in jax.tree.leaves(first)) > 1e-3
  say = effect_models.make_say(config, table.meta)
  both = say(first, table.meta, part.columns)
  each = [say(jax.tree.map(lambda leaf, m=m: leaf[m:m + 1], first), table.meta, part.columns) for m in range(2)]
  np.testing.assert_allclose(both.mean, (each[0].mean + each[1].mean) / 2, rtol=1e-6)
  np.testing.assert_allclose(np.exp(both.log_prior), (np.exp(each[0].log_prior) + np.exp(each[1].log_prior)) / 2,
                             rtol=1e-6)


@pytest.mark.slow
def test_the_dial_turns_whole(tmp_path, monkeypatch):
  """Two settings, tiny: every estimator has an error of less than 0.5 with nothing hidden (five standard errors)."""
  monkeypatch.setattr(effect_dial, "DIALS", {"share": [(0.0, 0.0), (0.5, 0.0)]})
  monkeypatch.setattr(effect_dial, "MODEL", effect_dial.MODEL | {"model.hidden_dims": (4,)})
  given = argparse.Namespace(tables=2, trained=1, train_epochs=16, draw="")
  with jax.numpy_rank_promotion("allow"):  # as the command runs
    found = effect_dial.measure(str(tmp_path), given)["share"]
  assert all(abs(row["bias"]) < 0.5 for name, row in found["0.0"].items() if name != "model")
  assert set(found["0.5"]) == {*effect_dial.estimators.ESTIMATORS, "model"}
