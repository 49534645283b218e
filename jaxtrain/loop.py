"""The one loop: run to the next thing due, evaluate, observe, best, facts, save, stop.

It knows `state.step` and nothing of what a step does. Position in a run is that one integer; metrics of a started epoch are
carried on the device and saved with the state, so that no stop and no split into dispatches changes a reported bit.

The best state is kept in memory when it appears and written with the next checkpoint. A run killed in between repeats the
same steps and finds the same best again, so nothing is lost and improvements cost no saves of their own.
"""

import math
import os
import resource
import time
from typing import Any, Callable, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxtrain import checkpoint, config as config_lib, facts as facts_lib, metrics as metrics_lib, preempt, rng, runs
from jaxtrain import step as step_lib, workdir as workdir_lib
from jaxtrain.types import UserError


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
  lock = preempt.Lock(workdir) if workdir else None
  try:
    if config.stages:
      return train_stages(config, workdir, resume, init_from, origins, draw)
    return train_one(config, workdir, draw, resume=resume, init_from=init_from, origins=origins)
  finally:
    if lock:
      lock.close()


def train_stages(config, workdir, resume, init_from, origins, draw) -> Result:
  """Runs `config.stages` one after the other, each in stages/<k>/ from the best state of the one before."""
  if workdir is None:
    raise UserError("config.stages: a run with stages needs a workdir, because each starts from the files of the one before")
  stages = [config_lib.stage_config(config, stage, k) for k, stage in enumerate(config.stages)]
  config, _ = runs.claim(config, workdir, resume)
  workdir_lib.write_json(os.path.join(workdir, "config.json"), config_lib.to_record(config) | {"origins": origins or {}})
  for k, stage in enumerate(stages):
    settings = config.stages[k]
    carry = "all" if "carry_optimizer" in settings and settings["carry_optimizer"] else "params"
    source = os.path.join(workdir, "stages", str(k - 1)) + "@best" if k else init_from
    result = train_one(stage, os.path.join(workdir, "stages", str(k)), draw, resume="auto", init_from=source, origins=origins,
                       stage=k, carry=carry if k else "")
  return result._replace(workdir=workdir)


def train_one(config, workdir, draw, **options) -> Result:
  """One run from its start or its newest checkpoint to its end."""
  with runs.open_run(config, workdir, **options) as run:
    watchdog = preempt.Watchdog(config.parallel.watchdog_seconds)
    try:
      with preempt.Stop(config.train.time_budget_minutes) as stop:
        fit(run, stop, watchdog, draw)
      return finish(run)
    except BaseException as error:
      record_exception(run, error)
      raise
    finally:
      watchdog.close()


def fit(run: runs.Run, stop: preempt.Stop, watchdog: preempt.Watchdog, draw) -> None:
  """Trains until the last step, an early stop, or a request to leave."""
  plan, pace = run.plan, Pace()
  run.console.start(run.step, plan.total, plan.steps_per_epoch)
  while run.step < plan.total and not run.stopped_early:
    target = plan.next_due(run.step)
    while run.step < target:
      dispatch(run, min(target - run.step, pace.num_steps()), pace)
      watchdog.beat()
      if stop.reason() and run.step < plan.total:
        leave(run, stop.reason())
    due = plan.due(run.step)
    if due.epoch or due.evaluate:
      report(run, due)
    elif due.log:
      run.console.report(plan.position(run.step), metrics_lib.divide(run.totals), None)
    if due.save and run.step < plan.total:
      save(run)
      if draw and run.workdir and run.config.log.figures == "full":
        draw(run.workdir, "train")


def dispatch(run: runs.Run, num_steps: int, pace: "Pace") -> None:
  """Runs steps in one compiled call and waits for them. Raises preempt.NonFinite where the guard has halted the run."""
  began = time.perf_counter()
  run.state, run.totals = run.repeat(run.state, run.totals, run.data["train"], np.int32(num_steps))
  guard = jax.device_get(run.state.guard)  # the one host synchronisation of a dispatch
  seconds = time.perf_counter() - began
  if guard.stopped:
    names = sorted(run.totals)
    cause = names[int(guard.cause)] if int(guard.cause) < len(names) else "the new state"
    raise preempt.NonFinite(f"step {int(guard.first_bad)}: {cause} is not finite; halted at the state before it "
                            "(--config.train.on_nonfinite=skip goes on without such steps)")
  if run.segment_steps == 0 and pace.first:
    run.facts.process(first_steps_done_after_seconds=time.time() - run.began)
  pace.took(num_steps, seconds)
  run.step += num_steps
  run.segment_seconds += seconds
  run.segment_steps += num_steps
  run.console.advance(num_steps)


def report(run: runs.Run, due) -> None:
  """The end of an epoch or an evaluation: means, validation, observe, best, facts, a line."""
  means = metrics_lib.divide(run.totals)
  val = evaluate_part(run, run.state, "val") if due.evaluate and run.splits.val else None
  improved = judge(run, means, val) if due.evaluate else False
  write_report(run, means, val, due, improved)
  if due.epoch or run.plan.steps_per_epoch is None:
    run.totals = run.devices.put(step_lib.zero_totals(run.totals))
  if improved:
    run.best_copy, run.pending = None, None
    if run.workdir is None or not due.save:
      run.best_copy = runs.copy_tree(run.state)
    if run.workdir and not due.save:
      trees = {"state": run.best_copy, "totals": runs.copy_tree(run.totals)}
      run.pending = (run.step, trees, make_record(run, run.best_value))


def judge(run: runs.Run, means: dict[str, float], val: dict[str, float] | None) -> bool:
  """Feeds an evaluation back into training, and says whether it is the best so far."""
  named = {f"train_{k}": v for k, v in means.items()} | {f"val_{k}": v for k, v in (val or {}).items()}
  if run.experiment.observe is not None:
    run.state = jax.jit(run.experiment.observe)(run.state, {k: np.float32(v) for k, v in named.items()})
  if run.monitor not in named:
    raise UserError(f"config.train.monitor: got {run.monitor!r}, allowed {', '.join(sorted(named))}")
  value, delta = named[run.monitor], run.config.train.min_delta
  sign = 1 if run.config.train.monitor_mode == "min" else -1
  improved = not math.isnan(value) and (run.best_value is None or sign * value < sign * run.best_value - delta)
  if improved:
    run.best_value, run.best_step, run.num_bad_evals = value, run.step, 0
  else:
    run.num_bad_evals += 1
  return improved


def write_report(run: runs.Run, means, val, due, improved: bool) -> None:
  """Events, rows and a progress line of an epoch or an evaluation."""
  if not run.facts.metric_names:
    run.facts.declare_metrics(sorted(set(means) - {"lr", "grad_norm"} | set(evaluated_names(run))))
  seconds, rows = run.segment_seconds, run.segment_steps * run.config.train.batch_size
  if due.epoch and run.segment_steps == run.plan.steps_per_epoch:
    rows = run.splits.train.num_rows
  throughput = rows / seconds if seconds > 0 else None
  timing = {"epoch_time_s": seconds, "throughput": throughput, "max_memory_mib": max_memory_mib()}
  where = {"epoch": run.epoch, "step": run.step}
  bad = int(run.state.guard.num_bad)
  run.facts.event("on_epoch_end" if due.epoch else "on_eval", **where, split="train", **by_kind(run, means), **timing,
                  is_best=improved, alarms=[f"{bad} steps left out as not finite"] if bad else [])
  run.facts.row({k: v for k, v in means.items() if k not in ("lr", "grad_norm")}, **where, split="train",
                train_loss=means["loss"], lr=optional(means, "lr"), grad_norm=optional(means, "grad_norm"), **timing)
  run.last_means = dict(means)
  shown = dict(means)
  if val is not None:
    run.facts.event("on_eval", **where, split="val", **by_kind(run, val), is_best=improved)
    run.facts.row(val, **where, split="val", val_loss=optional(val, "loss"))
    run.last_means |= {f"val_{k}": v for k, v in val.items()}
    shown = {"loss": means["loss"], **{f"val_{k}": v for k, v in sorted(val.items(), key=lambda kv: kv[0] != "loss")}}
  first = ("loss", *run.config.loss.weights) if "weights" in run.config.loss else ("loss",)
  ordered = sorted(shown.items(), key=lambda kv: first.index(kv[0]) if kv[0] in first else len(first))
  run.console.report(run.plan.position(run.step), dict(ordered), throughput)
  run.segment_seconds, run.segment_steps = 0.0, 0


def by_kind(run: runs.Run, means: dict[str, float]) -> dict[str, dict[str, float]]:
  """Means as `losses` (the total and the terms that have weights) and `metrics` (the rest)."""
  terms = {"loss"} | (set(run.config.loss.weights) if "weights" in run.config.loss else set())
  return {"losses": {k: v for k, v in means.items() if k in terms},
          "metrics": {k: v for k, v in means.items() if k not in terms}}


def optional(means: dict[str, float], name: str) -> float | None:
  """A metric that not every experiment has."""
  return means[name] if name in means else None


def max_memory_mib() -> float:
  """Peak memory: of the first device where it keeps count, else of the process."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if "peak_bytes_in_use" in stats:
    return stats["peak_bytes_in_use"] / 2**20
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def evaluator(run: runs.Run, part: str) -> Callable:
  """`(state, data, key) -> totals` over one pass of a part, compiled at first use."""
  if part not in run.evaluators:
    source = getattr(run.splits, part)
    if source.num_batches is None:
      raise UserError(f"experiment {run.config.experiment}: its {part} source must state num_batches")
    run.data[part] = run.devices.put(source.data)
    run.evaluators[part] = run.devices.compile(step_lib.make_evaluate(run.experiment.eval_step, source, run.devices.over))
  return run.evaluators[part]


def evaluate_part(run: runs.Run, state, part: str) -> dict[str, float]:
  """Means of the evaluation metrics over a part."""
  totals = evaluator(run, part)(state, run.data[part], rng.stream_key(state.key, "eval"))
  return metrics_lib.finish(totals, run.experiment.summarise)


def evaluated_names(run: runs.Run) -> list[str]:
  """Names of the metrics that evaluating a part of this run gives."""
  parts = [part for part in ("val", "test") if getattr(run.splits, part) is not None]
  if not parts:
    return []
  compiled = evaluator(run, parts[0])
  totals = jax.eval_shape(compiled, run.state, run.data[parts[0]], rng.stream_key(run.state.key, "eval"))
  zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), totals)
  return list(metrics_lib.finish(zeros, run.experiment.summarise))


def make_record(run: runs.Run, value: float | None) -> dict:
  """What a checkpoint remembers beside the arrays."""
  return {"value": value, "monitor": run.monitor, "best_step": run.best_step, "best_value": run.best_value,
          "num_bad_evals": run.num_bad_evals, "offsets": run.facts.offsets(), "run_id": run.facts.run_id,
          "metrics": facts_lib.clean(run.last_means), "meta": run.splits.meta,
          "config_digest": config_lib.digest(run.config)}


def save(run: runs.Run, in_facts: bool = True) -> None:
  """Saves the state, and before it a best state that is not written yet.

  A save that only a stop asked for is left out of the facts, which a run never stopped would not have.
  """
  if not run.checkpoints:
    return
  if in_facts:
    run.facts.event("on_checkpoint", epoch=run.epoch, step=run.step, best_step=run.best_step)
  if run.pending:
    run.checkpoints.save(*run.pending)
    run.pending = None
  value = run.best_value if run.best_step == run.step else None
  run.checkpoints.save(run.step, {"state": run.state, "totals": run.totals}, make_record(run, value))
  run.saved_step = run.step


def leave(run: runs.Run, reason: str) -> None:
  """Saves between two things due and raises preempt.Stopped."""
  save(run, in_facts=False)
  if run.checkpoints:
    run.checkpoints.wait()
  run.facts.process(stopped_by=reason, step=run.step)
  raise preempt.Stopped(f"{reason}: " + (f"saved at step {run.step:,}; the same command goes on" if run.workdir else
                                         f"left at step {run.step:,}; nothing saved without a workdir"))


def record_exception(run: runs.Run, error: BaseException) -> None:
  """Leaves an on_exception fact for anything but an orderly stop."""
  if isinstance(error, preempt.Stopped):
    return
  try:
    run.facts.event("on_exception", epoch=run.epoch, step=run.step, error=type(error).__name__, message=str(error))
  except OSError as full:  # a full disk is often the error itself
    run.console.enabled = False
    print(f"jaxtrain: this failure could not be written to the facts: {full.strerror}")


def best_state(run: runs.Run) -> Any:
  """The best state: from memory or its checkpoint; the current one where nothing was evaluated."""
  if run.best_copy is not None:
    return run.best_copy
  if run.best_step is None or run.best_step == run.step or not run.checkpoints:
    return run.state
  leaves, _ = run.checkpoints.read(run.best_step)
  return run.devices.put(checkpoint.fill(run.state, leaves, "state"))


def finish(run: runs.Run) -> Result:
  """The end of a run: last checkpoint, the best state assessed, history."""
  if run.saved_step != run.step:
    save(run)
  if run.checkpoints:
    run.checkpoints.wait()
  final = checkpoint.digest(run.state)
  run.facts.event("on_train_end", epoch=run.epoch, step=run.step, best_value=run.best_value, best_step=run.best_step,
                  stopped_early=run.stopped_early, digest=final, bad_steps=int(run.state.guard.num_bad),
                  total_time_s=time.time() - run.began)
  best = best_state(run)
  test = evaluate_part(run, best, "test") if run.splits.test else None
  if test is not None:
    where = {"epoch": run.epoch, "step": run.step, "split": "test"}
    run.facts.event("on_test_end", **where, **by_kind(run, test), best_step=run.best_step)
    run.facts.row(test, **where)
  history = facts_lib.history(run.facts.events)
  if run.workdir:
    workdir_lib.write_json(os.path.join(run.workdir, "history.json"), history)
    assess(run, best)
  say_final(run, test)
  val_loss = run.last_means["val_loss"] if "val_loss" in run.last_means else None
  return Result(history, run.best_value, run.best_step, val_loss, test["loss"] if test and "loss" in test else None,
                run.workdir, run.state, final)


def assess(run: runs.Run, state) -> None:
  """The experiment's heavy evaluation of a state, written to eval/<split>.json and .npz."""
  if run.experiment.assess is None:
    return
  folder = os.path.join(run.workdir, "eval")
  os.makedirs(folder, exist_ok=True)
  for name, (scalars, arrays) in run.experiment.assess(state, run.splits, rng.stream_key(state.key, "report")).items():
    workdir_lib.write_json(os.path.join(folder, f"{name}.json"),
                           {"split": name, "step": int(state.step), "scalars": facts_lib.clean(scalars),
                            "meta": run.splits.meta})
    if run.config.log.save_artifacts:
      np.savez_compressed(os.path.join(folder, f"{name}.npz"), **arrays)


def say_final(run: runs.Run, test: dict[str, float] | None) -> None:
  """The final metrics, in a line."""
  parts = [f"best {run.monitor} {run.best_value:.6g} at {run.plan.position(run.best_step)}"] if run.best_value is not None else []
  parts += [f"test {name} {value:.6g}" for name, value in (test or {}).items()]
  run.console.say("jaxtrain: " + ("; ".join(parts) or "nothing evaluated"))


def evaluate(config: ConfigDict, workdir: str) -> None:
  """Assesses the best state of an existing run again (`--mode=eval`); no training, and the facts stay as they are.

  Raises:
    UserError: the workdir holds no run, or one made with another config.
  """
  config = config_lib.resolve(config)
  lock = preempt.Lock(workdir)
  try:
    folder = workdir
    if config.stages:
      config = config_lib.stage_config(config, config.stages[-1], len(config.stages) - 1)
      folder = workdir_lib.last_stage(workdir)
    with runs.open_run(config, folder, resume="required", init_from=None, origins=None, read_only=True) as run:
      best = best_state(run)
      say_final(run, evaluate_part(run, best, "test") if run.splits.test else None)
      assess(run, best)
  finally:
    lock.close()


class Pace:
  """Steps per dispatch: near one second of measured step time, so that a stop is honoured soon."""

  def __init__(self, seconds: float = 1.0):
    self.seconds, self.limit, self.first = seconds, 1, True

  def num_steps(self) -> int:
    """The most steps for the next dispatch."""
    return self.limit

  def took(self, num_steps: int, seconds: float) -> None:
    """Learns from a dispatch; grows at most eightfold at once, because first calls are slow and short ones noisy."""
    fitting = int(num_steps * self.seconds / max(seconds, 1e-9))
    self.limit, self.first = max(1, min(fitting, self.limit * 8, 1 << 20)), False
