"""When things are due in a run, as pure arithmetic on the step; and how many steps a dispatch takes."""

from typing import NamedTuple

from jaxtrain.config import limits
from jaxtrain.errors import UserError


class Due(NamedTuple):
  """What is due after a step: the end of an epoch, an evaluation, a checkpoint, an assessment, a progress line."""
  epoch: bool
  evaluate: bool
  save: bool
  assess: bool
  log: bool


class Plan(NamedTuple):
  """Cadences of a run in steps.

  Attributes:
    total: the last step.
    steps_per_epoch: None for an endless stream.
    eval_every, save_every: cadences.
    assess_every: cadence of assessments during training; 0 = none, the end of the run has its own.
    log_every: interval of progress lines; 0 = only with a report.
  """
  total: int
  steps_per_epoch: int | None
  eval_every: int
  save_every: int
  assess_every: int
  log_every: int

  def due(self, step: int) -> Due:
    """What is due after `step` completed updates."""
    last = step == self.total
    every = lambda interval: bool(interval) and step % interval == 0
    return Due(epoch=every(self.steps_per_epoch), evaluate=last or self.is_regular(step),
               save=last or every(self.save_every), assess=not last and step > 0 and every(self.assess_every),
               log=every(self.log_every))

  def is_regular(self, step: int) -> bool:
    """Whether an evaluation after `step` is one of the cadence: a longer run has it too, unlike that of the end."""
    return self.eval_every > 0 and step % self.eval_every == 0

  def closes(self, step: int) -> bool:
    """Whether the mean of the training metrics ends after `step`: that of an epoch, or of a stream's cadence."""
    return self.is_regular(step) if self.steps_per_epoch is None else step % self.steps_per_epoch == 0

  def judges(self, step: int, monitor: str) -> bool:
    """Whether a report after `step` is compared with others by a metric, to find the best state.

    The mean of a training metric counts over whole epochs alone; if evaluations do not fall on their ends, then at
    each end. What only the end of a run reports is not compared: a run that is made longer later has the best state
    of one made in one go.
    """
    if monitor.startswith("train_") and self.steps_per_epoch and self.eval_every % self.steps_per_epoch:
      return self.closes(step)
    return self.is_regular(step)

  @property
  def unit(self) -> int:
    """Steps between two progress lines that there may be: an epoch, or of a stream the cadence of evaluations."""
    return self.steps_per_epoch or self.eval_every or 1

  def next_due(self, step: int) -> int:
    """The first step after `step` at which anything is due."""
    intervals = [i for i in (self.steps_per_epoch, self.eval_every, self.save_every, self.assess_every, self.log_every)
                 if i]
    return min([self.total] + [(step // i + 1) * i for i in intervals])

  def epoch(self, step: int) -> int:
    """Completed epochs; -1 for a stream."""
    return step // self.steps_per_epoch if self.steps_per_epoch else -1

  def position(self, step: int) -> str:
    """Where a run is, in words."""
    if self.steps_per_epoch and self.total % self.steps_per_epoch == 0:
      return f"epoch {step / self.steps_per_epoch:g}/{self.total // self.steps_per_epoch}"
    return f"step {step}/{self.total}"


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


def make(config, steps_per_epoch: int | None) -> Plan:
  """The cadences of a config.

  Raises:
    UserError: a cadence in epochs for a stream that has none.
  """
  def cadence(field: str, steps: int, epochs: int, least: int = 1) -> int:
    """Steps between two of a kind; a cadence of assessments may be 0, which is none."""
    if steps or epochs < least:
      return steps
    if steps_per_epoch is None and (least or epochs):
      raise UserError(f"config.{field}_steps: got 0, allowed 1 or more, because the training source is "
                      "endless and has no epochs")
    return epochs * (steps_per_epoch or 0)

  if config.train.num_epochs and steps_per_epoch is None:
    raise UserError(f"config.train.num_epochs: got {config.train.num_epochs}, allowed 0 (set num_steps), because the "
                    "training source is endless and has no epochs")
  total = config.train.num_steps or config.train.num_epochs * (steps_per_epoch or 0)
  if total > limits.MOST_WHOLE:
    raise UserError(f"config.train.num_epochs: got {config.train.num_epochs} of {steps_per_epoch:,} steps each, "
                    f"allowed {limits.MOST_WHOLE:,} steps in all")
  settings, saving = config.eval, config.checkpoint
  return Plan(total, steps_per_epoch, cadence("eval.every", settings.every_steps, settings.every_epochs),
              cadence("checkpoint.every", saving.every_steps, saving.every_epochs),
              cadence("eval.assess_every", settings.assess_every_steps, settings.assess_every_epochs, 0),
              1 if config.log.verbose else config.log.every_steps)
