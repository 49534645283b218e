"""Samplers of diffusion processes: from noise to data by a network that denoises.

  heun       of edm and flow: the probability flow's differential equation by Heun's method; one step is two calls of
             the network. edm: Karras et al.'s levels, the last step to sigma 0 by Euler's method, which is the estimate
             of the data itself. flow: equal steps of t from 1 to 0.
  ddim       of ddpm: eta 0 draws no noise, eta 1 is ancestral sampling
  ancestral  of ddpm: its posterior of a level given the one above, of evenly spaced levels

Slots of mask 0 are 0 in every state.

**Source:** Karras et al. 2022 (Elucidating the design space of diffusion-based generative models), algorithm 1 and eq.
5; Song et al. 2021 (Denoising diffusion implicit models), eq. 12 and 16; Ho et al. 2020 (Denoising diffusion
probabilistic models), eq. 7.
"""

from typing import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import rng
from jaxtrain.experiments.autoencoder import diffusion
from jaxtrain.experiments.autoencoder.diffusion import Network, Process
from jaxtrain.experiments.autoencoder.nets_layers import only_real


def sample(process: Process, sampler: str, network: Network, shape: tuple[int, int, int], mask: jax.Array,
           key: jax.Array, num_steps: int, eta: float) -> jax.Array:
  """Data [B, T, C] float32 from noise.

  Args:
    process: what the network was trained for.
    sampler: one of `diffusion.SAMPLERS` of the process's kind.
    network: see `diffusion`.
    shape: (B, T, C).
    mask: [B, T], 1 for slots that hold something.
    key: of all the noise.
    num_steps: of the sampler; of ddpm at most its num_levels.
    eta: deviation of the noise of ddim's steps in terms of the ancestral sampler's.
  """
  x, step, _ = prepare(process, sampler, network, shape, mask, key, num_steps, eta)
  return jax.lax.fori_loop(0, num_steps, step, x)


def trajectory(process: Process, sampler: str, network: Network, shape: tuple[int, int, int], mask: jax.Array,
               key: jax.Array, num_steps: int, eta: float, num_states: int) -> jax.Array:
  """[num_states, B, T, C]: states of `sample` of the same arguments, evenly spaced, the first noise, the last data.

  A state is divided by sqrt(alpha^2 + sigma^2), so that states of normalised data have a variance of 1.
  """
  x, step, levels = prepare(process, sampler, network, shape, mask, key, num_steps, eta)
  def after(x, i):
    x = step(i, x)
    return x, x
  _, later = jax.lax.scan(after, x, jnp.arange(num_steps))
  alpha, sigma = diffusion.scales(process, levels)
  kept = np.round(np.linspace(0, num_steps, num_states)).astype(int)
  return (jnp.concatenate([x[None], later]) / jnp.hypot(alpha, sigma)[:, None, None, None])[kept]


def prepare(process: Process, sampler: str, network: Network, shape: tuple[int, int, int], mask: jax.Array,
            key: jax.Array, num_steps: int, eta: float
            ) -> tuple[jax.Array, Callable[[jax.Array, jax.Array], jax.Array], jax.Array]:
  """(noise to start from, step of (number of the step, state) to the next state, the levels of all states)."""
  start_key, steps_key = jax.random.split(key)
  levels = level_grid(process, num_steps)
  _, sigma = diffusion.scales(process, levels[0])
  step = heun_step(process, network, levels, mask) if sampler == "heun" else ddim_step(
      process, network, levels, mask, steps_key, 1.0 if sampler == "ancestral" else eta)
  return only_real(sigma * rng.normal(start_key, shape), mask), step, levels


def level_grid(process: Process, num_steps: int) -> jax.Array:
  """[num_steps + 1]: levels from noise alone to none."""
  if process.kind == "ddpm":
    return jnp.asarray(np.append(np.round(np.linspace(process.num_levels - 1, 0, num_steps)), -1), jnp.int32)
  if process.kind == "flow":
    return jnp.asarray(np.linspace(1, 0, num_steps + 1), jnp.float32)
  ends = [sigma**(1 / process.rho) for sigma in (process.sigma_max, process.sigma_min)]
  return jnp.asarray(np.append(np.linspace(*ends, num_steps)**process.rho, 0), jnp.float32)


def heun_step(process: Process, network: Network, levels: jax.Array, mask: jax.Array
              ) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """A step of Heun's method over `levels`, which are sigma of edm and t of a flow."""
  def slope(x, level):
    """dx / dlevel, of a flow what the network says."""
    at = jnp.full(len(x), level)
    if process.kind == "flow":
      return only_real(network(*diffusion.network_inputs(process, x, at)), mask)
    return (x - diffusion.denoised(process, network, x, at, mask)) / level

  def step(i, x):
    here, there = levels[i], levels[i + 1]
    first = slope(x, here)
    guess = x + (there - here) * first
    if process.kind == "flow":
      return x + (there - here) * 0.5 * (first + slope(guess, there))
    # At sigma 0 there is no slope: the guess stands.
    second = slope(guess, jnp.where(there > 0, there, here))
    return jnp.where(there > 0, x + (there - here) * 0.5 * (first + second), guess)

  return step


def ddim_step(process: Process, network: Network, levels: jax.Array, mask: jax.Array, key: jax.Array, eta: float
              ) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """A step of DDIM over `levels`; with eta 1 it is one of ancestral sampling."""
  alpha, sigma = diffusion.scales(process, levels)

  def step(i, x):
    found = diffusion.denoised(process, network, x, jnp.full(len(x), levels[i]), mask)
    eps = (x - alpha[i] * found) / sigma[i]
    kept, fresh = noise_shares(alpha[i], sigma[i], alpha[i + 1], sigma[i + 1], eta)
    noise = rng.normal(rng.step_key(key, i), x.shape)
    return only_real(alpha[i + 1] * found + kept * eps + fresh * noise, mask)

  return step


def noise_shares(alpha: jax.Array, sigma: jax.Array, alpha_next: jax.Array, sigma_next: jax.Array, eta: float
                 ) -> tuple[jax.Array, jax.Array]:
  """(kept, fresh): deviations of the noise of a state that is kept in the next one, and of what is drawn anew.

  With eta 1 the variance of the fresh noise is that of Ho et al.'s posterior.
  """
  lost = jnp.maximum(1 - jnp.square(alpha / alpha_next), 0.0)
  fresh = eta * sigma_next / sigma * jnp.sqrt(lost)
  return jnp.sqrt(jnp.maximum(jnp.square(sigma_next) - jnp.square(fresh), 0.0)), fresh
