"""The command: every bad input is one line and exit code 2; modes, overrides, stops and exit codes, in child processes.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import child
from jaxtrain.workdir import records
from runs import QUIET

SMOKE = "--config=configs/vae.py:smoke"

# flags (and variables) -> words of the one line
BAD = {
    "no config": ((), {}, "--config: required"),
    "missing file": (("--config=configs/nope.py",), {}, "no such file 'configs/nope.py'"),
    "not a config": (("--config=tests/child.py",), {}, "is no config file"),
    "not Python": (("--config=README.md",), {}, "allowed a Python file"),
    "variant": (("--config=configs/vae.py:nope",), {}, "got 'nope', allowed hybrid, standard"),
    "field": ((SMOKE, "--config.train.batch_sze=3"), {}, "did you mean config.train.batch_size?"),
    "section": ((SMOKE, "--config.trian.batch_size=3"), {}, "did you mean config.train.batch_size?"),
    "a section as field": ((SMOKE, "--config.train=3"), {}, "a section, not a field"),
    "type int": ((SMOKE, "--config.train.batch_size=abc"), {},
                 "--config.train.batch_size: got 'abc', allowed a value of type int"),
    "type int from float": ((SMOKE, "--config.train.batch_size=1e3"), {}, "allowed a value of type int"),
    "type float": ((SMOKE, "--config.optim.learning_rate=fast"), {}, "allowed a value of type float"),
    "nan": ((SMOKE, "--config.optim.learning_rate=nan"), {}, "config.optim.learning_rate: got nan"),
    "flag": ((SMOKE, "--mod=check"), {}, "did you mean --mode?"),
    "config misspelt": ((SMOKE, "--confg.train.num_epochs=2"), {}, "did you mean --config.train.num_epochs?"),
    "left over": ((SMOKE, "config.train.num_epochs=2"), {}, "did you mean --config.train.num_epochs=2?"),
    "both lengths": ((SMOKE, "--config.train.num_epochs=2", "--config.train.num_steps=2"), {},
                     "exactly one of them above 0"),
    "no length": ((SMOKE, "--config.train.num_epochs=0"), {}, "exactly one of them above 0"),
    "batch size 0": ((SMOKE, "--config.train.batch_size=0"), {},
                     "config.train.batch_size: got 0, allowed 1 to 16777216"),
    "negative steps": ((SMOKE, "--config.train.num_steps=-1"), {}, "config.train.num_steps: got -1"),
    "negative weight": ((SMOKE, "--config.loss.weights.kl=-1"), {},
                        "config.loss.weights.kl: got -1.0, allowed 0 to 1e+12"),
    "optimiser": ((SMOKE, "--config.optim.name=adm"), {}, "got 'adm', allowed adam | adamw"),
    "mode": ((SMOKE, "--mode=fit"), {}, "got 'fit', allowed train | eval | check | inspect"),
    "resume": ((SMOKE, "--resume=yes"), {}, "got 'yes', allowed auto | never | required"),
    "source": ((SMOKE, "--config.data.source=excel"), {}, "got 'excel', allowed synthetic"),
    "experiment": ((SMOKE, "--config.experiment=jaxtrain.experiments.vae"), {}, "jaxtrain.experiments.tabular_vae.vae"),
    "hidden sizes": ((SMOKE, "--config.model.hidden_dims=64,0"), {}, "got (64, 0), allowed numbers, each 1 to 65536"),
    "model kind": ((SMOKE, "--config.model.kind=supervised"), {}, "allowed unsup | semisup"),
    "members": ((SMOKE, "--config.train.num_members=0"), {}, "config.train.num_members: got 0, allowed 1"),
    "figure family": ((SMOKE, "--config.log.families=loses"), {}, "losses"),
    "folds": ((SMOKE, "--config.data.split.kind=leave_out", "--config.data.split.fold=5"), {},
              "fold: got 5, allowed 0 to 4"),
    "a file that is no table": (("--config=configs/vae.py:csv", "--config.data.path=README.md",
                                 "--config.data.features=a"), {},
                            "README.md: row 3 has 2 cells"),
    "workdir": ((SMOKE, "--workdir=/proc/none"), {}, "cannot write '/proc/none'"),
    "variable": ((SMOKE,), {"TRAIN__EPOCHS": "3"}, "did you mean TRAIN__NUM_EPOCHS?"),
    "variable's type": ((SMOKE,), {"TRAIN__BATCH_SIZE": "many"},
                        "TRAIN__BATCH_SIZE: got 'many', allowed a value of type int"),
    "eval without workdir": ((SMOKE, "--mode=eval"), {}, "--workdir: required with --mode=eval"),
    "nothing to inspect": ((SMOKE, "--mode=inspect", "--workdir=/nonexistent"), {}, "holds no run"),
    "chunks": ((SMOKE, "--config.parallel.mode=canonical", "--config.parallel.chunks=3"), {}, "allowed multiples of 3"),
    "microbatch": ((SMOKE, "--config.train.microbatch=7"), {}, "allowed divisors of config.train.batch_size = 256"),
}


def test_heavy_imports_load_only_where_used():
  """Figures, orbax and data libraries are not imported with the loop; the report imports no jax."""
  code = ("import sys\nimport jaxtrain.loop\nfrom jaxtrain import "
          "config\nconfig.load_experiment('jaxtrain.experiments.tabular_vae.vae')\n"
          "heavy = ('orbax', 'matplotlib', 'sklearn', 'grain', 'tensorflow_datasets', 'numpyro', 'pandas', 'torch')\n"
          "print([name for name in heavy if name in sys.modules])")
  done = subprocess.run([sys.executable, "-c", code], cwd=child.ROOT, capture_output=True, text=True, timeout=120)
  assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
  """Answers to all bad inputs, each in a folder where nothing may appear."""
  folder = tmp_path_factory.mktemp("bad")

  def ask(name):
    flags, variables, _ = BAD[name]
    if not any(f.startswith("--workdir") for f in flags) and name not in ("eval without workdir",):
      flags = (*flags, f"--workdir={folder / name.replace(' ', '_')}")
    return child.run(*flags, *QUIET if flags and flags[0].startswith("--config=configs/vae") else (), environ=variables)

  return {name: ask(name) for name in BAD} | {"folder": folder}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_2(name, answers):
  done = answers[name]
  assert done.returncode == 2, done.stderr[-1500:]
  assert BAD[name][2] in done.stderr
  assert "Traceback" not in done.stderr and done.stdout == ""
  assert not os.path.exists(answers["folder"] / name.replace(" ", "_"))  # nothing half-written
  assert len(done.stderr.strip().splitlines()) <= 4 and all(line.startswith("jaxtrain: ")
                                                            for line in done.stderr.splitlines())


def test_a_second_config_in_one_workdir_and_a_bad_flag_leave_the_run_as_it_is(tmp_path, shared):
  workdir = shared.copy(tmp_path / "run", SMOKE, *QUIET)
  flags = (SMOKE, *QUIET, f"--workdir={workdir}")
  before = child.facts(workdir)
  done = child.run(*flags, "--config.optim.learning_rate=0.1")
  assert done.returncode == 2 and "config.optim.learning_rate: 0.001 -> 0.1" in done.stderr
  done = child.run(*flags, "--resume=never")
  assert done.returncode == 2 and "--resume=never" in done.stderr
  assert child.facts(workdir) == before


@pytest.mark.smoke
def test_flags_win_over_variables_win_over_the_file(tmp_path):
  workdir = str(tmp_path / "run")
  done = child.run(SMOKE, *QUIET, f"--workdir={workdir}", "--config.train.num_steps=3",
                   environ={"TRAIN__NUM_STEPS": "5", "OPTIM__LEARNING_RATE": "0.002", "OPTIM__PLATEAU__FACTOR": "0.25",
                            "UNRELATED__THING": "1"})
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith("jaxtrain: vae, 6,426 parameters, 3 steps of 256, on 1 x cpu")
  with open(os.path.join(workdir, "config.json"), encoding="utf-8") as file:
    record = json.load(file)
  assert record["train"]["num_steps"] == 3 and record["train"]["num_epochs"] == 0  # the file's own length gave way
  assert record["optim"]["learning_rate"] == 0.002 and record["optim"]["plateau"]["factor"] == 0.25
  assert record["origins"]["train.num_steps"] == "flag" and record["origins"]["optim.learning_rate"] == "environment"
  with open(os.path.join(workdir, "run.json"), encoding="utf-8") as file:
    run = json.load(file)
  assert run["argv"][1] == SMOKE and run["versions"]["jax"] and run["devices"]


def test_check_writes_nothing_and_inspect_computes_the_digest(tmp_path, shared):
  workdir = str(tmp_path / "run")
  done = child.run(SMOKE, "--mode=check", "--json", f"--workdir={workdir}")
  described = json.loads(done.stdout)
  assert described["parameters"] == 6426 and described["flops_per_step"] > 0 and not os.path.exists(workdir)
  assert {"name": "x", "dtype": "float32", "shape": [256, 6]} in described["batch"]
  shared.copy(tmp_path / "run", SMOKE, *QUIET)
  done = child.run(SMOKE, "--mode=inspect", f"--workdir={workdir}")
  last = done.stdout.strip().splitlines()[-1]
  with open(os.path.join(workdir, "facts", "events.jsonl"), encoding="utf-8") as file:
    digest = [json.loads(line) for line in file][-1]["digest"]
  assert last == f"digest: sha256:{digest} step=32"
  assert all(": " in line for line in done.stdout.strip().splitlines())


@pytest.mark.slow
def test_eval_redraws_and_leaves_the_facts(tmp_path):
  workdir = str(tmp_path / "run")
  flags = (SMOKE, f"--workdir={workdir}")
  done = child.run(*flags)
  assert done.returncode == 0 and done.stdout.strip().splitlines()[-1].endswith(os.path.join(workdir, "report.html"))
  before = child.facts(workdir)
  os.remove(os.path.join(workdir, "report.html"))
  os.remove(os.path.join(workdir, "eval", "train.json"))
  done = child.run(*flags, "--mode=eval")
  assert done.returncode == 0, done.stderr
  assert os.path.exists(os.path.join(workdir, "report.html"))
  assert os.path.exists(os.path.join(workdir, "eval", "train.json"))
  assert child.facts(workdir) == before


LONG = ("--config.train.num_epochs=100000", "--config.eval.every_epochs=100000",
        "--config.checkpoint.every_epochs=100000")


@pytest.mark.parametrize("stop", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_saves_and_exits_85_within_5_seconds(stop, tmp_path):
  workdir = str(tmp_path / "run")
  process = child.start(SMOKE, *QUIET, f"--workdir={workdir}", *LONG)
  child.wait_for_first_step(process, workdir, 1)
  time.sleep(0.3)
  sent = time.monotonic()
  process.send_signal(stop)
  _, err = process.communicate(timeout=60)
  assert process.returncode == 85 and time.monotonic() - sent < 5
  assert f"{signal.Signals(stop).name}: saved at step" in err and "Traceback" not in err
  described = child.inspect(workdir)
  assert int(described["steps_kept"].split()[-1]) > 0


@pytest.mark.slow
def test_a_second_signal_leaves_at_once(tmp_path):
  workdir = str(tmp_path / "run")
  process = child.start(SMOKE, *QUIET, f"--workdir={workdir}", *LONG)
  child.wait_for_first_step(process, workdir, 1)
  process.send_signal(signal.SIGTERM)
  process.send_signal(signal.SIGTERM)  # the first may be handled in between, or both at once
  process.send_signal(signal.SIGINT)
  process.communicate(timeout=60)
  assert process.returncode in (130, 143)


def test_the_time_budget_saves_and_exits_85(tmp_path):
  workdir = str(tmp_path / "run")
  done = child.run(SMOKE, *QUIET, f"--workdir={workdir}", *LONG, "--config.train.time_budget_minutes=0.02")
  assert done.returncode == 85 and "time budget: saved at step" in done.stderr


NAN_FLAGS = (SMOKE, *QUIET, "--config.optim.learning_rate=1e30", "--config.optim.clip_norm=0")


def test_a_run_that_blows_up_exits_3_and_names_step_and_metric(tmp_path):
  done = child.run(*NAN_FLAGS, f"--workdir={tmp_path / 'run'}")
  assert done.returncode == 3 and "is not finite" in done.stderr and "Traceback" not in done.stderr


def test_an_unexpected_failure_is_one_line_with_its_traceback_in_the_log(tmp_path):
  (tmp_path / "broken.py").write_text(
      "from jaxtrain.config import common\ndef get_config():\n  config = common()\n  config.experiment = 'broken'\n"
      "  config.train.num_epochs = 1\n  return config\ndef make(config, meta):\n  pass\n"
      "def load(config):\n  raise RuntimeError('the reason')\n")
  workdir = tmp_path / "run"
  done = child.run(f"--config={tmp_path / 'broken.py'}", f"--workdir={workdir}", environ={"PYTHONPATH": str(tmp_path)})
  assert done.returncode == 1
  assert done.stderr == f"jaxtrain: RuntimeError: the reason (traceback in {workdir / 'log.txt'})\n"
  assert "Traceback" in (workdir / "log.txt").read_text(encoding="utf-8")


def test_a_strangers_csv_trains_by_overrides_alone_and_a_changed_one_is_refused(tmp_path):
  path, workdir = str(tmp_path / "cores.csv"), str(tmp_path / "run")
  lines = ["hole,Dichte [g/cm3],rock,porosity %,\"p-wave, m/s\""]
  for i in range(400):
    rock = "" if i % 7 == 0 else ("chalk", "clay \"grey\"", "sand")[i % 3].replace('"', '""')
    cells = [f"H{i // 25}", f"{1.5 + 0.01 * (i % 50)}", f'"{rock}"', "" if i % 50 == 3 else f"{40 - 0.1 * (i % 97)}",
             f"{1500 + i}"]
    lines.append(",".join(cells))
  with open(path, "w", encoding="utf-8") as file:
    file.write("\n".join(lines) + "\n")
  flags = ("--config=configs/vae.py:csv", f"--workdir={workdir}", f"--config.data.path={path}",
           "--config.model.kind=semisup",
           "--config.data.features=('Dichte [g/cm3]','porosity %','p-wave, m/s')", "--config.data.label=rock",
           "--config.data.group=hole", "--config.train.num_epochs=3", "--config.train.batch_size=32",
           "--config.data.transforms=('standardise','log1p','min_max')", *QUIET)
  done = child.run(*flags)
  assert done.returncode == 0, done.stderr
  unlabelled = sum(i % 7 == 0 and i % 50 != 3 for i in range(400))
  assert "8 of 400 rows dropped" in done.stdout and f"{unlabelled} rows unlabelled" in done.stdout
  with open(os.path.join(workdir, "eval", "test.json"), encoding="utf-8") as file:
    record = json.load(file)
  checkpoints = os.path.join(workdir, "checkpoints")
  meta = records.read_record(checkpoints, records.committed_steps(checkpoints)[-1])["meta"]
  assert meta["class_names"] == ["chalk", 'clay "grey"', "sand"]
  assert meta["table"]["rows_dropped"] == 8 and "accuracy" in record["scalars"]
  with open(path, "a", encoding="utf-8") as file:
    file.write("H1,1.7,sand,33,1600\n")
  done = child.run(*flags, "--config.train.num_epochs=4")
  assert done.returncode == 2 and "the data has changed" in done.stderr


def test_the_watchdog_prints_stacks_and_exits_4(tmp_path):
  code = ("import time\nfrom jaxtrain.run import stops\nw = stops.Watchdog(0.3)\nfor _ in range(5):\n  "
          "time.sleep(0.1)\n"
          "  w.beat()\nprint('alive', flush=True)\ntime.sleep(30)")
  done = subprocess.run([sys.executable, "-c", code], cwd=child.ROOT,
                        capture_output=True, text=True, timeout=60)
  assert done.returncode == 4 and "alive" in done.stdout and "no step completed in 0.3 s" in done.stderr
  assert "most recent call first" in done.stderr


def test_eval_runs_no_code_that_only_the_workdir_names(tmp_path, shared):
  workdir = tmp_path / "run"
  shared.copy(workdir, SMOKE, *QUIET)
  record = json.loads((workdir / "config.json").read_text())
  for change, message in (({"experiment": "outside"}, "is not part of jaxtrain"),
                          ({"eval": record["eval"] | {"metrics": ["outside.make"]}},
                           "names code, 'outside.make', that you have not named")):
    (workdir / "config.json").write_text(json.dumps(record | change))
    done = child.run("--mode", "eval", f"--workdir={workdir}", environ={"PYTHONPATH": os.path.join(child.ROOT,
                                                                                                   "tests")})
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.slow
def test_imported_weights_make_a_run_of_no_steps(tmp_path, shared):
  source, workdir = shared.run(SMOKE, *QUIET), tmp_path / "run"
  done = child.run(SMOKE, *QUIET, "--mode=eval", f"--init_from={source}@last", f"--workdir={workdir}")
  assert done.returncode == 0, done.stderr
  assert (workdir / "eval" / "train.json").exists() and (workdir / "run.json").exists()
  done = child.run(SMOKE, *QUIET, f"--workdir={workdir}")  # training goes on from there
  assert done.returncode == 0 and child.inspect(str(workdir))["best_step"] == 32
  events, _ = child.facts(str(workdir))
  assert [event["moment"] for event in events].count("on_train_end") == 1
