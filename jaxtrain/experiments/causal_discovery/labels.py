"""What a posterior says of pairs of variables, in words.

A pair of variables has one of three states: a causes b, b causes a, none. Where graphs have an order, their
probabilities are p_ab, p_ba and 1 - p_ab - p_ba. Where edges are independent both directions may be drawn together,
which no acyclic graph has, so that the probabilities are those given that not both are there: p_ab (1 - p_ba),
p_ba (1 - p_ab) and (1 - p_ab)(1 - p_ba), divided by their sum. The label of a pair is the state that has more than half
of the probability, and `undecided` where none has.

There is no label for a hidden common cause: models are trained on the edges between the variables of a table alone, so
that no probability of theirs tells a pair with a hidden cause from one that is not joined or whose direction is open.
"""

import numpy as np

LABELS = ("causes", "caused by", "none")
UNDECIDED = "undecided"
MOST_NAMED = 4  # edges in a line


def states(there: np.ndarray, back: np.ndarray, ordered: bool) -> np.ndarray:
  """Probabilities [3, N] of `LABELS` of pairs whose edge has probability `there` and its reverse `back`, [N] each."""
  if ordered:
    return np.stack([there, back, np.maximum(1.0 - there - back, 0.0)])
  found = np.stack([there * (1.0 - back), back * (1.0 - there), (1.0 - there) * (1.0 - back)])
  total = found.sum(0)
  return np.where(total > 0, found / np.where(total > 0, total, 1.0), np.nan)


def decide(ordered: bool, threshold: float, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Columns that follow from `cause`, `effect` and `prob` of all ordered pairs.

  Returns:
    `edge`: 1 where the graph at this threshold has the edge; an edge that is ruled out, whose probability is 0, is in
    no graph, at the threshold 0 neither. `pair`: what the cause is to the effect. `prob_none`: the probability that
    neither causes the other directly.
  """
  place = {pair: k for k, pair in enumerate(zip(columns["cause"], columns["effect"]))}
  back = columns["prob"][[place[pair[::-1]] for pair in place]]
  found = states(columns["prob"], back, ordered)
  words = np.where((found > 0.5).any(0), np.asarray(LABELS, object)[found.argmax(0)], UNDECIDED)
  edge = (columns["prob"] >= threshold) & (columns["prob"] > 0)
  return {"edge": edge.astype(np.int64), "pair": words, "prob_none": found[2]}


def say(threshold: float, origin: str, found: dict[str, np.ndarray]) -> list[str]:
  """A line on the graph at a threshold."""
  those = f"a probability of {threshold:g} or more" if threshold else "any probability"
  given = int(found["edge"][found["given"] != ""].sum()) if "given" in found else 0
  lines = [f"the graph has {int(found['edge'].sum()):,} edges, those with {those} ({origin})"
           + f", {given:,} of them given by you" * bool(given)]
  if len(found["edge"]) > 2 and found["edge"].all():
    lines.append("these are all pairs in both directions: at this threshold the graph says nothing")
  doubtful = [k for k in np.flatnonzero(found["edge"]) if found["pair"][k] in (LABELS[2], UNDECIDED)]
  if doubtful:
    some = ", ".join(f"{found['cause'][k]} -> {found['effect'][k]} ({found['pair'][k]})" for k in doubtful[:MOST_NAMED])
    more = f" and {len(doubtful) - MOST_NAMED} more" * (len(doubtful) > MOST_NAMED)
    lines.append(f"of these {len(doubtful):,} are doubtful, drawn dashed: neither direction alone has more than half "
                 f"of the probability, in which both at once do not count: {some}{more}")
  return lines


def say_assumptions(ordered: bool, num_nodes: tuple[int, ...], num_rows: tuple[int, int]) -> list[str]:
  """A sentence on what a posterior takes for granted, and on what its model was trained.

  Args:
    ordered: whether its graphs have an order. num_nodes: of training tables. num_rows: the fewest and the most.
  """
  rows = " to ".join(f"{count:,}" for count in dict.fromkeys(num_rows))
  nodes = " to ".join(str(count) for count in dict.fromkeys((min(num_nodes), max(num_nodes))))
  cycles = " and no cycle" * ordered
  return [f"The model assumes no hidden common cause of two variables{cycles}. It was trained on simulated tables, "
          f"{nodes} variables by {rows} rows: a probability is right only if the table is like those."]
