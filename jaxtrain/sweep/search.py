"""Adaptive search of a sweep: Optuna proposes members from the values of those before.

Only the journal and the members' files are remembered: a search that goes on tells Optuna again of all that is done.
Its sampler is seeded by the number of members there are, so that what it proposes follows from the journal alone.

**Source:** tree-structured Parzen estimator: Bergstra et al. 2011; Optuna (extra `sweep`).
"""

from typing import Callable

from jaxtrain import streams
from jaxtrain.config import fields
from jaxtrain.errors import need
from jaxtrain.sweep import axes as axes_lib
from jaxtrain.workdir import reading

BATCH = 8  # members proposed together, which then train as one program


def run(axes: list[axes_lib.Axis], num_trials: int, seed: int, journal, train,
        launch: Callable[[list[dict]], list]) -> list:
  """Proposes and trains members until there are `num_trials`; returns all of them, those of earlier calls too.

  Args:
    axes: lists become choices; draws, with or without a count, become ranges.
    seed: of the sampler.
    journal: of the sweep; members of other settings in it are not counted.
    train: the config section, for what is best.
    launch: trains members of these settings and returns them.

  Raises:
    UserError: Optuna is not installed.
  """
  optuna = need("optuna", "sweep")
  optuna.logging.set_verbosity(optuna.logging.WARNING)
  space = {axis.field: distribution(optuna, axis) for axis in axes}
  direction = "minimize" if train.monitor_mode == "min" else "maximize"
  done: dict[int, float | None] = {}  # best values of members that are done, each read once
  while True:
    known = [m for m in journal.members if m.values.keys() == space.keys()]
    done |= {m.number: reading.best_value(journal.workdir(m)) for m in known
             if m.outcome == "done" and m.number not in done and not journal.is_lost(m)}
    open_ones = [dict(m.values) for m in known if m.outcome in ("added", "started") or journal.is_lost(m)]
    if open_ones:  # of a killed search, or removed
      launch(open_ones)
      continue
    if len(known) >= num_trials:
      return known
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.TPESampler(
        seed=seed + len(known), constant_liar=True, n_startup_trials=min(10, max(num_trials // 4, 1))))
    for member in known:
      tell(optuna, study, space, member, done[member.number] if member.number in done else None)
    wanted, proposed = min(BATCH, num_trials - len(known)), {}
    taken = {repr(sorted(shown(member.values).items())) for member in known}
    for _ in range(20 * wanted):
      setting = shown(study.ask(space).params)
      if repr(sorted(setting.items())) not in taken and len(proposed) < wanted:
        proposed[repr(sorted(setting.items()))] = setting
    if not proposed:
      streams.say(f"jaxtrain: the search ends with {len(known)} members: it proposes nothing new")
      return known
    launch(list(proposed.values()))


def tell(optuna, study, space: dict, member, value: float | None) -> None:
  """Tells a study of a member, unless it has no finite value or lies outside what is searched now."""
  values = {key: shown_value(value) for key, value in member.values.items()}
  try:
    study.add_trial(optuna.trial.create_trial(params=values, distributions=space, value=value))
  except ValueError:  # no value, or not in the space
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
  """Proposed values as those of config fields; lists of a journal as the tuples that they were."""
  as_tuple = lambda value: fields.parse_tuple(value) if isinstance(value, str) and value.startswith("(") else value
  return {key: tuple(value) if isinstance(value, list) else as_tuple(value) for key, value in params.items()}
