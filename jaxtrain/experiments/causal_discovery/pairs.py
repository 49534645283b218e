"""What is particular to tables of variables: input channels, attention over an axis, pairs that are no edge."""

import jax
import jax.numpy as jnp

from jaxtrain.nn import attention

NO_EDGE = -30.0  # logit of a pair that is none: the diagonal and padding; its probability, 1e-13, vanishes in any sum


def attend_over(axis: str, qkv: jax.Array, node_mask: jax.Array, num_heads: int) -> jax.Array:
  """Self-attention over one axis of a table.

  Args:
    axis: "variables": tokens are the variables of a sample; "samples": they are the samples of a variable.
    qkv: [B, n, D, 3 * inner], queries, keys, values beside each other.
    node_mask: [B, D], 0 where a variable is padding and so no key.

  Returns:
    [B, n, D, inner].
  """
  B, n, D, width = qkv.shape
  if axis == "variables":
    tokens, mask = qkv.reshape(B * n, D, width), jnp.repeat(node_mask, n, axis=0)
    return attention.attend(tokens, mask, num_heads).reshape(B, n, D, -1)
  rows = jnp.swapaxes(qkv, 1, 2).reshape(B * D, n, width)
  return jnp.swapaxes(attention.attend(rows, None, num_heads).reshape(B, D, n, -1), 1, 2)


def channels(values: jax.Array, intervened: jax.Array, node_mask: jax.Array, precision: str) -> jax.Array:
  """The two input channels [B, n, D, 2], 0 in padding whatever stands there."""
  real = node_mask[:, None, :, None] > 0
  return jnp.where(real, jnp.stack([values, intervened.astype(values.dtype)], axis=-1), 0.0).astype(precision)


def edges_only(logits: jax.Array, node_mask: jax.Array) -> jax.Array:
  """logits [B, D, D] with `NO_EDGE` on the diagonal and where either variable is padding."""
  real = (node_mask[:, :, None] * node_mask[:, None, :]) * (1.0 - jnp.eye(node_mask.shape[1]))[None] > 0
  return jnp.where(real, logits.astype(jnp.float32), NO_EDGE)


def skeleton(logits: jax.Array, node_mask: jax.Array) -> jax.Array:
  """One logit for both directions of a pair, the mean of logits [B, D, D] of either; see `edges_only`."""
  return edges_only(0.5 * (logits + jnp.swapaxes(logits, 1, 2)), node_mask)


def net_flow(flows: jax.Array, node_mask: jax.Array) -> jax.Array:
  """Scores [B, D] of variables: the mean of flows [B, D, D] out of each to the others, less that into it."""
  real = node_mask[:, :, None] * node_mask[:, None, :] * (1.0 - jnp.eye(node_mask.shape[1]))[None]
  flows = jnp.where(real > 0, flows, 0.0)
  others = jnp.maximum(jnp.sum(node_mask, axis=1, keepdims=True) - 1.0, 1.0)
  return (jnp.sum(flows, axis=2) - jnp.sum(flows, axis=1)) / others
