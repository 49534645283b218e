"""What a user knows of a graph before it is asked for: edges that it has, edges that it has not, an order of groups.

A posterior is conditioned on it. Where edges are independent the known ones are set and the others stay as they are;
where graphs have an order, the orders are weighted by how likely they make what is known (`posterior.condition`).
An edge that would close a cycle with required edges alone is ruled out too.
"""

import os
from typing import Any, Iterable, NamedTuple

import numpy as np

from jaxtrain.data import files
from jaxtrain.errors import UserError

ARROW = "->"
REQUIRED, FORBIDDEN = 1, -1  # entries of the matrix of what is known; 0 is not known
GIVEN, RULED_OUT = "given by you", "ruled out by you"  # in place of a label of a pair
REASONS = {"required": "given by --required", "forbidden": "ruled out by --forbidden", "tiers": "ruled out by --tiers",
           "circle": "ruled out, as it would close a circle with --required"}
MOST_NAMED = 4  # edges in a line
Edge = tuple[str, str]


class Knowledge(NamedTuple):
  """Edges (cause, effect) by name, and groups of variables, causes before effects."""
  required: tuple[Edge, ...] = ()
  forbidden: tuple[Edge, ...] = ()
  tiers: tuple[tuple[str, ...], ...] = ()


def parse_edges(option: str, given: Any) -> tuple[Edge, ...]:
  """Edges of `a->b,c->d`, of a CSV file with the columns cause and effect, or of pairs in Python. Raises UserError."""
  if not isinstance(given, str):
    try:
      edges = [(str(cause), str(effect)) for cause, effect in given]
    except (TypeError, ValueError):
      raise UserError(f"--{option}: got {given!r}, allowed pairs of a cause and an effect") from None
  elif ARROW not in given and os.path.splitext(given)[1]:
    columns = files.read(files.kind_of(given), given, field=f"--{option}")
    if not {"cause", "effect"} <= columns.values.keys():
      raise UserError(f"--{option}: {given} has no columns cause and effect")
    edges = [(str(a), str(b)) for a, b in zip(columns.values["cause"], columns.values["effect"])]
  else:
    edges = [tuple(part.strip() for part in text.split(ARROW)) for text in given.split(",") if text.strip()]
  for edge in edges:
    if len(edge) != 2 or not all(edge):
      raise UserError(f"--{option}: got {ARROW.join(edge)!r}, allowed CAUSE{ARROW}EFFECT, several with commas")
  return tuple(dict.fromkeys(edges))


def parse_tiers(given: Any) -> tuple[tuple[str, ...], ...]:
  """Groups of `a,b;c,d`, or of lists of names in Python. Raises UserError for anything else."""
  groups = given.split(";") if isinstance(given, str) else given
  names = lambda group: group.split(",") if isinstance(group, str) else group
  try:
    return tuple(tuple(str(name).strip() for name in names(group) if str(name).strip()) for group in groups)
  except TypeError:
    raise UserError(f"--tiers: got {given!r}, allowed groups of names, causes before effects") from None


def parse(options: dict[str, Any]) -> Knowledge:
  """The knowledge in the options of a verb. Raises UserError for what is of another form."""
  edges = lambda option: parse_edges(option, options[option]) if option in options else ()
  return Knowledge(edges("required"), edges("forbidden"), parse_tiers(options["tiers"]) if "tiers" in options else ())


def check_names(option: str, said: Iterable[str], names: list[str], left_out: dict[str, str]) -> None:
  """Raises UserError for a name that is none of the variables."""
  for name in said:
    if name not in names:
      why = f"a column that is left out: {left_out[name]}" if name in left_out else f"allowed {', '.join(names)}"
      raise UserError(f"--{option}: got {name!r}, {why}")


def ancestors(graph: np.ndarray) -> np.ndarray:
  """[D, D] bool: whether a path of edges of graph [D, D] leads from the row to the column."""
  reach = graph.astype(bool)
  for k in range(len(graph)):
    reach |= reach[:, k, None] & reach[k]
  return reach


def matrix(known: Knowledge, names: list[str], left_out: dict[str, str]) -> np.ndarray:
  """[D, D] int8 of `REQUIRED`, `FORBIDDEN` and 0.

  Args:
    known: what is known. names: of the D variables. left_out: column -> why it is no variable.

  Raises:
    UserError: a name that is no variable or stands in two tiers; an edge from a variable to itself, or one that is
      required and ruled out; required edges in a circle.
  """
  for option, edges in (("required", known.required), ("forbidden", known.forbidden)):
    check_names(option, (name for edge in edges for name in edge), names, left_out)
  in_tiers = [name for tier in known.tiers for name in tier]
  check_names("tiers", in_tiers, names, left_out)
  for name in in_tiers:
    if in_tiers.count(name) > 1:
      raise UserError(f"--tiers: got {name!r} twice, allowed once")
  place, D = {name: k for k, name in enumerate(names)}, len(names)
  required, ruled_out = np.zeros((D, D), bool), np.eye(D, dtype=bool)
  for cause, effect in known.required:
    required[place[cause], place[effect]] = True
  for cause, effect in known.forbidden:
    ruled_out[place[cause], place[effect]] = True
  tier = np.asarray([next((t for t, group in enumerate(known.tiers) if name in group), np.nan) for name in names])
  ruled_out |= tier[:, None] > tier[None, :]  # a variable of no tier may be cause and effect of all
  for i, j in np.argwhere(required & ruled_out)[:1]:
    why = "no variable is its own cause" if i == j else "--forbidden or --tiers rules it out"
    raise UserError(f"--required: got {names[i]}{ARROW}{names[j]}, but {why}")
  reach = ancestors(required)
  for i in np.flatnonzero(np.diag(reach))[:1]:
    circle = [names[k] for k in range(D) if reach[i, k] and reach[k, i]]
    raise UserError(f"--required: got edges in a circle through {', '.join(circle)}")
  return np.where(required, REQUIRED, np.where(ruled_out | reach.T, FORBIDDEN, 0)).astype(np.int8)


def reasons(known: Knowledge, names: list[str]) -> dict[Edge, str]:
  """Edge -> the key of `REASONS` that decides it, of all edges that what is known decides."""
  found, of_tiers = (matrix(one, names, {}) for one in (known, Knowledge(tiers=known.tiers)))

  def reason(i: int, j: int) -> str:
    if found[i, j] == REQUIRED:
      return "required"
    return "forbidden" if (names[i], names[j]) in known.forbidden else "tiers" if of_tiers[i, j] else "circle"
  return {(names[i], names[j]): reason(i, j) for i, j in np.argwhere(found) if i != j}


def mark(known: Knowledge, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Of columns `cause`, `effect` and `pair` of all ordered pairs, the column `given`, the reason or "", and `pair` with
  the words for those that were given; nothing where nothing is known.
  """
  if not any(known):
    return {}
  why = reasons(known, list(dict.fromkeys(columns["cause"].tolist())))
  given = np.asarray([why.get(edge, "") for edge in zip(columns["cause"], columns["effect"])], object)
  words = np.where(given == "required", GIVEN, RULED_OUT).astype(object)
  return {"pair": np.where(given == "", columns["pair"], words), "given": given}


def say(known: Knowledge, names: list[str]) -> list[str]:
  """A line for each reason on the edges that it decides."""
  why, lines = reasons(known, names), []
  for reason, words in REASONS.items():
    edges = [f"{cause} {ARROW} {effect}" for (cause, effect), one in why.items() if one == reason]
    if edges:
      lines.append(f"{words}: {', '.join(edges) if len(edges) <= MOST_NAMED else f'{len(edges):,} pairs'}")
  return lines
