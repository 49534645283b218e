"""Streams that are closed, full or gone: the work goes on and is saved, and exit codes stay what they are."""

import errno
import io
import os
import pty
import signal
import subprocess
import sys

import pytest

import child
from jaxtrain import streams
from jaxtrain.run import console
from runs import QUIET

SMOKE = ("--config=configs/vae.py:smoke", "--config.data.row_limit=1000", "--config.train.num_steps=3", *QUIET)


class Broken(io.StringIO):
  """A stream on which every write fails."""

  def __init__(self, number):
    super().__init__()
    self.number = number

  def write(self, text):
    raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC])
def test_what_cannot_be_said_is_lost_and_no_more(number, monkeypatch):
  monkeypatch.setattr(sys, "stdout", Broken(number))
  monkeypatch.setattr(sys, "stderr", Broken(number))
  assert not streams.say("a") and not streams.say("b", error=True)
  if number == errno.ENOSPC:  # what was asked for must not be lost unnoticed
    with pytest.raises(OSError, match="No space left on device: 'standard output'"):
      streams.answer("a")
  else:
    streams.answer("a")


def test_a_closed_stream_and_one_of_few_letters(monkeypatch, capsys):
  closed, narrow = io.StringIO(), io.TextIOWrapper(io.BytesIO(), encoding="ascii")
  closed.close()
  monkeypatch.setattr(sys, "stdout", closed)
  assert not streams.say("a")
  streams.answer("a")
  monkeypatch.setattr(sys, "stdout", narrow)
  assert streams.say("é a") and narrow.buffer.getvalue() == b"\\xe9 a\n"
  monkeypatch.setattr(sys, "stdout", None)
  assert streams.say("a")


def test_a_bar_on_a_terminal_that_is_gone_ends_alone(tmp_path, monkeypatch):
  class Terminal(Broken):
    def isatty(self):
      return True
  monkeypatch.setattr(sys, "stderr", Terminal(errno.EIO))
  shown = console.Console(True, str(tmp_path / "log.txt"))
  shown.start(0, 10)
  shown.advance(3)
  shown.report("step 3/10", 3, {"loss": 1.0}, None)
  shown.close()
  assert "loss 1" in (tmp_path / "log.txt").read_text()


# how standard output and error are given -> exit code of a command that lists things, of one that trains
LOST = {"closed": (">&- 2>&-", 0), "no stderr": ("2>&-", 0), "no stdout": (">&-", 0), "no stdin": ("<&-", 0),
        "full stdout": (">/dev/full", 1), "full stderr": ("2>/dev/full", 0), "head": ("| head -1", 0)}


def shell(command, redirect, *flags):
  """Exit code, and what is left to read, of a command behind a shell's redirection."""
  line = f"set -o pipefail; {sys.executable} -m jaxtrain{command} {' '.join(flags)} {redirect}"
  return subprocess.run(["bash", "-c", line], cwd=child.ROOT, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
@pytest.mark.parametrize("how", LOST)
def test_a_list_ends_well_whatever_its_streams(how):
  done = shell("", LOST[how][0])
  assert done.returncode == LOST[how][1] and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
  assert done.stderr == ("jaxtrain: No space left on device: standard output\n" if how == "full stdout" else "")


@pytest.mark.slow
@pytest.mark.parametrize("how", LOST)
def test_a_run_is_saved_whatever_its_streams(how, tmp_path, shared):
  done = shell(".main", LOST[how][0], *SMOKE, f"--workdir={tmp_path / 'run'}")
  assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
  assert child.inspect(str(tmp_path / "run"))["digest"] == child.inspect(str(shared.run(*SMOKE)))["digest"]
  refused = shell(".main", LOST[how][0], *SMOKE, f"--workdir={tmp_path / 'run'}", "--resume=never")
  assert refused.returncode == 2


@pytest.mark.slow
def test_a_terminal_that_goes_away_saves_the_run(tmp_path, shared):
  """The terminal's other end is closed while a bar is shown: SIGHUP, or writes that fail; the same command goes on."""
  flags = ("--config=configs/vae.py:smoke", "--config.data.row_limit=2000", "--config.train.num_epochs=300",
           "--config.log.figures=none", f"--workdir={tmp_path / 'run'}")
  ours, theirs = pty.openpty()
  process = subprocess.Popen([sys.executable, "-m", "jaxtrain.main", *flags], cwd=child.ROOT, stdin=theirs,
                             stdout=theirs, stderr=theirs, start_new_session=True)
  os.close(theirs)
  child.wait_for_first_step(process, str(tmp_path / "run"), 1)
  os.close(ours)
  process.send_signal(signal.SIGHUP)
  assert process.wait(timeout=60) == 85
  assert child.inspect(str(tmp_path / "run"))["digest"]
