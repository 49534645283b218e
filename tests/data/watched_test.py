"""A file that changes under a run that reads it as it trains: one line, and nothing is trained on what it then holds.
"""

import os
import shutil

import h5py
import numpy as np
import pytest

import child
from jaxtrain import config as config_lib, loop
from jaxtrain.data import host, watched
from jaxtrain.errors import UserError
from jaxtrain.workdir import records


def write_file(path):
  with h5py.File(path, "w") as file:
    file["x"] = np.random.RandomState(0).normal(size=(80, 3)).astype(np.float32)
  return str(path)


def configured(path, **fields):
  """A small run over a file, two epochs of ten steps."""
  config = config_lib.read_file("configs/vae.py:csv")
  fields = {"data.source": "hdf5", "data.path": path, "data.features": ("x",), "data.out_of_core": True,
            "data.split.kind": "none", "train.monitor": "train_loss", "optim.plateau.factor": 0.0,
            "model.hidden_dims": (4,), "model.latent_dim": 2, "train.num_epochs": 2, "train.batch_size": 8,
            "log.figures": "none", "log.progress": False, "checkpoint.every_epochs": 1} | fields
  for key, value in fields.items():
    config_lib.assign(config, key, value)
  return config


def rewrite(path, change, keep_time=False):
  """Writes what `change` makes of a file's bytes into the same file."""
  before = os.stat(path)
  with open(path, "r+b") as file:
    data = change(file.read())
    file.seek(0)
    file.truncate()
    file.write(data)
  if keep_time:
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path):
  shutil.copy2(path, path + ".other")
  os.replace(path + ".other", path)


zeros = lambda data: data[:-80 * 12] + bytes(80 * 12)
CHANGES = {
    "truncated": (lambda path: rewrite(path, lambda data: data[:-400]), "its size was [0-9,]+ bytes, is [0-9,]+"),
    "overwritten": (lambda path: rewrite(path, zeros), "it was written to"),
    "overwritten, its time set back": (lambda path: rewrite(path, zeros, True), "its bytes are others"),
    "replaced by a copy": (replace, "another file was put in its place"),
    "removed": (os.remove, "it is gone")}
HARMLESS = {"rights": lambda path: os.chmod(path, 0o640), "another name": lambda path: os.link(path, path + ".link")}


@pytest.fixture
def after_steps(monkeypatch):
  """Calls a function once, after the given number of dispatches of one step; windows hold two steps."""
  def at(num_steps, act):
    left = [num_steps]

    def one_step(self):
      left[0] -= 1
      if not left[0]:
        act()
      return 1

    monkeypatch.setattr(loop.Pace, "num_steps", one_step)
  monkeypatch.setattr(host, "WINDOW_STEPS", 2)
  return at


@pytest.mark.slow
@pytest.mark.parametrize("how", [pytest.param(how, marks=[pytest.mark.slow] * (how in ("truncated", "removed")))
                                 for how in CHANGES])
def test_a_file_that_changes_under_a_run_stops_it(how, tmp_path, after_steps):
  """In the second epoch: the checkpoint of the first stands, and the run goes on once the file is what it was."""
  change, words = CHANGES[how]
  path, workdir = write_file(tmp_path / "x.h5"), str(tmp_path / "run")
  shutil.copy2(path, tmp_path / "kept.h5")
  straight = loop.train(configured(path), None)
  after_steps(14, lambda: change(path))
  with pytest.raises(UserError, match=f"x.h5: the file has changed since the run began to read it: {words}") as failure:
    loop.train(configured(path), workdir)
  assert failure.value.code == 2 and len(str(failure.value).splitlines()) == 1
  assert records.committed_steps(f"{workdir}/checkpoints") == [10]
  shutil.copy2(tmp_path / "kept.h5", path)
  assert loop.train(configured(path), workdir).digest == straight.digest
  assert child.resume_steps(workdir) == [0, 10]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["another name", pytest.param("rights", marks=pytest.mark.slow)])
def test_other_rights_or_another_name_change_nothing(how, tmp_path, after_steps):
  path = write_file(tmp_path / "x.h5")
  straight = loop.train(configured(path), None)
  after_steps(14, lambda: HARMLESS[how](path))
  assert loop.train(configured(path), None).digest == straight.digest


def test_a_file_that_changes_while_it_is_looked_through_is_refused(tmp_path, monkeypatch):
  path, real = write_file(tmp_path / "x.h5"), host.surveys.look

  def survey(*args):
    os.utime(path)
    return real(*args)

  monkeypatch.setattr(host.surveys, "look", survey)
  with pytest.raises(UserError, match="it was written to"):
    loop.train(configured(path), str(tmp_path / "run"))


def test_an_assessment_reads_what_was_trained_on(tmp_path):
  path = write_file(tmp_path / "x.h5")
  table = host.open_hdf5(path, ("x",), "", "")
  source = host.host_source(table, np.arange(80), np.full(80, -1), None, 8,
                            shuffled=False, num_epochs=1)
  rewrite(path, zeros)
  with pytest.raises(UserError, match="it was written to"):
    source.rows(np.arange(3))


def test_several_files_are_watched_together(tmp_path):
  paths = [str(tmp_path / name) for name in "ab"]
  for path in paths:
    with open(path, "w", encoding="utf-8") as file:
      file.write("x")
  both = watched.Watched(*paths)
  both.check()
  os.chmod(paths[1], 0o600)
  both.check()  # no digest is known: size and time decide
  os.utime(paths[1])
  with pytest.raises(UserError, match="b: the file has changed"):
    both.check()
