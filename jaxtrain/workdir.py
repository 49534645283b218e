"""The files that say what a run is: config.json, run.json, history.json; finding and describing a run.

**Departs** from DESIGN 3, which lists no such module: main, the loop and later commands all need these files, and none
of them should know how the others write them. Imports `checkpoint` and `packing`, of the same rank, to describe what a
run has saved.
"""

import datetime
import functools
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from typing import Any

from jaxtrain import checkpoint, packing
from jaxtrain.types import UserError

VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def write_json(path: str, value: Any) -> None:
  """Writes JSON atomically: a reader sees the old file or the new one."""
  with open(path + ".new", "w", encoding="utf-8") as file:
    json.dump(value, file, indent=1)
    file.write("\n")
  os.replace(path + ".new", path)


def read_json(path: str) -> Any:
  """Reads JSON; None where the file is missing. Raises UserError for a damaged one."""
  try:
    with open(path, encoding="utf-8") as file:
      return json.load(file)
  except FileNotFoundError:
    return None
  except ValueError as error:
    raise UserError(f"{path}: no JSON: {error}") from None


def utc_now() -> str:
  """UTC time, to the second, as ISO 8601."""
  return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@functools.cache
def git_commit() -> str:
  """Commit of the code that runs, with `+changes` where files differ from it; empty outside a git checkout."""
  folder = os.path.dirname(os.path.abspath(__file__))
  run = lambda *args: subprocess.run(["git", "-C", folder, *args], capture_output=True, text=True, timeout=10)
  try:
    head = run("rev-parse", "HEAD")
    changed = run("status", "--porcelain", "--untracked-files=no")
  except (OSError, subprocess.TimeoutExpired):
    return ""
  return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "") if head.returncode == 0 else ""


def describe_process(devices: list[str]) -> dict:
  """What run.json holds about the machine and the code."""
  return {"argv": sys.argv, "time": utc_now(), "python": platform.python_version(),
          "versions": {name: metadata.version(name) for name in VERSIONS}, "git_commit": git_commit(),
          "devices": devices, "xla_flags": os.environ["XLA_FLAGS"] if "XLA_FLAGS" in os.environ else "",
          "platform": platform.platform(), "cpu_count": os.cpu_count()}


def last_stage(workdir: str) -> str:
  """The folder of a run's last stage that was started; the workdir itself where it has no stages."""
  stages = os.path.join(workdir, "stages")
  numbers = sorted(int(n) for n in os.listdir(stages) if n.isdigit()) if os.path.isdir(stages) else []
  return os.path.join(stages, str(numbers[-1])) if numbers else workdir


def parse_reference(reference: str) -> tuple[str, str]:
  """WORKDIR[@best|last|STEP] as (workdir, which); `best` where nothing is said."""
  folder, at, which = reference.rpartition("@")
  if not at or not (which in ("best", "last") or which.isdigit()):
    folder, which = reference, "best"
  return folder, which


def find_step(workdir: str, which: str) -> int:
  """The step that `best`, `last` or a number means in a workdir. Raises UserError where there is none."""
  folder = os.path.join(workdir, "checkpoints")
  steps = checkpoint.committed_steps(folder)
  if not steps:
    raise UserError(f"{workdir!r} holds no checkpoint")
  if which == "last":
    return steps[-1]
  if which == "best":
    return checkpoint.best_step(folder, "min")
  if int(which) not in steps:
    raise UserError(f"{workdir!r} holds no checkpoint of step {which}, allowed {', '.join(map(str, steps))}")
  return int(which)


def inspect(workdir: str) -> dict:
  """What is known of a run from its files: steps kept, best, last metrics, and the digest of the newest whole
  checkpoint.

  The digest is computed from the stored arrays, not copied from the record.

  Raises:
    UserError: the folder is no run, or holds no checkpoint.
  """
  top, workdir = workdir, last_stage(workdir)
  config = read_json(os.path.join(workdir, "config.json"))
  if config is None:
    raise UserError(f"--workdir: {top!r} holds no run (no config.json)")
  folder = os.path.join(workdir, "checkpoints")
  steps = checkpoint.committed_steps(folder)
  if not steps:
    raise UserError(f"--workdir: {top!r} holds no checkpoint yet")
  for step in reversed(steps):
    try:
      leaves, record = checkpoint.read(folder, step)
      break
    except UserError as error:
      print(f"jaxtrain: {error}", file=sys.stderr)
  else:
    raise UserError(f"--workdir: no checkpoint of {top!r} can be read")
  state = {path[len("state/"):]: leaf for path, leaf in leaves.items() if path.startswith("state/")}
  described = {"workdir": top, "experiment": config["experiment"], "config": f"sha256:{record['config_digest']}"}
  if workdir != top:
    described["stage"] = os.path.basename(workdir)
  described |= {"steps_kept": " ".join(map(str, steps)), "best_step": record["best_step"],
                "best_value": record["best_value"], "monitor": record["monitor"],
                "parameters": sum(leaf.size for path, leaf in state.items() if path.startswith("params/"))}
  described |= {f"metric {name}": value for name, value in record["metrics"].items()}
  return described | {"digest": f"sha256:{packing.digest_leaves(state)[0]} step={step}"}
