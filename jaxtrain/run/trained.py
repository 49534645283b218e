"""A trained run, restored from its folder alone with its verbs."""

import math
import os
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtrain import config as config_lib, jsonable
from jaxtrain.devices import backend
from jaxtrain.errors import UserError
from jaxtrain.run import checkpoints, evaluate, packing, setup
from jaxtrain.types import Experiment
from jaxtrain.workdir import reading, records


class Trained(NamedTuple):
  """A run at one of its checkpoints.

  Attributes:
    config: the run's, checked only in so far as verbs need it.
    experiment: its pure functions.
    state: with its step, completed epochs (-1 for a stream; None: version 0.1 did not say) and digest.
    assessed: split -> scalars, of the splits that this very state was assessed by.
  """
  config: Any
  experiment: Experiment
  state: Any
  step: int
  epoch: int | None
  digest: str
  assessed: dict[str, dict[str, Any]]


def restore(workdir: str, which: str, code: tuple[str, ...] = ()) -> Trained:
  """A run at a checkpoint, in a process that is set up for it.

  Args:
    workdir: its folder.
    which: best | last | STEP.
    code: what the user names of the code that the run's config names: its experiment, where that is not part of
      jaxtrain, and functions.

  Raises:
    UserError: the folder holds no such checkpoint, or its config names code that the user has not named.
  """
  backend.set_up_process()
  backend.start_devices(config_lib.common().parallel, math.inf)
  with config_lib.strangers(workdir, code), config_lib.must_fit(workdir):
    return restore_own(workdir, which)


def restore_own(workdir: str, which: str) -> Trained:
  """`restore` while code is imported only where that is allowed."""
  folder = records.last_stage(workdir)
  config = config_lib.from_workdir(records.read_config(folder), workdir)
  if not (which in ("best", "last") or jsonable.is_count(which)):
    raise UserError(f"--checkpoint: got {which!r}, allowed best | last | STEP")
  made_of = without_code(config)
  step, leaves, stored = checkpoints.read_named(folder, which)
  made = setup.make_experiment(made_of, stored["meta"])
  seen = stored["sample"] if "sample" in stored else {}  # version 0.1 had none
  sample = {name: jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype)) for name, (dtype, shape) in seen.items()}
  template = jax.eval_shape(made.init, jax.eval_shape(lambda: jax.random.key(0)), sample)
  epoch = stored["epoch"] if "epoch" in stored else None
  state = packing.fill(template, leaves, "state")
  return Trained(config, made, state, step, epoch, stored["digest"], read_assessed(folder, stored["digest"]))


def read_assessed(folder: str, digest: str) -> dict[str, dict[str, Any]]:
  """Split -> scalars, of the evaluations in a run's folder that are of the state with this digest."""
  found = {}
  for split in evaluate.PARTS:
    part = evaluate.done_before(os.path.join(folder, "eval", f"{split}.json"))
    if part is not None and "digest" in part and part["digest"] == f"sha256:{digest}":
      found[split] = reading.scalars(part)
  return found


def without_code(config: Any) -> Any:
  """The config without the lists of the user's functions, such as loss terms and metrics, which no verb calls."""
  fields = config_lib.declared(config_lib.load_experiment(config.experiment), "CODE")
  named = [field for field in fields if isinstance(config_lib.lookup(config, field), tuple)]
  return config_lib.with_values(config, {field: () for field in named})
