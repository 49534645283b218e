"""What tests of the causal-consistency family share: its configs at a size of seconds."""

import os

import jax

import child
from jaxtrain import config as config_lib

PATH = os.path.join(child.ROOT, "configs", "causal_consistency.py")
KEY = jax.random.key(0)


def configured(variant="base", **fields):
  """A variant with 200 rows that train and small networks, and other values of fields by dotted key."""
  config = config_lib.read_file(f"{PATH}:{variant}")
  values = {"data.num_samples": 200, "model.hidden_dims": (8,), "train.num_epochs": 2, "loss.warmup_epochs": 1,
            "train.monitor_from_epoch": 0, "log.progress": False, "log.figures": "none"}
  for key, value in (values | fields).items():
    config_lib.assign(config, key, value)
  return config
