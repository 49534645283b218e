"""What an autoencoder's runs leave, written by hand, for tests of the figures and pages that read it."""

import os

import numpy as np

import made_sweeps

EXPERIMENT = "jaxtrain.experiments.autoencoder.ae"  # figures are found beside any experiment of the family
META = {"kind": "events", "type_names": ["empty", "jet", "b-jet", "e+", "e-", "mu-", "mu+", "photon"],
        "class_names": ["unknown", "tttt", "ttH", "ttW", "ttWW", "ttZ"]}
CORRUPTIONS = {"gaussian_noise": 0.5, "token_shuffle": 2.5, "drop_tokens": 0.05}  # how far each moves the log error
SCALARS = {"rows": 300, "unexplained_variance": 0.043, "unexplained_variance_ci95": 0.002, "bits_per_event": 83.2,
           "bits_per_slot": 8.1, "codes_used": 48, "codes_dead": 0.25, "perplexity_pooled": 21.0, "id_accuracy": 0.93,
           "error_pt_gev": 8.1, "error_phi_rad": 0.08, "auroc_gaussian_noise": 0.64, "auroc_gaussian_noise_ci95": 0.02,
           "auroc_token_shuffle": 0.98, "auroc_drop_tokens": 0.52, "auroc_tttt": 0.55}


def momenta(random, N: int, T: int) -> tuple[np.ndarray, np.ndarray]:
  """(types [N, T], momenta [N, T, 4]) of N events of 4 to T objects."""
  ids = np.where(np.arange(T) < random.integers(4, T + 1, N)[:, None], random.integers(1, 8, (N, T)), 0)
  pt, eta = np.exp(random.normal(4.2, 0.7, (N, T))), np.clip(random.normal(0, 1.1, (N, T)), -2.5, 2.5)
  values = np.stack([pt * np.cosh(eta), pt, eta, random.uniform(-np.pi, np.pi, (N, T))], axis=2)
  return ids, values * (ids > 0)[:, :, None]


def assessment(seed: int = 0, N: int = 300, T: int = 8, K: int = 64, L: int = 4, stages: int = 1) -> dict:
  """Arrays of eval/test.npz: objects come back with errors of 8 % in pT, and a few as another type."""
  random = np.random.default_rng(seed)
  ids, true = momenta(random, N, T)
  recon = (true * np.exp(0.08 * random.normal(size=true.shape) * [1, 1, 0, 0])
           + (ids > 0)[:, :, None] * random.normal(size=true.shape) * [0, 0, 0.08, 0.1])
  ids_recon = np.where((random.random(ids.shape) < 0.1) & (ids > 0), random.integers(1, 8, ids.shape), ids)
  real, weight = ids > 0, np.exp(0.3 * random.normal(size=N))
  confusion = np.zeros((8, 8), int)
  np.add.at(confusion, (ids[real], ids_recon[real]), 1)
  use = np.stack([random.permutation(random.poisson(np.where(np.arange(K) < 0.75 * K, 400 / (1 + np.arange(K)), 0)))
                  for _ in range(stages)])
  met = np.stack([np.exp(random.normal(4, 0.6, N)), random.uniform(-np.pi, np.pi, N)], axis=1)
  met_recon, error = met + random.normal(size=met.shape) * [10, 0.2], np.exp(random.normal(-3, 0.6, N))
  slot_weight = np.repeat(weight, T).reshape(N, T)[real]
  return {"use": use, "type_use": np.concatenate([np.zeros((1, K)), random.poisson(3.0, (8, K)) * (use[0] > 0)]),
          "codes": random.normal(size=(stages, K, L)), "confusion": confusion, "slots_true": true[real],
          "slots_recon": recon[real], "slots_type": ids[real], "slots_type_recon": ids_recon[real],
          "slots_weight": slot_weight, "shown_true": true[:32], "shown_recon": recon[:32], "shown_ids": ids[:32],
          "shown_ids_recon": ids_recon[:32], "shown_met": met[:32], "shown_met_recon": met_recon[:32], "met_true": met,
          "met_recon": met_recon, "event_error": error, "event_bits": random.normal(7, 0.5, N) * real.sum(axis=1),
          "event_label": random.integers(1, 6, N), "event_weight": weight / weight.mean(),
          "shown_images": random.random((32, 28, 28)), "shown_images_recon": random.random((32, 28, 28)),
          **{f"anomaly_{name}": error * np.exp(by + 0.2 * random.normal(size=N)) for name, by in CORRUPTIONS.items()}}


def make_run(folder, *, kind="vq", weight=1.0, seed=0, lost=0.05, scalars=None, end="on_train_end") -> str:
  """A run folder of a kind of latent space and a weight of the globals: validation terms fall over four epochs."""
  folder = os.fspath(folder)
  config = {"experiment": EXPERIMENT, "seed": seed, "model": {"latent": {"kind": kind}},
            "loss": {"weights": {"cont": 1.0, "globals": weight}}}
  scalars = (SCALARS | {"unexplained_variance": lost, "bits_per_event": 4 / lost} if scalars is None else scalars)
  made_sweeps.make_run(folder, lost, config=config, scalars=scalars, end=end)
  rows = ["epoch,split,step,train_loss,val_loss,epoch_time_s,throughput,metric_loss,metric_cont,metric_globals"]
  for k in range(1, 5):
    cont, rest = lost * (1 + abs(3 - k)), 0.4 / (1 + weight) + 0.01 * k
    loss = cont + weight * rest
    rows += [f"{k},train,{10 * k},{loss},,0.5,900,{loss},{cont},{rest}",
             f"{k},val,{10 * k},,{loss},,,{loss},{cont},{rest}"]
  made_sweeps.write_lines(os.path.join(folder, "facts", "scalars.csv"), rows)
  return folder
