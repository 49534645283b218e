"""Which latent stands for what: the slots of a code, and the linear codec that a network starts from.

A slot holds one whole number, or one coordinate of a lattice's point. Every numeric column has a slot, every binary and
every categorical one has a slot whose numbers are its classes, and further latent dimensions are shared by all columns.
With fewer latent dimensions than columns all of them are shared, and start as random combinations of columns.
"""

from typing import NamedTuple

import numpy as np

from jaxtrain.experiments.semantic_compression.columns import NUMERIC, Schema

SHARED = "shared"
LOGIT = 8.0  # log-odds of the right class of a discrete column at the start, a unit of the slot away from another
NUMBER_LEVELS = 8  # of a number, of the kind fsq
SMALL = 0.1  # deviation of the first weights of slots beside those of the columns


class Layout(NamedTuple):
  """Slots of a schema, and the first linear maps between its vector x [D] and the latent u [L].

  Attributes:
    names, groups: of each slot.
    continuous: [L] bool; the other slots hold classes.
    factor: [L], of the level: the errors of a slot are meant to be so many times those of the level.
    low, high: [L], range of u over the schema's ranges.
    matrix_in, shift_in: [D, L] and [L]: u = x A + a.
    matrix_out, shift_out: [L, D] and [D]: r = u B + b.
    numeric: [D] bool, whether a column of the vector is a number.
  """
  names: tuple[str, ...]
  groups: tuple[str, ...]
  continuous: np.ndarray
  factor: np.ndarray
  low: np.ndarray
  high: np.ndarray
  matrix_in: np.ndarray
  shift_in: np.ndarray
  matrix_out: np.ndarray
  shift_out: np.ndarray
  numeric: np.ndarray

  @property
  def size(self) -> int:
    """Slots, L."""
    return len(self.names)


def column_weights(schema: Schema, factors: dict[str, float]) -> np.ndarray:
  """[D]: weight of each numeric column's squared error, 1 over its group's factor squared; 0 of discrete columns."""
  found = np.zeros(schema.width)
  for column in schema.columns:
    if column.kind in NUMERIC:
      found[schema.slices[column.name]] = factors[group_of(column)] ** -2
  return found


def group_of(column) -> str:
  """The group of a column; one without a group is its own."""
  return column.group or column.name


def inputs_of(schema: Schema, layout: Layout) -> tuple[tuple[str, tuple[int, ...]], ...]:
  """Groups that have slots of their own with the columns of the vector that are theirs, and shared slots with all."""
  found = {}
  for column in schema.columns:
    found.setdefault(group_of(column), []).extend(range(schema.width)[schema.slices[column.name]])
  if SHARED in layout.groups:
    found[SHARED] = range(schema.width)
  return tuple((name, tuple(at)) for name, at in found.items() if name in layout.groups)


def default_levels(schema: Schema) -> tuple[int, ...]:
  """Levels of a slot for each column, numbers first: `NUMBER_LEVELS` of a number, and one for each class."""
  discrete = [column for column in schema.columns if column.kind not in NUMERIC]
  return (NUMBER_LEVELS,) * (len(schema.columns) - len(discrete)) + tuple(
      2 if column.kind == "binary" else len(column.classes) for column in discrete)


def make_layout(schema: Schema, latent_dim: int, factors: dict[str, float], whole: bool) -> Layout:
  """The slots of a schema: those of numeric columns first, then the discrete ones, then shared ones.

  Args:
    schema: of the states.
    latent_dim: slots in all.
    factors: of the level, by group of columns.
    whole: whether a class is a whole number of u; else all slots have the range -1/2 to 1/2.
  """
  order = sorted(schema.columns, key=lambda column: column.kind not in NUMERIC)
  order = order if latent_dim >= len(order) else []
  L, D, C = latent_dim, schema.width, len(order)
  A, a, B, b = np.zeros((D, L)), np.zeros(L), np.zeros((L, D)), np.zeros(D)
  low, high, factor = np.full(L, -0.5), np.full(L, 0.5), np.ones(L)
  for i, column in enumerate(order):
    at = schema.slices[column.name]
    if column.kind in NUMERIC:
      A[at, i] = B[i, at] = 1.0
      factor[i] = factors[group_of(column)]
    elif column.kind == "binary":  # x is -1/2 or +1/2, r a logit
      A[at, i], a[i], B[i, at], b[at] = 1.0, 0.5, 2 * LOGIT, -LOGIT
      low[i], high[i] = -0.5, 1.5
    else:  # log p(class k | u) = -LOGIT (u - k)^2 and what all classes share
      k = np.arange(len(column.classes))
      A[at, i], B[i, at], b[at] = k, 2 * LOGIT * k, -LOGIT * k**2
      low[i], high[i] = -0.5, k[-1] + 0.5
  if not whole:  # u' = (u - middle) / width
    middle, width = (low + high) / 2, high - low
    A, a, low, high = A / width, (a - middle) / width, np.full(L, -0.5), np.full(L, 0.5)
    B, b = B * width[:, None], b + middle @ B
  scale = (SMALL if order else 1.0) / np.sqrt(D)
  A[:, C:] = scale * np.random.RandomState(0).normal(size=(D, L - C))
  if not order:
    B[:] = np.linalg.pinv(A)
  shared = range(L - C)
  return Layout(names=(*(column.name for column in order), *(f"{SHARED}_{k}" for k in shared)),
                groups=(*map(group_of, order), *(SHARED for _ in shared)),
                continuous=np.array([i >= C or order[i].kind in NUMERIC for i in range(L)]), factor=factor,
                low=low, high=high, matrix_in=A, shift_in=a, matrix_out=B, shift_out=b,
                numeric=np.isin(np.arange(D), schema.numeric))
