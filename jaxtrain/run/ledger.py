"""The books of a run: where it is, what is best, what was spent; facts, records and printed lines follow from them.

One run has one ledger; a sweep that trains its members as one program has one for each member. A ledger is told
metrics on the host and knows nothing of how they came about.
"""

import dataclasses
import functools
import math
import os
import time
from typing import Any

import jax
import numpy as np

from jaxtrain import config as config_lib, jsonable, streams
from jaxtrain.devices import backend, processes
from jaxtrain.errors import NonFinite, Stopped, UserError
from jaxtrain.run import cadence
from jaxtrain.run.console import SHOWN, Console
from jaxtrain.types import Experiment, Guard, Splits
from jaxtrain.workdir import jsonfile, provenance, quality, reading
from jaxtrain.workdir.facts import Facts

OPTIMISER = ("lr", "grad_norm")  # metrics with columns of their own


@dataclasses.dataclass
class Ledger:
  """What is known of a run on the host. The first block is fixed, the second moves with training."""
  config: Any
  workdir: str | None
  splits: Splits
  experiment: Experiment
  plan: cadence.Plan
  facts: Facts
  console: Console
  began: float  # time.time() at the start of this process's part
  sample: dict[str, Any] = dataclasses.field(default_factory=dict)  # name -> [dtype, shape] of what `init` was shown
  meanings: dict[str, str] = dataclasses.field(default_factory=dict)  # of the fields of the config file, by dotted key

  step: int = 0
  best_value: float | None = None
  best_step: int | None = None
  num_bad_evals: int = 0  # evaluations since the best
  saved_step: int | None = None
  last_means: dict[str, float] = dataclasses.field(default_factory=dict)
  alarmed: set[str] = dataclasses.field(default_factory=set)  # alarms of the experiment that were printed
  guard: Guard | None = None  # what the state's guard had seen after the last dispatch, on the host
  evaluated: tuple[str, ...] = ()  # names of the metrics that an evaluation gives
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

  @property
  def num_bad(self) -> int:
    """Steps left out as not finite, over all members of an ensemble."""
    return 0 if self.guard is None else int(np.sum(self.guard.num_bad))

  def took(self, num_steps: int, seconds: float) -> None:
    """Adds steps and the time they took."""
    self.step += num_steps
    self.segment_seconds += seconds
    self.segment_steps += num_steps
    self.spent["train"] += seconds

  @property
  def is_compared(self) -> bool:
    """Whether what is reported now competes for the best; the end of a run does too where nothing else has."""
    return self.plan.judges(self.step, self.monitor) or self.step == self.plan.total and self.best_step is None

  def judge(self, named: dict[str, float]) -> bool:
    """Whether a report is the best so far; the ledger remembers. Raises UserError for an unknown monitor."""
    if not self.is_compared:
      return False
    if self.monitor not in named:
      raise UserError(f"config.train.monitor: got {self.monitor!r}, allowed {', '.join(sorted(named))}")
    value, settings = named[self.monitor], self.config.train
    sign = 1 if settings.monitor_mode == "min" else -1
    annealing = self.best_step is not None and 0 <= self.plan.epoch(self.best_step) <= settings.monitor_from_epoch > 0
    progress = self.best_value is None or sign * value < sign * self.best_value - settings.min_delta
    improved = not math.isnan(value) and (annealing or progress)
    if improved:
      self.best_value, self.best_step, self.num_bad_evals = value, self.step, 0
    else:
      self.num_bad_evals += 1
    return improved

  def record(self) -> dict[str, Any]:
    """What a checkpoint remembers beside the arrays; `value` ranks it, where it is the best so far of values that
    compare.
    """
    compares = (self.best_step == self.step and self.plan.judges(self.step, self.monitor)
                and not 0 <= self.epoch <= self.config.train.monitor_from_epoch > 0)
    return {"epoch": self.epoch, "value": self.best_value if compares else None, "monitor": self.monitor,
            "best_step": self.best_step, "best_value": self.best_value, "num_bad_evals": self.num_bad_evals,
            "offsets": self.facts.offsets(), "run_id": self.facts.run_id, "metrics": jsonable.clean(self.last_means),
            "meta": self.splits.meta, "sample": self.sample, "config_digest": self.config_digest}

  def recall(self, step: int, record: dict[str, Any], writes: bool) -> None:
    """Goes back to what the checkpoint of a step remembers, and cuts the facts back to it where they are written."""
    if writes:
      self.facts.cut(record["offsets"])
    self.facts.run_id = record["run_id"]
    self.step = self.saved_step = step
    value = record["best_value"]  # words where it is not finite
    self.best_value = None if value is None else float(value)
    self.best_step, self.num_bad_evals = record["best_step"], record["num_bad_evals"]
    if self.best_step == step < self.plan.total and not self.plan.judges(step, self.monitor):
      self.best_value, self.best_step = None, None  # the best for want of another, when the run was to end here
    self.last_means = {name: float(value) for name, value in record["metrics"].items()}

  def declared_metrics(self) -> dict[str, dict]:
    """What the experiment's module says of its metrics, by name or pattern."""
    metrics = config_lib.declared(config_lib.load_experiment(self.config.experiment), "METRICS")
    return {name: metric._asdict() for name, metric in metrics.items()}

  def start(self, num_params: int, init_from: str | None) -> None:
    """Empties the facts of a run that never reached a checkpoint, and writes on_start."""
    self.facts.start_fresh()
    self.facts.event("on_start", epoch=self.epoch, step=self.step, config_digest=self.config_digest,
                     experiment=self.config.experiment, seed=self.config.seed, parameters=num_params,
                     num_steps=self.plan.total, steps_per_epoch=self.plan.steps_per_epoch,
                     batch_size=self.config.train.batch_size, init_from=init_from,
                     metrics=self.declared_metrics())

  def report(self, means: dict[str, float], val: dict[str, float] | None, due: cadence.Due, improved: bool) -> None:
    """Events, rows and a progress line of an epoch or an evaluation."""
    if not self.facts.metric_names:
      self.facts.declare_metrics(sorted(set(means) - set(OPTIMISER) | set(self.evaluated)))
    seconds, rows = self.segment_seconds, self.segment_steps * self.config.train.batch_size
    if due.epoch and self.segment_steps == self.plan.steps_per_epoch:
      rows = self.splits.train.num_rows
    throughput = rows / seconds if seconds > 0 else None
    timing = {"epoch_time_s": seconds, "throughput": throughput, "max_memory_mib": backend.max_memory_mib()}
    where = {"epoch": self.epoch, "step": self.step}
    moment = "on_epoch_end" if due.epoch else "on_eval"
    self.facts.event(moment, **where, split="train", **self.by_kind(means), **timing, is_best=improved,
                     alarms=self.alarms(means, val))
    self.facts.row({k: v for k, v in means.items() if k not in OPTIMISER}, **where, split="train",
                   train_loss=means["loss"], lr=optional(means, "lr"), grad_norm=optional(means, "grad_norm"), **timing)
    self.last_means = dict(means)
    if val is not None:
      self.facts.event("on_eval", **where, split="val", **self.by_kind(val), is_best=improved)
      self.facts.row(val, **where, split="val", val_loss=optional(val, "loss"))
      self.last_means |= {f"val_{k}": v for k, v in val.items()}
    self.show(means, val, throughput)
    if self.plan.closes(self.step):
      self.segment_seconds, self.segment_steps = 0.0, 0

  def alarms(self, means: dict[str, float], val: dict[str, float] | None) -> list[str]:
    """What is wrong with a report: steps and members that are not finite, and what the experiment watches for."""
    found = [f"{self.num_bad} steps left out as not finite"] * (self.num_bad > 0)
    if not is_finite(val):
      found.append("val_loss is not finite")
      self.console.say(f"jaxtrain: alarm: {found[-1]}")
    if self.guard is not None and np.ndim(self.guard.stopped):
      first_bad = self.guard.first_bad
      found += [f"member {k} halted at step {int(first_bad[k])}" for k in np.flatnonzero(self.guard.stopped)]
    if self.experiment.alarms is not None:
      own = self.experiment.alarms(by_split(means, val))
      for text in own:
        if text not in self.alarmed:
          self.console.say(f"jaxtrain: alarm: {text}")
      self.alarmed |= set(own)
      found += own
    return found

  def show(self, means: dict[str, float], val: dict[str, float] | None, throughput: float | None) -> None:
    """The progress line of a report: the losses, what is monitored, and where nothing is validated, or with
    `log.verbose`, the terms.
    """
    shown = dict(means)
    if self.splits.val is not None and not self.config.log.verbose:
      shown = {"loss": means["loss"]} | {f"val_{k}": v for k, v in sorted((val or {}).items())}
    terms = list(self.config.loss.weights) if "weights" in self.config.loss else []
    first = ["loss", "val_loss", self.monitor.removeprefix("train_"), *terms]
    first += [f"val_{name}" for name in self.declared_metrics()]
    ordered = sorted(shown, key=lambda name: first.index(name) if name in first else len(first))
    self.console.report(self.plan.position(self.step), self.step, {name: shown[name] for name in ordered}, throughput)

  def by_kind(self, means: dict[str, float]) -> dict[str, dict[str, float]]:
    """Means as `losses` (the total and the terms that have weights) and `metrics` (the rest)."""
    terms = {"loss"} | (set(self.config.loss.weights) if "weights" in self.config.loss else set())
    return {"losses": {k: v for k, v in means.items() if k in terms},
            "metrics": {k: v for k, v in means.items() if k not in terms}}

  def check_finite(self, names: list[str]) -> None:
    """Raises NonFinite where the guard has halted the run, whose metrics have these names, sorted."""
    if not np.all(self.guard.stopped):
      return
    last = int(np.argmax(np.ravel(self.guard.first_bad)))  # of an ensemble, the member that went on longest
    cause, step = int(np.ravel(self.guard.cause)[last]), int(np.ravel(self.guard.first_bad)[last])
    what = names[cause] if cause < len(names) else "the new state"
    raise NonFinite(f"step {step}: {what} is not finite; halted at the state before it",
                    hint="--config.train.on_nonfinite=skip goes on without such steps")

  def check_evaluation(self, val: dict[str, float] | None) -> None:
    """Raises NonFinite where a validation loss is not finite and the run is to halt then."""
    if self.config.train.on_nonfinite == "halt" and not is_finite(val):
      raise NonFinite(f"step {self.step}: val_loss is not finite; halted after this evaluation",
                      hint="--config.train.on_nonfinite=skip goes on")

  def fail(self, error: BaseException) -> None:
    """Leaves an on_exception fact for anything but an orderly stop."""
    if isinstance(error, Stopped):
      return
    try:
      self.facts.event("on_exception", epoch=self.epoch, step=self.step, error=type(error).__name__, message=str(error))
    except OSError as full:  # a full disk is often the error itself
      self.console.enabled = False
      streams.say(f"jaxtrain: this failure could not be written to the facts: {full.strerror}")

  def end_training(self, digest: str, **spent: float) -> None:
    """Writes the facts of the end of training; `spent` is more of what seconds went into."""
    self.facts.process(seconds=self.spent | spent)
    self.facts.event("on_train_end", epoch=self.epoch, step=self.step, best_value=self.best_value,
                     best_step=self.best_step, stopped_early=self.stopped_early, digest=digest, bad_steps=self.num_bad,
                     total_time_s=time.time() - self.began)

  def end(self, test: dict[str, float] | None, step: int) -> dict[str, list]:
    """Writes the test metrics of the best state, which is of this step, and the history, which it returns."""
    if test is not None:
      where = {"epoch": self.plan.epoch(step), "step": step, "split": "test"}
      self.facts.event("on_test_end", **where, **self.by_kind(test), best_step=self.best_step)
      self.facts.row(test, **where)
    history = reading.history(self.facts.events)
    if self.writes:
      jsonfile.write_json(os.path.join(self.workdir, "history.json"), jsonable.clean(history))
    return history

  def say_final(self, test: dict[str, float] | None) -> None:
    """The final metrics, in a line."""
    parts = []
    if self.best_value is not None:
      first = self.config.train.monitor_from_epoch
      among = f" (compared from epoch {first + 1})" if 0 < first < self.plan.epoch(self.best_step) else ""
      parts.append(f"best {self.monitor} {self.best_value:.6g} at {self.plan.position(self.best_step)}{among}")
    said = self.declared_metrics()
    names = sorted(test or (), key=lambda name: (name != "loss", not (name in said and said[name]["key"])))
    parts += [f"test {name} {test[name]:.6g}" for name in names[:SHOWN]]
    parts += [f"{len(names) - SHOWN} more in facts/scalars.csv"] * (len(names) > SHOWN and self.workdir is not None)
    self.console.say("jaxtrain: " + ("; ".join(parts) or "nothing evaluated"))
    if self.monitor.startswith("val_") and not self.plan.is_regular(self.step):
      best = reading.Best(self.monitor, self.best_value, self.best_step)
      end = best._replace(value=optional(self.last_means, self.monitor), step=self.step)
      if words := quality.say_better_end(best, end, self.config.train.monitor_mode):
        self.console.say(f"jaxtrain: {words}")

  def write_process(self) -> None:
    """Writes run.json; not before the first steps are done, because it asks git."""
    write_process(self.workdir, self.splits.meta, self.meanings)

  def close(self) -> None:
    """Closes facts and console."""
    self.facts.close()
    self.console.close()


def write_process(workdir: str, meta: dict[str, Any], meanings: dict[str, str]) -> None:
  """Writes run.json of a run with such data and such meanings of its fields, which this process trains."""
  provenance.write_process(workdir, [str(device) for device in jax.devices()], meta, meanings)


def is_finite(val: dict[str, float] | None) -> bool:
  """Whether the loss of an evaluation is finite, where there is one."""
  return val is None or "loss" not in val or math.isfinite(val["loss"])


def by_split(means: dict[str, float], val: dict[str, float] | None) -> dict[str, float]:
  """Metrics of training and validation by the names under which they are monitored."""
  return {f"train_{k}": v for k, v in means.items()} | {f"val_{k}": v for k, v in (val or {}).items()}


def optional(means: dict[str, float], name: str) -> float | None:
  """A metric that not every experiment has."""
  return means[name] if name in means else None
