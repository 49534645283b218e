"""A run put together: sources, experiment, devices, checkpoints and facts; fresh, resumed, or from another run's state.

**Departs** from DESIGN 3, which lists no such module: it keeps `loop.py` short enough to read top to bottom.
"""

import contextlib
import dataclasses
import functools
import math
import os
import time
import uuid
from typing import Any, Callable

import jax
import jax.numpy as jnp

from jaxtrain import config as config_lib, jsonable, rng, step as step_lib
from jaxtrain.config import with_values
from jaxtrain.devices import parallel, processes
from jaxtrain.errors import UserError, need
from jaxtrain.jsonable import digest_json
from jaxtrain.run import board, cadence, checkpoints as checkpoints_lib, feed, packing
from jaxtrain.run.console import Console, describe_data
from jaxtrain.run.setup import Parts, assemble, compile_step, count_params, shapes
from jaxtrain.types import Experiment, Splits
from jaxtrain.workdir import facts as facts_lib, provenance, records

OPEN = {"optim.decay_steps": 0, "train.microbatch": -1}  # values that a run's first start replaces, for good


@dataclasses.dataclass
class Run:
  """Everything the loop needs of one run. The first block is fixed, the second moves with training."""
  config: Any
  workdir: str | None
  splits: Splits
  experiment: Experiment
  devices: parallel.Parallel
  plan: cadence.Plan
  facts: facts_lib.Facts
  console: Console
  checkpoints: checkpoints_lib.Checkpoints | None
  repeat: Callable[[int], Callable] | None  # bucket -> the compiled call of many steps, made at first use
  feeds: dict[str, feed.Feed]  # part -> its data on the devices
  evaluators: dict[tuple[str, int], tuple[Callable, Any]]  # by part and bucket: evaluation, zero totals; at first use
  began: float  # time.time() at the start of this process's part

  state: Any
  totals: Any  # metric sums of the started epoch
  step: int = 0
  best_value: float | None = None
  best_step: int | None = None
  num_bad_evals: int = 0  # evaluations since the best
  best_copy: Any = None  # the best state in memory; None: it is in a checkpoint
  pending: tuple[int, dict, dict] | None = None  # (step, trees, record) of a best that is not written yet
  saved_step: int | None = None
  last_means: dict[str, float] = dataclasses.field(default_factory=dict)
  guard: Any = None  # what the state's guard had seen after the last dispatch, on the host
  evaluated: tuple[str, ...] = ()  # names of evaluated metrics, where they are known without an evaluator of its own
  segment_seconds: float = 0.0  # training time since the last report
  segment_steps: int = 0
  spent: dict[str, float] = dataclasses.field(default_factory=lambda: {"train": 0.0, "report": 0.0, "save": 0.0})

  @functools.cached_property
  def config_digest(self) -> str:
    """SHA-256 of what makes the run what it is."""
    return config_lib.digest(self.config)

  @property
  def writes(self) -> bool:
    """Whether this process writes the run's files."""
    return self.workdir is not None and processes.is_first()

  @property
  def epoch(self) -> int:
    """Completed epochs; -1 for a stream."""
    return self.plan.epoch(self.step)

  @property
  def monitor(self) -> str:
    """The metric that decides what is best: the configured one, of training where there is no validation part."""
    name = self.config.train.monitor
    return "train_" + name[len("val_"):] if name.startswith("val_") and self.splits.val is None else name

  @property
  def stopped_early(self) -> bool:
    """Whether patience has run out."""
    return 0 < self.config.train.patience <= self.num_bad_evals


def claim(config, workdir: str | None, resume: str):
  """Makes a workdir this config's own, or checks that it already is; returns (config, whether it held a run).

  A resumed run keeps the schedule horizon and the size of micro-batches that it was first started with.

  Raises:
    UserError: the folder holds a run of another config (the differences are listed), or `resume` forbids or demands a
      run.
  """
  decided, held_run = processes.on_first(lambda: look_at(config, workdir, resume))
  return with_values(config, decided), held_run


def look_at(config, workdir: str | None, resume: str) -> tuple[dict, bool]:
  """(what the workdir's run decided at its start, whether it holds one) for `claim`, whose errors it raises."""
  path = os.path.join(workdir, "config.json") if workdir else None
  old = jsonable.read_json(path) if path else None
  if resume == "required" and old is None:
    raise UserError(f"--resume=required: {workdir!r} holds no run")
  if old is None:
    if workdir and records.committed_steps(os.path.join(workdir, "checkpoints")):
      raise UserError(f"--workdir: {workdir!r} holds checkpoints and no config.json; restore that file, or choose "
                      "another "
                      "workdir")
    return {}, False
  if resume == "never":
    raise UserError(f"--resume=never: {workdir!r} holds a run; choose another workdir")
  old = {key: value for key, value in old.items() if key != "origins"}
  flat = dict(jsonable.flatten(old))
  decided = {key: flat[key] for key, open_value in OPEN.items() if config_lib.lookup(config, key) == open_value}
  config_lib.check_same(old, config_lib.to_record(with_values(config, decided)), workdir, "a run of another config")
  return decided, True


def write_config(config, workdir: str, origins: dict[str, str] | None) -> None:
  """Writes config.json."""
  jsonable.write_json(os.path.join(workdir, "config.json"), config_lib.to_record(config)
                      | {"origins": origins or {}})


def write_process(workdir: str, meta: dict) -> None:
  """Writes run.json: the run's first process and its latest, and what `meta` of its data says of a table, the SHA-256
  included.
  """
  path = os.path.join(workdir, "run.json")
  now = provenance.describe_process([str(d) for d in jax.devices()])
  now |= {"data": meta["table"] if "table" in meta else {}}
  jsonable.write_json(path, (jsonable.read_json(path) or now) | {"latest": now})


@contextlib.contextmanager
def open_run(config, workdir: str | None, *, resume: str, init_from: str | None, origins: dict[str, str] | None,
             stage: int | None = None, carry: str = "", read_only: bool = False):
  """Context of a `Run` that is ready to train: data on the devices, step compiled, state fresh or restored.

  Args:
    stage: index of a stage; its root key is folded by it.
    carry: what to take over from `init_from`: params | all; empty = `config.checkpoint.init`.
    read_only: evaluate only: nothing is compiled for training, facts and records stay as they are.
  """
  began = time.time()
  config, resumed = claim(config, workdir, resume)
  parts = assemble(config)
  config, devices = parts.config, parts.devices
  first = processes.is_first()
  facts = facts_lib.Facts(os.path.join(workdir, "facts") if workdir and first else None, uuid.uuid4().hex)
  console = Console(config.log.progress, os.path.join(workdir, "log.txt") if workdir and first else None, not first)
  run = Run(config, workdir, parts.splits, parts.experiment, devices, parts.plan, facts, console, None, None,
            {}, {}, began, None, None)
  processes.check_equal("data", digest_json(config_lib.as_json(run.splits.meta)))
  try:
    if run.writes:
      run.checkpoints = checkpoints_lib.Checkpoints(
          os.path.join(workdir, "checkpoints"), keep_last=config.checkpoint.keep_last,
          keep_best=config.checkpoint.keep_best, mode=config.train.monitor_mode,
          asynchronous=config.checkpoint.asynchronous)
    skipped = restore(run, parts, read_only) if resumed else []
    if read_only and run.state is None:
      raise UserError(f"--workdir: {workdir!r} holds no checkpoint yet")
    if not read_only:
      if config.log.tensorboard:
        need("tensorboardX", "tensorboard")
      if run.state is None:
        start(run, parts, stage, init_from, carry)
      if run.writes:
        write_config(config, workdir, origins)
    run.state, run.totals = devices.put(run.state), devices.put(run.totals)
    if not read_only:
      if run.writes and config.log.tensorboard:
        flat = dict(jsonable.flatten(config))
        facts.board = board.Board(os.path.join(workdir, "tensorboard"), flat, run.step)
      compile_repeat(run, parts, skipped)
    announce(run, parts.threads, skipped)
    yield run
  finally:
    close(run)


def start(run: Run, parts: Parts, stage: int | None, init_from: str | None, carry: str) -> None:
  """A fresh state, or one that starts from another run's, and the first facts."""
  root = rng.root_key(run.config.seed)
  run.state = run.devices.compile(run.experiment.init)(root if stage is None else rng.step_key(root, stage))
  run.totals = step_lib.zero_totals(parts.totals)
  if init_from:
    what = carry or run.config.checkpoint.init
    run.state = of_first(run.state, lambda: take_over(run, init_from, what))
    run.console.say(f"jaxtrain: {'parameters' if what == 'params' else 'all but step and key'} from {init_from}")
  start_facts(run, init_from)


def of_first(template: Any, make: Callable[[], Any]) -> Any:
  """A tree like the template that `make()` gives on process 0, on all."""
  if not processes.several():
    return make()
  made: list[Any] = []
  processes.on_first(lambda: made.append(make()))
  leaves = packing.host_leaves(made[0]) if made else {}
  leaves = processes.leaves_of_first(leaves, packing.named_shapes(template))
  return packing.fill(template, {f"made/{path}": leaf for path, leaf in leaves.items()}, "made")


def compile_repeat(run: Run, parts: Parts, skipped: list[str]) -> None:
  """Compiles many steps as one call, ahead of time, and notes what it took."""
  began = time.perf_counter()
  data_key, _ = step_lib.stream_keys(run.state)
  run.feeds["train"] = feed.Feed(run.splits.train, run.devices.put, run.devices.put_slices, data_key)
  data = shapes(run.splits.train.data)
  run.repeat = functools.cache(
      lambda bucket: compile_step(run.devices, parts.one_steps[bucket], run.state, run.totals, data))
  if run.step < run.plan.total:
    run.repeat(run.splits.train.bucket(run.step))
  run.facts.process(resume_step=run.step, skipped_checkpoints=skipped, threads=parts.threads,
                    num_devices=run.devices.num_devices, compile_seconds=time.perf_counter() - began,
                    setup_seconds=time.time() - run.began)


def close(run: Run) -> None:
  """Closes what a run holds open."""
  try:
    if run.checkpoints:
      run.checkpoints.close()
  finally:
    run.facts.close()
    run.console.close()


def start_facts(run: Run, init_from: str | None) -> None:
  """Empties the facts of a run that never reached a checkpoint, and writes on_start."""
  run.facts.start_fresh()
  run.facts.event("on_start", epoch=run.epoch, step=run.step, config_digest=run.config_digest,
                  experiment=run.config.experiment, seed=run.config.seed, parameters=count_params(run.state),
                  num_steps=run.plan.total, steps_per_epoch=run.plan.steps_per_epoch,
                  batch_size=run.config.train.batch_size, init_from=init_from)


def restore(run: Run, parts: Parts, read_only: bool) -> list[str]:
  """Restores the newest usable checkpoint, if there is one; returns why newer ones were passed over.

  Raises:
    UserError: checkpoints exist and none can be used, or the data has changed since.
  """
  template, found = {"state": parts.abstract, "totals": parts.totals}, []

  def newest():
    found[:] = run.checkpoints.restore_newest(template) or [None, None, None, None]
    return found[0], found[2], found[3]

  step, record, skipped = processes.on_first(newest)
  if step is None:
    return []
  trees = of_first(template, lambda: found[1])
  check_same_data(run.workdir, record["meta"], run.splits.meta)
  if step > run.plan.total:
    raise UserError(f"config.train: the run in {run.workdir!r} is at step {step:,}, allowed a length of that or more; "
                    "got "
                    f"{run.plan.total:,} steps")
  if run.checkpoints and not read_only:
    run.checkpoints.drop_after(step)
    run.checkpoints.repair()
    run.facts.cut(record["offsets"])
  run.facts.metric_names = processes.on_first(lambda: run.facts.metric_names)
  run.facts.run_id = record["run_id"]
  run.state, run.totals, run.step, run.saved_step = trees["state"], trees["totals"], step, step
  run.best_value, run.best_step, run.num_bad_evals = record["best_value"], record["best_step"], record["num_bad_evals"]
  run.last_means = {name: float(value) for name, value in record["metrics"].items()}
  return skipped


def check_same_data(workdir: str, old: dict, new: dict) -> None:
  """Raises UserError where what is known of the data is not what it was when a workdir was begun."""
  meta, now = dict(jsonable.flatten(old)), dict(jsonable.flatten(config_lib.as_json(new)))
  changed = [key for key in sorted(meta.keys() | now.keys())
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


def take_over(run: Run, reference: str, what: str) -> Any:
  """The fresh state with the fields of another run's checkpoint: parameters and model state, or all but step, key and
  guard; or with the weights of another system's file.

  Raises:
    UserError: no such checkpoint or file, or its arrays do not fit.
  """
  state = run.state
  if os.path.isfile(reference):
    if run.experiment.read_weights is None:
      raise UserError(f"--init_from: {reference!r} is a file; {run.config.experiment} reads no other system's weights")
    return run.experiment.read_weights(state, reference)
  folder, which = records.parse_reference(reference)
  folder = records.last_stage(folder)
  step = records.find_step(folder, which)
  leaves, _ = checkpoints_lib.read(os.path.join(folder, "checkpoints"), step)
  own = ("step", "key", "guard") if what == "all" else ("step", "key", "guard", "opt_state")
  fields = [f.name for f in dataclasses.fields(state) if f.name not in own]
  try:
    return state.replace(**{name: packing.fill(getattr(state, name), leaves, f"state/{name}") for name in fields})
  except UserError as error:
    raise UserError(f"--init_from={reference}: {error}") from None


def announce(run: Run, threads: int, skipped: list[str]) -> None:
  """The first line: what runs, on which devices, where; then what a resume found."""
  first, config = jax.devices()[0], run.config
  num_params = count_params(run.state)
  where = f"in {run.workdir}" if run.workdir else "leaving no files"
  on = f"{run.devices.num_devices} x {first.device_kind}" + (f", {threads} thread{'s' * (threads > 1)}" if threads
                                                             else "")
  run.console.say(f"jaxtrain: {config.experiment.rpartition('.')[2]}, {num_params:,} "
                  f"parameter{'s' * (num_params != 1)}, "
                  f"{run.plan.total:,} steps of {config.train.batch_size}, on {on}, {where}")
  if "table" in run.splits.meta:
    run.console.say(f"jaxtrain: data: {describe_data(run.splits.meta)}")
  if 0 < config.train.microbatch < config.train.batch_size:
    run.console.say(f"jaxtrain: gradients added up over micro-batches of {config.train.microbatch:,} rows")
  for reason in skipped:
    run.console.say(f"jaxtrain: passed over {reason}")
  if run.step:
    run.console.say(f"jaxtrain: {'resumed at' if run.repeat else 'newest checkpoint:'} step {run.step:,}")
  if run.step and config.optim.schedule != "constant" and config.optim.decay_steps != run.plan.total:
    run.console.say(f"jaxtrain: the learning-rate schedule keeps its horizon of {config.optim.decay_steps:,} steps")


@jax.jit
def copy_tree(tree: Any) -> Any:
  """Copies of all leaves, which outlive the donation of the originals; one call, because leaves are many and small."""
  def one(leaf):
    return jax.random.wrap_key_data(jnp.copy(jax.random.key_data(leaf))) if packing.is_key(leaf) else jnp.copy(leaf)
  return jax.tree.map(one, tree)
