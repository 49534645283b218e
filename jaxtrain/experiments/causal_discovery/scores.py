"""Scores of predicted graphs of one task: samples or edge probabilities against the true graph.

All run over ordered pairs of two different real variables; padding and the diagonal have no part.

**Source:** AUROC: Mann-Whitney's U with ties as halves (Hanley & McNeil 1982, section 3). Expected calibration error:
Guo et al. 2017, equation 3. A reversal that costs 1: Lorch et al. 2022 (AVICI), whose SHD counts unordered pairs.
tr(exp P) - d: Zheng et al. 2018 (NOTEARS).
"""

import math
from typing import Callable

import jax
import jax.numpy as jnp

from jaxtrain.experiments.causal_discovery.posterior import MIN_PROB, matmul, pair_mask, spectral_radius

RADIUS_STEPS = 10  # squarings of `spectral_radius`: 1024 steps of a power iteration
NUM_BINS = 10  # of the calibration error
EXP_TERMS, EXP_SQUARINGS = 8, 8  # the series of exp(P / 256), squared 8 times: exact to rounding up to 100 variables


def edge_f1(samples: jax.Array, truth: jax.Array, node_mask: jax.Array) -> jax.Array:
  """Mean over sampled graphs [S, D, D] of F1 = 2TP / (2TP + FP + FN) against truth [D, D]; 1 where both are empty."""
  pairs = pair_mask(node_mask)
  samples, truth = samples * pairs[None], truth * pairs
  both = jnp.sum(samples * truth[None], axis=(1, 2))
  edges = jnp.sum(samples, axis=(1, 2)) + jnp.sum(truth)  # 2TP + FP + FN
  return jnp.mean(jnp.where(edges > 0, 2.0 * both / jnp.maximum(edges, 1.0), 1.0))


def either_way(graphs: jax.Array) -> jax.Array:
  """[..., D, D]: 1 where graphs [..., D, D] join two variables in one direction or in both."""
  return jnp.maximum(graphs, jnp.swapaxes(graphs, -1, -2))


def edge_counts(samples: jax.Array, truth: jax.Array, node_mask: jax.Array) -> dict[str, jax.Array]:
  """Mean numbers of edges of sampled graphs [S, D, D] beside truth [D, D], [] float32 each.

  Returns:
    `correct`; `reversed`: true edges that are sampled in the other direction alone; `fn`: true edges sampled in neither
    direction; `fp`: sampled edges that are neither correct nor such a reversal; `shd` = fp + fn + 2 reversed, the
    number of ordered pairs that differ; `shd_rev1`, the number of unordered pairs that differ (a reversal costs 1).
  """
  pairs = pair_mask(node_mask)
  G, T = samples * pairs[None], (truth * pairs)[None]
  back = jnp.swapaxes(G, 1, 2)
  turned = T * back * (1.0 - G)
  differs = jnp.abs(G - T)
  found = {"correct": T * G, "reversed": turned, "fn": T * (1.0 - G) * (1.0 - back),
           "fp": G * (1.0 - T) - jnp.swapaxes(turned, 1, 2), "shd": differs, "shd_rev1": 0.5 * either_way(differs)}
  return {name: jnp.mean(jnp.sum(value, axis=(1, 2))) for name, value in found.items()}


def skeleton_scores(samples: jax.Array, truth: jax.Array, node_mask: jax.Array) -> tuple[jax.Array, jax.Array]:
  """F1 of pairs joined in any direction, and the share of pairs joined in both graphs whose direction is the true one.

  Means over sampled graphs [S, D, D] against truth [D, D], [] float32 each. Of a pair that is sampled in both
  directions the direction is wrong. A sample that joins none of the true pairs has share 1.
  """
  pairs = pair_mask(node_mask)
  G, T = samples * pairs[None], (truth * pairs)[None]
  both = jnp.sum(either_way(G) * T, axis=(1, 2))
  right = jnp.sum(T * G * (1.0 - jnp.swapaxes(G, 1, 2)), axis=(1, 2))
  share = jnp.where(both > 0, right / jnp.maximum(both, 1.0), 1.0)
  return edge_f1(either_way(samples), either_way(truth), node_mask), jnp.mean(share)


def ancestor_f1(samples: jax.Array, truth: jax.Array, node_mask: jax.Array) -> jax.Array:
  """`edge_f1` of the transitive closures: of pairs (ancestor, descendant)."""
  pairs = pair_mask(node_mask)
  return edge_f1(closure(samples * pairs[None]), closure(truth * pairs), node_mask)


def ranked(probs: jax.Array, truth: jax.Array, node_mask: jax.Array) -> tuple[jax.Array, jax.Array, Callable]:
  """What curves over all thresholds are made of: weights of edges and of other pairs [D * D], and a way to count.

  `count(weight) -> (below, up_to)`: for each pair the total weight of those with a smaller probability, and of those
  with an equal or a smaller one, [D * D] each.
  """
  real, value = jnp.ravel(pair_mask(node_mask)), jnp.ravel(probs)
  order = jnp.argsort(value)
  ordered = value[order]

  def count(weight):
    total = jnp.concatenate([jnp.zeros(1), jnp.cumsum(weight[order])])  # of the smallest k
    return tuple(total[jnp.searchsorted(ordered, value, side=side)] for side in ("left", "right"))
  return real * jnp.ravel(truth), real * (1.0 - jnp.ravel(truth)), count


def auroc(probs: jax.Array, truth: jax.Array, node_mask: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Area under the ROC curve of probs [D, D] for truth [D, D].

  Returns:
    The area, [] float32, and whether it is defined, [] bool: with edges and non-edges. Else the area is 0.
  """
  positive, negative, count = ranked(probs, truth, node_mask)
  below, up_to = count(negative)
  pairs = jnp.sum(positive) * jnp.sum(negative)
  return jnp.sum(positive * (below + up_to)) / (2.0 * jnp.maximum(pairs, 1.0)), pairs > 0


def auprc(probs: jax.Array, truth: jax.Array, node_mask: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Area under the precision-recall curve of probs [D, D] for truth [D, D], in two conventions.

  Returns:
    Average precision, sum_k (R_k - R_{k-1}) P_k over distinct thresholds from the highest on; the area by trapezoids
    from the point R = 0, P = 1; and whether they are defined, [] bool: with edges. Else they are 0.
  """
  positive, negative, count = ranked(probs, truth, node_mask)
  hits, misses = jnp.sum(positive), jnp.sum(negative)
  (hits_below, hits_up_to), (misses_below, misses_up_to) = count(positive), count(negative)
  here = (hits - hits_below) / jnp.maximum(hits - hits_below + misses - misses_below, 1.0)  # at this threshold
  above = hits - hits_up_to + misses - misses_up_to
  before = jnp.where(above > 0, (hits - hits_up_to) / jnp.maximum(above, 1.0), 1.0)  # at the next higher one
  mean = lambda x: jnp.sum(positive * x) / jnp.maximum(hits, 1.0)
  return mean(here), mean(0.5 * (here + before)), hits > 0


def edge_nll_nats(probs: jax.Array, truth: jax.Array, node_mask: jax.Array) -> jax.Array:
  """Mean over pairs of -log Bern(truth [D, D] | probs [D, D]), nats; probabilities clipped to [1e-6, 1 - 1e-6]."""
  p = jnp.clip(probs, MIN_PROB, 1.0 - MIN_PROB)
  pairs = pair_mask(node_mask)
  nll = -jnp.where(truth > 0, jnp.log(p), jnp.log1p(-p))
  return jnp.sum(pairs * nll) / jnp.maximum(jnp.sum(pairs), 1.0)


def edge_entropy_nats(probs: jax.Array, node_mask: jax.Array) -> jax.Array:
  """Mean over pairs of the entropy of a Bernoulli variable of probs [D, D], nats: 0 .. log 2."""
  pairs = pair_mask(node_mask)
  entropy = jax.scipy.special.entr(probs) + jax.scipy.special.entr(1.0 - probs)
  return jnp.sum(pairs * entropy) / jnp.maximum(jnp.sum(pairs), 1.0)


def calibration(probs: jax.Array, truth: jax.Array, node_mask: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Brier score, the mean of (p - truth)^2 over pairs, and expected calibration error in `NUM_BINS` equal bins of p.

  The error is sum_bins (pairs of the bin / pairs) |share with an edge - mean p|, of one task, so that it is above 0
  even for true probabilities: a bin holds few pairs. Both [] float32.
  """
  pairs = jnp.ravel(pair_mask(node_mask))
  p, t, count = jnp.ravel(probs), jnp.ravel(truth), jnp.maximum(jnp.sum(pairs), 1.0)
  bins = jnp.clip((p * NUM_BINS).astype(jnp.int32), 0, NUM_BINS - 1)
  gap = jnp.zeros(NUM_BINS).at[bins].add(pairs * (t - p))
  return jnp.sum(pairs * jnp.square(p - t)) / count, jnp.sum(jnp.abs(gap)) / count


def cyclicity(probs: jax.Array, node_mask: jax.Array) -> tuple[jax.Array, jax.Array]:
  """tr(exp P) - d and the spectral radius of edge probabilities [D, D]; both 0 exactly for an acyclic graph.

  exp(P) - I is built without the identity, whose trace would swallow a small result: exp(2X) - I = E E + 2 E.
  """
  P = probs * pair_mask(node_mask)
  scaled = P * 0.5 ** EXP_SQUARINGS
  E = term = scaled
  for k in range(2, EXP_TERMS + 1):
    term = matmul(term, scaled) / k
    E = E + term
  for _ in range(EXP_SQUARINGS):
    E = matmul(E, E) + 2.0 * E
  return jnp.trace(E), spectral_radius(P, RADIUS_STEPS)


def closure(graphs: jax.Array) -> jax.Array:
  """[..., D, D] float32: 1 where a directed path of at least one edge leads from row to column, of graphs [..., D, D].
  """
  reach = (graphs > 0).astype(jnp.float32)
  for _ in range(max(math.ceil(math.log2(graphs.shape[-1])), 0)):
    reach = jnp.minimum(reach + matmul(reach, reach), 1.0)
  return reach


def is_acyclic(graph: jax.Array) -> jax.Array:
  """Whether a graph [D, D] of 0 and 1 has no directed cycle, [] bool; a loop at a variable is a cycle."""
  return jnp.trace(closure(graph)) == 0
