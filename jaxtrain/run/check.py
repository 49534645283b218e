"""`--mode=check`: what a run of a config would be, told of its data, its size and its time. It writes nothing."""

import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import config as config_lib, rng, step as step_lib
from jaxtrain.data import overview
from jaxtrain.devices import backend
from jaxtrain.run import feed, fits, packing, setup

MOST_FLOPS = {"cpu": 1e10}  # of a step that is tried: seconds of one core
OTHER_FLOPS = 1e13  # likewise on accelerators
TRIED_SECONDS = 0.2  # of steps
MOST = 10  # names in a line
LONGEST_FLAG = 400  # letters of a flag that is printed for a person
UNITS = ((86400, "days"), (3600, "h"), (60, "min"))


def describe(config) -> dict[str, Any]:
  """What a run of this config would be; all keys are snake_case, and it can be held by JSON.

  The data are looked at, the step is compiled, and where that takes seconds some steps are tried and thrown away.

  Returns:
    `data` (see `data.overview`, and `may_mask`: whether rows that are dropped for missing features could be used),
    sizes and shapes, FLOPs and memory of a step, and its time: `seconds_per_step` of
    `timed_steps`, `expected_seconds_per_epoch` and `expected_seconds`, each None where `not_timed` says why; and
    `setup_seconds` of reading and compiling.

  Raises:
    UserError: as a run would at its start.
  """
  began = time.perf_counter()
  parts = setup.assemble(config_lib.resolve(config))
  data, step = setup.shapes(parts.splits.train.data), jax.ShapeDtypeStruct((), jnp.int32)
  batch_at = parts.splits.train.in_bucket(len(parts.one_steps) - 1).batch_at
  batch = jax.eval_shape(batch_at, data, step, jax.eval_shape(lambda: jax.random.key(0)))
  compiled = setup.compile_step(parts.devices, parts.one_steps[-1], parts.abstract, parts.totals, data)
  setup_seconds = time.perf_counter() - began
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
  own = parts.config.data if "data" in parts.config else {}
  found = overview.describe(parts.splits) | {"may_mask": "incomplete" in own and own["incomplete"] == "drop"}
  described = {"data": found, "experiment": parts.config.experiment,
               "parameters": setup.count_params(parts.abstract), "steps": parts.plan.total,
               "steps_per_epoch": parts.plan.steps_per_epoch, "batch_size": parts.config.train.batch_size,
               "devices": f"{parts.devices.num_devices} x {jax.devices()[0].device_kind}",
               "mode": parts.config.parallel.mode, "cpu_threads": parts.threads or "all",
               "batch": leaves(batch), "state": leaves(parts.abstract), "metrics": sorted(parts.totals),
               "state_bytes": fits.num_bytes(parts.abstract),
               "flops_per_step": cost["flops"] if "flops" in cost else None,
               "argument_bytes": memory.argument_size_in_bytes if memory is not None else None,
               "temporary_bytes": memory.temp_size_in_bytes if memory is not None else None}
  described |= expect(parts, compiled, described) | {"setup_seconds": setup_seconds}
  said = parts.experiment.describe() if parts.experiment.describe is not None else {}
  return described | {"notes": list(parts.experiment.notes),
                      "more": [{"name": name, "value": value} for name, value in said.items()]}


def leaves(tree: Any) -> list[dict[str, Any]]:
  """Name, type and shape of each leaf."""
  return [{"name": name, "dtype": str(leaf.dtype), "shape": list(leaf.shape)}
          for name, leaf in packing.named_leaves(tree).items()]


def expect(parts: setup.Parts, compiled: Any, described: dict[str, Any]) -> dict[str, Any]:
  """How long the steps of the run will take, by some that are tried."""
  why = reason_not_to_try(parts, described)
  seconds, count = (None, 0) if why else time_steps(parts, compiled)
  times = lambda number: None if seconds is None or number is None else seconds * number
  return {"seconds_per_step": seconds, "timed_steps": count, "not_timed": why,
          "expected_seconds_per_epoch": times(parts.plan.steps_per_epoch), "expected_seconds": times(parts.plan.total)}


def reason_not_to_try(parts: setup.Parts, described: dict[str, Any]) -> str | None:
  """Why no step is tried; None where one may be."""
  flops, platform = described["flops_per_step"], jax.devices()[0].platform
  if parts.plan.total == 0:
    return "there is nothing to train"
  if flops is None or flops > (MOST_FLOPS[platform] if platform in MOST_FLOPS else OTHER_FLOPS):
    return "a step takes too long to be tried here" if flops else "the cost of a step is not known"
  needed = [described[name] for name in ("argument_bytes", "temporary_bytes")]
  if None in needed or sum(needed) * parts.devices.num_devices > 0.5 * backend.free_bytes():
    return "a step takes too much memory to be tried here"
  return None


def time_steps(parts: setup.Parts, compiled: Any) -> tuple[float, int]:
  """(seconds of a step, steps that were timed): the first ones of the run, without the first call.

  Of batches of several shapes the largest are taken.
  """
  key, devices = rng.root_key(parts.config.seed), parts.devices
  fed = feed.Feed(parts.splits.train, devices.put, devices.put_slices, rng.stream_key(key, "data"))
  data, end = fed.data(0), fed.end(0, parts.plan.total)
  state = devices.put(devices.compile(parts.init)(key, data))
  totals = devices.put(step_lib.zero_totals(parts.totals))
  done, size, count, spent = 0, 1, 0, 0.0
  while done < end and spent < TRIED_SECONDS:
    size = min(size, end - done, parts.plan.next_due(done) - done)  # no more than a run does in one call
    began = time.perf_counter()
    state, totals = jax.block_until_ready(compiled(state, totals, data, np.int32(size)))
    if done or end == 1:  # the first call is slow
      count, spent = count + size, spent + time.perf_counter() - began
    done, size = done + size, 2 * size
  return spent / count, count


def lines(described: dict[str, Any]) -> list[str]:
  """The same for a person: groups of `key: value` lines: the data, the run, and the largest of its shapes."""
  groups = {"Data": data_lines(described["data"]),
            "What the experiment says": [f"{one['name']}: {one['value']}" for one in described["more"]],
            "Columns worth a look": column_lines(described["data"]), "Training": training_lines(described),
            "Shapes": shape_lines(described)}
  return [line for title, group in groups.items() if group for line in ("", title, *(f"  {one}" for one in group))][1:]


def shape_lines(described: dict[str, Any]) -> list[str]:
  """The largest leaves of batch and state, and how many others there are."""
  leaves = [(kind, leaf) for kind in ("batch", "state") for leaf in described[kind]]
  leaves.sort(key=lambda pair: -math.prod(pair[1]["shape"]))
  found = [f"{kind} {leaf['name']}: {leaf['dtype']}{leaf['shape']}" for kind, leaf in leaves[:MOST]]
  return found + [f"{len(leaves) - MOST:,} smaller ones: --json prints them"] * (len(leaves) > MOST)


def few(words: list[str]) -> str:
  """The first words of a list, and how many more there are."""
  return ", ".join(words[:MOST]) + (f" and {len(words) - MOST:,} more" if len(words) > MOST else "")


def data_lines(data: dict[str, Any]) -> list[str]:
  """Where rows come from, how many there are in what part, and the classes."""
  found = [f"source: {data['source']}"] if data["source"] is not None else []
  if data["stream"]:
    found.append("rows: a stream, made as training goes; it has no end and no epochs")
  else:
    words = [f"{data['rows_read']:,} read", f"{data['rows_kept']:,} kept"]
    masked = data["rows_incomplete"] is not None
    remedy = " (--config.data.incomplete=mask uses them)" * data["may_mask"]
    why = "dropped, without any feature" if masked else f"dropped, with missing features{remedy}"
    each = (("rows_dropped", why),
            ("rows_incomplete", "with missing features, used by what they have"),
            ("rows_beyond_limit", "beyond config.data.row_limit"), ("rows_unlabelled", "without a label"),
            ("labels_hidden", "of training whose label is hidden by config.data.label_share"))
    found.append("rows: " + ", ".join(words + [f"{data[name]:,} {what}" for name, what in each if data[name]]))
  cells = [f"{one['column']} {one['cells']:,}" for one in data["missing"]]
  found += [f"missing cells: {few(cells)}"] * bool(cells)
  for one in data["parts"]:
    rows = "without end" if one["rows"] is None else f"{one['rows']:,} rows"
    found.append(f"{one['part']}: {rows}" + (f" in {one['groups']:,} groups" if one["groups"] is not None else ""))
  return found + class_lines(data["classes"], [one["part"] for one in data["parts"]])


def class_lines(classes: list[dict[str, Any]], parts: list[str]) -> list[str]:
  """The classes with their rows, most first, and those of each part where there are several."""
  if not classes:
    return []
  in_parts = lambda one: f" ({' + '.join(format(one[part], ',') for part in parts)})" if len(parts) > 1 else ""
  shown = [f"{one['name']} {one['rows']:,}{in_parts(one)}" for one in sorted(classes, key=lambda one: -one["rows"])]
  what = f"{len(classes):,} classes" + (f", rows of {' + '.join(parts)}" if len(parts) > 1 else "")
  return [f"{what}: {few(shown)}"]


def column_lines(data: dict[str, Any]) -> list[str]:
  """Warnings, and columns that are constant, the same, or skewed."""
  found = [f"warning: {words}" for words in data["warnings"]]
  if data["constant_columns"]:
    found.append(f"constant in the training rows, they tell nothing: {few(data['constant_columns'])}")
  same = [" = ".join(names[:MOST]) + " = ..." * (len(names) > MOST) for names in data["duplicate_columns"]]
  found += [f"the same but for their units: {few(same)}"] * bool(same)
  skewed = [f"{one['column']} ({one['transform']})" for one in data["skewed_columns"]]
  if skewed:
    flag = data["suggested_flag"]
    found += [f"skewed, with the transform that suits: {few(skewed)}",
              f"to use these transforms: {flag if len(flag) <= LONGEST_FLAG else '--json prints the flag'}"]
  return found


def training_lines(described: dict[str, Any]) -> list[str]:
  """What a run would be: its size, memory, and time."""
  epochs = described["steps_per_epoch"]
  steps = f"{described['steps']:,} of {described['batch_size']:,} rows" + (f", {epochs:,} an epoch" if epochs else "")
  mib = lambda size: f"{size / 2**20:,.1f} MiB"
  memory = f"{mib(described['data']['data_bytes'])} of data, {mib(described['state_bytes'])} of state"
  if described["temporary_bytes"] is not None:
    memory += f", {mib(described['temporary_bytes'])} more in a step"
  flops = described["flops_per_step"]
  return [f"experiment: {described['experiment']}", f"parameters: {described['parameters']:,}", f"steps: {steps}",
          f"metrics: {few(described['metrics'])}",
          f"devices: {described['devices']}, mode {described['mode']}, CPU threads {described['cpu_threads']}",
          f"memory: {memory}", f"computation: {'not known' if flops is None else f'{flops:,.0f} FLOPs a step'}",
          f"expected time: {time_words(described)}", *(f"note: {words}" for words in described["notes"])]


def time_words(described: dict[str, Any]) -> str:
  """How long the steps will take, and how that is known."""
  if described["not_timed"]:
    return f"not known, because {described['not_timed']}"
  epoch, count = described["expected_seconds_per_epoch"], described["timed_steps"]
  each = f", {duration(epoch)} an epoch" if epoch is not None else ""
  tried = f"{count:,} step{'s' * (count > 1)} timed here after compiling"
  return (f"about {duration(described['expected_seconds'])} of steps{each} ({tried}), after about "
          f"{duration(described['setup_seconds'])} of reading and compiling; evaluation, saving and figures are not "
          "counted, and take most of the time of a short run")


def duration(seconds: float) -> str:
  """A time in the largest unit of which there are two or more."""
  return next((f"{seconds / size:.3g} {unit}" for size, unit in UNITS if seconds >= 2 * size), f"{seconds:.2g} s")
