"""What tests of the autoencoders share: small configs, and autoencoders without a folder."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

import made_events
from jaxtrain import config as config_lib, step
from jaxtrain.experiments.autoencoder import ae, apply, objective
from jaxtrain.run import setup
from jaxtrain.types import Experiment, Splits

KEY = jax.random.key(0)


class Case(NamedTuple):
  """An autoencoder with all that it is made of, at its start."""
  config: Any
  splits: Splits
  problem: objective.Problem
  experiment: Experiment
  state: Any
  coder: apply.Coder

  def rows(self, part: str = "test") -> dict[str, np.ndarray]:
    """All columns of a part of the data."""
    source = getattr(self.splits, part)
    return source.rows(np.arange(source.num_rows))

  def batch(self, part: str = "test") -> dict[str, np.ndarray]:
    """The first batch of a part."""
    source = getattr(self.splits, part)
    return jax.tree.map(np.asarray, jax.jit(source.batch_at)(source.data, 0, KEY))


def configured(variant="smoke", **fields):
  """A variant with 200 events and small networks, and other values of fields by dotted key with __ for dots."""
  config = config_lib.read_file(f"{made_events.PATH}:{variant}")
  values = {"data.row_limit": 200, "model.encoder.hidden_dims": (16,), "model.decoder.hidden_dims": (16,),
            "model.latent.dim": 8, "model.latent.num_codes": 16, "train.batch_size": 32, "train.num_epochs": 2,
            "optim.schedule": "constant", "log.progress": False, "log.figures": "none"}
  return config_lib.with_values(config, values | {key.replace("__", "."): value for key, value in fields.items()})


@functools.cache
def made(variant="smoke", **fields) -> Case:
  """An autoencoder of a variant at its start."""
  config = config_lib.resolve(configured(variant, **fields))
  splits = ae.load(config)
  config = setup.with_horizon(config, 1000)
  problem, experiment = ae.make_problem(config, splits.meta), ae.make(config, splits.meta)
  sample = step.first_rows(splits.train, jax.device_put(splits.train.data), KEY, ae.INIT_ROWS)
  return Case(config, splits, problem, experiment, jax.jit(experiment.init)(KEY, sample), apply.make_coder(problem))
