"""The guide of semantic compression: its commands, its tables, and every right-hand side of what the original had."""

import csv
import shlex

import numpy as np
import pytest

import child
import guides
import made_simulations
from jaxtrain import config as config_lib, main
from jaxtrain.experiments.semantic_compression import codec, quantise, sources
from runs import QUIET

ROWS = guides.rows(guides.CODECS, "| the original | ours |")
CONFIG = "configs/semantic_compression.py"


@pytest.mark.parametrize("original, ours", ROWS, ids=[row[0][:40] for row in ROWS])
def test_each_option_of_the_original_has_a_config_that_fits(original, ours, tmp_path):
  """Its data can be read, too; a flag that is no field is one of main's."""
  path = made_simulations.write(tmp_path / "simulation.db")
  flags = [flag.replace("simulation.db", path) for flag in shlex.split(ours)]
  known = main.make_flags()
  assert all(flag.split("=")[0].lstrip("-") in known or flag.startswith("--config") for flag in flags)
  fields = [flag for flag in flags if flag.startswith("--config")]
  config = guides.config_of(fields if any(flag.startswith("--config=") for flag in fields)
                            else [f"--config={CONFIG}", *fields])
  assert config.experiment == codec.__name__
  with config.unlocked():
    config.data.num_states = 100 if config.data.source in sources.SIMULATED else config.data.num_states
  assert codec.load(config).train.num_rows > 50


def test_the_table_names_all_options_that_the_original_had():
  left = " ".join(row[0] for row in ROWS)
  for flag in ("--experiment", "--compression entropy", "--compression vq", "--compression none", "--compression-level",
               "--epochs", "--batch-size", "--latent-dim", "--learning-rate", "--use-real-data", "--num-states",
               "--resume", "--gpu", "--debug"):
    assert flag in left, flag


def test_all_kinds_sources_and_verbs_are_explained():
  page = guides.read(guides.CODECS)
  for name in (*quantise.KINDS, *quantise.LATTICES, *sources.SIMULATED, "compress", "decompress", "probe"):
    assert f"`{name}`" in page or f"={name}`" in page, name
  config = config_lib.read_file(str(guides.ROOT / CONFIG))
  for name in ("continuous", "integer", "binary", "categorical", "quantiles"):
    assert f"`data.{name}`" in page and name in config.data, name


def write_states(path) -> None:
  """400 rows of the guide's own table."""
  random = np.random.RandomState(0)
  with open(path, "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["x", "y", "alive", "role"])
    for i in range(400):
      writer.writerow([*random.uniform(-5, 5, 2).round(3), i % 2, ("scout", "guard", "medic")[i % 3]])


@pytest.mark.slow
def test_the_commands_of_ones_own_table_and_of_the_verbs_run(tmp_path):
  """The first run and the verbs, as they stand in the guide, at a small size; what is decoded is near what was coded.
  """
  write_states(tmp_path / "states.csv")
  line = guides.blocks(guides.section(guides.CODECS, "## Your own states"))[0].replace("\\\n", " ")
  flags = [flag.replace(CONFIG, str(guides.ROOT / CONFIG)) for flag in shlex.split(line)[3:]]
  done = child.run(*flags, *QUIET, "--config.train.num_epochs=2", "--config.model.hidden_dims=8,", cwd=str(tmp_path))
  assert done.returncode == 0, done.stderr
  guides.run_lines(guides.blocks(guides.section(guides.CODECS, "## Compressed files"))[0], tmp_path)
  read = lambda name: list(csv.DictReader((tmp_path / name).read_text(encoding="utf-8").splitlines()))
  pairs = list(zip(read("states.csv"), read("back.csv"), strict=True))
  assert all(one["role"] == other["role"] and one["alive"] == other["alive"] for one, other in pairs)
  assert np.sqrt(np.mean([(float(one["x"]) - float(other["x"])) ** 2 for one, other in pairs])) < 0.2


@pytest.mark.slow
def test_terms_and_metrics_of_ones_own_are_trained_and_reported(tmp_path):
  """The guide's modules."""
  environ = guides.write_modules(guides.CODECS, tmp_path)
  done = child.run(f"--config={tmp_path / 'my_codec.py'}", f"--workdir={tmp_path / 'run'}", *QUIET, environ=environ)
  assert done.returncode == 0, done.stderr
  history = (tmp_path / "run" / "history.json").read_text(encoding="utf-8")
  assert all(f'"{metric}"' in history for metric in ("mean_bits", "val_mean_bits", "far", "val_far"))
