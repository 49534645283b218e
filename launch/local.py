"""Runs one run in several processes on this machine, best one per GPU, and starts it again while it asks for that.

  python launch/local.py --processes=4 [--gpus] [--restarts=100] [--dry_run] -- --config=configs/vae.py --workdir=runs/a

What follows -- goes to jaxtrain.main as it is. `--gpus` gives each process a GPU of its own, out of those in
CUDA_VISIBLE_DEVICES. A signal is passed on to all processes, which save and exit 85; only a run that stops by its own
time budget is started again.
"""

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REQUEUE = 85


def commands(num_processes: int, port: int, flags: list[str]) -> list[list[str]]:
  """The command of each process."""
  where = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={num_processes}"]
  return [[sys.executable, "-m", "jaxtrain.main", *flags, *where, f"--process_id={k}"] for k in range(num_processes)]


def gpus(num_processes: int) -> list[str]:
  """The GPU of each process, out of those that this one may use. Raises ValueError where they are too few."""
  if "CUDA_VISIBLE_DEVICES" not in os.environ:
    return [str(k) for k in range(num_processes)]
  allowed = [gpu for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if gpu]
  if len(allowed) < num_processes:
    raise ValueError(f"--gpus: CUDA_VISIBLE_DEVICES={','.join(allowed)} allows {len(allowed)} GPUs, fewer than "
                     f"--processes={num_processes}")
  return allowed[:num_processes]


def run(environs: list[dict[str, str]], flags: list[str]) -> tuple[int, bool]:
  """(the exit code of a process that failed, else 85 or 0; whether a signal came) of one start of all processes.

  `environs` are the variables that each process is given beside ours.
  """
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
  asked = []
  running = [subprocess.Popen(command, cwd=ROOT, env=os.environ | environ, start_new_session=True)
             for command, environ in zip(commands(len(environs), port, flags), environs)]

  def pass_on(number, _):
    asked.append(number)
    for process in running:
      process.send_signal(number)

  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, pass_on)
  codes = [process.wait() for process in running]
  failed = [128 - code if code < 0 else code for code in codes if code not in (0, REQUEUE)]
  return (failed[0] if failed else max(codes)), bool(asked)


def main() -> int:
  """Reads flags, runs, and returns the exit code of the run."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--processes", type=int, default=1)
  parser.add_argument("--gpus", action="store_true", help="one GPU for each process")
  parser.add_argument("--restarts", type=int, default=100, help="most starts after exit code 85")
  parser.add_argument("--dry_run", action="store_true", help="print the commands")
  cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
  settings, flags = parser.parse_args(sys.argv[1:cut]), sys.argv[cut + 1:]
  has_workdir = any(flag.startswith(("--workdir=", "-workdir=")) for flag in flags)
  if settings.processes < 1 or settings.restarts < 0 or not has_workdir:
    parser.error("--processes of 1 or more, --restarts of 0 or more, and after -- the run's flags with --workdir=DIR "
                 "are required")
  try:
    environs = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus(settings.processes)] if settings.gpus else \
        [{}] * settings.processes
  except ValueError as error:
    print(f"launch/local.py: {error}", file=sys.stderr)
    return 2
  if settings.dry_run:
    for command, environ in zip(commands(settings.processes, 0, flags), environs):
      print(shlex.join([*(f"{name}={value}" for name, value in environ.items()), *command]))
    return 0
  for _ in range(settings.restarts + 1):
    code, asked = run(environs, flags)
    if code != REQUEUE or asked:
      break
  return code


if __name__ == "__main__":
  sys.exit(main())
