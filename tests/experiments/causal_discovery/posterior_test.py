"""Orders, their samples and losses against enumeration, SciPy and eigenvalues in float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

from jaxtrain.experiments.causal_discovery import posterior

# A test calls what it compiles a few times: half the time to compile is worth more than fast code.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
quick_jit = functools.partial(jax.jit, compiler_options=QUICK)

STEPS = 10
radius = quick_jit(lambda P: posterior.spectral_radius(P, STEPS))
radius_grad = quick_jit(jax.grad(lambda P: posterior.spectral_radius(P, STEPS)))
MASK = np.array([1, 1, 0, 1, 1, 0, 1], np.float32)  # padding need not be last


def probs(seed, D=6):
  """Edge probabilities [D, D] float32, 0 on the diagonal."""
  return (np.random.RandomState(seed).rand(D, D) * (1 - np.eye(D))).astype(np.float32)


def eigenvalue(P):
  """Spectral radius in float64."""
  return np.abs(np.linalg.eigvals(np.asarray(P, np.float64))).max()


def cycle(D, weight):
  return weight * np.roll(np.eye(D), 1, axis=1)


def special_matrices():
  block = np.zeros((6, 6))
  block[:3, :3], block[3:, 3:], block[0, 5] = cycle(3, 0.5), cycle(3, 0.9), 1.0
  bipartite = np.zeros((6, 6))
  bipartite[:2, 2:], bipartite[2:, :2] = probs(1)[:2, 2:], probs(1)[2:, :2]
  nearly = np.triu(np.ones((6, 6)), 1) + cycle(6, 1e-10)
  saturated = scipy.special.expit(np.random.RandomState(0).normal(scale=20, size=(6, 6))) * (1 - np.eye(6))
  return {"one": np.ones((6, 6)) - np.eye(6), "two-cycle": np.pad([[0, 0.9], [0.1, 0]], (0, 4)), "cycle": cycle(6, 0.7),
          "blocks": block, "period 2": bipartite, "weak cycles": nearly, "saturated": saturated,
          "padded": np.pad(probs(2, 4), (0, 2)), "tiny": 1e-12 * probs(3)}


def test_spectral_radius_is_the_eigenvalue_whatever_the_matrix():
  for seed in range(200):  # the sign bug gave about -1e12 for 45 % of these
    P = probs(seed) * (0.02 if seed % 2 else 1.0)
    assert float(radius(P)) == pytest.approx(eigenvalue(P), rel=2e-5), seed
  for name, P in special_matrices().items():
    P = P.astype(np.float32)
    assert float(radius(P)) == pytest.approx(eigenvalue(P), rel=1e-3), name
    assert 0 <= float(radius(P)) <= P.sum(axis=1).max() * (1 + 1e-6), name


def test_spectral_radius_of_acyclic_matrices_is_zero():
  upper = np.triu(probs(4), 1)
  order = np.random.RandomState(5).permutation(6)
  for P in (np.zeros((6, 6)), upper, upper.T, upper[order][:, order], np.eye(6, k=1)):
    P = P.astype(np.float32)
    assert float(radius(P)) == 0 and (np.asarray(radius_grad(P)) == 0).all()


def test_gradient_of_the_spectral_radius_is_the_derivative():
  for P in [probs(6), special_matrices()["cycle"], special_matrices()["period 2"]]:
    P, got, want = np.asarray(P, np.float64), np.asarray(radius_grad(P.astype(np.float32))), np.zeros((6, 6))
    for i, j in np.ndindex(6, 6):
      change = np.zeros((6, 6))
      change[i, j] = 1e-6
      # Of the positive eigenvalue: with a period there are others of its modulus.
      want[i, j] = np.subtract(*(np.linalg.eigvals(P + s * change).real.max() for s in (1, -1))) / 2e-6
    np.testing.assert_allclose(got, want, atol=2e-4)


def test_spectral_radius_of_confident_edges_stays_finite():
  # Float32 sigmoids of large logits: nearly a DAG, cycles of probability 1e-13.
  logits = np.where(np.triu(np.ones((20, 20)), 1) > 0, 10.0, -30.0)
  P = scipy.special.expit(logits).astype(np.float32)
  value, grad = radius(P), radius_grad(P)
  assert 0 <= float(value) == pytest.approx(eigenvalue(scipy.special.expit(logits)), rel=0.05, abs=1e-6)
  chained = np.asarray(grad) * P * (1 - P)  # as it reaches the logits
  assert np.isfinite(grad).all() and np.abs(chained).max() < 1


def test_sinkhorn_is_doubly_stochastic_and_has_the_gradient_of_plain_iterations():
  x = np.random.RandomState(0).normal(size=(5, 5)).astype(np.float32)
  weight = probs(1, 5)
  weighted = lambda x: jnp.sum(weight * jnp.exp(posterior.sinkhorn(x, 7)))
  soft, (value, grad) = quick_jit(lambda x: (jnp.exp(posterior.sinkhorn(x, 60)), jax.value_and_grad(weighted)(x)))(x)
  np.testing.assert_allclose(soft.sum(axis=0), 1, atol=1e-5)
  np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-5)
  def plain(x):
    for _ in range(7):
      x = x - scipy.special.logsumexp(x, axis=1, keepdims=True)
      x = x - scipy.special.logsumexp(x, axis=0, keepdims=True)
    return np.sum(weight * np.exp(x))
  x, want = x.astype(np.float64), np.zeros((5, 5))
  for i, j in np.ndindex(5, 5):
    change = np.zeros((5, 5))
    change[i, j] = 1e-5
    want[i, j] = (plain(x + change) - plain(x - change)) / 2e-5
  np.testing.assert_allclose(value, plain(x), rtol=1e-5)
  np.testing.assert_allclose(grad, want, atol=1e-6)


@pytest.mark.parametrize("D", [1, pytest.param(6, marks=pytest.mark.slow), 20])
def test_assignment_is_scipys(D):
  scores = np.random.RandomState(D).gumbel(size=(64, D, D)).astype(np.float32)
  got = np.asarray(quick_jit(jax.vmap(posterior.assignment))(scores))
  for one, x in zip(got, scores, strict=True):
    rows, columns = scipy.optimize.linear_sum_assignment(x, maximize=True)
    np.testing.assert_array_equal(np.nonzero(one), (rows, columns))
    assert (one[rows, columns] == 1).all()


WEIGHT = np.random.RandomState(2).rand(200, 7, 7).astype(np.float32)


@quick_jit
def permutations(order_scores):
  """200 permutations and the gradient of their sum by `WEIGHT`."""
  def weighted(s):
    perms = posterior.sample_permutations(jax.random.key(3), s, MASK, 200, 20)
    return jnp.sum(WEIGHT * perms), perms
  grad, perms = jax.grad(weighted, has_aux=True)(order_scores)
  return perms, grad


def test_sampled_permutations_put_padding_last_and_their_graphs_are_acyclic():
  order_scores = np.random.RandomState(0).normal(size=7).astype(np.float32)
  perms = np.asarray(permutations(order_scores)[0])
  assert set(np.unique(perms)) == {0, 1}
  assert (perms.sum(axis=1) == 1).all() and (perms.sum(axis=2) == 1).all()
  position = perms.argmax(axis=2)
  assert (position[:, 2] == 5).all() and (position[:, 5] == 6).all()
  assert len(np.unique(position[:, MASK > 0], axis=0)) > 50
  @quick_jit
  def found(perms, position):
    masks = posterior.order_masks(perms)
    ranks = posterior.plackett_luce_sample(jax.random.key(1), order_scores, MASK, 200)
    graphs = [posterior.sample_ordered_graphs(jax.random.key(2), jnp.full((7, 7), 2.0), allowed, MASK)
              for allowed in (masks, posterior.rank_masks(ranks))]
    return masks, posterior.rank_masks(position), ranks, graphs
  masks, by_position, ranks, graphs = jax.device_get(found(perms, position))
  np.testing.assert_array_equal(masks, position[:, :, None] > position[:, None, :])
  np.testing.assert_array_equal(masks, by_position)
  assert (ranks[:, [2, 5]] == [5, 6]).all()
  for drawn in graphs:
    assert drawn.sum() > 1000 and (drawn[:, 2] == 0).all() and (drawn[:, :, 5] == 0).all()
    assert (np.linalg.matrix_power(drawn, 7) == 0).all()  # no walk as long as the number of variables


def test_the_gradient_of_permutations_is_that_of_the_soft_ones():
  order_scores = np.random.RandomState(1).normal(size=7).astype(np.float32)
  def soft(s):
    log_scores = posterior.position_scores(s, MASK)[None] + jax.random.gumbel(jax.random.key(3), (200, 7, 7))
    return jnp.sum(WEIGHT * jnp.exp(jax.vmap(lambda x: posterior.sinkhorn(x, 20))(log_scores)))
  got, want = np.asarray(permutations(order_scores)[1]), np.asarray(quick_jit(jax.grad(soft))(order_scores))
  np.testing.assert_allclose(got, want, rtol=1e-5)
  assert np.isfinite(got).all() and (got[MASK > 0] != 0).all() and (got[MASK == 0] == 0).all()


def all_ranks(D):
  """Ranks of every order of D variables, [D!, D]."""
  return np.array(list(itertools.permutations(range(D))), np.int32)


def test_plackett_luce_sums_to_one_and_its_samples_have_its_frequencies():
  scores = np.array([0.3, -1.0, 9.9, 1.2, 0.0, -9.9], np.float32)
  node_mask = np.array([1, 1, 0, 1, 1, 0], np.float32)
  ranks = np.stack([np.insert(r, [2, 4], [4, 5]) for r in all_ranks(4)])
  log_prob, drawn = jax.device_get(quick_jit(lambda scores, ranks, node_mask: (
      posterior.plackett_luce_log_prob(scores, ranks, node_mask),
      posterior.plackett_luce_sample(jax.random.key(0), scores, node_mask, 5000)))(scores, ranks, node_mask))
  assert np.exp(log_prob).sum() == pytest.approx(1, abs=1e-5)
  drawing = np.argsort(ranks[7])[:4]  # by hand: the product of softmaxes over those left
  left = [scores[drawing[n:]] for n in range(4)]
  want = sum(x[0] - scipy.special.logsumexp(x) for x in left)
  assert log_prob[7] == pytest.approx(want, abs=1e-5)
  assert drawn.dtype == np.int32
  count = (drawn[:, None] == ranks[None]).all(axis=2).sum(axis=0)
  assert count.sum() == 5000
  # False alarms: 1 key in 10,000.
  assert scipy.stats.chisquare(count, 5000 * np.exp(log_prob) / np.exp(log_prob).sum()).pvalue > 1e-4


def brute_joint(logits, ranks, truth):
  """log 1/K sum_k prod_e Bern of the real variables, one pair at a time, in float64."""
  found = []
  for r in ranks:
    total = 0.0
    for i, j in itertools.permutations(range(len(truth)), 2):
      p = np.clip(scipy.special.expit(np.float64(logits[i, j])) * (r[i] > r[j]), 1e-6, 1 - 1e-6)
      total += np.log(p if truth[i, j] else 1 - p)
    found.append(total)
  return scipy.special.logsumexp(found) - np.log(len(ranks))


def task(D=4, K=3, seed=0):
  """(edge logits, order scores, ranks, truth) of a random task."""
  random = np.random.RandomState(seed)
  ranks = np.stack([random.permutation(D) for _ in range(K)]).astype(np.int32)
  truth = np.tril(random.rand(D, D) < 0.7, -1).astype(np.float32)
  return random.normal(size=(D, D)).astype(np.float32), random.normal(size=D).astype(np.float32), ranks, truth


@quick_jit
def losses(logits, order_scores, ranks, truth, node_mask):
  """(joint loss, its gradient for edge logits, marginal loss)."""
  joint = jax.value_and_grad(posterior.joint_mixture_nll)(logits, order_scores, ranks, truth, node_mask)
  return *joint, posterior.marginal_mixture_nll(logits, posterior.rank_masks(ranks), truth, node_mask)


def test_mixture_losses_are_those_of_loops():
  logits, order_scores, ranks, truth = task()
  ones = np.ones(4, np.float32)
  got, _, marginal = losses(logits, order_scores, ranks, truth, ones)
  assert float(got) == pytest.approx(-brute_joint(logits, ranks, truth), rel=1e-5)
  p = scipy.special.expit(logits.astype(np.float64)) * (ranks[:, :, None] > ranks[:, None, :])
  p = np.clip(p, 1e-6, 1 - 1e-6)
  want = -np.log(np.where(truth, p, 1 - p).mean(axis=0))[~np.eye(4, dtype=bool)].mean()
  assert float(marginal) == pytest.approx(want, rel=1e-5)
  # Two padded variables, whatever stands there, change neither.
  pad = lambda x: np.pad(x, (0, 2), constant_values=7.0)
  node_mask, more = np.pad(ones, (0, 2)), np.concatenate([ranks, np.tile([[4, 5]], (3, 1))], axis=1)
  padded = pad(logits), pad(order_scores), more.astype(np.int32), np.pad(truth, (0, 2), constant_values=1)
  found = losses(*padded, node_mask)
  assert float(found[0]) == pytest.approx(float(got), rel=1e-5) and float(found[2]) == pytest.approx(want, rel=1e-5)
  with pytest.raises(ValueError, match="at least 2 orders, got 1"):
    posterior.joint_mixture_nll(logits, order_scores, ranks[:1], truth, ones)


@pytest.mark.slow
def test_gradient_of_the_joint_loss_is_unbiased():
  """Against the derivative of its expectation over all 6^2 pairs of orders of three variables."""
  logits, order_scores, _, truth = task(D=3, seed=1)
  ones, every = jnp.ones(3), jnp.asarray(all_ranks(3))
  log_weights = jnp.asarray([brute_joint(logits, [r], truth) for r in all_ranks(3)], jnp.float32)
  pairs = jnp.logaddexp(log_weights[:, None], log_weights[None, :]) - jnp.log(2.0)
  def expected(s):
    q = jnp.exp(posterior.plackett_luce_log_prob(s, every, ones))
    return -jnp.sum(q[:, None] * q[None, :] * pairs)
  want = np.asarray(quick_jit(jax.grad(expected))(jnp.asarray(order_scores)))

  @quick_jit
  @jax.vmap
  def estimate(key):
    ranks = posterior.plackett_luce_sample(key, jnp.asarray(order_scores), ones, 2)
    return jax.grad(lambda s: posterior.joint_mixture_nll(logits, s, ranks, truth, ones))(jnp.asarray(order_scores))
  found = np.asarray(estimate(jax.random.split(jax.random.key(0), 20000)), np.float64)
  z = (found.mean(axis=0) - want) / (found.std(axis=0) / np.sqrt(len(found)))
  assert (np.abs(z) < 4.5).all()  # three z-scores: false alarms in 2 of 100,000 keys
  assert np.abs(want).max() > 10 * (found.std(axis=0) / np.sqrt(len(found))).max()  # it would see a wrong one


def test_gradient_of_the_joint_loss_for_edges_is_that_of_its_value():
  logits, order_scores, ranks, truth = task()
  got = losses(logits, order_scores, ranks, truth, np.ones(4, np.float32))[1]
  for i, j in ((1, 0), (2, 3), (3, 1)):
    change = np.zeros((4, 4))
    change[i, j] = 1e-5
    want = (brute_joint(logits - change, ranks, truth) - brute_joint(logits + change, ranks, truth)) / 2e-5
    assert float(got[i, j]) == pytest.approx(want, abs=1e-4)


@pytest.mark.slow
def test_losses_stay_finite_at_extreme_logits():
  _, order_scores, ranks, truth = task()
  for size in (1e4, -1e4):
    logits = np.full((4, 4), size, np.float32)
    for loss in (lambda x: posterior.joint_mixture_nll(x, order_scores * 1e3, ranks, truth, jnp.ones(4)),
                 lambda x: posterior.marginal_mixture_nll(x, posterior.rank_masks(ranks), truth, jnp.ones(4))):
      value, grad = jax.value_and_grad(loss)(logits)
      assert np.isfinite(value) and np.isfinite(grad).all()


def test_independent_graphs_have_their_probabilities():
  logits = np.random.RandomState(0).normal(size=(7, 7)).astype(np.float32)
  graphs = np.asarray(quick_jit(lambda x: posterior.sample_graphs(jax.random.key(0), x, MASK, 4000))(logits))
  want = scipy.special.expit(logits) * np.outer(MASK, MASK) * ~np.eye(7, dtype=bool)
  # 20 pairs within 5 standard errors: false alarms in fewer than 1 of 80,000 keys.
  assert np.abs(graphs.mean(axis=0) - want).max() < 5 * np.sqrt(0.25 / 4000)
  assert set(np.unique(graphs)) == {0, 1} and (graphs.mean(axis=0)[want == 0] == 0).all()
