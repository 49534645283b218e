"""How launchers learn what became of a member: from the file that it leaves, or from what its death says."""

import signal
import sys
from typing import NamedTuple

import pytest

from jaxtrain.run import stops
from jaxtrain.sweep import children, local

# another test of this process may have started JAX, which warns of forks; the child becomes another program at once
pytestmark = pytest.mark.filterwarnings("ignore:.*os.fork")
HERE = {"environ": {}, "core": None}
SAY = "import sys; from jaxtrain import commands; from jaxtrain.errors import InUse, NonFinite, UserError\n"


class Job(NamedTuple):
  """A job whose command is a Python program, which is told its folder."""
  number: int
  workdir: str
  program: str

  def command(self):
    """The command line."""
    return [sys.executable, "-c", SAY + self.program, self.workdir]


RAISE = "def do(log):\n  raise {}\nsys.exit(commands.run(do))"
# program -> outcome
MEMBERS = {
    "done": ("sys.exit(commands.run(lambda log: None))", (0, "", "")),
    "refused": (RAISE.format("UserError('one\\ntwo')"), (2, "UserError", "one")),
    "says so itself": (RAISE.format("UserError('x is in use by y')"), (2, "UserError", "x is in use by y")),
    "in use": (RAISE.format("InUse('x')"), (2, "InUse", "x")),
    "hint": (RAISE.format("NonFinite('step 3', hint='--config.a=b')"), (3, "NonFinite", "step 3")),
    "killed": ("import os\nprint('words\\n', file=sys.stderr, flush=True)\nos.kill(os.getpid(), 9)",
               (-9, "", "ended by SIGKILL; it last said: words")),
    "left at once": ("import os\nos._exit(4)", (4, "", "ended by its watchdog")),
    "killed after its end": ("import os\ncommands.run(lambda log: None)\nos.kill(os.getpid(), 9)",
                             (-9, "", "ended by SIGKILL")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MEMBERS)
def test_the_outcome_of_a_member(name, tmp_path):
  program, outcome = MEMBERS[name]
  running = children.start(Job(0, str(tmp_path / "run"), program), HERE)
  assert running.wait() == outcome
  assert not list(tmp_path.glob("run/*"))  # nothing is left in the run's own folder


FIRST_IN_USE = """import os
def do(log):
  path = os.path.join(sys.argv[1], "tries")
  tries = os.path.getsize(path) if os.path.exists(path) else 0
  open(path, "a").write("x")
  if tries < 2:
    raise InUse("another process holds it")
sys.exit(commands.run(do))"""


@pytest.mark.slow
@pytest.mark.parametrize("patience, tries, code", [(60.0, 3, 0), (0.0, 1, 2)])
def test_a_folder_that_is_in_use_is_tried_again_for_a_while(patience, tries, code, tmp_path, monkeypatch):
  monkeypatch.setattr(local, "WAIT_SECONDS", patience)
  started = []
  job = Job(7, str(tmp_path), FIRST_IN_USE)
  ended = list(local.run_local([job], 1, stops.Stop(0), started.append))
  assert [(number, outcome.code) for number, outcome in ended] == [(7, code)]
  assert (tmp_path / "tries").read_text() == "x" * tries and started == [7] * tries


def test_asked_to_stop_members_are_asked_too_and_what_waits_does_not_start(tmp_path):
  stop, started = stops.Stop(0), []
  program = ("import signal, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(85))\n"
             "open(sys.argv[1] + '/up', 'w')\ntime.sleep(60)")

  def on_start(number):
    started.append(number)
    stop.on_signal(signal.SIGTERM, None)

  jobs = [Job(k, str(tmp_path / str(k)), program) for k in range(2)]
  with pytest.raises(Exception, match="SIGTERM: 1 members saved, 1 not started; the same command goes on"):
    list(local.run_local(jobs, 2, stop, on_start))
  assert started == [0]
