"""A run put together: data, experiment, devices, checkpoints and facts; fresh, resumed, or from another run's state."""

import contextlib
import functools
import math
import os
import time
import uuid
from typing import Any

import jax

from jaxtrain import config as config_lib, jsonable, rng, step as step_lib
from jaxtrain.config import with_values
from jaxtrain.data import tables
from jaxtrain.devices import processes
from jaxtrain.errors import UserError, need
from jaxtrain.jsonable import digest_json
from jaxtrain.run import board, carry, checkpoints as checkpoints_lib, feed, fits, packing
from jaxtrain.run.console import Console, describe_data
from jaxtrain.run.ledger import Ledger
from jaxtrain.run.setup import Parts, assemble, compile_step, count_params, shapes
from jaxtrain.run.single import Run
from jaxtrain.workdir import facts as facts_lib, journal, jsonfile, quality, records

FOLLOWS = "kept_"  # how keys of what is known of the data begin that follow from the others


def open_values(config) -> dict[str, int]:
  """Dotted keys of the fields that a run's first start decides for good where they have these values."""
  return {f"{section}.decay_steps": 0 for section in config_lib.optimisers(config)} | {"train.microbatch": -1}


def claim(config, workdir: str | None, resume: str):
  """Makes a workdir this config's own, or checks that it already is; returns (config, whether it held a run).

  A resumed run keeps the schedule horizon and the size of micro-batches that it was first started with.

  Raises:
    UserError: the folder holds a run of another config (the differences are listed), or a sweep, or `resume` forbids or
      demands a run.
  """
  decided, held_run = processes.on_first(lambda: look_at(config, workdir, resume))
  return config_lib.resolve(with_values(config, decided)) if decided else config, held_run


def look_at(config, workdir: str | None, resume: str) -> tuple[dict, bool]:
  """(what the workdir's run decided at its start, whether it holds one) for `claim`, whose errors it raises."""
  if workdir:
    if journal.is_sweep(workdir):
      raise UserError(f"--workdir: {workdir!r} is the folder of a sweep; its members are in runs/")
    records.check_places(workdir)
  old = records.read_config(workdir) if workdir else None
  if resume == "required" and old is None:
    raise UserError(f"--resume=required: {workdir!r} holds no run")
  if old is None:
    if workdir and records.committed_steps(os.path.join(workdir, "checkpoints")):
      raise UserError(f"--workdir: {workdir!r} holds checkpoints and no config.json; restore that file, or choose "
                      "another workdir")
    return {}, False
  if resume == "never":
    raise UserError(f"--resume=never: {workdir!r} holds a run; choose another workdir")
  old = config_lib.upgraded({key: value for key, value in old.items() if key != "origins"}, config)
  if is_moved(old, config, workdir):
    old["data"]["path"] = config.data.path
  flat = dict(jsonable.flatten(old))
  decided = {key: flat[key] for key, open_value in open_values(config).items()
             if key in flat and config_lib.lookup(config, key) == open_value}
  config_lib.check_same(old, config_lib.to_record(with_values(config, decided)), workdir, "a run of another config")
  return decided, True


def is_moved(old: dict, config, workdir: str) -> bool:
  """Whether a config names the file that a workdir's run was trained on by another path: the bytes are the same."""
  if "data" not in old or "path" not in old["data"] or "data" not in config or "path" not in config.data:
    return False
  if old["data"]["path"] == config.data.path or not os.path.isfile(config.data.path):
    return False
  meta = records.newest_record(os.path.join(workdir, "checkpoints")).get("meta", {})
  table = meta["table"] if isinstance(meta, dict) and isinstance(meta.get("table"), dict) else {}
  return "sha256" in table and table["sha256"] == tables.file_digest(config.data.path)


def write_config(config, workdir: str, origins: dict[str, str] | None) -> None:
  """Writes config.json."""
  jsonfile.write_json(os.path.join(workdir, "config.json"), config_lib.to_record(config)
                      | {"origins": origins or {}})


@contextlib.contextmanager
def open_run(config, workdir: str | None, *, resume: str, init_from: str | None, origins: dict[str, str] | None,
             meanings: dict[str, str] | None, stage: int | None = None, carry_over: str = "", read_only: bool = False):
  """Context of a `Run` that is ready to train: data on the devices, step compiled, state fresh or restored.

  Args:
    origins, meanings: of the config's fields, for the record.
    stage: index of a stage; its root key is folded by it.
    carry_over: what to take from `init_from`: params | all; empty = `config.checkpoint.init`.
    read_only: evaluate only: nothing is compiled for training, facts and records stay as they are.
  """
  began = time.time()
  config, resumed = claim(config, workdir, resume)
  parts = assemble(config)
  if not resumed:
    fits.check_state(parts)
  config, devices = parts.config, parts.devices
  run = Run(make_ledger(parts, workdir, began, meanings or {}), devices)
  processes.check_equal("data", digest_json(config_lib.as_json(run.splits.meta)))
  try:
    if run.ledger.writes:
      run.checkpoints = checkpoints_lib.of_run(config, workdir)
    skipped = restore(run, parts, read_only) if resumed else []
    if read_only and run.state is None:
      raise UserError(f"--workdir: {workdir!r} holds no checkpoint yet")
    if not read_only:
      if config.log.tensorboard:
        need("tensorboardX", "tensorboard")
      lost = resumed and run.state is None
      if run.state is None:
        start(run, parts, stage, init_from, carry_over)
    run.state, run.totals = devices.put(run.state), devices.put(run.totals)
    if not read_only:
      if run.ledger.writes and config.log.tensorboard:
        flat = dict(jsonable.flatten(config))
        run.ledger.facts.board = board.Board(os.path.join(workdir, "tensorboard"), flat, run.step)
      compile_repeat(run, parts, skipped)
      if run.ledger.writes:  # not before: a step that needs too much memory is refused, and may be made smaller
        write_config(config, workdir, origins)
    announce(run, parts.threads, skipped)
    if not read_only and lost:
      run.ledger.console.say(f"jaxtrain: {workdir} holds facts of a run and no checkpoint: it starts again from step 0")
    yield run
  finally:
    run.close()


def make_ledger(parts: Parts, workdir: str | None, began: float, meanings: dict[str, str]) -> Ledger:
  """The ledger of a run that has done nothing yet; process 0 writes its files."""
  first, config = processes.is_first(), parts.config
  facts = facts_lib.Facts(os.path.join(workdir, "facts") if workdir and first else None, uuid.uuid4().hex)
  console = Console(config.log.progress, os.path.join(workdir, "log.txt") if workdir and first else None, not first,
                    every=config.log.verbose or config.log.every_steps > 0)
  return Ledger(config, workdir, parts.splits, parts.experiment, parts.plan, facts, console, began, parts.sample,
                meanings)


def start(run: Run, parts: Parts, stage: int | None, init_from: str | None, carry_over: str) -> None:
  """A fresh state, or one that starts from another run's, and the first facts."""
  root = rng.root_key(run.config.seed)
  root = root if stage is None else rng.step_key(root, stage)
  data_key = rng.stream_key(root, "data")
  run.feeds["train"] = feed.Feed(run.splits.train, run.devices.put, run.devices.put_slices, data_key)
  run.state = run.devices.compile(parts.init)(root, run.feeds["train"].data(0))
  run.totals = step_lib.zero_totals(parts.totals)
  if init_from:
    settings = run.config.checkpoint
    taken: list[str] = []

    def take_over():
      state, words = carry.take_over(run.state, init_from, carry_over or settings.init, settings.init_paths,
                                     run.experiment)
      taken.append(words)
      return state

    run.state = packing.of_first(run.state, take_over)
    run.taken = f"from {init_from}: {''.join(taken)}"
  run.ledger.start(count_params(run.state), init_from)


def compile_repeat(run: Run, parts: Parts, skipped: list[str]) -> None:
  """Compiles many steps as one call, ahead of time, and notes what it took."""
  began, ledger = time.perf_counter(), run.ledger
  if "train" not in run.feeds:
    data_key, _ = step_lib.stream_keys(run.state)
    run.feeds["train"] = feed.Feed(run.splits.train, run.devices.put, run.devices.put_slices, data_key)
  data = shapes(run.splits.train.data)
  run.repeat = functools.cache(
      lambda bucket: compile_step(run.devices, parts.one_steps[bucket], run.state, run.totals, data))
  if run.step < run.plan.total:
    fits.check_step(run.repeat(run.splits.train.bucket(run.step)), run.devices.num_devices)
  ledger.facts.process(resume_step=run.step, skipped_checkpoints=skipped, threads=parts.threads,
                       num_devices=run.devices.num_devices, compile_seconds=time.perf_counter() - began,
                       setup_seconds=time.time() - ledger.began)


def restore(run: Run, parts: Parts, read_only: bool) -> list[str]:
  """Restores the newest usable checkpoint, if there is one; returns why newer ones were passed over.

  Raises:
    UserError: checkpoints exist and none can be used, or the data has changed since.
  """
  template, found, workdir = {"state": parts.abstract, "totals": parts.totals}, [], run.ledger.workdir

  def check(record):
    if not read_only:
      run.ledger.facts.read_back(record["offsets"])

  def newest():
    found[:] = run.checkpoints.restore_newest(template, check) or [None, None, None, None]
    return found[0], found[2], found[3]

  step, record, skipped = processes.on_first(newest)
  if step is None:
    return []
  trees = packing.of_first(template, lambda: found[1])
  check_same_data(workdir, record["meta"], run.splits.meta)
  if step > run.plan.total:
    raise UserError(f"config.train: the run in {workdir!r} is at step {step:,}, allowed a length of that or more; got "
                    f"{run.plan.total:,} steps")
  writes = bool(run.checkpoints) and not read_only
  if writes:
    run.checkpoints.drop_after(step)
    run.checkpoints.repair()
  facts = run.ledger.facts
  run.ledger.recall(step, record, writes)
  facts.metric_names = processes.on_first(lambda: facts.metric_names)
  run.state, run.totals = trees["state"], trees["totals"]
  run.ledger.guard = jax.device_get(run.state.guard)
  return skipped


def check_same_data(workdir: str, old: dict, new: dict) -> None:
  """Raises UserError where what is known of the data is not what it was when a workdir was begun.

  What an earlier version did not note of the table is not compared, nor where a file of the same bytes lies, nor what
  follows from the rest: rows that a checkpoint keeps for verbs, of which another processor may round a digit otherwise.
  """
  meta, now = dict(jsonable.flatten(old)), dict(jsonable.flatten(config_lib.as_json(new)))
  moved = "table.sha256" in meta and "table.sha256" in now and meta["table.sha256"] == now["table.sha256"]
  skip = {"table.source"} if moved else set()
  skip |= {key for key in now.keys() - meta.keys() if key.startswith("table.")}
  skip |= {key for key in now.keys() | meta.keys() if key.startswith(FOLLOWS)}
  changed = [key for key in sorted((meta.keys() | now.keys()) - skip)
             if (key in meta) != (key in now) or not same_value(meta[key], now[key])]
  if changed:
    key = changed[0]
    raise UserError(f"--workdir: the data has changed since {workdir!r} was started: {key} was "
                    f"{meta[key] if key in meta else 'absent'!r}, is {now[key] if key in now else 'absent'!r}; restore "
                    "it, or choose another workdir")


def same_value(old: Any, new: Any) -> bool:
  """Whether two values of a table's description agree: numbers but for what another processor's last digit changes."""
  if isinstance(old, list) and isinstance(new, list):
    return len(old) == len(new) and all(same_value(a, b) for a, b in zip(old, new))
  if isinstance(old, float) and isinstance(new, float):
    return math.isclose(old, new, rel_tol=1e-9, abs_tol=1e-12)
  return old == new


def announce(run: Run, threads: int, skipped: list[str]) -> None:
  """The first line: what runs, on which devices, where; then what a resume found."""
  first, config, say = jax.devices()[0], run.config, run.ledger.console.say
  num_params = count_params(run.state)
  where = f"in {run.ledger.workdir}" if run.ledger.workdir else "leaving no files"
  on = f"{run.devices.num_devices} x {first.device_kind}" + (f", {threads} thread{'s' * (threads > 1)}" if threads
                                                             else "")
  say(f"jaxtrain: {config.experiment.rpartition('.')[2]}, {num_params:,} parameter{'s' * (num_params != 1)}, "
      f"{run.plan.total:,} steps of {config.train.batch_size}, on {on}, {where}")
  if run.taken:
    say(f"jaxtrain: {run.taken}")
  if "table" in run.splits.meta:
    say(f"jaxtrain: data: {describe_data(run.splits.meta)}")
    for words in quality.data_warnings(run.splits.meta):
      say(f"jaxtrain: data: warning: {words}")
      run.ledger.alarmed.add(words)  # where an experiment watches for it too it is said once
  if 0 < config.train.microbatch < config.train.batch_size:
    say(f"jaxtrain: gradients added up over micro-batches of {config.train.microbatch:,} rows")
  for section in config_lib.optimisers(config):
    if (warmup := config_lib.lookup(config, section).warmup_steps) >= run.plan.total > 0:
      say(f"jaxtrain: config.{section}.warmup_steps={warmup:,} is longer than the run's {run.plan.total:,} steps: the "
          "learning rate stays below its peak")
  for words in run.experiment.notes:
    say(f"jaxtrain: {words}")
  for reason in skipped:
    say(f"jaxtrain: passed over {reason}")
  if run.step:
    say(f"jaxtrain: {'resumed at' if run.repeat else 'newest checkpoint:'} step {run.step:,}")
  for section in config_lib.optimisers(config) if run.step else ():
    optim = config_lib.lookup(config, section)
    if optim.schedule != "constant" and optim.decay_steps != run.plan.total:
      say(f"jaxtrain: the learning-rate schedule of {section} keeps its horizon of {optim.decay_steps:,} steps")
