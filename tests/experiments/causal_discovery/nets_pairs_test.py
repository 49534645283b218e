"""The network on pair statistics: a plain float64 version, symmetries, padding, gradients, half precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies

from jaxtrain.experiments.causal_discovery import nets_pairs, pairs

# A test calls what it compiles a few times: half the time to compile is worth more than fast code.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
quick_jit = functools.partial(jax.jit, compiler_options=QUICK)

SMALL = dict(dim=8, num_blocks=2, num_heads=2, ff_dim=12)
B, D, F = 2, 6, 5


def inputs(seed=0):
  """(statistics [B, D, D, F], node_mask [B, D]) without padding."""
  return np.random.RandomState(seed).normal(size=(B, D, D, F)).astype(np.float32), np.ones((B, D), np.float32)


@functools.cache
def params():
  """Parameters moved away from their start, so that nothing is zero."""
  variables = quick_jit(nets_pairs.PairNetwork(**SMALL, precision="float32").init)(jax.random.key(0), *inputs())
  leaves, tree = jax.tree.flatten(variables)
  random = np.random.RandomState(1)
  return jax.tree.unflatten(tree, [x + 0.3 * random.normal(size=x.shape).astype(np.float32) for x in leaves])


@functools.cache
def apply(precision="float32"):
  """Compiled `(logits, gradient)` of the network; the gradient is that of the sum of squares of all real logits."""
  def loss(variables, statistics, node_mask):
    logits = nets_pairs.PairNetwork(**SMALL, precision=precision).apply(variables, statistics, node_mask)
    return jnp.sum(jnp.square(jnp.where(logits > pairs.NO_EDGE, logits, 0.0))), logits
  run = quick_jit(jax.value_and_grad(loss, has_aux=True))

  def found(*args):
    (_, logits), grads = run(params(), *args)
    return np.asarray(logits), grads
  return found


def norm(x):
  return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def linear(x, p):
  """An affine layer, after a norm where `p` has one."""
  if "linear" in p:
    return linear(norm(x) * p["scale"] + p["offset"], p["linear"])
  return x @ p["kernel"] + p["bias"]


def plain(statistics):
  """Logits in float64 of one task after the other, pair by pair."""
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params())["params"]
  C, H = SMALL["dim"], SMALL["num_heads"]
  h = linear(statistics.astype(np.float64), p["embedding"])
  for one in (p[f"block_{i}"] for i in range(SMALL["num_blocks"])):
    values = linear(h, one["inputs"])
    row, column, first, second = (values[..., k * C:(k + 1) * C] for k in range(4))
    scores = np.exp(values[..., 4 * C:])
    pooled = np.zeros((B, D, 2 * C))
    for c in range(C):
      head = c // (C // H)
      by_row, by_column = scores[..., head], scores[..., H + head]
      pooled[..., c] = (by_row * row[..., c]).sum(2) / by_row.sum(2)
      pooled[..., C + c] = (by_column * column[..., c]).sum(1) / by_column.sum(1)
    node = linear(pooled, one["nodes"])
    paths = np.zeros_like(h)
    for i in range(D):
      for j in range(D):
        paths[:, i, j] = sum(first[:, i, k] * second[:, k, j] for k in range(D))
    h = h + node[:, :, None, :C] + node[:, None, :, C:] + linear(paths, one["paths"])
    h = h + linear(np.maximum(linear(h, one["hidden"]), 0), one["output"])
  return linear(h, p["logits"])[..., 0] - 2.0


def test_logits_are_those_of_the_plain_version():
  statistics, node_mask = inputs()
  got, off = apply()(statistics, node_mask)[0], ~np.eye(D, dtype=bool)
  np.testing.assert_allclose(got[:, off], plain(statistics)[:, off], rtol=1e-3, atol=1e-3)
  assert (got[:, ~off] == pairs.NO_EDGE).all() and got[:, off].std() > 0.1


@settings(deadline=None, max_examples=10)
@given(seed=strategies.integers(0, 10_000), order=strategies.permutations(range(D)))
def test_logits_move_with_the_variables(seed, order):
  statistics, node_mask = inputs(seed)
  moved = apply()(statistics[:, list(order)][:, :, list(order)], node_mask)[0]
  np.testing.assert_allclose(moved, apply()(statistics, node_mask)[0][:, list(order)][:, :, list(order)], rtol=1e-3,
                             atol=1e-4)


@pytest.mark.parametrize("filling", [0.0, 7.0])
def test_padding_changes_no_real_logit_and_no_gradient(filling):
  statistics, node_mask = inputs()
  kept, place = [0, 2, 3, 5], np.ix_([0, 1], [0, 2, 3, 5], [0, 2, 3, 5])
  node_mask[:, [1, 4]] = 0
  unpadded, want = apply()(statistics[place], np.ones((B, 4), np.float32))
  real = node_mask[:, :, None, None] * node_mask[:, None, :, None] > 0
  logits, grads = apply()(np.where(real, statistics, filling).astype(np.float32), node_mask)
  np.testing.assert_allclose(logits[place], unpadded, rtol=1e-4, atol=1e-4)
  padding = np.setdiff1d(np.arange(D), kept)
  assert (logits[:, padding] == pairs.NO_EDGE).all() and (logits[:, :, padding] == pairs.NO_EDGE).all()
  for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(other).max())


def test_a_task_of_padding_alone_has_finite_gradients():
  statistics, node_mask = inputs()
  node_mask[1] = 0
  logits, grads = apply()(np.where(node_mask[:, :, None, None] > 0, statistics, 0), node_mask)
  assert (logits[1] == pairs.NO_EDGE).all() and all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_products_over_paths_and_their_gradients(monkeypatch, backend):
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  random = np.random.RandomState(0)
  a, b, dy = (random.normal(size=(2, 4, 4, 3)).astype(np.float32) for _ in range(3))
  y, pull = jax.vjp(nets_pairs.compose, a, b)
  da, db = pull(jnp.asarray(dy))
  for found, want, left, right in ((y, "bikc,bkjc->bijc", a, b), (da, "bijc,bkjc->bikc", dy, b),
                                   (db, "bikc,bijc->bkjc", a, dy)):
    np.testing.assert_allclose(found, np.einsum(want, left.astype(np.float64), right), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_half_precision_is_close():
  half, full = (apply(precision)(*inputs()) for precision in ("bfloat16", "float32"))
  assert half[0].dtype == np.float32 and all(x.dtype == jnp.float32 for x in jax.tree.leaves(half[1]))
  flat = lambda tree: np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
  a, b = flat(half[1]), flat(full[1])
  assert a @ b / np.sqrt((a @ a) * (b @ b)) > 0.97
  assert np.sqrt(np.square(half[0] - full[0]).mean()) < 0.1 * full[0].std()
