"""From `config.data` to sources: the table, its split, transforms fitted on the training rows, a source of each part.

Every family that learns from a table begins here; what it adds is a dict of its own generators.
"""

from typing import Callable, Iterable

import numpy as np

from jaxtrain import config as config_lib, spelling
from jaxtrain.config import limits
from jaxtrain.config.defaults import TABLES
from jaxtrain.config.limits import Limit
from jaxtrain.data import arrays, cells, files, host, kinds, scaling, splits, tables, tfds
from jaxtrain.errors import UserError
from jaxtrain.types import Splits

SOURCES = (*files.KINDS, "tfds", "sklearn")
WRITTEN = ("separator", "encoding")  # of CSV files alone
CELLS = ("missing", "incomplete", "decimal", "thousands", *WRITTEN)  # of what may be missing or text
UNUSED = {"sklearn": ("label", "group", "table", *CELLS), "tfds": ("decimal", "thousands", *WRITTEN), "sqlite": WRITTEN,
          "csv": ("table",), "parquet": ("table", *WRITTEN), "npz": ("table", *WRITTEN), "hdf5": ("table", *WRITTEN)}
OUT_OF_CORE = ("hdf5", "tfds")


def source_limit(generators: Iterable[str]) -> Limit:
  """Which values of `config.data.source` are allowed, for an experiment's LIMITS."""
  names = (*generators, *SOURCES)
  return Limit(lambda v: v in names or "." in v and limits.is_dotted(v),
               " | ".join(names) + " | MODULE.FUNCTION(config) -> Table", str)


def read_table(config, generators: dict[str, Callable], categorical: tuple[str, ...] = (),
               beside: tuple[str, ...] = ()) -> tables.Table:
  """The table named by `config.data`.

  Args:
    generators: source name -> `(config) -> Table`, the family's own.
    categorical: names or patterns of the features that are categories.
    beside: names of numeric columns that are no features; the table's `truth` holds them.

  Raises:
    UserError: the table cannot be read, or a field is set that its source does not use.
  """
  data = config.data
  source, features, leave_out = data.source, tuple(data.features), tuple(data.leave_out)
  if "." in source:
    return check_made(source, config_lib.load_function("data.source", source)(config))
  for field in ("path", "label", "group", "table", *CELLS) if source in generators else UNUSED[source]:
    if data[field] != TABLES[field]:
      raise UserError(f"config.data.{field}: got {data[field]!r}, allowed {TABLES[field]!r} with "
                      f"config.data.source={source}")
  if data.out_of_core and source not in OUT_OF_CORE:
    raise UserError(f"config.data.out_of_core: got True, allowed with config.data.source={' | '.join(OUT_OF_CORE)}; "
                    f"got {source!r}")
  for field in ("row_limit", "resample"):
    if data.out_of_core and data[field]:
      raise UserError(f"config.data.{field}: got {data[field]}, allowed 0 with config.data.out_of_core")
  if categorical and source == "tfds":
    raise UserError(f"config.data.categorical: got {categorical}, allowed () with config.data.source=tfds")
  if source in generators:
    table = generators[source](config)
    return tables.select_features(table, features, leave_out) if features or leave_out else table
  categorical = categorical if "categorical" in data else None
  more = {"form": cells.form_of(data), "leave_out": leave_out, "masked": data.incomplete == "mask"}
  if source == "sklearn":
    table = tables.read_sklearn(data.path)
    table = tables.select_features(table, features, leave_out) if features or leave_out else table
  elif source == "tfds":
    read = tfds.open_table if data.out_of_core else tfds.read_table
    table = read(data.path, data.table, features, data.label, data.group, **more)
  elif data.out_of_core:
    table = host.open_hdf5(data.path, features, data.label, data.group, **more)
  else:
    table = tables.read_file(source, data.path, data.table, features, data.label, data.group, categorical=categorical,
                             beside=beside, **more)
  return tables.first_rows(table, data.row_limit) if data.row_limit else table


def check_beside(table: tables.Table, beside: tuple[str, ...]) -> None:
  """Raises UserError for a column beside the features that the table does not hold, or that is one of them."""
  for name in beside:
    if name in table.feature_names:
      raise UserError(f"config.eval.transfer: {name!r} is a feature, allowed numeric columns that are none")
    if name not in table.truth:
      has = spelling.listed(list(table.truth)) or "none: files of columns that are read into memory have them"
      raise UserError(f"config.eval.transfer: the source has no column {name!r} beside the features; it has {has}"
                      f"{spelling.meant(name, table.truth)}")


def check_made(source: str, table) -> tables.Table:
  """Returns the table that a loader of the user's own gave. Raises UserError where it is none, or its parts disagree.
  """
  words = f"config.data.source: {source}(config) returned"
  if not isinstance(table, tables.Table):
    raise UserError(f"{words} {type(table).__name__}, allowed jaxtrain.data.tables.Table")
  if len(getattr(table.features, "shape", ())) != 2:
    raise UserError(f"{words} a table whose features are no array [rows, columns]")
  rows, columns = table.features.shape
  if len(table.feature_names) != columns:
    raise UserError(f"{words} a table of {columns} columns with {len(table.feature_names)} names")
  for name, part in (("labels", table.label), ("groups", table.group)):
    if part is not None and len(part) != rows:
      raise UserError(f"{words} a table of {rows} rows with {len(part)} {name}")
  if not isinstance(table.facts, dict):
    raise UserError(f"{words} a table whose facts are {type(table.facts).__name__}, allowed dict")
  return table


def load(config, generators: dict[str, Callable], said: kinds.Asked = kinds.NOTHING,
         beside: tuple[str, ...] = ()) -> tuple[Splits, tables.Table]:
  """Sources of each part, and the table they come from; arguments and errors as of `read_table`.

  Batches hold `x` [B, D] float32 in scaled units, `label` [B] int32 (-1 = unlabelled) and `weight` [B]; with
  `config.data.incomplete=mask`, and of tables with categories, also `observed` [B, D] float32: 1, or 0 where a cell is
  missing, and `x` is 0 there. `said`: kinds of the columns; `meta` then has `kinds`, see `kinds.settle`.
  """
  for field, patterns in said._asdict().items() if config.data.out_of_core else ():
    if patterns:
      raise UserError(f"config.data.{field}: got {patterns}, allowed () with config.data.out_of_core")
  table = read_table(config, generators, said.categorical, beside)
  check_beside(table, beside)
  num_rows = len(table.features)
  rows = splits.split_rows(config.data.split, num_rows, table.group, table.label)
  table = hide_labels(config, table, rows["train"])
  rows["train"] = splits.resample(rows["train"], config.data.resample)
  train_rows, names = rows["train"], table.feature_names
  table, found = kinds.settle(table, said, train_rows) if any(said) or table.categories else (table, {})
  transforms = kinds.transforms_of(found, table, tuple(config.data.transforms))
  read = lambda start, stop: kinds.without_spikes(found, names, table.features[train_rows[start:stop]])
  scaler = kinds.shift_codes(found, scaling.fit_blocks(read, len(train_rows), transforms, names))
  label = table.label if table.label is not None else np.full(num_rows, -1, np.int32)
  in_memory = isinstance(table.features, np.ndarray)
  masked = config.data.incomplete == "mask" or bool(table.categories)
  if in_memory and not masked and np.isnan(table.features).any():  # of a function of the user's
    raise UserError("config.data.incomplete: got 'drop', allowed mask with a table that has missing cells of its own")
  if table.bounds is not None:
    check_bounds(scaler, table)
  if in_memory:
    columns = host.scaled_rows(scaler, table.features, label, masked, lambda i, d: table.row(i))

  def source(part, batch_size, shuffled):
    part_rows = rows[part]
    if len(part_rows) == 0:
      return None
    if in_memory:
      of_part = lambda named: {name: column[part_rows] for name, column in named.items()}
      beside = table.truth if table.group is None else table.truth | {"group": table.group}
      return arrays.table_source(of_part(columns), batch_size, shuffled, of_part(beside))
    return host.host_source(table, part_rows, label, scaler, batch_size, shuffled=shuffled, masked=masked,
                            num_epochs=count_epochs(config, len(part_rows)) if part == "train" else 1,
                            num_workers=config.data.num_workers if part == "train" else 0)

  eval_size = config.eval.batch_size or config.train.batch_size
  train = source("train", config.train.batch_size, config.data.shuffle)
  meta = {"features": list(table.feature_names), "num_features": len(table.feature_names),
          "class_names": list(table.class_names), "scaler": scaler, "table": table.facts,
          "rows": {part: len(r) for part, r in rows.items()}, "steps_per_epoch": train.num_batches}
  meta |= {"kinds": found} if found else {}
  if table.group is not None:
    meta["groups"] = {part: len(np.unique(table.group[r])) for part, r in rows.items()}
  return Splits(train, source("val", eval_size, False), source("test", eval_size, False), meta), table


def hide_labels(config, table: tables.Table, train_rows: np.ndarray) -> tables.Table:
  """The table with a share of the labels of training rows, as `config.data.label_share` says, and how many were hidden
  among its facts. Raises UserError where no training row has one.
  """
  share = config.data.label_share
  if share == 1:
    return table
  if table.label is None or not (table.label[train_rows] >= 0).any():
    raise UserError(f"config.data.label_share: got {share:g}, allowed 1 where no training row has a label")
  label = splits.hide_labels(table.label, train_rows, share, splits.label_random(config.seed))
  return table._replace(label=label, facts=table.facts | {"labels_hidden": int((label != table.label).sum())})


def check_bounds(scaler: dict, table: tables.Table) -> None:
  """Raises UserError, before any training, for a number that cannot be scaled, or that lets the others become one."""
  def row(end: int, d: int) -> str:
    step = scaling.block_rows(len(table.feature_names))
    starts = range(0, len(table.features), step)
    found = (start + int(i) for start in starts
             for i in np.flatnonzero(table.features[start:start + step][:, d] == table.bounds[end, d]))
    return table.row(next(found))

  scaling.scale(scaler, table.bounds[[0, 3]], lambda i, d: row(3 * i, d))
  scaling.check_spread(scaler, table.bounds, row)


def count_epochs(config, num_rows: int) -> int:
  """Passes over a part of so many rows that a run may ask for."""
  steps_per_epoch = -(-num_rows // config.train.batch_size)
  return config.train.num_epochs or -(-config.train.num_steps // steps_per_epoch)
