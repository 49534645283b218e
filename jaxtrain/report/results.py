"""What a run's page says of its results: key results on held-out data, what to look at, and tables of all metrics.

Key results are those that the experiment declares as such in METRICS. They are shown for rows that took no part in
training, and where there are none the page says so and what to change.
"""

import math
from typing import Iterable

from jaxtrain.report import figures
from jaxtrain.report.names import words
from jaxtrain.report.page import Html, fmt, table, tag, with_interval
from jaxtrain.statistics import MIN_GROUPS
from jaxtrain.workdir import reading
from jaxtrain.workdir.quality import (HALF, Result, better_end, data_warnings, few_groups, held_out, is_cut,
                                      key_results, measured, no_better)
from jaxtrain.workdir.reading import RunData, best_of, newest_event, time_axis, value_of

MAX_KEYS = 6
OPTIMISER = ("lr", "grad_norm", "update_norm")
FEW_STEPS = 30  # below which a run is a trial of the command
NEAR_END = 0.95  # share of training from which on a best state says that more training may help
APART = 1.5  # ratio of validation to training loss that is worth a sentence


def headline(run: RunData) -> list[Html]:
  """The key results as tiles, and of which rows they are."""
  found, split = key_results(run)[:MAX_KEYS], held_out(run)
  if not found:
    return [tag("p", "Nothing has been evaluated yet.", class_="soft")]
  shown = (tag("div", tag("span", words(one.name, one.said), title=one.name), tag("b", *number_parts(one)),
               tag("span", explained(one.said) or "\u00a0")) for one in found)
  intervals = any(one.half is not None for one in found)
  cut = any(one.half is not None and is_cut(one.value, one.half, one.said.get("limits")) for one in found)
  return [tag("div", *shown, class_="tiles keys"), tag("p", basis(run, split, intervals, cut),
                                                       class_="soft" if split else "warn")]


def number_parts(one: Result) -> list[Html | str]:
  """A key result as text: its value, and smaller its interval."""
  value, _, interval = with_interval(one.value, one.half, one.said.get("limits")).partition(" ")
  return [value, *[tag("em", f" {interval}")] * bool(interval)]


def basis(run: RunData, split: str, intervals: bool, cut: bool) -> str:
  """Of which rows the key results are, and what their intervals mean; `cut`: one is cut at a limit."""
  rows = measured(run, split or "train").get("rows")
  unit = reading.description(reading.described(run), "rows").get("unit") or "rows"
  count = f"{rows:,.0f} {unit}" if rows else f"the {unit}"
  labelled = count_labelled(run) if split == run.split else 0
  which = f", of which {labelled:,} have a label," if 0 < labelled < (rows or 0) else ","
  if split == "test":
    text = f"On {count} held out for the test{which} in the best state."
  elif split == "val":
    text = (f"On {count} of the validation part{which} in the best state. The best state was chosen on them, so these "
            "numbers are a little too good; there is no test part.")
  else:
    text = (f"No data is held out: these numbers are of {count} that were trained on{which} and say nothing about new "
            "data.")
    if "split" in run.config.get("data", {}):
      text += (" Train with --config.data.split.kind=random, or with group where rows of one group are alike, for "
               "results on held-out rows.")
  groups = measured(run, split or "train").get("groups")
  how = f"as if {unit} were independent"
  if groups and split and groups >= MIN_GROUPS:
    how = f"from resamples of whole groups of {unit} ({groups:,.0f}), and no shorter than of independent {unit}"
  brackets = "; brackets hold one that is cut at a limit of its metric" * cut
  return text + f" ± is half a 95 % interval, {how}{brackets}." * intervals


def findings(run: RunData) -> list[str]:
  """What a reader should look at first: warnings of the data, alarms, results no better than chance, a short run."""
  alarms = [alarm for event in run.events for alarm in event.get("alarms", ())]
  found = list(dict.fromkeys(data_warnings(run.meta) + alarms[-1:]))
  found += [f"{sentence}." for sentence in few_groups(run)]
  found += [f"{words(one.name, one.said)} ({fmt(one.value)}) is no better than chance ({fmt(one.said['chance'])})."
            for one in no_better(run)]
  found += few_steps(run)
  found += [f"{sentence[0].upper()}{sentence[1:]}."] if (sentence := better_end(run)) else []
  for say in figures.experiment_families(run.config.get("experiment", ""), "FINDINGS").values():
    found += say(run)
  if majority := majority_share(run):
    share, accuracy = majority
    verdict = "is no better than" if accuracy <= share else "compares with"
    found.append(f"The accuracy of {fmt(accuracy)} {verdict} {fmt(share)}, the share of the most frequent class.")
  found += course(run)
  constant = constant_items(run)
  if constant:
    some = ", ".join(constant[:5]) + (f" and {len(constant) - 5} more" if len(constant) > 5 else "")
    found.append(f"{len(constant)} feature{'s are' if len(constant) > 1 else ' is'} constant in the {run.split} part, "
                 f"or in all but a few of its rows: {some}. They have no R² and can be left out of the table.")
  return found


def few_steps(run: RunData) -> list[str]:
  """That a run is too short to say anything of its method, in a sentence; nothing where it is not."""
  ended, last = newest_event(run, "on_train_end"), max((row["step"] for row in run.rows), default=0)
  return [f"The run has {last:,} training steps: it shows that everything works, and nothing about the model."] * bool(
      ended and 0 < last < FEW_STEPS)


def majority_share(run: RunData) -> tuple[float, float] | None:
  """The share of the most frequent class among labelled rows, and the accuracy; None without a classifier."""
  accuracy, total = measured(run, run.split).get("accuracy"), count_labelled(run)
  return (float(run.arrays["class_count"].max() / total), accuracy) if total else None


def count_labelled(run: RunData) -> int:
  """Rows with a label in the part that is shown, by which a classifier is judged; 0 without a classifier."""
  judged = "class_count" in run.arrays and measured(run, run.split).get("accuracy") is not None
  return int(run.arrays["class_count"].sum()) if judged else 0


def course(run: RunData) -> list[str]:
  """What the course of training says: a best state at the very end, or a gap between the parts."""
  found, best, (unit, per_unit) = [], best_of(run), time_axis(run)
  last = max((row["step"] for row in run.rows), default=0)
  ended = newest_event(run, "on_train_end")
  late = best.step and last > 3 * per_unit and best.step >= NEAR_END * last
  shade = figures.annealed(run)
  if ended and late and shade is not None and shade[0] >= last / per_unit:
    found.append(f"{best.monitor} is best at the end of training, and {shade[1]}, so that its values are of different "
                 "objectives and do not compare.")
  elif ended and late and not ended.get("stopped_early"):
    found.append(f"{best.monitor} was still improving at the end ({unit} {best.step / per_unit:,.6g} of "
                 f"{last / per_unit:,.6g} is the best): longer training may help.")
  pair = [measured(run, split).get("loss") for split in ("train", "val")]
  if None not in pair and pair[0] > 0 and pair[1] > APART * pair[0]:
    found.append(f"The validation loss ({fmt(pair[1])}) is far above the training loss ({fmt(pair[0])}): the model may "
                 "have memorised the training rows.")
  return found


def constant_items(run: RunData) -> list[str]:
  """Features that do not vary, or hardly, in the part that is shown, so that they have no R2."""
  return [name.partition("/")[2] for name, value in reading.scalars(run.evals.get(run.split, {})).items()
          if name.startswith("r2_raw/") and math.isnan(value or 0.0)]


def look_section(run: RunData) -> list[Html]:
  """The findings and problems as a list; nothing where there are none."""
  notes = [tag("li", text) for text in findings(run)]
  notes += [tag("li", "Note: ", text, class_="warn") for text in run.problems]
  notes += [tag("li", "Note: passed over ", reason, class_="warn") for start in run.starts
            for reason in start.get("skipped_checkpoints", ())]
  return [tag("h3", "What to look at"), tag("ul", *notes)] if notes else []


def metrics_section(run: RunData) -> list[Html]:
  """All metrics in the best state: results, the loss and its terms, schedules and the optimiser, then items."""
  splits = [split for split in ("train", "val", "test") if measured(run, split)]
  if not splits:
    return [tag("p", "None yet.")]
  values = {split: measured(run, split) for split in splits}
  names = [name for name in dict.fromkeys(name for split in splits for name in values[split])
           if "/" not in name and not name.endswith(HALF)]
  keys = [name for name, said in reading.described(run).items() if said.get("key")]
  names.sort(key=lambda name: keys.index(name) if name in keys else len(keys))
  for name in OPTIMISER:
    rows = [row for row in run.rows if row["split"] == "train" and value_of(row, name) is not None]
    at_best = [row for row in rows if row["step"] == best_of(run).step] or rows[-1:]
    if at_best and "train" in values:
      values["train"][name] = value_of(at_best[0], name)
      names += [name] * (name not in names)
  terms = ("loss", *run.config.get("loss", {}).get("weights", {}))
  schedules = (*figures.SCHEDULES, *OPTIMISER)
  groups = {"Results": [name for name in names if name not in (*terms, *schedules)],
            "The loss and its terms, before weighting": [name for name in terms if name in names],
            "Schedules and the optimiser": [name for name in schedules if name in names]}
  unit, per_unit = time_axis(run)
  step = best_of(run).step
  at = f"{unit} {step / per_unit:,.6g}" if step else "the last state"
  parts = [tag("p", f"All values are of the best state ({at}). What only training measures is a mean over the steps "
                    "before it, with any masking and dropout.", class_="note")]
  for title, group in groups.items():
    if group:
      parts += [tag("h3", title), metric_table(run, group, values)]
  return parts + items_table(run)


def metric_table(run: RunData, names: Iterable[str], values: dict[str, dict[str, float]]) -> Html:
  """A row per metric with what it means, a column per part that has a value; intervals stand beside their values."""
  said = {name: reading.description(reading.described(run), name) for name in names}
  columns = [split for split in values if any(name in values[split] for name in said)]
  first = lambda name: tag("td", name, *[tag("small", meaning(said[name]))] * bool(meaning(said[name])))
  shown = lambda split, name: with_interval(values[split].get(name), values[split].get(name + HALF),
                                            said[name].get("limits"))
  rows = [[first(name), *(shown(split, name) for split in columns)] for name in said]
  return table(["metric", *columns], rows)


def meaning(said: dict) -> str:
  """What a metric means, its unit, direction and chance level, in a line."""
  return "; ".join(part for part in (said.get("meaning"), explained(said)) if part)


def explained(said: dict) -> str:
  """Unit, better direction and chance level of a metric in words; empty where nothing is said."""
  parts = [said.get("unit"), f"{said['direction']} is better" if said.get("direction") else "",
           f"chance {fmt(said['chance'])}" if said.get("chance") is not None else ""]
  return ", ".join(part for part in parts if part)


def items_table(run: RunData) -> list[Html]:
  """Measures named `measure/item`, such as those of each feature, as a table; R2 with a bar under it."""
  scalars = reading.scalars(run.evals.get(run.split, {}))
  values = {tuple(name.split("/", 1)): value for name, value in scalars.items() if "/" in name}
  measures = [m for m in dict.fromkeys(measure for measure, _ in values)
              if m not in ("rmse_scaled", "mae_scaled") and not m.endswith(HALF)]
  limits = {measure: reading.description(reading.described(run), measure).get("limits") for measure in measures}
  constant = set(constant_items(run))
  items = dict.fromkeys(item for _, item in values)
  if all(fmt(values.get(("r2_scaled", item))) == fmt(values.get(("r2_raw", item))) for item in items):
    measures = [measure for measure in measures if measure != "r2_scaled"]  # says nothing more

  def cell(measure: str, item: str) -> Html:
    value, half = values.get((measure, item)), values.get((measure + HALF, item))
    if item in constant and measure.startswith(("r2", "impute_r2")):
      return tag("td", "hardly varies", class_="soft")
    bar = {"style": f"--v:{100 * value:.1f}%"} if measure.startswith("r2") and value and 0 < value <= 1 else {}
    return tag("td", with_interval(value, half, limits[measure]), **bar)

  word = "feature" if items.keys() <= set(run.meta.get("features", ())) else "item"
  rows = [[item, *(cell(measure, item) for measure in measures)] for item in items]
  return [tag("h3", f"By {word}, {run.split}"), table([word, *map(words, measures)], rows)] if rows else []
