"""The command: `python -m jaxtrain.main --config=FILE[:variant] [--workdir=DIR] [--mode=...] [--config.a.b=v ...]`.

Flags, process set-up and exit codes (INTERFACE); everything else is called from here and can be imported without it.
"""

import datetime
import difflib
import errno
import json
import keyword
import math
import os
import re
import sys
import traceback
from typing import Callable

from absl import app, flags, logging
from ml_collections import config_flags

from jaxtrain import errors
from jaxtrain.devices import backend, processes
from jaxtrain.errors import NonFinite, Stopped, UserError

MODES = ("train", "eval", "check", "inspect")
RESUME = ("auto", "never", "required")

read_argv: list[str] = []  # what ml_collections looks at for overrides; set by parse_flags
CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, FILE or FILE:variant.", lock_config=True,
                                         sys_argv=read_argv)
WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run; the same folder resumes. "
                              "Default: runs/<config>-<variant>-<UTC time>.")
MODE = flags.DEFINE_string("mode", "train", "train | eval | check | inspect")
RESUME_FLAG = flags.DEFINE_string("resume", "auto", "auto | never (refuse a folder that holds a run) | required")
INIT_FROM = flags.DEFINE_string("init_from", "",
                                "WORKDIR[@best|last|STEP]: start from the state of another run; or a file of weights.")
JSON = flags.DEFINE_bool("json", False, "Print inspect and check as JSON.")
COORDINATOR = flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0, where no launcher tells (ssh, loopback).")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "How many processes share this run; with --coordinator.")
PROCESS_ID = flags.DEFINE_integer("process_id", -1, "Which of them this one is, from 0; with --coordinator.")
DISTRIBUTED = flags.DEFINE_bool("distributed", None, "Let JAX find the other processes (TPU pods, Kubernetes); "
                                "Slurm and Open MPI need no flag, --nodistributed runs alone.")

own_overrides: dict = {}  # fields that ml_collections cannot set: tuples of names, and paths with a word of Python
run_folder: list[str] = []  # of the run under way, for the traceback of a failure


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the command line. Raises UserError, in one line, for whatever does not fit."""
  if any(argument.lstrip("-") in ("help", "helpfull", "helpshort", "h") for argument in argv[1:]):
    return flags.FLAGS(argv)
  from jaxtrain import config as config_lib
  argument = typed(argv, "config")
  own = not argument and typed(argv, "mode") in ("eval", "inspect")
  config = config_lib.common() if own else config_lib.read_file(argument)  # the run's own config will do
  plain = []
  for argument in argv:
    field = re.match(r"--?(?:no)?config\.([\w.]+)(?:=(.*))?$", argument, re.DOTALL)
    if field:
      key, text = field.groups()
      if own:
        raise UserError(f"--config: required with --config.{key}")
      config_lib.check_field(config, key)
      old = config_lib.lookup(config, key)
      if text is not None and (isinstance(old, tuple) or any(keyword.iskeyword(part) for part in key.split("."))):
        # ml_collections reads a field's path as Python and stumbles over loss.weights.class, and a tuple as Python too
        own_overrides[key] = config_lib.parse_like(old, text, f"--config.{key}")
        continue
    plain.append(argument)
  # ml_collections wants the file before its overrides; people put it where they like
  read_argv[:] = sorted(plain, key=lambda argument: not argument.startswith(("--config=", "-config=")))
  read_argv.insert(0, read_argv.pop(read_argv.index(argv[0])))
  try:
    rest = flags.FLAGS(read_argv)
  except flags.UnrecognizedFlagError as error:
    close = difflib.get_close_matches(error.flagname, list(flags.FLAGS), n=1)
    if error.flagname.startswith("conf") and "." in error.flagname:
      close = ["config." + error.flagname.split(".", 1)[1]]
    raise UserError(f"--{error.flagname}: no such flag{f'; did you mean --{close[0]}?' if close else ''}") from None
  except (flags.Error, TypeError, ValueError, SyntaxError) as error:
    wrong = re.search(r"--config\.([\w.]+)=(.*?): ", str(error) + " ")
    if not wrong:
      raise UserError(" ".join(str(error).split())) from None
    wanted = type(config_lib.lookup(config, wrong.group(1))).__name__
    raise UserError(f"--config.{wrong.group(1)}: got {wrong.group(2)!r}, allowed a value of type {wanted}") from None
  if len(rest) > 1:
    hint = f"; did you mean --config.{rest[1].removeprefix('config.')}?" if "=" in rest[1] else ""
    raise UserError(f"argument {rest[1]!r} is left over{hint}")
  return rest


def typed(argv: list[str], name: str) -> str:
  """The value of a flag as typed; empty where there is none."""
  for i, argument in enumerate(argv):
    if argument.startswith((f"--{name}=", f"-{name}=")):
      return argument.split("=", 1)[1]
    if argument in (f"--{name}", f"-{name}") and i + 1 < len(argv):
      return argv[i + 1]
  return ""


def read_config(environ) -> tuple:
  """The config with the environment's overrides under the flags', and where each changed value came from."""
  from jaxtrain import config as config_lib
  config = CONFIG.value
  for key, value in own_overrides.items():
    config_lib.assign(config, key, value)
  from_flags = {key: "flag" for key in [*config_flags.get_override_values(flags.FLAGS["config"]), *own_overrides]}
  overrides = {k: v for k, v in config_lib.from_environment(config, environ).items() if k not in from_flags}
  for key, value in overrides.items():
    config_lib.assign(config, key, value)
  origins = {key: "environment" for key in overrides} | from_flags
  for key, value in config_lib.cleared(origins).items():
    config_lib.assign(config, key, value)
  return config, origins


def config_argument() -> str:
  """--config as typed: FILE or FILE:variant."""
  return config_flags.get_config_filename(flags.FLAGS["config"])


def default_workdir(*before: str) -> str:
  """runs/<config>-<variant>-<UTC time>, with words before."""
  path, _, variant = config_argument().partition(":")
  name = os.path.splitext(os.path.basename(path))[0]
  now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S")
  return os.path.join("runs", "-".join([*before, name, variant or "default", now]))


def draw(workdir: str, moment: str) -> None:
  """Figures and report of a run folder; imported here because matplotlib is slow to import.

  Raises:
    UserError: `log.families` names a figure family that there is not.
  """
  from jaxtrain.errors import UserError
  from jaxtrain.report import run_page
  try:
    run_page.write_run(workdir, moment)
  except UserError as error:
    raise UserError(str(error)) from None


def check_families(config) -> None:
  """Refuses an unknown figure family before anything is trained. Raises UserError."""
  if config.log.families:
    from jaxtrain import config as config_lib
    from jaxtrain.errors import UserError
    from jaxtrain.report import figures
    try:
      figures.select(config_lib.to_record(config), "end")
    except UserError as error:
      raise UserError(str(error)) from None


def run_mode() -> None:
  """Does what --mode says. Raises UserError and the loop's exceptions."""
  if MODE.value not in MODES:
    raise UserError(f"--mode: got {MODE.value!r}, allowed {' | '.join(MODES)}")
  if RESUME_FLAG.value not in RESUME:
    raise UserError(f"--resume: got {RESUME_FLAG.value!r}, allowed {' | '.join(RESUME)}")
  if MODE.value in ("eval", "inspect") and not WORKDIR.value:
    raise UserError(f"--workdir: required with --mode={MODE.value}")
  logging.set_verbosity(logging.WARNING)  # JAX tells at INFO of every platform that is not there
  if MODE.value == "inspect":
    from jaxtrain.run import inspect
    return show(inspect.inspect(WORKDIR.value))
  config, origins = read_config(os.environ) if CONFIG.value is not None else (None, {})
  if config is not None:
    check_families(config)
  backend.set_up_process()
  from jaxtrain import loop
  if MODE.value == "check":
    return show(loop.check(config))
  if MODE.value == "train":
    join_processes(config)
  workdir = WORKDIR.value or default_workdir()
  if MODE.value == "eval":
    run_folder[:] = [workdir]
    loop.evaluate(config, workdir, INIT_FROM.value or None)
  else:
    run_folder[:] = [workdir] if processes.is_first() else []
    loop.train(config, workdir, resume=RESUME_FLAG.value, init_from=INIT_FROM.value or None, origins=origins, draw=draw)
  if processes.is_first():
    draw(workdir, "end")
    print(f"jaxtrain: report: {os.path.join(workdir, 'report.html')}", flush=True)


def join_processes(config) -> None:
  """Makes this process one of several, where it was started as that. Raises UserError."""
  processes.start(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, DISTRIBUTED.value)
  if processes.joined:
    from jaxtrain.devices import backend
    backend.start_devices(config.parallel, math.inf)  # now: the processes talk through their devices
    if processes.several() and not WORKDIR.value:
      raise UserError("--workdir: required with several processes, which must agree on it")


def show(described: dict) -> None:
  """Prints a description as `key: value` lines, or as JSON."""
  if JSON.value:
    print(json.dumps(described))
  else:
    for key, value in described.items():
      print(f"{key}: {value}")


def main() -> int:
  """Runs the command and returns its exit code; one of several processes that fails ends here."""
  code = run_command(run_mode)
  if code not in (errors.DONE, errors.REQUEUE):
    processes.leave(code)
  return code


def run_command(do: Callable[[], None]) -> int:
  """Parses the flags, does what a command does, and returns the exit code for what it raises."""
  try:
    app.run(lambda _: do(), flags_parser=parse_flags)
  except UserError as error:
    return complain(str(error), errors.USAGE)
  except Stopped as stopped:
    return complain(str(stopped), errors.REQUEUE) if processes.is_first() else errors.REQUEUE
  except NonFinite as error:
    return complain(str(error), errors.NONFINITE)
  except OSError as error:
    where = "" if error.errno in (errno.ENOSPC, errno.EDQUOT) else keep_traceback()
    file = f": {error.filename}" if error.filename else ""
    return complain(f"{error.strerror or error}{file}{where}", errors.FAILED)
  except SystemExit as leaving:
    return leaving.code if isinstance(leaving.code, int) else errors.DONE if leaving.code is None else errors.FAILED
  except Exception as error:
    reason = str(error).splitlines()[0] if str(error) else ""
    if processes.is_broken(error):
      return complain(f"lost another process: {reason}", errors.FAILED)
    return complain(f"{type(error).__name__}: {reason}{keep_traceback()}", errors.FAILED)
  return errors.DONE


def keep_traceback() -> str:
  """Adds the traceback to the run's log.txt, or prints it where that cannot be; returns a hint for the user."""
  failure = traceback.format_exc()
  try:
    os.makedirs(run_folder[0], exist_ok=True)
    path = os.path.join(run_folder[0], "log.txt")
    with open(path, "a", encoding="utf-8") as log:
      log.write(failure)
    return f" (traceback in {path})"
  except (IndexError, OSError):
    print(failure, file=sys.stderr)
    return ""


def complain(message: str, code: int) -> int:
  """Prints a message for the user on stderr and passes on the exit code."""
  print("\n".join(f"jaxtrain: {line}" for line in message.splitlines()[:4]), file=sys.stderr, flush=True)
  return code


if __name__ == "__main__":
  sys.exit(main())
