"""Trains toys in the modes of execution and says what came of it: `python -m toys.modes MODE... -- TOY...` prints JSON.

A process has one number of devices: the tests train on one device themselves and start a child with two.
"""

import importlib
import json
import os
import sys

import jax
import numpy as np

from jaxtrain import config as config_lib, loop
from jaxtrain.run import packing, stops
from jaxtrain.sweep import vmap
from jaxtrain.workdir import journal as journal_lib

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
  losses = [value for name in ("loss", "val_loss") if name in result.history for value in result.history[name]
            if value is not None]
  return {"digest": result.digest, "leaves": leaves, "dtypes": kinds, "losses": losses}


def sweep(folder, name: str, configured, settings: list[dict]) -> list[str]:
  """Workdirs of members trained as one program, in turn, of the configs that `configured` makes of each of settings."""
  os.makedirs(folder)
  journal = journal_lib.Journal(str(folder))
  journal.begin({"config": name, "base": {}})
  configs = {config_lib.digest(config, config_lib.HOW): (values, config) for values, config in
             ((values, config_lib.resolve(configured(values))) for values in settings)}
  added = journal.add([(values, digest) for digest, (values, _) in configs.items()])
  with stops.Stop(0) as stop:
    vmap.run(journal, added, [], lambda m: configs[m.digest][1], {}, {}, vmap.Options(True, 0), stop, lambda line: None)
  assert len(journal.waves) == 1 and [member.outcome for member in journal.members] == ["done"] * len(settings)
  return [journal.workdir(member) for member in journal.members]


if __name__ == "__main__":
  split = sys.argv.index("--")
  print(json.dumps({toy: {mode: outcome(loop.train(configured(toy, mode))) for mode in sys.argv[1:split]}
                    for toy in sys.argv[split + 1:]}))
