"""Runs to compare, read from run folders and sweep folders: how each ended, its fields, metrics and curves, its group.

A group is the runs that are equal in every field but `REPLICATES`. Only files are read; no JAX here.
"""

import json
import math
import os
import re
from typing import Any, Iterable, NamedTuple

import numpy as np

from jaxtrain import spelling
from jaxtrain.config import must_fit
from jaxtrain.errors import UserError
from jaxtrain.jsonable import exact, flatten, number
from jaxtrain.report import figures
from jaxtrain.workdir import journal, reading
from jaxtrain.workdir.fields import changes_loss, short_names
from jaxtrain.workdir.reading import RunData, newest_event

REPLICATES = ("seed", "data.split.fold", "data.resample")  # fields in which the runs of a group differ
NOT_COMPARED = ("log", "parallel")  # where and how loudly a run was made
NOT_METRICS = ("rows", "lr", "grad_norm", *figures.SCHEDULES)
NOT_CURVES = ("split", "epoch", "step", "epoch_time_s", "throughput", "max_memory_mib")
TIME = "time in steps, s"
MAX_LABEL, MAX_FIELDS = 64, 3  # letters of a group's label; fields that it tells
# Words in names of metrics that say which direction is better, where the experiment does not; lower is taken as better
# where none does.
HIGHER = ("accuracy", "ari", "auc", "auroc", "auprc", "correlation", "elbo", "f1", "likelihood", "nmi", "precision",
          "psnr", "purity", "r2", "recall", "silhouette", "ssim")
LOWER = ("bits", "brier", "crps", "distortion", "ece", "error", "loss", "mae", "mse", "negative", "nll", "pehe",
         "perplexity", "rmse", "shd", "sid", "time")


class Member(NamedTuple):
  """A run among others.

  Attributes:
    name, folder: of the run; status: done, incomplete, failed or pending, and the reason.
    fields: dotted key -> value of its config; chosen: keys that a sweep, a flag or the environment set.
    monitor, monitors_max: the monitored metric, and whether higher is better.
    metrics: name -> value; best_step: where the best state was; is_final: it came to its end, or to its test.
    curves: (split, name) -> steps and values; steps_per_epoch: None for streams.
    descriptions: what its experiment says of its metrics, by name or pattern.
  """
  name: str
  folder: str
  status: str
  reason: str
  fields: dict[str, Any]
  chosen: frozenset[str] = frozenset()
  monitor: str = ""
  monitors_max: bool = False
  metrics: dict[str, float] = {}
  best_step: float | None = None
  is_final: bool = False
  curves: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
  steps_per_epoch: float | None = None
  descriptions: dict[str, dict] = {}


def gather(paths: Iterable[str]) -> list[Member]:
  """All runs of run folders and sweep folders, each once.

  Raises UserError for a path that is neither, a sweep that cannot be read, and where there is no run at all.
  """
  found = {}
  for path in paths:
    if not journal.is_sweep(path) and not os.path.exists(os.path.join(path, "config.json")):
      raise UserError(f"{path!r} holds neither a run (config.json) nor a sweep (sweep.json)" if os.path.exists(path)
                      else spelling.no_run(path))
    for member in members_of(path) if journal.is_sweep(path) else [read_member(path)]:
      found.setdefault(os.path.realpath(member.folder), member)
  if not found:
    raise UserError(f"{', '.join(map(repr, paths))}: no run was added to the sweep yet")
  return list(found.values())


def members_of(folder: str) -> list[Member]:
  """The members of a sweep in the order in which they were added. Raises UserError where it cannot be read."""
  sweep = journal.read_sweep(folder)
  base, values = dict(flatten(sweep.about.get("base", {}))), [noted.values for noted in sweep.members]
  members = [sweep_member(sweep.workdir(noted), noted) for noted in sweep.members]
  written = [k for k, member in enumerate(members) if member.fields]
  for k, member in enumerate(members):
    if not member.fields:  # as those of the member most like it: the base has not yet what a run's start resolves
      shared = lambda other: sum(values[k].get(key) == value for key, value in values[other].items())
      like = max(written, key=shared, default=None)
      members[k] = member._replace(fields=(base if like is None else members[like].fields) | values[k])
  return members


def sweep_member(folder: str, noted: journal.Member) -> Member:
  """A member of a sweep, from its folder if it has one, and from what the journal notes of it."""
  try:
    member = read_member(folder)
  except UserError as error:
    word, reason = "incomplete", "Started, but nothing is written yet."
    if noted.outcome == "added":
      word, reason = "pending", "Not started yet."
    if os.path.exists(os.path.join(folder, "config.json")):  # and cannot be read
      word, reason = "incomplete", str(error)
    member = Member(os.path.basename(folder), folder, word, reason, {})
  if noted.outcome == "failed" and member.status != "done":
    reason = f"{noted.reason or member.reason} (exit code {noted.code})"
    member = member._replace(status="failed", reason=reason)
  return member._replace(chosen=member.chosen.union(noted.values))


def read_member(folder: str) -> Member:
  """A run from its folder; one of several stages has the metrics of its newest.

  Raises UserError as `read_run` does, and where the files do not fit together.
  """
  with must_fit(folder):
    return describe_member(folder)


def describe_member(folder: str) -> Member:
  """`read_member` of files that fit together."""
  whole, run = reading.read_newest(folder)
  word, _, reason = reading.status(run)
  train, best = run.config.get("train", {}), reading.best_of(run)
  is_final = word == "done" or any(row["split"] == "test" for row in run.rows)
  return Member(os.path.basename(os.path.abspath(folder)), folder, word, " ".join([reason, *run.problems]).strip(),
                dict(flatten(whole.config)), frozenset(whole.origins), best.monitor,
                train.get("monitor_mode") == "max", metrics_of(run), best.step, is_final, curves_of(run),
                number(newest_event(run, "on_start").get("steps_per_epoch")), reading.described(run))


def metrics_of(run: RunData) -> dict[str, float]:
  """Metrics by name: the monitored one at its best, those of test and val in the best state (else of train), time."""
  best = reading.best_of(run)
  found = {f"best {best.monitor}": best.value}
  for split in [s for s in ("test", "val") if any(row["split"] == s for row in run.rows)] or ["train"]:
    for row in run.rows:
      if row["split"] == split and (split == "test" or row["step"] == best.step):
        found |= {f"{split}_{name}": reading.value_of(row, name) for name in row_metrics(row)}
    for name, value in reading.scalars(run.evals.get(split, {})).items():
      if "/" not in name:
        found.setdefault(f"{split}_{name}", value)
  found.pop(best.monitor, None)  # it stands there as the best one
  found[TIME] = reading.step_seconds(run) or number(newest_event(run, "on_train_end").get("total_time_s"))
  rest = {f"{split}_{name}" for split in reading.SPLITS for name in NOT_METRICS}
  return {name: value for name, value in found.items()
          if value is not None and name not in rest and not name.endswith("_ci95")}


def row_metrics(row: dict[str, Any]) -> list[str]:
  """Names of the metrics that a row of scalars.csv has, each once."""
  names = (name.removeprefix("metric_").removeprefix(f"{row['split']}_")
           for name, value in row.items() if value is not None and name not in NOT_CURVES)
  return list(dict.fromkeys(names))


def curves_of(run: RunData) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
  """(split, metric) -> steps and values of train and val."""
  found = {}
  for row in run.rows:
    for name in row_metrics(row) if row["split"] in ("train", "val") else ():
      found.setdefault((row["split"], name), {})[row["step"]] = reading.value_of(row, name)
  return {key: (np.array(list(points)), np.array(list(points.values()))) for key, points in found.items()}


def description(name: str, members: list[Member]) -> dict:
  """What an experiment says of a metric `<split>_<name>`; {} where none does."""
  split, _, bare = name.removeprefix("best ").partition("_")
  found = (reading.description(member.descriptions, bare) for member in members if split in reading.SPLITS)
  return next(filter(None, found), {})


def direction(name: str, members: list[Member]) -> tuple[bool, str]:
  """Whether higher is better, and that in words with the unit: of a monitored metric by the config, of others by what
  the experiment says of it, or by its name.
  """
  said = description(name, members)
  unit = f", in {said['unit']}" if said.get("unit") else ""
  known = [member.monitors_max for member in members if name == f"best {member.monitor}"]
  known += [said["direction"] == "higher"] if said.get("direction") else []
  if known:
    return known[0], f"{'higher' if known[0] else 'lower'} is better{unit}"
  words = set(re.split(r"[^a-z0-9]+", name.lower()))
  higher = not words.isdisjoint(HIGHER) and words.isdisjoint(LOWER)
  sure = higher or not words.isdisjoint(LOWER)
  return higher, f"{'higher' if higher else 'lower'} is {'' if sure else 'taken as '}better{unit}"


def metric_names(members: list[Member]) -> list[str]:
  """All metrics: the monitored ones, the test loss, others of test, of val, and time."""
  names = dict.fromkeys(name for member in members for name in member.metrics)
  kinds = ("best ", "test_loss", "test_", "val_", "")
  place = lambda name: next(k for k, kind in enumerate(kinds) if name.startswith(kind))
  return sorted(names, key=lambda name: (name == TIME, place(name)))


def identity(value: Any) -> str:
  """Equal text for equal values: 1 is 1.0, but not True."""
  is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
  return repr(float(value)) if is_number else json.dumps(value, sort_keys=True)


def text_of(value: Any) -> str:
  """A value of a field for people: text as it is, numbers in short, a dash for a field that a run has not."""
  if isinstance(value, str):
    return value.removeprefix("jaxtrain.experiments.")
  return "–" if value is None else f"{value:.5g}" if isinstance(value, float) else exact(value)


class Fields(NamedTuple):
  """Fields whose values differ, and short names: those that make the groups, replicates, and those that follow."""
  names: dict[str, str]
  leading: list[str]
  replicates: list[str]
  following: list[str]

  @property
  def objective(self) -> list[str]:
    """Those that change what the loss is."""
    return [key for key in (*self.leading, *self.following) if changes_loss(key)]


def varying(members: list[Member]) -> Fields:
  """Fields whose values differ between runs.

  A field that nobody chose follows where it is constant within the groups of the others: steps of decay that follow
  from epochs, or all the fields in which two experiments differ.
  """
  keys = [key for key in dict.fromkeys(key for member in members for key in member.fields)
          if key.partition(".")[0] not in NOT_COMPARED]
  values = {key: tuple(identity(value_of(member, key)) for member in members) for key in keys}
  differing = [key for key in keys if len(set(values[key])) > 1]
  chosen = frozenset().union(*(member.chosen for member in members))
  leading, following, parts = [], [], [()] * len(members)
  replicates = [key for key in REPLICATES if key in differing]
  for key in sorted(set(differing) - {*replicates}, key=lambda key: (key != "experiment", key not in chosen, key)):
    finer = [(*part, value) for part, value in zip(parts, values[key])]
    if key in chosen or len(set(finer)) > len(set(parts)):
      leading.append(key)
      parts = finer
    else:
      following.append(key)
  return Fields(short_names([*leading, *replicates, *following]), leading, replicates, following)


def value_of(member: Member, key: str) -> Any:
  """A field of a run; of a path the last part, since folders say nothing of what is in a file."""
  value = member.fields.get(key)
  return os.path.basename(value) if key.endswith("path") and isinstance(value, str) else value


def grouped(members: list[Member], keys: list[str]) -> list[list[int]]:
  """Indices of the members of each group, which are equal in the fields `keys`."""
  groups = {}
  for index, member in enumerate(members):
    groups.setdefault(tuple(identity(value_of(member, key)) for key in keys), []).append(index)
  return list(groups.values())


def group_labels(members: list[Member], groups: list[list[int]], fields: Fields) -> list[str]:
  """The groups in words, no two alike: their values in the fields that make them, cut where they are many. Single runs
  that differ in many fields have the names of their folders.
  """
  names = [members[indices[0]].name for indices in groups]
  if len(fields.leading) > MAX_FIELDS and len(members) == len(groups) == len(set(names)):
    return [name if len(name) <= MAX_LABEL else f"{name[:MAX_LABEL - 1]}…" for name in names]
  labels = []
  for indices in groups:
    member = members[indices[0]]
    parts = [f"{fields.names[key]}={text_of(value_of(member, key))}" for key in fields.leading] or ["all runs"]
    label = ", ".join(parts)
    label = label if len(label) <= MAX_LABEL else f"{label[:MAX_LABEL - 1]}…"
    labels.append(label if label not in labels else f"{label} ({len(labels) + 1})")
  return labels


def matrix(members: list[Member], groups: list[list[int]], metric: str) -> np.ndarray:
  """Values of a metric [G, R] over the replicates there are, NaN for none; only final and finite ones count.

  Runs of one group that are the same replicate are averaged.
  """
  names = {index: tuple(identity(member.fields.get(key)) for key in REPLICATES) for index, member in enumerate(members)}
  columns = {name: k for k, name in enumerate(dict.fromkeys(names.values()))}
  sums, counts = np.zeros((2, len(groups), len(columns)))
  for g, indices in enumerate(groups):
    for index in indices:
      value = members[index].metrics.get(metric, math.nan)
      if members[index].is_final and math.isfinite(value):
        sums[g, columns[names[index]]] += value
        counts[g, columns[names[index]]] += 1
  return sums / np.where(counts, counts, np.nan)
