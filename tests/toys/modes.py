"""Trains toys in the modes of execution and says what came of it: `python -m toys.modes MODE... -- TOY...` prints JSON.

A process has one number of devices: the tests train on one device themselves and start a child with two.
"""

import importlib
import json
import sys

import jax
import numpy as np

from jaxtrain import config as config_lib, loop
from jaxtrain.run import packing

TOYS = ("gan", "codebook", "svi", "dual")
MODES = {"jit": {}, "chunks": {}, "pmap": {"parallel.mode": "pmap"},
         "canonical": {"parallel.mode": "canonical", "parallel.chunks": 2}}


def configured(toy: str, mode: str = "jit", **fields):
  """The config of a toy in a mode; `chunks` are four micro-batches."""
  config = importlib.import_module(f"toys.{toy}").get_config()
  more = {"train.microbatch": config.train.batch_size // 4} if mode == "chunks" else {}
  for key, value in (MODES[mode] | more | fields).items():
    config_lib.assign(config, key, value)
  return config


def outcome(result: loop.Result) -> dict:
  """Digest, floats of the final state by path, and the history of losses of a run."""
  leaves = {path: np.asarray(leaf, np.float64).tolist() for path, leaf in packing.named_leaves(result.state).items()
            if jax.numpy.issubdtype(leaf.dtype, np.floating)}
  kinds = {path: str(leaf.dtype) for path, leaf in packing.named_leaves(result.state).items()}
  losses = [value for value in (*result.history["loss"], *result.history["val_loss"]) if value is not None]
  return {"digest": result.digest, "leaves": leaves, "dtypes": kinds, "losses": losses}


if __name__ == "__main__":
  split = sys.argv.index("--")
  print(json.dumps({toy: {mode: outcome(loop.train(configured(toy, mode))) for mode in sys.argv[1:split]}
                    for toy in sys.argv[split + 1:]}))
