"""`--mode=inspect`: a run described from its files."""

import os

from jaxtrain import spelling, streams
from jaxtrain.errors import UserError
from jaxtrain.run import checkpoints, packing
from jaxtrain.workdir import records


def inspect(workdir: str) -> dict:
  """What is known of a run from its files: steps kept, best, last metrics, and the digest of the newest whole
  checkpoint.

  The digest is computed from the stored arrays, not copied from the record. What cannot be read is said on stderr.

  Raises:
    UserError: the folder is no run, or holds no checkpoint.
  """
  top, workdir = workdir, records.last_stage(workdir)
  config = records.read_config(workdir)
  if config is None:
    raise UserError(f"--workdir: {spelling.no_run(top)}")
  folder = os.path.join(workdir, "checkpoints")
  if not records.committed_steps(folder):
    raise UserError(f"--workdir: {top!r} holds no checkpoint yet")
  step, leaves, record, damaged = checkpoints.read_newest(folder)
  for reason in damaged:
    streams.say(f"jaxtrain: {reason}", error=True)
  check_best(workdir, step, record)
  state = {path[len("state/"):]: leaf for path, leaf in leaves.items() if path.startswith("state/")}
  described = {"workdir": top, "experiment": config["experiment"], "config": f"sha256:{record['config_digest']}"}
  if workdir != top:
    described["stage"] = os.path.basename(workdir)
  steps = records.committed_steps(folder)  # those of a run at work have changed meanwhile
  described |= {"steps_kept": " ".join(map(str, steps)), "step": step,
                "epoch": record["epoch"] if "epoch" in record else None, "best_step": record["best_step"],
                "best_value": record["best_value"], "monitor": record["monitor"],
                "parameters": sum(leaf.size for path, leaf in state.items() if path.startswith("params/"))}
  described |= {f"metric {name}": value for name, value in record["metrics"].items()}
  return described | {"digest": f"sha256:{packing.digest_leaves(state)[0]} step={step}"}


def check_best(workdir: str, step: int, record: dict) -> None:
  """Says on stderr where the best checkpoint that the record of a step names cannot be read."""
  if record["best_step"] in (None, step):
    return
  try:
    checkpoints.read_named(workdir, "best")
  except UserError as error:
    streams.say(f"jaxtrain: the best state is lost: {error}", error=True)
