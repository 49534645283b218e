"""Checkpoints: orbax on disk, a digest per leaf and over all, the newest usable one back, `best` and `last` as links.

A checkpoint is a folder `checkpoints/<step>/` that orbax writes under another name and renames when it is whole. It
holds the arrays and a JSON item with the layout, the digests and what the loop wants to remember. Small leaves are
packed into one array of bytes: orbax costs about a millisecond a leaf, and the states of small models have dozens of
tiny ones.

Orbax 0.12 has no checksum of its own: of 25 flipped bytes 24 went unseen. Each checkpoint is therefore read back when
it is written, before an older one is deleted. That takes the saver's thread 10 ms for a small model, and for 240 MB
1.3 s beside the 2.3 s of writing.
"""

import errno
import json
import logging
import math
import os
import shutil
import threading
import time
from typing import Any, Callable

import jax
import numpy as np

from jaxtrain import memory
from jaxtrain.errors import NotSaved, UserError
from jaxtrain.run import packing, stops
from jaxtrain.run.plain import Plain
from jaxtrain.workdir import atomic, records


def read(folder: str, step: int) -> tuple[dict[str, np.ndarray], dict]:
  """Leaves and record of a step; changes nothing in the folder, whose run may be saving meanwhile.

  Raises:
    UserError: the checkpoint is not whole, or a digest does not hold.
  """
  ocp = import_orbax()
  try:
    record = records.read_checked(folder, step)
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone(ocp))
    with Plain(folder) as path, ocp.Checkpointer(handler, multiprocessing_options=alone(ocp)) as reader:
      path = os.path.join(path, str(step), "state")
      described = reader.metadata(path).item_metadata
      if described is None:
        raise ValueError("its arrays are not there")
      check_claims(described.tree)
      arrays = reader.restore(path)
    leaves = packing.unpack(arrays, record["layout"])
    if "step" not in record and "state/step" in leaves and leaves["state/step"].shape == ():  # a wave has several
      records.check_step(int(leaves["state/step"]), step)
    _, every = packing.digest_leaves(leaves)
    changed = [path for path, value in record["leaf_digests"].items() if path not in every or every[path] != value]
  except Exception as error:  # orbax raises many types for damaged files
    lines = (str(error) or type(error).__name__).strip().splitlines()
    raise UserError(f"checkpoint {step} cannot be read: {lines[0][:200]}") from None
  if changed:
    raise UserError(f"checkpoint {step}: the digest of {changed[0]} does not hold; the file has changed")
  return leaves, record


def read_newest(folder: str) -> tuple[int, dict[str, np.ndarray], dict, list[str]]:
  """(step, leaves, record, why newer ones cannot be read) of the newest checkpoint that can be read.

  Raises:
    UserError: there is none, or none can be read.
  """
  damaged: dict[int, str] = {}
  while left := [step for step in records.committed_steps(folder) if step not in damaged]:
    try:
      return left[-1], *read(folder, left[-1]), list(damaged.values())
    except UserError as error:
      if not records.vanishes(folder, left[-1]):
        damaged[left[-1]] = str(error)
  raise UserError("\n".join([none_left(folder), *list(damaged.values())[:3]]))


def none_left(folder: str, whole: bool = False) -> str:
  """What to say where no checkpoint can be used; `whole`: one can be read, and facts that it knows of cannot."""
  if whole:
    return f"{folder}: a checkpoint can be read, and not the facts that it goes on from; restore the file named here:"
  return f"{folder}: no checkpoint can be used; start a new workdir"


def read_named(workdir: str, which: str) -> tuple[int, dict[str, np.ndarray], dict]:
  """(step, leaves, record) of the checkpoint that `best`, `last` or a step names.

  Raises:
    UserError: there is none, or it cannot be read; no other is taken in its place.
  """
  folder = os.path.join(workdir, "checkpoints")
  while True:
    step = records.find_step(workdir, which)
    try:
      return step, *read(folder, step)
    except UserError as error:
      if not records.vanishes(folder, step):
        words = "the best " if which == "best" else ""
        raise UserError(f"{workdir!r}: {words}{error}; {records.there_are(folder, step)}") from None


def import_orbax():
  """Orbax, slow to import. It is told to log nothing: what it logs of a damaged file, pages of it, it raises too."""
  import orbax.checkpoint as ocp
  logging.getLogger("absl").setLevel(logging.CRITICAL + 1)
  return ocp


def check_claims(described: dict[str, Any]) -> None:
  """Raises ValueError where stored arrays are said to be larger than may be read: orbax makes what a file lacks."""
  memory.check(sum(math.prod(one.shape) * np.dtype(one.dtype).itemsize for one in described.values()), "its state")


def alone(ocp):
  """Options of orbax for one process that does not wait for others: it reads and writes what all have alike."""
  index = jax.process_index()
  return ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index})


def prepare(leaves: dict[str, np.ndarray], record: dict) -> tuple[dict[str, np.ndarray], dict]:
  """(arrays to store, record with layout and digests) of the leaves of a dict of trees."""
  whole, _ = packing.digest_leaves({path[len("state/"):]: leaf for path, leaf in leaves.items()
                                    if path.startswith("state/")})
  _, every = packing.digest_leaves(leaves)
  arrays, layout = packing.pack(leaves)
  record = json.loads(json.dumps(record | {"digest": whole, "layout": layout, "leaf_digests": every}))
  return arrays, record | {"record_digest": records.digest_record(record)}


class Checkpoints:
  """The checkpoints of one run. Saving copies to the host in the caller's thread; one of its own digests and writes.

  On a CPU that copy may be a view of the device's buffer: a donated buffer that is still looked at is not reused.
  """

  def __init__(self, folder: str, *, keep_last: int, keep_best: int, mode: str, asynchronous: bool):
    self.folder, self.keep_last, self.keep_best, self.mode = os.path.abspath(folder), keep_last, keep_best, mode
    self.asynchronous = asynchronous
    self.plain = Plain(folder)
    self.manager = None
    self.saver: threading.Thread | None = None
    self.error: BaseException | None = None
    self.cpu_seconds = 0.0  # of the saver's threads, orbax's own and its import left out
    self.import_seconds = 0.0

  def opened(self):
    """Orbax's manager, made at first use because orbax is slow to import."""
    path = self.plain.__enter__()
    if self.manager is None:
      began = time.thread_time()
      self.ocp = ocp = import_orbax()
      self.import_seconds = time.thread_time() - began
      self.cpu_seconds -= self.import_seconds
      if not os.path.isdir(self.folder):
        os.mkdir(self.folder)  # orbax makes none for one process of several; a workdir that is gone stays so
      self.manager = ocp.CheckpointManager(path, options=ocp.CheckpointManagerOptions(
          max_to_keep=None, cleanup_tmp_directories=True, enable_async_checkpointing=False, create=False,
          multiprocessing_options=alone(ocp)))
    return self.manager

  def save(self, *checkpoints: tuple[int, dict[str, Any], dict]) -> None:
    """Saves (step, dict of trees, JSON-able record) each, in order; waits for the save before.

    Raises:
      OSError: a save before this one could not be written; of a synchronous one, this.
    """
    stops.fault_point("before_save")
    self.wait()
    copies = [(step, packing.host_leaves(tree), record) for step, tree, record in checkpoints]
    if self.asynchronous:
      self.saver = threading.Thread(target=self.write_guarded, args=(copies,))
      self.saver.start()
    else:
      self.write_guarded(copies)
      self.wait()

  def write_guarded(self, copies: list[tuple[int, dict, dict]]) -> None:
    """Writes one after the other; an error is kept for the caller's next `wait`."""
    began = time.thread_time()
    try:
      for step, leaves, record in copies:
        self.write(step, *prepare(leaves, record | {"step": step}))
    except BaseException as error:
      self.error = error
    self.cpu_seconds += time.thread_time() - began

  def write(self, step: int, arrays: dict, record: dict) -> None:
    """Writes, commits, reads it back, points the links at it, deletes what is no longer kept."""
    if not os.path.isdir(os.path.dirname(self.folder)):
      raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.path.dirname(self.folder))
    manager = self.opened()
    ocp = self.ocp
    if step in records.committed_steps(self.folder):
      manager.delete(step)
    stops.fault_point("during_save")
    try:
      saved = manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(arrays),
                                                         record=ocp.args.JsonSave(record)))
    except Exception as error:  # whatever orbax and tensorstore make of a full disk
      if "No space left" in str(error):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.path.join(self.folder, str(step))) from None
      raise
    if not saved:
      raise OSError(errno.EEXIST, "orbax did not save, because a later step is there",
                    os.path.join(self.folder, str(step)))
    self.verify(step, record)
    stops.fault_point("before_link")
    self.repair()
    stops.fault_point("before_delete")
    for old in sorted(set(records.committed_steps(self.folder)) - self.kept()):
      manager.delete(old)
    stops.fault_point("after_save")

  def verify(self, step: int, record: dict) -> None:
    """Reads a checkpoint back, all digests included. Raises NotSaved where it is not what was to be written."""
    try:
      _, found = read(self.folder, step)
      reason = "" if found["record_digest"] == record["record_digest"] else "it is another one"
    except UserError as error:
      reason = str(error)
    if reason:
      raise NotSaved(f"what was written as checkpoint {step} cannot be used: {reason}; nothing was deleted, the same "
                     "command goes on from the newest checkpoint that can")

  def kept(self) -> set[int]:
    """Steps that the policy keeps."""
    best = records.best_step(self.folder, self.mode)  # always: the end of the run assesses it
    ranked = records.ranking(self.folder, self.mode)[:self.keep_best]
    kept = {*records.committed_steps(self.folder)[-self.keep_last:], *ranked}
    return kept | {best} if best is not None else kept

  def repair(self) -> None:
    """Points `best` and `last` at the committed steps they should name; a link to what is lost goes."""
    steps = records.committed_steps(self.folder)
    for name, step in (("last", steps[-1] if steps else None), ("best", records.best_step(self.folder, self.mode))):
      if step is None:
        remove(os.path.join(self.folder, name))
      else:
        point(os.path.join(self.folder, name), str(step))

  def restore_newest(self, template: dict[str, Any], check: Callable[[dict], None] = lambda record: None
                     ) -> tuple[int, dict[str, Any], dict, list[str]] | None:
    """(step, tree, record, reasons of those skipped) of the newest usable checkpoint; None where there is none at all.

    Args:
      template: what to restore.
      check: raises UserError where what a record knows of beside the arrays, such as facts, is no longer there.

    Raises:
      UserError: there are checkpoints and none can be used.
    """
    skipped, whole = [], False
    for step in reversed(records.committed_steps(self.folder)):
      try:
        leaves, record = read(self.folder, step)
        whole = True
        check(record)
        return step, {name: packing.fill(tree, leaves, name) for name, tree in template.items()}, record, skipped
      except UserError as error:
        skipped.append(str(error))
    if skipped:
      raise UserError("\n".join([none_left(self.folder, whole), *skipped[:3]]))
    return None

  def drop_after(self, step: int) -> None:
    """Deletes checkpoints newer than `step`: unusable ones that a resumed run is about to write again."""
    for newer in [s for s in records.committed_steps(self.folder) if s > step]:
      shutil.rmtree(os.path.join(self.folder, str(newer)))
    if self.manager is not None:
      self.manager.reload()

  def wait(self) -> None:
    """Waits for the save under way and raises its error, if any."""
    if self.saver is not None:
      self.saver.join()
      self.saver = None
    if self.error is not None:
      error, self.error = self.error, None
      raise error

  def close(self) -> None:
    """Waits and closes orbax's manager."""
    try:
      self.wait()
    finally:
      if self.manager is not None:
        self.manager.close()
        self.manager = None
      self.plain.__exit__()


def of_run(config, workdir: str) -> Checkpoints:
  """The checkpoints of a run's workdir, kept as its config says."""
  settings = config.checkpoint
  return Checkpoints(os.path.join(workdir, "checkpoints"), keep_last=settings.keep_last, keep_best=settings.keep_best,
                     mode=config.train.monitor_mode, asynchronous=settings.asynchronous)


def point(link: str, target: str) -> None:
  """Makes `link` a relative symlink to `target` beside it, atomically; a copy where links are impossible."""
  if os.path.islink(link) and os.readlink(link) == target:
    return
  fresh = atomic.beside(link)
  try:
    try:
      os.symlink(target, fresh, target_is_directory=True)
    except OSError:
      shutil.copytree(os.path.join(os.path.dirname(link), target), fresh)
    stops.fault_point("during_link")
    if os.path.isdir(link) and not os.path.islink(link):
      remove(link)
    os.replace(fresh, link)
  except OSError:
    remove(fresh)
    raise


def remove(path: str) -> None:
  """Removes a link, or a folder with all in it, if it is there."""
  if os.path.islink(path):
    os.unlink(path)
  elif os.path.isdir(path):
    shutil.rmtree(path)
