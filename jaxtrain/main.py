"""The command: `python -m jaxtrain.main --config=FILE[:variant] [--workdir=DIR] [--mode=...] [--config.a.b=v ...]`.

Trains a run, or goes on with it; --mode=eval assesses it again, check traces a config, and inspect describes a run.
"""

import json
import math
import os
import sys

from absl import flags

from jaxtrain import commands, errors, notebook, streams
from jaxtrain.commands import Given, Log
from jaxtrain.devices import backend, processes
from jaxtrain.errors import LostProcess, Stopped, Told, UserError
from jaxtrain.notebook import check_families, draw

MODES = ("train", "eval", "check", "inspect")
RESUME = ("auto", "never", "required")


def make_flags() -> flags.FlagValues:
  """The flags of this command."""
  own = commands.new_flags(has_config=True)
  flags.DEFINE_string("workdir", "", "Folder of the run; the same folder resumes. "
                      "Default: runs/<config>-<variant>-<UTC time>.", flag_values=own)
  flags.DEFINE_string("mode", "train", f"{' | '.join(MODES)}.", flag_values=own)
  flags.DEFINE_string("resume", "auto", "auto | never (refuse a folder that holds a run) | required.", flag_values=own)
  flags.DEFINE_string("init_from", "", "WORKDIR[@best|last|STEP]: start from the state of another run; or a file of "
                      "weights.", flag_values=own)
  flags.DEFINE_bool("json", False, "Print inspect and check as JSON.", flag_values=own)
  flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0, where no launcher tells (ssh, loopback).",
                      flag_values=own)
  flags.DEFINE_integer("num_processes", 0, "How many processes share this run; with --coordinator.", flag_values=own)
  flags.DEFINE_integer("process_id", -1, "Which of them this one is, from 0; with --coordinator.", flag_values=own)
  flags.DEFINE_bool("distributed", None, "Let JAX find the other processes (TPU pods, Kubernetes); Slurm and Open MPI "
                    "need no flag, --nodistributed runs alone.", flag_values=own)
  return own


def read_config(given: Given) -> tuple:
  """(config, origins) of the command line; (None, {}) where the run's own config will do. Raises UserError."""
  if given.flags.config or given.flags.mode not in ("eval", "inspect"):
    return commands.read_config(given, os.environ)
  if given.fields:
    raise UserError(f"--config: required with --config.{next(iter(given.fields))}")
  return None, {}


def run_mode(given: Given, log: Log) -> None:
  """Does what --mode says. Raises UserError and the loop's exceptions."""
  mode, workdir = given.flags.mode, given.flags.workdir
  for name, allowed in (("mode", MODES), ("resume", RESUME)):
    if given.flags[name].value not in allowed:
      raise UserError(f"--{name}: got {given.flags[name].value!r}, allowed {' | '.join(allowed)}")
  if mode in ("eval", "inspect") and not workdir:
    raise UserError(f"--workdir: required with --mode={mode}")
  config, origins = read_config(given)
  if mode == "inspect":
    from jaxtrain.run import inspect
    return show(inspect.inspect(workdir), given.flags.json)
  if config is not None:
    check_families(config)
  backend.set_up_process()
  from jaxtrain import loop
  if mode == "check":
    return show(loop.check(config), given.flags.json)
  if mode == "train":
    join_processes(config, given.flags)
  workdir = workdir or commands.default_workdir(given.flags.config)
  log.folder = workdir if processes.is_first() else ""
  if mode == "eval":
    loop.evaluate(config, workdir, given.flags.init_from or None, draw)
  else:
    notebook.train_whole(config, workdir, draw, resume=given.flags.resume, init_from=given.flags.init_from or None,
                         origins=origins)
  if processes.is_first():
    notebook.say_report(workdir)


def join_processes(config, own: flags.FlagValues) -> None:
  """Makes this process one of several, where it was started as that. Raises UserError."""
  processes.start(own.coordinator, own.num_processes, own.process_id, own.distributed)
  if processes.joined:
    backend.start_devices(config.parallel, math.inf)  # now: the processes talk through their devices
    if processes.several() and not own.workdir:
      raise UserError("--workdir: required with several processes, which must agree on it")


def show(described: dict, as_json: bool) -> None:
  """Prints a description as `key: value` lines, or as JSON."""
  if as_json:
    streams.answer(json.dumps(described))
  else:
    streams.answer(*(f"{key}: {value}" for key, value in described.items()))


def work(log: Log) -> None:
  """Does what the command line says, and says what an error means where several processes share the run."""
  try:
    run_mode(commands.parse(make_flags(), sys.argv, __doc__), log)
  except Stopped:
    if processes.is_first():
      raise
    raise SystemExit(errors.REQUEUE) from None  # process 0 says it for all
  except (Told, OSError):
    raise
  except Exception as error:
    if processes.is_broken(error):
      raise LostProcess(f"lost another process: {errors.reason(error)}") from error
    raise


def main() -> int:
  """Runs the command and returns its exit code; one of several processes that fails ends here."""
  code = commands.run(work)
  if code not in (errors.DONE, errors.REQUEUE):
    processes.leave(code)
  return code


if __name__ == "__main__":
  sys.exit(main())
