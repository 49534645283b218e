"""Where states come from: simulated, a simulation's database, or a table of the user's own; and their parts.

Batches hold `x` [B, D], the vectors of a schema (`schema.encode`), and for a prior of the state before also what
`prior.rows_before` gives: the row before in the part's own order, which is that of the source, whatever agent it is of.
Ranges of a user's table are those of its training rows.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxtrain import spelling
from jaxtrain.config import limits
from jaxtrain.data import arrays, cells, files, labels, splits, tables
from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import (generators, prior, schema as schema_lib, simulation_db,
                                                       trajectories)
from jaxtrain.experiments.semantic_compression.columns import KINDS, NUMERIC
from jaxtrain.types import Splits

WIDE = 50.0  # times the range of the middle half of rows, from which on a range is worth a warning
GAUSSIAN_RANGE = 8.0  # deviations that the range of a gaussian column is said to have
SIMULATED = ("independent", "correlated", "trajectory", "gaussian")
DATABASE = "simulation_db"
FORM = {"separator": ",", "decimal": ".", "thousands": "", "encoding": "utf-8", "missing": ()}
# What is read for some sources alone: field -> (sources, value that stands elsewhere).
DIALS = {"num_states": (SIMULATED, 10000), "blocks": (SIMULATED[:3], ()), "step_std": (("trajectory",), 3.0),
         "num_steps": (("trajectory",), 50), "correlation": (("gaussian",), 0.9), "num_dims": (("gaussian",), 16),
         "path": ((DATABASE, *files.KINDS), ""), "simulation_id": ((DATABASE,), ""), "role": ((DATABASE,), "actions"),
         "row_limit": ((DATABASE, *files.KINDS), 0), "table": (files.KINDS, ""),
         "group": (files.KINDS, ""), "quantiles": ((DATABASE, *files.KINDS), (0.0, 1.0)),
         **{field: (files.KINDS, value) for field, value in (FORM | dict.fromkeys(KINDS, ())).items()}}
LIMITS = {
    "data.source": limits.one_of(*SIMULATED, DATABASE, *files.KINDS),
    "data.num_states": limits.whole(10, limits.MOST_ROWS),
    "data.seed": limits.whole(-1, 2**31 - 1),
    "data.blocks": limits.names(),
    "data.num_steps": limits.whole(1, trajectories.MOST_AGE),
    "data.step_std": limits.at_least(1e-3, 1e3),
    "data.role": limits.one_of(*simulation_db.RULES),
    "data.correlation": limits.between(0, 1),
    "data.num_dims": limits.whole(2, 4096),
    "data.simulation_id": limits.text(),
    "data.quantiles": limits.each(limits.at_least(0, 1), 2, 2),
    **{f"data.{kind}": limits.names() for kind in KINDS},
}


class States(NamedTuple):
  """States of a source before they are split.

  Attributes:
    record: columns by name [N].
    schema: of the states.
    group: [N], rows of a group stay together; None without groups.
    facts: JSON-able facts.
    entropies: of a simulated source; None of others.
  """
  record: dict[str, np.ndarray]
  schema: schema_lib.Schema
  group: np.ndarray | None
  facts: dict[str, Any]
  entropies: Any = None


def check_dials(data) -> None:
  """Raises UserError for a field that is set and that the source does not read."""
  for field, (named, unset) in DIALS.items():
    if data.source not in named and data[field] != unset:
      raise UserError(f"config.data.{field}: got {data[field]!r}, allowed {unset!r} with config.data.source="
                      f"{data.source}; it is for {' | '.join(named)}")


def simulate(data, seed: int) -> States:
  """States of a generator, as many as `data.num_states`."""
  if data.source == "gaussian":
    covariance = generators.autoregressive_covariance(data.num_dims, data.correlation)
    values = generators.gaussian(covariance, data.num_states, seed)
    names = tuple(f"x{d}" for d in range(data.num_dims))
    columns = tuple(schema_lib.Column(name, "continuous", -GAUSSIAN_RANGE / 2, GAUSSIAN_RANGE / 2) for name in names)
    features = tuple(schema_lib.Feature(name, "numeric", (name,), weight=1 / len(names)) for name in names)
    facts = {"source": f"simulated, gaussian of {data.num_dims} dimensions", "eigenvalues":
             np.linalg.eigvalsh(covariance).tolist()}
    return States(dict(zip(names, values.T)), schema_lib.Schema("gaussian", columns, features), None, facts)
  more = {"step_std": data.step_std, "num_steps": data.num_steps} if data.source == "trajectory" else {}
  blocks = tuple(data.blocks)
  record = generators.draw(data.source, data.num_states, seed, blocks, **more)
  known = generators.entropies(data.source, blocks, **more)
  group = record["agent_id"] if data.source == "trajectory" else None
  facts = {"source": f"simulated, {data.source}"} | ({"dynamics": more, "blocks": list(blocks)} if more else {})
  return States(record, schema_lib.with_blocks(schema_lib.AGENT15, blocks), group, facts, known)


def read_database(data) -> States:
  """States of a simulation's database."""
  found = simulation_db.read(data.path, simulation_db.Asked(data.simulation_id, limit=data.row_limit), data.role)
  gaps = {"columns": list(found.missing), "cells": list(found.missing.values())}
  facts = {"source": data.path, "sha256": tables.file_digest(data.path), "rows_dropped": sum(found.missing.values()),
           "missing": gaps}
  return States(found.record, found.schema, found.group, facts)


def read_table(data) -> States:
  """Named columns of a file. Raises UserError for a cell that is missing or does not fit its kind."""
  columns = files.read(data.source, data.path, data.table, form=cells.form_of(data))
  known, record, keep = [*columns.values, *columns.wide], {}, None
  wanted = {kind: columns.expand(tables.match(known, tuple(data[kind]), (data.group,), data.path, kind))
            for kind in KINDS}
  if not any(wanted.values()):
    raise UserError("config.data.continuous: got (), allowed the names of columns, such as "
                    f"--config.data.continuous=x,y; {data.path} has {spelling.listed(known)}")
  for kind, names in wanted.items():
    for name in names:
      record[name] = read_column(columns, name, kind)
  keep = ~np.any([np.zeros(columns.num_rows, bool)] + [is_missing(part) for part in record.values()], axis=0)
  if not keep.any():
    raise UserError(f"{data.path}: no row has all of the named columns")
  group = tables.encode_groups(columns, data.group, keep) if data.group else None
  record = {name: part[keep] for name, part in record.items()}
  for name in wanted["categorical"]:
    record[name] = np.asarray([str(cell) for cell in record[name]])
  if data.row_limit:
    record = {name: part[:data.row_limit] for name, part in record.items()}
    group = None if group is None else group[:data.row_limit]
  schema = schema_lib.of_table(record, **wanted)
  facts = {"source": data.path, "sha256": tables.file_digest(data.path), "rows_dropped": int((~keep).sum()),
           "warnings": class_warnings(schema, record)}
  return States(record, schema, group, facts)


def class_warnings(schema: schema_lib.Schema, record: schema_lib.Record) -> list[str]:
  """What may be wrong with the classes of columns, a sentence for each kind."""
  found = []
  for column in schema.columns:
    if column.kind == "categorical":
      counts = [int((record[column.name] == name).sum()) for name in column.classes]
      said = labels.warn(column.name, column.classes, counts)
      found += [words.replace("label column", "column", 1) for words in said]
  return found


def range_warnings(schema: schema_lib.Schema, record: schema_lib.Record) -> list[str]:
  """Columns whose range a few rows have made wide, and rows that lie far outside of the training rows' range."""
  found = []
  for column in schema.columns:
    if column.kind not in NUMERIC:
      continue
    values, width = np.asarray(record[column.name], np.float64), column.high - column.low
    usual = float(np.ptp(np.quantile(values, (0.25, 0.75))))
    far = int(((values < column.low - width) | (values > column.high + width)).sum())
    if width > WIDE * usual > 0:
      found.append(f"column {column.name!r}: its range, {column.low:g} to {column.high:g}, is {width / usual:,.0f} "
                   "times that of the middle half of its rows, and errors are shares of it; "
                   "data.quantiles=0.001,0.999 leaves a few rows out of the range")
    if far:
      found.append(f"column {column.name!r}: {far:,} row{'s' * (far > 1)} more than a range outside of "
                   f"{column.low:g} to {column.high:g}, which the means of errors are of")
  return found


def is_missing(column: np.ndarray) -> np.ndarray:
  """[N] bool: which entries of a column that was read are missing."""
  return np.isnan(column) if column.dtype.kind == "f" else np.asarray([cell is None for cell in column])


def read_column(columns: files.Columns, name: str, kind: str) -> np.ndarray:
  """A column [N]: float64 with NaN, or of classes objects with None, where a cell is missing. Raises UserError."""
  if kind == "categorical":
    missing = cells.missing_test(columns.form)
    return np.asarray([None if missing(cell) else str(cell).strip() for cell in columns.scalars(name).tolist()], object)
  values = columns.numbers(name)
  fits = {"continuous": ~np.isinf(values), "integer": values == np.rint(values), "binary": np.isin(values, (0, 1))}
  allowed = {"continuous": "finite numbers", "integer": "whole numbers", "binary": "0 or 1"}
  for i in np.flatnonzero(~(fits[kind] | np.isnan(values)))[:1]:
    raise columns.fail(name, int(i), f"got {values[i]:g}, allowed {allowed[kind]}")
  return values


def load(config) -> Splits:
  """Sources of each part; `meta` has the schema, facts, and what is known of the entropies. Raises UserError."""
  data = config.data
  check_dials(data)
  seed = data.seed if data.seed >= 0 else config.seed
  found = simulate(data, seed) if data.source in SIMULATED else (
      read_database(data) if data.source == DATABASE else read_table(data))
  num_rows = len(next(iter(found.record.values())))
  rows = splits.split_rows(data.split, num_rows, found.group)
  schema = found.schema
  if data.source not in SIMULATED:
    schema = schema_lib.with_ranges(schema, {name: part[rows["train"]] for name, part in found.record.items()},
                                    tuple(data.quantiles))
  x = schema_lib.encode(schema, found.record)
  warned = [] if data.source in SIMULATED else range_warnings(schema, found.record)
  facts = found.facts | {"rows": num_rows}
  facts |= {"warnings": [*(facts["warnings"] if "warnings" in facts else ()), *warned]} if warned else {}

  def source(part, batch_size, shuffled):
    if not len(rows[part]):
      return None
    own = x[rows[part]]
    before = prior.rows_before(own) if config.model.compressor.kind == "previous" else {}
    return arrays.table_source({"x": own} | before, batch_size, shuffled)
  eval_size = config.eval.batch_size or config.train.batch_size
  train = source("train", config.train.batch_size, data.shuffle)
  meta = {"schema": schema_lib.to_json(schema), "features": [column.name for column in schema.columns],
          "num_features": schema.width, "table": facts,
          "rows": {part: len(at) for part, at in rows.items()}, "steps_per_epoch": train.num_batches,
          "entropies": None if found.entropies is None else found.entropies._asdict()}
  if found.group is not None:
    meta["groups"] = {part: len(np.unique(found.group[at])) for part, at in rows.items()}
  return Splits(train, source("val", eval_size, False), source("test", eval_size, False), meta)
