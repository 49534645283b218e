"""The command: `python -m jaxtrain.report RUN_OR_SWEEP...`."""

import argparse
import os
import sys

from jaxtrain.errors import UserError
from jaxtrain.report import run_page, sweep_page
from jaxtrain.workdir import journal


def main() -> int:
  """Runs the command and returns its exit code."""
  parser = argparse.ArgumentParser(prog="python -m jaxtrain.report", description="Draws a run's figures and report "
                                   "again, or writes one page that compares several runs.")
  parser.add_argument("paths", nargs="+", metavar="RUN_OR_SWEEP", help="folder of a run, or of a sweep")
  parser.add_argument("--output", help="file of the comparison; without it report.html of the one sweep, else "
                                       "comparison.html here")
  given = parser.parse_args()
  one = given.paths[0] if len(given.paths) == 1 else ""
  try:
    if one and not given.output and not journal.is_sweep(one) and os.path.exists(os.path.join(one, "config.json")):
      print(run_page.write_run(one, "end"))
    else:
      default = os.path.join(one, "report.html") if one else "comparison.html"
      print(sweep_page.write(given.paths, given.output or default))
    return 0
  except UserError as error:
    print(f"jaxtrain: {error}", file=sys.stderr)
  except OSError as error:
    print(f"jaxtrain: {error.filename or 'the page'} cannot be written: {error.strerror or error}", file=sys.stderr)
  return 2


if __name__ == "__main__":
  sys.exit(main())
