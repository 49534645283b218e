"""Schedules as plain functions of the step: learning-rate multipliers with peak 1 and KL-annealing shapes.

Learning-rate schedules have peak 1 and are multiplied by the learning rate by the caller, because optax's own peak
arguments do not take tracers and a learning rate may be one (a sweep in one program).

**Source:** KL annealing: linear and sigmoid, Bowman et al. 2016 (Generating sentences from a continuous space), 3.1;
cyclical, Fu et al. 2019 (Cyclical annealing schedule), eq. 6-7; cosine, Loshchilov & Hutter 2017 (SGDR), eq. 5.
"""

from typing import Any, Callable

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun


def opaque(value):
  """[] float32 that XLA does not know, whether `value` is a number or traced.

  XLA multiplies known numbers with each other first, which rounds otherwise than a traced one: a member of a sweep
  would not have the bits of a run alone. Call it in the step, where it is traced: called once in `make`, it returns an
  array whose value XLA knows.
  """
  return jax.lax.optimization_barrier(jnp.asarray(value, jnp.float32))


def hidden(count: int) -> jax.Array:
  """A number that XLA does not know: a loop of one turn would be taken apart, fused otherwise, and give other bits."""
  return jax.lax.optimization_barrier(jnp.int32(count))


def run_in_turn(run: Callable, count: int) -> Any:
  """Results of run(0), run(1), ... stacked along a leading axis; `run` is traced once."""
  traced, shapes = jax.make_jaxpr(run, return_shape=True)(jnp.int32(0))
  leaves, tree = jax.tree.flatten(shapes)
  again = jaxpr_as_fun(traced)
  put = lambda c, out, x: jax.lax.dynamic_update_index_in_dim(out, x, c, 0)
  out = [jnp.zeros((count, *leaf.shape), leaf.dtype) for leaf in leaves]
  out = jax.lax.fori_loop(0, hidden(count), lambda c, out: [put(c, o, x) for o, x in zip(out, again(c))], out)
  return jax.tree.unflatten(tree, out)
