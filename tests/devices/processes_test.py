"""Two processes as one run, on this machine: the weights of one process, stops that all agree on, lost processes."""

import signal
import time

import pytest

import child
import records
from jaxtrain import config as config_lib
from jaxtrain.devices import processes
from jaxtrain.errors import StopReason, UserError

VAE = "configs/vae.py"
FLAGS = ("--config.parallel.mode=canonical", "--config.log.figures=none", "--config.log.progress=False")


def flags(path, workdir, num_epochs, *more):
  """Flags of a smoke run."""
  return (f"--config={path}:smoke", f"--workdir={workdir}", f"--config.train.num_epochs={num_epochs}", *FLAGS, *more)


def digest_of_one(path, workdir, num_epochs, *more):
  """Digest of a run of one process."""
  done = child.run(*flags(path, workdir, num_epochs, *more))
  assert done.returncode == 0, done.stderr
  return child.inspect(str(workdir))["digest"]


def run_two(path, workdir, num_epochs, *more, num_devices=1):
  """Runs two processes to their end."""
  done = child.wait_for_all(child.start_several(2, num_devices, *flags(path, workdir, num_epochs, *more)))
  assert [process.returncode for process in done] == [0, 0], [process.stderr for process in done]
  return done


@pytest.mark.slow
@pytest.mark.parametrize("path", records.CONFIGS)
def test_two_processes_give_the_digest_and_facts_of_one_and_one_goes_on(path, tmp_path):
  """With one and two devices each; a third resumes alone."""
  done = run_two(path, tmp_path / "two", 1)
  assert f"on 2 x cpu, in {tmp_path / 'two'}" in done[0].stdout and "jaxtrain:" not in done[1].stdout
  run_two(path, tmp_path / "two", 2, num_devices=2)
  assert digest_of_one(path, tmp_path / "two", 3) == digest_of_one(path, tmp_path / "one", 3)


@pytest.mark.slow
def test_facts_of_two_processes_are_those_of_one(tmp_path):
  run_two(VAE, tmp_path / "two", 2)
  digest_of_one(VAE, tmp_path / "one", 2)
  assert child.facts(str(tmp_path / "two")) == child.facts(str(tmp_path / "one"))


@pytest.mark.slow
def test_batches_from_a_file_are_read_in_slices(tmp_path):
  """Each process reads its slice of a batch; the digest is that of one process with the table in memory."""
  import h5py
  import numpy as np
  with h5py.File(tmp_path / "x.h5", "w") as file:
    file["x"] = np.random.default_rng(0).normal(size=(1000, 6)).astype(np.float32)
  more = ("--config.data.source=hdf5", f"--config.data.path={tmp_path / 'x.h5'}", "--config.data.features=x",
          "--config.train.batch_size=128", "--config.data.split.kind=none", "--config.data.row_limit=0",
          "--config.data.transforms=()")
  run_two("configs/vae.py", tmp_path / "two", 2, *more, "--config.data.out_of_core")
  whole = digest_of_one("configs/vae.py", tmp_path / "one", 2, *more)
  assert child.inspect(str(tmp_path / "two"))["digest"] == whole


@pytest.mark.slow
@pytest.mark.parametrize("rank, number", [
    (1, signal.SIGTERM), pytest.param(0, signal.SIGTERM, marks=pytest.mark.slow),
    pytest.param(1, signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_to_one_stops_both_and_they_go_on(rank, number, tmp_path):
  workdir, path = str(tmp_path / "two"), VAE
  pair = child.start_several(2, 1, *flags(path, workdir, 3000, "--config.checkpoint.every_epochs=1000"))
  child.wait_for_first_step(pair[0], workdir, 1)
  pair[rank].send_signal(number)
  done = child.wait_for_all(pair, timeout=120)
  assert [process.returncode for process in done] == [85, 85], [process.stderr for process in done]
  assert f"{number.name}: saved at step" in done[0].stderr
  stopped_at = int(child.inspect(workdir)["digest"].rpartition("=")[2])
  num_epochs = stopped_at // 16 + 2
  run_two(path, workdir, num_epochs, "--config.checkpoint.every_epochs=1000", "--config.optim.decay_steps=48000")
  straight = digest_of_one(path, tmp_path / "one", num_epochs, "--config.checkpoint.every_epochs=1000",
                           "--config.optim.decay_steps=48000")
  equal = child.inspect(workdir)["digest"] == straight
  records.note(f"{number.name} to one of two processes", "vae, canonical", survived=True, equal=equal,
               steps_again=child.resume_steps(workdir)[-1] - stopped_at)
  assert equal


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_other_with_one_line(rank, tmp_path):
  workdir = str(tmp_path / "two")
  horizon = ("--config.optim.decay_steps=48000",)
  pair = child.start_several(2, 1, *flags(VAE, workdir, 3000, *horizon))
  child.wait_for_first_step(pair[0], workdir, 1)
  pair[rank].kill()
  began = time.monotonic()
  done = child.wait_for_all(pair, timeout=120)
  assert done[1 - rank].returncode == 1 and time.monotonic() - began < 60
  lines = [line for line in done[1 - rank].stderr.splitlines() if line.startswith("jaxtrain:")]
  assert len(lines) == 1 and "lost another process" in lines[0], done[1 - rank].stderr
  reported = child.last_reported(workdir)
  num_epochs = reported // 16 + 2
  resumed = digest_of_one(VAE, workdir, num_epochs, *horizon)  # on one process
  equal = resumed == digest_of_one(VAE, tmp_path / "one", num_epochs, *horizon)
  records.note("kill -9 of one of two processes", "vae, canonical", survived=True, equal=equal,
               steps_again=reported - child.resume_steps(workdir)[-1])
  assert equal


@pytest.mark.slow
def test_a_second_signal_to_one_ends_both(tmp_path):
  workdir = str(tmp_path / "two")
  pair = child.start_several(2, 1, *flags(VAE, workdir, 3000))
  child.wait_for_first_step(pair[0], workdir, 1)
  for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):  # the first two may be handled as one
    pair[1].send_signal(number)
  done = child.wait_for_all(pair, timeout=120)
  assert done[1].returncode in (130, 143) and done[0].returncode == 1, [process.stderr for process in done]


@pytest.mark.slow
@pytest.mark.parametrize("what, says", [
    pytest.param("workdir", "--workdir: required with several processes", marks=pytest.mark.slow),
    ("seed", "process 1: its config, flags or number of devices"),
    pytest.param("resume", "--resume=required", marks=pytest.mark.slow)])
def test_all_refuse_together(what, says, tmp_path):
  common = [f"--config={VAE}:smoke", *FLAGS]
  if what != "workdir":
    common.append(f"--workdir={tmp_path / 'two'}")
  if what == "resume":
    common.append("--resume=required")
  done = child.wait_for_all(child.start_several(2, 1, *common, of_last=("--config.seed=5",) * (what == "seed")), 120)
  assert [process.returncode for process in done] == [2, 2], [process.stderr for process in done]
  assert all(says in process.stderr for process in done)


@pytest.mark.parametrize("flag, says", [
    ("--num_processes=2", "--coordinator, --process_id: required with --num_processes"),
    ("--coordinator=127.0.0.1:1", "--num_processes, --process_id: required with --coordinator")])
def test_flags_that_do_not_fit_together(flag, says, tmp_path):
  done = child.run("--config=configs/vae.py:smoke", f"--workdir={tmp_path / 'run'}", flag)
  assert done.returncode == 2 and says in done.stderr


def test_a_coordinator_that_never_comes_is_one_line(monkeypatch):
  monkeypatch.setattr(processes, "JOIN_SECONDS", 0.5)
  with pytest.raises(UserError, match="process 0 does not answer at 127.0.0.1"):
    processes.start(f"127.0.0.1:{child.free_port()}", 2, 1, None)
  with pytest.raises(UserError, match="allowed HOST:PORT"):
    processes.start("nowhere", 2, 1, None)


@pytest.mark.parametrize("environ, count", [
    ({}, 1), ({"SLURM_NTASKS": "4"}, 1), ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, 1),
    ({"SLURM_NTASKS": "4", "SLURM_PROCID": "1", "SLURM_STEP_NODELIST": "a,b"}, 4), ({"OMPI_COMM_WORLD_SIZE": "3"}, 3)])
def test_launchers_are_recognised(environ, count):
  assert processes.launched(environ) == count


def test_one_process_is_a_plain_call():
  assert processes.on_first(lambda: {"a": (1, 2)}) == {"a": (1, 2)}
  assert processes.agree(StopReason.SIGINT, 7) == (StopReason.SIGINT, 7)
  assert processes.is_first() and not processes.several()
  with pytest.raises(UserError):
    processes.on_first(lambda: config_lib.read_file("nowhere.py"))
