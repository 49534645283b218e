"""Kinds of the columns of a table: numbers, whole numbers and categories, and values at which rows pile up.

The features of a table are numbers all the same: a category is its code 0 .. K-1, and in scaled units its code and 1,
so that 0 stands for a missing cell as it does in a column of numbers. Categories are those of the training rows; a cell
with another one counts as missing.
"""

import re
from typing import Any, Mapping, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.data import labels, scaling, tables
from jaxtrain.errors import UserError

WHOLE = re.compile(r"0|-?[1-9]\d{0,17}")
TRUTHS = {"True": True, "False": False}
MOST_WHOLE = 2.0**53  # integers up to here are float64 too


class Asked(NamedTuple):
  """What a config says of the columns: names or patterns.

  Attributes:
    categorical, integer: columns of names, and of whole numbers.
    spikes: columns with many rows at one value, 0 or that of `name=value`.
  """
  categorical: tuple[str, ...] = ()
  integer: tuple[str, ...] = ()
  spikes: tuple[str, ...] = ()


NOTHING = Asked()


def asked(data: Mapping[str, Any]) -> Asked:
  """What the section `data` of a config says."""
  return Asked(*(tuple(data[name]) for name in Asked._fields))


def settle(table: tables.Table, said: Asked, train_rows: np.ndarray) -> tuple[tables.Table, dict]:
  """(the table with the categories of its training rows alone, what kinds its columns have); {} where all are numbers.

  The second is JSON-able: `categories` (name -> names in the order of their codes), `integer` (name -> the least and
  the largest number of the training rows) and `spikes` (name -> value).

  Raises:
    UserError: a name that is no feature, or a column whose cells are not of its kind.
  """
  names, source = list(table.feature_names), source_of(table)
  table = seen_alone(named_categories(table, said.categorical), train_rows)
  numbers = [name for name in names if name not in table.categories]
  integer = tables.match(numbers, said.integer, (), source, "integer") if said.integer else ()
  spikes = spike_values(numbers, said.spikes, source)
  if not (table.categories or integer or spikes):
    return table, {}
  for name, value in spikes.items():
    if not (table.features[train_rows][:, names.index(name)] == value).any():
      raise UserError(f"config.data.spikes: no training row of the column {name!r} is {value:g}")
  return table, {"categories": {name: list(known) for name, known in table.categories.items()},
                 "integer": {name: whole_range(table, name, train_rows) for name in integer}, "spikes": spikes}


def source_of(table: tables.Table) -> str:
  """How a message calls a table."""
  return str(table.facts["source"]) if "source" in table.facts else "the table"


def named_categories(table: tables.Table, patterns: tuple[str, ...]) -> tables.Table:
  """The table with the columns of numbers that these name as categories; others are as they are."""
  if not patterns:
    return table
  names, x, known = list(table.feature_names), table.features, dict(table.categories)
  for name in tables.match(names, patterns, (), source_of(table), "categorical"):
    if name not in known:
      x = x.copy()
      d = names.index(name)
      codes, known[name] = labels.encode(np.asarray([labels.word(cell) for cell in x[:, d].tolist()], object),
                                         lambda cell: cell == "nan")
      x[:, d] = np.where(codes < 0, np.nan, codes)
  return table._replace(features=x, categories=known)


def seen_alone(table: tables.Table, train_rows: np.ndarray) -> tables.Table:
  """The table with the categories of its training rows; cells of others are missing, and a warning counts them.

  Raises UserError for a column whose training rows have one category.
  """
  x, categories, warnings = table.features, dict(table.categories), []
  for name, known in table.categories.items():
    d = table.feature_names.index(name)
    column = x[:, d]
    count = np.bincount(column[train_rows][~np.isnan(column[train_rows])].astype(int), minlength=len(known))
    if (count > 0).sum() < 2:
      raise UserError(f"data column {name!r}: its training rows have {(count > 0).sum()} categories, allowed 2 or more")
    if (count > 0).all():
      continue
    new = np.where(count > 0, np.cumsum(count > 0) - 1.0, np.nan)
    there = ~np.isnan(column)
    moved = np.where(there, new[np.where(there, column, 0).astype(int)], np.nan)
    lost = int((np.isnan(moved) & there).sum())
    warnings.append(f"column {name!r}: {lost:,} cells count as missing, for their categories are in no training row: "
                    f"{labels.quoted([known[k] for k in np.flatnonzero(count == 0)])}")
    x = x.copy() if x is table.features else x
    x[:, d], categories[name] = moved, tuple(known[k] for k in np.flatnonzero(count > 0))
  if not warnings:
    return table
  said = table.facts["warnings"] if "warnings" in table.facts else []
  return table._replace(features=x, categories=categories, facts=table.facts | {"warnings": [*said, *warnings]})


def spike_values(numbers: list[str], said: tuple[str, ...], source: str) -> dict[str, float]:
  """The value of each column that has one: `name`, a pattern, or `name=value`."""
  found = {}
  for entry in said:
    name, mark, value = ("", "", "") if entry in numbers else entry.rpartition("=")
    try:
      number = float(value) if mark else 0.0
    except ValueError:
      raise UserError(f"config.data.spikes: got {entry!r}, allowed names of columns of numbers, or "
                      "name=value") from None
    found |= dict.fromkeys(tables.match(numbers, (name if mark else entry,), (), source, "spikes"), number)
  return found


def whole_range(table: tables.Table, name: str, train_rows: np.ndarray) -> list[float]:
  """The least and the largest number of the training rows. Raises UserError at one that is not whole."""
  column = table.features[:, table.feature_names.index(name)]
  wrong = ~np.isnan(column) & ((column != np.rint(column)) | (np.abs(column) > MOST_WHOLE))
  for i in np.flatnonzero(wrong)[:1]:
    raise UserError(f"config.data.integer: column {name!r}, {table.row(int(i))}: got {column[i]:.10g}, allowed whole "
                    "numbers")
  own = column[train_rows][~np.isnan(column[train_rows])]
  return [float(own.min()), float(own.max())] if len(own) else [0.0, 0.0]


def without_spikes(found: dict, names: tuple[str, ...], x: np.ndarray) -> np.ndarray:
  """Rows [n, D] with NaN in the place of spikes, for the scaler: it is to scale what lies beside them."""
  if not found or not found["spikes"]:
    return x
  x = x.copy()
  for name, value in found["spikes"].items():
    column = x[:, names.index(name)]
    column[column == value] = np.nan
  return x


def transforms_of(found: dict, table: tables.Table, given: tuple[str, ...]) -> tuple[str, ...]:
  """A transform of each column: one of each by its place, or `name=transform` of some; `identity` of categories.

  Raises UserError for another one that is given for a category, and as `scaling.check_names` does.
  """
  names, categories, chosen = table.feature_names, found["categories"] if found else {}, {}
  by_name = [entry.rpartition("=") for entry in given]
  if any(mark for _, mark, _ in by_name):
    for name, mark, transform in by_name:
      if not mark or transform not in scaling.TRANSFORMS:
        raise UserError(f"config.data.transforms: got {name + mark + transform!r}, allowed NAME=TRANSFORM with one of "
                        f"{tuple(scaling.TRANSFORMS)}")
      chosen |= dict.fromkeys(tables.match(list(names), (name,), (), source_of(table), "transforms"), transform)
  else:
    chosen = dict(zip(names, scaling.check_names(given, len(names)))) if given else {}
  for name, transform in chosen.items():
    if name in categories and transform != "identity":
      raise UserError(f"config.data.transforms: got {transform!r} for the column {name!r}, allowed identity for "
                      "categories")
  return tuple("identity" if name in categories else chosen[name] if name in chosen else "standardise"
               for name in names)


def shift_codes(found: dict, scaler: dict) -> dict:
  """The scaler under which a category is its code and 1."""
  categories = found["categories"] if found else {}
  mean = [-1.0 if name in categories else own for name, own in zip(scaler["columns"], scaler["mean"])]
  return scaler | {"mean": mean}


def spike_row(meta: Mapping[str, Any]) -> np.ndarray:
  """The values of spikes in raw units [1, D], NaN where a column has none."""
  values = np.full((1, len(meta["features"])), np.nan)
  for name, value in meta["kinds"]["spikes"].items():
    values[0, list(meta["features"]).index(name)] = value
  return values


def scale_on_device(meta: Mapping[str, Any], x: jax.Array) -> jax.Array:
  """`scaling.scale_on_device`, and spikes exactly where `scaling.scale` has them."""
  z = scaling.scale_on_device(meta["scaler"], x)
  if "kinds" not in meta or not meta["kinds"]["spikes"]:
    return z
  values = spike_row(meta)
  return jnp.where(x == values.astype(np.float32), scaling.scale(meta["scaler"], values), z)


def to_raw(meta: Mapping[str, Any], z: np.ndarray) -> np.ndarray:
  """Rows of scaled units [N, D] in raw ones: `scaling.unscale`, and of a table with kinds whole numbers rounded and
  kept within the ends of the training rows, and spikes exactly at their value.
  """
  x = scaling.unscale(meta["scaler"], z)
  if "kinds" not in meta:
    return x
  names, found = list(meta["features"]), meta["kinds"]
  if found["spikes"]:
    values = spike_row(meta)
    x = np.where(np.asarray(z, np.float32) == scaling.scale(meta["scaler"], values), values, x)
  for name, (low, high) in found["integer"].items():
    x[:, names.index(name)] = np.clip(np.rint(x[:, names.index(name)]), low, high)
  return x


def typed(meta: Mapping[str, Any], x: np.ndarray) -> dict[str, np.ndarray]:
  """The columns of rows in raw units [N, D], as `to_raw` gives them, in the types of their kinds.

  Categories whose names are whole numbers or truths come as such; NaN becomes None in a column of names, and a column
  of whole numbers in which some are missing, or not whole, stays float64.
  """
  found = meta["kinds"] if "kinds" in meta else {"categories": {}, "integer": {}}
  return {name: names_of(found["categories"][name], column) if name in found["categories"] else
          column.astype(np.int64) if name in found["integer"] and (column == np.rint(column)).all() else column
          for name, column in zip(meta["features"], x.T)}


def names_of(known: list[str], codes: np.ndarray) -> np.ndarray:
  """Categories [N] of codes, None where NaN."""
  gap, names = np.isnan(codes), as_written(known)
  cells = names[np.clip(np.where(gap, 0, np.rint(codes)), 0, len(names) - 1).astype(int)]
  if gap.any():
    cells = cells.astype(object)
    cells[gap] = None
  return cells


def as_written(names: list[str]) -> np.ndarray:
  """Names of categories as an array: of whole numbers or truths where all are, else of objects."""
  if all(WHOLE.fullmatch(name) for name in names):
    return np.asarray([int(name) for name in names])
  return np.asarray([TRUTHS[name] for name in names]) if set(names) <= TRUTHS.keys() else np.asarray(names, object)
