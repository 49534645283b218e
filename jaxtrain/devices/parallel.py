"""Devices: what `over` means in each mode, how functions are compiled, and how many threads a CPU is given.

  jit        one program over all devices, the batch sharded over a one-axis mesh; `over` is the function itself
  jit with microbatch, canonical   `over` cuts the batch into strided chunks and adds their sums in order
  pmap       jax.pmap around the same function; each device takes its strided chunk; `over` is a psum (shard_map over
             several processes)

Row r of a batch belongs to chunk r mod C, so that the padding of a last batch spreads over the chunks.
"""

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxtrain import bits
from jaxtrain.devices import processes
from jaxtrain.errors import UserError
from jaxtrain.types import Over

AXIS, MEMBERS = "data", "members"


class Parallel(NamedTuple):
  """A mode of execution.

  Attributes:
    over: sums of a function over the batch (see `types.Over`).
    compile: `(fn, donate_argnums) -> jitted fn`, with arguments and results replicated over the devices.
    put: tree -> the tree on the devices, replicated.
    put_slices: (tree, like) -> the same, where of some leaves each process has its slice of the shape in `like`.
    num_devices: devices that share a batch.
    num_chunks: chunks a batch is cut into, each of which is a batch of its own to BatchNorm.
  """
  over: Over
  compile: Callable[..., Callable]
  put: Callable[[Any], Any]
  put_slices: Callable[[Any, Any], Any]
  num_devices: int
  num_chunks: int


def take_chunk(batch: Any, index: jax.Array, num_chunks: int) -> Any:
  """Rows r of [B, ...] leaves with r mod num_chunks == index."""
  cut = lambda x: x.reshape(x.shape[0] // num_chunks, num_chunks, *x.shape[1:])
  return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(cut(x), index, axis=1, keepdims=False), batch)


def add_in_order(stacked: Any) -> Any:
  """Sum over the leading axis, first to last."""
  first = jax.tree.map(lambda x: x[0], stacked)
  count = jax.tree.leaves(stacked)[0].shape[0]
  def body(c, total):
    return jax.tree.map(lambda t, x: t + jax.lax.dynamic_index_in_dim(x, c, keepdims=False), total, stacked)
  return jax.lax.fori_loop(1, bits.hidden(count), body, first)


def over_whole(fn, batch, key):
  """The whole batch at once."""
  return fn(batch, key)


def make_over_chunks(num_chunks: int) -> Over:
  """`over` that runs fixed chunks one after the other and adds their sums in order; keys are folded by chunk."""
  def over(fn, batch, key):
    run = lambda c: fn(take_chunk(batch, c, num_chunks), jax.random.fold_in(key, c))
    return add_in_order(bits.run_in_turn(run, num_chunks))
  return over


def make_over_mesh(mesh) -> Over:
  """`over` that shards the batch over a mesh and lets XLA place the work."""
  sharding = NamedSharding(mesh, PartitionSpec(AXIS))
  def over(fn, batch, key):
    return fn(jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, sharding), batch), key)
  return over


def make_over_canonical(num_devices: int, num_chunks: int) -> Over:
  """`over` of fixed chunks inside `shard_map`: each device does its share of them and gathers the results of all, which
  are then added in one order, whatever the number of devices.
  """
  per_device = num_chunks // num_devices
  def over(fn, batch, key):
    first = jax.lax.axis_index(AXIS) * per_device
    run = lambda c: fn(take_chunk(batch, first + c, num_chunks), jax.random.fold_in(key, first + c))
    return add_in_order(jax.tree.map(lambda x: jax.lax.all_gather(x, AXIS, tiled=True),
                                     bits.run_in_turn(run, per_device)))
  return over


def make_over_psum(num_devices: int) -> Over:
  """`over` inside pmap: this device's chunk, summed over the devices; keys are folded by device."""
  def over(fn, batch, key):
    index = jax.lax.axis_index(AXIS)
    return jax.lax.psum(fn(take_chunk(batch, index, num_devices), jax.random.fold_in(key, index)), AXIS)
  return over


class Replicated:
  """`jax.pmap` of a function whose arguments and results are equal on all devices; called and lowered like a jitted
  one.
  """

  def __init__(self, fn: Callable, num_devices: int):
    self.fn, self.devices = fn, jnp.arange(num_devices)  # pmap wants an argument that differs by device
    self.by_arguments: dict[int, Callable] = {}

  def mapped(self, num_arguments: int) -> Callable:
    """The pmapped function of (device number, arguments)."""
    if num_arguments not in self.by_arguments:
      self.by_arguments[num_arguments] = jax.pmap(lambda _, *args: self.fn(*args), AXIS,
                                                  in_axes=(0, *[None] * num_arguments), out_axes=None)
    return self.by_arguments[num_arguments]

  def __call__(self, *args):
    return self.mapped(len(args))(self.devices, *args)

  def lower(self, *args):
    """As `jax.jit(fn).lower`; its `compile()` gives a function of the arguments alone."""
    return LoweredReplicated(self.mapped(len(args)).lower(self.devices, *args), self.devices)


class LoweredReplicated(NamedTuple):
  """A lowered `Replicated`."""
  inner: Any
  devices: jax.Array

  def compile(self) -> "CompiledReplicated":
    """The compiled function of the arguments alone."""
    return CompiledReplicated(self.inner.compile(), self.devices)


class CompiledReplicated(NamedTuple):
  """A compiled `Replicated`."""
  inner: Any
  devices: jax.Array

  def __call__(self, *args):
    return self.inner(self.devices, *args)

  def cost_analysis(self):
    """As of any compiled function."""
    return self.inner.cost_analysis()

  def memory_analysis(self):
    """As of any compiled function."""
    return self.inner.memory_analysis()


def make(settings, batch_size: int, eval_size: int, microbatch: int, batch_parts: int = 1) -> Parallel:
  """The execution of `config.parallel` on this process's devices.

  A training batch is divided into `batch_parts`, each of which goes over chunks and devices by itself.

  Raises:
    UserError: a batch that does not divide over devices or chunks, or chunks over devices: both numbers are named.
  """
  devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
  mode, D = settings.mode, len(devices)
  C = {"jit": batch_size // microbatch if microbatch else 1, "pmap": D, "canonical": settings.chunks}[mode]
  pieces = C * (D if mode == "jit" else 1)
  for section, size, parts in (("train", batch_size, batch_parts), ("eval", eval_size, 1)):
    if size % (pieces * parts):
      words = f"{parts} parts, " * (parts > 1) + f"{C} chunks, {D} devices, config.parallel.mode={mode}"
      raise UserError(f"config.{section}.batch_size: got {size}, allowed multiples of {pieces * parts} ({words})")
  if mode == "canonical" and C % D:
    raise UserError(f"config.parallel.chunks: got {C}, allowed multiples of the number of devices, {D}")
  alone = lambda tree, like: jax.device_put(tree)
  if mode == "pmap" and not processes.several():
    return Parallel(make_over_psum(D), lambda fn, donate=(): Replicated(fn, D), jax.device_put, alone, D, C)
  options = {"xla_disable_hlo_passes": "algsimp"} if mode == "canonical" else None
  if D == 1:
    over = make_over_chunks(C) if C > 1 or mode == "canonical" else over_whole
    return Parallel(over, lambda fn, donate=(): jax.jit(fn, donate_argnums=donate, compiler_options=options),
                    jax.device_put, alone, 1, C)
  # In the order of the processes, each of which has its slice of a batch; `jax.make_mesh` may choose another.
  mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
  whole = NamedSharding(mesh, PartitionSpec())
  # All of a compiled function is inside: a `shard_map` around `over` alone would close over the state, whose arrays may
  # not be indexed there. pmap itself takes no typed keys over several processes.
  per_device = lambda fn: jax.shard_map(fn, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(),
                                        check_vma=False)
  if mode == "canonical":
    over = make_over_canonical(D, C)
  elif mode == "pmap":
    over = make_over_psum(D)
  else:
    per_device = lambda fn: fn
    over = make_over_mesh(mesh) if C == 1 else nest(make_over_chunks(C), make_over_mesh(mesh))
  wrap = lambda fn, donate=(): jax.jit(per_device(fn), donate_argnums=donate, in_shardings=whole, out_shardings=whole,
                                       compiler_options=options)
  if not processes.several():
    put = lambda tree, like=None: jax.device_put(tree, whole)
    return Parallel(over, wrap, put, put, D, C)
  return Parallel(over, wrap, lambda tree: processes.replicate(tree, whole),
                  lambda tree, like: processes.join_slices(tree, like, mesh, AXIS), D, C)


def one_device() -> Parallel:
  """The execution on the first device alone."""
  return Parallel(over_whole, lambda fn, donate=(): jax.jit(fn, donate_argnums=donate), jax.device_put,
                  lambda tree, like: jax.device_put(tree), 1, 1)


class Members(NamedTuple):
  """Members of one program, along a leading axis that is spread over the devices.

  Attributes:
    mesh: the devices.
    exact: one member after another, each with the bits that it has alone; otherwise side by side (vmap).
  """
  mesh: Mesh
  exact: bool

  def compile(self, fn: Callable, is_member: tuple[bool, ...], donate: tuple[int, ...] = ()) -> Callable:
    """jit of `fn` for all members: arguments that `is_member` names, and all results, have the leading axis."""
    specs = tuple(PartitionSpec(MEMBERS) if own else PartitionSpec() for own in is_member)
    def local(*args):
      if not self.exact:
        return jax.vmap(fn, tuple(0 if own else None for own in is_member))(*args)
      def one(own_args):
        rest = iter(own_args)
        return fn(*(next(rest) if own else arg for arg, own in zip(args, is_member)))
      return jax.lax.map(one, tuple(arg for arg, own in zip(args, is_member) if own))
    mapped = jax.shard_map(local, mesh=self.mesh, in_specs=specs, out_specs=PartitionSpec(MEMBERS), check_vma=False)
    return jax.jit(mapped, donate_argnums=donate)

  def put(self, tree: Any, is_member: bool = True) -> Any:
    """The tree on the devices, its leading axis spread over them; or whole on each."""
    return jax.device_put(tree, self.sharding(is_member))

  def sharding(self, is_member: bool) -> NamedSharding:
    """Of arrays with the leading axis, or without."""
    return NamedSharding(self.mesh, PartitionSpec(MEMBERS) if is_member else PartitionSpec())


def make_members(num_devices: int, exact: bool) -> Members:
  """Members spread over the first `num_devices` devices."""
  return Members(Mesh(np.array(jax.devices()[:num_devices]), (MEMBERS,), axis_types=(AxisType.Auto,)), exact)


def nest(outer: Over, inner: Over) -> Over:
  """Chunks of `outer`, each of them through `inner`."""
  return lambda fn, batch, key: outer(lambda chunk, chunk_key: inner(fn, chunk, chunk_key), batch, key)


def check_chunk_rows(num_rows: int | None, batch_size: int, num_chunks: int) -> None:
  """Refuses a table whose last batch leaves a chunk with fewer than 2 real rows: BatchNorm has no variance there.

  Raises:
    UserError: with the numbers.
  """
  if num_rows is None:
    return
  last = num_rows % batch_size or batch_size
  if last // num_chunks < 2:
    raise UserError(f"config.train.batch_size: got {batch_size}; the last batch of {num_rows} rows has {last} in "
                    f"{num_chunks} chunks, allowed at least 2 real rows in each; choose another batch size")
