"""The one loop: run to the next thing due, evaluate, observe, best, facts, save, assess, stop.

It knows the step and nothing of what a step does. Position in a run is that one integer; metrics of a started epoch are
carried on the device and saved with the state, so that no stop and no split into dispatches changes a reported bit.
The same loop drives one run (`run.single.Run`) and the members of a sweep (`sweep.wave.Wave`).

The best state is kept in memory when it appears and written with the next checkpoint. A run killed in between repeats
the same steps and finds the same best again, so nothing is lost and improvements cost no saves of their own.
"""

import contextlib
import os
import time
from typing import Any, Callable, ContextManager, NamedTuple

import jax
from ml_collections import ConfigDict

from jaxtrain import bits, config as config_lib, jsonable, step as step_lib
from jaxtrain.devices import parallel, processes
from jaxtrain.errors import StopReason, Stopped, UserError
from jaxtrain.jsonable import digest_json
from jaxtrain.run import cadence, evaluate as evaluate_lib, ledger as ledger_lib, packing, setup
from jaxtrain.run import start, stops
from jaxtrain.run.cadence import Pace
from jaxtrain.run.ledger import Ledger
from jaxtrain.run.single import Run
from jaxtrain.workdir import jsonfile, records
from jaxtrain.workdir.lock import Lock


class Result(NamedTuple):
  """What a run returns.

  Attributes:
    history: name -> list, one entry per epoch (per evaluation for a stream).
    best_value, best_step: of the monitored metric; None where nothing was evaluated.
    final_val_loss, test_loss: None where there is no such part.
    workdir: folder of the run's files; None for a run that leaves none.
    state: the final state.
    digest: SHA-256 of the final state.
    verbs: name -> what it does to rows, of those that `predict` and `jaxtrain.load` have for the run.
  """
  history: dict[str, list]
  best_value: float | None
  best_step: int | None
  final_val_loss: float | None
  test_loss: float | None
  workdir: str | None
  state: Any
  digest: str
  verbs: dict[str, Any] = {}

  def __repr__(self) -> str:  # a state is pages long
    best = "nothing evaluated" if self.best_value is None else f"best {self.best_value:.6g} at step {self.best_step:,}"
    return f"<result: {best}, final state sha256:{self.digest}, {self.workdir or 'no files'}>"


def train(config: ConfigDict, workdir: str | None = None, *, resume: str = "auto", init_from: str | None = None,
          origins: dict[str, str] | None = None, meanings: dict[str, str] | None = None,
          draw: Callable[[str, str], None] | None = None) -> Result:
  """Trains an experiment, or goes on with it.

  Args:
    config: from a config file's `get_config`.
    workdir: folder of the run; the same folder resumes. None leaves no file.
    resume: `auto`, `never` (refuse a folder that holds a run) or `required` (refuse one that does not).
    init_from: WORKDIR[@best|last|STEP], whose state a fresh run starts from.
    origins, meanings: dotted field -> where its value came from, and what its config file says of it, for the record.
    draw: `(workdir, moment)` draws figures during a run.

  Raises:
    UserError: config, data or workdir do not fit. Stopped: asked to stop, and saved. NonFinite: halted.
  """
  config = config_lib.resolve(config)
  same = [config_lib.to_record(config), resume, init_from, jax.local_device_count() if processes.several() else 0]
  processes.check_equal("config, flags or number of devices", digest_json(same))
  locks: list[Lock] = []
  if workdir:
    processes.on_first(lambda: locks.append(Lock(workdir)))
  try:
    with stops.Stop(config.train.time_budget_minutes) as stop:
      if config.stages:
        return train_stages(config, workdir, stop, draw, resume, init_from, origins=origins, meanings=meanings)
      return train_one(config, workdir, stop, draw, resume=resume, init_from=init_from, origins=origins,
                       meanings=meanings)
  finally:
    for lock in locks:
      lock.close()


def train_stages(config, workdir, stop, draw, resume, init_from, *, origins, meanings) -> Result:
  """Runs `config.stages` one after the other, each in stages/<k>/ from the best state of the one before."""
  if workdir is None:
    raise UserError("config.stages: a run with stages needs a workdir, because each starts from the files of the one "
                    "before")
  stages = [config_lib.stage_config(config, stage, k) for k, stage in enumerate(config.stages)]
  config, _ = start.claim(config, workdir, resume)
  if processes.is_first():
    start.write_config(config, workdir, origins)
    ledger_lib.write_process(workdir, {}, meanings or {})
  for k, stage in enumerate(stages):
    settings = config.stages[k]
    carry = "all" if "carry_optimizer" in settings and settings["carry_optimizer"] else "params"
    source = os.path.join(workdir, "stages", str(k - 1)) + "@best" if k else init_from
    result = train_one(stage, os.path.join(workdir, "stages", str(k)), stop, draw, resume="auto", init_from=source,
                       origins=origins, meanings=meanings, stage=k, carry_over=carry if k else "")
  if processes.is_first():
    jsonfile.write_json(os.path.join(workdir, "history.json"), jsonable.clean(result.history))  # the last stage's
  return result._replace(workdir=workdir)


def train_one(config, workdir, stop: stops.Stop, draw, **options) -> Result:
  """One run from its start or its newest checkpoint to its end."""
  with start.open_run(config, workdir, **options) as run:
    watchdog = stops.Watchdog(config.parallel.watchdog_seconds)

    def draw_curves():
      if draw and run.ledger.writes and config.log.figures == "full":
        with stop.at_once(run.left):  # which waits for the save under way
          draw(workdir, "train")

    run.ledger.console.start(run.step, run.plan.total, run.plan.unit)
    try:
      fit(run, stop, watchdog, draw_curves)
      return finish(run, stop, watchdog)
    except BaseException as error:
      run.fail(error)
      raise
    finally:
      watchdog.close()


def fit(training, stop: stops.Stop, watchdog: stops.Watchdog, draw: Callable[[], None]) -> None:
  """Trains until the last step, until nothing goes on, or until a request to leave.

  Args:
    training: a `Run` or a `Wave`: both have `plan`, `step`, `goes_on` and the verbs called here; waves, which are never
      assessed during training, have no `assess`.
    stop: asked between dispatches.
    watchdog: told of every dispatch and of all that was due.
    draw: draws figures during training, after a save.
  """
  plan, pace = training.plan, Pace()
  if plan.due(training.step).assess and training.goes_on:  # the newest save is of before it
    training.assess(stop, watchdog)
  while training.step < plan.total and training.goes_on:
    target = plan.next_due(training.step)
    while training.step < target and training.goes_on:
      # Asked after all that was due at this step: a resumed run goes on from here and would not report it.
      reason, num_steps = processes.agree(stop.reason(not pace.first), pace.num_steps())
      if reason:
        training.leave(reason)
      training.dispatch(min(target, training.step + num_steps), pace)
      watchdog.beat()
    due = plan.due(training.step)
    if due.epoch or due.evaluate:
      training.report(due)
    elif due.log:
      training.log()
    if due.save and training.step < plan.total:
      training.save()
      draw()
    if due.assess and training.goes_on:
      training.assess(stop, watchdog)
    watchdog.beat()


def finish(run: Run, stop: stops.Stop, watchdog: stops.Watchdog) -> Result:
  """The end of a run: last checkpoint, the best state assessed, history."""
  ledger = run.ledger
  if ledger.saved_step != run.step:
    run.save()
  if not run.plan.total:  # no first dispatch has written it
    run.write_process()
  final = run.end_training()
  # of several processes each evaluates its share, so none leaves before the others
  with contextlib.nullcontext() if processes.several() else stop.at_once(run.left):
    best = evaluate_lib.best_state(run)
    test = evaluate_lib.evaluate_part(run, best, "test") if run.splits.test else None
  watchdog.beat()
  return conclude(ledger, final, run.state, packing.here(best), test, stop, watchdog, run.left)


def conclude(ledger: Ledger, final: str, state: Any, best: Any, test: dict[str, float] | None, stop: stops.Stop,
             watchdog: stops.Watchdog, left: Callable[[StopReason], Stopped]) -> Result:
  """What the best state is worth, written down: its test metrics and assessment, the history, the last line.

  Args:
    final: digest of the final state; best: the best one, of this process.
    stop: honoured at once while the best state is assessed; `left(reason)` is what to raise then.
  """
  history, found = ledger.end(test, int(best.step)), {}
  if ledger.writes and evaluate_lib.parts_to_assess(ledger):
    began = time.perf_counter()
    with stop.at_once(left):
      found = evaluate_lib.assess(ledger, best, again=False, beat=evaluate_lib.between_parts(watchdog, stop, left))
    ledger.facts.process(seconds={"assess": time.perf_counter() - began})
  ledger.say_final(evaluate_lib.left_to_say(test, found))
  val_loss = ledger.last_means["val_loss"] if "val_loss" in ledger.last_means else None
  return Result(history, ledger.best_value, ledger.best_step, val_loss,
                test["loss"] if test and "loss" in test else None, ledger.workdir, state, final,
                dict(ledger.experiment.predict or {}))


def evaluate(config: ConfigDict | None, workdir: str, init_from: str | None = None,
             draw: Callable[[str, str], None] | None = None, meanings: dict[str, str] | None = None) -> None:
  """Assesses the best state of an existing run again (`--mode=eval`); no training, and the facts stay as they are.

  One that was stopped goes on with the parts that are missing.

  Args:
    config: None: the run's own.
    workdir: folder of the run.
    init_from: WORKDIR[@best|last|STEP] or a file of weights: a folder without a run first becomes one of no steps.
    draw: `(workdir, moment)` draws the figures that follow from it.
    meanings: dotted field -> what its config file says of it, for the record of a folder that becomes a run.

  Raises:
    UserError: the workdir holds no run, or one made with another config. Stopped: asked to stop, at once.
  """
  if config is None:
    with config_lib.strangers(workdir):
      config = config_lib.from_workdir(records.read_config(workdir), workdir)
      return assess_again(config, workdir, init_from, draw, meanings, config_lib.must_fit(workdir))
  assess_again(config, workdir, init_from, draw, meanings, contextlib.nullcontext())


def assess_again(config: ConfigDict, workdir: str, init_from: str | None, draw: Callable[[str, str], None] | None,
                 meanings: dict[str, str] | None, opening: ContextManager) -> None:
  """`evaluate` with the config of the user or of the workdir; the run is put together within `opening`."""
  config = config_lib.resolve(config)
  lock = Lock(workdir)
  try:
    folder = workdir
    if init_from:
      adopt(config, workdir, init_from, meanings)
    if config.stages:
      folder = records.last_stage(workdir)
      if folder == workdir:
        raise UserError(f"--workdir: {workdir!r} holds no checkpoint yet")
      k = int(os.path.basename(folder))
      if k >= len(config.stages):
        raise UserError(f"--workdir: {workdir!r} holds a stage {k}, its config has {len(config.stages)}")
      config = config_lib.stage_config(config, config.stages[k], k)
    with stops.Stop(config.train.time_budget_minutes) as stop, stop.at_once(left_assessing):
      with contextlib.ExitStack() as opened:
        with opening:
          run = opened.enter_context(start.open_run(config, folder, resume="required", init_from=None, origins=None,
                                                    meanings=None, read_only=True))
        best = evaluate_lib.best_state(run)
        step = int(best.step)
        state = records.describe_state(step, run.plan.epoch(step), packing.digest(best))
        run.ledger.console.say(f"jaxtrain: assessed is the state of {state}")
        test = evaluate_lib.evaluate_part(run, best, "test") if run.splits.test else None
        found = evaluate_lib.assess(run.ledger, packing.here(best))
        run.ledger.say_final(evaluate_lib.left_to_say(test, found))
      if draw:
        draw(workdir, "end")
    evaluate_lib.end_again(folder)
  finally:
    lock.close()


def left_assessing(reason: StopReason) -> Stopped:
  """What to say of an assessment that was stopped."""
  return Stopped(f"{reason}: parts that were assessed are written; the same command goes on with the others")


def adopt(config: ConfigDict, workdir: str, init_from: str, meanings: dict[str, str] | None) -> None:
  """Makes a folder a run of no steps from another run's state or a file of weights; training may go on from there.

  Raises:
    UserError: the folder holds a run already, the config has stages, or the state does not fit.
  """
  if config.stages:
    raise UserError("--init_from: a config with stages cannot be assessed without training")
  if os.path.exists(os.path.join(workdir, "config.json")):
    raise UserError(f"--init_from: {workdir!r} holds a run already; choose another workdir")
  with start.open_run(config, workdir, resume="never", init_from=init_from, origins=None, meanings=meanings) as run:
    run.write_process()
    run.save()
    run.end_training()
    jsonfile.write_json(os.path.join(workdir, "history.json"), {})


def make_train(config: ConfigDict, meta: dict[str, Any] | None = None) -> Callable[[jax.Array, dict, Any], Any]:
  """Training as one pure function, for studies of many small trainings in one program, and for JAX without files.

  Steps are those of a run of this config on one device. What happens outside a step does not happen: nothing is
  evaluated or written, and the final state is the result.

  Args:
    config: of the training; its `load` says how batches are made of the data.
    meta: what is known of the data; None: as `load` gives it.

  Returns:
    `(root key, hypers, data) -> state`: `hypers` are values for traceable fields by dotted key, which may be tracers;
    `data` has the structure and shapes of the training source's own. It may be jitted, and vmapped over any argument.

  Raises:
    UserError: the config does not fit, or asks for an evaluation, several devices or what one program cannot hold.
  """
  config = config_lib.resolve(config)
  splits = config_lib.load_experiment(config.experiment).load(config)
  plan = cadence.make(config, splits.train.num_batches)
  config, splits = setup.with_horizon(config, plan.total), splits._replace(meta=splits.meta if meta is None else meta)
  watching = {f"{section}.plateau.monitor": plateau.monitor == "train_loss"
              for section, plateau in setup.plateaus(config).items()}
  fits = {"train.patience": not config.train.patience, "stages": not config.stages,
          "train.microbatch": not config.train.microbatch, "parallel.mode": config.parallel.mode == "jit"} | watching
  for field in [field for field, is_fit in fits.items() if not is_fit]:
    raise UserError(f"config.{field}: got {config_lib.lookup(config, field)!r}, which make_train has no place for: it "
                    "trains on one device, in whole batches, and evaluates nothing")
  setup.check_one_program(config, splits, "make_train")

  def train(key: jax.Array, hypers: dict, data: Any) -> Any:
    experiment, init = setup.traced(config, splits, hypers)
    state = init(key, data)
    one_step = step_lib.make_one_step(experiment, splits.train, parallel.over_whole, config.train.on_nonfinite)
    totals = jax.eval_shape(one_step, state, data, step_lib.stream_keys(state))[1]
    return step_lib.make_repeat(one_step)(state, step_lib.zero_totals(totals), data, bits.hidden(plan.total))[0]
  return train
