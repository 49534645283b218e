"""Totals are divided last."""

import math

import jax.numpy as jnp
import numpy as np

from jaxtrain import losses
from jaxtrain.run import metrics


def test_sums_are_divided_by_counts_not_averaged_by_batch():
  """256 rows of mean 1 and 2 rows of mean 9 have a mean near 1, not 5."""
  totals = {"loss": (jnp.float32(256 * 1.0 + 2 * 9.0), jnp.float32(258))}
  assert metrics.divide(totals) == {"loss": (256 + 18) / 258}


def test_an_empty_count_is_not_a_number():
  got = metrics.divide({"class": (jnp.float32(0), jnp.float32(0)), "kl": (np.float32(3), np.float32(2))})
  assert math.isnan(got["class"]) and got["kl"] == 1.5


def test_arrays_are_for_what_summarises_alone():
  totals = {"usage": (jnp.asarray([2.0, 4.0, 0.0]), jnp.asarray([4.0, 4.0, 0.0])),
            "act": (jnp.float32(3), jnp.int32(2))}
  assert metrics.divide(totals) == {"act": 1.5}
  got = metrics.finish(totals, lambda t: losses.item_means("usage", *t["usage"]))
  assert list(got) == ["act", "usage/0", "usage/1", "usage/2"] == metrics.names_of(
      totals, lambda t: losses.item_means("usage", *t["usage"]))
  assert [got["usage/0"], got["usage/1"]] == [0.5, 1.0] and math.isnan(got["usage/2"])


def test_division_is_in_float64_and_gives_plain_floats():
  got = metrics.divide({"x": (jnp.int32(1), jnp.int32(3))})
  assert got["x"] == 1 / 3 and type(got["x"]) is float


def test_finish_adds_what_is_summarised():
  totals = {"loss": (jnp.float32(6), jnp.float32(3))}
  assert metrics.finish(totals, None) == {"loss": 2.0}
  got = metrics.finish(totals, lambda t: {"perplexity": jnp.exp(t["loss"][0] / t["loss"][1]), "loss": jnp.float32(7)})
  assert got == {"loss": 7.0, "perplexity": float(jnp.exp(2.0))} and all(type(v) is float for v in got.values())
