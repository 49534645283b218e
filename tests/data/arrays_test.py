"""Batches from a table: every row once an epoch, in an order of the epoch's own, the last batch padded."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import rng
from jaxtrain.data import arrays
from jaxtrain.errors import UserError

# A test calls what it compiles a few times: half the time to compile is worth more than fast code.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
KEY = rng.key_for(0, "data")


@functools.cache
def table(num_rows, batch_size, shuffled=True):
  columns = {"id": np.arange(num_rows, dtype=np.int32), "x": np.arange(2 * num_rows, dtype=np.float32).reshape(-1, 2)}
  return arrays.table_source(columns, batch_size, shuffled)


@functools.cache
def compiled(batch_at):
  return jax.jit(jax.vmap(batch_at, (None, 0, None)), compiler_options=QUICK)


def batches(source, steps, key=KEY):
  """The batches of steps, stacked; compiled with the data as an argument, as the loop does."""
  return jax.tree.map(np.asarray, compiled(source.batch_at)(source.data, jnp.asarray(steps), key))


def real_ids(batch):
  return batch["id"][batch["weight"] == 1]


@pytest.mark.slow
@pytest.mark.parametrize("num_rows, batch_size, num_batches, last",
                         [(11, 4, 3, 3), (12, 4, 3, 4), (3, 8, 1, 3), (1, 1, 1, 1)])
def test_every_row_comes_once_an_epoch(num_rows, batch_size, num_batches, last):
  source = table(num_rows, batch_size)
  assert (source.num_batches, source.num_rows) == (num_batches, num_rows)
  for epoch in (0, 1, 5):
    batch = batches(source, epoch * num_batches + np.arange(num_batches))
    np.testing.assert_array_equal(np.sort(real_ids(batch)), np.arange(num_rows))
    want = np.ones((num_batches, batch_size))
    want[-1, last:] = 0
    np.testing.assert_array_equal(batch["weight"], want)
    assert batch["weight"].dtype == np.float32 and batch["x"].shape == (num_batches, batch_size, 2)
    # Columns stay together, and padding repeats rows there are.
    np.testing.assert_array_equal(batch["x"], np.stack([2.0 * batch["id"], 2.0 * batch["id"] + 1], axis=-1))


def test_the_order_follows_from_key_and_epoch():
  source = table(50, 8)
  order = lambda epoch, key=KEY: real_ids(batches(source, epoch * 7 + np.arange(7), key)).tolist()
  assert order(0) == order(0)
  orders = [order(0), order(1), order(2), order(0, rng.key_for(1, "data")), list(range(50))]
  assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_an_unshuffled_table_keeps_its_order():
  source = table(10, 4, shuffled=False)
  for epoch in (0, 3):
    batch = batches(source, epoch * 3 + np.arange(3))
    np.testing.assert_array_equal(real_ids(batch), np.arange(10))
    np.testing.assert_array_equal(batch["weight"][-1], [1, 1, 0, 0])


def test_a_step_alone_gives_the_batch_it_gives_in_a_row():
  source = table(11, 4)
  together = batches(source, 3 + np.arange(3))
  alone = jax.jit(source.batch_at, compiler_options=QUICK)(source.data, jnp.int32(4), KEY)
  for name in together:
    np.testing.assert_array_equal(together[name][1], alone[name])


def test_the_lithology_table_has_932_batches_and_ends_with_170_rows():
  source = arrays.table_source({"id": np.arange(238_506, dtype=np.int32)}, 256, True)
  assert source.num_batches == 932
  batch = batches(source, 932 + np.arange(932))
  np.testing.assert_array_equal(batch["weight"].sum(axis=1), [256.0] * 931 + [170.0])
  assert np.array_equal(np.bincount(real_ids(batch), minlength=238_506), np.ones(238_506))


def test_data_is_an_argument():
  """The batch comes from the data handed over, not from the arrays the source was made of."""
  source = table(6, 6, shuffled=False)
  other = {"id": source.data["id"] + 100, "x": -source.data["x"]}
  batch = jax.jit(source.batch_at, compiler_options=QUICK)(other, jnp.int32(0), KEY)
  np.testing.assert_array_equal(batch["id"], np.arange(100, 106))


def test_no_rows_are_refused():
  with pytest.raises(UserError, match="no rows"):
    table(0, 4)
