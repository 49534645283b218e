"""The guide of the tabular VAE: its commands, the sources it names, and every right-hand side of its table."""

import pathlib
import re
import shlex

import pytest

import child
import cores
import guides
import runs
from jaxtrain import main
from jaxtrain.data import files, writing
from jaxtrain.experiments.tabular_vae import lithology, vae
from jaxtrain.run import check
from runs import QUIET

SMALL = ("--config.train.num_epochs=1", "--config.data.row_limit=1500", *QUIET)
ROWS = guides.rows(guides.VAE, "| the original's command | ours |")


@pytest.mark.slow
def test_own_metric_loss_and_loader(tmp_path):
  environ = guides.write_modules(guides.VAE, tmp_path)
  done = child.run(f"--config={tmp_path / 'moons.py'}", f"--workdir={tmp_path / 'run'}", "--config.log.figures=none",
                   environ=environ)
  assert done.returncode == 0, done.stderr
  history = (tmp_path / "run" / "history.json").read_text(encoding="utf-8")
  assert all(f'"{metric}"' in history for metric in ("worst_error", "sparsity", "class", "masked"))


def small_flags(ours: str, folder: pathlib.Path) -> list[str]:
  """Flags of a right-hand side at a small size; field overrides alone go on the recipe that has the fields."""
  csv = folder / "table.csv"
  csv.write_text("a,b\n" + "".join(f"{i % 17},{i % 23}\n" for i in range(300)), encoding="utf-8")
  flags = [f.replace("=FILE", f"={csv}").replace("features=...", "features=a,b") for f in shlex.split(ours)]
  flags = [f for f in flags if not f.startswith("--workdir")] + [f"--workdir={folder / 'run'}"]
  if not any(f.startswith("--config=") for f in flags):
    flags.insert(0, "--config=configs/vae.py:standard_semisup")
  if "--config.train.num_epochs=50" in flags:
    flags.append("--config.data.row_limit=400")
  return flags + [f for f in SMALL if not any(g.split("=")[0] == f.split("=")[0] for g in flags)]


@pytest.mark.slow
@pytest.mark.parametrize("original, ours", [
    pytest.param(*row, id=row[0][:40], marks=[pytest.mark.slow] * ("--mode=eval" not in row[1])) for row in ROWS])
def test_original_command_and_ours(original, ours, tmp_path):
  """Each right-hand side runs, at a small size."""
  flags = small_flags(ours, tmp_path)
  if "--mode=eval" in flags:
    assert child.run(*[f for f in flags if f != "--mode=eval"]).returncode == 0
  if "--config.parallel.platform=gpu" in flags:  # there may be none: then the answer is one line
    done = child.run(*flags, environ={"JAX_PLATFORMS": ""})
    assert done.returncode in (0, 2) and "Traceback" not in done.stderr
    return
  done = child.run(*flags)
  assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("original, ours", ROWS, ids=[row[0][:40] for row in ROWS])
def test_each_command_of_the_table_compiles(original, ours, tmp_path):
  flags = [flag for flag in small_flags(ours, tmp_path) if not flag.endswith("platform=gpu")]
  assert check.describe(guides.config_of(flags))["parameters"] > 1000


@pytest.mark.parametrize("original, ours", ROWS, ids=[row[0][:40] for row in ROWS])
def test_each_command_of_the_table_is_a_config_that_fits(original, ours, tmp_path):
  assert guides.config_of(small_flags(ours, tmp_path)).experiment.endswith("tabular_vae.vae")


def test_the_table_names_every_flag_of_the_original():
  left = " ".join(row[0] for row in ROWS)
  for flag in ("--model unsupervised", "--model semisupervised", "--output", "--data", "--epochs", "--batch-size",
               "--lr",
               "--beta", "--alpha", "--seed", "--device", "--skip-training"):
    assert flag in left


@pytest.fixture(scope="module")
def trained(tmp_path_factory, shared):
  """the guide's runs/a, and files to apply it to."""
  folder = tmp_path_factory.mktemp("predict")
  shared.copy(folder / "runs" / "a", *runs.smoke("vae"))
  made = lithology.generate(400)
  columns = {name: made.features[:, d].copy() for d, name in enumerate(lithology.FEATURES)}
  writing.write(str(folder / "new.csv"), columns)
  columns["R"][::3] = float("nan")
  writing.write(str(folder / "holes.csv"), columns)
  return folder


@pytest.mark.slow
def test_commands_of_the_predict_section_run(trained):
  guides.run_lines(guides.blocks(guides.section(guides.VAE, "## Using a trained model"))[0], trained)
  for name in ("embedded.parquet", "filled.csv", "samples.npz", "embed.stablehlo"):
    assert (trained / name).stat().st_size > 1000


@pytest.mark.slow
def test_commands_of_the_section_on_mixed_tables_run(tmp_path):
  """In order, at a small size: rows that one run samples are the table of the next."""
  part = guides.section(guides.VAE, "## Tables of numbers and categories").split("\n## ")[0]
  lines = "\n".join(guides.blocks(part)).replace("\\\n", " ").strip().splitlines()
  commands = [shlex.split(line.replace("configs/", f"{guides.ROOT}/configs/")) for line in lines]
  commands = [words for words in commands if words[:2] == ["python", "-m"]]
  assert len(commands) >= 4
  for _, _, module, *flags in commands:
    done = child.run(*flags, *SMALL * (module == "jaxtrain.main"), command=module.removeprefix("jaxtrain."),
                     cwd=str(tmp_path))
    assert done.returncode == 0, (flags, done.stderr)
  with open(tmp_path / "back.csv", encoding="utf-8") as file:
    assert file.readline().startswith("age,region,sector,children,rooms,owner,income,savings,commute,age_recon,")


def source_rows() -> list[str]:
  """Flags of the table of sources that name one."""
  part = guides.read(guides.VAE).split("| source | read like this")[1].split("\n\n")[0]
  return re.findall(r"`(--config\S*source=\S+ [^`]*|--config=\S+:tfds [^`]*)`", part)


@pytest.mark.slow
@pytest.mark.parametrize("row", [
    pytest.param(row, marks=[pytest.mark.slow] * (not any(source in row for source in ("parquet", "tfds"))))
    for row in source_rows()])
def test_each_source_trains(row, tmp_path):
  flags = shlex.split(row.replace("logs", "cores"))
  source = "tfds" if "tfds" in row else row.split("source=")[1].split()[0]
  if source != "sklearn":
    path = cores.write(source, tmp_path)
    flags = [f"--config.data.path={path}" if f.startswith("--config.data.path=") else f for f in flags]
    flags += [f"--config.data.features={','.join(cores.FEATURES)}"]
    flags += ["--config.data.label=rock", "--config.data.group=hole", "--config.model.kind=semisup"]
  else:
    flags.append("--config.data.split.kind=random")
  start = [] if flags[0].startswith("--config=") else ["--config=configs/vae.py:csv"]
  done = child.run(*start, *flags, f"--workdir={tmp_path / 'run'}", "--config.train.num_epochs=1",
                   "--config.log.figures=none", "--config.train.batch_size=64")
  assert done.returncode == 0, done.stderr


def test_all_sources_are_in_the_table():
  part = guides.read(guides.VAE).split("| source | read like this")[1].split("\n\n")[0]
  assert len(source_rows()) == 6 and all(f"source={kind}" in part or kind == "csv" for kind in files.KINDS)


@pytest.mark.parametrize("text", [guides.read("README.md"), main.__doc__], ids=["front-page", "help"])
def test_the_first_command_for_a_table_of_ones_own_reads_it(text, tmp_path):
  """As it stands, but for the place of the file."""
  line = re.search(r"python -m jaxtrain.main (--config=configs/vae.py:csv [^`\\\n]*(?:\\\n.*)?)", text).group(1)
  config = guides.config_of(shlex.split(line.replace("\\\n", " ")))
  (tmp_path / "t.csv").write_text(",".join(config.data.features) + "\n" + "".join(f"{i},{i * i}\n" for i in range(40)))
  config.data.path = str(tmp_path / "t.csv")
  assert vae.load(config).train.num_rows > 20
