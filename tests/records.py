"""What fault tests note down, a line each, in the file that JAXTRAIN_FAULT_RECORDS names; tests/fault_table.py reads it.
"""

import json
import os

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
