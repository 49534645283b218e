"""What other methods make of the same states: the mean, a quantiser of each column, principal components, and gzip.

Lossy ones have the errors of the codec that they are compared with; their rate is that of held-out symbols by tables
counted on training states, as theirs would be coded (`fit`): of all values, or of cells of 4, 16, .. of them that are
as probable as each other, whichever is less. Discrete columns are coded by their frequencies.
"""

import gzip
from typing import Any

import numpy as np

from jaxtrain.experiments.semantic_compression import coding, fit, preservation, schema as schema_lib
from jaxtrain.experiments.semantic_compression.columns import NUMERIC
from jaxtrain.types import Metric

METRICS = {
    "baseline_mean_rmse_percent": Metric("% of the range", "error of the mean of the training states"),
    "baseline_mean_preservation": Metric("", "preservation of the mean and the most frequent classes"),
    "baseline_scalar_bits": Metric("bits", "a uniform quantiser of each column with an entropy coder, at the codec's "
                                   "errors of each column"),
    "baseline_pca_bits": Metric("bits", "principal components, quantised and entropy-coded, at the codec's mean error"),
    "baseline_gzip_float32_bits": Metric("bits", "gzip -9 of float32 columns, which loses nothing"),
    "baseline_gzip_json_bits": Metric("bits", "gzip -9 of the states as lines of JSON, which loses nothing"),
}
STEPS = 30  # of the bisection for a component's step
CELLS = range(0, 15, 2)  # log2 of the values of a cell
BLOCK_SIZE = 1024
FARTHEST = 2**30  # symbols beyond are said to be this


def symbol_bits(train: np.ndarray, held_out: np.ndarray) -> float:
  """Bits of a held-out symbol [N] by tables of training symbols [M]; whole numbers."""
  a, b = (np.clip(symbols, -FARTHEST, FARTHEST).astype(np.int64)[:, None] for symbols in (train, held_out))
  return min(float(coding.bits(fit.fitted(a >> k), b >> k, BLOCK_SIZE).mean()) + k for k in CELLS)


def quantised_bits(train: np.ndarray, x: np.ndarray, step: np.ndarray) -> float:
  """Bits of a state whose columns [N, C] are in whole steps [C]."""
  return sum(symbol_bits(np.rint(a / s), np.rint(b / s)) for a, b, s in zip(train.T, x.T, step))


def discrete_bits(schema: schema_lib.Schema, train: np.ndarray, x: np.ndarray) -> float:
  """Bits of the discrete columns of a state by their frequencies."""
  total = 0.0
  for column in schema.columns:
    if column.kind not in NUMERIC:
      at = schema.slices[column.name]
      code = (lambda v: v[:, at].argmax(axis=1)) if column.kind == "categorical" else (lambda v: v[:, at][:, 0] > 0)
      total += symbol_bits(code(train), code(x))
  return total


def scalar_bits(train: np.ndarray, x: np.ndarray, mse: np.ndarray, least: np.ndarray) -> float:
  """Bits of a state [N, C] by a uniform quantiser of each column with squared errors [C]: the step is sqrt(12 mse), and
  `least` [C] at least.
  """
  return quantised_bits(train, x, np.maximum(np.sqrt(12 * mse), least))


def pca_bits(train: np.ndarray, x: np.ndarray, mse: float) -> float:
  """Bits of a state [N, C] by its principal components, all with the step whose mean squared error is `mse`.

  A component that varies less than the step costs little: the equal step is reverse water-filling.
  """
  mean = train.mean(axis=0)
  _, _, axes = np.linalg.svd(train - mean, full_matrices=False)
  a, b = (train - mean) @ axes.T, (x - mean) @ axes.T
  low, high = 1e-6, 10.0
  for _ in range(STEPS):
    middle = np.sqrt(low * high)
    low, high = (middle, high) if np.mean(np.square(middle * np.rint(b / middle) - b)) < mse else (low, middle)
  return quantised_bits(a, b, np.full(a.shape[1], low))


def column_bytes(schema: schema_lib.Schema, record: schema_lib.Record) -> bytes:
  """The columns of a record one after the other, numbers as float32, discrete ones a byte each."""
  return b"".join(np.asarray(record[column.name], np.float32).tobytes() if column.kind in NUMERIC else
                  schema_lib.checked_values(column, record[column.name]).astype(np.uint8).tobytes()
                  for column in schema.columns)


def lossless_bits(schema: schema_lib.Schema, x: np.ndarray) -> dict[str, float]:
  """Bits of a state by gzip, of `column_bytes` and of lines of JSON."""
  record = schema_lib.decode(schema, x)
  size = lambda data: 8 * len(gzip.compress(data, 9)) / len(x)
  return {"baseline_gzip_float32_bits": size(column_bytes(schema, record)),
          "baseline_gzip_json_bits": size(schema_lib.to_json_lines(schema, record))}


def compare(schema: schema_lib.Schema, train: np.ndarray, x: np.ndarray, r: np.ndarray) -> dict[str, Any]:
  """Scalars of all methods for held-out vectors x [N, D] that a codec gives back as r [N, D]."""
  given, numeric = schema_lib.decode(schema, x), schema.numeric
  mean = preservation.mean_prediction(schema, schema_lib.decode(schema, train), len(x))
  found = {"baseline_mean_preservation": preservation.scores(schema, given, mean).overall}
  found |= lossless_bits(schema, x)
  if len(numeric):
    # An integer column has its steps at whole numbers: a range is 1, and its low end is at 0.
    columns = [schema.column[name] for name in schema.numeric_names]
    start = np.array([0.5 * (column.kind == "integer") for column in columns])
    least = np.array([(column.kind == "integer") / (column.high - column.low) for column in columns])
    a, b = train[:, numeric] + start, x[:, numeric] + start
    mse = np.maximum(np.mean(np.square(r[:, numeric] + start - b), axis=0), 1e-12)
    rest = discrete_bits(schema, train, x)
    of_mean = np.sqrt(np.mean(np.square(b - a.mean(axis=0)), axis=0))
    found |= {"baseline_mean_rmse_percent": 100 * float(of_mean.mean()),
              "baseline_scalar_bits": scalar_bits(a, b, mse, least) + rest,
              "baseline_pca_bits": pca_bits(a, b, mse.mean()) + rest}
  return found


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
  """Bits that two discrete columns [N] tell of each other, from their frequencies."""
  _, i = np.unique(a, return_inverse=True)
  _, j = np.unique(b, return_inverse=True)
  joint = np.zeros((i.max() + 1, j.max() + 1))
  np.add.at(joint, (i, j), 1 / len(i))
  there = joint > 0
  apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
  return float((joint[there] * np.log2(joint[there] / apart[there])).sum())
