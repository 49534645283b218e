"""Speed and quality of the tabular VAE beside PyTorch, in one run on one machine.

  python tests/benchmarks/tabular_vae.py --json=out.json                  # speed, start, overheads (about 10 minutes)
  python tests/benchmarks/tabular_vae.py --losses --epochs=40             # final losses, 3 seeds each (an hour)

Peers (tabular_vae_torch.py): (a) `dataloader`, the loop as the originals wrote it; (b) `foreach`, the loop a careful
user writes; `fast`, eager PyTorch tuned hard for this size of model; `compiled`, whole steps in one torch.compile
graph. Every process is pinned to the same core, PyTorch has one thread, and the processes take turns, round after
round, so that a slow minute of the machine falls on all alike. Quoted are medians over rounds of a process's median
epoch, the first epoch left out. Needs `pip install -e '.[bench]'`, Linux.

Roofline: one core's matrix products alone are about 0.056 s an epoch for the unsupervised model.
"""

import json
import os
import statistics
import sys
import tempfile
import time

import numpy as np

import bench

ROOT = bench.ROOT
PAIRS = [(recipe, kind) for recipe in ("hybrid", "standard") for kind in ("unsup", "semisup")]
PEERS = ("dataloader", "foreach", "fast", "compiled")


def write_table(path: str) -> None:
  """The scaled table that jaxtrain trains on, for the peers."""
  sys.path.insert(0, ROOT)
  from jaxtrain import config as config_lib
  config = config_lib.read_file(os.path.join(ROOT, "configs", "vae.py"))
  splits = config_lib.load_experiment(config.experiment).load(config)
  np.savez(path, x=splits.train.data["x"], label=splits.train.data["label"].astype(np.int64))


def run_ours(folder: str, recipe: str, kind: str, epochs: int, core: int, seed: int = 42,
             extra: tuple[str, ...] = ()) -> dict:
  """One run of the command; its history, rows and process facts."""
  variant = recipe if kind == "unsup" else f"{recipe}_semisup"
  began = time.time()
  bench.run_pinned([sys.executable, "-m", "jaxtrain.main", f"--config=configs/vae.py:{variant}", f"--workdir={folder}",
                    f"--config.train.num_epochs={epochs}", f"--config.seed={seed}", "--config.log.figures=none",
                    *extra], core)
  with open(os.path.join(folder, "history.json"), encoding="utf-8") as file:
    history = json.load(file)
  with open(os.path.join(folder, "facts", "process.jsonl"), encoding="utf-8") as file:
    process = [json.loads(line) for line in file]
  with open(os.path.join(folder, "facts", "events.jsonl"), encoding="utf-8") as file:
    memory = max(event["max_memory_mib"] for event in map(json.loads, file) if "max_memory_mib" in event)
  with open(os.path.join(folder, "eval", "train.json"), encoding="utf-8") as file:
    scalars = json.load(file)["scalars"]
  first = next(line["time"] for line in process if "first_steps_done_after_seconds" in line)
  spent = next(line["seconds"] for line in process if "seconds" in line)
  return {"history": history, "seconds": history["seconds"], "first_step": first - began, "spent": spent,
          "memory_mib": memory,
          "scalars": scalars, "compile_seconds": next(line["compile_seconds"] for line in process
                                                      if "compile_seconds" in line)}


def run_peer(folder: str, table: str, recipe: str, kind: str, loop: str, epochs: int, core: int,
             seed: int = 42) -> dict:
  """One run of a PyTorch loop."""
  out = os.path.join(folder, "peer.json")
  bench.run_pinned([sys.executable, "tests/benchmarks/tabular_vae_torch.py", f"--table={table}", f"--recipe={recipe}",
                    f"--kind={kind}", f"--loop={loop}", f"--epochs={epochs}", f"--seed={seed}", f"--out={out}"], core)
  with open(out, encoding="utf-8") as file:
    return json.load(file)


def measure_speed(folder: str, table: str, rounds: int, core: int, loops: tuple[str, ...]) -> list[dict]:
  """Median seconds per epoch of ours and each peer, and the ratios round by round, for the four pairs."""
  results = []
  for recipe, kind in PAIRS:
    seconds = {name: [] for name in ("ours", *loops)}
    for i in range(rounds):
      ours = run_ours(os.path.join(folder, f"{recipe}-{kind}-{i}"), recipe, kind, 12, core)
      seconds["ours"].append(statistics.median(ours["seconds"][1:]))
      for loop in loops:
        peer = run_peer(folder, table, recipe, kind, loop, 3, core)
        seconds[loop].append(statistics.median(peer["seconds_per_epoch"][1:]))
    ratios = {loop: [p / o for p, o in zip(seconds[loop], seconds["ours"])] for loop in loops}
    results.append({"recipe": recipe, "kind": kind} | {f"{name}_s": statistics.median(v) for name, v in seconds.items()}
                   | {f"ratio_{loop}": statistics.median(v) for loop, v in ratios.items()}
                   | {f"ratio_{loop}_range": [min(v), max(v)] for loop, v in ratios.items()})
    print(json.dumps(results[-1]), flush=True)
  return results


def measure_start(folder: str, core: int, rounds: int = 5) -> dict:
  """Seconds from the start of the process to its first finished step, cold and with a warm compile cache."""
  cache = os.path.join(folder, "cache")
  os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
  starts = [run_ours(os.path.join(folder, f"start-{i}"), "hybrid", "unsup", 1, core)["first_step"]
            for i in range(rounds + 1)]
  del os.environ["JAX_COMPILATION_CACHE_DIR"]
  imports = []
  for _ in range(rounds):
    began = time.time()
    bench.run_pinned([sys.executable, "-c", "import jax"], core)
    imports.append(time.time() - began)
  warm, jax_import = statistics.median(starts[1:]), statistics.median(imports)
  return {"cold_first_step_s": starts[0], "warm_first_step_s": warm, "import_jax_s": jax_import,
          "ratio": warm / jax_import}


def measure_overhead(folder: str, core: int) -> dict:
  """Shares of wall time in the loop, at the default cadence of the full run and when saving every epoch."""
  shares = {}
  for name, extra in (("default", ()), ("save_every_epoch", ("--config.checkpoint.every_epochs=1",))):
    run = run_ours(os.path.join(folder, f"overhead-{name}"), "hybrid", "unsup", 100, core, extra=extra)
    spent = run["spent"]
    total = spent["train"] + spent["report"] + spent["save"]
    shares[name] = {"loop_s": total, "checkpoints": (spent["save"] + spent["saver_cpu"]) / total,
                    "facts_and_bar": spent["report"] / total, "peak_memory_mib": run["memory_mib"]}
  return shares


def measure_losses(folder: str, table: str, epochs: int, core: int, seeds: tuple[int, ...] = (0, 1, 2)) -> list[dict]:
  """Last epoch's training loss and the reconstruction error in evaluation mode, ours and the fast peer's, per seed."""
  results = []
  for recipe, kind in PAIRS:
    ours, peer = {"loss": [], "recon_mse": []}, {"loss": [], "recon_mse": []}
    for seed in seeds:
      mine = run_ours(os.path.join(folder, f"loss-{recipe}-{kind}-{seed}"), recipe, kind, epochs, core, seed)
      ours["loss"].append(mine["history"]["loss"][-1])
      errors = [value ** 2 for name, value in mine["scalars"].items() if name.startswith("rmse_scaled/")]
      ours["recon_mse"].append(float(np.mean(errors)))
      theirs = run_peer(folder, table, recipe, kind, "fast", epochs, core, seed)
      peer["loss"].append(theirs["history"]["loss"][-1])
      peer["recon_mse"].append(theirs["eval"]["recon_mse"])
    entry = {"recipe": recipe, "kind": kind, "epochs": epochs, "seeds": list(seeds)}
    for name in ours:
      gap = float(np.mean(ours[name]) - np.mean(peer[name]))
      spread = float(np.sqrt(np.var(ours[name], ddof=1) / len(seeds) + np.var(peer[name], ddof=1) / len(seeds)))
      entry[name] = {"ours": ours[name], "peer": peer[name], "gap": gap, "standard_error": spread}
    results.append(entry)
    print(json.dumps(entry), flush=True)
  return results


def main() -> None:
  """Measures what the flags ask for, prints it, and writes it as JSON."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--core", type=int, default=0)
  parser.add_argument("--peers", default=",".join(PEERS))
  parser.add_argument("--losses", action="store_true", help="measure final losses instead of speed")
  parser.add_argument("--epochs", type=int, default=40)
  flags = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    table = os.path.join(folder, "table.npz")
    write_table(table)
    if flags.losses:
      results = {"losses": measure_losses(folder, table, flags.epochs, flags.core)}
    else:
      results = {"start": measure_start(folder, flags.core)}
      print(json.dumps(results), flush=True)
      results["overhead"] = measure_overhead(folder, flags.core)
      print(json.dumps(results["overhead"]), flush=True)
      results["speed"] = measure_speed(folder, table, flags.rounds, flags.core, tuple(flags.peers.split(",")))
  bench.tell(results, flags.json)


if __name__ == "__main__":
  main()
