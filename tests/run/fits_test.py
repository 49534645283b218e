"""A run that cannot fit is refused in one line before anything of its size is made; a config that trains nothing."""

import os

import pytest

import outside
from jaxtrain import loop
from jaxtrain.devices import backend
from jaxtrain.errors import UserError
from jaxtrain.run import cadence, fits


def small(**values):
  config = outside.get_config("table")
  config.train.num_epochs = 1
  with config.unlocked():
    config.update_from_flattened_dict(values)
  return config


def test_a_state_and_a_batch_without_room_are_refused_and_leave_nothing(tmp_path, monkeypatch):
  """3 parameters and two moments of each, a batch of 16 x 4 numbers and weights: far more than 100 bytes."""
  monkeypatch.setattr(backend, "free_bytes", lambda: 100)
  with pytest.raises(UserError, match="the state needs 0 MiB and a batch 0 MiB, 0 MiB are free"):
    loop.train(small(), str(tmp_path / "run"))
  assert not os.path.exists(tmp_path / "run")


@pytest.mark.slow
def test_a_step_without_room_is_refused_and_a_smaller_one_may_take_the_folder(tmp_path, monkeypatch):
  class Compiled:
    def memory_analysis(self):
      return type("Memory", (), {"temp_size_in_bytes": 3 * 2**30})
  monkeypatch.setattr(backend, "free_bytes", lambda: 8 * 2**30)
  fits.check_step(Compiled(), 2)
  with pytest.raises(UserError, match="a step needs 9,216 MiB beside the state and the data, 8,192 MiB are free"):
    fits.check_step(Compiled(), 3)
  with monkeypatch.context() as full:
    def refuse(compiled, num_devices):
      raise UserError("config: a step needs more")
    full.setattr(fits, "check_step", refuse)
    with pytest.raises(UserError, match="needs more"):
      loop.train(small(), str(tmp_path / "run"))
  assert loop.train(small(**{"train.batch_size": 8}), str(tmp_path / "run")).history["loss"]


@pytest.mark.slow
def test_a_warm_up_beyond_the_run_is_said(capsys):
  loop.train(small(**{"optim.warmup_steps": 1000}))
  loop.train(small(**{"optim.warmup_steps": 2}))
  said = capsys.readouterr().out
  assert said.count("config.optim.warmup_steps=1,000 is longer than the run's 7 steps") == 1
  assert "warmup_steps=2" not in said


def test_a_run_of_more_steps_than_are_counted_is_refused():
  with pytest.raises(UserError, match="config.train.num_epochs: got 2147483647 of 7 steps each, allowed 2,147,483,647"):
    cadence.make(small(**{"train.num_epochs": 2**31 - 1}), 7)
