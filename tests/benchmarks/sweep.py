"""A sweep of 16 members of the hybrid VAE (seed x learning rate x KL weight) beside other ways to train them.

  python tests/benchmarks/sweep.py --json=sweep.json             # about 15 minutes on two cores

On two cores, in turns, round after round: (a) ours as one program over two CPU devices (`vmap`), the same with members
in turn (`exact`), and as processes of their own, two at a time with a core each (`local`); (b) PyTorch loops of
tabular_vae_torch.py, 16 runs, two at a time with a core each and one thread: `foreach`, the loop a careful user writes,
and `fast`, eager PyTorch tuned hard. Quoted are core-seconds per member and epoch inside the training loop (median
epoch, the first left out; one program: wall time of the epoch x 2 cores / 16 members), and core-seconds of everything,
start, compiling with an empty cache, and for ours evaluation, assessment and files included. Needs
`pip install -e '.[bench]'`, Linux.

  python tests/benchmarks/sweep.py --curve=1,4,16                # members against throughput, on the devices there are
"""

import csv
import glob
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import bench
import tabular_vae

ROOT = bench.ROOT
AXES = ("--sweep=seed=0..3", "--sweep=optim.learning_rate=1e-3,5e-4", "--sweep=loss.weights.kl=0.25,0.5")
NUM_MEMBERS, NUM_CORES = 16, 2
WAYS = {"vmap": (), "exact": ("--exact",), "local": ("--launcher=local", f"--jobs={NUM_CORES}")}
PEERS = ("foreach", "fast")


def epoch_seconds(folder: str) -> float:
  """Median over members and epochs but the first of what an epoch of a member took, by its facts."""
  found = []
  for path in glob.glob(os.path.join(folder, "runs", "*", "facts", "scalars.csv")):
    with open(path, encoding="utf-8", newline="") as file:
      found += [float(row["epoch_time_s"]) for row in csv.DictReader(file) if row["split"] == "train"][1:]
  return statistics.median(found)


def run_sweep(folder: str, epochs: int, flags: tuple[str, ...], axes: tuple[str, ...] = AXES) -> dict:
  """A sweep of ours: core-seconds of a member's epoch and of everything, final losses."""
  began = time.time()
  done = subprocess.run([sys.executable, "-m", "jaxtrain.sweep", "--config=configs/vae.py", *axes, *flags,
                         f"--config.train.num_epochs={epochs}", f"--workdir={folder}"], cwd=ROOT, capture_output=True,
                        text=True, env=os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}-cache"})
  if done.returncode:
    sys.exit(done.stderr)
  one_program = "--launcher=local" not in flags
  losses = []
  for path in sorted(glob.glob(os.path.join(folder, "runs", "*", "history.json"))):
    with open(path, encoding="utf-8") as file:
      losses.append(json.load(file)["loss"][-1])
  return {"epoch": epoch_seconds(folder) * (NUM_CORES if one_program else 1), "losses": losses,
          "total": (time.time() - began) * NUM_CORES}


def run_peers(folder: str, table: str, loop: str, epochs: int) -> dict:
  """PyTorch runs, two at a time; rates and weights do not change what a step costs, so all have the loop's own."""
  began, seconds, waiting, running = time.time(), [], list(range(NUM_MEMBERS)), {}
  while waiting or running:
    for core in range(NUM_CORES):
      if core in running and running[core][0].poll() is not None:
        process, out = running.pop(core)
        bench.finish(process)
        with open(out, encoding="utf-8") as file:
          seconds += json.load(file)["seconds_per_epoch"][1:]
      if core not in running and waiting:
        k = waiting.pop()
        out = os.path.join(folder, f"{loop}-{k}.json")
        running[core] = bench.pinned(
            [sys.executable, "tests/benchmarks/tabular_vae_torch.py", f"--table={table}", "--recipe=hybrid",
             "--kind=unsup", f"--loop={loop}", f"--epochs={epochs}", f"--seed={k}", f"--out={out}"], core), out
    time.sleep(0.02)
  return {"epoch": statistics.median(seconds), "total": (time.time() - began) * NUM_CORES}


def compare(folder: str, rounds: int, epochs: int, peers: tuple[str, ...]) -> dict:
  """Medians over rounds, and ratios to `vmap` round by round."""
  table = os.path.join(folder, "table.npz")
  tabular_vae.write_table(table)
  found = {name: [] for name in (*WAYS, *peers)}
  for i in range(rounds):
    for name, flags in WAYS.items():
      found[name].append(run_sweep(os.path.join(folder, f"{name}-{i}"), epochs, flags))
    for name in peers:
      found[name].append(run_peers(folder, table, name, epochs))
    print(json.dumps({name: {kind: round(found[name][-1][kind], 4) for kind in ("epoch", "total")} for name in found}),
          flush=True)
  same = [a["losses"] == b["losses"] for a, b in zip(found["exact"], found["local"])]
  gap = max(abs(a - b) / b for one, other in zip(found["vmap"], found["local"])
            for a, b in zip(one["losses"], other["losses"]))
  results = {"members": NUM_MEMBERS, "epochs": epochs, "rounds": rounds, "exact_equals_local": all(same),
             "vmap_to_local_loss_gap": gap}
  for kind in ("epoch", "total"):
    for name, entries in found.items():
      ratios = [entry[kind] / base[kind] for entry, base in zip(entries, found["vmap"])]
      results[f"{kind}_core_s_{name}"] = statistics.median(entry[kind] for entry in entries)
      results[f"{kind}_ratio_{name}"] = [statistics.median(ratios), min(ratios), max(ratios)]
  return results


def measure_curve(folder: str, counts: list[int], epochs: int) -> list[dict]:
  """Rows a second of so many members as one program."""
  results = []
  for count in counts:
    path = os.path.join(folder, str(count))
    run_sweep(path, epochs, ("--config.log.progress=False",), (f"--sweep=seed=0..{count - 1}",))
    seconds = epoch_seconds(path) * count
    results.append({"members": count, "epoch_s": seconds, "rows_per_s": 238_506 * count / seconds})
    print(json.dumps(results[-1]), flush=True)
  return results


def main() -> None:
  """Measures what the flags ask for, prints it, and writes it as JSON."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--epochs", type=int, default=10)
  parser.add_argument("--peers", default=",".join(PEERS))
  parser.add_argument("--curve", default="", help="numbers of members, such as 1,8,64,512: measure those instead")
  flags = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    if flags.curve:
      results = measure_curve(folder, [int(count) for count in flags.curve.split(",")], flags.epochs)
    else:
      results = compare(folder, flags.rounds, flags.epochs, tuple(flags.peers.split(",")))
  bench.tell(results, flags.json)


if __name__ == "__main__":
  main()
