"""A pure function applied to the rows of a table, block by block."""

from typing import Any, Callable

import jax
import numpy as np

BLOCK = 16384  # rows per compiled call


def in_blocks(fn: Callable, variables, x: np.ndarray, most: int | None = None) -> Any:
  """fn(variables, block), an array [n, ...] or a tree of such, over x [N, D] compiled once for blocks of at most `most`
  rows (default: BLOCK).
  """
  size = min(most or BLOCK, len(x))
  compiled, found = jax.jit(fn), []
  for start in range(0, len(x), size):
    block = x[start:start + size]
    if len(block) < size:
      block = np.concatenate([block, np.zeros((size - len(block), x.shape[1]), x.dtype)])
    found.append(compiled(variables, block))  # the next block is prepared while this one is computed
  return jax.tree.map(lambda *parts: np.concatenate([np.asarray(part) for part in parts])[:len(x)], *found)
