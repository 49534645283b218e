"""What values fields may take: the words in which a module states the LIMITS of its fields, and those of all.

Every field has a type, and every number a lower and an upper bound. What holds for any value is checked by `plain`.
"""

import fnmatch
import math
import struct
from typing import Any, Callable, Mapping, NamedTuple


class Limit(NamedTuple):
  """What a field may hold.

  Attributes:
    test: of a value of that type.
    words: what is allowed, for messages.
    kind: bool, int (no bool), float (an int too), str or tuple.
  """
  test: Callable[[Any], bool]
  words: str
  kind: type


OPTIMISERS = ("adam", "adamw", "sgd", "lamb", "lion")
LEARNING_RATE_SHAPES = ("constant", "cosine", "step", "warmup_cosine")
ON_NONFINITE = ("halt", "skip")
SPLIT_KINDS = ("none", "random", "group", "entropy_balanced", "leave_out")
FOLDED = SPLIT_KINDS[3:]  # those that deal groups to folds

MOST_WHOLE = 2**31 - 1  # steps, and what is counted on a device, are int32
MOST = 1e30  # of a number; its square is still a number of 64 bits
MOST_ROWS = 2**20  # of a simulated table
MOST_WIDTH = 2**16  # of a layer
MOST_DEPTH = 1024  # layers, blocks, heads: each is traced
PLAIN = "true or false, a number, text, or a tuple of those"
MOST_TEXT, MOST_ENTRIES = 4096, 65536
FLOAT32 = (2.0**-126, (2 - 2.0**-23) * 2.0**127)  # sizes of the smallest and the largest number that keeps its digits


def whole(low: int, most: int = MOST_WHOLE) -> Limit:
  """Allowed: whole numbers from `low` to `most`."""
  return Limit(lambda v: low <= v <= most, f"{low} to {most}", int)


def at_least(low: float, most: float = MOST) -> Limit:
  """Allowed: numbers from `low` to `most`."""
  return Limit(lambda v: low <= v <= most, f"{low:g} to {most:g}", float)


def zero_or(low: float, most: float = MOST) -> Limit:
  """Allowed: 0, which switches off, and numbers from `low` to `most`."""
  return Limit(lambda v: v == 0 or low <= v <= most, f"0, or {low:g} to {most:g}", float)


def between(low: float, high: float) -> Limit:
  """Allowed: low <= v < high, also once rounded to 32 bits."""
  return Limit(lambda v: low <= v and as_float32(v) < high, f"{low:g} or more and below {high:g}", float)


def one_of(*names: str) -> Limit:
  """Allowed: the names."""
  return Limit(lambda v: v in names, " | ".join(names), str)


def switch() -> Limit:
  """Allowed: on and off."""
  return Limit(lambda v: True, "true or false", bool)


def text() -> Limit:
  """Allowed: any text, such as the name of a file or of a column."""
  return Limit(lambda v: True, "text", str)


def each(limit: Limit, low_len: int = 0, most_len: int = MOST_ENTRIES) -> Limit:
  """Allowed: tuples of `low_len` to `most_len` entries that each meet a limit."""
  what = "text" if limit.kind is str else "numbers"
  return Limit(lambda v: low_len <= len(v) <= most_len and all(fits(limit, entry) for entry in v),
               f"{what}, each {limit.words}" if limit.kind is not str else limit.words, tuple)


def names() -> Limit:
  """Allowed: tuples of text."""
  return each(Limit(lambda v: True, "names, in quotes where they are numbers: \"('a','1')\"", str))


def functions() -> Limit:
  """Allowed: tuples of dotted paths of functions."""
  return each(Limit(lambda v: "." in v and is_dotted(v), "MODULE.FUNCTION, several with commas", str))


def function() -> Limit:
  """Allowed: a tuple of one dotted path of a function, or of none."""
  return each(Limit(lambda v: "." in v and is_dotted(v), "MODULE.FUNCTION, one at most", str), 0, 1)


def is_dotted(name: str) -> bool:
  """Whether a text has the form of a dotted path of a module or a function; relative ones have no meaning here."""
  return all(part.isidentifier() for part in name.split("."))


def is_encoding(name: str) -> bool:
  """Whether a name is that of an encoding of text."""
  try:
    b"".decode(name)
  except (LookupError, ValueError):
    return False
  return True


def as_float32(value: float) -> float:
  """The number of 32 bits nearest to a number within their range."""
  return struct.unpack("f", struct.pack("f", value))[0]


def plain(value: Any) -> str:
  """Empty for a value that a config may hold whatever the field, else what is allowed in its place."""
  if isinstance(value, bool):
    return ""
  if isinstance(value, int):
    return "" if -2**63 <= value < 2**63 else "whole numbers of 64 bits"
  if isinstance(value, float):
    if not math.isfinite(value):
      return "a finite number"
    return "" if value == 0 or FLOAT32[0] <= abs(value) <= FLOAT32[1] else \
        f"0, or numbers of {FLOAT32[0]:.3g} to {FLOAT32[1]:.3g} in size, because steps are computed in 32 bits"
  if isinstance(value, str):
    is_text = "\0" not in value and len(value) <= MOST_TEXT and not any("\ud800" <= c <= "\udfff" for c in value)
    return "" if is_text else f"text in UTF-8 of up to {MOST_TEXT} characters, none of them NUL"
  if isinstance(value, tuple):
    if len(value) > MOST_ENTRIES:
      return f"up to {MOST_ENTRIES} entries"
    return next(filter(None, map(plain, value)), "")
  return PLAIN


def has_kind(value: Any, kind: type) -> bool:
  """Whether a plain value is of a field's type; a whole number may stand for any number, a bool for none."""
  return isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))


def fits(limit: Limit, value: Any) -> bool:
  """Whether a plain value passes a limit."""
  return has_kind(value, limit.kind) and bool(limit.test(value))


def find(limits: Mapping[str, Limit], key: str) -> Limit | None:
  """The limit of a dotted key: its own, or that of a pattern such as `loss.weights.*`; None where there is none."""
  if key in limits:
    return limits[key]
  patterns = [pattern for pattern in limits if "*" in pattern and fnmatch.fnmatchcase(key, pattern)]
  return limits[patterns[0]] if patterns else None


# Limits of the fields that all experiments share; an experiment module adds its own as LIMITS.
LIMITS: dict[str, Limit] = {
    "experiment": Limit(lambda v: not v or is_dotted(v), "the dotted name of a module", str),
    "seed": whole(0, 2**32 - 1),
    "data.source": text(),
    "data.path": text(),
    "data.table": text(),
    "data.features": names(),
    "data.leave_out": names(),
    "data.missing": Limit(lambda v: all(has_kind(entry, str) or has_kind(entry, float) for entry in v),
                          "words and numbers: -999.25,-", tuple),
    "data.incomplete": one_of("drop", "mask"),
    "data.separator": Limit(lambda v: v in ("tab", "\\t") or len(v) == 1 and v not in "\"\r\n", "one character, or tab",
                            str),
    "data.decimal": one_of(".", ","),
    "data.thousands": Limit(lambda v: v in ("", ",", ".", " ", "'"), "'' | , | . | ' | a space", str),
    "data.encoding": Limit(is_encoding, "the name of a text encoding, such as utf-8, cp1252, utf-16", str),
    "data.label": text(),
    "data.group": text(),
    "data.transforms": names(),
    "data.out_of_core": switch(),
    "data.num_workers": whole(0, 256),
    "data.shuffle": switch(),
    "data.resample": whole(0),
    "data.label_share": Limit(lambda v: 0 < v <= 1, "above 0 and up to 1", float),
    "data.row_limit": whole(0),
    "data.split.kind": one_of(*SPLIT_KINDS),
    "data.split.fractions": Limit(lambda v: len(v) == 3 and all(fits(at_least(0), f) for f in v),
                                  "three numbers from 0 up", tuple),
    "data.split.num_folds": whole(3, MOST_ENTRIES),
    "data.split.fold": whole(0, MOST_ENTRIES),
    "loss.weights.*": at_least(0, 1e12),
    "optim.name": one_of(*OPTIMISERS),
    "optim.learning_rate": at_least(1e-12),
    "optim.weight_decay": at_least(0, 1e6),
    "optim.betas": Limit(lambda v: len(v) == 2 and all(fits(between(0, 1), b) for b in v),
                         "two numbers from 0 up and below 1", tuple),
    "optim.eps": at_least(1e-30, 1e6),
    "optim.clip_norm": zero_or(1e-12),
    "optim.schedule": one_of(*LEARNING_RATE_SHAPES),
    "optim.warmup_steps": whole(0),
    "optim.decay_steps": whole(0),
    "optim.end_value": at_least(0, 1),
    "optim.frozen": names(),
    "optim.ema_decay": between(0, 1),
    "optim.plateau.factor": between(0, 1),
    "optim.plateau.patience": whole(0),
    "optim.plateau.threshold": at_least(0),
    "optim.plateau.monitor": text(),
    "train.batch_size": whole(1, 2**24),
    "train.num_epochs": whole(0),
    "train.num_steps": whole(0),
    "train.precision": one_of("float32", "bfloat16"),
    "train.monitor": text(),
    "train.monitor_mode": one_of("min", "max"),
    "train.monitor_from_epoch": whole(0),
    "train.patience": whole(0),
    "train.min_delta": at_least(0),
    "train.on_nonfinite": one_of(*ON_NONFINITE),
    "train.time_budget_minutes": at_least(0, 1e8),
    "train.num_members": whole(1, MOST_WIDTH),
    "train.microbatch": whole(-1, 2**24),
    "eval.every_epochs": whole(1),
    "eval.every_steps": whole(0),
    "eval.assess_every_epochs": whole(0),
    "eval.assess_every_steps": whole(0),
    "eval.batch_size": whole(0, 2**24),
    "checkpoint.every_epochs": whole(1),
    "checkpoint.every_steps": whole(0),
    "checkpoint.keep_last": whole(1),
    "checkpoint.keep_best": whole(0),
    "checkpoint.asynchronous": switch(),
    "checkpoint.init": one_of("params", "all"),
    "checkpoint.init_paths": names(),
    "log.every_steps": whole(0),
    "log.figures": one_of("none", "minimal", "standard", "full"),
    "log.families": names(),
    "log.save_artifacts": switch(),
    "log.progress": switch(),
    "log.verbose": switch(),
    "log.tensorboard": switch(),
    "parallel.mode": one_of("jit", "pmap", "canonical"),
    "parallel.chunks": whole(1, MOST_WIDTH),
    "parallel.platform": one_of("auto", "cpu", "gpu", "tpu"),
    "parallel.cpu_threads": whole(0, 1024),
    "parallel.deterministic": switch(),
    "parallel.watchdog_seconds": at_least(0, 1e8),
}
