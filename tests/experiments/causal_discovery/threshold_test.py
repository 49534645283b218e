"""The threshold of edges: F1 of a graph for each, the choice, what is judged at it."""

import numpy as np
import pytest

from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import threshold

TRUTH = np.array([[0, 1, 1], [0, 0, 0], [0, 0, 0]])
PROBS = np.array([[0.9, 0.62, 0.31], [0.4, 0.9, 0.05], [0.2, 0.05, 0.9]])  # the diagonal has no part


def test_f1_of_a_graph_for_each_threshold_by_hand():
  """0.65: no edge; 0.62: one right; 0.35: one right and one wrong; 0.31: two right and one wrong; 0: two and four."""
  found = threshold.f1_curve([(PROBS, TRUTH, 3)], np.array([0.65, 0.62, 0.35, 0.31, 0.0]))
  np.testing.assert_allclose(found, [[0, 2 / 3, 2 / 4, 4 / 5, 4 / 8]])
  padded = threshold.f1_curve([(np.pad(PROBS, (0, 2), constant_values=0.9), np.pad(TRUTH, (0, 2)), 3)],
                              np.array([0.31]))
  np.testing.assert_allclose(padded, 4 / 5)
  np.testing.assert_allclose(threshold.f1_curve([(PROBS, 0 * TRUTH, 3)], np.array([0.1, 0.7])), [[0, 1]])


def test_the_threshold_is_chosen_on_validation_tasks_and_judged_on_others():
  """Two tasks: the mean of their curves is highest from 0.21 to 0.31, where the first has 4/5 and the second 1."""
  second = np.where(TRUTH, 0.5, 0.1)
  chosen = threshold.scalars_of([(PROBS, TRUTH, 3), (second, TRUTH, 3)], None)
  assert chosen["threshold"] == 0.21 and chosen["threshold_f1"] == chosen["threshold_f1_best"] == pytest.approx(0.9)
  other = threshold.scalars_of([(PROBS, TRUTH, 3)], 0.5)
  assert other["threshold"] == 0.5 and other["threshold_f1"] == pytest.approx(2 / 3)
  assert other["threshold_f1_best"] == pytest.approx(4 / 5)


@pytest.mark.parametrize("given", ["many", "1.2", "-0.1", "nan", None])
def test_a_threshold_that_is_no_probability(given):
  with pytest.raises(UserError, match="^--threshold: got .*, allowed a probability, 0 to 1$"):
    threshold.parse(given)
  assert threshold.parse("0.25") == 0.25
