"""End-of-run evaluation of the tabular VAE: reconstruction per feature, use of the latent space, prior samples.
Intervals of rows that are held out resample whole groups, where rows have one, and are no shorter than those of as many
independent rows: of few groups that happen to be alike they would be.

Reconstruction is from the posterior mean, without masking and with BatchNorm's running statistics. What is said
of classes is in `scores.py`.

**Source:** active dimensions: posterior means whose standard deviation over rows exceeds 0.1.
"""

import functools
from typing import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import statistics
from jaxtrain.data import blocks, kinds, scaling
from jaxtrain.experiments.tabular_vae import grouped, joint, label_errors, predict, samples, scores

SAMPLE = 5000  # rows kept for figures
PRIOR_ROWS = 1000
MAX_GROUPS = 300  # groups whose rows are written down, the largest
FILE_BYTES = 64 << 20  # of features, float64, that are assessed of a table that stays in its file


def outputs(model, variables, x: jax.Array) -> dict[str, jax.Array]:
  """What `apply_model` returns, of one block."""
  out = model.apply(variables, x, jnp.ones(len(x)))
  named = {"x_mean": out.x_mean, "mean": out.mean, "log_var": out.log_var}
  return named if out.logits is None else named | {"log_prob": jax.nn.log_softmax(out.logits)}


def apply_model(model, state, x: np.ndarray) -> dict[str, np.ndarray]:
  """Reconstruction, posterior and logits of x [N, D] in standardised units, block by block.

  Returns:
    `x_mean` [N, D], `mean` and `log_var` [N, L], and `log_prob` [N, K] in nats where the model has a classifier.
  """
  return blocks.in_blocks(predict.bind(outputs, model), predict.variables_of(state), x)


def pick_rows(source, width: int, key) -> np.ndarray:
  """Which rows are assessed: all of a table in memory; of one in a file, a random sample that fits in `FILE_BYTES`."""
  N, limit = source.num_rows, FILE_BYTES // (8 * width)
  if not source.window_steps or N <= limit:
    return np.arange(N)
  return np.sort(np.random.default_rng(np.asarray(jax.random.key_data(key))).choice(N, limit, replace=False))


def errors(x: np.ndarray, x_mean: np.ndarray, names: list[str], suffix: str) -> dict[str, float]:
  """R2, half of its 95 % interval, root mean squared and mean absolute error of each column [N, D], in float64, over
  the entries that are no NaN. A column that hardly varies (`statistics.varies`) has no R2, and one entry no interval.
  """
  x, x_mean = np.asarray(x, np.float64), np.asarray(x_mean, np.float64)
  scalars = {}
  for d, name in enumerate(names):
    there = ~np.isnan(x[:, d])
    column, found = (x[:, d], x_mean[:, d]) if there.all() else (x[there, d], x_mean[there, d])
    r2, half, rmse, mae = column_errors(column, found) if len(column) else (float("nan"),) * 4
    scalars |= {f"r2_{suffix}/{name}": r2} | ({} if np.isnan(half) else {f"r2_{suffix}_ci95/{name}": half})
    scalars |= {f"rmse_{suffix}/{name}": rmse, f"mae_{suffix}/{name}": mae}
  return scalars


def column_errors(x: np.ndarray, x_mean: np.ndarray) -> tuple[float, float, float, float]:
  """R2 and half of its interval (NaN for one that hardly varies), root mean squared and mean absolute error of a column
  [N].
  """
  largest = np.abs(x).max()
  unit = 1.0 if largest == 0 or 1e-100 < largest < 1e100 else 2.0 ** np.floor(np.log2(largest))  # squares stay numbers
  x, x_mean = x / unit, x_mean / unit
  squares, deviation, half = np.square(x - x_mean), np.square(x - x.mean()), float("nan")
  square, var, r2 = squares.mean(), max(x.var(), 1e-300), float("nan")
  if statistics.varies(x[:, None])[0]:
    r2 = float(1 - square / var)
    half = statistics.t_half_width((square / var * deviation - squares) / var)  # as of `mean_r2`
  return r2, half, float(square ** 0.5 * unit), float(np.abs(x - x_mean).mean() * unit)


def mean_r2(x: np.ndarray, x_mean: np.ndarray) -> dict[str, float]:
  """Mean R2 of the columns [N, D] that vary (`statistics.varies`), and half of its 95 % interval over independent rows;
  {} where none does. NaN of x is left out, cell by cell.

  The interval is that of the linearised estimator: R2 = 1 - mean s / mean v with squared errors s and squared
  deviations v, so that a row moves it by (mean s / mean v) v / mean v - s / mean v.
  """
  x, x_mean = np.asarray(x, np.float64), np.asarray(x_mean, np.float64)
  varies = statistics.varies(x)
  if not len(x) or not varies.any():
    return {}
  x, x_mean = x[:, varies], x_mean[:, varies]
  there = ~np.isnan(x)
  mean = lambda values: np.where(there, values, 0.0).sum(axis=0) / there.sum(axis=0)
  deviation, squares = np.square(x - mean(x)), np.square(x - x_mean)
  var = mean(deviation)
  lost = mean(squares) / var
  share = there.mean(axis=0)  # of the rows, which a cell stands for
  by_row = np.where(there, (lost * deviation - squares) / (var * share), 0.0).mean(axis=1)
  return {"r2_mean": float(1 - lost.mean()), "r2_mean_ci95": statistics.t_half_width(by_row)}


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


def count_groups(group: np.ndarray, names: tuple[str, ...] = ()) -> dict[str, list]:
  """Names and rows of the `MAX_GROUPS` largest groups, the largest first; `names` of groups that are numbers."""
  found, count = np.unique(group, return_counts=True)
  order = np.argsort(-count, kind="stable")[:MAX_GROUPS]
  return {"names": [str(names[found[k]] if names else found[k]) for k in order], "rows": count[order].tolist()}


def sample_prior(model, state, key) -> np.ndarray:
  """Decoder means [`PRIOR_ROWS`, D] in scaled units for draws from the prior; of a table with kinds draws of x too."""
  if model.layout is not None:
    return predict.sample_rows(model, predict.variables_of(state), PRIOR_ROWS, key)
  random = np.random.default_rng([*np.asarray(jax.random.key_data(key)).tolist(), 1])  # 1: not that of pick_rows
  z = random.normal(size=(PRIOR_ROWS, model.latent_dim)).astype(np.float32)
  return blocks.in_blocks(predict.bind(predict.decode, model), predict.variables_of(state), z)


def seen_features(rows: dict[str, np.ndarray]) -> np.ndarray:
  """The features of rows [N, D] in scaled units, NaN where a cell is missing."""
  return np.where(rows["observed"] > 0, rows["x"], np.float32(np.nan)) if "observed" in rows else rows["x"]


def wider(*widths: dict[str, float]) -> dict[str, float]:
  """The largest by name; one that is NaN is passed over."""
  names = dict.fromkeys(name for one in widths for name in one)
  return {name: float(np.fmax.reduce([one[name] for one in widths if name in one])) for name in names}


def group_widths(rows: dict[str, np.ndarray], names: list[str], raw: tuple, scaled: tuple,
                 log_prob: np.ndarray | None) -> dict[str, float]:
  """Intervals that resample whole groups; {} where these are too few. Those of macro-F1 and of the calibration error
  are no shorter than of independent rows; the caller sees to the other scores.

  Args:
    rows: with their group. names: of the features.
    raw, scaled: (x, x_mean) of each unit, [N, D] each. log_prob: [N, K] in nats; None without a classifier.
  """
  groups = grouped.of_rows(rows, len(rows["x"]))
  if not len(groups.weights):
    return {}
  found = {}
  for suffix, pair in (("raw", raw), ("scaled", scaled)):
    found |= grouped.reconstruction_widths(groups, *pair, names, suffix)
  half = grouped.half_widths(grouped.resampled(groups, grouped.r2_totals(groups, *scaled), grouped.mean_r2))
  found |= {"r2_mean_ci95": float(half)} if np.isfinite(half) else {}
  has = np.flatnonzero(rows["label"] >= 0)
  if log_prob is None or not len(has) or np.isnan(log_prob.max()):
    return found
  own, label, alone = log_prob[has], rows["label"][has], grouped.of_rows({}, len(has))
  return found | wider(grouped.classifier_widths(groups.take(has), own, label),
                       grouped.classifier_widths(alone, own, label, grouped.WITHOUT_FORMULA))


def assess_part(model, meta: dict, state, rows: dict[str, np.ndarray], key, with_umap: bool,
                by_group: bool = False) -> tuple[dict, dict]:
  """Scalars and arrays of the rows of one part; `with_umap` adds the map that takes long, and `by_group` intervals that
  resample whole groups, where rows have one.
  """
  names, classes, x, label = meta["features"], meta["class_names"], rows["x"], rows["label"]
  out = apply_model(model, state, x)
  seen = seen_features(rows)
  raw, raw_mean = scaling.unscale(meta["scaler"], seen), kinds.to_raw(meta, out["x_mean"])
  use, kl_nats = latent_use(out["mean"], out["log_var"])
  at, numbers = samples.numbers(meta), [names[d] for d in samples.numbers(meta)]
  scalars = {"rows": len(x)} | use | mean_r2(seen[:, at], out["x_mean"][:, at])
  scalars |= errors(raw[:, at], raw_mean[:, at], numbers, "raw") | errors(seen[:, at], out["x_mean"][:, at], numbers,
                                                                         "scaled")
  scalars |= samples.category_scores(meta, seen, out["x_mean"])
  pick = np.sort(np.asarray(jax.random.permutation(key, len(x))[:SAMPLE]))
  components, share = principal_components(out["mean"][pick])
  arrays = {"sample_x": raw[pick], "sample_x_mean": raw_mean[pick], "sample_latent_mean": out["mean"][pick],
            "sample_components": components, "component_share": share, "kl_nats_per_dim": kl_nats}
  if classes:
    arrays |= {"sample_label": label[pick], "class_count": np.bincount(label[label >= 0], minlength=len(classes))}
    arrays |= scores.class_distances(out["mean"], label, len(classes))
  if "log_prob" in out:
    more, curves = scores.classifier_curves(out["log_prob"], label)
    scalars |= scores.classification(out["log_prob"], label) | more
    scalars |= scores.intervals(out["log_prob"], label, curves["auc_half"]) if curves else {}
    arrays |= curves
  if classes:
    arrays |= label_errors.arrays(label, classes, (raw, raw_mean), (seen, out["x_mean"]))
  if "group" in rows:
    scalars["groups"] = len(np.unique(rows["group"]))
  if by_group and "group" in rows:
    widths = group_widths(rows, names, (raw, raw_mean), (seen, out["x_mean"]), out.get("log_prob"))
    scalars |= wider(widths, {name: scalars[name] for name in widths if name in scalars})
  plane = scores.umap_map(out["mean"][pick[:scores.UMAP_ROWS]]) if with_umap else None
  return scalars, arrays if plane is None else arrays | {"sample_umap": plane}


def make_assess(model, meta: dict, with_umap: bool = False) -> dict[str, Callable]:
  """A part for each split: `(state, splits, key) -> (scalars, arrays)`.

  The arrays of each also hold histograms of all splits and of prior samples, in the bins of the first. With `with_umap`
  the last split that there is has the map that takes long.
  """
  def assess(name, state, splits, key):
    source, sources = getattr(splits, name), present(splits)
    rows = source.rows(pick_rows(source, len(meta["features"]), key))
    scalars, arrays = assess_part(model, meta, state, rows, key, with_umap and name == list(sources)[-1],
                                  by_group=name != "train")
    if meta["class_names"] and name == list(sources)[-1]:
      training = sources["train"].rows(pick_rows(sources["train"], len(meta["features"]), key))
      arrays |= joint.arrays(lambda x: apply_model(model, state, x)["mean"], rows,
                             None if name == "train" else training, len(meta["class_names"]))
    if model.layout is not None and "kinds" in meta:
      more, shown = compare_samples(model, meta, state, sources, name, key)
      scalars, arrays = scalars | more, arrays | shown
    return scalars, arrays | compare_splits(model, meta, state, sources, key)
  return {name: functools.partial(assess, name) for name in ("train", "val", "test")}


def present(splits) -> dict:
  """The splits that there are, by name."""
  parts = {"train": splits.train, "val": splits.val, "test": splits.test}
  return {name: source for name, source in parts.items() if source is not None}


def compare_samples(model, meta: dict, state, sources: dict, name: str, key) -> tuple[dict, dict]:
  """How sampled rows of a table with kinds compare with those of a part, see `samples`."""
  random = np.random.default_rng([*np.asarray(jax.random.key_data(key)).tolist(), 2])
  real, other = samples.pick(random, sources, name, seen_features)
  made = predict.sample_rows(model, predict.variables_of(state), len(real), jax.random.fold_in(key, 2))
  return samples.compare(meta, *(kinds.to_raw(meta, rows) for rows in (real, other, made)))


def compare_splits(model, meta: dict, state, sources: dict, key) -> dict[str, np.ndarray]:
  """Histograms of the features of every split and of prior samples, and rows of each class over all."""
  found = {}
  for name, source in sources.items():
    rows = source.rows(pick_rows(source, len(meta["features"]), key))
    seen = seen_features(rows)
    if not found:
      edges = scores.bin_edges(seen)
      prior = sample_prior(model, state, key)
      prior = scaling.scale(meta["scaler"], kinds.to_raw(meta, prior)) if "kinds" in meta else prior
      found |= {"hist_edges": scaling.unscale(meta["scaler"], edges.T).T,
                "hist_generated": scores.histograms(prior, edges)}
    found[f"hist_{name}"] = scores.histograms(seen, edges, ~np.isnan(seen))
    if meta["class_names"]:
      count = np.bincount(rows["label"][rows["label"] >= 0], minlength=len(meta["class_names"]))
      found["class_count_all"] = found["class_count_all"] + count if "class_count_all" in found else count
  return found
