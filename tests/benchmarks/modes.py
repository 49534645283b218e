"""What the modes of execution cost: seconds an epoch of the hybrid VAE under jit, pmap, canonical with 4 and 8 chunks.

  python tests/benchmarks/modes.py --json=modes.json            # about 3 minutes
  python tests/benchmarks/modes.py --platform=gpu               # the same on a GPU

Runs of the command take turns; on a CPU each is pinned to one core. A run's time is the median of its epochs but the
first; quoted are medians over rounds, their ratio to jit in the same round, and the digest of each mode, which must not
differ between rounds.
"""

import csv
import os
import statistics
import subprocess
import sys
import tempfile

import bench

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODES = {"jit": (), "pmap": ("--config.parallel.mode=pmap",),
         "canonical, 4 chunks": ("--config.parallel.mode=canonical", "--config.parallel.chunks=4"),
         "canonical, 8 chunks": ("--config.parallel.mode=canonical", "--config.parallel.chunks=8")}


def run(workdir: str, platform: str, num_epochs: int, flags: tuple[str, ...]) -> tuple[float, str]:
  """(seconds an epoch, digest) of one run of the command."""
  pin = ["taskset", "-c", "0"] if platform == "cpu" else []
  main = [*pin, sys.executable, "-m", "jaxtrain.main"]
  done = subprocess.run([*main, "--config=configs/vae.py", f"--workdir={workdir}", "--config.log.figures=none",
                         f"--config.parallel.platform={platform}", f"--config.train.num_epochs={num_epochs}",
                         f"--config.checkpoint.every_epochs={num_epochs}", "--config.log.progress=False", *flags],
                        cwd=ROOT, capture_output=True, text=True)
  if done.returncode:
    sys.exit(done.stderr)
  with open(os.path.join(workdir, "facts", "scalars.csv"), encoding="utf-8", newline="") as file:
    seconds = [float(row["epoch_time_s"]) for row in csv.DictReader(file) if row["split"] == "train"]
  described = subprocess.run([*main, "--mode=inspect", f"--workdir={workdir}"], cwd=ROOT, capture_output=True,
                             text=True)
  return statistics.median(seconds[1:]), described.stdout.split("digest: ")[1].strip()


def main() -> None:
  """Measures, prints, and writes JSON."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--platform", default="cpu")
  parser.add_argument("--epochs", type=int, default=20)
  settings = parser.parse_args()
  found = {mode: [] for mode in MODES}
  with tempfile.TemporaryDirectory() as folder:
    for k in range(settings.rounds):
      for mode, flags in MODES.items():
        found[mode].append(run(os.path.join(folder, f"{list(MODES).index(mode)}-{k}"), settings.platform,
                               settings.epochs, flags))
        print(mode, *found[mode][-1], flush=True)
  result = {mode: {"epoch_s": statistics.median(seconds for seconds, _ in runs),
                   "to_jit": statistics.median(seconds / base for (seconds, _), (base, _) in zip(runs, found["jit"])),
                   "digests": sorted({digest for _, digest in runs})} for mode, runs in found.items()}
  bench.tell(result, settings.json)


if __name__ == "__main__":
  main()
