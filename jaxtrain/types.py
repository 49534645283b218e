"""The contract between experiments, data and the loop: plain containers of arrays and pure functions.

Axis letters, used in every docstring: B batch rows, N observations (rows of a table), D variables or features,
H heads, T time or diffusion step, K clusters, codes or classes, L latent dimensions, C chunks of a batch.

A `Batch` is a dict of arrays with leading axis B. It always holds `weight` [B] float32: 1 for a real row, 0 for
padding. `Metrics` is a dict: name -> (sum, count). Sums and counts are added over steps, chunks and devices and divided
last. `Over` is `over(fn, batch, key) -> sums`: it calls `fn(chunk, chunk_key)`, which returns SUMS over the chunk's
rows, and returns their global sums. It is all that a step knows about devices.
"""

from typing import Any, Callable, Iterator, NamedTuple

import flax.struct
import jax
import numpy as np

Batch = dict[str, jax.Array]
Metrics = dict[str, tuple[jax.Array, jax.Array]]
Over = Callable[[Callable[[Batch, jax.Array], Any], Batch, jax.Array], Any]


class Source(NamedTuple):
  """A stream of batches indexed by step: the same (data, step, key) gives the same batch.

  Attributes:
    data: pytree of arrays (NumPy until the loop puts it on the devices); an argument of compiled functions.
    batch_at: `(data, step, key) -> Batch`; `key` is the run's data stream key, constant over the run: the source itself
      folds in the epoch (a shuffled table) or the step (a simulator).
    num_batches: batches in one pass; None for an endless stream. An endless source used for evaluation states it.
    num_rows: real rows in one pass; None for an endless stream.
    windows: `(key, step) -> iterator of data` for what does not fit in memory: from the window of `window_steps`
      batches that holds the step, each the `data` of the steps it holds; windows begin at multiples of `window_steps`.
      `data` itself then has their shapes alone.
    window_steps: 0 where all data is there at once.
    rows: `index [n] -> {name: array [n, ...]}`, rows of one pass on the host, for what is done once at the end.
    bucket_at: `step -> int`, the bucket of shapes used at a step, the same for blocks of steps; None where all shapes
      are equal.
    buckets: a `batch_at` for each bucket of shapes; the first is `batch_at` itself. Empty where all shapes are equal.
  """
  data: Any
  batch_at: Callable[[Any, jax.Array, jax.Array], Batch]
  num_batches: int | None
  num_rows: int | None = None
  windows: Callable[[jax.Array, int], Iterator[Any]] | None = None
  window_steps: int = 0
  rows: Callable[[np.ndarray], dict[str, np.ndarray]] | None = None
  bucket_at: Callable[[int], int] | None = None
  buckets: tuple[Callable[[Any, jax.Array, jax.Array], Batch], ...] = ()

  def bucket(self, step: int) -> int:
    """The bucket of shapes at a step."""
    return self.bucket_at(step) if self.bucket_at else 0

  def end_of_bucket(self, step: int, stop: int) -> int:
    """The first step after `step` of another bucket, at most `stop`."""
    if not self.bucket_at:
      return stop
    return next((s for s in range(step + 1, stop) if self.bucket_at(s) != self.bucket_at(step)), stop)

  def in_bucket(self, bucket: int) -> "Source":
    """The source whose batches have the shapes of one bucket."""
    return self._replace(batch_at=self.buckets[bucket]) if self.buckets else self


class Splits(NamedTuple):
  """Train, validation and test sources (the latter two None where absent) and JSON-able `meta` about them."""
  train: Source
  val: Source | None
  test: Source | None
  meta: dict[str, Any]


class Metric(NamedTuple):
  """What a metric is, for pages and for whoever compares runs: a value of METRICS of an experiment's module.

  Attributes:
    unit: such as `nats`, `bits`, `dB`; empty for a plain number.
    meaning: one sentence.
    direction: `lower` or `higher` is better; empty where neither is.
    chance: the value of guessing; None where there is none.
    key: whether it is a key result, which stands at the head of a run's page, in the order of METRICS. Half the width
      of its 95 % interval is the scalar `<name>_ci95` of the assessment, where the experiment computes one.
    limits: the least and the largest value that there can be, where pages cut its interval; None where there are none.
    words: its name as a person says it, where the parts of the name say too little; empty where they do.
  """
  unit: str
  meaning: str
  direction: str = ""
  chance: float | None = None
  key: bool = False
  limits: tuple[float, float] | None = None
  words: str = ""


class Input(NamedTuple):
  """A column that a verb reads.

  Attributes:
    name: of the column.
    kind: number | whole (a number without decimals) | label | text.
    low, high: bounds of a number, both allowed; None where there is none.
    required: whether an entry may not be missing.
    values: the labels that are allowed; () where any is.
  """
  name: str
  kind: str = "number"
  low: float | None = None
  high: float | None = None
  required: bool = True
  values: tuple[str, ...] = ()


class Verb(NamedTuple):
  """One thing that `jaxtrain.predict` does with a trained state.

  Attributes:
    run: `(state, columns, num, key) -> {name: [N]}`: columns of the result from those of a file (`files.Columns`, or
      what a reader of its own gives), or `num` rows from nothing where it reads none.
    pure: `state -> (function, width)`, a pure function of [B, width] float32 in raw units, for any B: what is exported;
      None where rows are not taken one by one.
    several: what an ensemble makes of its members' columns: `mean` (and spread), `each` side by side (numbers that do
      not compare, such as latent coordinates), rows made in `turns`, or nothing: `refused`.
    inputs: the columns that it reads; None where it takes whatever columns a table has, () where it reads no file.
    counts: whether it takes a number of rows to make.
    carries: whether the rows of its result are those of the file, whose columns are carried through.
    decide: columns that follow from averaged ones, such as a label from probabilities; None where none do.
    readers: file formats of its own, suffix -> `(path, state) -> columns`, beside those of tables; None of a file that
      is a table.
    writers: likewise, suffix -> `(path, state, columns, result) -> None`.
    replaces: whether its columns take the place of those that it read.
    companions: endings of the names of columns that go with a chosen one (`--columns=a` keeps `a_intervened` too),
      where it takes whatever columns a table has.
    say: `(columns, result) -> lines` for the screen; None where the file of the result says it all.
    makes: what the rows of its result are, for the screen, where they are not those of the file.
    options: what may be said to it beside the rows, by name: flags of `jaxtrain.predict`, arguments in Python.
    settle: `({option: value} of those that were given, {split: scalars}, state in words, workdir.quality.Quality) ->
      Verb`: the verb as they say, and as the assessment of this very state says; None where neither matters.
    lost: `columns -> lines` on what could not be read of a damaged file; where there are any the command fails, with
      the rest written. None where a file is read whole or refused.
  """
  run: Callable[[Any, Any, int, jax.Array], dict[str, np.ndarray]]
  pure: Callable[[Any], tuple[Callable[[jax.Array], jax.Array], int]] | None
  several: str
  inputs: tuple[Input, ...] | None = None
  counts: bool = False
  carries: bool = True
  decide: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None
  readers: dict[str, Callable[[str, Any], Any]] = {}
  writers: dict[str, Callable[[str, Any, Any, dict[str, np.ndarray]], None]] = {}
  replaces: bool = False
  companions: tuple[str, ...] = ()
  say: Callable[[Any, dict[str, np.ndarray]], list[str]] | None = None
  makes: str = "rows"
  options: tuple[str, ...] = ()
  settle: Callable[[dict[str, Any], dict[str, dict[str, Any]], str, Any], "Verb"] | None = None
  lost: Callable[[Any], list[str]] | None = None

  @property
  def reads(self) -> bool:
    """Whether it reads a file."""
    return self.inputs != ()


Scalars = dict[str, Any]
Assess = Callable[[Any, Splits, jax.Array], tuple[Scalars, dict[str, np.ndarray]]]


class Experiment(NamedTuple):
  """An experiment as pure functions; the loop never learns what a step does.

  The module of an experiment has `load(config) -> Splits` and `make(config, meta) -> Experiment`, and declares what the
  core must know of it: `LIMITS` (allowed values of its fields), `TRACEABLE` (float fields that may hold tracers; the
  step hands them to `bits.opaque`), `CODE` (fields that name functions of the user's), `METRICS` (name or pattern ->
  Metric), `INIT_ROWS` (training rows that `init` looks at), `TRAINS` (False: there is nothing to train), `SINCE`
  (dotted field -> its value in a run of an earlier version, which lacks it).

  Attributes:
    init: `(key, sample) -> state`, a pytree of arrays with `.step`, `.key` (the typed root key) and `.guard`. `sample`
      is a Batch of the first INIT_ROWS training rows (default: the first batch), whole and equal on any number of
      devices, for starts that depend on data; empty where INIT_ROWS is 0.
    train_step: `(state, batch, key, over) -> (state, Metrics)`.
    eval_step: `(state, batch, key, over) -> Metrics`.
    summarise: `merged Metrics -> {name: scalar}` for metrics that are not ratios of sums, of evaluations and of
      training alike; None where there are none. A metric whose sum is an array is for it alone and reaches no fact.
    observe: `(state, {name: scalar}) -> state`, the one way evaluation enters training; None where it does not.
    assess: the heavy evaluation in parts: name -> `(state, splits, key) -> (scalars, arrays)`. A part is named
      `<split>-<name>`, or `<split>` where it is the only one of its split; parts of absent splits are left out.
    predict: what `jaxtrain.predict` offers, by name.
    read_weights: `(state, path) -> state`, a fresh state with the weights of another system's file; None where there is
      no such system.
    alarms: `{name: mean} -> [text]`, what is wrong with the metrics of training (`train_*`) and validation (`val_*`) of
      a report; None where nothing is watched for.
    describe: `() -> {name: value}`, what `--mode=check` adds of the data; None where it adds nothing.
    notes: sentences for the start of a run and `--mode=check`, such as of a field that has no effect.
    batch_parts: parts into which a training step divides its batch before it hands each to `over` (`step.part`); the
      batch size must divide by it.
    guards_members: whether the state holds members along a leading axis, each with a guard of its own that `train_step`
      has applied already.
  """
  init: Callable[[jax.Array, Batch], Any]
  train_step: Callable[[Any, Batch, jax.Array, Over], tuple[Any, Metrics]]
  eval_step: Callable[[Any, Batch, jax.Array, Over], Metrics]
  summarise: Callable[[Metrics], dict[str, Any]] | None = None
  observe: Callable[[Any, dict[str, Any]], Any] | None = None
  assess: dict[str, Assess] | None = None
  predict: dict[str, Verb] | None = None
  read_weights: Callable[[Any, str], Any] | None = None
  alarms: Callable[[dict[str, float]], list[str]] | None = None
  describe: Callable[[], dict[str, Any]] | None = None
  notes: tuple[str, ...] = ()
  batch_parts: int = 1
  guards_members: bool = False


class Guard(flax.struct.PyTreeNode):
  """What the non-finite guard has seen.

  Attributes:
    num_bad: [] int32, steps whose result was not finite.
    first_bad: [] int32, the first such step; -1 for none.
    cause: [] int32, index into the sorted metric names of the first non-finite metric at that step; the number of
      metrics where all metrics were finite and the new state was not; -1 for none.
    stopped: [] bool, true once a halting run met such a step: the state no longer changes.
  """
  num_bad: jax.Array
  first_bad: jax.Array
  cause: jax.Array
  stopped: jax.Array


class TrainState(flax.struct.PyTreeNode):
  """State of an experiment; data only, no functions inside. A subclass adds fields, such as a dual variable.

  Attributes:
    step: [] int32, completed updates.
    key: [] typed PRNG key, the run's root key; never advanced.
    params: trainable parameters.
    model_state: other collections of the model, such as BatchNorm statistics.
    opt_state: state of the optimiser, or {name: state} of several.
    ema: exponential moving average of `params`, or {name: average} of some of them; None where switched off.
    guard: what the non-finite guard has seen.
  """
  step: jax.Array
  key: jax.Array
  params: Any
  model_state: Any
  opt_state: Any
  ema: Any
  guard: Guard

  @property
  def applied(self) -> Any:
    """The parameters to judge and to apply: the averaged ones where the run keeps them."""
    return self.params if self.ema is None else self.ema
