"""A wave from its start to the files of its members."""

import datetime
import os
import time
from typing import Any, Callable

import jax

from jaxtrain import errors, loop
from jaxtrain.devices import parallel
from jaxtrain.errors import Stopped
from jaxtrain.run import checkpoints as checkpoints_lib, metrics, stops
from jaxtrain.run.console import Console, Lines
from jaxtrain.run.single import Run
from jaxtrain.sweep import wave as wave_lib
from jaxtrain.sweep.groups import Spec
from jaxtrain.sweep.program import Compiled

NO_DRAWING = lambda: None  # members draw no figures


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
    Stopped: asked to stop, and saved.
  """
  wave = wave_lib.open_wave(compiled, specs, parts, folder, say, done)
  try:
    loop.fit(wave, stop, stops.Watchdog(0), NO_DRAWING)
    if wave.saved != wave.step:  # a kill from here on costs no step
      wave.save(in_facts=False)
    wave.checkpoints.wait()
    finish(wave, stop, done, on_done)
    return {specs[place].number: failure for place, failure in wave.failures.items()}
  finally:
    wave.close()


def finish(wave: wave_lib.Wave, stop: stops.Stop, done: set[int], on_done: Callable[[int], None]) -> None:
  """Writes each member's own files, one after the other: `write_files`. Raises Stopped between two of them."""
  has_best = wave.mask(place for place, ledger in enumerate(wave.ledgers) if ledger.best_step is not None)
  best = wave.compiled.choose(has_best, wave.best["state"], wave.states)
  sums = wave.compiled.evaluate("test", best, wave.hypers, wave.data["test"]) if "test" in wave.data else None
  shown, total, ends = Lines(len(wave.specs)), len(wave.specs), []
  waits = lambda place: wave.specs[place].number not in done and place not in wave.failures
  for place, (spec, ledger) in enumerate(zip(wave.specs, wave.ledgers)):
    if not waits(place):
      continue
    left = lambda reason: Stopped(f"{reason}: the members of a wave are trained, {len(wave.specs) - place} wait for "
                                  "their files; the same command goes on")
    if reason := stop.reason():
      raise left(reason)
    try:
      write_files(wave, place, sums, stop, left)
    except (OSError, Stopped):  # a full disk, say: all would fail
      raise
    except Exception as error:  # whatever an experiment's assessment raises is the member's, as in a run alone
      wave.fail(place, error, error.code if isinstance(error, errors.Told) else errors.FAILED)
    else:
      on_done(spec.number)
    ledger.close()
    ends.append(time.perf_counter())
    if ledger.config.log.progress and shown.is_due(place + 1):
      wave.say(f"jaxtrain: assessed {place + 1} of {total} members"
               f"{time_left(ends, sum(map(waits, range(place + 1, total))))}")


def time_left(ends: list[float], count: int) -> str:
  """About how long `count` more take, in words, from when those before ended [s]; nothing where that is not known. The
  first, in which the programs of an assessment are compiled, says nothing of the others.
  """
  if len(ends) < 2 or not count:
    return ""
  seconds = (ends[-1] - ends[0]) / (len(ends) - 1) * count
  return f", about {f'{seconds:.0f} s' if seconds < 60 else datetime.timedelta(seconds=round(seconds))} left"


def write_files(wave: wave_lib.Wave, place: int, sums: Any, stop: stops.Stop, left: Callable[[str], Stopped]) -> None:
  """A member's best and last checkpoint, the facts of its end, its evaluation; `sums` are test metrics of all."""
  ledger, workdir, first = wave.ledgers[place], wave.specs[place].workdir, jax.devices()[0]
  alone = lambda tree: jax.tree.map(lambda leaf: jax.device_put(leaf[place], first), tree)
  ledger.console = Console(False, os.path.join(workdir, "log.txt"), silent=True)
  run = Run(ledger, parallel.one_device(), checkpoints_lib.of_run(ledger.config, workdir), state=alone(wave.states),
            totals=alone(wave.totals))
  try:
    best = run.state
    if ledger.best_step is not None:
      trees = alone(wave.best)
      best = trees["state"]
      if ledger.best_step != ledger.step:
        run.pending = (ledger.best_step, trees, wave.best_records[place])
    run.checkpoints.drop_after(-1)  # what a process left that was killed here
    run.save(in_facts=ledger.saved_step != ledger.step)
    final = run.end_training()
    test = metrics.finish(wave_lib.at(sums, place), ledger.experiment.summarise) if sums else None
    loop.conclude(ledger, final, run.state, best, test, stop, stops.Watchdog(0), left)
  finally:
    run.checkpoints.close()
