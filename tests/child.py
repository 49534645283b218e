"""Runs of the command, for tests: to their end, or as processes to kill; and what they left."""

import json
import os
import re
import socket
import subprocess
import sys
import time

import forked

ROOT = forked.ROOT
NOT_COMPARED = ("run_id", "time", "epoch_time_s", "throughput", "max_memory_mib", "total_time_s")
STREAMS = ("configs/causal_discovery.py",)  # endless: they have no epochs
EPOCH = 10  # steps that stand for one then
USUAL = {"XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "false"}  # of programs that are compiled as a user's are


def in_steps(flags: tuple[str, ...]) -> list[str]:
  """Flags that count epochs, with `EPOCH` steps for each where the config's training source is endless."""
  if not any(flag.startswith(f"--config={path}") for flag in flags for path in STREAMS):
    return list(flags)
  one = lambda found: f"{found[1]}steps={EPOCH * int(found[2])}"
  return [re.sub(r"^(--config\.(?:train\.num_|eval\.every_|checkpoint\.every_))epochs=(\d+)$", one, flag)
          for flag in flags]


def start(*flags: str, environ: dict[str, str] | None = None, command: str = "main") -> subprocess.Popen:
  """Starts `python -m jaxtrain.COMMAND` with flags (see `in_steps`) from the root of the repository."""
  command = [sys.executable, "-m", f"jaxtrain.{command}", *in_steps(flags)]
  return subprocess.Popen(command, cwd=ROOT, env=os.environ | (environ or {}), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True)


def run(*flags: str, environ: dict[str, str] | None = None, timeout: float = 240, command: str = "main",
        cwd: str = ROOT) -> subprocess.CompletedProcess:
  """Runs the command to its end in a fork of a process that has imported everything; kills it at the timeout.

  With variables that JAX reads at its import, in a process of its own.
  """
  if any(name.startswith("JAX_") for name in environ or {}):
    process = start(*flags, environ=environ, command=command)
    return wait_for_all([process], timeout)[0]
  case = {"command": command, "argv": in_steps(flags), "cwd": str(cwd), "seconds": timeout,
          "environ": os.environ | (environ or {})}
  done = forked.answer_to(case)
  return subprocess.CompletedProcess([command, *case["argv"]], done["code"], done["out"], done["err"])


def inspect(workdir: str) -> dict:
  """What `--mode=inspect` computes for a run."""
  from jaxtrain.run import inspect as inspect_lib
  return inspect_lib.inspect(workdir)


def damage(step_folder: str, how: str) -> None:
  """Damages a checkpoint: its arrays `truncated`, `emptied`, `one bit flipped`; `half deleted`; or `no record`."""
  files = sorted(os.path.join(folder, name) for folder, _, names in os.walk(step_folder) for name in names)
  if how == "no record":
    os.remove(os.path.join(step_folder, "record", "metadata"))
  elif how == "half deleted":
    for path in files[::2]:
      os.remove(path)
  else:
    for path in [f for f in files if f"{os.sep}d{os.sep}" in f]:
      with open(path, "r+b") as file:
        data = bytearray(file.read())
        data[len(data) // 2] ^= 1
        file.seek(0)
        file.truncate()
        file.write({"emptied": b"", "truncated": data[:len(data) // 2], "one bit flipped": data}[how])


def facts(workdir: str) -> tuple[list[dict], list[str]]:
  """Events and rows of a run without what may differ between equal runs."""
  with open(os.path.join(workdir, "facts", "events.jsonl"), encoding="utf-8") as file:
    events = [{k: v for k, v in json.loads(line).items() if k not in NOT_COMPARED} for line in file]
  with open(os.path.join(workdir, "facts", "scalars.csv"), encoding="utf-8") as file:
    header, *rows = [line.rstrip("\n").split(",") for line in file]
  keep = [i for i, name in enumerate(header) if name not in NOT_COMPARED]
  return events, [",".join(row[i] for i in keep) for row in [header, *rows]]


def process_facts(workdir: str) -> list[dict]:
  """Lines of facts/process.jsonl; [] while there are none."""
  try:
    with open(os.path.join(workdir, "facts", "process.jsonl"), encoding="utf-8") as file:
      return [json.loads(line) for line in file if line.endswith("\n")]
  except FileNotFoundError:
    return []


def wait_for_first_step(process: subprocess.Popen, workdir: str, starts: int, timeout: float = 240) -> None:
  """Waits until the run's process number `starts` has done its first steps, or has ended."""
  deadline = time.monotonic() + timeout
  while process.poll() is None and time.monotonic() < deadline:
    if sum("first_steps_done_after_seconds" in line for line in process_facts(workdir)) >= starts:
      return
    time.sleep(0.005)


def resume_steps(workdir: str) -> list[int]:
  """The step at which each process of a run began."""
  return [line["resume_step"] for line in process_facts(workdir) if "resume_step" in line]


def free_port() -> int:
  """A port of this machine that nobody uses."""
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    return probe.getsockname()[1]


def start_several(num_processes: int, num_devices: int, *flags: str, of_last=()) -> list[subprocess.Popen]:
  """Starts processes on this machine that share a run, each with so many virtual CPU devices; the last with more flags.
  """
  where = f"--coordinator=127.0.0.1:{free_port()}"
  environ = USUAL | {"JAX_NUM_CPU_DEVICES": str(num_devices)}
  return [start(*flags, where, f"--num_processes={num_processes}", f"--process_id={k}",
                *(of_last if k == num_processes - 1 else ()), environ=environ)
          for k in range(num_processes)]


def wait_for_all(processes: list[subprocess.Popen], timeout: float = 240) -> list[subprocess.CompletedProcess]:
  """What each left when it ended; all are killed at the timeout, which is an error."""
  deadline, done = time.monotonic() + timeout, []
  try:
    for process in processes:
      out, err = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
      done.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
  finally:
    for process in processes:
      if process.poll() is None:
        process.kill()
        process.communicate()
  return done


def last_reported(workdir: str) -> int:
  """The last step that the events of a run name; 0 while there are none."""
  try:
    with open(os.path.join(workdir, "facts", "events.jsonl"), encoding="utf-8") as file:
      return max((json.loads(line)["step"] for line in file if line.endswith("\n")), default=0)
  except FileNotFoundError:
    return 0
