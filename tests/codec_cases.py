"""What tests of the semantic-compression family share: small configs, and codecs without a folder."""

import os
from typing import Any, NamedTuple

import jax
import numpy as np

import child
from jaxtrain import config as config_lib, step
from jaxtrain.data import arrays
from jaxtrain.devices import parallel
from jaxtrain.experiments.semantic_compression import apply, codec, objective, schema
from jaxtrain.experiments.semantic_compression.columns import Column, Feature, Schema
from jaxtrain.run import setup
from jaxtrain.types import Experiment, Splits

PATH = os.path.join(child.ROOT, "configs", "semantic_compression.py")
KEY = jax.random.key(0)
# What is compiled runs a few times: half the time to compile is worth more than fast code.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

# A number, a count, a bit and a class, in an order that is not that of their slots.
TOY = schema.checked(Schema("toy", (
    Column("bit", "binary", group="b"), Column("length", "continuous", -1.0, 3.0, group="a"),
    Column("kind", "categorical", classes=("red", "green", "blue"), group="b"),
    Column("count", "integer", 0.0, 40.0, group="a")), (
    Feature("length", "numeric", ("length",), group="a", weight=0.5),
    Feature("long", "binary", ("length",), "above", (1.0,), group="a", weight=0.2),
    Feature("bit", "binary", ("bit",), group="b", weight=0.2),
    Feature("kind", "categorical", ("kind",), group="b", weight=0.1))))


class Case(NamedTuple):
  """A codec with all that it is made of; `state` is a fresh one until it is trained."""
  config: Any
  splits: Splits
  problem: objective.Problem
  experiment: Experiment
  state: Any
  coder: apply.Coder

  def x(self, part: str = "train") -> np.ndarray:
    """Vectors [N, D] of a part of the data."""
    source = getattr(self.splits, part)
    return source.rows(np.arange(source.num_rows))["x"]


def configured(variant="smoke", **fields):
  """A variant with 400 states, small networks and few codes, and other values of fields by dotted key."""
  config = config_lib.read_file(f"{PATH}:{variant}")
  values = {"data.num_states": 400, "model.hidden_dims": (16,), "model.num_components": 4,
            "train.batch_size": 64, "train.num_epochs": 2,
            "optim.schedule": "constant", "log.progress": False, "log.figures": "none"}
  values = {key: value for key, value in values.items()
            if key != "data.num_states" or config.data.source in ("independent", "correlated", "trajectory")}
  key = "model.compressor.kind"
  kind = fields[key] if key in fields else config.model.compressor.kind
  values |= {"model.compressor.num_codes": 16} if kind == "vq" else {}
  for key, value in (values | fields).items():
    config_lib.assign(config, key, value)
  return config


def made(variant="smoke", **fields) -> Case:
  """A codec of a variant at its start."""
  config = config_lib.resolve(configured(variant, **fields))
  return start(setup.with_horizon(config, 1000), codec.load(config))


def toy_record(num_rows, seed=0):
  """States of TOY, columns [N] by name: numbers beyond the range among them."""
  random = np.random.RandomState(seed)
  return {"bit": random.randint(2, size=num_rows) == 1, "length": random.normal(1.0, 1.5, num_rows),
          "kind": random.randint(3, size=num_rows), "count": random.randint(0, 41, num_rows)}


def of_schema(states: Schema, x: np.ndarray, variant="smoke", num_steps_per_epoch=5, **fields) -> Case:
  """A codec at its start for the vectors x [N, D] of any schema, which are all three parts of the data."""
  config = setup.with_horizon(config_lib.resolve(configured(variant, **fields)), 1000)
  source = arrays.table_source({"x": x}, config.train.batch_size, True)
  meta = {"schema": schema.to_json(states), "steps_per_epoch": num_steps_per_epoch, "entropies": None, "table": {}}
  return start(config, Splits(source, source, source, meta))


def start(config: Any, splits: Splits) -> Case:
  """A codec at its start."""
  problem, experiment = codec.make_problem(config, splits.meta), codec.make(config, splits.meta)
  init = step.make_init(experiment, splits.train, codec.INIT_ROWS)
  state = jax.jit(init, compiler_options=QUICK)(KEY, splits.train.data)
  return Case(config, splits, problem, experiment, state, apply.make_coder(problem))


def trained(case: Case, num_steps: int, over=parallel.over_whole) -> tuple[Case, dict]:
  """(the codec after so many steps, sums and counts of its metrics over them)."""
  one_step = step.make_one_step(case.experiment, case.splits.train, over, "halt")
  totals = step.zero_totals(jax.eval_shape(one_step, case.state, case.splits.train.data,
                                           step.stream_keys(case.state))[1])
  repeat = jax.jit(step.make_repeat(one_step), compiler_options=QUICK)
  state, totals = repeat(case.state, totals, case.splits.train.data, num_steps)
  return case._replace(state=state), totals
