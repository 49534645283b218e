"""Scores of predicted graphs of one task: samples or edge probabilities against the true graph.

All run over ordered pairs of two different real variables; padding and the diagonal have no part.

**Source:** AUROC: Mann-Whitney's U with ties as halves (Hanley & McNeil 1982, section 3).
tr(exp P) - d: Zheng et al. 2018 (NOTEARS).
"""

import math

import jax
import jax.numpy as jnp

from jaxtrain.experiments.causal_discovery.posterior import MIN_PROB, matmul, pair_mask, spectral_radius

RADIUS_STEPS = 10  # squarings of `spectral_radius`: 1024 steps of a power iteration
EXP_TERMS, EXP_SQUARINGS = 8, 8  # the series of exp(P / 256), squared 8 times: exact to rounding up to 100 variables


def edge_f1(samples: jax.Array, truth: jax.Array, node_mask: jax.Array) -> jax.Array:
  """Mean over sampled graphs [S, D, D] of F1 = 2TP / (2TP + FP + FN) against truth [D, D]; 1 where both are empty."""
  pairs = pair_mask(node_mask)
  samples, truth = samples * pairs[None], truth * pairs
  both = jnp.sum(samples * truth[None], axis=(1, 2))
  edges = jnp.sum(samples, axis=(1, 2)) + jnp.sum(truth)  # 2TP + FP + FN
  return jnp.mean(jnp.where(edges > 0, 2.0 * both / jnp.maximum(edges, 1.0), 1.0))


def auroc(probs: jax.Array, truth: jax.Array, node_mask: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Area under the ROC curve of probs [D, D] for truth [D, D].

  Returns:
    The area, [] float32, and whether it is defined, [] bool: with edges and pairs that are none. Else the area is 0.
  """
  real = jnp.ravel(pair_mask(node_mask))
  positive, negative = real * jnp.ravel(truth), real * (1.0 - jnp.ravel(truth))
  value = jnp.ravel(probs)
  order = jnp.argsort(value)
  ordered = value[order]
  before = jnp.concatenate([jnp.zeros(1), jnp.cumsum(negative[order])])  # non-edges among the smallest k
  below, up_to = (before[jnp.searchsorted(ordered, value, side=side)] for side in ("left", "right"))
  pairs = jnp.sum(positive) * jnp.sum(negative)
  return jnp.sum(positive * (below + up_to)) / (2.0 * jnp.maximum(pairs, 1.0)), pairs > 0


def edge_nll_nats(probs: jax.Array, truth: jax.Array, node_mask: jax.Array) -> jax.Array:
  """Mean over pairs of -log Bern(truth [D, D] | probs [D, D]), nats; probabilities clipped to [1e-6, 1 - 1e-6]."""
  p = jnp.clip(probs, MIN_PROB, 1.0 - MIN_PROB)
  pairs = pair_mask(node_mask)
  nll = -jnp.where(truth > 0, jnp.log(p), jnp.log1p(-p))
  return jnp.sum(pairs * nll) / jnp.maximum(jnp.sum(pairs), 1.0)


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


def is_acyclic(graph: jax.Array) -> jax.Array:
  """Whether a graph [D, D] of 0 and 1 has no directed cycle, [] bool; a loop at a variable is a cycle."""
  reach = (graph > 0).astype(jnp.float32)
  for _ in range(max(math.ceil(math.log2(len(graph))), 0)):
    reach = jnp.minimum(reach + matmul(reach, reach), 1.0)
  return jnp.trace(reach) == 0
