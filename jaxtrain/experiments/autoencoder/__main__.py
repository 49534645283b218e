"""The command: `python -m jaxtrain.experiments.autoencoder --config=FILE[:variant] --output=events.h5`.

Writes the events of a config's data, such as those of the simulation, as an HDF5 file of flat rows by part: X_train,
X_val, X_test, their processes Y_train, y_val, y_test, and weights w_train, w_val, w_test where events have some. A run
with `--config.data.source=hdf5 --config.data.split.kind=file --config.data.path=events.h5` reads it, and its weights if
`--config.data.datasets.w_train=w_train` and so on name them.
"""

import sys

from jaxtrain.data import command
from jaxtrain.experiments.autoencoder import event_files, sources

EXPERIMENTS = "jaxtrain.experiments.autoencoder."
SUFFIXES = (".h5", ".hdf5")


def write_events(config, path: str) -> int:
  """Writes the events of a resolved config and returns their number."""
  parts = sources.read_parts(config)[0]
  event_files.write_hdf5(path, parts)
  return sum(len(events.ids) for events in parts.values())


def main() -> int:
  """Runs the command and returns its exit code."""
  return command.run(__doc__, EXPERIMENTS, SUFFIXES, write_events, "events")


if __name__ == "__main__":
  sys.exit(main())
