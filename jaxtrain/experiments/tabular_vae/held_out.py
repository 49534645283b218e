"""Rows that the parts of an assessment share: some training rows to fit on, and the rows to score, with what the model
makes of both.
"""

from typing import NamedTuple

import numpy as np

from jaxtrain.experiments.tabular_vae import grouped
from jaxtrain.experiments.tabular_vae.grouped import Groups

SCORED_ROWS = 50_000  # at most
FIT_SEED, SCORE_SEED = 0, 1
ACTIVE_SD = 0.1  # standard deviation over rows above which a latent dimension is in use


class Rows(NamedTuple):
  """N rows: `x` [N, F] in standardised units (0 where a cell is missing; see `plain`), posterior means `mean` [N, L],
  `label` [N] (-1 = none), `columns`, numeric ones beside the features [N] by name, and `observed` [N, D]: whether a
  feature is there.
  """
  x: np.ndarray
  mean: np.ndarray
  label: np.ndarray
  columns: dict[str, np.ndarray]
  observed: np.ndarray

  def take(self, rows: np.ndarray) -> "Rows":
    """Some of the rows."""
    columns = {name: column[rows] for name, column in self.columns.items()}
    return Rows(self.x[rows], self.mean[rows], self.label[rows], columns, self.observed[rows])


class HeldOut(NamedTuple):
  """What a part is given.

  Attributes:
    train: rows to fit on. scored: rows to score, the training rows themselves where none are held out.
    groups: of the scored rows.
    log_prob: [N, K] of the scored rows in nats; None without a classifier.
    features, class_names: names.
  """
  train: Rows
  scored: Rows
  groups: Groups
  log_prob: np.ndarray | None
  features: list[str]
  class_names: list[str]

  def labelled(self) -> "HeldOut":
    """The rows that have a label."""
    rows = np.flatnonzero(self.scored.label >= 0)
    return self.take(rows)._replace(train=self.train.take(np.flatnonzero(self.train.label >= 0)))

  def take(self, rows: np.ndarray) -> "HeldOut":
    """With some of the scored rows alone."""
    log_prob = None if self.log_prob is None else self.log_prob[rows]
    return self._replace(scored=self.scored.take(rows), groups=self.groups.take(rows), log_prob=log_prob)


def some(num_rows: int, most: int, seed: int) -> np.ndarray:
  """Up to so many of N rows, drawn without replacement, in their order."""
  if num_rows <= most:
    return np.arange(num_rows)
  return np.sort(np.random.default_rng(seed).choice(num_rows, most, replace=False))


def plain(meta: dict, x: np.ndarray) -> np.ndarray:
  """Rows [N, F] as methods beside the model read them: of rows x [N, D] in scaled units each category has a column of
  its own, 1 where a cell has it, all 0 where the cell is missing.
  """
  categories = meta["kinds"]["categories"] if "kinds" in meta else {}
  columns = [(x[:, d:d + 1] == np.arange(1, len(categories[name]) + 1)).astype(x.dtype) if name in categories
             else x[:, d:d + 1] for d, name in enumerate(meta["features"])]
  return np.concatenate(columns, axis=1) if categories else x


def rows_of(named: dict[str, np.ndarray], out: dict[str, np.ndarray]) -> Rows:
  """Rows of a source with what the model makes of them."""
  observed = named["observed"] > 0 if "observed" in named else np.ones(named["x"].shape, bool)
  known = ("x", "label", "observed", "group")
  columns = {name: column for name, column in named.items() if name not in known and column.ndim == 1}
  return Rows(named["x"], out["mean"], named["label"], columns, observed)


def groups_of(named: dict[str, np.ndarray]) -> Groups:
  """Groups of the rows of a source."""
  return grouped.of_rows(named, len(named["x"]))


def active(mean: np.ndarray) -> np.ndarray:
  """Which latent dimensions [L] are in use over rows [N, L]; all where none is."""
  used = mean.std(axis=0, dtype=np.float64) > ACTIVE_SD
  return used if used.any() else np.ones(len(used), bool)
