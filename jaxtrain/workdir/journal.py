"""The folder of a sweep: which members it has, what became of them, and what it was made from.

  sweep.json      the config file and the resolved base config; written once
  journal.jsonl   a line per event: `added`, `started`, `done`, `failed` of a member, `wave` of several; only appended
  runs/NNN-.../   the members, each the folder of a run

A member is identified by the SHA-256 of its resolved config; its number is its place in the journal and never changes.
"""

import json
import os
import re
import time
from typing import Any, Callable

from jaxtrain import jsonable
from jaxtrain.errors import UserError
from jaxtrain.workdir import provenance

VERSION = 2  # of new sweeps; those of version 1 are read too
OUTCOMES = ("started", "done", "failed")


class Member:
  """One run of a sweep: number, values of the swept fields, digest of its config, folder; its newest outcome, why it
  failed, and the launcher's number of its job.
  """

  def __init__(self, number: int, values: dict[str, Any], digest: str, folder: str):
    self.number, self.values, self.digest, self.folder = number, values, digest, folder
    self.outcome, self.reason, self.job = "added", "", ""

  @property
  def label(self) -> str:
    """Number and values, for people."""
    return f"{self.number:03d} ({describe(self.values)})"


def describe(values: dict[str, Any]) -> str:
  """Settings in words, fields by their last part."""
  text = lambda value: f"{value:.4g}" if isinstance(value, float) else str(value).replace(" ", "")
  return ", ".join(f"{key.rpartition('.')[2]}={text(value)}" for key, value in values.items()) or "base"


class Journal:
  """The journal of one sweep; the caller holds the folder's lock.

  Raises:
    UserError: the folder is another sweep's, or no sweep's.
  """

  def __init__(self, folder: str):
    self.folder, self.path = folder, os.path.join(folder, "journal.jsonl")
    self.members: list[Member] = []
    self.waves: list[dict] = []
    self.about = jsonable.read_json(os.path.join(folder, "sweep.json"))
    if self.about is None:
      if os.path.exists(os.path.join(folder, "config.json")):
        raise UserError(f"--workdir: {folder!r} holds a run, not a sweep; choose another workdir")
      return
    if not 1 <= self.about["version"] <= VERSION:
      raise UserError(f"--workdir: {folder!r} is a sweep of version {self.about['version']}, allowed 1 to {VERSION}")
    self.read()

  def begin(self, about: dict) -> None:
    """Writes sweep.json of a new sweep."""
    self.about = {"version": VERSION, "time": provenance.utc_now()} | about
    jsonable.write_json(os.path.join(self.folder, "sweep.json"), self.about)

  def read(self) -> None:
    """Reads the lines there are, and cuts off half a line that a killed process left."""
    try:
      with open(self.path, "rb+") as file:
        text = file.read()
        whole = text[:text.rfind(b"\n") + 1]
        file.truncate(len(whole))
    except FileNotFoundError:
      return
    for number, line in enumerate(whole.decode().splitlines(), 1):
      try:
        self.take(json.loads(line))
      except (ValueError, KeyError, IndexError):
        raise UserError(f"{self.path}: line {number} is damaged; restore the file, or choose another workdir") from None

  def take(self, entry: dict) -> None:
    """What a line of the journal changes."""
    event = entry["event"]
    if event == "added":
      self.members.append(Member(len(self.members), entry["values"], entry["digest"], entry["folder"]))
    elif event == "wave":
      self.waves.append(entry)
    elif event in OUTCOMES:
      member = self.members[entry["member"]]
      member.outcome, member.reason = event, entry["reason"] if event == "failed" else ""
      if "job" in entry:  # only the slurm launcher has numbers
        member.job = entry["job"]

  def note(self, event: str, **fields: Any) -> None:
    """Appends a line and hands it to the operating system."""
    self.append([{"event": event} | fields])

  def append(self, entries: list[dict]) -> None:
    """Appends lines at once and hands them to the operating system."""
    entries = [{"time": time.time()} | entry for entry in entries]
    with open(self.path, "a", encoding="utf-8") as file:
      file.write("".join(json.dumps(entry) + "\n" for entry in entries))
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

  def workdir(self, member: Member) -> str:
    """The member's run folder."""
    return os.path.join(self.folder, member.folder)
