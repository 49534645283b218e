"""Applies a trained run to a file: embed, reconstruct, classify, impute, sample, draw a graph, as its model can.

  python -m jaxtrain.predict --workdir=runs/a --verb=embed --input=new.csv --output=embedded.parquet
  python -m jaxtrain.predict --workdir=runs/a --verb=sample --num=1000 --output=samples.csv

With a model that comes with jaxtrain, nothing trained before:
  python -m jaxtrain.predict --workdir=kept:causal_discovery --verb=graph --input=table.csv --output=graph.html

Take a model elsewhere, without jaxtrain:
  python -m jaxtrain.predict --workdir=runs/a --verb=embed --export=embed.stablehlo

Input and output are .csv .parquet .npz or .h5 (input also .db). Columns of the input that the model does not use are
carried through. A run that was trained with code of your own needs --experiment and --code, which name it. The
first lines say how good the model is: its best monitored value, and a warning where it is no better than chance, where
its run is unfinished, or where no data was held out. An output file that is there is replaced, and that is said. Of a
damaged input whose rest can be read the rest is written, and the exit code is 1.
"""

import contextlib
import errno
import json
import os
import sys
import time
from typing import Iterable

from absl import flags as absl_flags

from jaxtrain import commands, jsonable, streams
from jaxtrain.errors import LostRows, UserError, need
from jaxtrain.types import Verb
from jaxtrain.workdir import atomic, kept, outputs, quality, records

OPTIONS = {  # what a verb may be told beside the rows, where it says so
    "threshold": "Edge probability from which a graph has an edge. Default: the one that was chosen in training.",
    "required": "Edges that a graph has: a->b,c->d or a file with the columns cause and effect.",
    "forbidden": "Edges that a graph has not, likewise.",
    "tiers": "Groups of columns, causes before effects: a,b;c,d has no edge from c or d to a or b.",
    "acyclic": "Draw graphs with a cycle again."}
SWITCHES = ("acyclic",)


def make_flags() -> absl_flags.FlagValues:
  """The flags of this command."""
  own = commands.new_flags(has_config=False)
  for name, default, words in (
      ("workdir", "", "Folder of a trained run; or kept:FAMILY, a trained model that comes with jaxtrain."),
      ("verb", "", "What to do, such as embed; another word lists those there are."),
      ("input", "", "File to read."), ("output", "", "File to write."), ("checkpoint", "best", "best | last | STEP."),
      ("export", "", "Write the verb as a StableHLO artefact of jax.export instead."),
      ("experiment", "", "The run's experiment, where it is a module of your own.")):
    absl_flags.DEFINE_string(name, default, words, flag_values=own)
  absl_flags.DEFINE_list("code", [], "Functions of your own that the run's config names and the verb calls: NAME,...",
                         flag_values=own)
  absl_flags.DEFINE_list("columns", [], "Columns of the input to use: a,b,c. Default: all. For verbs that take any.",
                         flag_values=own)
  absl_flags.DEFINE_integer("num", 0, "Rows to make, for verbs that read no file.", flag_values=own)
  absl_flags.DEFINE_integer("seed", None, "Seed of those rows. Default: the run's.", flag_values=own)
  for name, words in (("table", "Table of an SQLite input."), ("separator", "Of the cells of a CSV input."),
                      ("decimal", "What stands before decimals in text."),
                      ("thousands", "What sets thousands apart in text."), ("encoding", "Of a CSV input.")):
    absl_flags.DEFINE_string(name, None, f"{words} Default: as of the run's own file.", flag_values=own)
  absl_flags.DEFINE_list("missing", None, "Words and numbers of the input that mean missing. Default: the run's.",
                         flag_values=own)
  for name, words in OPTIONS.items():
    define = absl_flags.DEFINE_bool if name in SWITCHES else absl_flags.DEFINE_string
    define(name, None, f"{words} For verbs that make graphs.", flag_values=own)
  absl_flags.DEFINE_bool("json", False, "Print the summary as JSON.", flag_values=own)
  return own


def suffix(path: str) -> str:
  """The ending of a path's name, `.csv`, in small letters."""
  return os.path.splitext(path)[1].lower()


def refuse(flags, names: Iterable[str], beside: str) -> None:
  """Raises UserError where one of the flags with these names is given, beside what has no use for it."""
  for name in names:
    if flags[name].value != flags[name].default:
      raise UserError(f"--{name}: got {flags[name].value!r}, allowed nothing with {beside}")


def check_flags(flags, verb: Verb) -> None:
  """Raises UserError where flags are missing, or given and of no use."""
  from jaxtrain.data import files, inputs, writing
  from jaxtrain.run import verbs
  if flags.export:
    if verb.pure is None:
      raise UserError(f"--export: got {flags.export!r}, allowed nothing with --verb={flags.verb}, which does not take "
                      "rows one by one")
    return refuse(flags, ("input", "output", "num", "columns", "seed", *inputs.FIELDS, *OPTIONS), "--export")
  if verb.reads != bool(flags.input):
    raise UserError(f"--input: got {flags.input!r}, allowed {'a file' if verb.reads else 'nothing'} with "
                    f"--verb={flags.verb}")
  if flags.columns and verb.inputs is not None:
    raise UserError(f"--columns: got {','.join(flags.columns)}, allowed nothing with --verb={flags.verb}, which reads "
                    "the columns that it was trained on")
  verbs.check_numbers(flags.verb, verb, flags.num, flags.seed)
  refuse(flags, () if verb.reads else inputs.FIELDS, f"--verb={flags.verb}")
  if not flags.output:
    raise UserError(f"--output: required, a file {' '.join(['.csv .parquet .npz .h5', *verb.writers])}")
  if suffix(flags.output) not in verb.writers and files.kind_of(flags.output) not in writing.WRITERS:
    raise UserError(f"--output: got {flags.output!r}, allowed {' '.join(['.csv .parquet .npz .h5', *verb.writers])}")
  folder = os.path.dirname(os.path.abspath(flags.output))
  if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
    raise UserError(f"--output: cannot write into {folder!r}")
  if os.path.isdir(flags.output):
    raise UserError(f"--output: cannot write {flags.output!r}: it is a folder")


@contextlib.contextmanager
def refused_in_one_line(flag: str, path: str):
  """Turns what the system refuses into a UserError; a full disk stays an OSError."""
  try:
    yield
  except OSError as error:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
      raise
    reason = error.strerror or str(error).splitlines()[0]
    raise UserError(f"{flag}: cannot write {path!r}: {reason}") from error


def apply(flags, verb: Verb, run) -> tuple[dict, str, list[str]]:
  """Reads, applies, writes; returns the summary, what was made in words, and lines for the screen.

  Raises UserError for a file that does not fit.
  """
  import numpy as np
  from jaxtrain.data import files, inputs, writing
  from jaxtrain.run import verbs
  columns, config = None, run.config
  if verb.reads:
    if suffix(flags.input) in verb.readers:
      columns = verb.readers[suffix(flags.input)](flags.input, run.state)
    if columns is None:  # a table
      columns = inputs.read(flags.input, config.data if "data" in config else {},
                            {name: tuple(flags.missing) if name == "missing" and flags.missing else flags[name].value
                             for name in inputs.FIELDS})
    columns = verbs.choose(columns, flags.columns, verb) if flags.columns else columns
  carried = columns.values if verb.carries and isinstance(columns, files.Columns) else {}
  if suffix(flags.output) not in verb.writers:
    writing.check(flags.output, carried)
  began = time.perf_counter()
  with inputs.spelt_as_flags():
    found = verbs.compute(run, verb, columns, flags.num, flags.seed)
  seconds = time.perf_counter() - began
  read = {column.name for column in verb.inputs or ()} if verb.replaces else set()
  clash = [name for name in found if name in carried and name not in read]
  if clash:
    raise UserError(f"{flags.input} already has a column {clash[0]!r}; rename it")
  replaced = os.path.exists(flags.output)
  with refused_in_one_line("--output", flags.output):
    if suffix(flags.output) in verb.writers:
      with atomic.replacing(flags.output) as fresh:
        verb.writers[suffix(flags.output)](fresh, run.state, columns, found)
    else:
      writing.write(flags.output, carried | found)
  rows = len(next(iter(found.values())))
  numbers = [column for column in found.values() if column.dtype.kind == "f"]
  empty = int(np.isnan(np.stack(numbers)).any(axis=0).sum()) if numbers else 0
  others = isinstance(columns, files.Columns) and not verb.carries
  gaps = " (missing features)" * isinstance(columns, files.Columns)
  made = f"{columns.num_rows:,} rows read, " if others else ""
  made += f"{rows:,} {verb.makes}" + f", {empty:,} of them without a result{gaps}" * bool(empty)
  lost = verb.lost(columns) if verb.lost else []
  return {"rows": rows, "rows_incomplete": empty, "output": flags.output, "replaced": replaced, "lost": lost,
          "compute_seconds": round(seconds, 4)}, made, (verb.say(columns, found) if verb.say else [])


def export(flags, verb: Verb, state) -> tuple[dict, str, list[str]]:
  """Writes the verb's pure function as a StableHLO artefact for any number of rows; returns what `apply` does.

  Raises:
    UserError: flatbuffers is not installed.
  """
  import jax
  need("flatbuffers", "export")
  from jax import export as jax_export
  function, width = verb.pure(state)
  shape = jax.ShapeDtypeStruct((*jax_export.symbolic_shape("rows"), width), "float32")
  made = jax_export.export(jax.jit(function), platforms=("cpu", "cuda", "tpu"))(shape)
  with refused_in_one_line("--export", flags.export):
    with atomic.replacing(flags.export) as fresh, open(fresh, "wb") as file:
      file.write(made.serialize())
  takes, gives = f"float32[rows, {width}]", f"float32[rows, {made.out_avals[0].shape[1]}]"
  return {"output": flags.export, "bytes": os.path.getsize(flags.export), "takes": takes, "gives": gives}, (
      f"{takes} -> {gives}"), []


def run(argv: list[str]) -> dict:
  """Does what the flags say and returns a summary. Raises UserError."""
  flags = commands.parse(make_flags(), ["predict", *argv], __doc__).flags
  for name in ("workdir", "verb"):
    if not flags[name].value:
      raise UserError(f"--{name}: required")
  for name in ("output", "export"):
    if flags[name].value:
      outputs.check_free(f"--{name}", flags[name].value)
  from jaxtrain.run import trained, verbs
  workdir = kept.folder_of(flags.workdir)
  run = trained.restore(workdir, flags.checkpoint, (flags.experiment, *flags.code))
  verb = verbs.pick(run, flags.verb)
  check_flags(flags, verb)
  options = {name: flags[name].value for name in OPTIONS if flags[name].present}
  worth = quality.of_workdir(workdir, run.step)
  verb = verbs.settle(run, flags.verb, verb, options, worth)
  done, made, lines = export(flags, verb, run.state) if flags.export else apply(flags, verb, run)
  summary = {"workdir": flags.workdir, "step": run.step, "epoch": run.epoch, "digest": f"sha256:{run.digest}",
             "verb": flags.verb, "options": options, "quality": jsonable.clean(worth._asdict())} | done
  if flags.json:
    streams.answer(json.dumps(summary))
  else:
    state = records.describe_state(run.step, run.epoch, run.digest)
    streams.answer(*(f"jaxtrain: {line}" for line in worth.lines()))
    earlier = ", which replaces an earlier file" * (not flags.export and done["replaced"])
    streams.answer(f"jaxtrain: {flags.verb}, state of {state}: {made}, in {summary['output']}{earlier}", *lines)
  if not flags.export and done["lost"]:
    raise LostRows(f"{flags.input}: {verbs.in_short(done['lost'])}; the others are in {flags.output}")
  return summary


def main() -> int:
  """Runs the command and returns its exit code."""
  return commands.run(lambda log: run(sys.argv[1:]))


if __name__ == "__main__":
  sys.exit(main())
