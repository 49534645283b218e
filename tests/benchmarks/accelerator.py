"""What training costs on one accelerator: one command, under nine minutes, no network. Nobody has run it on a GPU yet.

  python tests/benchmarks/accelerator.py --output=accelerator.jsonl
  python tests/benchmarks/accelerator.py --toy --output=toy.jsonl          # tiny sizes, on a CPU

Needs jax >= 0.10, flax, optax, orbax-checkpoint, numpy, scipy, ml-collections, chex and absl-py. Every measurement of
`accelerator_plan.py`, the most important first, appends one JSON line to --output as it ends:

  {"name": ..., "seconds": ..., "result": {...}}       `seconds` is what it took in all
  {"name": ..., "seconds": ..., "error": "..."}        it failed, took too long, or the process ended: out of memory too
  {"name": ..., "skipped": "..."}                      its estimate is longer than what is left of --seconds

so that a run that is cut short leaves all that it has measured; the same command again goes on with what has no result
yet. This process does not touch the device. It asks a
worker process for one measurement after another (`accelerator_steps.py`), and starts a new worker where one dies or
hangs; measurements that need processes of their own get them while no other worker is alive. A table ends the run.

`utilisation` is operations by formula (`flops.py`: products alone, nothing computed again) over seconds and the peak of
the data sheet, of TF32 for float32; --peak_tflops replaces it. `of_product` is the same over the large product that
the measurement `device` reached. `xla_flops` and `xla_bytes` are XLA's own count, of the body of each loop once.
`peak_mib_of_process` is the most that the worker has had in use up to then; `temporary_mib` is the program's own.
"""

import argparse
import contextlib
import fnmatch
import importlib.metadata
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Callable

import accelerator_plan

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LONGEST_START = 90.0  # seconds that a worker may take before anything is measured

# dense TFLOP/s of bfloat16 and TF32, and memory GB/s, of data sheets
PEAKS = {"NVIDIA H200": (989, 494, 4800), "NVIDIA H100 80GB HBM3": (989, 494, 3350),
         "NVIDIA A100-SXM4-80GB": (312, 156, 2039), "NVIDIA A100-SXM4-40GB": (312, 156, 1555),
         "NVIDIA L4": (121, 60, 300)}

# ---- the process that has the device


def work(pace: list[float]) -> None:
  """Measures what each line of standard input asks for, and answers on standard output, a line each."""
  answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
  os.dup2(2, 1)  # whatever libraries print is no answer
  import accelerator_steps as steps
  for line in sys.stdin:
    request = json.loads(line)
    try:
      answer = {"result": getattr(steps, request["function"])(steps.Pace(*pace), **request["arguments"])}
    except Exception as error:
      answer = {"error": f"{type(error).__name__}: {error}"[:1000]}
    print(json.dumps(answer), file=answers, flush=True)
    steps.settle()

# ---- the process that asks


class Worker:
  """A process that measures; closing it ends it."""

  def __init__(self, command: list[str], environ: dict[str, str]):
    self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
    self.process = subprocess.Popen(command, cwd=ROOT, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                    stderr=self.errors, text=True)
    self.lines: queue.Queue[str] = queue.Queue()
    self.reader = threading.Thread(target=self.read, daemon=True)
    self.reader.start()
    self.is_new = True

  def read(self) -> None:
    """Hands on what the process answers, and "" at its end."""
    for line in self.process.stdout:
      self.lines.put(line)
    self.lines.put("")

  def ask(self, function: str, arguments: dict[str, Any]) -> None:
    """Asks for a measurement; a process that is gone is noticed by `answer`."""
    with contextlib.suppress(BrokenPipeError):
      self.process.stdin.write(json.dumps({"function": function, "arguments": arguments}) + "\n")
      self.process.stdin.flush()

  def answer(self, seconds: float) -> dict[str, Any]:
    """{"result"} or {"error"} of what was asked; a process that has ended or takes longer is closed."""
    try:
      line = self.lines.get(timeout=max(0.1, seconds))
    except queue.Empty:
      self.close()
      return {"error": f"took longer than {seconds:.0f} s"}
    self.is_new = False
    if line.endswith("\n"):
      return json.loads(line)
    code = self.process.wait()
    self.errors.seek(0)
    said = self.errors.read()[-500:].strip()
    self.close()
    return {"error": f"the process ended with {code}: {said}"}

  @property
  def is_open(self) -> bool:
    """Whether it can be asked."""
    return self.process.returncode is None

  def close(self) -> None:
    """Ends the process and waits for it."""
    self.process.kill()
    self.process.wait()
    self.reader.join()
    for file in (self.process.stdin, self.process.stdout, self.errors):
      with contextlib.suppress(BrokenPipeError):  # what was asked last was never read
        file.close()


def read(path: str) -> list[dict]:
  """Records of a file, which is first cut to its whole lines: a machine that failed may have left half a one."""
  if not os.path.exists(path):
    return []
  with open(path, "rb") as file:
    data = file.read()
  whole = data[:data.rfind(b"\n") + 1]
  os.truncate(path, len(whole))
  return [json.loads(line) for line in whole.splitlines()]


class Session:
  """Measures one after another in a budget of time, and writes each down as it ends."""

  def __init__(self, command: list[str], path: str, seconds: float, environ: dict[str, str], patience: float,
               complete: Callable[[str, dict, dict], dict] = lambda name, result, before: result):
    self.command, self.environ, self.path, self.complete = command, environ, path, complete
    self.patience = patience  # times its estimate that a measurement may take
    self.ends = time.monotonic() + seconds
    self.worker: Worker | None = None
    self.records = read(path) if path else []
    self.results = {record["name"]: record["result"] for record in self.records if "result" in record}

  def write(self, record: dict) -> None:
    """Appends a line, whole, and prints it."""
    self.records.append(record)
    line = json.dumps(record) + "\n"
    if self.path:
      with open(self.path, "ab") as file:
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())
    print(line, end="", flush=True)

  def measure(self, one: accelerator_plan.Measurement) -> None:
    """One measurement, written down whatever becomes of it; none where there is a result already."""
    if one.name in self.results:
      return
    left = self.ends - time.monotonic()
    if left < one.seconds:
      self.write({"name": one.name, "skipped": f"estimated {one.seconds:.0f} s, {max(left, 0):.0f} s left"})
      return
    began = time.monotonic()
    found = self.measure_apart(one) if one.processes else self.measure_here(one)
    if "result" in found:
      found["result"] = self.complete(one.name, found["result"], self.results)
      self.results[one.name] = found["result"]
    self.write({"name": one.name, "seconds": round(time.monotonic() - began, 2)} | found)

  def limit(self, one: accelerator_plan.Measurement, is_new: bool) -> float:
    """Seconds that a measurement may take from now on."""
    return min(self.patience * one.seconds + LONGEST_START * is_new, self.ends - time.monotonic())

  def measure_here(self, one: accelerator_plan.Measurement) -> dict[str, Any]:
    """What the worker that is shared by most measurements says."""
    if self.worker is None or not self.worker.is_open:
      self.worker = Worker(self.command, self.environ)
    self.worker.ask(one.function, one.arguments)
    return self.worker.answer(self.limit(one, self.worker.is_new))

  def measure_apart(self, one: accelerator_plan.Measurement) -> dict[str, Any]:
    """What new workers, all at once and alone, say: {"result": {label: ...}}, that of a single one, or an error."""
    self.close()
    ends = time.monotonic() + self.limit(one, True)
    workers = {label: Worker(self.command, self.environ) for label in one.processes}
    try:
      for label, worker in workers.items():
        worker.ask(one.function, one.arguments | one.processes[label])
      answers = {label: worker.answer(ends - time.monotonic()) for label, worker in workers.items()}
    finally:
      for worker in workers.values():
        worker.close()
    wrong = [f"{label}: {answer['error']}" for label, answer in answers.items() if "error" in answer]
    if wrong:
      return {"error": wrong[0]}
    results = {label: answer["result"] for label, answer in answers.items()}
    return {"result": results if len(results) > 1 else results.popitem()[1]}

  def close(self) -> None:
    """Ends the shared worker."""
    if self.worker is not None and self.worker.is_open:
      self.worker.close()
    self.worker = None

# ---- what follows from several measurements, and the table


def complete(name: str, result: dict, before: dict[str, dict], peak_tflops: float = 0.0) -> dict:
  """A result with what follows from it and those before it: utilisation, ratio to another step, equal digests."""
  if name == "digests":
    return result | judge_digests(result)
  peaks = PEAKS[result["device"]] if result["device"] in PEAKS else None
  if "tflops_per_s" in result:
    peak = peak_tflops or (peaks[result["precision"] == "float32"] if peaks else 0.0)
    product = before["device"][f"{result['precision']}_tflops_per_s"] if "device" in before else 0.0
    result |= {"utilisation": result["tflops_per_s"] / peak} if peak else {}
    result |= {"of_product": result["tflops_per_s"] / product} if product else {}
  if "gb_per_s" in result:
    result |= {"of_peak_bandwidth": result["gb_per_s"] / peaks[2]} if peaks else {}
    result |= {"of_copy": result["gb_per_s"] / before["device"]["copy_gb_per_s"]} if "device" in before else {}
  against = accelerator_plan.AGAINST[name] if name in accelerator_plan.AGAINST else ""
  if against in before:
    result |= {"against": against, "times_as_long": result["step_ms"] / before[against]["step_ms"]}
  return result


def judge_digests(runs: dict[str, dict]) -> dict[str, dict]:
  """Of each kind of process (`plain 1`, `plain 2`, ...): {config: equal in one process, equal in both}."""
  judged = {}
  for kind in sorted({label.split()[0] for label in runs}):
    all_of = [run["digests"] for label, run in runs.items() if label.split()[0] == kind]
    judged[f"{kind} equal"] = {config: {"in_one_process": all(len(set(one[config])) == 1 for one in all_of),
                                        "in_two_processes": len({one[config][0] for one in all_of}) == 1}
                               for config in all_of[0]}
  return judged


COLUMNS = ("step_ms", "steps_per_s", "member_steps_per_s", "tasks_per_s", "tflops_per_s", "utilisation", "of_product",
           "times_as_long", "data_share", "temporary_mib", "compile_s")


def table(records: list[dict]) -> str:
  """The numbers of all results in plain text; what has none of the columns stands below, name by name."""
  shown = [record for record in records if "result" in record and any(name in record["result"] for name in COLUMNS)]
  number = lambda found, name: f"{found[name]:.4g}" if name in found else "-"
  lines = [["measurement", *COLUMNS]]
  lines += [[record["name"], *(number(record["result"], name) for name in COLUMNS)] for record in shown]
  widths = [max(map(len, column)) for column in zip(*lines)]
  text = ["  ".join(word.ljust(width) for word, width in zip(line, widths)).rstrip() for line in lines]
  for record in records:
    if record not in shown:
      rest = {key: value for key, value in record.items() if key not in ("name", "seconds")}
      text.append(f"{record['name']}: {json.dumps(rest)[:1500]}")
  return "\n".join(text)


def worker_environ(is_toy: bool) -> dict[str, str]:
  """Of workers: memory as it is needed, so that several fit on a device, and no compile cache but for toys."""
  path = os.pathsep.join(part for part in (ROOT, os.environ.get("PYTHONPATH", "")) if part)
  environ = {"CUDA_VISIBLE_DEVICES": "0"} | os.environ  # one device, where nobody has said which
  environ |= {"PYTHONPATH": path, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
  return environ if is_toy else environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}


def is_chosen(name: str, only: str) -> bool:
  """Whether one of the patterns, between commas, fits a name."""
  return any(fnmatch.fnmatchcase(name, pattern) for pattern in only.split(","))


def leave(*_) -> None:
  """Ends the run in good order when it is asked to stop."""
  raise SystemExit(143)


def main() -> None:
  """Measures what the flags ask for."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--output", default="", help="file that results are appended to")
  parser.add_argument("--seconds", type=float, default=520.0, help="budget for everything")
  parser.add_argument("--only", default="*", help="patterns of names, such as 'step*,members 1'")
  parser.add_argument("--toy", action="store_true", help="tiny sizes, for a CPU")
  parser.add_argument("--patience", type=float, default=3.0, help="times its estimate that a measurement may take")
  parser.add_argument("--peak_tflops", type=float, default=0.0, help="instead of the data sheet's")
  parser.add_argument("--work", action="store_true", help="be a worker, which is asked on standard input")
  flags = parser.parse_args()
  pace = [0.02, 2] if flags.toy else [0.4, 7]
  if flags.work:
    work(pace)
    return
  signal.signal(signal.SIGTERM, leave)
  command = [sys.executable, os.path.abspath(__file__), "--work", *["--toy"] * flags.toy]
  session = Session(command, flags.output, flags.seconds, worker_environ(flags.toy), flags.patience,
                    lambda *args: complete(*args, peak_tflops=flags.peak_tflops))
  if any(record["name"] == "about" and record["result"]["toy"] != flags.toy for record in session.records):
    parser.error(f"--output: {flags.output!r} holds results of the other sizes (--toy)")
  session.write({"name": "about", "result": {"toy": flags.toy, "began": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                                             "jax": importlib.metadata.version("jax")}})
  try:
    for one in accelerator_plan.measurements(flags.toy):
      if is_chosen(one.name, flags.only):
        session.measure(one)
  finally:
    session.close()
    print(table(session.records), flush=True)


if __name__ == "__main__":
  main()
