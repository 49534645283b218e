"""The guide of causal consistency: its commands, its tables, and every right-hand side of what the original had."""

import csv
import shlex

import numpy as np
import pytest

import child
import consistency_cases as cases
import guides
from jaxtrain import config as config_lib
from jaxtrain.experiments.causal_consistency import generators, joint, objectives, sources
from runs import QUIET

ROWS = guides.rows(guides.EFFECTS, "| the original | ours |")
CONFIG = "configs/causal_consistency.py"


def flags_of(ours: str) -> list[str]:
  """Flags of a right-hand side; field overrides alone go on the default."""
  flags = shlex.split(ours)
  return flags if any(flag.startswith("--config=") for flag in flags) else [f"--config={CONFIG}", *flags]


@pytest.mark.parametrize("original, ours", ROWS, ids=[row[0][:40] for row in ROWS])
def test_each_setting_of_the_original_has_a_config_that_fits(original, ours):
  """Its data can be read, too: what is set together is allowed together."""
  config = guides.config_of(flags_of(ours))
  assert config.experiment == joint.__name__
  with config.unlocked():
    config.data.num_samples = 100
  assert joint.load(config).train.num_rows == 100


def test_the_table_names_all_that_the_original_had():
  left, page = " ".join(row[0] for row in ROWS), guides.read(guides.EFFECTS)
  for flag in ("--config", "--model-hidden-dim", "--model-num-layers", "--loss-z-yx", "--loss-y-xz", "--loss-x-yz",
               "--loss-unsup", "--use-pyro", "--use-lightning", "--device", "--out-dir", "train", "eval",
               "TRAIN__EPOCHS", "TRAIN__BATCH_SIZE", "TRAIN__LEARNING_RATE", "TRAIN__DEVICE", "TRAIN__USE_PYRO",
               "TRAIN__USE_LIGHTNING", "DATA__N_SAMPLES", "DATA__NOISE_STD", "DATA__MISSING_Y_PROB",
               "DATA__NUM_CLASSES", "DATA__W_DIM", "DATA__W_Y_STRENGTH", "DATA__INSTRUMENTAL", "LOSS__W_X"):
    assert flag in left, flag
  for what in ("`serve`", "/predict_z", "/counterfactual_z", "/impute_y", "`config.yaml`", "`model.pt`", "YAML"):
    assert what in page, what


def test_all_objectives_backends_variants_and_dials_are_explained():
  page = guides.read(guides.EFFECTS)
  config = config_lib.read_file(cases.PATH)
  simulated = [name for name in config_lib.list_variants(cases.PATH) if config_lib.read_file(
      f"{cases.PATH}:{name}").data.source in sources.KNOWN and name != "smoke"]
  roles = ("treatment", "outcomes", "instruments")
  dials = [name for name in config.data if f"data.{name}" in joint.LIMITS and name not in ("source", *roles)]
  for name in (*objectives.OBJECTIVES, *joint.BACKENDS, *simulated, *generators.MECHANISMS, *dials,
               *(f"data.{role}" for role in roles)):
    assert f"`{name}`" in page or f"`{name} =" in page, name


def write_patients(path) -> None:
  """300 rows of the guide's own table, a third without a treatment."""
  random = np.random.RandomState(0)
  with open(path, "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["patient", "age", "dose", "drug", "pressure"])
    for i in range(300):
      age, y = random.normal(50, 9), random.randint(2)
      drug = "" if i % 3 == 0 else ("0 control", "verum")[y]
      writer.writerow([i // 2, age, random.gamma(2), drug, 90 + age - 5 * y + random.normal()])


@pytest.mark.slow
def test_the_commands_of_ones_own_table_and_of_the_verbs_run(tmp_path):
  """The first run and the verbs, as they stand in the guide, at a small size."""
  write_patients(tmp_path / "patients.csv")
  write_patients(tmp_path / "new.csv")
  line = guides.blocks(guides.section(guides.EFFECTS, "## Your own table"))[0].replace("\\\n", " ")
  flags = [flag.replace(CONFIG, str(guides.ROOT / CONFIG)) for flag in shlex.split(line)[3:]]
  done = child.run(*flags, *QUIET, "--config.train.num_epochs=2", "--config.loss.warmup_epochs=1",
                   "--config.model.hidden_dims=8,", cwd=str(tmp_path))
  assert done.returncode == 0, done.stderr
  guides.run_lines(guides.blocks(guides.section(guides.EFFECTS, "## Using a trained model"))[0], tmp_path)
  with open(tmp_path / "effects.csv", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 300 and float(rows[0]["effect_verum"])
  assert (tmp_path / "effect.stablehlo").stat().st_size > 1000
