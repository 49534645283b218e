"""The command: `python -m jaxtrain.experiments.causal_consistency --config=FILE[:variant] --output=TABLE`.

Writes the rows of a simulated table or of a benchmark to a file, .csv .parquet .npz or .h5: covariates, instruments,
the treatment (empty where it is hidden) and outcomes by name. What is true and no run sees has names that begin with
true_: true_<treatment>, and the mean outcome under each treatment, true_mean_<class>.
"""

import os
import sys

from absl import flags

from jaxtrain import commands, config as config_lib, streams
from jaxtrain.data import files, writing
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_consistency import generators, sources
from jaxtrain.workdir import outputs

EXPERIMENT = "jaxtrain.experiments.causal_consistency.joint"


def make_flags() -> flags.FlagValues:
  """The flags of this command."""
  own = commands.new_flags(has_config=True)
  flags.DEFINE_string("output", "", "File to write.", flag_values=own)
  return own


def write(config, path: str) -> int:
  """Writes the rows of a config's data to a file and returns their number. Raises UserError."""
  config = config_lib.resolve(config)
  if config.experiment != EXPERIMENT:
    raise UserError(f"--config: its experiment is {config.experiment}, allowed {EXPERIMENT}")
  if config.data.source not in sources.KNOWN:
    raise UserError(f"config.data.source: got {config.data.source!r}, allowed {' | '.join(sources.KNOWN)}")
  made, named, _ = sources.make_rows(config)
  columns = generators.columns(made, named)
  writing.check(path, columns)
  try:
    writing.write(path, columns)
  except OSError as error:
    raise UserError(f"--output: cannot write {path!r}: {error.strerror or error}") from error
  return len(made.y)


def work(log: commands.Log) -> None:
  """Does what the command line says. Raises UserError."""
  del log
  given = commands.parse(make_flags(), sys.argv, __doc__)
  path = given.flags.output
  if not path or not files.has_suffix(path) or files.kind_of(path) not in writing.WRITERS:
    raise UserError(f"--output: got {path!r}, allowed the path of a file .csv .parquet .npz .h5")
  outputs.check_free("--output", path)
  config, _ = commands.read_config(given, os.environ)
  streams.answer(f"jaxtrain: {write(config, path)} rows in {path}")


def main() -> int:
  """Runs the command and returns its exit code."""
  return commands.run(work)


if __name__ == "__main__":
  sys.exit(main())
