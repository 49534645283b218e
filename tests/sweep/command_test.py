"""The command for many runs: launchers, what goes on after kills and Ctrl-C, what is refused, named sweeps, search."""

import functools
import json
import os
import random
import shutil
import signal
import time
from types import SimpleNamespace

import pytest

import child
import forked
from jaxtrain.report import collection
from jaxtrain.sweep import course, local, telling
from jaxtrain.workdir import journal as journal_lib, reading

CONFIG = "--config=configs/vae.py:breast_cancer"
SMALL = ("--config.train.num_epochs=3", "--config.model.hidden_dims=8,", "--config.log.progress=False",
         "--config.log.figures=none")
GRID = ("--sweep=optim.learning_rate=1e-3,3e-4", "--sweep=seed=0")


start = functools.partial(child.start, command="sweep")
run = functools.partial(child.run, command="sweep", timeout=300)


def members(folder):
  """values as JSON -> (digest, facts) of the members of a sweep, all of them done."""
  journal = journal_lib.Journal(str(folder))
  assert all(member.outcome == "done" for member in journal.members), [m.outcome for m in journal.members]
  return {json.dumps(m.values): (child.inspect(journal.workdir(m))["digest"], child.facts(journal.workdir(m)))
          for m in journal.members}


def swept_by(folder, *flags):
  """A sweep of two members, (its folder, what it said)."""
  done = run(CONFIG, *SMALL, *GRID, *flags, f"--workdir={folder}")
  assert done.returncode == 0, done.stderr
  return str(folder), done.stdout


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
  """In one process, one member after the other: it compiles once."""
  return swept_by(tmp_path_factory.mktemp("in_turn") / "sweep", "--exact")


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
  """By the local launcher: runs of their own."""
  return swept_by(tmp_path_factory.mktemp("local") / "sweep", "--launcher=local")


@pytest.mark.slow
def test_the_local_launcher_leaves_runs_and_a_report(launched):
  folder, said = launched
  assert len(members(folder)) == 2 and "sweep of 2 members" in said
  assert "best of 2 by what they monitor (val_loss)" in said and "log.txt" in said
  assert os.path.join(folder, "report.html") in said and os.path.getsize(os.path.join(folder, "report.html")) > 10_000


@pytest.mark.parametrize("key, monitor, is_apart", [
    ("model.kind", "train_loss", True), ("loss.weights.kl", "val_loss", True), ("model.kind", "val_accuracy", False),
    ("optim.learning_rate", "val_loss", False)])
def test_the_best_is_not_by_losses_of_different_kinds(key, monitor, is_apart, monkeypatch, capsys):
  monkeypatch.setattr(reading, "best_value", lambda folder: float(folder))
  made = [SimpleNamespace(number=k, outcome="done", values={key: k}, label=f"m{k}") for k in range(2)]
  found = SimpleNamespace(members=made, folder="", workdir=lambda member: str(member.number))
  for metric in ("val_auc", "val_other"):  # the second has no direction
    pages = [collection.Member(str(k), "", "done", "", {key: k}, frozenset({key}), monitor, is_final=True,
                               metrics={f"best {monitor}": 1.0 * k, metric: 5.0 + k},
                               descriptions={"auc": {"direction": "higher"}}) for k in range(2)]
    monkeypatch.setattr(collection, "members_of", lambda folder, pages=pages: pages)
    telling.say_best(found, SimpleNamespace(monitor=monitor, monitor_mode="min"), set())
    said = capsys.readouterr().out
    assert (f"{key} changes what the loss is" in said) == is_apart
    if not is_apart:
      assert f"({monitor}): 0, member m0" in said
    else:
      assert ("by val_auc: 6, member m1" if metric == "val_auc" else "no other metric of held-out rows") in said


@pytest.mark.parametrize("seeds, is_said", [((None,), True), ((0,), True), ((0, 1), False)])
def test_settings_of_one_seed_are_said_to_be_so_at_the_start(seeds, is_said, capsys):
  values = [{"optim.learning_rate": rate} | ({} if seed is None else {"seed": seed})
            for rate in (1e-3, 3e-3) for seed in seeds]
  says = "one seed a setting: no verdict is possible; --sweep=seed=0..2 adds seeds"
  telling.say_seeds(SimpleNamespace(members=[SimpleNamespace(values=each) for each in values]))
  assert (says in capsys.readouterr().out) == is_said
  telling.say_seeds(SimpleNamespace(members=[SimpleNamespace(values=values[0])]))
  earlier = [{"model.hidden_dims": dims, "seed": seed} for seed, dims in enumerate(([8], (8,)))]  # from a file, and new
  telling.say_seeds(SimpleNamespace(members=[SimpleNamespace(values=each) for each in earlier]))
  assert not capsys.readouterr().out


@pytest.mark.parametrize("key, monitor, is_said", [("loss.weights.kl", "val_loss", True), ("seed", "val_loss", False),
                                                   ("loss.weights.kl", "val_accuracy", False)])
def test_a_search_by_losses_that_do_not_compare_is_said_to_be_one(key, monitor, is_said, capsys):
  telling.say_search([SimpleNamespace(field=key)], SimpleNamespace(monitor=monitor))
  assert capsys.readouterr().out.startswith("jaxtrain: loss.weights.kl changes what the loss is") == is_said


def test_of_settings_with_several_runs_the_best_mean_comes_first():
  """The best run is of the setting with the worse mean; a setting of one run has no mean."""
  made = [SimpleNamespace(number=k, values={"optim.learning_rate": rate, "seed": k})
          for k, rate in enumerate((0.1, 0.1, 0.2, 0.2, 0.3))]
  values = dict(enumerate((0.5, 0.9, 0.8, 0.8, 1.0)))
  assert telling.best_setting(made, values, True) == "learning_rate=0.2, 0.8 over 2 runs"
  assert telling.best_setting(made, values, False) == "learning_rate=0.1, 0.7 over 2 runs"
  assert telling.best_setting(made, {1: 0.9, 2: 0.8}, True) == ""


def test_the_time_left_is_that_of_the_members_after_the_first():
  assert course.time_left([100.0], 8) == course.time_left([100.0, 103.0], 0) == ""
  assert course.time_left([100.0, 103.0, 105.0], 6) == ", about 15 s left"
  assert course.time_left([0.0, 40.0], 90) == ", about 1:00:00 left"


@pytest.mark.slow
def test_the_best_is_of_all_members_whichever_were_asked_for(swept, tmp_path):
  folder, said = swept
  best, = (line for line in said.splitlines() if "best of 2" in line)
  other = "3e-4" if "learning_rate=0.001" in best else "1e-3"
  shutil.copytree(folder, tmp_path / "sweep", symlinks=True)
  done = run(CONFIG, *SMALL, f"--sweep=optim.learning_rate={other}", "--sweep=seed=0", "--exact",
             f"--workdir={tmp_path / 'sweep'}")
  assert done.returncode == 0 and "sweep of 1 members, 1 done before" in done.stdout, done.stderr
  assert best in done.stdout.splitlines()


@pytest.mark.slow
def test_a_removed_member_is_trained_again(launched, tmp_path):
  """By another launcher than the one before; the other member is left as it is."""
  folder = tmp_path / "sweep"
  shutil.copytree(launched[0], folder, symlinks=True)
  first, second = journal_lib.Journal(str(folder)).members
  shutil.rmtree(folder / first.folder)
  before = (folder / second.folder / "run.json").read_bytes()
  answer, = forked.ask([{"command": "sweep", "argv": [CONFIG, *SMALL, *GRID, f"--workdir={folder}"]}])
  assert answer["code"] == 0 and "2 members, 1 done before" in answer["out"], answer["err"]
  assert f"member {first.label}: was done, and its folder is gone: it is trained again" in answer["out"]
  assert child.facts(str(folder / first.folder))[0] and (folder / second.folder / "run.json").read_bytes() == before
  assert "best of 2" in answer["out"] and len(members(folder)) == 2


def test_a_changed_member_is_told_and_not_compared(swept, tmp_path):
  """One whose config was edited, and one whose checkpoints are gone."""
  folder = tmp_path / "sweep"
  shutil.copytree(swept[0], folder, symlinks=True)
  first, second = journal_lib.Journal(str(folder)).members
  command = {"command": "sweep", "argv": [CONFIG, *SMALL, *GRID, "--exact", f"--workdir={folder}"]}
  shutil.rmtree(folder / second.folder / "checkpoints")
  answer, = forked.ask([command])
  assert answer["code"] == 1 and "best of 1" in answer["out"], answer
  assert f"member {second.label} is not as the sweep left it, and is not compared: it holds no ch" in answer["err"]
  config = json.loads((folder / first.folder / "config.json").read_text(encoding="utf-8"))
  config["optim"]["learning_rate"] = 0.5
  (folder / first.folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
  answer, = forked.ask([command])
  assert answer["code"] == 1 and "best of" not in answer["out"] and "2 of 2 members" in answer["err"], answer
  assert f"member {first.label} is not as the sweep left it" in answer["err"]
  assert "config.optim.learning_rate: 0.5 -> 0.001" in answer["err"] and answer["err"].count("\n") == 3


@pytest.mark.slow
def test_members_in_turn_are_the_same_where_there_are_two_devices(launched, tmp_path):
  """They are trained on one of them."""
  environ = {"JAX_NUM_CPU_DEVICES": "2"}
  done = run(CONFIG, *SMALL, *GRID, "--exact", f"--workdir={tmp_path / 'sweep'}", environ=environ)
  assert done.returncode == 0, done.stderr
  assert "2 members as one program on 1 x cpu, in turn" in done.stdout
  assert members(tmp_path / "sweep") == members(launched[0])


@pytest.mark.slow
def test_more_values_add_members_and_another_base_is_refused(launched):
  folder, _ = launched
  again = run(CONFIG, *SMALL, *GRID, "--launcher=local", f"--workdir={folder}")
  assert again.returncode == 0 and "2 members, 2 done before" in again.stdout and "started" not in again.stdout
  before = [(m.number, m.values) for m in journal_lib.Journal(folder).members]
  more = run(CONFIG, *SMALL, "--sweep=optim.learning_rate=1e-3", "--sweep=seed=0..1", "--launcher=local",
             f"--workdir={folder}")
  assert more.returncode == 0 and "sweep of 2 members, 1 done before" in more.stdout, more.stdout
  after = [(m.number, m.values) for m in journal_lib.Journal(folder).members]
  assert after == before + [(2, {"optim.learning_rate": 0.001, "seed": 1})]
  other = run(CONFIG, *SMALL, *GRID, "--config.train.batch_size=32", f"--workdir={folder}")
  assert other.returncode == 2 and "config.train.batch_size: 64 -> 32" in other.stderr


@pytest.mark.slow
def test_a_failed_member_is_told_and_trained_again_on_request(tmp_path):
  flags = (CONFIG, *SMALL, "--sweep=optim.learning_rate=1e30,1e-3", "--launcher=local", f"--workdir={tmp_path / 's'}")
  done = run(*flags)
  assert done.returncode == 1 and "1 of 2 members failed, the first 000 (learning_rate=1e+30)" in done.stderr
  assert "is not finite" in done.stderr and "--retry_failed" in done.stderr
  assert "started" not in run(*flags).stdout
  again = run(*flags, "--retry_failed")
  assert again.returncode == 1 and "member 000 (learning_rate=1e+30): started" in again.stdout
  assert "001 (learning_rate=0.001): started" not in again.stdout
  journal = journal_lib.Journal(str(tmp_path / "s"))
  assert [m.outcome for m in journal.members] == ["failed", "done"]


@pytest.mark.slow
def test_named_sweeps_of_a_config_file(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text("import sys\nsys.path.insert(0, 'configs')\nfrom vae import get_config as vae\n"
                  "def get_config():\n  config = vae('breast_cancer')\n  config.train.num_epochs = 1\n  return config\n"
                  "def sweep(name):\n  return {'pairs': [{'seed': 1}, {'seed': 2, 'model.latent_dim': 3}],\n"
                  "          'grid': {'seed': range(2), 'model.latent_dim': (2, 3)}}[name]\n")
  done = run(f"--config={path}", "--name=pairs", "--config.log.progress=False", f"--workdir={tmp_path / 'a'}")
  assert done.returncode == 0, done.stderr
  assert [m.values for m in journal_lib.Journal(str(tmp_path / "a")).members] == [
      {"seed": 1}, {"seed": 2, "model.latent_dim": 3}]
  wrong = run(f"--config={path}", "--name=nope")
  assert wrong.returncode == 2 and "KeyError" in wrong.stderr and wrong.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local", "vmap"])
def test_asked_to_stop_it_saves_and_goes_on(launcher, tmp_path):
  """SIGINT to the sweep alone, as to a foreground job; then the same command."""
  flags = (CONFIG, "--config.train.num_epochs=400", "--config.model.hidden_dims=8,", "--config.log.progress=False",
           "--sweep=seed=0..1", f"--launcher={launcher}", f"--workdir={tmp_path / 's'}",
           *["--exact"] * (launcher == "vmap"))
  process = start(*flags)
  first = os.path.join(str(tmp_path / "s"), "runs", "000-seed=0")
  deadline = time.monotonic() + 200
  while process.poll() is None and time.monotonic() < deadline and child.last_reported(first) == 0:
    time.sleep(0.02)
  process.send_signal(signal.SIGINT)
  _, said = process.communicate(timeout=100)
  assert process.returncode == 85 and "the same command goes on" in said, said
  done = run(*flags)
  assert done.returncode == 0, done.stderr
  straight = str(tmp_path / "straight")
  assert child.run(CONFIG, *flags[1:4], "--config.log.figures=none", "--config.seed=0",
                   f"--workdir={straight}").returncode == 0
  assert child.resume_steps(first)[-1] > 0
  assert child.inspect(first)["digest"] == child.inspect(straight)["digest"]
  assert child.facts(first) == child.facts(straight)


BAD = {
    "no axis": ((CONFIG,), "--sweep: required"), "no config": ((), "--config: required"),
    "form": ((CONFIG, "--sweep=seed"), "allowed FIELD=VALUES"), "field": ((CONFIG, "--sweep=sed=1"), "config.seed?"),
    "range": ((CONFIG, "--sweep=optim.learning_rate=0.1,-1"), "member (learning_rate=-1): config.optim.learning_rate"),
    "launcher": ((CONFIG, "--sweep=seed=1", "--launcher=ssh"), "allowed vmap | local | slurm"),
    "set twice": ((CONFIG, "--sweep=seed=1", "--config.seed=2"), "--sweep=seed: the flag sets it too"),
    "two axes": ((CONFIG, "--sweep=seed=1", "--sweep=seed=2"), "seed has two axes"),
    "mode": ((CONFIG, "--sweep=seed=1", "--mode=eval"), "--mode: got 'eval', allowed train | check"),
    "no such sweep": ((CONFIG, "--name=x"), "--name: got 'x', allowed pair, seeds, bootstrap"),
    "no named sweeps": (("--config=tests/outside.py", "--name=x"), "no function sweep(name)"),
    "fold of no folds": ((CONFIG, "--sweep=data.split.fold=0..4"),
                         "fold: got 1, allowed 0 with config.data.split.kind"),
    "how": ((CONFIG, "--sweep=parallel.cpu_threads=1,2"), "says how members are trained, not what they are"),
    "exact": ((CONFIG, "--sweep=seed=1", "--launcher=local", "--exact"), "--exact: allowed with --launcher=vmap"),
    "retry": ((CONFIG, "--sweep=seed=1", "--trials=2", "--retry_failed"), "allowed without --trials"),
    "jobs": ((CONFIG, "--sweep=seed=1", "--jobs=-1"), "allowed 0 or more"),
    "space": ((CONFIG, "--sweep=optim.learning_rate=uniform(0,1)"), "which only --trials reads"),
    "a run's folder": ((CONFIG, "--sweep=seed=1", "--workdir=RUN"), "holds a run, not a sweep"),
    "unwritable": ((CONFIG, "--sweep=seed=1", "--workdir=/proc/none"), "cannot write '/proc/none'"),
    "stages": ((CONFIG, "--sweep=parallel.mode=pmap", "--workdir=NEW"), "allowed jit with --launcher=vmap"),
    "slurm words": ((CONFIG, "--sweep=seed=1", "--launcher=slurm", "--slurm=time", "--workdir=NEW"), "NAME=VALUE"),
    "flag": ((CONFIG, "--sweeps=seed=1"), "did you mean --sweep?"),
}


@pytest.mark.slow
def test_bad_input_is_one_line(swept, tmp_path):
  """Exit 2 and one line, and nothing is left behind but the folder of what had begun."""
  run_folder = os.path.join(swept[0], journal_lib.Journal(swept[0]).members[0].folder)
  fill = lambda flag: flag.replace("RUN", run_folder).replace("NEW", str(tmp_path / "new"))
  answers = forked.ask([{"command": "sweep", "argv": [fill(flag) for flag in flags]} for flags, _ in BAD.values()])
  for (name, (_, words)), answer in zip(BAD.items(), answers):
    assert answer["code"] == 2 and words in answer["err"], (name, answer)
    assert answer["err"].strip().count("\n") == 0 and "Traceback" not in answer["err"], (name, answer)


@pytest.mark.parametrize("listed, gpus", [(None, ["0", "1"]), ("3", ["3"]), ("", [])])
def test_a_pool_has_a_place_per_gpu_that_may_be_used(listed, gpus, tmp_path, monkeypatch):
  """Of a machine with two; where none may be used, a place per core."""
  for name in ("0000:01:00.0", "0000:02:00.0"):
    (tmp_path / name).mkdir()
  monkeypatch.setattr(local, "GPUS", str(tmp_path))
  monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
  if listed is not None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
  cores = [{"environ": {}, "core": core} for core in sorted(os.sched_getaffinity(0))]
  wanted = [{"environ": {"CUDA_VISIBLE_DEVICES": gpu}, "core": None} for gpu in gpus] or cores
  assert local.places(0) == wanted and local.places(len(wanted) + 1) == [*wanted, wanted[0]]


def test_check_lists_the_members_and_writes_nothing(tmp_path):
  done = run(CONFIG, GRID[0], "--sweep=seed=0..1", "--mode=check", f"--workdir={tmp_path / 's'}")
  assert done.returncode == 0 and not (tmp_path / "s").exists()
  assert done.stdout.splitlines() == ["000 learning_rate=0.001, seed=0", "001 learning_rate=0.001, seed=1",
                                      "002 learning_rate=0.0003, seed=0", "003 learning_rate=0.0003, seed=1",
                                      "jaxtrain: 4 members, each with a config that fits; their data can be read"]


def test_check_finds_a_mistake_in_the_data_that_all_share():
  flags = (CONFIG.replace("breast_cancer", "csv"), "--mode=check")
  shared, own = forked.ask([{"command": "sweep", "argv": [*flags, *more]} for more in (
      ("--config.data.path=no.csv", "--sweep=seed=0..1"), ("--sweep=data.path=no.csv,nor.csv",))])
  assert shared["code"] == 2 and "config.data.path: cannot read 'no.csv'" in shared["err"], shared
  assert own["code"] == 0 and "a config that fits; data are read when they start" in own["out"], own


def test_a_folder_in_which_nothing_has_trained_takes_a_corrected_config(tmp_path):
  """The first command fails for its data and leaves a journal; the second gets as far as its own data."""
  flags = (CONFIG.replace("breast_cancer", "csv"), "--sweep=seed=0..1", f"--workdir={tmp_path / 's'}")
  first, second = forked.ask([{"command": "sweep", "argv": [*flags, f"--config.data.path={name}.csv"]}
                              for name in ("one", "two")])
  assert first["code"] == 2 and "cannot read 'one.csv'" in first["err"], first
  assert second["code"] == 2 and "cannot read 'two.csv'" in second["err"], second
  assert "no member of the sweep in" in second["out"] and "it begins anew with this config" in second["out"]
  assert [m.number for m in journal_lib.Journal(str(tmp_path / "s")).members] == [0, 1]


@pytest.mark.slow
def test_search_proposes_from_what_is_done_and_goes_on(tmp_path):
  flags = (CONFIG, SMALL[0], SMALL[2], "--sweep=optim.learning_rate=loguniform(1e-4,1e-1)",
           "--sweep=model.hidden_dims=(8,),(4,)")
  straight = run(*flags, f"--workdir={tmp_path / 'straight'}", "--trials=10")
  best, = (line for line in straight.stdout.splitlines() if "best of 10" in line)
  assert straight.returncode == 0
  values = lambda name: [m.values for m in journal_lib.Journal(str(tmp_path / name)).members]
  expected = values("straight")
  assert len(expected) == 10 and all(1e-4 <= found["optim.learning_rate"] <= 1e-1 for found in expected)
  process = start(*flags, f"--workdir={tmp_path / 'killed'}", "--trials=10")
  deadline = time.monotonic() + 200
  while process.poll() is None and time.monotonic() < deadline:
    path = tmp_path / "killed" / "journal.jsonl"
    if path.exists() and '"done"' in path.read_text(encoding="utf-8"):
      break
    time.sleep(0.02)
  assert process.poll() is None
  process.kill()
  process.communicate()
  assert run(*flags, f"--workdir={tmp_path / 'killed'}", "--trials=10").returncode == 0
  assert values("killed") == expected
  again = run(*flags, f"--workdir={tmp_path / 'killed'}", "--trials=10")
  assert again.returncode == 0 and values("killed") == expected and best in again.stdout.splitlines()


@pytest.mark.slow
def test_twelve_members_killed_five_times_end_as_never_stopped(tmp_path):
  """kill -9 of a sweep in two waves, at random instants of its training; digests, facts and journal agree."""
  flags = (CONFIG, "--config.train.num_epochs=400", "--config.checkpoint.every_epochs=20",
           "--config.log.progress=False", "--config.model.hidden_dims=8,", "--sweep=seed=0..2",
           "--sweep=optim.learning_rate=1e-3,3e-4", "--sweep=model.latent_dim=4,5")
  done = run(*flags, f"--workdir={tmp_path / 'straight'}")
  assert done.returncode == 0, done.stderr
  folder, draw, kills = str(tmp_path / "killed"), random.Random(5), 0
  reported = lambda: sum(child.last_reported(os.path.join(folder, "runs", name))
                         for name in os.listdir(os.path.join(folder, "runs"))) \
      if os.path.isdir(os.path.join(folder, "runs")) else 0
  while kills < 5:
    process, before = start(*flags, f"--workdir={folder}"), reported()
    while process.poll() is None and reported() <= before:  # it has gone on, from a checkpoint before
      time.sleep(0.02)
    time.sleep(draw.uniform(0.0, 1.0))
    killed = process.poll() is None
    process.kill()
    process.communicate()
    assert killed, "the sweep came to its end before it was killed five times"
    kills += 1
  done = run(*flags, f"--workdir={folder}")
  assert done.returncode == 0, done.stderr
  journal = journal_lib.Journal(folder)
  resumed = [child.resume_steps(journal.workdir(journal.members[wave["members"][0]])) for wave in journal.waves]
  print(f"killed {kills} times; waves began at steps {resumed}")
  assert len(journal.members) == 12 and members(folder) == members(tmp_path / "straight")


@pytest.mark.slow
def test_a_killed_pool_stops_its_members_and_goes_on(tmp_path, launched):
  """Children hear of the death of the sweep, save and end; the same command has the runs of one never stopped."""
  flags = (CONFIG, *SMALL, *GRID, "--launcher=local", f"--workdir={tmp_path / 's'}")
  process, first = start(*flags), tmp_path / "s" / "runs" / "000-learning_rate=0.001,seed=0"
  deadline = time.monotonic() + 200
  while not (first / "config.json").exists() and time.monotonic() < deadline:
    time.sleep(0.02)
  assert process.poll() is None
  process.kill()
  process.communicate()
  while children_in(str(tmp_path)) and time.monotonic() < deadline:
    time.sleep(0.1)
  assert not children_in(str(tmp_path))
  assert not all(m.outcome == "done" for m in journal_lib.Journal(str(tmp_path / "s")).members)
  assert run(*flags).returncode == 0
  expected, found = members(launched[0]), members(tmp_path / "s")
  assert len(found) == 2 and {key: expected[key] for key in found} == found


def children_in(folder):
  """Processes whose command line names a folder."""
  found = []
  for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
      with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
        words = file.read()
    except OSError:
      continue
    found += [pid] * ("jaxtrain.main" in words and folder in words)
  return found
