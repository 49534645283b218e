"""What a user knows of a graph: how it is said, what follows from it, what is refused."""

import numpy as np
import pytest

from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import knowledge

NAMES = ["a", "b", "c", "d"]


def matrix(**options):
  """What is known of the variables a to d; e is a column that is left out."""
  return knowledge.matrix(knowledge.parse(options), NAMES, {"e": "it is constant"})


def pairs_with(found, value):
  """The pairs of different variables that a matrix has a value for."""
  return {f"{NAMES[i]}{NAMES[j]}" for i, j in np.argwhere(found == value) if i != j}


def test_edges_are_said_as_text_as_pairs_and_as_a_file(tmp_path):
  path = tmp_path / "known.csv"
  path.write_text("cause,effect,source\na,b,textbook\nd,c,\n", encoding="utf-8")
  for given in (" a->b, d -> c", [("a", "b"), ("d", "c")], str(path)):
    assert knowledge.parse({"required": given}).required == (("a", "b"), ("d", "c"))
  assert knowledge.parse({"tiers": "a, b;c"}).tiers == knowledge.parse({"tiers": [["a", "b"], "c"]}).tiers


def test_required_edges_rule_out_what_would_close_a_cycle():
  found = matrix(required="a->b,b->c")
  assert pairs_with(found, 1) == {"ab", "bc"} and pairs_with(found, -1) == {"ba", "cb", "ca"}
  assert pairs_with(matrix(forbidden="a->b"), -1) == {"ab"}


def test_later_tiers_do_not_cause_earlier_ones():
  """c is of no tier."""
  assert pairs_with(matrix(tiers="a;b,d"), -1) == {"ba", "da"}
  assert pairs_with(matrix(tiers="a;b;d"), -1) == {"ba", "da", "db"}


def test_what_was_given_is_marked_with_its_reason_and_said():
  """d is of the last tier, and b -> a would close a circle."""
  known = knowledge.parse({"required": "a->b", "forbidden": "c->b", "tiers": "a,b,c;d"})
  edges = [(cause, effect) for cause in NAMES for effect in NAMES if cause != effect]
  columns = {"cause": np.array([a for a, _ in edges], object), "effect": np.array([b for _, b in edges], object),
             "pair": np.array(["none"] * 12, object)}
  marked = knowledge.mark(known, columns)
  want = {("a", "b"): "required", ("b", "a"): "circle", ("c", "b"): "forbidden", ("d", "a"): "tiers",
          ("d", "b"): "tiers", ("d", "c"): "tiers"}
  assert {edge: why for edge, why in zip(edges, marked["given"]) if why} == want
  assert dict(zip(edges, marked["pair"])) == {
      edge: {"": "none", "required": "given by you"}.get(want.get(edge, ""), "ruled out by you") for edge in edges}
  assert knowledge.say(known, NAMES) == [
      "given by --required: a -> b", "ruled out by --forbidden: c -> b", "ruled out by --tiers: d -> a, d -> b, d -> c",
      "ruled out, as it would close a circle with --required: b -> a"]
  assert knowledge.say(knowledge.parse({"tiers": "a;b;c;d"}), NAMES) == ["ruled out by --tiers: 6 pairs"]
  assert knowledge.mark(knowledge.Knowledge(), columns) == {} and knowledge.say(knowledge.Knowledge(), NAMES) == []


@pytest.mark.parametrize("options, words", [
    ({"required": "a->z"}, "--required: got 'z', allowed a, b, c, d"),
    ({"forbidden": "e->a"}, "--forbidden: got 'e', a column that is left out: it is constant"),
    ({"tiers": "a;z"}, "--tiers: got 'z', allowed a, b, c, d"),
    ({"tiers": "a;a,b"}, "--tiers: got 'a' twice"),
    ({"tiers": [["a"], 3]}, "--tiers: got [['a'], 3], allowed groups of names"),
    ({"required": "a->a"}, "--required: got a->a, but no variable is its own cause"),
    ({"required": "a->b", "forbidden": "a->b"}, "--required: got a->b, but --forbidden or --tiers rules it out"),
    ({"required": "b->a", "tiers": "a;b"}, "--required: got b->a, but --forbidden or --tiers rules it out"),
    ({"required": "a->b,b->c,c->a"}, "--required: got edges in a circle through a, b, c"),
    ({"required": "a->b->c"}, "--required: got 'a->b->c', allowed CAUSE->EFFECT"),
    ({"required": "ab"}, "--required: got 'ab', allowed CAUSE->EFFECT"),
    ({"required": 3}, "--required: got 3, allowed"),
    ({"required": "no.csv"}, "--required: cannot read")])
def test_what_cannot_be_is_refused_in_a_line(options, words):
  with pytest.raises(UserError) as caught:
    matrix(**options)
  assert words in caught.value.message and "\n" not in caught.value.message
