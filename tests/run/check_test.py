"""`--mode=check`: what it measures, and its words."""

import json
import re

import pytest

import outside
from jaxtrain.devices import backend
from jaxtrain.run import check


@pytest.fixture(scope="module")
def described():
  return check.describe(outside.get_config("table"))


def keys_of(value):
  """All keys of a JSON value."""
  if isinstance(value, dict):
    return list(value) + [key for one in value.values() for key in keys_of(one)]
  return [key for one in value for key in keys_of(one)] if isinstance(value, list) else []


def test_it_is_json_with_snake_case_keys(described):
  assert json.loads(json.dumps(described)) == described
  assert all(re.fullmatch("[a-z][a-z0-9_]*", key) for key in keys_of(described))


def test_times_are_those_of_tried_steps(described):
  assert described["timed_steps"] > 0 and described["not_timed"] is None
  assert described["expected_seconds_per_epoch"] == described["seconds_per_step"] * 7  # 100 rows in batches of 16
  assert described["expected_seconds"] == described["seconds_per_step"] * 42


@pytest.mark.parametrize("variant", ["stream", "buckets"])
def test_a_stream_has_no_epochs(variant):
  described = check.describe(outside.get_config(variant))
  assert described["expected_seconds_per_epoch"] is None and described["expected_seconds"] > 0
  text = "\n".join(check.lines(described))
  assert "a stream, made as training goes" in text and "an epoch" not in text and "train: without end" in text


def test_one_step_is_timed_too():
  config = outside.get_config("stream")
  config.train.num_steps = 1
  assert check.describe(config)["timed_steps"] == 1


def test_a_step_that_is_too_large_is_not_tried(monkeypatch):
  monkeypatch.setattr(backend, "free_bytes", lambda: 1000)
  described = check.describe(outside.get_config("table"))
  assert described["expected_seconds"] is None and described["timed_steps"] == 0
  assert any("not known, because a step takes too much memory" in line for line in check.lines(described))
  monkeypatch.setattr(backend, "free_bytes", lambda: 1 << 40)
  monkeypatch.setitem(check.MOST_FLOPS, "cpu", 1.0)
  assert check.describe(outside.get_config("table"))["not_timed"] == "a step takes too long to be tried here"


def test_thousands_of_classes_and_columns_are_ten_names_and_a_count(described):
  names = [f"c{k:04d}" for k in range(5000)]
  data = described["data"] | {
      "classes": [{"name": name, "rows": 10_000 - k, "train": 10_000 - k, "val": 0, "test": 0}
                  for k, name in enumerate(names)],
      "missing": [{"column": name, "cells": 1} for name in names], "constant_columns": names,
      "duplicate_columns": [names], "skewed_columns": [{"column": name, "transform": "log1p"} for name in names],
      "suggested_flag": "--config.data.transforms=" + ",".join(["log1p"] * 5000)}
  text = check.lines(described | {"data": data})
  assert max(map(len, text)) < 500 and sum("and 4,990 more" in line for line in text) == 4
  assert any(line.startswith("  5,000 classes, rows of train + val + test: c0000 10,000 (10,000 + 0 + 0), c0001 ")
             for line in text)
  assert "  to use these transforms: --json prints the flag" in text


def test_lines_are_groups_of_keys_and_values(described):
  text = check.lines(described)
  titles = [line for line in text if line and not line.startswith("  ")]
  assert titles == ["Data", "Training", "Shapes"]
  assert "  rows: 300 read, 300 kept" in text and "  steps: 42 of 16 rows, 7 an epoch" in text
  time = r"  expected time: about \S+ s of steps, \S+ s an epoch \([\d,]+ steps? timed here .*\), after about \S+ s .*"
  assert any(re.fullmatch(time, line) for line in text)
  assert all(": " in line for line in text if line.startswith("  "))


@pytest.mark.parametrize(("may_mask", "words"), [
    (True, "dropped, with missing features (--config.data.incomplete=mask uses them)"),
    (False, "dropped, with missing features")])
def test_dropped_rows_stand_with_the_remedy(may_mask, words, described):
  data = described["data"] | {"rows_read": 310, "rows_dropped": 10, "may_mask": may_mask}
  assert f"  rows: 310 read, 300 kept, 10 {words}" in check.lines(described | {"data": data})


@pytest.mark.parametrize("seconds, words", [(0.0004, "0.0004 s"), (90, "90 s"), (600, "10 min"), (7200, "2 h"),
                                            (864000, "10 days")])
def test_durations(seconds, words):
  assert check.duration(seconds) == words


def test_the_ten_largest_shapes_come_last_and_notes_with_the_run(described):
  leaves = [{"name": f"w{k}", "dtype": "float32", "shape": [k, 2]} for k in range(1, 16)]
  text = check.lines(described | {"batch": [], "state": leaves, "notes": ["a field has no effect"]})
  assert text[-12:-10] == ["Shapes", "  state w15: float32[15, 2]"]
  assert text[-2:] == ["  state w6: float32[6, 2]", "  5 smaller ones: --json prints them"]
  assert "  note: a field has no effect" in text[:-12]
