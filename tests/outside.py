"""An experiment from a module outside the package: linear regression on an endless stream of simulated rows, on one
whose batches have two shapes by turns (buckets), or on a table.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import losses, optim, rng, step
from jaxtrain.config import common, tables
from jaxtrain.data.arrays import table_source
from jaxtrain.types import Experiment, Source, Splits, TrainState

SLOPE = jnp.array([[1.0], [-2.0], [0.5]])
STREAMS = ("stream", "buckets")
BUCKETS = (16, 12)  # rows of a batch


def get_config(variant="stream"):
  """A config with this module as the experiment."""
  config = common()
  config.experiment, config.data = "outside", tables()
  config.data.source = variant
  config.optim.learning_rate, config.train.batch_size = 0.05, 16
  config.loss.weights = {"error": 1.0}
  config.eval.every_steps = config.checkpoint.every_steps = 40 if variant in STREAMS else 0
  config.train.num_steps, config.train.num_epochs = (120, 0) if variant in STREAMS else (0, 6)
  config.log.figures, config.log.progress = "none", False
  return config


def simulate(data, step_number, key, num_rows=16):
  """Rows of step `step_number`: a function of the step alone."""
  del data
  x = jax.random.normal(rng.step_key(key, step_number), (num_rows, 3))
  return {"x": x, "y": x @ SLOPE, "weight": jnp.ones(num_rows)}


def load(config):
  """Sources of the three parts."""
  if config.data.source == "stream":
    endless, checked = Source({}, simulate, None), Source({}, simulate, 2)
    return Splits(endless, checked, None, {"steps_per_epoch": 1})
  if config.data.source == "buckets":
    each = tuple(functools.partial(simulate, num_rows=num_rows) for num_rows in BUCKETS)
    endless = Source({}, each[0], None, bucket_at=lambda step_number: step_number // 16 % 2, buckets=each)
    checked = Source({}, each[0], 3, bucket_at=lambda step_number: int(step_number > 1), buckets=each)
    return Splits(endless, checked, None, {"steps_per_epoch": 1})
  x = np.random.RandomState(0).normal(size=(100, 3)).astype(np.float32)
  if config.data.source == "nan":
    x[50] = np.nan
  source = table_source({"x": x, "y": np.asarray(x @ SLOPE)}, config.train.batch_size, config.data.shuffle)
  return Splits(source, source, source, {"steps_per_epoch": source.num_batches})


def make(config, meta):
  """Least squares by gradient descent."""
  tx = optim.make(config.optim, meta["steps_per_epoch"])

  def init(key, sample):
    params = {"slope": jnp.zeros((3, 1))}
    ema = jax.tree.map(jnp.copy, params) if config.optim.ema_decay else None
    return TrainState(jnp.zeros((), jnp.int32), key, params, {}, tx.init(params), ema, step.init_guard())

  def loss_sums(params, state, chunk, key):
    error = losses.squared_error(chunk["y"], chunk["x"] @ params["slope"])
    return step.Chunk({"error": chunk["weight"] @ error})

  def eval_step(state, batch, key, over):
    sums = over(lambda chunk, k: loss_sums(state.applied, state, chunk, k).terms, batch, key)
    return {"loss": (sums["error"], jnp.sum(batch["weight"]))}

  train_step = step.make_train_step(loss_sums, lambda batch: {"error": jnp.sum(batch["weight"])},
                                    lambda state: {"error": config.loss.weights.error}, tx,
                                    ema_decay=config.optim.ema_decay)
  observe = lambda state, means: state.replace(opt_state=tx.observe(state.opt_state, means))
  return Experiment(init, train_step, eval_step, observe=observe)


def change_steps(monkeypatch, change) -> None:
  """Lets a test change what a step gives: `change(config, state before, new state, metrics)` returns the last two."""
  original = make

  def changed(config, meta):
    made = original(config, meta)

    def train_step(state, batch, key, over):
      return change(config, state, *made.train_step(state, batch, key, over))
    return made._replace(train_step=train_step)

  monkeypatch.setitem(globals(), "make", changed)
