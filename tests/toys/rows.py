"""What the toys share: a table of three features in three groups, its sources, and the settings of a short run."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import optim, step
from jaxtrain.config import common
from jaxtrain.data.arrays import table_source
from jaxtrain.types import Splits

NUM_FEATURES = 3
CENTRES = np.array([[2.0, 0.0, -1.0], [-2.0, 1.0, 0.0], [0.0, -2.0, 1.0]])


def short(experiment: str, batch_size: int = 16):
  """A config of 40 steps or so: 5 batches an epoch, evaluated every second epoch."""
  config = common()
  config.experiment, config.data = experiment, {"num_rows": 75}
  config.optim.learning_rate, config.train.batch_size, config.train.num_epochs = 0.02, batch_size, 8
  config.eval.every_epochs = config.checkpoint.every_epochs = 2
  config.log.figures, config.log.progress = "none", False
  return config


def load(config) -> Splits:
  """Training rows, whose last batch is ragged where the batch size does not divide them, and 32 of validation."""
  random = np.random.RandomState(0)

  def source(num_rows, shuffled):
    x = CENTRES[random.randint(3, size=num_rows)] + 0.3 * random.normal(size=(num_rows, NUM_FEATURES))
    x[0] = 6.0  # far from all others
    return table_source({"x": x.astype(np.float32)}, config.train.batch_size, shuffled)

  train, val = source(config.data.num_rows, True), source(32, False)
  return Splits(train, val, None, {"steps_per_epoch": train.num_batches, "num_rows": config.data.num_rows})


def begin(key, params, tx, ema=None, model_state=None) -> dict:
  """Fields of a fresh `TrainState` with one optimiser."""
  return dict(step=jnp.zeros((), jnp.int32), key=key, params=params, model_state=model_state or {},
              opt_state=tx.init(params), ema=ema, guard=step.init_guard())


def matrix(key, *shape):
  """[...] float32, small normal numbers."""
  return 0.5 * jax.random.normal(key, shape)


def count_rows(batch):
  """[] real rows of a batch."""
  return jnp.sum(batch["weight"])


def optimiser_of(section, meta, prefix=""):
  """The optimiser of a config section."""
  return optim.make(section, meta["steps_per_epoch"], prefix)
