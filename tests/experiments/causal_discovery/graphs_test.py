"""Graph families against their definitions: edge counts, degrees, acyclicity, padding. Keys are fixed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.experiments.causal_discovery import families, graphs
from jaxtrain.experiments.causal_discovery.numbers import drawn

NUM, NODES = 1500, 20
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
quick_jit = functools.partial(jax.jit, compiler_options=QUICK)


def family_of(text):
  """A family by its line."""
  return families.parse("data.graphs", (text,), graphs.KNOWN)[0]


def many(family, padded, num_nodes):
  """[NUM, D, D] of a family in topological places; to be compiled."""
  one = drawn(graphs.make(family, padded))
  return jax.vmap(lambda key: one(key, jnp.int32(num_nodes)))(jax.random.split(jax.random.key(7), NUM))


@functools.lru_cache
def draw(text, padded=NODES, num_nodes=NODES):
  """The same and the family, of a line."""
  family = family_of(text)
  return np.asarray(quick_jit(lambda: many(family, padded, num_nodes))()), family


CASES = {"er edge_prob=0.2": 38, "er edges_per_node=2": 40, "er num_edges=20": 20, "sf m=2": 36, "sf m=3": 51,
         "sf_directed m=2": 37, "sf_directed m=2 transpose=1": 37, "sbm": 25.4, "sbm p_intra=0.3 p_inter=0.1": 27,
         "ws": 40, "grg": 40.2}


@pytest.mark.slow
@pytest.mark.parametrize("text", CASES)
def test_edges_are_as_many_as_the_definition_says(text):
  """The exact mean (of sbm and grg to what was measured of the original) within 5 standard errors: 6e-7 each."""
  A, family = draw(text)
  edges = A.sum((1, 2))
  tolerance = 5 * edges.std() / NUM ** 0.5 + 1e-9
  assert abs(edges.mean() - graphs.expected_edges(family, NODES)) < tolerance
  assert abs(edges.mean() - CASES[text]) < tolerance + (0.7 if text in ("grg", "sbm") else 0)


@functools.cache
def squares_apart():
  """Squared distances of 4e6 pairs of points in the unit square."""
  return np.square(np.diff(np.random.default_rng(5).uniform(size=(2, 2, 4_000_000)), axis=0)[0]).sum(0)


@pytest.mark.parametrize("radius", [0.1, 0.3, 1.0, 1.2])
def test_near_points_are_as_many_as_a_simulation_says(radius):
  """Pairs of points in the unit square at most a radius apart: 4e6 pairs, 5 standard errors: 6e-7 each."""
  family = family_of(f"grg radius={radius}")
  share = np.mean(squares_apart() <= radius**2)
  sampled = 400_000 if radius > 1 else 4_000_000  # beyond the side there is no short formula
  assert abs(graphs.expected_edges(family, 2) - share) < 5 * (share * (1 - share) * (1 / 4e6 + 1 / sampled)) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("text", ["er edge_prob=0.3", "sf m=2", "sf_directed m=2", "sbm", "ws", "grg"])
def test_edges_go_from_early_to_late_places_and_never_touch_padding(text):
  A, _ = draw(text, NODES + 4, 12)
  assert not np.tril(A.any(0)).any() and not A[:, 12:].any() and not A[:, :, 12:].any()
  assert A.any()


def test_scale_free_graphs_have_a_star_and_m_neighbours_for_each_later_node():
  A, _ = draw("sf m=2")
  degree = (A | A.swapaxes(1, 2)).sum(1)
  assert (degree >= 1).all() and ((degree >= 2).sum(1) >= NODES - 2).all()


def test_preferential_attachment_is_by_degree():
  """m = 1: E[degree] of the first two nodes grows by 1 + 1 / (2 edges) a step; 5 standard errors."""
  log_degree = lambda edges: jnp.log(jnp.sum(edges, 0) + jnp.sum(edges, 1))
  one = drawn(lambda numbers: graphs.attach({"m": 1}, NODES, numbers, log_degree, 2))
  edges = np.asarray(quick_jit(lambda: jax.vmap(one)(jax.random.split(jax.random.key(3), NUM)))())
  first = (edges.sum(1) + edges.sum(2))[:, :2].mean(1)
  want = np.prod([1 + 1 / (2 * count) for count in range(1, NODES - 1)])
  assert abs(first.mean() - want) < 5 * first.std() / NUM ** 0.5
  by_chance = 1 + sum(1 / (count + 1) for count in range(1, NODES - 1))  # attaching to any node alike
  assert abs(by_chance - want) > 10 * first.std() / NUM ** 0.5  # which the bound above would find


def test_directed_scale_free_graphs_keep_the_hubs_direction():
  into, out = draw("sf_directed m=2")[0], draw("sf_directed m=2 transpose=1")[0]
  assert into.sum(2).max() == 2 and into.sum(1).max(1).mean() > 8  # each has two effects, hubs have many causes
  assert out.sum(1).max() == 2 and out.sum(2).max(1).mean() > 8


def test_blocks_are_denser_within():
  A, family = draw("sbm p_intra=0.6 p_inter=0.0")
  # No edge between blocks: at most 4 components of 5 nodes, so that no node has more than 4 neighbours.
  assert (A | A.swapaxes(1, 2)).sum(1).max() <= 4
  assert abs(A.sum((1, 2)).mean() - 0.6 * 4 * 10) < 5 * (40 * 0.24 / NUM) ** 0.5


def test_a_ring_that_is_not_rewired_has_degree_k_and_one_that_is_keeps_its_edges():
  family = family_of("ws k=4")
  by_share = quick_jit(lambda p: many(family._replace(params=family.params | {"p": p}), NODES, NODES))
  ring, rewired = (np.asarray(by_share(p)) for p in (0.0, 1.0))  # one program for both
  assert ((ring | ring.swapaxes(1, 2)).sum(1) == 4).all()
  assert (rewired.sum((1, 2)) == 40).all() and (rewired | rewired.swapaxes(1, 2)).sum(1).std() > 1


def test_exact_edges_are_spread_evenly_over_the_pairs():
  """Chi-square of 190 pairs at 1e-6: below 297 with 189 degrees of freedom (edges of a graph repel: narrower)."""
  A, _ = draw("er num_edges=20")
  count = A.sum(0)[np.triu_indices(NODES, 1)]
  want = NUM * 20 / 190
  assert (np.square(count - want) / (want * (1 - 20 / 190))).sum() < 297


@pytest.mark.parametrize("words, nodes, most", [("er num_edges=60", 5, 0.5), ("er num_edges=60", 20, 60 / 380),
                                                ("sf m=9", 5, 0.0), ("er edge_prob=1.0", 7, 0.5)])
def test_no_more_than_half_of_the_ordered_pairs_have_an_edge(words, nodes, most):
  """Also where a family asks for more edges than so few nodes can have."""
  assert graphs.edge_probability((family_of(words),), nodes) == pytest.approx(most)
