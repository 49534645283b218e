"""A decoder that denoises, looked at by level of noise: its loss on events of the test at levels from almost none to
almost nothing but noise, and objects on their way from noise to an event.
"""

from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import losses, rng
from jaxtrain.experiments.autoencoder import apply, denoising, diffusion, objective, scaling
from jaxtrain.experiments.autoencoder.problem import Problem

NUM_LEVELS = 24
MOST_EVENTS = 1024  # whose loss is measured at each level
NUM_SHOWN, NUM_STATES = 8, 6  # events on their way, and states of each


def make_profile(p: Problem) -> Callable:
  """Compiled `(variables, rows [B, .] of apply.rows_of, weight [B], key) -> {name: [NUM_LEVELS]}`: `level_log_snr`,
  `level_weight` of the squared error of objects' numbers, `level_loss` with and `level_error` without that weight,
  means over objects. Levels are spread as in training, and all have the same noise, so that they compare.
  """
  process = p.denoising.process
  def profile(given, rows, weight, key):
    batch = apply.batch_of(p.meta, rows)
    found, out = objective.through(p, {"params": given["params"]}, batch, given["codes"])
    bound = p.model.bind({"params": given["params"]})
    noise = rng.normal(key, batch["cont"].shape)
    there = (batch["ids"] > 0).astype(jnp.float32)
    count = losses.sum_rows(weight, jnp.sum(there, axis=1))
    def at(level):
      noisy = batch | {"level": jnp.full(len(rows), level), "level_noise": noise}
      decoded, error = denoising.denoise(p.denoising, bound, found.z, out.mask, noisy)
      return {"level_loss": losses.sum_rows(weight, error) / count,
              "level_error": losses.sum_rows(weight, objective.cont_rows(there, decoded, batch)) / count}
    levels = diffusion.at_share(process, (jnp.arange(NUM_LEVELS) + 0.5) / NUM_LEVELS)
    return jax.lax.map(at, levels) | {"level_log_snr": diffusion.log_snr(process, levels),
                                      "level_weight": diffusion.data_weight(process, levels)}
  return jax.jit(profile)


def make_way(p: Problem) -> Callable:
  """Compiled `(variables, rows [B, .] of apply.rows_of, key) -> [NUM_STATES, B, T, 4]`: objects in GeV and radians on
  their way from noise to an event that is drawn by the latent of each; 0 in empty slots.
  """
  def way(given, rows, key):
    batch = apply.batch_of(p.meta, rows)
    found, out = objective.through(p, {"params": given["params"]}, batch, given["codes"])
    bound = p.model.bind({"params": given["params"]})
    states = denoising.trajectory(p.denoising, bound, found.z, out.mask, batch["ids"], p.meta["num_features"], key,
                                  NUM_STATES)
    flat = scaling.to_momenta(p.meta["scaler"], states.reshape(-1, *states.shape[2:]))
    return flat.reshape(*states.shape[:3], -1) * (batch["ids"] > 0)[None, ..., None]
  return jax.jit(way)


def make_assess(p: Problem) -> Callable:
  """The part of the assessment: `(state, splits, key) -> ({}, arrays)` with those of `make_profile`, `trajectory` of
  `make_way`, and of the same events `trajectory_ids` and `trajectory_true`, [B, T, 4], which their latents are of.
  """
  profile, way = make_profile(p), make_way(p)

  def assess(state: Any, splits: Any, key: jax.Array) -> tuple[dict, dict]:
    noise_key, way_key = jax.random.split(key)
    given = splits.test.rows(np.arange(min(splits.test.num_rows, MOST_EVENTS)))
    rows, variables = apply.rows_of(given), apply.variables(state)
    found = profile(variables, rows, given["event_weight"], noise_key) | {
        "trajectory": way(variables, rows[:NUM_SHOWN], way_key)}
    return {}, {name: np.asarray(x) for name, x in found.items()} | {
        "trajectory_ids": given["ids"][:NUM_SHOWN], "trajectory_true": given["momenta"][:NUM_SHOWN]}
  return assess
