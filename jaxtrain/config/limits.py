"""What values fields may take: the words in which a module states the LIMITS of its fields, and those of all."""

from typing import Any, Callable

Limit = tuple[Callable[[Any], bool], str]  # a test of the value and the words for what is allowed

OPTIMISERS = ("adam", "adamw", "sgd", "lamb", "lion")
LEARNING_RATE_SHAPES = ("constant", "cosine", "step", "warmup_cosine")
ON_NONFINITE = ("halt", "skip")
SPLIT_KINDS = ("none", "random", "group", "entropy_balanced", "leave_out")
FOLDED = SPLIT_KINDS[3:]  # those that deal groups to folds


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
  fits = lambda element: isinstance(element, (int, float)) and test(element)
  return (lambda v: len(v) >= low_len and all(map(fits, v))), f"numbers, each {words}"


def names() -> Limit:
  """Allowed: tuples of text."""
  return (lambda v: all(isinstance(name, str) for name in v)), "names"


# Limits of the fields that all experiments share; an experiment module adds its own as LIMITS.
LIMITS: dict[str, Limit] = {
    "data.features": names(),
    "log.families": names(),
    "optim.frozen": names(),
    "checkpoint.init_paths": names(),
    "data.split.kind": one_of(*SPLIT_KINDS),
    "data.split.fractions": ((lambda v: len(v) == 3 and all(f >= 0 for f in v)), "three numbers from 0 up"),
    "data.split.num_folds": at_least(3),
    "data.split.fold": at_least(0),
    "seed": between(0, 2**32),
    "data.resample": at_least(0),
    "data.row_limit": at_least(0),
    "data.num_workers": at_least(0),
    "optim.name": one_of(*OPTIMISERS),
    "optim.learning_rate": above(0),
    "optim.weight_decay": at_least(0),
    "optim.betas": ((lambda v: len(v) == 2 and all(0 <= b < 1 for b in v)), "two numbers from 0 up and below 1"),
    "optim.eps": above(0),
    "optim.clip_norm": at_least(0),
    "optim.schedule": one_of(*LEARNING_RATE_SHAPES),
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
    "train.on_nonfinite": one_of(*ON_NONFINITE),
    "train.time_budget_minutes": at_least(0),
    "train.num_members": at_least(1),
    "train.microbatch": at_least(-1),
    "eval.every_epochs": at_least(1),
    "eval.every_steps": at_least(0),
    "eval.assess_every_epochs": at_least(0),
    "eval.assess_every_steps": at_least(0),
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
