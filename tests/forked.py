"""The commands without their imports: a process that has imported everything forks for each command line.

JAX starts its backends in the fork, as it does in a process of its own. A case is {"command": "main" | "predict" |
"sweep" | "report", "argv": [...]}, and may have "environ" (all variables), "cwd", "seconds" after which it is killed,
and "audited": its answer is {"code": ..., "out": ..., "err": ...}, and "events", lines about code that was run, where
that was asked for.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COMMANDS = {"main": "jaxtrain.main", "predict": "jaxtrain.predict", "sweep": "jaxtrain.sweep.__main__",
            "report": "jaxtrain.report.__main__"}
IMPORTS = (*COMMANDS.values(), "jaxtrain.loop", "jaxtrain.report.figures", "sklearn.datasets", "h5py",
           "jaxtrain.experiments.tabular_vae.vae", "pyarrow.parquet", "tensorflow_datasets", "orbax.checkpoint")
SECONDS = 240  # for one case that does not say


def enter(case: dict, out: int, err: int) -> None:
  """Makes this fork what a process of the case would be: its files, variables, folder and arguments."""
  signal.alarm(int(case["seconds"]))
  for target, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, out), (2, err)):
    os.dup2(source, target)
  sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
  os.environ.clear()
  os.environ.update(case["environ"])
  os.chdir(case["cwd"])
  if "PYTHONPATH" in case["environ"]:
    sys.path[1:1] = case["environ"]["PYTHONPATH"].split(os.pathsep)
  sys.argv[:] = [f"jaxtrain/{case['command']}.py", *case["argv"]]


AUDITED = {  # event -> what to note of its arguments
    "import": lambda module, *_: module, "exec": lambda code, *_: f"{code.co_filename}:{code.co_name}",
    "compile": lambda source, name, *_: str(name), "pickle.find_class": lambda *names: ".".join(map(str, names)),
    "subprocess.Popen": lambda *given: str(given[1]), "os.system": str, "os.exec": lambda *given: str(given[:2]),
    "os.posix_spawn": lambda *given: str(given[:2]), "os.spawn": lambda *given: str(given[:3])}


def audit(note) -> None:
  """From here on `note(line)` is told of all that imports, compiles or runs code, for as long as this process lives."""
  sys.addaudithook(lambda event, given: note(f"{event} {AUDITED[event](*given)}") if event in AUDITED else None)


def answer(case: dict) -> dict:
  """Runs a case in a fork of this process."""
  opened = lambda: tempfile.TemporaryFile("w+", encoding="utf-8")
  with opened() as out, opened() as err, opened() as events:
    child = os.fork()
    if child == 0:
      code = 99  # the command let an exception out
      try:
        enter(case, out.fileno(), err.fileno())
        if case["audited"]:
          audit(lambda line: os.write(events.fileno(), f"{line}\n".encode("utf-8", "replace")))
        code = importlib.import_module(COMMANDS[case["command"]]).main()
      except SystemExit as leaving:
        code = leaving.code
      except BaseException:
        sys.excepthook(*sys.exc_info())
      finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    out.seek(0)
    err.seek(0)
    events.seek(0)
    return {"code": code, "out": out.read(), "err": err.read()} | ({"events": events.read().splitlines()}
                                                                  if case["audited"] else {})


@functools.cache
def server() -> subprocess.Popen:
  """The process that forks, started by the first who asks and ended with this one."""
  # Python 3.12 warns of forks in a process with threads; none of the imported libraries' threads holds a lock then.
  command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", os.path.abspath(__file__)]
  process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

  def end():
    process.stdin.close()
    process.wait()
    process.stdout.close()

  atexit.register(end)
  return process


def answer_to(case: dict) -> dict:
  """The answer to one case."""
  process = server()
  usual = {"environ": dict(os.environ), "cwd": ROOT, "seconds": SECONDS, "audited": False}
  process.stdin.write(json.dumps(usual | case) + "\n")
  process.stdin.flush()
  return json.loads(process.stdout.readline())


def ask(cases: list[dict]) -> list[dict]:
  """Answers to cases."""
  return [answer_to(case) for case in cases]


if __name__ == "__main__":
  sys.path[0] = ROOT  # as `python -m` has it
  for name in IMPORTS:
    importlib.import_module(name)
  gc.freeze()  # what all forks share is not looked through, and so not copied, by each of them
  gc.set_threshold(100_000)  # as in tests/conftest.py
  for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
