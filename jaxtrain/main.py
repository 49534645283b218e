"""Trains a model as a config file says, goes on with a training, and says what there is to know of either.

Train, each run in a folder of its own; any field of the config is a flag:
  python -m jaxtrain.main --config=configs/vae.py:csv --config.data.path=table.csv --config.data.features=a,b \\
      --config.data.split.kind=random
  python -m jaxtrain.main --config=configs/vae.py --workdir=runs/a --config.optim.learning_rate=3e-4

Look before training, which writes nothing:
  python -m jaxtrain.main --config=configs/vae.py --mode=fields                  every field, what it means and allows
  python -m jaxtrain.main --config=configs/vae.py --mode=fields --fields=optim   those that begin so
  python -m jaxtrain.main --config=configs/vae.py --mode=check                   your data; size and time of a run

Go on with a run that was stopped, or make it longer; its folder knows its config:
  python -m jaxtrain.main --workdir=runs/a
  python -m jaxtrain.main --workdir=runs/a --config.train.num_epochs=150

Look at a run:
  python -m jaxtrain.main --workdir=runs/a --mode=inspect                        steps, best value, digest
  python -m jaxtrain.main --workdir=runs/a --mode=fields                         the config that it was trained with
  python -m jaxtrain.main --workdir=runs/a --mode=eval                           evaluate it and draw its report again
"""

import contextlib
import json
import math
import os
import shlex
import shutil
import sys
from typing import Any

import numpy as np
from absl import flags

from jaxtrain import commands, config as config_lib, errors, notebook, streams
from jaxtrain.commands import Given, Log
from jaxtrain.devices import backend, processes
from jaxtrain.errors import LostProcess, Stopped, Told, UserError
from jaxtrain.workdir import jsonfile, kept, records, schema

MODES = ("train", "eval", "check", "inspect", "fields")
OF_RUNS = ("eval", "inspect")  # modes that need a run
OF_KEPT = ("inspect", "fields")  # modes that only read it
RESUME = ("auto", "never", "required")
WIDTH = 120  # columns of a listing that goes to no terminal


def make_flags() -> flags.FlagValues:
  """The flags of this command."""
  own = commands.new_flags(has_config=True)
  flags.DEFINE_string("workdir", "", "Folder of the run. A folder that holds a run goes on with it, also without "
                      "--config. Default: runs/<config>-<variant>-<UTC time>.", flag_values=own)
  flags.DEFINE_string("mode", "train", "train | eval (evaluate a run again) | check (a config, before training) | "
                      "inspect (a run) | fields (list them).", flag_values=own)
  flags.DEFINE_string("fields", "", "With --mode=fields: list those that begin so, such as optim or "
                      "train.num.", flag_values=own)
  flags.DEFINE_string("resume", "auto", "What to do with a folder that holds a run: auto (go on) | never (refuse it) | "
                      "required (refuse a folder that holds none).", flag_values=own)
  flags.DEFINE_string("init_from", "", "WORKDIR[@best|last|STEP]: start from the state of another run; or a file of "
                      "weights.", flag_values=own)
  flags.DEFINE_bool("json", False, "Print inspect, check and fields as JSON.", flag_values=own)
  flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0, where no launcher tells (ssh, loopback).",
                      flag_values=own)
  flags.DEFINE_integer("num_processes", 0, "How many processes share this run; with --coordinator.", flag_values=own)
  flags.DEFINE_integer("process_id", -1, "Which of them this one is, from 0; with --coordinator.", flag_values=own)
  flags.DEFINE_bool("distributed", None, "Let JAX find the other processes (TPU pods, Kubernetes); Slurm and Open MPI "
                    "need no flag, --nodistributed runs alone.", flag_values=own)
  return own


def trusted(given: Given, workdir: str):
  """Context in which files are read: where the run is known from its folder alone, they may not fit together."""
  return contextlib.nullcontext() if given.flags.config else config_lib.must_fit(workdir)


def guarded(given: Given):
  """Context in which code is imported: where the run is known from its folder alone, what its config names is imported
  only if it is part of jaxtrain, or typed too.
  """
  if given.flags.config or not given.flags.workdir:
    return contextlib.nullcontext()
  typed = [text for text in given.fields.values() if isinstance(text, str)]
  names = {name for text in typed for name in (text, *config_lib.parse_like((), text, "--config"))}
  return config_lib.strangers(given.flags.workdir, [name for name in names if isinstance(name, str)])


def read_config(given: Given) -> tuple:
  """(config, origins) of the command line; (None, {}) where the run's own config will do. Raises UserError."""
  own = given.flags
  if own.config or not own.workdir:
    return commands.read_config(given, os.environ)
  if own.mode == "inspect" and given.fields:
    raise UserError(f"--config.{next(iter(given.fields))}: allowed nothing with --mode=inspect, which describes a run "
                    "as it is")
  if own.mode in OF_RUNS and not given.fields:
    return None, {}
  if own.mode == "train" and (whole := records.whole_run(own.workdir)):
    raise UserError(f"--workdir: {own.workdir!r} is a stage of the run in {whole!r}; --workdir={whole} goes on with "
                    "all of its stages")
  return commands.read_run(given, os.environ)


def list_fields(config, origins: dict[str, str], own: flags.FlagValues) -> None:
  """Prints the fields of a config, of the config file or of the run that the flags name. Raises UserError."""
  from jaxtrain.config import listing, meanings
  if own.config:
    said, home = meanings.of_file(own.config.partition(":")[0]), "file"
  else:
    made = jsonfile.read_object(os.path.join(own.workdir, "run.json"), schema.MADE) or {}
    said, home = meanings.of_run(made), "run"
  described = listing.select(listing.describe(config, origins, said, home), own.fields)
  if own.json:
    streams.answer(json.dumps(listing.as_json(described)))
  else:
    streams.answer(*listing.as_lines(described, shutil.get_terminal_size((WIDTH, 0)).columns))
    if not own.fields:
      streams.say("jaxtrain: --fields=optim lists those of a section alone, --fields=train.num those that begin so",
                  error=True)


def check_flags(own: flags.FlagValues) -> None:
  """Raises UserError for a flag whose value is not allowed, or that is missing."""
  for name, allowed in (("mode", MODES), ("resume", RESUME)):
    if own[name].value not in allowed:
      raise UserError(f"--{name}: got {own[name].value!r}, allowed {' | '.join(allowed)}")
  if own.mode in OF_RUNS and not own.workdir:
    raise UserError(f"--workdir: required with --mode={own.mode}")
  if kept.is_kept(own.workdir):
    if own.mode not in OF_KEPT:
      raise UserError(f"--workdir: {own.workdir!r} is read only, allowed with --mode={' | '.join(OF_KEPT)}; "
                      f"--init_from={own.workdir} starts a run of your own from it")
    own["workdir"].value = kept.folder_of(own.workdir)
  if own.fields and own.mode != "fields":
    raise UserError(f"--fields: got {own.fields!r}, allowed nothing without --mode=fields")


def run_mode(given: Given, log: Log) -> None:
  """Does what --mode says. Raises UserError and the loop's exceptions."""
  own = given.flags
  check_flags(own)
  with guarded(given):
    with trusted(given, own.workdir):
      config, origins = read_config(given)
      if own.mode == "fields":
        return list_fields(config, origins, own)
      if config is not None:
        notebook.check_families(config)
    if own.mode == "inspect":
      from jaxtrain.run import inspect
      return show(inspect.inspect(own.workdir), own.json)
    backend.set_up_process()
    if own.mode == "check":
      from jaxtrain.run import check
      with trusted(given, own.workdir):
        described = check.describe(config)
      return show(described, True) if own.json else streams.answer(*check.lines(described))
    work_on(given, config, origins, log)


def work_on(given: Given, config, origins: dict[str, str], log: Log) -> None:
  """Trains or evaluates a run, and draws its page. Raises UserError and the loop's exceptions."""
  own = given.flags
  if own.mode == "train":
    notebook.say_start(config)
  from jaxtrain import loop
  from jaxtrain.config import meanings
  noted = meanings.of_config(own.config)
  if own.mode == "train":
    join_processes(config, own)
  workdir = own.workdir or commands.default_workdir(own.config)
  log.folder = workdir if processes.is_first() else ""
  if own.mode == "eval":
    loop.evaluate(config, workdir, own.init_from or None, notebook.draw, noted)
  else:
    result = notebook.train_whole(config, workdir, trusted(given, workdir), resume=own.resume,
                                  init_from=own.init_from or None, origins=origins, meanings=noted)
  if processes.is_first():
    notebook.say_report(workdir)
    if own.mode == "train" and config.log.progress:
      say_next(workdir, result.verbs)


def say_next(workdir: str, verbs: dict[str, Any]) -> None:
  """What can be done with a run now; on standard error, since it is no result."""
  name = next((name for name in verbs if verbs[name].reads), next(iter(verbs), ""))
  if name:
    rows = "--input=FILE.csv" if verbs[name].reads else "--num=100"
    others = f" ({', '.join(other for other in verbs if other != name)} too)" * (len(verbs) > 1)
    streams.say(f"jaxtrain: next: python -m jaxtrain.predict --workdir={shlex.quote(workdir)} --verb={name} {rows} "
                f"--output=OUT.csv{others}; in Python run = jaxtrain.load({workdir!r})", error=True)


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
    streams.answer(*(f"{key}: {shortest(value)}" for key, value in described.items()))


def shortest(value: Any) -> Any:
  """A number with ten digits, of one of 32 bits those that it has; any other value as it is."""
  if not isinstance(value, float):
    return value
  with np.errstate(over="ignore"):
    single = np.float32(value)
  return float(str(single)) if float(single) == value else float(f"{value:.10g}")


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
