"""The head `arrow`: probabilities and losses in float64, what orders allow, configs; and orders given known edges."""

import functools
import itertools

import jax
import numpy as np
import pytest

from jaxtrain import config as config_lib
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import arrow, pairs, posterior
from jaxtrain.run import check

LOGITS = np.array([[0, 0.7, -1.2, 5], [0.7, 0, 0.4, 5], [-1.2, 0.4, 0, 5], [5, 5, 5, 5]])
SCORES = np.array([0.9, -0.3, 0.2, 9.0])
MASK = np.array([1.0, 1.0, 1.0, 0.0])
TRUTH = np.array([[0, 1, 0, 1], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]])  # 0 -> 1 <- 2
# A test calls what it compiles a few times: half the time to compile is worth more than fast code.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
quick_jit = functools.partial(jax.jit, compiler_options=QUICK)
CONDITION = quick_jit(lambda *args: posterior.condition(jax.random.key(1), *args, 20_000))
CONFIG = "configs/causal_discovery.py"


def orders():
  """[(probability, masks [3, 3])] of all orders: the first is drawn with probability ~ exp(score), and so on."""
  found = []
  for order in itertools.permutations(range(3)):
    weights, probability, left = np.exp(SCORES[:3]), 1.0, list(range(3))
    for node in order:
      probability *= weights[node] / weights[left].sum()
      left.remove(node)
    place = np.argsort(order)
    found.append((probability, (place[:, None] < place[None, :]).astype(float)))
  return found


def graphs():
  """[(probability, graph [3, 3])] of all graphs of all orders, those of several orders several times."""
  skeleton = 1 / (1 + np.exp(-LOGITS[:3, :3]))
  found = []
  for probability, mask in orders():
    allowed = np.argwhere(mask)
    for drawn in itertools.product((0, 1), repeat=len(allowed)):
      graph, p = np.zeros((3, 3)), probability
      for (i, j), there in zip(allowed, drawn):
        graph[i, j] = there
        p *= skeleton[i, j] if there else 1 - skeleton[i, j]
      found.append((p, graph))
  return found


def test_edge_probabilities_are_those_of_all_orders():
  want = sum(p * graph for p, graph in graphs())
  found = np.asarray(quick_jit(arrow.marginals)(*map(np.float32, (LOGITS, SCORES, MASK))))
  np.testing.assert_allclose(found[:3, :3], want, atol=2e-7)
  assert (found[3] == 0).all() and (found[:, 3] == 0).all()


def test_the_loss_is_the_likelihood_of_the_state_of_each_pair():
  """0 -> 1, 2 -> 1 and no edge between 0 and 2, by the three probabilities; divided by the 6 ordered pairs."""
  p = sum(q * graph for q, graph in graphs())
  want = -(np.log(p[0, 1]) + np.log(p[2, 1]) + np.log(1 - p[0, 2] - p[2, 0])) / 6
  found = float(quick_jit(arrow.pair_nll)(*map(np.float32, (LOGITS, SCORES, TRUTH, MASK))))
  assert found == pytest.approx(want, rel=1e-6)


def test_orders_allow_what_plackett_luce_says():
  """20,000 orders, 5 standard errors; no order allows an edge both ways."""
  draw = quick_jit(lambda scores, mask: arrow.sample_orders(jax.random.key(0), scores, mask, 20_000))
  masks = np.asarray(draw(np.float32(SCORES), np.float32(MASK)))[:, :3, :3]
  want = sum(p * mask for p, mask in orders())
  assert (np.abs(masks.mean(0) - want) < 5 * np.sqrt(0.25 / 20_000)).all()
  assert ((masks + masks.swapaxes(1, 2)) == 1 - np.eye(3)).all()


def test_a_posterior_over_orders_given_known_edges_is_that_of_all_graphs_that_have_them():
  """1 -> 0 is required and 2 -> 0 is ruled out: by the graphs of all orders that agree. Each order is there as often as
  it is drawn among 50,000; 5 standard errors of 20,000 weighted graphs."""
  known = np.zeros((3, 3), int)
  known[1, 0], known[2, 0] = 1, -1
  fits = [(p, graph) for p, graph in graphs() if graph[1, 0] == 1 and graph[2, 0] == 0]
  total = sum(p for p, _ in fits)
  want = sum(p * graph for p, graph in fits) / total
  masks = np.concatenate([np.repeat(mask[None], round(50_000 * p), 0) for p, mask in orders()])
  probs, drawn = CONDITION(*map(np.float32, (LOGITS[:3, :3], masks, np.ones(3), known)))
  np.testing.assert_allclose(probs, want, atol=1e-4)
  drawn = np.asarray(drawn)
  assert (np.abs(drawn.mean(0) - want) < 5 * np.sqrt(0.25 / 20_000)).all()
  assert (drawn[:, 1, 0] == 1).all() and (drawn[:, 2, 0] == 0).all() and (drawn[:, 0, 1] == 0).all()


def test_known_edges_that_no_order_has_give_no_probabilities():
  first, known = np.repeat(orders()[0][1][None], 50_000, 0), np.zeros((3, 3))  # 0, 1, 2; as many as above
  known[2, 0] = 1
  assert np.isnan(CONDITION(*map(np.float32, (np.zeros((3, 3)), first, np.ones(3), known)))[0]).all()


def test_scores_of_variables_are_means_of_flows_out_less_those_in():
  flows = np.random.RandomState(0).normal(size=(1, 4, 4))
  found, symmetric = (np.asarray(x[0]) for x in quick_jit(lambda flows, logits, mask: (
      pairs.net_flow(flows, mask), pairs.skeleton(logits, mask)))(*map(np.float32, (
          flows, LOGITS + np.triu(flows), MASK[None]))))
  for i in range(3):
    others = [j for j in range(3) if j != i]
    assert found[i] == pytest.approx(np.mean([flows[0, i, j] - flows[0, j, i] for j in others]), abs=1e-6)
  np.testing.assert_array_equal(symmetric, symmetric.T)
  assert symmetric[0, 1] == pytest.approx(0.7 + flows[0, 0, 1] / 2) and symmetric[0, 3] == pairs.NO_EDGE


@pytest.mark.parametrize("variant, changed, words", [
    ("smoke", {"model.head": "arrow"}, "got 'arrow', allowed without model.penalty, model.dual and"),
    ("arrow", {"model.head": "independent"}, "got 'independent', allowed with model.penalty, model.dual and"),
    ("arrow", {"model.head": "bow"}, "config.model.head: got 'bow', allowed independent | arrow")])
def test_heads_and_their_fields_go_together(variant, changed, words):
  config = config_lib.read_file(f"{CONFIG}:{variant}")
  with pytest.raises(UserError) as caught:
    check.describe(config_lib.resolve(config_lib.with_values(config, changed)))
  assert words in str(caught.value) and "\n" not in str(caught.value)
