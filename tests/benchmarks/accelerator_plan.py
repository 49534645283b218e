"""The measurements of accelerator.py, the most important first, at full and at toy size. A new family adds its steps.

Seconds are estimates, mostly of compiling: none has been measured on an accelerator. By them the default budget ends
after about twenty measurements; a second run with the same --output does the others.
"""

from typing import Any, NamedTuple

TABLE, TASKS, EFFECTS = "vae.py", "causal_discovery.py", "causal_consistency.py"
STATES, EVENTS = "semantic_compression.py", "autoencoder.py"


class Measurement(NamedTuple):
  """One measurement.

  Attributes:
    name: unique; a pattern of it chooses measurements.
    function: of accelerator_steps.
    arguments: of the function, as JSON.
    seconds: estimate, compiling included.
    processes: {label: further arguments} of processes of its own, started at once; empty where it needs none.
  """
  name: str
  function: str
  arguments: dict[str, Any]
  seconds: float
  processes: dict[str, dict[str, Any]] = {}


AGAINST = {  # a step -> the step whose time its own is divided by
    "step avici float32": "step avici", "step avici fused attention": "step avici",
    "step avici canonical": "step avici", "step avici micro-batches": "step avici",
    "step avici deterministic": "step avici", "step benchmark micro-batches": "step benchmark",
    "step vae bfloat16": "step vae", "step vae canonical": "step vae", "step vae micro-batches": "step vae",
}

SMALL_TABLE = {"data.row_limit": 2000}
SMALL_TASKS = {"data.num_nodes": [5], "data.num_rows": 16, "data.task_chunk": 2, "data.graphs": ["er edge_prob=0.4"],
               "data.mechanisms": ["linear"], "train.batch_size": 8, "model.dim": 16, "model.num_heads": 2,
               "model.ff_dim": 16}
SMALL_BLOCKS = {"model.num_blocks": 2, "model.key_size": 8}
SMALL_LAYERS = {"model.num_layers": 2, "model.num_layers_decoder": 2, "model.n_perm_samples": 2}
SMALL = {f"{TABLE}:hybrid": SMALL_TABLE, f"{TABLE}:hybrid_semisup": SMALL_TABLE,
         f"{EFFECTS}:base": {"data.num_samples": 200}, f"{STATES}:entropy": {"data.num_states": 600},
         f"{EVENTS}:vq": {"data.row_limit": 600, "model.latent.num_codes": 32},
         f"{TASKS}:avici": SMALL_TASKS | SMALL_BLOCKS,
         f"{TASKS}:avici_lite": SMALL_TASKS | {"model.num_layers": 2},
         f"{TASKS}:benchmark": SMALL_TASKS | SMALL_BLOCKS | {"data.num_nodes": [4, 5]},
         f"{TASKS}:bcnp": SMALL_TASKS | SMALL_LAYERS | {"model.sinkhorn_iter": 3},
         f"{TASKS}:bcnp_pl": SMALL_TASKS | SMALL_LAYERS,
         f"{TASKS}:paper_all_data": SMALL_TASKS | SMALL_LAYERS | {"model.sinkhorn_iter": 3, "train.microbatch": 4}}


def measurements(is_toy: bool) -> list[Measurement]:
  """All measurements in the order of their importance."""
  small = SMALL if is_toy else dict.fromkeys(SMALL, {})

  def step(name: str, config: str, seconds: float, values: dict[str, Any] | None = None, **more) -> Measurement:
    arguments = {"config": config, "values": small[config] | (values or {})} | more
    return Measurement(f"step {name}", "measure_step", arguments, seconds)

  def members(num: int, seconds: float) -> Measurement:
    return Measurement(f"members {num}", "measure_members", {
        "config": f"{TABLE}:hybrid", "values": small[f"{TABLE}:hybrid"],
        "num_members": min(num, 2) if is_toy else num}, seconds)

  def attention(implementation: str, dtype: str) -> Measurement:
    shape = [4, 16, 2, 8] if is_toy else [640, 256, 8, 32]  # AVICI's over the samples of 32 tasks of 20 variables
    return Measurement(f"attention {implementation} {dtype}", "measure_attention", {
        "implementation": implementation, "dtype": dtype, "shape": shape}, 8)

  def generator(chunk: int) -> Measurement:
    values = {"train.batch_size": 8, "data.task_chunk": {8: 2, 32: 4, 256: 8}[chunk]} if is_toy else {
        "train.batch_size": 256, "data.task_chunk": chunk}
    return Measurement(f"generator in chunks of {chunk}", "measure_generator", {
        "config": f"{TASKS}:avici", "values": small[f"{TASKS}:avici"] | values}, 15)

  avici, vae, chunks = f"{TASKS}:avici", f"{TABLE}:hybrid", {"parallel.mode": "canonical"}
  micro = lambda rows: {"train.microbatch": rows}
  few = {"model.num_blocks": 2} | small[avici]
  digests = Measurement("digests", "train_twice", {
      "configs": {vae: small[vae], avici: few}, "num_steps": 3 if is_toy else 50}, 60, {
          f"{kind} {k}": {"deterministic": kind == "deterministic"} for kind in ("plain", "deterministic")
          for k in (1, 2)})
  exact = step("avici deterministic", avici, 45, {"parallel.deterministic": True})
  return [
      Measurement("device", "measure_device", {"size": 64, "copied_mib": 1} if is_toy else {
          "size": 8192, "copied_mib": 2048}, 25),
      step("avici", avici, 40), step("vae", vae, 20), members(512, 20), members(1, 20), digests,
      step("avici float32", avici, 35, {"train.precision": "float32"}),
      step("avici fused attention", avici, 35, attention_name="cudnn"),
      attention("own", "bfloat16"), attention("cudnn", "bfloat16"), attention("own", "float32"),
      step("vae canonical", vae, 20, chunks), generator(256), generator(8),
      step("paper_all_data", f"{TASKS}:paper_all_data", 60), members(64, 20), step("bcnp", f"{TASKS}:bcnp", 35),
      step("avici canonical", avici, 40, chunks),
      # from here on in a second run
      step("benchmark", f"{TASKS}:benchmark", 40),
      step("benchmark micro-batches", f"{TASKS}:benchmark", 40, micro(2 if is_toy else 8)), members(8, 20),
      step("vae hybrid_semisup", f"{TABLE}:hybrid_semisup", 20), attention("turns", "bfloat16"), generator(32),
      step("vae micro-batches", vae, 20, micro(64)),
      step("avici micro-batches", avici, 35, micro(2 if is_toy else 8)), exact._replace(processes={"one": {}}),
      step("bcnp_pl", f"{TASKS}:bcnp_pl", 35), step("avici_lite", f"{TASKS}:avici_lite", 30),
      step("vae bfloat16", vae, 20, {"train.precision": "bfloat16"}), members(256, 20),
      step("causal consistency", f"{EFFECTS}:base", 20), step("semantic compression", f"{STATES}:entropy", 20),
      step("events", f"{EVENTS}:vq", 20),
  ]
