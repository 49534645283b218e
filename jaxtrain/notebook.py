"""What a notebook or a script calls: `jaxtrain.train` and `jaxtrain.load`.

  result = jaxtrain.train("configs/vae.py:digits", "runs/digits", **{"train.num_epochs": 30})
  run = jaxtrain.load("runs/digits")
  run.quality, run.history["val_loss"], run.eval["test"]["r2_mean"]
  embedded = run.embed(frame)  # a DataFrame with the index of frame

Both do what the commands do, by the same code. A mistake is a UserError with the sentence of the command, and nothing
ends the process. `history` is always a dict of lists, whatever is installed, so that a script does not depend on it;
`history_frame()` is the same as a DataFrame.
"""

import contextlib
import functools
import operator
import os
import re
import sys
import tempfile
import warnings
from typing import Any, Callable, Iterator, Sequence

from ml_collections import ConfigDict

from jaxtrain import commands, config as config_lib, spelling, streams
from jaxtrain.config import meanings
from jaxtrain.devices import backend, processes
from jaxtrain.errors import Stopped, Told, UserError, need
from jaxtrain.workdir import kept, quality as quality_lib, reading, records

# Words of a command, as patterns, and those of Python
SPELT = {r"--workdir=.* goes on$": "the same call goes on", "the same command": "the same call",
         r"(?<![\w-])--(?=[a-z])": "", r"(?<![\w./-])config\.(?!json|py)(?=[a-z])": ""}


@contextlib.contextmanager
def spelt_for_python() -> Iterator[None]:
  """Says in the words of Python what a message says in those of a command: `--num` is `num`, a command is a call."""
  try:
    yield
  except Told as error:
    words = [error.message, error.hint]
    for pattern, python in SPELT.items():
      words = [re.sub(pattern, python, text) for text in words]
    raise type(error)(*words) from error.__cause__


def draw(workdir: str, moment: str) -> None:
  """Figures and report of a run folder; imported here because matplotlib is slow to import.

  Raises:
    UserError: `log.families` names a figure family that there is not.
  """
  from jaxtrain.report import run_page
  run_page.write_run(workdir, moment)


def check_families(config: ConfigDict) -> None:
  """Refuses an unknown figure family before anything is trained. Raises UserError."""
  if config.log.families:
    from jaxtrain.report import figures
    figures.select(config_lib.to_record(config), "end")


def train_whole(config: ConfigDict, workdir: str | None, fits, **options):
  """`loop.train` with its options, and in the end figures and report, unless they are as new as the run; returns its
  result.

  `fits`: context in which the files of the run are read for its page.
  """
  from jaxtrain import loop
  from jaxtrain.report import age
  from jaxtrain.run import stops
  result = loop.train(config, workdir, draw=draw, **options)
  if workdir and processes.is_first() and not age.is_drawn(config, workdir):
    left = lambda reason: Stopped(f"{reason}: the run is done, its page is not; the same command draws it")
    with stops.Stop(0) as stop, stop.at_once(left), fits:
      draw(workdir, "end")
  return result


def say_start(config: ConfigDict) -> None:
  """One line at once on a terminal: reading and compiling take a while, on a busy machine a minute."""
  if config.log.progress and processes.is_first() and sys.stderr.isatty():
    streams.say("jaxtrain: reading the data and compiling", error=True)


def say_report(workdir: str) -> None:
  """Where the page of a run is."""
  streams.say(f"jaxtrain: report: {os.path.join(workdir, 'report.html')}")


def train(config: str | ConfigDict, workdir: str | os.PathLike | None = None, *, resume: str = "auto",
          init_from: str | None = None, **fields: Any):
  """Trains a run, or goes on with it, as `python -m jaxtrain.main` does, with figures and report.

  An interrupt (Ctrl-C, or a notebook's stop) saves the run and raises Stopped; the same call goes on with it.

  Args:
    config: FILE or FILE:variant, or a ConfigDict, which is copied. Variables of the environment, such as
      TRAIN__NUM_EPOCHS, hold for a file alone.
    workdir: folder of the run; the same folder goes on. None leaves no file.
    resume: `auto`, `never` (refuse a folder that holds a run) or `required` (refuse one that does not).
    init_from: WORKDIR[@best|last|STEP], whose state a fresh run starts from.
    fields: values by dotted key: `**{"train.num_epochs": 3}`.

  Returns:
    `loop.Result`: `history` (dict of lists), `best_value`, `best_step`, `final_val_loss`, `test_loss`, `workdir`,
    `state`, `digest`.

  Raises:
    UserError: config, data or workdir do not fit. Stopped: asked to stop, and saved. NonFinite: halted.
  """
  workdir = os.fspath(workdir) if workdir is not None else None
  with spelt_for_python():
    if isinstance(config, ConfigDict):
      config, environ, noted = ConfigDict(config.to_dict()), {}, {}
    else:
      noted = meanings.of_config(os.fspath(config))
      config, environ = config_lib.read_file(os.fspath(config)), os.environ
    config, origins = commands.override(config, fields, "python", environ)
    check_families(config)
    say_start(config)
    commands.set_up_libraries()
    backend.set_up_process()
    result = train_whole(config, workdir, contextlib.nullcontext(), resume=resume, init_from=init_from, origins=origins,
                         meanings=noted)
  if workdir:
    say_report(workdir)
  return result


def load(workdir: str | os.PathLike, checkpoint: str | int = "best", *, experiment: str = "",
         code: Sequence[str] = ()) -> "Loaded":
  """A trained run: its config, history and evaluations, and its verbs as functions.

  Args:
    workdir: folder of the run; or kept:FAMILY, a model that comes with jaxtrain. It is data: code that it names is run
      only where `experiment` and `code` name it too.
    checkpoint: best | last | STEP. Its digest is checked.
    experiment: the run's experiment, where that is a module of your own.
    code: functions of your own that the run's config names and a verb calls.

  Raises:
    UserError: there is no such run or checkpoint, its digest does not hold, or its config names code that was not named
      here.
  """
  from jaxtrain.run import trained
  commands.set_up_libraries()
  workdir, names = os.fspath(workdir), (code,) if isinstance(code, str) else tuple(code)
  with spelt_for_python():
    workdir = kept.folder_of(workdir)
    return Loaded(workdir, trained.restore(workdir, str(checkpoint), (experiment, *names)))


class Loaded:
  """A trained run at one of its checkpoints; each of its verbs is a function too: `run.embed(x)`.

  Attributes:
    workdir: its folder.
    config: its ConfigDict.
    step, epoch: of the state (the epoch is -1 for a stream).
    digest: SHA-256 of the state, checked when it was read.
    verbs: name -> `VerbFunction`; printing one says what it needs.
  """

  def __init__(self, workdir: str, run: Any):
    self.workdir, self.config, self.step, self.epoch, self.digest = workdir, run.config, run.step, run.epoch, run.digest
    self.verbs = {name: VerbFunction(name, run, lambda: self.quality) for name in run.experiment.predict or {}}

  @functools.cached_property
  def history(self) -> dict[str, list]:
    """Lists per epoch (per evaluation for a stream), as in history.json; of the newest stage where there are several.
    """
    return reading.history(reading.read_events(self.path("facts", "events.jsonl")))

  def history_frame(self):
    """`history` as a DataFrame, a row per epoch. Raises UserError where pandas is not installed."""
    return need("pandas", "notebook").DataFrame(self.history)

  @functools.cached_property
  def eval(self) -> dict[str, dict[str, float]]:
    """Scalars of the assessment by part, such as `test`: {} where the run has not come so far."""
    names = reading.part_names(self.path("eval"))
    return {name: scalars_of(self.path("eval", f"{name}.json")) for name in names}

  @functools.cached_property
  def quality(self) -> quality_lib.Quality:
    """The best monitored value, and warnings of what speaks against the model."""
    return quality_lib.of_workdir(self.workdir, self.step)

  def path(self, *parts: str) -> str:
    """Path of a file of the run's newest stage, which is the run itself where it has no stages."""
    return os.path.join(records.last_stage(self.workdir), *parts)

  def __getattr__(self, name: str) -> "VerbFunction":
    if name.startswith("_") or name == "verbs":
      raise AttributeError(name)
    if name not in self.verbs:
      raise AttributeError(f"no verb {name!r}; this run has {', '.join(sorted(self.verbs)) or 'none'}")
    return self.verbs[name]

  def __dir__(self) -> list[str]:
    return sorted({*super().__dir__(), *self.verbs})

  def __repr__(self) -> str:
    state = records.describe_state(self.step, self.epoch, self.digest)
    verbs = [f"  run.{function!r}" for function in self.verbs.values()]
    return "\n".join([f"<run {self.workdir}: {self.config.experiment.rpartition('.')[2]}, state of {state}",
                      *(f"  {line}" for line in self.quality.lines()), *verbs]) + ">"


class VerbFunction:
  """A verb of a trained run as a function of rows.

  Its result is what `python -m jaxtrain.predict` adds to the columns of a file with these rows: a DataFrame for a
  DataFrame, with the index of that where the rows are the same; else a dict of arrays by name.

  Attributes:
    name: of the verb.
    needs: columns that it reads, in the order of those of an array; None: whatever columns there are; (): none.
    optional: those of them whose cells may be missing.
    labels: column -> the labels that it may hold, for those that hold no others.
    counts: whether it takes `num`, a number of rows to make.
  """

  def __init__(self, name: str, run: Any, worth: Callable[[], quality_lib.Quality]):
    self.run, self.verb, self.name, self.worth = run, run.experiment.predict[name], name, worth
    inputs = self.verb.inputs
    self.needs = None if inputs is None else tuple(column.name for column in inputs)
    self.optional = tuple(column.name for column in inputs or () if not column.required)
    self.labels = {column.name: column.values for column in inputs or () if column.values}
    self.counts = self.verb.counts

  def __call__(self, rows: Any = None, *, num: int = 0, seed: int | None = None, form: str = "", **options: Any):
    """Applies the verb.

    Args:
      rows: an array [N, F] with the columns of `needs` in order, a dict of columns, or a DataFrame; further columns of
        the last two do not matter. Bytes for a verb with a file format of its own. None for a verb that reads none.
      num: rows to make, where the verb makes some.
      seed: of what is drawn; None: the run's.
      form: suffix of a file format of the verb's own, such as ".jtc": the result is the bytes of such a file.
      options: what else the verb may be told, such as `threshold` and `required` of a graph.

    Of damaged bytes whose rest can be read the rest is returned, with a warning that names what is empty.

    Raises:
      UserError: the rows do not fit, in the words of the command.
    """
    from jaxtrain.data import inputs
    from jaxtrain.run import verbs
    with spelt_for_python():
      if self.verb.reads != (rows is not None):
        raise UserError(f"{self.name}: got {'nothing' if rows is None else 'rows'}, allowed "
                        f"{'an array, a dict of columns or a DataFrame' if self.verb.reads else 'no rows'}")
      num, seed = whole("num", num), None if seed is None else whole("seed", seed)
      verbs.check_numbers(self.name, self.verb, num, seed)
      data = self.run.config.data if "data" in self.run.config else {}
      if form and form not in self.verb.writers:
        raise UserError(f"{self.name}: got form={form!r}, allowed {' | '.join(self.verb.writers) or 'none'}")
      verb = verbs.settle(self.run, self.name, self.verb, options, self.worth())
      columns = self.read(rows, data) if self.verb.reads else None
      found = verbs.compute(self.run, verb, columns, num, seed)
      if lost := verbs.in_short(verb.lost(columns) if verb.lost else []):
        warnings.warn(f"{self.name}: {lost}; all others are there", stacklevel=2)
      if form:
        return self.written(verb, form, columns, found)
    if not inputs.is_frame(rows):
      return found
    same = self.verb.carries and len(next(iter(found.values()))) == len(rows)
    return need("pandas", "notebook").DataFrame(found, index=rows.index if same else None)

  def read(self, rows: Any, data: Any) -> Any:
    """What the verb takes of rows in memory, or of the bytes of a file of its own format."""
    from jaxtrain.data import inputs
    if not isinstance(rows, bytes):
      return inputs.from_memory(rows, data, self.needs)
    if not self.verb.readers:
      raise UserError(f"{self.name}: got bytes, allowed an array, a dict of columns or a DataFrame")
    suffix, reader = next(iter(self.verb.readers.items()))
    with tempfile.TemporaryDirectory() as folder:
      path = os.path.join(folder, f"bytes{suffix}")
      with open(path, "wb") as file:
        file.write(rows)
      try:
        return reader(path, self.run.state)
      except UserError as error:
        raise UserError(error.message.replace(path, "the bytes")) from None

  def written(self, verb: Any, form: str, columns: Any, found: dict) -> bytes:
    """The bytes of a file of the verb's own format."""
    with tempfile.TemporaryDirectory() as folder:
      path = os.path.join(folder, f"bytes{form}")
      verb.writers[form](path, self.run.state, columns, found)
      with open(path, "rb") as file:
        return file.read()

  def __repr__(self) -> str:
    if self.needs is None:
      rows = ["rows of any columns"]
    else:
      named = [spelling.quoted(name) + (f" ({some(self.labels[name], ' | ')})" if name in self.labels else "")
               for name in self.needs]
      rows = [f"rows of {len(self.needs)} columns: {some(named, ', ')}"] * bool(self.needs)
    gaps = "; cells may be missing" if self.optional else ""
    return f"{self.name}({'; '.join([*rows, *['num=rows to make'] * self.counts])}{gaps})"


def some(words: Sequence[str], between: str) -> str:
  """Up to six words in a line."""
  return between.join([*words[:6], *["..."] * (len(words) > 6)])


def scalars_of(path: str) -> dict[str, float | None]:
  """The scalars of a part of an assessment, from its file. Raises UserError where that is damaged."""
  try:
    part = reading.read_part(path, strict=False)
  except ValueError as error:
    raise UserError(f"{path} cannot be read: {error}") from None
  return reading.scalars(part)


def whole(name: str, value: Any) -> int:
  """A whole number of whatever type. Raises UserError for anything else."""
  try:
    return operator.index(value)
  except TypeError:
    raise UserError(f"{name}: got {value!r}, allowed a whole number") from None
