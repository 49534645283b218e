"""Distances between causal graphs that count wrong causal effects instead of wrong edges.

A guessed graph says, for each ordered pair (cause i, effect j), how to compute the effect of i on j: that there is
none, or which variables Z to adjust for. A distance is the number of pairs for which this is wrong in the true graph:

  parent_adjustment    no effect where j is a parent of i, else Z = parents of i. On two acyclic graphs this is the
                       structural intervention distance (SID) of Peters & Buehlmann 2015
  ancestor_adjustment  no effect where i does not reach j, else Z = ancestors of i

To say that there is no effect is wrong where i reaches j in the true graph. To adjust for Z is wrong where Z is not a
valid adjustment set: (1) a member of Z is reached from a variable other than i on a directed path from i to j, or (2)
some path from i to j that is not directed is open given Z.

**Source:** Henckel, Wuertzen & Weichwald 2024 (Adjustment identification distance); the condition on Z: Shpitser,
VanderWeele & Robins 2010. Where (1) does not hold, (2) does if and only if some walk from i to j is open that is not
directed and does not return to i (a walk may repeat variables; it is open where it has a collider only at what reaches
Z, and nothing else of it is in Z), which a search over 3 D states finds.
**Departs:** guesses may be cyclic, as samples of independent edges are. The parents' rule needs no order; with the
ancestors' rule a j that i reaches and that reaches i counts as wrong.
"""

import jax
import jax.numpy as jnp

from jaxtrain.experiments.causal_discovery.posterior import matmul, pair_mask
from jaxtrain.experiments.causal_discovery.scores import closure


def open_walks(truth: jax.Array, cause: jax.Array, adjusted: jax.Array, ancestors: jax.Array) -> jax.Array:
  """[M, D], 1 for the ends of walks from `cause` that are open given `adjusted`, not directed, and do not return to it.

  Args:
    truth: [D, D], an acyclic graph.
    cause: [M, D], 1 at one variable. adjusted: [M, D], 1 for the members of Z.
    ancestors: [M, D], 1 for the members of Z and what reaches them: where a walk may turn from down to up.
  """
  other, free = 1.0 - cause, 1.0 - adjusted
  either = lambda a, b: jnp.minimum(a + b, 1.0) * other
  down, up = (lambda x: matmul(x, truth)), (lambda x: matmul(x, truth.T))

  def grow(carry):
    directed, rising, falling, _ = carry  # how the walk has gone so far: down alone; last up; last down after an up
    new = (either(directed, down(directed * free)),
           either(rising, up(rising * free + jnp.maximum(directed, falling) * ancestors)),
           either(falling, down(jnp.maximum(rising, falling) * free)))
    return *new, sum(jnp.sum(a - b) for a, b in zip(new, carry)) > 0

  start = (down(cause), up(cause), jnp.zeros_like(cause), jnp.bool_(True))
  _, rising, falling, _ = jax.lax.while_loop(lambda carry: carry[3], grow, start)
  return jnp.maximum(rising, falling)


def invalid_adjustments(truth: jax.Array, reach: jax.Array, cause: jax.Array, adjusted: jax.Array) -> jax.Array:
  """[M, D] bool: whether to adjust for `adjusted` [M, D] is wrong for the effect of `cause` [M, D] on each variable.

  reach [D, D] is the closure of truth [D, D]. What stands at members of Z and at the cause itself has no meaning.
  """
  to_set = jnp.minimum(adjusted + matmul(adjusted, reach.T), 1.0)
  on_way = matmul(cause, reach) * (1.0 - cause) * to_set  # reached from the cause, and reaching Z
  forbidden = on_way + matmul(on_way, reach) > 0
  return forbidden | (open_walks(truth, cause, adjusted, to_set) > 0)


def adjustment_distances(truth: jax.Array, guesses: jax.Array, node_mask: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Parent- and ancestor-adjustment distances of guessed graphs to the true one.

  Args:
    truth: [D, D], 1 for an edge from row to column; acyclic. guesses: [S, D, D].
    node_mask: [D], 0 where a variable is padding, which has no part.

  Returns:
    The number of ordered pairs with a wrong effect, [S] float32 each, 0 .. d (d - 1).
  """
  S, D = guesses.shape[:2]
  real = pair_mask(node_mask)
  truth, guesses = truth * real, (guesses > 0) * real[None]
  reach, guessed_reach = closure(truth), closure(guesses)
  parents, ancestors = jnp.swapaxes(guesses, 1, 2), jnp.swapaxes(guessed_reach, 1, 2) * (1.0 - jnp.eye(D))[None]
  cause = jnp.broadcast_to(jnp.eye(D), (2, S, D, D)).reshape(-1, D)
  invalid = invalid_adjustments(truth, reach, cause, jnp.concatenate([parents, ancestors]).reshape(-1, D))
  by_parents, by_ancestors = invalid.reshape(2, S, D, D)  # cause in rows, effect in columns
  has_effect = (reach > 0)[None]
  wrong = (jnp.where(parents > 0, has_effect, by_parents),
           jnp.where(guessed_reach > 0, by_ancestors | (ancestors > 0), has_effect))
  return tuple(jnp.sum(one * real[None], axis=(1, 2)) for one in wrong)
