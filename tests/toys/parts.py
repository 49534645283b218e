"""The regression outside with an assessment in two parts, of which the second takes as long as a variable says."""

import os
import time

import numpy as np

import outside
from jaxtrain import rng

SECONDS = "JAXTRAIN_TOY_SECONDS"  # that the second part sleeps; none where it is not set


def get_config(variant=""):
  """The table of 100 rows, six epochs."""
  config = outside.get_config("table")
  config.experiment = "toys.parts"
  return config


load = outside.load


def error_on_half(state, splits, half):
  """(rows, mean squared error) on the even or the odd rows of the test part."""
  found = splits.test.rows(np.arange(half, splits.test.num_rows, 2))
  return len(found["x"]), float(np.mean(np.square(found["y"] - found["x"] @ np.asarray(state.params["slope"]))))


def assess_a(state, splits, key):
  """The even rows."""
  num_rows, error = error_on_half(state, splits, 0)
  return {"rows_a": num_rows, "mse_a": error}, {"slope": np.asarray(state.params["slope"])}


def assess_b(state, splits, key):
  """The odd rows, after a while; `draw_b` is of the key that it was given."""
  if SECONDS in os.environ:
    time.sleep(float(os.environ[SECONDS]))
  num_rows, error = error_on_half(state, splits, 1)
  return {"rows_b": num_rows, "mse_b": error, "draw_b": float(rng.normal(key, (1,))[0])}, {}


def make(config, meta):
  """Least squares, assessed in two parts."""
  return outside.make(config, meta)._replace(assess={"test-a": assess_a, "test-b": assess_b})
