"""Metrics on the host: totals of (sum, count) divided last."""

from typing import Any, Callable

import jax
import numpy as np


def divide(totals: dict[str, tuple[Any, Any]]) -> dict[str, float]:
  """Means of totals; NaN where the count is 0; a metric whose sum is an array gives `name/0`, `name/1`, ..."""
  means = {}
  for name, (total, count) in sorted(jax.device_get(totals).items()):
    total, count = np.asarray(total, np.float64), np.asarray(count, np.float64)
    mean = np.divide(total, count, out=np.full(np.broadcast_shapes(total.shape, count.shape), np.nan), where=count != 0)
    if mean.ndim == 0:
      means[name] = float(mean)
    else:
      means |= {f"{name}/{i}": float(v) for i, v in enumerate(mean.ravel())}
  return means


def finish(totals: dict, summarise: Callable | None) -> dict[str, float]:
  """Means of totals and what an experiment summarises from them."""
  means = divide(totals)
  if summarise is not None:
    means |= {name: float(value) for name, value in jax.device_get(summarise(totals)).items()}
  return means
