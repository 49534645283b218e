"""Many small trainings as one pure function: against runs of the loop, against each other, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import outside
from jaxtrain import config as config_lib, loop, rng
from jaxtrain.errors import UserError
from jaxtrain.run import packing


def configured(**fields):
  """The regression on a table of 100 rows, three epochs."""
  config = outside.get_config("table")
  for key, value in ({"train.num_epochs": 3} | fields).items():
    config_lib.assign(config, key, value)
  return config


def studies(count):
  """(keys, learning rates, data) of so many studies, along a leading axis: each its own table, order and rate."""
  table = outside.load(configured()).train.data
  noise = np.random.RandomState(1).normal(size=(count, *table["y"].shape)).astype(np.float32)
  data = {"x": jnp.asarray(np.stack([np.roll(table["x"], k, axis=0) for k in range(count)])),
          "y": jnp.asarray(table["y"][None] + noise)}
  return jax.vmap(rng.root_key)(jnp.arange(count)), {"optim.learning_rate": jnp.linspace(0.01, 0.1, count)}, data


def one_of(studies, k):
  return jax.tree.map(lambda leaf: leaf[k], studies)


def test_one_training_is_a_run_bit_for_bit():
  """Root key of the run, data of its source; the learning rate from the config, and the same one as an argument."""
  result, train = loop.train(configured()), jax.jit(loop.make_train(configured()))
  data = jax.tree.map(jnp.asarray, outside.load(configured()).train.data)
  for hypers in ({}, {"optim.learning_rate": jnp.float32(0.05)}):
    assert packing.digest(train(rng.root_key(0), hypers, data)) == result.digest


def compare(count):
  """All studies as one program against each by itself."""
  train, asked = loop.make_train(configured()), studies(count)
  together, alone = jax.jit(jax.vmap(train))(*asked), jax.jit(train)
  assert together.params["slope"].shape == (count, 3, 1) and (np.asarray(together.step) == 21).all()
  for k in range(count):
    state = alone(*one_of(asked, k))
    for path, leaf in packing.named_leaves(state.params).items():
      np.testing.assert_allclose(packing.named_leaves(together.params)[path][k], leaf, rtol=1e-5, atol=1e-6,
                                 err_msg=f"{k} {path}")
  slopes = np.asarray(together.params["slope"])[:, 0, 0]
  assert len(set(slopes.tolist())) == count


@pytest.mark.slow
def test_64_trainings_as_one_program():
  compare(64)


@pytest.mark.slow
def test_2000_trainings_as_one_program():
  compare(2000)


@pytest.mark.slow
def test_a_training_that_diverges_stops_alone():
  """A table of infinities halts its own training; its neighbours have the parameters that they have without it."""
  keys, hypers, data = studies(3)
  train = jax.jit(jax.vmap(loop.make_train(configured())))
  whole, broken = train(keys, hypers, data), train(keys, hypers, data | {"y": data["y"].at[1].set(jnp.inf)})
  assert np.asarray(broken.guard.stopped).tolist() == [False, True, False] and int(broken.step[1]) == 0
  for k in (0, 2):
    assert (np.asarray(broken.params["slope"][k]) == np.asarray(whole.params["slope"][k])).all()


@pytest.mark.parametrize("fields, names", [
    ({"train.patience": 3}, "config.train.patience: got 3, which make_train has no place for"),
    ({"optim.plateau.factor": 0.5, "optim.plateau.monitor": "val_loss"},
     "config.optim.plateau.monitor: got 'val_loss'"),
    ({"stages": ({"train.num_epochs": 1},)}, "config.stages: got "),
])
def test_what_needs_an_evaluation_is_refused(fields, names):
  with pytest.raises(UserError, match=names):
    loop.make_train(configured(**fields))


def test_a_field_that_may_not_be_traced_is_refused():
  train, data = loop.make_train(configured()), outside.load(configured()).train.data
  with pytest.raises(UserError, match="config.optim.clip_norm may not be traced; allowed .*optim.learning_rate"):
    train(rng.root_key(0), {"optim.clip_norm": jnp.float32(1.0)}, data)


@pytest.mark.slow
def test_a_plateau_on_the_training_loss_and_two_optimisers_are_welcome():
  """What follows training alone needs no evaluation."""
  from toys import modes
  config = modes.configured("gan", **{"optim.plateau.factor": 0.5, "optim.plateau.patience": 0})
  train = jax.jit(loop.make_train(config))
  data = jax.tree.map(jnp.asarray, config_lib.load_experiment(config.experiment).load(config).train.data)
  rates = {"optim_critic.learning_rate": jnp.float32(0.01)}
  state = train(rng.root_key(0), rates, data)
  config.optim_critic.learning_rate = 0.01
  assert packing.digest(state) == loop.train(config).digest
