"""The command: `python -m jaxtrain.experiments.autoencoder --config=FILE[:variant] --output=events.h5`.

Writes the events of a config's data, such as those of the simulation, as an HDF5 file of flat rows by part: X_train,
X_val, X_test, their processes Y_train, y_val, y_test, and weights w_train, w_val, w_test where events have some. A run
with `--config.data.source=hdf5 --config.data.split.kind=file --config.data.path=events.h5` reads it, and its weights if
`--config.data.datasets.w_train=w_train` and so on name them.
"""

import os
import sys

from absl import flags

from jaxtrain import commands, config as config_lib, streams
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import event_files, sources
from jaxtrain.workdir import outputs

FAMILY = "jaxtrain.experiments.autoencoder"
SUFFIXES = (".h5", ".hdf5")


def make_flags() -> flags.FlagValues:
  """The flags of this command."""
  own = commands.new_flags(has_config=True)
  flags.DEFINE_string("output", "", "File to write.", flag_values=own)
  return own


def write(config, path: str) -> int:
  """Writes the events of a config's data to a file and returns their number. Raises UserError."""
  config = config_lib.resolve(config)
  if not config.experiment.startswith(f"{FAMILY}."):
    raise UserError(f"--config: its experiment is {config.experiment}, allowed those of {FAMILY}")
  parts = sources.read_parts(config)[0]
  try:
    event_files.write_hdf5(path, parts)
  except OSError as error:
    raise UserError(f"--output: cannot write {path!r}: {error.strerror or error}") from error
  return sum(len(events.ids) for events in parts.values())


def work(log: commands.Log) -> None:
  """Does what the command line says. Raises UserError."""
  del log
  given = commands.parse(make_flags(), sys.argv, __doc__)
  path = given.flags.output
  if not path.lower().endswith(SUFFIXES):
    raise UserError(f"--output: got {path!r}, allowed the path of a file {' '.join(SUFFIXES)}")
  outputs.check_free("--output", path)
  config, _ = commands.read_config(given, os.environ)
  streams.answer(f"jaxtrain: {write(config, path)} events in {path}")


def main() -> int:
  """Runs the command and returns its exit code."""
  return commands.run(work)


if __name__ == "__main__":
  sys.exit(main())
