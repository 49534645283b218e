"""What a trained codec does with states.

  compress    code_<slot>: the symbols of a state, and `bits`, what they cost; into a file .jtc they are coded
  decompress  the columns of states from such a file, or from columns code_<slot>
  probe       <feature>_kept: 1 where a feature that carries meaning comes back right, or exp(-error) of a number in
              shares of its range; kept, their weighted mean (`preservation` of an assessment is another); bits

With `model.compressor.lossless` a file also holds what the symbols leave open, so that the states come back bit for bit
in float32. A file is read with the tables that it holds, and refused where another model wrote it. Where a block of it
is damaged the rows of that block are empty, and the block is named.
"""

import functools
import hashlib
import json
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtrain import memory
from jaxtrain.data import cells, files, inputs
from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import (apply, code_bytes, coding, container, freeze,
                                                       lossless, objective, preservation,
                                                       schema as schema_lib)
from jaxtrain.experiments.semantic_compression.columns import NUMERIC
from jaxtrain.types import Input, Verb

MODE = "lossy"
ANY = (-2**24, 2**24)  # symbols of a slot without limits, in a table: those that float32 has
TRUTHS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
Result = dict[str, np.ndarray]


class Codes(NamedTuple):
  """Symbols that a file held.

  Attributes:
    symbols: [N, S] int32; of damaged blocks without meaning.
    whole: [N] bool, False in damaged blocks.
    lines: for the screen.
    record: the states of a lossless file, those of whole blocks alone; None of another.
  """
  symbols: np.ndarray
  whole: np.ndarray
  lines: list[str]
  record: schema_lib.Record | None = None


def read_states(schema: schema_lib.Schema, found: files.Columns) -> tuple[schema_lib.Record, np.ndarray]:
  """(the states of a file's rows without a missing cell, [N] which rows these are). Raises UserError, with file, column
  and row, for a value that does not fit.
  """
  record, missing, whole = {}, cells.missing_test(found.form), np.ones(found.num_rows, bool)
  for column in schema.columns:
    found.check(column.name)
    if column.name not in found.values:
      raise UserError(inputs.lacks(found, column.name, [each.name for each in schema.columns]))
    if column.kind in NUMERIC:
      values, is_whole = found.numbers(column.name), column.kind == "integer"
      absent = np.isnan(values)
      bad = lambda cell: not np.isfinite(cell) or is_whole and cell != np.rint(cell)
      allowed = "a whole number" if is_whole else "a finite number"
    else:
      given = [None if missing(cell) else str(cell).strip() for cell in found.scalars(column.name).tolist()]
      known = TRUTHS if column.kind == "binary" else {name: k for k, name in enumerate(column.classes)}
      as_truth = (lambda cell: cell.lower().removesuffix(".0")) if column.kind == "binary" else str
      values = np.array([None if cell is None or as_truth(cell) not in known else known[as_truth(cell)]
                         for cell in given], object)
      absent = np.array([cell is None for cell in given])
      allowed, bad = "0 or 1" if column.kind == "binary" else " | ".join(column.classes), lambda cell: cell is None
    for i, cell in enumerate(values.tolist()):
      if not absent[i] and bad(cell):
        raise found.fail(column.name, i, f"got {found.values[column.name][i]!r}, allowed {allowed}")
    record[column.name], whole = values, whole & ~absent
  typed = lambda column: float if column.kind in NUMERIC else bool if column.kind == "binary" else np.int64
  return {column.name: record[column.name][whole].astype(typed(column)) for column in schema.columns}, whole


def spread(whole: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Values of the whole rows as a column [N] of all; NaN for the others, where there are any."""
  if whole.all():
    return values
  found = np.full(len(whole), np.nan)
  found[whole] = values
  return found


def model_hash(state: Any, meta: dict) -> str:
  """SHA-256 over parameters, codes and the level of a target, by their names, and the schema."""
  digest = hashlib.sha256(json.dumps(meta["schema"], sort_keys=True).encode())
  for path, leaf in jax.tree_util.tree_leaves_with_path((state.applied, state.model_state, state.level)):
    digest.update(f"{jax.tree_util.keystr(path)}\0".encode())
    digest.update(np.asarray(leaf, np.float32).astype("<f4").tobytes())
  return digest.hexdigest()


def compress(coder: apply.Coder, state: Any, found: files.Columns, num: int, key: jax.Array) -> Result:
  """Symbols of each state, and what they cost by the tables of the model, in a lossless file too."""
  record, whole = read_states(coder.problem.schema, found)
  if not whole.any():
    raise UserError(f"{found.path}: each row lacks a cell of the columns that the run needs")
  symbols = apply.to_symbols(coder, state, schema_lib.encode(coder.problem.schema, record))
  bits = coding.bits(freeze.freeze(coder.problem, state), symbols, apply.BLOCK_SIZE).sum(axis=1)
  return {name: spread(whole, values) for name, values in (code_columns(coder, symbols) | {"bits": bits}).items()}


def code_columns(coder: apply.Coder, symbols: np.ndarray) -> Result:
  """Columns code_<slot> of symbols [N, S]."""
  return {f"code_{name}": symbols[:, s] for s, (name, _) in enumerate(apply.slots(coder.problem))}


def write_file(coder: apply.Coder, meta: dict, exact: bool, path: str, state: Any, given: files.Columns,
               found: Result) -> None:
  """A file .jtc of the columns that `compress` gives; `exact`: and of what they leave open of the states."""
  p = coder.problem
  names = tuple(name for name, _ in apply.slots(p))
  symbols = np.stack([found[f"code_{name}"] for name in names], axis=1)
  symbols = symbols[~np.isnan(symbols).any(axis=1)].astype(np.int32)  # rows that lack a cell are not in the file
  code = freeze.freeze(p, state)
  if exact:
    symbols, code, residuals = lossless.extend(p.schema, names, symbols, read_states(p.schema, given)[0], code)
  head = container.Header(json.dumps(meta["schema"], sort_keys=True), model_hash(state, meta), len(symbols),
                          apply.BLOCK_SIZE, lossless.MODE if exact else MODE, {})
  raw = lossless.to_bytes(code, residuals) if exact else code_bytes.to_bytes(code)
  container.write(path, head, raw, coding.encode(code, symbols, apply.BLOCK_SIZE))


def read_file(coder: apply.Coder, meta: dict, path: str, state: Any) -> Codes:
  """The symbols of a file .jtc. Raises UserError where it is none, is damaged in its head, or is another model's."""
  found = container.read(path)
  if found.header.model_sha256 != model_hash(state, meta):
    raise UserError(f"{path}: another model wrote this file; it holds {found.header.num_states:,} states of the schema "
                    f"{schema_name(found.header.schema)!r:.60}")
  try:
    return decoded(coder, found)
  except UserError as error:
    raise UserError(f"{path}: {error.message}") from None


def schema_name(text: str) -> str:
  """The name in the JSON of a schema, which may be a stranger's; "" where there is none."""
  try:
    plain = json.loads(text)
  except (ValueError, RecursionError):
    return ""
  return plain["name"] if isinstance(plain, dict) and isinstance(plain.get("name"), str) else ""


def decoded(coder: apply.Coder, found: container.Container) -> Codes:
  """The symbols of a file with this model's hash. Raises UserError where its code is none of this model's."""
  schema, num_states, S = coder.problem.schema, found.header.num_states, len(apply.slots(coder.problem))
  if found.header.mode not in (MODE, lossless.MODE):
    raise UserError(f"its mode is {found.header.mode!r:.60}; there are {MODE} and {lossless.MODE}")
  exact = found.header.mode == lossless.MODE
  code, residuals = lossless.from_bytes(schema, S, found.code) if exact else (code_bytes.from_bytes(found.code), [])
  if not exact and len(code.slots) != S:
    raise UserError(f"its code has {len(code.slots)} slots, and this model has {S}")
  try:
    memory.check(num_states * state_bytes(schema, len(code.slots)), f"a file of {num_states:,} states")
  except memory.TooMuch as error:
    raise UserError(str(error)) from None
  blocks, _ = found.blocks(0, found.num_blocks)
  symbols, right = coding.decode_some(code, blocks, found.block_sizes)
  owner = np.repeat(np.arange(found.num_blocks), found.block_sizes)
  for s in range(S):
    low, high = code_range(coder.problem.plan, s)
    if (low, high) != ANY:  # numbers beyond it are outliers'
      right[owner[(symbols[:, s] < low) | (symbols[:, s] > high)]] = False
  whole = right[owner]
  lines = [f"{found.says(k)} is damaged; its rows are empty" for k in np.flatnonzero(~right)]
  return Codes(symbols, whole, lines, lossless.restore(schema, S, symbols[whole], residuals) if exact else None)


def state_bytes(schema: schema_lib.Schema, num_symbols: int) -> int:
  """Memory of a state of a file, about: its symbols twice, the network's output, its columns, and the result."""
  longest = max((len(name) for column in schema.columns for name in column.classes), default=0)
  return 8 * num_symbols + 16 + 4 * schema.width + (24 + 4 * longest) * len(schema.columns)


def read_codes(coder: apply.Coder, found: files.Columns) -> Codes:
  """Symbols of columns code_<slot>. Raises UserError for one that is no whole number, or none of the codes."""
  columns = []
  for s, (name, _) in enumerate(apply.slots(coder.problem)):
    column, plan = f"code_{name}", coder.problem.plan
    found.check(column)
    if column not in found.values:
      raise UserError(f"{found.path} has no column {column!r}; compress writes it")
    values = found.numbers(column)
    low, high = code_range(plan, s)
    for i in np.flatnonzero(~((values >= low) & (values <= high) & (values == np.rint(values))))[:1]:
      raise found.fail(column, int(i), f"got {values[i]:g}, allowed whole numbers from {low} to {high}")
    columns.append(values.astype(np.int32))
  symbols = np.stack(columns, axis=1)
  return Codes(symbols, np.ones(len(symbols), bool), [])


def code_range(plan: Any, s: int) -> tuple[int, int]:
  """Smallest and largest symbol of slot s."""
  if plan.kind == "previous" and s == 0:
    return 0, 1
  if plan.kind == "vq":
    return 0, plan.num_codes - 1
  return (0, plan.levels[s] - 1) if plan.kind == "fsq" else ANY


def decompress(coder: apply.Coder, state: Any, found: Any, num: int, key: jax.Array) -> Result:
  """The columns of states; rows of damaged blocks are empty."""
  codes = found if isinstance(found, Codes) else read_codes(coder, found)
  record = codes.record or apply.to_record(coder, state, codes.symbols[codes.whole])
  result = {}
  for column in coder.problem.schema.columns:
    values = record[column.name]
    values = values.astype(np.int64) if column.kind in ("binary", "integer") else values
    if not codes.whole.all():
      some = np.full(len(codes.whole), "" if column.kind == "categorical" else np.nan,
                     object if column.kind == "categorical" else float)
      some[codes.whole] = values
      values = some
    result[column.name] = values
  return result


def lost_blocks(found: Any) -> list[str]:
  """Which blocks of a file were damaged."""
  return found.lines if isinstance(found, Codes) else []


def probe(coder: apply.Coder, state: Any, found: files.Columns, num: int, key: jax.Array) -> Result:
  """What is kept of each feature of each state, and what the state costs."""
  p = coder.problem
  given, whole = read_states(p.schema, found)
  if not whole.any():
    raise UserError(f"{found.path}: each row lacks a cell of the columns that the run needs")
  x = schema_lib.encode(p.schema, given)
  back = schema_lib.decode(p.schema, apply.straight(coder, state, x))
  given = schema_lib.decode(p.schema, x)
  result, total = {}, 0.0
  for feature in p.schema.features:
    a, b = (preservation.feature_values(p.schema, feature, record) for record in (given, back))
    kept = np.exp(-np.sqrt(np.mean(np.square(a - b), axis=1))) if feature.kind == "numeric" else (a == b).astype(float)
    result[f"{feature.name}_kept"], total = kept, total + feature.weight * kept
  result["kept"] = total / sum(feature.weight for feature in p.schema.features)
  if p.plan.coded:
    symbols = apply.to_symbols(coder, state, x)
    result["bits"] = coding.bits(freeze.freeze(p, state), symbols, apply.BLOCK_SIZE).sum(axis=1)
  return {name: spread(whole, values) for name, values in result.items()}


def say_cost(found: files.Columns, result: Result) -> list[str]:
  """What states cost, and which are not in a file."""
  left = int(np.isnan(result["bits"]).sum())
  return [f"a state costs {np.nanmean(result['bits']):.1f} bits; a file has its head and tables beside that"] + [
      f"{left:,} rows that lack a cell are not in a file .jtc, and empty in a table"] * (left > 0)


def state_inputs(schema: schema_lib.Schema) -> tuple[Input, ...]:
  """The columns of a state."""
  kinds = {"continuous": "number", "integer": "whole", "binary": "label", "categorical": "label"}
  values = {"binary": lambda column: ("0", "1"), "categorical": lambda column: column.classes}
  return tuple(Input(column.name, kinds[column.kind], required=False,
                     values=values[column.kind](column) if column.kind in values else ()) for column in schema.columns)


def make_verbs(p: objective.Problem, meta: dict, exact: bool) -> dict[str, Verb]:
  """The verbs of a problem; where nothing is coded there is `probe` alone. `exact`: files lose nothing in float32.

  Raises UserError where a column of the data has the name of another symbol.
  """
  names = [name for name, _ in apply.slots(p)]
  for name in sorted({name for name in names if names.count(name) > 1}):
    raise UserError(f"data column {name!r}: config.model.compressor.kind={p.plan.kind} has a symbol of this name; "
                    "rename the column")
  coder = apply.make_coder(p)
  bind, own = functools.partial, state_inputs(p.schema)
  found = {"probe": Verb(bind(probe, coder), None, "refused", own)}
  if not p.plan.coded:
    return found
  codes = tuple(Input(f"code_{name}", "whole", *map(float, code_range(p.plan, s)))
                for s, (name, _) in enumerate(apply.slots(p)))
  return found | {
      "compress": Verb(bind(compress, coder), None, "refused", own, makes="states", say=say_cost,
                       writers={".jtc": bind(write_file, coder, meta, exact)}),
      "decompress": Verb(bind(decompress, coder), None, "refused", codes, makes="states", carries=False,
                         lost=lost_blocks, readers={".jtc": bind(read_file, coder, meta)})}
