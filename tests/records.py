"""Kinds of run that faults are done to, and what the tests note down of it: a line each, in the file that the variable
JAXTRAIN_FAULT_RECORDS names; tests/fault_table.py reads it.
"""

import glob
import json
import os

import child

# The table's smoke first, which the fast tests run; every config file's; and what makes the loop take other ways.
KINDS = {"vae": ("--config=configs/vae.py:smoke",)} | {
    os.path.basename(path).removesuffix(".py"): (f"--config={os.path.relpath(path, child.ROOT)}:smoke",)
    for path in sorted(glob.glob(os.path.join(child.ROOT, "configs", "*.py")))} | {
    "vae, semi-supervised": ("--config=configs/vae.py:hybrid_semisup", "--config.data.row_limit=2000"),
    "vae, canonical": ("--config=configs/vae.py:smoke", "--config.parallel.mode=canonical")}
VARIABLE = "JAXTRAIN_FAULT_RECORDS"


def note(fault: str, kind: str, *, survived: bool, equal: bool | None, steps_again: int | None = None) -> None:
  """Notes one try.

  Args:
    fault: what was done to the run.
    kind: of run.
    survived: the run came to its end, or was refused as it should be.
    equal: whether digest and facts are those of a run without the fault; None where there is nothing to compare.
    steps_again: steps that had been reported and were trained again; None where it does not apply.
  """
  if VARIABLE in os.environ:
    line = {"fault": fault, "kind": kind, "survived": survived, "equal": equal, "steps_again": steps_again}
    with open(os.environ[VARIABLE], "a", encoding="utf-8") as file:
      file.write(json.dumps(line) + "\n")
