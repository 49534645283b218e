"""What a person wants to know of data before training: rows, parts, classes, and columns that deserve a look.

It is told from what every table's sources and `meta` hold (`tabular.load`), so it serves each family that reads tables;
of a stream it says what the stream is.
"""

import collections
import hashlib
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtrain.data import scaling
from jaxtrain.types import Source, Splits
from jaxtrain.workdir import quality

SKEW_ROWS = 1 << 16  # training rows by which a column's skewness is judged
# What facts of a table may count.
COUNTS = ("rows_dropped", "rows_beyond_limit", "rows_incomplete", "rows_unlabelled", "labels_hidden")


class Seen(NamedTuple):
  """What one pass over the rows of all parts found.

  Attributes:
    label_rows: part -> rows of each class; {} without classes.
    varies: whether each column varies in the training rows.
    digests: of each column's scaled numbers in all rows.
  """
  label_rows: dict[str, list[int]]
  varies: list[bool]
  digests: list[bytes]


def describe(splits: Splits) -> dict[str, Any]:
  """JSON-able facts of the data; every key is there, with None or [] where something does not apply.

  Returns:
    `source`, `stream` (whether training rows are made as they are needed); `rows_read`, `rows_kept` and the names of
    `COUNTS`; `missing` (column, cells), most first; `parts` (part, rows, groups); `classes` (name, rows, and those of
    each part); `warnings`; `constant_columns`; `duplicate_columns` (lists of names whose numbers are equal once they
    are scaled: the same but for their units); `skewed_columns` (column, transform) and `suggested_flag`, which sets
    their transforms; `data_bytes` in memory.
  """
  meta = splits.meta
  table, parts = meta["table"] if "table" in meta else {}, parts_of(splits)
  found = {"source": str(table["source"]) if "source" in table else None, "stream": splits.train.num_rows is None}
  found |= count_rows(table, parts) | {"missing": missing_cells(table),
                                       "parts": [part_facts(name, part, meta) for name, part in parts.items()]}
  names = meta["features"] if "features" in meta and "scaler" in meta else []
  seen = look(parts, len(names), len(meta["class_names"]) if "class_names" in meta else 0)
  found["classes"] = [{"name": meta["class_names"][k], "rows": sum(rows)} | dict(zip(seen.label_rows, rows))
                      for k, rows in enumerate(zip(*seen.label_rows.values()))]
  found["warnings"] = quality.data_warnings(meta)
  found["constant_columns"] = [name for name, varies in zip(names, seen.varies) if not varies]
  alike = collections.defaultdict(list)
  for name, varies, digest in zip(names, seen.varies, seen.digests):
    if varies:
      alike[digest].append(name)
  found["duplicate_columns"] = [same for same in alike.values() if len(same) > 1]
  found |= suggest(parts["train"], meta["scaler"] if seen.digests else {"columns": [], "transforms": []})
  return found | {"data_bytes": sum(map(size_of, parts.values()))}


def parts_of(splits: Splits) -> dict[str, Source]:
  """The sources that there are, by part."""
  return {name: part for name, part in zip(("train", "val", "test"), splits[:3]) if part is not None}


def size_of(source: Source) -> int:
  """Bytes that a source has in memory: of one in a file, the window at hand and the next."""
  size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(source.data))
  return size * (2 if source.window_steps else 1)


def count_rows(table: dict, parts: dict[str, Source]) -> dict[str, int | None]:
  """Rows that were read and kept, and what became of the others; None for a stream, and where nobody counted."""
  counts = {name: table[name] if name in table else None for name in COUNTS}
  if parts["train"].num_rows is None:
    return {"rows_read": None, "rows_kept": None} | counts
  kept = table["rows"] if "rows" in table else sum(part.num_rows for part in parts.values())
  return {"rows_read": kept + (counts["rows_dropped"] or 0) + (counts["rows_beyond_limit"] or 0), "rows_kept": kept,
          **counts}


def missing_cells(table: dict) -> list[dict[str, Any]]:
  """Columns with missing cells and how many, most first."""
  if "missing" not in table:
    return []
  pairs = zip(table["missing"]["columns"], table["missing"]["cells"])
  return [{"column": name, "cells": cells} for name, cells in sorted(pairs, key=lambda pair: -pair[1])]


def part_facts(name: str, part: Source, meta: dict) -> dict[str, Any]:
  """Rows and groups of a part; None where it has no end, or no groups."""
  groups = meta["groups"] if "groups" in meta else {}
  return {"part": name, "rows": part.num_rows, "groups": groups[name] if name in groups else None}


def look(parts: dict[str, Source], width: int, num_classes: int) -> Seen:
  """One pass over the rows of all parts, where they can be had: `width` features `x` and the labels, if they hold them.
  """
  if any(part.rows is None for part in parts.values()):
    return Seen({}, [], [])
  row = parts["train"].rows(np.arange(1))
  width, num_classes = width if "x" in row else 0, num_classes if "label" in row else 0
  if not (width or num_classes):
    return Seen({}, [], [])
  low, high, hashes = np.full(width, np.inf), np.full(width, -np.inf), [hashlib.sha256() for _ in range(width)]
  label_rows = {part: np.zeros(num_classes, int) for part in parts if num_classes}
  size = scaling.block_rows(max(width, 1))
  for part, source in parts.items():
    for start in range(0, source.num_rows, size):
      block = source.rows(np.arange(start, min(start + size, source.num_rows)))
      if num_classes:
        label_rows[part] += np.bincount(block["label"][block["label"] >= 0], minlength=num_classes)
      if not width:
        continue
      x, there = block["x"], seen_cells(block)
      if part == "train":
        low = np.minimum(low, x.min(axis=0, where=there, initial=np.inf))
        high = np.maximum(high, x.max(axis=0, where=there, initial=-np.inf))
      columns, gaps = np.ascontiguousarray(x.T), np.ascontiguousarray(there.T)
      for one, column, cells in zip(hashes, columns, gaps):
        one.update(column)
        one.update(cells)
  return Seen({part: rows.tolist() for part, rows in label_rows.items()}, (high > low).tolist(),
              [one.digest() for one in hashes])


def seen_cells(block: dict[str, np.ndarray]) -> np.ndarray:
  """Which features [n, D] of some rows are not missing."""
  return block["observed"] > 0 if "observed" in block else np.ones(block["x"].shape, bool)


def suggest(train: Source, scaler: dict) -> dict[str, Any]:
  """Skewed columns with the transform that suits them, and the flag that sets these; a chosen transform stays."""
  skewed, names = [], scaler["transforms"]
  if names:
    some = np.unique(np.linspace(0, train.num_rows - 1, min(train.num_rows, SKEW_ROWS)).astype(int))
    better = scaling.suggest(raw_numbers(scaler, train.rows(some)))
    names = [new if now == "standardise" else now for now, new in zip(names, better)]
    skewed = [{"column": column, "transform": new}
              for column, now, new in zip(scaler["columns"], scaler["transforms"], names) if new != now]
  return {"skewed_columns": skewed,
          "suggested_flag": f"--config.data.transforms={','.join(names)}" if skewed else None}


def raw_numbers(scaler: dict, block: dict[str, np.ndarray]) -> np.ndarray:
  """Features [n, D] in raw units, NaN where missing; rounding makes no number negative that was not."""
  z = block["x"]
  with np.errstate(over="ignore", invalid="ignore"):
    x = scaling.unscale(scaler, z)
    zero = scaling.apply_transforms(np.zeros((1, z.shape[1])), tuple(scaler["transforms"]), tuple(scaler["columns"]))
    x = np.where(z >= scaling.standardised(scaler, zero), np.maximum(x, 0.0), x)
  return np.where(np.isfinite(x) & seen_cells(block), x, np.nan)
