"""What a source's bits must be at a given error: lower bounds, the scalar quantiser's line, and reverse water-filling.

`Entropies` of a source come from `generators.entropies`. At a root mean squared error e of a field whose differential
entropy is h bits, in the same unit:

  Shannon's lower bound          h - log2(2 pi E e^2) / 2       (E Euler's number)
  entropy-coded scalar quantiser h - log2(e sqrt(12))           0.2546 bit more

Both hold for small errors; a line below zero counts as zero. An integer column costs no more than its entropy, at which
nothing is lost. One whose distribution is far from a density, such as a count that is often 0, has Shannon's bound of
integers on both lines: H less the most that the entropy of an integer of mean square e^2 can be. A binary or
categorical column costs its entropy, or less where a share of its values comes back wrong; several columns together
cost the entropy of their values, less that of each one's errors.

**Source:** Cover & Thomas, Elements of Information Theory, 2006, sections 8.3 (quantisation), 10.3.1 (binary source),
10.3.3 and theorem 10.3.3 (parallel Gaussian sources: reverse water-filling), and equation 2.140 (Fano's inequality);
Gish & Pierce, Asymptotically efficient quantizing, 1968 (a uniform step is best at high rate, 0.2546 bit from the
bound).
"""

from typing import Mapping, NamedTuple, Sequence

import numpy as np

from jaxtrain.experiments.semantic_compression.columns import Schema

GAUSSIAN_BITS = 0.5 * np.log2(2 * np.pi * np.e)  # entropy of a normal number of deviation 1, 2.0471
STEP_BITS = 0.5 * np.log2(12)  # a uniform error's width over its root mean square, 1.7925
WIDE_ERROR = 8  # from here on the largest entropy of an integer is that of a normal number
BISECTIONS = 100


class Entropies(NamedTuple):
  """Bits of a state by field, each given the fields before it where they depend on each other.

  Attributes:
    continuous: differential entropies in physical units; of an integer column as if it were continuous.
    integer: entropies of integer columns that come back exactly.
    discrete: entropies of binary and categorical columns, or of several together under a name of their own.
    num_classes: of the fields in `discrete` that are one column.
    parts: names of the binary columns of each other field in `discrete`.
  """
  continuous: dict[str, float]
  integer: dict[str, float]
  discrete: dict[str, float]
  num_classes: dict[str, int]
  parts: dict[str, list[str]]


def rmse_of_shares(schema: Schema, share: float) -> dict[str, float]:
  """An error of each numeric column, physical units, that is this share of its range."""
  return {name: share * (schema.column[name].high - schema.column[name].low) for name in schema.numeric_names}


def field_bits(entropies: Entropies, rmse: Mapping[str, float], constant: float) -> dict[str, float]:
  """Bits of each numeric field: h - log2(rmse) - constant, of an integer without h H - `most_integer_bits`; no less
  than 0 and no more than an integer's entropy.
  """
  found = {}
  for name in dict.fromkeys((*entropies.continuous, *entropies.integer)):
    most = entropies.integer[name] if name in entropies.integer else np.inf
    if name in entropies.continuous:
      with np.errstate(divide="ignore"):
        bits = entropies.continuous[name] - np.log2(rmse[name]) - constant
    else:
      bits = most - (most_integer_bits(rmse[name]) if most else 0.0)
    found[name] = float(np.clip(bits, 0.0, most))
  return found


def most_integer_bits(rmse: float) -> float:
  """The largest entropy of an integer whose mean square is rmse^2: that of p(k) ~ exp(-b k^2), found by bisection."""
  if rmse == 0:
    return 0.0
  if rmse > WIDE_ERROR:
    return float(GAUSSIAN_BITS + np.log2(rmse))
  square = np.arange(-10 * WIDE_ERROR, 10 * WIDE_ERROR + 1.0) ** 2
  low, high = 1 / (4 * WIDE_ERROR**2), 1400.0
  for _ in range(BISECTIONS):
    b = 0.5 * (low + high)
    p = np.exp(-b * square)
    low, high = (b, high) if (p @ square) / p.sum() > rmse**2 else (low, b)
  # At any b this is an upper bound of the entropy, which is least where the mean square is met.
  return float((np.log(p.sum()) + b * rmse**2) / np.log(2))


def entropy_bits(probabilities: Sequence[float] | np.ndarray) -> float:
  """Entropy in bits of a distribution."""
  p = np.asarray(probabilities, np.float64)
  return float(-(p[p > 0] * np.log2(p[p > 0])).sum())


def discrete_bits(entropy: float, error_rate: float, num_classes: int) -> float:
  """Bits below which no code lets a share `error_rate` of a field's values come back wrong (Fano); 0 or more.

  It is the rate-distortion function of a binary source and of a uniform one.
  """
  most = 1 - 1 / num_classes
  error = min(error_rate, most)
  return max(0.0, entropy - entropy_bits([error, 1 - error]) - error * np.log2(num_classes - 1))


def symbol_bits(entropies: Entropies, error_rate: Mapping[str, float] | None) -> dict[str, float]:
  """Bits of each discrete field, of several columns together with what their errors leave open; without error rates,
  exactly kept.
  """
  errors, found = {} if error_rate is None else error_rate, {}
  for name, bits in entropies.discrete.items():
    if name in entropies.parts:
      wrong = [min(errors[part], 0.5) for part in entropies.parts[name] if part in errors]
      found[name] = max(0.0, bits - sum(entropy_bits([share, 1 - share]) for share in wrong))
    else:
      found[name] = discrete_bits(bits, errors[name], entropies.num_classes[name]) if name in errors else bits
  return found


def line_bits(entropies: Entropies, rmse: Mapping[str, float], constant: float,
              error_rate: Mapping[str, float] | None) -> float:
  """Bits of a state on one of the two lines."""
  return float(sum(field_bits(entropies, rmse, constant).values()) + sum(symbol_bits(entropies, error_rate).values()))


def shannon_bits(entropies: Entropies, rmse: Mapping[str, float],
                 error_rate: Mapping[str, float] | None = None) -> float:
  """Shannon's lower bound in bits per state.

  Args:
    rmse: root mean squared error of each numeric field, physical units.
    error_rate: share of wrong values of discrete fields; those it does not name are kept exactly.
  """
  return line_bits(entropies, rmse, GAUSSIAN_BITS, error_rate)


def scalar_bits(entropies: Entropies, rmse: Mapping[str, float],
                error_rate: Mapping[str, float] | None = None) -> float:
  """Bits per state of a uniform quantiser with an ideal entropy coder for each numeric field; as `shannon_bits`."""
  return line_bits(entropies, rmse, STEP_BITS, error_rate)


def excess_bits(measured_bits: float, entropies: Entropies, rmse: Mapping[str, float],
                error_rate: Mapping[str, float] | None = None) -> float:
  """Measured bits per state less those of the scalar quantiser's line at the run's own errors; less than 0 is better
  than it.
  """
  return measured_bits - scalar_bits(entropies, rmse, error_rate)


def gaussian_bits(eigenvalues: np.ndarray, distortions: np.ndarray) -> np.ndarray:
  """Bits [n] of independent Gaussian components at a mean squared error each: log2(variance / distortion) / 2."""
  return 0.5 * np.log2(np.asarray(eigenvalues, np.float64) / distortions)


def water_fill(variances: np.ndarray, distortion: float, weights: np.ndarray | None = None) -> np.ndarray:
  """Mean squared errors [n] that cost the fewest bits at a given weighted mean of them.

  D_i = min(level / w_i, variance_i): two fields below the water differ by log2(w_i / w_j) / 2 bits beside what their
  entropies do, whatever their distributions at high rate.

  Args:
    variances: [n], the error of a field that no bits are spent on.
    distortion: sum w_i D_i / n, above 0; as much as the variances give, or more, costs no bits.
    weights: [n] above 0; none are 1 each.
  """
  variances = np.asarray(variances, np.float64)
  weights = np.ones_like(variances) if weights is None else np.asarray(weights, np.float64)
  if not (distortion > 0 and (variances >= 0).all() and (weights > 0).all()):
    raise ValueError("water_fill: got a distortion or weight that is not above 0, or a variance below 0")
  order = np.sort(weights * variances)
  n = len(order)
  for k, height in enumerate(order):  # k components lie dry: they are under the water level and cost nothing
    level = (n * distortion - order[:k].sum()) / (n - k)
    if level <= height:
      return np.minimum(level / weights, variances)
  return variances.copy()


def gaussian_rate_distortion(eigenvalues: np.ndarray, distortion: float) -> float:
  """R(D) of a Gaussian vector, bits per vector.

  Args:
    eigenvalues: [n] of the covariance.
    distortion: mean squared error per dimension, |x - r|^2 / n.
  """
  eigenvalues = np.asarray(eigenvalues, np.float64)
  eigenvalues = eigenvalues[eigenvalues > 0]
  return float(gaussian_bits(eigenvalues, water_fill(eigenvalues, distortion)).sum())


def gaussian_lines(eigenvalues: np.ndarray, distortion: float) -> tuple[float, float]:
  """(R(D), bits of scalar quantisers) of a Gaussian vector at a mean squared error per dimension.

  The quantisers are of its components, at the errors of reverse water-filling: each costs 0.2546 bit more than R(D),
  those that lie dry nothing.
  """
  bound = gaussian_rate_distortion(eigenvalues, distortion)
  coded = int((water_fill(eigenvalues, distortion) < eigenvalues).sum())
  return bound, bound + coded * (GAUSSIAN_BITS - STEP_BITS)
