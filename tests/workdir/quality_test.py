"""What a run's files say of its model: the best value, chance, unfinished runs, no held-out data."""

import json

import pytest

from made_runs import make_run
from jaxtrain.report import results
from jaxtrain.workdir import quality, reading

CHANCE = {"loss": {"unit": "nats", "meaning": "loss", "direction": "lower", "chance": 2.0},
          "auc_macro": {"unit": "", "meaning": "AUC", "direction": "higher", "chance": 0.75, "key": True}}


def test_the_best_value_and_where_it_was(tmp_path):
  """The third of four epochs of ten steps is the best by construction: 2 + 4^(3 - 12)."""
  worth = quality.of_workdir(make_run(tmp_path / "run"))
  assert worth.monitor == "val_loss" and worth.value == pytest.approx(2 + 4.0 ** -9, rel=1e-12)
  assert (worth.step, worth.epoch, worth.chance, worth.warnings) == (30, 3, None, ())
  assert worth.lines() == ["best val_loss 2 at step 30, epoch 3"]


def test_numbers_of_another_state_than_the_one_that_is_applied_are_said_to_be_so(tmp_path):
  folder = make_run(tmp_path / "run")
  assert quality.of_workdir(folder, 30).warnings == ()
  assert quality.of_workdir(folder, 20).lines()[-1] == (
      "warning: these numbers are of the state of step 30; what is applied here is that of step 20")


def test_a_stream_has_no_epochs(tmp_path):
  worth = quality.of_workdir(make_run(tmp_path / "run", steps_per_epoch=None))
  assert worth.step == 375 and worth.epoch is None and worth.lines()[0] == "best val_loss 2 at step 375"


def test_no_better_than_chance_is_said_of_the_monitor_and_of_key_results(tmp_path):
  worth = quality.of_workdir(make_run(tmp_path / "run", metrics=CHANCE))
  assert worth.chance == 2.0 and worth.lines() == [
      "best val_loss 2 at step 30, epoch 3 (chance 2)",
      "on the held-out test part of its own data: auc_macro 0.75 (chance 0.75)",
      "warning: val_loss is no better than chance, 2",
      "warning: auc_macro of the test part, 0.75, is no better than chance, 0.75"]
  better = {name: said | {"chance": {"loss": 2.1, "auc_macro": 0.7}[name]} for name, said in CHANCE.items()}
  assert quality.of_workdir(make_run(tmp_path / "better", metrics=better)).warnings == ()


def test_a_page_and_a_prediction_say_of_the_same_results_that_they_are_no_better_than_chance(tmp_path):
  """Also of a run without held-out rows, and of a metric that is no key result where none is declared."""
  plain = {"loss": CHANCE["loss"]}
  for name, made in (("train", make_run(tmp_path / "train", parts=("train",), metrics=CHANCE)),
                     ("loss", make_run(tmp_path / "loss", parts=("train", "val"), metrics=plain)),
                     ("both", make_run(tmp_path / "both", metrics=CHANCE))):
    run = reading.read_run(made)
    said, shown = quality.of_run(run).warnings, [text for text in results.findings(run) if "chance" in text]
    assert [words for words in said if "chance" in words] == {
        "train": ["train_loss is no better than chance, 2",
                  "auc_macro of the train part, 0.75, is no better than chance, 0.75"],
        "loss": ["val_loss is no better than chance, 2"],  # once
        "both": ["val_loss is no better than chance, 2",
                 "auc_macro of the test part, 0.75, is no better than chance, 0.75"]}[name]
    assert shown == {"loss": ["loss (2.000) is no better than chance (2.000)."]}.get(
        name, ["AUC (mean of classes) (0.7500) is no better than chance (0.7500)."])


@pytest.mark.parametrize("values, said, shown", [
    ({"r2": 0.9}, {}, "r2 0.9"), ({"r2": 0.9, "r2_ci95": 0.05}, {}, "r2 0.9 (0.85 to 0.95)"),
    ({"r2": 0.98, "r2_ci95": 0.05}, {"limits": (0, 1)}, "r2 0.98 (0.93 to 1)"),
    ({"r2": 1.02, "r2_low": 0.9, "r2_high": 1.15}, {}, "r2 1.02 (0.9 to 1.15)")])
def test_a_metric_stands_with_its_interval(values, said, shown):
  assert quality.with_ends("r2", 0.5, (None, None), 0.25) == "r2 0.5 (chance 0.25)"
  assert quality.with_ends("r2", values["r2"], quality.ends_of("r2", values, said)) == shown


@pytest.mark.parametrize("value, half, worse", [(0.6, None, False), (0.5, None, True), (0.6, 0.1, True),
                                                (0.6, 0.09, False), (0.4, None, True)])
def test_chance_by_direction_and_interval(value, half, worse):
  assert quality.is_chance(value, {"direction": "higher", "chance": 0.5}, half) == worse
  assert quality.is_chance(-value, {"direction": "lower", "chance": -0.5}, half) == worse
  assert not quality.is_chance(value, {"direction": "", "chance": 0.5}, half)
  assert not quality.is_chance(value, {"direction": "higher", "chance": None}, half)


def test_what_speaks_against_a_run(tmp_path):
  warned = lambda name, **how: quality.of_workdir(make_run(tmp_path / name, **how)).warnings
  assert warned("going", end=None, num_epochs=2) == (
      "the run is unfinished (its newest evaluation is at step 20 of 40); the command that trained it goes on with it",)
  assert warned("failed", end="on_exception") == ("the run has failed: NonFinite: step 7: loss is not finite",)
  unseen = "no data was held out, so how well the model does on new data is not known"
  assert warned("all", parts=("train",)) == (unseen,)
  split = {"data": {"source": "csv", "split": {"kind": "none"}}}
  assert warned("split", parts=("train",), config=split) == (
      f"{unseen}; train with another config.data.split.kind to know it",)


@pytest.mark.parametrize(("groups", "words"), [
    (None, None), (1, "1 group is held out in the test part"), (4, "4 groups are held out in the test part"),
    (9, "9 groups are"), (10, None)])
def test_intervals_of_few_groups_are_said_to_be_too_short(groups, words, tmp_path):
  folder = make_run(tmp_path / "run")
  path = tmp_path / "run" / "eval" / "test.json"
  record = json.loads(path.read_text())
  more = {} if groups is None else {"groups": groups}
  path.write_text(json.dumps(record | {"scalars": record["scalars"] | more}))
  said = [line for line in quality.of_workdir(folder).lines() if "too short to rely on" in line]
  assert len(said) == (words is not None) and (words is None or f"warning: {words}" in said[0])


def test_nothing_evaluated(tmp_path):
  worth = quality.of_workdir(make_run(tmp_path / "run", num_epochs=0, parts=()))
  assert worth.value is None and "nothing was evaluated" in worth.lines()[0]


def test_a_run_that_was_stopped_before_its_first_evaluation(tmp_path):
  worth = quality.of_workdir(make_run(tmp_path / "run", num_epochs=0, parts=(), end=None))
  assert worth.lines()[1:] == ["warning: the run is unfinished; the command that trained it goes on with it"]


def test_warnings_of_the_data_are_said(tmp_path):
  folder = make_run(tmp_path / "run")
  table = {"source": "wells.csv", "warnings": ["column 'depth' holds -999.25"], "label_warnings": ["one row of ooze"]}
  for part in ("train", "val", "test"):
    path = tmp_path / "run" / "eval" / f"{part}.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"meta": record["meta"] | {"table": table}}))
  assert quality.of_workdir(folder).lines()[1:] == ["warning: data: column 'depth' holds -999.25",
                                                    "warning: data: one row of ooze"]
