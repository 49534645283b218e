"""Which state is best: the same wherever a run was cut, kept where a run halts."""

import os

import jax.numpy as jnp
import pytest

import child
import outside
from jaxtrain import config as config_lib, loop
from jaxtrain.errors import NonFinite
from jaxtrain.report import results
from jaxtrain.workdir import quality, reading, records


def configured(variant="table", **fields):
  config = outside.get_config(variant)
  for key, value in fields.items():
    config_lib.assign(config, key.replace("__", "."), value)
  return config


CUTS = {
    "by the training loss, which stays": ("table", {"train.monitor": "train_loss", "optim.learning_rate": 1e-12}),
    "by the largest, which stays": ("table", {"train.monitor": "train_loss", "train.monitor_mode": "max",
                                              "optim.learning_rate": 1e-12}),
    "in an epoch, by validation": ("table", {}),
    "by validation, a plateau": ("table", {"optim.plateau.factor": 0.5, "optim.plateau.patience": 0,
                                           "optim.plateau.threshold": 0.99, "optim.plateau.monitor": "val_loss"}),
    "evaluated in epochs, by the training loss": ("table", {"train.monitor": "train_loss", "eval.every_steps": 3}),
    "before the first epoch": ("table", {"eval.every_steps": 13}),
    "stream": ("stream", {"eval.every_steps": 4, "train.monitor": "train_loss"}),
}
QUICK_CUTS = ("by the training loss, which stays", "by validation, a plateau", "stream")


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * (case not in QUICK_CUTS))
                                  for case in CUTS])
def test_a_run_made_longer_has_the_best_of_one_made_in_one_go(case, tmp_path):
  """Ten steps, then twenty: seven are an epoch of the table."""
  variant, fields = CUTS[case]
  fields = {key.replace(".", "__"): value for key, value in fields.items()} | {"train__num_epochs": 0}
  straight = loop.train(configured(variant, train__num_steps=20, **fields), str(tmp_path / "straight"))
  first = loop.train(configured(variant, train__num_steps=10, optim__decay_steps=20, **fields), str(tmp_path / "grown"))
  assert first.best_step is not None
  grown = loop.train(configured(variant, train__num_steps=20, **fields), str(tmp_path / "grown"))
  assert (grown.best_step, grown.best_value, grown.digest) == (straight.best_step, straight.best_value, straight.digest)
  same = [grown.history["step"].index(step) for step in straight.history["step"]]
  for name in straight.history.keys() - {"seconds", "samples_per_s"}:
    assert [grown.history[name][k] for k in same] == straight.history[name], name
  best = [os.readlink(tmp_path / name / "checkpoints" / "best") for name in ("grown", "straight")]
  assert best == [str(straight.best_step)] * 2


def test_an_end_that_is_better_and_not_compared_is_said_to_be_so(tmp_path, capsys):
  """By the cadence of 40 steps 80 is the best of 100; the loss of least squares falls until the end."""
  result = loop.train(configured("stream", train__num_steps=100), str(tmp_path))
  words = f"the end of the run, at step 100, is better (val_loss {result.final_val_loss:.6g}) but is not compared"
  assert result.best_step == 80 and result.final_val_loss < result.best_value
  assert f"jaxtrain: {words}" in capsys.readouterr().out
  assert [said.startswith(words) for said in quality.of_workdir(str(tmp_path), 80).warnings] == [True]
  run = reading.read_run(str(tmp_path))
  assert f"T{words[1:]}" in " ".join(results.findings(run))
  run.config["eval"]["every_steps"] = 50  # where it is one of the cadence
  assert quality.better_end(run) == ""
  run.config["eval"]["every_steps"], run.config["train"]["monitor_mode"] = 40, "max"
  assert quality.better_end(run) == ""


@pytest.fixture
def evaluation_fails(monkeypatch):
  """Validation has a loss that is not finite once more than 20 steps are done, in the third epoch."""
  make = outside.make

  def failing(config, meta):
    made = make(config, meta)

    def eval_step(state, batch, key, over):
      total, count = made.eval_step(state, batch, key, over)["loss"]
      return {"loss": (jnp.where(state.step > 20, jnp.inf, total), count)}
    return made._replace(eval_step=eval_step)

  monkeypatch.setattr(outside, "make", failing)


def test_a_validation_loss_that_is_not_finite_halts_and_the_best_is_kept(evaluation_fails, tmp_path, capsys):
  """No checkpoint was due before; the best of the second epoch was in memory alone."""
  for _ in range(2):  # the same command goes on from the best, and halts again
    with pytest.raises(NonFinite, match="step 21: val_loss is not finite; halted after this evaluation") as failure:
      loop.train(configured(), str(tmp_path))
    assert failure.value.code == 3
    assert records.committed_steps(str(tmp_path / "checkpoints")) == [14]
    assert records.find_step(str(tmp_path), "best") == 14
    assert "jaxtrain: alarm: val_loss is not finite" in capsys.readouterr().out
  assert child.resume_steps(str(tmp_path)) == [0, 14]
  events, _ = child.facts(str(tmp_path))
  assert events[-1]["moment"] == "on_exception"
  assert [event["alarms"] for event in events if event["moment"] == "on_epoch_end"][-1] == ["val_loss is not finite"]


def test_with_skip_it_is_an_alarm(evaluation_fails, tmp_path):
  result = loop.train(configured(train__on_nonfinite="skip"), str(tmp_path))
  assert result.best_step == 14 and int(result.state.step) == 42
  alarms = [event["alarms"] for event in child.facts(str(tmp_path))[0] if event["moment"] == "on_epoch_end"]
  assert alarms == [[]] * 2 + [["val_loss is not finite"]] * 4


def test_a_training_step_that_is_not_finite_leaves_the_best_too(tmp_path, monkeypatch):
  def late(config, state, new, metrics):
    return new, metrics | {"loss": (jnp.where(state.step > 16, jnp.nan, metrics["loss"][0]), metrics["loss"][1])}

  outside.change_steps(monkeypatch, late)
  with pytest.raises(NonFinite, match="step 17: loss is not finite"):
    loop.train(configured(), str(tmp_path))
  assert records.find_step(str(tmp_path), "best") == 14 and os.readlink(tmp_path / "checkpoints" / "best") == "14"
