"""What the files of a run say: the one reader for pages, sweeps, predictions and resumes. No JAX.

Two ways read the same files by the same declarations of `schema`. The strict way raises a UserError for anything that
is damaged; a resume reads its facts so. The lenient way reads as far as the files go, because a page of a run that was
killed, or that an older version made, is better than none: damaged lines, and values that are not of their declared
kind, are left out.
"""

import fnmatch
import math
import os
import zipfile
from typing import Any, Callable, NamedTuple

import numpy as np

from jaxtrain import jsonable, memory, spelling
from jaxtrain.errors import UserError
from jaxtrain.workdir import lines, records, schema
from jaxtrain.workdir.schema import SPLITS


class RunData(NamedTuple):
  """What the files of a run hold: config.json and its origins, run.json, and:

  Attributes:
    events, rows, starts: facts/events.jsonl, facts/scalars.csv (None for unknown), facts/process.jsonl.
    evals: split -> eval/<split>.json; its `metrics` are those of all parts of the split.
    split, arrays: the split that figures show, and the arrays of all its parts; "" and {} where there is none.
    meta: what the run knows of its data; {} where that is not known.
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
  meta: dict
  problems: list[str]


class Best(NamedTuple):
  """The monitored metric, its best value and the step of that; None where nothing was evaluated."""
  monitor: str
  value: float | None
  step: int | None


def read_events(path: str, strict: bool = True) -> list[dict]:
  """The events of a run, in order; [] without a file. Raises UserError for a damaged line where that is strict."""
  return parse_events(lines.read(path), path, strict)


def parse_events(data: bytes, path: str, strict: bool) -> list[dict]:
  """The events that a file's content holds; as of `read_events`."""
  fits = schema.check_event if strict else schema.fitting_event
  return lines.parse(data, lambda line: fits(lines.parse_object(line)), path, strict)


def read_rows(path: str, strict: bool = True) -> list[dict]:
  """The rows of scalars.csv; [] without a file. Raises UserError for a damaged line where that is strict."""
  return parse_rows(lines.read(path), path, strict)


def parse_rows(data: bytes, path: str, strict: bool) -> list[dict]:
  """The rows that a file's content holds; as of `read_rows`."""
  header, end, rest = data.partition(b"\n")
  split = lambda line: line.split(",")
  names = lines.parse(header + end, lambda line: schema.check_columns(split(line)) if strict else split(line), path,
                      strict)
  return lines.parse(rest, lambda line: schema.parse_row(names[0], line), path, strict, first=2) if names else []


def read_starts(path: str) -> list[dict]:
  """The lines of process.jsonl, always leniently: it is never cut back, so that a kill may leave half a line in it."""
  return lines.parse(lines.read(path), lambda line: schema.fitting(lines.parse_object(line), schema.PROCESS), path,
                     strict=False)


def read_run(folder: str, with_arrays: bool = True, strict: bool = False) -> RunData:
  """Reads a run folder, with or without the arrays of its evaluations (large) and what it knows of its data.

  Raises:
    UserError: there is no config.json that can be read; or reading is strict, and a file is damaged.
  """
  problems: list[str] = []

  def attempt(read: Callable[[str], Any], empty: Any, *parts: str) -> Any:
    path = os.path.join(folder, *parts)
    try:
      return read(path)
    except FileNotFoundError:
      return empty
    except Exception as error:  # json, zipfile, zlib, numpy and the system each have their own
      if strict:
        raise error if isinstance(error, UserError) else UserError(f"{path} cannot be read: {error}") from None
      problems.append(f"{path} cannot be read: {error}")
      return empty

  config = attempt(lambda path: read_fitting(path, schema.CONFIG, strict), {}, "config.json")
  if not config:
    raise UserError(problems[0] if problems else spelling.no_run(folder))
  parts = {name: attempt(lambda path: read_part(path, strict), {}, "eval", f"{name}.json")
           for name in part_names(os.path.join(folder, "eval"))}
  evals = {split: merged(split, parts) for split in SPLITS[::-1] if parts.get(split)}
  arrays = {split: {} for split in SPLITS if with_arrays and split in evals}
  for split in arrays:
    for name in parts_of(split, parts):
      arrays[split] |= attempt(read_arrays, {}, "eval", f"{name}.npz")
  split = next((s for s in arrays if arrays[s]), next(iter(arrays), ""))
  origins = config.pop("origins", {})
  meta = attempt(lambda path: read_meta(path, evals, split), {}, "checkpoints") if with_arrays else {}
  return RunData(folder, config, origins, attempt(lambda path: read_fitting(path, schema.MADE, strict), {}, "run.json"),
                 attempt(lambda path: read_events(path, strict), [], "facts", "events.jsonl"),
                 attempt(lambda path: read_rows(path, strict), [], "facts", "scalars.csv"),
                 attempt(read_starts, [], "facts", "process.jsonl"), evals, split, arrays[split] if split else {},
                 meta, problems)


def read_object(path: str) -> dict:
  """The JSON object of a file. Raises ValueError where it holds none."""
  return lines.parse_object(lines.read_file(path).decode())


def read_fitting(path: str, fields: schema.Fields, strict: bool) -> dict:
  """The JSON object of a file without the values that are not of their declared kind, or refused strictly for them."""
  found = read_object(path)
  return schema.check_known(found, fields, os.path.basename(path)) if strict else schema.fitting(found, fields)


def read_arrays(path: str) -> dict[str, np.ndarray]:
  """The arrays of an .npz file.

  Raises ValueError where it holds something else, or more than fits into memory: of that its headers tell, which are as
  long as the arrays, and not its directory, which anybody can write.
  """
  with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
    claimed = 0
    for name in archive.namelist():
      with archive.open(name) as member:
        shape, dtype = read_header(member, name)
      claimed += math.prod(shape) * dtype.itemsize
      memory.check(claimed, "what it holds")
    file.seek(0)
    return dict(np.load(file, allow_pickle=False))


def read_header(member, name: str) -> tuple[tuple[int, ...], np.dtype]:
  """(shape, dtype) of an array in an archive. Raises ValueError where it is none."""
  if not name.endswith(".npy"):
    raise ValueError(f"{name} is no array")
  read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
  version = np.lib.format.read_magic(member)
  if version not in read:
    raise ValueError(f"{name} is of version {version} of NumPy's format, allowed 1.0 and 2.0")
  shape, _, dtype = read[version](member)
  return shape, dtype


def read_part(path: str, strict: bool) -> dict:
  """The record of a part of an evaluation. Raises ValueError where it is damaged, or strictly where it does not fit."""
  record = read_object(path)
  return schema.check(record, schema.PART, "an evaluation") if strict else schema.fitting(record, schema.PART)


def part_names(folder: str) -> list[str]:
  """Names of the parts of evaluations in a folder, sorted: `<split>`, or `<split>-<name>`."""
  names = os.listdir(folder) if os.path.isdir(folder) else []
  return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def parts_of(split: str, parts: dict[str, dict]) -> list[str]:
  """Names of the parts that make up the record of a split; not those that are of another state."""
  whole = parts[split]
  same = lambda part: all(part[key] == whole[key] for key in ("step", "digest") if key in part and key in whole)
  return [name for name, part in parts.items() if name.partition("-")[0] == split and part and same(part)]


def merged(split: str, parts: dict[str, dict]) -> dict:
  """The record of a split, with what its parts say of their metrics."""
  metrics = {}
  for name in parts_of(split, parts):
    metrics |= parts[name].get("metrics", {})
  return parts[split] | ({"metrics": metrics} if metrics else {})


def read_meta(checkpoints: str, evals: dict[str, dict], split: str) -> dict:
  """What a run knows of its data: from an evaluation of an older run, else from its newest checkpoint."""
  for name in (split, *evals):
    if name in evals and "meta" in evals[name]:
      return evals[name]["meta"]
  return records.newest_record(checkpoints).get("meta", {})


def known_meta(run: RunData) -> dict:
  """What a run knows of its data, where it was read without its arrays."""
  return read_meta(os.path.join(run.folder, "checkpoints"), run.evals, "")


def read_newest(folder: str) -> tuple[RunData, RunData]:
  """A run without its arrays, and its newest stage, which is the run itself where it has no stages.

  Raises UserError as `read_run` does.
  """
  run, stages = read_run(folder, with_arrays=False), records.stage_folders(folder)
  return run, of_stage(run, read_run(stages[-1], with_arrays=False)) if stages else run


def of_stage(run: RunData, newest: RunData) -> RunData:
  """The newest stage of a run, as not ended while others are to come."""
  if int(os.path.basename(newest.folder)) + 1 >= len(run.config.get("stages", ())):
    return newest
  return newest._replace(events=[event for event in newest.events if event.get("moment") != "on_train_end"])


def status(run: RunData) -> tuple[str, str, str]:
  """How a run ended: a word, its colour, and a sentence."""
  last = next((e for e in reversed(run.events) if e.get("moment") in ("on_train_end", "on_exception")), {})
  if last.get("moment") == "on_exception":
    return "failed", "bad", f"{last.get('error', '')}: {last.get('message', '')}"
  if not last:
    return "incomplete", "warn", "Stopped, or still going: the same command goes on from the newest checkpoint."
  return "done", "good", "Stopped early: the monitored metric no longer improved." if last.get("stopped_early") else ""


def newest_event(run: RunData, moment: str) -> dict:
  """The newest event of a moment; {} where there is none."""
  return next((event for event in reversed(run.events) if event.get("moment") == moment), {})


def value_of(row: dict, name: str) -> float | None:
  """A metric of a row of scalars.csv."""
  return next((row[c] for c in (f"metric_{name}", name, f"{row['split']}_{name}") if row.get(c) is not None), None)


def metric_names(run: RunData) -> list[str]:
  """Names of all metrics of a run's rows, the loss first."""
  columns = (name[len("metric_"):] for row in run.rows for name in row if name.startswith("metric_"))
  return list(dict.fromkeys(["loss", *columns]))


def scalars(record: dict) -> dict[str, float | None]:
  """The scalars of the record of an evaluation by name; None for one that is no number. Whole numbers stay so."""
  whole = lambda value: isinstance(value, int) and not isinstance(value, bool)
  return {name: value if whole(value) else jsonable.number(value) for name, value in record.get("scalars", {}).items()}


def best_of(run: RunData) -> Best:
  """What was best in a run, by its newest evaluation that was the best so far."""
  monitor = str(run.config.get("train", {}).get("monitor", "val_loss"))
  if monitor.startswith("val_") and all(row["split"] != "val" for row in run.rows):
    monitor = "train_" + monitor[len("val_"):]
  split, _, name = monitor.partition("_")
  found = [event.get("best_step" if event.get("moment") == "on_train_end" else "step") for event in run.events
           if event.get("is_best") or event.get("moment") == "on_train_end"]
  step = found[-1] if found else None
  value = next((value_of(row, name) for row in run.rows if (row["split"], row["step"]) == (split, step)), None)
  return Best(monitor, value, step)


def best_value(workdir: str) -> float | None:
  """The best monitored value of a run that is done; None where it has no finite one, or its files cannot be read."""
  try:
    _, run = read_newest(workdir)
  except UserError:
    return None
  value = best_of(run).value if newest_event(run, "on_train_end") else None
  return value if value is not None and math.isfinite(value) else None


def described(run: RunData) -> dict[str, dict]:
  """What a run's experiment says of its metrics: name or pattern -> unit, meaning, direction and chance."""
  found = dict(newest_event(run, "on_start").get("metrics", {}))
  for record in run.evals.values():
    found |= record.get("metrics", {})
  return found


def description(descriptions: dict[str, dict], name: str) -> dict:
  """What is said of a metric `<name>` or `<name>/<item>`, by its name or by a pattern of names; {} for nothing."""
  for known in (name, name.partition("/")[0]):
    if known in descriptions:
      return descriptions[known]
  return next((found for pattern, found in descriptions.items() if fnmatch.fnmatchcase(name, pattern)), {})


def step_seconds(run: RunData) -> float:
  """Time in steps of all epochs, or of all evaluations of a stream."""
  return sum(row.get("epoch_time_s") or 0.0 for row in run.rows)


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
