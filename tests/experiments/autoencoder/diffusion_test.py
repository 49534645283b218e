"""Diffusion processes against their papers' formulas in float64 NumPy."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from hypothesis import given, settings, strategies
from scipy import special

import made_events
from jaxtrain import config as config_lib
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import diffusion
from jaxtrain.experiments.autoencoder.diffusion import Process

B, T, C = 6, 5, 3
DRAW = np.random.RandomState(0)
X, EPS, OUT = (DRAW.normal(size=(B, T, C)).astype(np.float32) for _ in range(3))
MASK = np.arange(T)[None] < np.array([0, 1, 3, 5, 5, 4])[:, None]
MASK = MASK.astype(np.float32)
PROCESSES = {"edm": Process("edm"), "edm_half": Process("edm", data_sigma=0.5), "flow": Process("flow")} | {
    f"{schedule}_{target}": Process("ddpm", target, schedule)
    for schedule in diffusion.SCHEDULES for target in diffusion.TARGETS if (schedule, target) != ("cosine", "eps")}
LEVELS = {"edm": [0.002, 0.05, 0.3, 1.0, 7.0, 80.0], "flow": [0.01, 0.2, 0.5, 0.7, 0.9, 0.999],
          "ddpm": [0, 10, 100, 400, 700, 990]}
DRAW_LEVELS = jax.jit(diffusion.draw_levels, static_argnums=(0, 2))
WEIGHT, SHARE_BELOW = (jax.jit(function, static_argnums=0) for function in (diffusion.weight, diffusion.share_below))
DEFAULTS = {"process": "edm", "target": "v", "schedule": "cosine", "num_levels": 1000, "weighting": "min_snr",
            "gamma": 5.0, "p_mean": -1.2, "p_std": 1.2, "sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0,
            "sampler": "heun", "num_steps": 30, "eta": 0.0}


def shares_of(schedule, num_levels=1000):
  """alpha^2 of each level, written out as the papers have it: a loop over levels."""
  f = lambda t: np.cos((t / num_levels + 0.008) / 1.008 * np.pi / 2)**2
  share, found = 1.0, []
  for t in range(1, num_levels + 1):
    rise = 1e-4 + (0.02 - 1e-4) * (t - 1) / (num_levels - 1)
    share *= 1 - (rise if schedule == "linear" else min(1 - f(t) / f(t - 1), 0.999))
    found.append(share)
  return np.array(found)


def scales_of(p, level):
  """(alpha, sigma) in float64."""
  level = np.asarray(level)
  if p.kind == "ddpm":
    share = shares_of(p.schedule, p.num_levels)[level]
    return np.sqrt(share), np.sqrt(1 - share)
  level = level.astype(np.float64)
  return (np.ones(level.shape), level) if p.kind == "edm" else (1 - level, level)


def levels_of(p):
  """[B] levels of a process, over all of its range."""
  return jnp.asarray(LEVELS[p.kind], jnp.int32 if p.kind == "ddpm" else jnp.float32)


def estimate(p, out, x_noisy, level):
  """Estimate of the data of an output in float64, with c_skip and c_out as Karras et al. have them."""
  alpha, sigma = (v[:, None, None] for v in scales_of(p, level))
  if p.kind == "edm":
    sd, length = p.data_sigma, np.sqrt(sigma**2 + p.data_sigma**2)
    return sd**2 / length**2 * x_noisy + sigma * sd / length * out
  if p.kind == "flow":
    return x_noisy - sigma * out
  return {"eps": (x_noisy - sigma * out) / alpha, "x0": out, "v": alpha * x_noisy - sigma * out}[p.target]


@pytest.mark.parametrize("schedule", diffusion.SCHEDULES)
@pytest.mark.parametrize("num_levels", [50, 1000])
def test_signal_shares_are_the_papers(schedule, num_levels):
  found = diffusion.signal_shares(schedule, num_levels)
  if schedule == "cosine" or num_levels == 1000:  # Ho et al. have 1,000 levels
    np.testing.assert_allclose(found, shares_of(schedule, num_levels), rtol=1e-9)
  assert len(found) == num_levels and np.all(np.diff(found) < 0) and found[0] > 0.98 and 0 < found[-1] < 1e-4


@pytest.mark.parametrize("name", PROCESSES)
def test_data_and_what_a_network_says_of_them_give_each_other(name):
  """The target's estimate is the data: to float32's rounding of x_noisy, which eps divides by alpha."""
  p = PROCESSES[name]
  level = levels_of(p)
  alpha, sigma = (v[:, None, None] for v in scales_of(p, level))
  @jax.jit
  def there_and_back(level):
    noisy = diffusion.add_noise(p, X, level, EPS, MASK)
    return noisy, diffusion.data_of(p, diffusion.target(p, X, level, EPS), noisy, level)
  noisy, back = there_and_back(level)
  np.testing.assert_allclose(noisy, MASK[..., None] * (alpha * X + sigma * EPS), rtol=1e-5, atol=1e-6)
  assert np.max(np.abs(np.asarray(back) - X) * MASK[..., None] / (1 + (sigma + 1) / alpha)) < 2e-6


@pytest.mark.parametrize("name", PROCESSES)
def test_estimates_are_the_formulas(name):
  p = PROCESSES[name]
  level = levels_of(p)
  alpha, sigma = scales_of(p, level)
  seen = {}

  def network(x_in, log_sigma):
    seen.update(x_in=x_in, log_sigma=log_sigma)
    return OUT

  x_noisy = (MASK[..., None] * np.hypot(alpha, sigma)[:, None, None] * X).astype(np.float32)
  found = diffusion.denoised(p, network, np.where(MASK[..., None] > 0, x_noisy, 1e6), level, MASK)
  wanted = MASK[..., None] * estimate(p, OUT, x_noisy.astype(np.float64), level)
  np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=1e-5)
  scale = np.hypot(sigma, p.data_sigma)[:, None, None] if p.kind == "edm" else 1.0
  np.testing.assert_allclose(seen["x_in"], x_noisy / scale, rtol=1e-5)
  log_sigma = np.log(sigma / alpha)
  limit = np.inf if p.kind == "edm" else diffusion.MOST_LOG_SIGMA
  np.testing.assert_allclose(seen["log_sigma"], np.clip(log_sigma, -limit, limit), rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(diffusion.log_snr(p, level), -2 * log_sigma, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("weighting", diffusion.WEIGHTINGS)
def test_losses_are_weighted_errors_of_real_slots(name, weighting):
  """The weighted error of what the network says is `data_weight` times the error of the data, summed over slots."""
  p = PROCESSES[name]._replace(weighting=weighting)
  level = levels_of(p)
  alpha, sigma = scales_of(p, level)
  strange = lambda x: np.where(MASK[..., None] > 0, x, 1e6).astype(np.float32)
  weighted, plain = diffusion.loss_rows(p, lambda x_in, log_sigma: OUT, strange(X), level, strange(EPS), MASK)
  a, s = alpha[:, None, None], sigma[:, None, None]
  x, eps = X.astype(np.float64), EPS.astype(np.float64)
  wanted = np.sum(MASK * np.mean((estimate(p, OUT, a * x + s * eps, level) - x)**2, axis=2), axis=1)
  np.testing.assert_allclose(plain, wanted, rtol=1e-3, atol=1e-6)
  target = {"eps": eps, "x0": x, "v": a * eps - s * x}[p.target] if p.kind == "ddpm" else eps - x
  if p.kind == "edm":
    length = np.sqrt(s**2 + p.data_sigma**2)
    target = (x - (p.data_sigma / length)**2 * (x + s * eps)) / (s * p.data_sigma / length)
  error = np.sum(MASK * np.mean((OUT - target)**2, axis=2), axis=1)
  np.testing.assert_allclose(weighted, error * np.asarray(diffusion.weight(p, level), np.float64), rtol=1e-4)
  np.testing.assert_allclose(weighted[1:], (diffusion.data_weight(p, level) * wanted)[1:], rtol=2e-3)


def test_weights_of_the_data_are_karras_and_liu():
  sigma = np.array([0.01, 0.5, 3.0], np.float32)
  p = Process("edm", data_sigma=0.5)
  np.testing.assert_allclose(diffusion.data_weight(p, sigma), (sigma**2 + 0.25) / (sigma * 0.5)**2, rtol=1e-5)
  np.testing.assert_allclose(diffusion.data_weight(Process("flow"), sigma[:2]), 1 / sigma[:2]**2, rtol=1e-5)


def test_min_snr_is_its_table():
  """At SNR 0.25, 1, 5 and 20, gamma 5: x0 min(SNR, 5); eps that over SNR; v that over SNR + 1."""
  shares = shares_of("linear")
  level = np.array([np.argmin(np.abs(shares / (1 - shares) - snr)) for snr in (0.25, 1, 5, 20)])
  snr = shares[level] / (1 - shares[level])
  wanted = {"x0": [0.25, 1, 5, 5], "eps": [1, 1, 1, 0.25], "v": [0.2, 0.5, 5 / 6, 5 / 21]}
  for target, table in wanted.items():
    p = Process("ddpm", target, "linear", weighting="min_snr", gamma=5.0)
    found = WEIGHT(p, level)
    exact = np.minimum(snr, 5) / {"x0": 1, "eps": snr, "v": snr + 1}[target]
    np.testing.assert_allclose(found, exact, rtol=1e-4)
    np.testing.assert_allclose(found, table, rtol=0.05)  # the nearest of 1000 levels
    full = WEIGHT(p._replace(weighting="snr"), level)
    np.testing.assert_allclose(full, snr / {"x0": 1, "eps": snr, "v": snr + 1}[target], rtol=1e-4)
    np.testing.assert_array_equal(WEIGHT(p._replace(weighting="uniform"), level), np.ones(4))


def test_targets_of_one_error_of_the_data_have_one_loss():
  """Networks that make the same error of x say so in eps, x0 or v; min-SNR weighs them alike."""
  level = np.array([5, 100, 300, 500, 600, 800])
  a, s = (v[:, None, None] for v in scales_of(Process("ddpm", "x0", "linear"), level))
  gap = 0.1 * OUT.astype(np.float64)
  says = {"x0": X + gap, "eps": EPS - a / s * gap, "v": a * EPS - s * X - gap / s}
  found = [diffusion.error_rows(Process("ddpm", target, "linear"), out.astype(np.float32), X, level, EPS, MASK)
           for target, out in says.items()]
  for weighted, plain in found[1:]:
    np.testing.assert_allclose(weighted, found[0][0], rtol=2e-3)
    np.testing.assert_allclose(plain, found[0][1], rtol=2e-3)


@settings(max_examples=12, deadline=None)
@given(seed=strategies.integers(0, 2**31 - 1),
       which=strategies.sampled_from((("edm", 1), ("edm", 7), ("flow", 7), ("cosine_v", 7))))
def test_levels_of_a_batch_are_spread_evenly(seed, which):
  """One row in each of num_rows equal shares of the training distribution; twice the same from the same key."""
  p, num_rows = PROCESSES[which[0]], which[1]
  level = DRAW_LEVELS(p, jax.random.key(seed), num_rows)
  np.testing.assert_array_equal(level, DRAW_LEVELS(p, jax.random.key(seed), num_rows))
  share = np.sort(np.asarray(SHARE_BELOW(p, level), np.float64))
  room = 0.5 / p.num_levels if p.kind == "ddpm" else 1e-4
  places = np.arange(num_rows) / num_rows
  assert level.shape == (num_rows,) and np.all(share >= places - room) and np.all(share <= places + 1 / num_rows + room)


def test_levels_have_their_training_distribution():
  p = Process("edm")
  log_sigma = np.sort(np.log(np.asarray(DRAW_LEVELS(p, jax.random.key(0), 1001), np.float64)))
  middle = (np.arange(1001) + 0.5) / 1001
  np.testing.assert_allclose(log_sigma[1:-1], (-1.2 + 1.2 * special.ndtri(middle))[1:-1], atol=0.4)
  np.testing.assert_allclose([np.mean(log_sigma), np.std(log_sigma)], [-1.2, 1.2], atol=0.02)
  t = np.asarray(DRAW_LEVELS(Process("flow"), jax.random.key(0), 1001))
  np.testing.assert_allclose(np.sort(t), middle, atol=1e-3)
  assert np.any(np.diff(t) < 0)
  level = DRAW_LEVELS(Process("ddpm", num_levels=8), jax.random.key(1), 800)
  np.testing.assert_allclose(np.bincount(np.asarray(level)), np.full(8, 100), atol=1)


def test_a_flows_ends_are_finite():
  p, level = Process("flow"), np.array([0.0, 1.0], np.float32)
  network = lambda x_in, log_sigma: x_in * diffusion.over_slots(log_sigma)
  found = jax.jit(lambda level: (diffusion.log_snr(p, level),
                                 *diffusion.loss_rows(p, network, X[:2], level, EPS[:2], MASK[:2])))(level)
  assert all(np.isfinite(x).all() for x in found)


@pytest.mark.parametrize("fields, text", [
    ({"process": "vp"}, "config.model.diffusion.process: got 'vp', allowed edm, ddpm, flow"),
    ({"target": "mean"}, "config.model.diffusion.target: got 'mean'"),
    ({"weighting": "p2"}, "config.model.diffusion.weighting: got 'p2'"),
    ({"sampler": "ddim"}, "config.model.diffusion.sampler: got 'ddim', allowed heun with process edm"),
    ({"process": "ddpm"}, "config.model.diffusion.sampler: got 'heun', allowed ddim, ancestral with process ddpm"),
    ({"process": "ddpm", "sampler": "ddim", "num_steps": 1001}, "config.model.diffusion.num_steps: got 1001"),
    ({"process": "ddpm", "sampler": "ddim", "target": "eps"}, "config.model.diffusion.target: got 'eps'"),
    ({"sigma_min": 90.0}, "config.model.diffusion.sigma_min: got 90.0"),
    ({"sigma_min": 0.0}, "config.model.diffusion.sigma_min: got 0.0")])
def test_combinations_that_do_not_fit_are_refused(fields, text):
  with pytest.raises(UserError, match=text):
    diffusion.make_process(ml_collections.ConfigDict(DEFAULTS | fields))


@pytest.mark.parametrize("fields, unread", [
    ({}, []), ({"rho": 5.0}, []), ({"eta": 0.5}, ["eta"]), ({"target": "eps", "gamma": 3.0}, ["target", "gamma"]),
    ({"process": "flow", "rho": 5.0, "schedule": "linear"}, ["rho", "schedule"]),
    ({"process": "ddpm", "sampler": "ddim", "eta": 0.5, "target": "x0", "gamma": 3.0, "p_std": 1.0}, ["p_std"]),
    ({"process": "ddpm", "sampler": "ancestral", "weighting": "snr", "gamma": 3.0}, ["gamma"])])
def test_fields_that_are_not_read_are_found(fields, unread):
  assert diffusion.without_effect(ml_collections.ConfigDict(DEFAULTS | fields)) == unread


def test_usual_values_are_those_of_the_config():
  settings = config_lib.read_file(f"{made_events.PATH}:diffusion_ae").model.diffusion
  assert diffusion.make_process(settings) == Process("edm") and diffusion.without_effect(settings) == []


def test_a_process_has_the_fields_of_its_settings():
  p = diffusion.make_process(ml_collections.ConfigDict(DEFAULTS | {"rho": 5.0, "p_mean": -0.5}))
  assert p == Process("edm", rho=5.0, p_mean=-0.5, weighting="min_snr")
  fields = {"process": "ddpm", "target": "eps", "schedule": "linear", "sampler": "ancestral"}
  p = diffusion.make_process(ml_collections.ConfigDict(DEFAULTS | fields))
  assert p.kind == "ddpm" and p.target == "eps" and p.schedule == "linear"
