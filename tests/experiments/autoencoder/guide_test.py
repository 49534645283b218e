"""The guide of the autoencoder: its commands, its tables, and a right-hand side for every command of the original."""

import fnmatch
import math
import os
import re
import shlex
import subprocess
import sys

import pytest

import child
import guides
import submitting
from jaxtrain import commands, config as config_lib, loop, main
from jaxtrain.experiments.autoencoder import corruptions, evaluate, event_files, latents, nets, scaling, sources
from jaxtrain.report import figures
from jaxtrain.run import setup
from jaxtrain.sweep import __main__ as sweep
from runs import QUIET

ROWS = guides.rows(guides.COLLIDER, "| the original | ours |")
CONFIG, SWEEP = "configs/autoencoder.py", "python -m jaxtrain.sweep "
SMALL = {"train.num_epochs": 1, "log.figures": "none", "log.progress": False}
OF_EVENTS = {"data.row_limit": 300, "train.batch_size": 64}
# Every command and every setting that the original's guide shows.
SHOWN = (
    "`thesis-train`", "phase1.trainer.epochs=20 phase1/latent_space=vq",
    "--multirun phase1/latent_space=none,linear,vq", "loop=ae", "loop=gan_ae", "loop=diffusion_ae", "loop=test_mlp",
    "phase1.trainer.epochs=50", "phase1.trainer.lr=0.001", "data.batch_size=256", "phase1.trainer.seed=42",
    *(f"phase1/{part}={kind}" for part in ("encoder", "decoder") for kind in ("mlp", "gnn", "gan", "diffusion")),
    "phase1/latent_space=none", "phase1/latent_space=linear", "phase1/latent_space=vq", "logging=plots_minimal",
    "logging=plots_standard", "logging=plots_full", "logging.save_artifacts=false",
    "logging.families.losses.enabled=true", "logging.families.recon.enabled=false", "ssh stoomboot",
    "cd Thesis-Code", "conda activate", "env=stoomboot phase1.trainer.epochs=20",
    "condor_submit hpc/stoomboot/train.sub", "condor_q", "tail -f",
    "arguments = env=stoomboot phase1/latent_space=vq phase1.trainer.epochs=50",
    "--multirun hydra=experiment phase1/latent_space=none,vq phase1.trainer.epochs=10,20",
    "hydra.job.name=latent_comparison", "--config-name=phase1/experiment/compare_vq_vs_none",
    "compare_latent_spaces", "compare_globals_heads", ".hydra/config.yaml", "facts/events.jsonl", "facts/scalars.csv",
    "figures/", "best_val.pt", "last.pt", "model.pt", "data.batch_size=128", "gradient accumulation",
    "logging.make_plots=false", "nvidia-smi", "ls configs/phase1/latent_space/", "phase1.trainer.epochs 20",
    "loop=my_loop", "phase1/encoder=my_encoder", "device")


def rows_of(kind) -> list:
  """Parameters of the rows whose right-hand side is of a kind."""
  return [pytest.param(right, id=left[:50]) for left, right in ROWS if kind(right)]


def is_run(right: str) -> bool:
  """Whether a right-hand side is flags of a training."""
  return right.startswith("--") and "--mode" not in right


@pytest.fixture
def own(tmp_path, monkeypatch):
  """The guide's modules, where they can be imported."""
  guides.write_modules(guides.COLLIDER, tmp_path)
  for name in ("my_encoder", "my_decoder", "my_latent", "my_loss", "my_events", "my_loader", "my_loop"):
    monkeypatch.delitem(sys.modules, name, raising=False)
  monkeypatch.syspath_prepend(str(tmp_path))
  return tmp_path


def config_of(flags: list[str]):
  """The config of flags, with the default's file where they name none, and the flags that are no fields."""
  fields = [flag for flag in flags if flag.startswith("--config")]
  others = [flag for flag in flags if not flag.startswith("--config")]
  named = any(flag.startswith("--config=") for flag in fields)
  return guides.config_of(fields if named else [f"--config={CONFIG}", *fields]), others


def small(config):
  """The config at a size of seconds; a file becomes the simulation."""
  values = SMALL | (OF_EVENTS if "num_slots" in config.data else {})
  values |= {f"model.{part}.hidden_dims": (16,) for part in ("encoder", "decoder") if part in config.model}
  if "num_slots" in config.data and config.data.source == "hdf5":
    values |= {"data.source": "toy", "data.path": "", "data.split.kind": "random"}
  for key, value in values.items():
    config_lib.assign(config, key, value)
  return config


def test_the_table_has_every_command_of_the_original():
  left = " ".join(row[0] for row in ROWS)
  assert not [command for command in SHOWN if command not in left]


@pytest.mark.parametrize("right", rows_of(is_run))
def test_each_run_of_the_table_has_flags_and_fields_that_exist(right, own):
  config, others = config_of(shlex.split(right))
  assert all(flag.split("=")[0].lstrip("-") in main.make_flags() for flag in others)
  assert config.experiment == "my_loop" or config.experiment.startswith("jaxtrain.experiments.autoencoder.")


@pytest.mark.slow
@pytest.mark.parametrize("right", rows_of(is_run))
def test_each_run_of_the_table_trains(right, own):
  config, _ = config_of(shlex.split(right))
  result = loop.train(small(config), None)
  assert len(result.history["loss"]) == 1 and result.workdir is None


@pytest.mark.parametrize("right", rows_of(lambda right: right.startswith(SWEEP)))
def test_each_sweep_of_the_table_has_members(right):
  given = commands.parse(sweep.make_flags(), ["sweep", *shlex.split(right.removeprefix(SWEEP))], "")
  asked = sweep.read_asked(given)
  count = math.prod(len(axis.values) for axis in asked.axes) * max(len(asked.settings), 1)
  assert count == (27 if "compare_globals_heads" in right else 4 if "10,20" in right else 2 if "none,vq" in right or
                   "vq_vs_none" in right else 3)


def test_the_submit_line_of_the_table_asks_for_a_gpu_and_a_log_folder(monkeypatch):
  """And what is looked at afterwards are the files that it names."""
  monkeypatch.setenv("PWD", child.ROOT)
  (right,) = [right for _, right in ROWS if right.startswith("condor_submit")]
  command, path, *given = shlex.split(right)
  assert os.path.samefile(os.path.join(child.ROOT, path), submitting.SUBMIT_FILE)
  read, queued = submitting.submit(*given)
  assert queued == "1" and read["request_gpus"] == "1"
  config, others = config_of(shlex.split(read["arguments"]))
  assert config.model.latent.kind == "vq" and config.train.num_epochs == 50 and others == ["--workdir=runs/vq50"]
  (tail,) = [right for _, right in ROWS if right.startswith("tail")]
  assert fnmatch.fnmatch(read["output"], tail.split()[-1])


@pytest.mark.slow
def test_what_is_read_of_a_run_and_of_configs_is_there(shared, tmp_path):
  """The rows with shell commands, and those with a mode."""
  shared.copy(tmp_path / "runs" / "a", f"--config={CONFIG}:smoke")
  os.symlink(guides.ROOT / "configs", tmp_path / "configs")
  shell = [right for _, right in ROWS if right.split()[0] in ("cat", "ls", "python") and not right.startswith(SWEEP)]
  assert len(shell) >= 6
  for right in shell:
    line = right.replace("python -", f"{shlex.quote(sys.executable)} -", 1)
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=os.environ | {"PYTHONPATH": child.ROOT},
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and done.stdout, (right, done.stderr)
  for right in [right for _, right in ROWS if "--mode" in right]:
    done = child.run(f"--config={CONFIG}:smoke", *shlex.split(right))
    assert done.returncode == 0 and done.stdout, (right, done.stderr)


def test_all_kinds_norms_sources_and_metrics_are_explained():
  page = guides.read(guides.COLLIDER)
  families = figures.FAMILIES | figures.experiment_families("jaxtrain.experiments.autoencoder.ae")
  for name in (*latents.KINDS, *nets.KINDS, *scaling.NORMS, *sources.SOURCES, *families):
    assert f"`{name}`" in page, name
  keys = [name for name, metric in evaluate.METRICS.items() if metric.key and not name.startswith("image")]
  assert not [name for name in keys if f"`{name}`" not in page]
  assert not [name for name in corruptions.CORRUPTIONS if f"| `{name}` |" not in page] and "auroc_<corruption>" in page
  assert {alias for alias in event_files.PROCESSES if not alias.isdigit()} <= set(re.findall(r"`(\w+)`", page.lower()))
  assert "recon" in figures.experiment_families("jaxtrain.experiments.autoencoder.ae", "FULL_FAMILIES")
  assert "| `recon` (in `full` alone) |" in page
  for name in config_lib.read_file(str(guides.ROOT / CONFIG)).loss.weights:
    assert f"`{name}`" in page, name


OWN = {"my_encoder.make": "model.encoder.own", "my_decoder.make": "model.decoder.own",
       "my_latent.make": "model.latent.own", "my_loader.load": "data.loader"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "my_latent.make"))
                                  for name in OWN])  # those that are slow also train, below
def test_a_step_with_a_part_of_ones_own_is_traced(name, own):
  config = small(guides.config_of([f"--config={CONFIG}:smoke", f"--config.{OWN[name]}={name}"]))
  assert setup.count_params(setup.assemble(config_lib.resolve(config)).abstract) > 100


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in guides.command_lines(guides.COLLIDER) if "runs/e" in line or
                                  re.search(r"--workdir=runs/(d|l|loss|loader|loop)$", line)])
def test_parts_of_ones_own_train(line, own):
  """The commands of the guide, with its modules."""
  flags = [flag.replace(CONFIG, str(guides.ROOT / CONFIG)).replace("=my_events.py", f"={own}/my_events.py")
           .replace("=my_loop.py", f"={own}/my_loop.py").replace("runs/", f"{own}/runs/")
           for flag in shlex.split(line)[3:]]
  done = child.run(*flags, *QUIET, environ={"PYTHONPATH": f"{own}{os.pathsep}{child.ROOT}"})
  assert done.returncode == 0, done.stderr
  if "my_events" in line:
    folder = next(flag for flag in flags if flag.startswith("--workdir")).partition("=")[2]
    with open(os.path.join(folder, "history.json"), encoding="utf-8") as file:
      history = file.read()
    assert all(f'"{name}"' in history for name in ("leading", "val_leading", "val_count_error"))
