"""Checkpoints on disk: folders of any name, and a save that is read back before anything rests on it."""

import itertools
import os
import pathlib
import shutil
import threading

import numpy as np
import pytest

import child
import outside
from jaxtrain import loop, predict
from jaxtrain.errors import FAILED, NotSaved, UserError
from jaxtrain.run import carry, checkpoints, plain, trained
from jaxtrain.workdir import reading, records
from runs import QUIET

# A library took each for a pattern, a slash or no text, and the checkpoint was written and could not be found again.
NAMES = ("a[x]", "a*b", "q?", "back\\slash", "line\nbreak", "bad\udcff", "caf\xe9", "a b")
SMOKE = ("--config=configs/vae.py:smoke", "--config.data.row_limit=600", *QUIET)
LONGER = (*SMOKE, "--config.train.num_epochs=5", "--config.checkpoint.every_epochs=1",
          "--config.train.monitor_mode=max", "--config.train.monitor_from_epoch=0")
RECORD = {"value": None, "monitor": "val_loss", "best_step": None, "best_value": None, "metrics": {}, "members": []}


def opened(folder, asynchronous=False):
  """Checkpoints in a folder of a workdir that is there."""
  pathlib.Path(folder).parent.mkdir(parents=True, exist_ok=True)
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


@pytest.mark.slow
def test_commands_in_a_folder_whose_name_is_no_text(tmp_path, shared):
  """The path ends in a byte that is no UTF-8: it is printed with an escape, and read and written as it is."""
  workdir = shared.copy(tmp_path / "run\udcff", *LONGER)
  shutil.copytree(workdir, f"{workdir}-b", symlinks=True)
  others = [("main", "--mode=inspect", "--json", f"--workdir={workdir}"),
            ("predict", "--verb=sample", "--num=3", f"--workdir={workdir}", f"--output={workdir}.csv"),
            ("report", workdir, f"{workdir}-b", f"--output={workdir}.html")]
  for command, *flags in others:
    done = child.run(*flags, command=command)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "run\\udcff" in done.stdout
  assert "run%FF-b/report.html" in pathlib.Path(f"{workdir}.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_runs_and_sweeps_in_such_a_folder(name, tmp_path):
  """The second run starts from the first; a sweep is gone on with."""
  run, flags = f"--workdir={tmp_path / name / 'a'}", (*SMOKE, "--sweep=seed=1,2", f"--workdir={tmp_path / name / 's'}")
  commands = [("main", *SMOKE, run), ("main", *SMOKE, run + "-b", f"--init_from={tmp_path / name / 'a'}@last"),
              ("sweep", *flags), ("sweep", *flags)]
  for command, *flags in commands:
    done = child.run(*flags, command=command)
    assert done.returncode == 0 and not done.stderr, done.stderr
  log = pathlib.Path(tmp_path / name / "a" / "log.txt").read_text()
  assert name.encode(errors="backslashreplace").decode() in log


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


@pytest.mark.parametrize("steps, says", [
    ((3,), "there is no other; restore it, or train again in a new workdir"), ((1, 2, 3), "choose a step of 1, 2"),
    ((3, 5), "choose last, or a step of 5")])
def test_what_cannot_be_read_is_not_proposed_instead_of_itself(steps, says, tmp_path):
  """Where the only checkpoint was lost, it said `choose last`, which is that one."""
  for step in steps:
    os.makedirs(tmp_path / "checkpoints" / str(step))
  with pytest.raises(UserError) as error:
    checkpoints.read_named(str(tmp_path), "3")
  assert "checkpoint 3 cannot be read" in str(error.value) and str(error.value).endswith(f"; {says}")
  if steps[-1] == 3:
    with pytest.raises(UserError, match=f"the newest, of step 3, cannot be read .*; {says}"):
      checkpoints.read_named(str(tmp_path), "best")


@pytest.fixture
def best_is_first(tmp_path, shared):
  """A copy of a run of five epochs whose best state is that of the first, as the largest loss."""
  return shared.copy(tmp_path / "run", *LONGER)


def damage(workdir, step, how):
  folder = os.path.join(workdir, "checkpoints", str(step))
  shutil.rmtree(folder) if how == "deleted" else child.damage(folder, how)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["one bit flipped", "no record", "deleted"])
def test_no_other_state_is_taken_for_a_best_that_is_lost(how, best_is_first, tmp_path, monkeypatch, capsys):
  """Before, predict took the newest without a word, or the one that is best if small values are."""
  first, *_, last = records.committed_steps(os.path.join(best_is_first, "checkpoints"))
  assert (first, last) == (3, 15)
  damage(best_is_first, first, how)
  argv = ["predict", f"--workdir={best_is_first}", "--verb=sample", "--num=2", f"--output={tmp_path}/o.csv"]
  monkeypatch.setattr("sys.argv", argv)
  assert predict.main() == 2
  said = capsys.readouterr()
  assert not os.path.exists(tmp_path / "o.csv") and said.out == "" and len(said.err.splitlines()) == 1
  assert "the best checkpoint" in said.err and "choose last, or a step of " in said.err and "15" in said.err
  with pytest.raises(UserError, match="the best checkpoint"):
    carry.take_over(None, best_is_first, "params", (), None)
  described = child.inspect(best_is_first)
  assert "the best state is lost" in capsys.readouterr().err
  assert (described["step"], described["epoch"], described["best_step"]) == (15, 5, 3)
  loop.evaluate(None, best_is_first)
  said = capsys.readouterr()
  assert "the best state is lost" in said.err and "instead of it the state of step 15 is assessed" in said.err
  assert f"assessed is the state of step 15, epoch 5, {described['digest'].split()[0]}" in said.out


def test_a_newest_checkpoint_that_is_damaged_leaves_the_best_unknown(best_is_first, monkeypatch, capsys):
  """It may be the best itself: so the one before does not decide."""
  damage(best_is_first, 15, "no record")
  with pytest.raises(UserError, match="which checkpoint is the best is not known, because the newest, of step 15"):
    records.find_step(best_is_first, "best")
  assert records.find_step(best_is_first, "3") == 3


def test_each_command_names_the_state_it_took(best_is_first, tmp_path, monkeypatch, capsys):
  digest = {step: checkpoints.read(f"{best_is_first}/checkpoints", step)[1]["digest"] for step in (3, 15)}
  for which, step, epoch in (("best", 3, 1), ("last", 15, 5)):
    argv = [f"--workdir={best_is_first}", "--verb=sample", "--num=2", f"--output={tmp_path}/o.csv"]
    summary = predict.run([*argv, f"--checkpoint={which}"])
    assert (summary["step"], summary["epoch"], summary["digest"]) == (step, epoch, f"sha256:{digest[step]}")
    assert f"state of step {step}, epoch {epoch}, sha256:{digest[step]}: 2 rows" in capsys.readouterr().out
  described = child.inspect(best_is_first)
  assert (described["step"], described["epoch"]) == (15, 5)
  assert described["digest"] == f"sha256:{digest[15]} step=15" and capsys.readouterr().err == ""
  loop.evaluate(None, best_is_first)
  said = capsys.readouterr()
  assert f"assessed is the state of step 3, epoch 1, sha256:{digest[3]}" in said.out and said.err == ""


@pytest.mark.parametrize("moment", ["before its record", "between record and arrays"])
def test_a_checkpoint_that_goes_away_while_it_is_read_is_not_called_damaged(moment, best_is_first, monkeypatch, capsys):
  """Each time a reader turns to a checkpoint, the run replaces it by a newer one, three times over."""
  folder = os.path.join(best_is_first, "checkpoints")
  leaves, record = checkpoints.read(folder, 15)
  saving, steps, turns, read_checked = opened(folder), itertools.count(16), [], records.read_checked

  def replaced(folder, step):
    found = read_checked(folder, step) if moment == "between record and arrays" else None
    if turns:
      turns.pop()
      monkeypatch.setattr(records, "read_checked", read_checked)
      new = next(steps)
      saving.save((new, leaves, record | {"best_step": new, "value": None}))
      monkeypatch.setattr(records, "read_checked", replaced)
    return found or read_checked(folder, step)

  monkeypatch.setattr(records, "read_checked", replaced)
  for step, read in ((18, lambda: child.inspect(best_is_first)["step"]),
                     (21, lambda: trained.restore(best_is_first, "best").step),
                     (24, lambda: trained.restore(best_is_first, "last").step)):
    turns[:] = [1, 1, 1]
    assert read() == step and not turns
  turns[:] = [1]
  assert reading.read_run(best_is_first).meta == record["meta"]
  saving.close()
  assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_commands_beside_a_run_that_saves_find_a_checkpoint_each_time(best_is_first, monkeypatch, capsys):
  """A writer saves and deletes all the time; what it deletes under a reader's hands is not called damaged."""
  folder = os.path.join(best_is_first, "checkpoints")
  leaves, record = checkpoints.read(folder, 15)
  meta, done, problems = record["meta"], threading.Event(), []

  def write():
    saving = opened(folder)
    try:
      for step in itertools.count(16):
        if done.is_set():
          return
        saving.save((step, leaves, record | {"best_step": step, "value": None}))
    except BaseException as error:
      problems.append(error)
    finally:
      saving.close()

  writer = threading.Thread(target=write)
  writer.start()
  try:
    while records.committed_steps(folder)[-1] < 50 and writer.is_alive():
      assert child.inspect(best_is_first)["step"] >= 15
      for which in ("best", "last"):
        assert trained.restore(best_is_first, which).step >= 3
      assert reading.read_run(best_is_first).meta == meta
  finally:
    done.set()
    writer.join()
  assert not problems and capsys.readouterr().err == ""
