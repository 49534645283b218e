"""Files that are replaced whole: unique names, no link followed, nothing left of what fails."""

import os
import stat
import threading

import numpy as np
import pytest

from jaxtrain import predict
from jaxtrain.data import files, writing
from jaxtrain.errors import UserError
from jaxtrain.report import page
from jaxtrain.run import checkpoints
from jaxtrain.workdir import atomic, facts, journal, jsonfile, lock

SUFFIXES = (".csv", ".parquet", ".npz", ".h5")


def columns(value: float, num_rows: int = 3):
  return {"a": np.full(num_rows, value)}


WRITERS = {
    "json": lambda path: jsonfile.write_json(path, {"a": 1}), "page": lambda path: page.write(path, "t", []),
    **{suffix: lambda path: writing.write(path, columns(1.0)) for suffix in SUFFIXES}}


@pytest.mark.parametrize("kind", WRITERS)
def test_neither_a_neighbour_nor_what_a_link_names_is_written(kind, tmp_path):
  path = str(tmp_path / f"out{kind if kind in SUFFIXES else '.x'}")
  victim = tmp_path / "victim"
  victim.write_text("mine")
  for name in (f"{path}.new", f"{path}.tmp"):
    os.symlink(victim, name)
  os.symlink(victim, path)
  WRITERS[kind](path)
  assert victim.read_text() == "mine" and not os.path.islink(path) and os.path.getsize(path) > 0
  mask = os.umask(0)
  os.umask(mask)
  assert stat.S_IMODE(os.stat(path).st_mode) == 0o666 & ~mask  # of a normal file
  assert len(os.listdir(tmp_path)) == 4


def test_a_file_of_the_users_that_ends_in_new_stays(tmp_path):
  (tmp_path / "out.csv.new").write_text("mine")
  writing.write(str(tmp_path / "out.csv"), columns(1.0))
  assert (tmp_path / "out.csv.new").read_text() == "mine"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_two_writers_of_one_file_leave_what_one_of_them_wrote(suffix, tmp_path, monkeypatch):
  path, kind = str(tmp_path / f"out{suffix}"), files.SUFFIXES[suffix]
  write, both = writing.WRITERS[kind], threading.Barrier(2, timeout=20)

  def at_once(fresh, given):
    write(fresh, given)
    both.wait()  # both have written, neither has put its file there
    with open(fresh, "rb") as file:
      assert len(file.read()) > 0

  monkeypatch.setitem(writing.WRITERS, kind, at_once)
  threads = [threading.Thread(target=writing.write, args=(path, columns(value, 50 * int(value)))) for value in (1., 2.)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  found = np.asarray(files.read(kind, path).values["a"], float)
  assert found.tolist() in ([1.0] * 50, [2.0] * 100) and os.listdir(tmp_path) == [f"out{suffix}"]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
  path = tmp_path / "a.json"
  path.write_text("old")
  with pytest.raises(TypeError):
    jsonfile.write_json(str(path), {"a": object()})
  with pytest.raises(KeyboardInterrupt), atomic.replacing(str(path)):
    raise KeyboardInterrupt
  assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]


def test_an_error_names_the_file_that_was_asked_for(tmp_path):
  for path in (tmp_path / "no such folder" / "a.json", tmp_path):
    with pytest.raises(OSError) as caught:
      jsonfile.write_json(str(path), {})
    assert caught.value.filename == str(path)


def test_links_of_checkpoints_are_replaced_beside_a_planted_name(tmp_path):
  for name in ("1", "2"):
    (tmp_path / name).mkdir()
  (tmp_path / "last.new").write_text("mine")
  for target in ("1", "2"):
    checkpoints.point(str(tmp_path / "last"), target)
  assert os.readlink(tmp_path / "last") == "2" and (tmp_path / "last.new").read_text() == "mine"
  assert sorted(os.listdir(tmp_path)) == ["1", "2", "last", "last.new"]


@pytest.mark.parametrize("name", ["events.jsonl", "scalars.csv", ".lock", "log.txt", "journal.jsonl"])
def test_nothing_is_added_to_or_cut_through_a_link_in_a_workdir(name, tmp_path):
  victim, folder = tmp_path / "victim", tmp_path / "run"
  victim.write_text("mine\nhalf")
  folder.mkdir()
  os.symlink(victim, folder / name)
  written = facts.Facts(str(folder), "id")
  actions = {"events.jsonl": lambda: written.write("events.jsonl", "x\n"), "scalars.csv": lambda: written.start_fresh(),
             ".lock": lambda: lock.Lock(str(folder)), "journal.jsonl": lambda: journal.Journal(str(folder)).read(),
             "log.txt": lambda: predict.commands.Log.append(argued(folder), "x")}
  with pytest.raises(UserError, match="is a link, through which nothing is written"):
    actions[name]()
  assert victim.read_text() == "mine\nhalf"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_nothing_is_added_to_what_is_no_file(make, tmp_path):
  make(tmp_path / "log.txt")
  for mode in ("a", "a+"):
    with pytest.raises(UserError, match="log.txt: is no regular file"):
      atomic.open_own(str(tmp_path / "log.txt"), mode)


def argued(folder):
  log = predict.commands.Log()
  log.folder = str(folder)
  return log
