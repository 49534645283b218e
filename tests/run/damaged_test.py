"""Files of a run that are damaged, or JSON of another shape: one line for each command, and what can be is restored."""

import json
import math
import os
import shutil
import types

import numpy as np
import pytest

import child
import outside
from jaxtrain import config as config_lib, loop
from jaxtrain.errors import UserError
from jaxtrain.report import __main__ as report
from jaxtrain.run import checkpoints, inspect, trained
from jaxtrain.workdir import provenance, records

CODE = ("outside",)


def configured():
  return outside.get_config("stream")  # 120 steps, saved at 40, 80 and 120; the newest two are kept


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  folder = str(tmp_path_factory.mktemp("made") / "run")
  loop.train(configured(), folder)
  return folder


@pytest.fixture
def run(made, tmp_path):
  return shutil.copytree(made, tmp_path / "run", symlinks=True)


def from_python(workdir):
  with config_lib.strangers(workdir, CODE):
    return config_lib.from_workdir(records.read_config(workdir), workdir)


COMMANDS = {
    "train": lambda workdir: loop.train(configured(), workdir), "inspect": inspect.inspect,
    "eval": lambda workdir: loop.evaluate(configured(), workdir),
    "restore": lambda workdir: trained.restore(workdir, "best", CODE), "config": from_python,
    "report": lambda workdir: report.write_page([workdir], "", False)}
READ_CONFIG = ("train", "inspect", "eval", "restore", "config")


def refused(command, workdir) -> str:
  """The complaint of a command, of one to four lines."""
  with pytest.raises(UserError) as caught:
    COMMANDS[command](str(workdir))
  assert 1 <= len(str(caught.value).splitlines()) <= 4
  return str(caught.value)


def rewrite(path, change) -> None:
  record = json.loads(path.read_text())
  path.write_text(json.dumps(change(record)))


@pytest.mark.parametrize("text", ["[]", "5", "null", '"x"', "{", "", "[" * 100_000, '{"experiment": 5}',
                                  '{"experiment": "outside", "train": 5}', '{"experiment": "outside", "stages": {}}'])
def test_config_json_of_another_shape(text, run):
  (run / "config.json").write_text(text)
  for command in READ_CONFIG:
    assert "config.json" in refused(command, run), command


@pytest.mark.parametrize("section, field, value", [
    ("train", "batch_size", "many"), ("train", "batch_size", True), ("optim", "betas", 0.9),
    ("optim", "plateau", []), ("eval", "every_epochs", None), ("checkpoint", "asynchronous", 1),
    ("optim", "a.b", 1)])
def test_fields_of_another_kind(section, field, value, run):
  rewrite(run / "config.json", lambda record: record | {section: record[section] | {field: value}})
  assert "config.json" in refused("config", run) and "another config" in refused("train", run)


@pytest.mark.parametrize("text", ["{", '{"argv": 5}', *(pytest.param(text, marks=pytest.mark.slow)
                                                        for text in ("[]", "5"))])
def test_run_json_of_another_shape(text, run):
  (run / "run.json").write_text(text)
  with pytest.raises(UserError, match="run.json is damaged"):
    provenance.write_process(str(run), [], {}, {})
  assert "run.json" in json.dumps(COMMANDS["report"](str(run)) and (run / "report.html").read_text())


def test_a_json_file_that_is_no_text(run):
  (run / "config.json").write_bytes(b"\xff\xfe\0")
  for command in (*READ_CONFIG, "report"):
    assert "config.json" in refused(command, run), command


CHANGES = {
    "a key is missing": lambda record: {k: v for k, v in record.items() if k != "offsets"},
    "no run": lambda record: {k: v for k, v in record.items() if k != "run_id"},
    "other kind": lambda record: record | {"best_step": "40"}, "metrics": lambda record: record | {"metrics": [1]},
    "a list": lambda record: [record], "sample": lambda record: record | {"sample": {"x": 5}},
    "elsewhere": lambda record: record | {"offsets": record["offsets"] | {"../../victim": 0}}}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_record_of_another_shape_is_as_a_damaged_checkpoint(change, run, capsys):
  def changed(record):
    record = change(record)
    return record | {"record_digest": records.digest_record(record)} if isinstance(record, dict) else record
  (run / "victim").write_text("mine")
  for step in (80, 120):
    rewrite(run / "checkpoints" / str(step) / "record" / "metadata", changed)
  assert "checkpoint" in refused("train", run) and "checkpoint" in refused("inspect", run)
  refused("restore", run)
  refused("eval", run)
  assert (run / "victim").read_text() == "mine"


def test_checkpoints_of_another_run_are_refused(run, tmp_path):
  """Of equal shapes, trained with another seed; and not where it is not known whose the folder is."""
  config = configured()
  config.seed = 5
  loop.train(config, str(tmp_path / "other"))
  shutil.rmtree(run / "checkpoints")
  shutil.copytree(tmp_path / "other" / "checkpoints", run / "checkpoints", symlinks=True)
  for command in ("train", "eval", "inspect", "restore"):
    assert "it is that of another run" in refused(command, run)
  shutil.rmtree(run / "facts")
  assert trained.restore(str(run), "last", CODE).step == 120


@pytest.mark.parametrize("has_step", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_renamed_checkpoint_is_not_taken_for_another_step(has_step, run, capsys):
  """Records of older runs have no step: its leaf tells."""
  os.rename(run / "checkpoints" / "120", run / "checkpoints" / "130")
  if not has_step:
    def without(record):
      record = {key: value for key, value in record.items() if key != "step"}
      return record | {"record_digest": records.digest_record(record)}
    rewrite(run / "checkpoints" / "130" / "record" / "metadata", without)
  says = "checkpoint 130 cannot be read: it is that of step 120"
  with pytest.raises(UserError, match=says):
    trained.restore(str(run), "130", CODE)
  assert inspect.inspect(str(run))["step"] == 80 and says in capsys.readouterr().err
  loop.train(configured(), str(run))
  assert inspect.inspect(str(run))["steps_kept"] == "80 120"


def test_a_state_that_claims_more_than_fits_is_not_read(run, monkeypatch):
  def check(claimed, what):
    raise ValueError(f"{what} is said to have {claimed} bytes")
  monkeypatch.setattr(checkpoints, "memory", types.SimpleNamespace(check=check))
  layout = records.read_record(str(run / "checkpoints"), 120)["layout"]
  size = sum(np.dtype(one["dtype"]).itemsize * math.prod(one["shape"]) for one in layout)
  assert f"its state is said to have {size} bytes" in refused("restore", run)


@pytest.mark.parametrize("name", ["²", "٣", "007", "-1", "1e3", "9" * 30])
def test_folders_whose_names_are_no_steps(name, run):
  os.mkdir(run / "checkpoints" / name)
  os.makedirs(run / "stages" / name)
  (run / "stages" / name / "config.json").write_text("5")
  assert records.committed_steps(str(run / "checkpoints")) == [80, 120] and records.last_stage(str(run)) == str(run)
  assert inspect.inspect(str(run))["steps_kept"] == "80 120"
  with pytest.raises(UserError, match="allowed best | last | STEP"):
    trained.restore(str(run), name, CODE)
  loop.train(configured(), str(run))


def cut_in_two(text: bytes, at: int) -> bytes:
  """Text with its line at a byte damaged."""
  return text[:at] + b"\xff{" + text[at + 2:]


@pytest.mark.parametrize("name, damage", [
    pytest.param("events.jsonl", lambda text, at: cut_in_two(text, at + 5), marks=pytest.mark.slow),
    ("events.jsonl", lambda text, at: text[:at + 20]), ("scalars.csv", lambda text, at: cut_in_two(text, at + 5)),
    pytest.param("scalars.csv", lambda text, at: text[:at], marks=pytest.mark.slow)])
def test_facts_damaged_after_an_older_checkpoint_are_restored_from_it(name, damage, made, run, capsys):
  path = run / "facts" / name
  offset = records.read_record(str(run / "checkpoints"), 80)["offsets"][name]
  path.write_bytes(damage(path.read_bytes(), offset))
  again = loop.train(configured(), str(run))
  said = capsys.readouterr().out
  assert "passed over" in said and name in said and "resumed at step 80" in said
  assert child.facts(str(run)) == child.facts(made) and again.digest == loop.train(configured(), made).digest
  assert inspect.inspect(str(run))["digest"] == inspect.inspect(made)["digest"]


@pytest.mark.parametrize("name, damage", [
    ("events.jsonl", lambda text: cut_in_two(text, 9)), ("events.jsonl", lambda text: b"[]\n" + text),
    ("scalars.csv", lambda text: b"a,b\n" + text.partition(b"\n")[2]), ("scalars.csv", lambda text: b"")])
def test_facts_damaged_before_all_checkpoints_are_refused_and_nothing_is_changed(name, damage, run):
  path = run / "facts" / name
  path.write_bytes(damage(path.read_bytes()))
  before = path.read_bytes()
  said = refused("train", run)
  assert name in said and "restore the file" in said.splitlines()[0] and "no checkpoint" not in said
  assert path.read_bytes() == before and records.committed_steps(str(run / "checkpoints")) == [80, 120]


def test_a_run_whose_checkpoints_are_gone_says_that_it_starts_again(run, capsys):
  shutil.rmtree(run / "checkpoints")
  loop.train(configured(), str(run))
  assert "holds facts of a run and no checkpoint: it starts again from step 0" in capsys.readouterr().out


@pytest.mark.parametrize("name, kind", [
    ("checkpoints", "file"), ("facts", "file"), ("history.json", "folder"), ("log.txt", "pipe"),
    ("facts/scalars.csv", "folder"), ("run.json", "pipe")])
def test_something_else_in_the_place_of_a_file_is_refused_at_the_start(name, kind, tmp_path):
  path = tmp_path / name
  path.parent.mkdir(exist_ok=True)
  {"file": path.touch, "folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}[kind]()
  said = refused("train", tmp_path)
  assert repr(str(path)) in said and ("is no folder" if kind == "file" else "is no regular file") in said
  assert len(said.splitlines()) == 1


@pytest.mark.parametrize("text", ["[]", "{", '{"split": "test"}', '{"scalars": 5, "split": "test", "step": 1}'])
def test_an_assessment_that_is_damaged_is_made_again(text, tmp_path):
  from jaxtrain.run import evaluate
  path = tmp_path / "test.json"
  path.write_text(text)
  assert evaluate.done_before(str(path)) is None
