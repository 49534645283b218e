"""What a run has saved, told from names and JSON alone: its stages, the steps of its checkpoints and their records.

Needs no orbax, so that commands find a checkpoint, and pages what is known of the data, without loading it.
"""

import contextlib
import os
import time

from jaxtrain.errors import UserError
from jaxtrain.jsonable import digest_json, is_count
from jaxtrain.workdir import jsonfile, kept, lines, schema

MOST_EVENT = 1 << 20  # characters of a first event that is read
FOLDERS = ("checkpoints", "facts", "eval", "figures", "stages", "tensorboard")  # of a run, if they are there
FILES = ("config.json", "run.json", "history.json", "log.txt", "report.html", "facts/events.jsonl",
         "facts/scalars.csv", "facts/process.jsonl")


def check_places(workdir: str) -> None:
  """Raises UserError where something else lies in the place of a file or folder that a run writes."""
  for name in FOLDERS:
    path = os.path.join(workdir, name)
    if os.path.lexists(path) and not os.path.isdir(path):
      raise UserError(f"--workdir: {path!r} is no folder; remove it, or choose another workdir")
  for name in FILES:
    path = os.path.join(workdir, name)
    if os.path.exists(path) and not os.path.isfile(path):
      raise UserError(f"--workdir: {path!r} is no regular file; remove it, or choose another workdir")


def read_config(workdir: str) -> dict | None:
  """What config.json holds; None where there is none. Raises UserError where that is no config."""
  return jsonfile.read_object(os.path.join(workdir, "config.json"), schema.CONFIG)


def stage_folders(workdir: str) -> list[str]:
  """Folders of the stages of a run that have begun, in order; none for a run without stages."""
  stages = os.path.join(workdir, "stages")
  numbers = sorted(int(name) for name in os.listdir(stages) if is_count(name)) if os.path.isdir(stages) else []
  folders = (os.path.join(stages, str(number)) for number in numbers)
  return [folder for folder in folders if os.path.exists(os.path.join(folder, "config.json"))]


def whole_run(workdir: str) -> str:
  """The folder of the run that a folder is a stage of; empty where it is that of no stage."""
  above, name = os.path.split(os.path.abspath(workdir))
  top, stages = os.path.split(above)
  is_stage = is_count(name) and stages == "stages" and os.path.exists(os.path.join(top, "config.json"))
  return top if is_stage else ""


def last_stage(workdir: str) -> str:
  """The folder of a run's last stage that has begun; the workdir itself where there is none."""
  return [workdir, *stage_folders(workdir)][-1]


def parse_reference(reference: str) -> tuple[str, str]:
  """WORKDIR[@best|last|STEP] as (workdir, which); `best` where nothing is said or a folder has the whole name.

  WORKDIR may be kept:FAMILY. Raises UserError for a kept model that there is not.
  """
  folder, at, which = reference.rpartition("@")
  if not at or not (which in ("best", "last") or is_count(which)) or os.path.isdir(reference):
    folder, which = reference, "best"
  return kept.folder_of(folder), which


def committed_steps(folder: str) -> list[int]:
  """Steps whose folders are complete by name, ascending; needs no orbax."""
  names = os.listdir(folder) if os.path.isdir(folder) else []
  return sorted(int(name) for name in names if is_count(name) and os.path.isdir(os.path.join(folder, name)))


def read_record(folder: str, step: int) -> dict:
  """The JSON item of a checkpoint; needs no orbax. Raises OSError or ValueError where it is missing or damaged."""
  return lines.parse_object(lines.read_file(os.path.join(folder, str(step), "record", "metadata")).decode())


def digest_record(record: dict) -> str:
  """SHA-256 of a record's JSON but for the entry that holds it, hexadecimal."""
  return digest_json({key: value for key, value in record.items() if key != "record_digest"})


def run_id(workdir: str) -> str:
  """The name that a run has given itself, as its first event says it; empty where that cannot be read."""
  try:
    with open(os.path.join(workdir, "facts", "events.jsonl"), encoding="utf-8") as file:
      event = lines.parse_object(file.readline(MOST_EVENT))
  except (OSError, ValueError):
    return ""
  return event["run_id"] if isinstance(event.get("run_id"), str) else ""


def check_step(found: int, step: int) -> None:
  """Raises ValueError where what a checkpoint's folder holds is not of the step that it is named after."""
  if found != step:
    raise ValueError(f"it is that of step {found}; its folder was renamed")


def read_checked(folder: str, step: int) -> dict:
  """The JSON item of a checkpoint. Raises ValueError or OSError where it is missing, damaged, changed, or of another
  step or run.
  """
  record = read_record(folder, step)
  if "record_digest" not in record or record["record_digest"] != digest_record(record):
    raise ValueError("the digest of its record does not hold; the file has changed")
  schema.check_checkpoint(record)
  if "step" in record:
    check_step(record["step"], step)
  own = run_id(os.path.dirname(os.path.abspath(folder)))
  if own and "run_id" in record and record["run_id"] != own:
    raise ValueError("it is that of another run")
  return record


def records(folder: str) -> dict[int, dict]:
  """Records of the committed steps that can be read, ascending; restore names the others."""
  found = {}
  for step in committed_steps(folder):
    with contextlib.suppress(OSError, ValueError):
      found[step] = read_checked(folder, step)
  return found


def ranking(folder: str, mode: str) -> list[int]:
  """Committed steps that have a value, best first, the earlier first among equals."""
  sign = 1 if mode == "min" else -1
  values = {step: record["value"] for step, record in records(folder).items() if record["value"] is not None}
  return sorted(values, key=lambda step: (sign * values[step], step))


def best_step(folder: str, mode: str) -> int | None:
  """The best step as the newest record names it, None where that one is lost; where it names none, the best by value,
  else the newest.
  """
  found = records(folder)
  named = found[max(found)]["best_step"] if found else None
  if named is not None:
    return named if named in found else None
  by_value, steps = ranking(folder, mode), committed_steps(folder)
  return by_value[0] if by_value else (steps[-1] if steps else None)


def vanishes(folder: str, step: int, seconds: float = 0.5) -> bool:
  """Whether a checkpoint that could not be read goes away or is written anew within a moment.

  A run at work deletes and replaces checkpoints; whoever reads beside it lists them again then. What stays as it is, is
  damaged.
  """
  path, deadline = os.path.join(folder, str(step)), time.monotonic() + seconds
  before = modified(path)
  while before is not None and time.monotonic() < deadline:
    time.sleep(0.02)
    if modified(path) != before:
      return True
  return before is None


def newest_record(folder: str) -> dict:
  """The JSON item of the newest checkpoint whose item can be read; {} where there is none."""
  damaged = set()
  while left := [step for step in committed_steps(folder) if step not in damaged]:
    try:
      return read_checked(folder, left[-1])
    except (OSError, ValueError):
      if not vanishes(folder, left[-1]):
        damaged.add(left[-1])
  return {}


def modified(path: str) -> tuple[int, int] | None:
  """What tells a folder from another one put in its place; None where there is none."""
  try:
    found = os.stat(path)
  except FileNotFoundError:
    return None
  return found.st_ino, found.st_mtime_ns


def find_step(workdir: str, which: str) -> int:
  """The step that `best`, `last` or a number means in a workdir. Raises UserError where there is none."""
  folder = os.path.join(workdir, "checkpoints")
  steps = committed_steps(folder)
  if not steps:
    raise UserError(f"{workdir!r} holds no checkpoint")
  if which == "last":
    return steps[-1]
  if which == "best":
    return find_best(workdir)
  if int(which) not in steps:
    raise UserError(f"{workdir!r} holds no checkpoint of step {which}, allowed {', '.join(map(str, steps))}")
  return int(which)


def find_best(workdir: str) -> int:
  """The step that the newest checkpoint names as the best; its own where nothing has been evaluated yet.

  Raises:
    UserError: that checkpoint is not there, or it is not known which it is.
  """
  folder = os.path.join(workdir, "checkpoints")
  while steps := committed_steps(folder):
    try:
      best = read_checked(folder, steps[-1])["best_step"]
    except (OSError, ValueError) as error:
      if vanishes(folder, steps[-1]):
        continue
      raise UserError(f"{workdir!r}: which checkpoint is the best is not known, because the newest, of step "
                      f"{steps[-1]}, cannot be read ({error}); {there_are(folder, steps[-1])}") from None
    if best is None or best in steps:
      return steps[-1] if best is None else best
    if committed_steps(folder) == steps:  # else a newer one is there, which may name another
      raise UserError(f"{workdir!r}: the best checkpoint, of step {best}, is lost; {there_are(folder, best)}")
  raise UserError(f"{workdir!r} holds no checkpoint")


def describe_state(step: int, epoch: int | None, digest: str) -> str:
  """Which state it is, in words: its step, completed epochs where there are such, and digest."""
  return f"step {step:,}{'' if epoch is None or epoch < 0 else f', epoch {epoch:,}'}, sha256:{digest}"


def there_are(folder: str, lost: int) -> str:
  """What to choose instead of the checkpoint of a step that cannot be had."""
  steps = committed_steps(folder)
  others = [step for step in steps if step != lost]
  if not others:
    return "there is no other; restore it, or train again in a new workdir"
  words = "choose last, or a step of" if others[-1] == steps[-1] else "choose a step of"
  return f"{words} {', '.join(map(str, others))}"
