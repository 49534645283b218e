"""What is measured of a run and written down: evaluation of parts, what is best, rows and events, the final assessment.

**Departs** from DESIGN 3, which lists no such module: it keeps `loop.py` short enough to read top to bottom.
"""

import math
import os
import resource
from typing import Any, Callable

import jax
import numpy as np

from jaxtrain import jsonable, rng, step as step_lib
from jaxtrain.errors import UserError
from jaxtrain.run import checkpoints, feed as feed_lib, metrics, packing, start


def evaluator(run: start.Run, part: str, bucket: int) -> tuple[Callable, Any]:
  """(compiled `evaluate` of `step.make_evaluate`, zero totals) of a part's bucket of shapes, made at first use."""
  if (part, bucket) not in run.evaluators:
    source = getattr(run.splits, part)
    if source.num_batches is None:
      raise UserError(f"experiment {run.config.experiment}: its {part} source must state num_batches")
    one, evaluate = step_lib.make_evaluate(run.experiment.eval_step, source.in_bucket(bucket), run.devices.over)
    key = rng.stream_key(run.state.key, "eval")
    if part not in run.feeds:
      run.feeds[part] = feed_lib.Feed(source, run.devices.put, run.devices.put_slices, key)
    totals = jax.eval_shape(run.devices.compile(one), run.state, source.data, key, np.int32(0))
    run.evaluators[part, bucket] = (run.devices.compile(evaluate), run.devices.put(step_lib.zero_totals(totals)))
  return run.evaluators[part, bucket]


def evaluate_part(run: start.Run, state, part: str) -> dict[str, float]:
  """Means of the evaluation metrics over a part."""
  source, key = getattr(run.splits, part), rng.stream_key(state.key, "eval")
  _, totals = evaluator(run, part, 0)
  step, feed = 0, run.feeds[part]
  while step < source.num_batches:
    evaluate, _ = evaluator(run, part, source.bucket(step))
    stop = source.end_of_bucket(step, feed.end(step, source.num_batches))
    totals = evaluate(state, totals, feed.data(step), key, np.int32(step), np.int32(stop))
    feed.fetch_ahead()
    step = stop
  return metrics.finish(totals, run.experiment.summarise)


def evaluated_names(run: start.Run) -> list[str]:
  """Names of the metrics that evaluating a part of this run gives."""
  parts = [part for part in ("val", "test") if getattr(run.splits, part) is not None]
  return list(metrics.finish(evaluator(run, parts[0], 0)[1], run.experiment.summarise)) if parts else []


def by_split(means: dict[str, float], val: dict[str, float] | None) -> dict[str, float]:
  """Metrics of training and validation by the names under which they are monitored."""
  return {f"train_{k}": v for k, v in means.items()} | {f"val_{k}": v for k, v in (val or {}).items()}


def judge(run: start.Run, named: dict[str, float]) -> bool:
  """Whether an evaluation is the best so far; the run remembers."""
  if run.monitor not in named:
    raise UserError(f"config.train.monitor: got {run.monitor!r}, allowed {', '.join(sorted(named))}")
  value, settings = named[run.monitor], run.config.train
  sign = 1 if settings.monitor_mode == "min" else -1
  annealing = run.best_step is not None and 0 <= run.plan.epoch(run.best_step) <= settings.monitor_from_epoch > 0
  progress = run.best_value is None or sign * value < sign * run.best_value - settings.min_delta
  improved = not math.isnan(value) and (annealing or progress)
  if improved:
    run.best_value, run.best_step, run.num_bad_evals = value, run.step, 0
  else:
    run.num_bad_evals += 1
  return improved


def best_state(run: start.Run) -> Any:
  """The best state, of process 0 on all."""
  return run.devices.put(start.of_first(run.state, lambda: own_best_state(run)))


def own_best_state(run: start.Run) -> Any:
  """The best state: from memory or its checkpoint; the current one where nothing was evaluated."""
  if run.best_copy is not None:
    return run.best_copy
  if run.best_step is None or run.best_step == run.step or not run.checkpoints:
    return run.state
  try:
    leaves, _ = checkpoints.read(run.checkpoints.folder, run.best_step)
  except UserError as error:
    run.console.say(f"jaxtrain: the best state is lost ({error}); the final one is assessed")
    return run.state
  return packing.fill(run.state, leaves, "state")


def assess(run: start.Run, state) -> None:
  """The experiment's heavy evaluation of a state, written to eval/<split>.json and .npz."""
  if run.experiment.assess is None:
    return
  folder = os.path.join(run.workdir, "eval")
  os.makedirs(folder, exist_ok=True)
  for name, (scalars, arrays) in run.experiment.assess(state, run.splits, rng.stream_key(state.key, "report")).items():
    jsonable.write_json(os.path.join(folder, f"{name}.json"),
                        {"split": name, "step": int(state.step), "scalars": jsonable.clean(scalars),
                         "meta": run.splits.meta})
    shown = [f"{key} {value:.4g}" for key, value in scalars.items()
             if "/" not in key and key != "rows" and not key.endswith("_ci95")]
    run.console.say(f"jaxtrain: assessed {name}, {scalars['rows']:,} rows: {', '.join(shown[:6])}"
                    if "rows" in scalars else
                    f"jaxtrain: assessed {name}: {', '.join(shown[:6])}")
    if run.config.log.save_artifacts:
      np.savez_compressed(os.path.join(folder, f"{name}.npz"), **arrays)


def write_report(run: start.Run, means, val, due, improved: bool) -> None:
  """Events, rows and a progress line of an epoch or an evaluation."""
  if not run.facts.metric_names:
    run.facts.declare_metrics(sorted(set(means) - {"lr", "grad_norm"} | set(run.evaluated or evaluated_names(run))))
  seconds, rows = run.segment_seconds, run.segment_steps * run.config.train.batch_size
  if due.epoch and run.segment_steps == run.plan.steps_per_epoch:
    rows = run.splits.train.num_rows
  throughput = rows / seconds if seconds > 0 else None
  timing = {"epoch_time_s": seconds, "throughput": throughput, "max_memory_mib": max_memory_mib()}
  where = {"epoch": run.epoch, "step": run.step}
  alarms = [f"{int(run.guard.num_bad)} steps left out as not finite"] * (int(run.guard.num_bad) > 0)
  if run.experiment.alarms is not None:
    found = run.experiment.alarms(by_split(means, val))
    alarms += found
    for text in found:
      run.console.say(f"jaxtrain: alarm: {text}")
  run.facts.event("on_epoch_end" if due.epoch else "on_eval", **where, split="train", **by_kind(run, means), **timing,
                  is_best=improved, alarms=alarms)
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
  if due.epoch or run.plan.steps_per_epoch is None:
    run.segment_seconds, run.segment_steps = 0.0, 0


def by_kind(run: start.Run, means: dict[str, float]) -> dict[str, dict[str, float]]:
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


def say_final(run: start.Run, test: dict[str, float] | None) -> None:
  """The final metrics, in a line."""
  parts = []
  if run.best_value is not None:
    first = run.config.train.monitor_from_epoch
    among = f" (compared from epoch {first + 1})" if 0 < first < run.plan.epoch(run.best_step) else ""
    parts.append(f"best {run.monitor} {run.best_value:.6g} at {run.plan.position(run.best_step)}{among}")
  parts += [f"test {name} {value:.6g}" for name, value in (test or {}).items()]
  run.console.say("jaxtrain: " + ("; ".join(parts) or "nothing evaluated"))
