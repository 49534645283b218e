"""End-of-run evaluation of the tabular VAE: reconstruction per feature, use of the latent space, classification.

Reconstruction is from the posterior mean, without masking and with BatchNorm's running statistics.

**Source:** spec tabular_vae 8. Active dimensions: posterior means whose standard deviation over rows exceeds 0.1.
"""

from typing import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.data import scaling

BLOCK = 8192  # rows per compiled call
SAMPLE = 5000  # rows kept for figures
FILE_BYTES = 64 << 20  # of features, float64, that are assessed of a table that stays in its file


def apply_model(model, state, x: np.ndarray) -> dict[str, np.ndarray]:
  """Reconstruction, posterior and logits of x [N, D] in standardised units, block by block.

  Returns:
    `x_mean` [N, D], `mean` and `log_var` [N, L], and `log_prob` [N, K] in nats where the model has a classifier.
  """
  params = state.params if state.ema is None else state.ema

  @jax.jit
  def block_outputs(variables, block):
    out = model.apply(variables, block, jnp.ones(len(block)))
    named = {"x_mean": out.x_mean, "mean": out.mean, "log_var": out.log_var}
    return named if out.logits is None else named | {"log_prob": jax.nn.log_softmax(out.logits)}

  size = min(BLOCK, len(x))
  parts = []
  for start in range(0, len(x), size):
    block = x[start:start + size]
    padded = np.concatenate([block, np.zeros((size - len(block), x.shape[1]), x.dtype)])
    outputs = block_outputs({"params": params, **state.model_state}, padded)
    parts.append({name: np.asarray(values)[:len(block)] for name, values in outputs.items()})
  return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


def pick_rows(source, width: int, key) -> np.ndarray:
  """Which rows are assessed: all of a table in memory; of one in a file, a random sample that fits in `FILE_BYTES`."""
  N, limit = source.num_rows, FILE_BYTES // (8 * width)
  if not source.window_steps or N <= limit:
    return np.arange(N)
  return np.sort(np.random.default_rng(np.asarray(jax.random.key_data(key))).choice(N, limit, replace=False))


def errors(x: np.ndarray, x_mean: np.ndarray, names: list[str], suffix: str) -> dict[str, float]:
  """R2, root mean squared and mean absolute error of each column [N, D], in float64."""
  x, x_mean = np.asarray(x, np.float64), np.asarray(x_mean, np.float64)
  square = np.square(x - x_mean).mean(axis=0)
  var = np.maximum(x.var(axis=0), 1e-300)
  absolute = np.abs(x - x_mean).mean(axis=0)
  scalars = {}
  for d, name in enumerate(names):
    scalars |= {f"r2_{suffix}/{name}": float(1 - square[d] / var[d]) if x[:, d].std() > 0 else float("nan"),
                f"rmse_{suffix}/{name}": float(square[d] ** 0.5), f"mae_{suffix}/{name}": float(absolute[d])}
  return scalars


def latent_use(mean: np.ndarray, log_var: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
  """Active dimensions, and the KL of each dimension [L] in nats."""
  mean, log_var = mean.astype(np.float64), log_var.astype(np.float64)
  kl_nats = 0.5 * (mean ** 2 + np.exp(log_var) - 1 - log_var).mean(axis=0)
  return {"active_dims_sd": int((mean.std(axis=0) > 0.1).sum()), "active_dims_kl": int((kl_nats > 0.01).sum()),
          "kl_nats": float(kl_nats.sum())}, kl_nats


def principal_components(mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """First two principal components of the latent means [N, 2] and the share of variance of each [2]."""
  centred = mean - mean.mean(axis=0)
  _, singular, directions = np.linalg.svd(centred, full_matrices=False)
  share = singular ** 2 / max((singular ** 2).sum(), 1e-300)
  return centred @ directions[:2].T, share[:2]


def classification(log_prob: np.ndarray, label: np.ndarray) -> dict[str, float]:
  """Accuracy, top-5 accuracy, balanced accuracy and negative log-likelihood in nats over labelled rows."""
  log_prob, label = log_prob[label >= 0].astype(np.float64), label[label >= 0]
  if not len(label):
    return {}
  pred = log_prob.argmax(axis=1)
  right = pred == label
  rank = (log_prob > log_prob[np.arange(len(label)), label][:, None]).sum(axis=1)
  present = np.unique(label)
  num_rows = np.bincount(label, minlength=log_prob.shape[1])
  recall = np.bincount(label, right, log_prob.shape[1])[present] / num_rows[present]
  return {"accuracy": float(right.mean()), "accuracy_top5": float((rank < 5).mean()),
          "balanced_accuracy": float(recall.mean()), "nll_nats": float(-log_prob[np.arange(len(label)), label].mean())}


def make_assess(model, meta: dict) -> Callable:
  """Returns `assess(state, splits, key) -> {split: (scalars, arrays)}` over every split there is."""
  names, classes = meta["features"], meta["class_names"]

  def assess_part(state, source, key):
    rows = source.rows(pick_rows(source, len(names), key))
    x, label = rows["x"], rows["label"]
    out = apply_model(model, state, x)
    raw, raw_mean = scaling.unscale(meta["scaler"], x), scaling.unscale(meta["scaler"], out["x_mean"])
    use, kl_nats = latent_use(out["mean"], out["log_var"])
    scalars = {"rows": len(x)} | use | errors(raw, raw_mean, names, "raw") | errors(x, out["x_mean"], names, "scaled")
    pick = np.sort(np.asarray(jax.random.permutation(key, len(x))[:SAMPLE]))
    components, share = principal_components(out["mean"][pick])
    arrays = {"sample_x": raw[pick], "sample_x_mean": raw_mean[pick], "sample_latent_mean": out["mean"][pick],
              "sample_components": components, "component_share": share, "kl_nats_per_dim": kl_nats}
    if classes:
      arrays |= {"sample_label": label[pick], "class_count": np.bincount(label[label >= 0], minlength=len(classes))}
    if "log_prob" in out:
      scalars |= classification(out["log_prob"], label)
      pred = out["log_prob"][label >= 0].argmax(axis=1)
      arrays["predicted_count"] = np.bincount(pred, minlength=len(classes))
    return scalars, arrays

  def assess(state, splits, key):
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    return {name: assess_part(state, source, key) for name, source in parts.items() if source is not None}

  return assess
