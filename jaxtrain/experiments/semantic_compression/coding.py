"""Symbols to bytes and back, in blocks that stand alone, and the modelled rate of them.

A block's symbols are coded by slots: slot 0 of all its states, then slot 1, and so on; where a prior reads the state
before, by states instead. What escaped follows its run: a slot of the block, or of one state.

All blocks are coded in lockstep, a lane each. Where `constriction` is installed, the code has no prior, and blocks are
few for their size, it does the same with the same bytes, see `coding_fast`; `fast=False` leaves it out.
"""

from typing import Iterator, Sequence

import numpy as np

from jaxtrain import memory
from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import ans, coding_fast
from jaxtrain.experiments.semantic_compression.code import (
  DIGIT_BITS, INT32, LENGTH_BITS, Code, Plan, Prior, entries, escaped_value)
from jaxtrain.experiments.semantic_compression.tables import PRECISION, TOTAL

MOST_LANES, MOST_SYMBOLS = 1024, 1 << 21  # blocks and symbols that are coded at once
MOST_BLOCK_SIZE = 1 << 14
DIGITS = 3  # a number behind an escape has up to 35 bits, the first of which is known


def block_sizes(num_states: int, block_size: int) -> list[int]:
  """States of each block: all have `block_size`, but the last may have fewer."""
  if not 1 <= block_size <= MOST_BLOCK_SIZE:
    raise UserError(f"a block of {block_size} states; there may be 1 to {MOST_BLOCK_SIZE}")
  whole, rest = divmod(num_states, block_size)
  return [block_size] * whole + [rest] * (rest > 0)


def portions(sizes: Sequence[int], num_slots: int) -> Iterator[slice]:
  """Blocks that are coded at once, so that memory does not grow with their number.

  Raises UserError where one block alone has too many symbols.
  """
  each = max(sizes, default=1) * num_slots
  if each > MOST_SYMBOLS:
    raise UserError(f"a block of {max(sizes)} states of {num_slots} symbols; it may have {MOST_SYMBOLS} symbols")
  step = min(MOST_LANES, MOST_SYMBOLS // each)
  for first in range(0, len(sizes), step):
    yield slice(first, min(first + step, len(sizes)))


def lanes(symbols: np.ndarray, sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
  """([S, B, L] int64, zeros where a block has fewer than B states; [B, L] bool, where it has one) of symbols [N, S]."""
  B, L, S = max(sizes, default=0), len(sizes), symbols.shape[1]
  there = np.arange(B)[:, None] < np.asarray(sizes)
  x = np.zeros((S, B, L), np.int64)
  x.transpose(0, 2, 1)[:, there.T] = symbols.T
  return x, there


def whole_inputs(prior: Prior, x: np.ndarray) -> np.ndarray:
  """Inputs [B, L, I] of the network of a prior for whole blocks x [S, B, L]."""
  before, first = np.zeros_like(x), np.zeros(x.shape[1:], np.int64)
  before[:, 1:], first[0] = x[:, :-1], 1
  return prior.inputs(x, before, first)


def modelled(plan: Plan, x: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """(table, entry, escaped) of each slot in turn, [B, L] int64 each, of whole blocks x [S, B, L]."""
  parameters = None
  for s in range(len(x)):
    if parameters is None and s in plan.place_in_prior:
      parameters = plan.parameters(whole_inputs(plan.code.prior, x))
    yield entries(plan, s, x, parameters)


def bit_lengths(numbers: np.ndarray) -> np.ndarray:
  """Number of bits of each of int64 numbers from 0 to 2**52, int64; 0 has none."""
  return np.frexp(numbers.astype(np.float64))[1].astype(np.int64)


def bits(code: Code, symbols: np.ndarray, block_size: int) -> np.ndarray:
  """Modelled rate of each symbol in bits, [N, S] float64: -log2 of the tables' probability, and what escapes cost."""
  plan = Plan(code)
  plan.check_symbols(symbols)
  sizes, rate = block_sizes(len(symbols), block_size), np.zeros(symbols.shape)
  for now in portions(sizes, symbols.shape[1]):
    own = slice(now.start * block_size, now.stop * block_size)
    x, there = lanes(symbols[own], sizes[now])
    for s, (table, entry, escaped) in enumerate(modelled(plan, x)):
      counts = plan.lookups[s].counts[plan.lookups[s].first[table] + entry]
      one = PRECISION - np.log2(counts.astype(np.float64))
      one += np.where(escaped > 0, LENGTH_BITS + bit_lengths(escaped) - 1, 0)
      rate[own, s] = one.T[there.T]
  return rate


def models_of(plan: Plan, sizes: Sequence[int], fast: bool) -> coding_fast.Models | None:
  """The models of `constriction` where it is wanted, installed, allowed by the code, and faster.

  The lockstep takes a turn for each state of a block, and constriction one for each block.
  """
  wanted = fast and len(sizes) <= 2 * max(sizes, default=0)
  return coding_fast.Models(plan) if wanted and coding_fast.is_installed() and coding_fast.allows(plan) else None


def encode(code: Code, symbols: np.ndarray, block_size: int, fast: bool = True) -> list[bytes]:
  """Blocks of symbols [N, S], each of `block_size` states (the last may have fewer); any integer type.

  Raises UserError where the code does not decode, symbols are no 32-bit integers, or no points of its lattices.
  """
  plan = Plan(code)
  plan.check_symbols(symbols)
  sizes, blocks = block_sizes(len(symbols), block_size), []
  models = models_of(plan, sizes, fast)
  for now in portions(sizes, symbols.shape[1]):
    blocks += encode_lanes(plan, symbols[now.start * block_size:now.stop * block_size], sizes[now], models)
  return blocks


def encode_lanes(plan: Plan, symbols: np.ndarray, sizes: Sequence[int], models: coding_fast.Models | None
                 ) -> list[bytes]:
  """Blocks of so many states each, of symbols [sum of sizes, S]."""
  x, there = lanes(symbols, sizes)
  if models is not None:
    table, entry, escaped = (np.stack(one) for one in zip(*modelled(plan, x)))
    return [coding_fast.encode_block(models, table[:, :size, lane], entry[:, :size, lane], escaped[:, :size, lane])
            for lane, size in enumerate(sizes)]
  S, B, L = x.shape
  left, counts = np.zeros((2, S, B, L), np.uint64)
  escaped = np.zeros((S, B, L), np.int64)
  for s, (table, entry, outside) in enumerate(modelled(plan, x)):
    lookup = plan.lookups[s]
    found = lookup.first[table] + entry
    left[s], counts[s] = np.where(there, lookup.left[found], 0), np.where(there, lookup.counts[found], TOTAL)
    escaped[s] = np.where(there, outside, 0)
  if plan.code.by_state:  # a run is one slot of one state
    left, counts, escaped = (one.swapaxes(0, 1).reshape(S * B, 1, L) for one in (left, counts, escaped))
  steps = []
  for run in range(len(left)):
    steps.append((left[run], counts[run]))
    if escaped[run].any():
      steps.append(escape_steps(escaped[run]))
  return ans.encode(np.concatenate([one[0] for one in steps]), np.concatenate([one[1] for one in steps]))


def escape_steps(escaped: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(left, counts) [M, L] uint64 that code the numbers of a run [R, L] that are not 0, in their order in each lane."""
  there = escaped > 0
  rank = np.cumsum(there, axis=0) - 1
  E, L = int(there.sum(axis=0).max()), escaped.shape[1]
  numbers = np.zeros((E, L), np.int64)
  run, lane = np.nonzero(there)
  numbers[rank[run, lane], lane] = escaped[run, lane]
  lengths = bit_lengths(numbers)
  widths, values = [np.where(lengths > 0, LENGTH_BITS, 0)], [lengths]
  for digit in range(DIGITS):
    width = np.clip(lengths - 1 - DIGIT_BITS * digit, 0, DIGIT_BITS)
    widths.append(width)
    values.append(numbers >> DIGIT_BITS * digit & (1 << width) - 1)
  free = PRECISION - np.stack(widths, axis=1).reshape(-1, L)
  return (np.stack(values, axis=1).reshape(-1, L) << free).astype(np.uint64), (np.int64(1) << free).astype(np.uint64)


def read_escapes(decoder: ans.Decoder, there: np.ndarray) -> np.ndarray:
  """Numbers behind the escapes of a run [R, L] bool: [R, L] int64, 0 elsewhere."""
  numbers = np.zeros(there.shape, np.int64)
  runs, owners = np.nonzero(there)
  rank = (np.cumsum(there, axis=0) - 1)[runs, owners]
  order = np.argsort(rank, kind="stable")
  for now in np.split(order, np.cumsum(np.bincount(rank))[:-1]):  # of each lane the first, then the second, and so on
    run, lane = runs[now], owners[now]
    here = np.zeros(there.shape[1], np.uint64)
    here[lane] = LENGTH_BITS
    lengths = decoder.uniform(here).astype(np.int64)
    number = np.zeros(len(here), np.int64)
    for digit in range(DIGITS):
      width = np.clip(lengths - 1 - DIGIT_BITS * digit, 0, DIGIT_BITS)
      number |= decoder.uniform(width.astype(np.uint64)).astype(np.int64) << DIGIT_BITS * digit
    number |= np.where(lengths > 0, np.int64(1) << np.maximum(lengths - 1, 0), 0)
    numbers[run, lane] = number[lane]
  return numbers


def decode(code: Code, blocks: Sequence[bytes], sizes: Sequence[int], fast: bool = True) -> np.ndarray:
  """Symbols [sum of sizes, S] int32 of blocks of so many states each.

  Raises UserError that names the first block which no encoder of this code writes, see `decode_some`.
  """
  symbols, whole = decode_some(code, blocks, sizes, fast)
  if not whole.all():
    raise UserError(f"block {int(np.argmin(whole))} of {len(blocks)} is not what this code writes")
  return symbols


def decode_some(code: Code, blocks: Sequence[bytes | None], sizes: Sequence[int], fast: bool = True
                ) -> tuple[np.ndarray, np.ndarray]:
  """(symbols [sum of sizes, S] int32, [blocks] bool: whether a block is what an encoder of this code writes).

  Others are None, longer than their symbols, or have a value that is none; their symbols are of no use. A damaged block
  may be what the encoder writes for other symbols: only a checksum tells. Raises UserError where memory does not
  suffice.
  """
  plan, S = Plan(code), len(code.slots)
  if len(blocks) != len(sizes) or not all(0 < size <= MOST_BLOCK_SIZE for size in sizes):
    raise UserError(f"{len(blocks)} blocks for {len(sizes)} sizes of 1 to {MOST_BLOCK_SIZE} states")
  ends = np.cumsum([0, *sizes])
  try:
    memory.check(4 * S * int(ends[-1]), f"a file of {int(ends[-1])} states")
  except memory.TooMuch as error:
    raise UserError(str(error)) from None
  symbols, whole = np.zeros((int(ends[-1]), S), np.int32), np.zeros(len(blocks), bool)
  models = models_of(plan, sizes, fast)
  possible = [k for k, block in enumerate(blocks) if block is not None and block[-1:] != b"\0"]
  for now in portions([sizes[k] for k in possible], S):
    own = possible[now]
    if models is None:
      made, whole[own] = decode_lanes(plan, [blocks[k] for k in own], [sizes[k] for k in own])
      symbols[np.concatenate([np.arange(ends[k], ends[k + 1]) for k in own])] = made
      continue
    for k in own:
      symbols[ends[k]:ends[k + 1]], whole[k] = coding_fast.decode_block(plan, models, blocks[k], sizes[k])
  return symbols, whole


def decode_lanes(plan: Plan, blocks: Sequence[bytes], sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
  """(symbols, whole) of blocks that are decoded at once, as of `decode_some`."""
  decoder = ans.Decoder(list(blocks))
  S, B, L = len(plan.code.slots), max(sizes), len(blocks)
  there = np.arange(B)[:, None] < np.asarray(sizes)
  x, good = np.zeros((S, B, L), np.int64), np.ones(L, bool)
  if plan.code.by_state:
    before = np.zeros((S, L), np.int64)
    for b in range(B):
      decode_runs(plan, decoder, x[:, b:b + 1], there[b:b + 1], before[:, None], good, int(b == 0))
      before = x[:, b]
  else:
    decode_runs(plan, decoder, x, there, None, good, 0)
  symbols = x.transpose(2, 1, 0)[there.T].astype(np.int32)
  return symbols, good & decoder.whole()


def decode_runs(plan: Plan, decoder: ans.Decoder, x: np.ndarray, there: np.ndarray, before: np.ndarray | None,
                good: np.ndarray, first: int) -> None:
  """Fills x [S, R, L] slot by slot; good [L] becomes False where a value is no 32-bit integer.

  Args:
    there: [R, L] bool, where a block has a state.
    before: [S, 1, L], the states before, for a prior that reads them; None without.
    first: 1 where these states are the first of their blocks, else 0.
  """
  parameters = None
  for s in range(len(x)):
    if parameters is None and s in plan.place_in_prior:
      prior = plan.code.prior
      parameters = plan.parameters(prior.inputs(x, before, np.full(there.shape, first, np.int64)))
    lookup = plan.lookups[s]
    table, base = plan.context(s, x, parameters)
    own = np.where(there, table, lookup.nothing)
    entry = np.stack([decoder.entries(lookup, one) for one in own])
    escape = lookup.escape[table]
    outside = there & (entry == escape)
    if outside.any():
      entry = np.where(outside, escaped_value(read_escapes(decoder, outside), escape), entry)
    value = np.where(there, base + plan.stride[s] * entry, 0)
    fits = (value >= INT32.min) & (value <= INT32.max)
    good &= fits.all(axis=0)
    x[s] = np.where(fits, value, 0)
