"""How far the conditionals are from belonging to one joint distribution.

`gap_y` compares the imputing head with Bayes' rule: KL(p(y | x) p(z | x, y) / p(z | x) || q(y | x, z)).

`gap_x` compares p(x | y, z) with Bayes' rule too. In one joint, log p(x | y, z) - log p(x) and log p(y | x) + log p(z |
x, y) differ by what does not depend on x. Over a few rows of the batch, the anchors, both are normalised to one, and
their KL is 0 where that holds, whatever the unknown constant. p(x) at an anchor is the mean of p(x | y, z) over the
anchors' own (y, z): an estimate, which leaves 0.02 to 0.03 nats in an exact joint.

**Source:** contrastive normalisation over rows of a batch: van den Oord, Li & Vinyals 2018 (InfoNCE), eq. 4.
"""

from typing import Callable

import jax
import jax.numpy as jnp

from jaxtrain.experiments.causal_consistency import nets
from jaxtrain.types import Batch

ANCHORS = 16  # rows of a batch
ABSENT = -1e30  # log-weight of padding; -inf would make NaN of its gradient


def divergence_nats(log_p: jax.Array, log_q: jax.Array, axis: int) -> jax.Array:
  """KL(p || q) of normalised finite log-probabilities along an axis, nats."""
  return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=axis)


def gap_y(out: nets.Output) -> jax.Array:
  """[B]: KL of Bayes' posterior of y against the head, nats."""
  return divergence_nats(out.posterior, out.head, -1)


def with_anchors(batch: Batch) -> Batch:
  """The batch with its first rows beside every row, so that each chunk has the same: `anchors` [B, M, columns] and
  `anchor_weight` [B, M].
  """
  beside = lambda leaf: jnp.broadcast_to(leaf[None, :ANCHORS], (len(leaf), *leaf[:ANCHORS].shape))
  return batch | {"anchors": beside(batch["x"]), "anchor_weight": beside(batch["weight"])}


def gap_x(model: nets.Joint, out: nets.Output, split: Callable, chunk: Batch) -> jax.Array:
  """[B]: KL of Bayes' rule against p(x | y, z) over the anchors, nats, in the mean over y.

  Args:
    model: bound to its parameters.
    out: its output for the chunk.
    split: `batch -> (x, w, z)`.
    chunk: rows with `anchors`.
  """
  x, w, z = split({"x": chunk["anchors"][0]})
  absent = jnp.where(chunk["anchor_weight"][0] > 0, 0.0, ABSENT)  # padding of a short batch repeats a row
  _, _, row_z = split(chunk)
  given = model.given_outcomes(row_z)  # [B, K, D]
  by_head = nets.Normals(given.mean[:, None], given.sd[:, None]).log_prob(x[None, :, None])  # [B, M, K]
  means = model.outcomes(x)  # [M, K, Z]
  by_bayes = nets.Normals(means.mean[None], means.sd[None]).log_prob(row_z[:, None, None])
  by_bayes = by_bayes + model.propensity(x, w)[None] + absent[None, :, None]
  by_head = by_head - density(model, x, w, z, absent)[None, :, None] + absent[None, :, None]
  gap = divergence_nats(jax.nn.log_softmax(by_bayes, axis=1), jax.nn.log_softmax(by_head, axis=1), 1)  # [B, K]
  label = chunk["label"][:, None]
  share = jnp.where(label >= 0, jax.nn.one_hot(chunk["label"], gap.shape[-1]), jnp.exp(out.posterior))
  return jnp.sum(jax.lax.stop_gradient(share) * gap, axis=-1)


def density(model: nets.Joint, x: jax.Array, w: jax.Array, z: jax.Array, absent: jax.Array) -> jax.Array:
  """[M]: log p(x) of the anchors x [M, D] as the mean of p(x | y, z) over the anchors' (y, z), without gradient; absent
  [M] is 0 for an anchor and `ABSENT` for padding.
  """
  given, share = model.given_outcomes(z), model.impute(x, w, z)
  each = nets.Normals(given.mean[None], given.sd[None]).log_prob(x[:, None, None]) + (share + absent[:, None])[None]
  count = jnp.sum(absent == 0).astype(jnp.float32)
  return jax.lax.stop_gradient(jax.nn.logsumexp(each, axis=(1, 2)) - jnp.log(count))  # of [M, M, K]
