"""Where a run was made: command line, versions, commit, machine; the contents of run.json."""

import datetime
import functools
import os
import platform
import subprocess
import sys
from importlib import metadata

from jaxtrain.workdir import jsonfile, schema

VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def utc_now() -> str:
  """UTC time, to the second, as ISO 8601."""
  return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


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


def write_process(workdir: str, devices: list[str], meta: dict, meanings: dict[str, str]) -> None:
  """Writes run.json: the run's first process and its latest, what `meta` of its data says of a table, the SHA-256
  included, and what the fields of its config file mean, where that is known.
  """
  path = os.path.join(workdir, "run.json")
  now = describe_process(devices) | {"data": meta["table"] if "table" in meta else {}}
  noted = {"meanings": meanings} if meanings else {}
  jsonfile.write_json(path, (jsonfile.read_object(path, schema.MADE) or now) | noted | {"latest": now})
