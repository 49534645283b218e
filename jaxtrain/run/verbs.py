"""A verb of a trained run, applied to columns: the one path of the command `predict` and of Python."""

from typing import Any

import numpy as np

from jaxtrain import rng, spelling
from jaxtrain.config import limits
from jaxtrain.data.files import Columns
from jaxtrain.errors import UserError
from jaxtrain.run.trained import Trained
from jaxtrain.types import Verb
from jaxtrain.workdir import quality, records


def pick(run: Trained, name: str) -> Verb:
  """The verb of that name. Raises UserError with those there are."""
  verbs = run.experiment.predict or {}
  if name not in verbs:
    raise UserError(f"--verb: got {name!r}, allowed {' | '.join(sorted(verbs)) or 'nothing'} for this run of "
                    f"{run.config.experiment}{spelling.meant(name, verbs)}")
  return verbs[name]


def settle(run: Trained, name: str, verb: Verb, options: dict[str, Any], worth: quality.Quality) -> Verb:
  """The verb as options say, and as the assessment of the run's state and its worth say. Raises UserError for an option
  that it has not.
  """
  for option, value in options.items():
    if option not in verb.options:
      raise UserError(f"--{option}: got {value!r}, allowed nothing with --verb={name}")
  state = records.describe_state(run.step, run.epoch, run.digest)
  return verb.settle(options, run.assessed, state, worth) if verb.settle else verb


def check_numbers(name: str, verb: Verb, num: int, seed: int | None) -> None:
  """Raises UserError for a number of rows or a seed that a verb has no place for, or that is out of range."""
  if verb.counts != bool(num) or not 0 <= num <= limits.MOST_WHOLE:
    most = f", up to {limits.MOST_WHOLE}" if num > 0 else ""
    raise UserError(f"--num: got {num}, allowed {f'1 or more{most}' if verb.counts else 'nothing'} with "
                    f"--verb={name}")
  if seed is not None and not limits.fits(limits.LIMITS["seed"], seed):
    raise UserError(f"--seed: got {seed}, allowed {limits.LIMITS['seed'].words}")


def choose(columns: Columns, names: list[str], verb: Verb) -> Columns:
  """The columns of these names, in their order, with those that go with them. Raises UserError for a name not there."""
  for name in names:
    if name not in columns.values:
      raise UserError(spelling.no_column(f"--columns: {columns.path}", name, list(columns.values), spelling.IN_LIST))
  kept = [one for name in names for one in (name, *(name + ending for ending in verb.companions))]
  return columns._replace(values={name: columns.values[name] for name in kept if name in columns.values})


def in_short(lost: list[str]) -> str:
  """What could not be read of a damaged input, of the lines that `Verb.lost` gives; "" where nothing is lost."""
  return lost[0] + (f", and {len(lost) - 1} more" if len(lost) > 1 else "") if lost else ""


def compute(run: Trained, verb: Verb, columns, num: int, seed: int | None) -> dict[str, np.ndarray]:
  """The columns of the result of a verb.

  Args:
    run: the trained run.
    columns: those of the input, or what a reader of the verb's own gives; None where it reads none.
    num: rows to make, where it makes some.
    seed: of what is drawn; None: the run's.

  Raises:
    UserError: the columns do not fit.
  """
  root = rng.root_key(run.config.seed if seed is None else seed)
  return verb.run(run.state, columns, num, rng.stream_key(root, "report"))
