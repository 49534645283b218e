"""Launch files: what they render word for word, what they refuse, and that the shell and HTCondor can read them."""

import os
import re
import shutil
import subprocess
import sys

import pytest

import child

LAUNCH = os.path.join(child.ROOT, "launch")
SLURM = """#!/usr/bin/env bash
#SBATCH --job-name=rocks
#SBATCH --time=02:00:00
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
{more}#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
cd {root} || exit 1
code=0
srun /opt/python -m jaxtrain.main --config=configs/vae.py --workdir=runs/a\\ b --config.data.features=a\\,b || code=$?
if [[ $code == 85 ]]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
"""
RUN = ("--config=configs/vae.py", "--workdir=runs/a b", "--config.data.features=a,b")


def launch(script, *arguments, **environ):
  """Runs a launch script from another folder."""
  return subprocess.run([os.path.join(LAUNCH, script), *arguments], cwd="/", env=os.environ | environ,
                        capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("flags, more", [
    ((), ""), (("--gpus=2", "--partition=long", "--account=geo"),
               "#SBATCH --gpus=2\n#SBATCH --partition=long\n#SBATCH --account=geo\n")])
def test_slurm_job_script(flags, more):
  done = launch("slurm.sh", "--dry_run", "--name=rocks", "--time=02:00:00", "--cpus=8", *flags, "--", *RUN,
                PYTHON="/opt/python")
  assert done.returncode == 0 and done.stdout == SLURM.format(root=child.ROOT, more=more), done.stdout


@pytest.mark.parametrize("arguments, says", [
    (("--dry_run",), "the run's own flags are missing"), (("--dry_run", "--"), "--workdir=DIR is required"),
    (("--dry_run", "--", "--config=a", "--workdir="), "--workdir=DIR is required"),
    (("--tasks=2", "--", *RUN), "--tasks=2: no such flag"), (("--config=a",), "--config=a: no such flag"),
    (("--dry_run", "--name=a b\n#SBATCH --uid=0", "--", *RUN), "allowed letters")])
def test_slurm_refuses_in_one_line(arguments, says):
  done = launch("slurm.sh", *arguments)
  assert done.returncode == 2 and says in done.stderr and done.stdout == ""
  assert done.stderr.startswith("launch/slurm.sh: ")


def test_htcondor_submit_file():
  """Commands `name = value`, each once, and one queue statement; those on which going on depends have their values."""
  with open(os.path.join(LAUNCH, "htcondor.sub"), encoding="utf-8") as file:
    lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]
  assert lines.pop() == "queue run from $(jobs)"
  commands = dict(re.fullmatch(r"(\w+) = (\S.*)", line).groups() for line in lines)
  assert len(commands) == len(lines)
  wanted = {"executable": "launch/htcondor.sh", "arguments": "$(run)", "checkpoint_exit_code": "85",
            "kill_sig": "SIGTERM", "stream_output": "true", "stream_error": "true"}
  assert wanted.items() <= commands.items()


def test_htcondor_script_runs_the_command_in_the_clone(tmp_path):
  done = launch("htcondor.sh", "--config=configs/vae.py:smoke", f"--workdir={tmp_path}/run", "--config.log.figures=none",
                PYTHON=sys.executable)
  assert done.returncode == 0, done.stderr
  assert launch("htcondor.sh", "--config=configs/vae.py:smoke").returncode == 2


def test_shellcheck_finds_nothing():
  """CI without shellcheck checks that bash can read the scripts, which is less."""
  scripts = [os.path.join(LAUNCH, name) for name in os.listdir(LAUNCH) if name.endswith(".sh")]
  checker = ["shellcheck"] if shutil.which("shellcheck") else ["bash", "-n"]
  done = subprocess.run([*checker, *scripts], capture_output=True, text=True, timeout=60)
  assert done.returncode == 0, done.stdout + done.stderr
