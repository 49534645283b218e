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


def test_a_sweep_that_has_not_trained_is_replaced(tmp_path):
  """Not one whose member may run, shared a program, or has written its config."""
  for event in ("added", "failed", "started", "wave", "written"):
    made = begun(tmp_path / event)
    assert made.is_untrained()
    made.add([({"seed": 0}, "a"), ({"seed": 1}, "b")])
    os.makedirs(made.workdir(made.members[0]))
    if event == "failed":
      made.note("failed", member=0, code=2, reason="no such column")
    elif event == "started":
      made.note("started", member=0)
    elif event == "wave":
      made.note("wave", members=[0], fields=[], places=1, devices=1, exact=False)
    elif event == "written":
      with open(os.path.join(made.workdir(made.members[0]), "config.json"), "w", encoding="utf-8") as file:
        file.write("{}")
    assert made.is_untrained() == (event in ("added", "failed"))
  made = journal.Journal(str(tmp_path / "failed"))
  made.begin_again({"config": "y.py", "base": {"a": 1}})
  again = journal.Journal(str(tmp_path / "failed"))
  assert again.about["base"] == {"a": 1} and not again.members and not os.path.exists(tmp_path / "failed" / "runs")
  assert [m.number for m in made.add([({"seed": 7}, "c")])] == [0]


def test_names_of_folders_hold_nothing_that_a_file_system_minds(tmp_path):
  found = begun(tmp_path).add([({"data.path": "../a b/c.csv", "model.hidden_dims": (64, 32)}, "a")])
  assert found[0].folder == "runs/000-data.path=.._ab_c.csv,hidden_dims=_64,32_"


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


def test_a_wrong_line_is_refused_and_not_written(tmp_path):
  made = begun(tmp_path)
  made.add([({"seed": 0}, "a")])
  before = (tmp_path / "journal.jsonl").read_bytes()
  for event, fields, says in (("failed", {"member": 0}, "failed: the field 'code' is missing"),
                              ("done", {"member": 0, "code": 0}, "done: there is no field 'code'"),
                              ("stopped", {"member": 0}, "must have an event out of added, started"),
                              ("wave", {"members": ["a"]}, "wave: the field 'fields' is missing")):
    with pytest.raises(ValueError, match=says):
      made.note(event, **fields)
  assert (tmp_path / "journal.jsonl").read_bytes() == before and made.members[0].outcome == "added"


def described(sweep):
  """All that a reading of a sweep has found."""
  return sweep.about, [vars(member) for member in sweep.members], sweep.waves


def test_pages_and_sweeps_read_a_whole_journal_alike(tmp_path):
  made = begun(tmp_path)
  made.add([({"model.hidden_dims": [8], "seed": k}, str(k)) for k in range(3)])
  made.note("wave", members=[0, 1, 2], fields=("seed",), places=3, devices=1, exact=False)
  made.note("started", member=1, job="17_1")
  made.note("failed", member=1, code=3, reason="nan")
  made.note("failed", member=2, code=1, reason="")
  made.note("started", member=2)
  made.note("done", member=0)
  strict, lenient = journal.Journal(str(tmp_path)), journal.read_sweep(str(tmp_path))
  assert described(strict) == described(lenient)
  assert [(m.outcome, m.reason, m.code) for m in lenient.members] == [
      ("done", "", None), ("failed", "nan", 3), ("started", "", None)]


def test_pages_read_a_damaged_journal_as_far_as_it_goes(tmp_path):
  made = begun(tmp_path)
  made.add([({"seed": k}, str(k)) for k in range(3)])
  lines = (tmp_path / "journal.jsonl").read_text().splitlines()
  more = ['{"event": "done", "member": 2, "later": true}', '{"event": "done", "member": 1}', '{"event": "paused"}',
          '{"event": ["done"], "member": 0}', '{"event": "failed", "member": 0, "code": "three", "reason": "x"}',
          "[]", '{"even']
  text = "\n".join([lines[0], "{broken", lines[2], *more])
  (tmp_path / "journal.jsonl").write_text(text)
  found = journal.read_sweep(str(tmp_path))
  assert [(m.number, m.outcome) for m in found.members] == [(0, "added"), (2, "done")]  # numbers do not shift
  assert (tmp_path / "journal.jsonl").read_text() == text
  with pytest.raises(UserError, match="line 2 is damaged"):
    journal.Journal(str(tmp_path))


def test_a_sweep_is_not_gone_on_with_where_a_member_is_missing(tmp_path):
  begun(tmp_path).add([({"seed": k}, str(k)) for k in range(3)])
  lines = (tmp_path / "journal.jsonl").read_text().splitlines(keepends=True)
  (tmp_path / "journal.jsonl").write_text(lines[0] + lines[2])
  with pytest.raises(UserError, match="a member that was added is missing"):
    journal.Journal(str(tmp_path))


@pytest.mark.parametrize("text", [None, ""])
def test_a_journal_that_is_gone_is_told_from_one_not_begun(text, tmp_path):
  made = begun(tmp_path)
  made.add([({"seed": 0}, "a")])
  assert journal.Journal(str(tmp_path)).members  # as it was left
  os.remove(tmp_path / "journal.jsonl")
  assert journal.Journal(str(tmp_path)).members == []  # nothing has started
  os.makedirs(made.workdir(made.members[0]))
  if text is not None:
    (tmp_path / "journal.jsonl").write_text(text)
  with pytest.raises(UserError, match="journal.jsonl is missing or empty, and .* holds members; restore the file"):
    journal.Journal(str(tmp_path))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_journal_that_is_no_file_is_refused(make, tmp_path):
  begun(tmp_path)
  make(tmp_path / "journal.jsonl")
  with pytest.raises(UserError, match="journal.jsonl cannot be read"):
    journal.Journal(str(tmp_path))


@pytest.mark.parametrize("about", [None, "{", "[]"])
def test_pages_refuse_a_folder_without_a_sweep(tmp_path, about):
  (tmp_path / "journal.jsonl").write_text("")
  if about is not None:
    (tmp_path / "sweep.json").write_text(about)
  with pytest.raises(UserError, match="is no sweep that can be read"):
    journal.read_sweep(str(tmp_path))


def test_a_tuple_reads_alike_before_and_after_it_was_in_the_journal():
  assert {journal.describe({"model.hidden_dims": value}) for value in ((8,), [8])} == {"hidden_dims=(8,)"}


def test_members_are_called_as_pages_call_their_fields():
  assert journal.describe({"optim.learning_rate": 1e-3, "loss.weights.class": 0.1}) == (
      "learning_rate=0.001, weights.class=0.1")
