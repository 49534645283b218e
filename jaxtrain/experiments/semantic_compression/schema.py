"""What the columns of a state are, how a state becomes a vector and back, and which features carry its meaning.

A record is a dict of columns [N]: float numbers of continuous columns, int of integer ones, bool (or 0 / 1) of binary
ones, and codes 0 .. K-1 or names of categorical ones. Everything that reads a state finds its columns by name through a
`Schema`; no position of the vector is written anywhere else.

A vector [N, D] holds, in the order of the schema's columns: (v - middle) / (high - low) of a continuous or integer
column, so that errors are shares of its range; -1/2 or +1/2 of a binary one; a one-hot 0 / 1 of a categorical one. A
network's output has the same places: a number, a logit, K logits.

`AGENT15` is the state of a simulated agent. `LEGACY10` is a layout of ten columns that an earlier system's formulas
assume: raw numbers (its ranges have width 1 and middle 0), a role compared by its index.
"""

import json
from typing import Any, Mapping

import numpy as np

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression.columns import (KINDS, NUMERIC, OTHER_WEIGHT, Column, Feature, Schema,
                                                                checked, middle)

ROLES = ("explorer", "gatherer", "defender", "attacker", "builder")
ITEMS = ("wood", "stone", "metal", "food", "tools", "weapons")
GOALS = ("find_resources", "gather_materials", "defend_base", "attack_enemy", "build_structure", "explore_territory",
         "heal_allies", "upgrade_equipment")
MOST_ITEMS = 20
MOST_CLASSES = 1000  # of a column of a user's table
Record = dict[str, np.ndarray]

AGENT_COLUMNS = (
    Column("position_x", "continuous", -100.0, 100.0, group="spatial"),
    Column("position_y", "continuous", -100.0, 100.0, group="spatial"),
    Column("position_z", "continuous", -10.0, 10.0, group="spatial"),
    Column("health", "continuous", 0.1, 1.0, group="resource"),
    Column("energy", "continuous", 0.2, 1.0, group="resource"),
    Column("resource_level", "continuous", 0.0, 1.0, group="resource"),
    Column("current_health", "continuous", 0.0, 1.0, group="status"),
    Column("is_defending", "binary", group="status"),
    Column("age", "integer", 0.0, 500.0, group="performance"),
    Column("total_reward", "continuous", -50.0, 100.0, group="performance"),
    Column("role", "categorical", classes=ROLES, group="role"))

# The weights that are published for seven features add up to 0.96; the four that have none share the rest. The weight
# of a group is that of its features: spatial 0.554, resource 0.251, performance 0.105, role 0.050, status 0.040.
AGENT_FEATURES = (
    Feature("position", "numeric", ("position_x", "position_y", "position_z"), group="spatial", weight=0.554),
    Feature("health", "numeric", ("health",), group="resource", weight=0.150),
    Feature("energy", "numeric", ("energy",), group="resource", weight=0.101),
    Feature("resource_level", "numeric", ("resource_level",), group="status", weight=0.010),
    Feature("current_health", "numeric", ("current_health",), group="status", weight=0.010),
    Feature("age", "numeric", ("age",), group="status", weight=0.010),
    Feature("total_reward", "numeric", ("total_reward",), group="status", weight=0.010),
    Feature("is_alive", "binary", ("current_health",), "above", (0.1,), group="performance", weight=0.050),
    Feature("has_target", "binary", ("is_defending",), group="performance", weight=0.035),
    Feature("threatened", "binary", ("current_health",), "between", (0.1, 0.3), group="performance", weight=0.020),
    Feature("role", "categorical", ("role",), group="role", weight=0.050))

AGENT15 = checked(Schema("agent15", AGENT_COLUMNS, AGENT_FEATURES))

LEGACY10 = checked(Schema("legacy10", (
    *(Column(name, "continuous", -0.5, 0.5, group=group) for name, group in (
        ("position_x", "spatial"), ("position_y", "spatial"), ("health", "resources"))),
    Column("has_target", "binary", group="performance"),
    Column("energy", "continuous", -0.5, 0.5, group="resources"),
    Column("role", "categorical", classes=ROLES, group="role")), (
    Feature("position", "numeric", ("position_x", "position_y"), group="spatial", weight=0.554),
    Feature("health", "numeric", ("health",), group="resources", weight=0.150),
    Feature("energy", "numeric", ("energy",), group="resources", weight=0.101),
    Feature("is_alive", "binary", ("health",), "above", (0.1,), group="performance", weight=0.050),
    Feature("has_target", "binary", ("has_target",), group="performance", weight=0.035),
    Feature("threatened", "binary", ("health", "has_target"), "below", (0.3,), group="performance", weight=0.020),
    Feature("role", "categorical", ("role",), "index", group="role", weight=0.050))))


def with_blocks(schema: Schema, blocks: tuple[str, ...]) -> Schema:
  """The schema and optional columns: `inventory` (six counts), `goals` (eight bits), `target` (one bit).

  `target` says whether an agent acts upon something, where a source records that; the feature `has_target` then reads
  this column. Raises UserError for another block.
  """
  columns, features = schema.columns, schema.features
  for block in blocks:
    if block == "inventory":
      added = tuple(Column(f"inventory_{item}", "integer", 0.0, float(MOST_ITEMS), group=block) for item in ITEMS)
      meant = (Feature("inventory", "numeric", tuple(column.name for column in added), group=block),)
    elif block == "goals":
      added = tuple(Column(f"goal_{goal}", "binary", group=block) for goal in GOALS)
      meant = tuple(Feature(column.name, "binary", (column.name,), group=block, weight=OTHER_WEIGHT / len(GOALS))
                    for column in added)
    elif block == "target":
      added, meant = (Column("has_target", "binary", group="status"),), ()
      features = tuple(feature._replace(columns=("has_target",)) if feature.name == "has_target" else feature
                       for feature in features)
    else:
      raise UserError(f"blocks of a state: got {block!r}, allowed inventory, goals, target")
    columns, features = columns + added, features + meant
  return checked(Schema("+".join((schema.name, *blocks)), columns, features))


def with_ranges(schema: Schema, record: Mapping[str, np.ndarray],
                quantiles: tuple[float, float] = (0.0, 1.0)) -> Schema:
  """The schema with the ranges of its numeric columns taken from the (training) rows of a record.

  Args:
    quantiles: of the low and the high end; (0, 1) takes the smallest and largest value, and others bear outliers. A
      column whose ends are equal gets a range of width 1 about them.
  """
  num_rows(schema, record)
  columns = []
  for column in schema.columns:
    if column.kind in NUMERIC:
      values = checked_values(column, record[column.name])
      if not len(values):
        raise UserError(f"data column {column.name!r} has no rows to take a range from")
      low, high = (float(end) for end in np.quantile(values, quantiles))
      column = column._replace(low=low, high=high) if low < high else column._replace(low=low - 0.5, high=low + 0.5)
    columns.append(column)
  return checked(schema._replace(columns=tuple(columns)))


def of_table(record: Mapping[str, np.ndarray], continuous: tuple[str, ...] = (), integer: tuple[str, ...] = (),
             binary: tuple[str, ...] = (), categorical: tuple[str, ...] = (),
             quantiles: tuple[float, float] = (0.0, 1.0), name: str = "table") -> Schema:
  """A schema for a user's own table: every named column is a group and a feature of its own, of equal weight.

  Args:
    record: the training rows, which ranges (`with_ranges`) and classes (the names there are, sorted) come from;
      categorical columns as text.
  """
  kind_of = {column: kind for kind, columns in zip(KINDS, (continuous, integer, binary, categorical))
             for column in columns}
  if len(kind_of) < len(continuous) + len(integer) + len(binary) + len(categorical):
    named = (*continuous, *integer, *binary, *categorical)
    twice = next(name for k, name in enumerate(named) if name in named[:k])
    raise UserError(f"config.data: column {twice!r} is named twice, allowed once and as one of {', '.join(KINDS)}")
  columns = []
  for column, kind in kind_of.items():
    values = np.asarray(record[column]) if column in record else np.zeros(0)
    if kind == "categorical" and not all(isinstance(cell, str) for cell in values.tolist()):
      raise UserError(f"data column {column!r}: allowed text alone in a categorical column")
    classes = tuple(sorted(set(values.tolist()))) if kind == "categorical" else ()
    if len(classes) > MOST_CLASSES:
      raise UserError(f"data column {column!r} has {len(classes):,} different names, allowed up to {MOST_CLASSES:,} in "
                      "a categorical column: names of single rows are no classes")
    columns.append(Column(column, kind, classes=classes, group=column))
  features = tuple(Feature(column.name, "numeric" if column.kind in NUMERIC else column.kind, (column.name,),
                           group=column.name, weight=1 / len(columns)) for column in columns)
  return with_ranges(checked(Schema(name, tuple(columns), features)), record, quantiles)


def num_rows(schema: Schema, record: Mapping[str, np.ndarray]) -> int:
  """Rows of a record. Raises UserError where a column of the schema is missing or of another length."""
  for column in schema.columns:
    if column.name not in record:
      raise UserError(f"data column {column.name!r} of schema {schema.name!r} is missing; there are: "
                      f"{', '.join(record)}")
  lengths = {column.name: len(record[column.name]) for column in schema.columns}
  if len(set(lengths.values())) > 1:
    raise UserError(f"data columns have different lengths: {lengths}")
  return next(iter(lengths.values()))


def checked_values(column: Column, values: np.ndarray) -> np.ndarray:
  """A column as float64 numbers, bool, or int64 codes [N].

  Raises UserError, naming column and row, at what is missing, not finite, no truth value or no class: a missing value
  never becomes a default.
  """
  values = np.asarray(values)
  if column.kind == "categorical":
    return codes(column, values)
  if values.dtype.kind not in "biuf":
    raise UserError(f"data column {column.name!r}: got {values.dtype}, allowed numbers")
  numbers = values.astype(np.float64)
  bad = ~(np.abs(numbers) <= np.finfo(np.float32).max)  # NaN too
  if column.kind == "binary":
    bad |= (numbers != 0) & (numbers != 1)
  for i in np.flatnonzero(bad)[:1]:
    raise UserError(f"data column {column.name!r}, row {i + 1}: got {values[i]}, allowed "
                    f"{'0 or 1' if column.kind == 'binary' else 'a finite number of 32 bits'}")
  return numbers.astype(bool) if column.kind == "binary" else numbers


def codes(column: Column, values: np.ndarray) -> np.ndarray:
  """Codes [N] int64 of a categorical column that is given by names or by codes. Raises UserError at any other value."""
  values, K = np.asarray(values), len(column.classes)
  if values.dtype.kind in "iu":
    for i in np.flatnonzero((values < 0) | (values >= K))[:1]:
      raise UserError(f"data column {column.name!r}, row {i + 1}: got {values[i]}, allowed codes 0..{K - 1}")
    return values.astype(np.int64)
  code_of = {name: code for code, name in enumerate(column.classes)}
  found = np.asarray([code_of.get(name, -1) for name in values.tolist()], np.int64)
  for i in np.flatnonzero(found < 0)[:1]:
    raise UserError(f"data column {column.name!r}, row {i + 1}: got {values.tolist()[i]!r}, allowed "
                    f"{', '.join(column.classes)}")
  return found


def encode(schema: Schema, record: Mapping[str, np.ndarray]) -> np.ndarray:
  """The vectors [N, D] float32 of a record; columns that the schema does not name are left aside. Raises UserError."""
  x = np.zeros((num_rows(schema, record), schema.width), np.float32)
  for column in schema.columns:
    values, place = checked_values(column, record[column.name]), schema.slices[column.name]
    if column.kind == "categorical":
      x[:, place] = np.arange(len(column.classes)) == values[:, None]
    elif column.kind == "binary":
      x[:, place] = values[:, None] - 0.5
    else:
      x[:, place] = ((values - middle(column)) / (column.high - column.low))[:, None]
  return x


def decode(schema: Schema, x: np.ndarray) -> Record:
  """The record of vectors or of a network's outputs [N, D].

  Continuous columns are float64 and not clipped to their range, integer ones the nearest int64, binary ones x > 0, and
  categorical ones the name of the largest of their places (of equal ones the first). Raises ValueError, naming the
  column, where a number is not finite or no integer of 62 bits.
  """
  x = np.asarray(x, np.float64)
  if x.ndim != 2 or x.shape[1] != schema.width:
    raise ValueError(f"vectors of schema {schema.name!r}: got shape {x.shape}, allowed [N, {schema.width}]")
  record: Record = {}
  for column in schema.columns:
    part = x[:, schema.slices[column.name]]
    for i in np.flatnonzero(~np.isfinite(part).all(axis=1))[:1]:
      raise ValueError(f"decoded column {column.name!r}, row {i + 1}: got {part[i]}, allowed finite numbers")
    if column.kind == "categorical":
      record[column.name] = np.asarray(column.classes)[np.argmax(part, axis=1)]
    elif column.kind == "binary":
      record[column.name] = part[:, 0] > 0
    else:
      values = part[:, 0] * (column.high - column.low) + middle(column)
      record[column.name] = whole(column, values) if column.kind == "integer" else values
  return record


def whole(column: Column, values: np.ndarray) -> np.ndarray:
  """The nearest integers [N] int64. Raises ValueError where one has more than 62 bits."""
  for i in np.flatnonzero(~(np.abs(values) < 2.0**62))[:1]:
    raise ValueError(f"decoded column {column.name!r}, row {i + 1}: got {values[i]}, allowed integers of 62 bits")
  return np.rint(values).astype(np.int64)


def to_json(schema: Schema) -> dict[str, Any]:
  """The schema as plain dicts, lists, text and numbers, for a run's meta and for a file's header."""
  return json.loads(json.dumps({"name": schema.name, "columns": [column._asdict() for column in schema.columns],
                                "features": [feature._asdict() for feature in schema.features]}))


def from_json(plain: Mapping[str, Any]) -> Schema:
  """The schema that `to_json` wrote. Raises UserError for anything else, since it may come from a stranger's file."""
  try:
    columns, features = (tuple(typed(kind, fields) for fields in plain[part])
                         for kind, part in ((Column, "columns"), (Feature, "features")))
    return checked(Schema(text(plain["name"]), columns, features))
  except (KeyError, TypeError, AttributeError) as error:
    raise UserError(f"this is no schema: {error}") from None


def text(value: Any) -> str:
  """The value. Raises TypeError where it is no text."""
  if not isinstance(value, str):
    raise TypeError(f"got {value!r}, allowed text")
  return value


def number(value: Any) -> float:
  """The value as a float. Raises TypeError where it is no finite number."""
  if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
    raise TypeError(f"got {value!r}, allowed a finite number")
  return float(value)


def typed(kind: type, fields: Mapping[str, Any]) -> Any:
  """A Column or Feature from plain fields. Raises TypeError where one is missing, unknown or of another type."""
  made = {"low": number, "high": number, "weight": number, "thresholds": number}
  if set(fields) != set(kind._fields):
    raise TypeError(f"got the fields {sorted(map(str, fields))}, allowed {sorted(kind._fields)}")
  several = ("classes", "columns", "thresholds")
  one = lambda name: made[name] if name in made else text
  return kind(**{name: tuple(map(one(name), list_of(value))) if name in several else one(name)(value)
                 for name, value in fields.items()})


def list_of(value: Any) -> list:
  """The value. Raises TypeError where it is no list."""
  if not isinstance(value, list):
    raise TypeError(f"got {value!r}, allowed a list")
  return value


def to_json_lines(schema: Schema, record: Mapping[str, np.ndarray]) -> bytes:
  """A record as JSON text, one object a row: names of classes, true / false, and the shortest digits that give back
  the same float32. Raises UserError as `encode` does.
  """
  num_rows(schema, record)
  texts = []
  for column in schema.columns:
    values = checked_values(column, record[column.name])
    if column.kind == "categorical":
      texts.append(np.asarray([json.dumps(name) for name in column.classes])[values])
    elif column.kind == "binary":
      texts.append(np.where(values, "true", "false"))
    else:
      texts.append(values.astype(np.int64 if column.kind == "integer" else np.float32).astype(str))
  row = "{" + ",".join(json.dumps(column.name).replace("%", "%%") + ":%s" for column in schema.columns) + "}\n"
  return "".join(row % cells for cells in zip(*(text.tolist() for text in texts))).encode()
