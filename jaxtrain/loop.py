"""The one loop: run to the next thing due, evaluate, observe, best, facts, save, stop.

It knows `state.step` and nothing of what a step does. Position in a run is that one integer; metrics of a started epoch
are carried on the device and saved with the state, so that no stop and no split into dispatches changes a reported bit.

The best state is kept in memory when it appears and written with the next checkpoint. A run killed in between repeats
the same steps and finds the same best again, so nothing is lost and improvements cost no saves of their own.
"""

import os
import time
from typing import Any, Callable, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxtrain import config as config_lib, jsonable, step as step_lib
from jaxtrain.devices import processes
from jaxtrain.errors import NonFinite, Stopped, StopReason, UserError
from jaxtrain.jsonable import digest_json
from jaxtrain.run import evaluate as evaluate_lib, metrics, packing, setup, start, stops
from jaxtrain.run.cadence import Pace
from jaxtrain.workdir import reading, records
from jaxtrain.workdir.lock import Lock


CODE_FIELDS = ("data.source", "loss.extra", "eval.metrics")  # may name functions by their dotted path


class Result(NamedTuple):
  """What a run returns.

  Attributes:
    history: name -> list, one entry per epoch (per evaluation for a stream).
    best_value, best_step: of the monitored metric; None where nothing was evaluated.
    final_val_loss, test_loss: None where there is no such part.
    workdir: folder of the run's files; None for a run that leaves none.
    state: the final state.
    digest: SHA-256 of the final state.
  """
  history: dict[str, list]
  best_value: float | None
  best_step: int | None
  final_val_loss: float | None
  test_loss: float | None
  workdir: str | None
  state: Any
  digest: str


def train(config: ConfigDict, workdir: str | None = None, *, resume: str = "auto", init_from: str | None = None,
          origins: dict[str, str] | None = None, draw: Callable[[str, str], None] | None = None) -> Result:
  """Trains an experiment, or goes on with it.

  Args:
    config: from a config file's `get_config`.
    workdir: folder of the run; the same folder resumes. None leaves no file.
    resume: `auto`, `never` (refuse a folder that holds a run) or `required` (refuse one that does not).
    init_from: WORKDIR[@best|last|STEP], whose state a fresh run starts from.
    origins: dotted field -> where its value came from, for the record.
    draw: `(workdir, moment)` draws figures during a run.

  Raises:
    UserError: config, data or workdir do not fit. preempt.Stopped: asked to stop, and saved. preempt.NonFinite: halted.
  """
  config = config_lib.resolve(config)
  same = [config_lib.to_record(config), resume, init_from, jax.local_device_count() if processes.several() else 0]
  processes.check_equal("config, flags or number of devices", digest_json(same))
  locks: list[Lock] = []
  if workdir:
    processes.on_first(lambda: locks.append(Lock(workdir)))
  try:
    with stops.Stop(config.train.time_budget_minutes) as stop:
      if config.stages:
        return train_stages(config, workdir, stop, resume, init_from, origins, draw)
      return train_one(config, workdir, stop, draw, resume=resume, init_from=init_from, origins=origins)
  finally:
    for lock in locks:
      lock.close()


def train_stages(config, workdir, stop, resume, init_from, origins, draw) -> Result:
  """Runs `config.stages` one after the other, each in stages/<k>/ from the best state of the one before."""
  if workdir is None:
    raise UserError("config.stages: a run with stages needs a workdir, because each starts from the files of the one "
                    "before")
  stages = [config_lib.stage_config(config, stage, k) for k, stage in enumerate(config.stages)]
  config, _ = start.claim(config, workdir, resume)
  if processes.is_first():
    start.write_config(config, workdir, origins)
    start.write_process(workdir, {})
  for k, stage in enumerate(stages):
    settings = config.stages[k]
    carry = "all" if "carry_optimizer" in settings and settings["carry_optimizer"] else "params"
    source = os.path.join(workdir, "stages", str(k - 1)) + "@best" if k else init_from
    result = train_one(stage, os.path.join(workdir, "stages", str(k)), stop, draw, resume="auto", init_from=source,
                       origins=origins,
                       stage=k, carry=carry if k else "")
  if processes.is_first():
    jsonable.write_json(os.path.join(workdir, "history.json"), jsonable.clean(result.history))  # the last stage's
  return result._replace(workdir=workdir)


def train_one(config, workdir, stop: stops.Stop, draw, **options) -> Result:
  """One run from its start or its newest checkpoint to its end."""
  with start.open_run(config, workdir, **options) as run:
    watchdog = stops.Watchdog(config.parallel.watchdog_seconds)
    try:
      fit(run, stop, watchdog, draw)
      watchdog.close()
      return finish(run)
    except BaseException as error:
      record_exception(run, error)
      raise
    finally:
      watchdog.close()


def fit(run: start.Run, stop: stops.Stop, watchdog: stops.Watchdog, draw) -> None:
  """Trains until the last step, an early stop, or a request to leave."""
  plan, pace = run.plan, Pace()
  run.console.start(run.step, plan.total)
  while run.step < plan.total and not run.stopped_early:
    target = plan.next_due(run.step)
    while run.step < target:
      # Asked after all that was due at this step: a resumed run goes on from here and would not report it.
      reason, num_steps = processes.agree(stop.reason(not pace.first), pace.num_steps())
      if reason:
        leave(run, reason)
      dispatch(run, min(target, run.step + num_steps), pace)
      watchdog.beat()
    due = plan.due(run.step)
    began = time.perf_counter()
    if due.epoch or due.evaluate:
      report(run, due)
    elif due.log:
      run.console.report(plan.position(run.step), metrics.divide(run.totals), None)
    run.spent["report"] += time.perf_counter() - began
    if due.save and run.step < plan.total:
      save(run)
      if draw and run.writes and run.config.log.figures == "full":
        draw(run.workdir, "train")
    watchdog.beat()


def dispatch(run: start.Run, target: int, pace: Pace) -> None:
  """Runs the steps up to `target` of one bucket that the data at hand has in one compiled call, and waits for them.

  Raises:
    preempt.NonFinite: the guard has halted the run.
  """
  source, feed = run.splits.train, run.feeds["train"]
  repeat = run.repeat(source.bucket(run.step))  # compiles what it meets first, and that is no training time
  began = time.perf_counter()
  num_steps = source.end_of_bucket(run.step, feed.end(run.step, target)) - run.step
  run.state, run.totals = repeat(run.state, run.totals, feed.data(run.step), np.int32(num_steps))
  feed.fetch_ahead()
  run.guard = jax.device_get(run.state.guard)  # the one host synchronisation of a dispatch
  seconds = time.perf_counter() - began
  if run.guard.stopped:
    raise nonfinite(run.guard, sorted(run.totals))
  if run.segment_steps == 0 and pace.first:
    run.facts.process(first_steps_done_after_seconds=time.time() - run.began)
    if run.writes:  # asks git: not before
      start.write_process(run.workdir, run.splits.meta)
  pace.took(num_steps, seconds)
  run.step += num_steps
  run.segment_seconds += seconds
  run.spent["train"] += seconds
  run.segment_steps += num_steps
  run.console.advance(num_steps)


def nonfinite(guard, names: list[str]) -> NonFinite:
  """What to say of a guard, on the host, that has halted a run whose metrics have these names, sorted."""
  cause = names[int(guard.cause)] if int(guard.cause) < len(names) else "the new state"
  return NonFinite(f"step {int(guard.first_bad)}: {cause} is not finite; halted at the state before it",
                   hint="--config.train.on_nonfinite=skip goes on without such steps")


def report(run: start.Run, due) -> None:
  """The end of an epoch or an evaluation: means, validation, observe, best, facts, a line."""
  means = metrics.divide(run.totals)
  val = evaluate_lib.evaluate_part(run, run.state, "val") if due.evaluate and run.splits.val else None
  named, improved = evaluate_lib.by_split(means, val), False
  if due.evaluate and run.experiment.observe is not None:
    run.state = jax.jit(run.experiment.observe)(run.state, {k: np.float32(v) for k, v in named.items()})
  if due.evaluate:
    improved = evaluate_lib.judge(run, named)
  evaluate_lib.write_report(run, means, val, due, improved)
  if due.epoch or run.plan.steps_per_epoch is None:
    run.totals = run.devices.put(step_lib.zero_totals(run.totals))
  if improved:
    run.best_copy, run.pending = None, None
    if run.workdir is None or not due.save:
      run.best_copy = start.copy_tree(run.state)
    if run.workdir and not due.save:
      trees = {"state": run.best_copy, "totals": start.copy_tree(run.totals)}
      run.pending = (run.step, trees, make_record(run))


def make_record(run: start.Run) -> dict:
  """What a checkpoint remembers beside the arrays; `value` ranks it, where it is the best so far of values that
  compare.
  """
  compares = run.best_step == run.step and not 0 <= run.epoch <= run.config.train.monitor_from_epoch > 0
  value = run.best_value if compares else None
  return {"value": value, "monitor": run.monitor, "best_step": run.best_step, "best_value": run.best_value,
          "num_bad_evals": run.num_bad_evals, "offsets": run.facts.offsets(), "run_id": run.facts.run_id,
          "metrics": jsonable.clean(run.last_means), "meta": run.splits.meta,
          "config_digest": run.config_digest}


def save(run: start.Run, in_facts: bool = True) -> None:
  """Saves the state, and before it a best state that is not written yet.

  A save that only a stop asked for is left out of the facts, which a run never stopped would not have.
  """
  if not run.checkpoints:
    return
  began = time.perf_counter()
  if in_facts:
    run.facts.event("on_checkpoint", epoch=run.epoch, step=run.step, best_step=run.best_step)
  now = (run.step, {"state": run.state, "totals": run.totals}, make_record(run))
  run.checkpoints.save(*([run.pending] if run.pending else []), now)
  run.pending = None
  run.saved_step = run.step
  run.spent["save"] += time.perf_counter() - began


def leave(run: start.Run, reason: StopReason) -> None:
  """Saves between two things due and raises preempt.Stopped."""
  if run.saved_step != run.step:
    save(run, in_facts=False)
  processes.on_first(lambda: run.checkpoints.wait() if run.checkpoints else None)  # none leaves before it is saved
  run.facts.process(stopped_by=str(reason), step=run.step)
  raise Stopped(f"{reason}: " + (f"saved at step {run.step:,}; the same command goes on" if run.workdir else
                                 f"left at step {run.step:,}; nothing saved without a workdir"))


def record_exception(run: start.Run, error: BaseException) -> None:
  """Leaves an on_exception fact for anything but an orderly stop."""
  if isinstance(error, Stopped):
    return
  try:
    run.facts.event("on_exception", epoch=run.epoch, step=run.step, error=type(error).__name__, message=str(error))
  except OSError as full:  # a full disk is often the error itself
    run.console.enabled = False
    print(f"jaxtrain: this failure could not be written to the facts: {full.strerror}")


def finish(run: start.Run) -> Result:
  """The end of a run: last checkpoint, the best state assessed, history."""
  if run.saved_step != run.step:
    save(run)
  if run.writes and not run.plan.total:  # no first dispatch has written it
    start.write_process(run.workdir, run.splits.meta)
  final = end_training(run)
  best = evaluate_lib.best_state(run)
  return conclude(run, final, best, evaluate_lib.evaluate_part(run, best, "test") if run.splits.test else None)


def end_training(run: start.Run) -> str:
  """Waits for the last save, writes the facts of the end, and returns the digest of the final state."""
  if run.checkpoints:
    run.checkpoints.wait()
  final = packing.digest(run.state)
  saver = {"saver_cpu": run.checkpoints.cpu_seconds,
           "orbax_import": run.checkpoints.import_seconds} if run.checkpoints else {}
  run.facts.process(seconds=run.spent | saver)
  run.facts.event("on_train_end", epoch=run.epoch, step=run.step, best_value=run.best_value, best_step=run.best_step,
                  stopped_early=run.stopped_early, digest=final, bad_steps=int(run.state.guard.num_bad),
                  total_time_s=time.time() - run.began)
  return final


def conclude(run: start.Run, final: str, best: Any, test: dict[str, float] | None) -> Result:
  """What the best state is worth, written down: its test metrics and assessment, the history, the last line."""
  if test is not None:
    where = {"epoch": run.epoch, "step": run.step, "split": "test"}
    run.facts.event("on_test_end", **where, **evaluate_lib.by_kind(run, test), best_step=run.best_step)
    run.facts.row(test, **where)
  history = reading.history(run.facts.events)
  if run.writes:
    jsonable.write_json(os.path.join(run.workdir, "history.json"), jsonable.clean(history))
    evaluate_lib.assess(run, packing.here(best))
  evaluate_lib.say_final(run, test)
  val_loss = run.last_means["val_loss"] if "val_loss" in run.last_means else None
  return Result(history, run.best_value, run.best_step, val_loss, test["loss"] if test and "loss" in test else None,
                run.workdir, run.state, final)


def evaluate(config: ConfigDict | None, workdir: str, init_from: str | None = None) -> None:
  """Assesses the best state of an existing run again (`--mode=eval`); no training, and the facts stay as they are.

  Args:
    config: None: the run's own.
    workdir: folder of the run.
    init_from: WORKDIR[@best|last|STEP] or a file of weights: a folder without a run first becomes one of no steps.

  Raises:
    UserError: the workdir holds no run, or one made with another config.
  """
  if config is None:
    config = config_lib.from_workdir(jsonable.read_json(os.path.join(workdir, "config.json")), workdir)
    flat = dict(jsonable.flatten(config))
    named = [name for field in CODE_FIELDS if field in flat for name in np.atleast_1d(flat[field]).tolist()]
    code = [name for name in named if "." in str(name)]
    if code:
      raise UserError(f"--config: required, because the run's config names code of your own, {code[0]}")
  config = config_lib.resolve(config)
  lock = Lock(workdir)
  try:
    folder = workdir
    if init_from:
      adopt(config, workdir, init_from)
    if config.stages:
      folder = records.last_stage(workdir)
      if folder == workdir:
        raise UserError(f"--workdir: {workdir!r} holds no checkpoint yet")
      k = int(os.path.basename(folder))
      config = config_lib.stage_config(config, config.stages[k], k)
    with start.open_run(config, folder, resume="required", init_from=None, origins=None, read_only=True) as run:
      best = evaluate_lib.best_state(run)
      evaluate_lib.say_final(run, evaluate_lib.evaluate_part(run, best, "test") if run.splits.test else None)
      evaluate_lib.assess(run, best)
  finally:
    lock.close()


def adopt(config: ConfigDict, workdir: str, init_from: str) -> None:
  """Makes a folder a run of no steps from another run's state or a file of weights; training may go on from there.

  Raises:
    UserError: the folder holds a run already, the config has stages, or the state does not fit.
  """
  if config.stages:
    raise UserError("--init_from: a config with stages cannot be assessed without training")
  with start.open_run(config, workdir, resume="never", init_from=init_from, origins=None) as run:
    start.write_process(workdir, run.splits.meta)
    save(run)
    run.checkpoints.wait()
    run.facts.event("on_train_end", epoch=run.epoch, step=0, best_value=None, best_step=None, stopped_early=False,
                    digest=packing.digest(run.state), bad_steps=0, total_time_s=time.time() - run.began)
    jsonable.write_json(os.path.join(workdir, "history.json"), {})


def check(config: ConfigDict) -> dict[str, Any]:
  """What a run of this config would be (`--mode=check`): traced and compiled, nothing computed, nothing written."""
  return setup.describe(config)
