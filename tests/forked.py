"""The commands for many command lines: imports everything once, then forks for each, before any JAX backend is started.

  python tests/forked.py < cases.jsonl > answers.jsonl

A case is {"command": "main" | "predict" | "sweep" | "report", "argv": [...]}; its answer
{"code": ..., "out": ..., "err": ...}.
"""

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
SECONDS = 120  # for one case


def answer(case: dict) -> dict:
  """Runs a case in a fork of this process."""
  with tempfile.TemporaryFile("w+", encoding="utf-8") as out, tempfile.TemporaryFile("w+", encoding="utf-8") as err:
    child = os.fork()
    if child == 0:
      code = 99  # the command let an exception out
      try:
        signal.alarm(SECONDS)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        sys.argv[:] = [f"jaxtrain/{case['command']}.py", *case["argv"]]
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
    return {"code": code, "out": out.read(), "err": err.read()}


def ask(cases: list[dict], timeout: float = 300) -> list[dict]:
  """Answers to cases, from a process of their own."""
  done = subprocess.run([sys.executable, os.path.abspath(__file__)], cwd=ROOT, timeout=timeout, text=True,
                        input="".join(json.dumps(case) + "\n" for case in cases), capture_output=True,
                        env=os.environ | {"PYTHONPATH": ROOT})
  if done.returncode:
    raise RuntimeError(done.stderr)
  return [json.loads(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
  for name in IMPORTS:
    importlib.import_module(name)
  for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
