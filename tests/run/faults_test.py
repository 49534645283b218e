"""Faults of the machine, done for real to the command: the run survives or refuses in one line, and loses nothing.

Each notes a record for the fault table of README (`records.note`).
"""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import child
import records
from jaxtrain import loop
from jaxtrain.errors import UserError
from jaxtrain.workdir import lock as lock_lib
from jaxtrain.workdir.lock import Lock
from runs import QUIET

KINDS = records.KINDS
EACH_KIND = [pytest.param(kind, marks=[pytest.mark.slow] * (kind != "vae")) for kind in KINDS]
LONG = ("--config.train.num_epochs=600", "--config.checkpoint.every_epochs=20", "--config.eval.every_epochs=10")
EPOCHS = ("--config.train.num_epochs=12", "--config.checkpoint.every_epochs=2", "--config.optim.decay_steps=100")


@pytest.fixture
def reference(shared):
  """(kind, length) -> (digest, facts) of a run without a fault."""
  def get(kind, length=EPOCHS):
    workdir = str(shared.run(*KINDS[kind], *length, *QUIET))
    return child.inspect(workdir)["digest"], child.facts(workdir)
  return get


def go_on(fault: str, kind: str, workdir: str, reference, reported: int = 0, stopped_at: int | None = None,
          length: tuple[str, ...] = EPOCHS) -> str:
  """Runs the command again to its end, compares with a run without the fault, notes it; returns what it printed."""
  done = child.run(*KINDS[kind], *length, *QUIET, f"--workdir={workdir}")
  survived = done.returncode == 0
  equal = survived and (child.inspect(workdir)["digest"], child.facts(workdir)) == reference(kind, length)
  began = child.resume_steps(workdir)[-1]
  records.note(fault, kind, survived=survived, equal=equal, steps_again=max(0, reported - began))
  assert survived, done.stderr
  assert equal
  if stopped_at is not None:
    assert began == stopped_at
  return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_loses_no_step(number, kind, tmp_path, reference):
  workdir = str(tmp_path / "run")
  process = child.start(*KINDS[kind], *LONG, *QUIET, f"--workdir={workdir}")
  child.wait_for_first_step(process, workdir, 1)
  process.send_signal(number)
  _, err = process.communicate(timeout=60)
  assert process.returncode == 85, err
  stopped_at = int(child.inspect(workdir)["digest"].rpartition("=")[2])
  go_on(f"{number.name}", kind, workdir, reference, child.last_reported(workdir), stopped_at, LONG)


@pytest.mark.slow
@pytest.mark.parametrize("kind", EACH_KIND)
def test_a_time_budget_loses_no_step(kind, tmp_path, reference):
  workdir = str(tmp_path / "run")
  done = child.run(*KINDS[kind], *EPOCHS, *QUIET, f"--workdir={workdir}", "--config.train.time_budget_minutes=0.001")
  assert done.returncode == 85 and "time budget: saved at step" in done.stderr
  go_on("time budget", kind, workdir, reference, child.last_reported(workdir),
        int(child.inspect(workdir)["digest"].rpartition("=")[2]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", EACH_KIND)
@pytest.mark.parametrize("how", [pytest.param("truncated", marks=pytest.mark.slow), "one bit flipped",
                                 pytest.param("emptied", marks=pytest.mark.slow), "half deleted"])
def test_a_damaged_newest_checkpoint_is_passed_over(how, kind, tmp_path, reference, shared):
  workdir = shared.copy(tmp_path / "run", *KINDS[kind], *EPOCHS, *QUIET)
  newest = child.inspect(workdir)["steps_kept"].split()[-1]
  reported = child.last_reported(workdir)
  child.damage(os.path.join(workdir, "checkpoints", newest), how)
  assert f"passed over checkpoint {newest}" in go_on(f"newest checkpoint {how}", kind, workdir, reference, reported)


@pytest.fixture
def small_disk(tmp_path):
  """A folder on a file system of 2 MiB."""
  folder = tmp_path / "small"
  folder.mkdir()
  mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
  if mounted.returncode:
    pytest.skip("mounting a small tmpfs needs root")
  yield folder
  subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", EACH_KIND)
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(kind, small_disk, reference):
  workdir = str(small_disk / "run")
  filler = small_disk / "filler"
  process = child.start(*KINDS[kind], *LONG, *QUIET, f"--workdir={workdir}", environ={"TMPDIR": "/tmp"})
  steps = os.path.join(workdir, "checkpoints")
  while process.poll() is None and not [n for n in (os.listdir(steps) if os.path.isdir(steps) else ()) if n.isdigit()]:
    time.sleep(0.002)
  with open(filler, "wb", buffering=0) as file:  # until nothing fits any more
    with pytest.raises(OSError, match="No space left"):
      while True:
        file.write(bytes(4096))
  _, err = process.communicate(timeout=120)
  assert process.returncode == 1 and "No space left on device" in err and len(err.splitlines()) == 1, err
  os.remove(filler)
  go_on("full disk", kind, workdir, reference, length=LONG)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["40k", pytest.param("16k", marks=pytest.mark.slow),
                                  pytest.param("160k", marks=pytest.mark.slow),
                                  pytest.param("600k", marks=pytest.mark.slow)])
def test_a_disk_that_fills_anywhere_is_one_line_whoever_writes(size, small_disk):
  """In the first facts, the threads that save (the record, the arrays), the pictures."""
  subprocess.run(["mount", "-o", f"remount,size={size}", str(small_disk)], check=True)
  flags = ("--config=configs/vae.py:smoke", "--config.data.row_limit=1000", "--config.train.num_epochs=8",
           "--config.checkpoint.every_epochs=1", "--config.log.progress=False")
  done = child.run(*flags, f"--workdir={small_disk / 'run'}", environ={"TMPDIR": "/tmp"})
  assert done.returncode == 1 and done.stderr.startswith("jaxtrain: No space left on device: "), done.stderr
  assert len(done.stderr.splitlines()) == 1
  subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
  assert child.run(*flags, f"--workdir={small_disk / 'run'}", environ={"TMPDIR": "/tmp"}).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", EACH_KIND)
def test_a_workdir_that_is_removed_is_one_line_and_not_made_again(kind, tmp_path):
  process = child.start(*KINDS[kind], *LONG, *QUIET, f"--workdir={tmp_path / 'run'}")
  child.wait_for_first_step(process, str(tmp_path / "run"), 1)
  os.rename(tmp_path / "run", tmp_path / "gone")
  _, err = process.communicate(timeout=120)
  assert process.returncode == 1 and "was removed while it was in use" in err and len(err.splitlines()) == 1, err
  assert not os.path.exists(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("kind", EACH_KIND)
def test_two_runs_at_once_the_second_is_refused(kind, tmp_path, reference):
  workdir = str(tmp_path / "run")
  pair = [child.start(*KINDS[kind], *EPOCHS, *QUIET, f"--workdir={workdir}") for _ in range(2)]
  done = child.wait_for_all(pair)
  codes = sorted(process.returncode for process in done)
  equal = (child.inspect(workdir)["digest"], child.facts(workdir)) == reference(kind)
  records.note("two runs in one workdir at once", kind, survived=codes == [0, 2], equal=equal)
  assert codes == [0, 2] and any("is in use by process" in process.stderr for process in done) and equal


def test_a_read_only_workdir_is_refused(tmp_path):
  """Root may write anywhere, so it is a file system mounted read-only where that is possible."""
  folder = tmp_path / "fixed"
  folder.mkdir()
  if os.geteuid() == 0:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], capture_output=True).returncode:
      pytest.skip("mounting needs more rights than this root has")
  else:
    folder.chmod(0o500)
  try:
    done = child.run(*KINDS["vae"], *QUIET, f"--workdir={folder / 'run'}")
    records.note("read-only workdir", "vae", survived=done.returncode == 2, equal=None)
    assert done.returncode == 2 and "cannot write" in done.stderr and len(done.stderr.splitlines()) == 1
  finally:
    if os.geteuid() == 0:
      subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("ahead", [-3600, 3600])
@pytest.mark.parametrize("alive", [True, False])
def test_a_lock_of_another_host(alive, ahead, tmp_path, monkeypatch):
  """Held while it is touched; taken over after it has not been for the stale time, whatever its time stamp says."""
  monkeypatch.setattr(lock_lib, "STALE_SECONDS", 2.0)
  path = tmp_path / ".lock"
  path.write_text("process 7 on elsewhere")
  os.utime(path, (time.time() + ahead,) * 2)  # that host's clock is an hour ahead or behind
  done = threading.Event()

  def beat():
    while not done.wait(0.3):
      os.utime(path, (time.time() + ahead,) * 2)

  if alive:
    threading.Thread(target=beat, daemon=True).start()
    with pytest.raises(UserError, match="in use by process 7 on elsewhere"):
      Lock(str(tmp_path))
  else:
    began = time.monotonic()
    Lock(str(tmp_path)).close()
    assert time.monotonic() - began >= 1.9
  done.set()
  records.note(f"lock of another host, {'alive' if alive else 'dead'}", "vae", survived=True, equal=None)


def test_the_lock_is_touched_while_a_run_goes_on(tmp_path, monkeypatch):
  monkeypatch.setattr(lock_lib, "BEAT_SECONDS", 0.05)
  lock = Lock(str(tmp_path))
  first = os.stat(tmp_path / ".lock").st_mtime_ns
  time.sleep(0.5)
  assert os.stat(tmp_path / ".lock").st_mtime_ns > first
  (tmp_path / "file").touch()
  lock.close()
  assert (tmp_path / ".lock").read_text() == ""  # another host need not wait for a run that ended in order


def test_a_lock_that_was_taken_over_ends_its_holder(tmp_path):
  code = (f"import sys, time; sys.path.insert(0, {child.ROOT!r}); from jaxtrain.workdir import lock; "
          f"lock.BEAT_SECONDS = 0.1; held = lock.Lock({str(tmp_path)!r}); print('held', flush=True); "
          "time.sleep(30)")
  process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  assert process.stdout.readline() == "held\n"
  (tmp_path / ".lock").write_text("process 9 on elsewhere")
  _, err = process.communicate(timeout=20)
  assert process.returncode == 1 and "taken over by process 9 on elsewhere" in err


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
  """An hour back and forth between any two looks at the clock."""
  from jaxtrain import config as config_lib
  config = config_lib.read_file(os.path.join(child.ROOT, "configs", "vae.py:smoke"))
  config.log.progress, config.log.figures = False, "none"
  straight = loop.train(config, str(tmp_path / "straight"))
  looks, real = iter(range(10 ** 9)), time.time
  monkeypatch.setattr(time, "time", lambda: real() + (-1) ** next(looks) * 3600)
  jumping = loop.train(config, str(tmp_path / "jumping"))
  equal = jumping.digest == straight.digest and (child.facts(str(tmp_path / "jumping"))
                                                 == child.facts(str(tmp_path / "straight")))
  records.note("clock jumps by hours", "vae", survived=True, equal=equal)
  assert equal


@pytest.mark.slow
def test_a_bad_step_is_left_out_alike_on_replay(tmp_path):
  """on_nonfinite=skip: a run killed after the bad step and started again has the bits of one never stopped."""
  data = tmp_path / "x.csv"
  lines = ["a,b,c"] + [f"{i % 7},{(i * 3) % 5},{i % 3}" for i in range(512)]
  lines[300] = "1e38,1e38,1e38"  # finite, and its square is not
  data.write_text("\n".join(lines) + "\n")
  flags = ("--config=configs/vae.py:csv", f"--config.data.path={data}", "--config.data.features=a,b,c",
           "--config.data.transforms=identity,identity,identity", "--config.data.split.kind=none", "--config.train."
           "batch_size=64", "--config.train.on_nonfinite=skip", "--config.train.num_epochs=12",
           "--config.train.monitor=train_loss", "--config.optim.plateau.factor=0",
           "--config.checkpoint.every_epochs=2", *QUIET)
  straight, killed = str(tmp_path / "straight"), str(tmp_path / "killed")
  assert child.run(*flags, f"--workdir={straight}").returncode == 0
  assert any(event["alarms"] for event in child.facts(straight)[0] if "alarms" in event)
  process = child.start(*flags, f"--workdir={killed}", environ={"JAXTRAIN_FAULT": "before_delete:3"})
  process.communicate(timeout=120)
  assert process.returncode == -9
  reported = child.last_reported(killed)
  done = child.run(*flags, f"--workdir={killed}")
  equal = (child.inspect(killed)["digest"], child.facts(killed)) == (child.inspect(straight)["digest"],
                                                                    child.facts(straight))
  records.note("NaN in a batch, skipped, then kill -9", "vae, csv", survived=done.returncode == 0, equal=equal,
               steps_again=reported - child.resume_steps(killed)[-1])
  assert done.returncode == 0 and equal


def test_the_table_counts_what_was_noted(tmp_path, monkeypatch):
  import fault_table
  monkeypatch.setenv(records.VARIABLE, str(tmp_path / "records.jsonl"))
  records.note("kill", "vae", survived=True, equal=True, steps_again=3)
  records.note("kill", "vae", survived=False, equal=False, steps_again=9)
  records.note("lock", "vae", survived=True, equal=None)
  done = subprocess.run([sys.executable, fault_table.__file__, str(tmp_path / "records.jsonl")], capture_output=True,
                        text=True)
  assert done.stdout.splitlines()[2:] == ["| kill | vae | 2 | 1 | 9, 9 | 1 of 2 |", "| lock | vae | 1 | 1 |  |  |"]
