"""What the files of a run say: the one reader for reports, sweeps and predictions. No JAX."""

import csv
import json
import os
import pathlib
from typing import Any, Callable, NamedTuple

import numpy as np

from jaxtrain import jsonable
from jaxtrain.errors import UserError


SPLITS = ("test", "val", "train")  # in the order in which they are looked for


class RunData(NamedTuple):
  """What the files of a run hold: config.json and its origins, run.json, and:

  Attributes:
    events, rows, starts: facts/events.jsonl, facts/scalars.csv (floats, None for unknown), facts/process.jsonl.
    evals: split -> eval/<split>.json.
    split, arrays: the part that figures show and its eval/<split>.npz; "" and {} where there is none.
    problems: what could not be read or drawn, one line each.
  """
  folder: str
  config: dict
  origins: dict
  process: dict
  events: list[dict]
  rows: list[dict]
  starts: list[dict]
  evals: dict[str, dict]
  split: str
  arrays: dict[str, np.ndarray]
  problems: list[str]


def status(run: RunData) -> tuple[str, str, str]:
  """How a run ended: a word, its colour, and a sentence."""
  last = next((e for e in reversed(run.events) if e.get("moment") in ("on_train_end", "on_exception")), {})
  if last.get("moment") == "on_exception":
    return "failed", "bad", f"{last.get('error', '')}: {last.get('message', '')}"
  if not last:
    return "incomplete", "warn", "Stopped, or still going: the same command goes on from the newest checkpoint."
  return "done", "good", "Stopped early: the monitored metric no longer improved." if last.get("stopped_early") else ""


def is_sweep(folder: str) -> bool:
  """Whether a folder is a sweep's."""
  return os.path.exists(os.path.join(folder, "sweep.json"))


def best_value(workdir: str) -> float | None:
  """The best monitored value of a run that is done; None where it has no finite one."""
  events = read_events(os.path.join(workdir, "facts", "events.jsonl"))
  ends = [event for event in events if event["moment"] == "on_train_end"]
  value = ends[-1]["best_value"] if ends else None
  return float(value) if isinstance(value, (int, float)) else None


def read_events(path: str) -> list[dict]:
  """The events of a run, in order. Raises UserError for a damaged line."""
  try:
    with open(path, encoding="utf-8") as file:
      return [json.loads(line) for line in file]
  except FileNotFoundError:
    return []
  except ValueError as error:
    raise UserError(f"{path}: a line is no JSON: {error}") from None


def read_scalars(path: str) -> list[dict]:
  """The rows of scalars.csv: numbers as float or int, unknown as None."""
  try:
    with open(path, encoding="utf-8", newline="") as file:
      return [{name: read_cell(name, text) for name, text in row.items()} for row in csv.DictReader(file)]
  except FileNotFoundError:
    return []


def read_cell(name: str, text: str) -> Any:
  """The value of a CSV cell."""
  if text == "":
    return None
  if name == "split":
    return text
  return int(text) if name in ("epoch", "step") else float(text)


def history(events: list[dict]) -> dict[str, list]:
  """Lists per epoch (per evaluation for a stream) from events: training metrics by name, validation ones as
  `val_<name>`.

  Every list has one entry per epoch; a metric that an epoch does not have is None there.
  """
  ends = {event["step"] for event in events if event["moment"] == "on_epoch_end"}
  moments = [event for event in events if event["moment"] in ("on_epoch_end", "on_eval")
             and (event["step"] in ends or not ends)]
  by_epoch: dict[int, dict[str, Any]] = {}
  for event in moments:
    entry = by_epoch.setdefault(event["step"], {"epoch": event["epoch"], "step": event["step"]})
    prefix = "" if event["split"] == "train" else f"{event['split']}_"
    entry |= {prefix + name: float(value) for name, value in (event["losses"] | event["metrics"]).items()}
    if event["split"] == "train":
      entry |= {"seconds": event["epoch_time_s"], "samples_per_s": event["throughput"]}
  names = list(dict.fromkeys(name for entry in by_epoch.values() for name in entry))
  return {name: [entry[name] if name in entry else None for entry in by_epoch.values()] for name in names}


def read_run(folder: str, with_arrays: bool = True) -> RunData:
  """Reads a run folder, with or without the arrays of its evaluations, which are large.

  Raises UserError where it holds no config.json that can be read.
  """
  problems: list[str] = []
  def read(parse, empty, *parts):
    path = os.path.join(folder, *parts)
    try:
      with open(path, "rb") as file:
        return parse(file)
    except FileNotFoundError:
      return empty
    except Exception as error:  # json, zipfile, zlib, numpy and the system each have their own
      problems.append(f"{path} cannot be read: {error}")
      return empty
  read_object = lambda file: dict(json.load(file))
  read_lines = lambda file: parse_lines(lambda line: dict(json.loads(line)), file)
  read_rows = lambda file: parse_lines(parse_row, file, csv.DictReader)
  config = read(read_object, {}, "config.json")
  if not config:
    raise UserError(problems[0] if problems else f"{folder!r} holds no run (no config.json)")
  evals = {split: record for split in SPLITS[::-1] if (record := read(read_object, {}, "eval", f"{split}.json"))}
  arrays = {split: read(lambda file: dict(np.load(file, allow_pickle=False)), {}, "eval", f"{split}.npz")
            for split in SPLITS if with_arrays and split in evals}
  split = next((s for s in arrays if arrays[s]), next(iter(arrays), ""))
  return RunData(folder, config, config.pop("origins", {}), read(read_object, {}, "run.json"),
                 read(read_lines, [], "facts", "events.jsonl"), read(read_rows, [], "facts", "scalars.csv"),
                 read(read_lines, [], "facts", "process.jsonl"), evals, split, arrays[split] if split else {}, problems)


def parse_lines(parse: Callable[[Any], dict], file, reader=iter) -> list[dict]:
  """What `parse` makes of each line, or row of a reader of lines, but for damaged ones and half a line at the end."""
  found = []
  for item in reader(file.read().decode("utf-8", "replace").replace("\0", "").split("\n")[:-1]):
    try:
      found.append(parse(item))
    except (TypeError, ValueError):
      continue
  return found


def parse_row(row: dict[str, str]) -> dict[str, Any]:
  """A row of scalars.csv: numbers as float, None for unknown. Raises ValueError for a row without a position."""
  numbers = {name: float(cell) if cell else None for name, cell in row.items() if name != "split"}
  if None in (numbers.get("epoch"), numbers.get("step"), row.get("split")):
    raise ValueError("no position")
  return numbers | {"split": row["split"]}


def stage_folders(folder: str) -> list[str]:
  """Folders of the stages of a run that have begun, in order; none for a run without."""
  found = pathlib.Path(folder).glob("stages/[0-9]*/config.json")
  return sorted((str(path.parent) for path in found), key=lambda path: (len(path), path))


def step_seconds(run: RunData) -> float:
  """Time in steps of all epochs, or of all evaluations of a stream."""
  return sum(row.get("epoch_time_s") or 0.0 for row in run.rows)


def newest_event(run: RunData, moment: str) -> dict:
  """The newest event of a moment; {} where there is none."""
  return next((event for event in reversed(run.events) if event.get("moment") == moment), {})


def value_of(row: dict, name: str) -> float | None:
  """A metric of a row of scalars.csv."""
  return next((row[c] for c in (f"metric_{name}", name, f"{row['split']}_{name}") if row.get(c) is not None), None)


def best_of(run: RunData) -> tuple[str, float | None, float | None]:
  """The monitored metric, its best value and the step of that; None where nothing was evaluated."""
  monitor = str(run.config.get("train", {}).get("monitor", "val_loss"))
  if monitor.startswith("val_") and all(row["split"] != "val" for row in run.rows):
    monitor = "train_" + monitor[len("val_"):]
  split, _, name = monitor.partition("_")
  found = [event.get("best_step" if event.get("moment") == "on_train_end" else "step") for event in run.events
           if event.get("is_best") or event.get("moment") == "on_train_end"]
  step = jsonable.number(found[-1]) if found else None
  return monitor, next((value_of(r, name) for r in run.rows if (r["split"], r["step"]) == (split, step)), None), step


def time_axis(run: RunData) -> tuple[str, float]:
  """Name of the time axis, and steps per unit of it: epochs, or steps for a stream."""
  per_epoch = jsonable.number(newest_event(run, "on_start").get("steps_per_epoch"))
  return ("epoch", per_epoch) if per_epoch else ("step", 1.0)


def curve(run: RunData, split: str, name: str) -> tuple[np.ndarray, np.ndarray] | None:
  """Position and value of a metric of a split, NaN where not finite; None where no value is finite."""
  points = [(row["step"], value_of(row, name)) for row in run.rows if row["split"] == split]
  x, y = np.array(points, float).reshape(-1, 2).T
  finite = np.isfinite(y)
  return (x / time_axis(run)[1], np.where(finite, y, np.nan)) if finite.any() else None
