"""The declaration of the facts: what does not fit is refused when it is written, and what runs write does fit."""

import os

import numpy as np
import pytest

import outside
from jaxtrain import loop
from jaxtrain.workdir import facts as facts_lib, reading, schema

END = {"best_value": 0.5, "best_step": 3, "stopped_early": False, "digest": "ab", "bad_steps": 0, "total_time_s": 1.0}
START = {"config_digest": "ab", "experiment": "outside", "seed": 0, "parameters": 3, "num_steps": 6,
         "steps_per_epoch": None, "batch_size": 16, "init_from": None}
ACCURACY = {"unit": "", "meaning": "Share of rows that are right.", "direction": "higher", "chance": 0.5}
ROW = {"epoch": 1, "split": "train", "step": 10}


def event(moment, **fields):
  """Writes one event, of a run that leaves no file."""
  facts_lib.Facts(None, "a").event(moment, epoch=1, step=10, **fields)


@pytest.mark.parametrize(("moment", "fields", "says"), [
    ("on_pause", {}, "must have a moment out of on_start, on_epoch_end, .*'on_pause'"),
    ("on_train_end", {k: v for k, v in END.items() if k != "digest"}, "on_train_end: the field 'digest' is missing"),
    ("on_train_end", END | {"seed": 0}, "on_train_end: there is no field 'seed'"),
    ("on_train_end", END | {"best_step": 3.5}, "'best_step' must be a whole number, got 3.5"),
    ("on_train_end", END | {"best_step": True}, "'best_step' must be a whole number, got True"),
    ("on_train_end", END | {"stopped_early": 0}, "'stopped_early' must be true or false, got 0"),
    ("on_train_end", END | {"digest": None}, "'digest' must be text, got None"),
    ("on_train_end", END | {"best_value": "low"}, "'best_value' must be a number, got 'low'"),
    ("on_epoch_end", {"losses": {"loss": [1.0]}}, "'alarms' is missing|'metrics' is missing"),
    ("on_test_end", {"losses": {"loss": [1.0]}, "metrics": {}, "best_step": 1}, "'losses' must be numbers by name"),
    ("on_start", START | {"metrics": {"accuracy": ACCURACY | {"direction": "up"}}}, "'metrics' must be unit, meaning"),
    ("on_start", START | {"metrics": {"accuracy": {"unit": "nats"}}}, "'metrics' must be unit, meaning"),
    ("on_checkpoint", {"best_step": 1, "step ": 1}, "there is no field 'step '")])
def test_a_wrong_event_is_refused(moment, fields, says):
  with pytest.raises(ValueError, match=says):
    event(moment, **fields)


def test_a_refused_event_leaves_no_line(tmp_path):
  facts = facts_lib.Facts(str(tmp_path), "a")
  facts.event("on_start", epoch=0, step=0, **START)
  with pytest.raises(ValueError):
    facts.event("on_train_end", epoch=1, step=1)
  facts.close()
  assert len((tmp_path / "events.jsonl").read_text().splitlines()) == len(facts.events) == 1


def test_what_fits_is_written_with_numbers_that_json_can_hold():
  facts = facts_lib.Facts(None, "a")
  facts.event("on_train_end", epoch=1, step=np.int64(10), **END | {"best_value": np.float32("nan"), "best_step": None})
  facts.event("on_start", epoch=0, step=0, **START, metrics={"accuracy": ACCURACY | {"chance": None}})
  assert facts.events[0]["best_value"] == "nan" and facts.events[0]["step"] == 10


@pytest.mark.parametrize(("columns", "says"), [
    (ROW | {"loss": 1.0}, "there is no field 'loss'"), (ROW | {"train_loss": "low"}, "'train_loss' must be a number"),
    (ROW | {"step": None}, "'step' must be a whole number"), (ROW | {"split": 3}, "'split' must be text"),
    ({"step": 1, "split": "val"}, "'epoch' must be a whole number, got None")])
def test_a_wrong_row_is_refused(columns, says):
  with pytest.raises(ValueError, match=says):
    facts_lib.Facts(None, "a").row({}, **columns)


def test_names_of_metrics_fit_into_a_header():
  with pytest.raises(ValueError, match="no comma"):
    facts_lib.Facts(None, "a").declare_metrics(["loss", "share, of all"])


def test_a_wrong_line_about_a_process_is_refused():
  with pytest.raises(ValueError, match="there is no field 'compile'"):
    facts_lib.Facts(None, "a").process(compile=1.0)
  with pytest.raises(ValueError, match="'threads' must be a whole number"):
    facts_lib.Facts(None, "a").process(threads="all")


@pytest.mark.parametrize(("name", "values"), [
    ("losses", [{}, {"a": 1, "b": 0.5, "c": "-inf"}]), ("throughput", [None, 1, 0.5, "nan"]), ("alarms", [[], ["a"]])])
def test_kinds_hold(name, values):
  field = schema.MOMENTS["on_epoch_end"][name]
  assert all(field.fits(value) for value in values)
  assert not any(field.fits(value) for value in ("a", {"a": None}, {"a": "b"}, [1], True))


def test_cells_read_back_to_the_same_number():
  values = [0.1, 1e-300, -0.0, float("inf"), 2.0 ** -1074, 1 / 3, None]
  columns = ["epoch", "split", "step", *(f"metric_{k}" for k in range(len(values)))]
  row = dict(zip(columns, [3, "val", 10, *values]))
  assert schema.parse_row(columns, ",".join(map(schema.write_cell, row.values()))) == row
  assert np.isnan(schema.parse_row(columns[:4], "3,val,10,nan")["metric_0"])


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "absent"), [
    ("table", {"on_exception"}), ("stream", {"on_exception", "on_epoch_end", "on_test_end"})])
def test_all_that_a_run_writes_fits(tmp_path, variant, absent):
  loop.train(outside.get_config(variant), str(tmp_path))
  run = reading.read_run(str(tmp_path), strict=True)  # checks every event and row
  assert {event["moment"] for event in run.events} == set(schema.MOMENTS) - absent
  for line in run.starts:
    schema.check(line, schema.PROCESS, "process")
  for row in run.rows:
    schema.check_row(row, list(run.rows[0]))
  assert run.starts and run.rows and not run.problems


def test_a_run_that_halts_leaves_an_event_that_fits(tmp_path):
  with pytest.raises(Exception, match="is not finite"):
    loop.train(outside.get_config("nan"), str(tmp_path))
  events = reading.read_events(os.path.join(tmp_path, "facts", "events.jsonl"))
  assert events[-1]["moment"] == "on_exception" and events[-1]["error"] == "NonFinite"
