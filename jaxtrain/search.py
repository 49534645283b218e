"""Adaptive search of a sweep: Optuna proposes members from the values of those before.

Only the journal and the members' files are remembered: a search that goes on tells Optuna again of all that is done,
and proposes what it would have proposed, because its sampler is seeded by the number of trials it knows of.

**Source:** tree-structured Parzen estimator: Bergstra et al. 2011; Optuna (extra `sweep`).
**Departs** from DESIGN 3, which lists no such module: only `--trials` needs it.
"""

import os
from typing import Callable

from jaxtrain import axes as axes_lib
from jaxtrain.types import UserError, need

BATCH = 8  # members proposed together, which then train as one program


def run(axes: list[axes_lib.Axis], num_trials: int, seed: int, journal, train, launch: Callable[[list[dict]], list]):
  """Proposes and trains members until there are `num_trials`.

  Args:
    axes: lists become choices; draws, with or without a count, become ranges.
    seed: of the sampler.
    journal: of the sweep; members of other settings in it are not counted.
    train: the config section, for what is best.
    launch: trains members of these settings and returns them.

  Raises:
    UserError: Optuna is not installed, or a member of the search has no value.
  """
  optuna = need("optuna", "sweep")
  optuna.logging.set_verbosity(optuna.logging.WARNING)
  space = {axis.field: distribution(optuna, axis) for axis in axes}
  direction = "minimize" if train.monitor_mode == "min" else "maximize"
  while True:
    known = [m for m in journal.members if m.values.keys() == space.keys()]
    done = {m.number: best_value(journal.workdir(m)) for m in known if m.outcome == "done"}
    open_ones = [dict(m.values) for m in known if m.outcome in ("added", "started")]
    if open_ones:  # of a killed search
      launch(open_ones)
      continue
    if len(known) >= num_trials:
      return
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.TPESampler(
        seed=seed + len(known), constant_liar=True, n_startup_trials=min(10, max(num_trials // 4, 1))))
    for member in known:
      if done.get(member.number) is not None:
        values = {key: shown_value(value) for key, value in member.values.items()}
        study.add_trial(optuna.trial.create_trial(params=values, distributions=space, value=done[member.number]))
    wanted = min(BATCH, num_trials - len(known))
    before = len(journal.members)
    launch([shown(study.ask(space).params) for _ in range(wanted)])
    if len(journal.members) == before:  # only settings that are there already: the space is used up
      return


def distribution(optuna, axis: axes_lib.Axis):
  """Optuna's distribution of an axis."""
  if axis.draw is None:
    return optuna.distributions.CategoricalDistribution([shown_value(value) for value in axis.values])
  kind, low, high = axis.draw
  if kind == "randint":
    return optuna.distributions.IntDistribution(int(low), int(high))
  return optuna.distributions.FloatDistribution(low, high, log=kind == "loguniform")


def shown_value(value):
  """A value as Optuna takes it: tuples are words to it."""
  return repr(tuple(value)) if isinstance(value, (tuple, list)) else value


def shown(params: dict) -> dict:
  """Proposed values as those of config fields."""
  from jaxtrain import fields
  return {key: fields.parse_tuple(value) if isinstance(value, str) and value.startswith("(") else value
          for key, value in params.items()}


def best_value(workdir: str) -> float:
  """The best monitored value of a run that is done. Raises UserError where it has none."""
  from jaxtrain import facts
  ends = [e for e in facts.read_events(os.path.join(workdir, "facts", "events.jsonl")) if e["moment"] == "on_train_end"]
  if not ends or not isinstance(ends[-1]["best_value"], (int, float)):
    raise UserError(f"{workdir}: no monitored value; set config.train.monitor")
  return float(ends[-1]["best_value"])
