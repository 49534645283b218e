"""The guide of sweeps: its commands in order, and every right-hand side of its table."""

import re
import shlex

import pytest

import child
import guides

ROWS = guides.rows(guides.SWEEP, "| the original's sweep | ours")


@pytest.mark.slow
@pytest.mark.parametrize("original, ours", ROWS, ids=[row[0][:40] for row in ROWS])
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
  section = guides.blocks(guides.read(guides.SWEEP))[0]
  for line in section.strip().splitlines():
    words = [word.replace("runs/", f"{tmp_path}/") for word in shlex.split(line)[1:]]
    words = [re.sub(r",8\)", ",2)", word).replace("0..4", "0..0").replace("0..9", "0..1") for word in words]
    command = words[1].removeprefix("jaxtrain.")
    small = ["--config.train.num_epochs=1", "--config.model.hidden_dims=8,", "--config.log.progress=False"]
    done = child.run(*words[2:], *small * (command == "sweep"), command=command, timeout=400)
    assert done.returncode == 0, (line, done.stderr)
  assert (tmp_path / "both.html").stat().st_size > 10_000
