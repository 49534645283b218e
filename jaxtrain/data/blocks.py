"""A pure function applied to the rows of a table, block by block."""

from typing import Any, Callable

import jax
import numpy as np

BLOCK, MIN_BLOCK = 16384, 16  # rows per compiled call


def in_blocks(fn: Callable, variables, x: np.ndarray, most: int | None = None) -> Any:
  """fn(variables, block), an array [n, ...] or a tree of such, over x [N, D].

  Blocks have a power of two rows up to `most` (default: BLOCK), so that tables of any length share a few programs. JAX
  keeps these for as long as `fn` is the same object.
  """
  size = min(most or BLOCK, max(MIN_BLOCK, 1 << (len(x) - 1).bit_length()))
  compiled, found = jax.jit(fn), []
  for start in range(0, len(x), size):
    block = x[start:start + size]
    if len(block) < size:
      block = np.concatenate([block, np.zeros((size - len(block), x.shape[1]), x.dtype)])
    found.append(compiled(variables, block))  # the next block is prepared while this one is computed
  return jax.tree.map(lambda *parts: np.concatenate([np.asarray(part) for part in parts])[:len(x)], *found)
