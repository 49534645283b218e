"""States as named arrays: leaves by key path, their digest, packed for storage, filled back into a template."""

import hashlib
from typing import Any, Callable

import jax
import numpy as np

from jaxtrain.devices import processes
from jaxtrain.errors import UserError

PACK_BELOW = 1 << 20  # bytes; larger leaves are arrays of their own


def named_leaves(tree: Any) -> dict[str, Any]:
  """Leaves by key path such as `params/encoder/kernel`, sorted by path."""
  pairs = jax.tree_util.tree_leaves_with_path(tree)
  return dict(sorted((jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in pairs))


def is_key(leaf: Any) -> bool:
  """Whether a leaf is an array of typed PRNG keys."""
  return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def here(tree: Any) -> Any:
  """The tree as arrays of this process alone, with which it may compute while other processes do something else."""
  def one(leaf):
    return leaf.addressable_data(0) if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable else leaf
  return jax.tree.map(one, tree)


def host_leaves(tree: Any) -> dict[str, np.ndarray]:
  """Leaves by path as little-endian C-order NumPy arrays, keys by their key data; one transfer."""
  leaves = {path: jax.random.key_data(leaf) if is_key(leaf) else leaf
            for path, leaf in named_leaves(here(tree)).items()}
  return {path: np.asarray(leaf, order="C") for path, leaf in jax.device_get(leaves).items()}


def named_shapes(tree: Any) -> dict[str, Any]:
  """Shapes and dtypes that `host_leaves` of a tree like this one has."""
  return {path: jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf
          for path, leaf in named_leaves(tree).items()}


def leaf_bytes(path: str, leaf: np.ndarray) -> bytes:
  """What a leaf adds to a digest: path, NUL, dtype, NUL, shape, NUL, bytes."""
  head = b"\0".join((path.encode(), str(leaf.dtype).encode(), str(leaf.shape).encode(), b""))
  return head + leaf.tobytes()


def digest_leaves(leaves: dict[str, np.ndarray]) -> tuple[str, dict[str, str]]:
  """SHA-256 over all leaves sorted by path, and of each leaf, hexadecimal."""
  whole, each = hashlib.sha256(), {}
  for path in sorted(leaves):
    data = leaf_bytes(path, leaves[path])
    whole.update(data)
    each[path] = hashlib.sha256(data).hexdigest()
  return whole.hexdigest(), each


def digest(state: Any) -> str:
  """SHA-256 of a state, hexadecimal: that of `digest_leaves`."""
  return digest_leaves(host_leaves(state))[0]


def pack(leaves: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[dict]]:
  """Arrays to store and the layout: each leaf's path, dtype, shape and offset in `packed` (None: an array of its own).
  """
  arrays, layout, chunks, offset = {}, [], [], 0
  for path, leaf in leaves.items():
    small = leaf.nbytes < PACK_BELOW
    layout.append({"path": path, "dtype": str(leaf.dtype), "shape": list(leaf.shape), "offset": offset if small
                   else None})
    if small:
      chunks.append(leaf.tobytes())
      offset += leaf.nbytes
    else:
      arrays[path.replace("/", ".")] = leaf
  return arrays | {"packed": np.frombuffer(b"".join(chunks) or b"\0", np.uint8)}, layout


def unpack(arrays: dict[str, np.ndarray], layout: list[dict]) -> dict[str, np.ndarray]:
  """The leaves by path that `pack` stored."""
  packed = np.asarray(arrays["packed"]).tobytes()
  leaves = {}
  for entry in layout:
    if entry["offset"] is None:
      leaves[entry["path"]] = np.asarray(arrays[entry["path"].replace("/", ".")])
    else:
      dtype = np.dtype(entry["dtype"])
      count = int(np.prod(entry["shape"]))
      leaves[entry["path"]] = np.frombuffer(packed, dtype, count, entry["offset"]).reshape(entry["shape"])
  return leaves


def fill(template: Any, leaves: dict[str, np.ndarray], prefix: str, only: set[str] | None = None) -> Any:
  """The template with its leaves replaced by stored ones at `prefix/path`: all, or those whose path is in `only`.

  Raises:
    UserError: a leaf is missing, or has another shape or dtype.
  """
  def one(path, leaf):
    path = jax.tree_util.keystr(path, simple=True, separator="/")
    if only is not None and path not in only:
      return leaf
    name = f"{prefix}/{path}"
    if name not in leaves:
      raise UserError(f"the checkpoint has no {name}")
    want = jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf
    got = leaves[name]
    if path.startswith("guard/") and not got.shape:  # of an ensemble of version 0.1, whose members shared one
      got = np.broadcast_to(got, want.shape)
    if tuple(got.shape) != tuple(want.shape) or str(got.dtype) != str(want.dtype):
      raise UserError(f"the checkpoint's {name} is {got.dtype}{list(got.shape)}, the run needs "
                      f"{want.dtype}{list(want.shape)}")
    return jax.random.wrap_key_data(jax.numpy.asarray(got)) if is_key(leaf) else jax.numpy.asarray(got)
  return jax.tree_util.tree_map_with_path(one, template)


def of_first(template: Any, make: Callable[[], Any]) -> Any:
  """A tree like the template that `make()` gives on process 0, on all."""
  if not processes.several():
    return make()
  made: list[Any] = []
  processes.on_first(lambda: made.append(make()))
  leaves = host_leaves(made[0]) if made else {}
  leaves = processes.leaves_of_first(leaves, named_shapes(template))
  return fill(template, {f"made/{path}": leaf for path, leaf in leaves.items()}, "made")
