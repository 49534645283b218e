"""Where events and images come from: simulated, a file, or a loader of the user's own; and their parts.

Batches of events hold `cont` [B, T, C] (normalised features), `ids` [B, T], `globals` [B, G] (normalised) and
`event_weight` [B], of mean 1 over the training part; `Source.rows` has `momenta` [N, T, 4], `met` [N, 2] and `label`
[N] besides, in GeV and radians. Batches of images hold `image` [B, 28, 28, 1] and `event_weight`; `Source.rows` has
`label`.
"""

import os
from typing import Any, Callable, NamedTuple

import numpy as np

from jaxtrain import config as config_lib
from jaxtrain.config import limits
from jaxtrain.data import arrays, splits, tables
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import event_files, generator, idx_files, scaling
from jaxtrain.experiments.autoencoder import events as events_lib
from jaxtrain.experiments.autoencoder.events import Events
from jaxtrain.types import Source, Splits

PARTS = event_files.PARTS
SOURCES = ("toy", "hdf5", "csv", "images")
OF_EVENTS = SOURCES[:3]
# What is read for some sources alone: field -> (sources, value that stands elsewhere).
DIALS = {"path": (SOURCES[1:], ""), "seed": (("toy",), 0), "num_slots": (OF_EVENTS, 18), "norm": (OF_EVENTS, "physics"),
         "columns": (OF_EVENTS, events_lib.FEATURES), "energy_unit": (("csv", "hdf5"), "GeV"),
         **{f"datasets.{name}": (("hdf5",), value) for name, value in event_files.DATASETS.items()}}
SPLITS = ("none", "random", "file")
LIMITS = {
    "data.source": limits.one_of(*SOURCES),
    "data.seed": limits.whole(-1, 2**31 - 1),
    "data.num_slots": limits.whole(1, 4096),
    "data.columns": limits.Limit(lambda v: all(limits.has_kind(entry, str) or limits.has_kind(entry, int)
                                               for entry in v), "names or numbers of columns: e,pt,eta,phi", tuple),
    "data.norm": limits.one_of(*scaling.NORMS),
    "data.energy_unit": limits.one_of(*event_files.UNITS),
    "data.datasets.*": limits.text(),
    "data.loader": limits.function(),
    "data.split.kind": limits.one_of(*SPLITS),
}


class Found(NamedTuple):
  """What a source holds before it is split.

  Attributes:
    parts: events by part; under the name "" where the source has no parts.
    facts: JSON-able, with `warnings`.
  """
  parts: dict[str, Events]
  facts: dict[str, Any]


def check_dials(data) -> None:
  """Raises UserError for a field that is set and that the source does not read: it would do nothing."""
  for field, (named, unset) in DIALS.items():
    value = config_lib.lookup(data, field)
    if data.source not in named and value != unset:
      raise UserError(f"config.data.{field}: got {value!r}, allowed {unset!r} with config.data.source="
                      f"{data.source}; it is for {' | '.join(named)}")


def read_own(config) -> Found:
  """Events of the user's own loader, a function of the config that returns Events, or a dict of them by part."""
  name, = config.data.loader
  given = config_lib.load_function("data.loader", name)(config)
  parts = given if isinstance(given, dict) else {"": given}
  words = f"config.data.loader: {name}(config) returned"
  if not parts or not set(parts) <= ({""} | set(PARTS)) or (len(parts) > 1 and "" in parts):
    raise UserError(f"{words} a dict with the keys {', '.join(map(repr, parts)) or 'none'}, allowed {', '.join(PARTS)}")
  checked = {}
  for part, found in parts.items():
    if not isinstance(found, Events):
      raise UserError(f"{words} {type(found).__name__}, allowed Events of jaxtrain.experiments.autoencoder.events, "
                      f"or a dict of them by the names {', '.join(PARTS)}")
    where = f"config.data.loader: {name}(config)" + (f", part {part}" if part else "")
    checked[part] = events_lib.assemble(*found, where=where)
  if len({some.num_slots for some in checked.values()}) > 1:
    raise UserError(f"{words} parts with {', '.join(str(some.num_slots) for some in checked.values())} slots, allowed "
                    "as many in all")
  return Found(checked, {"source": name, "warnings": []})


def read(config) -> Found:
  """Events of the source, not yet cut to `data.row_limit` nor split. Raises UserError."""
  data = config.data
  if data.loader:
    return read_own(config)
  check_dials(data)
  if data.source == "toy":
    if not 0 < data.row_limit <= limits.MOST_ROWS:
      raise UserError(f"config.data.row_limit: got {data.row_limit}, allowed 1 to {limits.MOST_ROWS} with "
                      "config.data.source=toy, which makes so many events")
    seed = data.seed if data.seed >= 0 else config.seed
    made = generator.generate(data.row_limit, seed, data.num_slots)
    return Found({"": made}, {"source": "simulated, toy", "warnings": []})
  if data.source == "csv":
    found, warnings = event_files.read_csv(data.path, data.num_slots, data.energy_unit)
    parts = {"": found}
  else:
    given = event_files.read_hdf5(data.path, data.datasets.to_dict(), data.num_slots)
    parts = {part: event_files.in_gev(events, data.energy_unit) for part, events in given.items()}
    warnings = event_files.unit_warnings(next(iter(parts.values())), data.energy_unit)
  return Found(parts, {"source": data.path, "file": os.path.basename(data.path),
                       "sha256": tables.file_digest(data.path), "warnings": warnings})


def split_events(data, found: Found) -> tuple[dict[str, Events], list[str]]:
  """(events by part, warnings): parts of the file, or drawn from all of its events; after `data.row_limit`.

  Raises UserError where `data.split.kind` asks for what the source does not have.
  """
  parts, kind, warnings = found.parts, data.split.kind, []
  if data.row_limit:
    cut = {part: len(some.ids) for part, some in parts.items() if len(some.ids) > data.row_limit}
    warnings = [f"{part or 'all'}: data.row_limit={data.row_limit:,} leaves out {size - data.row_limit:,} of "
                f"{size:,} events" for part, size in cut.items()]
    parts = {part: some.take(slice(data.row_limit)) for part, some in parts.items()}
  if kind == "file":
    if "" in parts:
      raise UserError("config.data.split.kind: got 'file', allowed none | random with a source that has no parts of "
                      "its own; it is for hdf5, images, and a loader that returns a dict")
    if "train" not in parts:
      raise UserError(f"config.data.split.kind: got 'file', and the source has the parts {', '.join(parts)}, of which "
                      "none is train")
    return parts, warnings
  whole = events_lib.join(list(parts.values()))
  rows = splits.split_rows(data.split, len(whole.ids), None)
  return {part: whole.take(at) for part, at in rows.items() if len(at)}, warnings


def normalise_weights(parts: dict[str, Events]) -> dict[str, Events]:
  """Events whose weights have the mean 1 over the training part. Raises UserError where those of a part are all 0."""
  for part, found in parts.items():
    if not found.weight.any():
      raise UserError(f"data: the weights of all {part} events are 0")
  mean = float(parts["train"].weight.astype(np.float64).mean())
  return {part: found._replace(weight=(found.weight / mean).astype(np.float32)) for part, found in parts.items()}


def event_warnings(parts: dict[str, Events], num_types: int) -> list[str]:
  """What may be wrong with events, a sentence for each kind."""
  found, train = [], parts["train"]
  counts = np.bincount(train.ids.ravel(), minlength=num_types)
  for part, some in parts.items():
    empty = int((~some.mask.any(axis=1)).sum())
    if empty:
      found.append(f"{part}: {empty:,} of {len(some.ids):,} events have no object")
    others = np.bincount(some.ids.ravel(), minlength=num_types)
    unseen = [name for name, count, other in zip(events_lib.type_names(num_types), counts, others)
              if other and not count]
    if unseen:
      found.append(f"{part}: objects of the types {', '.join(unseen)}, which no training event has")
  heavy = train.weight.astype(np.float64)
  effective = heavy.sum()**2 / (heavy**2).sum()
  if effective < 0.1 * len(heavy):
    found.append(f"train: the weights leave {effective:,.0f} effective events of {len(heavy):,}")
  return found


def make_sources(config, tables_of: Callable[[str], tuple[dict, dict]], parts) -> dict[str, Source | None]:
  """Sources by part. `tables_of(part)` gives (columns of batches, columns beside them); a part that is not there has
  none.
  """
  eval_size = config.eval.batch_size or config.train.batch_size
  found = {}
  for part in PARTS:
    train = part == "train"
    size, shuffled = (config.train.batch_size, config.data.shuffle) if train else (eval_size, False)
    columns, beside = tables_of(part) if part in parts else ({}, {})
    found[part] = arrays.table_source(columns, size, shuffled, beside) if columns else None
  return found


def columns_of(scaler: dict, events: Events) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """(columns of batches, columns beside them) of events."""
  cont, met = scaling.forward(scaler, events)
  return ({"cont": cont, "ids": events.ids, "globals": met, "event_weight": events.weight},
          {"momenta": events.momenta, "met": events.globals, "label": events.label})


def read_parts(config) -> tuple[dict[str, Events], dict[str, Any]]:
  """(events by part, their weights as the source has them; facts, with warnings). Raises UserError."""
  if config.data.source == "images" and not config.data.loader:
    raise UserError("config.data.source: got 'images', allowed toy | hdf5 | csv with an experiment of events")
  found = read(config)
  parts, warnings = split_events(config.data, found)
  return parts, found.facts | {"warnings": [*found.facts["warnings"], *warnings]}


def load_events(config) -> Splits:
  """Sources of events of each part; `meta` has the scaler, names and facts. Raises UserError."""
  data = config.data
  parts, facts = read_parts(config)
  parts = normalise_weights(parts)
  num_types = 1 + max(int(some.ids.max()) for some in parts.values())
  scaler = scaling.fit(parts["train"], data.norm, scaling.parse_columns(data.columns))
  sources = make_sources(config, lambda part: columns_of(scaler, parts[part]), parts)
  num_processes = 1 + max(int(some.label.max()) for some in parts.values())
  rows = {part: len(parts[part].ids) if part in parts else 0 for part in PARTS}
  facts |= {"energy_unit": data.energy_unit, "rows": sum(rows.values()),
            "mean_objects": float(parts["train"].mask.sum(axis=1).mean()),
            "warnings": [*facts["warnings"], *event_warnings(parts, num_types)]}
  meta = {"kind": "events", "num_slots": parts["train"].num_slots, "num_types": num_types,
          "num_features": len(scaler["names"]), "num_globals": len(scaler["global_names"]),
          "feature_names": scaling.feature_names(scaler), "global_names": scaling.global_names(scaler),
          "scaler": scaler, "type_names": events_lib.type_names(num_types),
          "class_names": events_lib.process_names(num_processes), "image_shape": [], "table": facts, "rows": rows,
          "steps_per_epoch": sources["train"].num_batches}
  return Splits(sources["train"], sources["val"], sources["test"], meta)


def load_images(config) -> Splits:
  """Sources of images of each part: of Fashion-MNIST's files in the folder `data.path`. Raises UserError."""
  data = config.data
  if data.source != "images" or data.loader:
    raise UserError(f"config.data.source: got {data.source!r}, allowed images, without data.loader, with an experiment "
                    "of images")
  check_dials(data)
  parts, facts = idx_files.read_parts(data.path, data.split, data.row_limit)
  ones = lambda images: np.ones(len(images), np.float32)
  sources = make_sources(config, lambda part: ({"image": parts[part][0], "event_weight": ones(parts[part][0])},
                                               {"label": parts[part][1]}), parts)
  rows = {part: len(parts[part][0]) if part in parts else 0 for part in PARTS}
  meta = {"kind": "images", "num_slots": 0, "num_types": 0, "num_features": 0, "num_globals": 0, "feature_names": [],
          "global_names": [], "scaler": {}, "type_names": [], "class_names": list(idx_files.CLASS_NAMES),
          "image_shape": list(parts["train"][0].shape[1:]), "table": facts | {"rows": sum(rows.values())}, "rows": rows,
          "steps_per_epoch": sources["train"].num_batches}
  return Splits(sources["train"], sources["val"], sources["test"], meta)
