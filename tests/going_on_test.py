"""`--workdir=RUN` without `--config`: the run goes on as with its flags repeated; what may not change is refused."""

import json
import os

import pytest

import child
import outside
from jaxtrain import commands, loop, main
from jaxtrain.errors import UserError
from runs import QUIET

SMOKE = "--config=configs/vae.py:smoke"
FLAGS = (SMOKE, *QUIET)
LONGER = "--config.train.num_epochs=3"


def read(*argv):
  """(config, origins) of a command line of main."""
  return main.read_config(commands.parse(main.make_flags(), ["main", *argv], "About."))


def json_of(folder, name):
  """A JSON file of a run."""
  with open(os.path.join(folder, name), encoding="utf-8") as file:
    return json.load(file)


def test_it_is_the_same_run_bit_for_bit(tmp_path, shared):
  by_flags, by_folder = (shared.copy(tmp_path / name, *FLAGS) for name in ("flags", "folder"))
  for done in (child.run(*FLAGS, LONGER, f"--workdir={by_flags}"), child.run(LONGER, f"--workdir={by_folder}")):
    assert done.returncode == 0 and "resumed at step 32" in done.stdout, done.stderr
  assert child.inspect(by_flags)["digest"] == child.inspect(by_folder)["digest"]
  assert child.facts(by_flags) == child.facts(by_folder)
  assert json_of(by_flags, "config.json") == json_of(by_folder, "config.json")
  assert json_of(by_folder, "config.json")["origins"] == {
      "log.figures": "flag", "log.progress": "flag", "train.num_epochs": "flag"}
  made = json_of(by_folder, "run.json")
  assert made["meanings"]["model.latent_dim"] == "dimensions of the latent space"
  assert "--config=configs/vae.py:smoke" in made["argv"] and made["latest"]["argv"][1:] == [LONGER,
                                                                                            f"--workdir={by_folder}"]


def test_what_may_not_change_is_refused(tmp_path, shared):
  workdir = shared.run(*FLAGS)
  done = child.run(f"--workdir={workdir}", "--config.optim.learning_rate=0.1")
  assert done.returncode == 2 and "config.optim.learning_rate: 0.001 -> 0.1" in done.stderr
  for flags, words in (((f"--workdir={workdir}", "--config.optim.lr=1"), "did you mean config.optim.learning_rate?"),
                       ((f"--workdir={workdir}", "--resume=never"), "--resume=never"),
                       ((f"--workdir={tmp_path}",), "--config: required, such as --config=configs/vae.py")):
    done = child.run(*flags)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
  assert not os.listdir(tmp_path)


def test_values_of_the_run_lie_under_those_of_the_environment_and_of_flags(shared, monkeypatch):
  workdir = shared.run(*FLAGS)
  monkeypatch.setenv("TRAIN__NUM_EPOCHS", "7")
  monkeypatch.setenv("LOG__EVERY_STEPS", "3")
  config, origins = read(f"--workdir={workdir}", "--config.train.num_steps=80")
  assert (config.train.num_epochs, config.train.num_steps, config.log.every_steps) == (7, 80, 3)
  assert origins == {"log.figures": "flag", "log.progress": "flag", "train.num_steps": "flag",
                     "train.num_epochs": "environment", "log.every_steps": "environment"}
  assert config.model.hidden_dims == (64, 32)


def test_stages_and_sweeps_go_on_as_a_whole(tmp_path):
  record = outside.get_config().to_dict()
  for folder in (tmp_path / "run", tmp_path / "run" / "stages" / "1"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(record))
  with pytest.raises(UserError, match="is a stage of the run in"):
    read(f"--workdir={tmp_path / 'run' / 'stages' / '1'}")
  (tmp_path / "sweep.json").write_text("{}")
  with pytest.raises(UserError, match="is the folder of a sweep; its members are in runs/"):
    read(f"--workdir={tmp_path}")


@pytest.fixture(scope="module")
def own_code(tmp_path_factory):
  """A run of an experiment that is not part of jaxtrain."""
  workdir = tmp_path_factory.mktemp("own") / "run"
  config = outside.get_config()
  config.train.num_steps = 20
  loop.train(config, str(workdir))
  return workdir


def test_a_run_of_code_of_ones_own_needs_its_config(own_code, tmp_path):
  environ = {"PYTHONPATH": os.path.join(child.ROOT, "tests")}
  for mode in ("train", "check", "fields"):
    done = child.run(f"--workdir={own_code}", f"--mode={mode}", environ=environ)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "was trained by 'outside', which is not part of jaxtrain" in done.stderr
  done = child.run(f"--workdir={own_code}", "--config.experiment=outside", "--mode=fields", "--fields=loss",
                   environ=environ)  # typed, so named by the user
  assert done.returncode == 0 and "\nloss.weights.error  1.0    run " in done.stdout, done.stderr


@pytest.mark.slow
def test_the_modes_that_take_the_config_of_a_folder(shared):
  workdir = shared.run(*FLAGS)
  before = child.facts(workdir)
  done = child.run(f"--workdir={workdir}", "--mode=check", "--json", "--config.log.every_steps=3")
  assert done.returncode == 0 and json.loads(done.stdout)["parameters"] == 6426
  done = child.run(f"--workdir={workdir}", "--mode=eval", "--config.seed=1")
  assert done.returncode == 2 and "config.seed: 42 -> 1" in done.stderr, done.stderr
  done = child.run(f"--workdir={workdir}", "--mode=inspect", "--config.seed=3")
  assert done.returncode == 2 and "--config.seed: allowed nothing with --mode=inspect" in done.stderr
  assert child.facts(workdir) == before


def test_fields_of_a_config_and_of_a_run(shared):
  done = child.run(SMOKE, "--mode=fields", "--fields=train.num_e", environ={"COLUMNS": "120"})
  assert done.returncode == 0, done.stderr
  assert "\ntrain.num_epochs  2      file    passes over the training rows; exactly one of num_epochs" in done.stdout
  workdir = shared.run(*FLAGS)
  done = child.run(f"--workdir={workdir}", "--mode=fields", "--json")
  found = json.loads(done.stdout)
  assert found["log.figures"]["value"] == "none" and found["log.figures"]["origin"] == "flag"
  assert found["model.latent_dim"] == {"value": 10, "meaning": "dimensions of the latent space",
                                       "allowed": "1 to 65536", "origin": "run"}
  done = child.run(SMOKE, "--fields=train")
  assert done.returncode == 2 and "--fields: got 'train', allowed nothing without --mode=fields" in done.stderr


@pytest.mark.slow
def test_a_stop_says_how_to_go_on(tmp_path):
  done = child.run(*FLAGS, f"--workdir={tmp_path / 'a run'}", "--config.train.num_epochs=100000",
                   "--config.train.time_budget_minutes=0.001")
  assert done.returncode == 85 and done.stderr.endswith(f"; --workdir='{tmp_path}/a run' goes on\n"), done.stderr
