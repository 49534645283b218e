"""What a trained autoencoder does with events.

  encode       code_<slot> (with several stages code_<slot>_<stage>), -1 for an empty slot; where nothing is coded
               emb_<slot>_<k>; the last slot, `event`, is of the event as a whole; bits
  reconstruct  <column>_recon, in GeV and radians
  generate     new events in the same columns, where the event has one latent: no event of the data enters, but for the
               table of how many objects of each type events have
  score        error: mean squared error of an event's normalised numbers over its objects, larger for strange events;
               bits

Columns of an event are id_<slot>, e_<slot>, pt_<slot>, eta_<slot>, phi_<slot>, met and met_phi; a file .h5 in the
layout of training is read as it is, and reconstruct writes one; a file .csv with lines of the Dark Machines challenge
is read too. Images have columns pixel_<row>_<column>, in 0..1.
"""

import functools
from typing import Any

import jax
import numpy as np

from jaxtrain import streams
from jaxtrain.data import files, inputs
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import apply, event_files, events as events_lib, generate
from jaxtrain.experiments.autoencoder.events import FEATURES, Events
from jaxtrain.experiments.autoencoder.problem import Problem
from jaxtrain.types import Input, Verb

Result = dict[str, np.ndarray]


def column_names(meta: dict) -> tuple[str, ...]:
  """Names of the columns of an event, or of an image."""
  if meta["kind"] == "images":
    H, W, _ = meta["image_shape"]
    return tuple(f"pixel_{i}_{j}" for i in range(H) for j in range(W))
  T = meta["num_slots"]
  return (*(f"id_{t}" for t in range(T)), "met", "met_phi", *(f"{name}_{t}" for t in range(T) for name in FEATURES))


def inputs_of(meta: dict) -> tuple[Input, ...]:
  """The columns that verbs read."""
  if meta["kind"] == "images":
    return tuple(Input(name, low=0.0, high=1.0) for name in column_names(meta))
  return tuple(Input(name, "whole", 0, meta["num_types"] - 1) if name.startswith("id_") else
               Input(name, low=0.0) if name.startswith(("e_", "pt_")) or name == "met" else Input(name)
               for name in column_names(meta))


def of_rows(meta: dict, rows: np.ndarray, where: str) -> Events:
  """Events of rows [N, T + 2 + 4 T] in the order of `column_names`. Raises UserError for what is no event."""
  events, K = event_files.from_rows(rows, meta["num_slots"], None, None, where), meta["num_types"]
  if (events.ids >= K).any():
    row = int(np.argmax((events.ids >= K).any(axis=1)))
    raise UserError(f"{where}: event {row + 1} has an object of type {events.ids[row].max()}, allowed 0 to {K - 1}, "
                    "those of the run's own events")
  return events


def read_rows(p: Problem, found: files.Columns) -> tuple[np.ndarray, np.ndarray]:
  """(rows for `apply` of those without a missing cell, [N] which these are)."""
  x = inputs.read_features(found, column_names(p.meta))
  whole = ~np.isnan(x).any(axis=1)
  if p.of_images:
    return x[whole].astype(np.float32), whole
  events = of_rows(p.meta, np.where(whole[:, None], x, 0.0), found.path)  # all of them, so that messages count rows
  return apply.rows_of_events(p.meta["scaler"], events)[whole], whole


def read_file(meta: dict, path: str, state: Any) -> files.Columns:
  """The events of a file in the layout of training, of all its parts, with the names of part and process beside them;
  energies are in the unit of the run's own file. Raises UserError where it holds none.
  """
  del state
  parts = event_files.read_hdf5(path, event_files.names_there(path), meta["num_slots"])
  events = event_files.in_gev(events_lib.join(list(parts.values())), meta["table"]["energy_unit"])
  rows = event_files.to_rows(events)
  beside = {"part": np.repeat(list(parts), [len(some.ids) for some in parts.values()]).astype(object),
            "process": np.asarray(events_lib.process_names(1 + int(events.label.max())), object)[events.label]}
  return files.Columns(path, {name: rows[:, k] for k, name in enumerate(column_names(meta))} | beside, {})


def read_lines(meta: dict, path: str, state: Any) -> files.Columns | None:
  """The events of a text file of the Dark Machines challenge, with the names of their processes beside them; energies
  are in the unit of the run's own file. None of a file with other lines. Raises UserError where one does not fit.
  """
  del state
  if not event_files.has_lines_of_events(path):
    return None
  unit = meta["table"]["energy_unit"]
  events, warnings = event_files.read_csv(path, meta["num_slots"], unit, "--input")
  for words in warnings:
    streams.say(f"jaxtrain: {path}: {words}", error=True)
  rows = event_files.to_rows(events)
  process = np.asarray(events_lib.process_names(1 + int(events.label.max())), object)[events.label]
  return files.Columns(path, {name: rows[:, k] for k, name in enumerate(column_names(meta))} | {"process": process}, {})


def write_file(p: Problem, path: str, state: Any, found: files.Columns, result: Result) -> None:
  """Writes what came back of events without a missing cell in that layout, as the part test. Raises UserError for what
  the members of an ensemble give, which stands side by side.
  """
  del state, found
  if "met_recon" not in result:
    raise UserError("--output: a file .h5 holds an event once, and this run is an ensemble; allowed .csv .parquet .npz")
  rows = np.stack([result[f"{name}_recon"] for name in column_names(p.meta)], axis=1)
  event_files.write_hdf5(path, {"test": of_rows(p.meta, rows[~np.isnan(rows).any(axis=1)], path)})


def spread(whole: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Values of the whole rows as rows of all; NaN for the others, where there are any."""
  if whole.all():
    return values
  found = np.full((len(whole), *values.shape[1:]), np.nan)
  found[whole] = values
  return found


def slot_names(p: Problem) -> list[str]:
  """Names of latents: places of objects, and `event`."""
  return [*map(str, range(p.num_latents - p.has_event)), *["event"] * p.has_event]


def run(coder: apply.Coder, what: Any, state: Any, found: files.Columns, num: int, key: jax.Array) -> Result:
  """The columns that `what(problem, applied)` names, of all rows."""
  rows, whole = read_rows(coder.problem, found)
  back = apply.apply(coder, state, rows if len(rows) else np.zeros((1, rows.shape[1]), np.float32))
  columns = what(coder.problem, {name: values[:len(rows)] for name, values in back.items()})
  return {name: spread(whole, values) for name, values in columns.items()}


def encode(p: Problem, back: dict) -> Result:
  """Codes, or the latents themselves, and bits."""
  found, names = {}, slot_names(p)
  if "index" in back:
    Q = back["index"].shape[2]
    found = {f"code_{name}" + (f"_{q}" if Q > 1 else ""): back["index"][:, s, q]
             for s, name in enumerate(names) for q in range(Q)}
  else:
    found = {f"emb_{name}_{k}": back["z"][:, s, k] for s, name in enumerate(names) for k in range(back["z"].shape[2])}
  return found | {"bits": back["bits"].sum(axis=1)}


def reconstruct(p: Problem, back: dict) -> Result:
  """What comes back, by the names of the columns."""
  if p.of_images:
    rows = back["image"].reshape(len(back["image"]), -1)
  else:
    ids = np.where(back["exists"] > 0.5, back["ids"], 0)
    rows = event_files.to_rows(Events(ids, back["momenta"] * (ids > 0)[..., None], back["met"], ids[:, 0], ids[:, 0]))
  return {f"{name}_recon": rows[:, k] for k, name in enumerate(column_names(p.meta))}


def make_generate(p: Problem):
  """The verb's function of (state, columns, num, key)."""
  maker = generate.make_maker(p)
  def run(state, found, num, key):
    inputs.check_num(num, generate.row_bytes(p))
    events = generate.generate(maker, state, num, key)
    rows = event_files.to_rows(events)
    return {name: rows[:, k] for k, name in enumerate(column_names(p.meta))}
  return run


def write_made(p: Problem, path: str, state: Any, found: files.Columns, result: Result) -> None:
  """Writes new events in the layout of training, as the part train."""
  del state, found
  rows = np.stack([result[name] for name in column_names(p.meta)], axis=1)
  event_files.write_hdf5(path, {"train": of_rows(p.meta, rows, path)})


def score(p: Problem, back: dict) -> Result:
  """The error of each event, and its bits."""
  return {"error": back["error"], "bits": back["bits"].sum(axis=1)}


def make_verbs(p: Problem) -> dict[str, Verb]:
  """The verbs of a problem."""
  coder, own = apply.make_coder(p), inputs_of(p.meta)
  readers = {} if p.of_images else dict.fromkeys((".h5", ".hdf5"), functools.partial(read_file, p.meta)) | {
      ".csv": functools.partial(read_lines, p.meta)}
  writers = {} if p.of_images else dict.fromkeys((".h5", ".hdf5"), functools.partial(write_file, p))
  verb = lambda what, several, **more: Verb(functools.partial(run, coder, what), None, several, own, readers=readers,
                                            **more)
  verbs = {"encode": verb(encode, "each"), "reconstruct": verb(reconstruct, "each", writers=writers),
           "score": verb(score, "mean")}
  if p.has_prior:
    made = dict.fromkeys((".h5", ".hdf5"), functools.partial(write_made, p))
    verbs["generate"] = Verb(make_generate(p), None, "turns", (), counts=True, carries=False, writers=made,
                             makes="events")
  return verbs
