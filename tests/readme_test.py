"""README says nothing that does not run: its code blocks, its commands, and every right-hand side of its table."""

import pathlib
import re
import shlex

import pytest

import child
import cores
from jaxtrain import commands, config as config_lib, loop, main
from jaxtrain.data import files, writing
from jaxtrain.experiments.tabular_vae import lithology
from runs import QUIET

README = pathlib.Path(child.ROOT, "README.md").read_text(encoding="utf-8")
SMALL = ("--config.train.num_epochs=1", "--config.data.row_limit=1500", *QUIET)


def code_blocks() -> dict[str, str]:
  """Python blocks of README by the file name in their first line."""
  blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", README, re.DOTALL)
  return dict(blocks)


def table_rows() -> list[tuple[str, str]]:
  """(the original's command, ours) of the family's table."""
  part = README.split("| the original's command | ours |")[1].split("\n\n")[0]
  return re.findall(r"^\| (.*?) \| `(.*?)` \|$", part, re.MULTILINE)


@pytest.fixture
def own_modules(tmp_path):
  """A folder with README's own modules, and the environment that finds them."""
  for name, text in code_blocks().items():
    (tmp_path / name).write_text(text, encoding="utf-8")
  return tmp_path, {"PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize("name", ["ten_lines.py", "moons.py"])
def test_own_experiment_metric_loss_and_loader(name, own_modules):
  folder, environ = own_modules
  done = child.run(f"--config={folder / name}", f"--workdir={folder / 'run'}", "--config.log.figures=none",
                   environ=environ)
  assert done.returncode == 0, done.stderr
  history = (folder / "run" / "history.json").read_text(encoding="utf-8")
  for metric in {"ten_lines.py": ("error",), "moons.py": ("worst_error", "sparsity", "class", "masked")}[name]:
    assert f'"{metric}"' in history


def test_the_shown_functions_are_short():
  """Ten lines each, as promised; the experiment's own functions together with its config stay under thirty."""
  import ast
  for name, text in code_blocks().items():
    for node in ast.parse(text).body:
      if isinstance(node, ast.FunctionDef):
        assert node.end_lineno - node.lineno < 10, (name, node.name)


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


def config_of(flags: list[str]):
  """The checked config of flags of main."""
  return config_lib.resolve(main.read_config(commands.parse(main.make_flags(), ["main", *flags], ""))[0])


def rows_of(rows: list[tuple[str, str]], trained: str) -> list:
  """Rows as parameters: `trained` stands in the one that the fast tests train."""
  return [pytest.param(*row, id=row[0][:40], marks=[pytest.mark.slow] * (trained not in row[1])) for row in rows]


@pytest.mark.parametrize("original, ours", rows_of(table_rows(), "--mode=eval"))
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


@pytest.mark.parametrize("original, ours", table_rows(), ids=[row[0][:40] for row in table_rows()])
def test_each_command_of_the_table_is_a_config_that_fits(original, ours, tmp_path):
  flags = [flag for flag in small_flags(ours, tmp_path) if not flag.endswith("platform=gpu")]
  assert loop.check(config_of(flags))["parameters"] > 1000


def test_the_table_names_every_flag_of_the_original():
  left = " ".join(row[0] for row in table_rows())
  for flag in ("--model unsupervised", "--model semisupervised", "--output", "--data", "--epochs", "--batch-size",
               "--lr",
               "--beta", "--alpha", "--seed", "--device", "--skip-training"):
    assert flag in left


def test_commands_of_the_modes_section_run_in_order(tmp_path, monkeypatch):
  section = README.split("## Modes, stops and exit codes")[1].split("```")[1]
  for line in section.strip().splitlines():
    flags = shlex.split(line.split("#")[0])[3:]
    flags = [f.replace("runs/", f"{tmp_path}/") for f in flags]
    done = child.run(*flags, *["--config.log.figures=none"] * any(f.startswith("--config=") for f in flags))
    assert done.returncode == 0, (line, done.stderr)


def run_lines(block: str, folder: pathlib.Path) -> None:
  """Runs the lines `python -m jaxtrain.COMMAND FLAGS` of a block in a folder."""
  for line in block.strip().splitlines():
    _, _, module, *flags = shlex.split(line)
    done = child.run(*flags, command=module.removeprefix("jaxtrain."), cwd=str(folder))
    assert done.returncode == 0, (line, done.stderr)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, shared):
  """README's runs/a, and files to apply it to."""
  folder = tmp_path_factory.mktemp("predict")
  shared.copy(folder / "runs" / "a", "--config=configs/vae.py:smoke", *QUIET)
  made = lithology.generate(400)
  columns = {name: made.features[:, d].copy() for d, name in enumerate(lithology.FEATURES)}
  writing.write(str(folder / "new.csv"), columns)
  columns["R"][::3] = float("nan")
  writing.write(str(folder / "holes.csv"), columns)
  return folder


def test_commands_of_the_predict_section_run(trained):
  run_lines(README.split("### Using a trained model")[1].split("```")[1], trained)
  for name in ("embedded.parquet", "filled.csv", "samples.npz", "embed.stablehlo"):
    assert (trained / name).stat().st_size > 1000


def test_facts_read_from_pandas(trained, monkeypatch):
  block = README.split("### Reading the facts")[1].split("```python\n")[1].split("```")[0]
  monkeypatch.chdir(trained)
  found = {}
  exec(block.replace('"val"', '"train"').replace('"val_loss"', '"train_loss"'), found)  # the smoke run has no val part
  assert len(found["rows"]) == 2 and list(found["events"].moment)[0] == "on_start"


def causal_rows() -> list[tuple[str, str]]:
  """(the original's command, ours) of causal discovery."""
  part = README.split("| causal-meta's command | here |")[1].split("\n\n")[0]
  return re.findall(r"^\| (.*?) \| `(.*?)` \|$", part, re.MULTILINE)


FEW_TASKS = {"data.num_nodes": "5,", "data.num_rows": 12, "data.task_chunk": 2, "train.batch_size": 4,
             "eval.max_val_tasks": 2, "eval.max_test_tasks": 0, "eval.test_num_samples": 4, "train.num_steps": 2,
             "log.figures": "none", "optim.warmup_steps": 1, "train.microbatch": 0}
TINY_NETS = {"avici": {"model.num_blocks": 2, "model.key_size": 4},
             "bcnp": {"model.num_layers": 2, "model.num_layers_decoder": 2, "model.n_perm_samples": 3,
                      "model.sinkhorn_iter": 3}}


def few_tasks(flags: list[str]) -> list[str]:
  """The flags with a size of seconds for what they do not set themselves; graphs that so few variables can have."""
  variant = [flag for flag in flags if flag.startswith("--config=")][0].partition(":")[2]
  kind = "avici" if variant == "avici" else "random" if variant == "random" else "bcnp"
  values = FEW_TASKS | ({} if kind == "random" else {"model.dim": 8, "model.num_heads": 2, "model.ff_dim": 8} |
                        TINY_NETS[kind])
  if kind == "random":
    values.pop("train.num_steps")
  if variant == "paper_all_data":
    values["data.graphs"] = "er num_edges=2,sf m=2"
  given = {flag.split("=")[0] for flag in flags}
  more = [f"--config.{key}={value}" for key, value in values.items() if f"--config.{key}" not in given]
  return [flag.replace("num_steps=20000", "num_steps=2") for flag in flags] + more


@pytest.mark.parametrize("original, ours", causal_rows(), ids=[row[0][:40] for row in causal_rows()])
def test_each_causal_command_is_a_config_that_fits(original, ours):
  module = config_of(shlex.split(ours)).experiment
  assert module.startswith("jaxtrain.experiments.causal_discovery.")
  assert config_of(few_tasks(shlex.split(ours))).experiment == module


@pytest.mark.slow
@pytest.mark.parametrize("original, ours", causal_rows(), ids=[row[0][:40] for row in causal_rows()])
def test_causal_command_and_ours(original, ours, tmp_path):
  done = child.run(*few_tasks(shlex.split(ours)), f"--workdir={tmp_path / 'run'}", timeout=400)
  assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_commands_and_families_of_the_causal_section_run(tmp_path):
  """The three commands, checked at full size or run small; then the lines of families together."""
  section = README.split("## Causal discovery")[1]
  commands, families = (block.strip().splitlines() for block in section.split("```")[1:4:2])
  for k, line in enumerate(commands):
    flags = shlex.split(line.split("#")[0])[3:]
    if "--mode=check" not in flags:
      flags = few_tasks([flag if ":" in flag else flag + ":avici" for flag in flags])
      flags.append(f"--workdir={tmp_path / str(k)}")
    done = child.run(*flags, timeout=400)
    assert done.returncode == 0, (line, done.stderr)
    assert ("signal linear" in done.stdout) == ("--mode=check" in flags)
  flags = [word for line in families for word in shlex.split(line.split("#")[0])]
  done = child.run("--config=configs/causal_discovery.py:smoke", "--mode=check", *flags, timeout=400)
  assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_predict_commands_of_the_causal_section_run(tmp_path, shared):
  shared.copy(tmp_path / "runs" / "c", "--config=configs/causal_discovery.py:smoke", *QUIET)
  (tmp_path / "measured.csv").write_text("a,b,c\n" + "".join(f"{i % 7},{i % 5},{(3 * i) % 11}\n" for i in range(40)),
                                         encoding="utf-8")
  run_lines(README.split("## Causal discovery")[1].split("```")[5], tmp_path)
  assert len((tmp_path / "edges.csv").read_text(encoding="utf-8").splitlines()) == 7
  assert len((tmp_path / "graphs.csv").read_text(encoding="utf-8").splitlines()) == 1001


def sweep_rows() -> list[tuple[str, str]]:
  """(the original's command, ours) of the table of sweeps."""
  part = README.split("| the original's sweep | ours")[1].split("\n\n")[0]
  return re.findall(r"^\| (.*?) \| `(.*?)` \|$", part, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("original, ours", sweep_rows(), ids=[row[0][:40] for row in sweep_rows()])
def test_original_sweep_and_ours(original, ours, tmp_path):
  """Each right-hand side runs with its first values, at a small size; without a Slurm the answer is one line."""
  flags = [re.sub(r"(\d+)\.\.\d+", r"\1..\1", flag) for flag in shlex.split(ours) if not flag.startswith("--workdir")]
  flags = [flag.replace("num_epochs=100", "num_epochs=1") for flag in flags]
  small = ["--config.model.hidden_dims=8,", "--config.log.progress=False", f"--workdir={tmp_path / 'sweep'}"]
  small += ["--config.train.num_epochs=1"] * (not any("num_epochs" in flag for flag in flags))
  small += ["--config.data.row_limit=800"] * ("standard" in ours)
  if "--name" in ours:  # dozens of members
    done = child.run(*flags, *small, "--mode=check", command="sweep")
    assert done.returncode == 0 and "members, each with a config that fits" in done.stdout, done.stderr
    return
  done = child.run(*flags, *small, command="sweep", timeout=400)
  if "slurm" in ours:
    missing = any(words in done.stderr for words in ("--launcher=slurm", "submitit is not installed"))
    assert done.returncode == 0 or done.returncode == 2 and missing, done.stderr
    return
  assert done.returncode == 0, done.stderr
  assert (tmp_path / "sweep" / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_commands_of_the_sweep_section_run_in_order(tmp_path):
  section = README.split("## Many runs")[1].split("```")[1]
  for line in section.strip().splitlines():
    words = [word.replace("runs/", f"{tmp_path}/") for word in shlex.split(line)[1:]]
    words = [re.sub(r",8\)", ",2)", word).replace("0..4", "0..0").replace("0..9", "0..1") for word in words]
    command = words[1].removeprefix("jaxtrain.")
    small = ["--config.train.num_epochs=1", "--config.model.hidden_dims=8,", "--config.log.progress=False"]
    done = child.run(*words[2:], *small * (command == "sweep"), command=command, timeout=400)
    assert done.returncode == 0, (line, done.stderr)
  assert (tmp_path / "both.html").stat().st_size > 10_000


def source_rows() -> list[str]:
  """Flags of the table of sources that name one."""
  part = README.split("| source | read like this")[1].split("\n\n")[0]
  return re.findall(r"`(--config\S*source=\S+ [^`]*|--config=\S+:tfds [^`]*)`", part)


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
  part = README.split("| source | read like this")[1].split("\n\n")[0]
  assert len(source_rows()) == 6 and all(f"source={kind}" in part or kind == "csv" for kind in files.KINDS)
