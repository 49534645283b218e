"""Schedules as plain functions of the step: learning-rate multipliers with peak 1 and KL-annealing shapes.

Learning-rate schedules have peak 1 and are multiplied by the learning rate by the caller, because optax's own peak
arguments do not take tracers and a learning rate may be one (a sweep in one program).

**Source:** KL annealing: linear and sigmoid, Bowman et al. 2016 (Generating sentences from a continuous space), 3.1;
cyclical, Fu et al. 2019 (Cyclical annealing schedule), eq. 6-7; cosine, Loshchilov & Hutter 2017 (SGDR), eq. 5.
"""

import jax.numpy as jnp
import optax

from jaxtrain import bits
from jaxtrain.config import limits

KL_SHAPES = ("constant", "linear", "sigmoid", "cyclical", "exponential")


def learning_rate_shape(name: str, num_steps: int, warmup_steps: int, end_value: float):
  """Multiplier of the learning rate over the steps, with peak 1.

  Args:
    name: one of `LEARNING_RATE_SHAPES`. `step` divides by 10 at 1/2 and again at 3/4 of `num_steps`.
    num_steps: horizon of the schedule in steps.
    warmup_steps: linear warm-up from 0 over so many steps, ahead of every shape; `warmup_cosine` is `cosine` that
      insists on having one.
    end_value: fraction of the peak at the horizon and after it (cosine).

  Returns:
    `step -> multiplier`, both scalars.

  Raises:
    ValueError: an unknown name.
  """
  decay_steps = max(num_steps - warmup_steps, 1)
  cosine = lambda: optax.cosine_decay_schedule(1.0, decay_steps, alpha=end_value)
  shapes = {
      "constant": lambda: optax.constant_schedule(1.0),
      "cosine": cosine,
      "warmup_cosine": cosine,
      "step": lambda: optax.piecewise_constant_schedule(1.0, {decay_steps // 2: 0.1, decay_steps * 3 // 4: 0.1}),
  }
  if name not in shapes:
    raise ValueError(f"schedule: got {name!r}, allowed {limits.LEARNING_RATE_SHAPES}")
  if not warmup_steps:
    return shapes[name]()
  return optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup_steps), shapes[name]()], [warmup_steps])


def kl_shape(name: str, start, end, num_steps: float, num_cycles: int = 4, sharpness: float = 10.0):
  """Weight of the KL term over a position (steps or epochs, in the unit of `num_steps`).

  Args:
    name: `constant` (always `end`), `linear`, `sigmoid` (logistic in position, rescaled to meet both ends exactly),
      `exponential` (geometric from start to end; start > 0) or `cyclical` (`num_cycles` ramps over `num_steps`, each
      linear in its first half and flat in its second, then `end`).
    start, end: first and last value; may be tracers.
    num_steps: length of the annealing; 0 or less gives `end` at once.
    num_cycles: ramps of `cyclical`.
    sharpness: slope of `sigmoid`, in logits over the whole annealing.

  Returns:
    `position -> weight`.

  Raises:
    ValueError: an unknown name, or `exponential` from 0.
  """
  if name == "exponential" and isinstance(start, (int, float)) and start <= 0:
    raise ValueError(f"KL schedule exponential: got start {start}, allowed above 0")
  length = max(num_steps, 1)

  def logistic(f):
    squash = lambda t: 1.0 / (1.0 + jnp.exp(-sharpness * (t - 0.5)))
    return (squash(f) - squash(0.0)) / (squash(1.0) - squash(0.0))

  cycle = lambda position: jnp.mod(position * num_cycles, length) / length  # whole numbers first: no rounded quotient
  ramp = lambda first, last, f: first + (last - first) * f
  shapes = {
      "constant": lambda first, last, position: last + 0.0 * position,
      "linear": lambda first, last, position: ramp(first, last, position / length),
      "sigmoid": lambda first, last, position: ramp(first, last, logistic(position / length)),
      "exponential": lambda first, last, position: first * (last / first) ** (position / length),
      "cyclical": lambda first, last, position: ramp(first, last, jnp.minimum(2.0 * cycle(position), 1.0)),
  }
  if name not in shapes:
    raise ValueError(f"KL schedule: got {name!r}, allowed {KL_SHAPES}")

  def weight(position):
    first, last = bits.opaque(start), bits.opaque(end)  # here, in what is traced: outside they would be known numbers
    return jnp.where(position >= num_steps, last, shapes[name](first, last, jnp.clip(position, 0, length)))
  return weight
