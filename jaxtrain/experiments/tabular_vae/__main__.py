"""The command: tables from raw instrument files, a strip log of a hole, one table of two models' embeddings.

  python -m jaxtrain.experiments.tabular_vae --gra=GRA.csv --ms=MS.csv --ngr=NGR.csv --rgb=RGB.csv --output=TABLE
      bins the measurements of instruments by 20 cm and joins them by hole; the lithology is a column of --gra, or of
      --lithology=LITHOLOGY.csv. --depth_column and so on say what columns are called; with --top_column and
      --bottom_column the lithologies are of intervals
  python -m jaxtrain.experiments.tabular_vae --classified=CLASSIFIED --hole=346-U1422-A --output=LOG.png
      draws the classes, their probabilities and the novelty of a hole against depth, from what
      `python -m jaxtrain.predict --verb=classify` wrote for a table with holes and depths
  python -m jaxtrain.experiments.tabular_vae --unsup=EMBEDDED --semisup=EMBEDDED --output=TABLE
      one table of the embeddings of two models, from what `--verb=embed` of each wrote for the same table:
      unsup_emb_0, ... and semisup_emb_0, ... beside its columns; an .npz file has the arrays unsup, semisup and y
  python -m jaxtrain.experiments.tabular_vae --config=configs/vae.py --output=TABLE
      writes the synthetic lithology of a config, with the names of holes and depths, as such a table

TABLE, CLASSIFIED and EMBEDDED are .csv .parquet .npz or .h5 files.
"""

import os
import sys

from absl import flags

from jaxtrain import commands, streams
from jaxtrain.config import modules
from jaxtrain.data import cells, command, files, writing
from jaxtrain.errors import UserError
from jaxtrain.experiments.tabular_vae import applied, instruments, lithology
from jaxtrain.workdir import atomic, outputs

EXPERIMENT = "jaxtrain.experiments.tabular_vae.vae"
SUFFIXES = (".csv", ".parquet", ".npz", ".h5", ".hdf5")
INSTRUMENTS, ENDS = ("gra", "ms", "ngr", "rgb"), ("top", "bottom")
NEEDS = {"config": ("config",), "gra": INSTRUMENTS, "classified": ("classified", "hole"), "unsup": ("unsup", "semisup")}


def make_flags() -> flags.FlagValues:
  """The flags of this command."""
  own = command.make_flags()
  for name, words in (
      ("gra", "CSV file of bulk densities."), ("ms", "CSV file of magnetic susceptibilities."),
      ("ngr", "CSV file of natural gamma radiation."), ("rgb", "CSV file of colours."),
      ("lithology", "CSV file of lithologies by depth. Default: a column of --gra."),
      ("classified", "Table that predict --verb=classify wrote."), ("hole", "Hole to draw, such as 346-U1422-A."),
      ("unsup", "Table that predict --verb=embed of the unsupervised model wrote."),
      ("semisup", "The same of the semi-supervised model.")):
    flags.DEFINE_string(name, "", words, flag_values=own)
  names = instruments.Names()
  for name, column in names._asdict().items():
    word = "columns of rgb, R,G,B" if name == "rgb" else f"column of {name}"
    text = ",".join(column) if isinstance(column, tuple) else column
    where = "of --lithology, of intervals: metres" if name in ENDS else "in instrument files"
    flags.DEFINE_string(f"{name}_column", text, f"The {word} {where}.", flag_values=own)
  flags.DEFINE_string("group_column", "Borehole_ID", "The column of holes of a table.", flag_values=own)
  flags.DEFINE_string("at_column", "Depth_Bin", "The column of depths of a table.", flag_values=own)
  flags.DEFINE_string("label_column", "Principal", "The column of lithologies of a table.", flag_values=own)
  flags.DEFINE_string("separator", ",", "Of the cells of instrument files.", flag_values=own)
  flags.DEFINE_string("decimal", ".", "What stands before decimals in instrument files.", flag_values=own)
  flags.DEFINE_list("missing", [], "Words and numbers that mean missing in instrument files.", flag_values=own)
  return own


def write_synthetic(config, path: str) -> int:
  """Writes the synthetic lithology of a resolved config and returns the number of rows. Raises UserError for others."""
  if config.data.source != "synthetic":
    raise UserError(f"config.data.source: got {config.data.source!r}, allowed 'synthetic'")
  made = lithology.generate(config.data.row_limit or lithology.FULL_ROWS)
  writing.write(path, lithology.columns(made))
  return len(made.depth)


def read_instruments(own) -> tuple[dict, list[str]]:
  """The table of the instrument files that flags name, and what was left out. Raises UserError."""
  column = lambda name: own[f"{name}_column"].value
  several = {name: tuple(part.strip() for part in column(name).split(",")) if name == "rgb" else (column(name),)
             for name in INSTRUMENTS}
  if len(several["rgb"]) != 3:
    raise UserError(f"--rgb_column: got {column('rgb')!r}, allowed three columns, R,G,B")
  top, bottom = (column(name) for name in ENDS)
  if (top or bottom) and not (top and bottom and top != bottom and own.lithology):
    raise UserError(f"--top_column, --bottom_column: got {top!r}, {bottom!r}, allowed two columns of --lithology, or "
                    "none")
  single = ("exp", "site", "hole", "depth", "lithology", *ENDS)
  names = instruments.Names(**{name: column(name) for name in single}, **several)
  form = cells.Form(tuple(own.missing), "\t" if own.separator == "tab" else own.separator, own.decimal)
  paths = {name: own[name].value for name in INSTRUMENTS} | {"lithology": own.lithology or own.gra}
  return instruments.make_table(paths, names, form)


def read_table(flag: str, path: str) -> files.Columns:
  """The columns of a table that a flag names. Raises UserError where it cannot be read."""
  return files.read(files.kind_of(path), path, field=f"--{flag}")


def draw_hole(own) -> str:
  """Draws the strip log of a hole and says how many bins it has. Raises UserError."""
  log = applied.strip_log(read_table("classified", own.classified), own.hole, own.group_column, own.at_column,
                          own.label_column)
  drawn = modules.load_companion(EXPERIMENT, "figures_strip").png(log)
  with atomic.replacing(own.output) as fresh, open(fresh, "wb") as file:
    file.write(drawn)
  return f"strip log of {len(log.depth):,} bins of {own.hole} in {own.output}"


def asked_for(own) -> str:
  """Which of `NEEDS` the flags ask for. Raises UserError where it is none, or more than one, or not whole."""
  given = {name for names in NEEDS.values() for name in names if own[name].value}
  task = next((name for name, names in NEEDS.items() if given & set(names)), "")
  if not task or given != set(NEEDS[task]):
    raise UserError("allowed is one of " + "; ".join(" ".join(f"--{name}" for name in names)
                                                     for names in NEEDS.values()) + "; --help says what each does")
  if own.lithology and task != "gra":
    raise UserError(f"--lithology: got {own.lithology!r}, allowed with --gra")
  endings = (".png",) if task == "classified" else SUFFIXES
  if not own.output.lower().endswith(endings):
    raise UserError(f"--output: got {own.output!r}, allowed the path of a file {' '.join(endings)}")
  outputs.check_free("--output", own.output)
  return task


def work(log: commands.Log) -> None:
  """Does what the command line says. Raises UserError."""
  del log
  given = commands.parse(make_flags(), sys.argv, __doc__)
  own, said = given.flags, []
  task = asked_for(own)
  if task == "config":
    config, _ = commands.read_config(given, os.environ)
    count = command.write_config(EXPERIMENT, config, write_synthetic, own.output)
    return streams.answer(f"jaxtrain: {count} rows in {own.output}")
  try:
    if task == "classified":
      return streams.answer(f"jaxtrain: {draw_hole(own)}")
    if task == "gra":
      table, said = read_instruments(own)
    else:
      pair = applied.pair_embeddings(read_table("unsup", own.unsup), read_table("semisup", own.semisup))
      table = applied.as_arrays(pair, own.label_column) if own.output.lower().endswith(".npz") else pair
    writing.check(own.output, table)
    writing.write(own.output, table)
  except OSError as error:
    raise UserError(f"--output: cannot write {own.output!r}: {error.strerror or error}") from error
  rows = len(next(iter(table.values())))
  return streams.answer(*(f"jaxtrain: {line}" for line in said), f"jaxtrain: {rows:,} rows in {own.output}")


def main() -> int:
  """Runs the command and returns its exit code."""
  return commands.run(work)


if __name__ == "__main__":
  sys.exit(main())
