"""What all commands share: how flags are parsed, how a complaint is printed, and how a command ends.

  def main() -> int:
    return commands.run(lambda log: work(commands.parse(make_flags(), sys.argv, __doc__), log))

Each command defines flags of its own (`new_flags`), so that several commands can be imported into one process.
"""

import contextlib
import datetime
import errno
import faulthandler
import io
import os
import re
import sys
import textwrap
import threading
import traceback
from typing import Any, Callable, NamedTuple, Sequence

from absl import flags as absl_flags, logging

from jaxtrain import config as config_lib, errors, jsonable, spelling, streams
from jaxtrain.errors import Told, UserError
from jaxtrain.workdir import atomic, journal, jsonfile, records, schema

OUTCOME_VARIABLE = "JAXTRAIN_OUTCOME"  # names the file in which a command leaves its Outcome, for whoever started it
MAX_LINES = 4  # of a complaint
running = False  # whether this process is a command; where Python calls, the process is not ours to end
streams.hold_open()  # at once: a file opened later must not get the number of a stream that is closed
HELP = ("--help", "-help", "-h")
FIELD = re.compile(r"--?config[.\[]([^=]+)(?:=(.*))?|--?noconfig\.([\w.]+)", re.DOTALL)
FLAG = re.compile(r"--?([A-Za-z][^=]*)", re.DOTALL)


class Given(NamedTuple):
  """A command line, taken apart.

  Attributes:
    flags: the command's flags with their values.
    fields: dotted field of the config -> the text after --config.FIELD=; True for --config.FIELD alone, and False for
      --noconfig.FIELD.
    arguments: what is no flag, for commands that take such.
  """
  flags: absl_flags.FlagValues
  fields: dict[str, str | bool]
  arguments: list[str]


class Outcome(NamedTuple):
  """How a command has ended: its exit code, the name of the exception's class, and what it said, in one line."""
  code: int
  kind: str
  reason: str


class Log:
  """Where the traceback of a failure that nobody foresaw is kept.

  Attributes:
    folder: of the run under way; a command sets it as soon as it knows it. Without it a traceback is printed.
  """

  def __init__(self):
    self.folder = ""

  def keep_traceback(self, error: BaseException) -> str:
    """Adds an exception's traceback to the folder's log.txt, or prints it; returns where to find it."""
    failure = "".join(traceback.format_exception(error))
    try:
      path = self.append(failure) if self.folder else ""
    except (OSError, UserError):  # the folder is gone, the disk full, or a link lies there
      path = ""
    if not path:
      streams.say(failure, error=True)
    return f" (traceback in {path})" if path else ""

  def append(self, text: str) -> str:
    """Adds text to the folder's log.txt and returns its path."""
    os.makedirs(self.folder, exist_ok=True)
    path = os.path.join(self.folder, "log.txt")
    with atomic.open_own(path, "a", encoding="utf-8", errors="backslashreplace") as log:
      log.write(text)
    return path


def new_flags(has_config: bool) -> absl_flags.FlagValues:
  """An empty set of flags for one command, with --config where it reads a config file."""
  own = absl_flags.FlagValues()
  own.set_gnu_getopt(True)  # flags may follow arguments
  if has_config:
    absl_flags.DEFINE_string("config", "", "Config file, FILE or FILE:variant; --config.FIELD=VALUE sets a field.",
                             flag_values=own)
  return own


def parse(own: absl_flags.FlagValues, argv: Sequence[str], about: str, takes_arguments: bool = False) -> Given:
  """Parses a command line; prints the help and exits where that is asked for.

  Args:
    own: the command's flags; they take the values.
    argv: the command line with the program's name, as in `sys.argv`.
    about: what the command does, for --help.
    takes_arguments: whether there may be arguments that are no flags.

  Raises:
    UserError: an unknown flag (with a suggestion), a value of another type, an empty --workdir, or an argument that is
      left over.
  """
  if any(argument in HELP for argument in argv[1:]):
    streams.answer(about.strip(), "", *(flag_line(name, own) for name in sorted(own)), "--help: print this.")
    raise SystemExit(errors.DONE)
  try:
    rest = own(argv, known_only=True)[1:]
  except (absl_flags.Error, TypeError, ValueError) as error:
    raise UserError(" ".join(str(error).split())) from None
  if "workdir" in own and own["workdir"].present and not own["workdir"].value:
    raise UserError("--workdir: got '', allowed the path of a folder")
  given = Given(own, *separate(rest, own))
  if given.arguments and not takes_arguments:
    left = given.arguments[0]
    name, is_set, value = left.removeprefix("config.").partition("=")
    near = (config_lib.nearest(name, known_fields(own)) or name) if "config" in own else ""
    hint = f"; did you mean --config.{near}={value}?" if near and is_set else ""
    raise UserError(f"argument {left!r} is left over{hint}")
  return given


def flag_line(name: str, own: absl_flags.FlagValues) -> str:
  """What --help says of a flag."""
  flag = own[name]
  text = f"--{'[no]' * flag.boolean}{name}: {flag.help}{f' Default: {flag.default}.' if flag.default else ''}"
  return "\n".join(textwrap.wrap(text, 110, subsequent_indent="    ", break_on_hyphens=False))


def separate(rest: list[str], own: absl_flags.FlagValues) -> tuple[dict[str, str | bool], list[str]]:
  """(fields, arguments) of what absl has left of a command line. Raises UserError for a flag that there is not."""
  fields, arguments, rest = {}, [], list(rest)
  while rest:
    argument = rest.pop(0)
    field, flag = FIELD.fullmatch(argument), FLAG.match(argument)
    if argument == "--":
      return fields, arguments + rest
    if field and "config" in own:
      key, text, negated = field.groups()
      if key and text is None and rest and not FLAG.match(rest[0]):  # --config.FIELD VALUE
        text = rest.pop(0)
      fields[key or negated] = not negated if text is None else text
    elif flag:
      raise UserError(f"--{flag[1]}: no such flag{suggestion(flag[1], own)}")
    else:
      arguments.append(argument)
  return fields, arguments


def suggestion(name: str, own: absl_flags.FlagValues) -> str:
  """Words that suggest the field of the config or the flag that a name stands for; empty where none is near."""
  if "config" in own:
    field, known = re.sub(r"^conf[^.]*\.", "", name), known_fields(own)
    if near := config_lib.nearest(field, known):
      return f"; did you mean --config.{near}?"
  close = spelling.near(name, own)
  if not close and "config" in own and (near := spelling.near(field, known)):
    close = f"config.{near}"
  return f"; did you mean --{close}?" if close else ""


def known_fields(own: absl_flags.FlagValues) -> list[str]:
  """Dotted keys of the config that a command line names; those that all have where it names none that can be read."""
  config = config_lib.common()
  config.data = config_lib.tables()
  with contextlib.suppress(UserError):
    config = config_lib.read_file(own["config"].value)
  return [key for key, _ in jsonable.flatten(config)]


def read_config(given: Given, environ) -> tuple[Any, dict[str, str]]:
  """(config, origins): the config file with the environment's values, and over them those of the command line.

  Raises:
    UserError: no such file or variant, no such field, or a value of another type.
  """
  return overlaid(config_lib.read_file(given.flags.config), given.fields, environ)


def read_run(given: Given, environ) -> tuple[Any, dict[str, str]]:
  """The same of the run in --workdir, whose folder knows its config and where its values came from.

  Raises:
    UserError: the folder holds no run, or one whose experiment may not be imported; and as `read_config`.
  """
  workdir = given.flags.workdir
  if journal.is_sweep(workdir):
    raise UserError(f"--workdir: {workdir!r} is the folder of a sweep; its members are in runs/")
  record = records.read_config(workdir)
  if record is None:
    raise UserError(spelling.then(f"--workdir: {spelling.no_run(workdir)}", "for a new run --config: required, such as "
                                  "--config=configs/vae.py"))
  config, origins = overlaid(config_lib.from_workdir(record, workdir), given.fields, environ)
  before = record["origins"] if "origins" in record else {}
  return config, {key: origin for key, origin in before.items() if isinstance(origin, str)} | origins


def overlaid(config, typed: dict[str, str | bool], environ) -> tuple[Any, dict[str, str]]:
  """(config, origins) with the environment's values and over them those that were typed. Raises UserError."""
  values = {}
  for key, text in typed.items():
    config_lib.check_field(config, key)
    values[key] = field_value(key, config_lib.lookup(config, key), text)
  return override(config, values, "flag", environ)


def override(config: Any, values: dict[str, Any], origin: str, environ) -> tuple[Any, dict[str, str]]:
  """(config, origins): the config, which is changed and locked, with the environment's values, and over them others.

  Args:
    values: by dotted key.
    origin: where these came from, for the record: `flag` or `python`.
    environ: variables of the environment.

  Returns:
    `origins` says of each field that the config did not set itself where its value came from.

  Raises:
    UserError: no such field, or a value of another type.
  """
  for key, value in values.items():
    config_lib.assign(config, key, value)
  given = dict.fromkeys(values, origin)
  overrides = {key: value for key, value in config_lib.from_environment(config, environ).items() if key not in given}
  origins = dict.fromkeys(overrides, "environment") | given
  for key, value in (overrides | config_lib.cleared(origins)).items():
    config_lib.assign(config, key, value)
  return config.lock(), origins


def field_value(key: str, old: Any, text: str | bool) -> Any:
  """The value of --config.KEY as typed, of the type that the field has. Raises UserError."""
  if not isinstance(text, bool):
    return config_lib.parse_like(old, text, f"--config.{key}")
  if not isinstance(old, bool):
    raise UserError(f"--config.{key}: got no value, allowed a value of type {type(old).__name__}")
  return text


def default_workdir(config: str, *before: str) -> str:
  """runs/<config>-<variant>-<UTC time> for --config as typed, with words before."""
  path, _, variant = config.partition(":")
  name = os.path.splitext(os.path.basename(path))[0]
  now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
  return os.path.join("runs", "-".join([*before, name, variant or "default", now]))


def run(do: Callable[[Log], None]) -> int:
  """Does what a command does, tells the user what it raises, and returns the exit code for it."""
  global running
  log, outcome = Log(), Outcome(errors.DONE, "", "")
  set_up_process(log)
  running = True
  try:
    do(log)
  except SystemExit as leaving:
    code = leaving.code if isinstance(leaving.code, int) else errors.DONE if leaving.code is None else errors.FAILED
    outcome = Outcome(code, "", "")
  except Exception as error:
    outcome = tell(error, log)
  finally:
    running = False
  write_outcome(outcome, os.environ)
  streams.flush()
  return outcome.code


def set_up_process(log: Log) -> None:
  """Settings that belong to the process: libraries say warnings alone, a crash shows where it happened, a thread that
  fails says so in one line, and a name that is no text, such as a path's, is printed with escapes.
  """
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors="backslashreplace")
  set_up_libraries()
  logging.use_absl_handler()
  if not faulthandler.is_enabled():
    faulthandler.enable(2)
  threading.excepthook = lambda failed: tell_of_thread(failed, log)


def set_up_libraries() -> None:
  """Settings of libraries that hold in a command and in Python alike."""
  absl_flags.FLAGS.mark_as_parsed()  # grain reads flags of its own there
  logging.set_verbosity(logging.WARNING)  # JAX tells at INFO of every platform that is not there


def tell_of_thread(failed: threading.ExceptHookArgs, log: Log) -> None:
  """Prints what a thread has failed of; orbax's own raise it again where they are waited for."""
  if isinstance(failed.exc_value, Exception) and not type(failed.thread).__module__.startswith("orbax."):
    name = failed.thread.name if failed.thread else "?"
    complain(f"thread {name}: {type(failed.exc_value).__name__}: {errors.reason(failed.exc_value)}"
             + log.keep_traceback(failed.exc_value))


def tell(error: Exception, log: Log) -> Outcome:
  """Prints what the user must know of an error that ends a command."""
  kind = type(error).__name__
  if isinstance(error, Told):
    complain(str(error))
    return Outcome(error.code, kind, errors.reason(error))
  if isinstance(error, OSError):
    reason = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    foreseen = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason += f": {log.folder}" if foreseen and not error.filename and log.folder else ""
  else:
    reason = f"{kind}: {errors.reason(error) if str(error).strip() else ''}"
    foreseen = False
  complain(reason if foreseen else reason + log.keep_traceback(error))
  return Outcome(errors.FAILED, kind, reason)


def complain(message: str) -> None:
  """Prints a message for the user on stderr."""
  streams.say(*(f"jaxtrain: {line}" for line in message.splitlines()[:MAX_LINES]), error=True)


def write_outcome(outcome: Outcome, environ) -> None:
  """Leaves the outcome as JSON where the process that started this one asked for it."""
  if OUTCOME_VARIABLE in environ:
    try:
      jsonfile.write_json(environ[OUTCOME_VARIABLE], outcome._asdict())
    except OSError as error:
      complain(f"{OUTCOME_VARIABLE}: cannot write {environ[OUTCOME_VARIABLE]!r}: {error.strerror}")


def read_outcome(path: str) -> Outcome | None:
  """The outcome that a command has left in a file; None where it was killed before it could.

  Raises UserError for a file that holds none.
  """
  found = jsonfile.read_object(path, schema.OUTCOME)
  return None if found is None else Outcome(**found)
