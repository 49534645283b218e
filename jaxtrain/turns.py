"""Loops whose bits do not depend on how many turns they take.

**Departs** from DESIGN 3, which lists no such module: chunks of a batch and chunks of simulated tasks both need it, and
stand at different ranks.
"""

from typing import Any, Callable

import jax
import jax.numpy as jnp


def hidden(count: int) -> jax.Array:
  """A number that XLA does not know: a loop of one turn would be taken apart, fused otherwise, and give other bits."""
  return jax.lax.optimization_barrier(jnp.int32(count))


def run_in_turn(run: Callable, count: int) -> Any:
  """Results of run(0), run(1), ... stacked along a leading axis."""
  out = jax.tree.map(lambda s: jnp.zeros((count, *s.shape), s.dtype), jax.eval_shape(run, jnp.int32(0)))
  put = lambda c, out, x: jax.lax.dynamic_update_index_in_dim(out, x, c, 0)
  return jax.lax.fori_loop(0, hidden(count), lambda c, out: jax.tree.map(lambda o, x: put(c, o, x), out, run(c)), out)
