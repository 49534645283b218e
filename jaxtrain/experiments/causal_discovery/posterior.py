"""Posteriors over graphs: orders of variables, their samples and log-probabilities, losses, sampled graphs.

Functions of one task; the caller maps them over tasks. A permutation matrix has P[i, pos] = 1 where variable i takes
position pos, ranks hold pos itself; an edge i -> l needs pos(i) > pos(l), so that an order alone makes a graph acyclic.
Padded variables take the last positions, in their order, and have no edges.

**Source:** spectral radius: Lee et al. 2020 (NO BEARS), as used by AVICI.
Sinkhorn and straight-through permutations: Mena et al. 2018; BCNP: Dhir et al. 2024. Plackett-Luce by Gumbel noise:
Yellott 1977. Leave-one-out gradient of the logarithm of a mean: Mnih & Rezende 2016 (VIMCO), equation 9.
**Departs:** powers of a matrix are reached by squaring (see `spectral_radius`); Sinkhorn runs all its iterations, where
the source stops when sums are within 1e-6.
"""

import math
from typing import Callable

import jax
import jax.numpy as jnp
import optax

from jaxtrain.types import Batch

MIN_PROB = 1e-6  # probabilities are clamped to [1e-6, 1 - 1e-6]
EXTRA_ORDERS = 4096  # sampled where something is known, of which those that fit it count
FORBIDDEN = -1e9  # log-score of a place that may not be taken: finite, so that no difference of two is NaN


def pair_mask(node_mask: jax.Array) -> jax.Array:
  """[D, D]: 1 for an ordered pair of two different real variables, of node_mask [D]."""
  return node_mask[:, None] * node_mask[None, :] * (1.0 - jnp.eye(len(node_mask)))


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
  """Matrix product in full float32, which accelerators otherwise round."""
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def high_power(matrix: jax.Array, num_squarings: int) -> tuple[jax.Array, jax.Array]:
  """M^(2^num_squarings) of a non-negative [D, D], divided by its largest entry, and the logarithm of ||M^m||^(1/m).

  The norm is the largest entry. A nilpotent matrix gives zeros and about -inf. Products of non-negative numbers do not
  cancel, so entries have a small relative error however small they are.
  """
  def square(i, carry):
    power, log_radius = carry
    power = matmul(power, power)
    largest = jnp.max(power)
    log_radius = log_radius + jnp.log(largest) * 0.5 ** (i + 1)
    return power / jnp.where(largest > 0, largest, 1.0), log_radius
  largest = jnp.max(matrix)
  start = matrix / jnp.where(largest > 0, largest, 1.0), jnp.log(largest)
  return jax.lax.fori_loop(0, num_squarings, square, start)


def spectral_radius(probs: jax.Array, num_steps: int) -> jax.Array:
  """Largest modulus of an eigenvalue of a non-negative matrix, by power iteration from vectors of ones.

  The vectors are u = 1'Q^m, v = Q^m 1 with m = 2^num_steps and Q = P / r + I, r an estimate of the radius from ||P^m||.
  Adding I makes the dominant eigenvalue the only one of its modulus: without it a graph whose cycles all have even
  length makes the iteration oscillate. Non-negative vectors leave u'v no sign to get wrong (the newer AVICI port
  clamped a negative one and returned -1e12). A nilpotent matrix (an acyclic graph) gives 0 if m >= D.

  Args:
    probs: [D, D] float32, >= 0.
    num_steps: squarings: 10 stand for 1024 steps of the iteration.

  Returns:
    u'Pv / u'v, [] float32, in 0 .. largest row sum. Its gradient is u v' / (u'v), with u and v as constants; 0 where
    the radius is.
  """
  P = jax.lax.stop_gradient(probs)
  power, log_radius = high_power(P, num_steps)
  cyclic = jnp.any(power > 0)
  radius = jnp.exp(jnp.where(cyclic, log_radius, 0.0))
  Q, _ = high_power(P / radius + jnp.eye(len(P)), num_steps)
  u, v = jnp.sum(Q, axis=0), jnp.sum(Q, axis=1)
  u, v = u / jnp.max(u), v / jnp.max(v)
  overlap = jnp.sum(u * v)
  cyclic &= overlap > 0  # it may underflow
  ratio = jnp.sum(u[:, None] * probs * v[None, :]) / jnp.where(cyclic, overlap, 1.0)
  return jnp.where(cyclic, ratio, 0.0)


def sinkhorn(log_scores: jax.Array, num_iters: int) -> jax.Array:
  """Logarithm of the doubly stochastic matrix of log_scores [D, D], by `num_iters` normalisations of rows and columns.

  Only the logarithms of the scale factors are kept for the gradient: an iteration costs 2 D numbers, not D^2.
  """
  @jax.checkpoint
  def iterate(_, scales):
    rows = jax.nn.logsumexp(log_scores - scales[1][None, :], axis=1)
    return rows, jax.nn.logsumexp(log_scores - rows[:, None], axis=0)
  zeros = jnp.zeros(len(log_scores), log_scores.dtype)
  rows, columns = jax.lax.fori_loop(0, num_iters, iterate, (zeros, zeros))
  return log_scores - rows[:, None] - columns[None, :]


def assignment(scores: jax.Array) -> jax.Array:
  """Permutation matrix [D, D] float32 with the largest sum of scores [D, D]."""
  rows, columns = optax.assignment.hungarian_algorithm(-scores)
  return jnp.zeros_like(scores).at[rows, columns].set(1.0)


def position_scores(scores: jax.Array, node_mask: jax.Array) -> jax.Array:
  """log sigmoid(s_i m) of variable i at position m = 1 .. D, [D, D]; padding may take nothing but its own place."""
  D = len(scores)
  num_real = jnp.sum(node_mask)
  place = jnp.arange(D, dtype=jnp.float32)
  padding_place = num_real + jnp.cumsum(1.0 - node_mask) - 1.0
  log_scores = jax.nn.log_sigmoid(scores[:, None] * (place + 1.0)[None])
  real = node_mask[:, None] > 0
  allowed = jnp.where(real, (place < num_real)[None], place[None] == padding_place[:, None])
  return jnp.where(allowed, jnp.where(real, log_scores, 0.0), FORBIDDEN)


def sample_permutations(key: jax.Array, scores: jax.Array, node_mask: jax.Array, num: int, num_iters: int) -> jax.Array:
  """Permutation matrices [num, D, D] float32 of order scores [D]: the assignment of scores with Gumbel noise.

  Straight-through: the value is the assignment, the gradient that of Sinkhorn's soft permutation.
  """
  log_scores = position_scores(scores, node_mask)[None]
  noisy = log_scores + jax.random.gumbel(key, (num, *log_scores.shape[1:]))
  soft = jnp.exp(jax.vmap(lambda x: sinkhorn(x, num_iters))(noisy))
  hard = jax.vmap(assignment)(jax.lax.stop_gradient(noisy))
  return hard + (soft - jax.lax.stop_gradient(soft))  # the bracket is exactly 0


def order_masks(perms: jax.Array) -> jax.Array:
  """[num, D, D] of permutation matrices [num, D, D]: 1 where edge i -> l is allowed, P T P' with T strictly lower."""
  D = perms.shape[-1]
  return jnp.einsum("kij,klj->kil", matmul(perms, jnp.tril(jnp.ones((D, D)), -1)), perms,
                    precision=jax.lax.Precision.HIGHEST)


def rank_masks(ranks: jax.Array) -> jax.Array:
  """[num, D, D] float32 of ranks [num, D]: 1 where edge i -> l is allowed."""
  return (ranks[:, :, None] > ranks[:, None, :]).astype(jnp.float32)


def plackett_luce_sample(key: jax.Array, scores: jax.Array, node_mask: jax.Array, num: int) -> jax.Array:
  """Ranks [num, D] int32 of variables: they are drawn one after the other with probability ~ exp(score), rank 0 first.

  The order of scores [D] with Gumbel noise has this distribution.
  """
  noisy = scores[None] + jax.random.gumbel(key, (num, len(scores)))
  order = jnp.argsort(jnp.where(node_mask[None] > 0, -noisy, jnp.inf), axis=1, stable=True)
  return jnp.argsort(order, axis=1).astype(jnp.int32)


def plackett_luce_log_prob(scores: jax.Array, ranks: jax.Array, node_mask: jax.Array) -> jax.Array:
  """Log-probability [num] in nats of ranks [num, D] given scores [D].

  A variable is drawn from those of its rank or a later one; padding has no part.
  """
  later = (ranks[:, None, :] >= ranks[:, :, None]) & (node_mask[None, None] > 0)
  left = jax.nn.logsumexp(jnp.where(later, scores[None, None], FORBIDDEN), axis=2)
  return jnp.sum(jnp.where(node_mask[None] > 0, scores[None] - left, 0.0), axis=1)


def edge_log_probs(edge_logits: jax.Array, masks: jax.Array, truth: jax.Array) -> jax.Array:
  """log Bern(truth | sigmoid(edge_logits) masks), clamped, [K, D, D] in nats; masks [K, D, D], the others [D, D]."""
  p = jnp.clip(jax.nn.sigmoid(edge_logits)[None] * masks, MIN_PROB, 1.0 - MIN_PROB)
  return jnp.where(truth[None] > 0, jnp.log(p), jnp.log1p(-p))


def marginal_mixture_nll(edge_logits: jax.Array, masks: jax.Array, truth: jax.Array, node_mask: jax.Array) -> jax.Array:
  """Mean over ordered pairs e of -log 1/K sum_k Bern(A_e | p_ke), nats, [] float32: BCNP's own loss.

  Each pair has a mixture of its own, so this fits marginals. Gradients reach the order through masks.

  Args:
    edge_logits, truth: [D, D]. masks: [K, D, D] of `order_masks`. node_mask: [D].
  """
  log_probs = jax.nn.logsumexp(edge_log_probs(edge_logits, masks, truth), axis=0) - math.log(len(masks))
  pairs = pair_mask(node_mask)
  return -jnp.sum(pairs * log_probs) / jnp.maximum(jnp.sum(pairs), 1.0)


def leave_one_out(log_weights: jax.Array) -> jax.Array:
  """For each k of log_weights [K], log mean exp of all, with log_weights[k] replaced by the mean of the others."""
  K = len(log_weights)
  others = (jnp.sum(log_weights) - log_weights) / (K - 1)
  replaced = jnp.where(jnp.eye(K, dtype=bool), others[:, None], log_weights[None, :])
  return jax.nn.logsumexp(replaced, axis=1) - math.log(K)


def joint_mixture_nll(edge_logits: jax.Array, order_scores: jax.Array, ranks: jax.Array, truth: jax.Array,
                      node_mask: jax.Array) -> jax.Array:
  """-log 1/K sum_k prod_e Bern(A_e | p_ke), nats of the whole graph, [] float32: an order must be jointly right.

  Its gradient is an unbiased estimate of that of the expectation over ranks: for edge logits the derivative of the
  value, for order scores the score function of each sample with what it adds beside the others as its weight.

  Args:
    edge_logits, truth: [D, D]. order_scores, node_mask: [D].
    ranks: [K, D], K >= 2, drawn by `plackett_luce_sample` from order_scores.
  """
  if len(ranks) < 2:
    raise ValueError(f"a leave-one-out gradient needs at least 2 orders, got {len(ranks)}")
  log_probs = edge_log_probs(edge_logits, rank_masks(ranks), truth)
  log_weights = jnp.sum(pair_mask(node_mask)[None] * log_probs, axis=(1, 2))
  value = jax.nn.logsumexp(log_weights) - math.log(len(ranks))
  gain = jax.lax.stop_gradient(value - leave_one_out(log_weights))
  surrogate = jnp.sum(gain * plackett_luce_log_prob(order_scores, ranks, node_mask))
  return -(value + (surrogate - jax.lax.stop_gradient(surrogate)))


def settle(x: jax.Array, known: jax.Array) -> jax.Array:
  """x [..., D, D] of probabilities or graphs with 1 where `known` [D, D] is 1, and 0 where it is -1."""
  return jnp.where(known > 0, 1.0, jnp.where(known < 0, 0.0, x))


def condition(key: jax.Array, edge_logits: jax.Array, masks: jax.Array, node_mask: jax.Array, known: jax.Array,
              num: int) -> tuple[jax.Array, jax.Array]:
  """(edge probabilities [D, D], graphs [num, D, D]) of a posterior over orders, given what is known of some edges.

  Edges are independent given an order, so that order k has weight prod p_ke over required and prod (1 - p_ke) over
  forbidden edges e. The K orders stand for the posterior: with few that fit what is known the result is rough, and it
  is NaN where none does.

  Args:
    edge_logits: [D, D], of an edge where the order allows it.
    masks: [K, D, D], 1 where order k allows the edge. node_mask: [D].
    known: [D, D], 1 required, -1 ruled out, 0 neither.
  """
  order_key, edge_key = jax.random.split(key)
  p = jax.nn.sigmoid(edge_logits)[None] * masks
  log_weights = jnp.sum(jnp.where(known > 0, jnp.log(p), jnp.where(known < 0, jnp.log1p(-jnp.minimum(
      p, 1.0 - MIN_PROB)), 0.0)), axis=(1, 2))
  possible = jnp.max(log_weights) > -jnp.inf
  weights = jax.nn.softmax(jnp.where(possible, log_weights, 0.0))
  probs = settle(jnp.einsum("k,kij->ij", weights, p, precision=jax.lax.Precision.HIGHEST), known)
  chosen = jax.random.choice(order_key, len(masks), (num,), p=weights)
  graphs = sample_ordered_graphs(edge_key, edge_logits, masks[chosen], node_mask)
  return jnp.where(possible, probs * pair_mask(node_mask), jnp.nan), settle(graphs, known)


def orders_of(draw: Callable, order_scores: jax.Array, node_mask: jax.Array) -> Callable:
  """`(keys [B], num) -> masks [B, num, D, D]` of `draw(key, order_scores [D], node_mask [D], num) -> [num, D, D]`."""
  return lambda keys, num: jax.vmap(lambda *task: draw(*task, num))(keys, order_scores, node_mask)


def ordered_log_prob(key: jax.Array, edge_logits: jax.Array, sample_orders: Callable, tasks: Batch,
                     num: int) -> jax.Array:
  """[B]: log 1/num sum_k prod_e Bern(A_e | p_ke) of `num` sampled orders k, nats; arguments as of `draw_ordered`.

  Edges that an order forbids have the clamped probability.
  """
  def one(edge_logits, masks, truth, mask):
    each = edge_log_probs(edge_logits, masks, truth) * pair_mask(mask)[None]
    return jax.nn.logsumexp(jnp.sum(each, axis=(1, 2))) - math.log(num)
  masks = sample_orders(jax.random.split(key, len(edge_logits)), num)
  return jax.vmap(one)(edge_logits, masks, tasks["adjacency"], tasks["node_mask"])


def draw_ordered(keys: tuple[jax.Array, jax.Array], edge_logits: jax.Array, sample_orders: Callable,
                 marginals: Callable, tasks: Batch, num: int) -> tuple[jax.Array, jax.Array]:
  """(edge probabilities [B, D, D], graphs [B, num, D, D]) of a posterior over orders, given `known` if tasks have it.

  Args:
    keys: of the orders and of the edges. edge_logits: [B, D, D].
    sample_orders: `(keys [B], num) -> masks [B, num, D, D]`.
    marginals: masks -> edge probabilities where nothing is known.
  """
  orders, edges = (jax.random.split(key, len(edge_logits)) for key in keys)
  if "known" not in tasks:
    masks = sample_orders(orders, num)
    return marginals(masks), jax.vmap(sample_ordered_graphs)(edges, edge_logits, masks, tasks["node_mask"])
  masks = sample_orders(orders, num + EXTRA_ORDERS)
  return jax.vmap(lambda *task: condition(*task, num))(edges, edge_logits, masks, tasks["node_mask"], tasks["known"])


def sample_graphs(key: jax.Array, edge_logits: jax.Array, node_mask: jax.Array, num: int) -> jax.Array:
  """Graphs [num, D, D] float32 of independent edges with probability sigmoid(edge_logits [D, D]); may be cyclic."""
  return sample_ordered_graphs(key, edge_logits, jnp.ones((num, *edge_logits.shape)), node_mask)


def sample_ordered_graphs(key: jax.Array, edge_logits: jax.Array, masks: jax.Array, node_mask: jax.Array) -> jax.Array:
  """Graphs [num, D, D] float32 with edges where masks [num, D, D] allow them: acyclic if masks are of orders."""
  drawn = jax.random.uniform(key, masks.shape) < jax.nn.sigmoid(edge_logits)[None]
  return drawn * (masks > 0.5) * pair_mask(node_mask)[None]
