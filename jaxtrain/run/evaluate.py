"""Evaluation of the parts of a split, the best state, and the assessment of a state in named parts.

`run` is a `single.Run`, `ledger` the books of one run or of one member of a sweep.
"""

import math
import os
from typing import Any, Callable

import jax
import numpy as np

from jaxtrain import jsonable, rng, step as step_lib
from jaxtrain.errors import UserError
from jaxtrain.run import checkpoints, feed as feed_lib, metrics, packing
from jaxtrain.workdir import atomic, jsonfile, quality, reading, schema

PARTS = ("train", "val", "test")
MOST_SHOWN, MOST_EXPLAINED = 6, 3  # scalars of a part in a line; those without key results are explained
AGAIN = ".again"  # JSON, of eval/, while all is assessed again: the state, and the parts that are done


def evaluator(run, part: str, bucket: int) -> tuple[Callable, Any]:
  """(compiled `evaluate` of `step.make_evaluate`, zero totals) of a part's bucket of shapes, made at first use."""
  if (part, bucket) not in run.evaluators:
    source = getattr(run.splits, part)
    if source.num_batches is None:
      raise UserError(f"experiment {run.config.experiment}: its {part} source must state num_batches")
    one, evaluate = step_lib.make_evaluate(run.experiment.eval_step, source.in_bucket(bucket), run.devices.over)
    keys = rng.evaluation_keys(run.state.key, part)
    if part not in run.feeds:
      run.feeds[part] = feed_lib.Feed(source, run.devices.put, run.devices.put_slices, keys[0])
    totals = jax.eval_shape(run.devices.compile(one), run.state, source.data, keys, np.int32(0))
    run.evaluators[part, bucket] = (run.devices.compile(evaluate), run.devices.put(step_lib.zero_totals(totals)))
  return run.evaluators[part, bucket]


def evaluate_part(run, state, part: str) -> dict[str, float]:
  """Means of the evaluation metrics over a part."""
  source, keys = getattr(run.splits, part), rng.evaluation_keys(state.key, part)
  _, totals = evaluator(run, part, 0)
  step, feed = 0, run.feeds[part]
  while step < source.num_batches:
    evaluate, _ = evaluator(run, part, source.bucket(step))
    stop = source.end_of_bucket(step, feed.end(step, source.num_batches))
    totals = evaluate(state, totals, feed.data(step), keys, np.int32(step), np.int32(stop))
    feed.fetch_ahead()
    step = stop
  return metrics.finish(totals, run.experiment.summarise)


def evaluated_names(run) -> tuple[str, ...]:
  """Names of the metrics that evaluating a part of this run gives."""
  parts = [part for part in PARTS[1:] if getattr(run.splits, part) is not None]
  return tuple(metrics.names_of(evaluator(run, parts[0], 0)[1], run.experiment.summarise)) if parts else ()


def best_state(run) -> Any:
  """The best state, of process 0 on all."""
  return run.devices.put(packing.of_first(run.state, lambda: own_best_state(run)))


def own_best_state(run) -> Any:
  """The best state: from memory or its checkpoint; the current one where nothing was evaluated."""
  best_step = run.ledger.best_step
  if run.best_copy is not None:
    return run.best_copy
  if best_step is None or best_step == run.step or not run.checkpoints:
    return run.state
  try:
    leaves, _ = checkpoints.read(run.checkpoints.folder, best_step)
  except UserError as error:
    run.ledger.console.warn(f"jaxtrain: the best state is lost: {error}; instead of it the state of step "
                            f"{run.step:,} is assessed")
    return run.state
  return packing.fill(run.state, leaves, "state")


def between_parts(watchdog, stop, left: Callable) -> Callable[[], None]:
  """What is done after each part: the watchdog is told, and the time budget is looked at."""
  def beat():
    watchdog.beat()
    if reason := stop.reason():
      raise left(reason)
  return beat


def parts_to_assess(ledger) -> list[str]:
  """Names of the parts of an experiment's assessment whose split there is. Raises ValueError for names that clash."""
  names = list(ledger.experiment.assess or ())
  for name in names:
    if name in PARTS and any(other.startswith(f"{name}-") for other in names):
      raise ValueError(f"assess: {name!r} and others of its split; name it {name}-SOMETHING")
    if name.partition("-")[0] not in PARTS:
      raise ValueError(f"assess: {name!r} names no split; allowed {', '.join(f'{part}-NAME' for part in PARTS)}")
  return [name for name in names if getattr(ledger.splits, name.partition("-")[0]) is not None]


def assess(ledger, state: Any, again: bool = True, beat: Callable[[], None] = lambda: None) -> dict[str, dict]:
  """The experiment's heavy evaluation of a state, part by part; each is written to eval/ as it ends.

  Args:
    ledger: of the run.
    state: arrays of this process.
    again: whether to repeat parts whose files are of this very state. Those that an assessment which was stopped has
      repeated are done; `end_again` says that it is no longer under way.
    beat: called between two parts.

  Returns:
    part -> its scalars.
  """
  names = parts_to_assess(ledger)
  if not names or not ledger.writes:
    return {}
  folder = os.path.join(ledger.workdir, "eval")
  if not os.path.isdir(folder):
    os.mkdir(folder)  # a workdir that is gone stays so
  digest, found = packing.digest(state), {}
  head = {"step": int(state.step), "digest": f"sha256:{digest}"}
  begun = (jsonfile.read_object(os.path.join(folder, AGAIN), schema.AGAIN) if again else None) or {}
  repeated = list(begun["parts"]) if all(key in begun and begun[key] == value for key, value in head.items()) else []
  for name in names:
    path = os.path.join(folder, f"{name}.json")
    done = done_before(path) if not again or name in repeated else None
    lacks = ledger.config.log.save_artifacts and not os.path.exists(f"{path[:-len('.json')]}.npz")
    if done is not None and not lacks and all(key in done and done[key] == value for key, value in head.items()):
      ledger.console.say(f"jaxtrain: {name} is assessed already (--mode=eval does it again)")
      found[name] = done["scalars"]
    else:
      key = rng.stream_key(state.key, f"assess_{name.partition('-')[0]}")
      scalars, arrays = ledger.experiment.assess[name](state, ledger.splits, key)
      if ledger.config.log.save_artifacts:
        with atomic.replacing(f"{path[:-len('.json')]}.npz") as fresh, open(fresh, "wb") as file:
          np.savez_compressed(file, **arrays)
      found[name] = jsonable.clean(scalars)
      write_part(ledger, path, name, head, found[name])
      say_assessed(ledger, name, head["step"], scalars)
    if again:
      repeated = sorted({*repeated, name})
      jsonfile.write_json(os.path.join(folder, AGAIN), head | {"parts": repeated})
    write_union(ledger, folder, head, name.partition("-")[0], found)
    if name != names[-1]:
      beat()
  return found


def done_before(path: str) -> dict | None:
  """What the file of a part says; None where there is none, or one that is damaged: the part is done again."""
  try:
    return reading.read_part(path, strict=True)
  except (OSError, ValueError):
    return None


def end_again(workdir: str) -> None:
  """Says that what was assessed again is done, pictures included: the next time it is all done again."""
  path = os.path.join(workdir, "eval", AGAIN)
  if os.path.exists(path):
    os.remove(path)


def write_part(ledger, path: str, name: str, head: dict, scalars: dict) -> None:
  """Writes the JSON file of a part: what it is of, its scalars, and what they mean."""
  record = {"split": name} | head | {"scalars": scalars, "metrics": ledger.declared_metrics()}
  jsonfile.write_json(path, schema.check(record, schema.PART, name))


def write_union(ledger, folder: str, head: dict, split: str, found: dict[str, dict]) -> None:
  """Writes eval/<split>.json: the scalars of all parts of a split that are done."""
  parts = [name for name in found if name.startswith(f"{split}-")]
  if parts:
    scalars = {key: value for name in parts for key, value in found[name].items()}
    write_part(ledger, os.path.join(folder, f"{split}.json"), split, head, scalars)


def say_assessed(ledger, name: str, step: int, scalars: dict) -> None:
  """The first scalars of a part in a line with their intervals: key results, or a few others and what they mean."""
  own = f"/{name.partition('-')[2]}"  # the suffix `/<part>` that a part appends to its scalars
  scalars = {key.removesuffix(own): value for key, value in scalars.items()}
  declared = ledger.declared_metrics()
  is_key = lambda name: name in declared and declared[name]["key"]
  names = sorted(scalars, key=lambda name: not is_key(name))
  ends = {f"{name}{end}" for name in scalars for end in (quality.HALF, *quality.ENDS)}
  ends_of = lambda name: quality.ends_of(name, scalars, reading.description(declared, name))
  names = [name for name in names if "/" not in name and name not in ("rows", *ends)
           and isinstance(scalars[name], (int, float))]
  said = lambda name: "" if is_key(names[0]) else reading.description(declared, name).get("meaning", "")
  shown = [quality.with_ends(name, scalars[name], ends_of(name)) + (f" [{said(name)}]" if said(name) else "")
           for name in names[:MOST_SHOWN if names and is_key(names[0]) else MOST_EXPLAINED]]
  what = declared["rows"]["unit"] if "rows" in declared else "rows"  # such as tasks, each of which has rows
  rows = f", {scalars['rows']:,} {what}" if "rows" in scalars else ""
  anew = draws_anew(ledger, name.partition("-")[0], step, scalars)
  drawn = ", by samples of its own (cite these, not those of facts/scalars.csv)" if anew else ""
  ledger.console.say(f"jaxtrain: assessed {name}{rows}{drawn}: {', '.join(shown)}"
                     + f"; {len(names) - len(shown)} more in eval/{name}.json" * (len(names) > len(shown)))
  for text in (value for value in scalars.values() if isinstance(value, str)):
    ledger.console.say(f"jaxtrain: {name}: {text}")


def draws_anew(ledger, split: str, step: int, scalars: dict) -> bool:
  """Whether a metric differs from that of the evaluation of the same state, which has random numbers of its own."""
  if split == "train":  # its rows are means over the states of an epoch
    return False
  rows = [row for row in ledger.facts.rows if (row["split"], row["step"]) == (split, step)]
  return any(differs(value, reading.value_of(row, name)) for row in rows for name, value in scalars.items())


def differs(value: Any, other: float | None) -> bool:
  """Whether a scalar of an assessment is another number than that of an evaluation; not where either has none."""
  return other is not None and isinstance(value, (int, float)) and not math.isclose(value, other, rel_tol=1e-3,
                                                                                    abs_tol=1e-6)


def left_to_say(test: dict[str, float] | None, found: dict[str, dict]) -> dict[str, float] | None:
  """Test metrics of an evaluation without those that an assessment has another value of, which is the one to cite."""
  assessed = [scalars for name, scalars in found.items() if name.partition("-")[0] == "test"]
  return test and {name: value for name, value in test.items()
                   if not any(differs(scalars.get(name), value) for scalars in assessed)}


def report_assessed(ledger, found: dict[str, dict]) -> None:
  """Facts of an assessment during training: an event for each part, with its scalars that are numbers."""
  for name, scalars in found.items():
    numbers = {key: float(value) for key, value in scalars.items()
               if "/" not in key and jsonable.number(value) is not None}
    ledger.facts.event("on_eval", epoch=ledger.epoch, step=ledger.step, split=name, losses={}, metrics=numbers,
                       is_best=False)

