"""`--mode=inspect`: a run described from its files."""

import os

from jaxtrain import streams
from jaxtrain.errors import UserError
from jaxtrain.run import checkpoints, packing
from jaxtrain.workdir import jsonfile, records


def inspect(workdir: str) -> dict:
  """What is known of a run from its files: steps kept, best, last metrics, and the digest of the newest whole
  checkpoint.

  The digest is computed from the stored arrays, not copied from the record.

  Raises:
    UserError: the folder is no run, or holds no checkpoint.
  """
  top, workdir = workdir, records.last_stage(workdir)
  config = jsonfile.read_json(os.path.join(workdir, "config.json"))
  if config is None:
    raise UserError(f"--workdir: {top!r} holds no run (no config.json)")
  folder = os.path.join(workdir, "checkpoints")
  steps = records.committed_steps(folder)
  if not steps:
    raise UserError(f"--workdir: {top!r} holds no checkpoint yet")
  for step in reversed(steps):
    try:
      leaves, record = checkpoints.read(folder, step)
      break
    except UserError as error:
      streams.say(f"jaxtrain: {error}", error=True)
  else:
    raise UserError(f"--workdir: no checkpoint of {top!r} can be read")
  state = {path[len("state/"):]: leaf for path, leaf in leaves.items() if path.startswith("state/")}
  described = {"workdir": top, "experiment": config["experiment"], "config": f"sha256:{record['config_digest']}"}
  if workdir != top:
    described["stage"] = os.path.basename(workdir)
  described |= {"steps_kept": " ".join(map(str, steps)), "best_step": record["best_step"],
                "best_value": record["best_value"], "monitor": record["monitor"],
                "parameters": sum(leaf.size for path, leaf in state.items() if path.startswith("params/"))}
  described |= {f"metric {name}": value for name, value in record["metrics"].items()}
  return described | {"digest": f"sha256:{packing.digest_leaves(state)[0]} step={step}"}
