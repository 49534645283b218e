"""Run folders like the loop's, written by hand, for tests of what reads and draws them."""

import json
import os
import pathlib

import numpy as np

from jaxtrain.workdir import facts as facts_lib

CURVES = ["losses", "metrics", "learning_rate"]
MODEL = {"kind": "semisup", "hidden_dims": [64, 32], "latent_dim": 10, "batch_norm": True, "head_dim": 64}
VAE = "jaxtrain.experiments.tabular_vae.vae"


def make_run(folder, *, num_epochs=4, steps_per_epoch=10, parts=("train", "val", "test"), features=("depth", "mass"),
             classes=("ooze", "clay", "sand"), transforms=None, predicted=True, end="on_train_end", config=None,
             process=None, total_time_s=2.5, metrics=None):
  """Writes a run folder like the loop's and returns it; `process` is run.json, `metrics` what on_start says of them."""
  folder = os.fspath(folder)
  os.makedirs(os.path.join(folder, "facts"))
  os.makedirs(os.path.join(folder, "eval"))
  record = {"experiment": VAE, "seed": 3, "loss": {"weights": {"recon": 1.0, "kl": 0.5}}, "optim": {"clip_norm": 1.0},
            "train": {"monitor": "val_loss"}, "log": {"figures": "standard", "families": []}, "data": {"source": "csv"},
            "origins": {}, "model": MODEL}
  write_json(folder, "config.json", record | (config or {}))
  write_json(folder, "run.json", process or {})
  write_facts(folder, num_epochs, steps_per_epoch, parts, end, total_time_s, metrics)
  for seed, part in enumerate(parts):
    write_eval(folder, part, np.random.default_rng(seed), features, classes, transforms, predicted)
  return folder


def write_json(folder, name, value):
  """A JSON file of the run."""
  with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
    json.dump(value, file)


def write_facts(folder, num_epochs, steps_per_epoch, parts, end, total_time_s, metrics):
  """events.jsonl and scalars.csv; steps_per_epoch None makes a stream. The best evaluation is the last but one."""
  size, best = steps_per_epoch or 125, max(num_epochs - 1, 1)
  facts = facts_lib.Facts(os.path.join(folder, "facts"), "made")
  facts.event("on_start", epoch=0, step=0, steps_per_epoch=steps_per_epoch, num_steps=40, parameters=12345,
              batch_size=64, config_digest="cd" * 32, experiment=VAE, seed=3, init_from=None,
              **({} if metrics is None else {"metrics": metrics}))
  facts.declare_metrics(["loss", "recon", "kl", "accuracy", "beta"])
  for k in range(1, num_epochs + 1):
    where = {"epoch": k if steps_per_epoch else -1, "step": k * size}
    loss = 2.0 + 4.0 ** (3 - 4 * k)
    terms = {"loss": loss, "recon": loss / 2, "kl": 0.3 * k**2, "accuracy": 0.2 * k}
    kinds = {"losses": {name: terms[name] for name in ("loss", "recon", "kl")}, "metrics": {"accuracy": 0.2 * k}}
    times = {"epoch_time_s": 0.5, "throughput": 2000.0, "max_memory_mib": 300.0}
    facts.event("on_epoch_end" if steps_per_epoch else "on_eval", split="train", is_best=k == best, alarms=[], **where,
                **kinds, **times)
    facts.row(terms | {"beta": 0.1 * k}, split="train", train_loss=loss, lr=1e-3, grad_norm=0.5 + k, **where, **times)
    if "val" in parts:
      facts.row(terms, split="val", val_loss=loss + (0 if k == best else 0.5), **where)
  if end == "on_train_end":
    facts.event(end, epoch=num_epochs, step=40, best_step=best * size, best_value=None, digest="ab" * 32,
                stopped_early=False, bad_steps=0, total_time_s=total_time_s)
  elif end:
    facts.event(end, epoch=num_epochs, step=40, error="NonFinite", message="step 7: loss is not finite")
  if end and "test" in parts:
    facts.row(terms, split="test", **where)
  facts.close()


def write_eval(folder, part, rng, features, classes, transforms, predicted, N=200, L=3):
  """eval/<part>.json and .npz; the reconstruction of feature d has an error of size d."""
  D, K = len(features), len(classes)
  x = np.exp(rng.normal(size=(N, D)))
  x_mean = x + rng.normal(size=(N, D)) * np.arange(D) / D
  scalars = {"rows": 1234, "active_dims_sd": 2}
  scalars |= {"ece": 0.1, "auc_macro": 0.75} if K and predicted else {}
  for d, name in enumerate(features):
    scalars |= {f"r2_raw/{name}": 0.9 - d / 100, f"rmse_raw/{name}": 0.25, f"mae_raw/{name}": 0.125,
                f"r2_scaled/{name}": 0.8, f"rmse_scaled/{name}": 7.75, f"mae_scaled/{name}": 7.5}
  scaler = {"transforms": list(transforms or ["identity"] * D), "mean": [0.5] * D, "std": [1.5] * D}
  meta = {"features": list(features), "class_names": list(classes), "scaler": scaler,
          "rows": {"train": 1234, "val": 99}, "groups": {"train": 8, "val": 2, "test": 0},
          "rows_per_group": {"names": [f"{k // 5}-{k}" for k in range(10)], "rows": [1000, 250] + [10] * 7 + [13]},
          "table": {"source": "wells.csv", "rows": 1333, "rows_dropped": 17}}
  write_json(folder, f"eval/{part}.json", {"split": part, "step": 30, "scalars": scalars, "meta": meta})
  arrays = {"sample_x": x, "sample_x_mean": x_mean, "sample_components": rng.normal(size=(N, min(L, 2))),
            "component_share": np.array([0.6, 0.3])[:min(L, 2)], "kl_nats_per_dim": np.array([1.5, 0.4, 0.001])[:L]}
  if K:
    arrays |= {"sample_label": rng.integers(-1, K, size=N), "class_count": np.arange(K, 0, -1) ** 2}
    arrays |= {"class_count_all": 3 * arrays["class_count"], "distance_class": np.arange(K)[:20],
               "distance_nearest": (np.arange(K)[:20] + 1) % K, "distance_own": rng.uniform(1, 2, min(K, 20)),
               "distance_other": rng.uniform(1, 4, min(K, 20))}
  if K and predicted:
    table = np.diag(np.arange(K, 0, -1) ** 2) + np.eye(K, k=1, dtype=int)
    arrays |= {"confusion": table, "auc_half": np.full(K, 0.05)}
    top, grid = np.arange(min(K, 10)), np.linspace(0, 1, 201) ** 2
    arrays |= {"predicted_count": np.arange(K), "auc": np.append(np.linspace(0.9, 0.6, K - 1), np.nan),
               "roc_class": top,
               "roc_fpr": grid, "roc_tpr": grid ** rng.uniform(0.1, 0.9, (len(top), 1)),
               "calibration": np.stack([np.arange(15.0) ** 3, (np.arange(15) + 0.4) / 15, rng.uniform(size=15)])}
  arrays |= {"hist_edges": np.exp(np.linspace(-2, 3, 41)) + np.zeros((D, 1)), "sample_umap": rng.normal(size=(N, 2)),
             **{f"hist_{name}": rng.integers(0, 50, (D, 42)) for name in ("train", "val", "test", "generated")}}
  if K > 1:
    top, grid = np.arange(min(K, 10)), np.linspace(0, 1, 201) ** 2
    arrays |= {"probe_class": top, "probe_auc": rng.uniform(0.6, 1, len(top)), "probe_fpr": grid,
               "probe_tpr": grid ** rng.uniform(0.1, 0.9, (len(top), 1)), "probe_rows": np.array([700, 534]),
               "probe_by_group": np.array(True), "held_class": np.array([0, 2]), "held_rows": np.array([9, 40]),
               "held_own": rng.uniform(0.5, 1, 2), "held_all": np.array(2.0)}
  np.savez_compressed(os.path.join(folder, "eval", f"{part}.npz"), **arrays)


def replace_text(folder, name, change):
  """Changes a file's text; None removes the file."""
  path = pathlib.Path(folder, name)
  text = change(path.read_bytes().decode("latin-1"))
  path.unlink()
  if text is not None:
    path.write_bytes(text.encode("latin-1"))
