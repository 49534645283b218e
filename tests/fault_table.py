"""The fault table of README, from the records of the tests that made the faults.

  python tests/fault_table.py                  runs all fault tests (about half an hour on 2 cores), prints it
  python tests/fault_table.py records.jsonl    prints it from records that are there
"""

import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TESTS = ("tests/run/faults_test.py", "tests/run/kill_test.py", "tests/devices/processes_test.py")


def table(records: list[dict]) -> str:
  """Markdown: a row per fault and kind of run, in the order of the names."""
  lines = ["| fault | run | tries | survived | steps trained again (median, most) | digest and facts equal |",
           "|---|---|---|---|---|---|"]
  for fault, kind in sorted({(r["fault"], r["kind"]) for r in records}):
    tries = [r for r in records if (r["fault"], r["kind"]) == (fault, kind)]
    again = sorted(r["steps_again"] for r in tries if r["steps_again"] is not None)
    equal = [r["equal"] for r in tries if r["equal"] is not None]
    steps = f"{again[len(again) // 2]}, {again[-1]}" if again else ""
    lines.append(f"| {fault} | {kind} | {len(tries)} | {sum(r['survived'] for r in tries)} | {steps} | "
                 f"{f'{sum(equal)} of {len(equal)}' if equal else ''} |")
  return "\n".join(lines)


def run_tests(path: str) -> int:
  """Runs the fault tests, slow ones too, with their records in a file; returns pytest's exit code."""
  return subprocess.call([sys.executable, "-m", "pytest", "-q", "-m", "slow or not slow", *TESTS], cwd=ROOT,
                         env=os.environ | {"JAXTRAIN_FAULT_RECORDS": path}, stdout=sys.stderr)


def main() -> int:
  """Prints the table."""
  code = 0
  with tempfile.TemporaryDirectory() as folder:
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(folder, "records.jsonl")
    if len(sys.argv) < 2:
      code = run_tests(path)
    with open(path, encoding="utf-8") as file:
      print(table([json.loads(line) for line in file]))
  return code


if __name__ == "__main__":
  sys.exit(main())
