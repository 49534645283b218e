"""Causal consistency: speed beside PyTorch and Pyro, and what rows without a treatment are worth.

  python tests/benchmarks/causal_consistency.py --json=out.json           # seconds per epoch (about 5 minutes)
  python tests/benchmarks/causal_consistency.py --study --json=out.json   # objectives on simulated tables (30 minutes)

Speed: 1,000 rows, half of their treatments hidden, batches of 32 and the default networks, one core and one thread
for each process. Peers (causal_consistency_torch.py) are the EM loop and the SVI of the original, as written and tuned;
the processes take turns, and quoted are medians over rounds of a process's median epoch, the first left out. Ours has
7,148 parameters in four networks, two of them with an arm for each class; the peers share one trunk, 4,818. Needs
`pip install -e '.[bench]'`, Linux.

Study: each objective, and training on recorded rows alone, over tables that follow the seed, by `jaxtrain.sweep`. All
keep their best state by validation: of the likelihood of all rows, or of the recorded ones for recorded rows alone.
Differences are paired by table, with 95 % intervals by Student's t; `tables_won` counts those with a better score.
"""

import json
import os
import statistics
import sys
import tempfile

import numpy as np

import bench

ROOT = bench.ROOT
CONFIG = "configs/causal_consistency.py"
LOOPS = {"pytorch": "dataloader", "pytorch, tuned": "tuned", "pyro": "svi"}
SIZES = ("--config.train.batch_size=32", "--config.train.patience=0",
         "--config.loss.warmup_epochs=0", "--config.train.monitor_from_epoch=0", "--config.log.figures=none",
         "--config.parallel.cpu_threads=1", "--config.checkpoint.every_epochs=1000",
         "--config.log.progress=False")  # the peers print nothing either
OURS = {"em": (), "svi": ("--config.train.backend=svi", "--config.loss.objective=marginal")}
OBJECTIVES = ("free_energy", "marginal", "stopgrad", "hard", "seed")
RECORDED_ALONE = ("--config.loss.warmup_epochs=100000",
                  "--config.train.monitor=val_z_yx", "--config.train.monitor_from_epoch=0")
SETTINGS = {  # seeds, flags
    "noise 0.1, 98 % hidden": (3, ("--config.data.missing_rate=0.98",)),
    "noise 1, 90 % hidden": (12, ("--config.data.noise_std=1.0", "--config.data.missing_rate=0.9",
                                  "--config.data.num_samples=2000")),
}
SHOWN = ("ate", "cate_rmse", "log_likelihood", "hidden_cross_entropy")
HIGHER = ("log_likelihood",)  # is better


def write_table(path: str) -> None:
  """The rows that jaxtrain trains on, for the peers."""
  sys.path.insert(0, ROOT)
  from jaxtrain import config as config_lib
  config = config_lib.read_file(os.path.join(ROOT, CONFIG))
  data = config_lib.load_experiment(config.experiment).load(config).train.data
  np.savez(path, x=data["x"][:, 1:], z=data["x"][:, :1], label=data["label"].astype(np.int64))


def measure_speed(folder: str, rounds: int, core: int) -> dict:
  """Median seconds per epoch of ours and the peers, and ratios round by round."""
  table = os.path.join(folder, "table.npz")
  write_table(table)
  seconds: dict[str, list[float]] = {name: [] for name in (*OURS, *LOOPS)}
  for i in range(rounds):
    for name, flags in OURS.items():
      run = os.path.join(folder, f"{name}-{i}")
      bench.run_pinned([sys.executable, "-m", "jaxtrain.main", f"--config={CONFIG}", f"--workdir={run}",
                        "--config.train.num_epochs=40", *SIZES, *flags], core)
      with open(os.path.join(run, "history.json"), encoding="utf-8") as file:
        seconds[name].append(statistics.median(json.load(file)["seconds"][1:]))
    for name, loop in LOOPS.items():
      out = os.path.join(folder, "peer.json")
      bench.run_pinned([sys.executable, "tests/benchmarks/causal_consistency_torch.py", f"--table={table}",
                        f"--loop={loop}", "--epochs=6", f"--out={out}"], core)
      with open(out, encoding="utf-8") as file:
        seconds[name].append(statistics.median(json.load(file)["seconds_per_epoch"][1:]))
  ratios = {f"{peer} / {own}": [p / o for p, o in zip(seconds[peer], seconds[own])]
            for peer, own in (("pytorch", "em"), ("pytorch, tuned", "em"), ("pyro", "svi"))}
  return {"seconds_per_epoch": {name: statistics.median(v) for name, v in seconds.items()},
          "ratio": {name: {"median": statistics.median(v), "range": [min(v), max(v)]} for name, v in ratios.items()}}


def measure_study(folder: str, most: int) -> dict:
  """Each contender's scores by setting, and its differences from recorded rows alone on the same tables."""
  results = {}
  for setting, (seeds, flags) in SETTINGS.items():
    seeds = min(seeds, most)
    contenders = {"recorded alone": RECORDED_ALONE} | {name: (f"--config.loss.objective={name}",)
                                                       for name in OBJECTIVES}
    scores, unadjusted = {}, []
    for name, own in contenders.items():
      found = bench.sweep(os.path.join(folder, f"{setting}-{name}".replace(" ", "")), CONFIG,
                          (f"--sweep=seed=0..{seeds - 1}", "--config.data.seed=-1", *flags, *own))
      scores[name] = {what: [scalars[what] - scalars["ate_truth"] if what == "ate" else scalars[what]
                             for _, scalars in found] for what in SHOWN}
      unadjusted = [scalars["ate_unadjusted"] - scalars["ate_truth"] for _, scalars in found]
    of = {name: {f"{what}{'_error' * (what == 'ate')}": bench.interval(values) for what, values in found.items()}
          | {"ate_largest_error": max(map(abs, found["ate"])),
             "ate_rmse": float(np.sqrt(np.mean(np.square(found["ate"]))))}
          for name, found in scores.items()}
    alone = scores["recorded alone"]
    less = {name: {what: bench.interval([a - b for a, b in zip(found[what], alone[what])]) for what in SHOWN[1:]}
            for name, found in scores.items() if name != "recorded alone"}
    won = {name: {what: sum((a > b) == (what in HIGHER) for a, b in zip(found[what], alone[what]))
                  for what in SHOWN[1:]}
           for name, found in scores.items() if name != "recorded alone"}
    results[setting] = {"tables": seeds, "scores": of, "less_recorded_alone": less, "tables_won": won,
                        "unadjusted_error": bench.interval(unadjusted)}
    print(json.dumps({setting: results[setting]}), flush=True)
  return results


def main() -> None:
  """Measures speed, or the study."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--study", action="store_true")
  parser.add_argument("--tables", type=int, default=1000, help="at most so many tables of a setting")
  parser.add_argument("--core", type=int, default=0)
  given = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    results = measure_study(folder, given.tables) if given.study else measure_speed(folder, given.rounds, given.core)
    bench.tell(results, given.json)


if __name__ == "__main__":
  main()
