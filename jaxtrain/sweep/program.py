"""The program of a group of members: the functions of one, with traced fields as arguments, compiled over all."""

import functools
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import rng, step as step_lib
from jaxtrain.devices import parallel
from jaxtrain.run import metrics, setup
from jaxtrain.run.setup import Parts, shapes
from jaxtrain.types import Experiment

PARTS = ("train", "val", "test")


class Program:
  """The functions of one member, with its traced fields `hypers` ({field: [] float32}) as arguments."""

  def __init__(self, parts: Parts, fields: tuple[str, ...]):
    self.parts, self.fields = parts, fields

  def source(self, part: str):
    """The source of a part; None where there is none."""
    return getattr(self.parts.splits, part)

  def experiment(self, hypers: dict[str, jax.Array]) -> Experiment:
    """The experiment with tracers in its traced fields."""
    return setup.make_experiment(self.parts.config, self.parts.splits.meta, hypers)

  def observed(self) -> list[str]:
    """Names that `observe` is told values of."""
    summarise = self.parts.experiment.summarise
    names = [f"train_{name}" for name in metrics.names_of(self.parts.totals, summarise)]
    return names + [f"val_{name}" for name in self.evaluated("val")]

  def evaluated(self, part: str) -> list[str]:
    """Names of the metrics that evaluating a part gives; none where there is no such part."""
    if self.source(part) is None:
      return []
    return metrics.names_of(self.shapes_of(part), self.parts.experiment.summarise)

  def shapes_of(self, part: str) -> Any:
    """Shapes of the metrics over a part."""
    hypers = {field: jax.ShapeDtypeStruct((), jnp.float32) for field in self.fields}
    return jax.eval_shape(self.evaluate(part), self.parts.abstract, hypers, shapes(self.source(part).data))

  def init(self, root: jax.Array, hypers: dict, data: Any) -> Any:
    """A fresh state; `data` is that of the training source."""
    return setup.traced(self.parts.config, self.parts.splits, hypers)[1](root, data)

  def repeat(self, state, totals, hypers, active, data, num_steps, exact: bool):
    """(state, totals) after so many steps; unchanged where the member is not `active` ([] bool).

    With `exact` such a member takes no steps. Otherwise its steps are taken beside those of the others and dropped.
    A `lax.cond` would do for both, but makes arguments of constants inside the step, which XLA then cannot fold as it
    does in a run alone: a member would not have its bits.
    """
    one_step = step_lib.make_one_step(self.experiment(hypers), self.source("train"), parallel.over_whole,
                                      self.parts.config.train.on_nonfinite)
    old, turns = (state, totals), jnp.where(active, num_steps, 0) if exact else num_steps
    new = step_lib.make_repeat(one_step)(state, totals, data, turns)
    return new if exact else jax.tree.map(lambda x, y: x if x is y else jnp.where(active, x, y), new, old)

  def evaluate(self, part: str) -> Callable:
    """`(state, hypers, data) -> Metrics` over a part."""
    source = self.source(part)
    def evaluate(state, hypers, data):
      one, over_steps = step_lib.make_evaluate(self.experiment(hypers).eval_step, source, parallel.over_whole)
      keys = rng.evaluation_keys(state.key, part)
      totals = step_lib.zero_totals(jax.eval_shape(one, state, data, keys, jnp.int32(0)))
      # Arguments in a run alone: where XLA knows them it unrolls a loop of one turn, and rounds otherwise.
      totals, start, stop = jax.lax.optimization_barrier((totals, jnp.int32(0), jnp.int32(source.num_batches)))
      return over_steps(state, totals, data, keys, start, stop)
    return evaluate

  def observe(self, state, hypers, means, active):
    """The state after an evaluation; unchanged where the member is not `active`."""
    new = self.experiment(hypers).observe(state, means)
    return jax.tree.map(lambda x, y: x if x is y else jnp.where(active, x, y), new, state)


class Compiled:
  """The functions of a group for `size` members at a time, over the devices.

  Attributes:
    num_places: members at a time; size: the same, filled up to a multiple of the number of devices.
    repeat, observe, choose: of `Program`, over members; `choose(mask, new, old)` takes each from one of two trees.
  """

  def __init__(self, program: Program, shared: bool, num_places: int, num_devices: int, exact: bool):
    self.num_devices = num_devices
    self.num_places = num_places
    self.size = -(-num_places // self.num_devices) * self.num_devices
    self.members = parallel.make_members(self.num_devices, exact)
    self.program, self.shared = program, shared  # shared: all members have the same data
    self.own = self.members.compile
    self.init = jax.jit(self.program.init)
    repeat = functools.partial(self.program.repeat, exact=exact)
    self.repeat = self.own(repeat, (True, True, True, True, not self.shared, False), (0, 1))
    self.observe = self.own(self.program.observe, (True,) * 4)
    pick = lambda mask, new, old: jax.tree.map(lambda x, y: jnp.where(mask, x, y), new, old)
    self.choose = self.own(pick, (True, True, True))
    self.evaluators: dict[str, Callable] = {}

  def shapes_of_all(self, tree: Any) -> Any:
    """Shapes of a tree of one member's arrays as that of all, with the leading axis."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((self.size, *leaf.shape), leaf.dtype,
                                                          sharding=self.members.sharding(True)), tree)

  def bytes_needed(self) -> int:
    """Memory of training on the device that needs most (of a CPU: on all), after compiling for it.

    States and best states beside those that a step works on are counted too.
    """
    parts = self.program.parts
    one, flag = jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), bool)
    hypers = {field: one for field in self.program.fields}
    states, totals, hypers, active = map(self.shapes_of_all, (parts.abstract, parts.totals, hypers, flag))
    whole = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.members.sharding(False))
    data = shapes(parts.splits.train.data)
    data = jax.tree.map(whole, data) if self.shared else self.shapes_of_all(data)
    step = jax.ShapeDtypeStruct((), jnp.int32)
    self.repeat = self.repeat.lower(states, totals, hypers, active, data, step).compile()
    memory = self.repeat.memory_analysis()
    each = 2 * memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return each * (self.num_devices if jax.devices()[0].platform == "cpu" else 1)

  def evaluate(self, part: str, states, hypers, data):
    """Metrics of all members over a part, on the host."""
    if part not in self.evaluators:
      self.evaluators[part] = self.own(self.program.evaluate(part), (True, True, not self.shared))
    return jax.device_get(self.evaluators[part](states, hypers, data))

  def place(self, per_member: list) -> Any:
    """Trees of arrays of each member as one with a leading axis, on the devices; empty places hold the last one's."""
    filled = per_member + per_member[-1:] * (self.size - len(per_member))
    return self.members.put(jax.tree.map(lambda *leaves: stack(leaves), *filled))

  def place_data(self, parts: list[Parts]) -> dict[str, Any]:
    """Data of each part on the devices: once, or stacked."""
    sources = {part: [getattr(one.splits, part) for one in parts] for part in PARTS}
    return {part: self.members.put(found[0].data, False) if self.shared else self.place([s.data for s in found])
            for part, found in sources.items() if found[0] is not None}


def stack(leaves: tuple) -> Any:
  """Leaves along a new first axis: NumPy arrays on the host, others where they are."""
  return np.stack(leaves) if isinstance(leaves[0], (np.ndarray, np.generic)) else jnp.stack(leaves)
