"""Sentences on a page of several runs that say what its numbers do not tell."""

from jaxtrain.report.collection import Fields, Member
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
