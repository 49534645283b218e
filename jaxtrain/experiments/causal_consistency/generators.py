"""Simulated tables whose effects are known: covariates, a treatment that is hidden in part, and an outcome.

  base, multiclass  x ~ N(0, 1); logit of class j is j s x; z = x + y + e
  iv                w ~ N(0, I), u ~ N(0, 1); logit of class j is j (s x + a mean(w) + h u); z = x + y + h u + e
  hetero            x ~ N(0, I_5); logit of y = 1 is s (x1 - x2 / 2); z = m(x) + y (1 + x1 / 2 + sin x2) + e,
                    m(x) = x1 + x3^2 / 2 - cos(2 x4), the deviation of e is 1 + |x5| / 2 times the noise

with e normal, s `data.confounding` (0 = a randomised treatment; the larger, the less the arms overlap), a
`data.instrument_strength`, h `data.hidden_confounding`. Which treatments are hidden, at the rate r:

  mcar   r                          mnar   r (1 - m + m y / (K - 1)), m = `data.mnar_strength`
  mar    r sigmoid(x1)              mar_z  r sigmoid(z - (K - 1) / 2)

**Source:** base, multiclass, mcar, mar and mnar (m = 1/2) are those of the original system; a hidden confounder and
mar_z are ours: its instrument was of no use, because nothing was hidden from it.
**Departs:** several instruments act through their mean; the original stopped there.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import special

MECHANISMS = ("mcar", "mar", "mnar", "mar_z")
GENERATORS = ("base", "multiclass", "iv", "hetero")
HETERO_DIM = 5


class Draw(NamedTuple):
  """The rows of a simulated table, or of another whose treatments are known, float64.

  Attributes:
    x: [N, D] covariates; w: [N, W] instruments, W = 0 without.
    y: [N] int32, the treatment; observed: [N] bool, whether it is recorded.
    z: [N, 1] outcome.
    mean: [N, K, 1] E[z | x, do(y = k)], what is hidden averaged out; None where it is not known.
  """
  x: np.ndarray
  w: np.ndarray
  y: np.ndarray
  observed: np.ndarray
  z: np.ndarray
  mean: np.ndarray | None


def categorical(random: np.random.Generator, logits: np.ndarray) -> np.ndarray:
  """A class for each row of logits [N, K], by the Gumbel trick: [N] int32."""
  return np.argmax(logits + random.gumbel(size=logits.shape), axis=1).astype(np.int32)


def hide(random: np.random.Generator, data, y: np.ndarray, by_x: np.ndarray, by_z: np.ndarray) -> np.ndarray:
  """Which treatments stay recorded, [N] bool, by `data.missing_mechanism` and `data.missing_rate`.

  Args:
    y: [N] treatments; by_x, by_z: [N], what the logit of `mar` and of `mar_z` is.
  """
  m = data.mnar_strength
  share = {"mcar": np.ones(len(y)), "mar": special.expit(by_x), "mnar": 1 - m + m * y / (data.num_classes - 1),
           "mar_z": special.expit(by_z)}[data.missing_mechanism]
  return random.random(len(y)) >= data.missing_rate * share


def draw(data, num_rows: int, seed: int) -> Draw:
  """So many rows of the generator `data.source`; equal arguments give equal rows."""
  random = np.random.default_rng(seed)
  make = draw_hetero if data.source == "hetero" else draw_linear
  x, w, y, z, mean = make(random, data, num_rows)
  return Draw(x, w, y, hide(random, data, y, x[:, 0], z[:, 0] - (data.num_classes - 1) / 2), z, mean)


def draw_linear(random: np.random.Generator, data, N: int) -> tuple[np.ndarray, ...]:
  """(x, w, y, z, mean) of the generators with one covariate and a constant effect."""
  with_instrument = data.source == "iv"
  classes = np.arange(data.num_classes)
  x = random.normal(size=(N, 1))
  w = random.normal(size=(N, data.instrument_dim if with_instrument else 0))
  hidden = data.hidden_confounding * random.normal(size=N) if with_instrument else np.zeros(N)
  push = data.confounding * x[:, 0] + hidden
  if with_instrument:
    push = push + data.instrument_strength * w.mean(axis=1)
  y = categorical(random, push[:, None] * classes)
  z = x + y[:, None] + hidden[:, None] + data.noise_std * random.normal(size=(N, 1))
  return x, w, y, z, x[:, None, :] + classes[None, :, None]


def draw_hetero(random: np.random.Generator, data, N: int) -> tuple[np.ndarray, ...]:
  """(x, w, y, z, mean) of five covariates, an effect that depends on two of them, and noise that depends on another."""
  x = random.normal(size=(N, HETERO_DIM))
  y = categorical(random, np.stack([np.zeros(N), data.confounding * (x[:, 0] - 0.5 * x[:, 1])], axis=1))
  control = x[:, 0] + 0.5 * x[:, 2] ** 2 - np.cos(2.0 * x[:, 3])
  effect = 1.0 + 0.5 * x[:, 0] + np.sin(x[:, 1])
  deviation = data.noise_std * (1.0 + 0.5 * np.abs(x[:, 4]))
  z = control + y * effect + deviation * random.normal(size=N)
  mean = np.stack([control, control + effect], axis=1)[:, :, None]
  return x, np.zeros((N, 0)), y, z[:, None], mean


def names(data) -> dict[str, tuple[str, ...]]:
  """Names of the columns of a simulated table: `covariates`, `instruments`, `outcomes`, `treatment`."""
  several = lambda letter, n: (letter,) if n == 1 else tuple(f"{letter}{k + 1}" for k in range(n))
  return {"covariates": several("x", HETERO_DIM if data.source == "hetero" else 1), "treatment": ("y",),
          "instruments": several("w", data.instrument_dim) if data.source == "iv" else (), "outcomes": ("z",)}


def columns(made: Draw, named: dict[str, tuple[str, ...]]) -> dict[str, Any]:
  """Rows by column, as they are written to a file: hidden treatments are None; what is true and not seen has names
  that begin with `true_`.
  """
  found: dict[str, Any] = {}
  for role, values in (("covariates", made.x), ("instruments", made.w)):
    found |= {name: values[:, d] for d, name in enumerate(named[role])}
  treatment, = named["treatment"]
  found[treatment] = np.asarray([str(y) if seen else None for y, seen in zip(made.y, made.observed)], object)
  found |= {name: made.z[:, d] for d, name in enumerate(named["outcomes"])}
  found[f"true_{treatment}"] = made.y.astype(np.int64)
  means = np.zeros((len(made.y), 0, 1)) if made.mean is None else made.mean
  return found | {f"true_mean_{k}": means[:, k, 0] for k in range(means.shape[1])}
