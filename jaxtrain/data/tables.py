"""Tables: numeric features, labels and groups chosen by name from the columns of a file or of a known data set.

Every complaint is one line that names the file, the column and the row.
"""

import contextlib
import fnmatch
import hashlib
import shlex
from typing import NamedTuple

import numpy as np

from jaxtrain import spelling
from jaxtrain.data import cells, files, labels, surveys
from jaxtrain.errors import UserError

SKLEARN_TABLES = ("digits", "breast_cancer", "iris", "wine")


class Table(NamedTuple):
  """Numeric features and what belongs to each row.

  Attributes:
    features: [N, D] float64, raw units; NaN where a cell is missing, with `config.data.incomplete=mask` alone.
    feature_names: D names.
    label: [N] int32, -1 = unlabelled; None without labels.
    class_names: names of the labels, in order.
    group: [N] group of each row; None without groups.
    facts: JSON-able facts about the table: source, rows read and dropped, SHA-256 of a file, warnings.
    lines: [N] where each row stands in its file, as messages count; None where they are counted from 1.
    bounds: [4, D] as of `surveys.bounds_of`; None where nobody looked.
    truth: name -> [N, ...], what is known of each row and no batch holds, as the truth of a simulated table or numeric
      columns that are no features (NaN where a cell is missing); `Source.rows` gives it.
    categories: feature -> names of its categories, in the order of their codes, which the column holds.
  """
  features: np.ndarray
  feature_names: tuple[str, ...]
  label: np.ndarray | None
  class_names: tuple[str, ...]
  group: np.ndarray | None
  facts: dict
  lines: np.ndarray | None = None
  bounds: np.ndarray | None = None
  truth: dict[str, np.ndarray] = {}
  categories: dict[str, tuple[str, ...]] = {}

  def row(self, i: int) -> str:
    """How a message names row i, 0-based."""
    return f"row {i + 1 if self.lines is None else self.lines[i]}"


def read_sklearn(name: str) -> Table:
  """A real table that scikit-learn ships. Raises UserError for a name not in `SKLEARN_TABLES`."""
  if name not in SKLEARN_TABLES:
    raise UserError(f"config.data.path: got {name!r}, allowed with source=sklearn {SKLEARN_TABLES}")
  from sklearn import datasets  # slow to import, used here only
  bunch = getattr(datasets, f"load_{name}")()
  names = tuple(str(n) for n in bunch.feature_names)
  return Table(np.asarray(bunch.data, np.float64), names, np.asarray(bunch.target, np.int32),
               tuple(str(n) for n in bunch.target_names), None, {"source": f"sklearn {name}", "rows": len(bunch.data)})


def read_file(kind: str, path: str, table: str, features: tuple[str, ...], label: str, group: str, *,
              form: cells.Form = cells.PLAIN, leave_out: tuple[str, ...] = (), masked: bool = False,
              categorical: tuple[str, ...] | None = None, beside: tuple[str, ...] = ()) -> Table:
  """A table from a file of columns.

  Args:
    kind, path, table, form: as of `files.read`.
    features: names or patterns of the numeric columns, in the order the model sees them; a wide column stands for its
      parts.
    label: name of the label column, "" for none; its values are names; a missing cell is an unlabelled row.
    group: name of the group column, "" for none.
    leave_out: names or patterns of columns that are no features.
    masked: keep rows with missing features, which are NaN then; else they are dropped and counted.
    categorical: names or patterns of the features whose cells are names: codes then, see `Table.categories`; None where
      there may be none.
    beside: names of numeric columns that are no features, for `Table.truth`.

  Raises:
    UserError: the file or a column is missing, a cell is no number, a column is constant or all missing, a row has no
      group, there is one class only, or no row is left.
  """
  columns = files.read(kind, path, table, form=form)
  return from_columns(columns, features, label, group, {"source": path, "sha256": file_digest(path)},
                      leave_out=(*leave_out, *beside) if any(map(is_pattern, features)) else leave_out, masked=masked,
                      categorical=categorical, beside=beside)


def from_columns(columns: files.Columns, features: tuple[str, ...], label: str, group: str, facts: dict, *,
                 leave_out: tuple[str, ...] = (), masked: bool = False,
                 categorical: tuple[str, ...] | None = None, beside: tuple[str, ...] = ()) -> Table:
  """The table of named columns; arguments and errors as of `read_file`."""
  named, features = features, pick_features(columns, features, label, group, leave_out)
  names = match(list(features), categorical or (), (), columns.path, "categorical")
  coded = {name: labels.encode_feature(columns, name) for name in names}
  x = feature_numbers(columns, features, {name: codes for name, (codes, _) in coded.items()}, named,
                      categorical is not None)
  found = surveys.look(columns, features, [x], masked)
  said = [words.replace("label column", "column", 1) for name, (codes, known) in coded.items()
          for words in labels.warn(name, known, labels.count(codes[~np.isnan(codes)].astype(int), len(known)))]
  found = found._replace(warnings=[*found.warnings, *said])
  table = choose_rows(columns, x[found.keep], features, found, label, group, facts, masked)
  return table._replace(categories={name: known for name, (_, known) in coded.items()},
                        truth={name: other_numbers(columns, name)[found.keep] for name in beside})


def other_numbers(columns: files.Columns, name: str) -> np.ndarray:
  """A numeric column [N] that is no feature. Raises UserError where it is not there, or a cell is no number."""
  columns.check(name)
  if name not in columns.values:
    known = [*columns.values, *columns.wide]
    raise UserError(spelling.no_column(f"config.eval.transfer: {columns.path}", name, known, spelling.IN_TUPLE))
  return columns.numbers(name)


def feature_numbers(columns: files.Columns, features: tuple[str, ...], coded: dict[str, np.ndarray],
                    named: tuple[str, ...], categories: bool) -> np.ndarray:
  """The features [N, D], of which `coded` has those whose cells are names.

  Raises UserError where cells are no numbers: the first such cell, the other columns that have such cells, how a column
  is left out that a pattern of `named` has brought, and where there may be `categories` how it is made one.
  """
  found, failed = [], {}
  for name in features:
    try:
      found.append(coded[name] if name in coded else columns.numbers(name))
    except UserError as error:
      failed[name] = error
  if not failed:
    return np.stack(found, axis=1)
  first, message = next((name, error.message) for name, error in failed.items())
  hints = [f"columns {spelling.listed(list(failed)[1:])} hold such cells too"] * (len(failed) > 1)
  if categories and not any(word in message for word in ("decimals", "thousands")):
    hints.append("a column of names in config.data.categorical")
  if first not in named and any(map(is_pattern, named)):
    hints.append("a column that is no feature is named in config.data.leave_out")
  raise UserError("; ".join([message, *hints])) from None


def choose_rows(columns: files.Columns, x, features: tuple[str, ...], found: surveys.Survey, label: str, group: str,
                facts: dict, masked: bool) -> Table:
  """The table of the kept rows: `x`, their features, and the label and group that `columns` has for all rows [N]."""
  keep, code, class_names = found.keep, None, ()
  rows = {"rows": int(keep.sum()), "rows_dropped": int((~keep).sum()), "rows_unlabelled": 0}
  if label:
    code, class_names = labels.encode(columns.scalars(label)[keep], cells.missing_test(columns.form))
    if len(class_names) < 2:
      raise UserError(f"{columns.path}: label column {label!r} has {len(class_names)} classes in the "
                      f"{'used' if masked else 'complete'} rows, allowed 2 or more")
    rows["rows_unlabelled"] = int((code == -1).sum())
    rows["class_rows"] = labels.count(code, len(class_names))
    rows["label_warnings"] = labels.warn(label, class_names, rows["class_rows"])
  if masked:
    rows["rows_incomplete"] = found.incomplete
  gaps = np.flatnonzero(found.missing)
  rows["missing"] = {"columns": [features[d] for d in gaps], "cells": found.missing[gaps].tolist()}
  rows["warnings"] = found.warnings
  lines = columns.lines[keep] if columns.lines is not None else None if keep.all() else np.flatnonzero(keep) + 1
  return Table(x, features, code, class_names, encode_groups(columns, group, keep) if group else None, facts | rows,
               lines, found.bounds)


def pick_features(columns: files.Columns, features: tuple[str, ...], label: str, group: str,
                  leave_out: tuple[str, ...] = ()) -> tuple[str, ...]:
  """Names of the feature columns. Raises UserError where a column is not there, named twice, or none is named."""
  known = [*columns.values, *columns.wide]
  if not features:
    raise UserError("config.data.features: got (), allowed the names of the numeric columns; "
                    f"{numeric_words(columns, (label, group))}")
  for field, names in (("features", features), ("label", (label,) if label else ()),
                       ("group", (group,) if group else ())):
    for name in names:
      columns.check(name)
      if name not in columns.values and (field != "features" or name not in columns.wide and not is_pattern(name)):
        form = spelling.IN_TUPLE if field == "features" else ""
        raise UserError(spelling.no_column(f"config.data.{field}: {columns.path}", name, known, form))
  features = columns.expand(match(known, features, (label, group), columns.path, "features"))
  if leave_out:
    dropped = columns.expand(match(known, leave_out, (), columns.path, "leave_out"))
    features = tuple(name for name in features if name not in dropped)
    if not features:
      raise UserError(f"config.data.leave_out: got {leave_out}, which leaves no features of {columns.path}")
  for name in features:
    columns.check(name)
  twice = [name for i, name in enumerate(features) if name in features[:i]]
  if twice or label in features:
    raise UserError(f"config.data.features: {twice[0] if twice else label!r} is named "
                    f"{'twice' if twice else 'as a feature and as the label'}")
  return features


def numeric_words(columns: files.Columns, but: tuple[str, ...]) -> str:
  """Which columns hold numbers alone, and the flag that names them; `but` are no features."""
  known, numeric = [*columns.values, *columns.wide], []
  for name in (name for name in columns.values if name not in but):
    with contextlib.suppress(UserError):
      # of a table that stays in its file the kind alone is known
      if len(columns.numbers(name)) or columns.values[name].dtype != object:
        numeric.append(name)
  if not numeric:
    return f"{columns.path} has {spelling.listed(known)}, of which none holds numbers alone"
  flag = shlex.quote(",".join(numeric[:spelling.MOST])) + ",..." * (len(numeric) > spelling.MOST)
  return f"{columns.path} has {spelling.listed(known)}; numbers alone are in --config.data.features={flag}"


def is_pattern(name: str) -> bool:
  """Whether a name that no column has may stand for several."""
  return any(letter in name for letter in "*?[")


def match(known: list[str], names: tuple[str, ...], but: tuple[str, ...], source: str, field: str) -> tuple[str, ...]:
  """Names with each pattern, such as pixel_*, replaced by the names that fit it, but for those of `but`.

  A name that is there stands for itself, whatever its letters. Raises UserError where nothing fits.
  """
  found = []
  for name in names:
    if name in known:
      found.append(name)
      continue
    fitting = [other for other in known if fnmatch.fnmatchcase(other, name) and other not in (*but, *found)]
    if not any(fnmatch.fnmatchcase(other, name) for other in known):
      raise UserError(spelling.no_column(f"config.data.{field}: {source}", name, known, spelling.IN_TUPLE))
    found += fitting
  return tuple(found)


def encode_groups(columns: files.Columns, name: str, keep: np.ndarray) -> np.ndarray:
  """Groups of the kept rows by their text, so that they sort alike from all files. Raises UserError at a missing one.
  """
  column, is_missing = columns.scalars(name), cells.missing_test(columns.form)
  for i in np.flatnonzero(keep):
    if is_missing(column[i]):
      raise UserError(f"{columns.path}: group column {name!r}, {columns.row(i)}: no group")
  return np.asarray([str(cell).strip() for cell in column[keep].tolist()])


def file_digest(path: str) -> str:
  """SHA-256 of a file's bytes, hexadecimal."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def select_features(table: Table, names: tuple[str, ...], leave_out: tuple[str, ...]) -> Table:
  """The named feature columns, in that order, but for those left out. Raises UserError for a name that is not there."""
  known, source = list(table.feature_names), table.facts["source"]
  names = match(known, names, (), source, "features") if names else table.feature_names
  dropped = match(known, leave_out, (), source, "leave_out")
  names = tuple(name for name in names if name not in dropped)
  if not names:
    raise UserError(f"config.data.leave_out: got {leave_out}, which leaves no features of {source}")
  columns = [table.feature_names.index(name) for name in names]
  return table._replace(features=table.features[:, columns], feature_names=names,
                        categories={name: known for name, known in table.categories.items() if name in names},
                        bounds=None if table.bounds is None else table.bounds[:, columns])


def first_rows(table: Table, num_rows: int) -> Table:
  """The first rows of a table."""
  cut = lambda column: None if column is None else column[:num_rows]
  features, label = table.features[:num_rows], cut(table.label)
  facts = table.facts | {"rows": len(features), "rows_beyond_limit": len(table.features) - len(features)}
  if "rows_incomplete" in facts:
    facts["rows_incomplete"] = int(np.isnan(features).any(axis=1).sum())
  if "rows_unlabelled" in facts and label is not None:
    facts["rows_unlabelled"] = int((label == -1).sum())
    if "class_rows" in facts:
      facts["class_rows"] = labels.count(label, len(table.class_names))
  there = ~np.isnan(features)
  bounds = surveys.bounds_of(surveys.end_of(features, there), surveys.end_of(-features, there))
  return table._replace(features=features, label=label, group=cut(table.group), facts=facts, lines=cut(table.lines),
                        bounds=bounds, truth={name: column[:num_rows] for name, column in table.truth.items()})
