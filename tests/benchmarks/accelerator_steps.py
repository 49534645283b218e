"""What accelerator.py measures, in a process that has the device: each function measures one thing and returns JSON.

Times are medians over dispatches of one compiled call, each long enough to hide what a call costs, after a first one
that is left out, and waited for. `Pace` says how long and how many. Compile times are without a compile cache, but
XLA keeps what it has tried out on a GPU in this process, so that later programs may compile faster.
"""

import contextlib
import functools
import gc
import os
import statistics
import time
from typing import Any, Callable, NamedTuple

import flops
import jax
import jax.numpy as jnp
import numpy as np
from jaxtrain import config as config_lib, rng, step as step_lib
from jaxtrain.devices import parallel
from jaxtrain.nn import attention
from jaxtrain.run import packing, setup
from jaxtrain.sweep import groups

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MIB = 2.0 ** 20


class Pace(NamedTuple):
  """Seconds that a dispatch should take, and how many of them are timed."""
  seconds: float
  rounds: int


def settle() -> None:
  """Forgets compiled programs and arrays of the measurement before."""
  jax.clear_caches()
  gc.collect()

# ---- what these measurements need of jaxtrain, each in one place


def make_config(config: str, values: dict[str, Any]):
  """The resolved config of NAME.py:variant in configs/, with other values at dotted keys.

  The training loss is monitored, so that no evaluation is traced.
  """
  found = config_lib.read_file(os.path.join(ROOT, "configs", config))
  return config_lib.resolve(config_lib.with_values(found, values | {"train.monitor": "train_loss"}))


def init_state(parts: setup.Parts, seed: Any, data: Any) -> Any:
  """The fresh state of a seed, which may be traced; `data` is that of the training source, on the devices."""
  return parts.init(rng.root_key(seed), data)


def compile_repeat(parts: setup.Parts) -> Any:
  """The compiled call of many steps on batches of the largest shapes, as the loop compiles it."""
  return setup.compile_step(parts.devices, parts.one_steps[-1], parts.abstract, parts.totals,
                            setup.shapes(parts.splits.train.data))


def largest_source(parts: setup.Parts) -> Any:
  """The training source whose batches have the largest shapes."""
  return parts.splits.train.in_bucket(len(parts.one_steps) - 1)


def compile_members(config, num_members: int) -> tuple[setup.Parts, Callable, tuple[str, ...]]:
  """(parts, `repeat(states, totals, hypers, active, data, n)`, traced fields) of a sweep over the learning rate."""
  rates = (config.optim.learning_rate, 0.5 * config.optim.learning_rate)
  specs = [groups.Spec(k, config_lib.with_values(config, {"optim.learning_rate": rate}), "", {})
           for k, rate in enumerate(rates)]
  group, = groups.group(specs)
  return group.parts[0], group.compiled(num_members, 1, exact=False).repeat, group.fields


@contextlib.contextmanager
def attention_by(name: str):
  """Networks traced inside use another implementation of attention; `own` is the one that they have."""
  kept = attention.attend
  attention.attend = ATTENTION[name] or kept
  try:
    yield attention.attend
  finally:
    attention.attend = kept


def attend_with(implementation: str) -> Callable:
  """Attention by an implementation of `jax.nn.dot_product_attention`: `xla`, or the fused one of `cudnn`."""
  def attend(qkv, key_mask, num_heads):
    q, k, v = (attention.heads_of(x, num_heads) for x in jnp.split(qkv, 3, axis=-1))
    mask = None if key_mask is None else key_mask[:, None, None, :] > 0
    y = jax.nn.dot_product_attention(q, k, v, mask=mask, implementation=implementation)
    return y.reshape(*qkv.shape[:2], -1)
  return attend


def attend_in_turns(qkv, key_mask, num_heads):
  """Attention of a few sequences at a time, whose scores are computed again for the gradient."""
  return attention.attend_in_cache(qkv, jnp.ones(qkv.shape[:2]) if key_mask is None else key_mask, num_heads)


ATTENTION = {"own": None, "xla": attend_with("xla"), "cudnn": attend_with("cudnn"), "turns": attend_in_turns}

# ---- how things are timed and counted


def time_calls(call: Callable[[int], None], pace: Pace) -> dict[str, Any]:
  """Median and range of seconds of one turn, where `call(n)` does n turns and waits for them."""
  def seconds(count):
    began = time.perf_counter()
    call(count)
    return time.perf_counter() - began
  call(1)
  count, taken = 1, seconds(1)
  while taken < 0.3 * pace.seconds and count < 10 ** 6:
    count = int(count * min(20.0, max(2.0, pace.seconds / taken)))
    taken = seconds(count)
  each = [seconds(count) / count for _ in range(pace.rounds)]
  return {"seconds": statistics.median(each), "range": [min(each), max(each)], "turns": count}


def describe_program(compiled: Any) -> dict[str, Any]:
  """Memory of a compiled program, and operations and bytes as XLA counts them: each loop's body once."""
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
  found = {f"xla_{name}": cost[key] for name, key in (("flops", "flops"), ("bytes", "bytes accessed")) if key in cost}
  if memory is not None:
    found |= {"arguments_mib": memory.argument_size_in_bytes / MIB, "temporary_mib": memory.temp_size_in_bytes / MIB}
  return found


def describe_device() -> dict[str, Any]:
  """The device, and the most of its memory that this process has had in use so far."""
  device = jax.devices()[0]
  stats = device.memory_stats() or {}
  peak = {"peak_mib_of_process": stats["peak_bytes_in_use"] / MIB} if "peak_bytes_in_use" in stats else {}
  return {"platform": device.platform, "device": device.device_kind} | peak


def compiled_in(compile_it: Callable[[], Any]) -> tuple[Any, float]:
  """(what a call returns, seconds that it took)."""
  began = time.perf_counter()
  return compile_it(), time.perf_counter() - began


def check_finite(state: Any) -> None:
  """Raises FloatingPointError where the guard has met a step that was not finite."""
  if np.any(jax.device_get(state.guard.num_bad)):
    raise FloatingPointError("steps were not finite")

# ---- measurements


def multiply(precision: str, x: jax.Array, n: jax.Array) -> jax.Array:
  """x @ x, n times over; the barrier makes XLA do it in every turn."""
  def turn(i, _):
    y, _ = jax.lax.optimization_barrier((x, i))
    return jnp.matmul(y, y, precision=precision)
  return jax.lax.fori_loop(0, n, turn, x)


def measure_device(pace: Pace, size: int, copied_mib: int) -> dict[str, Any]:
  """What the device does at best: products, copies, and what a dispatch and a turn of a loop cost at least."""
  found = {}
  for name, dtype, precision in (("bfloat16", jnp.bfloat16, "default"), ("float32", jnp.float32, "default"),
                                 ("float32_highest", jnp.float32, "highest")):
    x = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    many = jax.jit(functools.partial(multiply, precision))
    timed = time_calls(lambda n, x=x, many=many: jax.block_until_ready(many(x, np.int32(n))), pace)
    found[f"{name}_tflops_per_s"] = 2e-12 * size ** 3 / timed["seconds"]
  words = jnp.zeros((copied_mib << 18,), jnp.float32)
  copy = jax.jit(lambda x, n: jax.lax.fori_loop(0, n, lambda _, y: y + 1.0, x))
  timed = time_calls(lambda n: jax.block_until_ready(copy(words, np.int32(n))), pace)
  found["copy_gb_per_s"] = 2e-9 * words.nbytes / timed["seconds"]
  turn = time_calls(lambda n: jax.block_until_ready(copy(words[:8], np.int32(n))), pace)
  one = jax.jit(lambda x: x + 1.0)
  def call(count):
    for _ in range(count):
      jax.block_until_ready(one(words[:8]))
  found |= {"loop_turn_us": 1e6 * turn["seconds"], "dispatch_us": 1e6 * time_calls(call, pace)["seconds"]}
  stats = jax.devices()[0].memory_stats() or {}
  limit = {"memory_limit_mib": stats["bytes_limit"] / MIB} if "bytes_limit" in stats else {}
  return found | describe_device() | limit | {"num_devices": jax.device_count()}


def start(parts: setup.Parts, data: Any) -> list[Any]:
  """[fresh state, totals of no step] of a config, on the devices."""
  state = jax.jit(lambda data: init_state(parts, parts.config.seed, data))(data)
  return [parts.devices.put(state), parts.devices.put(step_lib.zero_totals(parts.totals))]


def time_steps(parts: setup.Parts, repeat: Callable, pace: Pace) -> dict[str, Any]:
  """Seconds of a training step as the loop runs it: many in a call, donated state, guard, metrics, data made inside."""
  data = parts.devices.put(parts.splits.train.data)
  carry = start(parts, data)
  def call(n):
    carry[:] = jax.block_until_ready(repeat(*carry, data, np.int32(n)))
  timed = time_calls(call, pace)
  check_finite(carry[0])
  return timed


def time_data(parts: setup.Parts, pace: Pace) -> dict[str, Any]:
  """Seconds of making a batch of the largest shapes, many in a call; each is written whole and read once."""
  source = largest_source(parts)
  def many(data, key, first, n):
    def turn(i, total):
      batch = jax.lax.optimization_barrier(source.batch_at(data, first + i, key))
      return total + sum(jnp.sum(leaf, dtype=jnp.float32) for leaf in jax.tree.leaves(batch))
    return jax.lax.fori_loop(0, n, turn, jnp.float32(0))
  data, key = parts.devices.put(parts.splits.train.data), rng.key_for(0, "data")
  compiled, seconds = compiled_in(lambda: jax.jit(many).lower(data, key, np.int32(0), np.int32(1)).compile())
  timed = time_calls(lambda n: jax.block_until_ready(compiled(data, key, np.int32(7), np.int32(n))), pace)
  batch = jax.eval_shape(source.batch_at, setup.shapes(parts.splits.train.data), jax.ShapeDtypeStruct((), jnp.int32),
                         jax.eval_shape(lambda: jax.random.key(0)))
  size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(batch))
  return {"seconds": timed["seconds"], "compile_s": seconds, "batch_bytes": size} | describe_program(compiled)


def measure_step(pace: Pace, config: str, values: dict[str, Any], attention_name: str = "own") -> dict[str, Any]:
  """A training step: its time, what it compiles in and needs, its operations, and the share of making its data."""
  began = time.perf_counter()
  with attention_by(attention_name):
    parts = setup.assemble(make_config(config, values))
    traced = time.perf_counter() - began
    repeat, seconds = compiled_in(lambda: compile_repeat(parts))
  timed, made = time_steps(parts, repeat, pace), time_data(parts, pace)
  by_formula = flops.of_step(parts.config, parts.abstract.params)
  return {"step_ms": 1e3 * timed["seconds"], "step_ms_range": [1e3 * one for one in timed["range"]],
          "steps_per_s": 1.0 / timed["seconds"], "steps_per_dispatch": timed["turns"],
          "rows_per_s": parts.config.train.batch_size / timed["seconds"], "assemble_s": traced, "compile_s": seconds,
          "num_parameters": setup.count_params(parts.abstract), "precision": parts.config.train.precision,
          **({"flops_by_formula": by_formula, "tflops_per_s": 1e-12 * by_formula / timed["seconds"]}
             if by_formula else {}),
          "data_ms": 1e3 * made["seconds"], "data_share": made["seconds"] / timed["seconds"],
          **describe_program(repeat), **describe_device()}


def measure_generator(pace: Pace, config: str, values: dict[str, Any]) -> dict[str, Any]:
  """Making batches alone. Where all tasks are one chunk, XLA counts the bytes of all, else those of one chunk."""
  config = make_config(config, values)
  made, tasks = time_data(setup.assemble(config), pace), config.train.batch_size
  found = {"batch_ms": 1e3 * made["seconds"], "tasks_per_s": tasks / made["seconds"],
           "written_gb_per_s": 1e-9 * made["batch_bytes"] / made["seconds"]}
  if config.data.task_chunk == tasks and "xla_bytes" in made:
    found["gb_per_s"] = 1e-9 * made["xla_bytes"] / made["seconds"]
  return found | made | describe_device()


def measure_attention(pace: Pace, implementation: str, dtype: str, shape: list[int]) -> dict[str, Any]:
  """Attention with its gradient, of [sequences, tokens, heads, size of a head]."""
  M, T, H, K = shape
  qkv = jax.random.normal(jax.random.key(0), (M, T, 3 * H * K)).astype(dtype)
  with attention_by(implementation) as attend:
    gradient = jax.grad(lambda x: jnp.sum(jnp.square(attend(x, None, H).astype(jnp.float32))) / x.size)
    many = lambda x, n: jax.lax.fori_loop(0, n, lambda _, y: y + gradient(y), x)
    compiled, seconds = compiled_in(lambda: jax.jit(many).lower(qkv, np.int32(1)).compile())
  timed = time_calls(lambda n: jax.block_until_ready(compiled(qkv, np.int32(n))), pace)
  return {"ms": 1e3 * timed["seconds"], "tflops_per_s": 12e-12 * M * T * T * H * K / timed["seconds"],
          "precision": dtype, "compile_s": seconds, **describe_program(compiled), **describe_device()}


def measure_members(pace: Pace, config: str, values: dict[str, Any], num_members: int) -> dict[str, Any]:
  """So many members of a sweep as one program: seconds of a step of all."""
  parts, repeat, fields = compile_members(make_config(config, values), num_members)
  put = parallel.make_members(1, False).put
  active, data = put(np.ones(num_members, bool)), put(parts.splits.train.data, False)
  fresh = jax.jit(jax.vmap(lambda seed, data: init_state(parts, seed, data), (0, None)))
  totals = jax.tree.map(lambda leaf: jnp.zeros((num_members, *leaf.shape), leaf.dtype), parts.totals)
  hypers = {field: put(np.full(num_members, config_lib.lookup(parts.config, field), np.float32)) for field in fields}
  carry = [put(fresh(jnp.arange(num_members), data)), put(totals)]
  compiled, seconds = compiled_in(lambda: repeat.lower(*carry, hypers, active, data, np.int32(1)).compile())
  def call(n):
    carry[:] = jax.block_until_ready(compiled(*carry, hypers, active, data, np.int32(n)))
  timed = time_calls(call, pace)
  check_finite(carry[0])
  return {"members": num_members, "step_ms": 1e3 * timed["seconds"], "compile_s": seconds,
          "member_steps_per_s": num_members / timed["seconds"],
          "rows_per_s": num_members * parts.config.train.batch_size / timed["seconds"],
          **describe_program(compiled), **describe_device()}


def train_twice(pace: Pace, configs: dict[str, dict[str, Any]], num_steps: int, deterministic: bool) -> dict[str, Any]:
  """{config: digests of two equal trainings in this process by one compiled program}."""
  del pace
  found = {}
  for config, values in configs.items():
    parts = setup.assemble(make_config(config, values | {"parallel.deterministic": deterministic}))
    repeat, data = compile_repeat(parts), parts.devices.put(parts.splits.train.data)
    found[config] = []
    for _ in range(2):
      state, _ = repeat(*start(parts, data), data, np.int32(num_steps))
      check_finite(state)
      found[config].append(packing.digest(state))
  return {"digests": found, "xla_flags": os.environ["XLA_FLAGS"] if "XLA_FLAGS" in os.environ else "",
          **describe_device()}
