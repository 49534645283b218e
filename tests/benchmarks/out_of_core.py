"""Training from a file that does not fit in memory beside the same model on a table in memory: steps/s and memory.

  python tests/benchmarks/out_of_core.py --json=out.json        # about 5 minutes, 2.6 GB of disk

A file of 2.5 million rows x 256 float32 features (2.56 GB), contiguous HDF5, and one of 100,000 such rows; a VAE wide
enough for about 10 ms a step at batch 256. Runs take turns; quoted are medians over rounds of a run's steps per second
after its first 300 steps, of what those took more than later ones (compiling apart: loading Grain, the first
window), and of the peak resident memory of the process. Needs `pip install -e '.[tables]'`, Linux.
"""

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile

import h5py
import numpy as np

import bench

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WIDTH, BLOCK = 256, 100_000
STEPS, FIRST = 1200, 300

CHILD = """
import resource, sys
from jaxtrain import main
sys.argv = ["jaxtrain.main", *sys.argv[1:]]
code = main.main()
print("peak_kib", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


def write_file(path: str, num_rows: int) -> None:
  """Rows of correlated normal numbers, block by block."""
  random = np.random.default_rng(0)
  mix = random.normal(size=(16, WIDTH)).astype(np.float32)
  with h5py.File(path, "w") as file:
    rows = file.create_dataset("x", (num_rows, WIDTH), np.float32)
    for start in range(0, num_rows, BLOCK):
      latent = random.normal(size=(BLOCK, 16)).astype(np.float32)
      rows[start:start + BLOCK] = latent @ mix + 0.1 * random.random((BLOCK, WIDTH), np.float32)


def run(path: str, workdir: str, hidden: str, flags: tuple[str, ...]) -> dict:
  """One run of the command: steps per second once it is under way, seconds until then, peak memory in MiB."""
  command = [sys.executable, "-c", CHILD, "--config=configs/vae.py:csv", f"--workdir={workdir}",
             "--config.data.source=hdf5", f"--config.data.path={path}", "--config.data.features=x",
             "--config.data.split.kind=none", "--config.train.monitor=train_loss", "--config.optim.plateau.factor=0",
             f"--config.model.hidden_dims={hidden}", f"--config.train.num_steps={STEPS}",
             f"--config.eval.every_steps={FIRST}", f"--config.checkpoint.every_steps={STEPS}",
             "--config.log.figures=none", "--config.log.progress=False", *flags]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  if done.returncode:
    sys.exit(done.stderr[-2000:])
  with open(os.path.join(workdir, "facts", "process.jsonl"), encoding="utf-8") as file:
    process = [json.loads(line) for line in file]
  spent = next(line["seconds"]["train"] for line in process if "seconds" in line)
  with open(os.path.join(workdir, "facts", "scalars.csv"), encoding="utf-8", newline="") as file:
    row = next(csv.DictReader(file))
  assert (int(row["epoch"]), int(row["step"])) == (0, FIRST), row
  first = float(row["epoch_time_s"])
  rate = (STEPS - FIRST) / (spent - first)
  peak = int(done.stdout.split("peak_kib ")[1].split()[0]) / 1024
  return {"steps_per_s": rate, "start_s": first - FIRST / rate, "peak_mib": peak}


def main() -> None:
  """Measures, prints, and writes JSON."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--rows", type=int, default=2_500_000)
  parser.add_argument("--hidden", default="1024,512")
  flags = parser.parse_args()
  found: dict[str, list[dict]] = {"in_memory": [], "out_of_core": [], "out_of_core_small": []}
  with tempfile.TemporaryDirectory() as folder:
    small, large = os.path.join(folder, "small.h5"), os.path.join(folder, "large.h5")
    write_file(small, 100_000)
    write_file(large, flags.rows)
    size = os.path.getsize(large) / 2**20
    for k in range(flags.rounds):
      for name, path, more in (("in_memory", small, ()), ("out_of_core", large, ("--config.data.out_of_core",)),
                               ("out_of_core_small", small, ("--config.data.out_of_core",))):
        found[name].append(run(path, os.path.join(folder, f"{name}-{k}"), flags.hidden, more))
        print(name, found[name][-1], flush=True)
  middle = {name: {key: statistics.median(r[key] for r in runs) for key in runs[0]} for name, runs in found.items()}
  result = middle | {"file_mib": size,
                     "ratio": middle["out_of_core"]["steps_per_s"] / middle["in_memory"]["steps_per_s"],
                     "growth_mib": middle["out_of_core"]["peak_mib"] - middle["out_of_core_small"]["peak_mib"]}
  bench.tell(result, flags.json)


if __name__ == "__main__":
  main()
