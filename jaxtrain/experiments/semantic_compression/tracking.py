"""How much meaning a codec keeps, from sums over the rows of an evaluation: what is followed from epoch to epoch.

The formulas are those of `preservation`, whose scores of whole records the assessment has.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import losses
from jaxtrain.experiments.semantic_compression import preservation, semantics
from jaxtrain.experiments.semantic_compression.columns import Schema, middle


def rounded(schema: Schema, r: jax.Array) -> jax.Array:
  """r [B, D] with the numbers of integer columns as decoding rounds them."""
  for column in schema.columns:
    if column.kind == "integer":
      at, width = schema.slices[column.name], column.high - column.low
      whole = jnp.round(r[:, at] * width + middle(column))
      r = r.at[:, at].set((whole - middle(column)) / width)
  return r


def lost(schema: Schema, x: jax.Array, r: jax.Array, weight: jax.Array) -> jax.Array:
  """[2, F]: the loss of each feature, summed over rows of weight [B], and its wrong answers, of numbers squared errors.
  """
  given, back = (semantics.features(schema, v, soft=False, temperature=1.0) for v in (x, r))
  rows, wrong = [], []
  for feature in schema.features:
    a, b = given[feature.name], back[feature.name]
    if feature.kind == "numeric":
      wrong.append(jnp.mean(jnp.square(a - b), axis=1))
    else:
      wrong.append(jnp.max(jnp.abs(a - b), axis=1) if a.ndim == 2 else jnp.abs(a - b))
    rows.append(jnp.square((a - b) @ (jnp.arange(a.shape[1]) / a.shape[1])) if feature.rule == "index" else wrong[-1])
  return losses.sum_rows(weight, jnp.stack([*rows, *wrong], axis=1)).reshape(2, -1)


def scores(schema: Schema, loss: jax.Array) -> dict[str, jax.Array]:
  """Preservation, fidelity and drift (1 less preservation), overall and `drift/<group>`, of means of `lost` [2, F]."""
  names = [feature.name for feature in schema.features]
  loss, wrong = loss
  alike = 1 / (1 + jnp.sqrt(loss))
  numeric = np.array([feature.kind == "numeric" for feature in schema.features])
  fidelity = jnp.mean(jnp.where(numeric, jnp.exp(-jnp.sqrt(loss)), 1 - wrong))
  kept = {group: jnp.mean(jnp.stack([alike[names.index(one.name)] for one in members]))
          for group, members in preservation.groups_of(schema).items()}
  overall = sum(share * kept[group] for group, share in preservation.group_weights(schema).items())
  return {"preservation": overall, "fidelity": fidelity, "drift": 1 - overall} | {
      f"drift/{group}": 1 - value for group, value in kept.items()}
