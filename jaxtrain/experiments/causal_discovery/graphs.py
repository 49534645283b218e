"""Random directed acyclic graphs, as pure functions of random numbers and of the number of nodes, in fixed shapes.

Each family returns [D, D] bool in *topological places*: entry [i, j] with i < j is the edge from place i to place j;
places from `num_nodes` on are padding without edges. Labels are dealt afterwards, uniformly (`tasks.py`), so that no
index tells the direction of an edge.

  er            each pair with probability edge_prob (Gilbert 1959); or, where set, edges_per_node edges a node on
                average (AVICI); or, where set, num_edges edges exactly (Erdos & Renyi 1959, BCNP)
  sf            Barabasi & Albert 1999: a star on m + 1 nodes, then each node attaches to m distinct ones by degree;
                edges oriented by a uniformly random order, which hides the hubs' direction
  sf_directed   each new node points at m old ones chosen by in-degree ** power + 1 (AVICI's ScaleFree: hubs are
                effects); with transpose=1 the old ones point at the new one (hubs are causes)
  sbm           stochastic blocks (Holland et al. 1983) of sizes that differ by at most 1
  ws            Watts & Strogatz 1998: a ring of k neighbours, each edge rewired with probability p
  grg           random geometric (Gilbert 1961): points in a unit cube, joined up to a radius

Edge counts and degrees are tested against these definitions.
"""

import math
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery.families import Family
from jaxtrain.experiments.causal_discovery.numbers import Numbers

KNOWN: dict[str, dict[str, Any]] = {
    "er": {"edge_prob": 0.2, "edges_per_node": 0.0, "num_edges": 0},
    "sf": {"m": 2},
    "sf_directed": {"m": 2, "power": 1.0, "transpose": 0},
    "sbm": {"n_blocks": 4, "p_intra": 0.6, "p_inter": 0.01},
    "ws": {"k": 4, "p": 0.3},
    "grg": {"radius": 0.3, "dim": 2},
}


def check(family: Family, num_nodes: int) -> None:
  """Raises UserError for parameters that no graph of so many nodes can have."""
  D = num_nodes
  pairs, is_share, from_zero = D * (D - 1) // 2, (lambda v: 0 <= v <= 1), (lambda v: v >= 0)
  limits = {
      "er": {"edge_prob": (is_share, "0 to 1"), "edges_per_node": (from_zero, "0 or more"),
             "num_edges": ((lambda v: 0 <= v <= pairs), f"0 to {pairs}, the pairs of {D} nodes")},
      "sf": {"m": ((lambda v: 1 <= v < D), f"1 to {D - 1}, below the number of nodes")},
      "sf_directed": {"m": ((lambda v: 1 <= v < D), f"1 to {D - 1}, below the number of nodes"),
                      "power": ((lambda v: 0 <= v <= 10), "0 to 10"), "transpose": ((lambda v: v in (0, 1)), "0 | 1")},
      "sbm": {"n_blocks": ((lambda v: 1 <= v <= D), f"1 to {D}, the number of nodes"),
              "p_intra": (is_share, "0 to 1"), "p_inter": (is_share, "0 to 1")},
      "ws": {"k": ((lambda v: 2 <= v < D and v % 2 == 0), f"even, 2 to {D - 1}, below the number of nodes"),
             "p": (is_share, "0 to 1")},
      "grg": {"radius": (from_zero, "0 or more"), "dim": ((lambda v: 1 <= v <= 100), "1 to 100")},
  }
  for name, (fits, words) in limits[family.name].items():
    if not fits(family.params[name]):
      raise UserError(f"config.data.graphs: got {name}={family.params[name]} in {family.text!r}, allowed {words}")


def upper(D: int, num_nodes: jax.Array) -> jax.Array:
  """[D, D] bool: i < j, both real."""
  i, j = jnp.arange(D)[:, None], jnp.arange(D)[None, :]
  return (i < j) & (j < num_nodes)


def shuffled(u: jax.Array, num_nodes: jax.Array) -> jax.Array:
  """[D] int32: the real nodes in the order of uniform numbers u [D], then the padding."""
  return jnp.argsort(u + (jnp.arange(u.shape[0]) >= num_nodes))


def orient(edges: jax.Array, numbers: Numbers, num_nodes: jax.Array) -> jax.Array:
  """Orients undirected edges (given above the diagonal) by a uniformly random order of the nodes."""
  D = edges.shape[0]
  order = shuffled(numbers.uniform((D,)), num_nodes)
  return (edges | edges.T)[order][:, order] & upper(D, num_nodes)


def erdos_renyi(params: dict, D: int) -> Callable:
  """Every pair alike."""
  def sample(numbers, num_nodes):
    u, pairs = numbers.uniform((D, D)), num_nodes * (num_nodes - 1) / 2
    if params["num_edges"]:
      order = jnp.argsort(jnp.ravel(jnp.where(upper(D, num_nodes), u, 2.0)))  # pairs that are none come last
      first = jnp.zeros((D * D,), bool).at[order[:params["num_edges"]]].set(True)  # ties do not make one more
      return first.reshape(D, D) & upper(D, num_nodes)
    p = params["edge_prob"]
    if params["edges_per_node"]:
      p = jnp.minimum(params["edges_per_node"] * num_nodes / jnp.maximum(pairs, 1), 0.99)
    return (u < p) & upper(D, num_nodes)
  return sample


def attach(params: dict, D: int, numbers: Numbers, log_weight: Callable, first: int) -> jax.Array:
  """Edges old < new: each node from `first` on chooses m distinct older ones, one after the other by weight.

  Choosing one after the other without replacement is choosing the largest of log weight + Gumbel noise.

  Args:
    log_weight: edges so far -> [D].
  """
  noise = -jnp.log(numbers.exponential((D, D)))
  def body(new, edges):
    score = jnp.where(jnp.arange(D) < new, log_weight(edges) + noise[new], -jnp.inf)
    _, chosen = jax.lax.top_k(score, min(params["m"], D))
    column = jnp.zeros((D,), bool).at[chosen].set(jnp.isfinite(score[chosen]))
    return edges.at[:, new].set(column)
  start = jnp.zeros((D, D), bool)
  if first:  # a star: the first nodes are all tied to node m
    start = start.at[:first - 1, first - 1].set(True)
  return jax.lax.fori_loop(first, D, body, start)


def scale_free(params: dict, D: int) -> Callable:
  """Preferential attachment by degree."""
  def sample(numbers, num_nodes):
    log_degree = lambda edges: jnp.log(jnp.sum(edges, 0) + jnp.sum(edges, 1))
    edges = attach(params, D, numbers, log_degree, params["m"] + 1)
    return orient(edges & upper(D, num_nodes), numbers, num_nodes)
  return sample


def scale_free_directed(params: dict, D: int) -> Callable:
  """Preferential attachment by in-degree; edges keep the direction of arrival."""
  def sample(numbers, num_nodes):
    log_weight = lambda edges: jnp.log(jnp.sum(edges, 1) ** params["power"] + 1.0)
    edges = attach(params, D, numbers, log_weight, 0) & upper(D, num_nodes)
    if params["transpose"]:
      return edges
    back = jnp.where(jnp.arange(D) < num_nodes, num_nodes - 1 - jnp.arange(D), jnp.arange(D))
    return edges.T[back][:, back]
  return sample


def stochastic_blocks(params: dict, D: int) -> Callable:
  """Pairs by whether both are of one block."""
  def sample(numbers, num_nodes):
    size, larger = num_nodes // params["n_blocks"], num_nodes % params["n_blocks"]
    i, border = jnp.arange(D), larger * (size + 1)
    block = jnp.where(i < border, i // (size + 1), larger + (i - border) // jnp.maximum(size, 1))
    p = jnp.where(block[:, None] == block[None, :], params["p_intra"], params["p_inter"])
    edges = (numbers.uniform((D, D)) < p) & upper(D, num_nodes)
    return orient(edges, numbers, num_nodes)
  return sample


def watts_strogatz(params: dict, D: int) -> Callable:
  """A ring whose edges are rewired one after the other, each to a node that is not yet a neighbour."""
  def sample(numbers, num_nodes):
    half = params["k"] // 2
    rewired = numbers.uniform((half * D,)) < params["p"]
    places = jnp.arange(D)
    near = lambda i, j: jnp.minimum((i - j) % num_nodes, (j - i) % num_nodes)
    real = places < num_nodes
    ring = (near(places[:, None], places[None, :]) <= half) & real[:, None] & real[None, :]
    ring &= ~jnp.eye(D, dtype=bool)
    noise = numbers.uniform((half * D, D))

    def body(turn, edges):
      hop, node = turn // D + 1, turn % D
      end = (node + hop) % num_nodes
      free = real & ~edges[node] & (places != node)
      new = jnp.argmax(jnp.where(free, noise[turn], -1.0))
      moves = rewired[turn] & (node < num_nodes) & jnp.any(free) & edges[node, end]
      old_pair, new_pair = pair(node, end), pair(node, new)
      return jnp.where(moves, edges & ~old_pair | new_pair, edges)

    def pair(i, j):
      one = (places[:, None] == i) & (places[None, :] == j)
      return one | one.T
    edges = jax.lax.fori_loop(0, half * D, body, ring)
    return orient(edges & upper(D, num_nodes), numbers, num_nodes)
  return sample


def geometric(params: dict, D: int) -> Callable:
  """Points that are near each other."""
  def sample(numbers, num_nodes):
    points = numbers.uniform((D, params["dim"]))
    apart = jnp.sum(jnp.square(points[:, None] - points[None, :]), -1)
    edges = (apart <= params["radius"] ** 2) & upper(D, num_nodes)
    return orient(edges, numbers, num_nodes)
  return sample


MAKE = {"er": erdos_renyi, "sf": scale_free, "sf_directed": scale_free_directed, "sbm": stochastic_blocks,
        "ws": watts_strogatz, "grg": geometric}


def make(family: Family, D: int) -> Callable:
  """`(numbers, num_nodes) -> [D, D] bool` of a family."""
  return MAKE[family.name](family.params, D)


def expected_edges(family: Family, num_nodes: int) -> float:
  """Expected edges of a graph; of `grg` in other than two dimensions the mean over many draws of two points."""
  D, p = num_nodes, family.params
  pairs = D * (D - 1) / 2
  if family.name == "er":
    from_degree = min(p["edges_per_node"] * D / pairs, 0.99) * pairs if p["edges_per_node"] else p["edge_prob"] * pairs
    return float(p["num_edges"]) or from_degree
  if family.name == "sf":
    return p["m"] * (D - p["m"])
  if family.name == "sf_directed":
    return sum(min(p["m"], old) for old in range(D))
  if family.name == "ws":
    return D * p["k"] / 2
  if family.name == "sbm":
    sizes = [D // p["n_blocks"] + (block < D % p["n_blocks"]) for block in range(p["n_blocks"])]
    within = sum(size * (size - 1) / 2 for size in sizes)
    return p["p_intra"] * within + p["p_inter"] * (pairs - within)
  if p["dim"] == 2 and p["radius"] <= 1:
    r = p["radius"]
    return pairs * (math.pi * r**2 - 8 * r**3 / 3 + r**4 / 2)
  a, b = np.random.RandomState(0).uniform(size=(2, 400_000, p["dim"]))
  return pairs * float(np.mean(np.sum(np.square(a - b), 1) <= p["radius"] ** 2))


def edge_probability(mixture: tuple[Family, ...], num_nodes: int) -> float:
  """Probability that an ordered pair of nodes of a mixture's graph has an edge; at most 1/2, as graphs are acyclic.

  A family that asks for more edges than so many nodes can have counts as the complete graph.
  """
  most = num_nodes * (num_nodes - 1) / 2
  edges = sum(family.weight * min(max(expected_edges(family, num_nodes), 0.0), most) for family in mixture)
  return edges / (num_nodes * (num_nodes - 1))
