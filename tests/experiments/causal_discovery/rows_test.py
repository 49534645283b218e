"""Tables with more rows than a network reads at once: groups, and the mean of what the network gives for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from jaxtrain.experiments.causal_discovery import rows, training

TASK = {"values": jnp.arange(14.0).reshape(1, 7, 2), "intervened": jnp.zeros((1, 7, 2)), "node_mask": jnp.ones((1, 2))}


@pytest.mark.parametrize("chunk, num_rows, num_nodes, want", [
    (0, 1295, 20, 1), (0, 1296, 20, 2), (0, 5000, 20, 4),  # 4 bytes x 8 heads x 20 variables x 1295^2 rows: 1 GiB
    (64, 60, 20, 1), (64, 128, 20, 1), (64, 150, 20, 3), (0, 100, 4_000_000, 7)])
def test_attention_over_the_rows_of_a_group_fits_into_the_memory(chunk, num_rows, num_nodes, want):
  model = ConfigDict({"num_heads": 8, "sample_chunk": chunk})
  assert rows.num_groups(model, num_rows, num_nodes) == want
  assert rows.num_groups(ConfigDict({"statistics": ()}), num_rows, num_nodes) == 1


def test_groups_share_all_rows_evenly():
  found = rows.group(TASK, 3)
  assert found["values"].shape == (1, 3, 3, 2)
  assert np.asarray(found["values"])[0, :, :, 0].tolist() == [[0, 6, 12], [2, 8, 0], [4, 10, 2]]


class Largest(nn.Module):
  """A network whose logit is a parameter times the largest value, so that groups of rows differ."""

  @nn.compact
  def __call__(self, values, intervened, node_mask, train):
    return self.param("scale", nn.initializers.constant(2.0), ()) * jnp.max(values, 1)


def test_what_a_network_gives_for_groups_is_averaged():
  """Rows 0 to 6 of two variables: the largest of the three groups are 12, 8 and 10 in the first."""
  init, apply = training.bind(Largest())
  params = init(jax.random.key(0))
  assert apply(params, TASK, jax.random.key(1), False).tolist() == [[24, 26]]
  assert apply(params, rows.group(TASK, 3), jax.random.key(1), False).tolist() == [[20, 22]]
