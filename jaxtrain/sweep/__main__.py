"""Trains many runs that differ in some fields, and writes a page that compares them, with intervals over seeds.

Values of one or several fields; several make a grid:
  python -m jaxtrain.sweep --config=configs/vae.py:digits --sweep='seed=0..9' --workdir=runs/seeds
  python -m jaxtrain.sweep --config=configs/vae.py:digits --sweep='optim.learning_rate=1e-3,3e-4' --sweep='seed=0..4'
  python -m jaxtrain.sweep --config=configs/vae.py --name=beta                  a sweep that the config file keeps

Go on with a sweep, or add members: the same command, with more values or as it was:
  python -m jaxtrain.sweep --config=configs/vae.py:digits --sweep='seed=0..19' --workdir=runs/seeds

--config.FIELD=VALUE sets a field for all members. The launcher vmap trains members of equal shapes together as one
program, local starts a process for each on this machine, slurm a job for each on a cluster.
"""

import os
import sys
from typing import Any, Callable, NamedTuple

from absl import flags

from jaxtrain import commands, errors, streams
from jaxtrain.commands import Given, Log
from jaxtrain.errors import MembersFailed, Stopped, UserError
from jaxtrain.run import stops
from jaxtrain.workdir.lock import Lock

LAUNCHERS = ("vmap", "local", "slurm")
MODES = ("train", "check")


def make_flags() -> flags.FlagValues:
  """The flags of this command."""
  own = commands.new_flags(has_config=True)
  for name, default, words in (
      ("workdir", "", "Folder of the sweep; the same folder goes on. Default: runs/sweep-<config>-<variant>-<UTC "
                      "time>."),
      ("mode", "train", "train | check (list the members)."),
      ("name", "", "A sweep that the config file keeps: what its function sweep(NAME) returns."),
      ("launcher", "vmap", "vmap (one program) | local (a process each) | slurm."),
      ("slurm", "", "Parameters of Slurm as submitit has them, time=60,cpus_per_task=2,partition=...; time is 60 "
                    "minutes where nothing is said.")):
    flags.DEFINE_string(name, default, words, flag_values=own)
  for name, words in (
      ("jobs", "vmap: members at a time; local, slurm: processes at a time. 0 = what fits."),
      ("draw_seed", "Seed of draws and of the search."),
      ("trials", "Members that an adaptive search (Optuna) may try; 0 = all of --sweep.")):
    flags.DEFINE_integer(name, 0, words, flag_values=own)
  for name, words in (
      ("exact", "vmap: train members in turn on one device, each with the bits it has alone; slower."),
      ("retry_failed", "Train members again that have failed.")):
    flags.DEFINE_bool(name, False, words, flag_values=own)
  flags.DEFINE_multi_string("sweep", [], "FIELD=VALUES: 1e-3,3e-4 | 0..9 | linspace(a,b,n) | geomspace(a,b,n) | "
                            "uniform(a,b,n) | loguniform(a,b,n) | randint(a,b,n). May be given several times.",
                            flag_values=own)
  return own


class Asked(NamedTuple):
  """What a sweep is asked to do: its flags, the base config, where its values came from, its axes and settings."""
  flags: flags.FlagValues
  config: Any
  origins: dict[str, str]
  axes: list
  settings: list[dict]


def read_asked(given: Given) -> Asked:
  """What the command line asks for. Raises UserError for whatever does not fit."""
  from jaxtrain import config as config_lib
  from jaxtrain.sweep import axes as axes_lib
  own = given.flags
  check_flags(own)
  config, origins = commands.read_config(given, os.environ)
  axes = [axes_lib.parse(text, config, own.draw_seed) for text in own.sweep]
  settings = []
  if own.name:
    kept = config_lib.read_sweep(own.config, own.name)
    more, settings = axes_lib.named(kept, config, own.draw_seed, own.name)
    axes = more + axes
  if not axes and not settings:
    raise UserError("--sweep: required, such as --sweep='seed=0..9'; or --name=NAME of a sweep in the config file")
  if own.trials and own.retry_failed:
    raise UserError("--retry_failed: allowed without --trials; a search goes on without members that have failed")
  if own.trials and (settings or own.mode == "check"):
    raise UserError("--trials: finds its members as it goes; allowed without --mode=check and without a named list")
  for key in [axis.field for axis in axes] + [key for setting in settings for key in setting]:
    if key.startswith(config_lib.HOW):
      raise UserError(f"--sweep={key}: says how members are trained, not what they are; set it for all with --config")
    if key in origins:
      raise UserError(f"--sweep={key}: the {origins[key]} sets it too")
  return Asked(own, config, origins, axes, settings)


def check_flags(own: flags.FlagValues) -> None:
  """Raises UserError where a flag has a value that is not allowed, or is given for another launcher."""
  from jaxtrain.sweep import slurm
  if own.mode not in MODES:
    raise UserError(f"--mode: got {own.mode!r}, allowed {' | '.join(MODES)} (check lists the members)")
  if own.launcher not in LAUNCHERS:
    raise UserError(f"--launcher: got {own.launcher!r}, allowed {' | '.join(LAUNCHERS)}")
  if own.jobs < 0 or own.trials < 0:
    raise UserError(f"--jobs, --trials: got {own.jobs} and {own.trials}, allowed 0 or more")
  for name, launcher in (("exact", "vmap"), ("slurm", "slurm")):
    if own[name].value and own.launcher != launcher:
      raise UserError(f"--{name}: allowed with --launcher={launcher}, got {own.launcher}")
  slurm.slurm_settings(own.slurm)


def member_config(config, values: dict[str, Any]):
  """The resolved config of a member. Raises UserError with the member's values."""
  from jaxtrain import config as config_lib
  from jaxtrain.workdir import journal as journal_lib
  try:
    return config_lib.resolve(config_lib.with_values(config, values | config_lib.cleared(values)))
  except UserError as error:
    raise UserError(f"member ({journal_lib.describe(values)}): {error}") from None


def open_journal(folder: str, asked_for: Asked):
  """The journal of the sweep in a folder, new or as it was left.

  One of another base config, none of whose members has trained a step, becomes a new one, and a line says so.

  Raises:
    UserError: the folder holds a sweep of another base config (the differences are listed), or a run.
  """
  from jaxtrain import config as config_lib
  from jaxtrain.workdir import journal as journal_lib
  found = journal_lib.Journal(folder)
  base = config_lib.to_record(asked_for.config)
  about = {"config": asked_for.flags.config, "base": base}
  if found.about is None:
    found.begin(about)
    return found
  old = config_lib.upgraded(found.about["base"], asked_for.config)
  if config_lib.differences(old, base, config_lib.HOW) and found.is_untrained():
    found.begin_again(about)
    streams.say(f"jaxtrain: no member of the sweep in {folder} had trained a step: it begins anew with this config")
    return found
  config_lib.check_same(old, base, folder, "a sweep of another base config", config_lib.HOW)
  found.redigest(lambda values: config_lib.digest(member_config(asked_for.config, values), config_lib.HOW))
  return found


def run_sweep(log: Log) -> None:
  """Does what the command line says. Raises UserError, Stopped, or MembersFailed."""
  asked_for = read_asked(commands.parse(make_flags(), sys.argv, __doc__))
  own = asked_for.flags
  from jaxtrain.sweep import axes as axes_lib
  settings = [] if own.trials else axes_lib.expand(asked_for.axes, asked_for.settings)
  for values in settings:  # all of them, before anything starts
    member_config(asked_for.config, values)
  from jaxtrain.devices import backend
  backend.set_up_process()
  if own.mode == "check":
    return list_members(asked_for.config, settings)
  folder = own.workdir or commands.default_workdir(own.config, "sweep")
  from jaxtrain import config as config_lib
  with config_lib.strangers(folder, vouched(asked_for)):
    train_members(asked_for, settings, folder, log)


def vouched(asked_for: Asked) -> set[str]:
  """Names of code that the user has given: in the config, and as values to sweep over."""
  from jaxtrain import config as config_lib
  stages = [config_lib.stage_config(asked_for.config, stage, k) for k, stage in enumerate(asked_for.config.stages)]
  configs = [asked_for.config, *stages]
  names = {config.experiment for config in configs} | {name for c in configs for _, name in config_lib.named_code(c)}
  values = [value for axis in asked_for.axes for value in axis.values]
  values += [value for setting in asked_for.settings for value in setting.values()]
  flat = [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
  return names | {part for part in flat if isinstance(part, str)}


def train_members(asked_for: Asked, settings: list[dict], folder: str, log: Log) -> None:
  """Trains the members of a sweep's folder and writes its report; raises as `run_sweep` does."""
  own = asked_for.flags
  from jaxtrain.devices import backend
  from jaxtrain.sweep import telling
  lock = Lock(folder)
  log.folder = folder
  try:
    journal = open_journal(folder, asked_for)
    if own.launcher == "vmap":
      backend.use_cores(max([own.trials or len(settings), *(wave["devices"] for wave in journal.waves)]))
    with stops.Stop(asked_for.config.train.time_budget_minutes) as stop:
      if own.trials:
        from jaxtrain.sweep import search
        telling.say_search(asked_for.axes, asked_for.config.train)
        asked = search.run(asked_for.axes, own.trials, own.draw_seed, journal, asked_for.config.train,
                           lambda some: launch(journal, asked_for, some, stop))
      else:
        asked = launch(journal, asked_for, settings, stop)
  except Stopped:
    write_report(folder)
    raise
  finally:
    lock.close()
  left = lambda reason: Stopped(f"{reason}: the members are done, their page is not; the same command draws it")
  with stops.Stop(0) as stop, stop.at_once(left):
    write_report(folder)
  changed = find_changed(journal, asked_for)
  telling.say_best(journal, asked_for.config.train, changed)
  conclude(asked, changed)


def write_report(folder: str) -> None:
  """Writes the page that compares the members; without one the sweep is what it is."""
  from jaxtrain.errors import UserError
  from jaxtrain.report import sweep_page
  try:
    page = sweep_page.write([folder], os.path.join(folder, "report.html"), asked=False)
    streams.say(f"jaxtrain: report: {page}")
  except (UserError, OSError) as error:
    streams.say(f"jaxtrain: no report: {error}", error=True)


def find_changed(journal, asked_for: Asked) -> set[int]:
  """Numbers of members that are done and no longer as the sweep left them; says on stderr what each of them is."""
  from jaxtrain.run import start
  from jaxtrain.workdir import records
  changed = set()
  for member in (member for member in journal.members if member.outcome == "done"):
    folder = journal.workdir(member)
    try:
      if journal.is_lost(member):
        raise UserError("it has no config.json")
      start.look_at(member_config(asked_for.config, member.values), folder, "auto")
      if not records.committed_steps(os.path.join(records.last_stage(folder), "checkpoints")):
        raise UserError("it holds no checkpoint")
    except UserError as error:
      changed.add(member.number)
      streams.say(f"jaxtrain: member {member.label} is not as the sweep left it, and is not compared: "
                  f"{error.message.splitlines()[-1]}", error=True)
  return changed


def conclude(members: list, changed: set[int]) -> None:
  """Raises Stopped or MembersFailed where members that were asked for are not done, or have changed since."""
  left = [member for member in members if member.outcome == "started"]
  if left:
    raise Stopped(f"{len(left)} of {len(members)} members have saved and are not done; the same command goes "
                  "on")
  failed = [member for member in members if member.outcome == "failed"]
  if failed:
    raise MembersFailed(f"{len(failed)} of {len(members)} members failed, the first {failed[0].label}: "
                        f"{failed[0].reason}", hint="--retry_failed trains them again")
  others = [member for member in members if member.number in changed]
  if others:
    raise MembersFailed(f"{len(others)} of {len(members)} members are not as the sweep left them, the first "
                        f"{others[0].label}", hint="remove its folder, and the same command trains it again")


def list_members(base, settings: list[dict]) -> None:
  """Prints the members that a sweep would have. Raises UserError where they share data that cannot be read."""
  from jaxtrain import config as config_lib
  from jaxtrain.workdir import journal as journal_lib
  config = member_config(base, settings[0])
  own = any(key.partition(".")[0] in ("data", "experiment", "stages") for values in settings for key in values)
  read = not own and not config.stages
  if read:
    config_lib.load_experiment(config.experiment).load(config)
  streams.answer(*(f"{k:03d} {journal_lib.describe(values)}" for k, values in enumerate(settings)))
  streams.answer(f"jaxtrain: {len(settings)} members, each with a config that fits; "
                 f"{'their data can be read' if read else 'data are read when they start'}")


def launch(journal, asked_for: Asked, settings: list[dict], stop: stops.Stop) -> list:
  """Adds members of these settings and trains those that are not done, or were removed; returns all of them."""
  from jaxtrain import config as config_lib
  members = journal.add([(values, config_lib.digest(member_config(asked_for.config, values), config_lib.HOW))
                         for values in settings])
  lost = [m for m in members if journal.is_lost(m)]
  retry = lost + [m for m in members if m.outcome == "failed" and asked_for.flags.retry_failed]
  todo = [m for m in members if m.outcome in ("added", "started")] + retry
  say = streams.say
  words = {"done": "done", "failed": "failed", "started": "begun"}
  counts = {what: sum(member.outcome == outcome and member not in lost for member in members)
            for outcome, what in words.items()}
  before = "".join(f", {count} {what} before" for what, count in counts.items() if count)
  say(f"jaxtrain: sweep of {len(members)} members{before}, in {journal.folder}, launcher {asked_for.flags.launcher}")
  if todo and not asked_for.flags.trials:
    from jaxtrain.sweep import telling
    telling.say_seeds(journal)
  for member in lost:
    say(f"jaxtrain: member {member.label}: was done, and its folder is gone: it is trained again")
  if not todo:
    return members
  if asked_for.flags.launcher == "vmap":
    from jaxtrain.config import meanings
    from jaxtrain.sweep import vmap
    vmap.run(journal, todo, retry, lambda member: member_config(asked_for.config, member.values), asked_for.origins,
             meanings.of_config(asked_for.flags.config),
             vmap.Options(asked_for.flags.exact, asked_for.flags.jobs), stop, say)
  else:
    run_pool(journal, todo, asked_for, stop, say)
  return members


def run_pool(journal, todo: list, asked_for: Asked, stop: stops.Stop, say: Callable[[str], None]) -> None:
  """Trains members as processes of their own; what a killed one left is gone on with."""
  from jaxtrain import config as config_lib
  from jaxtrain.sweep import children, local, slurm
  shared = [children.as_flag(key, config_lib.lookup(asked_for.config, key))
            for key, origin in asked_for.origins.items() if origin == "flag"]
  values = lambda member: [children.as_flag(key, tuple(value) if isinstance(value, list) else value)
                           for key, value in (member.values | config_lib.cleared(member.values)).items()]
  own = [f"--config={asked_for.flags.config}", *shared, "--config.log.figures=none"]
  jobs = [children.Job(m.number, [*own, *values(m)], journal.workdir(m)) for m in todo]
  by_number = {member.number: member for member in todo}
  def started(number, **fields):
    journal.note("started", member=number, **fields)
    say(f"jaxtrain: member {by_number[number].label}: started, says more in "
        f"{os.path.join(journal.workdir(by_number[number]), 'log.txt')}")
  ended = local.run_local(jobs, asked_for.flags.jobs, stop, started) if asked_for.flags.launcher == "local" else \
      slurm.run_slurm(jobs, journal.folder, asked_for.flags.slurm, asked_for.flags.jobs, stop,
                      {m.number: m.job for m in todo if m.job}, started)
  for number, outcome in ended:
    if outcome.code == errors.DONE:
      journal.note("done", member=number)
      say(f"jaxtrain: member {by_number[number].label}: done")
    elif outcome.code != errors.REQUEUE:  # that one has saved and stays as it is
      journal.note("failed", member=number, code=outcome.code, reason=outcome.reason)
      say(f"jaxtrain: member {by_number[number].label}: failed, exit {outcome.code}: {outcome.reason}")


def main() -> int:
  """Runs the command and returns its exit code."""
  return commands.run(run_sweep)


if __name__ == "__main__":
  sys.exit(main())
