"""Several processes as one run: how they find each other, what process 0 does for all, and how they agree.

Each process holds the whole state and works on its devices' share of each batch. Process 0 alone writes: lock, facts,
checkpoints, figures. What it reads it sends to the others, so that only process 0 needs to see the workdir. Everything
here is a plain call where there is one process. The state is replicated, so the copy of process 0 is all of it, and a
save needs nothing of the others.
"""

import json
import os
import socket
import time
from typing import Any, Callable

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxtrain import streams
from jaxtrain.errors import StopReason, UserError

HEARTBEAT_SECONDS = 60  # a process that is silent for so long is lost
JOIN_SECONDS = 300  # for all processes to come
WAIT_SECONDS = 24 * 3600  # for process 0 to assess and draw, at the end
joined: list[bool] = []  # holds True once this process is one of several


def start(coordinator: str, num_processes: int, process_id: int, detect: bool | None) -> None:
  """Joins the other processes of this run, if there are any; before any use of a device.

  Args:
    coordinator: HOST:PORT of process 0; empty = JAX finds it.
    num_processes, process_id: with `coordinator`.
    detect: True: JAX finds the processes (TPU pods, Kubernetes, Slurm, Open MPI); None: where Slurm or Open MPI has
      started several; False: this process is alone.

  Raises:
    UserError: flags that do not fit together, or the others cannot be reached.
  """
  explicit = {"coordinator": bool(coordinator), "num_processes": num_processes > 0, "process_id": process_id >= 0}
  if any(explicit.values()) and not all(explicit.values()):
    missing = ", ".join(f"--{name}" for name, given in explicit.items() if not given)
    raise UserError(f"{missing}: required with {', '.join(f'--{name}' for name, given in explicit.items() if given)}")
  if coordinator and not 0 <= process_id < num_processes:
    raise UserError(f"--process_id: got {process_id}, allowed 0 to {num_processes - 1} (--num_processes less one)")
  if detect is None:
    detect = launched(os.environ) > 1
  if coordinator and num_processes == 1 or not coordinator and not detect:
    return
  if coordinator and process_id > 0:
    wait_for_coordinator(coordinator)
  jax.config.update("jax_enable_preemption_service", False)  # it swallows SIGTERM; we agree on stops ourselves
  where = {"coordinator_address": coordinator, "num_processes": num_processes, "process_id": process_id}
  try:
    jax.distributed.initialize(**(where if coordinator else {}), heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                               shutdown_timeout_seconds=WAIT_SECONDS)
  except Exception as error:  # gRPC's and the clusters' own
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    raise UserError(f"cannot join the other processes: {reason} (--nodistributed runs this one alone)") from None
  joined.append(True)


def wait_for_coordinator(coordinator: str) -> None:
  """Waits until process 0 listens: JAX itself would end this process with a dump of its stack if it never does.

  Raises:
    UserError: it does not within JOIN_SECONDS, or the address is none.
  """
  host, _, port = coordinator.rpartition(":")
  if not host or not port.isascii() or not port.isdigit():
    raise UserError(f"--coordinator: got {coordinator!r}, allowed HOST:PORT")
  deadline = time.monotonic() + JOIN_SECONDS
  while True:
    try:
      socket.create_connection((host, int(port)), timeout=5).close()
      return
    except OSError as error:
      if time.monotonic() > deadline:
        raise UserError(f"--coordinator: process 0 does not answer at {coordinator}: {error}") from None
    time.sleep(0.2)


def launched(environ) -> int:
  """How many processes Slurm's srun or Open MPI has started together with this one."""
  if "SLURM_STEP_NODELIST" in environ and "SLURM_PROCID" in environ and "SLURM_NTASKS" in environ:
    return int(environ["SLURM_NTASKS"])
  return int(environ["OMPI_COMM_WORLD_SIZE"]) if "OMPI_COMM_WORLD_SIZE" in environ else 1


def several() -> bool:
  """Whether this process has joined others; does not start a device."""
  return bool(joined) and jax.process_count() > 1


def is_first() -> bool:
  """Whether this process writes for all."""
  return not several() or jax.process_index() == 0


def broadcast(data: bytes) -> bytes:
  """The bytes that process 0 has, on all; as numbers without a sign, because a sum loses the sign of -0."""
  from jax.experimental import multihost_utils
  length = np.frombuffer(len(data).to_bytes(8, "little"), np.uint8)
  size = int.from_bytes(np.asarray(multihost_utils.broadcast_one_to_all(length)).tobytes(), "little")
  mine = np.frombuffer(data, np.uint8) if is_first() else np.zeros(size, np.uint8)
  return np.asarray(multihost_utils.broadcast_one_to_all(mine)).tobytes()


def on_first(make: Callable[[], Any]) -> Any:
  """What `make()` gives on process 0, a JSON-able value, on all.

  Raises:
    UserError: on all, where process 0 raised it.
  """
  if not several():
    return make()
  message, refused = {}, None
  if is_first():
    try:
      message = {"value": make()}
    except UserError as error:
      message, refused = {"error": str(error)}, error
  message = json.loads(broadcast(json.dumps(message).encode()))
  if "error" in message:
    raise refused or UserError(message["error"])
  return message["value"]


def leaves_of_first(leaves: dict[str, np.ndarray], like: dict[str, Any]) -> dict[str, np.ndarray]:
  """Arrays by name of process 0 on all; `like` has names, shapes and dtypes."""
  if not several():
    return leaves
  names = sorted(like)
  data = broadcast(b"".join(np.asarray(leaves[name], order="C").tobytes() for name in names) if is_first() else b"")
  out, offset = {}, 0
  for name in names:
    dtype, count = np.dtype(like[name].dtype), int(np.prod(like[name].shape))
    out[name] = np.frombuffer(data, dtype, count, offset).reshape(like[name].shape)
    offset += count * dtype.itemsize
  return out


def agree(reason: StopReason, num_steps: int) -> tuple[StopReason, int]:
  """(why all stop now, how many steps all do next) from each process's own."""
  if not several():
    return reason, num_steps
  from jax.experimental import multihost_utils
  both = multihost_utils.process_allgather(np.array([reason.value, num_steps], np.int32))
  return StopReason(int(both[:, 0].max())), int(both[0, 1])


def check_equal(what: str, digest: str) -> None:
  """Refuses processes that are about to train on something else than process 0. Raises UserError on all."""
  if not several():
    return
  from jax.experimental import multihost_utils
  mine = np.frombuffer(bytes.fromhex(digest), np.uint8)
  every = multihost_utils.process_allgather(mine)
  other = [k for k in range(len(every)) if (every[k] != every[0]).any()]
  if other:
    raise UserError(f"process {other[0]}: its {what} is not that of process 0; all must be given the same")


def is_broken(error: Exception) -> bool:
  """Whether an error says that another process is no longer there."""
  words = ("Gloo", "NCCL", "gloo", "coordination service", "DEADLINE_EXCEEDED", "UNAVAILABLE")
  return several() and any(word in str(error) for word in words)


def replicate(tree: Any, sharding) -> Any:
  """The tree on all devices of all processes; each process has all of it."""
  def one(leaf):
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
      return leaf
    if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      return jax.random.wrap_key_data(one(np.asarray(jax.random.key_data(leaf))), impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
  return jax.tree.map(one, tree)


def same(tree: Any) -> Any:
  """The tree; one function, so that jax compiles what it does to the placing once."""
  return tree


def join_slices(tree: Any, like: Any, mesh, axis_name: str) -> Any:
  """The tree on all devices of all processes, of which each has its slice of those leaves that are longer in `like`."""
  whole = NamedSharding(mesh, PartitionSpec())
  def one(leaf, want):
    cut = [k for k in range(np.ndim(leaf)) if leaf.shape[k] != want.shape[k]]
    if not cut:
      return replicate(leaf, whole)
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * cut[0], axis_name))
    return jax.make_array_from_process_local_data(sharding, leaf, want.shape)
  return jax.jit(same, out_shardings=whole)(jax.tree.map(one, tree, like))


def leave(code: int) -> None:
  """Ends a process of several that has failed, at once: leaving in good order would wait for the others."""
  if several():
    streams.flush()
    if is_first():
      time.sleep(2.0)  # the service that the others are joined by ends with this process
    os._exit(code)
