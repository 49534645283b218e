"""The folder of a sweep: which members it has, what became of them, and what it was made from.

  sweep.json      the config file and the resolved base config; written once, or again until a member has trained
  journal.jsonl   a line per event: `added`, `started`, `done`, `failed` of a member, `wave` of several; only appended
  runs/NNN-.../   the members, each the folder of a run

A member is identified by the SHA-256 of its resolved config; its number is its place in the journal and never changes.
Sweeps read the folder strictly, as a `Journal` that they add to; pages read it leniently with `read_sweep`.
"""

import glob
import json
import os
import re
import shutil
import time
from typing import Any, Callable

from jaxtrain import jsonable
from jaxtrain.errors import UserError
from jaxtrain.workdir import atomic, jsonfile, lines, provenance, schema
from jaxtrain.workdir.fields import short_names
from jaxtrain.workdir.schema import Field

VERSION = 2  # of new sweeps; those of version 1 are read too
OF_MEMBER = {"event": Field(schema.TEXT), "time": Field(schema.NUMBER, optional=True), "member": Field(schema.WHOLE)}
EVENTS: dict[str, schema.Fields] = {
    "added": OF_MEMBER | {"digest": Field(schema.TEXT), "values": Field(schema.OBJECT), "folder": Field(schema.FOLDER)},
    "started": OF_MEMBER | {"job": Field(schema.TEXT, optional=True)},  # only the slurm launcher has jobs
    "done": OF_MEMBER,
    "failed": OF_MEMBER | {"code": Field(schema.WHOLE), "reason": Field(schema.TEXT)},
    "wave": {"event": Field(schema.TEXT), "time": Field(schema.NUMBER, optional=True), "members": Field(schema.WHOLES),
             "fields": Field(schema.TEXTS), "places": Field(schema.WHOLE), "devices": Field(schema.WHOLE),
             "exact": Field(schema.FLAG)},
}


ABOUT: schema.Fields = {"version": Field(schema.WHOLE), "time": Field(schema.TEXT), "config": Field(schema.TEXT),
                        "base": Field(schema.OBJECT)}


class Member:
  """One run of a sweep: number, values of the swept fields, digest of its config, folder; its newest outcome, why it
  failed and with which exit code, and the launcher's number of its job.
  """

  def __init__(self, number: int, values: dict[str, Any], digest: str, folder: str):
    self.number, self.values, self.digest, self.folder = number, values, digest, folder
    self.outcome, self.reason, self.code, self.job = "added", "", None, ""

  @property
  def label(self) -> str:
    """Number and values, for people."""
    return f"{self.number:03d} ({describe(self.values)})"


def describe(values: dict[str, Any]) -> str:
  """Settings in words, fields by their short names; a tuple, which the journal keeps as a list, reads alike from both.
  """
  plain = lambda value: str(tuple(value) if isinstance(value, list) else value).replace(" ", "")
  text = lambda value: f"{value:.4g}" if isinstance(value, float) else plain(value)
  return ", ".join(f"{name}={text(values[key])}" for key, name in short_names(values).items()) or "base"


def is_sweep(folder: str) -> bool:
  """Whether a folder is a sweep's."""
  return os.path.exists(os.path.join(folder, "sweep.json"))


class Sweep:
  """What a sweep's folder says: `about` (sweep.json), its members in the order in which they were added, its waves."""

  def __init__(self, folder: str, about: dict | None):
    self.folder, self.about = folder, about
    self.path = os.path.join(folder, "journal.jsonl")
    self.numbered: dict[int, Member] = {}
    self.waves: list[dict] = []

  @property
  def members(self) -> list[Member]:
    """The members in the order in which they were added."""
    return list(self.numbered.values())

  def take(self, entry: dict) -> None:
    """What a line of the journal changes. Raises ValueError for a member that was not added."""
    event = entry["event"]
    if event == "wave":
      if not set(entry["members"]) <= self.numbered.keys():
        raise ValueError(f"wave: of members {entry['members']}, of which not all were added")
      self.waves.append(entry)
    elif event == "added":
      number = entry["member"]
      self.numbered[number] = Member(number, entry["values"], entry["digest"], entry["folder"])
    elif entry["member"] not in self.numbered:
      raise ValueError(f"{event}: no member {entry['member']} was added")
    else:
      member = self.numbered[entry["member"]]
      why = (entry["reason"], entry["code"]) if event == "failed" else ("", None)
      member.outcome, (member.reason, member.code) = event, why
      if "job" in entry:
        member.job = entry["job"]

  def workdir(self, member: Member) -> str:
    """The member's run folder."""
    return os.path.join(self.folder, member.folder)

  def is_lost(self, member: Member) -> bool:
    """Whether a member was done and its run is no longer there."""
    return member.outcome == "done" and not os.path.exists(os.path.join(self.workdir(member), "config.json"))


def check_entry(entry: dict) -> dict:
  """Returns a line of the journal. Raises ValueError where it does not fit its event."""
  fields = schema.declared(EVENTS, entry, "event")
  if fields is None:
    raise ValueError(f"a line must have an event out of {', '.join(EVENTS)}, got {entry!r}")
  return schema.check(entry, fields, entry["event"])


def known_entry(entry: dict) -> dict:
  """The declared fields of a line of the journal. Raises ValueError where one of them is missing or does not fit."""
  fields = schema.declared(EVENTS, entry, "event") or {}
  return check_entry({name: value for name, value in entry.items() if name in fields})


def read_sweep(folder: str) -> Sweep:
  """Reads a sweep for pages: changes nothing, and leaves out lines that are damaged or of an unknown event.

  Raises UserError where there is no sweep that can be read.
  """
  try:
    with open(os.path.join(folder, "sweep.json"), encoding="utf-8") as file:
      found = Sweep(folder, schema.fitting(lines.parse_object(file.read()), ABOUT))
    with open(found.path, "rb") as file:
      data = file.read()
  except (OSError, ValueError) as error:
    raise UserError(f"{folder!r} is no sweep that can be read: {error}") from error
  lines.parse(data, lambda line: found.take(known_entry(lines.parse_object(line))), found.path, strict=False)
  return found


class Journal(Sweep):
  """The journal of one sweep, which is added to; the caller holds the folder's lock.

  Raises:
    UserError: the folder is another sweep's, or no sweep's.
  """

  def __init__(self, folder: str):
    super().__init__(folder, jsonfile.read_object(os.path.join(folder, "sweep.json"), {"version": ABOUT["version"]}))
    if self.about is None:
      if os.path.exists(os.path.join(folder, "config.json")):
        raise UserError(f"--workdir: {folder!r} holds a run, not a sweep; choose another workdir")
      return
    if not 1 <= self.about["version"] <= VERSION:
      raise UserError(f"--workdir: {folder!r} is a sweep of version {self.about['version']}, allowed 1 to {VERSION}")
    self.about = jsonfile.read_object(os.path.join(folder, "sweep.json"), ABOUT)
    self.read()

  def is_untrained(self) -> bool:
    """Whether no member has trained a step, nor may be about to: all wait, or failed before a run wrote its config."""
    written = glob.iglob(os.path.join(glob.escape(self.folder), "runs", "**", "config.json"), recursive=True)
    waiting = all(member.outcome in ("added", "failed") for member in self.members)
    return waiting and not self.waves and next(written, None) is None

  def begin_again(self, about: dict) -> None:
    """Writes sweep.json of a new sweep in the place of one that `is_untrained`, whose members are removed."""
    shutil.rmtree(os.path.join(self.folder, "runs"), ignore_errors=True)
    with atomic.open_own(self.path, "w", encoding="utf-8"):
      self.numbered.clear()
    self.begin(about)

  def begin(self, about: dict) -> None:
    """Writes sweep.json of a new sweep."""
    self.about = schema.check({"version": VERSION, "time": provenance.utc_now()} | about, ABOUT, "sweep.json")
    jsonfile.write_json(os.path.join(self.folder, "sweep.json"), self.about)

  def read(self) -> None:
    """Reads the lines there are, and cuts off half a line that a killed process left.

    Raises:
      UserError: the file cannot be read, a line is damaged, a member is missing, or all are while their folders
        are there.
    """
    try:
      data = lines.read(self.path)
    except (OSError, ValueError) as error:
      raise UserError(f"{self.path} cannot be read: {error}") from None
    whole = data[:data.rfind(b"\n") + 1]
    if len(whole) < len(data):
      with atomic.open_own(self.path, "ab") as file:
        file.truncate(len(whole))
    lines.parse(whole, lambda line: self.take(check_entry(lines.parse_object(line))), self.path, strict=True)
    runs = os.path.join(self.folder, "runs")
    if not self.numbered and os.path.isdir(runs) and os.listdir(runs):
      raise UserError(f"{self.path} is missing or empty, and {runs} holds members; restore the file, or choose another "
                      "workdir")
    if list(self.numbered) != list(range(len(self.numbered))):
      raise UserError(f"{self.path}: a member that was added is missing; restore the file, or choose another workdir")

  def note(self, event: str, **fields: Any) -> None:
    """Appends a line and hands it to the operating system."""
    self.append([{"event": event} | fields])

  def append(self, entries: list[dict]) -> None:
    """Appends lines at once and hands them to the operating system. Raises ValueError for one that does not fit."""
    entries = [{"time": time.time()} | entry for entry in entries]
    text = "".join(json.dumps(check_entry(jsonable.clean(entry))) + "\n" for entry in entries)
    with atomic.open_own(self.path, "a", encoding="utf-8") as file:
      file.write(text)
    for entry in entries:
      self.take(entry)

  def redigest(self, digest_of: Callable[[dict[str, Any]], str]) -> None:
    """Digests of the members anew from their values: those of a sweep of another version are of other fields."""
    for member in self.members:
      member.digest = digest_of(member.values)

  def add(self, settings: list[tuple[dict[str, Any], str]]) -> list[Member]:
    """Members of (values, digest), in that order; those that are new get the next numbers."""
    known, fresh = {member.digest for member in self.members}, {}
    for values, digest in settings:
      if digest not in known and digest not in fresh:
        number = len(self.members) + len(fresh)
        label = re.sub(r"[^\w.,=+-]", "_", describe(values).replace(", ", ","))[:80]
        fresh[digest] = {"event": "added", "member": number, "digest": digest, "values": values,
                         "folder": f"runs/{number:03d}-{label}"}
    self.append(list(fresh.values()))
    known = {member.digest: member for member in self.members}
    return [known[digest] for digest in dict.fromkeys(digest for _, digest in settings)]
