"""What tests of the causal-consistency family share: its configs at a size of seconds."""

import os

import jax

import child
from jaxtrain import config as config_lib

PATH = os.path.join(child.ROOT, "configs", "causal_consistency.py")
KEY = jax.random.key(0)
SIMULATED = ("base", "multiclass", "iv", "hetero")  # sources that make as many rows as they are asked for


def configured(variant="base", **fields):
  """A variant with 200 rows that train and small networks, and other values of fields by dotted key."""
  config = config_lib.read_file(f"{PATH}:{variant}")
  values = {"model.hidden_dims": (8,), "train.num_epochs": 2, "loss.warmup_epochs": 1, "train.monitor_from_epoch": 0,
            "log.progress": False, "log.figures": "none"}
  values |= {"data.num_samples": 200} if config.data.source in SIMULATED else {}
  for key, value in (values | fields).items():
    config_lib.assign(config, key, value)
  return config
