"""Loss terms and metrics of the user's own, named by dotted path in `loss.extra` and `eval.metrics`.

A term is `(batch, out) -> [B]`, a number a row, under the weight of its own name in `loss.weights`; a metric is
`(batch, out) -> (sum, count)`. What `out` holds is the experiment's.
"""

from typing import Any, Callable, Container

import jax.numpy as jnp

from jaxtrain import config as config_lib
from jaxtrain.errors import UserError


def named_functions(field: str, paths: tuple[str, ...], taken: Container[str]) -> dict[str, Callable]:
  """Functions of dotted paths by their own names. Raises UserError for a name that is taken."""
  found = {}
  for path in paths:
    name = path.rpartition(".")[2]
    if name in found or name in taken:
      raise UserError(f"config.{field}: the name {name!r} of {path!r} is taken; rename the function")
    found[name] = config_lib.load_function(field, path)
  return found


def check_weights(loss: Any) -> None:
  """Raises UserError where a term of `config.loss.extra` has no weight."""
  for path in loss.extra:
    name = path.rpartition(".")[2]
    if name not in loss.weights:
      raise UserError(f"config.loss.weights: no weight {name!r} for the term {path!r} of config.loss.extra")


def check_term(name: str, found: Any, num_rows: int) -> Any:
  """Returns what a loss of the user's own gave. Raises UserError where it is not one value per row."""
  if not is_numeric(found) or jnp.shape(found) != (num_rows,):
    raise UserError(f"config.loss.extra: {name}(batch, out) returned {describe(found)}, allowed one number per row, "
                    f"of shape {(num_rows,)}")
  return found


def check_metric(name: str, found: Any) -> Any:
  """Returns what a metric of the user's own gave. Raises UserError where it is not (sum, count)."""
  if not isinstance(found, (tuple, list)) or len(found) != 2 or not all(map(is_numeric, found)):
    raise UserError(f"config.eval.metrics: {name}(batch, out) returned {describe(found)}, allowed (sum, count) over "
                    "the rows of the batch, two arrays")
  return tuple(jnp.asarray(part) for part in found)


def is_numeric(value: Any) -> bool:
  """Whether a value is an array of numbers, or a number."""
  return isinstance(value, (bool, int, float)) or hasattr(value, "dtype") and (
      jnp.issubdtype(value.dtype, jnp.number) or value.dtype == bool)


def describe(value: Any) -> str:
  """A value's type, with the shape of an array, and what is in a tuple."""
  if isinstance(value, (tuple, list)):
    return f"({', '.join(map(describe, value[:4]))}{', ...' * (len(value) > 4)})"
  return f"an array of shape {value.shape}" if hasattr(value, "shape") else type(value).__name__
