"""Whether a run fits into the memory that is free, asked before anything of its size is made."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxtrain.devices import backend
from jaxtrain.errors import UserError
from jaxtrain.run.setup import Parts, shapes

MIB = 2**20
SMALLER = "choose smaller sizes in config.model, or a smaller config.train.batch_size"


def num_bytes(tree: Any) -> int:
  """Bytes of the leaves of a tree of arrays or of their shapes."""
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def check_state(parts: Parts) -> None:
  """Refuses a state and a batch that alone are larger than the memory that is free. Raises UserError."""
  source, key = parts.splits.train, jax.eval_shape(lambda: jax.random.key(0))
  number = jax.ShapeDtypeStruct((), jnp.int32)
  batches = [num_bytes(jax.eval_shape(source.in_bucket(k).batch_at, shapes(source.data), number, key))
             for k in range(len(source.buckets) or 1)]
  state, batch, free = num_bytes(parts.abstract), max(batches), backend.free_bytes()
  if state + batch > free:
    raise UserError(f"config: the state needs {state / MIB:,.0f} MiB and a batch {batch / MIB:,.0f} MiB, "
                    f"{free / MIB:,.0f} MiB are free; {SMALLER}")


def check_step(compiled: Any, num_devices: int) -> None:
  """Refuses a compiled step whose intermediate results are larger than the memory that is free. Raises UserError."""
  memory = compiled.memory_analysis()
  if memory is None:  # not every backend tells
    return
  on_host = jax.devices()[0].platform == "cpu"  # whose devices share one memory
  needed, free = memory.temp_size_in_bytes * (num_devices if on_host else 1), backend.free_bytes()
  if needed > free:
    raise UserError(f"config: a step needs {needed / MIB:,.0f} MiB beside the state and the data, "
                    f"{free / MIB:,.0f} MiB are free; {SMALLER}, or config.train.microbatch=-1")
