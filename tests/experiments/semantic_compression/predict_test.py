"""Compressing and decompressing states: files, columns of codes, and what is refused, each in one line."""

import functools
import tracemalloc

import jax
import numpy as np
import pytest

import codec_cases as cases
from jaxtrain.data import files, writing
from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import (apply, code_bytes, coding, columns as columns_lib, freeze,
                                                       predict, preservation, schema)

N = 2500  # three blocks
KINDS = ("smoke", "vq", "fsq")


@functools.cache
def case(kind="smoke", seed=1):
  """A codec of TOY, whose parameters have random numbers added to them."""
  more = {"model.compressor.levels": (9, 9, 2, 3)} if kind == "fsq" else {}
  made = cases.of_schema(cases.TOY, schema.encode(cases.TOY, cases.toy_record(70)), kind, **more)
  random = np.random.RandomState(seed)
  move = lambda leaf: leaf + 0.02 * random.normal(size=leaf.shape).astype(np.float32)
  return made._replace(state=made.state.replace(params=jax.tree.map(move, made.state.params)))


def table(num_rows=N, **columns):
  """States as a user's file has them: classes by name, bits as 0 and 1."""
  record = cases.toy_record(num_rows, 5)
  kind = np.array(["red", "green", "blue"], object)[record["kind"]]
  return files.Columns("in.csv", record | {"kind": kind, "bit": record["bit"].astype(int)} | columns, {})


def verbs(kind="smoke", seed=1):
  """(verbs, state, case) of a codec."""
  made = case(kind, seed)
  return predict.make_verbs(made.problem, made.splits.meta, False), made.state, made


def compressed(folder, kind="smoke", found=None):
  """A file .jtc of states."""
  own, state, _ = verbs(kind)
  path = str(folder / "states.jtc")
  given = found or table()
  own["compress"].writers[".jtc"](path, state, given, own["compress"].run(state, given, 0, cases.KEY))
  return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_gives_the_states_of_its_symbols_back(kind, tmp_path):
  """Exactly those of the symbols; the columns of codes give the same, and what states cost is what the tables say."""
  own, state, made = verbs(kind)
  found = own["compress"].run(state, table(), 0, cases.KEY)
  x = schema.encode(cases.TOY, cases.toy_record(N, 5))
  symbols = apply.to_symbols(made.coder, state, x)
  names = [f"code_{name}" for name, _ in apply.slots(made.problem)]
  assert list(found) == [*names, "bits"]
  np.testing.assert_array_equal(np.stack([found[name] for name in names], axis=1), symbols)
  code = freeze.freeze(made.problem, state)
  np.testing.assert_allclose(found["bits"], coding.bits(code, symbols, apply.BLOCK_SIZE).sum(axis=1))

  path = compressed(tmp_path, kind)
  back = own["decompress"].run(state, own["decompress"].readers[".jtc"](path, state), 0, cases.KEY)
  want = apply.to_record(made.coder, state, symbols)
  assert list(back) == ["bit", "length", "kind", "count"]
  for name, column in want.items():
    np.testing.assert_array_equal(back[name], column)
  of_codes = own["decompress"].run(state, files.Columns("codes.csv", found, {}), 0, cases.KEY)
  for name, column in back.items():
    np.testing.assert_array_equal(of_codes[name], column)
  assert back["bit"].dtype.kind == back["count"].dtype.kind == "i"
  assert own["decompress"].lost(own["decompress"].readers[".jtc"](path, state)) == []


def test_codes_survive_a_file_of_text(tmp_path):
  own, state, _ = verbs()
  found = own["compress"].run(state, table(40), 0, cases.KEY)
  writing.write(str(tmp_path / "codes.csv"), found)
  back = own["decompress"].run(state, files.read("csv", str(tmp_path / "codes.csv")), 0, cases.KEY)
  want = own["decompress"].run(state, files.Columns("codes", found, {}), 0, cases.KEY)
  for name in want:
    np.testing.assert_array_equal(back[name], want[name])


def test_one_flipped_byte_loses_one_block(tmp_path):
  """Its rows are empty, and named; all others are as they were."""
  own, state, _ = verbs()
  path = compressed(tmp_path)
  data = bytearray((tmp_path / "states.jtc").read_bytes())
  reader = own["decompress"].readers[".jtc"]
  whole = own["decompress"].run(state, reader(path, state), 0, cases.KEY)
  found = predict.container.read(path)
  middle = found.start + int(found.index["length"][0]) + int(found.index["length"][1]) // 2
  data[middle] ^= 16
  (tmp_path / "damaged.jtc").write_bytes(data)
  codes = reader(str(tmp_path / "damaged.jtc"), state)
  back = own["decompress"].run(state, codes, 0, cases.KEY)
  lost = np.zeros(N, bool)
  lost[1024:2048] = True
  np.testing.assert_array_equal(codes.whole, ~lost)
  assert own["decompress"].lost(codes) == ["block 2 of 3 (states 1,025 to 2,048) is damaged; its rows are empty"]
  for name in ("length", "count", "bit"):
    assert np.isnan(back[name][lost]).all()
    np.testing.assert_array_equal(back[name][~lost], whole[name][~lost])
  assert set(back["kind"][lost]) == {""}
  np.testing.assert_array_equal(back["kind"][~lost], whole["kind"][~lost])


def one_line(error):
  """The words of an error, which are one line."""
  text = str(error.value)
  assert text and "\n" not in text
  return text


@pytest.mark.parametrize("cut", [0, 5, 40, -1])
def test_a_file_that_is_cut_off_is_refused(cut, tmp_path):
  own, state, _ = verbs()
  compressed(tmp_path, found=table(20))
  (tmp_path / "cut.jtc").write_bytes((tmp_path / "states.jtc").read_bytes()[:cut])
  with pytest.raises(UserError) as error:
    own["decompress"].readers[".jtc"](str(tmp_path / "cut.jtc"), state)
  assert "cut.jtc" in one_line(error)


def test_the_file_of_another_model_is_refused(tmp_path):
  """Of other parameters by one bit of a float, and of another schema."""
  own, state, made = verbs()
  path = compressed(tmp_path, found=table(20))
  bias = state.params["shift_out"]
  near = state.replace(params=state.params | {"shift_out": bias.at[1].set(np.nextafter(bias[1], np.float32(9)))})
  for other in (verbs(seed=2)[1], near):
    with pytest.raises(UserError, match="another model wrote this file; it holds 20 states of the schema 'toy'$"):
      own["decompress"].readers[".jtc"](path, other)
  meta = made.splits.meta | {"schema": made.splits.meta["schema"] | {"name": "other"}}
  assert predict.model_hash(state, meta) != predict.model_hash(state, made.splits.meta)
  assert predict.model_hash(state, made.splits.meta) == predict.model_hash(jax.tree.map(lambda leaf: leaf, state),
                                                                           made.splits.meta)


@pytest.mark.parametrize("name,cell,words", [
    ("length", "tall", "column 'length', row 3"),
    ("length", np.inf, "allowed a finite number"), ("bit", "2", "column 'bit', row 3: got '2', allowed 0 or 1"),
    ("kind", "pink", "column 'kind', row 3: got 'pink', allowed red | green | blue"),
    ("count", 3.7, "column 'count', row 3: got 3.7, allowed a whole number"), ("count", np.inf, "a whole number")])
def test_wrong_cells_are_named(name, cell, words):
  own, state, _ = verbs()
  given = table(5)
  given.values[name] = given.values[name].astype(object)
  given.values[name][2] = cell
  for verb in ("compress", "probe"):
    with pytest.raises(UserError) as error:
      own[verb].run(state, given, 0, cases.KEY)
    assert "in.csv" in one_line(error) and words in one_line(error)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name,cell", [("length", np.nan), ("kind", ""), ("count", None), ("bit", None)])
def test_a_row_that_lacks_a_cell_is_empty_and_not_in_a_file(name, cell, exact, tmp_path):
  made = case("smoke", 1)
  own, state, given = predict.make_verbs(made.problem, made.splits.meta, exact), made.state, table(5)
  whole = own["compress"].run(state, table(5), 0, cases.KEY)
  given.values[name] = given.values[name].astype(object)
  given.values[name][2] = cell
  for verb in ("compress", "probe"):
    for column in own[verb].run(state, given, 0, cases.KEY).values():
      assert np.isnan(column).tolist() == [False, False, True, False, False]
  found = own["compress"].run(state, given, 0, cases.KEY)
  for column, values in found.items():
    np.testing.assert_array_equal(np.delete(values, 2), np.delete(whole[column], 2))
  assert any("1 rows that lack a cell" in line for line in own["compress"].say(given, found))
  path = str(tmp_path / "a.jtc")
  own["compress"].writers[".jtc"](path, state, given, found)
  back = own["decompress"].run(state, own["decompress"].readers[".jtc"](path, state), 0, cases.KEY)
  assert len(back["length"]) == 4


def rewritten(folder, kind, header, code, symbols):
  """What a reader says of the file of a kind of codec with other parts."""
  own, state, _ = verbs(kind)
  found = predict.container.read(compressed(folder, kind, table(len(symbols))))
  path = str(folder / "other.jtc")
  blocks = coding.encode(code, symbols, apply.BLOCK_SIZE)
  predict.container.write(path, found.header._replace(**header), code_bytes.to_bytes(code), blocks)
  return own["decompress"].readers[".jtc"](path, state)


def test_a_code_of_another_model_under_this_ones_hash_is_refused(tmp_path):
  """Fewer slots, and a mode that there is not."""
  made = case()
  code = freeze.freeze(made.problem, made.state)
  symbols = apply.to_symbols(made.coder, made.state, schema.encode(cases.TOY, cases.toy_record(20)))
  with pytest.raises(UserError, match="other.jtc: its code has 2 slots, and this model has 4$"):
    rewritten(tmp_path, "smoke", {}, code._replace(slots=code.slots[:2]), symbols[:, :2])
  with pytest.raises(UserError, match="other.jtc: its mode is 'lossles'; there are lossy and lossless$"):
    rewritten(tmp_path, "smoke", {"mode": "lossles"}, code, symbols)
  with pytest.raises(UserError, match="other.jtc: a code: its bytes|other.jtc: a lossless file"):
    rewritten(tmp_path, "smoke", {"mode": "lossless"}, code, symbols)


@pytest.mark.parametrize("kind,value", [("vq", 16), ("vq", -1), ("fsq", 9)])
def test_a_block_with_codes_that_are_none_is_damaged(kind, value, tmp_path):
  """In the second of three, under a right checksum; one of an outlier of a density is none such."""
  made = case(kind)
  symbols = apply.to_symbols(made.coder, made.state, schema.encode(cases.TOY, cases.toy_record(N)))
  symbols = np.array(symbols)
  symbols[1500, 0] = value
  codes = rewritten(tmp_path, kind, {}, freeze.freeze(made.problem, made.state), symbols)
  assert codes.lines == ["block 2 of 3 (states 1,025 to 2,048) is damaged; its rows are empty"]
  np.testing.assert_array_equal(codes.whole, np.arange(N) // 1024 != 1)


def test_outliers_come_back_from_a_file(tmp_path):
  """With the symbols at the ends of 32 bits that numbers far beyond the range have."""
  own, state, made = verbs()
  far = np.array([3e38, -3e38, 1.0, 1e12])
  path = compressed(tmp_path, found=table(4, length=far))
  codes = own["decompress"].readers[".jtc"](path, state)
  x = schema.encode(cases.TOY, cases.toy_record(4, 5) | {"length": far})
  np.testing.assert_array_equal(codes.symbols, apply.to_symbols(made.coder, state, x))
  assert codes.whole.all() and np.abs(codes.symbols.astype(np.int64)).max() > 2**24


def test_what_cannot_be_written_names_no_path_of_the_writers_own(tmp_path, monkeypatch):
  """It is given the name of a file that takes the place of the user's."""
  monkeypatch.setattr(predict.container, "MOST_HEADER_BYTES", 10)
  with pytest.raises(UserError, match=r"^a header of \d+ bytes; there may be 10$"):
    compressed(tmp_path, found=table(5))
  assert not list(tmp_path.iterdir())


def test_missing_columns_are_named():
  own, state, made = verbs()
  given = table(5)
  del given.values["kind"]
  with pytest.raises(UserError, match="^in.csv has no column 'kind'; the run needs bit, length, kind, count$"):
    own["compress"].run(state, given, 0, cases.KEY)
  codes = own["compress"].run(state, table(5), 0, cases.KEY)
  del codes["code_count"]
  with pytest.raises(UserError, match="^codes.csv has no column 'code_count'; compress writes it$"):
    own["decompress"].run(state, files.Columns("codes.csv", codes, {}), 0, cases.KEY)


@pytest.mark.parametrize("kind,value,allowed", [("smoke", 0.5, "-16777216 to 16777216"), ("vq", 16, "0 to 15"),
                                                ("vq", -1, "0 to 15"), ("fsq", 9, "0 to 8"), ("smoke", np.nan, "-16")])
def test_codes_that_are_none_are_refused(kind, value, allowed):
  own, state, made = verbs(kind)
  codes = own["compress"].run(state, table(5), 0, cases.KEY)
  name = next(iter(codes))
  codes[name] = codes[name].astype(float)
  codes[name][1] = value
  with pytest.raises(UserError, match=f"column '{name}', row 2: got {value}, allowed whole numbers from {allowed}"):
    own["decompress"].run(state, files.Columns("codes.csv", codes, {}), 0, cases.KEY)


@pytest.mark.parametrize("truth,want", [("true", True), ("No", False), ("1.0", True), ("0.0", False), (1, True)])
def test_bits_have_several_spellings(truth, want):
  given = table(3, bit=np.array([truth] * 3, object))
  assert predict.read_states(cases.TOY, given)[0]["bit"].tolist() == [want] * 3


def test_probes_say_what_is_kept_of_each_state():
  """Their mean over states is the fidelity of discrete features; a state costs what compressing it costs."""
  own, state, made = verbs()
  found = own["probe"].run(state, table(200), 0, cases.KEY)
  record = cases.toy_record(200, 5)
  x = schema.encode(cases.TOY, record)
  back = apply.to_record(made.coder, state, apply.to_symbols(made.coder, state, x))
  scores = preservation.scores(cases.TOY, record, back)
  for name in ("long", "bit", "kind"):
    assert found[f"{name}_kept"].mean() == pytest.approx(scores.fidelity[name])
  np.testing.assert_allclose(found["length_kept"], np.exp(-np.abs(back["length"] - record["length"]) / 4), rtol=1e-4)
  weights = {"length": 0.5, "long": 0.2, "bit": 0.2, "kind": 0.1}
  want = sum(weight * found[f"{name}_kept"] for name, weight in weights.items())
  np.testing.assert_allclose(found["kept"], want)
  np.testing.assert_allclose(found["bits"], own["compress"].run(state, table(200), 0, cases.KEY)["bits"])


def test_a_variational_codec_only_probes():
  assert set(verbs("none")[0]) == {"probe"}
  own, state, _ = verbs("none")
  assert "bits" not in own["probe"].run(state, table(5), 0, cases.KEY)
  assert set(verbs()[0]) == {"probe", "compress", "decompress"}


def test_a_file_that_claims_more_than_there_is_memory_is_refused_before(tmp_path, monkeypatch):
  """100,000 blocks without a byte are a file of under a megabyte, whose states would take gigabytes."""
  own, state, made = verbs()
  compressed(tmp_path, found=table(20))
  head = predict.container.read(str(tmp_path / "states.jtc"))
  num_blocks, largest = 100_000, predict.container.MOST_BLOCK_SIZE
  header = head.header._replace(num_states=num_blocks * largest, block_size=largest)
  path = str(tmp_path / "large.jtc")
  predict.container.write(path, header, head.code, [b""] * num_blocks)
  monkeypatch.setattr(predict.memory, "free_bytes", lambda: 2**31)
  tracemalloc.start()
  try:
    with pytest.raises(UserError) as error:
      own["decompress"].readers[".jtc"](path, state)
    assert tracemalloc.get_traced_memory()[1] < 2**25
  finally:
    tracemalloc.stop()
  assert "large.jtc: a file of 1,638,400,000 states unfolds to" in one_line(error)


@pytest.mark.parametrize("variant,name", [("trajectory", "anew"), ("hyperprior", "side_0"), ("lattice", "coset_0")])
def test_a_column_with_the_name_of_another_symbol_is_refused(variant, name):
  """Their codes would be one column of a table, and one of them would be written for both."""
  columns = tuple(columns_lib.Column(f"x_{k}", "continuous", -1.0, 1.0, group="a") for k in range(8))
  own = schema.checked(columns_lib.Schema("own", (columns[0]._replace(name=name), *columns[1:]), (
      columns_lib.Feature("x", "numeric", ("x_1",), group="a", weight=1.0),)))
  with pytest.raises(UserError, match=f"^data column '{name}': config.model.compressor.kind=.* rename the column$"):
    cases.of_schema(own, np.zeros((64, 8), np.float32), variant)
