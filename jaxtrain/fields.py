"""Fields that all experiments share: their defaults, and what values they may take, checked once by `config.resolve`.

**Departs** from DESIGN 3, which lists no such module: experiments state the limits of their own fields with the same
words, and `config.py` is long enough without.
"""

import ast
from typing import Any, Callable

from jaxtrain import optim, schedules, step
from jaxtrain.types import UserError

Limit = tuple[Callable[[Any], bool], str]  # a test of the value and the words for what is allowed


SPLIT_KINDS = ("none", "random", "group", "entropy_balanced", "leave_out")
FOLDED = SPLIT_KINDS[3:]  # those that deal groups to folds

# INTERFACE lists these names.
DEFAULTS: dict[str, Any] = {
    "experiment": "",  # dotted module with load(config) and make(config, meta)
    "seed": 0,  # root of all randomness of training
    "stages": (),  # override dicts, one a stage; each stage starts from the best state of the one before
    "debug": False,  # reserved: the guard already names step and metric
    "data": {
        "source": "",  # where the rows come from; the experiment lists what it reads
        "path": "",  # file; name of a scikit-learn table; name or folder of a TFDS dataset
        "table": "",  # table of an SQLite file, split of a TFDS dataset; empty = the only one
        "features": (),  # names of the feature columns, in the model's order; () = the source's own
        "label": "",  # name of the label column; empty = none
        "group": "",  # name of the column whose values stay in one part of a split; empty = none
        "transforms": (),  # identity | standardise | min_max | log1p | signed_log1p per feature; () = standardise
        "out_of_core": False,  # features stay in the file and batches are read as training goes: hdf5, tfds
        "num_workers": 0,  # processes that read then; 0 = threads
        "shuffle": True,  # rows in a new order each epoch
        "resample": 0,  # k: train on the k-th bootstrap resample of the training rows; 0 = on the rows themselves
        "row_limit": 0,  # use the first rows only (a generator makes so many); 0 = all
        "split": {
            "kind": "none",  # none | random | group | entropy_balanced | leave_out
            "fractions": (0.7, 0.15, 0.15),  # train, val, test
            "num_folds": 5,  # folds of cross-validation
            "fold": 0,  # the fold that is tested on
        },
    },
    "model": {},
    "loss": {},
    "optim": {
        "name": "adam",  # adam | adamw | sgd | lamb | lion
        "learning_rate": 1e-3,  # peak
        "weight_decay": 0.0,  # L2 in the gradient for adam and sgd, decoupled for the others
        "betas": (0.9, 0.999),  # decay of the moments; sgd: momentum is the first
        "eps": 1e-8,  # added to the root of the second moment
        "clip_norm": 0.0,  # global norm of the gradient; 0 = off
        "schedule": "constant",  # constant | cosine | step | warmup_cosine
        "warmup_steps": 0,  # linear warm-up from 0
        "decay_steps": 0,  # horizon of the schedule; 0 = the run's length when first started
        "end_value": 0.0,  # fraction of the peak at the horizon
        "ema_decay": 0.0,  # moving average of the parameters; 0 = off
        "plateau": {
            "factor": 0.0,  # learning rate times this on a plateau; 0 = off
            "patience": 10,  # values without progress before a cut, counted as PyTorch does
            "threshold": 1e-4,  # relative progress that counts
            "monitor": "train_loss",  # train_loss (decided inside the step) or an evaluated metric
        },
    },
    "train": {
        "batch_size": 256,  # rows per step, over all devices
        "num_epochs": 0,  # exactly one of num_epochs and num_steps is above 0
        "num_steps": 0,
        "precision": "float32",  # float32 | bfloat16 (compute; parameters and losses stay float32)
        "monitor": "val_loss",  # decides best and patience; train_loss where there is no validation part
        "monitor_mode": "min",  # min | max
        "monitor_from_epoch": 0,  # up to here the newest counts as best: its loss is still being annealed
        "patience": 0,  # evaluations without progress before stopping; 0 = off
        "min_delta": 0.0,  # progress smaller than this does not count
        "on_nonfinite": "halt",  # halt | skip
        "time_budget_minutes": 0.0,  # save and exit 85 after so long; 0 = no budget
        "num_members": 1,  # members of an ensemble trained as one run
        "microbatch": 0,  # rows per chunk (gradient accumulation); 0 = the whole batch, -1 = the largest that fits
    },
    "eval": {
        "every_epochs": 1,  # evaluation cadence
        "every_steps": 0,  # instead of every_epochs where above 0
        "batch_size": 0,  # 0 = as train
    },
    "checkpoint": {
        "every_epochs": 10,  # saving cadence
        "every_steps": 0,  # instead of every_epochs where above 0
        "keep_last": 2,  # newest checkpoints kept
        "keep_best": 1,  # best checkpoints kept
        "asynchronous": True,  # write in the background
        "init": "params",  # what --init_from takes over: params (and model state) | all
    },
    "log": {
        "every_steps": 0,  # interval of plain progress lines; 0 = once an epoch
        "figures": "standard",  # none | minimal | standard | full
        "families": (),  # figure families to draw; () = those of the preset
        "save_artifacts": True,  # arrays behind the figures (eval/*.npz)
        "progress": True,  # progress bar or lines
        "tensorboard": False,  # event files for TensorBoard (extra tensorboard)
    },
    "parallel": {
        "mode": "jit",  # jit | pmap | canonical
        "chunks": 4,  # fixed number of chunks of canonical
        "platform": "auto",  # auto | cpu | gpu | tpu
        "cpu_threads": 0,  # XLA's threads on a CPU; 0 = chosen from the work per step
        "deterministic": False,  # flags that make a GPU repeat its bits
        "watchdog_seconds": 0.0,  # exit 4 when no step completes for so long; 0 = off
    },
}


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


# Limits of the fields that all experiments share; an experiment module adds its own as LIMITS.
LIMITS: dict[str, Limit] = {
    "debug": ((lambda v: not v), "False: the guard names the first step and metric that are not finite"),
    "data.split.kind": one_of(*SPLIT_KINDS),
    "data.split.fractions": ((lambda v: len(v) == 3 and all(f >= 0 for f in v)), "three numbers from 0 up"),
    "data.split.num_folds": at_least(3),
    "data.split.fold": at_least(0),
    "seed": between(0, 2**32),
    "data.resample": at_least(0),
    "data.row_limit": at_least(0),
    "data.num_workers": at_least(0),
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
    "train.num_members": at_least(1),
    "train.microbatch": at_least(-1),
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


def parse_like(old: Any, text: str, name: str) -> Any:
  """Text as a value of the type that the field has; `name` says where the text came from."""
  try:
    if isinstance(old, bool):
      return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    if isinstance(old, (int, float)):
      return type(old)(text)
    if isinstance(old, tuple):
      return parse_tuple(text)
  except (KeyError, ValueError, SyntaxError):
    raise UserError(f"{name}: got {text!r}, allowed a value of type {type(old).__name__}") from None
  return text


def parse_tuple(text: str) -> tuple:
  """A tuple as flags take it: "('a','b')", "64,32", "64," or "a,b"."""
  text = text.strip().removesuffix(",")
  try:
    value = ast.literal_eval(text if text.strip().startswith("(") else f"({text},)" if text.strip() else "()")
  except (SyntaxError, ValueError):
    return tuple(name.strip() for name in text.split(","))
  return value if isinstance(value, tuple) else (value,)
