"""Sources over tables of arrays that live on the device."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import rng
from jaxtrain.data import shuffle
from jaxtrain.errors import UserError
from jaxtrain.types import Source


def table_source(arrays: dict[str, np.ndarray], batch_size: int, shuffled: bool,
                 beside: dict[str, np.ndarray] | None = None) -> Source:
  """A source of batches from a table, each row once an epoch, the last batch padded.

  Args:
    arrays: name -> [N, ...], all with the same N. The name `weight` is taken.
    batch_size: rows per batch, B.
    shuffled: rows in a new random order each epoch; otherwise in the order of the table.
    beside: name -> [N, ...], more columns of `Source.rows` that no batch holds.

  Returns:
    A `Source` whose batches hold the named rows [B, ...] and `weight` [B] float32.

  Raises:
    UserError: no rows. ValueError: columns of unequal length, or one named `weight`.
  """
  N = len(next(iter(arrays.values())))
  if "weight" in arrays or any(len(column) != N for column in arrays.values()):
    raise ValueError(f"columns {({name: len(column) for name, column in arrays.items()})}: the name weight is taken, "
                     "and all columns must have as many rows")
  if N == 0:
    raise UserError("data: no rows are left to train or evaluate on")
  num_batches = -(-N // batch_size)

  def batch_at(data, step, key):
    epoch, position = step // num_batches, step % num_batches
    row = position * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
    index = jnp.minimum(row, N - 1)
    if shuffled:
      index = shuffle.permute(rng.step_key(key, epoch), index, N)
    batch = jax.tree.map(lambda column: column.at[index].get(mode="promise_in_bounds"), data)
    return batch | {"weight": (row < N).astype(jnp.float32)}

  kept = arrays | (beside or {})
  rows = lambda index: {name: np.asarray(column)[index] for name, column in kept.items()}
  return Source(data=dict(arrays), batch_at=batch_at, num_batches=num_batches, num_rows=N, rows=rows)
