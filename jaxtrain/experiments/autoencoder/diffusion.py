"""Diffusion processes: noise that is added to data, what a network learns of it, and how its loss is weighted.

All of them make x_noisy = alpha x + sigma eps of data x and standard normal eps; `level` [B] says how noisy a row is:

  edm   alpha = 1; the level is sigma itself, its logarithm Normal in training. The network's input and output are
        scaled so that both have variance 1.
  ddpm  alpha^2 + sigma^2 = 1; the level is an integer in 0..num_levels-1, uniform in training. The network says the
        noise (eps), the data (x0), or v = alpha eps - sigma x.
  flow  alpha = 1 - t, sigma = t; the level is t, uniform in training. The network says the velocity eps - x.

A network is a function of (x_in [B, T, C], log_sigma [B]) that returns [B, T, C]; log_sigma is log(sigma / alpha). The
slots of an event may be objects' features or latents; what stands in slots of mask 0 has no part in anything.

**Source:** edm: Karras et al. 2022 (Elucidating the design space of diffusion-based generative models), table 1. ddpm:
Ho et al. 2020 (Denoising diffusion probabilistic models), eq. 4 and section 4; the cosine schedule: Nichol & Dhariwal
2021 (Improved denoising diffusion probabilistic models), eq. 17; v: Salimans & Ho 2022 (Progressive distillation),
appendix D; min-SNR: Hang et al. 2023 (Efficient diffusion training via min-SNR weighting strategy), section 3.4. flow:
Lipman et al. 2023 (Flow matching for generative modeling), eq. 22. Levels of a batch that are spread evenly: Kingma et
al. 2021 (Variational diffusion models), appendix I.
**Departs:** t of a flow is 1 for noise, and its least noise is 0.
"""

import functools
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri

from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder.nets_layers import only_real

KINDS = ("edm", "ddpm", "flow")
TARGETS = ("eps", "x0", "v")
SCHEDULES = ("linear", "cosine")
WEIGHTINGS = ("uniform", "snr", "min_snr")
SAMPLERS = {"edm": ("heun",), "flow": ("heun",), "ddpm": ("ddim", "ancestral")}  # of each kind of process
MOST_BETA = 0.999  # share of the variance that one level replaces
COSINE_OFFSET = 0.008
LINEAR_BETAS = (1e-4, 0.02)  # of 1000 levels
MOST_LOG_SIGMA = 7.0  # beyond which a network is not told how much noise there is: one level in a thousand of a flow
RARE = 1e-6  # least share of the levels on one side of a level

Network = Callable[[jax.Array, jax.Array], jax.Array]


OWN_FIELDS = {"edm": ("p_mean", "p_std", "sigma_min", "sigma_max", "rho"), "flow": (),
              "ddpm": ("target", "schedule", "num_levels", "weighting", "gamma")}  # which other kinds do not read


class Process(NamedTuple):
  """A process; a kind reads its OWN_FIELDS alone, and edm `data_sigma` too.

  Attributes:
    kind: one of KINDS.
    target: what the network says, one of TARGETS.
    schedule: how alpha falls with the level, one of SCHEDULES.
    num_levels: of ddpm.
    weighting: of the squared error of x: one of WEIGHTINGS; uniform is 1 for the error of the target itself.
    gamma: largest weight of min_snr.
    p_mean, p_std: of log sigma in training, of edm.
    sigma_min, sigma_max, rho: of edm's sampler: its first and its last but one sigma, and how they are spaced.
    data_sigma: deviation of the data, of edm.
  """
  kind: str
  target: str = "v"
  schedule: str = "cosine"
  num_levels: int = 1000
  weighting: str = "min_snr"
  gamma: float = 5.0
  p_mean: float = -1.2
  p_std: float = 1.2
  sigma_min: float = 0.002
  sigma_max: float = 80.0
  rho: float = 7.0
  data_sigma: float = 1.0


def make_process(settings: Any) -> Process:
  """The process of `config.model.diffusion`, whose data have a deviation of 1. Raises UserError."""
  def refuse(field, allowed):
    raise UserError(f"config.model.diffusion.{field}: got {settings[field]!r}, allowed {allowed}")
  for field, names in (("process", KINDS), ("target", TARGETS), ("schedule", SCHEDULES), ("weighting", WEIGHTINGS)):
    if settings[field] not in names:
      refuse(field, ", ".join(names))
  if settings.sampler not in SAMPLERS[settings.process]:
    refuse("sampler", f"{', '.join(SAMPLERS[settings.process])} with process {settings.process}")
  if settings.process == "ddpm":
    if settings.num_steps > settings.num_levels:
      refuse("num_steps", f"at most num_levels, {settings.num_levels}")
    if settings.target == "eps" and settings.schedule == "cosine":
      refuse("target", "x0, v with schedule cosine: nothing of the data is left at its highest level, and nothing can "
             "be said of them by the noise alone")
  if settings.process == "edm" and not 0 < settings.sigma_min < settings.sigma_max:
    refuse("sigma_min", f"positive numbers below sigma_max, {settings.sigma_max}")
  return Process(settings.process, **{name: settings[name] for name in Process._fields
                                      if name not in ("kind", "data_sigma")})


def without_effect(settings: Any) -> list[str]:
  """Fields of `config.model.diffusion` that this process or sampler does not read, and whose value is not the usual one
  of `Process`.
  """
  kind, usual = settings.process, Process._field_defaults
  unread = [name for other, names in OWN_FIELDS.items() if other != kind for name in names]
  if kind == "ddpm" and settings.weighting != "min_snr":
    unread.append("gamma")
  found = [name for name in unread if settings[name] != usual[name]]
  return found + ["eta"] * (settings.eta != 0 and settings.sampler != "ddim")


@functools.cache
def signal_shares(schedule: str, num_levels: int) -> np.ndarray:
  """[num_levels] float64: alpha^2 of each level of ddpm, the first the least noisy."""
  if schedule == "linear":
    betas = np.linspace(*LINEAR_BETAS, num_levels) * 1000 / num_levels
  else:
    at = np.cos((np.arange(num_levels + 1) / num_levels + COSINE_OFFSET) / (1 + COSINE_OFFSET) * np.pi / 2)**2
    betas = 1 - at[1:] / at[:-1]
  return np.cumprod(1 - np.minimum(betas, MOST_BETA))


def scales(process: Process, level: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(alpha, sigma) of levels, each of the levels' shape, float32. A level of -1 of ddpm is data without noise."""
  if process.kind == "edm":
    return jnp.ones_like(level), level
  if process.kind == "flow":
    return 1 - level, level
  shares = np.append(signal_shares(process.schedule, process.num_levels), 1.0)
  return (jnp.asarray(np.sqrt(shares), jnp.float32)[level], jnp.asarray(np.sqrt(1 - shares), jnp.float32)[level])


def log_snr(process: Process, level: jax.Array) -> jax.Array:
  """log(alpha^2 / sigma^2) of levels, each of the levels' shape; of a flow within those of t = RARE and 1 - RARE."""
  if process.kind == "flow":
    level = jnp.clip(level, RARE, 1 - RARE)
  alpha, sigma = scales(process, level)
  return 2 * (jnp.log(alpha) - jnp.log(sigma))


def draw_levels(process: Process, key: jax.Array, num_rows: int) -> jax.Array:
  """[num_rows] levels of the training distribution, spread evenly over it and in random order."""
  shift_key, order_key = jax.random.split(key)
  places = jax.random.permutation(order_key, num_rows).astype(jnp.float32)
  return at_share(process, (places + jax.random.uniform(shift_key)) / num_rows)


def at_share(process: Process, share: jax.Array) -> jax.Array:
  """The levels that are noisier than a share in 0..1 of those in training."""
  if process.kind == "edm":
    return jnp.exp(process.p_mean + process.p_std * ndtri(jnp.clip(share, RARE, 1 - RARE)))
  if process.kind == "flow":
    return share
  return jnp.clip(jnp.floor(share * process.num_levels).astype(jnp.int32), 0, process.num_levels - 1)


def share_below(process: Process, level: jax.Array) -> jax.Array:
  """In 0..1: the share of levels in training that are less noisy than a level; inverse of `at_share`."""
  if process.kind == "edm":
    return ndtr((jnp.log(level) - process.p_mean) / process.p_std)
  return level if process.kind == "flow" else (level + 0.5) / process.num_levels


def weight(process: Process, level: jax.Array) -> jax.Array:
  """What the squared error of the network's own target counts at a level. Karras et al. weight the error of x so that
  it is 1 for edm; for ddpm it is the weight of the error of x in terms of the target.
  """
  if process.kind != "ddpm" or process.weighting == "uniform":
    return jnp.ones(jnp.shape(level))
  snr = jnp.exp(log_snr(process, level))
  of_x = snr if process.weighting == "snr" else jnp.minimum(snr, process.gamma)
  return of_x / {"eps": snr, "x0": 1.0, "v": snr + 1}[process.target]


def data_weight(process: Process, level: jax.Array) -> jax.Array:
  """What the squared error of x counts at a level: of any process, for comparison."""
  alpha, sigma = scales(process, level)
  if process.kind == "edm":
    return (jnp.square(sigma) + process.data_sigma**2) / jnp.square(sigma * process.data_sigma)
  if process.kind == "flow":
    return 1 / jnp.square(sigma)
  snr = jnp.square(alpha / sigma)
  return weight(process, level) * {"eps": snr, "x0": 1.0, "v": snr + 1}[process.target]


def over_slots(x: jax.Array) -> jax.Array:
  """A number of each row [B] as [B, 1, 1]."""
  return x[:, None, None]


def add_noise(process: Process, x: jax.Array, level: jax.Array, eps: jax.Array, mask: jax.Array) -> jax.Array:
  """x_noisy [B, T, C] of data x and noise eps [B, T, C], levels [B] and mask [B, T]; 0 in empty slots."""
  alpha, sigma = map(over_slots, scales(process, level))
  return only_real(alpha * x + sigma * eps, mask)


def network_inputs(process: Process, x_noisy: jax.Array, level: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(x_in [B, T, C], log_sigma [B]): what a network sees of x_noisy at levels [B]."""
  if process.kind == "edm":
    return x_noisy / over_slots(jnp.hypot(level, process.data_sigma)), jnp.log(level)
  return x_noisy, jnp.clip(-0.5 * log_snr(process, level), -MOST_LOG_SIGMA, MOST_LOG_SIGMA)


def target(process: Process, x: jax.Array, level: jax.Array, eps: jax.Array) -> jax.Array:
  """[B, T, C]: what the network should say of data x with noise eps at levels [B]."""
  alpha, sigma = map(over_slots, scales(process, level))
  if process.kind == "edm":  # (x - c_skip x_noisy) / c_out without the difference of two near numbers
    return (sigma / process.data_sigma * x - process.data_sigma * eps) / jnp.hypot(sigma, process.data_sigma)
  if process.kind == "flow":
    return eps - x
  return {"eps": eps, "x0": x, "v": alpha * eps - sigma * x}[process.target]


def data_of(process: Process, out: jax.Array, x_noisy: jax.Array, level: jax.Array) -> jax.Array:
  """[B, T, C]: the estimate of the data from a network's output and x_noisy at levels [B]."""
  alpha, sigma = map(over_slots, scales(process, level))
  if process.kind == "edm":
    length = jnp.hypot(sigma, process.data_sigma)
    return jnp.square(process.data_sigma / length) * x_noisy + sigma * process.data_sigma / length * out
  if process.kind == "flow":
    return x_noisy - sigma * out
  if process.target == "eps":
    return (x_noisy - sigma * out) / alpha
  return out if process.target == "x0" else alpha * x_noisy - sigma * out


def denoised(process: Process, network: Network, x_noisy: jax.Array, level: jax.Array, mask: jax.Array) -> jax.Array:
  """[B, T, C]: the network's estimate of the data in x_noisy at levels [B]; 0 in slots of mask 0."""
  x_noisy = only_real(x_noisy, mask)
  return only_real(data_of(process, network(*network_inputs(process, x_noisy, level)), x_noisy, level), mask)


def error_rows(process: Process, out: jax.Array, x: jax.Array, level: jax.Array, eps: jax.Array, mask: jax.Array
               ) -> tuple[jax.Array, jax.Array]:
  """(weighted, plain), each [B], of a network's output on `add_noise` of the same arguments.

  Returns:
    the squared error of the target by `weight`, and that of the estimate of x; means over C, sums over real slots.
  """
  total = lambda gap: jnp.sum(mask * jnp.mean(jnp.square(only_real(gap, mask)), axis=2), axis=1)
  found = data_of(process, out, add_noise(process, x, level, eps, mask), level)
  return weight(process, level) * total(out - target(process, x, level, eps)), total(found - x)


def loss_rows(process: Process, network: Network, x: jax.Array, level: jax.Array, eps: jax.Array, mask: jax.Array
              ) -> tuple[jax.Array, jax.Array]:
  """`error_rows` of a network that sees data x [B, T, C] with noise eps [B, T, C] at levels [B]; mask is [B, T]."""
  x_in, log_sigma = network_inputs(process, add_noise(process, x, level, eps, mask), level)
  return error_rows(process, network(x_in, log_sigma), x, level, eps, mask)
