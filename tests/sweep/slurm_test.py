"""Jobs of Slurm leave their outcome as JSON: a pickle that lies in a sweep's folder is never read."""

import os
import pathlib
import pickle
import types

import pytest

from jaxtrain import commands, errors
from jaxtrain.commands import Outcome
from jaxtrain.errors import UserError
from jaxtrain.sweep import children, slurm


class Attack:
  """Unpickled, it makes a folder."""

  def __init__(self, folder):
    self.folder = folder

  def __reduce__(self):
    return os.mkdir, (str(self.folder),)


class SlurmJob:
  """Stands for submitit's handle of a job, which unpickles a result where it is asked for one."""

  def __init__(self, folder, job_id):
    self.folder, self.job_id = folder, job_id
    self.paths = types.SimpleNamespace(result_pickle=pathlib.Path(folder) / f"{job_id}_0_result.pkl")

  def result(self):
    return pickle.loads(self.paths.result_pickle.read_bytes())

  exception = result

  def stderr(self):
    return "it said\nno memory\n"


@pytest.fixture
def sweep(tmp_path, monkeypatch):
  monkeypatch.setattr(slurm, "need", lambda *_: types.SimpleNamespace(SlurmJob=SlurmJob))
  monkeypatch.setattr(slurm, "queued", lambda: {"17_0"})
  (tmp_path / "slurm").mkdir()
  (tmp_path / "slurm" / "17_0_0_result.pkl").write_bytes(pickle.dumps(Attack(tmp_path / "mark")))
  return tmp_path


def outcomes(folder):
  job = children.Job(3, [], str(folder / "runs" / "003"))
  stop = types.SimpleNamespace(reason=lambda: None)
  return list(slurm.run_slurm([job], str(folder), "", 0, stop, {3: "17_0"}, lambda *_, **__: None))


@pytest.mark.parametrize("outcome", [Outcome(0, "", ""), Outcome(3, "NonFinite", "loss")])
def test_the_outcome_of_a_job_is_read_as_json(outcome, sweep):
  commands.write_outcome(outcome, {commands.OUTCOME_VARIABLE: slurm.outcome_path(sweep / "slurm", "17_0")})
  assert outcomes(sweep) == [(3, outcome)] and not (sweep / "mark").exists()


def test_a_job_that_left_none_has_failed_with_what_it_last_said(sweep):
  assert outcomes(sweep) == [(3, Outcome(errors.FAILED, "", "no memory"))] and not (sweep / "mark").exists()


@pytest.mark.parametrize("text", ["[]", "{}", '{"code": "0", "kind": "", "reason": ""}'])
def test_an_outcome_of_another_shape_is_one_line(text, sweep):
  pathlib.Path(slurm.outcome_path(sweep / "slurm", "17_0")).write_text(text)
  with pytest.raises(UserError, match="17_0_outcome.json is damaged"):
    outcomes(sweep)
