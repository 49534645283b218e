"""What a sweep says of its members as a whole, before they are trained and after."""

import math

from jaxtrain import streams
from jaxtrain.workdir import fields, reading


def say_seeds(journal) -> None:
  """Says where every setting of a sweep is there once, so that its page can give no verdict."""
  from jaxtrain.report.collection import REPLICATES, identity
  settings = [{key: value for key, value in member.values.items() if key not in REPLICATES}
              for member in journal.members]
  if len(settings) > 1 and len(set(map(identity, settings))) == len(settings):
    streams.say("jaxtrain: one seed a setting: no verdict is possible; --sweep=seed=0..2 adds seeds")


def say_search(axes: list, train) -> None:
  """Says where a search looks for the best of losses that do not compare."""
  kinds = ", ".join(axis.field for axis in axes if fields.changes_loss(axis.field))
  if kinds and fields.is_loss(train.monitor):
    streams.say(f"jaxtrain: {kinds} changes what the loss is, so that losses of trials do not compare, and the "
                f"search goes by {train.monitor}; --config.train.monitor names another metric, "
                "--config.train.monitor_mode its direction")


def say_best(journal, train, changed: set[int]) -> None:
  """Prints the member of the sweep with the best monitored value: those of earlier calls count, changed ones do not.

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
    streams.say(f"jaxtrain: best of {len(values)} by {by}: {values[number]:.6g}, member {journal.members[number].label}"
                f"{f'; {why}' * bool(why)}; seeds and intervals are in the report")
  elif len(done) > 1 and why:
    streams.say(f"jaxtrain: {why}, and no other metric of held-out rows does")
