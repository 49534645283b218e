"""The codes of semantic_compression.py apart from training: lattices without a network, lossless files, speed.

Each `measure_` function takes a folder, in which one trained run is kept, and the flags of the command. It prints a
table in Markdown and returns numbers.
"""

import gzip
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any, Callable, NamedTuple

import jax.numpy as jnp
import numpy as np

import bench
import semantic_compression_study as study
from jaxtrain.errors import need
from jaxtrain.experiments.semantic_compression import (apply, baselines, code as code_lib, codec, coding,
                                                       coding_fast, container, fit, freeze, generators, lossless,
                                                       objective, quantise, schema as schema_lib)
from jaxtrain.run import trained

NUM_TRAIN, NUM_HELD_OUT, DIMS = 8000, 2000, 9
ERRORS, CUBE_SEEDS, HALVINGS = (0.005, 0.01, 0.05), 5, 40
SIZES, MANY = (2000, 20000), 1_000_000
LEAST_SECONDS = 0.5  # of a speed
UNSEEN = 1_000_003  # seed of states that no run was trained on


class Cube(NamedTuple):
  """Uniform numbers quantised together or one by one.

  Attributes:
    plan: E8 for the first eight and a scalar for the ninth, or scalars.
    lattices: of the code.
    offset: of scalars, in steps: 0 has a number at the middle of the range, 1/2 a border of two cells.
  """
  plan: quantise.Plan
  lattices: tuple[code_lib.Lattice, ...]
  offset: float

  def shift(self) -> np.ndarray:
    """[9]: the offset of each number."""
    return np.where(np.arange(DIMS) < self.plan.num_lattice, 0.0, self.offset)


OFFSETS = (0.0, 0.5)  # of which the better one is taken
CUBES = {"scalar": [Cube(quantise.Plan("entropy"), (), offset) for offset in OFFSETS],
         "E8": [Cube(quantise.Plan("lattice", "e8", 8), (code_lib.Lattice("E8", 0),), offset) for offset in OFFSETS]}


def cube_symbols(cube: Cube, u: np.ndarray, steps: np.ndarray) -> np.ndarray:
  """Symbols [N, S] of numbers u [N, 9] in so many steps [9] of the range."""
  point = quantise.by_lattice(cube.plan, jnp.asarray(u * steps + cube.shift(), jnp.float32), quantise.lattice.closest)
  return np.asarray(quantise.symbols(cube.plan, point))


def cube_errors(cube: Cube, train: np.ndarray, u: np.ndarray, steps: np.ndarray) -> np.ndarray:
  """[9]: mean squared errors of held-out numbers, where a symbol comes back as the mean of its training numbers.

  A coordinate of E8 has a mean for each coset.
  """
  a, b = (np.asarray(quantise.points(cube.plan, jnp.asarray(cube_symbols(cube, part, steps)), None))
          for part in (train, u))
  errors = []
  for d in range(DIMS):
    low = min(a[:, d].min(), b[:, d].min())
    i, j = (np.rint(2 * (point[:, d] - low)).astype(int) for point in (a, b))  # coordinates are multiples of 1/2
    width = max(i.max(), j.max()) + 1
    count, total = np.bincount(i, minlength=width), np.bincount(i, weights=train[:, d], minlength=width)
    plain = (b[:, d] - cube.shift()[d]) / steps[d]
    value = np.where(count[j] > 0, total[j] / np.maximum(count[j], 1), plain)
    errors.append(np.mean(np.square(value - u[:, d])))
  return np.array(errors)


def cube_steps(cube: Cube, train: np.ndarray, u: np.ndarray, error: float) -> np.ndarray:
  """[9]: steps at which the root mean squared error is `error`, of the first eight numbers together and of the ninth.
  """
  low, high = np.full(DIMS, 0.5 / error / 12 ** 0.5), np.full(DIMS, 2.0 / error / 12 ** 0.5)
  for _ in range(HALVINGS):
    middle = np.sqrt(low * high)
    found = cube_errors(cube, train, u, middle)
    found[:8] = found[:8].mean()
    low, high = np.where(found > error ** 2, middle, low), np.where(found > error ** 2, high, middle)
  return np.sqrt(low * high)


def cube_bits(cube: Cube, train: np.ndarray, u: np.ndarray, steps: np.ndarray) -> float:
  """Real bits of nine held-out numbers under tables counted on training ones."""
  code = fit.fitted(cube_symbols(cube, train, steps), cube.lattices)
  symbols = cube_symbols(cube, u, steps)
  return 8 * sum(map(len, coding.encode(code, symbols, apply.BLOCK_SIZE))) / len(u)


def measure_lattice(folder: str, given) -> dict:
  """Real bits of nine uniform numbers by E8 and one by one at equal errors, and what E8 saves."""
  del folder  # nothing is trained
  result, rows = {}, []
  for error in ERRORS:
    bits = {name: [] for name in CUBES}
    for seed in range(given.seeds or CUBE_SEEDS):
      random = np.random.default_rng(seed)
      train, u = random.uniform(-0.5, 0.5, (NUM_TRAIN, DIMS)), random.uniform(-0.5, 0.5, (NUM_HELD_OUT, DIMS))
      for name, cubes in CUBES.items():
        bits[name].append(min(cube_bits(cube, train, u, cube_steps(cube, train, u, error)) for cube in cubes))
    saved = bench.interval([a - b for a, b in zip(bits["scalar"], bits["E8"])])
    one = {name: bench.interval(values) for name, values in bits.items()} | {"saved": saved}
    result[error] = one
    rows.append([f"{100 * error:g} %", *(study.shown(value, 3) for value in one.values()),
                 f"{DIMS * -np.log2(error * 12 ** 0.5):.2f}"])
  study.say_table(("RMSE", "scalar, real bits", "8 by E8, the ninth scalar", "saved by E8", "scalar line"), rows)
  return result


class Run(NamedTuple):
  """A trained codec and fresh states.

  Attributes:
    problem, coder, state: of the codec.
    code: of its symbols.
  """
  problem: objective.Problem
  coder: apply.Coder
  state: Any
  code: code_lib.Code


def trained_run(folder: str, given) -> Run:
  """The default codec, trained for 30 epochs where it is not yet."""
  path = os.path.join(folder, "codec")
  bench.finish(subprocess.Popen(
      [sys.executable, "-m", "jaxtrain.main", f"--config={study.CONFIG}", f"--workdir={path}",
       f"--config.train.num_epochs={given.train_epochs or study.FINDING_EPOCHS}", "--config.log.figures=none",
       "--config.log.progress=False", *study.as_flags(study.STATES)], cwd=bench.ROOT, stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE, text=True))
  found = trained.restore(path, "best")
  problem = codec.make_problem(found.config, codec.load(found.config).meta)
  return Run(problem, apply.make_coder(problem), found.state, freeze.freeze(problem, found.state))


def fresh_states(num: int) -> tuple[schema_lib.Record, np.ndarray]:
  """(record of float32 numbers, vectors) of so many simulated states."""
  record = generators.draw("independent", num, UNSEEN)
  record = {column.name: np.asarray(record[column.name], np.float32) if column.kind == "continuous" else
            record[column.name] for column in study.SCHEMA.columns}
  return record, schema_lib.encode(study.SCHEMA, record)


def least_bits() -> float:
  """Entropy of a state whose numbers are float32: h - E[log2 of the distance of neighbouring float32] of each."""
  known, (record, _) = generators.entropies("independent"), fresh_states(MANY)
  numbers = {name: record[name] for name in known.continuous if name not in known.integer}
  bits = [known.continuous[name] - float(np.mean(np.log2(np.spacing(np.abs(values)).astype(np.float64))))
          for name, values in numbers.items()]
  return sum(bits) + sum(known.integer.values()) + sum(known.discrete.values())


def bytes_apart(record: schema_lib.Record) -> bytes:
  """The columns with the first bytes of all numbers, then the second ones, and so on, which coders of bytes like."""
  parts = []
  for column in study.SCHEMA.columns:
    values = baselines.column_bytes(study.SCHEMA._replace(columns=(column,)), record)
    width = len(values) // len(record[column.name])
    parts.append(np.frombuffer(values, np.uint8).reshape(-1, width).T.tobytes())
  return b"".join(parts)


def measure_lossless(folder: str, given) -> dict:
  """Bits of a state by the lossless mode, in its blocks and in the whole file, and by gzip -9 and zstd -19."""
  zstandard = need("zstandard", "bench")
  run, result, rows = trained_run(folder, given), {}, []
  names = tuple(name for name, _ in apply.slots(run.problem))
  for num in SIZES:
    record, x = fresh_states(num)
    symbols = apply.to_symbols(run.coder, run.state, x)
    exact, code, residuals = lossless.extend(study.SCHEMA, names, symbols, record, run.code)
    blocks = coding.encode(code, exact, apply.BLOCK_SIZE)
    decoded = coding.decode(code, blocks, coding.block_sizes(num, apply.BLOCK_SIZE))
    back = lossless.restore(study.SCHEMA, symbols.shape[1], decoded, residuals)
    for column in study.SCHEMA.columns:
      a, b = (schema_lib.checked_values(column, of[column.name]) for of in (record, back))
      if not np.array_equal(a, b):
        raise ValueError(f"{column.name} did not come back")
    size = lambda data: 8 * len(data) / num
    columns, text = baselines.column_bytes(study.SCHEMA, record), schema_lib.to_json_lines(study.SCHEMA, record)
    path = os.path.join(folder, "states.jtc")
    head = container.Header(json.dumps(schema_lib.to_json(study.SCHEMA)), "0" * 64, num, apply.BLOCK_SIZE,
                            lossless.MODE, {})
    container.write(path, head, lossless.to_bytes(code, residuals), blocks)
    one = {"ours, blocks": sum(map(size, blocks)), "ours, whole file": 8 * os.path.getsize(path) / num}
    given_bytes = {"float32": columns, "float32, bytes apart": bytes_apart(record), "JSON": text}
    for what, data in given_bytes.items():
      one |= {f"gzip -9, {what}": size(gzip.compress(data, 9)),
              f"zstd -19, {what}": size(zstandard.ZstdCompressor(level=19).compress(data))}
    result[num] = one | {"entropy of the source": least_bits()}
  rows = [[name, *(f"{of[name]:.1f}" for of in result.values())] for name in result[SIZES[0]]]
  study.say_table(("bits a state", *(f"{num:,} states" for num in SIZES)), rows)
  return result


def seconds_of(call: Callable[[], Any]) -> float:
  """Median seconds of a call, after a first one that is left out."""
  call()
  began, found = time.perf_counter(), []
  while time.perf_counter() - began < LEAST_SECONDS or len(found) < 3:
    start = time.perf_counter()
    call()
    found.append(time.perf_counter() - start)
  return statistics.median(found)


def measure_coding(folder: str, given) -> dict:
  """Speed of compressing and decompressing, of symbols alone and with the network, by NumPy and by constriction."""
  before = os.sched_getaffinity(0)
  os.sched_setaffinity(0, {given.core})
  try:
    run = trained_run(folder, given)
    result = {num: coding_speed(run, num, given.rounds) for num in SIZES}
  finally:
    os.sched_setaffinity(0, before)
  study.say_table(("states", "what", "MB/s, range", "states/s"),
                  [[f"{num:,}", what, f"{one['mb_per_s']:.2f} ({one['range'][0]:.2f} to {one['range'][1]:.2f})",
                    f"{one['states_per_s']:,.0f}"] for num, of in result.items() for what, one in of.items()])
  return result


def coding_speed(run: Run, num: int, rounds: int) -> dict[str, dict]:
  """Medians and ranges over rounds by what is done, in MB/s of the float32 columns and states/s."""
  record, x = fresh_states(num)
  size, sizes = len(baselines.column_bytes(study.SCHEMA, record)), coding.block_sizes(num, apply.BLOCK_SIZE)
  symbols = apply.to_symbols(run.coder, run.state, x)
  blocks = coding.encode(run.code, symbols, apply.BLOCK_SIZE)
  ways = {"NumPy": False} | ({"constriction": True} if coding_fast.is_installed() else {})
  to_symbols = lambda: apply.to_symbols(run.coder, run.state, x)
  to_states = lambda found: apply.to_record(run.coder, run.state, found)
  calls = {"network: states to symbols": to_symbols, "network: symbols to states": lambda: to_states(symbols)}
  for way, fast in ways.items():
    encode = lambda found, fast=fast: coding.encode(run.code, found, apply.BLOCK_SIZE, fast)
    decode = lambda fast=fast: coding.decode(run.code, blocks, sizes, fast)
    calls |= {f"compress symbols, {way}": lambda encode=encode: encode(symbols),
              f"decompress symbols, {way}": decode,
              f"compress states, {way}": lambda encode=encode: encode(to_symbols()),
              f"decompress states, {way}": lambda decode=decode: to_states(decode())}
  seconds = {name: [] for name in calls}
  for _ in range(rounds):
    for name, call in calls.items():
      seconds[name].append(seconds_of(call))
  return {name: {"mb_per_s": 1e-6 * size / statistics.median(found), "states_per_s": num / statistics.median(found),
                 "range": [1e-6 * size / max(found), 1e-6 * size / min(found)]} for name, found in seconds.items()}
