"""AVICI, AVICI-lite, BCNP: sizes, a plain float64 version of each, symmetries, padding, precision, memory options."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.experiments.causal_discovery import nets, pairs
from jaxtrain.nn import attention

# A test calls what it compiles a few times: half the time to compile is worth more than fast code.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
quick_jit = functools.partial(jax.jit, compiler_options=QUICK)

FULL = dict(dim=128, num_heads=8, ff_dim=512, dropout_rate=0.1, precision="float32", remat=False, sample_chunk=0)
SMALL = FULL | dict(dim=16, num_heads=2, ff_dim=24)
AVICI = dict(num_blocks=2, key_size=6, tau_init=2.0, beta_init=-3.0)
BCNP = dict(num_layers=2, num_layers_decoder=2, emb_depth=1, q_before_l=True, symmetric=True)
LITE = dict(num_layers=2, emb_depth=1)
B, N, D = 2, 6, 7


def make(name, sizes=SMALL, **fields):
  net, own = {"avici": (nets.AVICI, AVICI), "lite": (nets.AVICILite, LITE), "bcnp": (nets.BCNP, BCNP)}[name]
  return net(**sizes | own | fields)


every = pytest.mark.parametrize("name", ["avici", "lite", "bcnp"])
either = pytest.mark.parametrize("name", ["avici", *(pytest.param(name, marks=pytest.mark.slow)
                                                    for name in ("lite", "bcnp"))])


def inputs(num_rows=N, num_nodes=D, seed=0):
  """(values, intervened, node_mask) of B tasks without padding."""
  random = np.random.RandomState(seed)
  values = random.normal(size=(B, num_rows, num_nodes)).astype(np.float32)
  return values, (random.rand(*values.shape) < 0.2).astype(np.float32), np.ones((B, num_nodes), np.float32)


@functools.cache
def start(name):
  """Parameters as they are drawn."""
  return quick_jit(lambda key: make(name).init(key, *inputs(), False))(jax.random.key(0))


@functools.cache
def params(name):
  """Parameters moved away from their start, so that zero biases and unit scales are not."""
  leaves, tree = jax.tree.flatten(start(name))
  random = np.random.RandomState(1)
  return jax.tree.unflatten(tree, [x + 0.1 * random.normal(size=x.shape).astype(np.float32) for x in leaves])


def tuple_of(out):
  """(edge logits, order scores); BCNP alone has scores."""
  return out if isinstance(out, tuple) else (out, jnp.zeros(out.shape[:2]))


@functools.cache
def compiled(name, **fields):
  """Program of a model with these fields: ((sum of squares of all outputs, outputs), gradient for the parameters)."""
  def loss(variables, values, intervened, node_mask):
    logits, order = tuple_of(make(name, **fields).apply(variables, values, intervened, node_mask, False))
    total = jnp.sum(jnp.square(jnp.where(logits > pairs.NO_EDGE, logits, 0.0))) + jnp.sum(jnp.square(order))
    return total, (logits, order)
  return quick_jit(jax.value_and_grad(loss, has_aux=True))


def apply(name, **fields):
  """Evaluation of a model with these fields."""
  return lambda *args: compiled(name, **fields)(params(name), *args)[0][1]


def loss_and_grads(name, **fields):
  """Sum of squares of all outputs and its gradient for the parameters."""
  def found(*args):
    (loss, _), grads = compiled(name, **fields)(*args)
    return loss, grads
  return found


def count(tree):
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
@pytest.mark.parametrize("name, fields, want", [
  ("avici", dict(num_blocks=12, key_size=32), 3_210_626),  # as published
  # Embedding; blocks of attention, a hidden layer and two norms without biases; query and key; the bias of logits.
  ("lite", dict(num_layers=6), (2 + 128) * 128 + 6 * (4 * 128 ** 2 + 2 * 128 * 512 + 2 * 128) + 129 * 256 + 1),
  # BCNP's code declares 1,986,313 and never uses these: cross-attention and its norm in each decoder layer, and the
  # value projection of the edge scores.
  ("bcnp", dict(num_layers=4, num_layers_decoder=4), 1_986_313 - 4 * (4 * 128 ** 2 + 128) - (128 ** 2 + 128)),
])
def test_parameter_counts(name, fields, want):
  model = make(name, FULL, **fields)
  shapes = jax.eval_shape(lambda key: model.init(key, *inputs(), False), jax.random.key(0))
  assert count(shapes) == want
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))


@pytest.mark.slow
def test_kernels_start_kaiming_uniform_and_the_rest_neutral():
  model = make("avici", SMALL | dict(dim=64, ff_dim=96))
  flat = jax.tree_util.tree_flatten_with_path(model.init(jax.random.key(0), *inputs(), False)["params"])[0]
  kernels = 0
  for path, x in flat:
    end = path[-1].key
    if end == "kernel":
      bound = np.sqrt(6 / x.shape[0])
      assert np.abs(x).max() <= bound * (1 + 1e-6) and x.std() == pytest.approx(bound / np.sqrt(3), rel=0.1), path
      kernels += 1
    else:
      assert (x == {"scale": 1, "bias": 0, "offset": 0, "tau": 2, "beta": -3}[end]).all(), path
  assert kernels == 1 + 2 * 6 + 2


# A plain version, one step after the other as in the source.

def norm(x, p):
  x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
  return x * p["scale"] + (p["offset"] if "offset" in p else 0)


def linear(x, p):
  return x @ p["kernel"] + (p["bias"] if "bias" in p else 0)


def softmax_attention(q, k, v, num_heads):
  """[..., T, inner] of queries [..., T, inner], keys and values [..., S, inner]."""
  q, k, v = (np.stack(np.split(x, num_heads, axis=-1), axis=-3) for x in (q, k, v))
  scores = np.exp(q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]))
  y = scores / scores.sum(axis=-1, keepdims=True) @ v
  return np.concatenate(list(np.moveaxis(y, -3, 0)), axis=-1)


def block(z, p, axis, num_heads):
  """z [B, n, D, dim]; a block of attention over "variables" (axis 2) or "samples" (axis 1)."""
  if "query" in p:
    q, k, v = (linear(norm(z, p[part]), p[part]["linear"]) for part in ("query", "key", "value"))
  else:
    part = p["query_key_value"]
    q, k, v = np.split(linear(norm(z, part), part["linear"]), 3, axis=-1)
  swap = (lambda x: x) if axis == "variables" else (lambda x: np.swapaxes(x, 1, 2))
  z = z + linear(swap(softmax_attention(swap(q), swap(k), swap(v), num_heads)), p["attended"])
  return z + linear(np.maximum(linear(norm(z, p["hidden"]), p["hidden"]["linear"]), 0), p["output"])


def plain(name, values, intervened):
  """Edge logits and order scores in float64, diagonal included."""
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params(name))["params"]
  e, x = p["encoder"], np.stack([values, intervened], axis=-1).astype(np.float64)
  mlp = lambda x, p: linear(np.maximum(linear(x, p["linear_0"]), 0), p["linear_1"])
  if name == "avici":
    z = linear(x, e["embedding"])
    for i in range(2):
      z = block(z, e[f"block_{i}"], ("variables", "samples")[i % 2], 2)
    z = norm(z, e).max(axis=1)
    u, v = (linear(norm(z, p[part]), p[part]["linear"]) for part in ("cause", "effect"))
    u, v = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (u, v))
    return np.exp(p["tau"]) * u @ np.swapaxes(v, 1, 2) + p["beta"], np.zeros(values.shape[::2])
  z = mlp(x, e["embedding"])
  if name == "bcnp":
    z = np.concatenate([z, np.zeros_like(z[:, :1])], axis=1)
  for i in range(2):
    z = block(z, e[f"block_{i}"], ("samples", "variables")[i % 2], 2)
  if name == "lite":
    q, k = np.split(linear(z.max(axis=1), p["query_key"]), 2, axis=-1)
    return q @ np.swapaxes(k, 1, 2) / np.sqrt(16) + p["bias"], np.zeros(values.shape[::2])
  z = np.swapaxes(z, 1, 2)  # [B, D, n + 1, dim]
  project = e["summary"]["query_key_value"]
  q, k, v = np.split(linear(z, project), 3, axis=-1)
  z = linear(softmax_attention(q[:, :, -1:], k[:, :, :-1], v[:, :, :-1], 2), e["summary"]["attended"])[:, None, :, 0]
  order = block(z, p["decoder_0"], "variables", 2)
  edges = block(order, p["decoder_1"], "variables", 2)[:, 0]
  q, k = np.split(linear(edges, p["edge_scores"]["query_key"]), 2, axis=-1)
  heads = p["edge_scores"]["heads"]
  q, k = (np.split(x, 2, axis=-1) for x in (q, k))
  parts = np.stack([a @ np.swapaxes(b, 1, 2) for a, b in zip(q, k, strict=True)], axis=-1)
  logits = parts @ heads["kernel"][:, 0] / np.sqrt(16) + heads["bias"]
  return (logits + np.swapaxes(logits, 1, 2)) / 2, mlp(order, p["order_scores"])[:, 0, :, 0]


@pytest.mark.slow
@every
def test_outputs_are_those_of_the_plain_version(name):
  values, intervened, node_mask = inputs()
  (logits, order), (want, want_order) = apply(name)(values, intervened, node_mask), plain(name, values, intervened)
  off = ~np.eye(D, dtype=bool)
  np.testing.assert_allclose(np.asarray(logits)[:, off], want[:, off], rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(order, want_order, rtol=1e-4, atol=1e-4)
  assert (np.asarray(logits)[:, ~off] == pairs.NO_EDGE).all()
  assert want[:, off].std() > 0.02 and (name != "bcnp" or want_order.std() > 0.01)  # no constant function


@pytest.mark.parametrize("num_sequences, masked", [
  pytest.param(4, True, marks=pytest.mark.slow), (5, True), (5, False)])  # of 5, the last turn is short
def test_attention_in_the_cache_is_that_of_jax(monkeypatch, num_sequences, masked):
  monkeypatch.setattr(attention, "CACHED_SCORES", 2 * 4 * 9 * 9)
  random = np.random.RandomState(0)
  qkv = random.normal(size=(num_sequences, 9, 3 * 4 * 5)).astype(np.float32)
  key_mask = (random.rand(num_sequences, 9) < 0.6).astype(np.float32)
  key_mask[:, 0] = 1
  weight = random.normal(size=(num_sequences, 9, 4 * 5)).astype(np.float32)
  found = []
  for backend in ("cpu", "gpu"):
    monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
    loss = lambda x: (jnp.sum(weight * (y := attention.attend(x, key_mask if masked else None, 4))), y)
    found.append(quick_jit(jax.value_and_grad(loss, has_aux=True))(qkv))
  for x, y in zip(*map(jax.tree.leaves, found), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@either
def test_variables_are_equivariant_and_samples_invariant(name):
  values, intervened, node_mask = inputs()
  logits, order = (np.asarray(x) for x in apply(name)(values, intervened, node_mask))
  nodes, rows = np.random.RandomState(0).permutation(D), np.random.RandomState(1).permutation(N)
  moved, moved_order = apply(name)(values[:, :, nodes], intervened[:, :, nodes], node_mask)
  np.testing.assert_allclose(moved, logits[:, nodes][:, :, nodes], rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(moved_order, order[:, nodes], rtol=1e-4, atol=1e-4)
  same = apply(name)(values[:, rows], intervened[:, rows], node_mask)
  np.testing.assert_allclose(same[0], logits, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(same[1], order, rtol=1e-4, atol=1e-4)
  other = apply(name)(values, 1 - intervened, node_mask)  # the second channel is read
  assert np.abs(np.asarray(other[0]) - logits).max() > 0.01


def padded(fill):
  """`inputs` with 5 more variables, whose values are `fill`; the mask puts padding between the real ones too."""
  place = [0, 1, 3, 4, 5, 8, 10]
  values, intervened, _ = inputs()
  wide = [np.full((B, N, 12), fill, np.float32) for _ in range(2)]
  for x, y in zip(wide, (values, intervened), strict=True):
    x[:, :, place] = y
  node_mask = np.tile(np.isin(np.arange(12), place).astype(np.float32), (B, 1))
  return place, (*wide, node_mask)


@pytest.mark.slow
@either
@pytest.mark.parametrize("fill", [0.0, np.nan])
def test_padding_changes_no_real_output_and_no_gradient(name, fill):
  place, wide = padded(fill)
  (logits, order), (want, want_order) = apply(name)(*wide), apply(name)(*inputs())
  np.testing.assert_allclose(np.asarray(logits)[:, place][:, :, place], want, atol=1e-5)
  np.testing.assert_allclose(np.asarray(order)[:, place], want_order, atol=1e-5)
  others = np.setdiff1d(np.arange(12), place)
  assert (np.asarray(logits)[:, others] == pairs.NO_EDGE).all()
  assert (np.asarray(logits)[:, :, others] == pairs.NO_EDGE).all()
  assert (np.asarray(order)[:, others] == 0).all()
  (_, grads), (_, want) = loss_and_grads(name)(params(name), *wide), loss_and_grads(name)(params(name), *inputs())
  largest = max(float(np.abs(x).max()) for x in jax.tree.leaves(want))
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5 * largest), grads, want)


@either
def test_no_gradient_is_nan_for_constant_data_or_a_task_of_padding(name):
  values, intervened, node_mask = inputs()
  node_mask[1] = 0
  loss, grads = loss_and_grads(name)(start(name), np.zeros_like(values), np.zeros_like(intervened), node_mask)
  assert np.isfinite(loss) and all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


@pytest.mark.slow
@either
def test_half_precision_is_close(name):
  half, full = (loss_and_grads(name, precision=precision)(params(name), *inputs())[1]
                for precision in ("bfloat16", "float32"))
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(half))
  flat = lambda tree: np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
  a, b = flat(half), flat(full)
  assert a @ b / np.sqrt((a @ a) * (b @ b)) > 0.97  # a maximum may fall on another sample
  outputs = [apply(name, precision=precision)(*inputs()) for precision in ("bfloat16", "float32")]
  for x, y in zip(*outputs, strict=True):
    assert x.dtype == jnp.float32
    edges = np.asarray(y)[np.asarray(y) > pairs.NO_EDGE]
    assert 0 <= np.sqrt(np.square(np.asarray(x - y)).mean()) <= 0.1 * edges.std()


@either
@pytest.mark.slow
def test_recomputing_blocks_changes_nothing(name):
  (loss, grads), (want, want_grads) = (loss_and_grads(name, remat=remat)(params(name), *inputs())
                                       for remat in (True, False))
  assert float(loss) == pytest.approx(float(want), rel=1e-5)
  largest = max(float(np.abs(x).max()) for x in jax.tree.leaves(want_grads))
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5 * largest), grads, want_grads)


class Last(nn.Module):
  """An encoder that keeps its last sample."""

  def __call__(self, x, node_mask, train):
    return x[:, -1]


class Chunks(nn.Module):
  """Runs `nets.encode` on `Last`."""
  chunk: int
  join: object

  @nn.compact
  def __call__(self, x):
    return nets.encode(Last(), x, None, False, self.chunk, self.join)


def test_chunks_of_samples_are_strided_and_joined():
  x = np.random.RandomState(0).normal(size=(B, 6, 3, 2)).astype(np.float32)
  cases = {2: x[:, 3:].max(axis=1), 3: x[:, 4:].max(axis=1)} | {n: x[:, -1] for n in (0, 6, 9)}
  found, mean = quick_jit(lambda x: ({chunk: Chunks(chunk, attention.largest).apply({}, x) for chunk in cases},
                                     Chunks(2, jnp.mean).apply({}, x)))(x)
  for chunk, want in cases.items():
    np.testing.assert_array_equal(found[chunk], want)
  np.testing.assert_allclose(mean, x[:, 3:].mean(axis=1), rtol=1e-6)
  with pytest.raises(ValueError, match="model.sample_chunk 4 does not divide the 6 samples"):
    Chunks(4, attention.largest).apply({}, x)


@pytest.mark.slow
@either
def test_chunks_that_are_equal_give_the_result_of_one(name):
  values, intervened, node_mask = inputs()
  twice = lambda x: np.repeat(x, 2, axis=1)  # row r belongs to chunk r mod 2
  got, want = apply(name, sample_chunk=N)(twice(values), twice(intervened), node_mask), apply(name)(*inputs())
  np.testing.assert_allclose(got[0], want[0], rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(got[1], want[1], rtol=1e-4, atol=1e-4)
  fields = dict(sample_chunk=3, remat=True)
  _, grads = loss_and_grads(name, **fields)(params(name), *inputs())
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


@pytest.mark.slow
@either
def test_dropout_acts_in_training_alone(name):
  run = quick_jit(lambda variables, key, train: tuple_of(make(name, dropout_rate=0.3).apply(
    variables, *inputs(), train, rngs={"dropout": key}))[0], static_argnums=2)
  first, again, other = (np.asarray(run(params(name), jax.random.key(seed), True)) for seed in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 0.01
  evaluated = run(params(name), jax.random.key(0), False)
  np.testing.assert_allclose(evaluated, apply(name)(*inputs())[0], rtol=1e-4, atol=1e-4)
  kept = np.asarray(nets.Dropout(0.1).apply({}, jnp.ones((100, 100)), True, rngs={"dropout": jax.random.key(0)}))
  np.testing.assert_allclose(np.unique(kept), [0, 1 / 0.9], rtol=1e-6)
  # 10,000 draws: standard error 0.003; four of them are exceeded by 1 key in 16,000.
  assert (kept == 0).mean() == pytest.approx(0.1, abs=0.012)


@pytest.mark.slow
def test_avici_lite_is_directed_and_starts_with_few_edges():
  logits = np.asarray(apply("lite")(*inputs())[0])
  assert np.abs(logits - np.swapaxes(logits, 1, 2)).max() > 0.01
  fresh = quick_jit(lambda key: make("lite", FULL, num_layers=6).init_with_output(key, *inputs(), False))
  off = ~np.eye(D, dtype=bool)
  for seed in range(3):
    logits, variables = fresh(jax.random.key(seed))
    assert variables["params"]["bias"] == -3
    assert 0.005 < jax.nn.sigmoid(logits[:, off]).mean() < 0.3


@pytest.mark.slow
def test_bcnp_variants():
  logits, order = apply("bcnp")(*inputs())
  np.testing.assert_allclose(logits, np.swapaxes(logits, 1, 2), rtol=1e-6)
  directed, _ = apply("bcnp", symmetric=False)(*inputs())
  assert np.abs(np.asarray(directed) - np.swapaxes(directed, 1, 2)).max() > 0.01
  np.testing.assert_allclose((directed + np.swapaxes(directed, 1, 2)) / 2, logits, rtol=1e-5, atol=1e-5)
  _, later = apply("bcnp", q_before_l=False)(*inputs())
  assert np.abs(np.asarray(later) - np.asarray(order)).max() > 0.001  # the order then comes from all layers
  deeper = jax.eval_shape(lambda key: make("bcnp", emb_depth=3).init(key, *inputs(), False), jax.random.key(0))
  assert count(deeper) - count(params("bcnp")) == 2 * 16 * 16  # in the embedding and in the order's MLP
