"""Errors of the reconstruction for the rows of each label: by lithology group where classes are lithologies, else by
class.
"""

import numpy as np

from jaxtrain.experiments.tabular_vae.groups import GROUP_OF

MOST_LABELS = 20  # the most frequent
STATISTICS = ("r2_raw", "rmse_raw", "mae_raw", "r2_scaled", "rmse_scaled", "mae_scaled")


def parents(class_names: list[str]) -> list[str]:
  """The lithology group of each class; the classes themselves where one is no lithology that is known."""
  return [GROUP_OF[name] for name in class_names] if GROUP_OF.keys() >= set(class_names) else list(class_names)


def of_columns(x: np.ndarray, x_mean: np.ndarray) -> np.ndarray:
  """R2, root mean squared and mean absolute error [3, D] of columns [N, D] over entries that are no NaN; R2 is NaN for
  a column that does not vary.
  """
  x, x_mean = np.asarray(x, np.float64), np.asarray(x_mean, np.float64)
  there = ~np.isnan(x)
  count = np.maximum(there.sum(axis=0), 1)
  mean = lambda values: np.where(there, values, 0).sum(axis=0) / count
  square, var = mean((x - x_mean) ** 2), mean((x - mean(x)) ** 2)
  found = np.stack([1 - square / np.where(var > 0, var, np.nan), np.sqrt(square), mean(np.abs(x - x_mean))])
  return np.where(there.any(axis=0), found, np.nan)


def arrays(label: np.ndarray, class_names: list[str], raw: tuple, scaled: tuple) -> dict[str, np.ndarray]:
  """`label_errors` [J, 6, D], the STATISTICS of each feature for the rows of each label, the most frequent first; with
  `label_names` and `label_rows` [J].

  Args:
    label: [N], -1 = none. raw, scaled: (x, x_mean) of each unit, [N, D] each.
  """
  names, parent = np.unique(parents(class_names), return_inverse=True)
  code = np.where(label >= 0, parent[label], -1)
  count = np.bincount(code[code >= 0], minlength=len(names))
  order = [j for j in np.argsort(-count, kind="stable")[:MOST_LABELS] if count[j]]
  found = [np.concatenate([of_columns(*(part[code == j] for part in pair)) for pair in (raw, scaled)]) for j in order]
  return {"label_errors": np.array(found).reshape(len(order), len(STATISTICS), raw[0].shape[1]),
          "label_names": names[order], "label_rows": count[order]}
