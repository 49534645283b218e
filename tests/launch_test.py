"""Launch files: what they render word for word, what they refuse, and that the shell and HTCondor can read them."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml

import child
from submitting import submit

LAUNCH = os.path.join(child.ROOT, "launch")
SLURM = """#!/usr/bin/env bash
#SBATCH --job-name=rocks
#SBATCH --time=02:00:00
#SBATCH --ntasks={tasks}
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
{more}#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
cd {root} || exit 1
code=0
srun --kill-on-bad-exit=0{bind} /opt/python -m jaxtrain.main --config=configs/vae.py {flags} || code=$?
if [[ $code == 85 ]]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
"""
FLAGS = r"--workdir=runs/a\ b --config.data.features=a\,b"
RUN = ("--config=configs/vae.py", "--workdir=runs/a b", "--config.data.features=a,b")


def launch(script, *arguments, **environ):
  """Runs a launch script from another folder."""
  return subprocess.run([os.path.join(LAUNCH, script), *arguments], cwd="/", env=os.environ | environ,
                        capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("flags, tasks, more", [
    ((), "1", ""), (("--tasks=4", "--nodes=2"), "4\n#SBATCH --nodes=2", ""),
    (("--gpus=2", "--partition=long", "--account=geo"),
               "1", "#SBATCH --gpus-per-task=2\n#SBATCH --partition=long\n#SBATCH --account=geo\n")])
def test_slurm_job_script(flags, tasks, more):
  done = launch("slurm.sh", "--dry_run", "--name=rocks", "--time=02:00:00", "--cpus=8", *flags, "--", *RUN,
                PYTHON="/opt/python")
  wanted = SLURM.format(root=child.ROOT, more=more, tasks=tasks, flags=FLAGS,
                        bind=" --gpu-bind=none" * ("gpus" in more))
  assert done.returncode == 0 and done.stdout == wanted, done.stdout


@pytest.mark.parametrize("arguments, says", [
    (("--dry_run",), "the run's own flags are missing"), (("--dry_run", "--"), "--workdir=DIR is required"),
    (("--dry_run", "--", "--config=a", "--workdir="), "--workdir=DIR is required"),
    (("--queue=a", "--", *RUN), "--queue=a: no such flag"),
    (("--tasks=2", "--gpus=2", "--", *RUN), "allowed 1 for each"), (("--config=a",), "--config=a: no such flag"),
    (("--dry_run", "--name=a b\n#SBATCH --uid=0", "--", *RUN), "allowed letters")])
def test_slurm_refuses_in_one_line(arguments, says):
  done = launch("slurm.sh", *arguments)
  assert done.returncode == 2 and says in done.stderr and done.stdout == ""
  assert done.stderr.startswith("launch/slurm.sh: ")


FIXED = {"executable": "launch/htcondor.sh", "checkpoint_exit_code": "85", "kill_sig": "SIGTERM",
         "stream_output": "true", "stream_error": "true", "should_transfer_files": "NO"}


def test_htcondor_runs_one_job_with_a_gpu_and_a_log_folder_from_the_submit_line(monkeypatch):
  monkeypatch.setenv("PWD", "/home/me/jaxtrain")
  flags = "--config=configs/vae.py --workdir=runs/a --config.data.features=a,b"
  commands, queued = submit(f"run={flags}", "gpus=1", "logs=/data/logs", "memory=32GB")
  assert queued == "1" and commands["arguments"] == flags and commands["request_gpus"] == "1"
  assert commands["output"] == "/data/logs/condor-7-0.out" and commands["error"] == "/data/logs/condor-7-0.err"
  assert commands["log"] == "/data/logs/condor-7.log" and commands["initialdir"] == "/home/me/jaxtrain"
  assert commands["request_memory"] == "32GB" and FIXED.items() <= commands.items()


def test_htcondor_runs_a_job_for_each_line_of_a_file_without_gpus(monkeypatch):
  monkeypatch.setenv("PWD", "/home/me/jaxtrain")
  commands, queued = submit("jobs=jobs.txt")
  assert queued == "run from jobs.txt" and commands["arguments"] == "of the job's line"
  assert "request_gpus" not in commands and commands["output"] == "./condor-7-0.out"
  assert (commands["request_cpus"], commands["request_memory"]) == ("4", "16GB") and FIXED.items() <= commands.items()


@pytest.mark.slow
def test_htcondor_script_runs_the_command_in_the_clone(tmp_path):
  done = launch("htcondor.sh", "--config=configs/vae.py:smoke", f"--workdir={tmp_path}/run",
                "--config.log.figures=none",
                PYTHON=sys.executable)
  assert done.returncode == 0, done.stderr
  assert launch("htcondor.sh", "--config=configs/vae.py:smoke").returncode == 2


@pytest.mark.slow
def test_local_runs_two_processes_and_starts_them_again(tmp_path):
  """A time budget stops the run; the launcher starts it again, here once."""
  workdir = str(tmp_path / "run")
  command = [sys.executable, os.path.join(LAUNCH, "local.py"), "--processes=2", "--restarts=1"]
  flags = ["--config=configs/vae.py:smoke", f"--workdir={workdir}", "--config.log.figures=none",
           "--config.log.progress=False", "--config.train.num_epochs=90000", "--config.train.time_budget_minutes=0.2"]
  done = subprocess.run([*command, "--", *flags], capture_output=True, text=True, timeout=240)
  assert done.returncode == 85 and done.stderr.count("time budget: saved at step") == 2, done.stderr
  first, second = child.resume_steps(workdir)
  assert first == 0 < second < int(child.inspect(workdir)["digest"].rpartition("=")[2])


@pytest.mark.parametrize("listed, gpus", [(None, "01"), ("5,7,2", "57"), ("GPU-a,GPU-b", ("GPU-a", "GPU-b"))])
def test_local_gives_each_process_a_gpu_that_may_be_used(listed, gpus):
  environ = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
  environ |= {"CUDA_VISIBLE_DEVICES": listed} if listed is not None else {}
  command = [sys.executable, os.path.join(LAUNCH, "local.py"), "--processes=2", "--gpus", "--dry_run", "--", *RUN]
  shown = subprocess.run(command, env=environ, capture_output=True, text=True).stdout.splitlines()
  for k, (line, gpu) in enumerate(zip(shown, gpus, strict=True)):
    assert line.startswith(f"CUDA_VISIBLE_DEVICES={gpu} ") and line.endswith(f"--num_processes=2 --process_id={k}")


@pytest.mark.parametrize("listed", ["", "3"])
def test_local_refuses_more_processes_than_gpus(listed):
  command = [sys.executable, os.path.join(LAUNCH, "local.py"), "--processes=2"]
  done = subprocess.run([*command, "--gpus", "--", *RUN], env=os.environ | {"CUDA_VISIBLE_DEVICES": listed},
                        capture_output=True, text=True)
  assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and done.stdout == ""
  assert f"CUDA_VISIBLE_DEVICES={listed} allows {len(listed)} GPUs, fewer than --processes=2" in done.stderr
  assert subprocess.run([*command, "--"], capture_output=True).returncode == 2


@pytest.mark.slow
def test_ssh_runs_a_process_on_each_host_and_passes_signals_on(tmp_path):
  """With an `ssh` that runs the command here."""
  (tmp_path / "ssh").write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
  (tmp_path / "ssh").chmod(0o755)
  workdir = str(tmp_path / "run")
  flags = ("--hosts=127.0.0.1,me@127.0.0.1", f"--port={child.free_port()}", "--", "--config=configs/vae.py:smoke",
           f"--workdir={workdir}", "--config.log.figures=none", "--config.log.progress=False",
           "--config.train.num_epochs=3000")
  process = subprocess.Popen([os.path.join(LAUNCH, "ssh.sh"), *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             env=os.environ | {"PYTHON": sys.executable, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
                             text=True)
  child.wait_for_first_step(process, workdir, 1)
  process.terminate()
  _, err = process.communicate(timeout=120)
  assert process.returncode == 85 and "SIGTERM: saved at step" in err, err


SSH = (r"ssh a cd\ {root}\ \&\&\ echo\ \$\$\ \>\ \$HOME/.jaxtrain-29400-0.pid\ \&\&\ exec\ /opt/python\ -m\ "
       r"jaxtrain.main\ --config=x\ --workdir=y\ --coordinator=a:29400\ --num_processes=2\ --process_id=0")
TPU = ("gcloud compute tpus tpu-vm ssh pod --zone=z --worker=all --command=cd\\ jaxtrain\\ \\&\\&\\ python3\\ -m\\ "
       "jaxtrain.main\\ --distributed\\ --config=x\\ --workdir=y")
POD = ("gcloud compute tpus queued-resources create pod --node-id=pod --zone=z --accelerator-type=v5litepod-16 "
       "--runtime-version=tpu-ubuntu2204-base --spot")


def test_ssh_and_tpu_commands():
  two = ("--", "--config=x", "--workdir=y")
  done = launch("ssh.sh", "--dry_run", "--hosts=a,me@b", *two, PYTHON="/opt/python")
  assert done.stdout.splitlines()[0] == SSH.format(root=child.ROOT) and done.stdout.count("--coordinator=a:29400") == 2
  where = ("--name=pod", "--zone=z", "--dry_run")
  assert launch("tpu_pod.sh", "run", *where, *two).stdout.strip() == TPU
  assert launch("tpu_pod.sh", "create", *where, "--type=v5litepod-16", "--spot").stdout.strip() == POD


@pytest.mark.parametrize("script, arguments", [
    ("ssh.sh", ("--", *RUN)), ("ssh.sh", ("--hosts=a;b", "--", *RUN)), ("ssh.sh", ("--hosts=a", "--", "--config=a")),
    ("ssh.sh", ("--hosts=a", "--port=x", "--", *RUN)), ("tpu_pod.sh", ("start",)), ("tpu_pod.sh", ("run", "--name=a")),
    ("tpu_pod.sh", ("run", "--name=a", "--zone=b", "--", "--config=a"))])
def test_others_refuse_in_one_line(script, arguments):
  done = launch(script, *arguments)
  assert done.returncode == 2 and done.stderr.startswith(f"launch/{script}: ") and len(done.stderr.splitlines()) == 1


def test_gke_jobset():
  command = [sys.executable, os.path.join(LAUNCH, "gke.py"), "--name=a", "--image=r/i:1", "--claim=c", "--dry_run",
             "--"]
  done = subprocess.run([*command, "--config=x", "--workdir=/data/a", "--config.data.features=a,b: c"],
                        capture_output=True, text=True)
  job = yaml.safe_load(done.stdout)["spec"]["replicatedJobs"][0]["template"]["spec"]
  container = job["template"]["spec"]["containers"][0]
  assert container["args"] == ["--config=x", "--workdir=/data/a", "--config.data.features=a,b: c"]
  assert container["image"] == "r/i:1" and container["resources"] == {"limits": {"google.com/tpu": 4}}
  assert job["completions"] == job["parallelism"] == 4 and job["completionMode"] == "Indexed"
  assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [85]
  assert subprocess.run([*command, "--config=x"], capture_output=True).returncode == 2


def test_shellcheck_finds_nothing():
  """CI without shellcheck checks that bash can read the scripts, which is less."""
  scripts = [os.path.join(LAUNCH, name) for name in os.listdir(LAUNCH) if name.endswith(".sh")]
  checker = ["shellcheck"] if shutil.which("shellcheck") else ["bash", "-n"]
  done = subprocess.run([*checker, *scripts], capture_output=True, text=True, timeout=60)
  assert done.returncode == 0, done.stdout + done.stderr
