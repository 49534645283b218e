"""Descriptions of the columns of a state, of the features that carry its meaning, and of both together: a `Schema`."""

from typing import NamedTuple

import numpy as np

from jaxtrain.errors import UserError

KINDS = ("continuous", "integer", "binary", "categorical")
NUMERIC = KINDS[:2]
FEATURE_KINDS = ("numeric", "binary", "categorical")
THRESHOLDS = {"": 0, "above": 1, "between": 2, "below": 1, "index": 0}  # of each rule
OTHER_WEIGHT = 0.1  # of a feature that no published weight is known of


class Column(NamedTuple):
  """One column of a state.

  Attributes:
    kind: one of KINDS.
    low, high: range of a numeric column in physical units; values beyond it are encoded all the same.
    classes: names of a categorical column's classes, in the order of their codes.
    group: such as spatial, resource, status, performance, role.
  """
  name: str
  kind: str
  low: float = 0.0
  high: float = 1.0
  classes: tuple[str, ...] = ()
  group: str = ""


class Feature(NamedTuple):
  """Something of a state that has a meaning.

  Attributes:
    kind: one of FEATURE_KINDS.
    columns: what it is made of. A rule speaks of the first; any further ones are binary and must be true as well.
    rule: "" the columns themselves; "above", "below" a threshold, "between" two (open intervals); "index" the class of
      a categorical column whose loss compares the index over the number of classes.
    thresholds: in physical units.
    weight: share in a weighted score, before all are normalised.
  """
  name: str
  kind: str
  columns: tuple[str, ...]
  rule: str = ""
  thresholds: tuple[float, ...] = ()
  group: str = ""
  weight: float = OTHER_WEIGHT


class Schema(NamedTuple):
  """The columns of a state and its features; a value without arrays, which can be hashed and compared."""
  name: str
  columns: tuple[Column, ...]
  features: tuple[Feature, ...]

  @property
  def width(self) -> int:
    """D, the number of places of the vector."""
    return sum(size_of(column) for column in self.columns)

  @property
  def slices(self) -> dict[str, slice]:
    """Where each column lies in the vector."""
    ends = np.cumsum([size_of(column) for column in self.columns])
    return {column.name: slice(int(end) - size_of(column), int(end)) for column, end in zip(self.columns, ends)}

  @property
  def column(self) -> dict[str, Column]:
    """Columns by name."""
    return {column.name: column for column in self.columns}

  def places(self, *kinds: str) -> np.ndarray:
    """Places of the vector [n] int64 that belong to columns of these kinds."""
    found = [np.arange(self.width)[self.slices[column.name]] for column in self.columns if column.kind in kinds]
    return np.concatenate(found) if found else np.zeros(0, np.int64)

  @property
  def numeric(self) -> np.ndarray:
    """Places of the continuous and integer columns, [n] int64."""
    return self.places(*NUMERIC)

  @property
  def numeric_names(self) -> tuple[str, ...]:
    """Names of the continuous and integer columns, in the order of `numeric`."""
    return tuple(column.name for column in self.columns if column.kind in NUMERIC)

  @property
  def groups(self) -> dict[str, tuple[str, ...]]:
    """Names of the columns of each group, groups in the order of their first column."""
    return {group: tuple(column.name for column in self.columns if column.group == group)
            for group in dict.fromkeys(column.group for column in self.columns)}


def size_of(column: Column) -> int:
  """How many places of the vector a column takes."""
  return len(column.classes) if column.kind == "categorical" else 1


def middle(column: Column) -> float:
  """The middle of a numeric column's range, physical units."""
  return (column.low + column.high) / 2


def checked(schema: Schema) -> Schema:
  """The schema itself. Raises UserError, naming the column or feature, where it contradicts itself."""
  wrong = lambda what, got, allowed: UserError(f"schema {schema.name!r}, {what}: got {got!r}, allowed {allowed}")
  if not schema.columns:
    raise wrong("columns", (), "one at least")
  for part, names in (("columns", [c.name for c in schema.columns]), ("features", [f.name for f in schema.features])):
    for name in sorted({name for name in names if names.count(name) > 1}):
      raise wrong(part, name, "each name once")
  for column in schema.columns:
    at = f"column {column.name!r}"
    if column.kind not in KINDS:
      raise wrong(at, column.kind, f"a kind of {', '.join(KINDS)}")
    if not (np.isfinite([column.low, column.high]).all() and column.low < column.high):
      raise wrong(at, (column.low, column.high), "finite low < high")
    if column.kind == "categorical" and not 2 <= len(set(column.classes)) == len(column.classes):
      raise wrong(at, column.classes, "two or more different classes")
  known = schema.column
  for feature in schema.features:
    at = f"feature {feature.name!r}"
    if feature.kind not in FEATURE_KINDS or feature.rule not in THRESHOLDS:
      raise wrong(at, (feature.kind, feature.rule), f"{', '.join(FEATURE_KINDS)} and a rule of {tuple(THRESHOLDS)}")
    for name in feature.columns:
      if name not in known:
        raise wrong(at, name, f"a column: {', '.join(known)}")
    kinds = [known[name].kind for name in feature.columns]
    if not fits(feature, kinds):
      raise wrong(at, tuple(kinds), f"columns, thresholds and weight that suit {feature.kind!r}, rule {feature.rule!r}")
  return schema


def fits(feature: Feature, kinds: list[str]) -> bool:
  """Whether a feature's rule, thresholds and weight suit each other and the kinds of its columns."""
  if not kinds or not feature.weight >= 0 or len(feature.thresholds) != THRESHOLDS[feature.rule]:
    return False
  if feature.rule in ("above", "below", "between"):
    return (feature.kind == "binary" and kinds[0] in NUMERIC and set(kinds[1:]) <= {"binary"}
            and list(feature.thresholds) == sorted(feature.thresholds))
  if feature.kind == "numeric":
    return feature.rule == "" and set(kinds) <= set(NUMERIC)
  return kinds == [feature.kind] and feature.rule in (("", "index") if feature.kind == "categorical" else ("",))
