"""The command: tasks of a config as files, graphs of any method judged by our metrics, the table of an assessment.

  python -m jaxtrain.experiments.causal_discovery --config=FILE[:variant] --config.eval.suite=NAME --output=FOLDER
      writes eval.max_test_tasks tasks of the training distribution and of each test family: tables and true graphs
  python -m jaxtrain.experiments.causal_discovery --tasks=FOLDER --graphs=GRAPHS --output=TABLE
      judges graphs that any method has found for such tasks: GRAPHS/<family>/<number>.csv with cause, effect, prob, or
      with a column CAUSE->EFFECT for each pair and a row for each sampled graph
  python -m jaxtrain.experiments.causal_discovery --real=sachs --output=FOLDER
      writes measured tables and the graphs that are held to be true as such tasks: sachs | sachs_all | syntren;
      --input names a CSV file or folder of your own
  python -m jaxtrain.experiments.causal_discovery --workdir=RUN --output=TABLE
      writes the assessment of a run by test families: a row for each, with distances from training

TABLE is a .csv .parquet .npz or .h5 file with a row for each family.
"""

import os
import sys

import numpy as np
from absl import flags

from jaxtrain import commands, streams
from jaxtrain.data import command, writing
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import named, real_tables, task_files
from jaxtrain.workdir import kept, outputs, reading

EXPERIMENTS = "jaxtrain.experiments.causal_discovery."
SUFFIXES = (".csv", ".parquet", ".npz", ".h5", ".hdf5")


def make_flags() -> flags.FlagValues:
  """The flags of this command."""
  own = command.make_flags()
  flags.DEFINE_string("tasks", "", "Folder of tasks that this command wrote.", flag_values=own)
  flags.DEFINE_string("graphs", "", "Folder of the graphs that a method found for them.", flag_values=own)
  flags.DEFINE_list("real", [], "Measured tables to write as tasks.", flag_values=own)
  flags.DEFINE_string("input", "", "File or folder of these tables, where it is your own.", flag_values=own)
  flags.DEFINE_string("workdir", "", "A run that is assessed.", flag_values=own)
  return own


def table_of(workdir: str) -> dict[str, np.ndarray]:
  """A row for each family of tasks that a run was assessed by, the training distribution first.

  Raises:
    UserError: the folder holds no run, or one that is not assessed by families.
  """
  scalars = reading.scalars(reading.read_run(workdir, with_arrays=False).evals.get("test", {}))
  families = [key.removeprefix("rows/") for key in scalars if key.startswith("rows/")]
  if not families:
    raise UserError(f"--workdir: {workdir!r} is not assessed by families of tasks: config.eval.suite and "
                    "config.data.test_families name some")
  names = [key.rpartition("/")[0] for key in scalars if key.rpartition("/")[2] in families]  # one may lack some
  value = lambda key: scalars[key] if key in scalars and scalars[key] is not None else np.nan
  found = {"family": np.asarray([named.TRAINING, *families], object)}
  for name in dict.fromkeys(names):
    found[name] = np.asarray([value(name), *(value(f"{name}/{family}") for family in families)])
  return found


def work(log: commands.Log) -> None:
  """Does what the command line says. Raises UserError."""
  del log
  given = commands.parse(make_flags(), sys.argv, __doc__)
  own, path = given.flags, given.flags.output
  asked = [name for name in ("config", "tasks", "real", "workdir") if own[name].value]
  if len(asked) != 1 or bool(own.graphs) != bool(own.tasks) or own.input and not own.real:
    raise UserError("--config, --tasks with --graphs, --real, --workdir: allowed one of these; --help says what each "
                    "does")
  outputs.check_free("--output", path)
  if own.config or own.real:
    if not path:
      raise UserError("--output: required, the folder of the tasks")
    if own.real:
      count = task_files.write_real(real_tables.read(own.real, own.input), path)
      return streams.answer(f"jaxtrain: {count} tasks in {path}")
    config, _ = commands.read_config(given, os.environ)
    count = command.write_config(EXPERIMENTS, config, task_files.write_tasks, path)
    return streams.answer(f"jaxtrain: {count} tasks in {path}")
  if not path.lower().endswith(SUFFIXES):
    raise UserError(f"--output: got {path!r}, allowed the path of a file {' '.join(SUFFIXES)}")
  rows = task_files.score(own.tasks, own.graphs) if own.tasks else table_of(kept.folder_of(own.workdir))
  writing.check(path, rows)
  writing.write(path, rows)
  return streams.answer(f"jaxtrain: {len(rows['family'])} families in {path}")


def main() -> int:
  """Runs the command and returns its exit code."""
  return commands.run(work)


if __name__ == "__main__":
  sys.exit(main())
