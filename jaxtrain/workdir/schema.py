"""What the facts of a run hold: the events of events.jsonl, the columns of scalars.csv, the lines of process.jsonl.

Every field is declared here once, with the kind of its value. What writes facts refuses a record that does not fit,
because that is a mistake in our own code. What reads them is strict or lenient: `check` refuses, `fitting` leaves out
what does not fit, so that a page can rely on the kind of each value that it finds.
"""

import re
from typing import Any, Callable, Iterable, NamedTuple

VERSION = 1
SPLITS = ("test", "val", "train")  # in the order in which pages look for one
CUT = ("events.jsonl", "scalars.csv")  # facts that a resume cuts back to a checkpoint's offsets
NOT_FINITE = ("nan", "inf", "-inf")  # how JSON files hold these numbers


class Kind(NamedTuple):
  """A kind of value: its name, whether a value is one, and how the text of a CSV cell becomes one."""
  name: str
  holds: Callable[[Any], bool]
  parse: Callable[[str], Any] | None = None


class Field(NamedTuple):
  """What a field may hold: `or_none` where the value may be unknown, `optional` where the field may be absent."""
  kind: Kind
  or_none: bool = False
  optional: bool = False

  def fits(self, value: Any) -> bool:
    """Whether the field may hold the value."""
    return self.or_none if value is None else bool(self.kind.holds(value))


Fields = dict[str, Field]


def is_number(value: Any) -> bool:
  """Whether a value is a number, or the name of one that is not finite."""
  return isinstance(value, (int, float)) and not isinstance(value, bool) or value in NOT_FINITE


def is_described(value: Any) -> bool:
  """Whether a value describes metrics: a unit, a meaning, the better direction and the level of chance for each."""
  needed = {name for name, field in DESCRIPTION.items() if not field.optional}
  one = lambda entry: (isinstance(entry, dict) and needed <= entry.keys() <= DESCRIPTION.keys()
                       and all(DESCRIPTION[name].fits(part) for name, part in entry.items()))
  return isinstance(value, dict) and all(map(one, value.values()))


WHOLE = Kind("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool), int)
NUMBER = Kind("a number", is_number, float)
TEXT = Kind("text", lambda value: isinstance(value, str), str)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
TEXTS = Kind("a list of texts", lambda value: isinstance(value, list) and all(map(TEXT.holds, value)))
WHOLES = Kind("a list of whole numbers", lambda value: isinstance(value, list) and all(map(WHOLE.holds, value)))
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
OBJECTS = Kind("a list of objects", lambda value: isinstance(value, list) and all(map(OBJECT.holds, value)))
OFFSETS = Kind("a byte of each file of facts", lambda value: OBJECT.holds(value) and value.keys() == set(CUT) and all(
    WHOLE.holds(offset) and offset >= 0 for offset in value.values()))
FOLDER = Kind("runs/NAME", lambda value: TEXT.holds(value) and re.fullmatch(r"runs/(?!\.{1,2}$)[^/\0]+", value))
SAMPLE = Kind("dtype and shape by name", lambda value: OBJECT.holds(value) and all(
    isinstance(one, list) and len(one) == 2 and TEXT.holds(one[0]) and WHOLES.holds(one[1]) for one in value.values()))
NUMBERS = Kind("numbers by name", lambda value: isinstance(value, dict) and all(map(is_number, value.values())))
RANGE = Kind("two numbers", lambda value: isinstance(value, (list, tuple)) and len(value) == 2 and all(
    map(is_number, value)) and not any(end in NOT_FINITE for end in value))
DESCRIPTIONS = Kind("unit, meaning, direction and chance by metric", is_described)
DIRECTION = Kind("lower, higher or empty", lambda value: value in ("lower", "higher", ""))

# What an experiment says of a metric. Empty text and None stand for nothing to say.
DESCRIPTION: Fields = {"unit": Field(TEXT), "meaning": Field(TEXT), "direction": Field(DIRECTION),
                       "chance": Field(NUMBER, or_none=True), "key": Field(FLAG, optional=True),
                       "limits": Field(RANGE, or_none=True, optional=True), "words": Field(TEXT, optional=True)}

# Every event has these; `split` is empty where an event is of no split, `epoch` is -1 for streams.
EVENT: Fields = {"schema_version": Field(WHOLE), "run_id": Field(TEXT), "moment": Field(TEXT), "epoch": Field(WHOLE),
                 "step": Field(WHOLE), "split": Field(TEXT), "time": Field(NUMBER)}

MEASURED: Fields = {"losses": Field(NUMBERS), "metrics": Field(NUMBERS)}
BEST_STEP: Fields = {"best_step": Field(WHOLE, or_none=True)}
TIMES: Fields = {"epoch_time_s": Field(NUMBER), "throughput": Field(NUMBER, or_none=True),
                 "max_memory_mib": Field(NUMBER)}
TRAINED: Fields = TIMES | {"alarms": Field(TEXTS)}  # of the training split alone


def optional(fields: Fields) -> Fields:
  """The fields, each of which may be absent."""
  return {name: field._replace(optional=True) for name, field in fields.items()}


MOMENTS: dict[str, Fields] = {
    "on_start": {
        "config_digest": Field(TEXT), "experiment": Field(TEXT), "seed": Field(WHOLE), "parameters": Field(WHOLE),
        "num_steps": Field(WHOLE), "steps_per_epoch": Field(WHOLE, or_none=True), "batch_size": Field(WHOLE),
        "init_from": Field(TEXT, or_none=True), "metrics": Field(DESCRIPTIONS, optional=True)},
    "on_epoch_end": MEASURED | TRAINED | {"is_best": Field(FLAG)},
    "on_eval": MEASURED | optional(TRAINED) | {"is_best": Field(FLAG)},
    "on_checkpoint": BEST_STEP,
    "on_train_end": BEST_STEP | {
        "best_value": Field(NUMBER, or_none=True), "stopped_early": Field(FLAG), "digest": Field(TEXT),
        "bad_steps": Field(WHOLE), "total_time_s": Field(NUMBER)},
    "on_test_end": MEASURED | BEST_STEP,
    "on_exception": {"error": Field(TEXT), "message": Field(TEXT)},
}

# A line of process.jsonl has the first three and some of the others, because a process writes a line at its start,
# after its first steps, and when it ends.
PROCESS: Fields = {"schema_version": Field(WHOLE), "run_id": Field(TEXT), "time": Field(NUMBER)} | optional({
    "resume_step": Field(WHOLE), "skipped_checkpoints": Field(TEXTS), "threads": Field(WHOLE),
    "num_devices": Field(WHOLE), "compile_seconds": Field(NUMBER), "setup_seconds": Field(NUMBER),
    "first_steps_done_after_seconds": Field(NUMBER), "stopped_by": Field(TEXT), "step": Field(WHOLE),
    "seconds": Field(NUMBERS)})

# Columns of scalars.csv before those of the metrics, which are `metric_<name>`.
COLUMNS: Fields = {"epoch": Field(WHOLE), "split": Field(TEXT), "step": Field(WHOLE)} | {
    name: Field(NUMBER, or_none=True) for name in ("train_loss", "val_loss", "lr", "grad_norm", *TIMES)}
METRIC_COLUMN = Field(NUMBER, or_none=True)
POSITION = ("epoch", "split", "step")

# config.json, as far as every run of every version has it alike, and run.json.
SECTIONS = ("data", "model", "loss", "optim", "train", "eval", "checkpoint", "log", "parallel")
CONFIG: Fields = {"experiment": Field(TEXT)} | optional(
    {"seed": Field(WHOLE), "stages": Field(OBJECTS), "origins": Field(OBJECT)} | dict.fromkeys(SECTIONS, Field(OBJECT)))
MADE: Fields = optional({
    "argv": Field(TEXTS), "devices": Field(TEXTS), "versions": Field(OBJECT), "latest": Field(OBJECT),
    "data": Field(OBJECT), "meanings": Field(OBJECT), "cpu_count": Field(WHOLE, or_none=True)}
    | dict.fromkeys(("time", "python", "git_commit", "platform", "xla_flags"), Field(TEXT)))

# eval/.again, while a run is assessed again: the state, and the parts that are done.
AGAIN: Fields = {"step": Field(WHOLE), "digest": Field(TEXT), "parts": Field(TEXTS)}

# How a command has ended, for who started it.
OUTCOME: Fields = {"code": Field(WHOLE), "kind": Field(TEXT), "reason": Field(TEXT)}

# The record of a checkpoint: of a run, and of the members of a wave together.
CHECKPOINT: Fields = {
    "value": Field(NUMBER, or_none=True), "monitor": Field(TEXT), "best_step": Field(WHOLE, or_none=True),
    "best_value": Field(NUMBER, or_none=True), "metrics": Field(NUMBERS), "digest": Field(TEXT),
    "step": Field(WHOLE, optional=True)}  # older runs have none
OF_RUN: Fields = CHECKPOINT | {
    "num_bad_evals": Field(WHOLE), "offsets": Field(OFFSETS), "run_id": Field(TEXT), "meta": Field(OBJECT),
    "config_digest": Field(TEXT), "sample": Field(SAMPLE, optional=True)}
OF_WAVE: Fields = CHECKPOINT | {
    "members": Field(OBJECTS), "meta": Field(OBJECTS, optional=True), "active": Field(WHOLES, optional=True),
    "failures": Field(OBJECT, optional=True)}

# eval/<part>.json; older runs have `meta` there.
PART: Fields = {"split": Field(TEXT), "step": Field(WHOLE), "scalars": Field(OBJECT)} | optional({
    "digest": Field(TEXT), "metrics": Field(DESCRIPTIONS), "meta": Field(OBJECT)})


def check(record: dict[str, Any], fields: Fields, what: str) -> dict[str, Any]:
  """Returns the record. Raises ValueError with the first thing in it that the fields do not allow."""
  for name, field in fields.items():
    if name not in record and not field.optional:
      raise ValueError(f"{what}: the field {name!r} is missing")
  for name, value in record.items():
    if name not in fields:
      raise ValueError(f"{what}: there is no field {name!r}")
    if not fields[name].fits(value):
      raise ValueError(f"{what}: {name!r} must be {fields[name].kind.name}, got {repr(value)[:80]}")
  return record


def check_known(record: dict[str, Any], fields: Fields, what: str) -> dict[str, Any]:
  """Returns the record. Raises ValueError as `check` does; a field that is not declared is left alone."""
  check({name: value for name, value in record.items() if name in fields}, fields, what)
  return record


def check_checkpoint(record: dict[str, Any]) -> dict[str, Any]:
  """Returns the record of a checkpoint. Raises ValueError where it is none."""
  return check_known(record, OF_WAVE if "members" in record else OF_RUN, "its record")


def fitting(record: dict[str, Any], fields: Fields) -> dict[str, Any]:
  """The record without the values that are not of their declared kind; fields that are not declared are kept."""
  return {name: value for name, value in record.items() if name not in fields or fields[name].fits(value)}


def declared(table: dict[str, Fields], record: dict[str, Any], key: str) -> Fields | None:
  """The fields that a table declares for what the key of a record names; None where it names nothing of the table."""
  name = record[key] if key in record else None
  return table[name] if isinstance(name, str) and name in table else None


def check_event(event: dict[str, Any]) -> dict[str, Any]:
  """Returns an event. Raises ValueError where it does not fit its moment."""
  fields = declared(MOMENTS, event, "moment")
  if fields is None:
    raise ValueError(f"an event must have a moment out of {', '.join(MOMENTS)}, got {event!r}")
  return check(event, EVENT | fields, event["moment"])


def fitting_event(event: dict[str, Any]) -> dict[str, Any]:
  """An event without the values that do not fit its moment."""
  return fitting(event, EVENT | (declared(MOMENTS, event, "moment") or {}))


def metric_columns(names: Iterable[str]) -> list[str]:
  """The columns of metrics, sorted. Raises ValueError for a name that a CSV header cannot hold."""
  for name in names:
    if any(letter in name for letter in ',"\n\r'):
      raise ValueError(f"the metric {name!r}: its name may hold no comma, quotation mark or line break")
  return [f"metric_{name}" for name in sorted(names)]


def column(name: str) -> Field:
  """The declaration of a column."""
  return COLUMNS[name] if name in COLUMNS else METRIC_COLUMN


def check_columns(names: list[str]) -> list[str]:
  """Returns the header of scalars.csv. Raises ValueError where it is another."""
  num = len(COLUMNS)
  if names[:num] != list(COLUMNS) or not all(name.startswith("metric_") for name in names[num:]):
    raise ValueError(f"the header must be {','.join(COLUMNS)} and columns of metrics, got {','.join(names)}")
  return names


def check_row(row: dict[str, Any], names: list[str]) -> dict[str, Any]:
  """Returns a row of scalars.csv with these columns. Raises ValueError where it does not fit."""
  return check(row, {name: column(name) for name in names}, "a row of scalars.csv")


def write_cell(value: Any) -> str:
  """The text of a value in a CSV cell: the shortest that reads back to the same number, empty for unknown."""
  if value is None:
    return ""
  return repr(float(value)) if isinstance(value, float) else str(value)


def parse_row(names: list[str], line: str) -> dict[str, Any]:
  """The row of scalars.csv that a line holds: numbers, and None for unknown.

  Raises ValueError for a line with another number of cells, without a position, or with a cell of another kind.
  """
  cells = line.split(",")
  if len(cells) != len(names):
    raise ValueError(f"{len(cells)} cells, the header has {len(names)}")
  row = {name: column(name).kind.parse(cell) if cell else None for name, cell in zip(names, cells)}
  for name in POSITION:
    if name not in row or row[name] is None:
      raise ValueError(f"the cell {name!r} is empty")
  return row
