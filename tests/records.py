"""Kinds of run that faults are done to, and what the tests note down of it: a line each, in the file that the variable
JAXTRAIN_FAULT_RECORDS names; tests/fault_table.py reads it. A config that comes is a kind by itself.
"""

import glob
import json
import os

import child

CONFIGS = sorted(os.path.relpath(path, child.ROOT) for path in glob.glob(os.path.join(child.ROOT, "configs", "*.py")))
# config -> flags of its smoke run: each is killed and put on other devices by the fast tests
EACH_CONFIG = {os.path.basename(path).removesuffix(".py"): (f"--config={path}:smoke",) for path in CONFIGS}
FEW_ROWS = "--config.data.row_limit=2000"
FEW_OBJECTS = ("--config.data.row_limit=600", "--config.train.batch_size=64", "--config.optim.decay_steps=30",
               *(f"--config.model.{part}.hidden_dims=8,16" for part in ("encoder", "decoder")),
               *(f"--config.model.{part}.num_blocks=1" for part in ("encoder", "decoder")))
# kind -> flags: those, and what makes the loop take other ways; faults are done to `vae` by the fast tests
KINDS = EACH_CONFIG | {
    "vae": (*EACH_CONFIG["vae"], FEW_ROWS),
    "vae, semi-supervised": ("--config=configs/vae.py:hybrid_semisup", FEW_ROWS),
    "vae, canonical": (*EACH_CONFIG["vae"], FEW_ROWS, "--config.parallel.mode=canonical"),
    "autoencoder, adversarial": ("--config=configs/autoencoder.py:gan_ae", *FEW_OBJECTS),
    "autoencoder, diffusion": ("--config=configs/autoencoder.py:diffusion_ae", *FEW_OBJECTS)}
VARIABLE = "JAXTRAIN_FAULT_RECORDS"


def note(fault: str, kind: str, *, survived: bool, equal: bool | None, steps_again: int | None = None) -> None:
  """Notes one try.

  Args:
    fault: what was done to the run.
    kind: of run.
    survived: the run came to its end, or was refused as it should be.
    equal: whether digest and facts are those of a run without the fault; None where there is nothing to compare.
    steps_again: steps that had been reported and were trained again; None where it does not apply.
  """
  if VARIABLE in os.environ:
    line = {"fault": fault, "kind": kind, "survived": survived, "equal": equal, "steps_again": steps_again}
    with open(os.environ[VARIABLE], "a", encoding="utf-8") as file:
      file.write(json.dumps(line) + "\n")
