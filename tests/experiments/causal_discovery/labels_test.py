"""Words for pairs of variables, by hand."""

import numpy as np
import pytest

from jaxtrain.experiments.causal_discovery import labels

PAIRS = [("a", "b"), ("a", "c"), ("b", "a"), ("b", "c"), ("c", "a"), ("c", "b")]


def columns(*probs):
  """The columns of all pairs of a, b and c in the order of `PAIRS`."""
  return {"cause": np.array([a for a, _ in PAIRS], object), "effect": np.array([b for _, b in PAIRS], object),
          "prob": np.array(probs)}


def test_the_states_of_a_pair_have_probabilities_that_sum_to_one():
  """Independent 0.8 and 0.5: given that not both are there 0.4, 0.1 and 0.1, of 0.6."""
  np.testing.assert_allclose(labels.states(np.array([0.8]), np.array([0.5]), False)[:, 0], [4 / 6, 1 / 6, 1 / 6])
  np.testing.assert_allclose(labels.states(np.array([0.8]), np.array([0.1]), True)[:, 0], [0.8, 0.1, 0.1])


def test_each_pair_has_a_word_and_the_reverse_the_reverse():
  """a -> b is likely, a and c are joined and nobody knows which way, b and c are apart."""
  found = labels.decide(True, 0.4, columns(0.7, 0.45, 0.2, 0.1, 0.45, 0.1))
  assert dict(zip(PAIRS, found["pair"])) == {
      ("a", "b"): "causes", ("b", "a"): "caused by", ("a", "c"): "undecided", ("c", "a"): "undecided",
      ("b", "c"): "none", ("c", "b"): "none"}
  assert list(found["edge"]) == [1, 1, 0, 0, 1, 0]
  assert found["prob_none"] == pytest.approx([0.1, 0.1, 0.1, 0.8, 0.1, 0.8])


def test_edges_that_are_known_leave_no_doubt():
  found = labels.decide(False, 1.0, columns(1.0, 0.0, 0.0, 0.3, 0.0, 0.0))
  assert list(found["pair"][:3]) == ["causes", "none", "caused by"] and list(found["edge"]) == [1, 0, 0, 0, 0, 0]


def test_a_graph_at_threshold_zero_has_every_edge_but_those_ruled_out():
  found = columns(0.4, 0.0, 1e-9, 0.3, 0.0, 0.2)
  found |= labels.decide(False, 0.0, found)
  assert list(found["edge"]) == [1, 0, 1, 1, 0, 1]
  assert labels.say(0.0, "as given", found)[0] == "the graph has 4 edges, those with any probability (as given)"


def test_a_graph_of_all_pairs_in_both_directions_is_said_to_say_nothing():
  found = columns(0.4, 0.3, 0.2, 0.3, 0.2, 0.2)
  found |= labels.decide(False, 0.05, found)
  says = "these are all pairs in both directions: at this threshold the graph says nothing"
  assert says in labels.say(0.05, "as given", found)
  assert says not in labels.say(0.25, "as given", found | labels.decide(False, 0.25, found))


def test_edges_whose_pair_is_not_decided_for_them_are_named():
  """Of 0.45 and 0.42 neither has half, and of a lone 0.45 no edge has 0.55."""
  found = columns(0.45, 0.9, 0.42, 0.45, 0.0, 0.0)
  found |= labels.decide(False, 0.4, found)
  lines = labels.say(0.4, "as given", found)
  assert "of these 3 are doubtful" in lines[1]
  assert lines[1].endswith("a -> b (undecided), b -> a (undecided), b -> c (none)")
  sure = columns(0.9, 0.0, 0.0, 0.0, 0.0, 0.0)
  assert len(labels.say(0.4, "as given", sure | labels.decide(False, 0.4, sure))) == 1


def test_what_a_model_takes_for_granted_is_said():
  (line,) = labels.say_assumptions(True, (5, 10, 30), (60, 1200))
  assert "no hidden common cause" in line and "no cycle" in line and "5 to 30 variables by 60 to 1,200 rows" in line
  assert "no cycle" not in labels.say_assumptions(False, (5,), (60, 60))[0]
