"""Metrics on the host: totals of (sum, count), divided last."""

from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np


def divide(totals: dict[str, tuple[Any, Any]]) -> dict[str, float]:
  """Means of totals, sorted by name; NaN where the count is 0. A metric whose sum is an array is left out."""
  means = {}
  for name, (total, count) in sorted(jax.device_get(totals).items()):
    total, count = np.asarray(total, np.float64), np.asarray(count, np.float64)
    if total.ndim == 0:
      means[name] = float(np.divide(total, count, out=np.full((), np.nan), where=count != 0))
  return means


def finish(totals: dict, summarise: Callable | None) -> dict[str, float]:
  """Means of totals and what an experiment summarises from them."""
  means = divide(totals)
  if summarise is not None:
    totals = jax.tree.map(jnp.asarray, jax.device_get(totals))  # the same operations for a run and a member of a sweep
    means |= {name: float(value) for name, value in jax.device_get(summarise(totals)).items()}
  return means


def names_of(totals: Any, summarise: Callable | None) -> list[str]:
  """Names that `finish` gives of totals with these shapes; computes nothing."""
  names = [name for name, (total, _) in sorted(totals.items()) if total.ndim == 0]
  extra = jax.eval_shape(summarise, totals) if summarise is not None else {}
  return list(dict.fromkeys([*names, *extra]))
