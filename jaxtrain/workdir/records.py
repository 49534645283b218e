"""What a run has saved, told from names and JSON alone: its stages, the steps of its checkpoints and their records.

Needs no orbax, so that commands find a checkpoint, and pages what is known of the data, without loading it.
"""

import contextlib
import os

from jaxtrain.errors import UserError
from jaxtrain.jsonable import digest_json, is_count
from jaxtrain.workdir import jsonfile, lines, schema


def read_config(workdir: str) -> dict | None:
  """What config.json holds; None where there is none. Raises UserError where that is no config."""
  return jsonfile.read_object(os.path.join(workdir, "config.json"), schema.CONFIG)


def stage_folders(workdir: str) -> list[str]:
  """Folders of the stages of a run that have begun, in order; none for a run without stages."""
  stages = os.path.join(workdir, "stages")
  numbers = sorted(int(name) for name in os.listdir(stages) if is_count(name)) if os.path.isdir(stages) else []
  folders = (os.path.join(stages, str(number)) for number in numbers)
  return [folder for folder in folders if os.path.exists(os.path.join(folder, "config.json"))]


def last_stage(workdir: str) -> str:
  """The folder of a run's last stage that has begun; the workdir itself where there is none."""
  return [workdir, *stage_folders(workdir)][-1]


def parse_reference(reference: str) -> tuple[str, str]:
  """WORKDIR[@best|last|STEP] as (workdir, which); `best` where nothing is said."""
  folder, at, which = reference.rpartition("@")
  if not at or not (which in ("best", "last") or is_count(which)):
    folder, which = reference, "best"
  return folder, which


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


def read_checked(folder: str, step: int) -> dict:
  """The JSON item of a checkpoint. Raises ValueError or OSError where it is missing, damaged or changed."""
  record = read_record(folder, step)
  if "record_digest" not in record or record["record_digest"] != digest_record(record):
    raise ValueError("the digest of its record does not hold; the file has changed")
  return schema.check_checkpoint(record)


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
  """The best step as the newest record names it, if it is there; else the best by value, else the newest."""
  found = records(folder)
  if found and found[max(found)]["best_step"] in found:
    return found[max(found)]["best_step"]
  by_value, steps = ranking(folder, mode), committed_steps(folder)
  return by_value[0] if by_value else (steps[-1] if steps else None)


def find_step(workdir: str, which: str) -> int:
  """The step that `best`, `last` or a number means in a workdir. Raises UserError where there is none."""
  folder = os.path.join(workdir, "checkpoints")
  steps = committed_steps(folder)
  if not steps:
    raise UserError(f"{workdir!r} holds no checkpoint")
  if which == "last":
    return steps[-1]
  if which == "best":
    config = read_config(workdir) or {}
    train = config["train"] if "train" in config else {}
    return best_step(folder, train["monitor_mode"] if "monitor_mode" in train else "min")
  if int(which) not in steps:
    raise UserError(f"{workdir!r} holds no checkpoint of step {which}, allowed {', '.join(map(str, steps))}")
  return int(which)
