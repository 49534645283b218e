"""Members of a sweep trained as one program: a state with an axis of members, and a ledger for each member.

A member that stops early, or halts at a step that is not finite, keeps its state while the others go on. While a wave
trains it has one checkpoint of all its members, so that a kill costs each of them the same steps; at its end every
member gets the files of a run of its own, which other commands use as such. Facts of a member are those of a run alone
(times are its share of the wave's).
"""

import dataclasses
import os
import shutil
import time
import uuid
from typing import Any, Callable

import jax
import numpy as np

from jaxtrain import errors, jsonable, rng, step as step_lib
from jaxtrain.config import lookup, must_fit
from jaxtrain.errors import NonFinite, StopReason, Stopped, UserError
from jaxtrain.run import cadence, checkpoints as checkpoints_lib, metrics, setup, start as start_lib
from jaxtrain.run.console import Console, Lines
from jaxtrain.run.ledger import Ledger, by_split
from jaxtrain.sweep.groups import Spec
from jaxtrain.sweep.program import Compiled
from jaxtrain.workdir import facts as facts_lib
from jaxtrain.workdir.fields import changes_loss, is_loss


@dataclasses.dataclass
class Wave:
  """Members in training. Trees have a leading axis of places; the first ones are the members', in order."""
  compiled: Compiled
  specs: list[Spec]
  ledgers: list[Ledger]
  checkpoints: checkpoints_lib.Checkpoints
  say: Callable[[str], None]
  hypers: dict[str, jax.Array]
  data: dict[str, Any]  # part -> on the devices
  active: np.ndarray  # [places] bool: still training
  best_records: list[dict | None]  # what the checkpoint of each member's best will remember
  failures: dict[int, tuple[int, str]]  # place -> exit code that it would have had alone, and why
  states: Any = None
  totals: Any = None
  best: Any = None  # state and totals at each member's best
  step: int = 0
  saved: int = -1  # step of the newest checkpoint
  lines: Lines | None = None  # which progress lines are printed

  @property
  def plan(self) -> cadence.Plan:
    """What is due when; the same for all members."""
    return self.ledgers[0].plan

  @property
  def goes_on(self) -> bool:
    """Whether any member still trains."""
    return bool(self.active.any())

  def training(self) -> list[tuple[int, Ledger]]:
    """Places and ledgers of the members that still train."""
    return [(place, ledger) for place, ledger in enumerate(self.ledgers) if self.active[place]]

  def mask(self, places) -> jax.Array:
    """[places] bool, on the devices."""
    return self.compiled.members.put(np.isin(np.arange(self.compiled.size), list(places)))

  def mask_of_active(self) -> jax.Array:
    """[places] bool, on the devices: who still trains."""
    return self.compiled.members.put(self.active.copy())

  def dispatch(self, target: int, pace: cadence.Pace) -> None:
    """Runs the steps up to `target` of all members in one compiled call, and waits for them."""
    began, num_steps = time.perf_counter(), target - self.step
    self.states, self.totals = self.compiled.repeat(self.states, self.totals, self.hypers, self.mask_of_active(),
                                                    self.data["train"], np.int32(num_steps))
    guards = jax.device_get(self.states.guard)  # the one host synchronisation of a dispatch
    seconds = time.perf_counter() - began
    pace.took(num_steps, seconds)
    self.step += num_steps
    training = self.training()
    for place, ledger in training:
      ledger.guard = at(guards, place)
      try:
        ledger.check_finite(sorted(self.totals))
      except NonFinite as error:
        self.fail(place, error, errors.NONFINITE)
      else:
        ledger.took(num_steps, seconds / len(training))

  def fail(self, place: int, error: Exception, code: int) -> None:
    """A member ends with an error; the others go on."""
    self.ledgers[place].fail(error)
    reason = errors.reason(error)
    self.failures[place], self.active[place] = (code, reason), False
    self.say(f"jaxtrain: member {self.specs[place].number:03d}: {reason}")

  def log(self) -> None:
    """Nothing: a wave prints a line at each report alone."""

  def report(self, due: cadence.Due) -> None:
    """The end of an epoch or an evaluation: means, validation, observe, best and facts of each member, a line."""
    training, compiled = self.training(), self.compiled
    if not training:
      return
    totals, evaluates = jax.device_get(self.totals), due.evaluate and "val" in self.data
    sums = compiled.evaluate("val", self.states, self.hypers, self.data["val"]) if evaluates else None
    finish = lambda tree, place: metrics.finish(at(tree, place), self.ledgers[place].experiment.summarise)
    means = {place: finish(totals, place) for place, _ in training}
    vals = {place: finish(sums, place) if evaluates else None for place, _ in training}
    named = {place: by_split(means[place], vals[place]) for place, _ in training}
    if self.plan.is_regular(self.step) and training[0][1].experiment.observe is not None:
      first = named[training[0][0]]
      seen = {name: np.float32([named[k][name] if k in named else 0.0 for k in range(compiled.size)]) for name in first}
      self.states = compiled.observe(self.states, self.hypers, compiled.members.put(seen), self.mask_of_active())
    improved = {place for place, ledger in training if ledger.judge(named[place])}
    for place, ledger in training:
      if not ledger.facts.metric_names:
        ledger.evaluated = tuple(compiled.program.evaluated("val") or compiled.program.evaluated("test"))
      ledger.report(means[place], vals[place], due, place in improved)
      ledger.facts.close()  # hundreds of members are many files; the next line opens them again
    if self.plan.closes(self.step):
      self.totals = compiled.members.put(step_lib.zero_totals(self.totals))
    if improved:
      self.best = compiled.choose(self.mask(improved), {"state": self.states, "totals": self.totals}, self.best)
    for place in improved:
      self.best_records[place] = self.ledgers[place].record()
    for place, ledger in training:
      try:
        ledger.check_evaluation(vals[place])
      except NonFinite as error:
        self.fail(place, error, errors.NONFINITE)
    for place, ledger in training:
      self.active[place] &= not ledger.stopped_early
    self.say_progress(training)

  def say_progress(self, training: list[tuple[int, Ledger]]) -> None:
    """A line: where the wave is, who leads, how fast it goes."""
    settings = self.ledgers[0].config
    self.lines = self.lines or Lines(self.plan.total, self.plan.unit)
    if not settings.log.progress or not self.lines.is_due(self.step):
      return
    sign = 1 if settings.train.monitor_mode == "min" else -1
    known = sorted((ledger for ledger in self.ledgers if ledger.best_value is not None),
                   key=lambda ledger: sign * ledger.best_value)
    rate = next((event["throughput"] for event in reversed(training[0][1].facts.events) if "throughput" in event),
                None) or 0.0  # with shares of the time, a member's is that of all together
    best = ""
    if known and is_loss(known[0].monitor) and any(map(changes_loss, self.compiled.program.fields)):
      best = f"  {known[0].monitor} {known[0].best_value:.4g} to {known[-1].best_value:.4g}"  # which do not compare
    elif known:
      best = f"  best {known[0].monitor} {known[0].best_value:.4g} ({os.path.basename(known[0].workdir)})"
    self.say(f"{self.plan.position(self.step)}  {len(training)} members training{best}  {rate:,.0f} rows/s")

  def save(self, in_facts: bool = True) -> None:
    """Saves all members as one checkpoint. A save that only a stop asked for is left out of the facts."""
    now = [ledger for place, ledger in enumerate(self.ledgers)
           if ledger.step == self.step and place not in self.failures]
    for ledger in now if in_facts else []:
      ledger.facts.event("on_checkpoint", epoch=ledger.epoch, step=ledger.step, best_step=ledger.best_step)
      ledger.facts.close()
      ledger.saved_step = ledger.step
    metas = {id(ledger.splits.meta): ledger.splits.meta for ledger in self.ledgers}
    kept = [ledger.record() | {"step": ledger.step, "saved_step": ledger.saved_step, "best": best,
                               "meta": list(metas).index(id(ledger.splits.meta))}
            for ledger, best in zip(self.ledgers, self.best_records)]
    record = {"value": None, "best_step": None, "best_value": None, "monitor": "", "metrics": {}, "members": kept,
              "meta": list(metas.values()), "active": np.flatnonzero(self.active).tolist(), "failures": self.failures}
    trees = {"state": self.states, "totals": self.totals, "best": self.best}
    self.checkpoints.save((self.step, trees, jsonable.clean(record)))
    self.saved = self.step

  def leave(self, reason: StopReason) -> None:
    """Saves between two things due and raises Stopped."""
    if self.saved != self.step:
      self.save(in_facts=False)
    self.checkpoints.wait()
    raise Stopped(f"{reason}: saved {len(self.ledgers)} members at step {self.step:,}; the same command goes on")

  def close(self) -> None:
    """Closes what a wave holds open."""
    try:
      self.checkpoints.close()
    finally:
      for ledger in self.ledgers:
        ledger.close()


def at(tree: Any, place: int) -> Any:
  """A member's part of a tree with the leading axis."""
  return jax.tree.map(lambda leaf: leaf[place], tree)


def open_wave(compiled: Compiled, specs: list[Spec], parts: list, folder: str, say: Callable[[str], None],
              done: set[int]) -> Wave:
  """A wave that is ready to train: fresh, or as its newest usable checkpoint has it."""
  began = time.time()
  ledgers = [make_ledger(spec, part, spec.number in done) for spec, part in zip(specs, parts)]
  host = {field: np.asarray([lookup(ledger.config, field) for ledger in ledgers], np.float32)
          for field in compiled.program.fields}
  each = [{field: values[k] for field, values in host.items()} for k in range(len(specs))]
  os.makedirs(folder, exist_ok=True)
  checkpoints = checkpoints_lib.Checkpoints(os.path.join(folder, "checkpoints"), keep_last=2, keep_best=0, mode="min",
                                            asynchronous=ledgers[0].config.checkpoint.asynchronous)
  wave = Wave(compiled, specs, ledgers, checkpoints, say, compiled.place(each) if each[0] else {},
              compiled.place_data(parts), np.arange(compiled.size) < len(specs), [None] * len(specs), {})
  with must_fit(folder):
    skipped = restore(wave, done)
  if skipped is None:
    start(wave, each)
  for words in dict.fromkeys(words for ledger in ledgers for words in ledger.experiment.notes):
    say(f"jaxtrain: {words}")
  for reason in skipped or ():
    say(f"jaxtrain: passed over {reason}")
  for ledger in ledgers:
    ledger.facts.process(resume_step=wave.step, skipped_checkpoints=skipped or [], threads=parts[0].threads,
                         num_devices=compiled.num_devices, setup_seconds=time.time() - began)
    ledger.facts.close()
  return wave


def make_ledger(spec: Spec, parts: setup.Parts, is_done: bool) -> Ledger:
  """The ledger of a member; one that is done writes nothing any more."""
  config, _ = start_lib.claim(spec.config, spec.workdir, "auto")
  config = setup.with_horizon(config, parts.plan.total)
  experiment = setup.make_experiment(config, parts.splits.meta)
  os.makedirs(spec.workdir, exist_ok=True)
  facts = facts_lib.Facts(None if is_done else os.path.join(spec.workdir, "facts"), uuid.uuid4().hex)
  console = Console(False, None, silent=True)  # its log is opened at its end: hundreds of members are many files
  return Ledger(config, spec.workdir, parts.splits, experiment, parts.plan, facts, console, time.time(), parts.sample,
                spec.meanings)


def start(wave: Wave, each: list[dict[str, np.ndarray]]) -> None:
  """Fresh states of members with these traced fields, and the first files of each."""
  init, place = wave.compiled.init, wave.compiled.place
  states = [init(rng.root_key(ledger.config.seed), hypers, ledger.splits.train.data)
            for ledger, hypers in zip(wave.ledgers, each)]
  totals = [step_lib.zero_totals(wave.compiled.program.parts.totals)] * len(states)
  wave.states, wave.totals = place(states), place(totals)
  wave.best = {"state": place(states), "totals": place(totals)}  # others: the first two are donated
  for spec, ledger, state in zip(wave.specs, wave.ledgers, states):
    shutil.rmtree(os.path.join(spec.workdir, "checkpoints"), ignore_errors=True)  # of one that failed in its end
    ledger.start(setup.count_params(state), None)
    ledger.facts.close()
    start_lib.write_config(ledger.config, spec.workdir, spec.origins)
    ledger.write_process()


def restore(wave: Wave, done: set[int]) -> list[str] | None:
  """Takes a wave's newest usable checkpoint up; returns why newer ones were passed over, None where there is none.

  Raises:
    UserError: there are checkpoints and none can be used, or they are of an earlier version.
  """
  parts, size = wave.compiled.program.parts, wave.compiled.size
  one = {"state": parts.abstract, "totals": parts.totals}

  def check(record):
    if any("metrics" not in kept for kept in record["members"]):
      raise UserError("begun by version 0.1 of jaxtrain, which must finish it")
    for place, (ledger, kept) in enumerate(zip(wave.ledgers, record["members"])):
      if wave.specs[place].number not in done:
        ledger.facts.read_back(kept["offsets"])

  found = wave.checkpoints.restore_newest(wave.compiled.shapes_of_all(one | {"best": one}), check)
  if found is None:
    return None
  step, trees, record, skipped = found
  trees = {name: wave.compiled.members.put(tree) for name, tree in trees.items()}
  wave.states, wave.totals, wave.best = trees["state"], trees["totals"], trees["best"]
  wave.step = wave.saved = step
  guards = jax.device_get(wave.states.guard)
  wave.checkpoints.drop_after(step)
  for place, (ledger, kept) in enumerate(zip(wave.ledgers, record["members"])):
    start_lib.check_same_data(ledger.workdir, record["meta"][kept["meta"]], ledger.splits.meta)
    ledger.recall(kept["step"], kept, wave.specs[place].number not in done)
    ledger.saved_step, ledger.guard = kept["saved_step"], at(guards, place)
    wave.best_records[place] = kept["best"]
  wave.failures = {int(place): tuple(failure) for place, failure in record["failures"].items()}
  wave.active = np.isin(np.arange(size), record["active"])
  return skipped
