"""Whether a run's model is any good: its best monitored value, and warnings of what speaks against it. No JAX.

`predict` prints it before its result, and `run.quality` of a loaded run is the same.
"""

import math
from typing import Any, Mapping, NamedTuple, Sequence

from jaxtrain.jsonable import number
from jaxtrain.workdir import reading
from jaxtrain.workdir.reading import RunData, newest_event

HALF = "_ci95"  # ending of the name of half a 95 % interval
ENDS = ("_low", "_high")  # endings of the names of both ends of one
FEW_GROUPS = 10  # fewer, and intervals that resample whole ones are too short: their spread is hardly known
MOST_SHOWN = 6  # key results in a line


class Quality(NamedTuple):
  """What a run's own evaluation says of its model.

  Attributes:
    monitor: name of the monitored metric, such as `val_loss`.
    value, step, epoch: its best value and where that was; None where nothing was evaluated, and the epoch for streams.
    chance: the value of guessing, where the experiment declares one for this metric.
    part: whose rows the key results are of: test, else val, else train.
    results: the key results by name, as the report shows them: value, low and high (of a 95 % interval; None where not
      known) and chance (None where there is none).
    warnings: sentences; none where nothing speaks against the model.
  """
  monitor: str
  value: float | None
  step: int | None
  epoch: float | None
  chance: float | None
  part: str
  results: dict[str, dict[str, float | None]]
  warnings: tuple[str, ...]

  def lines(self) -> list[str]:
    """The best value in a line, the key results in a second, then a line for each warning."""
    return [*self.results_in_words(), *(f"warning: {words}" for words in self.warnings)]

  def results_in_words(self) -> list[str]:
    """The best value in a line, and the key results in a second where there are some."""
    if self.value is None:
      best = "nothing was evaluated, so how good the model is is not known"
    else:
      best = f"best {self.monitor} {self.value:.6g}"
      best += f" at step {self.step:,}" if self.step is not None else ""
      best += f", epoch {self.epoch:,.6g}" if self.epoch is not None else ""
      best += f" (chance {self.chance:g})" if self.chance is not None else ""
    shown = [with_ends(name, one["value"], (one["low"], one["high"]), one["chance"])
             for name, one in list(self.results.items())[:MOST_SHOWN]]
    where = {"test": "held-out test part of its own data", "val": "validation part, by which the best state was chosen",
             "train": "training rows"}[self.part]
    return [best, *[f"on the {where}: {', '.join(shown)}"] * bool(shown)]


class Result(NamedTuple):
  """A key result: its name, value, half of its 95 % interval (None where not known), and what is said of it."""
  name: str
  value: float
  half: float | None
  said: dict


def cut(value: float, half: float, limits: Sequence[float] | None) -> tuple[float, float]:
  """Both ends of an interval about a value, no further than the limits of its metric; where the value itself is beyond
  them, as it is.
  """
  low, high = limits if limits is not None and limits[0] <= value <= limits[1] else (-math.inf, math.inf)
  return max(value - half, low), min(value + half, high)


def is_cut(value: float, half: float, limits: Sequence[float] | None) -> bool:
  """Whether an interval passes a limit of its metric."""
  return math.isfinite(half) and cut(value, half, limits) != (value - half, value + half)


def ends_of(name: str, values: Mapping[str, Any], said: Mapping[str, Any]) -> tuple[float | None, float | None]:
  """Both ends of the 95 % interval of a metric, of all values by name; None where they are not known.

  `said`: of the metric, whose limits no end passes.
  """
  half, value = number(values.get(name + HALF)), number(values.get(name))
  if half is None or value is None:
    return tuple(number(values.get(name + end)) for end in ENDS)
  return cut(value, half, said.get("limits"))


def with_ends(name: str, value: float, ends: tuple[float | None, float | None], chance: float | None = None) -> str:
  """A metric with its interval and the value of guessing, where they are known: `accuracy 0.91 (0.9 to 0.92; chance
  0.5)`.
  """
  more = [] if None in ends else [f"{ends[0]:.3g} to {ends[1]:.3g}"]
  more += [] if chance is None else [f"chance {chance:.3g}"]
  return f"{name} {value:.4g}" + (f" ({'; '.join(more)})" if more else "")


def held_out(run: RunData) -> str:
  """The part whose rows took no part in training: test, else val; "" where there is neither."""
  there = {row["split"] for row in run.rows} | run.evals.keys()
  return next((split for split in ("test", "val") if split in there), "")


def part_of(run: RunData) -> str:
  """The part whose results a run is judged by: the one that was held out, else train."""
  return held_out(run) or "train"


def measured(run: RunData, split: str) -> dict[str, float]:
  """All numbers of a split in the best state by name: those of its assessment, then those of its evaluation."""
  found, best = reading.scalars(run.evals.get(split, {})), reading.best_of(run).step
  for row in run.rows:
    if row["split"] == split and (split == "test" or row["step"] == best):
      found = {name: reading.value_of(row, name) for name in reading.metric_names(run)} | found
  return {name: value for name, value in found.items() if value is not None}


def key_results(run: RunData) -> list[Result]:
  """The key results of the part that a run is judged by, in the order of their declaration; where there are none, the
  loss and the metric that is monitored.
  """
  said, values = reading.described(run), measured(run, part_of(run))
  names = [name for name, entry in said.items() if entry.get("key") and math.isfinite(values.get(name, math.nan))]
  monitored = reading.best_of(run).monitor.partition("_")[2]
  names = names or [name for name in dict.fromkeys(("loss", monitored)) if name in values]
  return [Result(name, values[name], values.get(name + HALF), reading.description(said, name)) for name in names]


def no_better(run: RunData) -> list[Result]:
  """The key results that are no better than guessing."""
  return [one for one in key_results(run) if is_chance(one.value, one.said, one.half)]


def is_chance(value: float, said: dict, half: float | None = None) -> bool:
  """Whether a value is no better than guessing, by what the experiment says of its metric.

  Args:
    value: of the metric.
    said: its direction and chance, as in the facts of a run.
    half: half of its 95 % interval: a value that is better by less than that is not known to be better.
  """
  chance = number(said.get("chance"))
  if chance is None or not said.get("direction"):
    return False
  sign = 1 if said["direction"] == "higher" else -1
  return sign * (value - chance) <= (half or 0.0)


def of_workdir(workdir: str, step: int | None = None) -> Quality:
  """The quality of the run in a folder, and a warning where what is applied is the state of another step.

  Raises UserError where there is no config.json that can be read.
  """
  _, run = reading.read_newest(workdir)
  found = of_run(run._replace(meta=reading.known_meta(run)))
  if None in (step, found.step) or step == found.step:
    return found
  words = f"these numbers are of the state of step {found.step:,}; what is applied here is that of step {step:,}"
  return found._replace(warnings=(*found.warnings, words))


def of_run(run: RunData) -> Quality:
  """The quality of a run, from its files, with what it knows of its data."""
  best, (unit, per_unit) = reading.best_of(run), reading.time_axis(run)
  said = reading.description(reading.described(run), best.monitor.partition("_")[2])
  epoch = best.step / per_unit if unit == "epoch" and best.step is not None else None
  found = [*unfinished(run), *unseen(run), *few_groups(run), *(f"data: {words}" for words in data_warnings(run.meta))]
  found += [words] if (words := better_end(run)) else []
  chance = number(said.get("chance"))
  is_said = best.value is not None and is_chance(best.value, said)
  if is_said:
    found.append(f"{best.monitor} is no better than chance, {chance:g}")
  elsewhere = [one for one in no_better(run) if not is_said or f"{part_of(run)}_{one.name}" != best.monitor]
  found += [f"{one.name} of the {part_of(run)} part, {one.value:.4g}, is no better than chance, "
            f"{number(one.said['chance']):g}" for one in elsewhere]
  return Quality(best.monitor, best.value, best.step, epoch, chance, part_of(run), results_of(run), tuple(found))


def results_of(run: RunData) -> dict[str, dict[str, float | None]]:
  """The key results that the experiment has declared, by name, for `Quality`."""
  values, found = measured(run, part_of(run)), {}
  for one in key_results(run):
    if one.said.get("key"):
      low, high = ends_of(one.name, values, one.said)
      found[one.name] = {"value": one.value, "low": low, "high": high, "chance": number(one.said.get("chance"))}
  return found


def data_warnings(meta: dict) -> list[str]:
  """What the facts of a table, and of its labels, warn of; nothing where a run knows of none."""
  facts = meta["table"] if isinstance(meta.get("table"), dict) else {}
  return [words for key in ("warnings", "label_warnings") if isinstance(facts.get(key), list) for words in facts[key]]


def unfinished(run: RunData) -> list[str]:
  """That a run has not come to its end, in a sentence; nothing where it has."""
  word, _, sentence = reading.status(run)
  if word == "done":
    return []
  if word == "failed":
    return [f"the run has failed: {sentence}"]
  last, total = (number(found) for found in (max((row["step"] for row in run.rows), default=0),
                                             newest_event(run, "on_start").get("num_steps")))
  where = f" (its newest evaluation is at step {last:,.0f} of {total:,.0f})" if total and 0 < last < total else ""
  return [f"the run is unfinished{where}; the command that trained it goes on with it"]


def better_end(run: RunData) -> str:
  """That a run ends with a validation better than its best, which is not compared, in a sentence; "" where it does not.
  """
  best, settings, (unit, per_unit) = reading.best_of(run), run.config.get("eval", {}), reading.time_axis(run)
  in_epochs = (number(settings.get("every_epochs")) or 0) * (per_unit if unit == "epoch" else 0)
  every = number(settings.get("every_steps")) or in_epochs
  split, _, name = best.monitor.partition("_")
  last = max((row["step"] for row in run.rows if row["split"] == "val"), default=0)
  if split != "val" or not newest_event(run, "on_train_end") or not every or last % every == 0:
    return ""
  value = next((reading.value_of(row, name) for row in run.rows if (row["split"], row["step"]) == (split, last)), None)
  mode = run.config.get("train", {}).get("monitor_mode", "min")
  return say_better_end(best, reading.Best(best.monitor, value, last), mode)


def say_better_end(best: reading.Best, end: reading.Best, mode: str) -> str:
  """What `better_end` says of the best and of the end of a run; `mode`: whether the least or the largest is best."""
  if None in (best.value, end.value) or not (end.value < best.value if mode == "min" else end.value > best.value):
    return ""
  return (f"the end of the run, at step {end.step:,}, is better ({end.monitor} {end.value:.6g}) but is not compared: a "
          "run that is made longer is not evaluated there. --checkpoint=last of predict takes it; with an "
          "eval.every_steps that divides the number of steps it would be compared")


def few_groups(run: RunData) -> list[str]:
  """That the part that a run is judged by has too few groups of rows for its intervals, in a sentence."""
  groups = measured(run, held_out(run)).get("groups") if held_out(run) else None
  if groups is None or groups >= FEW_GROUPS:
    return []
  what = "1 group is" if groups == 1 else f"{groups:.0f} groups are"
  return [f"{what} held out in the {held_out(run)} part: its intervals are too short to rely on"]


def unseen(run: RunData) -> list[str]:
  """That no data was held out, in a sentence; nothing where there was."""
  if held_out(run) or not run.rows:
    return []
  data = run.config.get("data")
  hint = "; train with another config.data.split.kind to know it" if isinstance(data, dict) and "split" in data else ""
  return [f"no data was held out, so how well the model does on new data is not known{hint}"]
