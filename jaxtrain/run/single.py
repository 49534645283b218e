"""One run in training: its state on the devices and its ledger, as the loop drives it."""

import dataclasses
import shlex
import time
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import step as step_lib
from jaxtrain.devices import parallel, processes
from jaxtrain.errors import NonFinite, StopReason, Stopped, UserError
from jaxtrain.run import cadence, checkpoints as checkpoints_lib, evaluate, feed, metrics, packing, stops
from jaxtrain.run.ledger import Ledger, by_split
from jaxtrain.types import Experiment, Splits
from jaxtrain.workdir import records


@dataclasses.dataclass
class Run:
  """Everything the loop needs of one run. The first block is fixed, the second moves with training."""
  ledger: Ledger
  devices: parallel.Parallel
  checkpoints: checkpoints_lib.Checkpoints | None = None
  repeat: Callable[[int], Callable] | None = None  # bucket -> the compiled call of many steps, made at first use
  feeds: dict[str, feed.Feed] = dataclasses.field(default_factory=dict)  # part -> its data on the devices
  evaluators: dict = dataclasses.field(default_factory=dict)  # (part, bucket) -> evaluation, zero totals; at first use

  state: Any = None
  totals: Any = None  # metric sums of the started epoch
  best_copy: Any = None  # the best state in memory; None: it is in a checkpoint
  taken: str = ""  # what a fresh state took over from another run, in words
  pending: tuple[int, dict, dict] | None = None  # (step, trees, record) of a best that is not written yet

  @property
  def config(self) -> Any:
    """The run's config."""
    return self.ledger.config

  @property
  def splits(self) -> Splits:
    """The run's data."""
    return self.ledger.splits

  @property
  def experiment(self) -> Experiment:
    """The run's pure functions."""
    return self.ledger.experiment

  @property
  def plan(self) -> cadence.Plan:
    """What is due when."""
    return self.ledger.plan

  @property
  def step(self) -> int:
    """Completed steps."""
    return self.ledger.step

  @property
  def goes_on(self) -> bool:
    """Whether training goes on: patience has not run out."""
    return not self.ledger.stopped_early

  def dispatch(self, target: int, pace: cadence.Pace) -> None:
    """Runs the steps up to `target` of one bucket that the data at hand has in one compiled call, and waits for them.

    Raises:
      NonFinite: the guard has halted the run.
    """
    ledger, source, fed = self.ledger, self.splits.train, self.feeds["train"]
    repeat = self.repeat(source.bucket(self.step))  # compiles what it meets first, and that is no training time
    began = time.perf_counter()
    num_steps = source.end_of_bucket(self.step, fed.end(self.step, target)) - self.step
    self.state, self.totals = repeat(self.state, self.totals, fed.data(self.step), np.int32(num_steps))
    fed.fetch_ahead()
    ledger.guard = jax.device_get(self.state.guard)  # the one host synchronisation of a dispatch
    seconds = time.perf_counter() - began
    ledger.check_finite(sorted(self.totals))
    if ledger.segment_steps == 0 and pace.first:
      ledger.facts.process(first_steps_done_after_seconds=time.time() - ledger.began)
      self.write_process()
    pace.took(num_steps, seconds)
    ledger.took(num_steps, seconds)
    ledger.console.advance(num_steps)

  def write_process(self) -> None:
    """Writes run.json, where this process writes the run's files."""
    if self.ledger.writes:
      self.ledger.write_process()

  def log(self) -> None:
    """A progress line between reports."""
    self.ledger.show(metrics.divide(self.totals), None, None)

  def report(self, due: cadence.Due) -> None:
    """The end of an epoch or an evaluation: means, validation, observe, best, facts, a line."""
    ledger, began = self.ledger, time.perf_counter()
    means = metrics.finish(self.totals, self.experiment.summarise)
    val = evaluate.evaluate_part(self, self.state, "val") if due.evaluate and self.splits.val else None
    named = by_split(means, val)
    if self.plan.is_regular(self.step) and self.experiment.observe is not None:
      self.state = jax.jit(self.experiment.observe)(self.state, {k: np.float32(v) for k, v in named.items()})
    improved = ledger.judge(named)
    if not ledger.facts.metric_names:
      ledger.evaluated = evaluate.evaluated_names(self)
    ledger.report(means, val, due, improved)
    if self.plan.closes(self.step):
      self.totals = self.devices.put(step_lib.zero_totals(self.totals))
    if improved:
      self.keep_best(due.save)
    ledger.spent["report"] += time.perf_counter() - began
    ledger.check_evaluation(val)

  def keep_best(self, saved_next: bool) -> None:
    """Keeps the state as the best: in memory, and to be written with the next checkpoint if that is not this one."""
    self.best_copy, self.pending = None, None
    if self.ledger.workdir is None or not saved_next:
      self.best_copy = copy_tree(self.state)
    if self.ledger.workdir and not saved_next:
      trees = {"state": self.best_copy, "totals": copy_tree(self.totals)}
      self.pending = (self.step, trees, self.ledger.record())

  def save(self, in_facts: bool = True) -> None:
    """Saves the state, and before it a best state that is not written yet.

    A save that only a stop asked for is left out of the facts, which a run never stopped would not have.
    """
    if not self.checkpoints:
      return
    ledger, began = self.ledger, time.perf_counter()
    if in_facts:
      ledger.facts.event("on_checkpoint", epoch=ledger.epoch, step=self.step, best_step=ledger.best_step)
    now = (self.step, {"state": self.state, "totals": self.totals}, ledger.record())
    self.checkpoints.save(*([self.pending] if self.pending else []), now)
    self.pending = None
    ledger.saved_step = self.step
    ledger.spent["save"] += time.perf_counter() - began

  def fail(self, error: BaseException) -> None:
    """Notes what ends the run, and saves a best state that is only in memory, so that a run that halts keeps it."""
    self.ledger.fail(error)
    if isinstance(error, (NonFinite, UserError)) and self.checkpoints and self.pending:
      self.checkpoints.save(self.pending)
      self.pending = None
      self.checkpoints.wait()

  def assess(self, stop: stops.Stop, watchdog: stops.Watchdog) -> None:
    """The assessment of the state during training, which a stop ends at once: the state is saved before."""
    if self.ledger.saved_step != self.step:
      self.save(in_facts=False)
    self.wait_until_saved()
    found, reason = {}, StopReason.NONE
    if processes.is_first():
      try:
        with stop.at_once(self.left):
          found = evaluate.assess(self.ledger, packing.here(self.state), again=False,
                                  beat=evaluate.between_parts(watchdog, stop, self.left))
      except Stopped:
        if not processes.several():
          raise
        reason = stop.reason()
    with watchdog.hold():  # the others wait for the first
      reason, _ = processes.agree(reason, 0)
    if reason:
      raise self.left(reason)
    evaluate.report_assessed(self.ledger, found)

  def wait_until_saved(self) -> None:
    """Waits for the save under way; several processes wait for the first, which saves."""
    processes.on_first(lambda: self.checkpoints.wait() if self.checkpoints else None)

  def leave(self, reason: StopReason) -> None:
    """Saves between two things due and raises Stopped."""
    if self.ledger.saved_step != self.step:
      self.save(in_facts=False)
    self.wait_until_saved()
    raise self.left(reason)

  def left(self, reason: StopReason) -> Stopped:
    """Notes that the run was stopped after its newest save, and what to say of it."""
    self.ledger.facts.process(stopped_by=str(reason), step=self.step)
    workdir = self.ledger.workdir
    if not workdir:
      return Stopped(f"{reason}: left at step {self.step:,}; nothing saved without a workdir")
    whole = shlex.quote(records.whole_run(workdir) or workdir)
    return Stopped(f"{reason}: saved at step {self.step:,}; --workdir={whole} goes on")

  def end_training(self) -> str:
    """Waits for the last save, writes the facts of the end, and returns the digest of the final state."""
    if self.checkpoints:
      self.checkpoints.wait()
    final = packing.digest(self.state)
    saver = {"saver_cpu": self.checkpoints.cpu_seconds,
             "orbax_import": self.checkpoints.import_seconds} if self.checkpoints else {}
    self.ledger.end_training(final, **saver)
    return final

  def close(self) -> None:
    """Closes what a run holds open."""
    try:
      if self.checkpoints:
        self.checkpoints.close()
    finally:
      self.ledger.close()


@jax.jit
def copy_tree(tree: Any) -> Any:
  """Copies of all leaves, which outlive the donation of the originals; one call, because leaves are many and small."""
  def one(leaf):
    return jax.random.wrap_key_data(jnp.copy(jax.random.key_data(leaf))) if packing.is_key(leaf) else jnp.copy(leaf)
  return jax.tree.map(one, tree)
