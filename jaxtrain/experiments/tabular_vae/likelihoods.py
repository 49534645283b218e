"""What the decoder says of each column of a table with kinds: its likelihood, its best guess, and draws from it.

With m the decoder's number for a column in scaled units:
  continuous   squared error (x - m)^2: -log of a Normal of variance 1/2, but for a constant; with learned noise -log of
               a Normal of a deviation that is a parameter of the column
  integer      a discretised logistic: P(k) = sigma((t(k + 1/2) - m) / s) - sigma((t(k - 1/2) - m) / s) with t the
               column's transform and scaling, s the decoder's too; the least and the largest number of the training
               rows have all that lies beyond them, and a number outside counts as the nearer of them
  categorical  cross-entropy of K logits
  spike v      p = sigma(l) at v beside the rest: a continuous column is at v with probability p, else as above; a
               column of whole numbers is v with p + (1 - p) P(v), and k with (1 - p) P(k)

All are in nats, so that a column weighs by what is known of it and not by its kind. Values at the spike do not count
for the scaling of the rest.

**Source:** discretised logistic: Salimans et al. 2017 (PixelCNN++), eq. 2. Spikes: zero-inflated models, Lambert 1992.
A deviation of the decoder that is learned: Rybkin, Daniilidis & Levine 2021 (Simple and effective VAE training with
calibrated decoders), section 3.
"""

import math
from typing import Any, Mapping, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.data import kinds, scaling

KINDS = ("continuous", "integer", "categorical")
TERMS = {"continuous": "recon", "integer": "integer", "categorical": "categorical"}  # of the loss
LOG_SCALES = (-9.0, 4.0)  # of the logistic, and of learned deviations
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Column(NamedTuple):
  """A column of the table, in scaled units where nothing else is said.

  Attributes:
    kind: one of `KINDS`.
    classes: categories, 0 of a number.
    spike: the value at which rows pile up; None where there is none.
    transform, shift, scale: of the scaler.
    low, high: ends of a column of whole numbers in raw units.
  """
  kind: str
  classes: int = 0
  spike: float | None = None
  transform: str = "standardise"
  shift: float = 0.0
  scale: float = 1.0
  low: float = 0.0
  high: float = 0.0


class Layout(NamedTuple):
  """The columns of a table with kinds, and where they are in what the decoder gives; a value that can be hashed.

  The decoder's numbers are [B, C + 2 I + S + sum K]: means of the continuous columns, means and log scales of the whole
  numbers, log-odds of spikes of all numbers where one has a spike, logits of each categorical column.
  """
  columns: tuple[Column, ...]
  learned_noise: bool

  def places(self, kind: str) -> np.ndarray:
    """Places of the columns of a kind in the table, [n]."""
    return np.asarray([d for d, column in enumerate(self.columns) if column.kind == kind], int)

  def of(self, kind: str) -> tuple[Column, ...]:
    """The columns of a kind."""
    return tuple(column for column in self.columns if column.kind == kind)

  @property
  def kinds(self) -> tuple[str, ...]:
    """The kinds that there are."""
    return tuple(kind for kind in KINDS if self.of(kind))

  @property
  def spiked(self) -> bool:
    """Whether a column has a spike."""
    return any(column.spike is not None for column in self.columns)

  @property
  def sizes(self) -> tuple[int, ...]:
    """Widths of the parts of what the decoder gives: means, means and log scales, log-odds, logits of each column."""
    C, whole = len(self.of("continuous")), len(self.of("integer"))
    return C, whole, whole, (C + whole) * self.spiked, *(column.classes for column in self.of("categorical"))

  @property
  def width(self) -> int:
    """Numbers that the decoder gives for a row."""
    return sum(self.sizes)


class Given(NamedTuple):
  """What the decoder says of rows, see `Layout`; `odds` are of the continuous columns, then of the whole numbers.

  Attributes:
    mean, whole, log_scale, odds: [B, C], [B, I], [B, I], and [B, C + I] or [B, 0].
    logits: [B, K] of each categorical column.
    log_sd: [C], of learned noise; zeros where it is not learned.
  """
  mean: jax.Array
  whole: jax.Array
  log_scale: jax.Array
  odds: jax.Array
  logits: tuple[jax.Array, ...]
  log_sd: jax.Array


def make_layout(meta: Mapping[str, Any], learned_noise: bool) -> Layout | None:
  """The layout of a table's meta; None of a table of numbers with the noise of old."""
  if "kinds" not in meta and not learned_noise:
    return None
  found = meta["kinds"] if "kinds" in meta else {"categories": {}, "integer": {}, "spikes": {}}
  scaler, columns = meta["scaler"], []
  at = scaling.scale(scaler, kinds.spike_row(meta))[0] if found["spikes"] else ()
  for d, name in enumerate(scaler["columns"]):
    if name in found["categories"]:
      columns.append(Column("categorical", len(found["categories"][name])))
      continue
    low, high = found["integer"][name] if name in found["integer"] else (0.0, 0.0)
    columns.append(Column("integer" if name in found["integer"] else "continuous", 0,
                          float(at[d]) if name in found["spikes"] else None, scaler["transforms"][d],
                          scaler["mean"][d], scaler["std"][d], low, high))
  return Layout(tuple(columns), learned_noise)


def split(layout: Layout, raw: jax.Array, log_sd: jax.Array) -> Given:
  """The parts of what the decoder gives, raw [B, W]; `log_sd` [C]."""
  mean, whole, log_scale, odds, *logits = jnp.split(raw, np.cumsum(layout.sizes)[:-1].tolist(), axis=1)
  return Given(mean, whole, jnp.clip(log_scale, *LOG_SCALES), odds, tuple(logits), jnp.clip(log_sd, *LOG_SCALES))


def has_spike(columns: tuple[Column, ...]) -> np.ndarray:
  """Which columns have a spike [1, n], also of none."""
  return np.asarray([[column.spike is not None for column in columns]], bool)


def is_spike(columns: tuple[Column, ...], x: jax.Array) -> jax.Array:
  """Which numbers x [B, n] are at the spike of their column; none where it has none."""
  return x == jnp.asarray([[np.nan if column.spike is None else column.spike for column in columns]], jnp.float32)


def nats(layout: Layout, x: jax.Array, given: Given) -> dict[str, jax.Array]:
  """Negative log-likelihood of each entry by kind, [B, n] each, of x [B, D]: see the head of this file."""
  C, found = len(layout.of("continuous")), {}
  for kind in layout.kinds:
    own, columns = x[:, layout.places(kind)], layout.of(kind)
    if kind == "categorical":
      found[kind] = categorical_nats(own, given.logits)
      continue
    if kind == "integer":
      lost = logistic_nats(columns, own, given.whole, given.log_scale)
    elif layout.learned_noise:
      lost = 0.5 * jnp.square((own - given.mean) * jnp.exp(-given.log_sd)[None]) + given.log_sd[None] + HALF_LOG_2PI
    else:
      lost = jnp.square(own - given.mean)
    if layout.spiked:
      odds = given.odds[:, :C] if kind == "continuous" else given.odds[:, C:]
      lost = spiked_nats(columns, own, odds, lost, kind == "integer")
    found[kind] = lost
  return found


def categorical_nats(codes: jax.Array, logits: tuple[jax.Array, ...]) -> jax.Array:
  """Cross-entropy [B, n] of codes and 1, [B, n]; some number where a cell is missing."""
  each = []
  for k, own in enumerate(logits):
    one_hot = codes[:, k:k + 1] == jnp.arange(1, own.shape[1] + 1)[None]
    each.append(jax.nn.logsumexp(own, axis=1) - jnp.sum(jnp.where(one_hot, own, 0.0), axis=1))
  return jnp.stack(each, axis=1)


def logistic_nats(columns: tuple[Column, ...], x: jax.Array, mean: jax.Array, log_scale: jax.Array) -> jax.Array:
  """-log P of whole numbers [B, n] under discretised logistics.

  With a, b the ends of a number's interval over the scale, sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - exp(a - b)),
  which keeps its digits where the interval is small or far away.
  """
  low, high, down, up = edges(columns, x)
  x = jnp.clip(x, low, high)
  inverse = jnp.exp(-log_scale)
  b, a = (x + up - mean) * inverse, (x - down - mean) * inverse
  above, below = -jax.nn.softplus(a), -jax.nn.softplus(-b)  # log sigma(-a), log sigma(b)
  inner = above + below + jnp.log(-jnp.expm1(-(down + up) * inverse))
  found = jnp.where(x <= low, jnp.where(x >= high, 0.0, below), jnp.where(x >= high, above, inner))
  return -found


def edges(columns: tuple[Column, ...], x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """(least and largest number [1, n] in scaled units, distances of x [B, n] to the ends of its interval, below and
  above).
  """
  ends = np.stack([[column.low, column.high] for column in columns], axis=1)
  scaler = {"transforms": [column.transform for column in columns], "mean": [column.shift for column in columns],
            "std": [column.scale for column in columns], "columns": [""] * len(columns)}
  low, high = scaling.scale(scaler, ends)[:, None]
  logs, signed = (np.asarray([[column.transform.endswith(name) for column in columns]])
                  for name in ("log1p", "signed_log1p"))
  raw = scaling.unscale_on_device(scaler, jnp.clip(x, low, high))
  size = jnp.abs(raw)
  outer = jnp.log1p(0.5 / (1.0 + size))  # of |v| to |v| + 1/2 in units of the transform
  inner = jnp.where(signed & (size < 0.5), jnp.log1p(0.5), -jnp.log1p(-0.5 / (1.0 + size)))  # of |v| - 1/2 to |v|
  down, up = jnp.where(raw < -0.5, outer, inner), jnp.where(raw < -0.5, inner, outer)
  std = jnp.asarray([scaler["std"]], jnp.float32)
  return (jnp.asarray(low), jnp.asarray(high), jnp.where(logs, down, 0.5) / std, jnp.where(logs, up, 0.5) / std)


def spiked_nats(columns: tuple[Column, ...], x: jax.Array, odds: jax.Array, lost: jax.Array, whole: bool) -> jax.Array:
  """-log-likelihood [B, n] of columns some of which have a spike, from that of the rest, `lost`."""
  at, has = is_spike(columns, x), has_spike(columns)
  log_spike, log_rest = -jax.nn.softplus(-odds), -jax.nn.softplus(odds)
  in_spike = jnp.logaddexp(log_spike, log_rest - lost) if whole else log_spike
  return jnp.where(has, -jnp.where(at, in_spike, log_rest - jnp.where(at, 0.0, lost)), lost)


def assemble(layout: Layout, by_kind: dict[str, jax.Array]) -> jax.Array:
  """[B, D] in the order of the table from the columns of each kind."""
  order = np.argsort(np.concatenate([layout.places(kind) for kind in layout.kinds]))
  return jnp.concatenate([by_kind[kind] for kind in layout.kinds], axis=1)[:, order]


def point(layout: Layout, given: Given) -> jax.Array:
  """The best guess of each entry [B, D] in scaled units: a mean, or the spike where it is more likely than not, or the
  most probable category.
  """
  C, found = len(layout.of("continuous")), {}
  for kind, mean, odds in (("continuous", given.mean, given.odds[:, :C]), ("integer", given.whole, given.odds[:, C:])):
    found[kind] = with_spikes(layout.of(kind), mean, odds > 0) if layout.spiked else mean
  if given.logits:
    found["categorical"] = jnp.stack([jnp.argmax(own, axis=1) + 1.0 for own in given.logits], axis=1)
  return assemble(layout, found)


def with_spikes(columns: tuple[Column, ...], x: jax.Array, at: jax.Array) -> jax.Array:
  """Numbers x [B, n] with that of the spike where `at` [B, n], in columns that have one."""
  value = np.asarray([[0.0 if column.spike is None else column.spike for column in columns]], np.float32)
  return jnp.where(at & has_spike(columns), value, x)


def draw(layout: Layout, given: Given, uniform: jax.Array) -> jax.Array:
  """Draws [B, D] in scaled units, of uniform numbers [B, D] in (0, 1). Without learned noise a continuous number is its
  mean. Whole numbers are not rounded yet.
  """
  C, found = len(layout.of("continuous")), {}
  for kind, odds in (("continuous", given.odds[:, :C]), ("integer", given.odds[:, C:])):
    own, columns = uniform[:, layout.places(kind)], layout.of(kind)
    at, rest = jnp.zeros(own.shape, bool), own
    if layout.spiked:
      has = has_spike(columns)
      share = jnp.where(has, jax.nn.sigmoid(odds), 0.0)
      at = own < share
      rest = jnp.clip((own - share) / jnp.maximum(1.0 - share, 1e-6), 1e-6, 1 - 1e-6)
    if kind == "integer":
      made = given.whole + jnp.exp(given.log_scale) * (jnp.log(rest) - jnp.log1p(-rest))
    else:
      made = given.mean + jnp.exp(given.log_sd)[None] * jax.scipy.special.ndtri(rest) * layout.learned_noise
    found[kind] = with_spikes(columns, made, at) if layout.spiked else made
  if given.logits:
    own = uniform[:, layout.places("categorical")]
    found["categorical"] = jnp.stack([1.0 + inverse_cdf(logits, own[:, k]) for k, logits in enumerate(given.logits)],
                                     axis=1)
  return assemble(layout, found)


def inverse_cdf(logits: jax.Array, uniform: jax.Array) -> jax.Array:
  """Classes [B] float32 drawn with logits [B, K] by uniform numbers [B]."""
  below = jnp.cumsum(jax.nn.softmax(logits, axis=1), axis=1)[:, :-1] < uniform[:, None]
  return jnp.sum(below, axis=1).astype(jnp.float32)


def encoder_width(layout: Layout, embedding_dim: int) -> int:
  """Numbers that the encoder takes of a row."""
  numbers = [column for column in layout.columns if column.kind != "categorical"]
  spikes = sum(column.spike is not None for column in numbers)
  return len(numbers) + spikes + sum(min(embedding_dim, column.classes) for column in layout.of("categorical"))


def numbers_in(layout: Layout, x: jax.Array) -> jax.Array:
  """What the encoder takes of the columns of numbers of x [B, D]: themselves, and 1 where one is at its spike."""
  places = np.sort(np.concatenate([layout.places("continuous"), layout.places("integer")]))
  own, columns = x[:, places], tuple(layout.columns[d] for d in places)
  spiked = np.asarray([k for k, column in enumerate(columns) if column.spike is not None], int)
  return jnp.concatenate([own, is_spike(columns, own)[:, spiked].astype(own.dtype)], axis=1)
