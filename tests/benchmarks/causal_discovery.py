"""The causal task generator and the causal networks beside PyTorch, in one run on one core.

  python tests/benchmarks/causal_discovery.py --json=out.json            # all, on core 0 (about 9 minutes)
  python tests/benchmarks/causal_discovery.py --parts=generator --rounds=5 --core=1

Every process is pinned to the same core with one thread, and the processes take turns, round after round. Quoted is
CPU time of the process, which a core shared with others disturbs least: medians over rounds with the extremes, and
ratios round by round. Needs `pip install -e '.[bench]'`, Linux with `taskset`; official AVICI is fetched by pip into a
temporary folder, or taken from `--avici_dir`, and left out with its reason where that fails.

  generator  Milliseconds per task of 20 variables and 256 rows, graphs half ER(0.2), half SF(2). Ours: the training
             stream's batch of 32 in chunks of 8, compiled; `gp_exact` and `bcnp_gp`, which have no peer here, in
             batches of 8. Peers (causal_generator_torch.py): `usual`, the original's way; `lean`, PyTorch with nothing
             to spare; `avici`, the synthetic data of avici 1.0.7, beside our `avici_linear` and `avici_rff`. Ours
             standardises every signal, and computes with all 20 variables as masked parents; peers gather the few
             parents that there are.
  models     Seconds of a training step of AVICI and BCNP (Sinkhorn, 10 orders, 20 iterations): forward, loss, backward,
             clipping to norm 1, AdamW; dropout 0.1; four batches made beforehand turn round. `full`: 20 variables, 256
             rows, width 128, 12 blocks, or 4 + 4, 2 tasks; `small`: 10 variables, 64 rows, width 32, 4 blocks, or
             2 + 2, 8 tasks. Ours: as the loop runs it, several steps in one compiled call with donated state, guard
             and metrics. Peer (causal_models_torch.py): eager, which was faster there than torch.compile.
             `with_generator` is the same step with its tasks made inside. `generator_share` is CPU time of making
             those tasks alone, over that of the step without; `generator_share_32` that of the mixture per task in
             batches of 32, where `generator` is measured too.

`lean_avx512` and `torch_avx512`, on AMD processors with a C compiler at hand: the same peers after a library of one
line is preloaded, without which the MKL of PyTorch's wheels takes AVX2 there, at half the speed of products. Few users
do that; it tells how much of a ratio is MKL's choice.

Left out: compiling, start, transfers of tasks to an accelerator (ours are made there; the peers' are not), evaluation.

Roofline: a product of large float32 matrices on the same core in the same round, by XLA or by PyTorch, whichever is
faster. FLOPs of a step are 6 x weights x tokens and 12 x inner width x sequence length x tokens for attention, without
what is computed again. Norms, softmax, dropout and AdamW are no FLOPs here but take time, so the share stays below 1.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import bench

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDER = os.path.join("tests", "benchmarks")
PARTS = ("generator", "models")

MECHANISMS = {"linear": ("linear",), "mlp": ("mlp",), "gp": ("gp",), "mixture": ("linear", "mlp", "gp"),
              "gp_exact": ("gp_exact",), "bcnp_gp": ("bcnp_gp",), "avici_linear": ("avici_linear",),
              "avici_rff": ("avici_rff",)}
ONE_CHUNK = ("gp_exact", "bcnp_gp")  # so slow that a batch of one chunk says enough
PEERS = ("usual", "lean", "lean_avx512", "avici")
PEER_NAMES = {"avici": {"avici_linear": "linear", "avici_rff": "rff"}}  # ours -> theirs, where they differ
BATCH, CHUNK, NODES, ROWS = 32, 8, 20, 256
PEER_TASKS = 100  # a round
LEAST_SECONDS = 0.5  # of CPU time, for each mechanism and round

MODELS = ("avici", "bcnp")
SIZES = {
    "full": {"tasks": 2, "nodes": 20, "rows": 256, "dim": 128, "heads": 8, "key_size": 32, "ff": 512,
             "blocks": {"avici": 12, "bcnp": 4}, "decoder_blocks": 4, "steps": 2},
    "small": {"tasks": 8, "nodes": 10, "rows": 64, "dim": 32, "heads": 4, "key_size": 8, "ff": 128,
              "blocks": {"avici": 4, "bcnp": 2}, "decoder_blocks": 2, "steps": 40},
}
NUM_BATCHES = 4
MATRIX = 1536

# ---- one process of ours: these import jax, which then sees one core


def cpu_seconds(call, count: int = 0) -> float:
  """CPU seconds of a call after a first one: so many calls, or for 0 as many as take `LEAST_SECONDS`."""
  call()
  start, done = time.process_time(), 0
  while done < count or (not count and time.process_time() - start < LEAST_SECONDS):
    call()
    done += 1
  return (time.process_time() - start) / done


def time_generator() -> dict:
  """{mechanism: {CPU milliseconds per task, mean number of edges}} of the training stream."""
  import jax
  import numpy as np
  from jaxtrain import config as config_lib, rng
  from jaxtrain.experiments.causal_discovery import training
  found, key = {}, rng.key_for(0, "data")
  for name, families in MECHANISMS.items():
    config = config_lib.read_file(os.path.join(ROOT, "configs", "causal_discovery.py:avici"))
    config.data.mechanisms, config.data.num_nodes, config.data.num_rows = families, (NODES,), ROWS
    batch = config.train.batch_size = CHUNK if name in ONE_CHUNK else BATCH
    config.data.task_chunk = CHUNK
    source, step = training.load(config).train, iter(range(10 ** 9))
    compiled = jax.jit(source.batch_at)
    make = lambda: jax.block_until_ready(compiled(source.data, np.int32(next(step)), key))
    edges = float(make()["adjacency"].sum()) / batch
    found[name] = {"cpu_ms": 1e3 * cpu_seconds(make) / batch, "edges": edges}
  return found


def model_config(model: str, size: str):
  """The config of a model at a size."""
  from jaxtrain import config as config_lib
  config, wanted = config_lib.read_file(os.path.join(ROOT, "configs", f"causal_discovery.py:{model}")), SIZES[size]
  config.data.num_nodes, config.data.num_rows = (wanted["nodes"],), wanted["rows"]
  config.train.batch_size = config.data.task_chunk = wanted["tasks"]
  config.model.dim, config.model.num_heads, config.model.ff_dim = wanted["dim"], wanted["heads"], wanted["ff"]
  if model == "avici":
    config.model.num_blocks, config.model.key_size = wanted["blocks"][model], wanted["key_size"]
  else:
    config.model.num_layers, config.model.num_layers_decoder = wanted["blocks"][model], wanted["decoder_blocks"]
  config.model.dropout_rate, config.train.monitor = 0.1, "train_loss"  # so that no evaluation is traced
  config.train.precision = "float32"
  return config_lib.resolve(config)


def time_model(model: str, size: str) -> dict:
  """CPU seconds of a step without and with the generator, and of the generator alone; parameters and FLOPs."""
  import jax
  import jax.numpy as jnp
  import numpy as np
  import flops
  from jaxtrain import rng, step as step_lib
  from jaxtrain.run import setup
  from jaxtrain.types import Source
  parts, num_steps = setup.assemble(model_config(model, size)), SIZES[size]["steps"]
  source, init = parts.splits.train, jax.jit(parts.init)
  data_key, make = rng.key_for(0, "data"), jax.jit(source.batch_at)
  batches = jax.tree.map(lambda *leaves: jnp.stack(leaves),
                         *(make(source.data, np.int32(i), data_key) for i in range(NUM_BATCHES)))
  fixed = Source(batches, lambda data, step, key: jax.tree.map(lambda leaf: leaf[step % NUM_BATCHES], data), None)
  one_fixed = step_lib.make_one_step(parts.experiment, fixed, parts.devices.over, "halt")

  def of(one_step, data):
    repeat = parts.devices.compile(step_lib.make_repeat(one_step), (0, 1))
    carry = [init(rng.root_key(0), source.data), step_lib.zero_totals(parts.totals)]
    def call(n):
      carry[:] = jax.block_until_ready(repeat(*carry, data, np.int32(n)))
    call(1)
    start, start_wall = time.process_time(), time.perf_counter()
    call(num_steps)
    cpu, wall = time.process_time() - start, time.perf_counter() - start_wall
    if int(carry[0].step) != num_steps + 1 or int(carry[0].guard.num_bad):
      sys.exit(f"{model}, {size}: steps were not finite")
    return cpu / num_steps, wall / num_steps

  cpu, wall = of(one_fixed, batches)
  with_generator, _ = of(parts.one_steps[0], source.data)
  generator = cpu_seconds(lambda: jax.block_until_ready(make(source.data, np.int32(5), data_key)))
  return {"cpu_s": cpu, "wall_s": wall, "with_generator": with_generator, "generator": generator,
          "num_parameters": setup.count_params(parts.abstract),
          "flops": flops.of_step(parts.config, parts.abstract.params)}


def time_roofline() -> dict:
  """GFLOP/s of a product of large float32 matrices, by library."""
  import jax
  import torch
  torch.set_num_threads(1)
  x, y = jax.random.normal(jax.random.key(0), (MATRIX, MATRIX)), torch.randn(MATRIX, MATRIX)
  product, flops = jax.jit(lambda v: v @ v), 2e-9 * MATRIX ** 3
  return {"xla": flops / cpu_seconds(lambda: jax.block_until_ready(product(x)), 20),
          "torch": flops / cpu_seconds(lambda: y @ y, 20)}


CHILDREN = {"generator": time_generator, "model": time_model, "roofline": time_roofline}

# ---- the process that starts the others


class ChildError(Exception):
  """A process that failed, with the last line that it printed."""


def read(core: int, script: str, *args: str, preload: str = "") -> dict:
  """Runs a benchmark script on one core; the JSON of the last line that it prints. Raises ChildError."""
  path = os.pathsep.join(part for part in (ROOT, os.environ.get("PYTHONPATH", "")) if part)
  command = ["taskset", "-c", str(core), sys.executable, os.path.join(FOLDER, script), *args]
  environ = {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
             "PYTHONPATH": path} | ({"LD_PRELOAD": preload} if preload else {})
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | environ)
  if done.returncode:
    raise ChildError(f"{script} {' '.join(args)}: exit {done.returncode}: {done.stderr.strip()[-1000:]}")
  return json.loads(done.stdout.splitlines()[-1])


def own(core: int, *words: str, preload: str = "") -> dict:
  """One of `CHILDREN` in a process of its own."""
  return read(core, "causal_discovery.py", f"--child={','.join(words)}", preload=preload)


def make_override(folder: str) -> str:
  """A library that makes MKL take an AMD processor for one of its maker's; "" without compiler or such a processor."""
  with open("/proc/cpuinfo", encoding="utf-8") as file:
    if "AuthenticAMD" not in file.read() or not shutil.which("cc"):
      return ""
  path = os.path.join(folder, "override.so")
  subprocess.run(["cc", "-shared", "-fPIC", "-o", path, "-xc", "-"], check=True, text=True,
                 input="int mkl_serv_intel_cpu_true(void) { return 1; }")
  return path


def middle(values: list[float]) -> dict:
  """Median and extremes."""
  return {"median": statistics.median(values), "range": [min(values), max(values)]}


def install_avici(folder: str) -> str:
  """Puts official AVICI into a folder; the reason where that fails."""
  code = f"import causal_generator_torch; causal_generator_torch.install_avici({folder!r})"
  done = subprocess.run([sys.executable, "-c", code], cwd=os.path.join(ROOT, FOLDER), capture_output=True, text=True)
  return done.stderr.strip()[-300:] if done.returncode else ""


def run_generators(core: int, avici_dir: str, override: str, left_out: dict[str, str]) -> dict:
  """{mechanism: {who: CPU milliseconds per task}} of one round."""
  found = {name: {"ours": ours["cpu_ms"], "ours_edges": ours["edges"]} for name, ours in own(core, "generator").items()}
  for peer in PEERS:
    if peer in left_out:
      continue
    kind, _, tuned = peer.partition("_")
    flags = (f"--peer={kind}", f"--nodes={NODES}", f"--rows={ROWS}", f"--tasks={PEER_TASKS}", "--rounds=1")
    try:
      theirs = read(core, "causal_generator_torch.py", *flags, *[f"--avici_dir={avici_dir}"] * (peer == "avici"),
                    preload=override if tuned else "")
    except ChildError as error:
      if peer != "avici":
        raise
      left_out[peer] = str(error)
      continue
    names = PEER_NAMES[peer] if peer in PEER_NAMES else {name: name for name in theirs["mechanisms"]}
    for name, their_name in names.items():
      found[name][peer] = theirs["mechanisms"][their_name]["cpu_ms"]
      found[name][f"{peer}_edges"] = theirs["mechanisms"][their_name]["edges"]
  return found


def run_models(core: int, override: str) -> dict:
  """{model, size: {what: number}} of one round, with the roofline measured in it."""
  found, roofline = {}, own(core, "roofline")
  if override:
    roofline["torch_avx512"] = own(core, "roofline", preload=override)["torch"]
  for size, wanted in SIZES.items():
    for model in MODELS:
      ours = own(core, "model", model, size)
      names = ("tasks", "nodes", "rows", "dim", "heads", "key_size", "ff", "decoder_blocks", "steps")
      flags = (f"--model={model}", f"--blocks={wanted['blocks'][model]}", "--warmup=1",
               *(f"--{name}={wanted[name]}" for name in names))
      torch = read(core, "causal_models_torch.py", *flags)
      if ours["num_parameters"] != torch["num_parameters"]:
        sys.exit(f"{model}, {size}: {ours['num_parameters']} parameters, the peer has {torch['num_parameters']}")
      peak = max(roofline.values())
      found[f"{model} {size}"] = {
          "ours_s": ours["cpu_s"], "torch_s": torch["cpu_s"], "ratio": torch["cpu_s"] / ours["cpu_s"],
          "with_generator_s": ours["with_generator"], "ratio_with_generator": torch["cpu_s"] / ours["with_generator"],
          "wall_to_cpu": ours["wall_s"] / ours["cpu_s"], "torch_wall_to_cpu": torch["wall_s"] / torch["cpu_s"],
          "generator_s": ours["generator"], "generator_share": ours["generator"] / ours["cpu_s"],
          "step_ms_per_task": 1e3 * ours["cpu_s"] / wanted["tasks"],
          "gflop": 1e-9 * ours["flops"], "gflop_per_s": 1e-9 * ours["flops"] / ours["cpu_s"],
          "torch_gflop_per_s": 1e-9 * ours["flops"] / torch["cpu_s"],
          "share_of_roofline": 1e-9 * ours["flops"] / ours["cpu_s"] / peak}
      found[f"{model} {size}"] |= {f"roofline_{name}": value for name, value in roofline.items()}
      if override:
        tuned = read(core, "causal_models_torch.py", *flags, preload=override)["cpu_s"]
        found[f"{model} {size}"] |= {"torch_avx512_s": tuned, "ratio_avx512": tuned / ours["cpu_s"]}
  return found


def gather(rounds: list[dict]) -> dict:
  """{what: {who: median and extremes over rounds}}; for generators also each peer's ratio to ours."""
  found = {}
  for name in rounds[0]:
    each = [entry[name] for entry in rounds]
    if "ours" in each[0]:
      each = [entry | {f"ratio_{peer}": entry[peer] / entry["ours"] for peer in PEERS if peer in entry}
              for entry in each]
    kinds = [kind for kind in each[0] if all(kind in entry for entry in each)]
    found[name] = {kind: middle([entry[kind] for entry in each]) for kind in kinds}
  return found


def add_share(results: dict, generators: list[dict], models: list[dict]) -> None:
  """The generator's share of a step from what a task of the mixture takes in a batch, round by round."""
  for name in results["models"]:
    if name.endswith("full"):
      shares = [made["mixture"]["ours"] / step[name]["step_ms_per_task"] for made, step in zip(generators, models)]
      results["models"][name]["generator_share_32"] = middle(shares)


def main() -> None:
  """Measures what the flags ask for, prints it, and writes it as JSON."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--parts", default=",".join(PARTS))
  parser.add_argument("--core", type=int, default=0)
  parser.add_argument("--avici_dir", default="", help="folder with the avici package, not to install it")
  parser.add_argument("--child", default="", help=argparse.SUPPRESS)
  flags = parser.parse_args()
  if flags.child:
    name, *args = flags.child.split(",")
    print(json.dumps(CHILDREN[name](*args)))
    return
  parts, rounds, left_out = flags.parts.split(","), {part: [] for part in flags.parts.split(",")}, {}
  if wrong := set(parts) - set(PARTS):
    parser.error(f"--parts: got {', '.join(sorted(wrong))}, allowed {', '.join(PARTS)}")
  with tempfile.TemporaryDirectory() as folder:
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(folder, "cache"))
    avici_dir = flags.avici_dir or os.path.join(folder, "avici")
    if "generator" in parts and not flags.avici_dir and (reason := install_avici(avici_dir)):
      left_out["avici"] = reason
    if not (override := make_override(folder)):
      left_out["lean_avx512"] = left_out["torch_avx512"] = "needs an AMD processor and cc"
    for _ in range(flags.rounds):
      if "generator" in parts:
        rounds["generator"].append(run_generators(flags.core, avici_dir, override, left_out))
      if "models" in parts:
        rounds["models"].append(run_models(flags.core, override))
      print(json.dumps({part: entries[-1] for part, entries in rounds.items()}), flush=True)
  results = {"rounds": flags.rounds, "left_out": left_out} | {part: gather(rounds[part]) for part in parts}
  if len(parts) == len(PARTS):
    add_share(results, rounds["generator"], rounds["models"])
  bench.tell(results, flags.json)


if __name__ == "__main__":
  main()
