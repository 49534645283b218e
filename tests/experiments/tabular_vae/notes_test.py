"""What a run of a tabular VAE says at its start of fields that have no effect, or not all of theirs."""

import json
import pathlib
import runpy

import pytest

from jaxtrain import loop
from jaxtrain.experiments.tabular_vae import vae
from jaxtrain.run import check

get_config = runpy.run_path(str(pathlib.Path(__file__).parents[3] / "configs/vae.py"))["get_config"]


def test_a_label_without_a_classifier_is_said():
  config = get_config("csv")
  assert vae.notes(config, 10) == ()
  config.data.label = "rock"
  assert vae.notes(config, 10) == (
      "the label column 'rock' is not trained on: config.model.kind=unsup; semisup trains a classifier",)
  config.model.kind = "semisup"
  assert vae.notes(config, 10) == ()


@pytest.mark.parametrize(("epochs", "steps", "says"), [(25, 0, "25"), (30, 0, None), (0, 125, "12.5"), (0, 300, None),
                                                       (0, 0, None)])
def test_a_schedule_of_beta_that_is_longer_than_the_run_is_said(epochs, steps, says):
  """The schedule has 30 epochs, of 10 steps each."""
  config = get_config("hybrid")
  config.train.num_epochs, config.train.num_steps = epochs, steps
  assert vae.notes(config, 10) == ((
      f"config.loss.kl_schedule.num_epochs=30 is longer than the run's {says} epochs: beta does not reach its end",)
      if says else ())
  config.loss.kl_schedule.shape = "constant"
  assert vae.notes(config, 10) == ()


@pytest.mark.slow
def test_check_and_the_start_of_a_run_say_it(tmp_path, capsys):
  (tmp_path / "t.csv").write_text("a,b,rock\n" + "".join(f"{i},{i * i},{'xy'[i % 2]}\n" for i in range(40)))
  config = get_config("csv")
  config.data.path, config.data.features, config.data.split.kind = str(tmp_path / "t.csv"), ("a", "b"), "random"
  config.data.label, config.train.num_epochs, config.log.figures = "rock", 1, "none"
  config.model.hidden_dims, config.model.latent_dim = (4,), 2
  notes = check.describe(config)["notes"]
  assert len(notes) == 2 and "'rock' is not trained on" in notes[0] and json.dumps(notes)
  loop.train(config)
  said = capsys.readouterr().out
  assert all(f"jaxtrain: {words}\n" in said for words in notes)
