"""Dual variables: weights of loss terms that are constraints, raised while the constraint is violated.

A term "penalty = 0" or "penalty <= target" enters the loss with a weight that is a dual variable. The weight follows
the moving average of the violation by gradient ascent on the Lagrangian.

**Source:** Arrow, Hurwicz & Uzawa 1958 (gradient ascent on the dual); as used by Lorch et al. 2022 (AVICI), appendix C,
for acyclicity, where the ascent is every so many steps with a rate that warms up.
"""

import flax.struct
import jax
import jax.numpy as jnp


class Dual(flax.struct.PyTreeNode):
  """Dual variable of a constraint: `weight` [] in the loss, moving `average` [] of the violation, both float32."""
  weight: jax.Array
  average: jax.Array


def init(weight: float) -> Dual:
  """A dual variable with its first weight; nothing has been seen."""
  return Dual(jnp.full((), weight, jnp.float32), jnp.zeros((), jnp.float32))


def ascend(dual: Dual, violation: jax.Array, step: jax.Array, settings, low: float | None = None) -> Dual:
  """A step of dual ascent: every `interval` steps the weight grows by eta times the average violation.

  Args:
    dual: the variable.
    violation: [] float32, the penalty less its target; negative where an inequality holds.
    step: [] int32, completed steps.
    settings: config section with `interval`, `rate`, `average_rate` and `warmup_steps`: eta rises linearly to `rate`
      over `warmup_steps` (0: from the start). The average starts at the first violation.
    low: the least weight, 0 for an inequality; None for an equality.
  """
  average = jnp.where(step == 0, violation, dual.average + settings.average_rate * (violation - dual.average))
  eta = settings.rate * jnp.minimum(1.0, (step + 1) / max(settings.warmup_steps, 1))
  due = (step + 1) % settings.interval == 0
  weight = dual.weight + jnp.where(due, eta * average, 0.0)
  return Dual(weight if low is None else jnp.maximum(weight, low), average)
