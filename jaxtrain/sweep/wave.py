"""Members of a sweep trained as one program: one loop, and facts, best, early stop and checkpoints for each of them.

The loop is that of `loop.py` with an axis of members: a member that stops early, or halts at a step that is not finite,
keeps its state while the others go on. While a wave trains it has one checkpoint of all its members, so that a kill
costs each of them the same steps; at its end every member gets the files of a run of its own, which other commands use
as such. Facts of a member are those of a run alone (times are its share of the wave's).

**Departs** from DESIGN 3, which lists no such module: `loop.py` is read top to bottom for one run.
"""

import dataclasses
import os
import shutil
import time
import uuid
from typing import Any, Callable

import jax
import numpy as np

from jaxtrain import config as config_lib, errors, jsonable, loop, rng, step as step_lib
from jaxtrain.devices import parallel
from jaxtrain.errors import Stopped
from jaxtrain.run import checkpoints as checkpoints_lib, evaluate, metrics, setup, start as start_lib, stops
from jaxtrain.run.cadence import Pace
from jaxtrain.run.console import Console
from jaxtrain.sweep.groups import Spec
from jaxtrain.sweep.program import Compiled
from jaxtrain.workdir import facts as facts_lib

KEPT = ("best_value", "best_step", "num_bad_evals", "last_means", "step", "saved_step")  # of a member, as JSON


@dataclasses.dataclass
class Wave:
  """Members in training. Trees have a leading axis of places; the first ones are the members', in order."""
  compiled: Compiled
  specs: list[Spec]
  runs: list[start_lib.Run]
  checkpoints: checkpoints_lib.Checkpoints
  say: Callable[[str], None]
  hypers: dict[str, jax.Array]
  data: dict[str, Any]  # part -> on the devices
  states: Any  # None until they are fresh or restored, as totals and best
  totals: Any
  best: Any  # state and totals at each member's best
  best_records: list[dict | None]  # what the checkpoint of that best will remember
  active: np.ndarray  # [places] bool: still training
  failures: dict[int, tuple[int, str]]  # place -> exit code that it would have had alone, and why
  step: int = 0
  saved: int = -1  # step of the newest checkpoint

  def training(self) -> list[tuple[int, start_lib.Run]]:
    """Places and runs that still train."""
    return [(place, run) for place, run in enumerate(self.runs) if self.active[place]]

  def mask_of_active(self) -> jax.Array:
    """[places] bool, on the devices: who still trains."""
    return self.compiled.members.put(self.active.copy())

  def mask(self, places) -> jax.Array:
    """[places] bool, on the devices."""
    return self.compiled.members.put(np.isin(np.arange(self.compiled.size), list(places)))


def train(compiled: Compiled, specs: list[Spec], parts: list, folder: str, stop: stops.Stop,
          say: Callable[[str], None], done: set[int], on_done: Callable[[int], None]) -> dict[int, tuple[int, str]]:
  """Trains a wave, or goes on with it.

  Args:
    compiled: functions of the members' group, for at least so many.
    specs, parts: the members and what follows from their configs.
    folder: of the wave's own checkpoints.
    stop: when to leave.
    say: prints a line.
    done: numbers of members whose files are already whole.
    on_done: called with the number of a member once its files are whole.

  Returns:
    {number: (exit code, reason)} of those that failed.

  Raises:
    preempt.Stopped: asked to stop, and saved.
  """
  wave = open_wave(compiled, specs, parts, folder, say, done)
  try:
    fit(wave, stop)
    if wave.saved != wave.step:  # a kill from here on costs no step
      save(wave, in_facts=False)
    wave.checkpoints.wait()
    finish(wave, stop, done, on_done)
    return {specs[place].number: failure for place, failure in wave.failures.items()}
  finally:
    try:
      wave.checkpoints.close()
    finally:
      for run in wave.runs:
        start_lib.close(run)


def open_wave(compiled, specs, parts, folder, say, done: set[int]) -> Wave:
  """A wave that is ready to train: fresh, or as its newest usable checkpoint has it."""
  began = time.time()
  wave_runs = [make_run(spec, part, spec.number in done) for spec, part in zip(specs, parts)]
  host = {field: np.asarray([config_lib.lookup(run.config, field) for run in wave_runs], np.float32)
          for field in compiled.program.fields}
  each = [{field: values[k] for field, values in host.items()} for k in range(len(specs))]
  wave = Wave(compiled, specs, wave_runs, checkpoints_lib.Checkpoints(
      os.path.join(folder, "checkpoints"), keep_last=2, keep_best=0, mode="min",
      asynchronous=wave_runs[0].config.checkpoint.asynchronous), say, compiled.place(each) if each[0] else {},
              compiled.place_data(parts), None, None, None, [None] * len(specs),
              np.arange(compiled.size) < len(specs), {})
  skipped = restore(wave, done)
  if skipped is None:
    start(wave, each)
  for reason in skipped or ():
    say(f"jaxtrain: passed over {reason}")
  for run in wave_runs:
    run.facts.process(resume_step=wave.step, skipped_checkpoints=skipped or [], threads=parts[0].threads,
                      num_devices=compiled.num_devices, setup_seconds=time.time() - began)
    run.facts.close()
  return wave


def make_run(spec: Spec, parts, is_done: bool) -> start_lib.Run:
  """The run of a member, without state; one that is done writes nothing any more."""
  config, _ = start_lib.claim(spec.config, spec.workdir, "auto")
  config = start_lib.with_values(config, {"optim.decay_steps": parts.config.optim.decay_steps})
  experiment = setup.make_experiment(config, parts.splits.meta)
  os.makedirs(spec.workdir, exist_ok=True)
  facts = facts_lib.Facts(None if is_done else os.path.join(spec.workdir, "facts"), uuid.uuid4().hex)
  console = Console(False, None, silent=True)  # its log is opened at its end: hundreds of members are many files
  return start_lib.Run(config, spec.workdir, parts.splits, experiment, parallel.one_device(), parts.plan, facts, console,
                       None, None, {}, {}, time.time(), None, parts.totals)


def start(wave: Wave, each: list[dict[str, np.ndarray]]) -> None:
  """Fresh states of members with these traced fields, and the first files of each."""
  init, place = wave.compiled.init, wave.compiled.place
  states = [init(rng.root_key(run.config.seed), hypers) for run, hypers in zip(wave.runs, each)]
  totals = [step_lib.zero_totals(wave.compiled.program.parts.totals)] * len(states)
  wave.states, wave.totals = place(states), place(totals)
  wave.best = {"state": place(states), "totals": place(totals)}  # others: the first two are donated
  for spec, run, state in zip(wave.specs, wave.runs, states):
    run.state = state
    shutil.rmtree(os.path.join(spec.workdir, "checkpoints"), ignore_errors=True)  # of one that failed in its end
    start_lib.start_facts(run, None)
    run.facts.close()
    start_lib.write_config(run.config, spec.workdir, spec.origins)
    start_lib.write_process(spec.workdir, run.splits.meta)


def restore(wave: Wave, done: set[int]) -> list[str] | None:
  """Takes a wave's newest usable checkpoint up; returns why newer ones were passed over, None where there is none.

  Raises:
    UserError: there are checkpoints and none can be used.
  """
  parts, size = wave.compiled.program.parts, wave.compiled.size
  one = {"state": parts.abstract, "totals": parts.totals}
  found = wave.checkpoints.restore_newest(wave.compiled.shapes_of_all(one | {"best": one}))
  if found is None:
    return None
  step, trees, record, skipped = found
  trees = {name: wave.compiled.members.put(tree) for name, tree in trees.items()}
  wave.states, wave.totals, wave.best = trees["state"], trees["totals"], trees["best"]
  wave.step = wave.saved = step
  wave.checkpoints.drop_after(step)
  for place, (run, kept) in enumerate(zip(wave.runs, record["members"])):
    start_lib.check_same_data(run.workdir, record["meta"][kept["meta"]], run.splits.meta)
    for name in KEPT:
      setattr(run, name, kept[name])
    run.best_value = None if run.best_value is None else float(run.best_value)  # words where they are not finite
    run.last_means = {name: float(value) for name, value in run.last_means.items()}
    run.facts.run_id = kept["run_id"]
    wave.best_records[place] = kept["best"]
    if wave.specs[place].number not in done:
      run.facts.cut(kept["offsets"])
  wave.failures = {int(place): tuple(failure) for place, failure in record["failures"].items()}
  wave.active = np.isin(np.arange(size), record["active"])
  return skipped


def fit(wave: Wave, stop: stops.Stop) -> None:
  """Trains until the last step, the last early stop, or a request to leave."""
  plan, pace = wave.runs[0].plan, Pace()
  while wave.step < plan.total and wave.active.any():
    target = plan.next_due(wave.step)
    while wave.step < target and wave.active.any():
      reason = stop.reason(not pace.first)
      if reason:
        if wave.saved != wave.step:
          save(wave, in_facts=False)
        wave.checkpoints.wait()
        raise Stopped(f"{reason}: saved {len(wave.runs)} members at step {wave.step:,}; the same command goes "
                            "on")
      dispatch(wave, min(target, wave.step + pace.num_steps()), pace)
    due = plan.due(wave.step)
    if (due.epoch or due.evaluate) and wave.active.any():
      report(wave, due)
    if due.save and wave.step < plan.total:
      save(wave)


def dispatch(wave: Wave, target: int, pace: Pace) -> None:
  """Runs the steps up to `target` of all members in one compiled call, and waits for them."""
  began, num_steps = time.perf_counter(), target - wave.step
  wave.states, wave.totals = wave.compiled.repeat(wave.states, wave.totals, wave.hypers, wave.mask_of_active(),
                                                  wave.data["train"], np.int32(num_steps))
  guards = jax.device_get(wave.states.guard)  # the one host synchronisation of a dispatch
  seconds = time.perf_counter() - began
  pace.took(num_steps, seconds)
  wave.step += num_steps
  training = wave.training()
  for place, run in training:
    run.guard = jax.tree.map(lambda leaf: leaf[place], guards)
    if run.guard.stopped:
      fail(wave, place, loop.nonfinite(run.guard, sorted(run.totals)), errors.NONFINITE)
      continue
    run.step = wave.step
    run.segment_seconds += seconds / len(training)
    run.spent["train"] += seconds / len(training)
    run.segment_steps += num_steps


def fail(wave: Wave, place: int, error: Exception, code: int) -> None:
  """A member ends with an error; the others go on."""
  loop.record_exception(wave.runs[place], error)
  reason = errors.reason(error)  # without its hint: what a run alone may do about it is another base config to a sweep
  wave.failures[place], wave.active[place] = (code, reason), False
  wave.say(f"jaxtrain: member {wave.specs[place].number:03d}: {reason}")


def report(wave: Wave, due) -> None:
  """The end of an epoch or an evaluation: means, validation, observe, best and facts of each member, a line."""
  training, compiled = wave.training(), wave.compiled
  totals = jax.device_get(wave.totals)
  sums = compiled.evaluate("val", wave.states, wave.hypers, wave.data["val"]) if due.evaluate and "val" in wave.data \
      else None
  at = lambda tree, place: jax.tree.map(lambda leaf: leaf[place], tree)
  means = {place: metrics.divide(at(totals, place)) for place, _ in training}
  vals = {place: metrics.finish(at(sums, place), run.experiment.summarise) if sums else None
          for place, run in training}
  named = {place: evaluate.by_split(means[place], vals[place]) for place, _ in training}
  if due.evaluate and wave.runs[0].experiment.observe is not None:
    first = named[training[0][0]]
    seen = {name: np.float32([named[k][name] if k in named else 0.0 for k in range(compiled.size)]) for name in first}
    wave.states = compiled.observe(wave.states, wave.hypers, compiled.members.put(seen), wave.mask_of_active())
  improved = {place for place, run in training if due.evaluate and evaluate.judge(run, named[place])}
  for place, run in training:
    if not run.facts.metric_names:
      run.evaluated = evaluated_names(wave, run)
    evaluate.write_report(run, means[place], vals[place], due, place in improved)
    run.facts.close()  # hundreds of members are many files; the next line opens them again
  if due.epoch or wave.runs[0].plan.steps_per_epoch is None:
    wave.totals = compiled.members.put(step_lib.zero_totals(wave.totals))
  if improved:
    wave.best = compiled.choose(wave.mask(improved), {"state": wave.states, "totals": wave.totals}, wave.best)
  for place in improved:
    wave.best_records[place] = loop.make_record(wave.runs[place])
  for place, run in training:
    wave.active[place] = not (due.evaluate and run.stopped_early)
  say_progress(wave, training)


def evaluated_names(wave: Wave, run: start_lib.Run) -> tuple[str, ...]:
  """Names of the metrics that evaluating a part of the member gives."""
  parts = [part for part in ("val", "test") if part in wave.data]
  zero = step_lib.zero_totals(wave.compiled.program.shapes_of(parts[0])) if parts else {}
  return tuple(metrics.finish(zero, run.experiment.summarise)) if parts else ()


def say_progress(wave: Wave, training: list[tuple[int, start_lib.Run]]) -> None:
  """A line: where the wave is, who leads, how fast it goes."""
  if not wave.runs[0].config.log.progress:
    return
  sign = 1 if wave.runs[0].config.train.monitor_mode == "min" else -1
  leading = min((run for run in wave.runs if run.best_value is not None), key=lambda run: sign * run.best_value,
                default=None)
  rate = next((event["throughput"] for event in reversed(training[0][1].facts.events) if "throughput" in event),
              None) or 0.0  # with shares of the time, a member's is that of all together
  best = f"  best {leading.monitor} {leading.best_value:.4g} ({os.path.basename(leading.workdir)})" if leading else ""
  wave.say(f"{wave.runs[0].plan.position(wave.step)}  {len(training)} members training{best}  {rate:,.0f} samples/s")


def save(wave: Wave, in_facts: bool = True) -> None:
  """Saves all members as one checkpoint. A save that only a stop asked for is left out of the facts, as in `loop`."""
  now = [run for place, run in enumerate(wave.runs) if run.step == wave.step and place not in wave.failures]
  for run in now if in_facts else []:
    run.facts.event("on_checkpoint", epoch=run.epoch, step=run.step, best_step=run.best_step)
    run.facts.close()
    run.saved_step = run.step
  metas = {id(run.splits.meta): run.splits.meta for run in wave.runs}
  kept = [{name: getattr(run, name) for name in KEPT}
          | {"run_id": run.facts.run_id, "offsets": run.facts.offsets(), "best": best,
             "meta": list(metas).index(id(run.splits.meta))} for run, best in zip(wave.runs, wave.best_records)]
  record = {"value": None, "best_step": None, "best_value": None, "monitor": "", "metrics": {}, "members": kept,
            "meta": list(metas.values()), "active": np.flatnonzero(wave.active).tolist(), "failures": wave.failures}
  trees = {"state": wave.states, "totals": wave.totals, "best": wave.best}
  wave.checkpoints.save((wave.step, trees, jsonable.clean(record)))
  wave.saved = wave.step


def finish(wave: Wave, stop: stops.Stop, done: set[int], on_done: Callable[[int], None]) -> None:
  """Writes each member's own files, one after the other: `write_files`. Raises preempt.Stopped between two of them."""
  has_best = wave.mask(place for place, run in enumerate(wave.runs) if run.best_step is not None)
  best = wave.compiled.choose(has_best, wave.best["state"], wave.states)
  sums = wave.compiled.evaluate("test", best, wave.hypers, wave.data["test"]) if "test" in wave.data else None
  for place, (spec, run) in enumerate(zip(wave.specs, wave.runs)):
    if spec.number in done or place in wave.failures:
      continue
    if stop.reason():
      raise Stopped(f"{stop.reason()}: the members of a wave are trained, {len(wave.specs) - place} wait for "
                    "their files; the same command goes on")
    try:
      write_files(wave, place, sums)
    except OSError:  # such as a full disk: all would fail
      raise
    except Exception as error:  # whatever an experiment's assessment raises is the member's, as in a run alone
      fail(wave, place, error, errors.FAILED)
    else:
      on_done(spec.number)
    start_lib.close(run)
    run.state = run.best_copy = run.totals = run.pending = None


def write_files(wave: Wave, place: int, sums: Any) -> None:
  """A member's best and last checkpoint, the facts of its end, its evaluation; `sums` are test metrics of all."""
  run, workdir, first = wave.runs[place], wave.specs[place].workdir, jax.devices()[0]
  at = lambda tree: jax.tree.map(lambda leaf: jax.device_put(leaf[place], first), tree)
  run.console = Console(False, os.path.join(workdir, "log.txt"), silent=True)
  run.state, run.totals = at(wave.states), at(wave.totals)
  if run.best_step is not None:
    best = at(wave.best)
    run.best_copy = best["state"]
    if run.best_step != run.step:
      run.pending = (run.best_step, best, wave.best_records[place])
  settings = run.config.checkpoint
  run.checkpoints = checkpoints_lib.Checkpoints(
      os.path.join(workdir, "checkpoints"), keep_last=settings.keep_last, keep_best=settings.keep_best,
      mode=run.config.train.monitor_mode, asynchronous=False)
  run.checkpoints.drop_after(-1)  # what a process left that was killed here
  loop.save(run, in_facts=run.saved_step != run.step)
  final = loop.end_training(run)
  test = metrics.finish(jax.tree.map(lambda leaf: leaf[place], sums), run.experiment.summarise) if sums else None
  loop.conclude(run, final, evaluate.best_state(run), test)
