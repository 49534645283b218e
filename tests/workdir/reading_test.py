"""The reader of a run's folder: strict and lenient agree on whole files, and on damaged ones each does as it says."""

import json
import os

import numpy as np
import pytest

import outside
from made_runs import make_run, replace_text, write_json
from jaxtrain import loop
from jaxtrain.errors import UserError
from jaxtrain.jsonable import digest_json
from jaxtrain.workdir import facts as facts_lib, reading, records

ACCURACY = {"unit": "", "meaning": "Share of rows that are right.", "direction": "higher", "chance": 0.5}
KL = {"unit": "nats", "meaning": "Cost of the latent code.", "direction": "lower", "chance": None}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """The folder of a real run, and what the loop returned."""
  folder = tmp_path_factory.mktemp("trained")
  return str(folder), loop.train(outside.get_config("table"), str(folder))


def assert_equal(one, two):
  """Whether two readings of a run agree in all."""
  assert one._replace(arrays={}) == two._replace(arrays={}) and one.arrays.keys() == two.arrays.keys()
  for name in one.arrays:
    np.testing.assert_array_equal(one.arrays[name], two.arrays[name])


def test_both_ways_read_a_whole_run_alike(trained, tmp_path):
  for folder in (trained[0], make_run(tmp_path / "run")):
    run = reading.read_run(folder)
    assert_equal(run, reading.read_run(folder, strict=True))
    assert run.events and run.rows and not run.problems


def test_what_is_read_is_what_was_written(trained):
  folder, result = trained
  run = reading.read_run(folder)
  assert reading.history(run.events) == result.history and reading.status(run)[0] == "done"
  assert reading.best_of(run) == ("val_loss", result.best_value, result.best_step)
  assert reading.best_value(folder) == result.best_value
  test, = (row for row in run.rows if row["split"] == "test")
  assert test["metric_loss"] == result.test_loss and type(test["step"]) is type(test["epoch"]) is int
  assert run.meta == {"steps_per_epoch": 7}  # 100 rows in batches of 16, from the newest checkpoint


ALL, NO_FIRST, NO_LAST, NONE = slice(None), slice(1, None), slice(-1), slice(0)


@pytest.mark.parametrize(("name", "change", "says", "left"), [
    ("events.jsonl", lambda text: text[:-5], "line 6 is damaged", NO_LAST),
    ("events.jsonl", lambda text: "{broken\n" + text, "line 1 is damaged", ALL),
    ("events.jsonl", lambda text: "[]\n" + text, "line 1 is damaged", ALL),
    ("events.jsonl", lambda text: "\0" * 9 + text, "line 1 is damaged", ALL),
    ("scalars.csv", lambda text: text[:-4], "line 10 is damaged", NO_LAST),
    ("scalars.csv", lambda text: text.replace("\n1,train,10,", "\n1,train,,"), "the cell 'step' is empty", NO_FIRST),
    ("scalars.csv", lambda text: text.replace("\n1,train,10,", "\n1,train,ten,"), "line 2 is damaged", NO_FIRST),
    ("scalars.csv", lambda text: text.replace("\n1,train,10,", "\n1,train,10,,"), "16 cells, the header has 15",
     NO_FIRST),
    ("scalars.csv", lambda text: text.replace("epoch,", "age,", 1), "line 1 is damaged", NONE)])
def test_damage_is_refused_or_left_out(tmp_path, name, change, says, left):
  folder = make_run(tmp_path / "run")
  before = reading.read_run(folder)
  replace_text(folder, f"facts/{name}", change)
  with pytest.raises(UserError, match=says):
    reading.read_run(folder, strict=True)
  run = reading.read_run(folder)
  events, rows = (left, ALL) if name == "events.jsonl" else (ALL, left)
  assert (run.events, run.rows, run.problems) == (before.events[events], before.rows[rows], [])


def test_an_event_of_an_unknown_moment_is_refused_or_kept(tmp_path):
  folder = make_run(tmp_path / "run")
  replace_text(folder, "facts/events.jsonl", lambda text: text.replace("on_train_end", "on_train_stop"))
  with pytest.raises(UserError, match="line 6 is damaged .an event must have a moment out of"):
    reading.read_run(folder, strict=True)
  run = reading.read_run(folder)
  assert run.events[-1]["moment"] == "on_train_stop" and reading.status(run)[0] == "incomplete"


def test_an_event_whose_moment_is_no_text_has_none(tmp_path):
  folder = make_run(tmp_path / "run")
  replace_text(folder, "facts/events.jsonl", lambda text: '{"moment": ["on_start"], "step": 3}\n' + text)
  with pytest.raises(UserError, match="line 1 is damaged"):
    reading.read_run(folder, strict=True)
  assert reading.read_run(folder).events[0] == {"step": 3}


def test_values_of_another_kind_are_left_out(tmp_path):
  folder = make_run(tmp_path / "run")
  replace_text(folder, "facts/events.jsonl", lambda text: text.replace('"alarms": []', '"alarms": 5').replace(
      '"stopped_early": false', '"stopped_early": "no", "later": 1'))
  run = reading.read_run(folder)
  assert not any("alarms" in event for event in run.events) and len(run.events) == 6
  assert "stopped_early" not in run.events[-1] and run.events[-1]["later"] == 1  # of a newer version, perhaps
  assert reading.status(run)[0] == "done"


def test_a_line_that_a_kill_cut_in_two_does_not_end_a_strict_reading_of_processes(tmp_path):
  folder = make_run(tmp_path / "run")
  facts = facts_lib.Facts(os.path.join(folder, "facts"), "a")
  facts.process(resume_step=0, threads=2)
  facts.write("process.jsonl", '{"schema_version": 1, "resu')
  facts.process(resume_step=20)
  facts.process(stopped_by="SIGTERM", step=30)
  facts.close()
  for strict in (False, True):
    starts = reading.read_run(folder, strict=strict).starts
    assert [line.get("resume_step") for line in starts] == [0, None] and starts[1]["stopped_by"] == "SIGTERM"


def test_a_resume_refuses_damaged_facts(tmp_path):
  folder = os.path.join(make_run(tmp_path / "run"), "facts")
  facts = facts_lib.Facts(folder, "a")
  offsets = facts.offsets()
  facts.cut(offsets)
  assert facts.metric_names == [f"metric_{name}" for name in ("accuracy", "beta", "kl", "loss", "recon")]
  replace_text(os.path.dirname(folder), "facts/events.jsonl", lambda text: text.replace('"epoch": 0', '"epoch": {'))
  with pytest.raises(UserError, match="events.jsonl: line 1 is damaged .*restore the file"):
    facts.cut(offsets)
  with pytest.raises(UserError, match="fewer than"):
    facts.cut(offsets | {"scalars.csv": 10 ** 6})


def write_part(folder, name, scalars, arrays, digest="ab", **more):
  """The files of a part of an evaluation."""
  split = name.partition("-")[0]
  write_json(folder, f"eval/{name}.json", {"split": split, "step": 30, "digest": digest, "scalars": scalars} | more)
  if arrays:
    np.savez_compressed(os.path.join(folder, "eval", f"{name}.npz"), **arrays)


def write_record(folder, step, record):
  """The record of a checkpoint that holds nothing else."""
  os.makedirs(os.path.join(folder, "checkpoints", str(step), "record"))
  record = {"value": None, "best_step": 30, "best_value": None, "monitor": "val_loss", "metrics": {}, "digest": "ab",
            "num_bad_evals": 0, "offsets": {"events.jsonl": 0, "scalars.csv": 0}, "run_id": "made",
            "config_digest": "cd", **record}
  write_json(folder, f"checkpoints/{step}/record/metadata", record | {"record_digest": digest_json(record)})


@pytest.fixture
def parted(tmp_path):
  """A run whose evaluation of the test split is in parts."""
  folder = make_run(tmp_path / "run", parts=())
  write_part(folder, "test", {"rows": 9, "auroc": 0.7, "shd": 3.0}, {})
  write_part(folder, "test-scores", {"rows": 9, "auroc": 0.7}, {"curve": np.arange(3)}, metrics={"au*": ACCURACY})
  write_part(folder, "test-audit", {"shd": 3.0}, {"bins": np.arange(5)}, metrics={"shd": KL})
  write_part(folder, "test-old", {"x": 1.0}, {"stale": np.arange(2)}, digest="cd")
  write_part(folder, "val-scores", {"auroc": 0.6}, {"curve": np.arange(4)})  # killed before val.json was written
  for step, rows in ((30, 5), (40, 7)):
    write_record(folder, step, {"meta": {"rows": {"train": rows}}})
  return folder


@pytest.mark.parametrize("strict", [False, True])
def test_parts_of_an_evaluation_are_one(parted, strict):
  run = reading.read_run(parted, strict=strict)
  assert list(run.evals) == ["test"] and run.evals["test"]["scalars"] == {"rows": 9, "auroc": 0.7, "shd": 3.0}
  assert run.split == "test" and sorted(run.arrays) == ["bins", "curve"] and len(run.arrays["curve"]) == 3
  assert reading.described(run) == {"au*": ACCURACY, "shd": KL}
  assert run.meta == {"rows": {"train": 7}}


def test_a_damaged_part_loses_no_other(parted):
  replace_text(parted, "eval/test-audit.npz", lambda text: text[:len(text) // 2])
  replace_text(parted, "eval/test-scores.json", lambda text: "{")
  run = reading.read_run(parted)
  assert not run.arrays and [problem.split(" cannot")[0] for problem in run.problems] == [
      os.path.join(parted, "eval", name) for name in ("test-scores.json", "test-audit.npz")]
  with pytest.raises(UserError, match="test-scores.json cannot be read"):
    reading.read_run(parted, strict=True)


def test_data_are_described_by_evaluations_of_older_runs_and_by_checkpoints(tmp_path):
  folder = make_run(tmp_path / "run", parts=("train", "val"))
  assert reading.read_run(folder).meta["features"] == ["depth", "mass"]
  write_record(folder, 30, {"meta": {"features": ["a"]}})
  assert reading.read_run(folder).meta["features"] == ["depth", "mass"]
  for part in ("train", "val"):
    os.remove(os.path.join(folder, "eval", f"{part}.json"))
  assert reading.read_run(folder).meta == {"features": ["a"]}
  assert reading.read_run(folder, with_arrays=False).meta == {}
  replace_text(folder, "checkpoints/30/record/metadata", lambda text: text.replace('"a"', '"b"'))  # its digest fails
  assert reading.read_run(folder).meta == {}


def test_descriptions_are_found_by_name_and_by_pattern(tmp_path):
  said = {"accuracy": ACCURACY, "kl*": KL}
  assert [reading.description(said, name) for name in ("accuracy", "accuracy/0", "kl_nats", "loss")] == [
      ACCURACY, ACCURACY, KL, {}]
  assert reading.described(reading.read_run(make_run(tmp_path / "run"))) == {}  # of a run made before there were any


def make_stages(folder, num_stages, num_begun):
  """A run of stages, of which some have begun and a folder of one more was made."""
  write_json(folder, "config.json", {"stages": [{}] * num_stages})
  for k in range(num_begun):
    make_run(folder / "stages" / str(k), num_epochs=3 + k)
  (folder / "stages" / str(num_begun)).mkdir()
  return str(folder)


def test_the_newest_stage_stands_for_the_run(tmp_path):
  folder = make_stages(tmp_path, 12, 11)
  assert [os.path.basename(path) for path in records.stage_folders(folder)] == [str(k) for k in range(11)]
  assert records.last_stage(folder) == os.path.join(folder, "stages", "10")
  whole, newest = reading.read_newest(folder)
  assert whole.folder == folder and newest.rows[-1]["epoch"] == 13
  assert reading.status(newest)[0] == "incomplete" and reading.best_value(folder) is None  # one stage is to come
  write_json(folder, "config.json", {"stages": [{}] * 11})
  assert reading.status(reading.read_newest(folder)[1])[0] == "done"
  assert reading.best_value(folder) == pytest.approx(2 + 4.0 ** (3 - 4 * 12))  # of the last epoch but one


def test_best_values_are_of_runs_that_are_done(tmp_path):
  assert reading.best_value(make_run(tmp_path / "a", end=None)) is None
  assert reading.best_value(str(tmp_path / "none")) is None
  folder = make_run(tmp_path / "b")
  assert reading.best_of(reading.read_run(folder)) == ("val_loss", reading.best_value(folder), 30)
  assert reading.best_of(reading.read_run(make_run(tmp_path / "c", parts=("train",)))).monitor == "train_loss"
  replace_text(folder, "config.json", lambda text: json.dumps(
      json.loads(text) | {"train": {"monitor": "val_accuracy"}}))
  assert reading.best_of(reading.read_run(folder)) == ("val_accuracy", pytest.approx(0.6), 30)
