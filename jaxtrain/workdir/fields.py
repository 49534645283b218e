"""Fields of a config among others: how they are called on pages, in figures and on the terminal, and which of them
change what a loss is. Standard library alone.
"""

from typing import Iterable

VAGUE = ("kind", "name", "path", "source", "start", "shape")  # last parts of keys that say little alone


def short_names(keys: Iterable[str]) -> dict[str, str]:
  """A short name of each dotted key: its last part, with as much before it as tells them apart and says what they are.

  A field of a section within a section keeps the name of that, since the last part is of it: `weights.class`,
  `kl_schedule.shape`, `split.fold`.
  """
  names, keys = {}, list(keys)
  for key in keys:
    parts = key.split(".")
    least = 1 + (parts[-1] in VAGUE or len(parts) > 2)
    ends = (".".join(parts[-k:]) for k in range(least, len(parts) + 1))
    names[key] = next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in keys) == 1), key)
  return names


def changes_loss(key: str) -> bool:
  """Whether a field decides of which terms a loss is the sum: its weights, and kinds of parts of a model."""
  return key.startswith("loss.") or key.startswith("model.") and key.endswith((".kind", ".architecture"))


def is_loss(metric: str) -> bool:
  """Whether a metric is a loss, which compares only between runs of one objective."""
  return metric.endswith("loss")
