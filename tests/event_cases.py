"""What tests of the autoencoders share: small configs, autoencoders without a folder, and their modes of execution.

`python -m event_cases FIELDS VARIANT MODE...` trains a variant in each mode on the devices that there are and prints
JSON; FIELDS is JSON too.
"""

import functools
import importlib
import json
import os
import subprocess
import sys
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import autoencoder_cases
import child
import made_events
from jaxtrain import config as config_lib, loop, step
from jaxtrain.experiments.autoencoder import apply, latents
from jaxtrain.experiments.autoencoder.problem import Problem
from jaxtrain.run import setup
from jaxtrain.types import Experiment, Splits
from toys import modes

KEY = jax.random.key(0)


class Case(NamedTuple):
  """An autoencoder with all that it is made of.

  Attributes:
    start: `() -> state`, the same each time; at the start of a run, whose program takes seconds to compile.
  """
  config: Any
  splits: Splits
  problem: Problem
  experiment: Experiment
  start: Callable[[], Any]
  coder: apply.Coder

  @property
  def state(self):
    """The state, made when it is first asked for."""
    return self.start()

  def filled(self) -> "Case":
    """The case in a state that NumPy draws, with no parameter of 0: for what is true of any state."""
    state = filled_state(self.experiment, self.splits, self.problem.plan)
    return self._replace(start=lambda: state)

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
            "optim.schedule": "constant", "optim.warmup_steps": 0, "optim.learning_rate": 1e-3, "log.progress": False,
            "log.figures": "none"}
  return config_lib.with_values(config, values | {key.replace("__", "."): value for key, value in fields.items()})


@functools.cache
def made(variant="smoke", **fields) -> Case:
  """An autoencoder of a variant at its start, by the loop of the variant."""
  config = config_lib.resolve(configured(variant, **fields))
  loop = importlib.import_module(config.experiment)
  splits = loop.load(config)
  config = setup.with_horizon(config, 1000)
  problem, experiment = loop.make_problem(config, splits.meta), loop.make(config, splits.meta)

  @functools.cache
  def start():
    with jax.ensure_compile_time_eval():  # a test may ask for it while it is traced
      sample = step.first_rows(splits.train, jax.device_put(splits.train.data), KEY, loop.INIT_ROWS)
      return jax.jit(experiment.init)(KEY, sample)
  return Case(config, splits, problem, experiment, start, apply.make_coder(problem))


@functools.cache
def filled(variant="smoke", **fields) -> Case:
  """`made`, filled."""
  return made(variant, **fields).filled()


def filled_state(experiment: Experiment, splits: Splits, plan: latents.Plan) -> Any:
  """A state of the shapes of the start, at step 0: parameters are Normal of deviation 0.3, codes at random, latents of
  mean 0 and deviation 1.
  """
  source, draw = splits.train, np.random.RandomState(0)
  sample = jax.tree.map(lambda x: jnp.asarray(np.repeat(x, 2, axis=0)), source.rows(np.arange(1)))
  shapes = jax.eval_shape(experiment.init, KEY, sample | {"weight": jnp.ones(2)})
  params = jax.tree.map(lambda x: jnp.asarray(draw.normal(0, 0.3, x.shape), x.dtype), shapes.params)
  followed = {"codes": lambda: autoencoder_cases.codes_of(plan),
              "latent_moments": lambda: jnp.asarray(np.repeat([[0], [1]], plan.dim, axis=1), jnp.float32)}
  rest = jax.tree.map(lambda x: jnp.asarray(np.zeros(x.shape), x.dtype), shapes.replace(
      key=None, params=None, model_state=None, ema=None))
  average = shapes.ema if shapes.ema is None else params if shapes.ema.keys() == params.keys() else {
      name: params[name] for name in shapes.ema}
  return rest.replace(key=KEY, params=params, ema=average,
                      model_state={name: followed[name]() for name in shapes.model_state})


def outcomes(variant: str, *which: str, **fields) -> dict[str, dict]:
  """{mode: `modes.outcome` of a run of four steps of a variant in it}."""
  found = {}
  for mode in which:
    config = configured(variant, **{"data__row_limit": 100} | fields)
    more = {"train.microbatch": config.train.batch_size // 4} if mode == "chunks" else {}
    found[mode] = modes.outcome(loop.train(config_lib.with_values(config, modes.MODES[mode] | more)))
  return found


def outcomes_on(num_devices: int, variant: str, *which: str, **fields) -> dict[str, dict]:
  """The same in a process with so many devices."""
  environ = os.environ | child.USUAL | {"PYTHONPATH": os.pathsep.join((child.ROOT, os.path.join(child.ROOT, "tests"))),
                                        "JAX_NUM_CPU_DEVICES": str(num_devices)}
  done = subprocess.run([sys.executable, "-m", "event_cases", json.dumps(fields), variant, *which], cwd=child.ROOT,
                        timeout=500, text=True, capture_output=True, env=environ)
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
  print(json.dumps(outcomes(*sys.argv[2:], **json.loads(sys.argv[1]))))
