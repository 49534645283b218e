"""New events of the generative autoencoders against real ones, of the simulation and of Pythia.

  python tests/benchmarks/generation.py --folder=runs/generation --json=generation.json
  python tests/benchmarks/generation.py --pythia --generators --file=pythia.h5 --folder=runs/generation --json=out.json

  --toy         models trained on simulated events, of other seeds for each run; real events are of a further seed
  --pythia      models trained on the part train of --file, of pythia_events.py; real events are of its part test
  --generators  the simulated ttH events themselves against those of --file

Models (`--models` names some of these):

  gan_ae, diffusion_ae, flow   variants of configs/autoencoder.py
  vae                          the networks of gan_ae without a critic: the decoder's noise is nothing it learns from
  mixture                      the same without noise in the latent; latents, with how many objects there are of each
                               type, are drawn from a mixture of --components Normals that is fitted to those of the
                               training events
  real                         the training events themselves, as many as of the others: what a model may hope for

Each row of the table is one model: means over --seeds with 95 % intervals by Student's t. W1 is in floors: its mean
between two sets of 2,000 real events without common events. `--folder` keeps what was trained, and a part begun there
goes on. `--train_epochs`, `--train_events`, `--events` and `--seeds` make all of it smaller.
"""

import os
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import mixture

import bench
from jaxtrain import rng
from jaxtrain.experiments.autoencoder import (ae, apply, event_files, events as events_lib, generated, generator,
                                              prior, scaling)
from jaxtrain.experiments.autoencoder.events import Events
from jaxtrain.run import trained

CONFIG = "configs/autoencoder.py"
LIKE_GAN = {"model.latent.per_object": False, "model.latent.dim": 16, "model.encoder.kind": "gan",
            "model.encoder.hidden_dims": "64,128", "model.encoder.num_blocks": 2, "model.decoder.kind": "gan",
            "model.decoder.hidden_dims": "64,128", "loss.weights.kl": 0.001, "loss.weights.globals": 1.0,
            "train.batch_size": 256, "train.num_epochs": 20, "optim.learning_rate": 2e-3, "optim.warmup_steps": 100,
            "optim.ema_decay": 0.995}
TRAINED = {"gan_ae": ("gan_ae", {}), "diffusion_ae": ("diffusion_ae", {}), "flow": ("flow", {}),
           "vae": ("vae", LIKE_GAN), "mixture": ("none", LIKE_GAN)}  # name -> (variant, its changed fields)
MODELS = (*TRAINED, "real")
DEFAULT = ("gan_ae", "diffusion_ae", "vae", "mixture", "real")
REAL_SEED = 1000  # of simulated events that none was trained on
TABLE = ("w1_pt_floors", "w1_eta_floors", "w1_multiplicity_floors", "w1_ht_floors", "w1_met_floors", "w1_m_jj_floors",
         "w1_m_bjj_floors", "m_jj_peak_gev", "m_jj_peak_truth_gev", "m_jj_window_share", "m_jj_window_share_truth",
         "fpd", "kpd", "two_sample_auc")
RIDGE = 1e-3  # added to the variances of the mixture's standardised numbers
BLOCK = 1000  # events decoded at once


def train(folder: str, name: str, source: tuple[str, ...], given) -> list[tuple[dict, str]]:
  """(config, folder) of the runs of a model over seeds, trained where they are not yet; `source`: flags of the data."""
  variant, fields = TRAINED[name]
  fields = fields | ({"train.num_epochs": given.train_epochs} if given.train_epochs else {})
  flags = (f"--sweep=seed=0..{given.seeds - 1}", "--config.log.progress=False", *source,
           *(f"--config.{key}={value}" for key, value in fields.items()))
  path = os.path.join(folder, name)
  bench.sweep(path, f"{CONFIG}:{variant}", flags)
  return bench.member_folders(path)


def generate(run: str, num_slots: int, num: int, seed: int) -> Events:
  """So many events of a run's verb `generate`."""
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "events.h5")
    bench.finish(subprocess.Popen(
        [sys.executable, "-m", "jaxtrain.predict", f"--workdir={run}", "--verb=generate", f"--num={num}",
         f"--seed={seed}", f"--output={path}"], cwd=bench.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True))
    return read_part(path, "train", num_slots)


def read_part(path: str, part: str, num_slots: int) -> Events:
  """The events of a part of a file."""
  names = event_files.names_there(path)
  return event_files.read_hdf5(path, {key: name if key.endswith(part) else "" for key, name in names.items()},
                               num_slots)[part]


def fit_mixture(z: np.ndarray, counts: np.ndarray, components: int, seed: int):
  """A function of (N, T) that draws (latents [N, L], counts [N, K - 1]) of events of up to T objects from a mixture of
  Normals; counts are rounded, and events of no object or too many are drawn again.

  Args:
    z: latents of events. counts: how many objects of each type they have.
    components: of the mixture, each with its own covariance.
    seed: of the fit and of what is drawn.
  """
  both = np.concatenate([z, counts], axis=1).astype(np.float64)
  mean, std = both.mean(axis=0), np.maximum(both.std(axis=0), 1e-6)
  fitted = mixture.GaussianMixture(components, reg_covar=RIDGE, random_state=np.random.RandomState(seed))
  fitted.fit((both - mean) / std)

  def draw(num, num_slots):
    found = np.zeros((0, both.shape[1]))
    while len(found) < num:
      fresh = fitted.sample(num)[0] * std + mean
      whole = np.maximum(np.rint(fresh[:, z.shape[1]:]), 0)
      some = (whole.sum(axis=1) > 0) & (whole.sum(axis=1) <= num_slots)
      found = np.concatenate([found, np.concatenate([fresh[:, :z.shape[1]], whole], axis=1)[some]])
    return found[:num, :z.shape[1]].astype(np.float32), found[:num, z.shape[1]:].astype(int)
  return draw


def generate_mixture(run: str, num: int, seed: int, components: int) -> Events:
  """So many events of latents drawn from a mixture that is fitted to a run's latents of its training events."""
  found = trained.restore(run, "best")
  splits = ae.load(found.config)
  p = ae.make_problem(found.config, splits.meta)
  data = {name: np.asarray(splits.train.data[name]) for name in ("cont", "ids", "globals")}
  z = apply.apply(apply.make_coder(p), found.state, apply.rows_of(data))["z"][:, 0]
  T = splits.meta["num_slots"]
  new_z, new_counts = fit_mixture(z, prior.counts_of(data["ids"], splits.meta["num_types"]), components, seed)(num, T)
  ids, key = prior.ids_of(new_counts, T), rng.root_key(seed)
  bound = p.model.bind({"params": found.state.applied})

  @jax.jit
  def decode(z, ids, noise):
    decoded = bound.decode(z[:, None], jnp.ones((len(z), 1)), noise, ids)
    there = (ids > 0).astype(jnp.float32)[..., None]
    scaler = p.meta["scaler"]
    return scaling.to_momenta(scaler, decoded.cont) * there, scaling.to_met(scaler, decoded.globals)

  parts = [decode(new_z[k:k + BLOCK], ids[k:k + BLOCK],
                  rng.normal(rng.step_key(key, k), (len(ids[k:k + BLOCK]), T, p.plan.dim)))
           for k in range(0, num, BLOCK)]
  momenta, met = (np.concatenate([np.asarray(part) for part in column]) for column in zip(*parts))
  return events_lib.assemble(ids, momenta, met, where="mixture")


def measure(folder: str, source: tuple[str, ...], real, own, given) -> dict:
  """Scalars of each model by name, [mean, half width] over seeds.

  Args:
    folder: for what is trained.
    source: flags of the data.
    real: `(seed) -> Events` that no model was trained on. own: `(seed) -> Events` as models are trained on.
  """
  result = {}
  bench.say_row("model", *TABLE)
  bench.say_row(*["---"] * (1 + len(TABLE)))
  for name in given.models.split(","):
    if name == "real":
      made = [own(seed) for seed in range(given.seeds)]
    elif name == "mixture":
      made = [generate_mixture(run, given.events, config["seed"], given.components)
              for config, run in train(folder, name, source, given)]
    else:
      made = [generate(run, config["data"]["num_slots"], given.events, config["seed"])
              for config, run in train(folder, name, source, given)]
    members = [generated.compare(real(seed), some, rng.root_key(seed))[0] for seed, some in enumerate(made)]
    shared = [key for key in members[0] if not key.endswith("_ci95") and all(key in other for other in members)]
    result[name] = {key: bench.interval([member[key] for member in members]) for key in shared}
    bench.say_row(name, *(result[name][key] if key in result[name] else "" for key in TABLE))
  return result


def measure_toy(folder: str, given) -> dict:
  """Models of simulated events."""
  limit = (f"--config.data.row_limit={given.train_events}",) if given.train_events else ()
  return measure(os.path.join(folder, "toy"), ("--config.data.seed=-1", *limit),
                 lambda seed: generator.generate(given.events, REAL_SEED + seed),
                 lambda seed: generator.generate(given.events, seed), given)


def measure_pythia(folder: str, given) -> dict:
  """Models of Pythia's events."""
  source = ("--config.data.source=hdf5", f"--config.data.path={os.path.abspath(given.file)}",
            "--config.data.split.kind=file", f"--config.data.row_limit={given.train_events}")
  test, own = (read_part(given.file, part, given.num_slots) for part in ("test", "train"))
  return measure(os.path.join(folder, "pythia"), source, lambda seed: test, lambda seed: own.take(slice(given.events)),
                 given)


def measure_generators(_, given) -> dict:
  """The simulation's ttH events against Pythia's: scalars and half widths by resampled events, of one pair of sets."""
  parts = [read_part(given.file, part, given.num_slots) for part in event_files.PARTS]
  real = events_lib.join(parts)
  process = events_lib.PROCESS_NAMES.index("ttH")
  real = real.take(real.label == process)
  made = generator.observe(process, len(real.ids), given.num_slots, np.random.RandomState(REAL_SEED))
  return generated.compare(real, made, rng.root_key(0))[0]


PARTS = {"toy": measure_toy, "pythia": measure_pythia, "generators": measure_generators}


def main() -> None:
  """Measures the parts that the flags name, or toy."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--models", default=",".join(DEFAULT), help=f"of {', '.join(MODELS)}")
  parser.add_argument("--file", default="", help="of pythia_events.py")
  parser.add_argument("--num_slots", type=int, default=18, help="of the file")
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--events", type=int, default=10_000, help="new events of a run, and simulated real ones")
  parser.add_argument("--components", type=int, default=32, help="of the mixture")
  parser.add_argument("--train_epochs", type=int, default=0, help="0 = the variant's")
  parser.add_argument("--train_events", type=int, default=0, help="simulated, or of each part of a file; 0 = all")
  bench.run_parts(parser, PARTS)


if __name__ == "__main__":
  main()
