"""States that come back bit for bit in float32."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import codec_cases as cases
from jaxtrain.data import files
from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import apply, coding, freeze, lossless, predict, schema

SPECIAL = np.array([0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38, 1.0, np.nextafter(np.float32(1), np.float32(2))],
                   np.float32)


@functools.cache
def case():
  """A codec of TOY at its start."""
  record = cases.toy_record(300)
  return cases.of_schema(cases.TOY, schema.encode(cases.TOY, record))


def case_code():
  """The code of that codec."""
  return freeze.freeze(case().problem, case().state)


def extended(record):
  """(symbols of the codec, symbols with what they leave open, their code, how columns follow)."""
  made = case()
  symbols = apply.to_symbols(made.coder, made.state, schema.encode(cases.TOY, record))
  names = tuple(name for name, _ in apply.slots(made.problem))
  return symbols, *lossless.extend(cases.TOY, names, symbols, record, case_code())


def assert_same(record, back):
  """Every bit of the numbers, and all classes."""
  assert (back["length"].view(np.int32) == np.asarray(record["length"], np.float32).view(np.int32)).all()
  assert back["count"].tolist() == np.rint(record["count"]).astype(int).tolist()
  assert back["bit"].tolist() == list(record["bit"])
  assert back["kind"].tolist() == [("red", "green", "blue")[k] for k in record["kind"]]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
@settings(max_examples=300, deadline=None)
def test_numbers_in_order_come_back(numbers):
  values = np.sort(np.asarray([*numbers, *SPECIAL], np.float32))
  whole = lossless.ordered(values)
  assert (lossless.from_ordered(whole).view(np.int32) == values.view(np.int32)).all()
  assert (np.diff(whole)[np.diff(values) > 0] > 0).all()
  assert lossless.ordered(np.float32([-0.0])) < lossless.ordered(np.float32([0.0]))


@pytest.mark.parametrize("seed", range(3))
def test_states_come_back_through_bytes(seed):
  """Numbers far outside of the range, equal ones, and the ends of float32 among them."""
  record = cases.toy_record(200, seed)
  record["length"][:8], record["length"][8:20], record["count"][:2] = SPECIAL, 0.25, (-7, 100000)
  symbols, more, code, residuals = extended(record)
  blocks = coding.encode(code, more, 64)
  read, again = lossless.from_bytes(cases.TOY, symbols.shape[1], lossless.to_bytes(code, residuals))
  back = coding.decode(read, blocks, coding.block_sizes(200, 64))
  assert again == residuals
  assert_same(record, lossless.restore(cases.TOY, symbols.shape[1], back, again))


def test_what_symbols_say_is_not_said_again():
  """Uniform float32 numbers in 0.5..1, whose lower 23 bits are random: with the symbol a number costs 23 bits and at
  most two more, not 32.
  """
  record = cases.toy_record(4000)
  record["length"] = np.random.RandomState(1).uniform(0.5, 1, 4000).astype(np.float32)
  symbols, more, code, residuals = extended(record)
  one = next(k for k, name in enumerate(apply.slots(case().problem)) if name[0] == "length")
  at = symbols.shape[1] + sum(1 + r.num_bytes for r in residuals[:1])
  assert residuals[1].name == "length"
  bits = coding.bits(code, more, 1024)
  cost = bits[:, at:at + 1 + residuals[1].num_bytes].sum(axis=1).mean()
  shares = np.unique(symbols[:, one], return_counts=True)[1] / 4000
  assert 23 <= cost - (shares * np.log2(shares)).sum() <= 25  # with the entropy of the symbol


def with_one(change):
  """How columns of TOY follow, with other values of the second."""
  def made(residuals):
    return [residuals[0], residuals[1]._replace(**change), *residuals[2:]]
  return made


@pytest.mark.parametrize("change,says", [
    (lambda found: found[:-1], "bytes end early"), (lambda found: [*found, found[0]], "does not fit"),
    (with_one({"slot": 99}), "'length' follows"), (with_one({"slot": -1}), "'length' follows"),
    (with_one({"num_bytes": 9}), "'length' follows"), (with_one({"known": (), "centres": ()}), "'length' follows"),
    (with_one({"known": (2, 1), "centres": (0, 0)}), "no writer says"), (with_one({"num_bytes": 0}), "does not fit"),
    (with_one({"known": (1,), "centres": (-2**63,)}), "no writer says"),
    (with_one({"known": (1,), "centres": (2**53,)}), "no writer says")])
def test_the_tables_of_a_stranger_are_refused(change, says):
  symbols, _, code, residuals = extended(cases.toy_record(50))
  assert residuals[1].num_bytes > 0
  with pytest.raises(UserError, match=says):
    lossless.from_bytes(cases.TOY, symbols.shape[1], lossless.to_bytes(code, change(residuals)))


def test_tables_of_many_columns_fit_into_a_file():
  """200 columns of 600 symbols each are under half a megabyte: the differences of centres have 3 bytes."""
  random = np.random.RandomState(0)
  known = tuple(range(-300, 300))
  residuals = [lossless.Residual(str(s), s, known, tuple(np.sort(random.randint(-2**30, 2**30, 600)).tolist()), 2)
               for s in range(200)]
  code = case_code()
  assert len(lossless.to_bytes(code, residuals)) - len(lossless.to_bytes(code, residuals[:1])) < 5e5


def test_large_whole_numbers():
  """Numbers about 10**15 come back; those beyond 2**52 are refused."""
  record = cases.toy_record(50)
  record["count"] = 10**15 + np.arange(50)
  symbols, more, code, residuals = extended(record)
  _, again = lossless.from_bytes(cases.TOY, symbols.shape[1], lossless.to_bytes(code, residuals))
  assert_same(record, lossless.restore(cases.TOY, symbols.shape[1], more, again))
  record["count"][7] = 2**52 + 1
  with pytest.raises(UserError, match="'count': a lossless file holds whole numbers up to 2"):
    extended(record)


def test_no_states_are_refused():
  with pytest.raises(UserError, match="^a lossless file of no states"):
    lossless.extend(cases.TOY, ("length",), np.zeros((0, 1), np.int32), cases.toy_record(0), None)


def test_symbols_of_a_stranger_are_refused():
  symbols, more, _, residuals = extended(cases.toy_record(50))
  S = symbols.shape[1]
  far = more.copy()
  far[:, S:] = 2**30
  with pytest.raises(UserError, match="a lossless file holds"):
    lossless.restore(cases.TOY, S, far, residuals)


def test_a_lossless_file_by_the_verbs(tmp_path):
  made, record = case(), cases.toy_record(60)
  verbs = predict.make_verbs(made.problem, made.splits.meta, True)
  kind = np.array(["red", "green", "blue"], object)[record["kind"]]
  columns = files.Columns("in.csv", record | {"kind": kind, "bit": record["bit"].astype(int)}, {})
  path = str(tmp_path / "a.jtc")
  verbs["compress"].writers[".jtc"](path, made.state, columns, verbs["compress"].run(made.state, columns, 0, cases.KEY))
  back = verbs["decompress"].run(made.state, verbs["decompress"].readers[".jtc"](path, made.state), 0, cases.KEY)
  assert_same(record, back | {"bit": back["bit"] == 1})
