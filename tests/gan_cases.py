"""Adversarial autoencoders that are small, for tests: their configs, and what comes of one in the modes of execution.

`python -m gan_cases MODE...` trains one in each mode on the devices that there are and prints JSON.
"""

import functools
import json
import sys
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

import event_cases
from jaxtrain import config as config_lib, loop, step
from jaxtrain.devices import parallel
from jaxtrain.experiments.autoencoder import game, gan_ae
from jaxtrain.run import setup
from jaxtrain.types import Experiment, Splits
from toys import modes

KEY = event_cases.KEY
START = 1  # the step from which on the critic has its say
SMALL = {"data.row_limit": 240, "train.batch_size": 48, "model.encoder.kind": "mlp", "model.decoder.num_blocks": 1,
         "model.decoder.num_heads": 2, "model.prior.hidden_dim": 16, "model.prior.num_blocks": 1,
         "model.critic.hidden_dims": (8, 12), "model.critic.num_blocks": 1, "model.critic.num_heads": 2,
         "model.critic.start_step": START, "model.critic.d_steps": 2, "optim.ema_decay": 0.9,
         "optim_critic.learning_rate": 2e-3, "optim_critic.schedule": "constant"}


def configured(**fields):
  """The variant of 240 events and small networks, and other values of fields by dotted key with __ for dots."""
  config = config_lib.with_values(event_cases.configured("gan_ae"), SMALL)
  return config_lib.with_values(config, {key.replace("__", "."): value for key, value in fields.items()})


class Case(NamedTuple):
  """An adversarial autoencoder with all that it is made of.

  Attributes:
    start: `() -> state`, the same each time; at the start of a run, whose program takes seconds to compile.
    batch: its first batch.
    step: compiled `(values of fields that may be traced, state, batch, key) -> (state, metrics)`.
  """
  config: Any
  splits: Splits
  game: game.Game
  experiment: Experiment
  start: Callable[[], Any]
  batch: dict[str, jax.Array]
  step: Callable

  @property
  def state(self):
    """The state, made when it is first asked for."""
    return self.start()

  def filled(self) -> "Case":
    """The case in a state that NumPy draws, with no parameter of 0: for what is true of any state."""
    state = event_cases.filled_state(self.experiment, self.splits, self.game.problem.plan)
    return self._replace(start=lambda: state)

  @property
  def begun(self):
    """The state at the start, at the step from which on the critic has its say."""
    return self.state.replace(step=jnp.int32(self.config.model.critic.start_step))

  def stepped(self, state, batch=None, key=KEY, rate=1e-3, critic_rate=2e-3, lambda_adv=0.1):
    """(state after a step, its metrics)."""
    values = {"optim.learning_rate": rate, "optim_critic.learning_rate": critic_rate,
              "model.critic.lambda_adv": lambda_adv}
    return self.step({name: jnp.float32(value) for name, value in values.items()}, state,
                     self.batch if batch is None else batch, key)


@functools.cache
def made(**fields) -> Case:
  """An adversarial autoencoder at its start."""
  config = config_lib.resolve(configured(**fields))
  splits = gan_ae.load(config)
  config = setup.with_horizon(config, 1000)
  experiment, data = gan_ae.make(config, splits.meta), jax.device_put(splits.train.data)

  @functools.cache
  def start():
    with jax.ensure_compile_time_eval():  # a test may ask for it while it is traced
      return jax.jit(experiment.init)(KEY, step.first_rows(splits.train, data, KEY, gan_ae.INIT_ROWS))

  def one_step(values, state, batch, key):
    traced = gan_ae.make(config_lib.substitute(config, values), splits.meta)
    return traced.train_step(state, batch, key, parallel.over_whole)
  return Case(config, splits, gan_ae.make_game(config, splits.meta), experiment, start,
              jax.jit(splits.train.batch_at)(data, 0, KEY), jax.jit(one_step))


def short(**fields):
  """A run of training alone."""
  return configured(data__split__kind="none", train__monitor="train_loss", train__num_epochs=1, **fields)


def of_mode(mode: str):
  """Training in a mode of execution: those of `toys.modes`, eight chunks in canonical, and two micro-batches."""
  more = {"chunks": {"train.microbatch": 24}, "canonical": {"parallel.mode": "canonical", "parallel.chunks": 8}}
  return config_lib.with_values(short(), more[mode] if mode in more else modes.MODES[mode])


if __name__ == "__main__":
  print(json.dumps({mode: modes.outcome(loop.train(of_mode(mode))) for mode in sys.argv[1:]}))
