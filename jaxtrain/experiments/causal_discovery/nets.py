"""Networks of amortised causal discovery: AVICI, AVICI-lite and BCNP.

All read a table of samples by attention that alternates between the variables of a sample and the samples of a
variable, sum it up to one token per variable, and return a logit per ordered pair of variables. They are equivariant
to the order of variables and invariant to the order of samples; padded variables are never attended to.

**Source:** AVICI: Lorch et al. 2022, "Amortized Inference for Causal Structure Learning", section 4 and its code
(avici 1.0.7). BCNP: Dhir et al. 2024, "A Meta-Learning Approach to Bayesian Causal Discovery", and its code
(CausalStructureNeuralProcess). AVICI-lite: BCNP's encoder under AVICI's posterior. Spec causal_discovery 4.2 and 4.3.
**Departs:** LayerNorm followed by Linear is one product, with the affine part of the norm folded into the kernel: an
identity, so parameters stay those of the source. AVICI: padded variables are masked; kernels of attention start
Kaiming-uniform as all others do, where Haiku truncates a normal. BCNP: a second input channel marks interventions; no
dropout on attention weights; parameters that its code declares and never uses (cross-attention and its norm in decoder
layers, a value projection in the edge scores) are left out, 1,707,145 of 1,986,313 at the seed's sizes.
"""

import functools
import math
from typing import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.experiments.causal_discovery.nets_layers import Dropout, Linear, NormLinear
from jaxtrain.experiments.causal_discovery.pairs import attend_over, channels, edges_only, skeleton
from jaxtrain.nn.attention import affine, attend_one, kaiming_uniform, largest, normalise, torch_attention
from jaxtrain.nn.attention import torch_linear


class Block(nn.Module):
  """Pre-norm residual block: self-attention over one axis, then a ReLU layer of `ff_dim` units.

  Attributes:
    axis: "variables" or "samples", see `attend_over`.
    inner_dim: heads times key size.
    separate_norms: queries, keys and values each have their own LayerNorm (AVICI), or share one (BCNP).
    use_bias: of norms and linear layers.
    inits: initialisers of the attention's input kernels and of all others.
    inner_dropout: dropout after the ReLU too (BCNP).
  """
  axis: str
  num_heads: int
  inner_dim: int
  ff_dim: int
  dropout_rate: float
  separate_norms: bool
  use_bias: bool
  inits: tuple[Callable, Callable]
  inner_dropout: bool

  @nn.compact
  def __call__(self, z: jax.Array, node_mask: jax.Array, train: bool) -> jax.Array:
    """z [B, n, D, dim], node_mask [B, D]; returns z after the block."""
    dim, drop = z.shape[-1], Dropout(self.dropout_rate)
    attention_init, init = self.inits
    if self.separate_norms:
      parts = [NormLinear(self.inner_dim, self.use_bias, attention_init, name=name)(dim)
               for name in ("query", "key", "value")]
      kernel, bias = (jnp.concatenate(side, axis=-1) for side in zip(*parts, strict=True))
    else:
      kernel, bias = NormLinear(3 * self.inner_dim, self.use_bias, attention_init, name="query_key_value")(dim)
    y = attend_over(self.axis, affine(normalise(z), kernel, bias), node_mask, self.num_heads)
    z = z + drop(affine(y, *Linear(dim, self.use_bias, init, name="attended")(self.inner_dim)), train)
    y = nn.relu(affine(normalise(z), *NormLinear(self.ff_dim, self.use_bias, init, name="hidden")(dim)))
    y = drop(y, train) if self.inner_dropout else y
    return z + drop(affine(y, *Linear(dim, self.use_bias, init, name="output")(self.ff_dim)), train)


def encode(encoder: nn.Module, x: jax.Array, node_mask: jax.Array, train: bool, chunk: int, join: Callable):
  """Applies `encoder` to all samples, or to chunks of them one after the other, recomputed in the backward pass.

  Chunks do not see each other: with `chunk` > 0 the function is another one, in less memory. Sample r belongs to chunk
  r mod (n / chunk), as in AVICI's code, so that interventional rows at the end spread over all.

  Args:
    encoder: (x, node_mask, train) to [B, D, dim].
    x: [B, n, D, channels]; n must be divisible by `chunk` where it is larger.
    chunk: samples at once; 0 for all.
    join: reduces the chunks' results along an axis.
  """
  B, n = x.shape[:2]
  if chunk == 0 or n <= chunk:
    return encoder(x, node_mask, train)
  if n % chunk:
    raise ValueError(f"model.sample_chunk {chunk} does not divide the {n} samples of a task")
  chunks = jnp.moveaxis(x.reshape(B, chunk, n // chunk, *x.shape[2:]), 2, 0)
  body = nn.remat(lambda module, carry, part: (carry, module(part, node_mask, train)), prevent_cse=False)
  scan = nn.scan(body, variable_broadcast="params", split_rngs={"params": False, "dropout": True})
  return join(scan(encoder, (), chunks)[1], axis=0)


def block_class(remat: bool):
  """`Block`, or a block whose activations are recomputed in the backward pass."""
  return nn.remat(Block, static_argnums=(3,)) if remat else Block


class AVICIEncoder(nn.Module):
  """Embedding, alternating blocks, final norm, maximum over samples. Fields as of `AVICI`."""
  dim: int
  num_blocks: int
  block: Callable

  @nn.compact
  def __call__(self, x: jax.Array, node_mask: jax.Array, train: bool) -> jax.Array:
    """x [B, n, D, 2] to [B, D, dim]."""
    z = affine(x, *Linear(self.dim, True, kaiming_uniform, name="embedding")(x.shape[-1]))
    for i in range(self.num_blocks):
      z = self.block(axis=("variables", "samples")[i % 2], name=f"block_{i}")(z, node_mask, train)
    scale = self.param("scale", nn.initializers.ones, (self.dim,))
    offset = self.param("offset", nn.initializers.zeros, (self.dim,))
    return largest(normalise(z).astype(jnp.float32) * scale[None, None, None] + offset[None, None, None], axis=1)


def answer(net: nn.Module, logits: jax.Array, z: jax.Array, node_mask: jax.Array):
  """What `net.head` makes of logits [B, D, D]: themselves, or a skeleton beside scores affine in tokens z [B, D, C]."""
  if net.head == "independent":
    return edges_only(logits, node_mask)
  scores = affine(z.astype(jnp.float32), *Linear(1, True, torch_linear, name="order")(z.shape[-1]))[..., 0]
  return skeleton(logits, node_mask), scores


class AVICI(nn.Module):
  """Edge logits exp(tau) <u_i, v_j> + beta from unit vectors u, v of each variable.

  Attributes:
    dim, ff_dim: width of the residual stream and of the hidden ReLU layer.
    num_blocks: attention blocks in all, over variables first, then over samples, and so on.
    num_heads, key_size: of the attention.
    dropout_rate: on the two branches of a block.
    tau_init, beta_init: of the temperature and bias of the logits: 0 or 2, and -3, in AVICI's code.
    precision: dtype name of the computation; parameters, norms, softmax and logits are float32.
    remat: recompute a block's activations in the backward pass.
    sample_chunk: samples encoded at once, the maximum running over chunks (see `encode`); 0 for all.
    head: independent | arrow, see `arrow.py`.
  """
  dim: int
  num_blocks: int
  num_heads: int
  key_size: int
  ff_dim: int
  dropout_rate: float
  tau_init: float
  beta_init: float
  precision: str
  remat: bool
  sample_chunk: int
  head: str = "independent"

  @nn.compact
  def __call__(self, values: jax.Array, intervened: jax.Array, node_mask: jax.Array, train: bool):
    """values, intervened [B, n, D], node_mask [B, D]; returns edge logits [B, D, D] float32 (see `edges_only`).

    The head `arrow` returns (skeleton logits [B, D, D], order scores [B, D]).
    """
    block = functools.partial(
      block_class(self.remat), num_heads=self.num_heads, inner_dim=self.num_heads * self.key_size, ff_dim=self.ff_dim,
      dropout_rate=self.dropout_rate, separate_norms=True, use_bias=True, inits=(kaiming_uniform, kaiming_uniform),
      inner_dropout=False)
    x = channels(values, intervened, node_mask, self.precision)
    encoder = AVICIEncoder(self.dim, self.num_blocks, block, name="encoder")
    z = normalise(encode(encoder, x, node_mask, train, self.sample_chunk, largest))
    u, v = (affine(z, *NormLinear(self.dim, True, kaiming_uniform, name=name)(self.dim))
            for name in ("cause", "effect"))
    # Not x / |x|, whose gradient is NaN at 0.
    u, v = (x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12) for x in (u, v))
    tau = self.param("tau", nn.initializers.constant(self.tau_init), ())
    beta = self.param("beta", nn.initializers.constant(self.beta_init), ())
    return answer(self, jnp.exp(tau) * jnp.einsum("bid,bjd->bij", u, v) + beta, z, node_mask)


class MLP(nn.Module):
  """Linear layers without biases and ReLUs between them: two, or `depth` where that is more."""
  hidden_dim: int
  features: int
  depth: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    widths = [self.hidden_dim] * max(self.depth - 1, 1) + [self.features]
    for i, width in enumerate(widths):
      x = affine(x, *Linear(width, False, torch_linear, name=f"linear_{i}")(x.shape[-1]))
      x = nn.relu(x) if i < len(widths) - 1 else x
    return x


class Summary(nn.Module):
  """Attention of one query row of each variable over its samples.

  A key's bias adds the same to all scores of a query, so it has no part in the result and no gradient; it is kept as
  one of the source's parameters.
  """
  num_heads: int

  @nn.compact
  def __call__(self, query: jax.Array, z: jax.Array) -> jax.Array:
    """query [B, D, dim], z [B, n, D, dim]; returns [B, D, dim]."""
    dim = z.shape[-1]
    y = attend_one(query, z, *Linear(3 * dim, True, torch_attention, name="query_key_value")(dim), self.num_heads)
    return affine(y, *Linear(dim, True, torch_linear, name="attended")(dim))


class BCNPEncoder(nn.Module):
  """Embedding, alternating blocks, a summary of the samples. Other fields as of `BCNP`.

  Attributes:
    summary: "query": attention of a further row, which starts as zeros; "maximum": over the samples.
  """
  dim: int
  num_layers: int
  num_heads: int
  emb_depth: int
  summary: str
  block: Callable

  @nn.compact
  def __call__(self, x: jax.Array, node_mask: jax.Array, train: bool) -> jax.Array:
    """x [B, n, D, 2] to [B, D, dim]."""
    z = MLP(self.dim, self.dim, self.emb_depth, name="embedding")(x)
    if self.summary == "query":
      z = jnp.pad(z, ((0, 0), (0, 1), (0, 0), (0, 0)))
    for i in range(self.num_layers):
      z = self.block(axis=("samples", "variables")[i % 2], name=f"block_{i}")(z, node_mask, train)
    if self.summary == "query":
      return Summary(self.num_heads, name="summary")(z[:, -1], z[:, :-1])
    return largest(z, axis=1)


def encode_as_bcnp(net: nn.Module, summary: str, join: Callable, values, intervened, node_mask, train: bool):
  """(tokens [B, D, dim], class of blocks): BCNP's encoder applied inside `net`, which has its fields."""
  block = functools.partial(
    block_class(net.remat), num_heads=net.num_heads, inner_dim=net.dim, ff_dim=net.ff_dim,
    dropout_rate=net.dropout_rate, separate_norms=False, use_bias=False, inits=(torch_attention, torch_linear),
    inner_dropout=True)
  x = channels(values, intervened, node_mask, net.precision)
  encoder = BCNPEncoder(net.dim, net.num_layers, net.num_heads, net.emb_depth, summary, block, name="encoder")
  return encode(encoder, x, node_mask, train, net.sample_chunk, join), block


class AVICILite(nn.Module):
  """Edge logits <q_i, k_j> / sqrt(dim) + bias, q and k affine in the maximum over samples of BCNP's encoder.

  Attributes:
    Those of the encoder, as of `BCNP`; with chunks of samples the maximum runs over them.
  """
  dim: int
  num_layers: int
  num_heads: int
  ff_dim: int
  dropout_rate: float
  emb_depth: int
  precision: str
  remat: bool
  sample_chunk: int
  head: str = "independent"

  @nn.compact
  def __call__(self, values: jax.Array, intervened: jax.Array, node_mask: jax.Array, train: bool):
    """What `AVICI` returns, of arguments as of it."""
    z, _ = encode_as_bcnp(self, "maximum", largest, values, intervened, node_mask, train)
    query_key = Linear(2 * self.dim, True, torch_attention, name="query_key")(self.dim)
    q, k = jnp.split(affine(z.astype(jnp.float32), *query_key), 2, axis=-1)
    bias = self.param("bias", nn.initializers.constant(-3.0), ())  # edges are few
    return answer(self, jnp.einsum("bic,bjc->bij", q, k) / math.sqrt(self.dim) + bias, z, node_mask)


class EdgeScores(nn.Module):
  """Sum of the heads' query-key products with learned weights, in float32."""
  num_heads: int

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    """z [B, D, dim] to scores [B, D, D] float32."""
    z = z.astype(jnp.float32)
    dim = z.shape[-1]
    q, k = jnp.split(affine(z, *Linear(2 * dim, True, torch_attention, name="query_key")(dim)), 2, axis=-1)
    weight, bias = Linear(1, True, nn.initializers.xavier_uniform(), name="heads")(self.num_heads)
    weight = jnp.repeat(weight[:, 0], dim // self.num_heads) / math.sqrt(dim)
    return jnp.einsum("bic,bjc->bij", q * weight[None, None], k) + bias[None, None]


class BCNP(nn.Module):
  """Edge logits, of an edge where the order allows it, and a score of each variable that orders them.

  Attributes:
    dim, ff_dim, num_heads, dropout_rate, precision, remat: as of `AVICI`; heads have size dim / num_heads.
    num_layers: blocks of the encoder, over samples first; even.
    num_layers_decoder: blocks over the variables' tokens; the first half makes one of (order, edges), all the other.
    emb_depth: linear layers of the embedding and of the order's MLP; 1 gives two, as in the source.
    q_before_l: the order's half comes first.
    symmetric: one logit for both directions of a pair.
    sample_chunk: as of `AVICI`, with the mean of the chunks' summaries, each by a query row of its own.
  """
  dim: int
  num_layers: int
  num_layers_decoder: int
  num_heads: int
  ff_dim: int
  dropout_rate: float
  emb_depth: int
  q_before_l: bool
  symmetric: bool
  precision: str
  remat: bool
  sample_chunk: int

  @nn.compact
  def __call__(self, values: jax.Array, intervened: jax.Array, node_mask: jax.Array,
               train: bool) -> tuple[jax.Array, jax.Array]:
    """Edge logits [B, D, D] (see `edges_only`) and order scores [B, D], 0 in padding, of arguments as of `AVICI`."""
    z, block = encode_as_bcnp(self, "query", jnp.mean, values, intervened, node_mask, train)
    z = z[:, None]  # a table of one row
    halves = []
    for i in range(self.num_layers_decoder):
      z = block(axis="variables", name=f"decoder_{i}")(z, node_mask, train)
      if (i + 1) % (self.num_layers_decoder // 2) == 0:
        halves.append(z[:, 0])
    order, edges = halves if self.q_before_l else halves[::-1]
    logits = EdgeScores(self.num_heads, name="edge_scores")(edges)
    if self.symmetric:
      logits = 0.5 * (logits + jnp.swapaxes(logits, 1, 2))
    scores = MLP(self.dim, 1, self.emb_depth, name="order_scores")(order.astype(jnp.float32))[..., 0]
    return edges_only(logits, node_mask), jnp.where(node_mask > 0, scores, 0.0)
