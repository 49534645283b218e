"""The autoencoder of collider events: speed beside PyTorch, use of codes, and bits against error.

  python tests/benchmarks/autoencoder.py --json=out.json                      # steps per second (about 10 minutes)
  python tests/benchmarks/autoencoder.py --codes --rates --folder=runs/codes  # one of the parts below

  --speed  the network, data and objective of variant `legacy` with latents none, linear and vq, in batches of 128
           events, and those of variants gan_ae and diffusion_ae in batches of 256 (`--cases` names some of these), one
           core and one thread for each process: ours beside the original's loop and a careful one (those of
           autoencoder_torch.py and autoencoder_generative_torch.py; `--compiled` adds a third of the first three, under
           torch.compile). Processes take turns, in reverse every second round. Quoted are medians over rounds of a
           process's median epoch, the first left out: of training steps alone (`steps`, and steps per second), and with
           the validation events (`epochs`). Compiling, checkpoints, facts and figures are left out. The floor, of the
           first three, is the operations of the products of a step over the rate of one large product on that core
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
LATENTS, GENERATIVE = ("none", "linear", "vq"), ("gan_ae", "diffusion_ae")
LOOPS, BATCH = ("original", "careful"), 128
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


def write_inputs(folder: str, variant: str, num_events: int) -> tuple[str, str]:
  """(table, settings), files of what a peer of a variant reads: normalised features, types and globals of the events
  that ours trains and validates on, and the sizes and weights of ours.
  """
  config = read_config(variant, data__row_limit=num_events)
  splits = config_lib.load_experiment(config.experiment).load(config)
  table, settings = (os.path.join(folder, f"{variant}.{ending}") for ending in ("npz", "json"))
  np.savez(table, **{f"{part}_{name}": np.asarray(getattr(splits, part).data[name])
                     for part in ("train", "val") for name in ("cont", "ids", "globals")})
  found = {name: splits.meta[name] for name in ("num_features", "num_globals", "num_types", "num_slots")}
  found |= {"loop": variant, "batch_size": config.train.batch_size, "model": config.model.to_dict(),
            "weights": config.loss.weights.to_dict()}
  found |= {name: config[name].to_dict() for name in ("optim", "optim_critic") if name in config}
  with open(settings, "w", encoding="utf-8") as file:
    json.dump(found, file)
  return table, settings


def run_ours(folder: str, case: str, given) -> dict:
  """Seconds of each epoch of a run of the command: of its steps, and between the ends of two epochs; of compiling."""
  own = [f"--config={CONFIG}:legacy", f"--config.model.latent.kind={case}"]
  own = [*own, f"--config.train.batch_size={BATCH}"] if case in LATENTS else [f"--config={CONFIG}:{case}"]
  bench.run_pinned([sys.executable, "-m", "jaxtrain.main", *own, f"--workdir={folder}",
                    f"--config.data.row_limit={given.events}", f"--config.train.num_epochs={given.epochs}",
                    *QUIET], given.core)
  with open(os.path.join(folder, "history.json"), encoding="utf-8") as file:
    history = json.load(file)
  with open(os.path.join(folder, "facts", "events.jsonl"), encoding="utf-8") as file:
    ends = [event["time"] for event in map(json.loads, file) if event["moment"] == "on_epoch_end"]
  with open(os.path.join(folder, "facts", "process.jsonl"), encoding="utf-8") as file:
    compiling = [record["compile_seconds"] for record in map(json.loads, file) if "compile_seconds" in record]
  return {"steps": history["seconds"], "epochs": [0.0, *np.diff(ends)], "val_loss": history["val_loss"],
          "compile_seconds": sum(compiling)}


def run_peer(folder: str, inputs: tuple[str, str], loop: str, case: str, given) -> dict:
  """What a peer's loop tells of a run."""
  table, settings = inputs
  script = ["autoencoder_torch.py", f"--latent={case}"]
  script = script if case in LATENTS else ["autoencoder_generative_torch.py", f"--settings={settings}"]
  out = os.path.join(folder, "peer.json")
  bench.run_pinned([given.torch_python, f"tests/benchmarks/{script[0]}", script[1], f"--table={table}",
                    f"--loop={loop}", f"--epochs={given.epochs}", f"--out={out}"], given.core)
  with open(out, encoding="utf-8") as file:
    return json.load(file)


def operations_of_step(latent: str) -> float:
  """Of the products of a step of the legacy network, forwards and backwards; codes are compared forwards only."""
  per_slot = EMBEDDED * WIDTH + WIDTH * WIDTH + WIDTH * LATENT + LATENT * WIDTH + WIDTH * WIDTH + WIDTH * 4
  per_slot += LATENT * LATENT * (latent == "linear")
  compared = 2.0 * SLOTS * LATENT * CODES * (latent == "vq")
  return BATCH * (6.0 * SLOTS * per_slot + 6.0 * GLOBALS_WIDTH * (LATENT + 2) + compared)


def measure_speed(_, given) -> dict:
  """Steps per second of ours and the peers by case, ratios round by round, and the floor."""
  cases = given.cases.split(",")
  names = {case: ("ours", *LOOPS, *["compiled"] * (given.compiled and case in LATENTS)) for case in cases}
  with tempfile.TemporaryDirectory() as folder:  # a run that was kept would not be timed again
    variants = {case: "legacy" if case in LATENTS else case for case in cases}
    inputs = {variant: write_inputs(folder, variant, given.events) for variant in set(variants.values())}
    found, rates = {case: {name: [] for name in names[case]} for case in cases}, []
    for i in range(given.rounds):
      for case in cases:
        for name in names[case][::-1 if i % 2 else 1]:
          found[case][name].append(run_ours(os.path.join(folder, f"{case}-{i}"), case, given) if name == "ours"
                                   else run_peer(folder, inputs[variants[case]], name, case, given))
      rates.append(bench.rate_of_products(folder, given.core))
  rate = statistics.median(rates)
  floors = {case: rate / operations_of_step(case) if case in LATENTS else None for case in cases}
  return {"rounds": given.rounds, "num_epochs": given.epochs, "operations_per_second": rate,
          **{case: summarise(runs, floors[case]) for case, runs in found.items()}}


def summarise(runs: dict[str, list[dict]], fastest: float | None) -> dict:
  """What the processes of one case took; `fastest` is how many steps a second the products alone would allow, None
  where that is not counted.
  """
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
  bench.say_row("latent", "size", "bits an event", "unexplained variance", "codes used")
  bench.say_row(*["---"] * 5)
  for kind, size, fields in SIZES:
    fields = {key if key.startswith("loss") else f"model.{key}": value for key, value in fields.items()}
    name = f"rates-{kind}-{size}".replace(" ", "-").replace(",", "_")
    result[f"{kind}, {size}"] = one = intervals(train(os.path.join(folder, name), kind, fields, given))
    bench.say_row(kind, size, one["bits_per_event"], one["unexplained_variance"],
                  one["codes_used"] if "codes_used" in one else "")
  return result


PARTS = {"speed": measure_speed, "codes": measure_codes, "rates": measure_rates}


def main() -> None:
  """Measures the parts that the flags name, or speed."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--epochs", type=int, default=6, help="of --speed")
  parser.add_argument("--events", type=int, default=16_000, help="of --speed, in all parts")
  parser.add_argument("--cases", default=",".join((*LATENTS, *GENERATIVE)), help="of --speed, separated by commas")
  parser.add_argument("--compiled", action="store_true", help="a third peer in --speed")
  parser.add_argument("--seeds", type=int, default=SEEDS)
  parser.add_argument("--train_epochs", type=int, default=0, help="of --codes and --rates; 0 = the default's")
  parser.add_argument("--train_events", type=int, default=0, help="of --codes and --rates; 0 = the default's")
  bench.run_parts(parser, PARTS)


if __name__ == "__main__":
  main()
