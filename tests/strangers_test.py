"""Workdirs that a stranger has made: whatever they name, no code of theirs is run, and each command ends with 0 or 2.

Two ways to see it: code that was planted leaves a mark when it is imported, and an audit hook tells of each import,
compile, exec, unpickling and process, of which there must be none that the same command has not over a clean workdir.
"""

import ast
import contextlib
import json
import os
import pathlib
import shutil
import sys
from importlib import metadata

import pytest

import forked
import records
import strangers
from jaxtrain import commands, config as config_lib, loop
from jaxtrain.config import modules
from jaxtrain.errors import UserError
from jaxtrain.sweep import __main__ as sweep
from jaxtrain.workdir import journal

SMOKE = "--config=configs/vae.py:smoke"
FLAGS = (SMOKE, "--config.log.figures=none", "--config.log.progress=False")
SWEEP = ("--config=configs/vae.py:breast_cancer", "--config.train.num_epochs=1", "--config.log.figures=none")
COMMANDS = {
    "inspect": ("main", ("--mode=inspect", "--workdir={}")), "report": ("report", ("{}",)),
    "eval": ("main", ("--mode=eval", "--workdir={}")), "fields": ("main", ("--mode=fields", "--workdir={}")),
    "check": ("main", ("--mode=check", "--workdir={}")),
    "predict": ("predict", ("--verb=sample", "--num=3", "--workdir={}", "--output={}/out.csv")),
    "sweep": ("sweep", (*SWEEP, "--sweep=seed=0..1", "--workdir={}"))}
# of the fast tests, where they are not the first three: that of 2 is a sweep that trains
FEW = {"fields": (0, 155), "check": (0,), "sweep": (0, 1, 3)}
# of the slow tests
COUNTS = {"inspect": 500, "report": 500, "eval": 300, "fields": 300, "check": 100, "predict": 300, "sweep": 300}
PACKAGES = metadata.packages_distributions()
FAMILIAR = (os.path.join(forked.ROOT, "jaxtrain"), sys.prefix, sys.base_prefix, "<frozen", "<string>", "<unknown>",
            "<__array_function__", "<attrs generated")
LOADERS = (".import_module", ".exec_module", ".run_path", ".run_module", ".find_spec", ".loads", ".Unpickler")
RUNS = ("exec", "eval", "compile", "__import__")
NAMED = {*RUNS, *(name.removeprefix(".") for name in LOADERS)}


@pytest.fixture
def planted(tmp_path, monkeypatch):
  """A folder on sys.path with a stranger's code, of which nothing is imported yet."""
  strangers.plant(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  for name in [name for name in sys.modules if name.partition(".")[0] == "evil"]:
    monkeypatch.delitem(sys.modules, name)
  return tmp_path


heard: list[list[str]] = []  # the events of the innermost `listening`; the hook stays for good


@contextlib.contextmanager
def listening():
  """The events of code being run in this process meanwhile."""
  if not heard:
    heard.append([])
    forked.audit(lambda line: heard[-1].append(line))
  heard.append([])
  try:
    yield heard[-1]
  finally:
    heard.pop()


def through_the_door(record: dict) -> None:
  """All that a config of a workdir goes through before an experiment is called."""
  with config_lib.strangers("stranger"), config_lib.must_fit("stranger"):
    config = config_lib.resolve(config_lib.from_workdir(record, "stranger"))
    for k, stage in enumerate(config.stages):
      config_lib.stage_config(config, stage, k)


def check_door(seeds) -> None:
  """No mutated record gets code through the door; each passes or is refused."""
  clean = config_lib.to_record(config_lib.resolve(config_lib.read_file("configs/vae.py:smoke")))
  with listening() as before:
    through_the_door(clean)
  refused = 0
  for seed in seeds:
    record = strangers.mutated(clean, seed)
    try:
      with listening() as events:
        through_the_door(json.loads(json.dumps(record)))
    except UserError as error:
      refused += 1
      assert 1 <= len(str(error).splitlines()) <= 4, (seed, error)
    assert set(events) <= set(before), (seed, set(events) - set(before))
  print(f"{refused} of {len(seeds)} refused")
  assert refused > len(seeds) / 2


def test_no_code_passes_the_door(planted):
  check_door(range(500))
  assert not (planted / "mark").exists()


@pytest.mark.slow
def test_no_code_passes_the_door_in_ten_thousand_tries(planted):
  check_door(range(500, 10_500))
  assert not (planted / "mark").exists()


@pytest.mark.parametrize("name", strangers.NAMES)
def test_the_door_lets_a_stranger_have_nothing_imported(name, planted):
  with config_lib.strangers("stranger"):
    with pytest.raises(UserError, match="which is not part of jaxtrain"):
      config_lib.load_experiment(name)
    with pytest.raises(UserError, match="that you have not named"):
      config_lib.load_function("loss.extra", name)
  assert config_lib.load_companion(name, "figures") is None
  assert not (planted / "mark").exists() and not modules.strangers_here


def test_every_config_of_ours_names_an_experiment_that_is_part_of_jaxtrain():
  used = {config_lib.read_file(f"{path}:{variant}").experiment for path in records.CONFIGS
          for variant in config_lib.list_variants(path)}
  assert used == set(modules.builtin_experiments())


def test_what_the_user_has_named_too_passes():
  with config_lib.strangers("stranger", ["outside", "outside.load"]):
    assert config_lib.load_experiment("outside").__name__ == "outside"
    assert config_lib.load_function("data.source", "outside.load").__name__ == "load"
    with config_lib.strangers("another"), pytest.raises(UserError):
      config_lib.load_experiment("outside")
    assert config_lib.load_experiment("jaxtrain.experiments.tabular_vae.vae")


def make_workdir(command: str, shared, folder: str) -> None:
  """A clean workdir for a command: of a run, or of a sweep whose members are done."""
  if command != "sweep":
    shared.copy(folder, *FLAGS)
    return
  os.makedirs(folder)
  config = config_lib.read_file(SWEEP[0].removeprefix("--config="))
  config.train.num_epochs, config.log.figures = 1, "none"
  made = journal.Journal(folder)
  made.begin({"config": SWEEP[0].removeprefix("--config="), "base": config_lib.to_record(config)})
  for seed in (0, 1):
    member = config_lib.resolve(config_lib.with_values(config, {"seed": seed}))
    made.add([({"seed": seed}, config_lib.digest(member, config_lib.HOW))])
    made.note("done", member=seed)


@pytest.mark.parametrize("stage", strangers.OVERRIDES[:-1])
def test_stages_of_a_workdir_are_judged_once_they_are_merged(stage, planted):
  clean = config_lib.to_record(config_lib.resolve(config_lib.read_file("configs/vae.py:smoke")))
  for stages in ([stage], [{"train": {"num_epochs": 1}}, stage]):
    folder = planted / f"run{len(stages)}"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(clean | {"stages": stages}))
    with pytest.raises(UserError, match="evil|data.source|stages"):
      loop.evaluate(None, str(folder))
  assert not (planted / "mark").exists() and not modules.strangers_here


@pytest.mark.parametrize("values", [
    {"experiment": "evil.run"}, {"data.source": "evil.Loader"}, {"loss.extra": ["evil.run"]},
    {"stages": [{"experiment": "evil.run"}]}, {"stages": [{"loss": {"extra": ["evil.run"]}}]}])
def test_what_the_journal_of_a_sweep_names_is_judged_before_any_member_starts(values, planted, monkeypatch):
  folder = str(planted / "sweep")
  make_workdir("sweep", None, folder)
  journal.Journal(folder).add([({"seed": 7} | values, "ab")])
  for launcher in ("vmap", "local"):
    monkeypatch.setattr(sys, "argv", ["sweep", *SWEEP, "--sweep=seed=0..1", f"--workdir={folder}",
                                      f"--launcher={launcher}"])
    with pytest.raises(UserError, match="evil"):
      sweep.run_sweep(commands.Log())
  assert not (planted / "mark").exists()


@pytest.mark.parametrize("folder", ["../../elsewhere", "/elsewhere", "runs/../../elsewhere", "runs/..", "runs/a/b", ""])
def test_a_member_stays_within_the_folder_of_its_sweep(folder, tmp_path):
  make_workdir("sweep", None, str(tmp_path / "sweep"))
  path = tmp_path / "sweep" / "journal.jsonl"
  line = {"event": "added", "member": 2, "digest": "ab", "values": {"seed": 2}, "folder": folder}
  path.write_text(path.read_text() + json.dumps(line) + "\n")
  with pytest.raises(UserError, match="'folder' must be runs/NAME"):
    journal.Journal(str(tmp_path / "sweep"))
  assert len(journal.read_sweep(str(tmp_path / "sweep")).members) == 2


def is_familiar(line: str) -> bool:
  """Whether an event is of a library or of jaxtrain itself: a command that goes another way may load more of them.

  No source of jaxtrain runs text as code, as the test below holds, so `<string>` is a library's.
  """
  event, _, what = line.partition(" ")
  if event in ("compile", "exec"):
    return what.startswith(FAMILIAR)
  if event == "subprocess.Popen":  # the commit of the code
    return what.startswith(f"['git', '-C', '{forked.ROOT}/jaxtrain/")
  top = what.partition(".")[0]
  known = top in sys.stdlib_module_names or top in PACKAGES or what in modules.families() or top == "jaxtrain"
  return event == "import" and known and not any(f"{name}.".startswith(f"{what}.") for name in strangers.NAMES)


def test_no_source_runs_text_as_code():
  """Modules are found by a name that is not in the source in one place, config files are run in one, and no more."""
  found = {}
  for path in sorted((pathlib.Path(forked.ROOT) / "jaxtrain").rglob("*.py")):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
      if not isinstance(node, ast.Call):
        continue
      if getattr(node.func, "attr", getattr(node.func, "id", None)) not in NAMED:  # spares most of the unparsing
        continue
      called, literal = ast.unparse(node.func), bool(node.args) and isinstance(node.args[0], ast.Constant)
      loads = called.endswith(LOADERS) and not literal and called != "json.loads"
      if loads or called in RUNS:
        found.setdefault(path.name, []).append(called)
  assert found == {"modules.py": ["importlib.import_module"] * 3, "sources.py": ["spec.loader.exec_module"],
                   "benchmarks.py": ["importlib.util.find_spec"],  # of fixed names; nothing is imported
                   "errors.py": ["importlib.import_module"]}


def check_commands(command: str, seeds, shared, tmp_path) -> None:
  """A command over mutated workdirs ends with 0 or 2, and runs no code that it does not run over a clean one."""
  strangers.plant(tmp_path)
  name, argv = COMMANDS[command]
  environ = dict(os.environ) | {"PYTHONPATH": str(tmp_path)}
  make_workdir(command, shared, str(tmp_path / "clean"))

  def run(folder: str) -> dict:
    return forked.answer_to({"command": name, "argv": [flag.replace("{}", folder) for flag in argv],
                             "environ": environ, "audited": True})

  clean = run(str(tmp_path / "clean"))
  assert clean["code"] == 0, clean
  codes = []
  for seed in seeds:
    folder = str(tmp_path / f"run{seed}")
    make_workdir(command, shared, folder)
    changed = strangers.damage(folder, seed)
    done = run(folder)
    codes.append(done["code"])
    assert done["code"] in (0, 2), (seed, changed, done)
    assert done["code"] == 0 or 1 <= len(done["err"].splitlines()) <= 4, (seed, changed, done["err"])
    more = [line for line in dict.fromkeys(done["events"]) if line not in clean["events"] and not is_familiar(line)]
    assert not more, (seed, changed, more)
    shutil.rmtree(folder)
  print(f"{command}: {codes.count(0)} of {len(codes)} done, {codes.count(2)} refused")
  assert not (tmp_path / "mark").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_what_a_workdir_names(command, shared, tmp_path):
  check_commands(command, FEW[command] if command in FEW else range(3), shared, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_what_many_workdirs_name(command, shared, tmp_path):
  check_commands(command, range(2, 2 + COUNTS[command]), shared, tmp_path)
