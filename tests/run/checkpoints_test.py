"""Checkpoints on disk: folders of any name, and a save that is read back before anything rests on it."""

import os
import pathlib

import numpy as np
import pytest

import child
import outside
from jaxtrain import loop
from jaxtrain.errors import FAILED, NotSaved, UserError
from jaxtrain.run import checkpoints, plain
from jaxtrain.workdir import records
from runs import QUIET

# A library took each for a pattern, a slash or no text, and the checkpoint was written and could not be found again.
NAMES = ("a[x]", "a*b", "q?", "back\\slash", "line\nbreak", "bad\udcff", "caf\xe9", "a b")
SMOKE = ("--config=configs/vae.py:smoke", "--config.data.row_limit=600", *QUIET)
RECORD = {"value": None, "best_step": None}


def opened(folder, asynchronous=False):
  return checkpoints.Checkpoints(str(folder), keep_last=1, keep_best=1, mode="min", asynchronous=asynchronous)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name_is_written_and_read(name, tmp_path, monkeypatch):
  folder, temporary = tmp_path / name / "checkpoints", tmp_path / "temporary"
  temporary.mkdir()
  monkeypatch.setattr(plain.tempfile, "tempdir", str(temporary))
  saving = opened(folder)
  for step in (1, 2):
    saving.save((step, {"state": {"a": np.arange(4.0) + step}}, RECORD))
  saving.close()
  leaves, _ = checkpoints.read(str(folder), 2)
  np.testing.assert_array_equal(leaves["state/a"], np.arange(4.0) + 2)
  assert records.committed_steps(str(folder)) == [2] and os.readlink(folder / "last") == "2"
  assert sorted(os.listdir(tmp_path)) == sorted([name, "temporary"])
  assert os.listdir(temporary) == []


def test_a_folder_that_reads_as_a_pattern_is_kept_apart_from_those_it_matches(tmp_path):
  for value, name in enumerate(("axb", "a*b", "a[x]b")):
    saving = opened(tmp_path / name)
    saving.save((1, {"state": {"a": np.full(3, value)}}, RECORD))
    saving.close()
  for value, name in enumerate(("axb", "a*b", "a[x]b")):
    assert checkpoints.read(str(tmp_path / name), 1)[0]["state/a"].tolist() == [value] * 3


def test_a_run_in_such_a_folder_goes_on_and_is_described(tmp_path):
  config, workdir = outside.get_config("table"), str(tmp_path / "a[1]\\*")
  config.train.num_epochs, config.optim.decay_steps = 3, 42
  loop.train(config, workdir)
  config.train.num_epochs = 6
  result = loop.train(config, workdir)
  assert child.resume_steps(workdir) == [0, 21]
  assert child.inspect(workdir)["digest"] == f"sha256:{result.digest} step=42"


def test_commands_in_a_folder_whose_name_is_no_text(tmp_path, shared):
  """The path ends in a byte that is no UTF-8: it is printed with an escape, and read and written as it is."""
  workdir = shared.copy(tmp_path / "run\udcff", *SMOKE)
  others = [("main", *SMOKE, f"--workdir={workdir}-b", f"--init_from={workdir}"),
            ("main", "--mode=inspect", "--json", f"--workdir={workdir}"),
            ("predict", "--verb=sample", "--num=3", f"--workdir={workdir}", f"--output={workdir}.csv"),
            ("report", workdir, f"{workdir}-b", f"--output={workdir}.html")]
  for command, *flags in others:
    done = child.run(*flags, command=command)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "run\\udcff" in done.stdout
  assert "run\\udcff-b" in pathlib.Path(f"{workdir}-b", "log.txt").read_text()
  assert "run%FF-b/report.html" in pathlib.Path(f"{workdir}.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_in_such_a_folder(name, tmp_path):
  flags = (*SMOKE, "--sweep=seed=1,2", f"--workdir={tmp_path / name}")
  for time in ("first", "again"):
    done = child.run(*flags, command="sweep")
    assert done.returncode == 0 and not done.stderr, (time, done.stderr)


def test_no_plain_folder_for_the_link_is_refused_at_the_start(tmp_path, monkeypatch):
  monkeypatch.setattr(plain.tempfile, "tempdir", str(tmp_path / "t[1]"))
  with pytest.raises(UserError, match="TMPDIR: got .*t\\[1\\]"):
    loop.train(outside.get_config("table"), str(tmp_path / "a[1]"))
  assert not os.path.exists(tmp_path / "a[1]" / "checkpoints")


@pytest.mark.parametrize("how", ["truncated", "one bit flipped", "no record"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_save_that_cannot_be_read_back_deletes_nothing_and_is_an_error(how, asynchronous, tmp_path):
  saving, state = opened(tmp_path, asynchronous), {"state": {"a": np.arange(4.0)}}
  saving.save((1, state, RECORD))
  saving.wait()
  save = saving.opened().save

  def damaged(step, **kwargs):
    done = save(step, **kwargs)
    child.damage(str(tmp_path / str(step)), how)
    return done

  saving.manager.save = damaged
  with pytest.raises(NotSaved, match="what was written as checkpoint 2 cannot be used: checkpoint 2") as failure:
    saving.save((2, state, RECORD))
    saving.wait()
  assert failure.value.code == FAILED
  assert records.committed_steps(str(tmp_path)) == [1, 2] and os.readlink(tmp_path / "last") == "1"
  saving.manager.save = save
  saving.save((3, state, RECORD))
  saving.close()
  assert records.committed_steps(str(tmp_path)) == [3]
