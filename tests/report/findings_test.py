"""What the head of a run's page says first: warnings of its data, classes that are missed, whose rows it speaks of."""

import numpy as np
import pytest

from made_runs import make_run
from jaxtrain.experiments.tabular_vae import figures as vae_figures
from jaxtrain.report import results, run_page
from jaxtrain.workdir import reading

RISE = {"weights": {"recon": 1.0, "kl": 0.5}, "kl_schedule": {"shape": "linear", "num_epochs": 30}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run of four epochs with a classifier."""
  return reading.read_run(make_run(tmp_path_factory.mktemp("made") / "run", classes=("lime", "clay", "dolomite")))


def test_warnings_of_the_data_come_first_and_once(run):
  table = {"warnings": ["column 'depth' holds -999.25"], "label_warnings": ["one row of clay"]}
  events = [*run.events, {"moment": "on_epoch_end", "step": 40, "alarms": ["one row of clay"]}]
  found = results.findings(run._replace(meta=run.meta | {"table": table}, events=events))
  assert found[:2] == ["column 'depth' holds -999.25", "one row of clay"] and found.count("one row of clay") == 1


def test_classes_that_are_found_least_are_named(run):
  """Recalls 0.9, 4/39 and 0: the last has too few rows to tell. Half of the mean is 0.167."""
  table = np.array([[90, 5, 5], [35, 4, 0], [3, 0, 0]])
  assert vae_figures.missed(run._replace(arrays=run.arrays | {"confusion": table})) == [
      "The classifier misses some classes. clay: 4 of 39 found."]
  assert vae_figures.missed(run) == [] and vae_figures.missed(run._replace(arrays={})) == []


def test_the_labelled_rows_are_counted_where_only_some_are(run):
  """The written run has 9 + 4 + 1 labelled rows in 1,234."""
  assert results.basis(run, "test", False, False) == (
      "On 1,234 rows held out for the test, of which 14 have a label, in the best state.")
  unlabelled = run._replace(arrays={})
  assert results.basis(unlabelled, "test", False, False) == "On 1,234 rows held out for the test, in the best state."


@pytest.mark.parametrize(("end", "num_epochs", "says"), [
    ("on_train_end", 3, "best 2, stopped at 3 of 4"), ("on_train_end", 4, "best 3 of 4"),
    (None, 3, "best 2, at 3 of 4")])
def test_the_length_says_where_training_was_best_and_where_it_ended(tmp_path, end, num_epochs, says):
  made = reading.read_run(make_run(tmp_path / "run", end=end, num_epochs=num_epochs))
  assert f"<b>{says}</b>" in run_page.tiles(made, 0.0)


def test_a_schedule_that_is_longer_than_the_run_is_said_instead_of_a_short_training(tmp_path):
  """The best of twenty epochs is the last but one, and beta changes until the end."""
  rising = reading.read_run(make_run(tmp_path / "run", num_epochs=20, config={"loss": RISE}))
  found = results.findings(rising)
  assert "The schedule of the KL weight (30 epochs) is longer than the run (20): beta did not reach its end." in found
  assert results.course(rising) == ["val_loss is best at the end of training, and beta changes before epoch 20, so "
                                    "that its values are of different objectives and do not compare."]
  short = RISE | {"kl_schedule": {"shape": "linear", "num_epochs": 20}}
  assert vae_figures.annealing(rising._replace(config=rising.config | {"loss": short})) == []
  steady = rising._replace(rows=[row | {"metric_beta": 0.5} for row in rising.rows])
  longer = "val_loss was still improving at the end (epoch 19 of 20 is the best): longer training may help."
  assert results.course(steady) == [longer]
