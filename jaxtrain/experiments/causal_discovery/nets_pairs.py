"""The network on statistics of pairs: one token for each ordered pair of variables.

A block lets a pair (i, j) see the pairs of the same row and of the same column by attention with one learned query for
all (their mean, weighted by a softmax), the paths i -> k -> j by a product of matrices in each channel, and then itself
by a layer of ReLUs. All of it is equivariant to the order of variables; pairs with a padded variable are never seen.

**Source:** attention along rows and columns of a matrix: Ho et al. 2019 (Axial attention); products over triangles of
pairs: Jumper et al. 2021 (AlphaFold), supplement 1.6.5.
**Departs:** attention has one query for a row, not one for each token: its cost is that of a mean. With a query for
each token a step of ten variables took more than twice the time on a CPU.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.experiments.causal_discovery.nets_layers import Linear, NormLinear
from jaxtrain.experiments.causal_discovery.pairs import edges_only, net_flow, skeleton
from jaxtrain.nn.attention import MASKED, affine, kaiming_uniform, normalise, torch_linear

FIRST_LOGIT = -2.0  # bias of the logits at the start: edges are few
zeros = nn.initializers.zeros


@jax.custom_vjp
def compose(a: jax.Array, b: jax.Array) -> jax.Array:
  """sum_k a[:, i, k, c] b[:, k, j, c], [B, D, D, C], of two arrays of that shape.

  On a CPU one k after the other, channels side by side: products of many small matrices take twice the time.
  """
  if jax.default_backend() != "cpu":
    return jnp.einsum("bikc,bkjc->bijc", a, b)
  take = lambda x, k, axis: jax.lax.dynamic_slice_in_dim(x, k, 1, axis)
  add = lambda k, total: total + take(a, k, 2) * take(b, k, 1)
  return jax.lax.fori_loop(0, a.shape[2], add, jnp.zeros_like(a))


def compose_forward(a, b):
  """`compose` and what its gradient needs."""
  return compose(a, b), (a, b)


def compose_backward(saved, dy):
  """da_ik = sum_j dy_ij b_kj and db_kj = sum_i a_ik dy_ij: products of the same kind with one side transposed."""
  a, b = saved
  transposed = lambda x: jnp.swapaxes(x, 1, 2)
  return compose(dy, transposed(b)), compose(transposed(a), dy)


compose.defvjp(compose_forward, compose_backward)


def pool(values: jax.Array, scores: jax.Array, real: jax.Array, axis: int) -> jax.Array:
  """[B, D, C]: mean of values [B, D, D, C] along an axis by the softmax of scores [B, D, D, H], a score a head.

  `real` is [B, D, D, 1], 0 for pairs with padding.
  """
  weights = jax.nn.softmax(jnp.where(real > 0, scores.astype(jnp.float32), MASKED), axis=axis).astype(values.dtype)
  return jnp.sum(jnp.repeat(weights, values.shape[-1] // scores.shape[-1], axis=-1) * values, axis=axis)


class PairBlock(nn.Module):
  """One block of the network. Fields as of `PairNetwork`."""
  num_heads: int
  ff_dim: int

  @nn.compact
  def __call__(self, h: jax.Array, real: jax.Array) -> jax.Array:
    """h [B, D, D, C] and `real` [B, D, D, 1], 0 for pairs with padding; returns h after the block."""
    C, H = h.shape[-1], self.num_heads
    inputs = affine(normalise(h), *NormLinear(4 * C + 2 * H, True, torch_linear, name="inputs")(C))
    in_row, in_column, first, second, row_scores, column_scores = jnp.split(
      inputs, (C, 2 * C, 3 * C, 4 * C, 4 * C + H), axis=-1)
    pooled = jnp.concatenate([pool(in_row, row_scores, real, 2), pool(in_column, column_scores, real, 1)], axis=-1)
    cause, effect = jnp.split(affine(pooled, *Linear(2 * C, True, zeros, name="nodes")(2 * C)), 2, axis=-1)
    paths = normalise(compose(first * real, second))
    h = h + cause[:, :, None] + effect[:, None] + affine(paths, *NormLinear(C, True, zeros, name="paths")(C))
    hidden = nn.relu(affine(normalise(h), *NormLinear(self.ff_dim, True, kaiming_uniform, name="hidden")(C)))
    return h + affine(hidden, *Linear(C, True, zeros, name="output")(self.ff_dim))


class PairNetwork(nn.Module):
  """Edge logits of statistics of pairs.

  Attributes:
    dim: width C of a token.
    num_blocks: blocks, each with weights of its own.
    num_heads: heads of the attention along rows and columns; divides `dim`.
    ff_dim: hidden width of the ReLU layer.
    precision: dtype name of the computation; parameters, norms, softmax and logits are float32.
    head: independent | arrow, see `arrow.py`.
  """
  dim: int
  num_blocks: int
  num_heads: int
  ff_dim: int
  precision: str
  head: str = "independent"

  @nn.compact
  def __call__(self, statistics: jax.Array, node_mask: jax.Array) -> jax.Array | tuple[jax.Array, jax.Array]:
    """statistics [B, D, D, F], node_mask [B, D]; returns edge logits [B, D, D] float32 (see `edges_only`).

    The head `arrow` returns (skeleton logits [B, D, D], order scores [B, D]).
    """
    h = statistics.astype(self.precision)
    real = (node_mask[:, :, None, None] * node_mask[:, None, :, None]).astype(self.precision)
    h = affine(h, *Linear(self.dim, True, torch_linear, name="embedding")(h.shape[-1]))
    for i in range(self.num_blocks):
      h = PairBlock(self.num_heads, self.ff_dim, name=f"block_{i}")(h, real)
    last = normalise(h.astype(jnp.float32))
    logits = affine(last, *NormLinear(1, True, torch_linear, name="logits")(self.dim))[..., 0] + FIRST_LOGIT
    if self.head == "independent":
      return edges_only(logits, node_mask)
    flows = affine(last, *NormLinear(1, True, torch_linear, name="order")(self.dim))[..., 0]
    return skeleton(logits, node_mask), net_flow(flows, node_mask)
