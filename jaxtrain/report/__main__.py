"""Writes the page of a run again, with its figures, or one page that compares several runs.

  python -m jaxtrain.report runs/a                                    one run: figures and report.html
  python -m jaxtrain.report runs/a runs/b --output=comparison.html    several runs, compared
  python -m jaxtrain.report runs/seeds --members                      a sweep, and the page of each member

It prints the full path of the page: report.html in the folder of a run or a sweep, of several comparison.html in the
current folder, or the file of --output.
A run whose config asks for no figures gets the standard ones.
"""

import os
import sys

from absl import flags

from jaxtrain import commands, streams
from jaxtrain.config import must_fit
from jaxtrain.errors import UserError
from jaxtrain.report import collection, run_page, sweep_page
from jaxtrain.workdir import journal, outputs


def make_flags() -> flags.FlagValues:
  """The flags of this command."""
  own = commands.new_flags(has_config=False)
  flags.DEFINE_string("output", "", "File of the comparison. Default: report.html of the one sweep, else "
                      "comparison.html here.", flag_values=own)
  flags.DEFINE_bool("members", False, "Of a sweep: draw the page of every member too, so that its own can link them.",
                    flag_values=own)
  return own


def write_members(paths: list[str]) -> None:
  """Writes the pages of all members of sweeps that have begun. Raises UserError where a path is no sweep."""
  for path in paths:
    if not journal.is_sweep(path):
      raise UserError(f"--members: {path!r} is no sweep (no sweep.json)")
    for member in collection.members_of(path):
      if os.path.exists(os.path.join(member.folder, "config.json")):
        with must_fit(member.folder):
          run_page.write_run(member.folder, "end", asked=True)


def write_page(paths: list[str], output: str, members: bool) -> str:
  """Writes the page of these folders and returns its path. Raises UserError where it cannot."""
  one = paths[0] if len(paths) == 1 else ""
  own = os.path.join(one, "report.html") if one and journal.is_sweep(one) else ""
  if output and not (own and os.path.realpath(output) == os.path.realpath(own)):
    outputs.check_page("--output", output)
  try:
    if one and not output and not journal.is_sweep(one) and os.path.exists(os.path.join(one, "config.json")):
      if members:
        raise UserError(f"--members: {one!r} is no sweep (no sweep.json)")
      with must_fit(one):
        return run_page.write_run(one, "end", asked=True)
    if members:
      write_members(paths)
    with must_fit(", ".join(paths)):
      return sweep_page.write(paths, output or (os.path.join(one, "report.html") if one else "comparison.html"))
  except OSError as error:
    raise UserError(f"{error.filename or 'the page'} cannot be written: {error.strerror or error}") from error


def work(log: commands.Log) -> None:
  """Does what the command line says. Raises UserError."""
  given = commands.parse(make_flags(), sys.argv, __doc__, takes_arguments=True)
  if not given.arguments:
    raise UserError("RUN_OR_SWEEP: required, the folder of a run or of a sweep")
  streams.answer(os.path.abspath(write_page(given.arguments, given.flags.output, given.flags.members)))


def main() -> int:
  """Runs the command and returns its exit code."""
  return commands.run(work)


if __name__ == "__main__":
  sys.exit(main())
