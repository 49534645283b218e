"""Conformance of every config and variant: what every experiment promises, found by glob and tested alike.

Being killed, and other numbers of devices, are in tests/run/kill_test.py and tests/devices, by `records.EACH_CONFIG`.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export

import child
import consistency_cases
import made_simulations
import cores
import guides
import made_benchmarks
import made_events
import reads
import records
import runs
from jaxtrain import config as config_lib, jsonable, loop, predict, step as step_lib
from jaxtrain.data import files, writing
from jaxtrain.devices import backend, parallel
from jaxtrain.report import figures, run_page
from jaxtrain.run import check, setup, trained
from jaxtrain.workdir import journal as journal_lib

FILES = [os.path.join(child.ROOT, path) for path in records.CONFIGS]
IDS = list(records.EACH_CONFIG)
# Of tests that compile for long in each family, the table's is fast and the others are slow.
FIRST_FAST = [pytest.param(path, id=name, marks=[pytest.mark.slow] * (name != "vae")) for path, name in zip(FILES, IDS)]
CASES = [(path, variant) for path in FILES for variant in config_lib.list_variants(path)]
NAMES = [f"{os.path.basename(path)[:-3]}-{variant}" for path, variant in CASES]
# What is trained twice over, resumed and checked by the fast tests beside each config's `smoke`: other kinds of network
# and of data; the slow tests do all others. Those that differ from another in size alone are checked and lowered only.
QUICK = ()
SIZES = tuple(f"causal_discovery-{variant}" for variant in
              ("cpu", "pairs20", "avici_cpu", "avici", "bcnp_local_large", "benchmark"))
# What is lowered by the fast tests beside `smoke`: each kind of network that differs in shape.
SHAPES = (*QUICK, "vae-standard_semisup", "vae-tfds", "vae-digits", "causal_discovery-bcnp_pl",
          "causal_discovery-random", "causal_consistency-iv")


def cases(fast: tuple[str, ...], without: tuple[str, ...] = (), slow: tuple[str, ...] = ()) -> list:
  """Variants as parameters, of which `smoke` and those of `fast` are no slow tests, but for those of `slow`."""
  is_fast = lambda case, name: (case[1] == "smoke" or name in fast) and name not in slow
  mark = lambda case, name: pytest.mark.smoke if is_fast(case, name) else pytest.mark.slow
  return [pytest.param(case, id=name, marks=mark(case, name)) for case, name in zip(CASES, NAMES)
          if name not in without]


SIMULATED = ("independent", "correlated", "trajectory", "gaussian")  # sources that make as many states as are asked for
EPOCH = 4  # steps of a stream that are tested in place of an epoch
STREAM = {"data.num_nodes": (4, 5), "data.pad_to": (5,), "data.num_rows": 12, "data.num_rows_int": 0,
          "data.task_chunk": 4, "train.batch_size": 8, "eval.max_val_tasks": 8, "eval.max_test_tasks": 0,
          "eval.val_num_samples": 4, "eval.test_num_samples": 4, "eval.every_steps": EPOCH,
          "checkpoint.every_steps": EPOCH, "log.every_steps": 0}
EVENTS = {"model.encoder.hidden_dims": (8, 8), "model.decoder.hidden_dims": (8, 8), "model.latent.dim": 4,
          "model.latent.num_codes": 8, "model.latent.num_stages": 2, "optim.decay_steps": 100}
NETS = {"model.dim": 8, "model.num_heads": 2, "model.ff_dim": 8, "model.num_blocks": 2, "model.key_size": 4,
        "model.num_layers": 2, "model.num_layers_decoder": 2, "model.n_perm_samples": 3, "model.sinkhorn_iter": 5}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
  """Tables for the variants that read one, by source; benchmarks are read from made-up packages."""
  folder = tmp_path_factory.mktemp("table")
  path = str(folder / "table.csv")
  random = np.random.RandomState(0)
  with open(path, "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["well", "a", "b", "c", "drug"])
    for i in range(600):
      writer.writerow([f"w{i // 20}", *random.normal(size=3).round(4), ("yes", "no", "")[i % 3]])
  made_events.write_images(folder, 96, 64)
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(made_benchmarks.write(folder / "packages")))
    yield {"csv": path, "tfds": cores.write("tfds", folder), "hdf5": cores.write("hdf5", folder),
           "simulation_db": made_simulations.write(folder / "simulation.db"),
           "events hdf5": made_events.write_hdf5(folder), "events csv": made_events.write_csv(folder),
           "events images": str(folder)}


def small(path, variant, table, num_epochs=2, **overrides):
  """A variant at a size of seconds: few rows, two epochs; of a stream `EPOCH` steps for each, of what is trained."""
  config = config_lib.read_file(f"{path}:{variant}")
  values = {"train.num_epochs": num_epochs, "train.num_steps": 0, "log.figures": "none", "log.progress": False,
            "checkpoint.every_epochs": 1}
  if "num_nodes" in config.data:
    values |= STREAM | {"train.num_epochs": 0, "train.num_steps": EPOCH * num_epochs * (variant != "random")}
    values |= {key: value for key, value in NETS.items() if key.removeprefix("model.") in config.model}
    sized = lambda text: "er num_edges=2" if "num_edges" in text else "sf m=1" if "sf" in text else text
    values["data.graphs"] = tuple(map(sized, config.data.graphs))
  if "source" in config.data and config.data.source in ("synthetic", "survey"):
    values["data.row_limit"] = 1500
  if "source" in config.data and config.data.source == "csv":
    values |= {"data.path": table["csv"], "data.features": ("a", "b", "c"), "data.group": "well"}
  if "treatment" in config.data:
    values |= {"model.hidden_dims": (8,), "loss.warmup_epochs": 1, "optim.decay_steps": 100}
    values |= {"data.num_samples": 150} if config.data.source in consistency_cases.SIMULATED else {}
  if "treatment" in config.data and config.data.source == "csv":
    values |= {"data.features": ("a", "b"), "data.outcomes": ("c",), "data.treatment": "drug"}
  if "compressor" in config.model:
    values |= {"model.hidden_dims": (8,), "optim.decay_steps": 100}
    values |= {"data.num_states": 600} if config.data.source in SIMULATED else {}
    values |= {"model.compressor.num_codes": 16} if config.model.compressor.kind == "vq" else {}
    values.pop("data.features", None)
  if "compressor" in config.model and config.data.source == "csv":
    values |= {"data.continuous": ("a", "b", "c"), "data.categorical": ("drug",)}
  if "compressor" in config.model and config.data.source == "simulation_db":
    values |= {"data.path": table["simulation_db"]}
  if "latent" in config.model:
    values |= EVENTS
    values.pop("data.features", None), values.pop("data.group", None)
    values |= {"optim_critic.decay_steps": 100} if "optim_critic" in config else {}
    values |= {"data.row_limit": 300} if config.data.source == "toy" else {
        "data.path": table[f"events {config.data.source}"]}
  if "source" in config.data and config.data.source == "tfds":
    values |= {"data.path": table["tfds"], "data.features": cores.FEATURES, "train.batch_size": 64}
  for key, value in (values | overrides).items():
    config_lib.assign(config, key, value)
  return config


def smoke_flags(path: str) -> tuple[str, ...]:
  """Flags of the smoke run of a config that tests share."""
  return runs.smoke(os.path.basename(path).removesuffix(".py"))


def config_trained(path: str, variant: str, table):
  """A variant as it is trained here: `smoke` as in the run that tests share, which compiles no program of its own."""
  if variant == "smoke":
    return guides.config_of(child.in_steps(smoke_flags(path)))
  return small(path, variant, table)


def forget_newest(folder: str) -> bool:
  """Removes the newest checkpoint of a run where there are several; whether it did."""
  steps = sorted(filter(str.isdigit, os.listdir(os.path.join(folder, "checkpoints"))), key=int)
  if len(steps) > 1:
    shutil.rmtree(os.path.join(folder, "checkpoints", steps[-1]))
  return len(steps) > 1


@pytest.mark.parametrize("case", cases(QUICK, SIZES))
def test_trains_resumes_and_repeats(case, table, shared, tmp_path):
  """Finite loss; a run that lost what came after an epoch, and goes on from there, is what it was: digest and losses.
  What has nothing to train gives the same twice. The run of `smoke` is the one that other tests read.
  """
  path, variant = case
  config, straight = config_trained(*case, table), tmp_path / "straight"
  if variant == "smoke":
    straight = shared.run(*smoke_flags(path))
  else:
    loop.train(config, str(straight))
  shutil.copytree(straight, tmp_path / "again", symlinks=True)
  last = str(len(config.stages) - 1)  # of several stages the last goes on
  folder = os.path.join(tmp_path, "again", *(("stages", last) if config.stages else ()))
  goes_on = forget_newest(folder)
  resumed = loop.train(config, str(tmp_path / "again"))
  parts = os.path.relpath(folder, tmp_path / "again")
  assert child.inspect(os.path.join(straight, parts))["digest"].startswith(f"sha256:{resumed.digest} ")
  history = json.loads((straight / "history.json").read_text(encoding="utf-8"))
  if variant == "random":
    assert not goes_on and not resumed.history
    return
  assert np.isfinite(history["loss"]).all() and len(history["loss"]) >= 2
  assert resumed.history["loss"] == history["loss"]
  assert goes_on and child.resume_steps(folder)[-1] > 0


@pytest.mark.parametrize("case", cases(QUICK, slow=("causal_discovery-smoke",)))
def test_check_describes(case, table):
  described = check.describe(config_trained(*case, table))
  assert described["parameters"] > 0 or case[1] == "random"
  assert "weight" in [leaf["name"] for leaf in described["batch"]] and "loss" in described["metrics"]
  assert described["data"]["stream"] or sum(part["rows"] for part in described["data"]["parts"]) > 0
  assert (described["expected_seconds"] is None) == bool(described["not_timed"])


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_config_has_smoke_and_another_seed_differs(path, table, tmp_path):
  assert "smoke" in config_lib.list_variants(path)
  digests = [loop.train(small(path, "smoke", table, 1, seed=seed)).digest for seed in (1, 2)]
  assert digests[0] != digests[1]


@pytest.mark.slow
@pytest.mark.parametrize("path", FIRST_FAST)
def test_a_vmapped_member_equals_its_solo_run(path, table):
  """Two learning rates as one program, and each alone, 20 steps: losses agree to 1e-5."""
  parts = setup.assemble(config_lib.resolve(small(path, "smoke", table)))
  module = config_lib.load_experiment(parts.config.experiment)
  first = config_lib.declared(module, "INIT_ROWS")
  rates, seeds = jnp.array([1e-3, 3e-3]), jnp.array([5, 6])
  data = jax.device_put(parts.splits.train.data)

  def train(rate, seed):
    config = config_lib.substitute(parts.config, {"optim.learning_rate": rate})
    experiment = module.make(config, parts.splits.meta)
    one_step = step_lib.make_one_step(experiment, parts.splits.train, parallel.over_whole, "halt")
    totals = step_lib.zero_totals(parts.totals)
    state = step_lib.make_init(experiment, parts.splits.train, first)(jax.random.key(seed), data)
    return step_lib.make_repeat(one_step)(state, totals, data, 20)[1]["loss"]

  together = jax.jit(jax.vmap(train))(rates, seeds)
  for i in range(2):
    alone = jax.jit(train)(rates[i], seeds[i])
    np.testing.assert_allclose(together[0][i] / together[1][i], alone[0] / alone[1], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_a_member_of_a_sweep_is_the_run_that_it_would_be_alone(path, shared, tmp_path):
  """Digest and facts, of a member in turn with another."""
  alone, seed = str(shared.run(*smoke_flags(path))), config_lib.read_file(f"{path}:smoke").seed
  done = child.run(*smoke_flags(path), f"--sweep=seed={seed},{seed + 1}", "--exact", f"--workdir={tmp_path / 'sweep'}",
                   command="sweep")
  assert done.returncode == 0, done.stderr
  journal = journal_lib.Journal(str(tmp_path / "sweep"))
  one, other = map(journal.workdir, journal.members)
  assert child.inspect(one)["digest"] == child.inspect(alone)["digest"] != child.inspect(other)["digest"]
  assert child.facts(one) == child.facts(alone)


# A posterior over graphs compiles for long.
@pytest.mark.slow
@pytest.mark.parametrize("path", [pytest.param(path, id=name, marks=[pytest.mark.slow] * (name == "causal_discovery"))
                                  for path, name in zip(FILES, IDS)])
def test_the_page_of_a_run_is_written_and_shows_what_was_watched(path, shared, tmp_path):
  workdir = shared.copy(tmp_path / "run", *smoke_flags(path))
  os.remove(os.path.join(workdir, "report.html"))
  with open(run_page.write_run(workdir, "end"), encoding="utf-8") as file:
    page = file.read()
  assert len(page) > 5_000 and "cannot be read" not in page
  assert config_lib.read_file(f"{path}:smoke").train.monitor in page


def input_of(verb, num_rows: int) -> dict[str, np.ndarray]:
  """Columns that a verb can read: those that it declares, or four numbers where it takes any."""
  random = np.random.RandomState(0)
  if verb.inputs is None:
    return {name: random.normal(size=num_rows) for name in "abcd"}
  bounds = {each.name: (1.0 if each.low is None else each.low, each.high) for each in verb.inputs}
  numbers = {name: random.uniform(low, low + 1 if high is None else high, num_rows)
             for name, (low, high) in bounds.items()}
  numbers |= {each.name: np.rint(numbers[each.name]) for each in verb.inputs if each.kind == "whole"}
  named = {each.name: np.asarray(each.values, object)[np.arange(num_rows) % len(each.values)]
           for each in verb.inputs if each.values}
  return numbers | named


def apply(workdir: str, name: str, verb, folder) -> dict:
  """Columns of what a verb writes for a table that fits."""
  flags = [f"--workdir={workdir}", f"--verb={name}", f"--output={folder / name}.npz"]
  if verb.reads:
    writing.write(str(folder / "in.npz"), input_of(verb, 20) | ({"note": np.arange(20)} if verb.carries else {}))
    flags.append(f"--input={folder / 'in.npz'}")
  predict.run(flags + ["--num=5"] * verb.counts)
  return files.read("npz", f"{folder / name}.npz").values


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_each_verb_does_what_it_declares(path, shared, tmp_path):
  """It reads a table of the columns that it names, carries others through if it says so, makes as many rows as asked.
  """
  workdir = str(shared.run(*smoke_flags(path)))
  verbs = trained.restore(workdir, "best").experiment.predict
  assert verbs
  for name, verb in verbs.items():
    found = apply(workdir, name, verb, tmp_path)
    assert found and len({len(column) for column in found.values()}) == 1, name
    numbers = [column for column in found.values() if column.dtype.kind == "f"]
    assert all(np.isfinite(column).all() for column in numbers), name
    if verb.carries and verb.reads:
      assert found["note"].tolist() == list(range(20)), name
    if verb.counts:
      assert len(next(iter(found.values()))) == 5, name


MODES = """
import sys, jax
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
from jaxtrain import config as config_lib, loop
path, batch_norm = sys.argv[1], sys.argv[2] == "True"
results = {}
for mode, chunks in (("jit", 1), ("pmap", 2), ("canonical", 2)):
  config = config_lib.read_file(path + ":smoke")
  values = {"train.num_epochs": 1, "parallel.mode": mode, "parallel.chunks": chunks, "log.progress": False,
            "data.row_limit": 1500, "model.batch_norm": batch_norm}
  for key, value in values.items():
    config_lib.assign(config, key, value)
  result = loop.train(config)
  results[mode] = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(result.state.params)])
gap = lambda a, b: float(np.abs(results[a] - results[b]).max())
print("GAPS", gap("pmap", "canonical"), gap("jit", "canonical"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("path", [path for path in FILES if path.endswith("vae.py")])
def test_parallel_modes_agree_as_promised(path, batch_norm):
  """On two devices: pmap equals canonical with two chunks; jit equals both where there is no BatchNorm, not where there
  is.
  """
  done = subprocess.run([sys.executable, "-c", MODES, path, str(batch_norm)], cwd=child.ROOT, capture_output=True,
                        text=True, timeout=300)
  assert done.returncode == 0, done.stderr[-2000:]
  pmap_gap, jit_gap = map(float, done.stdout.split("GAPS ")[1].split())
  assert pmap_gap < 1e-5
  assert (jit_gap > 1e-5) if batch_norm else (jit_gap < 1e-5)


def switches(table) -> list[dict]:
  """What switches optional parts on, tried one after the other while there are fields that nothing has read."""
  out_of_core = {"data.source": "hdf5", "data.path": table["hdf5"], "data.features": cores.FEATURES,
                 "data.transforms": (), "data.out_of_core": True, "data.row_limit": 0, "train.batch_size": 64}
  return [out_of_core, {"data.split.kind": "leave_out", "data.split.num_folds": 5}, {"eval.max_test_tasks": 4},
          {"parallel.mode": "canonical"}, {"optim.plateau.factor": 0.5}, {"optim.schedule": "step"},
          {"optim.ema_decay": 0.9}, {"train.microbatch": 4, "train.batch_size": 8}, {"train.num_members": 2},
          {"loss.consistency": "both"}, {"model.bayesian": True}, {"loss.target_bits": 30.0},
          {"loss.feature_epochs": 3}, {"data.source": "gaussian", "data.num_dims": 4},
          {"model.encoder.kind": "gan", "model.decoder.kind": "gan"}]


def unread(config, read: set[str]) -> list[str]:
  """Fields of a config that are not among those read."""
  return [key for key, _ in jsonable.flatten(config) if key not in read]


def use(path: str, table, folder) -> dict[str, list[str]]:
  """variant -> the fields that nothing reads, when a config is used in all ways: a run with its verbs and figures, one
  that starts from it; then data, experiment and step of each variant and of the switches while fields are left.
  """
  configs = {variant: small(path, variant, table) for variant in config_lib.list_variants(path)}
  known = dict(jsonable.flatten(configs["smoke"]))
  of_file = next((variant for variant in ("csv", "table") if variant in configs), "smoke")
  grouped = lambda switch: of_file if "data.split.kind" in switch else "smoke"
  more = (small(path, grouped(switch), table, **switch) for switch in switches(table) if switch.keys() <= known.keys())
  run, smoke = str(folder / "run"), config_trained(path, "smoke", table)
  with reads.noted() as read, mock.patch.object(backend, "threads_in_use", []):
    loop.train(smoke, run, draw=lambda workdir, moment: None)
    loop.adopt(config_lib.resolve(smoke), str(folder / "adopted"), run, {})
    for name, verb in trained.restore(run, "best").experiment.predict.items():
      apply(run, name, verb, folder)
    figures.select(reads.Record(config_lib.to_record(smoke), read), "end")
    left = lambda: {variant: found for variant, config in configs.items() if (found := unread(config, read))}
    for config in configs.values():
      if unread(config, read):
        setup.assemble(config_lib.resolve(config))
    for config in more:
      if left():
        setup.assemble(config_lib.resolve(config))
    return left()


@pytest.mark.parametrize("path", FIRST_FAST)
def test_each_field_is_read(path, table, tmp_path):
  assert use(path, table, tmp_path) == {}


def test_a_field_that_is_never_read_is_found(table):
  """Copying, checking, digesting and writing a config are no reading; a field asked for by name is read."""
  config = small(FILES[-1], "smoke", table)
  config.model.of_no_use = 3
  with reads.noted() as read:
    setup.assemble(config_lib.resolve(config))
    config_lib.digest(config), config_lib.to_record(config), config_lib.with_values(config, {"model.of_no_use": 4})
  assert "model.of_no_use" in unread(config, read) and "train.batch_size" in read
  with reads.noted() as read:
    resolved = config_lib.resolve(config)
    assert resolved.model.of_no_use == 3 and dict(**resolved.optim.plateau)
  assert {"model.of_no_use", "optim.plateau.factor"} <= read and "optim.eps" not in read


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(SHAPES))
def test_the_training_step_lowers_for_devices_that_are_not_here(case, table):
  """For CUDA and TPU, in one module: no operation of a step lacks a rule for them."""
  parts = setup.assemble(config_lib.resolve(small(*case, table)))
  for k in range(len(parts.splits.train.buckets) or 1):
    step = step_lib.make_one_step(parts.experiment, parts.splits.train.in_bucket(k), parallel.over_whole, "halt")
    data, num_steps = setup.shapes(parts.splits.train.data), jax.ShapeDtypeStruct((), jnp.int32)
    lower = jax_export.export(jax.jit(step_lib.make_repeat(step)), platforms=("cuda", "tpu"))
    made = lower(parts.abstract, parts.totals, data, num_steps)
    assert made.platforms == ("cuda", "tpu") and "stablehlo.while" in made.mlir_module()
