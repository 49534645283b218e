"""Weights of the lithology VAE's public release: PyTorch `.pt` files, read without PyTorch and without unpickling.

A `.pt` file is a zip archive of raw arrays and a pickle that says how they are named. The pickle's instructions are
listed by the standard library's `pickletools`, which runs nothing, and followed here for an allow-list: containers,
text, whole numbers, and the two calls that a state_dict consists of. Anything else is refused.

**Source:** names in the release (encoder.{0,3} Linear, {2,5} BatchNorm, fc_mu, fc_logvar, decoder alike, fc_out,
classifier.{0,3}); opcodes: Lib/pickletools.py of CPython.
"""

import math
import pickletools
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import memory
from jaxtrain.errors import UserError

DTYPES = {"FloatStorage": np.float32, "DoubleStorage": np.float64, "HalfStorage": np.float16, "LongStorage": np.int64,
          "IntStorage": np.int32}
VALUES = ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Call(str):
  """The name of something that a pickle wants to call."""


def read_arrays(path: str) -> dict[str, np.ndarray]:
  """Arrays of a state_dict by name, from a file that holds one alone or under `model_state_dict` or `state_dict`.

  Raises:
    UserError: the file is no such archive, or its pickle asks for anything but arrays.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      listing = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
      if listing is None:
        raise UserError(f"{path}: no PyTorch file (its archive has no data.pkl)")
      order = listing.removesuffix("data.pkl") + "byteorder"
      if order in archive.namelist() and archive.read(order).strip() != b"little":
        raise UserError(f"{path}: written on a big-endian machine, allowed little-endian")
      packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
      if packed:
        raise UserError(f"{path}: {packed[0]} is compressed, which PyTorch does not do; not read")
      load = lambda key, dtype: np.frombuffer(archive.read(listing.removesuffix("data.pkl") + f"data/{key}"), dtype)
      found = follow(path, archive.read(listing), load)
  except UserError:
    raise
  except Exception as error:  # a file made to harm may fail in any way
    raise UserError(f"{path}: cannot be read as a PyTorch file: {str(error)[:120] or type(error).__name__}") from None
  for wrapper in ("model_state_dict", "state_dict"):
    found = found[wrapper] if isinstance(found, dict) and isinstance(found.get(wrapper), dict) else found
  if not isinstance(found, dict) or not any(isinstance(value, np.ndarray) for value in found.values()):
    raise UserError(f"{path}: holds no state_dict")
  return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}


def follow(path: str, program: bytes, load) -> Any:
  """What a pickle of containers and arrays describes; `load(key, dtype)` reads the raw numbers of an array."""
  room, unfolded = memory.room(), [0]
  stack: list[Any] = []
  marks: list[int] = []
  memo: dict[int, Any] = {}

  def since_mark() -> list:
    start = marks.pop()
    taken = stack[start:]
    del stack[start:]
    return taken

  for opcode, value, _ in pickletools.genops(program):
    name = opcode.name
    if name in VALUES:
      stack.append(value)
    elif name in CONSTANTS:
      stack.append(CONSTANTS[name])
    elif name in EMPTY:
      stack.append(EMPTY[name]())
    elif name in TUPLES:
      stack[-TUPLES[name]:] = [tuple(stack[-TUPLES[name]:])]
    elif name == "MARK":
      marks.append(len(stack))
    elif name == "TUPLE":
      stack.append(tuple(since_mark()))
    elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
      memo[len(memo) if name == "MEMOIZE" else value] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
      stack.append(memo[value])
    elif name == "GLOBAL":
      stack.append(Call(value))
    elif name == "BINPERSID":
      stack.append(describe_storage(path, stack.pop()))
    elif name == "REDUCE":
      arguments = stack.pop()
      stack[-1] = call(path, stack[-1], arguments, load)
      if isinstance(stack[-1], np.ndarray):  # many may be of the same numbers
        unfolded[0] += stack[-1].nbytes
        memory.check(unfolded[0], "what it holds", room)
    elif name in ("SETITEM", "SETITEMS"):
      items = since_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
      stack[-1].update(zip(items[::2], items[1::2]))
    elif name in ("APPEND", "APPENDS"):
      items = since_mark() if name == "APPENDS" else [stack.pop()]
      stack[-1].extend(items)
    elif name == "BUILD":  # attributes of an OrderedDict: versions of its modules
      stack.pop()
    elif name == "STOP":
      return stack.pop()
    elif name not in ("PROTO", "FRAME"):
      raise UserError(f"{path}: its pickle has the instruction {name}, which a state_dict does not need; not read")
  raise UserError(f"{path}: its pickle has no end")


def describe_storage(path: str, described: tuple) -> tuple[str, Any]:
  """(key, dtype) of the raw numbers of an array."""
  kind = str(described[1]).rpartition(" ")[2]
  if described[0] != "storage" or not isinstance(described[1], Call) or kind not in DTYPES:
    raise UserError(f"{path}: holds arrays of {kind}, allowed {', '.join(DTYPES)}")
  return described[2], DTYPES[kind]


def call(path: str, function: Any, arguments: tuple, load) -> Any:
  """The two calls of a state_dict: an empty OrderedDict, and an array from (storage, offset, size, stride)."""
  if function == "collections OrderedDict" and arguments == ():
    return {}
  if function == "torch._utils _rebuild_tensor_v2":
    (key, dtype), offset, size, stride = arguments[:4]
    numbers = load(key, dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    outside = min(size, default=1) < 1 or min((offset, *stride)) < 0 or last >= len(numbers)
    if outside or math.prod(size) > len(numbers):
      raise UserError(f"{path}: an array reaches outside its numbers")
    item = numbers.dtype.itemsize
    view = np.lib.stride_tricks.as_strided(numbers[offset:], size, [step * item for step in stride], writeable=False)
    return np.array(view)
  name = str(function).replace(" ", ".")
  raise UserError(f"{path}: its pickle calls {name}, which a state_dict does not need; not read")


def layout(num_hidden: int) -> dict[str, str]:
  """Our module -> theirs, for stacks of [Linear, ReLU, BatchNorm]."""
  names = {"output": "fc_out", "head": "classifier.0", "head_output": "classifier.3"}
  for stack in ("encoder", "decoder"):
    for k in range(num_hidden):
      names |= {f"{stack}/Linear_{k}": f"{stack}.{3 * k}", f"{stack}/BatchNorm_{k}": f"{stack}.{3 * k + 2}"}
  return names


def read_weights(state: Any, path: str) -> Any:
  """A state with the parameters and BatchNorm statistics of a release's file.

  Raises:
    UserError: the file cannot be read, or its arrays do not fit the model of the config.
  """
  theirs = read_arrays(path)
  used = {"fc_mu.weight", "fc_mu.bias", "fc_logvar.weight", "fc_logvar.bias"}

  def take(name: str) -> np.ndarray:
    if name not in theirs:
      raise UserError(f"{path}: has no {name}; it has {', '.join(sorted(theirs))[:200]}")
    used.add(name)
    return theirs[name]

  def fit(ours, given: np.ndarray, name: str):
    if given.ndim == 2 and given.shape[1] <= given.shape[0]:  # theirs is [F, D], ours lies longer side last
      given = given.T
    if given.shape != ours.shape:
      raise UserError(f"{path}: {name} is {list(given.shape)}, the config's model needs {list(ours.shape)}")
    return jnp.asarray(given, ours.dtype)

  def module(tree: dict, name: str, words: dict[str, str]) -> dict:
    return {leaf: fit(value, take(f"{name}.{words[leaf]}"), f"{name}.{words[leaf]}") for leaf, value in tree.items()}

  names = layout(len([name for name in state.params["encoder"] if name.startswith("Linear")]))
  weights = {"kernel": "weight", "bias": "bias", "scale": "weight"}
  params = {}
  for part, tree in state.params.items():
    if part == "posterior":
      both = {word: np.concatenate([take(f"fc_mu.{word}"), take(f"fc_logvar.{word}")]) for word in ("weight", "bias")}
      params[part] = {leaf: fit(value, both[weights[leaf]], "fc_mu and fc_logvar") for leaf, value in tree.items()}
    elif part in names:
      params[part] = module(tree, names[part], weights)
    else:
      params[part] = {inner: module(leaves, names[f"{part}/{inner}"], weights) for inner, leaves in tree.items()}
  statistics = {part: {inner: module(leaves, names[f"{part}/{inner}"], {"mean": "running_mean", "var": "running_var"})
                       for inner, leaves in tree.items()}
                for part, tree in state.model_state.get("batch_stats", {}).items()}
  left = [name for name in theirs if name not in used and not name.endswith("num_batches_tracked")]
  if left:
    raise UserError(f"{path}: has {left[0]}, which the config's model has not; is config.model.kind right?")
  model_state = state.model_state | ({"batch_stats": statistics} if statistics else {})
  return state.replace(params=params, model_state=model_state, ema=jax.tree.map(jnp.copy, params)
                       if state.ema is not None else None)
