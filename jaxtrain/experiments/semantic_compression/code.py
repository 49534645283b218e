"""What is needed to code symbols: integers alone, equal on every machine.

Symbols are [N, S] int32: N states, S slots each. A slot has an offset (the value of its first entry) and tables; which
of them codes a symbol follows from symbols that are decoded already:

  a slot alone       one table
  a lattice's slots  `Lattice`: E8 is a coset bit and 8 coordinates, D4 is 4 coordinates. The coordinates of E8 have a
                     table for each coset (k stands for k + 1/2 in the second). The sum of coordinates is even, so the
                     parity of the last follows from the others: it is coded as (k - parity) / 2, with a table for each
                     parity (and coset), and costs one bit less
  conditioned slots  `Prior`: an integer network of symbols of the same state (side latents) or of the state before it
                     in the block gives a mean and a scale; the tables are those of `logistic`, around the mean

A value outside a table's support is coded as the escape entry and then its distance from the support: the number of its
bits (6 bits), then these, the first 1 of them left out (an Elias gamma code, with a length of fixed size).

**Source:** Conway & Sloane, Sphere packings, lattices and groups, 1988 (E8 = D8 united with D8 + 1/2).
"""

from typing import NamedTuple

import numpy as np

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import integer_net, logistic, tables
from jaxtrain.experiments.semantic_compression.integer_net import IntegerNet
from jaxtrain.experiments.semantic_compression.tables import Lookup

LATTICE_SLOTS = {"D4": 4, "E8": 9}
LENGTH_BITS, DIGIT_BITS = 6, 16
MOST_SLOTS = 4096
INT32 = np.iinfo(np.int32)


class Slot(NamedTuple):
  """A slot with tables of its own: value `offset + k` has entry k.

  Attributes:
    offset: value of the first entry; of a lattice's last coordinate, that of (k - parity) / 2.
    counts: [T, K + 1] uint32, a table for each context; T is 1 alone, 2 by coset or by parity, and 4 by both, where
      table 2 coset + parity codes E8's last coordinate.
  """
  offset: int
  counts: np.ndarray


class Lattice(NamedTuple):
  """Slots start .. that hold a point of a lattice: "E8" (9 slots, the coset first) or "D4" (4 slots)."""
  name: str
  start: int


class Prior(NamedTuple):
  """Slots whose tables a network chooses.

  Attributes:
    slots: the C conditioned slots, ascending.
    same: slots of the same state that the network reads, all before the first conditioned one.
    before: slots of the state before it in the block, zeros for a block's first state.
    net: of len(same) + len(before) inputs, in this order, and with `before` one more: 1 for a block's first state, else
      0. 2 C outputs, see `integer_net`.
  """
  slots: tuple[int, ...]
  same: tuple[int, ...]
  before: tuple[int, ...]
  net: IntegerNet

  def inputs(self, x: np.ndarray, before: np.ndarray | None, first: np.ndarray) -> np.ndarray:
    """What the network reads, [.., I] int64.

    Args:
      x: [S, ..] int64, states as far as they are decoded.
      before: [S, ..], the states before them, zeros for a block's first; None for a prior that does not read them.
      first: [..] int64, 1 for a block's first state, else 0.
    """
    rows = [x[s] for s in self.same] + [before[s] for s in self.before]
    return np.stack([*rows, first] if self.before else rows, axis=-1)


class Code(NamedTuple):
  """All that decoding needs.

  Attributes:
    slots: of each slot its tables; None for those of the prior.
    lattices: groups of slots that hold lattice points.
    prior: None where no slot is conditioned.
  """
  slots: tuple[Slot | None, ...]
  lattices: tuple[Lattice, ...] = ()
  prior: Prior | None = None

  @property
  def by_state(self) -> bool:
    """Whether a state is decoded whole before the next; else a slot is decoded for all states of a block at once."""
    return self.prior is not None and bool(self.prior.before)


def slot(offset: int, pmf: np.ndarray) -> Slot:
  """A slot from probabilities [T, K + 1], or [K + 1] of one table; the last of each is that of the escape."""
  return Slot(int(offset), tables.quantise_rows(np.atleast_2d(np.asarray(pmf, np.float64))))


def contexts(code: Code) -> list[int]:
  """T of each slot; 0 for those of the prior. Raises UserError where two groups claim a slot, or a slot is none."""
  wanted = [1] * len(code.slots)
  taken: set[int] = set()
  claims = [(one.name, lattice_slots(one)) for one in code.lattices]
  claims += [("prior", code.prior.slots)] if code.prior else []
  for name, members in claims:
    if taken & set(members) or not all(0 <= s < len(code.slots) for s in members):
      raise UserError(f"a code: the slots {list(members)} of its {name} are taken already, or there are no such slots")
    taken |= set(members)
    for at, s in enumerate(members):
      wanted[s] = {"prior": 0, "D4": 1, "E8": 2 if at else 1}[name]
    if name in LATTICE_SLOTS:
      wanted[members[-1]] *= 2
  return wanted


def lattice_slots(lattice: Lattice) -> range:
  """The slots of a lattice. Raises UserError for a name that is none."""
  if lattice.name not in LATTICE_SLOTS:
    raise UserError(f"a code: no lattice {lattice.name!r}; there are {', '.join(LATTICE_SLOTS)}")
  return range(lattice.start, lattice.start + LATTICE_SLOTS[lattice.name])


def check(code: Code) -> None:
  """Raises UserError of one line where a code does not decode, whatever the symbols are."""
  if not 0 < len(code.slots) <= MOST_SLOTS:
    raise UserError(f"a code: {len(code.slots)} slots; there may be 1 to {MOST_SLOTS}")
  for s, (one, T) in enumerate(zip(code.slots, contexts(code))):
    if (one is None) != (T == 0):
      raise UserError(f"a code: slot {s} must have {'no tables, because its prior has them' if one else 'tables'}")
    if one is not None:
      tables.check(one.counts, f"slot {s} of a code")
      if len(one.counts) != T:
        raise UserError(f"a code: slot {s} has {len(one.counts)} tables and needs {T}")
      if not INT32.min <= one.offset <= INT32.max:
        raise UserError(f"a code: the offset of slot {s} is {one.offset}, which is no 32-bit integer")
  if code.prior is not None:
    slots, same, before, net = code.prior
    integer_net.check(net, "the prior of a code")
    inputs = len(same) + len(before) + bool(before)
    if not slots or list(slots) != sorted(slots) or net.num_inputs != inputs or net.num_outputs != 2 * len(slots):
      raise UserError(f"a code: a prior of {len(slots)} slots and {inputs} inputs has a network of {net.num_inputs} "
                      f"inputs and {net.num_outputs} outputs")
    if not all(0 <= s < slots[0] for s in same) or not all(0 <= s < len(code.slots) for s in before):
      raise UserError("a code: its prior reads a slot that is not decoded by then")


class Plan:
  """A code as the coder uses it: checked, with its tables laid out.

  Attributes:
    code: the code.
    lookups: [S], tables of each slot.
    stride: [S] int, 2 for a lattice's last coordinate, else 1.
  """

  def __init__(self, code: Code):
    check(code)
    self.code = code
    self.lookups = [logistic.lookup() if one is None else Lookup(list(one.counts)) for one in code.slots]
    self.stride = [1] * len(code.slots)
    self.lattice: dict[int, tuple[Lattice, int]] = {}  # slot -> its lattice and its place in it
    for lattice in code.lattices:
      members = lattice_slots(lattice)
      self.lattice |= {s: (lattice, at) for at, s in enumerate(members)}
      self.stride[members[-1]] = 2
    self.place_in_prior = {} if code.prior is None else {s: c for c, s in enumerate(code.prior.slots)}

  def parameters(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean in eighths, index of scale), each [C, ..], of inputs [.., I] of the prior's network."""
    mean, index = integer_net.apply(self.code.prior.net, inputs)
    return np.moveaxis(mean, -1, 0), np.moveaxis(index, -1, 0)

  def context(self, s: int, x: np.ndarray, parameters: tuple[np.ndarray, np.ndarray] | None
              ) -> tuple[np.ndarray, np.ndarray]:
    """(number of the table, value of its entry 0), each [..] int64, of slot s, from those before it in x [S, ..]."""
    if s in self.place_in_prior:
      mean, index = (one[self.place_in_prior[s]] for one in parameters)
      return logistic.FRACTIONS * index + (mean & 7), (mean >> 3) - logistic.radii()[index]
    lattice, at = self.lattice[s] if s in self.lattice else (None, 0)
    none = np.zeros(x.shape[1:], np.int64)
    table = x[lattice.start] & 1 if lattice is not None and lattice.name == "E8" and at else none
    if self.stride[s] == 1:
      return table, none + self.code.slots[s].offset
    parity = x[s - (LATTICE_SLOTS["D4"] - 1 if lattice.name == "D4" else 7):s].sum(axis=0) & 1
    return 2 * table + parity, 2 * self.code.slots[s].offset + parity

  def check_symbols(self, symbols: np.ndarray) -> None:
    """Raises UserError where symbols [N, S] are no 32-bit integers, or no points of the lattice they are said to be."""
    if symbols.ndim != 2 or symbols.shape[1] != len(self.code.slots) or symbols.dtype.kind not in "iu":
      raise UserError(f"symbols of shape {symbols.shape} and type {symbols.dtype}: the code takes integers in "
                      f"[N, {len(self.code.slots)}]")
    if symbols.size and not INT32.min <= int(symbols.min()) <= int(symbols.max()) <= INT32.max:
      raise UserError("a symbol is no 32-bit integer")
    for lattice in self.code.lattices:
      members = lattice_slots(lattice)
      point = symbols[:, members.start + (lattice.name == "E8"):members.stop].astype(np.int64)
      bad = point.sum(axis=1) % 2 != 0
      if lattice.name == "E8":
        bad |= (symbols[:, members.start] & ~1) != 0
      if bad.any():
        raise UserError(f"state {int(np.argmax(bad))}: its symbols from slot {lattice.start} on are no point of "
                        f"{lattice.name}")


def entries(plan: Plan, s: int, x: np.ndarray, parameters) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(table, entry, escaped) of slot s for symbols x [S, ..] int64, each [..] int64.

  `escaped` is 0 inside the support; outside, the number that follows the escape: 2 d + side for the distance d >= 1,
  where side is 1 above the support.
  """
  table, first = plan.context(s, x, parameters)
  lookup = plan.lookups[s]
  coded = (x[s] - first) >> (plan.stride[s] - 1)
  escape = lookup.escape[table]
  above, below = coded >= escape, coded < 0
  escaped = np.where(above, 2 * (coded - escape + 1) + 1, np.where(below, -2 * coded, 0))
  return table, np.where(above | below, escape, coded), escaped


def escaped_value(escaped: np.ndarray, escape: np.ndarray) -> np.ndarray:
  """The coded value that stands behind an escape, int64, for tables whose escape has the number `escape`."""
  distance = escaped >> 1
  return np.where(escaped & 1, escape - 1 + distance, -distance)
