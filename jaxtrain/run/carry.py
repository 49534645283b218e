"""What a run takes over from another: `--init_from`, and each stage from the one before."""

import dataclasses
import fnmatch
import os
from typing import Any

import jax

from jaxtrain.errors import UserError
from jaxtrain.run import checkpoints, packing
from jaxtrain.types import Experiment
from jaxtrain.workdir import records

OWN = ("step", "key", "guard")  # fields that a fresh run always has of its own
LEARNT = ("params", "model_state")  # what `checkpoint.init=params` takes


def take_over(state: Any, reference: str, what: str, patterns: tuple[str, ...],
              experiment: Experiment) -> tuple[Any, str]:
  """A fresh state with arrays of another run's checkpoint, or with the weights of another system's file.

  Args:
    state: fresh.
    reference: WORKDIR[@best|last|STEP], or a file.
    what: `params`: parameters and model state; `all`: all fields but step, key and guard.
    patterns: of the paths to take, `encoder/*` for parameters and FIELD/... for the rest; () = all that `what` says.
    experiment: reads files of other systems.

  Returns:
    The state, and what was taken in words.

  Raises:
    UserError: no such checkpoint or file, a pattern that matches nothing, or arrays that do not fit.
  """
  if os.path.isfile(reference):
    if experiment.read_weights is None:
      raise UserError(f"--init_from: {reference!r} is a file; this experiment reads no other system's weights")
    return experiment.read_weights(state, reference), "the weights of the file"
  folder, which = records.parse_reference(reference)
  folder = records.last_stage(folder)
  _, leaves, _ = checkpoints.read_named(folder, which)
  taken = chosen(state, what, patterns)
  if not taken:
    raise UserError(f"--init_from: nothing to take: the state has none of the fields {', '.join(LEARNT)}; "
                    "--config.checkpoint.init=all takes all of it")
  try:
    new = packing.fill(state, leaves, "state", only=taken)
  except UserError as error:
    raise UserError(f"--init_from={reference}: {error}") from None
  followed = follow(new, state, leaves, taken)
  return followed, describe(taken) + "; the moving average of the parameters starts at them" * (followed is not new)


def chosen(state: Any, what: str, patterns: tuple[str, ...]) -> set[str]:
  """Paths of the leaves to take. Raises UserError for a pattern that matches none."""
  names = [field.name for field in dataclasses.fields(state) if field.name not in OWN]
  paths = [path for path in packing.named_leaves(state) if path.partition("/")[0] in names]
  if not patterns:
    return {path for path in paths if what == "all" or path.partition("/")[0] in LEARNT}
  short = {path: path.removeprefix("params/") for path in paths}
  for pattern in patterns:
    if not any(fnmatch.fnmatchcase(name, pattern) for name in short.values()):
      first = sorted(short, key=lambda path: not path.startswith("params/"))[:4]
      raise UserError(f"config.checkpoint.init_paths: {pattern!r} matches nothing of the state, such as "
                      f"{', '.join(short[path] for path in first)}")
  return {path for path, name in short.items() if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}


def follow(new: Any, fresh: Any, leaves: dict, taken: set[str]) -> Any:
  """The state with a moving average, where it keeps one, that starts at what was taken: the other run's average of a
  parameter, or the parameter itself where that run kept none.
  """
  averaged = [] if getattr(fresh, "ema", None) is None else packing.named_leaves(fresh.ema)
  if any(path.startswith("ema/") for path in taken) or not any(f"params/{name}" in taken for name in averaged):
    return new
  params = packing.named_leaves(new.params)
  def one(path, average):  # the average may be of some of the parameters alone
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if f"params/{name}" not in taken:
      return average
    stored = f"state/ema/{name}"
    return jax.numpy.asarray(leaves[stored]) if stored in leaves else jax.numpy.copy(params[name])
  return new.replace(ema=jax.tree_util.tree_map_with_path(one, fresh.ema))


def describe(taken: set[str]) -> str:
  """What was taken, in words: how many arrays of each field and module."""
  count: dict[str, int] = {}
  for path in sorted(taken):
    name = "/".join(path.split("/")[:2])
    count[name] = count[name] + 1 if name in count else 1
  return ", ".join(f"{name} ({n} array{'s' * (n > 1)})" for name, n in count.items()) or "nothing"
