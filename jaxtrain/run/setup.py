"""What follows from a config and its data alone: sources, experiment, plan, devices, and the traced step.

Training, evaluation, `--mode=check` and sweeps all start here; `make_experiment` is the one place where an experiment
is made.
"""

import fnmatch
import functools
from typing import Any, Callable, Mapping, NamedTuple

import chex
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxtrain import config as config_lib, ensemble, step as step_lib
from jaxtrain.devices import backend, parallel, processes
from jaxtrain.errors import UserError
from jaxtrain.run import cadence, metrics
from jaxtrain.types import Experiment, Splits


class Parts(NamedTuple):
  """What follows from a config and its data alone, before anything is computed.

  Attributes:
    init: `(root key, data of the training source) -> state`.
    sample: name -> [dtype, shape] of the rows that `init` looks at, for whoever restores a state without the data.
    abstract, totals: shapes of the state and of a step's metrics.
    one_steps: the guarded step, see `step.make_one_step`, for each bucket of shapes of the training source.
    threads: threads that the CPU backend was given; 0 = all.
  """
  config: Any
  splits: Splits
  plan: cadence.Plan
  experiment: Experiment
  devices: parallel.Parallel
  threads: int
  init: Callable
  sample: dict[str, list]
  abstract: Any
  one_steps: tuple[Callable, ...]
  totals: Any


def assemble(config, one_device: bool = False) -> Parts:
  """Loads the data, makes the experiment, starts the devices and traces a step.

  Args:
    config: resolved.
    one_device: trace for a single device whatever there is: a member of several that are spread over the devices.

  Raises:
    UserError: data, cadences, devices or batch size do not fit the config.
  """
  module = config_lib.load_experiment(config.experiment)
  splits = module.load(config)
  plan = cadence.make(config, splits.train.num_batches)
  config = with_horizon(config, plan.total)
  check_parts(config, splits)
  (experiment, init), num_rows = traced(config, splits, {}), config_lib.declared(module, "INIT_ROWS")
  key = jax.eval_shape(lambda: jax.random.key(0))
  sample = jax.eval_shape(lambda data: step_lib.first_rows(splits.train, data, jax.random.key(0), num_rows),
                          shapes(splits.train.data))
  abstract = jax.eval_shape(init, key, shapes(splits.train.data))
  check_state(abstract, config.train.num_members if experiment.guards_members else 0)
  uses = splits.meta["uses_per_row"] if "uses_per_row" in splits.meta else 1  # of each parameter, such as per token
  threads = backend.start_devices(config.parallel, 6.0 * count_params(abstract) * config.train.batch_size * uses)
  if config.train.microbatch == -1:
    if processes.several():  # they would have to compile together
      raise UserError("config.train.microbatch: got -1, allowed with one process; choose the rows")
    rows = largest_microbatch(config, splits, experiment, abstract)
    config = config_lib.with_values(config, {"train.microbatch": rows})
  devices, one_steps, totals = trace(config, splits, experiment, abstract, one_device)
  check_monitors(config, experiment, splits, devices, abstract, totals)
  described = {name: [str(leaf.dtype), list(leaf.shape)] for name, leaf in sample.items()}
  return Parts(config, splits, plan, experiment, devices, threads, init, described, abstract, one_steps, totals)


def check_one_program(config, splits: Splits, where: str) -> None:
  """Refuses data that one program cannot hold as an argument, whose batches have several shapes or stay in a file."""
  sources = [source for source in splits[:3] if source is not None]
  if any(source.buckets for source in sources):
    raise UserError(f"experiment {config.experiment}: its batches have several shapes, allowed one with {where}")
  if any(source.window_steps for source in sources):
    raise UserError(f"config.data.out_of_core: got True, allowed False with {where}")


def traced(config, splits: Splits, hypers: Mapping[str, Any]) -> tuple[Experiment, Callable]:
  """The experiment with tracers in its traceable fields, and its `(root key, data) -> fresh state`."""
  experiment = make_experiment(config, splits.meta, hypers)
  num_rows = config_lib.declared(config_lib.load_experiment(config.experiment), "INIT_ROWS")
  return experiment, step_lib.make_init(experiment, splits.train, num_rows)


def check_state(state: Any, num_members: int) -> None:
  """Refuses, at trace, a state that the loop cannot drive; with members, each has a guard of its own."""
  try:
    chex.assert_shape([state.step, state.key], ())
    chex.assert_type(state.step, jnp.int32)
    chex.assert_shape(list(jax.tree.leaves(state.guard)), (num_members,) if num_members else ())
  except (AssertionError, AttributeError) as error:
    raise UserError("the state that init gives needs step [] int32, key [], guard of step.init_guard(): "
                    f"{str(error).splitlines()[0]}") from None


def trace(config, splits: Splits, experiment: Experiment, abstract,
          one_device: bool = False) -> tuple[parallel.Parallel, tuple[Callable, ...], Any]:
  """(devices, guarded steps by bucket, shapes of their metrics). Raises UserError for a batch that does not divide."""
  batch_size = config.train.batch_size
  devices = parallel.one_device() if one_device else parallel.make(
      config.parallel, batch_size, config.eval.batch_size or batch_size, config.train.microbatch,
      experiment.batch_parts)
  parallel.check_chunk_rows(splits.train.num_rows, batch_size, devices.num_chunks * experiment.batch_parts)
  one_steps = tuple(jax.jit(step_lib.make_one_step(experiment, splits.train.in_bucket(k), devices.over,
                                                   config.train.on_nonfinite))
                    for k in range(len(splits.train.buckets) or 1))
  totals = jax.eval_shape(devices.compile(one_steps[0]), abstract, shapes(splits.train.data),
                          jax.eval_shape(step_lib.stream_keys, abstract))[1]
  return devices, one_steps, totals


def compile_step(devices: parallel.Parallel, one_step: Callable, abstract, totals, data) -> Any:
  """The compiled call of many steps."""
  repeat = devices.compile(step_lib.make_repeat(one_step), (0, 1))
  return repeat.lower(abstract, totals, data, jax.ShapeDtypeStruct((), jnp.int32)).compile()


def largest_microbatch(config, splits: Splits, experiment: Experiment, abstract) -> int:
  """Rows of the largest micro-batch whose step fits into the memory that is free, as XLA counts it before it runs.

  Raises:
    UserError: none fits.
  """
  batch_size, data, refused = config.train.batch_size, shapes(splits.train.data), []
  # Room for what XLA does not count: its own workspace, the next window of data.
  needed, room = None, int(0.9 * backend.free_bytes())
  for rows in [n for n in range(batch_size, 0, -1) if batch_size % n == 0]:
    try:
      devices, one_steps, totals = trace(config_lib.with_values(config, {"train.microbatch": rows}), splits, experiment,
                                         abstract)
    except UserError as error:  # too small to divide over devices, or for BatchNorm
      refused.append(error)
      continue
    memory = compile_step(devices, one_steps[-1], abstract, totals, data).memory_analysis()  # the largest shapes
    needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes  # results lie in the arguments' memory
    if needed <= room:
      return rows
  if needed is None:
    raise refused[0]
  raise UserError(f"config.train.microbatch: got -1, and no divisor of config.train.batch_size = {batch_size} fits: "
                  f"the smallest needs {needed / 2**20:,.0f} MiB, {room / 2**20:,.0f} MiB are free")


def check_monitors(config, experiment: Experiment, splits: Splits, devices: parallel.Parallel, abstract,
                   totals) -> None:
  """Refuses a monitored metric that training and evaluation do not give, before anything is trained."""
  check_plateaus(config, experiment)
  watched = {"train.monitor": config.train.monitor}
  watched |= {f"{section}.plateau.monitor": plateau.monitor for section, plateau in plateaus(config).items()}
  names = [f"train_{name}" for name in metrics.names_of(totals, experiment.summarise)] + ["val_loss"]
  if all(name in names for name in watched.values()):
    return  # most runs: no need to trace the evaluation
  if splits.val is not None:
    one, _ = step_lib.make_evaluate(experiment.eval_step, splits.val, devices.over)
    step = jax.ShapeDtypeStruct((), jnp.int32)
    sums = jax.eval_shape(devices.compile(one), abstract, shapes(splits.val.data), (abstract.key, abstract.key),
                          step)
    names += [f"val_{name}" for name in metrics.names_of(sums, experiment.summarise) if name != "loss"]
  for field, name in watched.items():
    if name not in names:
      raise UserError(f"config.{field}: got {name!r}, allowed {', '.join(sorted(names))}")


def check_plateaus(config, experiment: Experiment) -> None:
  """Refuses a plateau on what the experiment is not told of, or on a metric of which more is better: less is progress.
  """
  declared = config_lib.declared(config_lib.load_experiment(config.experiment), "METRICS")
  for section, plateau in plateaus(config).items():
    name = plateau.monitor.partition("_")[2]
    found = [metric for pattern, metric in declared.items() if fnmatch.fnmatchcase(name, pattern)]
    if plateau.monitor != "train_loss" and experiment.observe is None:
      raise UserError(f"config.{section}.plateau.monitor: got {plateau.monitor!r}, allowed train_loss, because "
                      f"{config.experiment} does not look at evaluations")
    if found and found[0].direction == "higher":
      raise UserError(f"config.{section}.plateau.monitor: got {plateau.monitor!r}, of which more is better; allowed "
                      "metrics of which less is better, such as val_loss")


def shapes(tree: Any) -> Any:
  """Shapes and dtypes of a tree of arrays."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def with_horizon(config, total: int):
  """The config with the horizon of each schedule filled in: the run's length where none is set."""
  fields = [f"{section}.decay_steps" for section in config_lib.optimisers(config)]
  return config_lib.with_values(config, {field: total for field in fields if not config_lib.lookup(config, field)})


def plateaus(config) -> dict[str, Any]:
  """The plateaus that are switched on, by the section of their optimiser."""
  found = {section: config_lib.lookup(config, section).plateau for section in config_lib.optimisers(config)}
  return {section: plateau for section, plateau in found.items() if plateau.factor > 0}


def check_parts(config, splits: Splits) -> None:
  """Refuses a plateau that watches a part which the split does not have."""
  for section, plateau in plateaus(config).items():
    if plateau.monitor.startswith("val_") and splits.val is None:
      why = f"config.data.split.kind={config.data.split.kind} leaves" if "data" in config and "split" in config.data \
          else "the experiment has"
      raise UserError(f"config.{section}.plateau.monitor: got {plateau.monitor!r}, allowed train_loss, because {why} "
                      "no validation part")


def count_params(state: Any) -> int:
  """Number of trainable parameters of a state with `params`; of all its float leaves where there are none."""
  tree = state.params if hasattr(state, "params") else state
  return sum(leaf.size for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating))


def make_experiment(config: ConfigDict, meta: Mapping[str, Any],
                    hypers: Mapping[str, Any] | None = None) -> Experiment:
  """The experiment of a config and what is known of its data: of one member, or an ensemble.

  `hypers` are tracers for traceable fields, by dotted key.
  """
  if hypers:
    config = config_lib.substitute(config, hypers)
  one = config_lib.load_experiment(config.experiment).make(config, meta)
  guard = functools.partial(step_lib.guard_step, on_nonfinite=config.train.on_nonfinite)
  return ensemble.wrap(one, config.train.num_members, guard) if config.train.num_members > 1 else one
