"""Facts of a run: what happened, written once, as JSON lines and a CSV; all pictures and pages read only these.

`facts/events.jsonl` and `facts/scalars.csv` are cut back to a checkpoint's offsets when a run resumes, so that a killed
and resumed run leaves the same facts as one never stopped. `facts/process.jsonl` has a line per process and is never
cut.
"""

import csv
import json
import math
import os
import time
from typing import Any

from jaxtrain.types import UserError

SCHEMA_VERSION = 1
COLUMNS = ("epoch", "split", "step", "train_loss", "val_loss", "lr", "grad_norm", "epoch_time_s", "throughput",
           "max_memory_mib")


class Facts:
  """Writer of one run's facts; keeps `events` and `rows` in memory too. Without a folder nothing is written."""

  def __init__(self, folder: str | None, run_id: str):
    self.folder, self.run_id = folder, run_id
    self.events: list[dict] = []
    self.rows: list[dict] = []
    self.metric_names: list[str] = []
    self.files = {}
    self.board: Any = None  # a copy of the rows for TensorBoard
    if folder:
      os.makedirs(folder, exist_ok=True)

  def start_fresh(self) -> None:
    """Empties what an earlier process left behind before its first checkpoint."""
    self.cut({"events.jsonl": 0, "scalars.csv": 0})

  def cut(self, offsets: dict[str, int]) -> None:
    """Cuts the files back to byte offsets and reads back what they still hold.

    Raises:
      UserError: a file is shorter than its offset, or a line of it is damaged.
    """
    if not self.folder:
      return
    self.close()
    for name, offset in offsets.items():
      path = os.path.join(self.folder, name)
      size = os.path.getsize(path) if os.path.exists(path) else 0
      if size < offset:
        raise UserError(f"{path}: {size} bytes, fewer than the {offset} that the checkpoint knows of; restore the "
                        "file, or "
                        "start a new workdir")
      with open(path, "ab") as file:
        file.truncate(offset)
    self.events = read_events(os.path.join(self.folder, "events.jsonl"))
    self.rows = read_scalars(os.path.join(self.folder, "scalars.csv"))
    if self.rows:
      self.metric_names = [name for name in self.rows[0] if name not in COLUMNS]

  def offsets(self) -> dict[str, int]:
    """Bytes written so far."""
    size = lambda path: os.path.getsize(path) if os.path.exists(path) else 0  # all that is written is flushed
    return {name: size(os.path.join(self.folder, name)) for name in ("events.jsonl", "scalars.csv")} if self.folder \
        else {}

  def opened(self, name: str):
    """The open file of a name, at its end."""
    if name not in self.files:
      self.files[name] = open(os.path.join(self.folder, name), "a", encoding="utf-8", newline="")
      self.files[name].seek(0, os.SEEK_END)
    return self.files[name]

  def write(self, name: str, text: str) -> None:
    """Appends text and hands it to the operating system, so that a killed process loses nothing."""
    if self.folder:
      file = self.opened(name)
      file.write(text)
      file.flush()

  def event(self, moment: str, *, epoch: int, step: int, split: str = "", **fields: Any) -> None:
    """Writes one event."""
    record = {"schema_version": SCHEMA_VERSION, "run_id": self.run_id, "moment": moment, "epoch": epoch, "step": step,
              "split": split, "time": time.time()} | fields
    self.events.append(clean(record))
    self.write("events.jsonl", json.dumps(self.events[-1]) + "\n")

  def process(self, **fields: Any) -> None:
    """Writes one line about this process."""
    self.write("process.jsonl", json.dumps(clean({"schema_version": SCHEMA_VERSION, "run_id": self.run_id,
                                                  "time": time.time()} | fields)) + "\n")

  def row(self, metrics: dict[str, float], **columns: Any) -> None:
    """Writes one row of scalars.csv; the header is fixed by `declare_metrics`."""
    row = {name: columns.pop(name, None) for name in COLUMNS}
    if columns:
      raise ValueError(f"no such columns: {sorted(columns)}")
    row |= {name: metrics[name[len("metric_"):]] if name[len("metric_"):] in metrics else None
            for name in self.metric_names}
    self.rows.append(row)
    if self.board is not None:
      self.board.row(row)
    self.write("scalars.csv", ",".join(cell(value) for value in row.values()) + "\n")

  def declare_metrics(self, names: list[str]) -> None:
    """Fixes the metric columns and writes the header; called once at the start of a fresh run."""
    self.metric_names = [f"metric_{name}" for name in sorted(names)]
    self.write("scalars.csv", ",".join((*COLUMNS, *self.metric_names)) + "\n")

  def close(self) -> None:
    """Closes the files; a later write opens them again."""
    for file in self.files.values():
      file.close()
    self.files = {}
    if self.board is not None:
      self.board.close()


def cell(value: Any) -> str:
  """A CSV cell: shortest text that reads back to the same number; empty for unknown."""
  if value is None:
    return ""
  return repr(float(value)) if isinstance(value, float) else str(value)


def clean(value: Any) -> Any:
  """JSON-able copy; NaN and infinities become their names, because JSON has no such numbers."""
  if isinstance(value, dict):
    return {str(k): clean(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [clean(v) for v in value]
  if hasattr(value, "item"):
    value = value.item()
  return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


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
