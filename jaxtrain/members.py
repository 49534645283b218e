"""Members of a sweep as one program: which of them belong together, and the compiled functions over all of them.

Two members are of one group where tracing one gives the program of the other: the same initialisation, step and
evaluations with the values of `config.TRACEABLE` fields as arguments, the same cadences, the same shapes of data. Data
that is one object for all is there once; other data (folds, resamples) is stacked along the members' axis.

**Source:** DESIGN 4, "Ensembles and sweeps".
**Departs** from DESIGN 3, which lists no such module: `parallel.py` knows devices and nothing of experiments.
"""

import hashlib
import json
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import config as config_lib, metrics as metrics_lib, modules, packing, parallel, rng
from jaxtrain import step as step_lib
from jaxtrain.assembly import Parts, assemble, shapes
from jaxtrain.types import Experiment, UserError

PARTS = ("train", "val", "test")


class Spec(NamedTuple):
  """A member to train: its number, resolved config, folder, and where the values of its config came from."""
  number: int
  config: Any
  workdir: str
  origins: dict[str, str]


class Group(NamedTuple):
  """Members of one program.

  Attributes:
    specs: the members; parts: what follows from the config of each, one object for those that share it.
    fields: dotted keys of the arguments, those traceable fields that differ anywhere in the sweep.
    shared: whether all have the same data.
  """
  specs: list[Spec]
  parts: list[Parts]
  fields: tuple[str, ...]
  shared: bool


def group(specs: list[Spec], fields: tuple[str, ...] | None = None) -> list[Group]:
  """Groups of members, in the order of their first ones.

  Args:
    specs: the members.
    fields: of the groups, where they were decided before; None: those that differ.

  Raises:
    UserError: a member cannot be trained among others (mode, micro-batches, data that is not there at once, stages).
  """
  flat = [dict(config_lib.flatten(config_lib.to_record(spec.config))) for spec in specs]
  if fields is None:
    traceable = [key for key in flat[0] if config_lib.is_traceable(key) and all(key in f for f in flat)]
    fields = tuple(key for key in traceable if len({f[key] for f in flat}) > 1)
  assembled: dict[str, tuple[Parts, str] | None] = {}
  groups: dict[str, Group] = {}
  for spec, values in zip(specs, flat):
    try:
      check(spec)
      parts, signature = parts_of(spec.config, values, fields, assembled)
    except UserError as error:
      raise UserError(f"member {spec.number:03d}: {error}") from None
    found = groups.setdefault(signature, Group([], [], fields, True))
    found.specs.append(spec)
    found.parts.append(parts)
  return [found._replace(shared=is_shared(found.parts)) for found in groups.values()]


def is_shared(all_parts: list[Parts]) -> bool:
  """Whether the data of all is the same, by identity or else by content."""
  different = {id(parts): parts for parts in all_parts}.values()
  return len(different) == 1 or len({data_digest(parts) for parts in different}) == 1


def check(spec: Spec) -> None:
  """Raises UserError for a config that only a run of its own can have."""
  config = spec.config
  wrong = [(key, allowed) for key, allowed, fits in (
      ("parallel.mode", "jit", config.parallel.mode == "jit"), ("train.microbatch", "0", not config.train.microbatch),
      ("stages", "()", not config.stages), ("parallel.watchdog_seconds", "0", not config.parallel.watchdog_seconds),
      ("train.num_members", "1", config.train.num_members == 1),
      ("log.tensorboard", "False", not config.log.tensorboard)) if not fits]
  if wrong:
    key, allowed = wrong[0]
    raise UserError(f"config.{key}: got {config_lib.lookup(config, key)!r}, allowed {allowed} with --launcher=vmap; "
                    "--launcher=local starts each member by itself")


def parts_of(config, values: dict, fields: tuple[str, ...],
             assembled: dict[str, tuple | None]) -> tuple[Parts, str]:
  """(parts of a config, signature of its program), kept in `assembled`.

  Configs that differ in traced fields and seed alone share parts; where an experiment reads the seed in `load` or
  `make`, each has its own.
  """
  fixed = {key: value for key, value in values.items() if key not in (*fields, "seed")}
  static = json.dumps(fixed, sort_keys=True)
  for with_seed in (False, True):
    key = f"{static}/{config.seed if with_seed else ''}"
    if key not in assembled:
      try:
        parts = assemble(config if with_seed else without_seed(config), one_device=True)
      except AttributeError:
        if with_seed:
          raise
        assembled[key] = None  # the seed is read: not tried again for the next member
        continue
      if any(source is not None and source.buckets for source in parts.splits[:3]):
        raise UserError(f"experiment {config.experiment}: its batches have several shapes, allowed one with "
                        "--launcher=vmap; --launcher=local starts each member by itself")
      if any(source is not None and source.window_steps for source in parts.splits[:3]):
        raise UserError("config.data.out_of_core: got True, allowed False with --launcher=vmap; --launcher=local "
                        "starts each member by itself")
      assembled[key] = parts, sign(parts, fields)
    if assembled[key] is not None:
      return assembled[key]
  raise AssertionError("a config with its seed has parts, or assembling them has failed")


def without_seed(config):
  """The config without its seed: reading it is an AttributeError."""
  copy = config.copy_and_resolve_references()
  with copy.unlocked():
    del copy.seed
  return copy


def sign(parts: Parts, fields: tuple[str, ...]) -> str:
  """SHA-256 of all that is traced or compiled for a member, and of its cadences."""
  hypers = {field: jax.ShapeDtypeStruct((), jnp.float32) for field in fields}
  program = Program(parts, fields)
  key, step = jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct((), jnp.int32)
  traced = [jax.make_jaxpr(program.init)(key, hypers)]
  traced.append(jax.make_jaxpr(program.repeat)(parts.abstract, parts.totals, hypers, jax.ShapeDtypeStruct((), bool),
                                               shapes(parts.splits.train.data), step))
  for part in PARTS[1:]:
    if program.source(part) is not None:
      traced.append(jax.make_jaxpr(program.evaluate(part))(parts.abstract, hypers, shapes(program.source(part).data)))
  if parts.experiment.observe is not None:
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    means = {name: scalar for name in program.observed()}
    traced.append(jax.make_jaxpr(program.observe)(parts.abstract, hypers, means, jax.ShapeDtypeStruct((), bool)))
  words = hashlib.sha256(repr(parts.plan).encode())
  for jaxpr in traced:
    words.update(str(jaxpr).encode())
    for const in consts_of(jaxpr):
      words.update(np.asarray(const).tobytes())
  return words.hexdigest()


def consts_of(jaxpr) -> list:
  """Constants of a closed jaxpr and of those inside it."""
  found = list(jaxpr.consts)
  for equation in jaxpr.jaxpr.eqns:
    for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "consts")):
      found += consts_of(value) if hasattr(value, "consts") else []
  return found


def data_digest(parts: Parts) -> str:
  """SHA-256 of the data of all parts."""
  words = hashlib.sha256()
  for path, leaf in sorted(packing.named_leaves([source.data for source in parts.splits[:3] if source]).items()):
    words.update(path.encode() + np.asarray(leaf).tobytes())
  return words.hexdigest()


class Program:
  """The functions of one member, with its traced fields `hypers` ({field: [] float32}) as arguments."""

  def __init__(self, parts: Parts, fields: tuple[str, ...]):
    self.parts, self.fields = parts, fields

  def source(self, part: str):
    """The source of a part; None where there is none."""
    return getattr(self.parts.splits, part)

  def experiment(self, hypers: dict[str, jax.Array]) -> Experiment:
    """The experiment with tracers in its traced fields."""
    config = config_lib.substitute(self.parts.config, hypers) if hypers else self.parts.config
    return modules.make_experiment(config, self.parts.splits.meta)

  def observed(self) -> list[str]:
    """Names that `observe` is told values of."""
    zero = step_lib.zero_totals
    names = [f"train_{name}" for name in metrics_lib.divide(zero(self.parts.totals))]
    if self.source("val") is not None:
      sums = zero(self.shapes_of("val"))
      names += [f"val_{name}" for name in metrics_lib.finish(sums, self.parts.experiment.summarise)]
    return names

  def shapes_of(self, part: str) -> Any:
    """Shapes of the metrics over a part."""
    hypers = {field: jax.ShapeDtypeStruct((), jnp.float32) for field in self.fields}
    return jax.eval_shape(self.evaluate(part), self.parts.abstract, hypers, shapes(self.source(part).data))

  def init(self, root: jax.Array, hypers: dict) -> Any:
    """A fresh state."""
    return self.experiment(hypers).init(root)

  def repeat(self, state, totals, hypers, active, data, num_steps):
    """(state, totals) after so many steps; unchanged where the member is not `active` ([] bool)."""
    def go_on(state, totals):
      one_step = step_lib.make_one_step(self.experiment(hypers).train_step, self.source("train"), parallel.over_whole,
                                        self.parts.config.train.on_nonfinite)
      return step_lib.make_repeat(one_step)(state, totals, data, num_steps)
    return jax.lax.cond(active, go_on, lambda state, totals: (state, totals), state, totals)

  def evaluate(self, part: str) -> Callable:
    """`(state, hypers, data) -> Metrics` over a part."""
    source = self.source(part)
    def evaluate(state, hypers, data):
      one, over_steps = step_lib.make_evaluate(self.experiment(hypers).eval_step, source, parallel.over_whole)
      key = rng.stream_key(state.key, "eval")
      totals = step_lib.zero_totals(jax.eval_shape(one, state, data, key, jnp.int32(0)))
      return over_steps(state, totals, data, key, jnp.int32(0), jnp.int32(source.num_batches))
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

  def __init__(self, group: Group, num_places: int, num_devices: int, exact: bool):
    self.num_devices = num_devices
    self.num_places = num_places
    self.size = -(-num_places // self.num_devices) * self.num_devices
    self.members = parallel.make_members(self.num_devices, exact)
    self.program = Program(group.parts[0], group.fields)
    self.shared = group.shared
    self.own = self.members.compile
    self.init = jax.jit(self.program.init)
    self.repeat = self.own(self.program.repeat, (True, True, True, True, not self.shared, False), (0, 1))
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
