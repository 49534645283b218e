"""The autoencoder of collider events: speed beside PyTorch, use of codes, and bits against error.

  python tests/benchmarks/autoencoder.py --json=out.json                      # steps per second (about 10 minutes)
  python tests/benchmarks/autoencoder.py --codes --rates --folder=runs/codes  # one of the parts below

  --speed  the network, data and objective of variant `legacy` with latents none, linear and vq, in batches of 128
           events, one core and one thread for each process: ours beside the original's loop and a careful one
           (autoencoder_torch.py; `--compiled` adds a third, under torch.compile). Processes take turns, in reverse
           every second round. Quoted are medians over rounds of a process's median epoch, the first left out: of
           training steps alone (`steps`, and steps per second), and with the validation events (`epochs`). Compiling,
           checkpoints, facts and figures are left out. The floor is the operations of the products of a step over the
           rate of one large product on that core
  --codes  the default (vq), 3 seeds of events and training: codes used on 10,000 held-out events, perplexity over all
           of them together, the share of variance that is left unexplained
  --rates  vq, fsq, rvq and vae at several sizes, 3 seeds: bits of an event against the share of variance that is left
           unexplained

`--folder` keeps what was trained but for --speed, and a part begun there goes on. `--train_epochs` and `--train_events`
make --codes and --rates smaller than the default run. Intervals are 95 %, over seeds, by Student's t.
Needs `pip install -e '.[bench]'`, Linux.
"""

import json
import os
import statistics
import sys
import tempfile

import numpy as np

import bench
from jaxtrain import config as config_lib

CONFIG = "configs/autoencoder.py"
LATENTS, LOOPS, BATCH = ("none", "linear", "vq"), ("original", "careful"), 128
QUIET = ("--config.parallel.cpu_threads=1", "--config.checkpoint.every_epochs=1000", "--config.log.progress=False",
         "--config.log.figures=none")
SLOTS, EMBEDDED, WIDTH, LATENT, GLOBALS_WIDTH, CODES = 18, 12, 128, 32, 32, 512  # of the legacy network
HELD_OUT, SEEDS = 10_000, 3
SHOWN = ("bits_per_event", "unexplained_variance", "perplexity_pooled", "codes_used")
# Kind and size of the latent: what is written in the table, and the fields that say it.
SIZES = (
    *(("vq", f"{codes} codes", {"latent.num_codes": codes}) for codes in (32, 128, 512, 2048)),
    *(("fsq", f"levels {levels}", {"latent.levels": levels}) for levels in ("8,5", "8,8,8", "8,8,8,8")),
    *(("rvq", f"{stages} stages of 512", {"latent.num_stages": stages}) for stages in (2, 4)),
    *(("vae", f"weight of the KL {weight:g}", {"loss.weights.kl": weight}) for weight in (0.0003, 0.003, 0.03)),
)


def read_config(variant: str, **values):
  """The config of a variant with other values at dotted keys, written with __ for dots."""
  config = config_lib.read_file(os.path.join(bench.ROOT, CONFIG) + f":{variant}")
  return config_lib.with_values(config, {key.replace("__", "."): value for key, value in values.items()})


def write_table(path: str, num_events: int) -> None:
  """Normalised features, types and raw globals of the events that our legacy variant trains and validates on."""
  config = read_config("legacy", data__row_limit=num_events)
  splits = config_lib.load_experiment(config.experiment).load(config)
  np.savez(path, **{f"{part}_{name}": np.asarray(getattr(splits, part).data[name])
                    for part in ("train", "val") for name in ("cont", "ids", "globals")})


def run_ours(folder: str, latent: str, given) -> dict:
  """Seconds of each epoch of a run of the command: of its steps, and between the ends of two epochs; of compiling."""
  bench.run_pinned([sys.executable, "-m", "jaxtrain.main", f"--config={CONFIG}:legacy", f"--workdir={folder}",
                    f"--config.model.latent.kind={latent}", f"--config.data.row_limit={given.events}",
                    f"--config.train.num_epochs={given.epochs}", f"--config.train.batch_size={BATCH}", *QUIET],
                   given.core)
  with open(os.path.join(folder, "history.json"), encoding="utf-8") as file:
    history = json.load(file)
  with open(os.path.join(folder, "facts", "events.jsonl"), encoding="utf-8") as file:
    ends = [event["time"] for event in map(json.loads, file) if event["moment"] == "on_epoch_end"]
  with open(os.path.join(folder, "facts", "process.jsonl"), encoding="utf-8") as file:
    compiling = [record["compile_seconds"] for record in map(json.loads, file) if "compile_seconds" in record]
  return {"steps": history["seconds"], "epochs": [0.0, *np.diff(ends)], "val_loss": history["val_loss"],
          "compile_seconds": sum(compiling)}


def run_peer(folder: str, table: str, loop: str, latent: str, given) -> dict:
  """What a loop of autoencoder_torch.py tells of a run."""
  out = os.path.join(folder, "peer.json")
  bench.run_pinned([given.torch_python, "tests/benchmarks/autoencoder_torch.py", f"--table={table}", f"--loop={loop}",
                    f"--latent={latent}", f"--epochs={given.epochs}", f"--out={out}"], given.core)
  with open(out, encoding="utf-8") as file:
    return json.load(file)


def operations_of_step(latent: str) -> float:
  """Of the products of a step of the legacy network, forwards and backwards; codes are compared forwards only."""
  per_slot = EMBEDDED * WIDTH + WIDTH * WIDTH + WIDTH * LATENT + LATENT * WIDTH + WIDTH * WIDTH + WIDTH * 4
  per_slot += LATENT * LATENT * (latent == "linear")
  compared = 2.0 * SLOTS * LATENT * CODES * (latent == "vq")
  return BATCH * (6.0 * SLOTS * per_slot + 6.0 * GLOBALS_WIDTH * (LATENT + 2) + compared)


def measure_speed(_, given) -> dict:
  """Steps per second of ours and the peers by latent, ratios round by round, and the floor."""
  loops = (*LOOPS, *["compiled"] * given.compiled)
  with tempfile.TemporaryDirectory() as folder:  # a run that was kept would not be timed again
    table = os.path.join(folder, "table.npz")
    write_table(table, given.events)
    found, rates = {latent: {name: [] for name in ("ours", *loops)} for latent in LATENTS}, []
    for i in range(given.rounds):
      for latent in LATENTS:
        for name in ("ours", *loops)[::-1 if i % 2 else 1]:
          found[latent][name].append(run_ours(os.path.join(folder, f"{latent}-{i}"), latent, given) if name == "ours"
                                     else run_peer(folder, table, name, latent, given))
      rates.append(bench.rate_of_products(folder, given.core))
  rate = statistics.median(rates)
  return {"rounds": given.rounds, "num_epochs": given.epochs, "operations_per_second": rate,
          **{latent: summarise(runs, rate / operations_of_step(latent)) for latent, runs in found.items()}}


def summarise(runs: dict[str, list[dict]], fastest: float) -> dict:
  """What the processes of one latent took; `fastest` is how many steps a second the products alone would allow."""
  num_steps = runs["original"][0]["num_steps"]
  seconds = {what: {name: [statistics.median(run[what][1:]) for run in of] for name, of in runs.items()}
             for what in ("steps", "epochs")}
  result = {"num_steps": num_steps, "floor_steps_per_second": fastest,
            "steps_per_second": {name: bench.spread([num_steps / value for value in values])
                                 for name, values in seconds["steps"].items()},
            "compile_seconds": bench.spread([run["compile_seconds"] for run in runs["ours"]]),
            "val_loss": {name: statistics.median(run["val_loss"][-1] for run in of) for name, of in runs.items()}}
  for what, of in seconds.items():
    result[f"ratio_of_{what}"] = {name: bench.spread([p / o for p, o in zip(of[name], of["ours"])])
                                  for name in runs if name != "ours"}
  return result


def with_held_out(config, train_events: int) -> tuple[str, ...]:
  """Flags with which as many events train and validate as in a config, or `train_events` of them, and 10,000 test."""
  shares = config.data.split.fractions
  parts = [round(share * config.data.row_limit) for share in shares[:2]]
  if train_events:
    parts = [train_events, round(train_events * shares[1] / shares[0])]
  total = sum(parts) + HELD_OUT
  fractions = [part / total for part in parts]
  fractions.append(1 - sum(fractions))
  return (f"--config.data.row_limit={total}", f"--config.data.split.fractions={','.join(map(repr, fractions))}")


def train(folder: str, variant: str, fields: dict, given) -> list[dict]:
  """Scalars of the held-out events of the members of a sweep over seeds, of events and training."""
  epochs = (f"--config.train.num_epochs={given.train_epochs}",) if given.train_epochs else ()
  found = bench.sweep(folder, f"{CONFIG}:{variant}", (
      f"--sweep=seed=0..{given.seeds - 1}", "--config.data.seed=-1", "--config.log.progress=False",
      *with_held_out(read_config(variant), given.train_events), *epochs,
      *(f"--config.{key}={value}" for key, value in fields.items())))
  return [scalars for _, scalars in found]


def intervals(members: list[dict]) -> dict[str, list[float]]:
  """Mean and half width of each scalar that is shown and that the members have."""
  return {name: bench.interval([scalars[name] for scalars in members]) for name in SHOWN if name in members[0]}


def say_row(*cells) -> None:
  """Prints a row of a table in Markdown; [mean, half width] becomes one cell."""
  text = lambda cell: f"{cell[0]:.4g} ± {cell[1]:.2g}" if isinstance(cell, list) else str(cell)
  print(f"| {' | '.join(map(text, cells))} |", flush=True)


def measure_codes(folder: str, given) -> dict:
  """Use of the default's codes, and the worst of the seeds."""
  members = train(os.path.join(folder, "codes"), "vq", {}, given)
  worst = {"codes_used": min(scalars["codes_used"] for scalars in members),
           "perplexity_pooled": min(scalars["perplexity_pooled"] for scalars in members),
           "unexplained_variance": max(scalars["unexplained_variance"] for scalars in members)}
  return {"held_out_events": HELD_OUT, "seeds": given.seeds, **intervals(members), "worst": worst}


def measure_rates(folder: str, given) -> dict:
  """Bits of an event and the unexplained variance by kind and size of the latent."""
  result = {}
  say_row("latent", "size", "bits an event", "unexplained variance", "codes used")
  say_row(*["---"] * 5)
  for kind, size, fields in SIZES:
    fields = {key if key.startswith("loss") else f"model.{key}": value for key, value in fields.items()}
    name = f"rates-{kind}-{size}".replace(" ", "-").replace(",", "_")
    result[f"{kind}, {size}"] = one = intervals(train(os.path.join(folder, name), kind, fields, given))
    say_row(kind, size, one["bits_per_event"], one["unexplained_variance"],
            one["codes_used"] if "codes_used" in one else "")
  return result


PARTS = {"speed": measure_speed, "codes": measure_codes, "rates": measure_rates}


def main() -> None:
  """Measures the parts that the flags name, or speed."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--epochs", type=int, default=6, help="of --speed")
  parser.add_argument("--events", type=int, default=16_000, help="of --speed, in all parts")
  parser.add_argument("--compiled", action="store_true", help="a third peer in --speed")
  parser.add_argument("--seeds", type=int, default=SEEDS)
  parser.add_argument("--train_epochs", type=int, default=0, help="of --codes and --rates; 0 = the default's")
  parser.add_argument("--train_events", type=int, default=0, help="of --codes and --rates; 0 = the default's")
  bench.run_parts(parser, PARTS)


if __name__ == "__main__":
  main()
