"""Facts of a run: what happened, written once, as JSON lines and a CSV; all pictures and pages read only these.

`facts/events.jsonl` and `facts/scalars.csv` are cut back to a checkpoint's offsets when a run resumes, so that a killed
and resumed run leaves the same facts as one never stopped. `facts/process.jsonl` has a line per process and is never
cut.
"""

import json
import os
import time
from typing import Any

from jaxtrain import jsonable
from jaxtrain.errors import UserError
from jaxtrain.workdir import reading

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
    self.events = reading.read_events(os.path.join(self.folder, "events.jsonl"))
    self.rows = reading.read_scalars(os.path.join(self.folder, "scalars.csv"))
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
    self.events.append(jsonable.clean(record))
    self.write("events.jsonl", json.dumps(self.events[-1]) + "\n")

  def process(self, **fields: Any) -> None:
    """Writes one line about this process."""
    self.write("process.jsonl", json.dumps(jsonable.clean({"schema_version": SCHEMA_VERSION, "run_id": self.run_id,
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
