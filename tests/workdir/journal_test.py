"""The journal of a sweep: numbers never shift, half a line is cut off, a damaged one is refused."""

import json
import os

import pytest

from jaxtrain.errors import UserError
from jaxtrain.workdir import journal


def begun(folder):
  """A new journal in a folder."""
  os.makedirs(folder, exist_ok=True)
  made = journal.Journal(str(folder))
  made.begin({"config": "x.py", "base": {}})
  return made


def test_numbers_stay_and_outcomes_are_remembered(tmp_path):
  first = begun(tmp_path)
  first.add([({"seed": 0}, "a"), ({"seed": 1}, "b")])
  first.note("started", member=1, job="17_1")
  first.note("failed", member=1, code=3, reason="nan")
  again = journal.Journal(str(tmp_path))
  found = again.add([({"seed": 2}, "c"), ({"seed": 1}, "b"), ({"seed": 2}, "c")])
  assert [member.number for member in found] == [2, 1]
  assert [(m.digest, m.outcome, m.reason, m.job) for m in again.members] == [
      ("a", "added", "", ""), ("b", "failed", "nan", "17_1"), ("c", "added", "", "")]
  assert again.members[2].folder == "runs/002-seed=2" and "seed=2" in again.members[2].label


def test_names_of_folders_hold_nothing_that_a_file_system_minds(tmp_path):
  found = begun(tmp_path).add([({"data.path": "../a b/c.csv", "model.hidden_dims": (64, 32)}, "a")])
  assert found[0].folder == "runs/000-path=.._ab_c.csv,hidden_dims=_64,32_"


def test_half_a_line_is_cut_off_and_a_damaged_one_refused(tmp_path):
  begun(tmp_path).add([({"seed": 0}, "a")])
  path = tmp_path / "journal.jsonl"
  whole = path.read_bytes()
  path.write_bytes(whole + b'{"event": "add')
  assert len(journal.Journal(str(tmp_path)).members) == 1 and path.read_bytes() == whole
  path.write_bytes(b"{broken}\n" + whole)
  with pytest.raises(UserError, match="line 1 is damaged"):
    journal.Journal(str(tmp_path))
  path.write_text(json.dumps({"event": "done", "member": 3}) + "\n")
  with pytest.raises(UserError, match="line 1 is damaged"):
    journal.Journal(str(tmp_path))


def test_a_folder_of_something_else_is_refused(tmp_path):
  (tmp_path / "config.json").write_text("{}")
  with pytest.raises(UserError, match="holds a run, not a sweep"):
    journal.Journal(str(tmp_path))
  (tmp_path / "sweep.json").write_text('{"version": 9}')
  with pytest.raises(UserError, match="version 9"):
    journal.Journal(str(tmp_path))
