"""Mechanisms against their formulas in float64 from the same numbers, and what the repaired ones promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import families, functions, mechanisms
from jaxtrain.experiments.causal_discovery.numbers import Numbers, count, drawn

D, N = 4, 400
# A test calls what it compiles a few times: half the time to compile is worth more than fast code.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
quick_jit = functools.partial(jax.jit, compiler_options=QUICK)
X = np.random.RandomState(0).normal(size=(D, N))
EPS = np.random.RandomState(1).normal(size=N)
PARENTS = np.array([1.0, 0.0, 1.0, 0.0])
REPAIRED = [name for name in mechanisms.KNOWN if not name.startswith(("legacy_", "bcnp_", "avici_"))]


class Recorded(Numbers):
  """Keeps what it hands out."""

  def __init__(self, bits):
    super().__init__(bits)
    self.log = []

  def uniform(self, shape=(), low=0.0, high=1.0):
    value = super().uniform(shape, low, high)
    self.log.append(value)
    return value


def make(name, **params):
  """A mechanism by name."""
  text = " ".join([name, *(f"{key}={value}" for key, value in params.items())])
  return mechanisms.make(families.parse("data.mechanisms", (text,), mechanisms.KNOWN)[0])


def bits_of(function, *args, seed=0):
  """As many random bits as a function takes."""
  return np.random.RandomState(seed).randint(2**32, size=count(function, *args), dtype=np.uint32)


def recorded(function):
  """Compiled `(bits, *args) -> (result, what was drawn)` of a function of numbers."""
  def both(bits, *args):
    numbers = Recorded(bits)
    return function(numbers, *args), numbers.log
  return quick_jit(both)


def in_float64(found):
  """The same on the host."""
  return jax.tree.map(lambda x: np.asarray(x, np.float64), found)


def told(x, parents, eps, share):
  """What a mechanism is given besides numbers."""
  node = mechanisms.Node(np.ones(N, np.float32), ~parents.any(), np.float32(share))
  return np.float32(x), np.float32(parents), np.float32(eps), node


@functools.cache
def compiled(name, params):
  """A mechanism as `recorded`, and its bits: one program for all tests that share it."""
  one = make(name, **dict(params))
  return recorded(one), bits_of(one, *told(X, PARENTS, EPS, 0.3))


def run(name, parents=PARENTS, share=0.3, x=X, eps=EPS, **params):
  """(values, what was drawn) of a mechanism."""
  function, bits = compiled(name, tuple(params.items()))
  return in_float64(function(bits, *told(x, parents, eps, share)))


def standard(x):
  """Mean 0, deviation 1."""
  return (x - x.mean()) / x.std()


def normal(u):
  """The normal number of a draw of U(-1, 1)."""
  from scipy import special
  return 2**0.5 * special.erfinv(u)


def test_numbers_are_handed_out_once_and_have_their_distributions():
  """Kolmogorov-Smirnov at 1e-6 each of 4."""
  from scipy import stats
  def draw(bits):
    numbers = Numbers(bits)
    found = {"uniform": numbers.uniform((20_000,)), "norm": numbers.normal((20_000,)),
             "expon": numbers.exponential((20_000,))}
    gamma, signs = [numbers.gamma(2.5) for _ in range(3)], numbers.sign((100,))
    assert numbers.taken == 60_000 + 3 * 5 + 100
    return found, gamma, signs
  bits = np.random.RandomState(0).randint(2**32, size=60_115, dtype=np.uint32)
  found, gamma, signs = in_float64(quick_jit(draw)(bits))
  for name, value in found.items():
    assert stats.kstest(value, name).pvalue > 1e-6
  np.testing.assert_allclose(found["uniform"], ((bits[:20_000] >> 9) + 0.5) * 2.0**-23)
  squares = np.square(normal(((bits[60_000:60_015] >> 9) + 0.5) * 2.0**-22 - 1)).reshape(3, 5)
  np.testing.assert_allclose(gamma, 0.5 * squares.sum(1), rtol=1e-4)
  assert set(np.unique(signs)) == {-1.0, 1.0}
  many = quick_jit(jax.vmap(lambda bits: Numbers(bits).gamma(2.5)))(bits[:10_000].reshape(2000, 5))
  assert stats.kstest(np.asarray(many), "gamma", args=(2.5,)).pvalue > 1e-6


def test_cosine_of_turns():
  x = np.linspace(-3, 3, 100_001).astype(np.float32)
  np.testing.assert_allclose(quick_jit(functions.cos_turns)(x), np.cos(2 * np.pi * x.astype(np.float64)), atol=1e-6)


@pytest.mark.parametrize("name, inner", [
    ("linear", lambda z: z), ("square", lambda z: standard(z) ** 2),
    ("periodic", lambda z: np.sin(2.0 * np.pi * standard(z))),
    ("logistic", lambda z: (lambda s: 4 * s * (1 - s))(1 / (1 + np.exp(-standard(z)))))])
def test_repaired_mechanisms_of_a_linear_combination(name, inner):
  out, (u,) = run(name)
  want = 0.7**0.5 * standard(inner((normal(u) * PARENTS) @ X)) + 0.3**0.5 * EPS
  np.testing.assert_allclose(out, want, atol=2e-4)


def test_products_and_thresholds_of_linear_combinations():
  out, (u, v) = run("product")
  signal = ((normal(u) * PARENTS) @ X) * ((normal(v) * PARENTS) @ X)
  np.testing.assert_allclose(out, 0.7**0.5 * standard(signal) + 0.3**0.5 * EPS, atol=2e-4)
  out, (u, level) = run("threshold")
  above = standard((normal(u) * PARENTS) @ X) > 0.5 * normal(level)
  want = 0.7**0.5 * standard(above.astype(float)) + 0.3**0.5 * EPS
  assert 0.1 < above.mean() < 0.9 and (np.abs(out - want) > 1e-3).mean() < 0.01


@pytest.mark.parametrize("nonlinearity, outer", [
    ("tanh", np.tanh), ("sigmoid", lambda v: 1 / (1 + np.exp(-v))), ("cube", lambda v: np.arcsinh(v**3))])
def test_repaired_post_nonlinear(nonlinearity, outer):
  out, (u,) = run("pnl", nonlinearity=nonlinearity)
  inner = 0.7**0.5 * standard((normal(u) * PARENTS) @ X) + 0.3**0.5 * EPS
  np.testing.assert_allclose(out, standard(outer(inner)), atol=2e-4)


def test_categories_are_equally_frequent_cuts_of_the_linear_mechanism():
  from scipy import stats
  out, (u,) = run("discrete", levels=4)
  inner = 0.7**0.5 * standard((normal(u) * PARENTS) @ X) + 0.3**0.5 * EPS
  want = standard(np.digitize(inner, stats.norm.ppf([0.25, 0.5, 0.75])).astype(float))
  assert (np.abs(out - want) > 1e-3).mean() < 0.01  # a value at a border may fall on either side in float32
  with pytest.raises(UserError, match="levels=1 .* allowed 2 to 100"):
    mechanisms.check(families.parse("data.mechanisms", ("discrete levels=1",), mechanisms.KNOWN)[0])


@pytest.mark.parametrize("name, with_noise", [("mlp", False), ("legacy_mlp", True)])
def test_network_of_two_hidden_layers(name, with_noise):
  out, (W1, b1, W2, b2, W3, b3) = run(name, hidden_dim=8, depth=2)
  x = np.vstack([X, EPS]) if with_noise else X
  mask = np.append(PARENTS, 1.0) if with_noise else PARENTS
  leaky = lambda v: np.where(v > 0, v, 0.01 * v)
  assert abs(W1).max() <= mask.sum() ** -0.5 + 1e-6 and abs(W2).max() <= 8**-0.5 + 1e-6
  h = (W3 @ leaky(W2 @ leaky((W1 * mask) @ x + b1) + b2) + b3)[0]
  want = h if with_noise else 0.7**0.5 * standard(h) + 0.3**0.5 * EPS
  np.testing.assert_allclose(out, want, atol=2e-4)


def test_random_features_of_a_gaussian_process():
  out, (lengths, v, omega, each, phases) = run("gp", rff_dim=64, variance_low=2.0, variance_high=2.0)
  turns = (normal(omega) * (PARENTS / lengths)[None]) @ X + 2 * np.pi * phases
  signal = v**0.5 * (2 / 64) ** 0.5 * normal(each) @ np.cos(turns)
  np.testing.assert_allclose(out, 0.7**0.5 * standard(signal) + 0.3**0.5 * EPS, atol=5e-4)
  assert v == 2.0 and (lengths >= 0.5).all() and (lengths <= 2.0).all()


def test_random_features_have_the_covariance_of_the_kernel():
  """Mean of f(a) f(b) over 4,000 draws against exp(-|a - b|^2 / (2 l^2)), 5 standard errors of a product of normals."""
  x = np.array([[0.0, 0.5, 1.0]], np.float32)
  params = {"rff_dim": 64, "num_kernels": 1, "shared_length": 0, "length_low": 1.0, "length_high": 1.0}
  one = drawn(lambda numbers: functions.draw_features(numbers, x, jnp.ones(1), params, lambda _: 1.0, True))
  f = np.asarray(quick_jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 4000)))
  np.testing.assert_allclose(f.T @ f / 4000, np.exp(-0.5 * np.subtract.outer([0, 0.5, 1], [0, 0.5, 1]) ** 2),
                             atol=5 * (2 / 4000) ** 0.5)


def test_legacy_mechanisms_are_the_originals_formulas():
  out, (g, w) = run("legacy_linear", weight_scale=3.0, noise_rate=4.0)
  sigma = 0.5 * (normal(g) ** 2).sum() / 4.0
  np.testing.assert_allclose(out, 3.0 * (normal(w) * PARENTS) @ X + sigma * EPS, rtol=1e-4, atol=1e-4)
  out, (w,) = run("legacy_square")
  np.testing.assert_allclose(out, ((normal(w) * PARENTS) @ X) ** 2 + 0.1 * EPS, rtol=1e-4, atol=1e-4)
  out, (w,) = run("legacy_periodic")
  np.testing.assert_allclose(out, np.sin(4 * np.pi * (normal(w) * PARENTS) @ X) + 0.1 * EPS, atol=2e-3)


def test_other_formulas_of_the_releases():
  """Post-nonlinear of the linear one; features of one length, unweighted (legacy) or weighted with a bias (AVICI)."""
  inner, _ = run("legacy_linear")
  np.testing.assert_allclose(run("legacy_pnl", nonlinearity="cube")[0], inner**3, rtol=1e-3, atol=1e-3)
  out, (length, v, omega, phases) = run("legacy_gp", rff_dim=64)
  turns = (normal(omega) * np.append(PARENTS, 1.0) / length) @ np.vstack([X, EPS]) + 2 * np.pi * phases
  np.testing.assert_allclose(out, v * (2 / 64) ** 0.5 * np.cos(turns).sum(0), atol=2e-3)
  assert length.shape == (1,) and v == 1.0
  out, (bias, scale, length, v, omega, each, phases) = run("avici_rff")
  turns = (normal(omega) * PARENTS / length) @ X + 2 * np.pi * phases
  want = v * (2 / 100) ** 0.5 * normal(each) @ np.cos(turns) + bias + scale * EPS
  np.testing.assert_allclose(out, want, atol=5e-3)
  assert 7 <= length[0] <= 10 and 10 <= v <= 20


def test_kernels_of_the_exact_processes():
  """Both sums of kernels against their formulas in float64."""
  r = lambda lengths: np.sqrt(np.square((X[:, :, None] - X[:, None]) * (PARENTS / lengths)[:, None, None]).sum(0))
  def of(function):
    args = (np.float32(X), np.float32(PARENTS))
    return in_float64(recorded(function)(bits_of(function, *args, seed=3), *args))
  K, u = of(functions.rational_and_exponential)
  pair = lambda a, b, alpha, gamma, v: v[0] * (1 + r(a)**2 / (2 * alpha)) ** -alpha + v[1] * np.exp(-r(b) ** gamma)
  want = pair(*u[:5]) + pair(*u[5:])
  np.testing.assert_allclose(K, want, rtol=2e-3)
  K, u = of(functions.two_exponentials)
  clipped = lambda k: np.clip(np.exp(normal(u[k]) - 1), 0.1, 5.0)
  np.testing.assert_allclose(K, sum(np.exp(-r(clipped(k)) ** u[k + 1]) for k in (0, 2)), rtol=2e-3, atol=1e-4)


def test_faults_of_the_original_are_kept_under_their_own_names():
  """W4: the exact process ignores the parents. W5: the chaotic map has constant roots, 4 s (1 - s) at s = 1/2."""
  out, _ = run("legacy_gp_exact")
  other, _ = run("legacy_gp_exact", x=-2 * X)
  np.testing.assert_array_equal(out, other)
  assert np.corrcoef(out, EPS)[0, 1] > 0.999999
  root, _ = run("legacy_logistic", parents=np.zeros(D))
  np.testing.assert_allclose(root, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*REPAIRED, "bcnp_gp"])
def test_what_is_repaired_does_follow_its_parents(name):
  """With the same draws, other values of a parent give other values; those of a node that is no parent do not."""
  out, _ = run(name)
  touched, untouched = X.copy(), X.copy()
  touched[0], untouched[1] = np.roll(X[0], 1), np.roll(X[1], 1)
  assert np.abs(run(name, x=touched)[0] - out).max() > 0.1
  np.testing.assert_allclose(run(name, x=untouched)[0], out, atol=1e-5)


@pytest.mark.parametrize("name", REPAIRED)
def test_repaired_nodes_have_unit_variance_the_stated_noise_and_noise_as_roots(name):
  out, _ = run(name, share=0.4)
  assert np.isfinite(out).all() and abs(out.std() - 1) < 0.15
  root, _ = run(name, parents=np.zeros(D))
  assert abs(np.corrcoef(root, EPS)[0, 1]) > 0.7  # pnl bends it, discrete cuts it
  if name not in ("pnl", "discrete"):
    np.testing.assert_allclose(root, EPS, atol=1e-5)
    signal = (out - 0.4**0.5 * EPS) / 0.6**0.5
    assert abs(signal.std() - 1) < 1e-2 and abs(signal.mean()) < 1e-2


@pytest.mark.parametrize("name", ["mlp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gp", "gp_exact"))])
def test_noise_may_be_an_input_instead(name):
  out, _ = run(name, noise_input=1)
  assert abs(out.mean()) < 1e-5 and abs(out.std() - 1) < 1e-3
  assert np.abs(run(name, noise_input=1, eps=np.roll(EPS, 1))[0] - out).max() > 0.1


def test_the_papers_mechanisms():
  out, (g, w) = run("bcnp_linear")
  z = np.stack([standard(row) for row in X])
  sigma = 2.5 * 0.5 * (normal(g) ** 2).sum()
  np.testing.assert_allclose(out, 10 * (normal(w) * PARENTS) @ z + sigma * EPS, rtol=1e-3, atol=1e-3)
  np.testing.assert_allclose(run("bcnp_linear", parents=np.zeros(D))[0], EPS, atol=1e-6)
  out, (bias, scale, size, sign) = run("avici_linear")
  weights = size * np.where(sign < 0.5, -1, 1) * PARENTS
  np.testing.assert_allclose(out, weights @ X + bias + scale * EPS, rtol=1e-4, atol=1e-4)
  assert (size >= 1).all() and (size <= 3).all() and -3 <= bias <= 3 and 0.2 <= scale <= 2


def test_the_exact_process_has_the_covariance_of_its_kernel():
  """One input, one length: exp(-r^gamma) at r = 0 is 1, and draws have it; 5 standard errors over 3,000."""
  K = np.array([[1.0, 0.6], [0.6, 1.0]])
  one = drawn(lambda numbers: functions.draw_exact(numbers, jnp.float32(K), 0.0))
  f = np.asarray(quick_jit(jax.vmap(one))(jax.random.split(jax.random.key(2), 3000)))
  np.testing.assert_allclose(f.T @ f / 3000, K, atol=5 * (2 / 3000) ** 0.5)
  r = quick_jit(functions.distances)(np.float32(X), np.float32(PARENTS), np.full(D, 2.0, np.float32))
  want = np.sqrt(np.square((X[:, :, None] - X[:, None]) * PARENTS[:, None, None] / 2.0).sum(0))
  np.testing.assert_allclose(r, want, atol=1e-5)
  assert (np.diag(np.asarray(r)) == 0).all()
