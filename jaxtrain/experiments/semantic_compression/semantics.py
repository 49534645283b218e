"""Differentiable features of states, the loss of meaning between a state and its reconstruction, and feature weights.

A vector v [B, D] is what `schema.encode` gives; a network's output r [B, D] has the same places, with logits in those
of binary and categorical columns. Columns are found by their names through the schema. A threshold rule on a number v
is soft as sigmoid((v - threshold) / temperature), both as shares of the column's range; what has several conditions is
the product of their probabilities.

Losses per row, 0 for a perfect reconstruction:

  numeric      mean over the feature's columns of the squared error, shares of ranges squared
  binary       KL(p || q) of the original's probability p and the reconstruction's q, nats; of a binary column p is 0 or
               1, which makes it the cross-entropy; of a rule p is soft too, so that the loss is least at the original
  categorical  cross-entropy of the original's class, nats; with the rule "index" the squared difference of the expected
               class index over the number of classes

**Source:** straight-through gradients: Bengio, Leonard & Courville, Estimating or propagating gradients through
stochastic neurons, 2013. Weights and their schedules are those of the original system.
**Departs:** the original took the cross-entropy of hard bits, which has no gradient and costs 100 for each wrong one.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import losses as rows_losses
from jaxtrain.experiments.semantic_compression.columns import Column, Feature, Schema, middle
from jaxtrain.nn import quantisers

WEIGHTS, SHAPES = ("canonical", "equal"), ("linear", "exp")


def share(column: Column, threshold: float) -> float:
  """A threshold in the units of the vector."""
  return (threshold - middle(column)) / (column.high - column.low)


def condition_logits(schema: Schema, feature: Feature, v: jax.Array, hard_columns: bool,
                     temperature: float) -> list[jax.Array]:
  """The logits [B] of the conditions that are all true where a binary feature is.

  Args:
    hard_columns: whether binary columns hold -1/2 and +1/2 and no logits; these become infinite ones.
  """
  place, known = schema.slices, schema.column
  at = lambda name: v[:, place[name].start]
  as_logit = lambda x: jnp.where(x > 0, jnp.inf, -jnp.inf) if hard_columns else x
  if not feature.rule:
    return [as_logit(at(name)) for name in feature.columns]
  name, *others = feature.columns
  first = share(known[name], feature.thresholds[0])
  found = [(first - at(name) if feature.rule == "below" else at(name) - first) / temperature]
  if feature.rule == "between":
    found.append((share(known[name], feature.thresholds[1]) - at(name)) / temperature)
  return found + [as_logit(at(other)) for other in others]


def log_probabilities(logits: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
  """(ln p, ln(1 - p)) [B] of all conditions being true, without cancellation: 1 - p q = (1 - p) + p (1 - q)."""
  yes, no = jax.nn.log_sigmoid(logits[0]), jax.nn.log_sigmoid(-logits[0])
  for logit in logits[1:]:
    no = jnp.logaddexp(no, yes + jax.nn.log_sigmoid(-logit))
    yes = yes + jax.nn.log_sigmoid(logit)
  return yes, no


def numbers(schema: Schema, feature: Feature, v: jax.Array) -> jax.Array:
  """[B, n] of a numeric feature's columns."""
  return jnp.stack([v[:, schema.slices[name].start] for name in feature.columns], axis=1)


def features(schema: Schema, v: jax.Array, soft: bool, temperature: float) -> dict[str, jax.Array]:
  """The value of each feature, by name: numeric [B, n] as shares of ranges, binary [B], categorical [B, K] one-hot.

  Args:
    v: [B, D] float32, a vector or a network's output; a binary column is true where it is above 0.
    soft: whether hard values carry the gradients of the soft ones (sigmoid, softmax) or none.
    temperature: of the soft values, a share of the range.
  """
  chex.assert_shape(v, (None, schema.width))
  found = {}
  for feature in schema.features:
    if feature.kind == "numeric":
      found[feature.name] = numbers(schema, feature, v)
    elif feature.kind == "categorical":
      logits = v[:, schema.slices[feature.columns[0]]]
      hard = jax.nn.one_hot(jnp.argmax(logits, axis=1), logits.shape[1], dtype=v.dtype)
      found[feature.name] = quantisers.straight_through(jax.nn.softmax(logits, axis=1), hard) if soft else hard
    else:
      logits = condition_logits(schema, feature, v, False, temperature)
      hard = jnp.stack([logit > 0 for logit in logits]).all(axis=0).astype(v.dtype)
      found[feature.name] = quantisers.straight_through(jnp.exp(log_probabilities(logits)[0]), hard) if soft else hard
  return found


def binary_divergence(p_logs: tuple[jax.Array, jax.Array], q_logs: tuple[jax.Array, jax.Array]) -> jax.Array:
  """KL [B] in nats between two bits that are given by (ln p, ln(1 - p)); those of p may be -inf."""
  term = lambda log_p, log_q: jnp.where(log_p > -jnp.inf, jnp.exp(log_p) * (jnp.maximum(log_p, -1e30) - log_q), 0.0)
  return term(p_logs[0], q_logs[0]) + term(p_logs[1], q_logs[1])


def losses(schema: Schema, v: jax.Array, r: jax.Array, temperature: float) -> dict[str, jax.Array]:
  """The loss of each feature per row, [B] float32 by name.

  Args:
    v: [B, D] float32, the original's vectors; no gradient goes to it.
    r: [B, D] float32, the network's output.
    temperature: of threshold rules, a share of the range, above 0.
  """
  chex.assert_equal_shape([v, r])
  chex.assert_shape(v, (None, schema.width))
  v, found = jax.lax.stop_gradient(v), {}
  for feature in schema.features:
    if feature.kind == "numeric":
      error = rows_losses.squared_error(numbers(schema, feature, v), numbers(schema, feature, r))
      found[feature.name] = error / len(feature.columns)
    elif feature.kind == "binary":
      found[feature.name] = binary_divergence(
          log_probabilities(condition_logits(schema, feature, v, True, temperature)),
          log_probabilities(condition_logits(schema, feature, r, False, temperature)))
    else:
      one_hot, logits = (x[:, schema.slices[feature.columns[0]]] for x in (v, r))
      if feature.rule == "index":
        index = jnp.arange(logits.shape[1], dtype=v.dtype) / logits.shape[1]
        found[feature.name] = jnp.square(jnp.sum((jax.nn.softmax(logits, axis=1) - one_hot) * index[None], axis=1))
      else:
        found[feature.name] = rows_losses.cross_entropy_nats(logits, jnp.argmax(one_hot, axis=1))
  return found


def weighted(schema: Schema, found: dict[str, jax.Array], weight: jax.Array | np.ndarray) -> jax.Array:
  """The sum over features [B] of losses by name times weights [F], which are in the schema's order."""
  return sum(weight[k] * found[feature.name] for k, feature in enumerate(schema.features))


def weights(schema: Schema, kind: str) -> np.ndarray:
  """The weight of each feature [F] float64, of sum 1, in the schema's order.

  `canonical`: as the schema has them; `equal`: the same for all. Raises ValueError for another kind.
  """
  if kind not in WEIGHTS:
    raise ValueError(f"feature weights: got {kind!r}, allowed {', '.join(WEIGHTS)}")
  raw = np.asarray([feature.weight if kind == "canonical" else 1.0 for feature in schema.features])
  if not raw.sum() > 0:
    raise ValueError(f"feature weights: those of schema {schema.name!r} are all 0")
  return raw / raw.sum()


def progressive_weights(start: jax.Array, end: jax.Array, progress: jax.Array | float, shape: str) -> jax.Array:
  """Weights [F] on their way from `start` to `end` [F].

  `linear`: w0 + p (w1 - w0); `exp`: w1 - (w1 - w0) (1 - p)^2, which is fast at first; p is `progress`, clipped
  to 0..1: epochs over the epochs that the way takes. Raises ValueError for another shape.
  """
  if shape not in SHAPES:
    raise ValueError(f"progressive weights: got {shape!r}, allowed {', '.join(SHAPES)}")
  p = jnp.clip(progress, 0.0, 1.0)
  return start + p * (end - start) if shape == "linear" else end - (end - start) * jnp.square(1 - p)
