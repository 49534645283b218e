"""The joint model on many tables of equal shape, trained as one program, and what its members say of rows together.

Tables differ in their numbers, in which treatments are hidden and in traceable settings, such as `loss.beta`, the
weight of rows without a treatment. Nothing is evaluated in training: it has a fixed length, and its last state counts.
A member is one initialisation and one order of the rows; means and propensities of the members of a table are averaged.

The average effect takes one targeted step: the means of treatment j move by the average residual of its rows, weighted
with the inverse propensity, so that the mean effect is the doubly robust estimate with normalised weights. The effect
of each row moves by the same number.

**Source:** deep ensembles: Lakshminarayanan, Pritzel & Blundell 2017; the targeted step with weights in place of a
covariate: van der Laan & Rose, Targeted Learning, 2011, chapter 7, for a linear model with Normal errors.
"""

import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bench
from jaxtrain import config as config_lib, loop, rng
from jaxtrain.experiments.causal_consistency import effects, joint, outputs
from jaxtrain.types import Splits

CONFIG = "configs/causal_consistency.py"
ONE_PROGRAM = {"train.patience": 0, "train.monitor": "train_loss"}  # nothing is evaluated between steps


class Said(NamedTuple):
  """What the members of one table say of rows: mean [N, K] of the outcome, log_prior [N, K] = log p(y | x), and
  log_posterior [N, K] = log p(y | x, z), by Bayes' rule."""
  mean: np.ndarray
  log_prior: np.ndarray
  log_posterior: np.ndarray


class Part(NamedTuple):
  """Rows of a part of a table in raw units: covariates x [N, D], outcome z [N], treatment y [N] (-1 = hidden), the true
  treatment [N], the true effect [N] (None where it is not known), and columns [N, all] in scaled units."""
  x: np.ndarray
  z: np.ndarray
  y: np.ndarray
  y_true: np.ndarray
  effect: np.ndarray | None
  columns: np.ndarray


def read_config(variant: str, fields: dict):
  """The config of a variant with other values at dotted keys, for a program without evaluations."""
  config = config_lib.read_file(os.path.join(bench.ROOT, f"{CONFIG}:{variant}"))
  return config_lib.with_values(config, ONE_PROGRAM | fields)


def load(config, fields: list[dict]) -> list[Splits]:
  """A table for each of several changes of a config, such as `{"data.seed": 3}`."""
  return [joint.load(config_lib.with_values(config, change)) for change in fields]


def part(splits: Splits, name: str) -> Part:
  """The rows of a part, `train`, `val` or `test`."""
  source = getattr(splits, name)
  rows = source.rows(np.arange(source.num_rows))
  raw = outputs.rows_of(splits.meta, rows)
  x, z = raw["x"].astype(np.float64), raw["z"][:, 0].astype(np.float64)
  mean = raw["mean_true"][:, :, 0] if "mean_true" in raw else None
  y_true = raw["y_true"] if "y_true" in raw else raw["y"]
  return Part(x, z, raw["y"], y_true, None if mean is None else mean[:, 1] - mean[:, 0], rows["x"])


def fit(config, tables: list[Splits], labels: list[np.ndarray], hypers: dict[str, list[float]], members: int):
  """Trains `members` models on each table, all as one program.

  Args:
    config: of all of them.
    tables: T tables of equal shape, as `load` gives them.
    labels: T times [N], the treatments of the training rows, -1 where they are hidden.
    hypers: values for traceable fields, one for each table.
    members: M.

  Returns:
    Parameters, each leaf with the leading axes [T, M].
  """
  train = loop.make_train(config, tables[0].meta)
  data = [table.train.data | {"label": label.astype(np.int32)} for table, label in zip(tables, labels)]
  data = jax.tree.map(lambda *columns: jnp.asarray(np.stack(columns)), *data)
  T = len(tables)
  several = lambda leaf: jnp.repeat(jnp.asarray(leaf), members, axis=0)  # one axis of trainings compiles to less
  program = jax.jit(jax.vmap(lambda key, hypers, data: train(key, hypers, data).applied))
  found = program(jax.vmap(rng.root_key)(jnp.tile(jnp.arange(members), T)),
                  {name: several(np.asarray(values, np.float32)) for name, values in hypers.items()},
                  jax.tree.map(several, data))
  return jax.tree.map(lambda leaf: np.asarray(leaf).reshape(T, members, *leaf.shape[1:]), found)


def of_table(params, k: int):
  """Parameters of the members of one table, leaves [M, ...]."""
  return jax.tree.map(lambda leaf: leaf[k], params)


def make_say(config, meta: dict):
  """Returns `say(params, meta, columns) -> Said` for the members of one table, leaves [M, ...]."""
  functions = outputs.make_functions(joint.make_model(config, meta), meta)

  def say(params, meta, columns):
    members = len(jax.tree.leaves(params)[0])
    each = [outputs.predicted(functions, meta, jax.tree.map(lambda leaf: leaf[m], params), columns)
            for m in range(members)]
    mixed = lambda name: np.logaddexp.reduce([getattr(one, name) for one in each], axis=0) - np.log(members)
    return Said(np.mean([one.mean[:, :, 0] for one in each], axis=0), mixed("log_prior"), mixed("log_posterior"))
  return say


def targeted_shift(said: Said, rows: Part) -> np.ndarray:
  """[K]: by how much the targeted step moves the mean of each treatment, from the rows that the models were fitted on.

  A row whose treatment is hidden counts as one of each treatment by the models' p(y | x, z).
  """
  q = effects.responsibilities(rows.y, said.log_posterior)
  prior = np.maximum(np.exp(said.log_prior), effects.least_propensity(effects.effective_size(q.sum(axis=1))))
  weight = q / prior
  return (weight * (rows.z[:, None] - said.mean)).sum(axis=0) / weight.sum(axis=0)
