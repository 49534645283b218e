"""Semantic compression: speed beside PyTorch, rates beside theory and other methods, and what was published on it.

  python tests/benchmarks/semantic_compression.py --json=out.json   # seconds per epoch (about 5 minutes)
  python tests/benchmarks/semantic_compression.py --rates --folder=runs/rates   # one of the parts below

  --speed     8,000 states in batches of 64, the default network, one core and one thread: ours (kind entropy) beside
              the original's loop and a careful one (semantic_compression_torch.py). Processes take turns; quoted are
              medians over rounds of a process's median epoch, the first left out: of the training steps alone
              (`steps`), and whole with 2,000 states evaluated (`epochs`). Checkpoints are left out on both sides. The
              floor is the operations of the products of our epoch over the rate of one large product on that core
  --rates     kinds entropy and lattice at six levels, 3 seeds, 8,000 training and 2,000 held-out states that follow the
              seed, each kind as one program over level and seed: real bits, errors, excess bits; and other methods
  --gaussian  16 dimensions, three levels: the gap to R(D), of linear maps and of the network
  --findings  what was published of the original, as sweeps of 3 seeds and 30 epochs
  --lattice   nine uniform numbers without a network: E8 and one by one, at equal errors (2 minutes)
  --lossless  bits of a state whose float32 come back, beside gzip and zstd
  --coding    compress and decompress: MB/s of float32 columns and states/s

`--folder` keeps what was trained but for --speed, and a part begun there goes on. Intervals are 95 %, over seeds, by
Student's t. Needs `pip install -e '.[bench]'`, Linux. The parts but --speed are in semantic_compression_study.py (with
sweeps) and semantic_compression_codes.py (without).
"""

import json
import os
import statistics
import sys
import tempfile

import jax
import numpy as np

import bench
import flops
import semantic_compression_codes as codes
import semantic_compression_study as study
from jaxtrain.experiments.semantic_compression import codec, nets, schema as schema_lib, semantics

CONFIG, STATES = study.CONFIG, study.STATES
LOOPS = ("original", "careful")
LAYOUT = ("matrix_in", "shift_in", "matrix_out", "shift_out", "low", "high", "numeric")
SIZES = (*study.as_flags(STATES), "--config.parallel.cpu_threads=1", "--config.checkpoint.every_epochs=1000",
         "--config.log.progress=False", "--config.log.figures=none")


def write_table(path: str) -> None:
  """What the peers train on: the original's raw columns, our vectors, and the start of our network."""
  config = study.read_config()
  splits = codec.load(config)
  problem = codec.make_problem(config, splits.meta)
  schema, layout = problem.schema, problem.model.layout
  x = {part: getattr(splits, part).data["x"] for part in ("train", "val")}
  feature = {one.name: one.weight for one in schema.features}
  column_weight = np.zeros(schema.width)
  for one in schema.features:
    if one.kind == "numeric":
      for name in one.columns:
        column_weight[schema.slices[name]] += one.weight / len(one.columns)
  share = lambda name: [semantics.share(schema.column["current_health"], threshold) for one in schema.features
                        if one.name == name for threshold in one.thresholds]
  np.savez(path, **x, **{f"raw_{part}": raw_columns(schema_lib.decode(schema, rows)) for part, rows in x.items()},
           **{name: getattr(layout, name) for name in LAYOUT},
           steps=np.where(layout.continuous, nets.AT_LEVEL_1, 1.0), feature_column_weight=column_weight,
           alive_weight=feature["is_alive"], threatened_weight=feature["threatened"],
           target_weight=feature["has_target"], role_weight=feature["role"], thresholds=share("threatened"),
           health=schema.slices["current_health"].start, bit=schema.slices["is_defending"].start,
           classes=schema.slices["role"].start, num_components=config.model.num_components)


def raw_columns(record: dict) -> np.ndarray:
  """[N, 15] float32 as the original makes them of a state."""
  names = ("position_x", "position_y", "position_z", "health", "energy", "resource_level", "current_health",
           "is_defending")
  columns = [record[name] for name in names]
  columns += [np.minimum(record["age"] / 1000, 1), np.clip(record["total_reward"] / 100, -1, 1)]
  return np.stack([*columns, *(record["role"] == role for role in schema_lib.ROLES)], axis=1).astype(np.float32)


def run_ours(folder: str, epochs: int, core: int) -> dict:
  """Seconds of each epoch of a run of the command: of its steps, and between the ends of two epochs."""
  bench.run_pinned([sys.executable, "-m", "jaxtrain.main", f"--config={CONFIG}", f"--workdir={folder}",
                    f"--config.train.num_epochs={epochs}", *SIZES], core)
  with open(os.path.join(folder, "history.json"), encoding="utf-8") as file:
    history = json.load(file)
  with open(os.path.join(folder, "facts", "events.jsonl"), encoding="utf-8") as file:
    ends = [event["time"] for event in map(json.loads, file) if event["moment"] == "on_epoch_end"]
  return {"steps": history["seconds"], "epochs": [0.0, *np.diff(ends)], "val_loss": history["val_loss"]}


def floor_of_epoch(folder: str, core: int) -> dict:
  """Operations of the products of our epoch, the rate of a large product in this minute, and their quotient."""
  config = study.read_config()
  splits = codec.load(config)
  key = jax.eval_shape(lambda: jax.random.key(0))  # starts no device, whose threads a fork does not bear
  state = jax.eval_shape(codec.make(config, splits.meta).init, key, {"x": splits.train.data["x"][:64]})
  rate = bench.rate_of_products(folder, core)
  operations = flops.of_step(config, state.params) * splits.meta["steps_per_epoch"]
  return {"operations": operations, "operations_per_second": rate, "seconds": operations / rate}


def measure_speed(_, given) -> dict:
  """Median seconds per epoch of ours and the peers, ratios round by round, the last validation losses, the floor."""
  with tempfile.TemporaryDirectory() as folder:  # a run that was kept would not be timed again
    table, out = os.path.join(folder, "table.npz"), os.path.join(folder, "peer.json")
    write_table(table)
    found, floors = {name: [] for name in ("ours", *LOOPS)}, []
    for i in range(given.rounds):
      found["ours"].append(run_ours(os.path.join(folder, str(i)), given.epochs, given.core))
      for loop in LOOPS:
        bench.run_pinned([given.torch_python, "tests/benchmarks/semantic_compression_torch.py", f"--table={table}",
                          f"--loop={loop}", f"--epochs={given.epochs}", f"--out={out}"], given.core)
        with open(out, encoding="utf-8") as file:
          found[loop].append(json.load(file))
      floors.append(floor_of_epoch(folder, given.core))
  result = {"rounds": given.rounds, "num_epochs": given.epochs, "floor": {
      name: statistics.median(floor[name] for floor in floors) for name in floors[0]}}
  for what in ("steps", "epochs"):
    seconds = {name: [statistics.median(run[what][1:]) for run in runs] for name, runs in found.items()}
    ratios = {loop: [p / o for p, o in zip(seconds[loop], seconds["ours"])] for loop in LOOPS}
    result[what] = {"seconds": {name: bench.spread(values) for name, values in seconds.items()},
                    "ratio": {loop: bench.spread(values) for loop, values in ratios.items()}}
  result["val_loss"] = {name: statistics.median(run["val_loss"][-1] for run in runs) for name, runs in found.items()}
  return result


PARTS = {"speed": measure_speed, "rates": study.measure_rates, "gaussian": study.measure_gaussian,
         "findings": study.measure_findings, "lattice": codes.measure_lattice, "lossless": codes.measure_lossless,
         "coding": codes.measure_coding}


def main() -> None:
  """Measures the parts that the flags name, or speed."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--epochs", type=int, default=12, help="of --speed")
  parser.add_argument("--seeds", type=int, default=0, help="instead of those of a part")
  parser.add_argument("--train_epochs", type=int, default=0, help="of the studies, instead of theirs")
  bench.run_parts(parser, PARTS)


if __name__ == "__main__":
  main()
