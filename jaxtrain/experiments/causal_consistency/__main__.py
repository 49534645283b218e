"""The command: `python -m jaxtrain.experiments.causal_consistency --config=FILE[:variant] --output=TABLE`.

Writes the rows of a simulated table or of a benchmark to a file, .csv .parquet .npz or .h5: covariates, instruments,
the treatment (empty where it is hidden) and outcomes by name. What is true and no run sees has names that begin with
true_: true_<treatment>, and the mean outcome under each treatment, true_mean_<class>.
"""

import sys

from jaxtrain.data import command, writing
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_consistency import generators, sources

EXPERIMENT = "jaxtrain.experiments.causal_consistency.joint"
SUFFIXES = (".csv", ".parquet", ".npz", ".h5", ".hdf5")


def write_rows(config, path: str) -> int:
  """Writes the rows of a resolved config and returns their number. Raises UserError for a source that is a file."""
  if config.data.source not in sources.KNOWN:
    raise UserError(f"config.data.source: got {config.data.source!r}, allowed {' | '.join(sources.KNOWN)}")
  made, named, _ = sources.make_rows(config)
  columns = generators.columns(made, named)
  writing.check(path, columns)
  writing.write(path, columns)
  return len(made.y)


def main() -> int:
  """Runs the command and returns its exit code."""
  return command.run(__doc__, EXPERIMENT, SUFFIXES, write_rows, "rows")


if __name__ == "__main__":
  sys.exit(main())
