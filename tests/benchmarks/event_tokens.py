"""What the tokens of events keep beside continuous latents of as many bits: processes told apart, and strange events.

  python tests/benchmarks/pythia_events.py --out=pythia.h5 --tt=15000 --ttH=15000 --processes=2
  python tests/benchmarks/event_tokens.py --file=pythia.h5 --classes --anomaly --folder=runs/tokens --json=tokens.json

  --classes  autoencoders are trained on top pairs with and without a Higgs boson, labels hidden. One classifier, but
             for its first layer, then learns the labels of the training events from what each of them makes of an
             event, and is judged by the area under the curve (AUC) on the test part
  --anomaly  the same autoencoders are trained on top pairs alone. Their error ranks the test events; AUC of those with
             a Higgs boson, beside the density of HT and the number of objects (a mixture of --components Normals that
             is fitted to the training events), and each of the two alone

What a classifier reads of an event, slot by slot:

  tokens     indices of variant vq's codes
  codes      the vectors of these codes: the same information, laid out as the autoencoder has it
  vae        latents drawn from a vae's posterior, the weight of whose divergence is such that an event costs as many
             bits as its tokens do (`--near`, relative, of the first seed)
  latents    those of variant none: numbers of 32 bits
  events     types, normalised momenta and missing energy: what all others are made of

The classifier is a deep set: a network of each slot, mean and maximum over the slots, and a network of these. Its
epoch is that of the least cross-entropy on the validation part. Each seed deals the file's events to the parts anew,
and starts all networks anew, alike for all rows of the table: differences are paired. Intervals are 95 %, over --seeds,
by Student's t. `--folder` keeps what was trained, and a part begun there goes on. `--train_epochs` makes it smaller.

**Source:** Zaheer et al. 2017 (Deep sets), theorem 2.
"""

import json
import math
import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from sklearn import mixture

import bench
from jaxtrain import rng
from jaxtrain.experiments.autoencoder import (ae, apply, distances, event_files, events as events_lib, objective,
                                              observables, ranking, scaling)
from jaxtrain.experiments.autoencoder.events import Events
from jaxtrain.experiments.autoencoder.nets_layers import Manner, Stack, masked_mean
from jaxtrain.run import trained

CONFIG = "configs/autoencoder.py"
TTH = events_lib.PROCESS_NAMES.index("ttH")
FRACTIONS = (0.6, 0.8)  # ends of the parts train and val
WIDTH = 64  # of the classifier's layers
BATCH = 128  # of the variants
FIRST_WEIGHT, MOST_TRIES = 0.003, 6  # of the divergence; runs that look for the one of as many bits
SLOPE, MOST_STEP = -0.3, 10.0  # of the logarithm of bits over that of the weight, in the second try; a step's factor
KEYS = ("bits_per_event", "unexplained_variance")


class Classifier(nn.Module):
  """Logits [B] of rows [B, S, F + 1]: features of each slot, or an index where there are codes, and last its mask.

  Attributes:
    num_codes: 0 where the rows are features.
  """
  num_codes: int = 0

  @nn.compact
  def __call__(self, rows: jax.Array) -> jax.Array:
    x, mask = rows[..., :-1], rows[..., -1]
    if self.num_codes:
      x = nn.Embed(self.num_codes, WIDTH, embedding_init=nn.initializers.normal(1.0))(x[..., 0].astype(jnp.int32))
    # the last slot is of the event as a whole
    last = jnp.broadcast_to(jnp.arange(x.shape[1]) == x.shape[1] - 1, mask.shape)[..., None]
    manner = Manner("gelu", 0.0, "float32")
    h = Stack((WIDTH, WIDTH), WIDTH, manner)(jnp.concatenate([x, last.astype(x.dtype)], axis=-1))
    most = jnp.max(jnp.where(mask[..., None] > 0, h, -jnp.inf), axis=1)
    whole = jnp.concatenate([masked_mean(h, mask), most, jnp.log1p(jnp.sum(mask, axis=1, keepdims=True))], axis=-1)
    return Stack((WIDTH, WIDTH), 1, manner)(whole)[:, 0]


def deal(path: str, num_slots: int, seed: int) -> dict[str, Events]:
  """The events of a file, of all its parts, dealt to the three parts by a seed."""
  names = event_files.names_there(path)
  whole = events_lib.join(list(event_files.read_hdf5(path, names, num_slots).values()))
  order = np.random.RandomState(seed).permutation(len(whole.ids))
  ends = [int(share * len(order)) for share in FRACTIONS]
  return {part: whole.take(rows) for part, rows in zip(event_files.PARTS, np.split(order, ends))}


def train(folder: str, name: str, variant: str, fields: dict, path: str, seed: int, given) -> tuple[str, dict]:
  """(folder, scalars of the test part) of a run on a file of events, trained where it is not yet."""
  run = os.path.join(folder, f"{name}-{seed}")
  fields = {"data.path": path, "data.split.kind": "file", "data.row_limit": 0, "data.num_slots": given.num_slots,
            "seed": seed, "log.progress": False, "log.figures": "none"} | fields
  fields |= {"train.num_epochs": given.train_epochs} if given.train_epochs else {}
  bench.finish(subprocess.Popen(
      [sys.executable, "-m", "jaxtrain.main", f"--config={CONFIG}:{variant}", f"--workdir={run}",
       "--config.data.source=hdf5", *(f"--config.{key}={value}" for key, value in fields.items())],
      cwd=bench.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
  with open(os.path.join(run, "eval", "test.json"), encoding="utf-8") as file:
    return run, json.load(file)["scalars"]


def weight_of(folder: str, bits: float, path: str, given) -> float:
  """The weight of the divergence with which an event costs a vae so many bits, by the first seed's runs: the logarithm
  of bits is taken for linear in that of the weight between two tries.
  """
  tried, weight = [], FIRST_WEIGHT
  for _ in range(MOST_TRIES):
    if tried:
      (x0, y0), (x1, y1) = [tuple(map(math.log, pair)) for pair in (tried[-2:] if len(tried) > 1 else 2 * tried)]
      slope = (y1 - y0) / (x1 - x0) if x1 != x0 and y1 != y0 else SLOPE
      step = (math.log(bits) - y1) / min(slope, SLOPE / 10)  # more weight, fewer bits
      weight = float(f"{math.exp(x1 + min(max(step, -math.log(MOST_STEP)), math.log(MOST_STEP))):.4g}")
    _, scalars = train(folder, f"vae_{weight:g}", "vae", {"loss.weights.kl": weight}, path, 0, given)
    tried.append((weight, max(scalars["bits_per_event"], 1e-3)))
    if abs(tried[-1][1] / bits - 1) <= given.near:
      return weight
  sys.exit(f"no weight of the divergence gives {bits:.4g} bits an event: {tried}")


def read_latents(run: str, events: Events, seed: int) -> dict[str, np.ndarray]:
  """What a run's best state makes of events: `z` [N, S, L], drawn where it is a vae's, `index` [N, S] where there are
  codes, and `error` [N], of the latent's mean.
  """
  found = trained.restore(run, "best")
  p = ae.make_problem(found.config, ae.load(found.config).meta)
  rows = apply.rows_of_events(p.meta["scaler"], events)
  made = apply.apply(apply.make_coder(p), found.state, rows)
  result = {"z": made["z"], "error": made["error"]}
  if "index" in made:
    return result | {"index": made["index"][..., 0]}
  if p.plan.kind != "vae":
    return result

  @jax.jit
  def draw(rows, noise):
    batch = apply.batch_of(p.meta, rows) | {"latent_noise": noise}
    return objective.through(p, {"params": found.state.applied}, batch, objective.codes_of(found.state))[0].z

  key, parts = rng.root_key(seed), []
  for k in range(0, len(rows), apply.BLOCK):
    block = rows[k:k + apply.BLOCK]
    parts.append(np.asarray(draw(block, rng.normal(rng.step_key(key, k), (len(block), *made["z"].shape[1:])))))
  return result | {"z": np.concatenate(parts)}


def rows_of(events: Events, slots: np.ndarray) -> np.ndarray:
  """[N, S, F + 1]: numbers of the slots [N, S, F] with the mask; the last slot, of the event, is always there."""
  mask = np.concatenate([events.ids > 0, np.ones((len(events.ids), 1), bool)], axis=1)
  return np.concatenate([np.where(mask[..., None], slots, 0), mask[..., None]], axis=2).astype(np.float32)


def plain_slots(scaler: dict, num_types: int, events: Events) -> np.ndarray:
  """[N, T + 1, F]: types, as one of several numbers, and normalised momenta; in the last slot the missing energy's."""
  cont, met = scaling.forward(scaler, events)
  slots = np.concatenate([np.eye(num_types)[events.ids], cont], axis=2)
  last = np.zeros((len(slots), 1, slots.shape[2] + met.shape[1]))
  last[:, 0, slots.shape[2]:] = met
  return np.concatenate([np.pad(slots, ((0, 0), (0, 0), (0, met.shape[1]))), last], axis=1)


def classify(parts: dict[str, Events], slots: dict[str, np.ndarray], num_codes: int, seed: int) -> float:
  """AUC on the test part of a classifier that reads `slots` of each part."""
  columns = {}
  for part, events in parts.items():
    target = (events.label == TTH).astype(np.float32)
    weight = np.where(target > 0, 1 / max(target.sum(), 1), 1 / max((1 - target).sum(), 1)) / 2
    columns[part] = tuple(map(jnp.asarray, (rows_of(events, slots[part]), target, weight.astype(np.float32))))
  if not num_codes:  # standardised by the training events
    rows = columns["train"][0]
    there = rows[..., -1:] > 0
    mean = jnp.mean(rows, axis=(0, 1), where=there).at[-1].set(0.0)
    std = jnp.std(rows, axis=(0, 1), where=there).at[-1].set(1.0)
    scale = lambda rows: jnp.where(rows[..., -1:] > 0, (rows - mean) / jnp.maximum(std, 1e-6), 0.0)
    columns = {part: (scale(rows), *rest) for part, (rows, *rest) in columns.items()}
  net = Classifier(num_codes)
  params = distances.fit_classifier(net, columns["train"], columns["val"], jax.random.key(seed))
  rows, target, _ = columns["test"]
  score = np.concatenate([np.asarray(net.apply({"params": params}, rows[k:k + apply.BLOCK]))
                          for k in range(0, len(rows), apply.BLOCK)])
  return area(score, np.asarray(target) > 0)


def area(score: np.ndarray, strange: np.ndarray) -> float:
  """AUC of scores [N] that should be higher where `strange` [N]."""
  ones = np.ones(len(score))
  return ranking.auroc(score[~strange], score[strange], (ones[~strange], ones[strange]), paired=False)[0]


def write(folder: str, parts: dict[str, Events], seed: int) -> str:
  """The file of a seed's parts."""
  path = os.path.join(folder, f"events-{seed}.h5")
  os.makedirs(folder, exist_ok=True)
  if not os.path.exists(path):
    event_files.write_hdf5(path, parts)
  return path


def train_all(folder: str, parts: dict[str, Events], seed: int, given) -> dict[str, tuple[str, dict]]:
  """Runs, of `train`, of the three kinds of latents on a seed's parts; the first seed comes first."""
  path, runs = write(folder, parts, seed), {}
  for variant in ("vq", "none"):
    runs[variant] = train(folder, variant, variant, {}, path, seed, given)
  chosen = lambda: {"weight": weight_of(folder, runs["vq"][1]["bits_per_event"], path, given)}
  weight = bench.kept(folder, "weight", chosen)["weight"]
  runs["vae"] = train(folder, f"vae_{weight:g}", "vae", {"loss.weights.kl": weight}, path, seed, given)
  return runs


def classes_of_seed(folder: str, seed: int, given) -> dict[str, dict[str, float]]:
  """AUC of each row of the table, with bits and unexplained variance where there is an autoencoder."""
  parts = deal(given.file, given.num_slots, seed)
  runs = train_all(folder, parts, seed, given)
  read = {name: {part: read_latents(run, events, seed) for part, events in parts.items()}
          for name, (run, _) in runs.items()}
  of = lambda name, what: {part: np.atleast_3d(found[what]) for part, found in read[name].items()}
  found = trained.restore(runs["none"][0], "best")
  meta = ae.load(found.config).meta
  plain = {part: plain_slots(meta["scaler"], meta["num_types"], events) for part, events in parts.items()}
  inputs = {"tokens": (of("vq", "index"), "vq"), "codes": (of("vq", "z"), "vq"), "vae": (of("vae", "z"), "vae"),
            "latents": (of("none", "z"), "none"), "events": (plain, None)}
  num_codes = trained.restore(runs["vq"][0], "best").config.model.latent.num_codes
  result = {}
  for name, (slots, run) in inputs.items():
    result[name] = {"auc": classify(parts, slots, num_codes if name == "tokens" else 0, seed)}
    result[name] |= {key: runs[run][1][key] for key in KEYS} if run else {}
  return result


def density_scores(train: Events, test: Events, components: int, seed: int) -> dict[str, np.ndarray]:
  """Scores [N] of test events, high for strange ones: minus the log density of HT and the number of objects, by a
  mixture fitted to training events, and each of the two. Whole numbers are spread over a width of one.
  """
  random = np.random.RandomState(seed)
  columns = []
  for events in (train, test):
    values = observables.of_events(events)
    ht, count = (np.asarray(values[name].value, np.float64) for name in ("ht", "multiplicity"))
    columns.append(np.stack([np.log1p(ht), count + random.uniform(-0.5, 0.5, len(count))], axis=1))
  mean, std = columns[0].mean(axis=0), columns[0].std(axis=0)
  fitted = mixture.GaussianMixture(components, random_state=random).fit((columns[0] - mean) / std)
  return {"density of HT and count": -fitted.score_samples((columns[1] - mean) / std), "HT": columns[1][:, 0],
          "count": columns[1][:, 1]}


def anomaly_of_seed(folder: str, seed: int, given) -> dict[str, dict[str, float]]:
  """AUC of events with a Higgs boson among the test events, by each score, of what has seen top pairs alone."""
  parts = deal(given.file, given.num_slots, seed)
  known = {part: events.take(events.label != TTH) for part, events in parts.items()}
  if len(known["train"].ids) % BATCH == 1:  # a last batch of one event is refused
    known["train"] = known["train"].take(slice(-1))
  runs = train_all(folder, known, seed, given)
  test, result = parts["test"], {}
  strange = test.label == TTH
  for name, (run, scalars) in runs.items():
    result[f"error of {name}"] = {"auc": area(read_latents(run, test, seed)["error"], strange)}
    result[f"error of {name}"] |= {key: scalars[key] for key in KEYS}
  for name, score in density_scores(known["train"], test, given.components, seed).items():
    result[name] = {"auc": area(score, strange)}
  return result


def measure(of_seed, folder: str, reference: str, given) -> dict:
  """[mean, half width] over seeds of each row, and of its AUC less that of a reference, seed by seed."""
  seeds = [bench.kept(folder, f"seed_{seed}", lambda: of_seed(folder, seed, given)) for seed in range(given.seeds)]
  result = {}
  bench.say_row("of", "AUC", f"less {reference}", "bits an event", "unexplained variance")
  bench.say_row(*["---"] * 5)
  for name in seeds[0]:
    row = {key: bench.interval([seed[name][key] for seed in seeds]) for key in seeds[0][name]}
    row["less_reference"] = bench.interval([seed[name]["auc"] - seed[reference]["auc"] for seed in seeds])
    result[name] = row
    bench.say_row(name, row["auc"], row["less_reference"], *(row[key] if key in row else "" for key in KEYS))
  return result


def measure_classes(folder: str, given) -> dict:
  """Processes told apart."""
  return measure(classes_of_seed, os.path.join(folder, "classes"), "vae", given)


def measure_anomaly(folder: str, given) -> dict:
  """Events of a process that training has not seen."""
  return measure(anomaly_of_seed, os.path.join(folder, "anomaly"), "density of HT and count", given)


PARTS = {"classes": measure_classes, "anomaly": measure_anomaly}


def main() -> None:
  """Measures the parts that the flags name, or classes."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--file", required=True, help="of pythia_events.py")
  parser.add_argument("--num_slots", type=int, default=18, help="of the file")
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--near", type=float, default=0.03, help="how near the bits of the vae are to those of tokens")
  parser.add_argument("--components", type=int, default=8, help="of the mixture")
  parser.add_argument("--train_epochs", type=int, default=0, help="0 = the variants'")
  bench.run_parts(parser, PARTS)


if __name__ == "__main__":
  main()
