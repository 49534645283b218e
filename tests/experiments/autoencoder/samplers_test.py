"""Samplers on data whose exact denoiser is known: normal data, of mean MEAN and deviation SPREAD."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.experiments.autoencoder import diffusion, samplers
from jaxtrain.experiments.autoencoder.diffusion import Process

MEAN, SPREAD = 0.8, 0.4
B, T, C = 128, 5, 4
MASK = (np.arange(T)[None] < (np.arange(B) % (T + 1))[:, None]).astype(np.float32)
KEY = jax.random.key(3)
DDPM = {f"{schedule}_{target}": Process("ddpm", target, schedule) for schedule, target in (
    ("linear", "eps"), ("linear", "x0"), ("linear", "v"), ("cosine", "x0"), ("cosine", "v"))}
SAMPLE = jax.jit(samplers.sample, static_argnums=(0, 1, 2, 3, 6, 7))
TRAJECTORY = jax.jit(samplers.trajectory, static_argnums=(0, 1, 2, 3, 6, 7, 8))


def posterior_mean(x_noisy, alpha, sigma):
  """E[x | x_noisy] of normal data."""
  return MEAN + alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2) * (x_noisy - alpha * MEAN)


def exact_network(p):
  """The network that says of normal data what is best to say, from its own inputs x_in and log(sigma / alpha)."""
  def network(x_in, log_sigma):
    ratio = jnp.exp(log_sigma)[:, None, None]
    if p.kind == "flow":
      alpha, sigma = 1 / (1 + ratio), ratio / (1 + ratio)
      noise = sigma * (x_in - alpha * MEAN) / (alpha**2 * SPREAD**2 + sigma**2)
      return noise - posterior_mean(x_in, alpha, sigma)
    if p.kind == "edm":
      length = jnp.sqrt(ratio**2 + 1)
      x_noisy = x_in * length
      return (posterior_mean(x_noisy, 1.0, ratio) - x_noisy / length**2) / (ratio / length)
    alpha, sigma = 1 / jnp.sqrt(1 + ratio**2), ratio / jnp.sqrt(1 + ratio**2)
    x = posterior_mean(x_in, alpha, sigma)
    return {"x0": x, "eps": (x_in - alpha * x) / sigma, "v": (alpha * x_in - x) / sigma}[p.target]
  return network


NETWORKS = {p: exact_network(p) for p in (Process("edm"), Process("flow"), *DDPM.values())}


def sampled(p, sampler, num_steps):
  """A sample [B, T, C] by the exact denoiser."""
  return SAMPLE(p, sampler, NETWORKS[p], (B, T, C), MASK, KEY, num_steps, 0.0)


def states(p, sampler, num_steps, eta=0.0, num_states=2, mask=MASK):
  """The states of the same sample, float64."""
  return np.asarray(TRAJECTORY(p, sampler, NETWORKS[p], (B, T, C), mask, KEY, num_steps, eta, num_states), np.float64)


def run(p, sampler, num_steps, eta=0.0, mask=MASK):
  """The last of the states, which is the sample: one program serves both."""
  return states(p, sampler, num_steps, eta, mask=mask)[-1]


CASES = [("edm", Process("edm"), "heun", 48, 0.0), ("flow", Process("flow"), "heun", 24, 0.0),
         ("ddim_half", DDPM["cosine_v"], "ddim", 100, 0.5)]
CASES += [(f"{name}_{sampler}", DDPM[name], sampler, num_steps, 0.0) for name in ("linear_eps", "cosine_x0", "cosine_v")
          for sampler, num_steps in (("ddim", 100), ("ancestral", 250))]
FAST = ("edm", "flow", "ddim_half", "linear_eps_ancestral", "cosine_v_ddim")  # each sampler, schedule and process


@pytest.mark.parametrize("p, sampler, num_steps, eta", [
    pytest.param(*case, id=name, marks=[pytest.mark.slow] * (name not in FAST)) for name, *case in CASES])
def test_normal_data_come_back_with_their_mean_and_deviation(p, sampler, num_steps, eta):
  """1,280 numbers of 320 real slots: the mean's error is 0.4 / sqrt(1280) = 0.011 and the deviation's relative one is
  1 / sqrt(2560) = 0.020, so that 4.5 of them, 0.05 and 0.09, are passed by chance in one of 150,000 tests. Finite steps
  add at most 0.02 and 0.04 to that, as the next tests say.
  """
  x = run(p, sampler, num_steps, eta)
  real = MASK > 0
  assert np.all(x[~real] == 0)
  assert abs(x[real].mean() - MEAN) < 0.07 and abs(x[real].std() / SPREAD - 1) < 0.13


def test_steps_of_heun_are_of_second_order():
  """Half the step, a quarter of the error (3 to 5.5 times less), against the flow's exact map of noise to data."""
  for p, sizes in ((Process("flow"), (12, 24)), (Process("edm"), (24, 48))):
    errors = []
    for num_steps in sizes:
      start, end = states(p, "heun", num_steps)
      first = np.hypot(*(float(x) for x in diffusion.scales(p, samplers.level_grid(p, num_steps)[0])))
      noise = start * first
      wanted = MEAN + SPREAD * noise if p.kind == "flow" else MEAN + SPREAD / np.sqrt(
          SPREAD**2 + p.sigma_max**2) * (noise - MEAN)
      errors.append(np.abs(end - wanted)[MASK > 0].mean())
    assert 3 < errors[0] / errors[1] < 5.5, (p.kind, errors)
    assert errors[1] < 0.01


def test_heun_is_its_algorithm():
  """Karras et al.'s algorithm 1, written out in float64 from the same noise."""
  p, num_steps = Process("edm"), 24
  start, end = states(p, "heun", num_steps)
  power = lambda i: (80**(1 / 7) + i / (num_steps - 1) * (0.002**(1 / 7) - 80**(1 / 7)))**7
  sigmas = [power(i) for i in range(num_steps)] + [0.0]
  np.testing.assert_allclose(samplers.level_grid(p, num_steps), sigmas, rtol=1e-5)
  x = start * np.hypot(1, 80)
  for here, there in zip(sigmas[:-1], sigmas[1:]):
    slope = (x - posterior_mean(x, 1, here)) / here
    guess = x + (there - here) * slope
    if there > 0:
      guess = x + (there - here) * 0.5 * (slope + (guess - posterior_mean(guess, 1, there)) / there)
    x = guess
  np.testing.assert_allclose(end, MASK[..., None] * x, atol=2e-4)


@pytest.mark.parametrize("name", ["linear_eps", "cosine_v"])
def test_ddim_is_its_equation(name):
  """Song et al.'s eq. 12 with sigma 0, in float64 from the same noise, over ten of 1,000 levels."""
  p, num_steps = DDPM[name], 10
  start, end = states(p, "ddim", num_steps)
  levels = np.round(np.linspace(999, 0, num_steps)).astype(int)
  shares = [*diffusion.signal_shares(p.schedule, 1000)[levels], 1.0]
  x = start
  for here, there in zip(shares[:-1], shares[1:]):
    clean = posterior_mean(x, np.sqrt(here), np.sqrt(1 - here))
    eps = (x - np.sqrt(here) * clean) / np.sqrt(1 - here)
    x = np.sqrt(there) * clean + np.sqrt(1 - there) * eps
  np.testing.assert_allclose(end, MASK[..., None] * x, atol=5e-3)


def test_ancestral_steps_are_ddpms_posterior():
  """Ho et al.'s eq. 7 for levels that may be far apart: mean by x and x_noisy, and variance."""
  shares = jax.jit(samplers.noise_shares)
  for here, there in ((0.3, 0.31), (0.3, 0.6), (1e-4, 0.02), (0.98, 0.999), (0.99, 1.0)):
    roots = (np.sqrt(v) for v in (here, 1 - here, there, 1 - there))
    alpha, sigma, alpha_next, sigma_next = (np.float32(v) for v in roots)
    kept, fresh = map(np.asarray, shares(alpha, sigma, alpha_next, sigma_next, 1.0))
    beta = 1 - here / there
    of_noisy = np.sqrt(here / there) * (1 - there) / (1 - here)
    of_x = np.sqrt(there) * beta / (1 - here)
    # alpha_next x + kept eps with eps = (x_noisy - alpha x) / sigma
    np.testing.assert_allclose(kept / sigma, of_noisy, atol=1e-4)
    np.testing.assert_allclose(alpha_next - kept * alpha / sigma, of_x, atol=1e-4)
    np.testing.assert_allclose(fresh**2, beta * (1 - there) / (1 - here), atol=1e-5)
    np.testing.assert_allclose(kept**2 + fresh**2, 1 - there, atol=1e-6)


@pytest.mark.parametrize("schedule", ["linear", pytest.param("cosine", marks=pytest.mark.slow)])
def test_a_network_may_say_eps_x0_or_v(schedule):
  """Exact networks of each target make the same sample: to 1e-3, what float32 leaves of x at high noise."""
  made = [run(p, "ancestral", 50) for name, p in DDPM.items() if name.startswith(schedule)]
  assert len(made) > 1
  for other in made[1:]:
    np.testing.assert_allclose(other, made[0], atol=2e-3)


def test_ancestral_is_ddim_with_all_of_its_noise():
  p = DDPM["cosine_v"]
  np.testing.assert_array_equal(run(p, "ancestral", 10, 0.3), run(p, "ddim", 10, 1.0))
  assert np.abs(run(p, "ddim", 10, 1.0) - run(p, "ddim", 10, 0.0)).max() > 0.1


@pytest.mark.parametrize("p, sampler", [
    (Process("edm"), "heun"), pytest.param(Process("flow"), "heun", marks=pytest.mark.slow),
    (DDPM["cosine_v"], "ancestral")])
def test_a_trajectory_leads_from_noise_to_the_sample(p, sampler):
  found = states(p, sampler, 9, num_states=4)
  assert found.shape == (4, B, T, C) and np.all(found[:, MASK == 0] == 0)
  np.testing.assert_allclose(found[-1], sampled(p, sampler, 9), atol=1e-5)
  noise = found[0][MASK > 0]
  assert abs(noise.mean()) < 5 / np.sqrt(noise.size) and abs(noise.std() - 1) < 5 / np.sqrt(2 * noise.size)


def test_what_a_network_says_of_empty_slots_changes_nothing():
  """The network's own answers are not masked, and with other masks it answers the same of real slots."""
  p = Process("edm")
  everywhere = run(p, "heun", 24, mask=np.ones_like(MASK))
  np.testing.assert_array_equal(run(p, "heun", 24), MASK[..., None] * everywhere)


def test_one_step_is_finite():
  for p, sampler in ((Process("edm"), "heun"), (Process("flow"), "heun"), (DDPM["cosine_v"], "ddim")):
    assert np.isfinite(sampled(p, sampler, 1)).all()
