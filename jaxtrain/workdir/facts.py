"""Facts of a run: what happened, written once, as JSON lines and a CSV; all figures and pages are drawn from these.

`facts/events.jsonl` and `facts/scalars.csv` are cut back to a checkpoint's offsets when a run resumes, so that a killed
and resumed run leaves the same facts as one never stopped. `facts/process.jsonl` has lines of each process and is never
cut. What an event, a row or a line may hold is declared in `schema`.
"""

import json
import os
import time
from typing import Any

from jaxtrain import jsonable
from jaxtrain.errors import UserError
from jaxtrain.workdir import atomic, lines, reading, schema


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
    self.cut(dict.fromkeys(schema.CUT, 0))

  def read_back(self, offsets: dict[str, int]) -> tuple[list[dict], list[dict]]:
    """(events, rows) that the files hold before byte offsets; changes nothing.

    Raises:
      UserError: a file is shorter than its offset, or a line before that is damaged.
    """
    held = {}
    for name in schema.CUT:
      path = os.path.join(self.folder, name)
      try:
        held[name] = lines.read(path)
      except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
      if len(held[name]) < offsets[name]:
        raise UserError(f"{path}: {len(held[name])} bytes, fewer than the {offsets[name]} that the checkpoint knows "
                        "of; restore the file, or start a new workdir")
    parsers = {"events.jsonl": reading.parse_events, "scalars.csv": reading.parse_rows}
    return tuple(parsers[name](held[name][:offsets[name]], os.path.join(self.folder, name), strict=True)
                 for name in schema.CUT)

  def cut(self, offsets: dict[str, int]) -> None:
    """Cuts the files back to byte offsets, and remembers what they still hold. Raises UserError as `read_back` does."""
    if not self.folder:
      return
    self.close()
    self.events, self.rows = self.read_back(offsets)
    for name in schema.CUT:
      with atomic.open_own(os.path.join(self.folder, name), "ab") as file:
        file.truncate(offsets[name])
    if self.rows:
      self.metric_names = [name for name in self.rows[0] if name not in schema.COLUMNS]

  def offsets(self) -> dict[str, int]:
    """Bytes written so far."""
    size = lambda path: os.path.getsize(path) if os.path.exists(path) else 0  # all that is written is flushed
    return {name: size(os.path.join(self.folder, name)) for name in schema.CUT} if self.folder else {}

  def opened(self, name: str):
    """The open file of a name, at its end."""
    if name not in self.files:
      path = os.path.join(self.folder, name)
      self.files[name] = atomic.open_own(path, "a", encoding="utf-8", newline="")
      self.files[name].seek(0, os.SEEK_END)
    return self.files[name]

  def write(self, name: str, text: str) -> None:
    """Appends text and hands it to the operating system, so that a killed process loses nothing."""
    if self.folder:
      file = self.opened(name)
      file.write(text)
      file.flush()

  def event(self, moment: str, *, epoch: int, step: int, split: str = "", **fields: Any) -> None:
    """Writes one event. Raises ValueError where it does not fit `schema.MOMENTS`."""
    record = {"schema_version": schema.VERSION, "run_id": self.run_id, "moment": moment, "epoch": epoch, "step": step,
              "split": split, "time": time.time()} | fields
    self.events.append(schema.check_event(jsonable.clean(record)))
    self.write("events.jsonl", json.dumps(self.events[-1]) + "\n")

  def process(self, **fields: Any) -> None:
    """Writes one line about this process. Raises ValueError where it does not fit `schema.PROCESS`."""
    record = {"schema_version": schema.VERSION, "run_id": self.run_id, "time": time.time()} | fields
    record = schema.check(jsonable.clean(record), schema.PROCESS, "a line of process.jsonl")
    self.write("process.jsonl", json.dumps(record) + "\n")

  def row(self, metrics: dict[str, float], **columns: Any) -> None:
    """Writes one row of scalars.csv; the header is fixed by `declare_metrics`.

    A metric that the header does not name is left out: a run that an older version began keeps its columns.

    Raises:
      ValueError: a column is missing, unknown, or of another kind.
    """
    row = dict.fromkeys(schema.COLUMNS) | columns
    row |= {name: metrics[name[len("metric_"):]] if name[len("metric_"):] in metrics else None
            for name in self.metric_names}
    self.rows.append(schema.check_row(row, [*schema.COLUMNS, *self.metric_names]))
    if self.board is not None:
      self.board.row(row)
    self.write("scalars.csv", ",".join(map(schema.write_cell, row.values())) + "\n")

  def declare_metrics(self, names: list[str]) -> None:
    """Fixes the metric columns and writes the header; called once at the start of a fresh run."""
    self.metric_names = schema.metric_columns(names)
    self.write("scalars.csv", ",".join((*schema.COLUMNS, *self.metric_names)) + "\n")

  def close(self) -> None:
    """Closes the files; a later write opens them again."""
    for file in self.files.values():
      file.close()
    self.files = {}
    if self.board is not None:
      self.board.close()
