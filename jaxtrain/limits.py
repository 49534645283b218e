"""What values a config field may take: a test and the words for it, checked once by `config.resolve`.

**Departs** from DESIGN 3, which lists no such module: experiments use these for their own fields, and `config.py` is long.
"""

from typing import Any, Callable

from jaxtrain import optim, schedules, step

Limit = tuple[Callable[[Any], bool], str]  # a test of the value and the words for what is allowed


def at_least(low) -> Limit:
  """Allowed: numbers from `low` up."""
  return (lambda v: v >= low), f"{low:g} or more"


def above(low) -> Limit:
  """Allowed: numbers above `low`."""
  return (lambda v: v > low), f"above {low:g}"


def between(low, high) -> Limit:
  """Allowed: low <= v < high."""
  return (lambda v: low <= v < high), f"{low:g} or more and below {high:g}"


def one_of(*names) -> Limit:
  """Allowed: the names."""
  return (lambda v: v in names), " | ".join(map(str, names))


def each(limit: Limit, low_len: int = 0) -> Limit:
  """Allowed: tuples of at least `low_len` entries that each meet a limit."""
  test, words = limit
  return (lambda v: len(v) >= low_len and all(isinstance(e, (int, float)) and test(e) for e in v)), f"numbers, each {words}"


# Limits of the fields that all experiments share; an experiment module adds its own as LIMITS.
COMMON: dict[str, Limit] = {
    "seed": between(0, 2**32),
    "data.row_limit": at_least(0),
    "optim.name": one_of(*optim.NAMES),
    "optim.learning_rate": above(0),
    "optim.weight_decay": at_least(0),
    "optim.betas": ((lambda v: len(v) == 2 and all(0 <= b < 1 for b in v)), "two numbers from 0 up and below 1"),
    "optim.eps": above(0),
    "optim.clip_norm": at_least(0),
    "optim.schedule": one_of(*schedules.LEARNING_RATE_SHAPES),
    "optim.warmup_steps": at_least(0),
    "optim.decay_steps": at_least(0),
    "optim.end_value": ((lambda v: 0 <= v <= 1), "0 to 1"),
    "optim.ema_decay": between(0, 1),
    "optim.plateau.factor": between(0, 1),
    "optim.plateau.patience": at_least(0),
    "optim.plateau.threshold": at_least(0),
    "train.batch_size": at_least(1),
    "train.num_epochs": at_least(0),
    "train.num_steps": at_least(0),
    "train.precision": one_of("float32", "bfloat16"),
    "train.monitor_mode": one_of("min", "max"),
    "train.monitor_from_epoch": at_least(0),
    "train.patience": at_least(0),
    "train.min_delta": at_least(0),
    "train.on_nonfinite": one_of(*step.ON_NONFINITE),
    "train.time_budget_minutes": at_least(0),
    "train.num_members": one_of(1),
    "train.microbatch": at_least(0),
    "eval.every_epochs": at_least(1),
    "eval.every_steps": at_least(0),
    "eval.batch_size": at_least(0),
    "checkpoint.every_epochs": at_least(1),
    "checkpoint.every_steps": at_least(0),
    "checkpoint.keep_last": at_least(1),
    "checkpoint.keep_best": at_least(0),
    "checkpoint.init": one_of("params", "all"),
    "log.every_steps": at_least(0),
    "log.figures": one_of("none", "minimal", "standard", "full"),
    "parallel.mode": one_of("jit", "pmap", "canonical"),
    "parallel.chunks": at_least(1),
    "parallel.platform": one_of("auto", "cpu", "gpu", "tpu"),
    "parallel.cpu_threads": at_least(0),
    "parallel.watchdog_seconds": at_least(0),
}
