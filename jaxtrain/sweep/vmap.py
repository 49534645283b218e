"""The launcher that trains members of a sweep as one program: which members share a wave, as many as memory holds.

A wave is recorded in the journal before it starts: after a kill the same members share the same program again, because
what else is in a program may change last bits.
"""

import os
import shutil
from typing import Callable, NamedTuple

import jax

from jaxtrain.devices import backend
from jaxtrain.errors import UserError
from jaxtrain.run import stops
from jaxtrain.sweep import course, groups as groups_lib
from jaxtrain.sweep.groups import Group, Spec
from jaxtrain.sweep.program import Compiled
from jaxtrain.workdir import journal as journal_lib, records
from jaxtrain.workdir.lock import Lock

ROOM = 0.8  # of the memory that is free; the rest for what XLA does not count


class Options(NamedTuple):
  """`exact`: members in turn; `most`: members at a time, 0 = what fits."""
  exact: bool
  most: int


def run(journal: journal_lib.Journal, todo: list, retry: list, config_of: Callable, origins: dict[str, str],
        meanings: dict[str, str], options: Options, stop: stops.Stop, say: Callable[[str], None]) -> None:
  """Trains members, first those of waves that were begun.

  Args:
    journal: of the sweep.
    todo: members to train; retry: those among them that have failed or were lost, and start anew.
    config_of: resolved config of a member.
    origins: of the base config's values; meanings: of the fields of its file.

  Raises:
    UserError: a member cannot be trained among others. Stopped: asked to stop, and saved.
  """
  spec = lambda number: Spec(number, config_of(journal.members[number]),
                             journal.workdir(journal.members[number]),
                             origins | {key: "sweep" for key in journal.members[number].values}, meanings)
  saved = [bool(records.committed_steps(os.path.join(wave_folder(journal, k), "checkpoints")))
           for k in range(len(journal.waves))]  # a wave that has saved nothing is formed anew
  wave_of = {number: k for k, entry in enumerate(journal.waves) if saved[k] for number in entry["members"]}
  again = {member.number for member in retry}
  begun = sorted({wave_of[m.number] for m in todo if m.number in wave_of and m.number not in again})
  for k in begun:
    entry = journal.waves[k]
    groups = groups_lib.group([spec(number) for number in entry["members"]], tuple(entry["fields"]))
    if len(groups) > 1:
      raise UserError(f"--workdir: wave {k} of {journal.folder!r} is no longer one program; was it begun with another "
                      "version of the code? Choose another workdir")
    if entry["exact"] != options.exact:
      raise UserError(f"--exact: wave {k} of {journal.folder!r} was begun {'with' if entry['exact'] else 'without'} "
                      "it; finish it so")
    if entry["devices"] > len(jax.devices()):
      raise UserError(f"--workdir: wave {k} of {journal.folder!r} was begun on {entry['devices']} devices, there are "
                      f"{len(jax.devices())}; its members' bits depend on that: choose another workdir")
    compiled = groups[0].compiled(entry["places"], entry["devices"], entry["exact"])
    train(journal, k, compiled, groups[0], stop, say)
  for number in again:
    journal.note("started", member=number)  # one that was done, and lost, is no longer
  fresh = [spec(m.number) for m in todo if m.number in again or m.number not in wave_of]
  for one in fresh:
    if one.number not in again and records.committed_steps(os.path.join(one.workdir, "checkpoints")):
      raise UserError(f"--launcher=vmap: member {one.number:03d} was begun as a run of its own; finish it with "
                      "--launcher=local")
  groups = groups_lib.group(fresh) if fresh else []
  if len(groups) > 1:
    say(f"jaxtrain: {len(groups)} groups of equal shapes: {', '.join(str(len(g.specs)) for g in groups)} members")
  for group in groups:
    compiled = compile_largest(group, options)
    places = compiled.num_places
    for start in range(0, len(group.specs), places):
      part = group._replace(specs=group.specs[start:start + places], parts=group.parts[start:start + places])
      journal.note("wave", members=[s.number for s in part.specs], fields=group.fields, places=places,
                   devices=compiled.num_devices, exact=options.exact)
      train(journal, len(journal.waves) - 1, compiled, part, stop, say)


def compile_largest(group: Group, options: Options) -> Compiled:
  """The group's functions for as many members at a time as memory holds, or `options.most`.

  Raises:
    UserError: not even one member per device fits.
  """
  places = min(len(group.specs), options.most or len(group.specs))
  while True:
    # XLA simplifies a program of several devices once more before it optimises, which can change a member's last bits.
    num_devices = 1 if options.exact else min(len(jax.devices()), places)
    compiled = group.compiled(places, num_devices, options.exact)
    needed, room = compiled.bytes_needed(), ROOM * backend.free_bytes()
    if needed <= room:
      return compiled
    if places == 1:
      raise UserError(f"--launcher=vmap: a member needs {needed / 2**20:,.0f} MiB, {room / 2**20:,.0f} MiB are free")
    places = -(-places // 2)


def train(journal: journal_lib.Journal, k: int, compiled: Compiled, group: Group,
          stop: stops.Stop, say: Callable[[str], None]) -> None:
  """Trains one wave and notes what becomes of its members."""
  entry = journal.waves[k]
  outcome = lambda number: journal.members[number].outcome
  numbers = [spec.number for spec in group.specs]
  say(f"jaxtrain: wave {k}: {len(numbers)} members as one program on {compiled.num_devices} x "
      f"{jax.devices()[0].device_kind}{', in turn' if entry['exact'] else ''}")
  for number in numbers:
    if outcome(number) != "done":
      journal.note("started", member=number)
  done = {number for number in numbers if outcome(number) == "done"}
  folder = wave_folder(journal, k)
  with Lock(*(spec.workdir for spec in group.specs)):  # `main` on a member would write the same facts
    failures = course.train(compiled, group.specs, group.parts, folder, stop, say, done,
                          lambda number: journal.note("done", member=number))
  for number, (code, reason) in failures.items():
    if number not in done:
      journal.note("failed", member=number, code=code, reason=reason)
  shutil.rmtree(folder)  # each member has its own files now


def wave_folder(journal: journal_lib.Journal, k: int) -> str:
  """Folder of a wave's checkpoints."""
  return os.path.join(journal.folder, "waves", str(k))
