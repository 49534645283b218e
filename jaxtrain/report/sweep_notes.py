"""Sentences on a page of several runs that say what its numbers do not tell, and how they came about."""

import numpy as np

from jaxtrain import statistics
from jaxtrain.report import figures
from jaxtrain.report.collection import REPLICATES, Fields, Member
from jaxtrain.report.page import Html, tag


def split(members: list[Member], fields: Fields) -> list[Html]:
  """Says that all seeds share one split of the data, where they do."""
  kinds = {member.fields.get("data.split.kind") for member in members} - {None, "none"}
  if "seed" not in fields.replicates or "data.split.fold" in fields.replicates or not kinds:
    return []
  return [tag("p", "All seeds share one split of the data: intervals are over initialisation, noise and the order of "
                   "rows, not over which rows are held out.", class_="note")]


def lengths(members: list[Member]) -> list[Html]:
  """Says how far the runs that came to their end were trained, where they differ."""
  ends = [max(float(steps[-1]) for steps, _ in member.curves.values()) / (member.steps_per_epoch or 1)
          for member in members if member.is_final and member.curves]
  if len(set(ends)) < 2:
    return []
  unit = "epochs" if all(member.steps_per_epoch for member in members if member.curves) else "steps"
  return [tag("p", f"The runs that came to their end were trained for {min(ends):,.6g} to {max(ends):,.6g} {unit}: a "
                   "curve that ends early is of a shorter run, not of a failed one.", class_="note")]


def schedules(members: list[Member]) -> list[Html]:
  """Says of how many runs the best state was chosen while a schedule of the loss still changed."""
  found, counts = [], {name: 0 for name in figures.SCHEDULES}
  for member in members:
    for name in counts:
      steps, values = member.curves.get(("train", name), (np.zeros(0), np.zeros(0)))
      changing = np.flatnonzero(values[:-1] != values[1:])
      if len(changing) and member.best_step is not None:
        end = changing[-1] + 1  # where the last value is met; whether the run's last one stays is not known
        counts[name] += bool(member.best_step < steps[end] or end == len(steps) - 1 and member.best_step == steps[end])
  for name, count in counts.items():
    if count:
      text = (f"In {count} of {len(members)} runs the best state is from a time when {name} still changed, and may "
              "have learned little. A longer run, or a shorter schedule, mends it.")
      found.append(tag("p", text, class_="warn"))
  return found


def method(word: str, num_groups: int, most: int) -> Html:
  """What was computed for the comparison of groups, and from where; up to `most` groups can each be the reference."""
  each = (f"each of the {num_groups} groups can be the reference" if num_groups <= most else
          f"with more than {most} groups, only the best group is a reference")
  texts = (
      f"A group is the runs that differ in {', '.join(REPLICATES)} only; those that are equal in these too "
      f"are averaged. Mean and standard deviation are over the {word}s of a group. Its interval is the 95 % "
      f"studentised bootstrap interval of the mean (Efron & Tibshirani 1993, section 12.5), from "
      f"{statistics.MIN_SHARED} {word}s on, with {statistics.RESAMPLES:,} resamples whose standard deviation is taken "
      f"as no smaller than {statistics.MIN_SPREAD:g} of the sample's. In simulations it held the mean of normal values "
      "in 94 to 97 % of cases, of skewed ones (log-normal, 0.5) in 92 to 94 %.",
      "Over bootstrap resamples the standard deviation is the bootstrap's standard error, while the interval of the "
      "mean narrows with every resample more; over folds, whose training rows overlap, both are too small.",
      f"Two groups are compared over the {word}s that both have: mean difference, its interval as above, and the p of "
      "a paired t-test, adjusted over all comparisons with the same reference (Holm 1979). Better or worse means an "
      "adjusted p below 0.05; all else is undecided, which is not the same as equal. The test decides, not the "
      f"interval: with few {word}s they may disagree.",
      f"About how many more {word}s would decide: as many as let a paired t-test find the difference seen, if it and "
      "its standard deviation are the true ones, in 80 % of cases at 5 %, shared out over all comparisons with the "
      "reference.",
      f"The best group has the best mean, of those with at least {statistics.MIN_SHARED} {word}s if there are any. "
      "That choice is made on the same data, so differences are found where there are none more often than in 5 % of "
      "cases: among equal groups with 5 seeds in about 7 % with 4 groups, and 11 % with 10. A reference that was "
      f"chosen beforehand has no such excess; {each}. Runs that failed or gave no finite value are left out, which "
      "favours settings that often fail.")
  return tag("details", tag("summary", "How this is computed"), *(tag("p", text, class_="note") for text in texts))
