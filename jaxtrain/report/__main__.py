"""The command: `python -m jaxtrain.report RUN_OR_SWEEP...`.

Draws a run's figures and report again, or writes one page that compares several runs.
"""

import os
import sys

from absl import flags

from jaxtrain import commands, streams
from jaxtrain.config import must_fit
from jaxtrain.errors import UserError
from jaxtrain.report import run_page, sweep_page
from jaxtrain.workdir import journal


def make_flags() -> flags.FlagValues:
  """The flags of this command."""
  own = commands.new_flags(has_config=False)
  flags.DEFINE_string("output", "", "File of the comparison. Default: report.html of the one sweep, else "
                      "comparison.html here.", flag_values=own)
  return own


def write_page(paths: list[str], output: str) -> str | None:
  """Writes the page of these folders and returns its path. Raises UserError where it cannot."""
  one = paths[0] if len(paths) == 1 else ""
  try:
    if one and not output and not journal.is_sweep(one) and os.path.exists(os.path.join(one, "config.json")):
      with must_fit(one):
        return run_page.write_run(one, "end")
    with must_fit(", ".join(paths)):
      return sweep_page.write(paths, output or (os.path.join(one, "report.html") if one else "comparison.html"))
  except OSError as error:
    raise UserError(f"{error.filename or 'the page'} cannot be written: {error.strerror or error}") from error


def work(log: commands.Log) -> None:
  """Does what the command line says. Raises UserError."""
  given = commands.parse(make_flags(), sys.argv, __doc__, takes_arguments=True)
  if not given.arguments:
    raise UserError("RUN_OR_SWEEP: required, the folder of a run or of a sweep")
  streams.answer(write_page(given.arguments, given.flags.output))


def main() -> int:
  """Runs the command and returns its exit code."""
  return commands.run(work)


if __name__ == "__main__":
  sys.exit(main())
