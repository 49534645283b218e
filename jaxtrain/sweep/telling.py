"""What a sweep says of its members as a whole, before they are trained and after."""

import math

from jaxtrain import streams
from jaxtrain.workdir import fields, reading
from jaxtrain.workdir.journal import describe


def say_seeds(journal) -> None:
  """Says where every setting of a sweep is there once, so that its page can give no verdict."""
  from jaxtrain.report.collection import identity
  settings = [setting_of(member) for member in journal.members]
  if len(settings) > 1 and len(set(map(identity, settings))) == len(settings):
    streams.say("jaxtrain: one seed a setting: no verdict is possible; --sweep=seed=0..2 adds seeds")


def setting_of(member) -> dict:
  """The values of a member but for those in which runs of one setting differ."""
  from jaxtrain.report.collection import REPLICATES
  return {key: value for key, value in member.values.items() if key not in REPLICATES}


def best_setting(members: list, values: dict[int, float], higher: bool) -> str:
  """The setting with the best mean, in words; empty where there is one alone, or none has two runs.

  Args:
    members: of a sweep. values: number of a member -> what it is judged by.
  """
  from jaxtrain.report.collection import identity
  runs = {}
  for number, value in values.items():
    runs.setdefault(identity(setting_of(members[number])), []).append((number, value))
  if len(runs) < 2 or max(map(len, runs.values())) < 2:
    return ""
  most = [own for own in runs.values() if len(own) > 1]  # the mean of one run is its luck
  mean = lambda own: sum(value for _, value in own) / len(own)
  best = (max if higher else min)(most, key=mean)
  return f"{describe(setting_of(members[best[0][0]]))}, {mean(best):.6g} over {len(best)} runs"


def say_search(axes: list, train) -> None:
  """Says where a search looks for the best of losses that do not compare."""
  kinds = ", ".join(axis.field for axis in axes if fields.changes_loss(axis.field))
  if kinds and fields.is_loss(train.monitor):
    streams.say(f"jaxtrain: {kinds} changes what the loss is, so that losses of trials do not compare, and the "
                f"search goes by {train.monitor}; --config.train.monitor names another metric, "
                "--config.train.monitor_mode its direction")


def say_best(journal, train, changed: set[int]) -> None:
  """Prints the member of the sweep with the best monitored value, and where settings have several runs that with the
  best mean first: members of earlier calls count, changed ones do not.

  Where members are monitored by losses that do not compare, it is the best by the metric that their page takes instead,
  and none where there is no such metric.
  """
  from jaxtrain.report import collection, judging
  done = [member for member in journal.members if member.outcome == "done" and member.number not in changed]
  swept = {key for member in journal.members for key in member.values if fields.changes_loss(key)}
  values_of = lambda key: {collection.identity(member.values.get(key)) for member in journal.members}
  kinds = ", ".join(sorted(key for key in swept if len(values_of(key)) > 1))
  by, higher, why = f"what they monitor ({train.monitor})", train.monitor_mode == "max", ""
  if kinds and fields.is_loss(train.monitor):
    why = f"{kinds} changes what the loss is, so that losses do not say which is better"
    members = collection.members_of(journal.folder)
    by = judging.judged_by(members, collection.varying(members))
    values = {member.number: members[member.number].metrics.get(by) for member in done}
    higher = collection.direction(by, members)[0]
  else:
    values = {member.number: reading.best_value(journal.workdir(member)) for member in done}
  values = {number: value for number, value in values.items() if value is not None and math.isfinite(value)}
  if values:
    number = (max if higher else min)(values, key=values.get)
    run, setting = journal.members[number].label, best_setting(journal.members, values, higher)
    found = f"best of {len(values)} by {by}: {values[number]:.6g}, member {run}; seeds and intervals are in the report"
    if setting:
      found = (f"best setting by the mean of {by}: {setting}; whether it surely beats the others is in the report (the "
               f"best run is {values[number]:.6g}, member {run})")
    streams.say(f"jaxtrain: {found}{f'; {why}' * bool(why)}")
  elif len(done) > 1 and why:
    streams.say(f"jaxtrain: {why}, and no other metric of held-out rows does")
