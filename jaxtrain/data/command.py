"""A command of a family, `python -m jaxtrain.experiments.FAMILY --config=FILE[:variant] --output=FILE`: writes the data
of a config to a file.
"""

import os
import sys
from typing import Any, Callable

from absl import flags

from jaxtrain import commands, config as config_lib, streams
from jaxtrain.errors import UserError
from jaxtrain.workdir import outputs


def make_flags() -> flags.FlagValues:
  """The flags of such a command."""
  own = commands.new_flags(has_config=True)
  flags.DEFINE_string("output", "", "File to write.", flag_values=own)
  return own


def write_config(experiments: str, config, write: Callable[[Any, str], int], path: str) -> int:
  """Writes the data of a config to a file and returns their number.

  Args:
    experiments: of what the config's must be one: a module of theirs, or a package with a dot behind it.
    config: not resolved.
    write: `(resolved config, path) -> number`. Raises OSError where the file cannot be written.
    path: the file.

  Raises:
    UserError: another experiment, a field with a wrong value, a file that cannot be written.
  """
  config = config_lib.resolve(config)
  if config.experiment != experiments and not (experiments.endswith(".") and config.experiment.startswith(experiments)):
    raise UserError(f"--config: its experiment is {config.experiment}, allowed {experiments}")
  try:
    return write(config, path)
  except OSError as error:
    raise UserError(f"--output: cannot write {path!r}: {error.strerror or error}") from error


def run(doc: str, experiments: str, suffixes: tuple[str, ...], write: Callable[[Any, str], int], what: str) -> int:
  """Runs the command and returns its exit code.

  Args:
    doc: what --help says.
    experiments, write: of `write_config`.
    suffixes: of the files that it writes.
    what: what it writes, in the plural.
  """
  def work(log: commands.Log) -> None:
    del log
    given = commands.parse(make_flags(), sys.argv, doc)
    path = given.flags.output
    if not path.lower().endswith(suffixes):
      raise UserError(f"--output: got {path!r}, allowed the path of a file {' '.join(suffixes)}")
    outputs.check_free("--output", path)
    config, _ = commands.read_config(given, os.environ)
    streams.answer(f"jaxtrain: {write_config(experiments, config, write, path)} {what} in {path}")
  return commands.run(work)
