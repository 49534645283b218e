"""Which metric says which of several settings is best, where losses may be of different objectives. No JAX here."""

from jaxtrain.report import collection
from jaxtrain.report.collection import Fields, Member
from jaxtrain.workdir.fields import is_loss


def compares(name: str, fields: Fields) -> bool:
  """Whether values of a metric compare over the runs: losses do not where they are of different objectives."""
  return not (fields.objective and is_loss(name))


def judged_by(members: list[Member], fields: Fields) -> str:
  """The metric that says which setting is best; empty where none does.

  It is what is monitored. Where that is a loss and does not compare, it is a metric of held-out rows whose direction
  the experiment declares and which is no term of the loss: one that most of the runs have, of validation before test
  even where only the latter is a key result, then a key result before others.
  """
  names = collection.metric_names(members)
  if monitored := next((name for name in names if name.startswith("best ") and compares(name, fields)), ""):
    return monitored
  terms = {key.rpartition(".")[2] for member in members for key in member.fields if key.startswith("loss.weights.")}
  ranked = {}
  for place, name in enumerate(names):
    split, _, bare = name.partition("_")
    said = collection.description(name, members)
    many = sum(name in member.metrics for member in members if member.is_final)
    held = split in ("val", "test") and many > 1 and not {bare, bare.removesuffix("_nats")} & terms
    if held and said.get("direction") and compares(name, fields):
      declared = min((list(one.descriptions).index(bare) for one in members if bare in one.descriptions),
                     default=len(names))
      ranked[name] = (-many, split != "val", not said.get("key"), declared, place)
  return min(ranked, key=ranked.get, default="")
