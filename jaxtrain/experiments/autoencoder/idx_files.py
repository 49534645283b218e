"""Images in the IDX files of MNIST and Fashion-MNIST, plain or packed by gzip.

**Source:** http://yann.lecun.com/exdb/mnist (the format); Xiao et al., Fashion-MNIST, 2017 (names of the classes).
"""

import gzip
import os
import struct

import numpy as np

from jaxtrain import memory
from jaxtrain.data import files, splits, tables
from jaxtrain.errors import UserError

CLASS_NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
FILES = {"train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
         "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")}
SIDE = 28  # pixels of an image's height and width
GZIP = b"\x1f\x8b"
PIXEL_BYTES = 5  # of a pixel while it is read: itself, and a number of 32 bits


def find(folder: str, name: str) -> str:
  """Path of a file in a folder, plain or .gz. Raises UserError where neither is there."""
  for path in (os.path.join(folder, name), os.path.join(folder, f"{name}.gz")):
    if os.path.isfile(path):
      return path
  raise UserError(f"config.data.path: {folder!r} has no file {name} or {name}.gz, allowed a folder with "
                  f"{', '.join(name for pair in FILES.values() for name in pair)}")


def read(path: str, num_axes: int) -> np.ndarray:
  """The array of bytes in an IDX file, of so many axes.

  Raises:
    UserError: the file is no such file, claims more than fits into memory, or holds less or more than it claims.
  """
  try:
    with open(path, "rb") as file:
      packed = file.read(len(GZIP)) == GZIP
    with (gzip.open if packed else open)(path, "rb") as file:
      head = file.read(4 + 4 * num_axes)
      if len(head) < 4 + 4 * num_axes or head[:3] != b"\0\0\x08" or head[3] != num_axes:
        raise UserError(f"{path}: begins with {head[:4].hex() or 'nothing'}, allowed 0000080{num_axes}: an IDX file of "
                        f"bytes with {num_axes} ax{'es' if num_axes > 1 else 'is'}")
      shape = struct.unpack(f">{num_axes}I", head[4:])
      size = int(np.prod(shape, dtype=object))
      memory.check(PIXEL_BYTES * size, "the file")
      if not packed:
        check_size(path, size, os.path.getsize(path) - len(head))
      data = file.read(size + 1)
  except UserError:
    raise
  except Exception as error:  # of many types: no permission, damaged, or claims too much
    reason = getattr(error, "strerror", None) or files.first_line(error)
    raise UserError(f"config.data.path: cannot read {path!r}: {reason}") from error
  check_size(path, size, len(data))
  return np.frombuffer(data, np.uint8).reshape(shape)


def check_size(path: str, claimed: int, held: int) -> None:
  """Raises UserError where a file does not hold as many bytes as it claims."""
  if claimed != held:
    raise UserError(f"{path}: holds {'more' if held > claimed else 'fewer'} bytes than the {claimed:,} that it claims")


def read_pair(folder: str, part: str) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
  """(images [N, 28, 28] of bytes, labels [N] int32, SHA-256 by the name of a file) of a part of FILES."""
  paths = [find(folder, name) for name in FILES[part]]
  images, label = read(paths[0], 3), read(paths[1], 1)
  if images.shape[1:] != (SIDE, SIDE):
    raise UserError(f"{paths[0]}: images of {images.shape[1]} x {images.shape[2]} pixels, allowed {SIDE} x {SIDE}")
  if len(images) != len(label):
    raise UserError(f"{paths[1]}: {len(label):,} labels of {len(images):,} images")
  if not len(images):
    raise UserError(f"{paths[0]}: no images")
  if label.max() >= len(CLASS_NAMES):
    raise UserError(f"{paths[1]}: label {label.max()}, allowed 0 to {len(CLASS_NAMES) - 1}")
  digests = {os.path.basename(path): tables.file_digest(path) for path in paths}
  return images, label.astype(np.int32), digests


def read_parts(folder: str, split, row_limit: int) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict]:
  """({part: (images [N, 28, 28, 1] float32 in 0..1, labels [N] int32)}, facts) of a folder of files.

  Args:
    split: `config.data.split`. `file`: the images of t10k test; those of train are drawn into parts that train and
      validate, by their fractions. `random`, `none`: of all images.
    row_limit: the first images of each file alone; 0 = all.

  Raises:
    UserError: a file is missing or does not fit.
  """
  if not os.path.isdir(folder):
    raise UserError(f"config.data.path: got {folder!r}, allowed the folder of the files "
                    f"{', '.join(name for pair in FILES.values() for name in pair)}")
  digests, pools, warnings = {}, {}, []
  for part in FILES:
    images, label, found = read_pair(folder, part)
    digests |= found
    if 0 < row_limit < len(images):
      warnings.append(f"{part}: data.row_limit={row_limit:,} leaves out {len(images) - row_limit:,} of "
                      f"{len(images):,} images")
      images, label = images[:row_limit], label[:row_limit]
    pools[part] = images, label
  if split.kind != "file":
    pools = {"train": tuple(np.concatenate(pair) for pair in zip(*pools.values()))}
  parts = draw(split, *pools["train"]) | {part: pools[part] for part in pools if part == "test"}
  scaled = {part: ((images / np.float32(255))[..., None], label) for part, (images, label) in parts.items()}
  first = next(iter(digests))
  return scaled, {"source": folder, "file": first, "sha256": digests[first], "files": digests, "warnings": warnings}


def draw(split, images: np.ndarray, label: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Images and labels by part; with the split of the files, those of the training file that train and validate."""
  if split.kind == "file":
    train, val, _ = split.fractions
    if not train:
      raise UserError(f"config.data.split.fractions: got {tuple(split.fractions)}, allowed a first number above 0")
    split = type(split)({"kind": "random", "fractions": (train / (train + val), val / (train + val), 0.0)})
  rows = splits.split_rows(split, len(images), None)
  return {part: (images[at], label[at]) for part, at in rows.items() if len(at)}
