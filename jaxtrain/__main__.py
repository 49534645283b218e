"""Lists the commands, and the config files that are here with their variants."""

import glob
import os
import sys

from jaxtrain import commands, config as config_lib, streams

COMMANDS = {"main": "train a run, go on with it, evaluate it; check a config, list its fields",
            "predict": "apply a trained run to a file",
            "sweep": "train many runs that differ in some fields",
            "report": "write the pages of a run, or one page that compares several"}
FOLDER = "configs"


def describe(folder: str) -> str:
  """The commands, and the config files of a folder with their variants, a line each."""
  lines = ["Commands; --help lists the flags of each:"]
  lines += [f"  python -m jaxtrain.{name:<8} {words}" for name, words in COMMANDS.items()]
  paths = sorted(path for path in glob.glob(os.path.join(folder, "*.py")) if not os.path.basename(path).startswith("_"))
  lines.append("Configs for --config=FILE:variant; the first variant is the default:" if paths
               else f"No configs here: {folder}/ is part of a clone, from which commands are run.")
  lines += [f"  {path}: {', '.join(config_lib.list_variants(path))}" for path in paths]
  lines.append("Fields of a config, and what they mean: python -m jaxtrain.main --config=FILE:variant --mode=fields")
  return "\n".join(lines)


def work(log: commands.Log) -> None:
  """Does what the command line says. Raises UserError."""
  commands.parse(commands.new_flags(has_config=False), sys.argv, __doc__)
  streams.answer(describe(FOLDER))


def main() -> int:
  """Runs the command and returns its exit code."""
  return commands.run(work)


if __name__ == "__main__":
  sys.exit(main())
