"""Files that others wrote: mutated ones, and those of a process whose floats, devices and programs are others."""

import os
import subprocess
import sys
import time
import tracemalloc

import jax
import numpy as np
import pytest

import codec_cases as cases
import forked
import strange_files
from jaxtrain.data import files
from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import code_bytes, columns, predict, schema

N = 60
MOST_MEMORY, MOST_SECONDS = 6 * code_bytes.MOST_BYTES, 20.0  # of one mutated file of a few kB
KINDS = ("smoke", "vq", "lattice", "trajectory")
# Nine numbers, the first eight of which are a point of E8.
NUMBERS = schema.checked(columns.Schema("numbers", tuple(
    columns.Column(f"x_{k}", "continuous", -1.0, 1.0, group="a") for k in range(9)), (
        columns.Feature("x", "numeric", ("x_1",), group="a", weight=1.0),)))


def states(kind, num_rows, seed):
  """(schema, columns [N] by name) of the states of a kind of codec."""
  if kind != "lattice":
    return cases.TOY, cases.toy_record(num_rows, seed)
  values = np.random.RandomState(seed).normal(0, 0.5, (num_rows, 9))
  return NUMBERS, {f"x_{k}": values[:, k] for k in range(9)}


def table(kind):
  """N states as a file has them."""
  found = states(kind, N, 5)[1]
  if kind != "lattice":
    found |= {"kind": np.array(["red", "green", "blue"], object)[found["kind"]], "bit": found["bit"].astype(int)}
  return files.Columns("in.csv", found, {})


def case(kind):
  """A codec at its start."""
  own, record = states(kind, 70, 0)
  made = cases.of_schema(own, schema.encode(own, record), kind)
  assert (made.problem.plan.num_lattice == 8) == (kind == "lattice")
  return made


def written(folder, made, exact):
  """A file of states: its path, the verbs."""
  verbs = predict.make_verbs(made.problem, made.splits.meta, exact)
  path = str(folder / f"{exact}.jtc")
  given = table("smoke")
  verbs["compress"].writers[".jtc"](path, made.state, given, verbs["compress"].run(made.state, given, 0, cases.KEY))
  return path, verbs


def outcome(verbs, path, state):
  """What happens to a file: `refused`, `damaged` where some rows are empty, `read`."""
  try:
    codes = verbs["decompress"].readers[".jtc"](path, state)
    found = verbs["decompress"].run(state, codes, 0, cases.KEY)
  except UserError as error:
    assert "\n" not in str(error) and path in str(error)
    return "refused"
  assert len(found["length"]) == len(codes.whole) and (codes.lines == []) == codes.whole.all()
  return "read" if codes.whole.all() else "damaged"


def test_a_file_whose_blocks_are_all_damaged_has_empty_rows(tmp_path):
  made = case("smoke")
  path, verbs = written(tmp_path, made, False)
  with open(path, "r+b") as file:
    file.seek(-1, os.SEEK_END)
    file.write(b"\0")
  codes = verbs["decompress"].readers[".jtc"](path, made.state)
  back = verbs["decompress"].run(made.state, codes, 0, cases.KEY)
  assert codes.lines == ["block 1 of 1 (states 1 to 60) is damaged; its rows are empty"]
  assert np.isnan(back["length"]).all() and back["kind"].tolist() == [""] * N


def assert_strange_files_are_harmless(tmp_path, monkeypatch, count):
  """So many mutated files of two blocks, lossy, lossless, and of a codebook in turn, through the verb decompress."""
  monkeypatch.setattr(predict.apply, "BLOCK_SIZE", 32)
  random, seen, whole = np.random.default_rng(count), set(), []
  for kind, exact in (("smoke", False), ("smoke", True), ("vq", False)):
    made = case(kind)
    path, verbs = written(tmp_path, made, exact)
    with open(path, "rb") as file:
      whole.append((verbs, made.state, file.read()))
    assert outcome(verbs, path, made.state) == "read"
  path = str(tmp_path / "mutated.jtc")
  tracemalloc.start()
  try:
    for turn in range(count):
      verbs, state, data = whole[turn % len(whole)]
      with open(path, "wb") as file:
        file.write(strange_files.stranger(random, data))
      tracemalloc.reset_peak()
      before = time.monotonic()
      seen.add(outcome(verbs, path, state))
      assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY and time.monotonic() - before < MOST_SECONDS
  finally:
    tracemalloc.stop()
  assert seen == {"refused", "damaged", "read"}


@pytest.mark.slow
def test_mutated_files_by_the_verbs(tmp_path, monkeypatch):
  """200 of them."""
  assert_strange_files_are_harmless(tmp_path, monkeypatch, 200)


@pytest.mark.slow
def test_five_thousand_mutated_files_by_the_verbs(tmp_path, monkeypatch):
  """5,000 of them."""
  assert_strange_files_are_harmless(tmp_path, monkeypatch, 5000)


def leaves_of(state):
  """Arrays of a state that its codec is applied with."""
  return jax.tree.leaves((state.params, state.ema, state.model_state))


def write_here(folder):
  """In a process of its own: of each kind a file of the state whose numbers lie in the folder, and its symbols."""
  assert jax.device_count() == int(os.environ["WANTED_DEVICES"])
  for kind in KINDS:
    made = case(kind)
    parts = made.state.params, made.state.ema, made.state.model_state
    with np.load(os.path.join(folder, f"{kind}.npz")) as given:
      params, ema, model_state = jax.tree.unflatten(jax.tree.structure(parts), [given[name] for name in given.files])
    state = made.state.replace(params=params, ema=ema, model_state=model_state)
    verbs = predict.make_verbs(made.problem, made.splits.meta, kind == "smoke")
    found = verbs["compress"].run(state, table(kind), 0, cases.KEY)
    verbs["compress"].writers[".jtc"](os.path.join(folder, f"{kind}.jtc"), state, table(kind), found)
    np.save(os.path.join(folder, f"{kind}.npy"), np.stack([found[name] for name in found if name != "bits"], axis=1))


@pytest.mark.slow
@pytest.mark.parametrize("flags,num_devices", [
    ("--xla_force_host_platform_device_count=4", 4), ("--xla_cpu_max_isa=SSE4_2 --xla_cpu_enable_fast_math=true", 1)])
def test_the_file_of_another_process_is_decoded_here(flags, num_devices, tmp_path):
  """With other devices, instructions and arithmetic it freezes the code and makes symbols, which come back as they were
  there; the states of a lossless file bit for bit.
  """
  mades = {kind: case(kind) for kind in KINDS}
  for kind, made in mades.items():
    np.savez(tmp_path / f"{kind}.npz", *map(np.asarray, leaves_of(made.state)))
  script = f"import predict_strangers_test as test\ntest.write_here({str(tmp_path)!r})"
  places = [os.path.dirname(os.path.abspath(__file__)), os.path.join(forked.ROOT, "tests"), forked.ROOT]
  environ = {"XLA_FLAGS": flags, "WANTED_DEVICES": str(num_devices), "PYTHONPATH": os.pathsep.join(places)}
  done = subprocess.run([sys.executable, "-c", script], cwd=forked.ROOT, timeout=240, env=os.environ | environ,
                        capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  for kind, made in mades.items():
    codes = predict.read_file(made.coder, made.splits.meta, str(tmp_path / f"{kind}.jtc"), made.state)
    want = np.load(tmp_path / f"{kind}.npy")
    assert codes.whole.all() and (codes.symbols[:, :want.shape[1]] == want).all()
    assert len(np.unique(want, axis=0)) > 10
  given = cases.toy_record(N, 5)["length"].astype(np.float32)
  codes = predict.read_file(mades["smoke"].coder, mades["smoke"].splits.meta, str(tmp_path / "smoke.jtc"),
                            mades["smoke"].state)
  assert (codes.record["length"].view(np.int32) == given.view(np.int32)).all()
